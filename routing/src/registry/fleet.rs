//! What the fleet says of targets: verdicts that the control plane merged from all
//! agents. They only take away: a breaker that is open here stays open, and what an
//! operator forced rules over both.
//!
//! A verdict is obeyed while the control plane is heard. When it is not, an OPEN holds
//! until its time is over on the local clock; after a random wait the agent then finds
//! out by itself, one probe at a time. The fencing by generation is that of etcd's
//! compare-and-swap; the multiplied open time is gRFC A50's.

use alloc::{boxed::Box, collections::BTreeMap, vec::Vec};
use core::time::Duration;

use rand_core::Rng;

use super::{Registry, lease::Leases, slot::Slot};
use crate::{math, table::BreakerPolicy, time::Timestamp};

/// Subjects that are remembered: 20,000 deployments and their providers, twice. What
/// comes on top holds nothing back.
const SUBJECTS_MAX: usize = 50_000;
/// A return to full traffic takes the fleet so long; who can't hear how far it got
/// counts on it.
const RAMP_LASTS: Duration = Duration::from_secs(30);
/// When the fleet's next word has no known time, those who wait ask again after so long.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Where the fleet's breaker of a target stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FleetState {
    /// Nothing is held back.
    Closed,
    /// No traffic.
    Open,
    /// Probes under lease only.
    HalfOpen,
    /// A growing share of the traffic.
    Ramping,
}

/// The fleet's word on one target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FleetVerdict<'a> {
    /// `provider/deployment`, or a provider's name alone for all its deployments.
    pub subject: &'a str,
    /// Where it stands.
    pub state: FleetState,
    /// Grows with each change of this subject's verdict within one epoch.
    pub generation: u64,
    /// Of OPEN: when probes begin, on the local clock.
    pub until: Option<Timestamp>,
    /// Openings in a row; set how long it stays open.
    pub openings: u32,
    /// Of RAMPING: share of the traffic in percent, 1 to 100.
    pub admit_percent: u8,
}

/// All that the fleet said, and what this agent may do about it.
#[derive(Debug, Default)]
pub(super) struct Fleet {
    epoch: Box<str>,
    /// By subject. Slots and accounts keep indices into it.
    held: Vec<Held>,
    /// The control plane counts as heard until then.
    heard_until: Timestamp,
    pub(super) leases: Leases,
}

#[derive(Clone, Debug)]
struct Held {
    subject: Box<str>,
    state: FleetState,
    generation: u64,
    received: Timestamp,
    admit_percent: u8,
    /// How long OPEN lasts: the scale of waits without the control plane.
    open_for: Duration,
    /// Of OPEN: its end on the local clock.
    until: Timestamp,
    /// Without the control plane this agent probes by itself from then on.
    alone_at: Timestamp,
    /// It did so: the local breaker rules.
    alone: bool,
}

/// What one verdict means for an attempt now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// Share of the traffic in percent.
    Admit(u8),
    /// Nobody leads: one attempt may find out.
    FindOut,
    /// Only under a lease of that generation.
    Reject { generation: u64, until: Timestamp },
}

impl Fleet {
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    pub(super) fn index_of(&self, subject: &str) -> Option<usize> {
        self.held.binary_search_by(|held| (*held.subject).cmp(subject)).ok()
    }

    pub(super) fn subject(&self, index: usize) -> &str {
        self.held.get(index).map_or("", |held| &held.subject)
    }

    pub(super) fn generation(&self, index: Option<usize>) -> u64 {
        index.and_then(|index| self.held.get(index)).map_or(0, |held| held.generation)
    }

    fn is_heard(&self, now: Timestamp) -> bool {
        now < self.heard_until
    }

