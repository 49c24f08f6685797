//! What `get` takes.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::{
    connection::Connection,
    value::{Moment, duration, moment},
};

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
    #[command(flatten)]
    pub(crate) connection: Connection,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Listing {
    /// Attempts, errors, tokens, costs and times of each deployment.
    Stats(StatsArgs),
    /// Agents that are or lately were connected.
    Agents,
    /// Breakers of all deployments; rate gates and quarantines at agents.
    Breakers {
        /// Only breakers that are not closed.
        #[arg(long)]
        active: bool,
    },
    /// States of the configuration, newest first, with those that can be brought back.
    Revisions {
        /// At most so many.
        #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
    },
    /// Who changed what and when, newest first.
    Audit(AuditArgs),
    /// Drills that are active.
    Faults,
    /// What deployments cost now and later, and prices that are held back.
    Prices,
    /// Budgets, and what was spent of them in the period that runs.
    Budgets {
        /// Only this one, with what each agent holds of it.
        #[arg(value_name = "NAME")]
        name: Option<String>,
    },
    /// Counts of each deployment over time.
    History(HistoryArgs),
}

#[derive(Clone, Debug, Args)]
pub(crate) struct StatsArgs {
    /// Only the last so much time, up to 400 days: `10m`, `24h`. Default: all.
    #[arg(long, value_parser = duration, value_name = "DURATION", conflicts_with = "since")]
    pub(crate) window: Option<Duration>,
    /// Only from then on: 2026-11-22T16:00:00Z, or 2h for two hours ago.
    #[arg(long, value_parser = moment, value_name = "TIME")]
    pub(crate) since: Option<Moment>,
    /// Only before then. Default: now.
    #[arg(long, value_parser = moment, value_name = "TIME", requires = "since")]
    pub(crate) until: Option<Moment>,
    /// Only requests of this virtual model.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "NAME")]
    pub(crate) virtual_model: String,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct AuditArgs {
    /// Only from then on: 2026-11-22T16:00:00Z, or 2h for two hours ago.
    #[arg(long, value_parser = moment, value_name = "TIME")]
    pub(crate) since: Option<Moment>,
    /// Only before then.
    #[arg(long, value_parser = moment, value_name = "TIME")]
    pub(crate) until: Option<Moment>,
    /// Only what this one did, `admin:alice`.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "NAME")]
    pub(crate) principal: String,
    /// Only calls of this method, `ApplyConfig`.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "NAME")]
    pub(crate) method: String,
    /// At most so many.
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: u32,
    /// In the table: what each changed, line by line.
    #[arg(long)]
    pub(crate) changes: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct HistoryArgs {
    /// From then on: 2026-11-22T16:00:00Z, or 2h for two hours ago.
    #[arg(long, value_parser = moment, default_value = "1h", value_name = "TIME")]
    pub(crate) since: Moment,
    /// Up to then. Default: now.
    #[arg(long, value_parser = moment, value_name = "TIME")]
    pub(crate) until: Option<Moment>,
    /// Length of a step: 10s, 1m or 1h. Default: the finest that is kept for all of it.
    #[arg(long, value_parser = duration, value_name = "DURATION")]
    pub(crate) resolution: Option<Duration>,
    /// Only this deployment.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "NAME")]
    pub(crate) deployment: String,
    /// Only attempts for this virtual model.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "NAME")]
    pub(crate) virtual_model: String,
}
