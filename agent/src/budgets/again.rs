//! Money for another attempt of a request that runs: its first reservation covers one.

use tokio::time::Instant;
use trunkline_routing::{budget::Action, money::NanoUsd};

use super::{
    Entry, OverBudget, Reservation, Why,
    admit::{WAIT_FOR_BETTER, force, obtain, refuse},
};
use crate::shared::Shared;

/// There is no money for another attempt of a request.
#[derive(Debug)]
pub(crate) struct Short {
    entry: Entry,
    why: Why,
}

impl Short {
    /// Ends the request for it.
    pub(crate) fn refuse(&self, shared: &Shared) -> OverBudget {
        refuse(shared, &self.entry, self.why)
    }
}

impl Reservation {
    /// Reserves as much again, for another attempt of the same request. Money that is on its
    /// way is waited for, until `deadline` at most. `needed`: without it there is no answer,
    /// so only a budget that rejects refuses it.
    ///
    /// # Errors
    /// If there is no money for it.
    pub(crate) async fn again(
        &self,
        shared: &Shared,
        needed: bool,
        deadline: Instant,
    ) -> Result<Self, Short> {
        let now = Instant::now();
        let until = deadline.min(now + WAIT_FOR_BETTER);
        let mut more = Self::new(shared.clock);
        for part in &self.parts {
            let (entry, amount) = (&part.entry, part.amount);
            let until = if entry.budget.action == Action::Alert { now } else { until };
            let Err(why) = obtain(shared, &mut more, entry, amount, until).await else { continue };
            match entry.budget.action {
                Action::Alert => force(shared, &mut more, entry, Some(NanoUsd(amount))),
                Action::Downgrade if needed => force(shared, &mut more, entry, Some(NanoUsd(amount))),
                Action::Downgrade | Action::Reject => return Err(Short { entry: entry.clone(), why }),
            }
        }
        Ok(more)
    }
}
