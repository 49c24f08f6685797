//! Learned rate caps: how many requests a deployment takes, from its own 429s and from
//! the rate-limit headers of its answers.
//!
//! A 429 says that the rate was too high, not what would be right. The cap is then 85 %
//! of what the deployment took over the last ten seconds, and rises by 1 % with each
//! answer to a request that was sent under it, so it finds the limit from below again
//! and again at little cost. It ends by itself: after a minute without a refusal, or
//! once it passed twice the rate at which it began. The rule is additive increase,
//! multiplicative decrease as in TCP, with the increase paid per success.
//!
//! Headers say what is left until when. Between two answers the allowance refills as a
//! token bucket would, since that is what the providers that send them keep.
//!
//! A cap belongs to one agent: what other agents send is seen through the provider's
//! answers only. It is none of breaker, gate and quarantine.

use core::time::Duration;

use crate::{
    hint::{RateHeaders, RateLimit},
    time::Timestamp,
};

mod window;

use window::Window;

/// The cap is this share of what was accepted.
const SHARE: f64 = 0.85;
/// One answer raises it by this factor.
const GROWTH: f64 = 1.01;
/// A further refusal takes at most this share away: a window that a gate emptied says
/// little about the rate.
const DROP_MAX: f64 = 0.5;
/// A refusal with less traffic before it teaches no rate: the gate is enough.
const EVIDENCE_MIN: u32 = 5;
/// No cap is lower, in requests per second: one per window. What needs less is held by
/// the rate gate.
const FLOOR: f64 = 0.1;
/// A cap that grew to so many times the rate that began it has nothing to say.
const OUTGROWN: f64 = 2.0;
/// Rates are counted per minute at most providers; so long without a refusal ends a cap.
const REFUSED_FOR: Duration = Duration::from_mins(1);
/// A bucket under a cap holds what it earns in this time, or one request.
const BURST: f64 = 1.0;
/// No header holds traffic back for longer; what is longer is asked again by then.
const HEADERS_MAX: Duration = Duration::from_mins(1);

/// What is known of a deployment's rate.
#[derive(Clone, Debug, Default)]
pub struct Caps {
    taken: Window,
    cap: Option<Cap>,
    requests: Option<Allowance>,
    tokens: Option<Allowance>,
    /// Start of the newest attempt whose headers were read: those of older attempts come
    /// late and tell of the past.
    newest: Timestamp,
}

/// A cap, as shown.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CapView {
    /// Requests per second that it lets through.
    pub per_second: f64,
    /// When it ends if nothing is refused.
    pub until: Timestamp,
}

#[derive(Clone, Copy, Debug)]
struct Cap {
    /// Requests per second.
    rate: f64,
    /// It ends when `rate` gets there.
    outgrown: f64,
    refused: Timestamp,
    bucket: f64,
    filled: Timestamp,
}

/// What a header left.
#[derive(Clone, Copy, Debug)]
struct Allowance {
    left: f64,
    /// What comes back per second; 0: all of it at once, at `whole`.
    refill: f64,
    filled: Timestamp,
    /// When the limit is whole again: nothing is known from then on.
    whole: Timestamp,
}

impl Caps {
    /// Whether a request of `tokens` may be sent now.
    ///
    /// # Errors
    /// When it may, if nothing else is sent until then.
    pub fn admits(&self, now: Timestamp, tokens: u64) -> Result<(), Timestamp> {
        let cap = self.cap.filter(|cap| cap.holds(now)).and_then(|cap| cap.opens(now));
        let requests = self.requests.and_then(|allowance| allowance.opens(now, 1.0));
        let tokens = self.tokens.and_then(|allowance| allowance.opens(now, tokens as f64));
        [cap, requests, tokens].into_iter().flatten().max().map_or(Ok(()), Err)
    }

    /// A request of `tokens` is sent now.
    pub fn begin(&mut self, now: Timestamp, tokens: u64) {
        self.taken.count(now);
        if let Some(cap) = &mut self.cap {
            cap.fill(now);
            // Probes and forced breakers pass without asking; they are no debt.
            cap.bucket = (cap.bucket - 1.0).max(0.0);
        }
        for (allowance, spent) in [(&mut self.requests, 1.0), (&mut self.tokens, tokens as f64)] {
            if let Some(allowance) = allowance {
                allowance.fill(now);
                allowance.left -= spent;
            }
        }
    }

