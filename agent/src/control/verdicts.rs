//! Breakers that an operator forced, as the control plane published them last. They
//! outlive the connection, and end by themselves.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;
use trunkline_proto::{agent::v1::Publication, types::v1::BreakerState};

use super::duration_from_wire;

/// All verdicts of one publication, by deployment.
#[derive(Clone, Debug, Default)]
pub struct Verdicts {
    by_deployment: HashMap<Box<str>, Verdict>,
}

/// What an operator said of a breaker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// True: never used. False: always admitted.
    pub forced_open: bool,
    /// Grows with each change of this deployment's verdict.
    pub generation: u64,
    /// On the local clock. None: until it is changed.
    pub expires: Option<Instant>,
    /// For people.
    pub reason: String,
}

impl Verdicts {
    /// What a publication that arrived at `now` says.
    pub(super) fn from_wire(publication: Publication, now: Instant) -> Self {
        let verdicts = publication.verdicts.into_iter().filter_map(|wire| {
            let forced_open = match wire.state() {
                BreakerState::ForcedOpen => true,
                BreakerState::ForcedClosed => false,
                // The others are states that agents find themselves.
                _ => return None,
            };
            let remaining = wire.remaining.map(|left| {
                // A negative time is over.
                duration_from_wire(left).unwrap_or(Duration::ZERO)
            });
            let verdict = Verdict {
                forced_open,
                generation: wire.generation,
                // Further away than clocks reach: until it is changed.
                expires: remaining.and_then(|left| now.checked_add(left)),
                reason: wire.reason,
            };
            Some((wire.deployment.into_boxed_str(), verdict))
        });
        Self { by_deployment: verdicts.collect() }
    }

    /// The verdict on `deployment` that holds at `now`.
    pub fn get(&self, deployment: &str, now: Instant) -> Option<&Verdict> {
        let verdict = self.by_deployment.get(deployment)?;
        verdict.expires.is_none_or(|expires| now < expires).then_some(verdict)
    }

    /// All, those that have ended included.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Verdict)> {
        self.by_deployment.iter().map(|(deployment, verdict)| (&**deployment, verdict))
    }
}

#[cfg(test)]
mod tests {
    use trunkline_proto::agent::v1::BreakerVerdict;

    use super::*;

    #[test]
    fn a_verdict_ends_on_the_local_clock() {
        let verdict = |deployment: &str, state: BreakerState, seconds: Option<i64>| BreakerVerdict {
            deployment: deployment.to_owned(),
            state: state as i32,
            remaining: seconds.map(|seconds| prost_types::Duration { seconds, nanos: 0 }),
            ..BreakerVerdict::default()
        };
        let now = Instant::now();
        let publication = Publication {
            seq: 1,
            verdicts: vec![
                verdict("p/ten", BreakerState::ForcedOpen, Some(10)),
                verdict("p/over", BreakerState::ForcedOpen, Some(-1)),
                verdict("p/always", BreakerState::ForcedClosed, None),
                verdict("p/odd", BreakerState::Ramping, None),
            ],
            ..Publication::default()
        };
        let verdicts = Verdicts::from_wire(publication, now);
        let later = now + Duration::from_secs(10);
        assert!(verdicts.get("p/ten", now).unwrap().forced_open);
        assert!(verdicts.get("p/ten", later).is_none());
        assert!(verdicts.get("p/over", now).is_none());
        assert!(!verdicts.get("p/always", later).unwrap().forced_open);
        assert!(verdicts.get("p/odd", now).is_none());
    }
}
