//! The flags of `trunkline-control-plane`; each is also an environment variable.
//! Parsing only: what they mean is carried out in `start` and `main`.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Parser, ValueEnum, builder::BoolishValueParser};

/// Trunkline's control plane: keeps the configuration, streams routing tables to
/// agents, takes their telemetry.
#[derive(Clone, Debug, Parser)]
#[command(version, about)]
pub struct Flags {
    /// Address of the gRPC listener for apps, agents and operators.
    #[arg(
        long,
        env = "TRUNKLINE_CONTROL_PLANE_LISTEN",
        default_value = "127.0.0.1:7600",
        value_name = "ADDRESS"
    )]
    pub listen: SocketAddr,

    /// Address of the HTTP listener: /metrics, /healthz, /readyz.
    #[arg(
        long,
        env = "TRUNKLINE_CONTROL_PLANE_OPS_LISTEN",
        default_value = "127.0.0.1:7601",
        value_name = "ADDRESS"
    )]
    pub ops_listen: SocketAddr,

    /// Directory of the durable state. Made when it is missing.
    #[arg(
        long,
        env = "TRUNKLINE_CONTROL_PLANE_DATA_DIR",
        default_value = "./trunkline-data/control-plane",
        value_name = "DIR"
    )]
    pub data_dir: PathBuf,

    /// Configuration document, YAML or JSON.
    #[arg(long, env = "TRUNKLINE_CONTROL_PLANE_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// When the configuration document is applied.
    #[arg(long, env = "TRUNKLINE_CONTROL_PLANE_CONFIG_POLICY", value_enum, default_value_t = ConfigPolicy::Bootstrap)]
    pub config_policy: ConfigPolicy,

    /// Allow listeners beyond loopback although there is no TLS and no authentication.
    #[arg(long, env = "TRUNKLINE_CONTROL_PLANE_INSECURE", value_parser = BoolishValueParser::new())]
    pub insecure: bool,

    /// Form of the log on standard error.
    #[arg(long, env = "TRUNKLINE_CONTROL_PLANE_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,

    /// What is logged, in the syntax of tracing's EnvFilter.
    #[arg(long, env = "TRUNKLINE_CONTROL_PLANE_LOG", default_value = "info", value_name = "FILTER")]
    pub log: String,
}

/// When the configuration document is applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ConfigPolicy {
    /// Into an empty store. Later starts only warn when the document differs.
    #[default]
    Bootstrap,
    /// At each start.
    Always,
}

/// Form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flag_is_also_an_environment_variable() {
        use clap::CommandFactory as _;
        for argument in Flags::command().get_arguments() {
            if matches!(argument.get_id().as_str(), "help" | "version") {
                continue;
            }
            let variable = argument.get_env().unwrap().to_str().unwrap();
            assert!(variable.starts_with("TRUNKLINE_CONTROL_PLANE_"), "{variable}");
        }
    }
}
