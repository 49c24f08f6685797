//! The distribution of virtual models, as it is and whenever it changes.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep_until};
use tokio_stream::Stream;
use tonic::Status;
use trunkline_proto::{
    convert::{breaker_state, route_state},
    routing::v1::{RouteState, WatchRoutesResponse},
    status,
    types::v1::Version,
};
use trunkline_routing::eligibility::Profile;

use super::refuse;
use crate::{
    ingress::{Caller, LocalError},
    shared::Shared,
    snapshot::{Goal, Snapshot},
};

/// A change is looked for this often; time alone changes breakers.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Names of one watch: more than a table of any size that is meant.
const MODELS_MAX: usize = 1_000;
/// Bytes of a name, before it is repeated in an error.
const NAME_MAX: usize = 256;

struct Watch {
    shared: Arc<Shared>,
    tenant: Option<Arc<str>>,
    models: BTreeSet<String>,
    sent: Option<WatchRoutesResponse>,
    over: bool,
}

/// The models that a caller asked for: each known, and each one it may use. None: all
/// that it may use.
pub(super) fn wanted(caller: &Caller, models: Vec<String>) -> Result<BTreeSet<String>, Status> {
    if models.len() > MODELS_MAX {
        return Err(status::invalid_field("models", &format!("has more than {MODELS_MAX} names")));
    }
    for (at, name) in models.iter().enumerate() {
        if name.len() > NAME_MAX {
            return Err(status::invalid_field(&format!("models[{at}]"), "is no name: it is too long"));
        }
        if !matches!(caller.snapshot.goal(name), Some(Goal::Virtual(_))) {
            return Err(status::not_found("virtual model", name));
        }
        if !caller.allows(name) {
            return Err(refuse::local(&LocalError::forbidden_model(name)));
        }
    }
    Ok(models.into_iter().collect())
}

/// The state at once, then each change. Nothing is queued: a slow reader sees the
/// newest.
pub(super) fn routes(
    shared: Arc<Shared>,
    tenant: Option<Arc<str>>,
    models: BTreeSet<String>,
) -> impl Stream<Item = Result<WatchRoutesResponse, Status>> + Send {
    let watch = Watch { shared, tenant, models, sent: None, over: false };
    futures_util::stream::unfold(watch, |mut watch| async move {
        loop {
            if watch.over || watch.shared.draining.is_cancelled() {
                return None;
            }
            let snapshot = watch.shared.snapshot()?;
            // Keys and what they allow change with the table.
            let Some(caller) = Caller::again(snapshot, watch.tenant.as_deref()) else {
                watch.over = true;
                return Some((Err(refuse::local(&LocalError::key(watch.tenant.is_some()))), watch));
            };
            let now = Some(current(&watch.shared, &caller, &watch.models));
            if now.is_some() && now != watch.sent {
                watch.sent.clone_from(&now);
                return Some((Ok(now?), watch));
            }
            let draining = watch.shared.draining.clone();
            tokio::select! {
                biased;
                // The stream must not hold up a drain.
                () = draining.cancelled() => {}
                () = watch.shared.snapshot_changed.notified() => {}
                () = sleep_until(Instant::now() + LOOK_EVERY) => {}
            }
        }
    })
}

fn current(shared: &Shared, caller: &Caller, models: &BTreeSet<String>) -> WatchRoutesResponse {
    let snapshot = &caller.snapshot;
    let table = snapshot.table();
    let wanted = table.virtual_models.iter().enumerate();
    let wanted = wanted.filter(|(_, model)| models.is_empty() || models.contains(model.name.as_ref()));
    let wanted = wanted.filter(|(_, model)| caller.allows(&model.name));
    let routes = wanted.map(|(index, _)| distribution(shared, snapshot, index)).collect();
    let version = Version { epoch: table.version.epoch.clone(), revision: table.version.revision };
    WatchRoutesResponse { version: Some(version), routes }
}

fn distribution(shared: &Shared, snapshot: &Snapshot, index: usize) -> RouteState {
    let table = snapshot.table();
    let route = snapshot.route(Goal::Virtual(index));
    let now = shared.clock.now();
    let profile = Profile { at_unix_ms: shared.clock.unix_ms(now), ..Profile::default() };
    let mut registry = shared.registry.lock();
    let decision = registry.decide(snapshot, Goal::Virtual(index), &profile, now);
    route_state(table, route.model, &decision, |deployment| {
        breaker_state(&registry.breaker(&snapshot.binding, deployment, now))
    })
}
