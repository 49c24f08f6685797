//! What the control plane said of breakers, as it was published last: those that an
//! operator forced, those that the fleet opened, and the probes that this agent may make.
//! They outlive the connection, and end by themselves.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::time::Instant;
use trunkline_proto::{
    agent::v1::{BreakerVerdict, HeldVerdict, ProbePurpose, Publication},
    types::v1::BreakerState,
};
use trunkline_routing::registry::FleetState;

use super::duration_from_wire;

/// After a restart an OPEN of the fleet is believed for no longer than this.
const REMEMBERED_OPEN_MAX: Duration = Duration::from_secs(30);

/// All of one publication.
#[derive(Clone, Debug, Default)]
pub struct Verdicts {
    /// Of the control plane's store. Generations of two epochs are not comparable.
    pub epoch: String,
    by_deployment: HashMap<Box<str>, Verdict>,
    fleet: HashMap<Box<str>, FleetWord>,
    leases: Vec<Lease>,
    /// As it came, for the disk.
    pub(super) wire: Vec<BreakerVerdict>,
    pub(super) received_unix_ms: u64,
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

/// What the fleet's breaker says of a deployment or a provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FleetWord {
    /// Where it stands.
    pub state: FleetState,
    /// Grows with each change of this subject's verdict.
    pub generation: u64,
    /// Of OPEN, on the local clock: when it is half-open. None: no time was given.
    pub until: Option<Instant>,
    /// Openings in a row.
    pub openings: u32,
    /// Of RAMPING, in percent.
    pub admit_percent: u8,
}

/// A probe that this agent may make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Never used twice.
    pub id: u64,
    /// Full name of what is probed.
    pub deployment: Box<str>,
    /// Of the verdict that it is for.
    pub generation: u64,
    /// On the local clock.
    pub expires: Instant,
    /// A health check of an idle deployment.
    pub is_check: bool,
}

impl Verdicts {
    /// What a publication that arrived at `now` says. `epoch`: of its control plane.
    pub(super) fn from_wire(publication: Publication, epoch: &str, now: Instant) -> Self {
        let leases = publication.probe_leases.into_iter().filter_map(|wire| {
            let is_check = match wire.purpose() {
                ProbePurpose::HalfOpen => false,
                ProbePurpose::HealthCheck => true,
                // Of a newer control plane.
                ProbePurpose::Unspecified => return None,
            };
            // A lease without an end would outlive whoever gave it.
            let remaining = wire.remaining.and_then(duration_from_wire)?;
            Some(Lease {
                id: wire.lease_id,
                deployment: wire.deployment.into_boxed_str(),
                generation: wire.generation,
                expires: now.checked_add(remaining)?,
                is_check,
            })
        });
        let leases = leases.collect();
        Self { leases, ..Self::of(publication.verdicts, epoch, now) }
    }

    /// What was kept on disk, as it holds at `now`. No lease survives a restart, and an
    /// OPEN of the fleet counts for 30 s at most. Time that passed is told by the wall
    /// clock: a jump of it costs at most what was left.
    pub(super) fn remembered(
        wire: Vec<BreakerVerdict>,
        epoch: &str,
        received_unix_ms: u64,
        now: Instant,
    ) -> Self {
        let passed = Duration::from_millis(unix_ms().saturating_sub(received_unix_ms));
        let aged = wire.into_iter().map(|mut verdict| {
            let most = match verdict.state() {
                BreakerState::Open => REMEMBERED_OPEN_MAX,
                _ => Duration::MAX,
            };
            let left = verdict.remaining.map(|left| duration_from_wire(left).unwrap_or(Duration::ZERO));
            let left = left.map(|left| left.saturating_sub(passed).min(most));
            verdict.remaining = left.map(super::duration_to_wire);
            verdict
        });
        Self::of(aged.collect(), epoch, now)
    }

