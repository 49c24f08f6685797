//! What holds beside the configuration, as one agent is told: all verdicts, its own drills,
//! its own drain, its own leases. Of other agents it learns nothing.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tokio::sync::watch;
use trunkline_proto::{
    agent::v1::{BreakerVerdict, OutOfService, Publication},
    types::v1::{ActiveFault, BreakerState, Fault},
};

use trunkline_routing::fleet::State;

use super::probe;
use crate::{
    fleet::Lease,
    grpc::wire_duration,
    repository::{DrainSet, Drill, FaultSet, FleetVerdict, Repository, Verdict, VerdictSet, VerdictState},
};

/// What an open breaker has left at least: it is open until something else is published.
const OPEN_MIN: Duration = Duration::from_secs(1);

/// All orders at one moment.
#[derive(Clone, Debug)]
pub(super) struct Orders {
    verdicts: Arc<VerdictSet>,
    faults: Arc<FaultSet>,
    drains: Arc<DrainSet>,
    leases: Arc<[Lease]>,
}

/// Tells when orders change.
#[derive(Debug)]
pub(super) struct Following {
    verdicts: watch::Receiver<Arc<VerdictSet>>,
    faults: watch::Receiver<Arc<FaultSet>>,
    drains: watch::Receiver<Arc<DrainSet>>,
    leases: watch::Receiver<Arc<[Lease]>>,
}

impl Following {
    pub(super) fn new(repository: &Repository, leases: watch::Receiver<Arc<[Lease]>>) -> Self {
        Self {
            verdicts: repository.subscribe_verdicts(),
            faults: repository.subscribe_faults(),
            drains: repository.subscribe_drains(),
            leases,
        }
    }

    /// Ends when there is something new.
    pub(super) async fn changed(&mut self) {
        let changed = tokio::select! {
            biased; // Verdicts first, for they stop traffic to what fails.
            changed = self.verdicts.changed() => changed,
            changed = self.leases.changed() => changed,
            changed = self.faults.changed() => changed,
            changed = self.drains.changed() => changed,
        };
        // The repository outlives all sessions; leases end with who is superseded.
        if changed.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// The orders now.
    pub(super) fn orders(&mut self) -> Orders {
        Orders {
            verdicts: Arc::clone(&self.verdicts.borrow_and_update()),
            faults: Arc::clone(&self.faults.borrow_and_update()),
            drains: Arc::clone(&self.drains.borrow_and_update()),
            leases: Arc::clone(&self.leases.borrow_and_update()),
        }
    }
}

impl Orders {
    /// Whether `agent_id` would be told the same.
    pub(super) fn same_for(&self, other: &Self, agent_id: &str) -> bool {
        self.verdicts == other.verdicts
            && self.leases == other.leases
            && self.drains.reason(agent_id) == other.drains.reason(agent_id)
            && self.faults_of(agent_id).eq(other.faults_of(agent_id))
    }

    /// What `agent_id` is told.
    pub(super) fn publication(&self, agent_id: &str, now: SystemTime) -> Publication {
        let faults = self.faults_of(agent_id).filter_map(|drill| active_fault(drill, now));
        let out_of_service = self.drains.reason(agent_id);
        let forced = self.verdicts.iter().filter_map(|verdict| breaker_verdict(verdict, now));
        let found = self.verdicts.fleet().filter_map(|verdict| fleet_verdict(verdict, now));
        let leases = self.current_leases().filter_map(|lease| probe::lease(lease, Instant::now()));
        Publication {
            verdicts: forced.chain(found).collect(),
            probe_leases: leases.collect(),
            faults: faults.collect(),
            out_of_service: out_of_service.map(|reason| OutOfService { reason: reason.to_owned() }),
            ..Publication::default()
        }
    }

    /// Those of the newest verdicts.
    fn current_leases(&self) -> impl Iterator<Item = &Lease> {
        self.leases.iter().filter(|lease| lease.generation == self.verdicts.generation(&lease.subject))
    }

