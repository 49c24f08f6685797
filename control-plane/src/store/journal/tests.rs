//! What survives an interrupted write, what is refused, and how segments follow.

mod batch;
#[cfg(feature = "failpoints")]
mod crash;
mod reading;

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;

fn record(note: &str) -> Record {
    Record { principal: note.to_owned(), config: Some(note.into()), ..Record::default() }
}

/// A journal with so many records in one segment.
fn written(directory: &Path, records: usize) -> PathBuf {
    let mut journal = Journal::open(directory).unwrap().journal;
    for number in 1..=records {
        journal.append(&mut record(&format!("record {number}"))).unwrap();
    }
    segment::list(directory).unwrap().pop().unwrap()
}

fn notes(opened: &Opened) -> Vec<&str> {
    opened.records.iter().map(|record| record.principal.as_str()).collect()
}

fn damage_of(directory: &Path) -> (PathBuf, String) {
    match Journal::open(directory).unwrap_err() {
        JournalError::Damaged { file, cause, .. } => (file, cause),
        other @ JournalError::Io { .. } => panic!("{other}"),
    }
}

#[test]
fn records_come_back_in_order_under_the_same_epoch() {
    let directory = tempfile::tempdir().unwrap();
    written(directory.path(), 3);
    let first = Journal::open(directory.path()).unwrap();
    assert_eq!(notes(&first), ["record 1", "record 2", "record 3"]);
    assert_eq!(first.journal.tip().0, 3);
    let again = Journal::open(directory.path()).unwrap();
    assert_eq!(again.journal.epoch(), first.journal.epoch());
    assert_eq!(again.journal.tip(), first.journal.tip());
}

#[test]
fn a_last_record_cut_anywhere_is_cut_off_and_the_journal_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let path = written(directory.path(), 2);
    let two = fs::read(&path).unwrap();
    let mut journal = Journal::open(directory.path()).unwrap().journal;
    journal.append(&mut record("record 3")).unwrap();
    let three = fs::read(&path).unwrap();
    for cut in two.len()..three.len() {
        fs::write(&path, &three[..cut]).unwrap();
        let mut opened = Journal::open(directory.path()).unwrap();
        assert_eq!(notes(&opened), ["record 1", "record 2"], "cut at {cut}");
        assert_eq!(opened.torn_bytes, (cut - two.len()) as u64);
        opened.journal.append(&mut record("instead")).unwrap();
        let opened = Journal::open(directory.path()).unwrap();
        assert_eq!(notes(&opened), ["record 1", "record 2", "instead"], "cut at {cut}");
    }
}

#[test]
fn a_damaged_record_is_named_and_nothing_is_changed() {
    let directory = tempfile::tempdir().unwrap();
    let path = written(directory.path(), 3);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    fs::write(&path, &bytes).unwrap();
    let (file, cause) = damage_of(directory.path());
    assert_eq!(file, path);
    assert!(cause.contains("checksum"), "{cause}");
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn no_flipped_bit_changes_what_is_read(place in 0.0..1.0_f64, bit in 0_u8..8) {
        let directory = tempfile::tempdir().unwrap();
        let path = written(directory.path(), 3);
        let mut bytes = fs::read(&path).unwrap();
        let at = (place * bytes.len() as f64) as usize;
        bytes[at] ^= 1 << bit;
        fs::write(&path, &bytes).unwrap();
        prop_assert_eq!(damage_of(directory.path()).0, path);
    }
}

#[test]
fn a_record_that_was_taken_out_or_swapped_breaks_the_chain() {
    let directory = tempfile::tempdir().unwrap();
    let path = written(directory.path(), 1);
    let mut ends = vec![fs::metadata(&path).unwrap().len() as usize];
    let mut journal = Journal::open(directory.path()).unwrap().journal;
    for number in 2..=3 {
        journal.append(&mut record(&format!("record {number}"))).unwrap();
        ends.push(fs::metadata(&path).unwrap().len() as usize);
    }
    let bytes = fs::read(&path).unwrap();
    let without_second = [&bytes[..ends[0]], &bytes[ends[1]..]].concat();
    fs::write(&path, without_second).unwrap();
    assert_eq!(damage_of(directory.path()).1, "record 3 stands where 2 belongs");
}

