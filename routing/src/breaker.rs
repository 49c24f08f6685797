//! The circuit breaker of one deployment at one agent.
//!
//! ```text
//!            5 in a row, or half of >= 20 in 30 s
//!   CLOSED ───────────────────────────────────────▶ OPEN ◀──────────┐
//!     ▲                                              │ open_base·2ⁿ │ probe failed
//!     │ all steps                                    ▼              │ or 429
//!   RAMPING ◀───────────────────────────────────── HALF-OPEN ───────┘
//!   10, 25, 50 %   two probes succeeded             one probe at a time
//!     └───────────▶ OPEN (trip)
//! ```
//!
//! Exact counts in a bucketed window as in linkerd's unified breaker; the multiplied
//! open time is gRFC A50's. Results carry the epoch in which their attempt started;
//! those of an earlier epoch change nothing.

use core::time::Duration;

use rand_core::Rng;

use crate::{math, table::BreakerPolicy, tenant::Tenant, time::Timestamp, window::Window};

mod state;
#[cfg(test)]
mod tests;

pub use state::{Admission, Entry, Sample, State, Trip};

/// Successes of probes that end half-open, where nothing else is configured.
pub const PROBES_TO_CLOSE: u32 = 2;
/// A probe that never reports frees its place after so long.
const PROBE_LEASE: Duration = Duration::from_secs(30);
/// Most probes end long before their lease; those who wait ask again after so long.
const PROBE_ASK_AGAIN: Duration = Duration::from_secs(1);
/// Shares of the weight on the way back, in percent.
const RAMP: [u8; 3] = [10, 25, 50];
/// A step lasts for so many results ...
const STEP_RESULTS: u32 = 5;
/// ... or so long without them,
const STEP_MAX: Duration = Duration::from_secs(5);
/// and never shorter.
const STEP_MIN: Duration = Duration::from_secs(2);
/// Failures within one step that open it again when they are half of it.
const STEP_FAILURES: u32 = 3;
/// Clean time that forgives one opening.
const FORGIVE_AFTER: Duration = Duration::from_secs(60);
/// Doublings beyond this change nothing: open_max rules long before.
const OPENINGS_MAX: u32 = 32;
/// Spread of the open time, so that agents don't probe in step.
const JITTER: f64 = 0.2;
/// Results remembered for [`Breaker::recently_clean`].
const RECENT: u32 = 10;

/// The breaker.
#[derive(Clone, Debug)]
pub struct Breaker {
    policy: BreakerPolicy,
    probes_to_close: u32,
    state: State,
    epoch: u64,
    /// The epoch in which half-open began; later ones of it are of later probes.
    half_open_epoch: u64,
    window: Window,
    consecutive: u32,
    /// Streams in a row that broke off.
    broken_off: u32,
    openings: u32,
    clean_since: Timestamp,
    recent: u16,
}

impl Breaker {
    /// A closed breaker. `epoch` must be larger than any that results on their way
    /// may carry.
    pub fn new(policy: BreakerPolicy, epoch: u64, now: Timestamp) -> Self {
        Self {
            policy,
            probes_to_close: PROBES_TO_CLOSE,
            state: State::Closed,
            epoch,
            half_open_epoch: epoch,
            window: Window::new(policy.window),
            consecutive: 0,
            broken_off: 0,
            openings: 0,
            clean_since: now,
            recent: 0,
        }
    }

    /// Takes other constants; keeps the state.
    pub fn set_policy(&mut self, policy: BreakerPolicy) {
        if policy.window != self.policy.window {
            self.window = Window::new(policy.window);
        }
        self.policy = policy;
    }

    /// Its constants.
    pub const fn policy(&self) -> BreakerPolicy {
        self.policy
    }

    /// So many successes of probes end half-open; at least 1.
    pub fn set_probes_to_close(&mut self, successes: u32) {
        self.probes_to_close = successes.max(1);
    }

    /// Opens it for what results alone do not say. One that is open or half open stays so.
    /// Returns whether it opened.
    pub fn trip(&mut self, now: Timestamp, trip: Trip, rng: &mut impl Rng) -> bool {
        self.advance(now);
        let closed = matches!(self.state, State::Closed | State::Ramping { .. });
        if closed {
            self.clean_since = now;
            self.open(now, trip, rng);
        }
        closed
    }

    /// One probe at a time from now on, as after an open time. One that is open or half
    /// open stays so.
    pub fn half_open(&mut self, now: Timestamp) {
        self.advance(now);
        if matches!(self.state, State::Closed | State::Ramping { .. }) {
            self.epoch += 1;
            self.half_open_epoch = self.epoch;
            self.consecutive = 0;
            self.broken_off = 0;
            self.state = State::HalfOpen { probe: None, successes: 0 };
        }
    }

