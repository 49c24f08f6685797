//! What a request says to its caller, and the world in which it is asked.

use core::time::Duration;

use crate::{
    decide::Route,
    registry::{Binding, Registry},
    table::{DeploymentIndex, RoutingTable},
    time::Timestamp,
};

/// Names an attempt within its request, by order of starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptId(pub u32);

/// Why an attempt starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// It is the request's first.
    First,
    /// What ran before has ended.
    Retry,
    /// What runs is silent for longer than allowed or predicted.
    Beside,
    /// What runs is slower than almost all are: this one races it.
    Hedge,
}

impl Start {
    /// As shown.
    pub const fn name(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Retry => "retry",
            Self::Beside => "beside",
            Self::Hedge => "hedge",
        }
    }
}

/// What the caller must do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Directive {
    /// Start an attempt, then ask again.
    Start {
        /// Its name.
        id: AttemptId,
        /// Where it goes.
        deployment: DeploymentIndex,
        /// Its tier, for time limits.
        tier: usize,
        /// What for.
        why: Start,
    },
    /// End an attempt that ran out of time, report it with [`Request::failed`](super::Request::failed), then
    /// ask again.
    Kill(AttemptId),
    /// Wait for an attempt to say something, at most until then, then ask again.
    Wait(Timestamp),
    /// It is over; running attempts are to be dropped after [`Request::abandon`](super::Request::abandon).
    Fail(Failure),
}

/// How a request ends without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// What this attempt's provider said goes to the caller.
    Return(AttemptId),
    /// All that was allowed was tried.
    Exhausted {
        /// When it may work again, if known.
        retry_after: Option<Duration>,
        /// Every attempt was refused for its rate.
        rate_limited: bool,
    },
    /// Nothing was tried, since no target may serve the request now.
    NoTarget {
        /// When one may, if known.
        retry_after: Option<Duration>,
    },
    /// The deadline passed.
    Deadline,
}

/// The world in which a request asks: who it is decided on, and what is known.
#[derive(Debug)]
pub struct Context<'a, R> {
    /// What is known of targets.
    pub registry: &'a mut Registry,
    /// The table the request started under.
    pub table: &'a RoutingTable,
    /// Maps that table to the registry.
    pub binding: &'a Binding,
    /// What it was decided on.
    pub route: Route<'a>,
    /// Now.
    pub now: Timestamp,
    /// Chance.
    pub rng: &'a mut R,
}
