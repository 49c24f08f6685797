//! A verdict: what the fleet holds of one deployment, or of a provider with all of its
//! deployments.

use alloc::{boxed::Box, vec::Vec};
use core::time::Duration;

use super::probe::{Probing, Shown};
use crate::{math, table::BreakerPolicy, time::Timestamp};

/// Shares of the weight on the way back, in percent. After the last one it is closed.
const RAMP: [u8; 3] = [10, 25, 50];
/// Clean time that forgives one opening.
const FORGIVE_AFTER: Duration = Duration::from_secs(60);
/// Doublings beyond this change nothing: `open_max` rules long before.
const OPENINGS_MAX: u32 = 32;
/// Spread of the open time, so that verdicts that fell together don't rise together.
const JITTER: f64 = 0.1;
/// Probes in a row without a result, after which there seems to be nobody to probe.
pub(super) const EMPTIES_MAX: u32 = 3;
/// Agents that are remembered as users of a deployment when it opens: one of them gets
/// the probe. Many more than are ever asked.
pub(super) const USERS_MAX: usize = 64;

/// What a verdict says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing.
    Closed,
    /// No traffic.
    Open,
    /// No traffic but leased probes.
    HalfOpen,
    /// A share of the weight, in percent: 10, 25 or 50.
    Ramping(u8),
}

impl State {
    /// Whether it keeps traffic away.
    pub const fn is_out(self) -> bool {
        matches!(self, Self::Open | Self::HalfOpen)
    }

    /// The first step of the way back.
    pub(super) const fn first_step() -> Self {
        Self::Ramping(RAMP[0])
    }

    /// What follows a step of the ramp.
    pub(super) fn after_step(percent: u8) -> Self {
        RAMP.into_iter().find(|next| *next > percent).map_or(Self::Closed, Self::Ramping)
    }
}

/// The part of a verdict that is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What it says.
    pub state: State,
    /// Openings in a row, also while it is closed: they set how long it stays open. One
    /// is forgiven per clean minute.
    pub openings: u32,
    /// How long it is open, counted from its making. Zero in other states.
    pub open_for: Duration,
    /// Why, for people.
    pub reason: Box<str>,
}

/// What an operator said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forced {
    /// No traffic.
    Open,
    /// Traffic whatever the breaker says.
    Closed,
}

/// A verdict and what is remembered with it.
#[derive(Clone, Debug)]
pub(super) struct Verdict {
    pub(super) generation: u64,
    pub(super) record: Record,
    /// While an operator rules, nothing changes by itself.
    pub(super) forced: Option<Forced>,
    /// When it became so.
    pub(super) since: Timestamp,
    /// Since which generation it lets traffic through: a local breaker that opened under
    /// one of these is evidence.
    pub(super) base: u64,
    /// Of a half-open one.
    pub(super) probing: Probing,
    /// Half-open times in a row in which nobody had a request to probe with.
    pub(super) idle_rounds: u32,
    /// Agents with traffic when it opened.
    pub(super) users: Vec<u64>,
    /// It was half-open before the restart, so an agent may have a lease from then: when
    /// this began, and when such a lease is over at the latest, once that is known.
    pub(super) restored: Option<(Timestamp, Option<Timestamp>)>,
}

impl Verdict {
    /// A verdict as it was stored.
    pub(super) fn new(
        generation: u64,
        record: Record,
        forced: Option<Forced>,
        since: Timestamp,
        now: Timestamp,
    ) -> Self {
        // However the clocks went, it is no longer open than it was meant to be, and for
        // a second at least: agents are back by then.
        let latest = now - record.open_for.saturating_sub(Duration::from_secs(1));
        let since = if record.state == State::Open { since.max(latest).min(now) } else { since.min(now) };
        let base = generation.saturating_sub(steps_behind(record.state));
        Self {
            generation,
            record,
            forced,
            since,
            base,
            probing: Probing::default(),
            idle_rounds: 0,
            users: Vec::new(),
            restored: None,
        }
    }

    /// Takes over what outlives a change.
    pub(super) fn inherit(&mut self, former: &Self) {
        let (out, was_out) = (self.record.state.is_out(), former.record.state.is_out());
        self.base = if !out && !was_out { former.base } else { self.generation };
        if out {
            // Nobody had a request to probe with.
            let in_vain = former.probing.shown() == Shown::Nobody;
            self.idle_rounds = if in_vain { former.idle_rounds + 1 } else { former.idle_rounds };
        }
        if self.users.is_empty() {
            self.users.clone_from(&former.users);
        }
    }

    /// When an open one is half-open.
    pub(super) fn open_until(&self) -> Timestamp {
        self.since + self.record.open_for
    }

    /// Openings that still count at `now`.
    pub(super) fn openings(&self, now: Timestamp) -> u32 {
        if self.record.state != State::Closed {
            return self.record.openings;
        }
        let forgiven = now.since(self.since).as_nanos() / FORGIVE_AFTER.as_nanos();
        self.record.openings.saturating_sub(u32::try_from(forgiven).unwrap_or(u32::MAX))
    }
}

/// How many changes ago a verdict began to let traffic through, at most, for one of which
/// the former ones are not known any more.
fn steps_behind(state: State) -> u64 {
    match state {
        State::Open | State::HalfOpen => 0,
        State::Ramping(percent) => RAMP.iter().filter(|step| **step < percent).count() as u64,
        State::Closed => RAMP.len() as u64,
    }
}

/// An opening after `openings` others: `open_base` doubled for each, at most `open_max`,
/// and up to 10 % more or less by `chance`, which is in 0 to 1.
pub(super) fn opening(policy: &BreakerPolicy, openings: u32, reason: Box<str>, chance: f64) -> Record {
    let open_for = open_for(policy, openings, chance);
    Record { state: State::Open, openings: (openings + 1).min(OPENINGS_MAX), open_for, reason }
}

/// How long it is open after `doublings`.
pub(super) fn open_for(policy: &BreakerPolicy, doublings: u32, chance: f64) -> Duration {
    let doubled = policy.open_base.as_secs_f64() * math::exp2(f64::from(doublings.min(OPENINGS_MAX)));
    let spread = 1.0 + JITTER * (2.0 * chance - 1.0);
    Duration::from_secs_f64(doubled.min(policy.open_max.as_secs_f64()) * spread)
}
