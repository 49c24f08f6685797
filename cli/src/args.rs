//! What can be typed. Parsing only; each command's module says what it does.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use trunkline_simulator::live::Fault;

use crate::simulate;

/// Distributes LLM requests over providers: fast, cheap, without failures.
#[derive(Debug, Parser)]
#[command(version, about, propagate_version = true, arg_required_else_help = true)]
#[command(after_help = "Exit codes: 0 done, 1 failed, 2 wrong input.")]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a control plane and an agent in this process, on loopback.
    ///
    /// Without --config it starts three simulated providers of different price, speed
    /// and reliability and a virtual model `chat`, so that everything can be tried
    /// without a key. What you change then is kept in the data directory; a later start
    /// only tells the simulated providers' new addresses. Ctrl-C or SIGTERM finishes
    /// running requests and ends; a second one ends at once.
    Up(Box<UpArgs>),
    /// Replace the whole configuration by a document; show what changes.
    ///
    /// What the document lacks is deleted.
    Apply(ApplyArgs),
    /// Print the whole configuration as a document that `apply` takes.
    Export(ExportArgs),
    /// Show what goes on.
    Get(GetArgs),
    /// Run one simulated provider that speaks the OpenAI API.
    SimulateProvider(SimulateArgs),
    /// Print a completion script for a shell.
    Completions {
        /// Which shell.
        shell: Shell,
    },
}

/// Where the control plane is.
#[derive(Debug, Args)]
pub(crate) struct Connection {
    /// gRPC address of the control plane.
    #[arg(
        long,
        env = "TRUNKLINE_CONTROL_PLANE_URL",
        default_value = "http://127.0.0.1:7600",
        value_name = "URL"
    )]
    pub(crate) control_plane: String,
}

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
    #[arg(long, env = "TRUNKLINE_INSECURE")]
    pub(crate) insecure: bool,
    #[command(flatten)]
    pub(crate) log: LogArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ApplyArgs {
    /// Configuration document, YAML or JSON; `-` reads standard input.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Check the document and show what would change; change nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Carry out removals that are refused otherwise: the last target of a virtual
    /// model with traffic, or more than half of all deployments.
    #[arg(long)]
    pub(crate) force: bool,
    /// Fail unless the configuration is at this revision, the one the document was
    /// made from.
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "N")]
    pub(crate) base_revision: u64,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

/// The form of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DocumentFormat {
    /// For people.
    Yaml,
    /// For programs, and for grpcurl.
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// Form of the document.
    #[arg(short, long, value_enum, default_value_t = DocumentFormat::Yaml)]
    pub(crate) output: DocumentFormat,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

/// The form of a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ListingFormat {
    /// For people.
    Table,
    /// The RPC's answer in proto3 JSON.
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    #[command(subcommand)]
    pub(crate) what: Listing,
    /// Form of the listing.
    #[arg(short, long, global = true, value_enum, default_value_t = ListingFormat::Table)]
    pub(crate) output: ListingFormat,
    /// gRPC address of the control plane.
    #[arg(
        long,
        global = true,
        env = "TRUNKLINE_CONTROL_PLANE_URL",
        default_value = "http://127.0.0.1:7600",
        value_name = "URL"
    )]
    pub(crate) control_plane: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Listing {
    /// Attempts, errors, tokens, costs and times of each deployment.
    Stats {
        /// Only the last so much time, up to 31 days: `10m`, `24h`. Default: all.
        #[arg(long, value_parser = duration, value_name = "DURATION")]
        window: Option<Duration>,
        /// Only requests of this virtual model.
        #[arg(long, default_value = "", hide_default_value = true, value_name = "NAME")]
        virtual_model: String,
    },
    /// Agents that are or lately were connected.
    Agents,
    /// Breakers of all deployments; rate gates and quarantines at agents.
    Breakers {
        /// Only breakers that are not closed.
        #[arg(long)]
        active: bool,
    },
}

#[derive(Debug, Args)]
#[command(after_help = simulate::FAULT_HELP)]
pub(crate) struct SimulateArgs {
    /// Behaviour model, YAML or JSON.
    #[arg(long, value_name = "FILE", required_unless_present = "preset", conflicts_with = "preset")]
    pub(crate) model_file: Option<PathBuf>,
    /// A ready behaviour model.
    #[arg(long, value_name = "NAME", value_parser = simulate::preset_names())]
    pub(crate) preset: Option<String>,
    /// Where it listens.
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDRESS")]
    pub(crate) listen: SocketAddr,
    /// A fault that every answer shows.
    #[arg(long, value_parser = simulate::fault, value_name = "FAULT")]
    pub(crate) fault: Option<Fault>,
    /// Of its randomness: the same seed and requests, the same answers.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) seed: u64,
    /// Allow a listener beyond loopback.
    #[arg(long)]
    pub(crate) insecure: bool,
    #[command(flatten)]
    pub(crate) log: LogArgs,
}

/// A whole number with a unit: `500ms`, `20s`, `10m`, `1h`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("'{text}' is no duration; write 500ms, 20s, 10m or 1h");
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(wrong()),
    };
    number.checked_mul(milliseconds).map(Duration::from_millis).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn every_flag_has_help_and_the_definition_is_sound() {
        let mut command = Cli::command();
        command.build();
        command.clone().debug_assert();
        let mut commands = vec![command];
        while let Some(command) = commands.pop() {
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{}: {}", command.get_name(), argument.get_id());
            }
            commands.extend(command.get_subcommands().cloned());
        }
    }

    #[test]
    fn durations_need_a_unit_that_is_known() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("10m"), Ok(Duration::from_mins(10)));
        for wrong in ["", "5", "s", "1.5s", "-1s", "5d", "99999999999999999999h", "9999999999999999h"] {
            assert!(duration(wrong).unwrap_err().contains("10m"), "{wrong}");
        }
    }

    #[test]
    fn get_takes_its_options_before_and_after_the_listing() {
        let parse = |args: &[&str]| match Cli::try_parse_from(args).unwrap().command {
            Command::Get(args) => args.output,
            other => panic!("{other:?}"),
        };
        assert_eq!(parse(&["trunkline", "get", "stats", "-o", "json"]), ListingFormat::Json);
        assert_eq!(parse(&["trunkline", "get", "-o", "json", "agents"]), ListingFormat::Json);
    }
}