    fn of(wire: Vec<BreakerVerdict>, epoch: &str, now: Instant) -> Self {
        let mut verdicts = Self { epoch: epoch.to_owned(), received_unix_ms: unix_ms(), ..Self::default() };
        for one in &wire {
            let remaining = one.remaining.map(|left| {
                // A negative time is over.
                duration_from_wire(left).unwrap_or(Duration::ZERO)
            });
            // Further away than clocks reach: until it is changed.
            let expires = remaining.and_then(|left| now.checked_add(left));
            let subject = one.deployment.as_str().into();
            let forced = |forced_open| Verdict {
                forced_open,
                generation: one.generation,
                expires,
                reason: one.reason.clone(),
            };
            let state = match one.state() {
                BreakerState::ForcedOpen => {
                    verdicts.by_deployment.insert(subject, forced(true));
                    continue;
                }
                BreakerState::ForcedClosed => {
                    verdicts.by_deployment.insert(subject, forced(false));
                    continue;
                }
                BreakerState::Open => FleetState::Open,
                BreakerState::HalfOpen => FleetState::HalfOpen,
                BreakerState::Ramping => FleetState::Ramping,
                BreakerState::Closed => FleetState::Closed,
                // Of a newer control plane.
                BreakerState::Unspecified => continue,
            };
            let word = FleetWord {
                state,
                generation: one.generation,
                until: expires,
                openings: one.openings,
                admit_percent: u8::try_from(one.admit_percent).unwrap_or(100),
            };
            verdicts.fleet.insert(subject, word);
        }
        verdicts.wire = wire;
        verdicts
    }

    /// What an operator said of `deployment` that holds at `now`.
    pub fn get(&self, deployment: &str, now: Instant) -> Option<&Verdict> {
        let verdict = self.by_deployment.get(deployment)?;
        verdict.expires.is_none_or(|expires| now < expires).then_some(verdict)
    }

    /// All that an operator said, also what has ended.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Verdict)> {
        self.by_deployment.iter().map(|(deployment, verdict)| (&**deployment, verdict))
    }

    /// All that the fleet's breakers say, by deployment or provider.
    pub fn fleet(&self) -> impl Iterator<Item = (&str, &FleetWord)> {
        self.fleet.iter().map(|(subject, word)| (&**subject, word))
    }

    /// The probes that this agent may make.
    pub fn leases(&self) -> &[Lease] {
        &self.leases
    }

    /// All that is held of `epoch`: a store that is behind it lost a commit.
    pub(super) fn held(&self, epoch: &str) -> Vec<HeldVerdict> {
        if self.epoch != epoch {
            return Vec::new();
        }
        let held = |one: &BreakerVerdict| HeldVerdict {
            deployment: one.deployment.clone(),
            generation: one.generation,
        };
        self.wire.iter().map(held).collect()
    }

    /// Whether both would be kept on disk alike: the time that is left does not count.
    pub(super) fn same_words(&self, other: &Self) -> bool {
        let word = |one: &BreakerVerdict| BreakerVerdict { remaining: None, ..one.clone() };
        self.epoch == other.epoch
            && self.wire.len() == other.wire.len()
            && self.wire.iter().zip(&other.wire).all(|(a, b)| word(a) == word(b))
    }
}

