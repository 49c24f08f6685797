//! gRPC's health: the agent and its service serve together or not at all.

use std::{pin::pin, sync::Arc};

use tokio_util::sync::CancellationToken;
use tonic::server::NamedService;
use tonic_health::{ServingStatus, server::HealthReporter};
use trunkline_proto::routing::v1::routing_service_server::RoutingServiceServer;

use super::routing::Routing;
use crate::shared::Shared;

/// The agent as a whole, and its service.
const NAMES: [&str; 2] = ["", RoutingServiceServer::<Routing>::NAME];

/// Sets the status that checks see and watches are told.
pub(crate) async fn tell(reporter: &HealthReporter, serving: bool) {
    let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
    for name in NAMES {
        reporter.set_service_status(name, status).await;
    }
}

/// Serving from the first routing table to `shutdown`, but not while the agent is out of
/// service, as readiness. Returns when everybody was told that it is over.
pub(crate) async fn follow(shared: Arc<Shared>, reporter: HealthReporter, shutdown: CancellationToken) {
    let mut duty = shared.duty.reason();
    let mut told = None;
    while !shutdown.is_cancelled() {
        let mut loaded = pin!(shared.snapshot_changed.notified());
        loaded.as_mut().enable();
        let in_service = duty.borrow_and_update().is_none();
        let serving = in_service && shared.snapshot().is_some();
        // Watchers hear of changes, not of each table.
        if told.replace(serving) != Some(serving) {
            tell(&reporter, serving).await;
        }
        tokio::select! {
            biased;
            // Stopping first: there is nothing to finish.
            () = shutdown.cancelled() => {}
            // Its sender lives as long as `shared`.
            _ = duty.changed() => {}
            () = loaded => {}
        }
    }
    tell(&reporter, false).await;
}
