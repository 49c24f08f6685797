//! All that an agent tells its decision core, and what the core answers, as data: kept in
//! the order in which it was told, it can be told again, and the answers must be the same.
//!
//! A trace is complete: tables, fleet verdicts, times and seeds are in it, so nothing else
//! is needed. Nothing in it is text of a prompt or an answer, and no secret.

use alloc::{boxed::Box, vec::Vec};
use core::{
    fmt::{self, Write as _},
    time::Duration,
};

use crate::{
    breaker::Sample,
    classify::Classified,
    decide::Decision,
    eligibility::Profile,
    hint::RateHeaders,
    money::NanoUsd,
    registry::{FleetState, FleetVerdict, Forced, Observation, ProbeLease, Ticket},
    request::{AttemptId, Directive, Loser},
    table::{DeploymentIndex, RoutingTable},
    tenant::Tenant,
    time::Timestamp,
    train::FleetModels,
};

mod chance;
mod player;

pub use chance::Chance;
pub use player::Player;

/// One call of the core, and its answer.
#[derive(Clone, Debug)]
pub struct Entry {
    /// When it was made, on the agent's clock.
    pub at: Timestamp,
    /// Of the [`Chance`] that it was given. 0 if it takes none.
    pub seed: u64,
    /// What was told.
    pub event: Event,
    /// What was answered.
    pub answer: Answer,
}

/// What the core is told.
#[derive(Clone, Debug)]
pub enum Event {
    /// Another routing table is in use. Answer: its number.
    Bind(Box<RoutingTable>),
    /// Providers whose credential can't be resolved.
    MissingCredentials(Vec<Box<str>>),
    /// The provider's credential has another value.
    CredentialChanged(Box<str>),
    /// What operators force, of all deployments: until when.
    Forced(Vec<(Box<str>, Forced, Option<Timestamp>)>),
    /// All verdicts of the fleet under one epoch.
    Fleet {
        /// Of the control plane's configuration.
        epoch: Box<str>,
        /// The verdicts.
        verdicts: Vec<Verdict>,
    },
    /// All leases to probe.
    Leases(Vec<Lease>),
    /// The control plane counts as heard until then.
    Heard(Timestamp),
    /// What the control plane learned.
    Adopt(FleetModels),
    /// A request came. Answer: the decision on it.
    Arrive(Arrival),
    /// A request under way asks or tells. Answer: that of the call.
    Ask {
        /// As in its arrival.
        request: u64,
        /// What.
        call: Call,
    },
    /// A decision for an app that calls providers itself. Answer: the decision.
    Take {
        /// What is routed.
        place: Place,
        /// What the decision knows of it.
        profile: Profile,
    },
    /// An attempt without a request of its own starts. Answer: its ticket.
    Begin(Beginning),
    /// Something happened to an attempt. Answer: whether a breaker opened, if it may.
    Note {
        /// The attempt's ticket.
        ticket: u64,
        /// What.
        note: Note,
    },
    /// What came of leases was fetched. Answer: how much.
    TakeProbeResults,
    /// A lease will not be used.
    GiveBackLease(u64),
}

/// On which table, and on what of it, something is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Number of the table, as [`Event::Bind`] answered.
    pub table: u64,
    /// A virtual model or a deployment.
    pub goal: Goal,
}

/// What a request is routed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// Index of a virtual model.
    Model(u32),
    /// A pinned deployment.
    Pin(DeploymentIndex),
}

/// A request that came.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Arrival {
    /// Its number, never used twice.
    pub request: u64,
    /// What it is routed on.
    pub place: Place,
    /// What the decision knows of it.
    pub profile: Profile,
    /// What its caller allows.
    pub deadline: Option<Duration>,
    /// Whose it is.
    pub tenant: Tenant,
}

/// An attempt that starts by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beginning {
    /// Number of the table.
    pub table: u64,
    /// Where.
    pub deployment: DeploymentIndex,
    /// The lease that it needs. None: it needs none.
    pub lease: Option<u64>,
    /// It was made elsewhere and is over: see [`Registry::reported`](crate::registry::Registry::reported).
    pub reported: bool,
    /// That it will use.
    pub tokens: u64,
    /// Whose it is.
    pub tenant: Tenant,
    /// For what is learned of lengths; 0: for none.
    pub route: u64,
    /// Hash of its session.
    pub session: Option<u64>,
}

/// A call of [`Request`](crate::request::Request).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// What to do next.
    Next,
    /// The head of a whole answer came.
    Heard(AttemptId),
    /// An attempt failed.
    Failed(AttemptId, Classified),
    /// An attempt has its first content or its whole answer.
    Won(AttemptId),
    /// It ends without a winner.
    Abandon,
}

