//! Reading history beside the writer.

use super::*;

/// A record that makes its number the configuration, or one that leaves it.
fn step(number: u64) -> Record {
    let config = number.is_multiple_of(2).then(|| format!("config {}", number / 2).into_bytes());
    Record { revision: number / 2, unix_ms: number * 10, config, ..record(&format!("record {number}")) }
}

/// A journal in small segments whose every second record is a revision.
fn revisions(directory: &Path, records: u64) -> Journal {
    let mut journal = Journal::open_with(directory, 500).unwrap().journal;
    for number in 1..=records {
        journal.append(&mut step(number)).unwrap();
        if journal.is_full() {
            let revision = number / 2;
            let config = if revision == 0 { Vec::new() } else { format!("config {revision}").into_bytes() };
            let snapshot = Snapshot { sequence: number, revision, config, ..Snapshot::default() };
            journal.rotate(snapshot).unwrap();
        }
    }
    journal
}

fn listed(reader: &JournalReader, newest: u64) -> Vec<Logged> {
    reader.newest_first(newest).map(Result::unwrap).collect()
}

#[test]
fn records_are_listed_newest_first_over_all_segments_with_their_chain() {
    let directory = tempfile::tempdir().unwrap();
    let journal = revisions(directory.path(), 30);
    assert!(segment::list(directory.path()).unwrap().len() >= 4);
    let logged = listed(&journal.reader(), 30);
    let sequences: Vec<_> = logged.iter().map(|logged| logged.record.sequence).collect();
    assert_eq!(sequences, (1..=30).rev().collect::<Vec<_>>());
    assert_eq!(logged[0].sha256, journal.tip().1);
    for pair in logged.windows(2) {
        assert_eq!(pair[0].previous_sha256, pair[1].sha256);
    }
    assert!(logged[29].previous_sha256.is_empty());
    assert_eq!(listed(&journal.reader(), 7)[0].record.sequence, 7);
}

#[test]
fn each_configuration_is_found_with_the_one_before() {
    let directory = tempfile::tempdir().unwrap();
    let journal = revisions(directory.path(), 30);
    let reader = journal.reader();
    for logged in listed(&reader, 30) {
        let before = (logged.record.sequence - 1) / 2;
        let expected = if before == 0 { String::new() } else { format!("config {before}") };
        assert_eq!(logged.config_before().unwrap(), expected.as_bytes(), "{}", logged.record.sequence);
    }
    for revision in 1..=15 {
        let found = reader.config_at(revision, 30).unwrap().unwrap();
        assert_eq!(found, format!("config {revision}").into_bytes());
    }
    assert_eq!(reader.config_at(16, 30).unwrap(), None);
    assert_eq!(reader.config_at(15, 29).unwrap(), None, "not durable yet");
}

#[test]
fn what_is_not_durable_is_not_read() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = revisions(directory.path(), 3);
    let reader = journal.reader();
    let long = Record { config: Some(vec![b'x'; PENDING_BYTES]), ..record("written, not synced") };
    journal.append_unsynced(&mut long.clone()).unwrap();
    assert_eq!(listed(&reader, journal.durable()).len(), 3);
    journal.fail_next(io::ErrorKind::StorageFull);
    journal.append_unsynced(&mut record("one more")).unwrap();
    journal.sync().unwrap_err();
    assert_eq!(listed(&reader, journal.durable()).len(), 3);
}

#[test]
fn removed_segments_end_a_listing() {
    let directory = tempfile::tempdir().unwrap();
    let journal = revisions(directory.path(), 30);
    let reader = journal.reader();
    let paths = segment::list(directory.path()).unwrap();
    let mut listing = reader.newest_first(30);
    assert_eq!(listing.next().unwrap().unwrap().record.sequence, 30);
    paths[..paths.len() - 1].iter().for_each(|path| fs::remove_file(path).unwrap());
    let rest: Vec<_> = listing.map(|logged| logged.unwrap().record.sequence).collect();
    let kept: u64 = paths.last().unwrap().file_stem().unwrap().to_str().unwrap().parse().unwrap();
    assert_eq!(rest, (kept..30).rev().collect::<Vec<_>>());
    assert_eq!(reader.config_at(1, 30).unwrap(), None);
    // A reader that never saw them finds the same.
    let fresh = JournalReader::new(directory.path().to_owned(), Vec::new());
    assert_eq!(listed(&fresh, 30).len() as u64, 31 - kept);
    assert_eq!(fresh.config_at(15, 30).unwrap().unwrap(), b"config 15");
}

#[test]
fn a_damaged_segment_is_named_and_ends_the_listing() {
    let directory = tempfile::tempdir().unwrap();
    let journal = revisions(directory.path(), 30);
    let path = segment::list(directory.path()).unwrap().swap_remove(1);
    let mut bytes = fs::read(&path).unwrap();
    let last = bytes.len() - 2;
    bytes[last] ^= 1;
    fs::write(&path, bytes).unwrap();
    let reader = journal.reader();
    let outcomes: Vec<_> = reader.newest_first(30).collect();
    let (last, before) = outcomes.split_last().unwrap();
    assert!(before.iter().all(Result::is_ok));
    assert!(matches!(last, Err(JournalError::Damaged { file, .. }) if *file == path), "{last:?}");
}

#[test]
fn a_query_far_back_starts_at_the_segment_of_that_time() {
    let directory = tempfile::tempdir().unwrap();
    let journal = revisions(directory.path(), 30);
    let starts = [(1, 0, 5), (11, 5, 100), (21, 10, 200)];
    let starts = starts.map(|(sequence, revision, unix_ms)| Start { sequence, revision, unix_ms });
    let reader = journal.reader();
    let in_files = reader.newest_at(u64::MAX, 30).unwrap();
    assert_eq!(in_files, 30);
    assert_eq!(reader.newest_at(0, 30).unwrap(), first_segment_end(directory.path()));
    assert_eq!(starts.map(|start| reader::newest_before(&starts, start.unix_ms, 30)), [10, 20, 30]);
    assert_eq!(reader::newest_before(&starts, 1, 30), 10);
}

/// The number of the last record of the oldest segment.
fn first_segment_end(directory: &Path) -> u64 {
    let second = &segment::list(directory).unwrap()[1];
    let start: u64 = second.file_stem().unwrap().to_str().unwrap().parse().unwrap();
    start - 1
}
