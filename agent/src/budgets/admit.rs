//! Whether a request may be sent: it reserves the most it can cost from each budget that
//! it counts for.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::{Instant, timeout_at};
use trunkline_proto::convert;
use trunkline_routing::{
    budget::{
        Action,
        pacing::Upgrade,
        worst::{self, Worst},
    },
    eligibility::Profile,
    money::NanoUsd,
};

use super::{Entry, Reservation, held::Offer};
use crate::{
    engine::{IMAGE_INPUT_TOKENS_MAX, Job},
    metrics::BudgetLabels,
    shared::Shared,
    snapshot::{Goal, Snapshot},
};

/// Longest wait for money that may still come.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// The same where the request is served anyway: a lease that is on its way comes within.
pub(super) const WAIT_FOR_BETTER: Duration = Duration::from_millis(250);

/// While a request waits the ledger is asked so often.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// A control plane that is away may be back after it.
const AWAY_RETRY: Duration = Duration::from_secs(10);

/// Why a request is refused.
#[derive(Debug)]
pub(crate) struct OverBudget {
    /// The budget's name.
    pub(crate) budget: Box<str>,
    pub(crate) why: Why,
    /// Until the next period.
    pub(crate) resets_in: Duration,
}

/// What is the matter with the budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// Less is left than the request can cost.
    Spent,
    /// What is left is held by requests under way.
    Reserved,
    /// The lease is spent, and there is no control plane to give another.
    Away,
    /// No deployment that can serve it has a known price.
    Unpriced,
}

impl OverBudget {
    /// For programs.
    pub(crate) const fn code(&self) -> &'static str {
        match self.why {
            Why::Spent | Why::Away => "budget_exceeded",
            Why::Reserved => "budget_reserved",
            Why::Unpriced => "budget_unpriced",
        }
    }

    /// For people.
    pub(crate) fn message(&self) -> String {
        let budget = &self.budget;
        let resets = prost_types::Timestamp::from(SystemTime::now() + self.resets_in);
        let resets = prost_types::Timestamp { nanos: 0, ..resets };
        match self.why {
            Why::Spent => convert::budget_spent(budget, SystemTime::now() + self.resets_in),
            Why::Reserved => format!(
                "what is left of budget '{budget}' is held by requests under way; try again when some have ended, or with a smaller max_tokens"
            ),
            Why::Away => format!(
                "this agent's part of budget '{budget}' is spent, and the control plane can't be reached for more; the budget starts anew at {resets}"
            ),
            Why::Unpriced => format!(
                "budget '{budget}' rejects what could cost anything, and no deployment that can serve this request has a known price; configure one"
            ),
        }
    }

    /// When it may be different.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self.why {
            Why::Spent => Some(self.resets_in),
            Why::Reserved => Some(Duration::from_secs(1)),
            Why::Away => Some(self.resets_in.min(AWAY_RETRY)),
            Why::Unpriced => None,
        }
    }
}

