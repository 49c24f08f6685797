//! What `prices` and `keys` take.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::connection::Connection;

#[derive(Debug, Args)]
pub(crate) struct PricesArgs {
    #[command(subcommand)]
    pub(crate) command: PricesCommand,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PricesCommand {
    /// Take over the prices of a price list; show what changes.
    ///
    /// Prices that jump are held back: `prices accept`.
    Import(ImportArgs),
    /// Let prices that were held back count from now on. `get prices` shows them.
    Accept {
        /// Names of price entries.
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
}

/// What a price list is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PriceListFormat {
    /// model_prices_and_context_window.json of LiteLLM.
    Litellm,
    /// `/models` as OpenRouter answers it.
    Openrouter,
}

#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// The price list; `-` reads standard input.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// What it is written in.
    #[arg(long, value_enum)]
    pub(crate) format: PriceListFormat,
    /// The list's name of a model, by deployment (`openai/mini`) or upstream model; an
    /// empty one leaves the deployment out. May be repeated.
    #[arg(long = "map", value_parser = mapping, value_name = "MODEL=NAME")]
    pub(crate) models: Vec<(String, String)>,
    /// Show what would change; change nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Take over prices that would be held back too.
    #[arg(long)]
    pub(crate) accept_held: bool,
}

fn mapping(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((model, name)) if !model.is_empty() => Ok((model.to_owned(), name.to_owned())),
        _ => Err(format!("{text:?} is not MODEL=NAME")),
    }
}

#[derive(Debug, Args)]
pub(crate) struct KeysArgs {
    #[command(subcommand)]
    pub(crate) command: KeysCommand,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Make a key for an app and print it, this once.
    ///
    /// The key alone is on standard output. Only its hash is kept.
    Create {
        /// Its name: `[a-z0-9][a-z0-9-]{0,62}`.
        name: String,
        /// A virtual model, or a `provider/deployment` to pin, that it may use; may be
        /// repeated. Default: every virtual model, and no pin.
        #[arg(long = "allow", value_name = "MODEL")]
        allowed_models: Vec<String>,
        /// Check the request; make no key.
        #[arg(long)]
        dry_run: bool,
    },
    /// Names of all keys, what they may use, and their hashes.
    List,
    /// Remove a key: whoever uses it is refused from then on.
    Delete {
        /// Its name.
        name: String,
    },
}
