//! What the fleet holds of a subject, for people.

use alloc::string::String;

use super::{
    Fleet, Lease, Purpose,
    decide::describe,
    verdict::{Forced, State},
};
use crate::time::Timestamp;

/// One verdict as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Under what an operator forces.
    pub state: State,
    /// When an open one is half-open.
    pub open_until: Option<Timestamp>,
    /// Openings in a row.
    pub openings: u32,
    /// Who probes.
    pub lease: Option<Lease>,
    /// What was seen lately; of a half-open one, how the probes went. Empty: nothing.
    pub evidence: String,
}

impl Fleet {
    /// What is held of `subject`.
    pub fn status(&self, subject: &str, now: Timestamp) -> Status {
        let verdict = self.verdicts.get(subject);
        let state = self.state_of(subject);
        let base = verdict.map_or(0, |verdict| verdict.base);
        let summary = self.evidence.summary(subject, base, now);
        let evidence = match verdict {
            Some(verdict) if state == State::HalfOpen => {
                alloc::format!("{} of 2 probes succeeded", verdict.probing.successes())
            }
            _ if summary.agents > 0 => describe(&summary),
            _ => String::new(),
        };
        Status {
            state,
            open_until: verdict.filter(|_| state == State::Open).map(super::Verdict::open_until),
            openings: verdict.map_or(0, |verdict| verdict.openings(now)),
            lease: self.leases.get(subject, Purpose::HalfOpen).cloned(),
            evidence,
        }
    }

    /// The state of a verdict; what an operator forces lies above it.
    pub(super) fn state_of(&self, subject: &str) -> State {
        self.verdicts.get(subject).map_or(State::Closed, |verdict| verdict.record.state)
    }

    /// What an operator forces.
    pub(super) fn forced(&self, subject: &str) -> Option<Forced> {
        self.verdicts.get(subject).and_then(|verdict| verdict.forced)
    }

    /// Whether the verdict on a deployment itself lets traffic through.
    pub(super) fn admits_alone(&self, deployment: &str) -> bool {
        match self.forced(deployment) {
            Some(forced) => forced == Forced::Closed,
            None => !self.state_of(deployment).is_out(),
        }
    }
}
