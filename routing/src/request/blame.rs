//! What breakers, gates and quarantines learn from a request.

use alloc::vec::Vec;

use rand_core::Rng;

use super::{Context, Live, Request};
use crate::{
    breaker::Sample,
    classify::{BreakerCount, Classified, OutcomeClass},
    eligibility::strategy_of,
    learn,
};

/// What a loser of the race was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loser {
    /// Which attempt.
    pub id: super::AttemptId,
    /// TIMEOUT if it was silent for too long or met the deadline, OVERTAKEN if another
    /// attempt settled the request, CANCELLED if the caller did.
    pub class: OutcomeClass,
}

/// Whether attempts that are dropped may be held against their targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blame {
    /// Those that were silent for too long: another attempt settled the request.
    Overtaken,
    /// Those that were silent for too long: the time is up.
    Deadline,
    /// None: the caller left, or allowed too little time.
    Nobody,
}

impl Blame {
    /// What an attempt that had time left is to be called.
    const fn class(self) -> OutcomeClass {
        match self {
            Self::Overtaken => OutcomeClass::Overtaken,
            Self::Deadline => OutcomeClass::Timeout,
            Self::Nobody => OutcomeClass::Cancelled,
        }
    }
}

impl Request {
    /// Tells the registry what a failure means. Returns whether the breaker opened.
    pub(super) fn account<R: Rng>(
        &mut self,
        context: &mut Context<'_, R>,
        live: &Live,
        classified: &Classified,
    ) -> bool {
        if classified.breaker != BreakerCount::Poisonable {
            return learn::learn(context.registry, live.ticket, context.now, classified, context.rng);
        }
        learn::hold(context.registry, live.ticket, context.now, classified);
        // What it counts as is known at the request's end; until then it must not pass
        // for a target that is well.
        context.registry.suspect(live.ticket);
        self.poison.push((live.deployment, live.ticket));
        false
    }

    /// Marks attempts that were silent for too long.
    pub(super) fn note_silence<R: Rng>(&mut self, context: &mut Context<'_, R>) {
        for live in self.live.iter_mut().filter(|live| !live.overdue && live.soft <= context.now) {
            live.overdue = true;
            context.registry.suspect(live.ticket);
        }
    }

    pub(super) fn settle_losers<R: Rng>(&mut self, context: &mut Context<'_, R>, blame: Blame) -> Vec<Loser> {
        let now = context.now;
        let stream = self.profile.stream;
        let predicts = strategy_of(context.route.model, &self.profile).predicts();
        let mut losers = Vec::with_capacity(self.live.len());
        for live in self.live.drain(..) {
            let late = live.overdue || live.soft <= now || live.is_late(now);
            // Under a strategy that predicts, what is slow but answers others is avoided for
            // its time: to open its breaker under load would overload the next.
            let excused = predicts && context.registry.is_alive(live.ticket);
            let silent = blame != Blame::Nobody && late && !excused;
            let (sample, class) = match (silent, stream) {
                (true, true) => (Sample::Failure, OutcomeClass::Timeout),
                (true, false) => (Sample::RatioFailure, OutcomeClass::Timeout),
                (false, _) => (Sample::Neutral, blame.class()),
            };
            if context.registry.record(live.ticket, now, sample, context.rng) {
                self.opened.push(live.deployment);
            }
            context.registry.release(live.ticket);
            losers.push(Loser { id: live.id, class });
        }
        losers
    }

    /// 500s and empty answers at two deployments blame the prompt more than either.
    pub(super) fn settle_poison<R: Rng>(&mut self, context: &mut Context<'_, R>) {
        let first = self.poison.first().map(|(deployment, _)| *deployment);
        let spread = self.poison.iter().any(|(deployment, _)| Some(*deployment) != first);
        let sample = if spread { Sample::RatioFailure } else { Sample::Failure };
        for (deployment, ticket) in self.poison.drain(..) {
            if context.registry.record(ticket, context.now, sample, context.rng) {
                self.opened.push(deployment);
            }
        }
    }
}
