//! What `up` takes, and how it and others log.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, ValueEnum, builder::BoolishValueParser};

/// The form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// What is logged, on standard error.
#[derive(Debug, Args)]
pub(crate) struct LogArgs {
    /// What is logged, in the syntax of tracing's EnvFilter, `info` or `trunkline_agent=debug`.
    #[arg(long, env = "TRUNKLINE_LOG", default_value = "warn", value_name = "FILTER")]
    pub(crate) log: String,
    /// Form of the log on standard error.
    #[arg(long, env = "TRUNKLINE_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,
}

#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    /// Configuration document, YAML or JSON. Applied when the data directory holds no
    /// configuration yet; use `apply` later. Without it: three simulated providers.
    #[arg(long, env = "TRUNKLINE_CONTROL_PLANE_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Apply the document of --config at each start, whatever the data directory holds.
    #[arg(long, requires = "config")]
    pub(crate) config_always: bool,
    /// Directory of all durable state. Made when it is missing.
    #[arg(long, env = "TRUNKLINE_DATA_DIR", default_value = "./trunkline-data", value_name = "DIR")]
    pub(crate) data_dir: PathBuf,
    /// The agent, for apps: OpenAI HTTP and gRPC on one port.
    #[arg(long, env = "TRUNKLINE_AGENT_LISTEN", default_value = "127.0.0.1:7700", value_name = "ADDRESS")]
    pub(crate) listen: SocketAddr,
    /// The agent's /metrics, /healthz, /readyz.
    #[arg(
        long,
        env = "TRUNKLINE_AGENT_OPS_LISTEN",
        default_value = "127.0.0.1:7701",
        value_name = "ADDRESS"
    )]
    pub(crate) ops_listen: SocketAddr,
    /// The control plane's gRPC.
    #[arg(
        long,
        env = "TRUNKLINE_CONTROL_PLANE_LISTEN",
        default_value = "127.0.0.1:7600",
        value_name = "ADDRESS"
    )]
    pub(crate) control_plane_listen: SocketAddr,
    /// The control plane's /metrics, /healthz, /readyz.
    #[arg(
        long,
        env = "TRUNKLINE_CONTROL_PLANE_OPS_LISTEN",
        default_value = "127.0.0.1:7601",
        value_name = "ADDRESS"
    )]
    pub(crate) control_plane_ops_listen: SocketAddr,
    /// Allow listeners beyond loopback although there is no TLS and no authentication.
    #[arg(long, env = "TRUNKLINE_INSECURE", value_parser = BoolishValueParser::new())]
    pub(crate) insecure: bool,
    #[command(flatten)]
    pub(crate) log: LogArgs,
}
