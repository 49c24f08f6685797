//! The state that a journal's records lead to. Pure: the same records, the same state.

use prost::DecodeError;
use prost::Message;
use trunkline_proto::admin::v1::Config;

use super::drain::DrainSet;
use super::fault::FaultSet;
use super::requests::Requests;
use super::verdict::VerdictSet;
use crate::store::journal::{Record, RequestDone, Snapshot};

/// All that is durable in the journal.
#[derive(Clone, Debug, Default)]
pub(super) struct Folded {
    /// The newest record.
    pub(super) sequence: u64,
    /// Of the configuration.
    pub(super) revision: u64,
    pub(super) forced: bool,
    /// The configuration, encoded.
    config: Vec<u8>,
    pub(super) verdicts: VerdictSet,
    pub(super) faults: FaultSet,
    pub(super) drains: DrainSet,
    pub(super) requests: Requests,
}

impl Folded {
    pub(super) fn from_snapshot(snapshot: Snapshot) -> Self {
        let mut folded = Self {
            sequence: snapshot.sequence,
            revision: snapshot.revision,
            forced: snapshot.forced,
            config: snapshot.config,
            ..Self::default()
        };
        snapshot.verdicts.into_iter().for_each(|change| folded.verdicts.apply(change));
        snapshot.faults.into_iter().for_each(|change| folded.faults.apply(change));
        snapshot.drains.into_iter().for_each(|change| folded.drains.apply(change));
        snapshot.requests.into_iter().for_each(|done| folded.requests.insert(done));
        folded
    }

    pub(super) fn apply(&mut self, record: Record) {
        self.sequence = record.sequence;
        let unchanged = record.config.is_none();
        if let Some(config) = record.config {
            self.config = config;
            self.revision = record.revision;
            self.forced = record.force;
        }
        record.verdicts.into_iter().for_each(|change| self.verdicts.apply(change));
        record.faults.into_iter().for_each(|change| self.faults.apply(change));
        record.drains.into_iter().for_each(|change| self.drains.apply(change));
        if let Some(request_id) = record.request_id {
            self.requests.insert(RequestDone {
                request_id,
                method: record.method,
                request_sha256: record.request_sha256,
                revision: record.revision,
                unix_ms: record.unix_ms,
                unchanged,
            });
        }
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        Snapshot {
            sequence: self.sequence,
            revision: self.revision,
            forced: self.forced,
            config: self.config.clone(),
            verdicts: self.verdicts.changes().cloned().collect(),
            requests: self.requests.iter().cloned().collect(),
            faults: self.faults.changes().collect(),
            drains: self.drains.changes().collect(),
        }
    }

    pub(super) fn config(&self) -> Result<Config, DecodeError> {
        Config::decode(self.config.as_slice())
    }
}
