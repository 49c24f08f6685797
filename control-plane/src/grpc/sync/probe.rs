//! Probes on the wire: leases to the agent that holds them, results from it.

use std::time::Instant;

use tonic::Status;
use trunkline_proto::{
    agent::v1::{ProbeLease, ProbeOutcome, ProbePurpose, ProbeResult},
    status,
};
use trunkline_routing::fleet::{Outcome, Purpose};

use crate::{fleet::Lease, grpc::wire_duration, metrics::class_name};

/// What a result says.
pub(super) fn outcome(result: &ProbeResult) -> Result<Outcome, Status> {
    match result.outcome() {
        ProbeOutcome::Succeeded => Ok(Outcome::Succeeded),
        ProbeOutcome::Failed => Ok(Outcome::Failed(class_name(result.outcome_class()).into())),
        ProbeOutcome::Unused => Ok(Outcome::Unused),
        ProbeOutcome::Unspecified => {
            Err(status::invalid_field("probe_result.outcome", "must say what came of the probe"))
        }
    }
}

/// None: it is over.
pub(super) fn lease(lease: &Lease, now: Instant) -> Option<ProbeLease> {
    let remaining = lease.until.checked_duration_since(now).filter(|left| !left.is_zero())?;
    let purpose = match lease.purpose {
        Purpose::HalfOpen => ProbePurpose::HalfOpen,
        Purpose::HealthCheck => ProbePurpose::HealthCheck,
    };
    Some(ProbeLease {
        lease_id: lease.id,
        deployment: lease.deployment.clone(),
        generation: lease.generation,
        remaining: Some(wire_duration(remaining)),
        purpose: purpose.into(),
    })
}