/// What happened to an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// What its head said of limits.
    RateHeaders(RateHeaders),
    /// A whole answer took so long.
    Pace(Option<u32>, Duration),
    /// A whole answer.
    Observe(Observation),
    /// A result.
    Record(Sample),
    /// A failure of an attempt without a request.
    Learn(Classified),
    /// A good answer to an attempt without a request.
    Answered,
    /// What it cost.
    Cost(Option<NanoUsd>),
    /// It was a health check, with that result and threshold.
    Check(Sample, u32),
    /// It runs no more.
    Release,
}

/// A [`FleetVerdict`] that owns its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// See [`FleetVerdict::subject`].
    pub subject: Box<str>,
    /// See [`FleetVerdict::state`].
    pub state: FleetState,
    /// See [`FleetVerdict::generation`].
    pub generation: u64,
    /// See [`FleetVerdict::until`].
    pub until: Option<Timestamp>,
    /// See [`FleetVerdict::openings`].
    pub openings: u32,
    /// See [`FleetVerdict::admit_percent`].
    pub admit_percent: u8,
}

/// A [`ProbeLease`] that owns its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// See [`ProbeLease::deployment`].
    pub deployment: Box<str>,
    /// See [`ProbeLease::lease_id`].
    pub lease_id: u64,
    /// See [`ProbeLease::generation`].
    pub generation: u64,
    /// See [`ProbeLease::expires`].
    pub expires: Timestamp,
    /// See [`ProbeLease::is_check`].
    pub is_check: bool,
}

/// What the core answers.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Answer {
    /// Nothing.
    #[default]
    Nothing,
    /// A number: of a table, of a ticket, of results. None: it was refused.
    Number(Option<u64>),
    /// Whether a breaker opened.
    Opened(bool),
    /// What to do.
    Directive(Directive),
    /// A decision.
    Decision(Summary),
    /// The winner's ticket, and who lost.
    Ended(Option<u64>, Vec<Loser>),
}

/// A decision, as far as it is shown, and a hash of the whole of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    /// Deployment, tier and chance of each candidate, in order.
    pub candidates: Vec<(DeploymentIndex, u32, f64)>,
    /// Deployments that were left out.
    pub excluded: Vec<DeploymentIndex>,
    /// Of all fields, reasons, costs and predictions included.
    pub digest: u64,
}

impl Answer {
    /// That of [`decide`](crate::decide).
    pub fn decision(decision: &Decision) -> Self {
        let candidates = decision.candidates.iter();
        Self::Decision(Summary {
            candidates: candidates.map(|one| (one.deployment, one.tier as u32, one.probability)).collect(),
            excluded: decision.excluded.iter().map(|one| one.deployment).collect(),
            digest: digest(decision),
        })
    }

    /// That of [`Request::won`](crate::request::Request::won).
    pub fn won(won: Option<&(Ticket, Vec<Loser>)>) -> Self {
        won.map_or(Self::Ended(None, Vec::new()), |(ticket, losers)| {
            Self::Ended(Some(ticket.number()), losers.clone())
        })
    }

    /// That of [`Request::abandon`](crate::request::Request::abandon).
    pub fn abandoned(losers: &[Loser]) -> Self {
        Self::Ended(None, losers.to_vec())
    }
}

impl Verdict {
    /// A copy that owns its name.
    pub fn of(verdict: &FleetVerdict<'_>) -> Self {
        let FleetVerdict { subject, state, generation, until, openings, admit_percent } = *verdict;
        Self { subject: subject.into(), state, generation, until, openings, admit_percent }
    }

    /// The same, as the registry takes it.
    pub fn borrowed(&self) -> FleetVerdict<'_> {
        let Self { ref subject, state, generation, until, openings, admit_percent } = *self;
        FleetVerdict { subject, state, generation, until, openings, admit_percent }
    }
}

impl Lease {
    /// A copy that owns its name.
    pub fn of(lease: &ProbeLease<'_>) -> Self {
        let ProbeLease { deployment, lease_id, generation, expires, is_check } = *lease;
        Self { deployment: deployment.into(), lease_id, generation, expires, is_check }
    }

    /// The same, as the registry takes it.
    pub fn borrowed(&self) -> ProbeLease<'_> {
        let Self { ref deployment, lease_id, generation, expires, is_check } = *self;
        ProbeLease { deployment, lease_id, generation, expires, is_check }
    }
}

/// FNV-1a over what `Debug` writes: every field is in it, floats to their last bit.
fn digest(value: &impl fmt::Debug) -> u64 {
    struct Fnv(u64);
    impl fmt::Write for Fnv {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            for byte in text.bytes() {
                self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            }
            Ok(())
        }
    }
    let mut hash = Fnv(0xcbf2_9ce4_8422_2325);
    // It can't fail: `write_str` above never does.
    let written = write!(hash, "{value:?}");
    debug_assert!(written.is_ok());
    hash.0
}
