//! The state that a journal's records lead to. Pure: the same records, the same state.

use std::sync::Arc;

use bytes::Bytes;
use prost::DecodeError;
use prost::Message;
use trunkline_proto::admin::v1::Config;

use super::drain::DrainSet;
use super::fault::FaultSet;
use super::requests::Requests;
use super::verdict::VerdictSet;
use crate::store::journal::{Record, RequestDone, Snapshot};

/// All that is durable in the journal but the requests. Cheap to clone: a batch of
/// commits starts from a copy.
#[derive(Clone, Debug, Default)]
pub(super) struct Folded {
    /// The newest record.
    pub(super) sequence: u64,
    /// Of the configuration.
    pub(super) revision: u64,
    pub(super) forced: bool,
    /// The configuration, encoded.
    pub(super) config: Bytes,
    pub(super) verdicts: Arc<VerdictSet>,
    pub(super) faults: Arc<FaultSet>,
    pub(super) drains: Arc<DrainSet>,
    /// The first number of a probe's lease that was never reserved.
    pub(super) lease_end: u64,
}

impl Folded {
    pub(super) fn from_snapshot(snapshot: Snapshot) -> (Self, Requests) {
        let (mut verdicts, mut faults, mut drains) =
            (VerdictSet::default(), FaultSet::default(), DrainSet::default());
        snapshot.verdicts.into_iter().for_each(|change| verdicts.apply(change));
        snapshot.faults.into_iter().for_each(|change| faults.apply(change));
        snapshot.drains.into_iter().for_each(|change| drains.apply(change));
        let mut requests = Requests::default();
        snapshot.requests.into_iter().for_each(|done| requests.insert(done));
        let folded = Self {
            sequence: snapshot.sequence,
            revision: snapshot.revision,
            forced: snapshot.forced,
            config: snapshot.config.into(),
            verdicts: Arc::new(verdicts),
            faults: Arc::new(faults),
            drains: Arc::new(drains),
            lease_end: snapshot.lease_end,
        };
        (folded, requests)
    }

    /// The answer is the request to remember, if it has an id.
    pub(super) fn apply(&mut self, record: Record) -> Option<RequestDone> {
        self.sequence = record.sequence;
        let unchanged = record.config.is_none();
        if let Some(config) = record.config {
            self.config = config.into();
            self.revision = record.revision;
            self.forced = record.force;
        }
        for change in record.verdicts {
            Arc::make_mut(&mut self.verdicts).apply(change);
        }
        for change in record.faults {
            Arc::make_mut(&mut self.faults).apply(change);
        }
        for change in record.drains {
            Arc::make_mut(&mut self.drains).apply(change);
        }
        self.lease_end = self.lease_end.max(record.lease_end.unwrap_or_default());
        Some(RequestDone {
            request_id: record.request_id?,
            method: record.method,
            request_sha256: record.request_sha256,
            revision: record.revision,
            unix_ms: record.unix_ms,
            unchanged,
        })
    }

    pub(super) fn snapshot(&self, requests: &Requests) -> Snapshot {
        Snapshot {
            sequence: self.sequence,
            revision: self.revision,
            forced: self.forced,
            config: self.config.to_vec(),
            verdicts: self.verdicts.changes().cloned().collect(),
            requests: requests.iter().cloned().collect(),
            faults: self.faults.changes().collect(),
            drains: self.drains.changes().collect(),
            lease_end: self.lease_end,
        }
    }

    pub(super) fn config(&self) -> Result<Config, DecodeError> {
        Config::decode(self.config.clone())
    }
}
