//! What can be typed. Parsing only; each command's module says what it does.

mod compare;
mod connection;
mod drill;
mod get;
mod prices;
mod up;
mod value;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use trunkline_simulator::live::Fault;

#[cfg(test)]
pub(crate) use self::value::Moment;
pub(crate) use self::{
    compare::{CompareArgs, CompareFormat},
    connection::Connection,
    drill::{Effect, FaultArgs, FaultCommand, InjectArgs},
    get::{AuditArgs, GetArgs, HistoryArgs, Listing, ListingFormat, StatsArgs},
    prices::{ImportArgs, KeysArgs, KeysCommand, PriceListFormat, PricesArgs, PricesCommand},
    up::{LogArgs, LogFormat, UpArgs},
    value::duration,
};
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
    /// Print the whole configuration as a document that `apply` takes, or keep all state.
    Export(ExportArgs),
    /// Show what goes on.
    Get(GetArgs),
    /// Tell why a request went where it went: the decision with the id that
    /// `x-trunkline-decision` gave.
    ///
    /// Ask the agent that answered it: an agent keeps its newest 4,096 decisions.
    Explain(ExplainArgs),
    /// Make the configuration what it was at a revision; show what changes.
    ///
    /// It becomes a new revision. `get revisions` lists those that can be brought back.
    Rollback(RollbackArgs),
    /// Take an agent out of service, or bring it back.
    ///
    /// It tells apps and load balancers that it is not ready and finishes what it has.
    Drain(DrainArgs),
    /// Begin or end a drill: a labelled fault that ends by itself.
    Fault(FaultArgs),
    /// Prices from price lists.
    Prices(PricesArgs),
    /// Keys of apps.
    Keys(KeysArgs),
    /// Follow the configuration: what is there, and then each change.
    ///
    /// Ends with Ctrl-C. When the control plane goes away it waits for it and goes on
    /// where it was.
    Watch(WatchArgs),
    /// Ask a /healthz, /readyz or other URL; exit 0 if the answer is good.
    ///
    /// For health checks in containers, which have no curl.
    Probe(ProbeArgs),
    /// Compare strategies on a scenario, in virtual time: the code that agents run, other
    /// ways to distribute requests, and what an oracle could have done.
    Compare(Box<CompareArgs>),
    /// Tell a trace that an agent recorded (`trunkline-agent --record FILE`) to the same
    /// decision core again, on virtual time; exit 0 if all its answers are the same.
    Replay(ReplayArgs),
    /// Run one simulated provider that speaks the OpenAI API.
    SimulateProvider(SimulateArgs),
    /// Print a completion script for a shell.
    Completions {
        /// Which shell.
        shell: Shell,
    },
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
    /// Instead of the configuration, write all durable state to this file, for
    /// `trunkline-control-plane --import-state`. It appears once it is whole.
    #[arg(long, value_name = "FILE", conflicts_with = "output")]
    pub(crate) state: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// Id of the decision.
    #[arg(value_name = "DECISION")]
    pub(crate) decision: String,
    /// The agent that answered, or the control plane for decisions of its own Route.
    #[arg(long, default_value = "http://127.0.0.1:7700", value_name = "URL")]
    pub(crate) agent: String,
    /// File with the app key that made the request: one line, `TOKEN` or `NAME TOKEN`.
    /// Needed where keys are configured.
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Certificate authorities to trust for https://, PEM, instead of the public ones.
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t = ListingFormat::Table)]
    pub(crate) output: ListingFormat,
}

#[derive(Debug, Args)]
pub(crate) struct RollbackArgs {
    /// Which revision.
    #[arg(value_name = "REVISION", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) revision: u64,
    /// Show what would change; change nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Carry out removals that are refused otherwise, as of `apply`.
    #[arg(long)]
    pub(crate) force: bool,
    /// Fail unless the configuration is at this revision.
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "N")]
    pub(crate) base_revision: u64,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

#[derive(Debug, Args)]
pub(crate) struct DrainArgs {
    /// Id of the agent, as `get agents` shows it.
    #[arg(value_name = "AGENT")]
    pub(crate) agent: String,
    /// Bring it back into service.
    #[arg(long)]
    pub(crate) resume: bool,
    /// Why, for people and the audit log.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "TEXT")]
    pub(crate) reason: String,
    /// Wait until it says that it is out of service with nothing in flight, at most so
    /// long: then it can be stopped without loss.
    #[arg(long, value_parser = duration, value_name = "DURATION", conflicts_with = "resume")]
    pub(crate) wait: Option<Duration>,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

#[derive(Debug, Args)]
pub(crate) struct WatchArgs {
    /// Form of a change: a line for people, or the RPC's message in proto3 JSON, one a line.
    #[arg(short, long, value_enum, default_value_t = ListingFormat::Table)]
    pub(crate) output: ListingFormat,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

#[derive(Debug, Args)]
pub(crate) struct ProbeArgs {
    /// What to ask, http:// or https://.
    #[arg(value_name = "URL")]
    pub(crate) url: String,
    /// File with a token to present: one line, `TOKEN` or `NAME TOKEN`. Without it: none.
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Certificate authorities to trust for https://, PEM, instead of the public ones.
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// How long it may take in all.
    #[arg(long, value_parser = duration, default_value = "3s", value_name = "DURATION")]
    pub(crate) timeout: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    /// The trace.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Print the result as JSON.
    #[arg(long)]
    pub(crate) json: bool,
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
    fn get_takes_its_options_before_and_after_the_listing() {
        let parse = |args: &[&str]| match Cli::try_parse_from(args).unwrap().command {
            Command::Get(args) => args.output,
            other => panic!("{other:?}"),
        };
        assert_eq!(parse(&["trunkline", "get", "stats", "-o", "json"]), ListingFormat::Json);
        assert_eq!(parse(&["trunkline", "get", "-o", "json", "agents"]), ListingFormat::Json);
    }
}
