//! What came of probes under lease, on its way to the control plane.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::Notify;
use trunkline_proto::{
    agent::v1::{ProbeOutcome as WireOutcome, ProbeResult as WireResult},
    convert::wire_outcome,
};
use trunkline_routing::registry::{ProbeOutcome, ProbeResult};

/// Without a stream nobody takes them, and leases last for half a minute at most: what is
/// older than so many others means nothing by then.
const RESULTS_MAX: usize = 256;

/// Results that were not sent yet. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct ProbeResults {
    waiting: Arc<Mutex<VecDeque<WireResult>>>,
    added: Arc<Notify>,
}

impl ProbeResults {
    /// Adds one; the oldest makes room.
    pub fn push(&self, result: &ProbeResult) {
        {
            let mut waiting = self.waiting.lock();
            if waiting.len() >= RESULTS_MAX {
                waiting.pop_front();
            }
            waiting.push_back(to_wire(result));
        }
        self.added.notify_one();
    }

    /// Takes the oldest, when there is one. It is gone then, sent or not: a result whose
    /// stream breaks is worth no more than a lease that ran out.
    pub(crate) async fn next(&self) -> WireResult {
        loop {
            let added = self.added.notified();
            if let Some(oldest) = self.waiting.lock().pop_front() {
                return oldest;
            }
            added.await;
        }
    }
}

fn to_wire(result: &ProbeResult) -> WireResult {
    let outcome = match result.outcome {
        ProbeOutcome::Succeeded => WireOutcome::Succeeded,
        ProbeOutcome::Failed => WireOutcome::Failed,
        ProbeOutcome::Unused => WireOutcome::Unused,
    };
    WireResult {
        lease_id: result.lease_id,
        deployment: result.deployment.to_string(),
        generation: result.generation,
        outcome: outcome.into(),
        outcome_class: result.class.map_or(0, |class| wire_outcome(class) as i32),
        cost_nano_usd: result.cost.map_or(0, |cost| cost.0),
    }
}