fn unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use trunkline_proto::agent::v1::ProbeLease;

    use super::*;

    fn verdict(deployment: &str, state: BreakerState, seconds: Option<i64>) -> BreakerVerdict {
        BreakerVerdict {
            deployment: deployment.to_owned(),
            state: state as i32,
            generation: 3,
            remaining: seconds.map(|seconds| prost_types::Duration { seconds, nanos: 0 }),
            admit_percent: 25,
            openings: 2,
            ..BreakerVerdict::default()
        }
    }

    fn all() -> Vec<BreakerVerdict> {
        vec![
            verdict("p/ten", BreakerState::ForcedOpen, Some(10)),
            verdict("p/over", BreakerState::ForcedOpen, Some(-1)),
            verdict("p/always", BreakerState::ForcedClosed, None),
            verdict("p/ramping", BreakerState::Ramping, None),
            verdict("p", BreakerState::Open, Some(90)),
            BreakerVerdict { state: 99, ..verdict("p/odd", BreakerState::Open, None) },
        ]
    }

    #[test]
    fn a_verdict_ends_on_the_local_clock() {
        let now = Instant::now();
        let publication = Publication { seq: 1, verdicts: all(), ..Publication::default() };
        let verdicts = Verdicts::from_wire(publication, "e", now);
        let later = now + Duration::from_secs(10);
        assert!(verdicts.get("p/ten", now).unwrap().forced_open);
        assert!(verdicts.get("p/ten", later).is_none());
        assert!(verdicts.get("p/over", now).is_none());
        assert!(!verdicts.get("p/always", later).unwrap().forced_open);
        assert!(verdicts.get("p", now).is_none() && verdicts.get("p/odd", now).is_none());
        let fleet: HashMap<_, _> = verdicts.fleet().collect();
        assert_eq!(fleet.len(), 2, "{fleet:?}");
        let FleetWord { state, until, openings, .. } = fleet["p"].clone();
        assert_eq!((state, openings), (FleetState::Open, 2));
        assert_eq!(until, Some(now + Duration::from_secs(90)));
        assert_eq!((fleet["p/ramping"].state, fleet["p/ramping"].admit_percent), (FleetState::Ramping, 25));
        assert_eq!(verdicts.held("e").len(), 6);
        assert_eq!(verdicts.held("f"), []);
    }

    #[test]
    fn only_leases_with_an_end_and_a_known_purpose_are_taken() {
        let now = Instant::now();
        let lease = |id: u64, purpose: i32, seconds: Option<i64>| ProbeLease {
            lease_id: id,
            deployment: "p/d".to_owned(),
            generation: 7,
            remaining: seconds.map(|seconds| prost_types::Duration { seconds, nanos: 0 }),
            purpose,
        };
        let probe_leases = vec![
            lease(1, ProbePurpose::HalfOpen as i32, Some(5)),
            lease(2, ProbePurpose::HealthCheck as i32, Some(6)),
            lease(3, ProbePurpose::HalfOpen as i32, None),
            lease(4, 99, Some(5)),
            lease(5, ProbePurpose::HalfOpen as i32, Some(-5)),
        ];
        let publication = Publication { probe_leases, ..Publication::default() };
        let verdicts = Verdicts::from_wire(publication, "e", now);
        let taken: Vec<_> = verdicts.leases().iter().map(|one| (one.id, one.is_check)).collect();
        assert_eq!(taken, [(1, false), (2, true)]);
        assert_eq!(verdicts.leases()[0].expires, now + Duration::from_secs(5));
    }

    #[test]
    fn after_a_restart_an_open_counts_for_thirty_seconds_at_most_and_an_order_for_what_is_left() {
        let now = Instant::now();
        let fleet_open = |verdicts: &Verdicts| verdicts.fleet["p"].until.unwrap() - now;
        let forced = |verdicts: &Verdicts| verdicts.by_deployment["p/ten"].expires.unwrap() - now;
        let fresh = Verdicts::remembered(all(), "e", unix_ms(), now);
        assert_eq!(fleet_open(&fresh), REMEMBERED_OPEN_MAX);
        assert!(forced(&fresh) > Duration::from_secs(9), "{:?}", forced(&fresh));
        assert!(fresh.leases().is_empty());
        let old = Verdicts::remembered(all(), "e", unix_ms() - 85_000, now);
        assert!(fleet_open(&old) <= Duration::from_secs(5), "{:?}", fleet_open(&old));
        assert_eq!(forced(&old), Duration::ZERO);
        assert!(!old.get("p/always", now).unwrap().forced_open);
        // The wall clock was set back meanwhile.
        let ahead = Verdicts::remembered(all(), "e", unix_ms() + 3_600_000, now);
        assert_eq!(forced(&ahead), Duration::from_secs(10));
    }
}
