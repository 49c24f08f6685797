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

/// Serving from the first routing table to `shutdown`, as readiness. Returns when
/// everybody was told that it is over.
pub(crate) async fn follow(shared: Arc<Shared>, reporter: HealthReporter, shutdown: CancellationToken) {
    while shared.snapshot().is_none() && !shutdown.is_cancelled() {
        let mut changed = pin!(shared.snapshot_changed.notified());
        changed.as_mut().enable();
        if shared.snapshot().is_some() {
            break;
        }
        tokio::select! {
            biased;
            // Stopping first: there is nothing to finish.
            () = shutdown.cancelled() => {}
            () = changed => {}
        }
    }
    if !shutdown.is_cancelled() {
        tell(&reporter, true).await;
    }
    shutdown.cancelled().await;
    tell(&reporter, false).await;
}
