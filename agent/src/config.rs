//! Flags of the agent; each is an environment variable too.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Parser, builder::BoolishValueParser};

use crate::security::{Security, TlsFiles};

/// The agent: a proxy beside the app that sends each LLM request to the target that
/// the control plane's routing table and the moment suggest.
#[derive(Clone, Debug, Parser)]
#[command(name = "trunkline-agent", version)]
pub struct Flags {
    /// Address for apps: OpenAI-compatible HTTP and gRPC on one port. Port 0: a free one.
    #[arg(long, env = "TRUNKLINE_AGENT_LISTEN", default_value = "127.0.0.1:7700")]
    pub listen: SocketAddr,
    /// Address for operators: /metrics, /healthz, /readyz.
    #[arg(long, env = "TRUNKLINE_AGENT_OPS_LISTEN", default_value = "127.0.0.1:7701")]
    pub ops_listen: SocketAddr,
    /// Where the agent keeps its id and its last routing table.
    #[arg(long, env = "TRUNKLINE_AGENT_DATA_DIR", default_value = "./trunkline-data/agent")]
    pub data_dir: PathBuf,
    /// The control plane, for example http://127.0.0.1:7600.
    #[arg(long, env = "TRUNKLINE_AGENT_CONTROL_PLANE", value_name = "URL", conflicts_with = "static_config")]
    pub control_plane: Option<String>,
    /// Stable name of this agent. Default: a UUID kept in the data directory.
    #[arg(long, env = "TRUNKLINE_AGENT_ID")]
    pub agent_id: Option<String>,
    /// Address at which apps reach this agent. Default: the bound address.
    #[arg(long, env = "TRUNKLINE_AGENT_ADVERTISE", value_name = "URL")]
    pub advertise: Option<String>,
    /// Run alone on this configuration document, without a control plane.
    #[arg(long, env = "TRUNKLINE_AGENT_STATIC_CONFIG", value_name = "FILE")]
    pub static_config: Option<PathBuf>,
    /// Certificate of both listeners, PEM, with its chain. A replaced file is picked up.
    #[arg(long, env = "TRUNKLINE_AGENT_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Private key of the certificate, PEM, without a passphrase.
    #[arg(long, env = "TRUNKLINE_AGENT_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Certificate authorities to trust for the control plane, PEM. Default: the public ones.
    #[arg(long, env = "TRUNKLINE_AGENT_CONTROL_PLANE_CA", value_name = "FILE", requires = "control_plane")]
    pub control_plane_ca: Option<PathBuf>,
    /// This agent's token for the control plane: one line, `TOKEN` or `AGENT_ID TOKEN`. A
    /// replaced file is picked up.
    #[arg(
        long,
        env = "TRUNKLINE_AGENT_CONTROL_PLANE_TOKEN_FILE",
        value_name = "FILE",
        requires = "control_plane"
    )]
    pub control_plane_token_file: Option<PathBuf>,
    /// Tokens for /metrics, one a line. A replaced file is picked up.
    #[arg(long, env = "TRUNKLINE_AGENT_OPS_TOKEN_FILE", value_name = "FILE")]
    pub ops_token_file: Option<PathBuf>,
    /// Allow listeners beyond loopback without TLS and authentication, and the token in
    /// the clear to a control plane there.
    #[arg(long, env = "TRUNKLINE_AGENT_INSECURE", value_parser = BoolishValueParser::new())]
    pub insecure: bool,
    /// Record all that decisions are made of to this file, for `trunkline replay`: no text of
    /// prompts or answers, at most 256 MiB. What it holds is replaced.
    #[arg(long, env = "TRUNKLINE_AGENT_RECORD", value_name = "FILE")]
    pub record: Option<PathBuf>,
    /// Worker threads. Default: one per core.
    #[arg(long, env = "TRUNKLINE_AGENT_WORKERS", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub workers: Option<u16>,
    /// Log filter, for example info or trunkline_agent=debug.
    #[arg(long, env = "TRUNKLINE_AGENT_LOG", default_value = "info")]
    pub log: String,
    /// Log format.
    #[arg(long, env = "TRUNKLINE_AGENT_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// What an agent is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Address for apps.
    pub listen: SocketAddr,
    /// Address for operators.
    pub ops_listen: SocketAddr,
    /// Where the agent keeps its id and its last routing table.
    pub data_dir: PathBuf,
    /// The control plane. None: runs on its cache or static configuration alone.
    pub control_plane: Option<String>,
    /// Stable name. None: a UUID kept in the data directory.
    pub agent_id: Option<String>,
    /// Address at which apps reach it. None: the bound address.
    pub advertise: Option<String>,
    /// Configuration document to run on alone.
    pub static_config: Option<PathBuf>,
    /// Who may reach it, and whom it trusts.
    pub security: Security,
    /// File to record decisions to.
    pub record: Option<PathBuf>,
    /// Worker threads, at least 1.
    pub workers: usize,
}

impl From<Flags> for Options {
    fn from(flags: Flags) -> Self {
        Self {
            listen: flags.listen,
            ops_listen: flags.ops_listen,
            data_dir: flags.data_dir,
            control_plane: flags.control_plane,
            agent_id: flags.agent_id,
            advertise: flags.advertise,
            static_config: flags.static_config,
            security: Security {
                // Each needs the other, says the command line.
                tls: flags
                    .tls_cert
                    .zip(flags.tls_key)
                    .map(|(certificate, key)| TlsFiles { certificate, key }),
                control_plane_ca: flags.control_plane_ca,
                control_plane_token: flags.control_plane_token_file,
                ops_tokens: flags.ops_token_file,
                insecure: flags.insecure,
            },
            record: flags.record,
            workers: flags.workers.map_or_else(default_workers, usize::from),
        }
    }
}

/// One worker per core.
pub fn default_workers() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn switches_are_set_by_variables_as_people_write_them() {
        use clap::CommandFactory as _;
        let flags = Flags::command();
        let insecure = flags.get_arguments().find(|one| one.get_id() == "insecure").unwrap();
        let taken = insecure.get_possible_values();
        for value in ["1", "true", "yes"] {
            assert!(taken.iter().any(|one| one.matches(value, true)), "{value}");
        }
    }
}