    /// The state, with time taken into account.
    pub fn state(&self, now: Timestamp) -> State {
        match self.state {
            State::Open { until, .. } if until <= now => State::HalfOpen { probe: None, successes: 0 },
            State::HalfOpen { probe: Some(lease), successes } if lease <= now => {
                State::HalfOpen { probe: None, successes }
            }
            State::Ramping { step, since, results, failures }
                if step_is_over(since, results, failures, now) =>
            {
                match step + 1 {
                    next if next < RAMP.len() => {
                        State::Ramping { step: next, since: now, results: 0, failures: 0 }
                    }
                    _ => State::Closed,
                }
            }
            state => state,
        }
    }

    /// Whether an attempt may start now.
    pub fn admission(&self, now: Timestamp) -> Admission {
        match self.state(now) {
            State::Closed => Admission::Share(100),
            State::Ramping { step, .. } => Admission::Share(RAMP[step]),
            State::Open { until, .. } => Admission::Rejected { until },
            State::HalfOpen { probe: None, .. } => Admission::Probe,
            State::HalfOpen { probe: Some(lease), .. } => {
                Admission::Rejected { until: lease.min(now + PROBE_ASK_AGAIN) }
            }
        }
    }

    /// An attempt starts, for no tenant unless its [`Entry`] is told.
    pub fn begin(&mut self, now: Timestamp) -> Entry {
        self.advance(now);
        let mut entry = Entry { epoch: self.epoch, probe: false, tenant: Tenant::NONE };
        if let State::HalfOpen { probe: probe @ None, .. } = &mut self.state {
            *probe = Some(now + PROBE_LEASE);
            entry.probe = true;
        }
        entry
    }

    /// A result of the attempt that got `entry`. Returns whether the breaker opened.
    pub fn record(&mut self, now: Timestamp, entry: Entry, sample: Sample, rng: &mut impl Rng) -> bool {
        self.advance(now);
        if entry.epoch != self.epoch {
            return entry.probe && self.record_late_probe(now, entry.epoch, sample, rng);
        }
        self.remember(sample);
        match self.state {
            State::Closed => self.record_closed(now, entry.tenant, sample, rng),
            State::Open { .. } => false,
            State::HalfOpen { successes, .. } => {
                entry.probe && self.record_probe(now, successes, sample, rng)
            }
            State::Ramping { step, since, results, failures } => {
                let (failed, counts) = match sample {
                    Sample::Success | Sample::Begun => (0, 1),
                    Sample::Failure | Sample::RatioFailure => (1, 1),
                    Sample::BrokeOff => (1, 0),
                    Sample::RateLimited | Sample::Neutral | Sample::Ended => (0, 0),
                };
                let (results, failures) = (results.saturating_add(counts), failures.saturating_add(failed));
                if failed > 0 {
                    self.clean_since = now;
                }
                self.state = State::Ramping { step, since, results, failures };
                if failures >= STEP_FAILURES && failures.saturating_mul(2) >= results {
                    self.open(now, Trip::Ramp, rng);
                    return true;
                }
                false
            }
        }
    }

    /// Openings in a row that set how long it stays open.
    pub const fn openings(&self) -> u32 {
        self.openings
    }

    /// Closed, and no failure among the last ten results.
    pub fn recently_clean(&self, now: Timestamp) -> bool {
        self.recent == 0 && matches!(self.state(now), State::Closed)
    }

    /// An attempt looks bad, but its result will be known later only: free moves to
    /// this target end now.
    pub fn suspect(&mut self, entry: Entry) {
        if entry.epoch == self.epoch {
            self.remember(Sample::Failure);
        }
    }

    /// Forgets everything but its constants: an operator took over, or gave it back.
    pub fn reset(&mut self, epoch: u64, now: Timestamp) {
        let probes_to_close = self.probes_to_close;
        *self = Self { probes_to_close, ..Self::new(self.policy, epoch, now) };
    }

    fn remember(&mut self, sample: Sample) {
        let failed = match sample {
            Sample::Success | Sample::Begun => 0,
            Sample::Failure | Sample::RatioFailure | Sample::BrokeOff => 1,
            Sample::RateLimited | Sample::Neutral | Sample::Ended => return,
        };
        self.recent = ((self.recent << 1) | failed) & ((1 << RECENT) - 1);
    }

