//! What is particular to sled: damage by file, the ladder, growth, and crashes in
//! between.

use std::fs;

use super::space;
use super::*;

fn put(key: &str, value: Vec<u8>) -> Change {
    Change::Put { key: key.into(), value }
}

/// A closed database with some commits, opened often enough to have a snapshot.
fn filled(directory: &Path) -> Snapshot {
    let store = SledStore::open(directory).unwrap();
    for number in 0..40_u8 {
        store.commit(&[], &[put(&format!("key {}", number % 8), vec![number; 300])]).unwrap();
    }
    let snapshot = store.read(b"").unwrap();
    close(store);
    close(SledStore::open(directory).unwrap());
    snapshot
}

fn close(store: SledStore) {
    let directory = store.directory.clone();
    let inner = store.inner.into_inner();
    inner.checked.unwrap().close(&directory).unwrap();
}

fn damage_of(directory: &Path) -> String {
    match SledStore::open(directory).unwrap_err() {
        StoreError::Damaged { reason } => reason,
        other => panic!("{other}"),
    }
}

fn asides(directory: &Path) -> Vec<PathBuf> {
    let parent = fs::read_dir(directory.parent().unwrap()).unwrap();
    let paths = parent.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.to_str().unwrap().contains(".damaged-")).collect()
}

/// Writes sled's own keys without the store's knowledge.
fn behind_its_back(directory: &Path, change: impl FnOnce(&::sled::Db)) {
    let checked = Checked::open(directory).unwrap();
    change(checked.db());
    checked.sync().unwrap();
    checked.close(directory).unwrap();
}

#[test]
fn a_key_that_vanished_is_damage_and_never_fewer_keys() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("view");
    filled(&directory);
    behind_its_back(&directory, |db| drop(db.remove(data(b"key 3")).unwrap().unwrap()));
    let reason = damage_of(&directory);
    assert!(reason.starts_with("it has 7 keys that are not the 8 that were written"), "{reason}");
    let aside = asides(&directory);
    assert_eq!(aside.len(), 1);
    assert!(reason.contains(aside[0].to_str().unwrap()), "{reason}");
    assert!(SledStore::open(&directory).unwrap().read(b"").unwrap().entries.is_empty());
}

#[test]
fn a_key_that_came_back_or_is_a_stranger_is_damage() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("view");
    for (key, record) in [
        (data(b"key 3"), encode(b"key 3", b"an older value", 4)),
        (data(b"one more"), encode(b"one more", b"", 4)),
        (data(b"key 3"), b"not a record of ours".to_vec()),
        (b"x".to_vec(), Vec::new()),
        (META_TIP.to_vec(), b"not a tip".to_vec()),
    ] {
        filled(&directory);
        behind_its_back(&directory, |db| drop(db.insert(key, record).unwrap()));
        damage_of(&directory);
    }
    // Five were moved aside.
    assert_eq!(asides(&directory).len(), 3);
}

#[test]
fn an_earlier_state_does_not_pass_for_the_newest() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("view");
    filled(&directory);
    let earlier = root.path().join("earlier");
    copy_files(&directory, &earlier);
    let store = SledStore::open(&directory).unwrap();
    store.commit(&[], &[put("key 1", b"newer".to_vec())]).unwrap();
    close(store);
    // sled's files go back, the note of what was committed does not.
    fs::copy(directory.join("committed"), earlier.join("committed")).unwrap();
    fs::remove_dir_all(&directory).unwrap();
    fs::rename(&earlier, &directory).unwrap();
    let reason = damage_of(&directory);
    assert!(reason.starts_with("it is at version 40, but version 41 was committed"), "{reason}");
}

#[test]
fn a_lost_or_damaged_note_of_what_was_committed_loses_nothing() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("view");
    let snapshot = filled(&directory);
    fs::write(directory.join("committed"), b"garbage").unwrap();
    let store = SledStore::open(&directory).unwrap();
    assert_eq!(store.read(b"").unwrap(), snapshot);
    close(store);
    fs::remove_file(directory.join("committed")).unwrap();
    assert_eq!(SledStore::open(&directory).unwrap().read(b"").unwrap(), snapshot);
}

#[test]
fn damaged_snapshots_of_sled_are_done_without() {
    let mut recovered = 0;
    for seed in 0..40_usize {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("view");
        let snapshot = filled(&directory);
        let files = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path());
        let snaps = files.filter(|path| path.to_str().unwrap().contains("/snap."));
        let snap = snaps.max().expect("sled writes one when it opens");
        let mut bytes = fs::read(&snap).unwrap();
        let place = seed * bytes.len() / 40;
        if seed % 2 == 0 {
            bytes[place] ^= 0x10;
        } else {
            bytes.truncate(place);
        }
        fs::write(&snap, bytes).unwrap();
        let store = SledStore::open(&directory).unwrap();
        assert_eq!(store.read(b"").unwrap(), snapshot, "seed {seed}");
        // sled does not read a few of the bytes.
        recovered += asides(&directory).len();
        store.commit(&[], &[put("key 1", b"newer".to_vec())]).unwrap();
    }
    assert!(recovered >= 35, "{recovered}");
}

