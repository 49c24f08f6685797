//! The gRPC listener: all services on one port.

mod admin;
mod refuse;
mod routing;
mod sync;
mod telemetry;

use std::{io, sync::Arc, time::Duration};

use futures_util::Stream;
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{server::NamedService as _, transport::Server};
use tonic_health::{ServingStatus, server::HealthReporter};
use trunkline_proto::{
    admin::v1::admin_service_server::AdminServiceServer, agent::v1::agent_service_server::AgentServiceServer,
    routing::v1::routing_service_server::RoutingServiceServer,
    telemetry::v1::telemetry_service_server::TelemetryServiceServer, types::v1::Version,
};
use trunkline_transport::incoming::Connection;

use crate::{
    access::{Access, GuardLayer},
    budgets::Budgets,
    fleet::Fleet,
    learning::Learning,
    metrics::Metrics,
    prices::poll::FeedStatus,
    registry::Registry,
    repository::{Repository, StoreHealth},
    stats::{Stats, merger::Reports, pace::Pace},
};

/// The largest configuration document, and room for the message around it.
const ADMIN_BYTES_MAX: usize = 10 * 1024 * 1024 + 64 * 1024;

/// Agents send small things; a report of 1,000 deployments has about 300 KB.
const AGENT_BYTES_MAX: usize = 1024 * 1024;

/// A completion with images: it is refused here, but with the agents that take it.
const ROUTING_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A connection without traffic is asked after this time, and closed when it does not
/// answer within the other: dead agents and their state go.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Calls of one connection at a time: an agent has two, a proxy many. More than there can
/// be watchers, for a client waits in silence with what is beyond, and is told why by a
/// service. Without it there is no bound, and each open call holds memory, also of those
/// who may only ask for health.
pub(crate) const STREAMS_MAX: u32 = 512;

/// Previews of writes that are worked out at a time; others wait. Each takes a processor
/// for up to some hundred milliseconds, and agents need some too.
pub(crate) const PREVIEWS_MAX: usize = 2;

/// What services share.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) repository: Arc<Repository>,
    pub(crate) registry: Arc<Registry>,
    /// Breakers of the fleet.
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) stats: Arc<Stats>,
    pub(crate) reports: Reports,
    pub(crate) budgets: Budgets,
    /// Learns from samples.
    pub(crate) learning: Learning,
    /// How often agents report.
    pub(crate) pace: Pace,
    pub(crate) metrics: Arc<Metrics>,
    /// Places for previews of writes.
    pub(crate) previews: Arc<Semaphore>,
    /// The price list that is polled.
    pub(crate) price_feed: Arc<FeedStatus>,
    /// Another one at each start.
    pub(crate) instance: String,
    pub(crate) shutdown: CancellationToken,
    /// Owns what streams run on.
    pub(crate) tasks: TaskTracker,
}

/// Why the listener ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    /// The transport gave up.
    #[error("serve gRPC: {0}")]
    Transport(#[from] tonic::transport::Error),
    /// The compiled-in descriptors cannot be read.
    #[error("serve reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// Serves until the context's shutdown; then streams end and it returns.
pub(crate) async fn serve(
    incoming: impl Stream<Item = io::Result<Connection>>,
    access: Access,
    context: Arc<Context>,
) -> Result<(), ServeError> {
    let (health, health_service) = tonic_health::server::health_reporter();
    let agents = AgentServiceServer::new(sync::Agents::new(Arc::clone(&context)));
    let agents = agents.max_decoding_message_size(AGENT_BYTES_MAX);
    let telemetry = TelemetryServiceServer::new(telemetry::Telemetry::new(Arc::clone(&context)));
    let telemetry = telemetry.max_decoding_message_size(AGENT_BYTES_MAX);
    let admin = AdminServiceServer::new(admin::Admin::new(Arc::clone(&context)));
    let admin = admin.max_decoding_message_size(ADMIN_BYTES_MAX);
    let routing = RoutingServiceServer::new(routing::Routing::new(Arc::clone(&context)));
    let routing = routing.max_decoding_message_size(ROUTING_BYTES_MAX);
    health.set_serving::<RoutingServiceServer<routing::Routing>>().await;
    health.set_serving::<AgentServiceServer<sync::Agents>>().await;
    health.set_serving::<TelemetryServiceServer<telemetry::Telemetry>>().await;
    let admin_now = admin_status(&context.repository.health());
    health.set_service_status(AdminServiceServer::<admin::Admin>::NAME, admin_now).await;
    context.tasks.spawn(follow_store(Arc::clone(&context), health));
    let router = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .max_concurrent_streams(Some(STREAMS_MAX))
        .layer(GuardLayer::new(access))
        .add_service(health_service)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?)
        .add_service(agents)
        .add_service(telemetry)
        .add_service(admin)
        .add_service(routing);
    let served =
        router.serve_with_incoming_shutdown(incoming, context.shutdown.clone().cancelled_owned()).await;
    context.tasks.close();
    context.tasks.wait().await;
    Ok(served?)
}

/// Keeps the health of `AdminService` like the store's.
async fn follow_store(context: Arc<Context>, health: HealthReporter) {
    let mut store = context.repository.subscribe_health();
    loop {
        let status = admin_status(&store.borrow_and_update());
        health.set_service_status(AdminServiceServer::<admin::Admin>::NAME, status).await;
        tokio::select! {
            biased; // A stop is heeded first.
            () = context.shutdown.cancelled() => return,
            changed = store.changed() => if changed.is_err() { return },
        }
    }
}

/// Administration means writes; all else goes on without.
fn admin_status(store: &StoreHealth) -> ServingStatus {
    match store {
        StoreHealth::Ok | StoreHealth::Degraded { .. } => ServingStatus::Serving,
        StoreHealth::ReadOnly { .. } => ServingStatus::NotServing,
    }
}

fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(trunkline_proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
}

fn wire_version(version: &trunkline_routing::table::Version) -> Version {
    Version { epoch: version.epoch.clone(), revision: version.revision }
}

/// Durations here are constants or bounded; what is beyond the wire's range is cut.
fn wire_duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration::try_from(duration).unwrap_or_default()
}