/// A journal in three or more small segments.
fn in_segments(directory: &Path, records: u64) -> Opened {
    let mut journal = Journal::open_with(directory, 200).unwrap().journal;
    for number in 1..=records {
        journal.append(&mut record(&format!("record {number}"))).unwrap();
        if journal.is_full() {
            let snapshot = Snapshot { sequence: number, revision: number, ..Snapshot::default() };
            journal.rotate(snapshot).unwrap();
        }
    }
    Journal::open_with(directory, 200).unwrap()
}

#[test]
fn a_new_segment_goes_on_where_the_full_one_ended() {
    let directory = tempfile::tempdir().unwrap();
    let opened = in_segments(directory.path(), 9);
    assert!(segment::list(directory.path()).unwrap().len() >= 3);
    assert_eq!(opened.journal.tip().0, 9);
    assert_eq!(opened.snapshot.sequence + opened.records.len() as u64, 9);
}

#[test]
fn a_segment_that_cannot_be_made_leaves_the_old_one_in_use() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(directory.path()).unwrap().journal;
    journal.append(&mut record("record 1")).unwrap();
    // In the way: of the new segment, then of its final name.
    for name in ["new", "log"] {
        let obstacle = directory.path().join(format!("{:020}.{name}", journal.tip().0 + 1));
        fs::create_dir(&obstacle).unwrap();
        let snapshot = Snapshot { sequence: journal.tip().0, ..Snapshot::default() };
        journal.rotate(snapshot).unwrap_err();
        fs::remove_dir(&obstacle).unwrap();
        journal.append(&mut record("one more")).unwrap();
    }
    drop(journal);
    let opened = Journal::open(directory.path()).unwrap();
    assert_eq!(notes(&opened), ["record 1", "one more", "one more"]);
}

#[test]
fn old_segments_are_removed_and_the_rest_still_opens() {
    let directory = tempfile::tempdir().unwrap();
    let opened = in_segments(directory.path(), 200);
    assert_eq!(segment::list(directory.path()).unwrap().len(), SEGMENTS_KEPT);
    assert_eq!(opened.journal.tip().0, 200);
}

#[test]
fn a_missing_or_short_segment_in_between_is_named() {
    let directory = tempfile::tempdir().unwrap();
    in_segments(directory.path(), 9);
    let paths = segment::list(directory.path()).unwrap();
    let first = fs::read(&paths[0]).unwrap();
    fs::write(&paths[0], &first[..first.len() - 1]).unwrap();
    assert_eq!(damage_of(directory.path()).1, "a record is incomplete, and newer segments follow");
    fs::write(&paths[0], &first).unwrap();
    fs::remove_file(&paths[1]).unwrap();
    let (file, cause) = damage_of(directory.path());
    assert_eq!(file, paths[2]);
    assert!(cause.starts_with("it continues from record"), "{cause}");
}

#[test]
fn a_segment_whose_making_was_interrupted_is_removed() {
    let directory = tempfile::tempdir().unwrap();
    written(directory.path(), 2);
    let unfinished = directory.path().join("00000000000000000003.new");
    fs::write(&unfinished, b"half").unwrap();
    assert_eq!(Journal::open(directory.path()).unwrap().records.len(), 2);
    assert!(!unfinished.exists());
}

#[test]
fn a_journal_of_a_newer_format_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = written(directory.path(), 0);
    let header = record::Header { format: 2, ..record::Header::default() };
    fs::write(&path, frame::encode(&header.encode_to_vec()).unwrap()).unwrap();
    assert!(damage_of(directory.path()).1.contains("its format is 2"));
}
