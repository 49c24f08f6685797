//! The distribution of virtual models, as it is and whenever it changes.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep_until};
use tokio_stream::Stream;
use tonic::Status;
use trunkline_proto::{
    convert::{breaker_state, route_state},
    routing::v1::{RouteState, WatchRoutesResponse},
    types::v1::Version,
};
use trunkline_routing::{decide, eligibility::Profile};

use crate::{
    shared::Shared,
    snapshot::{Goal, Snapshot},
};

/// A change is looked for this often; time alone changes breakers.
const LOOK_EVERY: Duration = Duration::from_millis(200);

struct Watch {
    shared: Arc<Shared>,
    models: BTreeSet<String>,
    sent: Option<WatchRoutesResponse>,
}

/// The state at once, then each change. Nothing is queued: a slow reader sees the
/// newest.
pub(super) fn routes(
    shared: Arc<Shared>,
    models: Vec<String>,
) -> impl Stream<Item = Result<WatchRoutesResponse, Status>> + Send {
    let watch = Watch { shared, models: models.into_iter().collect(), sent: None };
    futures_util::stream::unfold(watch, |mut watch| async move {
        loop {
            if watch.shared.draining.is_cancelled() {
                return None;
            }
            let now = watch.shared.snapshot().map(|snapshot| current(&watch.shared, &snapshot, &watch.models));
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

fn current(shared: &Shared, snapshot: &Snapshot, models: &BTreeSet<String>) -> WatchRoutesResponse {
    let table = snapshot.table();
    let wanted = table.virtual_models.iter().enumerate();
    let wanted = wanted.filter(|(_, model)| models.is_empty() || models.contains(model.name.as_ref()));
    let routes = wanted.map(|(index, _)| distribution(shared, snapshot, index)).collect();
    let version = Version { epoch: table.version.epoch.clone(), revision: table.version.revision };
    WatchRoutesResponse { version: Some(version), routes }
}

fn distribution(shared: &Shared, snapshot: &Snapshot, index: usize) -> RouteState {
    let table = snapshot.table();
    let route = snapshot.route(Goal::Virtual(index));
    let now = shared.clock.now();
    let mut registry = shared.registry.lock();
    let decision = decide::decide(&mut registry, table, &snapshot.binding, route, &Profile::default(), now);
    route_state(table, route.model, &decision, |deployment| {
        breaker_state(&registry.breaker(&snapshot.binding, deployment, now))
    })
}
