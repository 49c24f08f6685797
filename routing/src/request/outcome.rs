//! How attempts end, and what the request does about it.

use alloc::vec::Vec;
use core::time::Duration;

use rand_core::Rng;

use super::{
    AttemptId, Context, Failure, Live, Request, SameRetry,
    blame::{Blame, Loser},
};
use crate::{
    breaker::Sample,
    classify::{Classified, OutcomeClass, Remedy},
    math,
    registry::Ticket,
    table::DeploymentIndex,
};

/// A same-deployment retry comes at a random moment within this.
const SAME_RETRY_WITHIN: Duration = Duration::from_millis(250);
/// Calls that never reached the provider are repeated free of charge, so often at most.
const REPLAYS_MAX: u32 = 2;

impl Request {
    /// An attempt failed. `classified` says what it means: CANCELLED that the last directive
    /// was not carried out, since there is no money for another attempt.
    pub fn failed<R: Rng>(
        &mut self,
        context: &mut Context<'_, R>,
        id: AttemptId,
        classified: &Classified,
    ) -> bool {
        let Some(at) = self.live.iter().position(|live| live.id == id) else { return false };
        let live = self.live.swap_remove(at);
        if classified.class == OutcomeClass::Cancelled {
            self.never_started(context, &live);
            return false;
        }
        self.all_rate_limited &= classified.class == OutcomeClass::RateLimited;
        let opened = self.account(context, &live, classified);
        context.registry.release(live.ticket);
        self.remedy(context, &live, classified);
        opened
    }

    /// The attempt was not started after all, for want of money: it teaches nothing, its
    /// name goes to the next, and from here on no other starts beside one that runs.
    fn never_started<R: Rng>(&mut self, context: &mut Context<'_, R>, live: &Live) {
        context.registry.release(live.ticket);
        self.attempts -= 1;
        self.starts -= 1;
        self.tried.retain(|tried| *tried != live.deployment);
        self.alone = true;
    }

    fn remedy<R: Rng>(&mut self, context: &mut Context<'_, R>, live: &Live, classified: &Classified) {
        let now = context.now;
        let model = context.route.model;
        let &Live { deployment, tier, .. } = live;
        match classified.remedy {
            Remedy::Replay if self.replays < REPLAYS_MAX => {
                self.replays += 1;
                self.attempts -= 1;
                if self.live.is_empty() {
                    self.same_retry = Some(SameRetry { deployment, tier, at: now, free: true });
                } else {
                    self.tried.retain(|tried| *tried != deployment);
                    self.move_is_free = true;
                }
            }
            Remedy::Done | Remedy::Other | Remedy::Quarantine | Remedy::Replay => {}
            Remedy::OtherWithGate => {
                // The gate keeps it away; when that opens it may be met again.
                self.tried.retain(|tried| *tried != deployment);
                self.move_is_free = classified.class == OutcomeClass::RateLimited;
            }
            Remedy::SameThenOther | Remedy::SameThenReturn => {
                let used = core::mem::replace(&mut self.spent.same_retry, true);
                if !used && self.live.is_empty() && self.may_repeat(context) {
                    let at = now + SAME_RETRY_WITHIN.mul_f64(math::unit(context.rng));
                    self.same_retry = Some(SameRetry { deployment, tier, at, free: false });
                } else if classified.remedy == Remedy::SameThenReturn {
                    self.failure = Some(Failure::Return(live.id));
                }
            }
            Remedy::LargerContext if model.context_length_fallback => {
                let window = context.table.deployment(deployment).context_window.unwrap_or(0);
                self.window_over = self.window_over.max(Some(window));
                self.last_return = Some(live.id);
            }
            Remedy::ContentFilter if model.content_filter_fallback => {
                self.refused.push(deployment);
                self.last_return = Some(live.id);
            }
            Remedy::LargerContext | Remedy::ContentFilter | Remedy::Return | Remedy::EndInBand => {
                self.failure = Some(Failure::Return(live.id));
            }
        }
    }

    /// An attempt has its first content (stream) or its whole answer (unary). The
    /// others lose and are to be dropped. The ticket is the winner's: give it back
    /// with [`Registry::release`](crate::registry::Registry::release) when its answer is over.
    pub fn won<R: Rng>(
        &mut self,
        context: &mut Context<'_, R>,
        id: AttemptId,
    ) -> Option<(Ticket, Vec<Loser>)> {
        let at = self.live.iter().position(|live| live.id == id)?;
        let winner = self.live.swap_remove(at);
        let sample = if self.profile.stream { Sample::Begun } else { Sample::Success };
        context.registry.record(winner.ticket, context.now, sample, context.rng);
        let ticket = if self.profile.stream {
            context.registry.first_content(winner.ticket, context.now, self.profile.input_tokens)
        } else {
            winner.ticket.proven()
        };
        let losers = self.settle_losers(context, Blame::Overtaken);
        self.settle_poison(context);
        Some((ticket, losers))
    }

    /// The head of a whole answer came: from here on only `idle` without its end makes
    /// it silent.
    pub fn heard<R: Rng>(&mut self, context: &Context<'_, R>, id: AttemptId) {
        for live in self.live.iter_mut().filter(|live| live.id == id && !live.overdue) {
            let idle = context.route.model.tiers[live.tier].timeouts.idle;
            live.soft = live.soft.max(context.now + idle);
            live.foresight = None;
        }
    }

    /// Deployments whose breaker opened when the request was settled, once.
    pub fn take_opened(&mut self) -> Vec<DeploymentIndex> {
        core::mem::take(&mut self.opened)
    }

    /// The request ends without a winner: it failed, or its caller left. What still
    /// runs is to be dropped.
    pub fn abandon<R: Rng>(&mut self, context: &mut Context<'_, R>) -> Vec<Loser> {
        let blame = match self.failure {
            Some(Failure::Deadline) if !self.impatient => Blame::Deadline,
            Some(Failure::Return(_)) => Blame::Overtaken,
            _ => Blame::Nobody,
        };
        let losers = self.settle_losers(context, blame);
        self.settle_poison(context);
        losers
    }
}
