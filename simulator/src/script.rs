//! What a provider does with one call, drawn from its model.

use std::time::Duration;

use rand::{Rng, RngExt};
use trunkline_routing::time::Timestamp;

use crate::{
    limits::RateGate,
    math,
    model::{ErrorRates, ProviderModel},
    outage::OutageKind,
};

/// A refusal needs no model run, so it comes back quickly.
const REFUSAL_DELAY: Duration = Duration::from_millis(15);

/// Retry-After of a 429 that came by chance.
const CHANCE_RETRY_AFTER: Duration = Duration::from_secs(1);

/// One call, as far as the model cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// Tokens of the prompt.
    pub input_tokens: u64,
    /// The caller's limit on the answer.
    pub max_output_tokens: Option<u32>,
    /// Calls in flight at this provider, this one included.
    pub in_flight: u32,
}

/// What happens, in order: wait `head_delay`, send `status`, and for a 200 wait
/// `first_token_delay`, send a token, then for each gap wait and send another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// HTTP status; 0 if none is ever sent ([`End::Silent`], [`End::Reset`]).
    pub status: u16,
    /// Sent with a 429.
    pub retry_after: Option<Duration>,
    /// From the request to the response head of a stream.
    pub head_delay: Duration,
    /// From the head to the first token.
    pub first_token_delay: Duration,
    /// Before each token after the first.
    pub gaps: Vec<Duration>,
    /// Tokens the whole answer has; an early end sends fewer.
    pub tokens: u32,
    /// The caller's limit cut the answer short.
    pub truncated: bool,
    /// How it ends.
    pub end: End,
}

/// How a call ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With the whole answer.
    Complete,
    /// With an error status.
    Refused,
    /// 200, a normal end, and no content.
    Empty,
    /// The connection is lost after so many tokens.
    Break {
        /// Tokens sent before.
        after_tokens: u32,
    },
    /// Never: no answer at all.
    Silent,
    /// By a connection reset instead of an answer.
    Reset,
}

impl Script {
    /// From the request to the first token (or to the whole of a shorter answer).
    pub fn ttft(&self) -> Duration {
        self.head_delay + self.first_token_delay
    }

    /// From the request to the last token of the whole answer.
    pub fn total(&self) -> Duration {
        self.ttft() + self.gaps.iter().sum::<Duration>()
    }

    fn refused(status: u16, retry_after: Option<Duration>) -> Self {
        Self { status, retry_after, head_delay: REFUSAL_DELAY, ..Self::without_answer(End::Refused) }
    }

    fn without_answer(end: End) -> Self {
        Self {
            status: 0,
            retry_after: None,
            head_delay: Duration::ZERO,
            first_token_delay: Duration::ZERO,
            gaps: Vec::new(),
            tokens: 0,
            truncated: false,
            end,
        }
    }
}

impl ProviderModel {
    /// What this provider does with a call that arrives at `now`: outages first, then
    /// rate limits, then chance, then an answer. `gate` is the account's state.
    pub fn script(
        &self,
        gate: &mut RateGate,
        now: Timestamp,
        call: Call,
        rng: &mut (impl Rng + ?Sized),
    ) -> Script {
        let mut slow = 1.0;
        for outage in self.outages.iter().filter(|outage| outage.is_active(now)) {
            match outage.kind {
                OutageKind::Errors503 => return Script::refused(503, None),
                OutageKind::BlackHole => return Script::without_answer(End::Silent),
                OutageKind::Reset => return Script::without_answer(End::Reset),
                OutageKind::Slow(factor) => slow *= factor,
            }
        }
        let asked =
            call.input_tokens + u64::from(call.max_output_tokens.unwrap_or(0).min(self.output.max_tokens));
        if let Err(wait) = gate.admit(&self.limits, now, asked) {
            return Script::refused(429, Some(wait));
        }
        match self.errors.draw(rng) {
            Chance::Refused(status, retry_after) => Script::refused(status, retry_after),
            Chance::Silent => Script::without_answer(End::Silent),
            Chance::Empty => Script { end: End::Empty, ..self.answer(call, slow, rng) },
            Chance::Break => {
                let answer = self.answer(call, slow, rng);
                let after_tokens = rng.random_range(0..answer.tokens.max(1));
                Script { end: End::Break { after_tokens }, ..answer }
            }
            Chance::Fine => self.answer(call, slow, rng),
        }
    }

    /// A whole answer, `slow` times as slow as usual.
    pub fn answer(&self, call: Call, slow: f64, rng: &mut (impl Rng + ?Sized)) -> Script {
        let load = self.congestion.multiplier(call.in_flight);
        let factor = slow.max(1.0) * load;
        let decode = slow.max(1.0) * self.congestion.decode(load);
        let idle = self.ttft.base_s + self.ttft.per_1k_input_s * call.input_tokens as f64 / 1000.0;
        let ttft = math::lognormal(idle, self.ttft.sigma, rng) * factor;
        let head = ttft * self.ttft.head_share;
        let wanted = math::lognormal(self.output.median_tokens, self.output.sigma, rng);
        let wanted = (wanted.max(1.0) as u32).clamp(1, self.output.max_tokens.max(1));
        let tokens = wanted.min(call.max_output_tokens.unwrap_or(u32::MAX)).max(1);
        let gap = |_| math::seconds(math::lognormal(self.tpot.median_s, self.tpot.sigma, rng) * decode);
        Script {
            status: 200,
            head_delay: math::seconds(head),
            first_token_delay: math::seconds(ttft - head),
            gaps: (1..tokens).map(gap).collect(),
            tokens,
            truncated: tokens < wanted,
            ..Script::without_answer(End::Complete)
        }
    }
}

/// What chance decides about a call.
pub(crate) enum Chance {
    Fine,
    Refused(u16, Option<Duration>),
    Break,
    Empty,
    Silent,
}

impl ErrorRates {
    fn draw(&self, rng: &mut (impl Rng + ?Sized)) -> Chance {
        self.pick(rng.random())
    }

    /// What becomes of a call whose number in 0..1 is `point`.
    pub(crate) fn pick(&self, point: f64) -> Chance {
        let mut left = point;
        let mut falls_in = |rate: f64| {
            left -= rate;
            left < 0.0
        };
        if falls_in(self.http_500) {
            Chance::Refused(500, None)
        } else if falls_in(self.http_503) {
            Chance::Refused(503, None)
        } else if falls_in(self.http_429) {
            Chance::Refused(429, Some(CHANCE_RETRY_AFTER))
        } else if falls_in(self.mid_stream_break) {
            Chance::Break
        } else if falls_in(self.empty) {
            Chance::Empty
        } else if falls_in(self.silent) {
            Chance::Silent
        } else {
            Chance::Fine
        }
    }
}
