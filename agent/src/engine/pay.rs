//! Who pays for attempts. Each has a reservation of its own, for the most that it can cost;
//! one of which nobody told what it used is charged an estimate, for providers bill what
//! they generate whether anybody reads it or not.

use std::sync::Arc;

use tokio::time::Instant;
use trunkline_routing::{
    budget::worst,
    classify::{OutcomeClass, TransportFault, classify_transport},
    money::{NanoUsd, Tokens},
    request::{AttemptId, Start},
    score,
};

use super::{
    Flight, Job,
    attempt::AttemptEnd,
    race::{Heard, Race},
};
use crate::{
    budgets::{Reservation, Short},
    control::UsageSource,
    decisions::AttemptRecord,
    shared::Shared,
};

/// Whether an attempt may start.
pub(super) enum Funding {
    /// Yes. None: no budget counts it.
    Paid(Option<Arc<Reservation>>),
    /// No: there is no money.
    Short(Short),
    /// No: this one ended before the money came.
    Ended(AttemptId, AttemptEnd),
}

/// What the attempts of one request have reserved, and whether they were sent.
#[derive(Debug, Default)]
pub(super) struct Payer {
    /// By attempt.
    paid: Vec<(Option<Arc<Reservation>>, Heard)>,
    /// Of attempts that cost nothing: for the next.
    free: Vec<Arc<Reservation>>,
}

impl Payer {
    pub(super) fn new(job: &Job) -> Self {
        Self { paid: Vec::new(), free: job.budget.iter().cloned().collect() }
    }

    /// Money for another attempt.
    ///
    /// # Errors
    /// If there is none, and a budget rejects.
    pub(super) async fn fund(
        &mut self,
        shared: &Shared,
        job: &Job,
        why: Start,
        deadline: Instant,
    ) -> Result<Option<Arc<Reservation>>, Short> {
        let Some(first) = &job.budget else { return Ok(None) };
        if let Some(free) = self.free.pop() {
            return Ok(Some(free));
        }
        first.again(shared, is_needed(why), deadline).await.map(|more| Some(Arc::new(more)))
    }

    /// The next attempt starts, paid by that.
    pub(super) fn begin(&mut self, reservation: Option<Arc<Reservation>>) -> Heard {
        let heard = Heard::default();
        self.paid.push((reservation, heard.clone()));
        heard
    }

    /// The attempt is over and cost so much, if it is known.
    pub(super) fn settle(&mut self, id: AttemptId, cost: Option<NanoUsd>) {
        let Some(reservation) = self.take(id) else { return };
        if let Some(cost) = cost {
            reservation.charge(cost);
        }
        if reservation.is_whole() {
            self.free.push(reservation);
        } else {
            reservation.give_back();
        }
    }

    /// The reservation of an attempt that is settled elsewhere.
    pub(super) fn take(&mut self, id: AttemptId) -> Option<Arc<Reservation>> {
        self.paid.get_mut(id.0 as usize)?.0.take()
    }

    /// What an attempt used of which nobody told. None: the provider never had it.
    pub(super) fn estimate(
        &self,
        shared: &Shared,
        job: &Job,
        id: AttemptId,
        attempt: &AttemptRecord,
    ) -> Option<(Tokens, UsageSource)> {
        let (_, heard) = self.paid.get(id.0 as usize)?;
        if !heard.is_sent() {
            return None;
        }
        // Of a stream without content nothing was generated that is known of.
        let output = if job.scanned.stream { 0 } else { generated(shared, job, attempt) };
        let (tokens, source) = job.tokens(None, 0);
        Some((Tokens { output, ..tokens }, source))
    }
}

impl Flight<'_> {
    /// Money for the attempt that is to start. Without it, it is skipped. What runs may end
    /// while money is on its way.
    pub(super) async fn fund(&mut self, race: &mut Race, id: AttemptId, why: Start) -> Funding {
        let shared = &self.worker.shared;
        let deadline = Instant::from_std(shared.clock.instant(self.request.deadline()));
        let funding = tokio::select! {
            biased; // An answer makes another attempt needless.
            (ended, end) = race.next() => Funding::Ended(ended, end),
            funded = self.payer.fund(shared, self.job, why, deadline) => {
                funded.map_or_else(Funding::Short, Funding::Paid)
            }
        };
        if !matches!(funding, Funding::Paid(_)) {
            self.skip(id);
        }
        funding
    }

    /// There is no money for the attempt: it never starts.
    fn skip(&mut self, id: AttemptId) {
        let never = classify_transport(TransportFault::Cancelled);
        self.told_failed(id, &never);
    }

    /// The attempt is over.
    pub(super) fn close(
        &mut self,
        id: AttemptId,
        class: OutcomeClass,
        status: u16,
        used: Option<(Tokens, UsageSource)>,
    ) {
        self.trace.close(&self.worker.shared, self.job, id, class, status, used);
        self.payer.settle(id, self.trace.attempts[id.0 as usize].cost);
    }

    /// What an attempt used that told nothing of it.
    pub(super) fn estimate(&self, id: AttemptId) -> Option<(Tokens, UsageSource)> {
        let attempt = &self.trace.attempts[id.0 as usize];
        self.payer.estimate(&self.worker.shared, self.job, id, attempt)
    }
}

/// Whether there is no answer without it: nothing else runs.
pub(super) const fn is_needed(why: Start) -> bool {
    !matches!(why, Start::Beside | Start::Hedge)
}

/// Output tokens of a whole answer so far, at the predicted pace, at most its limit.
fn generated(shared: &Shared, job: &Job, attempt: &AttemptRecord) -> u64 {
    let (snapshot, now) = (&job.snapshot, shared.clock.now());
    let (table, route) = (snapshot.table(), snapshot.route(job.goal));
    let predicted = {
        let registry = shared.registry.lock();
        score::estimate(&registry, table, &snapshot.binding, route, attempt.deployment, &job.profile, now)
    };
    let seconds = now.since(attempt.started).as_secs_f64();
    // The pace is positive and finite; a cast saturates.
    let each = (seconds / predicted.tpot_s).ceil() as u64;
    let most = worst::output_max(table.deployment(attempt.deployment), &job.profile);
    each.saturating_mul(job.profile.answers()).min(most)
}
