//! Health checks: calls that are made up for deployments that have no traffic.

use core::time::Duration;

use rand_core::Rng;

use super::{Binding, Registry, Ticket};
use crate::{
    breaker::{Sample, Trip},
    table::DeploymentIndex,
    time::Timestamp,
};

impl Registry {
    /// How long nothing was heard from the deployment: no result that says anything.
    /// Zero for one that is gone.
    pub fn idle_for(&self, binding: &Binding, deployment: DeploymentIndex, now: Timestamp) -> Duration {
        self.slot(binding.slot(deployment)).map_or(Duration::ZERO, |slot| now.since(slot.last_result))
    }

    /// The attempt was a health check, which [`Registry::record`] was told already. After
    /// `unhealthy_threshold` of them that failed in a row the breaker opens, though few
    /// calls are no evidence by its own rules. Returns whether it opened.
    pub fn note_check(
        &mut self,
        ticket: Ticket,
        now: Timestamp,
        sample: Sample,
        unhealthy_threshold: u32,
        rng: &mut impl Rng,
    ) -> bool {
        let Some(slot) = self.slot_mut(ticket.slot) else { return false };
        match sample {
            Sample::Success | Sample::Begun => slot.failed_checks = 0,
            Sample::Failure | Sample::RatioFailure | Sample::BrokeOff => slot.failed_checks += 1,
            Sample::RateLimited | Sample::Neutral | Sample::Ended => return false,
        }
        if slot.failed_checks < unhealthy_threshold.max(1) || slot.forced(now).is_some() {
            return false;
        }
        slot.failed_checks = 0;
        let opened = slot.breaker.trip(now, Trip::Checks, rng);
        if opened {
            self.note_opening(ticket.slot, now, rng);
        }
        opened
    }
}
