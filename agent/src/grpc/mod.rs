//! gRPC for apps, on the same port as HTTP: RoutingService, health and reflection.

mod chat;
mod convert;
pub(crate) mod health;
mod refuse;
mod routing;
mod stream;
mod watch;

use std::sync::Arc;

use tonic::service::Routes;
use trunkline_proto::{FILE_DESCRIPTOR_SET, routing::v1::routing_service_server::RoutingServiceServer};

use crate::engine::Worker;

/// Requests hold whole conversations.
const DECODE_MAX: usize = 16 * 1024 * 1024;

/// The services of one worker. `health` is shared by all of them.
pub(crate) fn routes(
    worker: &Arc<Worker>,
    health: tonic_health::server::HealthService,
) -> Result<Routes, tonic_reflection::server::Error> {
    let service = routing::Routing::new(Arc::clone(worker));
    let routing = RoutingServiceServer::new(service).max_decoding_message_size(DECODE_MAX);
    let health = tonic_health::pb::health_server::HealthServer::new(health);
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
            .with_service_name("trunkline.routing.v1.RoutingService")
            .with_service_name("grpc.health.v1.Health")
    };
    Ok(Routes::new(routing)
        .add_service(health)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?)
        .prepare())
}