#[test]
fn after_a_failed_write_it_reads_and_takes_no_more() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("view");
    let snapshot = filled(&directory);
    let store = SledStore::open(&directory).unwrap();
    let file = fs::File::open("/dev/null").unwrap();
    store.inner.lock().checked.as_mut().unwrap().replace_file(file);
    // fdatasync is not for /dev/null.
    assert!(matches!(store.commit(&[], &[put("a", vec![1])]), Err(StoreError::Io(_))));
    for _ in 0..2 {
        assert!(matches!(store.commit(&[], &[put("a", vec![1])]), Err(StoreError::ReadOnly { .. })));
        assert!(matches!(store.campaign(), Err(StoreError::ReadOnly { .. })));
    }
    assert!(matches!(store.health(), StoreHealth::ReadOnly { .. }));
    assert!(store.read(b"key").unwrap().entries == snapshot.entries);
    close(store);
    let store = SledStore::open(&directory).unwrap();
    store.commit(&[], &[put("b", vec![1])]).unwrap();
}

fn on_disk(store: &SledStore) -> u64 {
    store.inner.lock().checked().unwrap().db().size_on_disk().unwrap()
}

/// Writes and removes until most of the files is waste.
fn wasteful(directory: &Path) -> SledStore {
    let store = SledStore::open(directory).unwrap();
    let key = |round: u32, key: u32| format!("{round:02}/{key:02}");
    for round in 0..25 {
        let puts = (0..32).map(|index| put(&key(round, index), vec![round as u8; 60 * 1024]));
        store.commit(&[], &puts.collect::<Vec<_>>()).unwrap();
    }
    for round in 0..25 {
        // Not the last key of each.
        let deletes =
            (u32::from(round % 10 == 9)..32).map(|index| Change::Delete { key: key(round, index).into() });
        store.commit(&[], &deletes.collect::<Vec<_>>()).unwrap();
    }
    store
}

fn copy_files(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

fn is_made_anew(root: &Path, anew: impl Fn(SledStore) -> SledStore) {
    let store = wasteful(&root.join("view"));
    let (before, snapshot) = (on_disk(&store), store.read(b"").unwrap());
    assert!(space::is_too_much(before, store.inner.lock().checked().unwrap().bytes));
    let store = anew(store);
    assert!(on_disk(&store) < before / 4, "{before} {}", on_disk(&store));
    assert_eq!(store.read(b"").unwrap(), snapshot);
    store.commit(&[], &[put("one more", vec![1])]).unwrap();
    close(store);
    assert_eq!(fs::read_dir(root).unwrap().count(), 1);
}

#[test]
fn files_that_grew_far_beyond_what_is_in_them_are_made_anew_on_demand() {
    let root = tempfile::tempdir().unwrap();
    is_made_anew(root.path(), |store| {
        store.maintain().unwrap();
        store
    });
}

#[test]
fn files_that_grew_far_beyond_what_is_in_them_are_made_anew_at_the_opening() {
    let root = tempfile::tempdir().unwrap();
    is_made_anew(root.path(), |store| {
        close(store);
        SledStore::open(&root.path().join("view")).unwrap()
    });
}

#[test]
fn waste_is_told_from_data() {
    const MIB: u64 = 1024 * 1024;
    for (on_disk, logical, expected) in [
        (63, 0, false),
        (65, 0, true),
        (65, 3, true),
        (65, 4, false),
        (500, 30, false),
        (513, 30, true),
        (513, 257, false),
    ] {
        assert_eq!(space::is_too_much(on_disk * MIB, logical * MIB), expected, "{on_disk} {logical}");
    }
}

#[test]
fn a_crash_while_the_files_are_exchanged_loses_nothing() {
    let root = tempfile::tempdir().unwrap();
    let view = root.path().join("view");
    let at = |ending: &str| root.path().join(format!("view.{ending}"));
    let snapshot = filled(&view);
    let opens_the_same = |step: &str| {
        let store = SledStore::open(&view).unwrap();
        assert_eq!(store.read(b"").unwrap(), snapshot, "{step}");
        close(store);
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1, "{step}");
    };
    fs::create_dir(at("new")).unwrap();
    fs::write(at("new").join("db"), b"half").unwrap();
    opens_the_same("the new one is not complete");
    copy_files(&view, &at("old"));
    fs::rename(&view, at("new")).unwrap();
    opens_the_same("between the renames");
    copy_files(&view, &at("old"));
    opens_the_same("before the old one is removed");
    fs::rename(&view, at("old")).unwrap();
    opens_the_same("the new one was taken away");
}
