//! `simulate-provider`: one behaviour model, served over HTTP until Ctrl-C.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::Context as _;
use clap::builder::PossibleValuesParser;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use trunkline_simulator::{
    ProviderModel,
    live::{ErrorBody, Fault, LiveProvider, serve},
    presets,
};

use crate::{args::SimulateArgs, failure::Failure, log, signal::Signals, terminal};

/// The names that --preset takes.
const PRESETS: [&str; 3] = ["swift", "steady", "thrifty"];

/// Shown under `--help`.
pub(crate) const FAULT_HELP: &str = "\
Faults, N counts content chunks of a stream:
  status:503                an error status with the body that OpenAI would send
  status:429:retry-after=2  the same with a Retry-After header
  html                      200 with an HTML page
  first-event-error         200 with an error object in place of the answer
  reset, reset-mid-body     the connection is reset, at once or after half the answer
  silent, silent-after-head, silent-after-role
                            nothing comes; after the head; after a stream's role chunk
  slow:20s                  so long until the first token
  cut:N, error:N, stall:N   after N chunks: closed, an error event, nothing more
  empty, malformed, missing-done, drip, close-idle
                            no content; broken JSON; no [DONE]; byte by byte; closes
                            the connection after the answer";

pub(crate) async fn run(args: SimulateArgs) -> Result<(), Failure> {
    log::init(&args.log)?;
    if !args.listen.ip().is_loopback() && !args.insecure {
        return Err(Failure::wrong_input(format!(
            "--listen {}: it is beyond loopback and anybody could use it; add --insecure to allow that",
            args.listen
        )));
    }
    let model = model(&args)?;
    let provider = Arc::new(LiveProvider::new(model, args.seed));
    provider.set_fault(args.fault);
    let listener =
        TcpListener::bind(args.listen).await.with_context(|| format!("listen on {}", args.listen))?;
    let address = listener.local_addr().context("read the bound address")?;
    terminal::print_line(&format!("listening provider http://{address}/v1"))?;
    let shutdown = CancellationToken::new();
    let mut signals = Signals::new()?;
    let serving = serve(listener, provider, shutdown.clone());
    tokio::pin!(serving);
    tokio::select! {
        biased; // The signal first: a busy provider must still stop.
        () = signals.recv() => {}
        () = &mut serving => return Ok(()),
    }
    shutdown.cancel();
    tokio::select! {
        biased; // A second signal ends at once.
        () = signals.recv() => {}
        () = serving => {}
    }
    Ok(())
}

/// For --preset.
pub(crate) fn preset_names() -> PossibleValuesParser {
    PossibleValuesParser::new(PRESETS)
}

fn model(args: &SimulateArgs) -> Result<ProviderModel, Failure> {
    if let Some(path) = &args.model_file {
        return read_model(path);
    }
    let name = args.preset.as_deref().unwrap_or_default();
    presets()
        .into_iter()
        .find(|model| model.name == name)
        .ok_or_else(|| Failure::wrong_input(format!("--preset {name}: there is no such preset")))
}

fn read_model(path: &Path) -> Result<ProviderModel, Failure> {
    let read = || -> anyhow::Result<ProviderModel> {
        let text = std::fs::read_to_string(path)?;
        let mut model: ProviderModel = serde_saphyr::from_str(&text)?;
        model.validate()?;
        if model.name.is_empty() {
            "simulated".clone_into(&mut model.name);
        }
        Ok(model)
    };
    read().with_context(|| format!("read the model {}", path.display())).map_err(Failure::WrongInput)
}

/// Reads a fault as it is typed.
pub(crate) fn fault(text: &str) -> Result<Fault, String> {
    let (name, rest) = text.split_once(':').map_or((text, None), |(name, rest)| (name, Some(rest)));
    let count = || chunks(name, rest);
    let fault = match name {
        "status" => return status(rest.unwrap_or_default()),
        "slow" => Fault::SlowFirstToken(slow(rest.unwrap_or_default())?),
        "cut" => Fault::CutAfterTokens(count()?),
        "error" => Fault::ErrorAfterTokens(count()?),
        "stall" => Fault::StallAfterTokens(count()?),
        _ => return simple(text),
    };
    Ok(fault)
}

/// The faults without a parameter.
fn simple(text: &str) -> Result<Fault, String> {
    Ok(match text {
        "html" => Fault::Html200,
        "first-event-error" => Fault::FirstEventError { code: "server_error".into() },
        "reset" => Fault::Reset,
        "reset-mid-body" => Fault::ResetMidBody,
        "silent" => Fault::Silent,
        "silent-after-head" => Fault::HeadersThenSilent,
        "silent-after-role" => Fault::RoleThenSilent,
        "empty" => Fault::Empty,
        "malformed" => Fault::Malformed,
        "missing-done" => Fault::MissingDone,
        "drip" => Fault::DripBytes,
        "close-idle" => Fault::CloseIdle,
        _ => return Err(format!("'{text}' is no fault; `simulate-provider --help` lists them")),
    })
}

fn chunks(name: &str, rest: Option<&str>) -> Result<u32, String> {
    let number = rest.and_then(|rest| rest.parse().ok());
    number.ok_or_else(|| format!("'{name}' needs a number of chunks: {name}:40"))
}

fn slow(rest: &str) -> Result<Duration, String> {
    crate::args::duration(rest)
}

fn status(rest: &str) -> Result<Fault, String> {
    let wrong = || format!("'status:{rest}' is wrong; write status:503 or status:429:retry-after=2");
    let (code, option) = rest.split_once(':').map_or((rest, None), |(code, rest)| (code, Some(rest)));
    let code: u16 = code.parse().map_err(|_| wrong())?;
    if !(100..=999).contains(&code) {
        return Err(wrong());
    }
    let retry_after = option
        .map(|option| option.strip_prefix("retry-after=").map(ToOwned::to_owned).ok_or_else(wrong))
        .transpose()?;
    Ok(Fault::Status { code, body: ErrorBody::usual(code), retry_after })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ready_model_has_its_name_here() {
        assert_eq!(presets().map(|model| model.name), PRESETS);
    }

    #[test]
    fn every_fault_in_the_help_can_be_typed() {
        let typed = [
            "status:503",
            "status:429:retry-after=2",
            "html",
            "first-event-error",
            "reset",
            "reset-mid-body",
            "silent",
            "silent-after-head",
            "silent-after-role",
            "slow:20s",
            "cut:1",
            "error:1",
            "stall:1",
            "empty",
            "malformed",
            "missing-done",
            "drip",
            "close-idle",
        ];
        for text in typed {
            let parsed = fault(text);
            assert!(parsed.is_ok(), "{text}: {parsed:?}");
            let word = text.split(':').next().unwrap();
            assert!(FAULT_HELP.contains(word), "{word}");
        }
        let limited =
            Fault::Status { code: 429, body: ErrorBody::usual(429), retry_after: Some("2".to_owned()) };
        assert_eq!(fault("status:429:retry-after=2"), Ok(limited));
    }

    #[test]
    fn faults_that_do_not_exist_are_refused() {
        for text in
            ["", "explode", "cut", "cut:x", "status", "status:7", "status:503:x", "slow:20", "reset:1"]
        {
            assert!(fault(text).is_err(), "{text}");
        }
    }
}