    fn record_closed(&mut self, now: Timestamp, tenant: Tenant, sample: Sample, rng: &mut impl Rng) -> bool {
        match sample {
            Sample::Success | Sample::Begun => {
                self.consecutive = 0;
                self.broken_off *= u32::from(sample == Sample::Begun);
                self.window.record(now, tenant, false);
                let forgiven = now.since(self.clean_since).as_nanos() / FORGIVE_AFTER.as_nanos();
                if forgiven > 0 && self.openings > 0 {
                    let steps = forgiven.min(u128::from(OPENINGS_MAX)) as u32;
                    self.openings = self.openings.saturating_sub(steps);
                    self.clean_since = self.clean_since + FORGIVE_AFTER * steps;
                }
            }
            Sample::Failure | Sample::RatioFailure | Sample::BrokeOff => {
                self.clean_since = now;
                if sample == Sample::BrokeOff {
                    self.window.spoil(now, tenant);
                    self.broken_off = self.broken_off.saturating_add(1);
                } else {
                    self.window.record(now, tenant, true);
                }
                self.consecutive = self.consecutive.saturating_add(u32::from(sample == Sample::Failure));
                let (failures, total) = self.window.counts(now);
                if self.consecutive.max(self.broken_off) >= self.policy.consecutive_failures {
                    self.open(now, Trip::Consecutive, rng);
                    return true;
                }
                if total >= self.policy.min_requests
                    && f64::from(failures) >= self.policy.failure_ratio * f64::from(total)
                {
                    self.open(now, Trip::Ratio, rng);
                    return true;
                }
            }
            Sample::Ended => self.broken_off = 0,
            Sample::RateLimited | Sample::Neutral => {}
        }
        false
    }

    fn record_probe(&mut self, now: Timestamp, successes: u32, sample: Sample, rng: &mut impl Rng) -> bool {
        match sample {
            Sample::Success | Sample::Begun if successes + 1 >= self.probes_to_close => {
                self.epoch += 1;
                self.consecutive = 0;
                self.broken_off = 0;
                self.recent = 0;
                self.window = Window::new(self.policy.window);
                self.clean_since = now;
                self.state = State::Ramping { step: 0, since: now, results: 0, failures: 0 };
                false
            }
            Sample::Success | Sample::Begun => {
                self.state = State::HalfOpen { probe: None, successes: successes + 1 };
                false
            }
            Sample::Failure | Sample::RatioFailure | Sample::BrokeOff | Sample::RateLimited => {
                self.open(now, Trip::Probe, rng);
                true
            }
            // Its place was free since its first content.
            Sample::Ended => false,
            // The client left: the place is free for the next.
            Sample::Neutral => {
                self.state = State::HalfOpen { probe: None, successes };
                false
            }
        }
    }

    /// A probe that outlived its lease: its word counts, its place belongs to a later
    /// one.
    fn record_late_probe(&mut self, now: Timestamp, epoch: u64, sample: Sample, rng: &mut impl Rng) -> bool {
        let State::HalfOpen { probe, successes } = self.state else { return false };
        if epoch < self.half_open_epoch || matches!(sample, Sample::Neutral | Sample::Ended) {
            return false;
        }
        let opened = self.record_probe(now, successes, sample, rng);
        if let State::HalfOpen { probe: place, .. } = &mut self.state {
            *place = probe;
        }
        opened
    }

    fn open(&mut self, now: Timestamp, trip: Trip, rng: &mut impl Rng) {
        let doubled = self.policy.open_base.as_secs_f64() * math::exp2(f64::from(self.openings));
        let spread = 1.0 + JITTER * (2.0 * math::unit(rng) - 1.0);
        let seconds = doubled.min(self.policy.open_max.as_secs_f64()) * spread;
        self.openings = (self.openings + 1).min(OPENINGS_MAX);
        self.epoch += 1;
        self.consecutive = 0;
        self.broken_off = 0;
        self.state = State::Open { until: now + Duration::from_secs_f64(seconds), trip };
    }

    /// Carries out what time alone has changed.
    fn advance(&mut self, now: Timestamp) {
        let state = self.state(now);
        match (self.state, state) {
            (State::Open { .. }, State::HalfOpen { .. }) => {
                self.epoch += 1;
                self.half_open_epoch = self.epoch;
            }
            // The lease ran out: what that probe still says must not free the place
            // of the next one.
            (State::HalfOpen { probe: Some(_), .. }, State::HalfOpen { probe: None, .. }) => self.epoch += 1,
            _ => {}
        }
        self.state = state;
    }
}

fn step_is_over(since: Timestamp, results: u32, failures: u32, now: Timestamp) -> bool {
    let lasted = now.since(since);
    let clean = failures.saturating_mul(5) < results.max(1);
    clean && lasted >= STEP_MIN && (results >= STEP_RESULTS || lasted >= STEP_MAX)
}

/// Share of the weight in percent while ramping at `step`.
pub fn ramp_percent(step: usize) -> u8 {
    RAMP.get(step).copied().unwrap_or(100)
}
