//! What comes in: requests of real traces, or made up.
//!
//! A [`Traffic`] is a source of request sizes and of the pattern in which requests
//! come; the scenario says how many per second. The same scenario, traffic and seed
//! give the same requests for every policy.

use serde::{Deserialize, Serialize};

mod arrivals;
mod read;
mod sources;
#[cfg(test)]
mod tests;

pub use arrivals::{Arrival, arrivals};
pub use read::TrafficError;
pub use sources::NAMES;

/// A source of requests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Traffic {
    /// Shown in reports.
    pub name: String,
    /// What is mixed.
    pub parts: Vec<Part>,
}

/// One kind of requests: a virtual model of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// The virtual model that its requests ask for.
    pub route: String,
    /// Share of all requests, relative to the other parts' shares.
    pub share: f64,
    /// Where requests come from.
    pub source: Source,
}

/// Where requests come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Source {
    /// A trace, by time. It is played from a random row on, at the rate that is asked
    /// for, and from its beginning again at its end.
    Trace(Vec<Row>),
    /// Independent requests (a Poisson process) of lognormal sizes.
    Synthetic {
        /// Median input tokens.
        input_median: f64,
        /// Deviation of the logarithm of input tokens.
        input_sigma: f64,
        /// Median output tokens.
        output_median: f64,
        /// Deviation of the logarithm of output tokens.
        output_sigma: f64,
    },
}

/// One request of a trace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// When, in seconds from the trace's beginning.
    pub t_s: f64,
    /// Tokens of the prompt.
    pub input_tokens: u32,
    /// Tokens of the answer.
    pub output_tokens: u32,
    /// Tokens of the prompt that an earlier request had too.
    pub reusable_prefix_tokens: u32,
}

impl Traffic {
    /// A built-in one; see [`NAMES`].
    ///
    /// # Errors
    /// It is there but can't be read: its file was changed.
    pub fn named(name: &str) -> Result<Option<Self>, TrafficError> {
        sources::named(name)
    }

    /// A trace of CSV text: a header with `t_s`, `input_tokens`, `output_tokens` and, if
    /// wanted, `reusable_prefix_tokens`; other columns are left alone.
    ///
    /// # Errors
    /// What is wrong, with its line.
    pub fn from_csv(name: &str, text: &str) -> Result<Self, TrafficError> {
        let rows = read::rows(text)?;
        let part = Part { route: "chat".to_owned(), share: 1.0, source: Source::Trace(rows) };
        Ok(Self { name: name.to_owned(), parts: vec![part] })
    }
}
