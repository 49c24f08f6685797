//! The view: the state as keys in a store, for whoever reads by key, and the blobs that
//! live only there. What comes from the journal is rebuilt whenever it differs.
//!
//! ```text
//! view/mark                      which record of which journal the view shows
//! view/provider/<name>           one resource each, in pieces of PIECE_BYTES
//! view/virtual_model/<name>
//! view/api_key/<name>
//! view/price_entry/<name>
//! view/budget/<name>
//! view/verdict/<deployment>
//! view/fault/<drill>
//! view/drain/<agent>
//! blob/<key>                     the caller's
//! ```

use std::collections::BTreeMap;

use prost::Message;
use trunkline_proto::admin::v1::Config;

use super::Blob;
use super::fold::Folded;
use super::scan::{Scan, Ticket};
use crate::store::journal::Hash;
use crate::store::memory::MemoryStore;
use crate::store::{Change, Guard, Store, StoreError};

/// Before the keys that come from the journal.
const VIEW: &[u8] = b"view/";

/// Before the keys of blobs.
const BLOB: &[u8] = b"blob/";

/// Longer resources are cut into pieces: engines keep values whole.
const PIECE_BYTES: usize = 32 * 1024;

/// Which record the view shows.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Mark {
    #[prost(string, tag = "1")]
    pub(super) epoch: String,
    #[prost(uint64, tag = "2")]
    pub(super) sequence: u64,
    #[prost(bytes = "vec", tag = "3")]
    pub(super) sha256: Vec<u8>,
}

impl Mark {
    pub(super) fn new(epoch: &str, (sequence, sha256): (u64, Hash)) -> Self {
        Self { epoch: epoch.to_owned(), sequence, sha256: sha256.to_vec() }
    }
}

type Entries = BTreeMap<Vec<u8>, Vec<u8>>;

/// The view in its store.
#[derive(Debug)]
pub(super) struct View {
    store: Box<dyn Store>,
    term: u64,
    /// What is in the store.
    shown: Entries,
    /// Why this one stands in for a view that is not open.
    stands_in: Option<String>,
    /// Of who exports.
    scan: Option<Scan>,
}

impl View {
    /// Takes over `store` and reads what it shows.
    pub(super) fn open(store: Box<dyn Store>) -> Result<Self, StoreError> {
        let term = store.campaign()?;
        let snapshot = store.read(VIEW)?;
        let shown = snapshot.entries.into_iter().map(|entry| (entry.key, entry.value)).collect();
        Ok(Self { store, term, shown, stands_in: None, scan: None })
    }

    /// A view that is gone when dropped.
    pub(super) fn in_memory() -> Self {
        let store = MemoryStore::default();
        // Memory takes every write.
        let term = store.campaign().unwrap_or_default();
        Self { store: Box::new(store), term, shown: Entries::new(), stands_in: None, scan: None }
    }

    /// A view in place of one that does not open. It has no blobs and takes none: who
    /// took it for the real one would overwrite what is in that by what it lacks.
    pub(super) fn stand_in(reason: String) -> Self {
        Self { stands_in: Some(reason), ..Self::in_memory() }
    }

    /// Whether the real one is open.
    pub(super) const fn is_real(&self) -> bool {
        self.stands_in.is_none()
    }

    /// The record that it shows. None: it is new.
    pub(super) fn mark(&self) -> Result<Option<Mark>, StoreError> {
        let Some(value) = self.shown.get(&mark_key()) else { return Ok(None) };
        let mark = Mark::decode(value.as_slice());
        mark.map(Some).map_err(|_| StoreError::Damaged { reason: "the view's mark".into() })
    }

    /// Makes it show this state. The answer is how many keys differed.
    pub(super) fn show(
        &mut self,
        mark: &Mark,
        config: &Config,
        folded: &Folded,
    ) -> Result<usize, StoreError> {
        let wanted = entries(mark, config, folded);
        let changes = difference(&self.shown, &wanted);
        if !changes.is_empty() {
            self.store.commit(&[Guard::Term(self.term)], &changes)?;
            self.shown = wanted;
        }
        Ok(changes.len())
    }

    /// See [`Store::maintain`].
    pub(super) fn maintain(&self) -> Result<(), StoreError> {
        self.store.maintain()
    }

