//! What operators order beside the configuration, and its end: forced breakers, drills,
//! drains. All of it runs on the writer's thread.

use std::time::Duration;

use trunkline_proto::types::v1::Fault;

use super::drain::DRAINS_MAX;
use super::fault::{self, DRILLS_MAX, Drill};
use super::verdict::{FORCED_DEPLOYMENTS_MAX, VerdictOutcome, VerdictState};
use super::writer::Writer;
use super::{CommitError, now_unix_ms};
use crate::store::journal::{DrainChange, Forced, Record};

/// Whoever ends a verdict or a drill when its time is over.
const CLOCK: &str = "trunkline";

impl Writer {
    pub(super) fn set_verdict(
        &mut self,
        deployment: String,
        forced: Option<(VerdictState, Option<Duration>)>,
        reason: String,
        principal: String,
    ) -> Result<VerdictOutcome, CommitError> {
        if !self.folded.verdicts.has_room_for(&deployment) {
            let max = FORCED_DEPLOYMENTS_MAX as u64;
            return Err(CommitError::TooMuch { what: "deployments that were ever forced", max });
        }
        let forced = forced.map(|(state, ttl)| Forced {
            open: state == VerdictState::ForcedOpen,
            reason,
            expires_unix_ms: ttl.map(|ttl| now_unix_ms().saturating_add(ttl.as_millis() as u64)),
        });
        if let Some(change) = self.folded.verdicts.change(&deployment, forced) {
            let order = self.order("SetBreaker", principal, deployment.clone());
            self.persist(Record { verdicts: vec![change], ..order })?;
            self.publish_orders();
        }
        Ok(self.folded.verdicts.outcome(&deployment))
    }

    pub(super) fn inject_fault(
        &mut self,
        fault: Fault,
        ttl: Duration,
        principal: String,
    ) -> Result<Drill, CommitError> {
        if !self.folded.faults.has_room_for(&fault.name) {
            return Err(CommitError::TooMuch { what: "active drills", max: DRILLS_MAX as u64 });
        }
        let start_unix_ms = now_unix_ms();
        let expires_unix_ms = start_unix_ms.saturating_add(ttl.as_millis() as u64);
        let drill = Drill { fault, start_unix_ms, expires_unix_ms, principal: principal.clone() };
        let order = self.order("InjectFault", principal, drill.fault.name.clone());
        self.persist(Record { faults: vec![fault::begin(&drill)], ..order })?;
        self.publish_orders();
        Ok(drill)
    }

    pub(super) fn clear_fault(&mut self, name: String, principal: String) -> Result<bool, CommitError> {
        if self.folded.faults.get(&name).is_none() {
            return Ok(false);
        }
        let change = fault::end(&name);
        let order = self.order("ClearFault", principal, name);
        self.persist(Record { faults: vec![change], ..order })?;
        self.publish_orders();
        Ok(true)
    }

    pub(super) fn set_drain(
        &mut self,
        agent_id: String,
        reason: Option<String>,
        principal: String,
    ) -> Result<(), CommitError> {
        if self.folded.drains.reason(&agent_id) == reason.as_deref() {
            return Ok(());
        }
        if reason.is_some() && !self.folded.drains.has_room_for(&agent_id) {
            return Err(CommitError::TooMuch { what: "drained agents", max: DRAINS_MAX as u64 });
        }
        let order = self.order("DrainAgent", principal, agent_id.clone());
        self.persist(Record { drains: vec![DrainChange { agent_id, reason }], ..order })?;
        self.publish_orders();
        Ok(())
    }

    /// Ends what has expired; the answer is when the next one does.
    pub(super) fn expire(&mut self, now_unix_ms: u64) -> Option<u64> {
        let verdicts = self.folded.verdicts.expired(now_unix_ms);
        let faults = self.folded.faults.expired(now_unix_ms);
        if !verdicts.is_empty() || !faults.is_empty() {
            let order = self.order("expire", CLOCK.to_owned(), String::new());
            let record = Record { verdicts: verdicts.clone(), faults: faults.clone(), ..order };
            if self.persist(record).is_err() {
                // The end was decided, durably, with the beginning; it holds anyway.
                verdicts.into_iter().for_each(|change| self.folded.verdicts.apply(change));
                faults.into_iter().for_each(|change| self.folded.faults.apply(change));
            }
            self.publish_orders();
        }
        let ends = [self.folded.verdicts.next_expiry_unix_ms(), self.folded.faults.next_expiry_unix_ms()];
        ends.into_iter().flatten().min()
    }

    /// A record that leaves the configuration as it is.
    fn order(&self, method: &str, principal: String, subject: String) -> Record {
        let revision = self.folded.revision;
        Record { revision, principal, method: method.to_owned(), subject, ..Record::default() }
    }
}
