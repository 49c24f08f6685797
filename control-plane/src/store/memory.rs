//! The store in memory: for tests, and when the disk has no room for a real one.

use std::collections::BTreeMap;
use std::ops::Bound;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::{Change, Entry, Guard, Snapshot, Store, StoreError, StoreHealth, check_sizes};

/// Forgets everything when dropped.
#[derive(Debug, Default)]
pub struct MemoryStore {
    inner: Mutex<Inner>,
    version: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Inner {
    entries: BTreeMap<Vec<u8>, (Vec<u8>, u64)>,
    version: u64,
    term: u64,
}

impl Store for MemoryStore {
    fn read(&self, prefix: &[u8]) -> Result<Snapshot, StoreError> {
        let inner = self.inner.lock();
        let from = inner.entries.range(prefix.to_vec()..);
        let entries = from
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(key, (value, version))| Entry {
                key: key.clone(),
                value: value.clone(),
                version: *version,
            })
            .collect();
        Ok(Snapshot { version: inner.version, entries })
    }

    fn read_after(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        let inner = self.inner.lock();
        let from = after.map_or(Bound::Included(prefix), Bound::Excluded);
        let mut entries: Vec<Entry> = Vec::new();
        let mut bytes = 0;
        for (key, (value, version)) in inner.entries.range::<[u8], _>((from, Bound::Unbounded)) {
            if !key.starts_with(prefix) || (bytes >= bytes_max && !entries.is_empty()) {
                break;
            }
            let entry = Entry { key: key.clone(), value: value.clone(), version: *version };
            bytes += entry.bytes();
            entries.push(entry);
        }
        Ok(entries)
    }

    fn commit(&self, guards: &[Guard], changes: &[Change]) -> Result<u64, StoreError> {
        check_sizes(changes)?;
        let mut inner = self.inner.lock();
        if !guards.iter().all(|guard| inner.holds(guard)) {
            return Err(StoreError::Conflict);
        }
        inner.version += 1;
        let version = inner.version;
        for change in changes {
            match change {
                Change::Put { key, value } => {
                    inner.entries.insert(key.clone(), (value.clone(), version));
                }
                Change::Delete { key } => {
                    inner.entries.remove(key);
                }
            }
        }
        self.version.send_replace(version);
        Ok(version)
    }

    fn watch(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    fn campaign(&self) -> Result<u64, StoreError> {
        let mut inner = self.inner.lock();
        inner.term += 1;
        Ok(inner.term)
    }

    fn health(&self) -> StoreHealth {
        StoreHealth::Ok
    }

    fn maintain(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

impl Inner {
    fn holds(&self, guard: &Guard) -> bool {
        match guard {
            Guard::Unchanged { key, version } => {
                self.entries.get(key).is_some_and(|(_, written)| written == version)
            }
            Guard::Absent { key } => !self.entries.contains_key(key),
            Guard::Term(term) => self.term == *term,
        }
    }
}