    pub(super) fn word(&self, index: usize, now: Timestamp) -> Word {
        let Some(held) = self.held.get(index) else { return Word::Admit(100) };
        let heard = self.is_heard(now);
        match held.state {
            FleetState::Closed => Word::Admit(100),
            FleetState::Ramping if !heard && held.received + RAMP_LASTS <= now => Word::Admit(100),
            FleetState::Ramping => Word::Admit(held.admit_percent),
            FleetState::Open | FleetState::HalfOpen if !heard && held.alone => Word::Admit(100),
            FleetState::Open | FleetState::HalfOpen if !heard && held.alone_at <= now => Word::FindOut,
            FleetState::Open | FleetState::HalfOpen => {
                let next = if heard { held.until } else { held.alone_at };
                Word::Reject { generation: held.generation, until: next.max(now + ASK_AGAIN) }
            }
        }
    }

    /// The agent begins to find out by itself.
    fn go_alone(&mut self, index: usize) {
        if let Some(held) = self.held.get_mut(index) {
            held.alone = true;
        }
    }

    /// Finding out by itself showed that the target still fails: the next time is after
    /// one to three times as long as it would be open, so that many agents without a
    /// control plane probe seldom.
    fn failed_alone(&mut self, index: usize, now: Timestamp, rng: &mut impl Rng) {
        if let Some(held) = self.held.get_mut(index).filter(|held| held.alone) {
            held.alone = false;
            held.alone_at = now + held.open_for.mul_f64(1.0 + 2.0 * math::unit(rng));
        }
    }
}

impl Held {
    fn new(verdict: &FleetVerdict<'_>, policy: BreakerPolicy, now: Timestamp, rng: &mut impl Rng) -> Self {
        let until = match verdict.state {
            FleetState::Open => verdict.until.unwrap_or(now),
            FleetState::HalfOpen | FleetState::Ramping | FleetState::Closed => now,
        };
        let open_for = open_for(policy, verdict.openings).max(until.since(now));
        Self {
            subject: verdict.subject.into(),
            state: verdict.state,
            generation: verdict.generation,
            received: now,
            admit_percent: verdict.admit_percent.clamp(1, 100),
            open_for,
            until,
            // One to three times open_for after it opened: never before its end.
            alone_at: until + open_for.mul_f64(2.0 * math::unit(rng)),
            alone: false,
        }
    }

    /// A verdict of this generation came again: the ramp goes on, the clock does not
    /// start anew. A control plane is heard again, so the agent leads no more.
    fn again(mut self, verdict: &FleetVerdict<'_>) -> Self {
        self.state = verdict.state;
        self.admit_percent = verdict.admit_percent.clamp(1, 100);
        self.alone = false;
        if let Some(until) = verdict.until.filter(|_| verdict.state == FleetState::Open) {
            self.until = self.until.min(until);
        }
        self
    }
}

/// Openings counted from 1; without any as after the first.
fn open_for(policy: BreakerPolicy, openings: u32) -> Duration {
    let doublings = openings.saturating_sub(1).min(32);
    let seconds = policy.open_base.as_secs_f64() * math::exp2(f64::from(doublings));
    Duration::from_secs_f64(seconds.min(policy.open_max.as_secs_f64()))
}

