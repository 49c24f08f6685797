//! Drills: InjectFault, ListFaults, ClearFault. They end by themselves; what agents make
//! of them shows in ListFaults, ListAgents, metrics and the log.

mod check;

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tonic::Status;
use trunkline_proto::{
    admin::v1::{
        ClearFaultRequest, ClearFaultResponse, Drill, InjectFaultRequest, InjectFaultResponse,
        ListFaultsResponse,
    },
    status,
};

use crate::{
    grpc::{Context, refuse},
    repository::{self, FaultSet},
};

pub(super) async fn inject(
    context: &Context,
    request: InjectFaultRequest,
    principal: String,
) -> Result<InjectFaultResponse, Status> {
    let state = context.repository.state();
    let (fault, ttl) = check::check(request.fault, request.ttl, &state.table)
        .map_err(|problems| status::invalid_request(&problems))?;
    let drill = if request.validate_only {
        let start_unix_ms = unix_ms(SystemTime::now());
        let expires_unix_ms = start_unix_ms + ttl.as_millis() as u64;
        repository::Drill { fault, start_unix_ms, expires_unix_ms, principal }
    } else {
        let begun = context.repository.inject_fault(fault, ttl, principal).await;
        begun.map_err(|error| refuse::commit(&error))?
    };
    Ok(InjectFaultResponse { drill: Some(describe(&drill, Vec::new())) })
}

pub(super) fn list(context: &Context) -> ListFaultsResponse {
    let mut active = context.registry.active_faults();
    let faults = context.repository.faults();
    let drills = faults.iter().map(|drill| {
        let active_at = active.remove(&drill.fault.name).unwrap_or_default();
        describe(drill, active_at)
    });
    ListFaultsResponse { drills: drills.collect() }
}

pub(super) async fn clear(
    context: &Context,
    request: ClearFaultRequest,
    principal: String,
) -> Result<ClearFaultResponse, Status> {
    if request.name.is_empty() {
        return Err(status::invalid_field("name", "is required: the name of a drill, see ListFaults"));
    }
    let cleared = context.repository.clear_fault(request.name.clone(), principal).await;
    let was_active = cleared.map_err(|error| refuse::commit(&error))?;
    was_active.then_some(ClearFaultResponse {}).ok_or_else(|| status::not_found("drill", &request.name))
}

/// Says in the log when drills begin and end, however they do, until the control plane
/// stops.
pub(super) async fn log(context: Arc<Context>) {
    let mut newest = context.repository.subscribe_faults();
    // Those from before a restart are told again: the log may be a new one.
    let mut told = Arc::new(FaultSet::default());
    newest.mark_changed();
    loop {
        tokio::select! {
            biased; // A stop is heeded first.
            () = context.shutdown.cancelled() => return,
            changed = newest.changed() => if changed.is_err() { return },
        }
        let faults = Arc::clone(&newest.borrow_and_update());
        for drill in told.iter() {
            if faults.get(&drill.fault.name).is_none() {
                tracing::warn!(drill = drill.fault.name, "drill ended");
            }
        }
        for drill in faults.iter().filter(|drill| told.get(&drill.fault.name) != Some(*drill)) {
            let (name, principal, reason) = (&drill.fault.name, &drill.principal, &drill.fault.reason);
            let ends = drill.expires_unix_ms;
            let effect = drill.fault.effect.as_ref();
            tracing::warn!(drill = name, principal, reason, ?effect, ends_unix_ms = ends, "drill begins");
        }
        told = faults;
    }
}

fn describe(drill: &repository::Drill, active_at: Vec<String>) -> Drill {
    let time = |unix_ms| Some((UNIX_EPOCH + Duration::from_millis(unix_ms)).into());
    Drill {
        fault: Some(drill.fault.clone()),
        start_time: time(drill.start_unix_ms),
        expire_time: time(drill.expires_unix_ms),
        principal: drill.principal.clone(),
        active_at,
    }
}

fn unix_ms(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}
