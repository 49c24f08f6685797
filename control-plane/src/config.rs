//! The flags of `trunkline-control-plane`; each is also an environment variable.
//! Parsing only: what they mean is carried out in `start` and `main`.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Parser, ValueEnum, builder::BoolishValueParser};

use crate::prices::Format;

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

    /// Go on from a store that was rolled back, under a new epoch: all agents take its
    /// older state over. For one start.
    #[arg(long, env = "TRUNKLINE_CONTROL_PLANE_ACCEPT_ROLLBACK", value_parser = BoolishValueParser::new())]
    pub accept_rollback: bool,

    /// Make the store from a file of ExportState, under a new epoch. Refused where there
    /// is a store already.
    #[arg(long, env = "TRUNKLINE_CONTROL_PLANE_IMPORT_STATE", value_name = "FILE")]
    pub import_state: Option<PathBuf>,

    /// Configuration document, YAML or JSON.
    #[arg(long, env = "TRUNKLINE_CONTROL_PLANE_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// When the configuration document is applied.
    #[arg(long, env = "TRUNKLINE_CONTROL_PLANE_CONFIG_POLICY", value_enum, default_value_t = ConfigPolicy::Bootstrap)]
    pub config_policy: ConfigPolicy,

    /// Price list to poll, https. What it says of models that are deployed becomes price
    /// entries; jumps are held back.
    #[arg(long, env = "TRUNKLINE_CONTROL_PLANE_PRICE_FEED", value_name = "URL")]
    pub price_feed: Option<String>,

    /// What the price list is written in.
    #[arg(long, env = "TRUNKLINE_CONTROL_PLANE_PRICE_FEED_FORMAT", value_enum, default_value_t = Format::Litellm)]
    pub price_feed_format: Format,

    /// How often the price list is asked for, 1s to 24h.
    #[arg(
        long,
        env = "TRUNKLINE_CONTROL_PLANE_PRICE_FEED_INTERVAL",
        default_value = "1h",
        value_parser = interval,
        value_name = "DURATION"
    )]
    pub price_feed_interval: Duration,

    /// Allow a price list on loopback or a private network, and http.
    #[arg(
        long,
        env = "TRUNKLINE_CONTROL_PLANE_PRICE_FEED_ALLOW_PRIVATE",
        value_parser = BoolishValueParser::new()
    )]
    pub price_feed_allow_private: bool,

    /// Certificate of both listeners, PEM, with its chain. A replaced file is picked up.
    #[arg(long, env = "TRUNKLINE_CONTROL_PLANE_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,

    /// Private key of the certificate, PEM, without a passphrase.
    #[arg(long, env = "TRUNKLINE_CONTROL_PLANE_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,

    /// Tokens of agents, one a line: `AGENT_ID TOKEN`, or `TOKEN` for any agent. With
    /// any token file each call needs a token. A replaced file is picked up.
    #[arg(long, env = "TRUNKLINE_CONTROL_PLANE_AGENT_TOKEN_FILE", value_name = "FILE")]
    pub agent_token_file: Option<PathBuf>,

    /// Tokens of admins, one a line: `NAME TOKEN`, or `TOKEN`. The audit log has the name.
    #[arg(long, env = "TRUNKLINE_CONTROL_PLANE_ADMIN_TOKEN_FILE", value_name = "FILE")]
    pub admin_token_file: Option<PathBuf>,

    /// Tokens of operators: routes, breakers, drains and drills.
    #[arg(long, env = "TRUNKLINE_CONTROL_PLANE_OPERATOR_TOKEN_FILE", value_name = "FILE")]
    pub operator_token_file: Option<PathBuf>,

    /// Tokens of viewers: reads, and /metrics beyond loopback.
    #[arg(long, env = "TRUNKLINE_CONTROL_PLANE_VIEWER_TOKEN_FILE", value_name = "FILE")]
    pub viewer_token_file: Option<PathBuf>,

    /// Allow listeners beyond loopback without TLS and tokens.
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

/// `30s`, `10m`, `1h`: 1 s to 24 h.
fn interval(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not 1s to 24h, as in 10m");
    let split = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(split);
    let seconds: u64 = number.parse().map_err(|_| wrong())?;
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        _ => return Err(wrong()),
    };
    let interval = seconds.checked_mul(unit).map(Duration::from_secs);
    let day = Duration::from_hours(24);
    interval.filter(|it| (Duration::from_secs(1)..=day).contains(it)).ok_or_else(wrong)
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

    #[test]
    fn intervals_are_a_second_to_a_day() {
        for (text, seconds) in [("1s", 1), ("10m", 600), ("24h", 86_400)] {
            assert_eq!(interval(text), Ok(Duration::from_secs(seconds)));
        }
        for text in ["", "5", "s", "0s", "25h", "-1s", "1d", "99999999999999999999h"] {
            assert!(interval(text).is_err(), "{text}");
        }
    }
}
