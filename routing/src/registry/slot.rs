//! The state of one deployment, and of one account.

use alloc::boxed::Box;

use super::{Forced, observe::Adopted};
use crate::{
    breaker::Breaker,
    caps::Caps,
    hold::Hold,
    limits::{LimitKind, Meter},
    pace::Pace,
    table::{Credential, Limits},
    time::Timestamp,
    train::{learner::Learner, moment::Moment},
};

/// Names a deployment's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SlotId {
    pub(super) index: u32,
    /// Places are used again: what was kept from an earlier use must not touch a later.
    pub(super) incarnation: u32,
}

/// What is known of a deployment.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) name: Box<str>,
    pub(super) breaker: Breaker,
    pub(super) forced: Option<(Forced, Option<Timestamp>)>,
    pub(super) hold: Hold,
    /// None: the deployment is gone.
    pub(super) account: Option<usize>,
    pub(super) credential: Option<Credential>,
    /// Counts changes of the credential: a late word on an old one says nothing about
    /// the new one.
    pub(super) credentials: u32,
    pub(super) incarnation: u32,
    pub(super) limits: Limits,
    pub(super) meter: Option<Meter>,
    pub(super) caps: Caps,
    pub(super) in_flight: u32,
    pub(super) pace: Pace,
    pub(super) learner: Learner,
    /// The last seconds, as this agent saw them.
    pub(super) moment: Moment,
    pub(super) fleet: Option<Adopted>,
    /// When an attempt last began to answer.
    pub(super) heard: Option<Timestamp>,
    pub(super) live: bool,
    /// When a result said something last.
    pub(super) last_result: Timestamp,
    /// Health checks that failed in a row.
    pub(super) failed_checks: u32,
    /// Where the fleet's verdict on it is.
    pub(super) verdict: Option<usize>,
    /// Generation of the fleet's verdict under which the breaker opened last. 0: none.
    pub(super) base_generation: u64,
}

/// What is known of a provider under one credential.
#[derive(Debug, Default)]
pub(super) struct Account {
    pub(super) provider: Box<str>,
    pub(super) credential: Option<Credential>,
    pub(super) hold: Hold,
    pub(super) missing: bool,
    /// Where the fleet's verdict on it is.
    pub(super) verdict: Option<usize>,
}

impl Slot {
    /// The configured limit that an attempt of `tokens` would break, if any.
    pub(super) fn used_up(&self, now: Timestamp, tokens: u64) -> Option<LimitKind> {
        if self.limits.max_in_flight.is_some_and(|most| self.in_flight >= most) {
            return Some(LimitKind::InFlight);
        }
        self.meter.as_ref()?.exceeded(&self.limits, now, tokens)
    }

    pub(super) fn forced(&self, now: Timestamp) -> Option<Forced> {
        self.forced.filter(|(_, until)| until.is_none_or(|until| until > now)).map(|(forced, _)| forced)
    }
}