    pub(super) fn write_blobs(&mut self, puts: Vec<Blob>, deletes: Vec<Vec<u8>>) -> Result<(), StoreError> {
        self.check_real()?;
        let deletes = deletes.into_iter().map(|key| Change::Delete { key: [BLOB, &key].concat() });
        let puts = puts.into_iter().map(|(key, value)| Change::Put { key: [BLOB, &key].concat(), value });
        let changes: Vec<_> = deletes.chain(puts).collect();
        if let Some(scan) = &mut self.scan {
            let keys = changes.iter().map(|change| match change {
                Change::Put { key, .. } | Change::Delete { key } => key.as_slice(),
            });
            // If what is there cannot be read, it is who exports that is told, later.
            if !scan.put_aside(&*self.store, keys).unwrap_or(false) {
                self.scan = None;
            }
        }
        self.store.commit(&[Guard::Term(self.term)], &changes)?;
        Ok(())
    }

    /// Begins to read all blobs as they are now; it ends when the ticket is dropped.
    pub(super) fn begin_scan(&mut self) -> Ticket {
        let (scan, ticket) = Scan::begin();
        self.scan = Some(scan);
        ticket
    }

    /// More of the blobs as they were; an empty answer after the last one. None: the
    /// scan was given up, or this is another view.
    pub(super) fn scan_on(&mut self) -> Result<Option<Vec<Blob>>, StoreError> {
        self.check_real()?;
        let Some(scan) = &mut self.scan else { return Ok(None) };
        loop {
            let blobs = scan.next(&*self.store, BLOB)?;
            match blobs {
                Some(blobs) if blobs.is_empty() => {}
                blobs => {
                    let blobs = blobs.unwrap_or_default().into_iter();
                    return Ok(Some(blobs.map(|(key, value)| (key[BLOB.len()..].to_vec(), value)).collect()));
                }
            }
        }
    }

    pub(super) fn scan_blobs(&self, prefix: &[u8]) -> Result<Vec<Blob>, StoreError> {
        self.check_real()?;
        let snapshot = self.store.read(&[BLOB, prefix].concat())?;
        let blobs = snapshot.entries.into_iter();
        Ok(blobs.map(|entry| (entry.key[BLOB.len()..].to_vec(), entry.value)).collect())
    }

    fn check_real(&self) -> Result<(), StoreError> {
        match &self.stands_in {
            None => Ok(()),
            Some(reason) => Err(StoreError::ReadOnly { reason: reason.clone() }),
        }
    }
}

fn mark_key() -> Vec<u8> {
    [VIEW, b"mark"].concat()
}

fn entries(mark: &Mark, config: &Config, folded: &Folded) -> Entries {
    let mut entries = Entries::from([(mark_key(), mark.encode_to_vec())]);
    let mut add = |kind: &str, name: &str, value: &[u8]| {
        for (index, piece) in value.chunks(PIECE_BYTES).enumerate() {
            let key = format!("{kind}/{name}/{index:04}");
            entries.insert([VIEW, key.as_bytes()].concat(), piece.to_vec());
        }
    };
    for provider in &config.providers {
        add("provider", &provider.name, &provider.encode_to_vec());
    }
    for model in &config.virtual_models {
        add("virtual_model", &model.name, &model.encode_to_vec());
    }
    for api_key in &config.api_keys {
        add("api_key", &api_key.name, &api_key.encode_to_vec());
    }
    for entry in &config.price_entries {
        add("price_entry", &entry.name, &entry.encode_to_vec());
    }
    for budget in &config.budgets {
        add("budget", &budget.name, &budget.encode_to_vec());
    }
    for verdict in folded.verdicts.changes() {
        add("verdict", &verdict.deployment, &verdict.encode_to_vec());
    }
    for drill in folded.faults.changes() {
        add("fault", &drill.name, &drill.encode_to_vec());
    }
    for drain in folded.drains.changes() {
        add("drain", &drain.agent_id, &drain.encode_to_vec());
    }
    entries
}

fn difference(shown: &Entries, wanted: &Entries) -> Vec<Change> {
    let gone = shown.keys().filter(|key| !wanted.contains_key(*key));
    let deletes = gone.map(|key| Change::Delete { key: key.clone() });
    let new = wanted.iter().filter(|(key, value)| shown.get(*key) != Some(value));
    let puts = new.map(|(key, value)| Change::Put { key: key.clone(), value: value.clone() });
    deletes.chain(puts).collect()
}
