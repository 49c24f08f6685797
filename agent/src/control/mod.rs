//! The agent's side of the control plane: the routing table comes in, acknowledgements,
//! protections and telemetry go out. Nothing here is ever waited for by a request.

mod backlog;
mod backoff;
mod cache;
mod identity;
mod models;
mod orders;
mod probe_results;
mod recorder;
mod samples;
mod spool;
mod stream;
mod sync;
mod table_store;
mod telemetry;
#[cfg(test)]
mod tests;
mod verdict_cache;
mod verdicts;
mod window;

use std::time::Duration;

use tonic::{
    service::interceptor::InterceptedService,
    transport::{Channel, Endpoint},
};
use trunkline_proto::types::v1;
use trunkline_routing::table::Version;
use trunkline_transport::bearer::Bearer;

pub use self::{
    cache::{BadCache, Cache, Loaded},
    identity::Identity,
    models::ModelInbox,
    orders::{Drill, Orders},
    probe_results::ProbeResults,
    recorder::{AttemptSample, Recorder, UsageSource},
    sync::{SyncContext, run as run_sync},
    table_store::{LoadedTable, TableStore, UpdateError},
    telemetry::{TelemetryContext, run as run_telemetry},
    verdict_cache::VerdictCache,
    verdicts::{FleetWord, Lease, Verdict, Verdicts},
};

/// Dialling the control plane; the stream's own limits begin after it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Not much below a minute, or servers take it for an attack.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(60);
/// An answer to a keep-alive takes a round trip.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// The telemetry spool inside the data directory.
pub const SPOOL_FILE: &str = "telemetry.spool";

/// The control plane, with the agent's token on each call.
pub type ControlPlane = InterceptedService<Channel, Bearer>;

/// A channel to the control plane, for sync and telemetry together. It connects when it
/// is used and again when it is lost.
pub fn channel(endpoint: Endpoint, bearer: Bearer) -> ControlPlane {
    let endpoint = endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT);
    InterceptedService::new(endpoint.connect_lazy(), bearer)
}

fn wire_version(version: &Version) -> v1::Version {
    v1::Version { epoch: version.epoch.clone(), revision: version.revision }
}

fn version_from_wire(version: v1::Version) -> Version {
    Version { epoch: version.epoch, revision: version.revision }
}

/// None: negative.
fn duration_from_wire(duration: prost_types::Duration) -> Option<Duration> {
    Duration::try_from(duration).ok()
}

fn duration_to_wire(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: duration.subsec_nanos() as i32,
    }
}
