//! All blobs as they were at one moment, read bit by bit while writes go on: a write
//! first puts aside what it is about to replace, if that is still to be read. Nobody
//! waits longer than for one bit, and what is in memory has a bound.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use super::Blob;
use crate::store::{Store, StoreError};

/// Bytes that are read at once: about a millisecond in which writes wait.
const BIT_BYTES: usize = 256 * 1024;

/// Bytes that are put aside for one scan: minutes of telemetry from busy agents. A scan
/// that is slower than that is given up; writes never are.
const ASIDE_BYTES_MAX: usize = 32 * 1024 * 1024;

/// What whoever scans holds: the scan ends when it is dropped.
#[derive(Debug)]
pub(super) struct Ticket(#[expect(dead_code, reason = "held until dropped")] Arc<()>);

/// A scan under way.
#[derive(Debug)]
pub(super) struct Scan {
    ticket: Weak<()>,
    /// All keys up to this one were read.
    after: Option<Vec<u8>>,
    /// What later keys held when the scan began, if they were written since. None: there
    /// was no such key.
    aside: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    aside_bytes: usize,
}

impl Scan {
    /// Begins one as of now.
    pub(super) fn begin() -> (Self, Ticket) {
        let ticket = Arc::new(());
        let scan =
            Self { ticket: Arc::downgrade(&ticket), after: None, aside: BTreeMap::new(), aside_bytes: 0 };
        (scan, Ticket(ticket))
    }

    /// Puts aside what `keys` hold, before they are written. False: the scan is over, as
    /// nobody waits for it any more or too much was put aside.
    pub(super) fn put_aside<'a>(
        &mut self,
        store: &dyn Store,
        keys: impl Iterator<Item = &'a [u8]>,
    ) -> Result<bool, StoreError> {
        if self.ticket.strong_count() == 0 {
            return Ok(false);
        }
        for key in keys {
            let was_read = self.after.as_deref().is_some_and(|after| key <= after);
            if was_read || self.aside.contains_key(key) {
                continue;
            }
            let found = store.read_after(key, None, 0)?.into_iter().next();
            let value = found.filter(|entry| entry.key == key).map(|entry| entry.value);
            self.aside_bytes += key.len() + value.as_ref().map_or(0, Vec::len);
            self.aside.insert(key.to_vec(), value);
            if self.aside_bytes > ASIDE_BYTES_MAX {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The next keys under `prefix` and what they held; none after the last. Keys that
    /// are new since may use up a bit, so that it can be empty before the end: then None
    /// is not the answer.
    pub(super) fn next(&mut self, store: &dyn Store, prefix: &[u8]) -> Result<Option<Vec<Blob>>, StoreError> {
        let read = store.read_after(prefix, self.after.as_deref(), BIT_BYTES)?;
        let newest = read.last().map(|entry| entry.key.clone());
        // What was put aside up to there, or all of it.
        let aside = match &newest {
            None => std::mem::take(&mut self.aside),
            Some(newest) => {
                let mut later = self.aside.split_off(newest);
                let at = later.remove_entry(newest);
                let mut aside = std::mem::replace(&mut self.aside, later);
                aside.extend(at);
                aside
            }
        };
        for (key, value) in &aside {
            self.aside_bytes -= key.len() + value.as_ref().map_or(0, Vec::len);
        }
        if newest.is_none() && aside.is_empty() {
            return Ok(None);
        }
        self.after = newest.or_else(|| aside.keys().next_back().cloned());
        let now = read.into_iter().map(|entry| (entry.key, Some(entry.value)));
        let mut then: BTreeMap<_, _> = now.collect();
        then.extend(aside);
        let blobs = then.into_iter().filter_map(|(key, value)| Some((key, value?)));
        Ok(Some(blobs.collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Change;
    use crate::store::memory::MemoryStore;

    /// What is scanned while `write` makes changes before each bit.
    fn scanned(store: &MemoryStore, mut write: impl FnMut(usize) -> Vec<Change>) -> Vec<Blob> {
        let (mut scan, _ticket) = Scan::begin();
        let mut found = Vec::new();
        for round in 0.. {
            let changes = write(round);
            let keys = changes.iter().map(|change| match change {
                Change::Put { key, .. } | Change::Delete { key } => key.as_slice(),
            });
            assert!(scan.put_aside(store, keys).unwrap());
            store.commit(&[], &changes).unwrap();
            match scan.next(store, b"a/").unwrap() {
                Some(blobs) => found.extend(blobs),
                None => break,
            }
        }
        found
    }

    fn put(number: usize, value: &[u8]) -> Change {
        Change::Put { key: format!("a/{number:04}").into_bytes(), value: value.to_vec() }
    }

    fn delete(number: usize) -> Change {
        Change::Delete { key: format!("a/{number:04}").into_bytes() }
    }

    #[test]
    fn a_scan_shows_one_moment_whatever_is_written_meanwhile() {
        let store = MemoryStore::default();
        let before: Vec<_> = (0..40).map(|number| put(number * 10, &vec![number as u8; 20_000])).collect();
        store.commit(&[], &before).unwrap();
        let then: Vec<Blob> =
            store.read(b"a/").unwrap().entries.into_iter().map(|one| (one.key, one.value)).collect();
        let found = scanned(&store, |round| match round {
            0 => {
                vec![put(0, b"x"), delete(10), put(5, b"new"), delete(390), put(395, b"new"), put(380, b"x")]
            }
            1 => vec![put(0, b"y"), put(10, b"again"), put(390, b"again"), put(380, b"y"), delete(395)],
            2 => (0..40).map(|number| delete(number * 10)).collect(),
            _ => vec![put(400, b"new")].into_iter().filter(|_| round < 6).collect(),
        });
        assert_eq!(found, then);
    }

    #[test]
    fn a_scan_that_nobody_waits_for_or_that_needs_too_much_is_over() {
        let store = MemoryStore::default();
        let (mut scan, ticket) = Scan::begin();
        drop(ticket);
        assert!(!scan.put_aside(&store, [b"a/1".as_slice()].into_iter()).unwrap());

        let value = vec![0; 64 * 1024];
        let puts: Vec<_> = (0..=ASIDE_BYTES_MAX / value.len()).map(|number| put(number, &value)).collect();
        store.commit(&[], &puts).unwrap();
        let keys: Vec<_> = store.read(b"a/").unwrap().entries.into_iter().map(|entry| entry.key).collect();
        let (mut scan, _ticket) = Scan::begin();
        assert!(scan.put_aside(&store, keys[..400].iter().map(Vec::as_slice)).unwrap());
        assert!(!scan.put_aside(&store, keys.iter().map(Vec::as_slice)).unwrap());
    }
}