    fn faults_of<'a>(&'a self, agent_id: &'a str) -> impl Iterator<Item = &'a Drill> {
        self.faults.iter().filter(move |drill| {
            let agents = &drill.fault.agents;
            agents.is_empty() || agents.iter().any(|id| id == agent_id)
        })
    }
}

fn active_fault(drill: &Drill, now: SystemTime) -> Option<ActiveFault> {
    let remaining = remaining(drill.expires_unix_ms, now)?;
    // Who else makes it is not the agent's business.
    let fault = Fault { agents: Vec::new(), ..drill.fault.clone() };
    Some(ActiveFault { fault: Some(fault), remaining: Some(wire_duration(remaining)) })
}

fn breaker_verdict(verdict: Verdict, now: SystemTime) -> Option<BreakerVerdict> {
    let left = match verdict.expires_unix_ms {
        None => None,
        Some(end) => Some(remaining(end, now)?),
    };
    let state = match verdict.state {
        VerdictState::ForcedOpen => BreakerState::ForcedOpen,
        VerdictState::ForcedClosed => BreakerState::ForcedClosed,
    };
    Some(BreakerVerdict {
        deployment: verdict.deployment,
        state: state.into(),
        generation: verdict.generation,
        remaining: left.map(wire_duration),
        reason: verdict.reason,
        ..BreakerVerdict::default()
    })
}

/// None: it is closed, or an operator's word lies above it.
fn fleet_verdict(verdict: FleetVerdict, now: SystemTime) -> Option<BreakerVerdict> {
    let (state, admit_percent) = match verdict.record.state {
        _ if verdict.forced.is_some() => return None,
        State::Closed => return None,
        State::Open => (BreakerState::Open, 0),
        State::HalfOpen => (BreakerState::HalfOpen, 0),
        State::Ramping(percent) => (BreakerState::Ramping, percent),
    };
    // However clocks went: no longer than it was meant to be, and it is open still.
    let end = verdict.since_unix_ms.saturating_add(verdict.record.open_for.as_millis() as u64);
    let left = remaining(end, now).unwrap_or_default().clamp(OPEN_MIN, verdict.record.open_for.max(OPEN_MIN));
    Some(BreakerVerdict {
        deployment: verdict.subject,
        state: state.into(),
        generation: verdict.generation,
        remaining: (state == BreakerState::Open).then(|| wire_duration(left)),
        reason: verdict.record.reason.into(),
        admit_percent: admit_percent.into(),
        openings: verdict.record.openings,
    })
}

/// None: it is over.
fn remaining(end_unix_ms: u64, now: SystemTime) -> Option<Duration> {
    (UNIX_EPOCH + Duration::from_millis(end_unix_ms)).duration_since(now).ok()
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use trunkline_proto::{
        agent::v1::{SyncResponse, sync_response},
        convert::sync::MESSAGE_BYTES_MAX,
        types::v1::fault::Effect,
    };

    use super::*;
    use crate::repository::{DRILLS_MAX, FORCED_DEPLOYMENTS_MAX};

    /// Longest names and reasons that are taken: see `admin::breakers` and
    /// `admin::faults::check`.
    const NAME: usize = 63;
    const REASON: usize = 256;
    const LIST: usize = 1_000;

    #[test]
    fn agents_take_the_longest_publication_there_is() {
        let now = UNIX_EPOCH;
        let model = "m".repeat(NAME);
        let deployment = format!("{model}/{model}");
        let verdict = Verdict {
            deployment: deployment.clone(),
            state: VerdictState::ForcedClosed,
            generation: u64::MAX,
            reason: "r".repeat(REASON),
            expires_unix_ms: Some(u64::from(u32::MAX)),
        };
        let verdict = breaker_verdict(verdict, now).unwrap();
        let drill = Drill {
            fault: Fault {
                name: model.clone(),
                agents: vec![model.clone(); LIST],
                deployments: vec![deployment; LIST],
                virtual_models: vec![model; LIST],
                percent: 100,
                effect: Some(Effect::ErrorStatus(599)),
                reason: "r".repeat(REASON),
            },
            start_unix_ms: 0,
            expires_unix_ms: u64::from(u32::MAX),
            principal: String::new(),
        };
        let fault = active_fault(&drill, now).unwrap();
        let longest = Publication {
            seq: u64::MAX,
            sequence: u64::MAX,
            verdicts: vec![verdict; FORCED_DEPLOYMENTS_MAX],
            faults: vec![fault; DRILLS_MAX],
            out_of_service: Some(OutOfService { reason: "r".repeat(4 * REASON) }),
            probe_leases: Vec::new(),
        };
        let message = Some(sync_response::Message::Publication(longest));
        let bytes = SyncResponse { message }.encoded_len();
        assert!(bytes > 16 << 20 && bytes <= MESSAGE_BYTES_MAX, "{bytes}");
    }
}
