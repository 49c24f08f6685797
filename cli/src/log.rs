//! The log of the commands that run something: on standard error, so that standard
//! output stays for results.

use std::io;

use anyhow::{Context as _, anyhow};
use tracing_subscriber::EnvFilter;

use crate::{
    args::{LogArgs, LogFormat},
    failure::Failure,
};

/// Starts logging. Once per process.
pub(crate) fn init(args: &LogArgs) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(&args.log)
        .with_context(|| format!("--log '{}'", args.log))
        .map_err(Failure::WrongInput)?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let started = match args.log_format {
        LogFormat::Text => log.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).try_init(),
        LogFormat::Json => log.json().try_init(),
    };
    Ok(started.map_err(|error| anyhow!("start logging: {error}"))?)
}
