//! What operators order beside the configuration, and its end: forced breakers, drills,
//! drains. All of it runs on the writer's thread.

use std::time::Duration;

use trunkline_proto::types::v1::Fault;

use super::drain::DRAINS_MAX;
use super::fault::{self, DRILLS_MAX, Drill};
use super::stage::Stage;
use super::verdict::{FORCED_DEPLOYMENTS_MAX, FleetChange, VerdictOutcome, VerdictState};
use super::{CommitError, now_unix_ms};
use crate::store::journal::{DrainChange, FaultChange, Forced, Record, VerdictChange};

/// Whoever ends a verdict or a drill when its time is over.
const CLOCK: &str = "trunkline";

impl Stage<'_> {
    pub(super) fn set_verdict(
        &mut self,
        deployment: &str,
        forced: Option<(VerdictState, Option<Duration>)>,
        reason: String,
        principal: String,
    ) -> Result<VerdictOutcome, CommitError> {
        let verdicts = &self.staged.folded.verdicts;
        if !verdicts.has_room_for(deployment) {
            let max = FORCED_DEPLOYMENTS_MAX as u64;
            return Err(CommitError::TooMuch { what: "deployments that ever had a verdict", max });
        }
        let forced = forced.map(|(state, ttl)| Forced {
            open: state == VerdictState::ForcedOpen,
            reason,
            expires_unix_ms: ttl.map(|ttl| now_unix_ms().saturating_add(ttl.as_millis() as u64)),
        });
        if let Some(change) = verdicts.change(deployment, forced, now_unix_ms()) {
            let order = self.order("SetBreaker", principal, deployment.to_owned());
            self.append(Record { verdicts: vec![change], ..order })?;
        }
        Ok(self.staged.folded.verdicts.outcome(deployment))
    }

    /// Each change that is still due becomes a record of its own. The answer is how many.
    pub(super) fn change_fleet(&mut self, changes: Vec<FleetChange>) -> Result<usize, CommitError> {
        let mut taken = 0;
        for change in changes {
            let Some(change) = self.staged.folded.verdicts.found(change, now_unix_ms()) else { continue };
            let order = self.order("fleet-breaker", CLOCK.to_owned(), change.deployment.clone());
            self.append(Record { verdicts: vec![change], ..order })?;
            taken += 1;
        }
        Ok(taken)
    }

    /// Lease numbers below `end` may be used.
    pub(super) fn reserve_leases(&mut self, end: u64) -> Result<u64, CommitError> {
        if self.staged.folded.lease_end < end {
            let order = self.order("reserve-leases", CLOCK.to_owned(), String::new());
            self.append(Record { lease_end: Some(end), ..order })?;
        }
        Ok(self.staged.folded.lease_end)
    }

    pub(super) fn inject_fault(
        &mut self,
        fault: Fault,
        ttl: Duration,
        principal: String,
    ) -> Result<Drill, CommitError> {
        if !self.staged.folded.faults.has_room_for(&fault.name) {
            return Err(CommitError::TooMuch { what: "active drills", max: DRILLS_MAX as u64 });
        }
        let start_unix_ms = now_unix_ms();
        let expires_unix_ms = start_unix_ms.saturating_add(ttl.as_millis() as u64);
        let drill = Drill { fault, start_unix_ms, expires_unix_ms, principal: principal.clone() };
        let order = self.order("InjectFault", principal, drill.fault.name.clone());
        self.append(Record { faults: vec![fault::begin(&drill)], ..order })?;
        Ok(drill)
    }

    pub(super) fn clear_fault(&mut self, name: String, principal: String) -> Result<bool, CommitError> {
        if self.staged.folded.faults.get(&name).is_none() {
            return Ok(false);
        }
        let change = fault::end(&name);
        let order = self.order("ClearFault", principal, name);
        self.append(Record { faults: vec![change], ..order })?;
        Ok(true)
    }

    pub(super) fn set_drain(
        &mut self,
        agent_id: String,
        reason: Option<String>,
        principal: String,
    ) -> Result<(), CommitError> {
        let drains = &self.staged.folded.drains;
        if drains.reason(&agent_id) == reason.as_deref() {
            return Ok(());
        }
        if reason.is_some() && !drains.has_room_for(&agent_id) {
            return Err(CommitError::TooMuch { what: "drained agents", max: DRAINS_MAX as u64 });
        }
        let order = self.order("DrainAgent", principal, agent_id.clone());
        self.append(Record { drains: vec![DrainChange { agent_id, reason }], ..order })
    }

    /// Makes the end of what has expired part of the state.
    pub(super) fn end(
        &mut self,
        verdicts: Vec<VerdictChange>,
        faults: Vec<FaultChange>,
    ) -> Result<(), CommitError> {
        let order = self.order("expire", CLOCK.to_owned(), String::new());
        self.append(Record { verdicts, faults, ..order })
    }

    /// A record that leaves the configuration as it is.
    fn order(&self, method: &str, principal: String, subject: String) -> Record {
        let revision = self.staged.folded.revision;
        Record { revision, principal, method: method.to_owned(), subject, ..Record::default() }
    }
}