impl Registry {
    /// Takes all verdicts that the control plane of that `epoch` published now. What is
    /// not named is closed. A generation that is lower than the one held is ignored;
    /// another epoch replaces everything.
    pub fn set_fleet<'a>(
        &mut self,
        epoch: &str,
        verdicts: impl IntoIterator<Item = FleetVerdict<'a>>,
        now: Timestamp,
        rng: &mut impl Rng,
    ) {
        let old = core::mem::take(&mut self.fleet.held);
        let mut old: BTreeMap<Box<str>, Held> = if *self.fleet.epoch == *epoch {
            old.into_iter().map(|held| (held.subject.clone(), held)).collect()
        } else {
            BTreeMap::new()
        };
        self.fleet.epoch = epoch.into();
        let mut next = BTreeMap::new();
        for verdict in verdicts {
            let held = match old.remove(verdict.subject) {
                Some(held) if verdict.generation < held.generation => held,
                Some(held) if verdict.generation == held.generation && held.state != FleetState::Closed => {
                    held.again(&verdict)
                }
                _ => Held::new(&verdict, self.policy_of(verdict.subject), now, rng),
            };
            if next.len() < SUBJECTS_MAX {
                next.insert(held.subject.clone(), held);
            }
        }
        // Their generations are remembered, so that an older word does not come back.
        let gone = old.into_values().take(SUBJECTS_MAX.saturating_sub(next.len()));
        for held in gone {
            let held = Held { state: FleetState::Closed, ..held };
            next.insert(held.subject.clone(), held);
        }
        self.fleet.held = next.into_values().collect();
        self.find_verdicts();
    }

    /// The control plane was heard; it counts as heard until `until`.
    pub fn heard_from_fleet(&mut self, until: Timestamp) {
        self.fleet.heard_until = until;
    }

    /// Slots and accounts find their verdicts again.
    pub(super) fn find_verdicts(&mut self) {
        for slot in &mut self.slots {
            slot.verdict = self.fleet.index_of(&slot.name);
        }
        for account in &mut self.accounts {
            account.verdict = self.fleet.index_of(&account.provider);
        }
    }

    /// The constants of a deployment, or of the first deployment of a provider.
    fn policy_of(&self, subject: &str) -> BreakerPolicy {
        let of_account = |slot: &&Slot| {
            let account = slot.account.and_then(|account| self.accounts.get(account));
            account.is_some_and(|account| *account.provider == *subject)
        };
        let own = self.by_name.get(subject).and_then(|id| self.slot(*id));
        let slot = own.or_else(|| self.slots.iter().filter(|slot| slot.live).find(of_account));
        slot.map_or_else(BreakerPolicy::default, |slot| slot.breaker.policy())
    }

    /// The verdicts on a deployment: its own, then its provider's.
    pub(super) fn verdicts_of(&self, slot: &Slot) -> impl Iterator<Item = usize> + use<> {
        let account = slot.account.and_then(|account| self.accounts.get(account));
        [slot.verdict, account.and_then(|account| account.verdict)].into_iter().flatten()
    }

    /// Share of the traffic in percent that the fleet lets through; or until when none.
    pub(super) fn fleet_share(&self, slot: &Slot, now: Timestamp) -> Result<u8, Timestamp> {
        if self.fleet.is_empty() {
            return Ok(100);
        }
        let mut share = 100_u32;
        let mut rejected = None;
        for index in self.verdicts_of(slot) {
            match self.fleet.word(index, now) {
                Word::Admit(percent) => share = (share * u32::from(percent) / 100).max(1),
                Word::FindOut => {}
                Word::Reject { until, .. } => rejected = rejected.max(Some(until)),
            }
        }
        match rejected {
            Some(until) if self.free_lease(slot, now).is_none() => Err(until),
            Some(_) => Ok(100),
            None => Ok(share as u8),
        }
    }

    /// An attempt starts at a target that nobody leads: from here on its local breaker
    /// finds out, one probe at a time, and so do those of a provider's others.
    pub(super) fn find_out(&mut self, slot: usize, now: Timestamp) {
        let Some(one) = self.slots.get(slot) else { return };
        let due: Vec<usize> =
            self.verdicts_of(one).filter(|index| self.fleet.word(*index, now) == Word::FindOut).collect();
        for index in due {
            self.fleet.go_alone(index);
            let (fleet, accounts) = (&self.fleet, &self.accounts);
            let subject = fleet.subject(index);
            for slot in &mut self.slots {
                let account = slot.account.and_then(|account| accounts.get(account));
                let provider = account.is_some_and(|account| *account.provider == *subject);
                if provider || *slot.name == *subject {
                    slot.breaker.half_open(now);
                }
            }
        }
    }

    /// A local breaker opened: who leads itself waits long before the next try.
    pub(super) fn opened_alone(&mut self, slot: usize, now: Timestamp, rng: &mut impl Rng) {
        let Some(one) = self.slots.get(slot) else { return };
        let verdicts: Vec<usize> = self.verdicts_of(one).collect();
        for index in verdicts {
            self.fleet.failed_alone(index, now, rng);
        }
    }
}
