//! `trunkline replay`: a trace that an agent recorded, told to the same core again.

use std::{fs::File, io::BufReader, path::Path, process::ExitCode};

use serde_json::json;
use trunkline_proto::trace::{Reader, TraceError};
use trunkline_simulator::replay::{Difference, Replay, replay};

use crate::{args::ReplayArgs, failure::Failure, terminal};

/// A trace, replayed.
struct Played {
    replay: Replay,
    build: String,
    /// Bytes of a message that was cut at the end.
    cut: u64,
}

pub(crate) async fn run(args: ReplayArgs) -> Result<ExitCode, Failure> {
    let path = args.file.clone();
    let played = tokio::task::spawn_blocking(move || play(&path)).await;
    let played = played.map_err(|error| Failure::from(anyhow::Error::from(error)))?;
    let played =
        played.map_err(|error| Failure::wrong_input(format!("replay {}: {error}", args.file.display())))?;
    let text = if args.json { format!("{:#}\n", to_json(&played)) } else { to_text(&played) };
    terminal::print(&text)?;
    Ok(if played.replay.is_same() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn play(path: &Path) -> Result<Played, TraceError> {
    let mut reader = Reader::new(BufReader::new(File::open(path)?))?;
    let build = reader.build().to_owned();
    let replay = replay(&mut reader)?;
    Ok(Played { replay, build, cut: reader.cut() })
}

fn to_json(played: &Played) -> serde_json::Value {
    let Played { replay, build, cut } = played;
    let first = replay.first.as_ref().map(|first| {
        let Difference { event, at_nanos, told, recorded, replayed, before } = first;
        json!({
            "event": event,
            "at_nanos": at_nanos,
            "told": told,
            "recorded": recorded,
            "replayed": replayed,
            "before": before,
        })
    });
    json!({
        "same": replay.is_same(),
        "recorded_by": build,
        "seconds": replay.span_nanos as f64 / 1e9,
        "events": replay.events,
        "tables": replay.tables,
        "requests": replay.requests,
        "attempts": replay.attempts,
        "retries": replay.retries,
        "beside": replay.beside,
        "hedges": replay.hedges,
        "openings": replay.openings,
        "given_up": replay.given_up,
        "decisions": replay.decisions,
        "decisions_same": replay.decisions_same,
        "answers": replay.answers,
        "answers_same": replay.same,
        "cut_bytes": cut,
        "first_difference": first,
    })
}

fn to_text(played: &Played) -> String {
    let Played { replay, build, cut } = played;
    let mut text = format!(
        "recorded by trunkline-agent {build}: {:.1} s, {} events, {} tables, {} requests\n\
         attempts {} (retries {}, beside {}, hedges {}), breaker openings {}, given up {}\n\
         decisions {}, the same {}\n\
         answers of the core {}, the same {}\n",
        replay.span_nanos as f64 / 1e9,
        replay.events,
        replay.tables,
        replay.requests,
        replay.attempts,
        replay.retries,
        replay.beside,
        replay.hedges,
        replay.openings,
        replay.given_up,
        replay.decisions,
        replay.decisions_same,
        replay.answers,
        replay.same,
    );
    if *cut > 0 {
        text.push_str("the trace ends within a message; its last bytes were left out\n");
    }
    let found = match &replay.first {
        Some(first) => {
            let before: String = first.before.iter().flat_map(|line| ["    ", line, "\n"]).collect();
            format!(
                "the first difference is at event {}:\n{before}  > {}\n  recorded: {}\n  replayed: {}\n",
                first.event, first.told, first.recorded, first.replayed
            )
        }
        None if replay.answers == 0 => "the trace holds no answer to compare\n".to_owned(),
        None => "all are the same\n".to_owned(),
    };
    text.push_str(&found);
    text
}
