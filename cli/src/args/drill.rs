//! What `fault` takes.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::{connection::Connection, value::duration};

#[derive(Debug, Args)]
pub(crate) struct FaultArgs {
    #[command(subcommand)]
    pub(crate) command: FaultCommand,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

#[derive(Debug, Subcommand)]
pub(crate) enum FaultCommand {
    /// Begin a drill, or replace the one of that name. `get faults` lists them.
    ///
    /// To the agent it looks as if the provider did it: breakers open, other targets take
    /// over, counts grow. What it changed is marked in the statistics.
    Inject(Box<InjectArgs>),
    /// End a drill.
    Clear {
        /// Its name.
        name: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct InjectArgs {
    /// Its name: `[a-z0-9][a-z0-9-]{0,62}`.
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) effect: Effect,
    /// It ends by itself after so long, 1s to 24h.
    #[arg(long, value_parser = duration, value_name = "DURATION")]
    pub(crate) ttl: Duration,
    /// Only at this agent; may be repeated. Default: all, those that come later too.
    #[arg(long = "agent", value_name = "ID")]
    pub(crate) agents: Vec<String>,
    /// Only of this `provider/deployment`, or of all of a `provider`; may be repeated.
    #[arg(long = "deployment", value_name = "NAME")]
    pub(crate) deployments: Vec<String>,
    /// Only requests for this virtual model; may be repeated.
    #[arg(long = "virtual-model", value_name = "NAME")]
    pub(crate) virtual_models: Vec<String>,
    /// Share of the attempts. Default: all.
    #[arg(long, value_name = "1..100", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) percent: Option<u32>,
    /// Why, for people and the audit log.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "TEXT")]
    pub(crate) reason: String,
    /// Check and show it, begin nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// What happens to attempts: one of these.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Effect {
    /// Wait so long before each attempt, 1ms to 10m.
    #[arg(long, value_parser = duration, value_name = "DURATION")]
    pub(crate) latency: Option<Duration>,
    /// Answer in the provider's place with this HTTP status.
    #[arg(long, value_name = "400..599", value_parser = clap::value_parser!(u32).range(400..=599))]
    pub(crate) error: Option<u32>,
    /// Take the request and never answer.
    #[arg(long)]
    pub(crate) stall: bool,
    /// Break the answer off after so many bytes of the provider's body.
    #[arg(long, value_name = "BYTES")]
    pub(crate) cut_after: Option<u64>,
    /// Neither sync nor telemetry, as if the control plane were gone.
    #[arg(long, conflicts_with_all = ["deployments", "virtual_models", "percent"])]
    pub(crate) control_plane_loss: bool,
}