/// Reserves money for `job`. The answer is the job to run: with its reservation, and
/// restricted to what the budgets allow. Waits a little for money that may come.
///
/// # Errors
/// If a budget that rejects has none for it.
pub(crate) async fn admit(shared: &Shared, job: &Arc<Job>) -> Result<Arc<Job>, OverBudget> {
    let entries = shared.budgets.covering(job.tenant.as_deref(), job.snapshot.virtual_model(job.goal));
    if entries.is_empty() {
        return Ok(Arc::clone(job));
    }
    let arrived = Instant::now();
    let route = job.snapshot.route(job.goal);
    let patience = job.deadline.unwrap_or(route.model.deadline);
    let until = arrived + patience.min(WAIT_MAX);
    let mut admitted = Job::clone(job);
    let mut seen = job.profile;
    if job.scanned.has_images {
        let bytes = u32::try_from(job.input_bytes / 4).unwrap_or(u32::MAX);
        seen.input_tokens = bytes.min(IMAGE_INPUT_TOKENS_MAX);
    }
    let worst = worst::worst(job.snapshot.table(), route.model, &seen);
    let mut reservation = Reservation::new(shared.clock);
    for entry in &entries {
        match entry.budget.action {
            Action::Alert => {
                let amount = worst.dearest.unwrap_or_default().0;
                match entry.held.offer(amount, shared.clock.now()) {
                    Offer::Reserved(number) => reservation.add(entry, number, amount),
                    Offer::Wait => force(shared, &mut reservation, entry, worst.dearest),
                    Offer::Never => {
                        count(shared, entry, "alerted");
                        force(shared, &mut reservation, entry, worst.dearest);
                    }
                }
            }
            Action::Reject => {
                let amount = priced(shared, entry, &worst)?;
                if let Err(why) = obtain(shared, &mut reservation, entry, amount, until).await {
                    return Err(refuse(shared, entry, why));
                }
                // Leaves out what has no price, for it could cost anything.
                let most = admitted.profile.max_cost.unwrap_or(NanoUsd(u64::MAX));
                admitted.profile.max_cost = Some(most);
            }
            Action::Downgrade => {
                pace(shared, entry, &job.snapshot, job.goal, &mut admitted.profile);
                let cheapest = admitted.profile.cheapest;
                let most = if cheapest { worst.cheapest } else { worst.dearest };
                // The cheapest is waited for by nobody.
                let patience = if cheapest { Duration::ZERO } else { WAIT_FOR_BETTER };
                let until = until.min(arrived + patience);
                let amount = most.unwrap_or_default().0;
                if let Err(why) = obtain(shared, &mut reservation, entry, amount, until).await {
                    admitted.profile.cheapest = true;
                    if !cheapest || why == Why::Spent {
                        count(shared, entry, "downgraded");
                    }
                    force(shared, &mut reservation, entry, worst.cheapest);
                }
            }
        }
    }
    let waited = arrived.elapsed();
    if waited > ASK_AGAIN / 10 {
        admitted.deadline = Some(patience.saturating_sub(waited));
    }
    admitted.budget = Some(Arc::new(reservation));
    Ok(Arc::new(admitted))
}

/// Whether a request that the app sends itself would be admitted now; nothing is reserved.
/// What budgets allow is written into `profile`.
///
/// # Errors
/// If a budget that rejects has no money for it.
pub(crate) async fn look(
    shared: &Shared,
    tenant: Option<&str>,
    snapshot: &Snapshot,
    goal: Goal,
    profile: &mut Profile,
) -> Result<(), OverBudget> {
    let worst = worst::worst(snapshot.table(), snapshot.route(goal).model, profile);
    for entry in shared.budgets.covering(tenant, snapshot.virtual_model(goal)) {
        hear(shared, &entry).await;
        let is_spent = |amount: u64| entry.held.is_spent(amount, shared.clock.now());
        match entry.budget.action {
            Action::Alert => {
                if is_spent(worst.dearest.unwrap_or_default().0) {
                    count(shared, &entry, "alerted");
                }
            }
            Action::Reject => {
                if is_spent(priced(shared, &entry, &worst)?) {
                    return Err(refuse(shared, &entry, Why::Spent));
                }
                profile.max_cost = profile.max_cost.or(Some(NanoUsd(u64::MAX)));
            }
            Action::Downgrade => {
                if is_spent(worst.dearest.unwrap_or_default().0) {
                    profile.cheapest = true;
                    count(shared, &entry, "downgraded");
                } else {
                    pace(shared, &entry, snapshot, goal, profile);
                }
            }
        }
    }
    Ok(())
}

/// Waits a little for the ledger's first word in this period.
async fn hear(shared: &Shared, entry: &Entry) {
    let until = Instant::now() + WAIT_FOR_BETTER;
    loop {
        let changed = entry.held.changed.notified();
        let known = entry.held.is_known(shared.clock.now());
        if known || !shared.budgets.has_ledger() || Instant::now() >= until {
            return;
        }
        entry.held.ask_again();
        shared.budgets.ask.notify_one();
        shared.budgets.write.notify_one();
        drop(timeout_at(until.min(Instant::now() + ASK_AGAIN), changed).await);
    }
}