    /// A request sent at `started` got a 429. One that was sent before the cap was there
    /// tells nothing new.
    pub fn refused(&mut self, started: Timestamp, now: Timestamp) {
        self.taken.uncount(started);
        let (count, accepted) = self.taken.accepted(now).unwrap_or((0, 0.0));
        let known = self.cap.filter(|cap| cap.holds(now));
        let late = known.is_some_and(|cap| started < cap.refused);
        if late || known.is_none() && count < EVIDENCE_MIN {
            return;
        }
        let least = known.map_or(FLOOR, |cap| cap.rate * DROP_MAX).max(FLOOR);
        let rate = (accepted * SHARE).max(least);
        let outgrown = rate / SHARE * OUTGROWN;
        // The gate says when the next one may go; from there on the cap counts.
        let bucket = if known.is_none() { 1.0 } else { 0.0 };
        self.cap = Some(Cap { rate, outgrown, refused: now, bucket, filled: now });
    }

    /// A request sent at `started` was answered.
    pub fn accepted(&mut self, started: Timestamp, now: Timestamp) {
        let Some(cap) = &mut self.cap else { return };
        if started < cap.refused {
            return;
        }
        cap.fill(now);
        cap.rate *= GROWTH;
        if cap.rate >= cap.outgrown || !cap.holds(now) {
            self.cap = None;
        }
    }

    /// The answer to a request sent at `started` carried these.
    pub fn headers(&mut self, started: Timestamp, now: Timestamp, headers: &RateHeaders) {
        if started < self.newest || headers.is_empty() {
            return;
        }
        self.newest = started;
        self.requests = headers.requests.map(|limit| Allowance::new(limit, now));
        self.tokens = headers.tokens.map(|limit| Allowance::new(limit, now));
    }

    /// The cap learned from refusals, if one holds now.
    pub fn view(&self, now: Timestamp) -> Option<CapView> {
        let cap = self.cap.filter(|cap| cap.holds(now))?;
        Some(CapView { per_second: cap.rate, until: cap.refused + REFUSED_FOR })
    }

    /// Forgets all: another account answers.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

impl Cap {
    fn holds(&self, now: Timestamp) -> bool {
        now < self.refused + REFUSED_FOR
    }

    fn filled(&self, now: Timestamp) -> f64 {
        let earned = now.since(self.filled).as_secs_f64() * self.rate;
        (self.bucket + earned).min((self.rate * BURST).max(1.0))
    }

    fn fill(&mut self, now: Timestamp) {
        self.bucket = self.filled(now);
        self.filled = self.filled.max(now);
    }

    /// When the next request fits; None: now.
    fn opens(&self, now: Timestamp) -> Option<Timestamp> {
        let missing = 1.0 - self.filled(now);
        (missing > 0.0).then(|| after(now, missing / self.rate).min(self.refused + REFUSED_FOR))
    }
}

impl Allowance {
    fn new(limit: RateLimit, now: Timestamp) -> Self {
        let span = limit.reset.min(HEADERS_MAX);
        let spent = limit.limit.map_or(0, |all| all.saturating_sub(limit.remaining)) as f64;
        // Over the time that the provider named, whatever we make of it.
        let refill = spent / limit.reset.as_secs_f64().max(1e-3);
        Self { left: limit.remaining as f64, refill, filled: now, whole: now + span }
    }

    fn filled(&self, now: Timestamp) -> f64 {
        self.left + now.since(self.filled).as_secs_f64() * self.refill
    }

    fn fill(&mut self, now: Timestamp) {
        self.left = self.filled(now);
        self.filled = self.filled.max(now);
    }

    /// When `wanted` fits; None: now.
    fn opens(&self, now: Timestamp, wanted: f64) -> Option<Timestamp> {
        let missing = wanted - self.filled(now);
        if now >= self.whole || missing <= 0.0 {
            return None;
        }
        let refilled = if self.refill > 0.0 { after(now, missing / self.refill) } else { self.whole };
        Some(refilled.min(self.whole))
    }
}

/// So many seconds later, at least a millisecond: whoever waits shall not spin.
fn after(now: Timestamp, seconds: f64) -> Timestamp {
    now + Duration::from_secs_f64(seconds.clamp(1e-3, HEADERS_MAX.as_secs_f64()))
}

#[cfg(test)]
mod tests;
