//! What was learned, in the store: in the form in which agents are told.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prost::Message;
use tokio::time::Instant;
use trunkline_proto::{
    agent::v1,
    convert::{fleet_models, wire_model, wire_outputs},
};
use trunkline_routing::train::FleetModels;

use super::Learner;

/// Models live under this, in parts by number.
const MODELS: &[u8] = b"learning/models/";

/// Deployments in one part, at most 350 bytes each: values in the store have 64 KiB.
const PART: usize = 150;

/// Parts kept, in one write of the store. Of more deployments the rest is learned anew.
const PARTS_MAX: usize = 100;

/// The part that holds lengths of answers.
const OUTPUTS: u32 = u32::MAX;

/// What is older says nothing about now.
const AGE_MAX: Duration = Duration::from_secs(7 * 24 * 3_600);

#[derive(Clone, PartialEq, Message)]
struct Part {
    /// In seconds since 1970.
    #[prost(uint64, tag = "1")]
    written: u64,
    #[prost(message, optional, tag = "2")]
    models: Option<v1::FleetModels>,
}

impl Learner {
    /// Writes what is known, if something was learned since the last time.
    pub(super) async fn keep(&mut self) {
        if !std::mem::take(&mut self.unkept) {
            return;
        }
        let models = self.trainer.publish(self.time(Instant::now()));
        if let Err(error) = self.repository.put_blobs(parts(&models, unix_secs())).await {
            // It will be learned again.
            tracing::debug!(%error, "what was learned of deployments is not kept");
            self.unkept = true;
        }
    }

    /// Begins with what an earlier start learned.
    pub(super) async fn restore(&mut self) {
        let blobs = match self.repository.scan_blobs(MODELS).await {
            Ok(blobs) => blobs,
            Err(error) => {
                tracing::warn!(%error, "what was learned of deployments can't be read; it is learned anew");
                return;
            }
        };
        let now = self.time(Instant::now());
        let mut deployments = 0;
        let parts = blobs.iter().filter_map(|(_, value)| Part::decode(value.as_slice()).ok());
        let mut parts: Vec<Part> = parts.collect();
        // A name may be in two parts of different times: the newer one rules.
        parts.sort_by_key(|part| part.written);
        for Part { written, models } in parts {
            let Some(models) = models else { continue };
            let age = Duration::from_secs(unix_secs().saturating_sub(written));
            if age <= AGE_MAX {
                let models = fleet_models(models);
                deployments += models.models.len();
                self.trainer.restore(&models, now - age);
            }
        }
        if deployments > 0 {
            tracing::info!(deployments, "models of deployments go on from an earlier start");
        }
    }
}

fn parts(models: &FleetModels, now: u64) -> Vec<(Vec<u8>, Vec<u8>)> {
    let part = |number: u32, models| {
        let key = [MODELS, &number.to_be_bytes()].concat();
        (key, Part { written: now, models: Some(models) }.encode_to_vec())
    };
    let agents = models.agents;
    let outputs = v1::FleetModels { agents, outputs: wire_outputs(&models.outputs), ..Default::default() };
    let chunks = models.models.chunks(PART).take(PARTS_MAX);
    let chunks = (0..).zip(chunks).map(|(number, chunk)| {
        let deployments = chunk.iter().map(|(name, model)| wire_model(name, model)).collect();
        part(number, v1::FleetModels { agents, deployments, ..Default::default() })
    });
    chunks.chain([part(OUTPUTS, outputs)]).collect()
}

fn unix_secs() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
