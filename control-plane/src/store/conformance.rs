//! What every engine must do. One suite, run over each of them.

use std::path::Path;

use super::memory::MemoryStore;
use super::sled::SledStore;
use super::{Change, Entry, Guard, Snapshot, Store, StoreError, StoreHealth, VALUE_BYTES_MAX};

fn put(key: &str, value: &str) -> Change {
    Change::Put { key: key.into(), value: value.into() }
}

fn entry(key: &str, value: &str, version: u64) -> Entry {
    Entry { key: key.into(), value: value.into(), version }
}

/// How an engine is tested: one row in [`ENGINES`] puts it under the whole suite.
struct Engine {
    name: &'static str,
    /// Opens or makes a store in that directory, which no other one has open.
    open: fn(&Path) -> Box<dyn Store>,
    /// What was committed is there when it is opened again.
    durable: bool,
}

const ENGINES: [Engine; 2] = [
    Engine { name: "memory", open: |_| Box::new(MemoryStore::default()), durable: false },
    Engine { name: "sled", open: |path| Box::new(SledStore::open(path).unwrap()), durable: true },
];

/// Runs `case` over each engine, each time on a new store.
fn on_each_engine(case: impl Fn(&dyn Store)) {
    for engine in &ENGINES {
        let root = tempfile::tempdir().unwrap();
        eprintln!("engine: {}", engine.name);
        case(&*(engine.open)(&root.path().join("store")));
    }
}

