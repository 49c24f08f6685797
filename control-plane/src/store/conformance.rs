//! What every engine must do. One suite, run over each of them.

use std::path::Path;

use super::memory::MemoryStore;
use super::sled::SledStore;
use super::{Change, Entry, Guard, Store, StoreError, StoreHealth, VALUE_BYTES_MAX};

fn put(key: &str, value: &str) -> Change {
    Change::Put { key: key.into(), value: value.into() }
}

fn entry(key: &str, value: &str, version: u64) -> Entry {
    Entry { key: key.into(), value: value.into(), version }
}

/// Runs `case` over each engine, each time on a new store.
fn on_each_engine(case: impl Fn(&dyn Store)) {
    case(&MemoryStore::default());
    let directory = tempfile::tempdir().unwrap();
    case(&SledStore::open(directory.path()).unwrap());
}

#[test]
fn a_prefix_reads_its_keys_in_order_with_the_version_that_wrote_them() {
    on_each_engine(|store| {
        assert_eq!(store.read(b"").unwrap().version, 0);
        assert_eq!(store.commit(&[], &[put("a/2", "x"), put("b", "y"), put("a/1", "z")]).unwrap(), 1);
        assert_eq!(store.commit(&[], &[put("a/2", "w")]).unwrap(), 2);
        let read = store.read(b"a/").unwrap();
        assert_eq!(read.version, 2);
        assert_eq!(read.entries, [entry("a/1", "z", 1), entry("a/2", "w", 2)]);
        store.commit(&[], &[Change::Delete { key: b"a/1".to_vec() }]).unwrap();
        assert_eq!(store.read(b"a/").unwrap().entries, [entry("a/2", "w", 2)]);
        assert_eq!(store.read(b"").unwrap().entries.len(), 2);
    });
}

#[test]
fn a_commit_whose_guard_fails_changes_nothing() {
    on_each_engine(|store| {
        store.commit(&[], &[put("a", "1")]).unwrap();
        let held = Guard::Unchanged { key: b"a".to_vec(), version: 1 };
        for broken in [
            Guard::Unchanged { key: b"a".to_vec(), version: 9 },
            Guard::Unchanged { key: b"missing".to_vec(), version: 1 },
            Guard::Absent { key: b"a".to_vec() },
            Guard::Term(7),
        ] {
            let outcome = store.commit(&[held.clone(), broken], &[put("a", "2"), put("b", "2")]);
            assert!(matches!(outcome, Err(StoreError::Conflict)));
        }
        assert_eq!(store.read(b"").unwrap().entries, [entry("a", "1", 1)]);
        store.commit(&[held, Guard::Absent { key: b"b".to_vec() }], &[put("b", "2")]).unwrap();
    });
}

#[test]
fn a_newer_term_ends_the_older_one() {
    on_each_engine(|store| {
        let old = store.campaign().unwrap();
        store.commit(&[Guard::Term(old)], &[put("a", "1")]).unwrap();
        let new = store.campaign().unwrap();
        assert!(new > old);
        let late = store.commit(&[Guard::Term(old)], &[put("a", "2")]);
        assert!(matches!(late, Err(StoreError::Conflict)));
        store.commit(&[Guard::Term(new)], &[put("a", "3")]).unwrap();
        assert_eq!(store.read(b"a").unwrap().entries[0].value, b"3");
    });
}

#[test]
fn who_watches_sees_the_newest_version_only() {
    on_each_engine(|store| {
        let mut watch = store.watch();
        for _ in 0..3 {
            store.commit(&[], &[put("a", "1")]).unwrap();
        }
        assert!(watch.has_changed().unwrap());
        assert_eq!(*watch.borrow_and_update(), 3);
        assert!(!watch.has_changed().unwrap());
    });
}

#[test]
fn a_value_that_is_too_long_is_refused_and_harms_nothing() {
    on_each_engine(|store| {
        let long = Change::Put { key: b"a".to_vec(), value: vec![1; VALUE_BYTES_MAX + 1] };
        assert!(matches!(store.commit(&[], &[long]), Err(StoreError::TooLarge { .. })));
        let longest = Change::Put { key: b"a".to_vec(), value: vec![1; VALUE_BYTES_MAX] };
        store.commit(&[], &[longest]).unwrap();
        assert_eq!(store.read(b"a").unwrap().entries[0].value.len(), VALUE_BYTES_MAX);
        assert_eq!(store.health(), StoreHealth::Ok);
    });
}

fn reopened(directory: &Path) -> SledStore {
    SledStore::open(directory).unwrap()
}

#[test]
fn sled_keeps_entries_versions_and_terms_over_a_reopening() {
    let directory = tempfile::tempdir().unwrap();
    let store = reopened(directory.path());
    store.commit(&[], &[put("a", "1")]).unwrap();
    let term = store.campaign().unwrap();
    drop(store);
    let store = reopened(directory.path());
    assert_eq!(store.read(b"").unwrap().entries, [entry("a", "1", 1)]);
    assert_eq!(store.commit(&[Guard::Term(term)], &[put("b", "2")]).unwrap(), 2);
    assert_eq!(store.campaign().unwrap(), term + 1);
}

#[test]
fn sled_refuses_a_record_whose_checksum_is_wrong() {
    let directory = tempfile::tempdir().unwrap();
    drop(reopened(directory.path()));
    let db = super::sled::open_when_released(directory.path()).unwrap();
    db.insert(b"da", b"not a record of ours").unwrap();
    drop(db);
    let error = SledStore::open(directory.path()).unwrap_err();
    assert_eq!(error.to_string(), "the store is damaged: the record of a");
}