/// Keeps to the cheapest what is not worth the better model at the pace that money goes.
fn pace(shared: &Shared, entry: &Entry, snapshot: &Snapshot, goal: Goal, profile: &mut Profile) {
    if profile.cheapest {
        return;
    }
    let (table, now) = (snapshot.table(), shared.clock.now());
    let floor = Profile { cheapest: true, ..*profile };
    let (taken, cheapest) = {
        let mut registry = shared.registry.lock();
        let mut decide = |profile| registry.decide(snapshot, goal, profile, now);
        (decide(profile), decide(&floor))
    };
    let Some(upgrade) = Upgrade::of(table, profile, &taken, &cheapest) else { return };
    if !entry.held.buys(&entry.budget, upgrade, now) {
        profile.cheapest = true;
        count(shared, entry, "paced");
    }
}

/// The most that the request can cost, where that is known.
fn priced(shared: &Shared, entry: &Entry, worst: &Worst) -> Result<u64, OverBudget> {
    match worst.dearest {
        None if worst.unpriced => Err(refuse(shared, entry, Why::Unpriced)),
        // Nothing may serve it at all: that is said by whoever looks for a target.
        dearest => Ok(dearest.unwrap_or_default().0),
    }
}

pub(super) fn refuse(shared: &Shared, entry: &Entry, why: Why) -> OverBudget {
    count(shared, entry, "refused");
    let resets_in = entry.held.resets_in(shared.clock.now(), SystemTime::now());
    OverBudget { budget: entry.budget.name.clone(), why, resets_in }
}

fn count(shared: &Shared, entry: &Entry, result: &'static str) {
    let labels = BudgetLabels { budget: entry.budget.name.to_string(), result };
    shared.metrics.budget_requests.get_or_create(&labels).inc();
}

pub(super) fn force(shared: &Shared, reservation: &mut Reservation, entry: &Entry, amount: Option<NanoUsd>) {
    let amount = amount.unwrap_or_default().0;
    let number = entry.held.force(amount, shared.clock.now());
    reservation.add(entry, number, amount);
}

/// Reserves `amount`, waiting for it until then if it may come.
pub(super) async fn obtain(
    shared: &Shared,
    reservation: &mut Reservation,
    entry: &Entry,
    amount: u64,
    until: Instant,
) -> Result<(), Why> {
    let (held, budgets) = (&entry.held, &shared.budgets);
    let mut offer = held.offer(amount, shared.clock.now());
    if offer == Offer::Wait {
        let waiting = Waiting::begin(entry, amount);
        loop {
            // Before the next look, so that no news is missed.
            let changed = held.changed.notified();
            offer = held.offer(amount, shared.clock.now());
            if offer != Offer::Wait || Instant::now() >= until {
                break;
            }
            if !waiting.may_be_freed && !budgets.has_ledger() {
                return Err(Why::Away);
            }
            budgets.ask.notify_one();
            budgets.write.notify_one();
            drop(timeout_at(until.min(Instant::now() + ASK_AGAIN), changed).await);
        }
    }
    match offer {
        Offer::Reserved(number) => {
            reservation.add(entry, number, amount);
            if held.is_short(shared.clock.now()) {
                budgets.ask.notify_one();
                budgets.write.notify_one();
            }
            Ok(())
        }
        Offer::Never => {
            held.ask_again();
            Err(Why::Spent)
        }
        Offer::Wait if !budgets.has_ledger() => Err(Why::Away),
        Offer::Wait => Err(Why::Reserved),
    }
}

/// A request that waits for money, until dropped.
struct Waiting<'a> {
    entry: &'a Entry,
    amount: u64,
    /// By requests under way.
    may_be_freed: bool,
}

impl<'a> Waiting<'a> {
    fn begin(entry: &'a Entry, amount: u64) -> Self {
        let may_be_freed = entry.held.begin_wait(amount);
        Self { entry, amount, may_be_freed }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.entry.held.end_wait(self.amount);
    }
}