/// Runs `before`, opens the store again and runs `after`, for each durable engine.
fn over_a_reopening<T>(before: impl Fn(&dyn Store) -> T, after: impl Fn(&dyn Store, T)) {
    for engine in ENGINES.iter().filter(|engine| engine.durable) {
        let root = tempfile::tempdir().unwrap();
        eprintln!("engine: {}", engine.name);
        let directory = root.path().join("store");
        let store = (engine.open)(&directory);
        let told = before(&*store);
        drop(store);
        after(&*(engine.open)(&directory), told);
    }
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
fn a_prefix_is_read_bit_by_bit() {
    on_each_engine(|store| {
        let changes = [put("a/1", "xx"), put("a/2", "yy"), put("a/3", "zz"), put("b", "y"), put("a", "n")];
        store.commit(&[], &changes).unwrap();
        let keys = |after: Option<&str>, bytes_max| {
            let read = store.read_after(b"a/", after.map(str::as_bytes), bytes_max).unwrap();
            let keys = read.into_iter().map(|entry| String::from_utf8(entry.key).unwrap());
            keys.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(keys(None, usize::MAX), "a/1 a/2 a/3");
        assert_eq!(keys(None, 0), "a/1", "never nothing where there is something");
        assert_eq!(keys(None, 6), "a/1 a/2");
        assert_eq!(keys(Some("a/1"), usize::MAX), "a/2 a/3");
        assert_eq!(keys(Some("a/11"), 5), "a/2", "after a key that is not there");
        assert_eq!(keys(Some("a/3"), usize::MAX), "");
        let read = store.read_after(b"a/2", None, 0).unwrap();
        assert_eq!(read, [entry("a/2", "yy", 1)]);
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

#[test]
fn of_two_changes_to_a_key_the_later_one_holds() {
    on_each_engine(|store| {
        let delete = || Change::Delete { key: b"a".to_vec() };
        store.commit(&[], &[put("a", "1"), put("a", "2")]).unwrap();
        assert_eq!(store.read(b"").unwrap().entries, [entry("a", "2", 1)]);
        store.commit(&[], &[put("a", "3"), delete()]).unwrap();
        assert_eq!(store.read(b"").unwrap().entries, []);
        store.commit(&[], &[delete(), put("a", "4"), delete(), put("a", "5")]).unwrap();
        assert_eq!(store.read(b"").unwrap().entries, [entry("a", "5", 3)]);
        store.commit(&[], &[Change::Delete { key: b"never there".to_vec() }]).unwrap();
        assert_eq!(store.commit(&[], &[]).unwrap(), 5);
    });
}

#[test]
fn prefixes_are_bytes_and_meet_their_edges() {
    on_each_engine(|store| {
        let keys: [&[u8]; 8] = [b"", b"\0", b"a", b"a\0", b"a/b", b"b", b"\xff", b"\xff\xff"];
        let puts = keys.map(|key| Change::Put { key: key.to_vec(), value: key.to_vec() });
        store.commit(&[], &puts).unwrap();
        let read = |prefix: &[u8]| {
            let entries = store.read(prefix).unwrap().entries;
            assert!(entries.iter().all(|entry| entry.key == entry.value));
            entries.into_iter().map(|entry| entry.key).collect::<Vec<_>>()
        };
        assert_eq!(read(b""), keys);
        assert_eq!(read(b"a"), [b"a".to_vec(), b"a\0".to_vec(), b"a/b".to_vec()]);
        assert_eq!(read(b"a/"), [b"a/b"]);
        assert_eq!(read(b"\xff"), [b"\xff".to_vec(), b"\xff\xff".to_vec()]);
        assert_eq!(read(b"c"), Vec::<Vec<u8>>::new());
    });
}

#[test]
fn guards_are_judged_by_the_state_before_the_commit() {
    on_each_engine(|store| {
        let absent = || Guard::Absent { key: b"a".to_vec() };
        store.commit(&[absent()], &[put("a", "1")]).unwrap();
        assert!(matches!(store.commit(&[absent()], &[]), Err(StoreError::Conflict)));
        let unchanged = |version| Guard::Unchanged { key: b"a".to_vec(), version };
        assert_eq!(store.commit(&[unchanged(1)], &[put("a", "2")]).unwrap(), 2);
        assert!(matches!(store.commit(&[unchanged(1)], &[]), Err(StoreError::Conflict)));
        store.commit(&[unchanged(2)], &[Change::Delete { key: b"a".to_vec() }]).unwrap();
        store.commit(&[absent()], &[put("a", "3")]).unwrap();
        // A refused commit is no version.
        assert_eq!(store.read(b"").unwrap().entries, [entry("a", "3", 4)]);
    });
}

#[test]
fn who_watches_late_knows_the_version_and_refused_commits_are_no_news() {
    on_each_engine(|store| {
        store.commit(&[], &[put("a", "1")]).unwrap();
        let watch = store.watch();
        assert_eq!(*watch.borrow(), 1);
        store.commit(&[Guard::Term(99)], &[put("a", "2")]).unwrap_err();
        store.campaign().unwrap();
        store.maintain().unwrap();
        assert!(!watch.has_changed().unwrap());
    });
}

#[test]
fn one_value_that_is_too_long_refuses_all_of_a_commit() {
    on_each_engine(|store| {
        let long = Change::Put { key: b"b".to_vec(), value: vec![1; VALUE_BYTES_MAX + 1] };
        store.commit(&[], &[put("a", "1"), long]).unwrap_err();
        assert_eq!(store.read(b"").unwrap(), Snapshot::default());
    });
}

#[test]
fn of_commits_at_the_same_time_each_has_its_version() {
    on_each_engine(|store| {
        let mut versions = std::thread::scope(|scope| {
            let commit = |thread| {
                move || {
                    let key = |round| format!("{thread}/{round}");
                    (0..10).map(|round| store.commit(&[], &[put(&key(round), "x")]).unwrap()).collect()
                }
            };
            let threads = [0, 1, 2].map(|thread| scope.spawn(commit(thread)));
            threads.map(|thread| -> Vec<u64> { thread.join().unwrap() }).concat()
        });
        versions.sort_unstable();
        assert_eq!(versions, (1..=30).collect::<Vec<_>>());
        assert_eq!(store.read(b"").unwrap().entries.len(), 30);
    });
}

#[test]
fn entries_versions_and_terms_are_there_after_a_reopening() {
    over_a_reopening(
        |store| {
            store.commit(&[], &[put("a", "1"), put("b", "1"), put("c", "1")]).unwrap();
            store.commit(&[], &[put("b", "2"), Change::Delete { key: b"c".to_vec() }]).unwrap();
            (store.campaign().unwrap(), store.read(b"").unwrap())
        },
        |store, (term, snapshot)| {
            assert_eq!(store.read(b"").unwrap(), snapshot);
            assert_eq!(*store.watch().borrow(), 2);
            let held = [Guard::Term(term), Guard::Unchanged { key: b"b".to_vec(), version: 2 }];
            assert_eq!(store.commit(&held, &[put("b", "3")]).unwrap(), 3);
            assert_eq!(store.campaign().unwrap(), term + 1);
        },
    );
}
