//! Hands what the control plane learned to the registry.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use trunkline_routing::train::FleetModels;

use crate::{control::ModelInbox, shared::Shared};

/// Deployments handed over at once: some ten microseconds in which requests wait.
const AT_ONCE: usize = 64;

/// Follows the control plane until `shutdown`.
pub(crate) async fn follow(shared: Arc<Shared>, inbox: Arc<ModelInbox>, shutdown: CancellationToken) {
    while let Some(models) = shutdown.run_until_cancelled(inbox.take()).await {
        adopt(&shared, models);
    }
}

fn adopt(shared: &Shared, models: FleetModels) {
    let FleetModels { agents, models, outputs } = models;
    let mut outputs = Some(outputs);
    for some in models.chunks(AT_ONCE) {
        let some = FleetModels { agents, models: some.to_vec(), outputs: outputs.take().unwrap_or_default() };
        let now = shared.clock.now();
        shared.registry.lock().adopt(&some, now);
    }
}
