//! Group commit: many records, one wait for the disk.

use super::*;

fn batch(journal: &mut Journal, notes: &[&str]) {
    for note in notes {
        journal.append_unsynced(&mut record(note)).unwrap();
    }
}

#[test]
fn a_batch_is_durable_after_one_sync_and_reads_like_single_records() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(directory.path()).unwrap().journal;
    batch(&mut journal, &["a", "b", "c"]);
    assert_eq!((journal.tip().0, journal.durable()), (3, 0));
    journal.sync().unwrap();
    assert_eq!((journal.tip().0, journal.durable()), (3, 3));
    journal.append(&mut record("d")).unwrap();
    let tip = journal.tip();
    drop(journal);
    let opened = Journal::open(directory.path()).unwrap();
    assert_eq!(notes(&opened), ["a", "b", "c", "d"]);
    assert_eq!(opened.journal.tip(), tip);
}

#[test]
fn a_batch_that_finds_no_space_is_taken_back_whole() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(directory.path()).unwrap().journal;
    batch(&mut journal, &["kept"]);
    journal.sync().unwrap();
    let tip = journal.tip();
    let epoch = journal.epoch().to_owned();
    journal.fail_next(io::ErrorKind::StorageFull);
    batch(&mut journal, &["lost 1", "lost 2"]);
    journal.append_unsynced(&mut Record { epoch: Some("other".into()), ..record("lost 3") }).unwrap();
    assert!(matches!(journal.sync(), Err(AppendError::Full(_))));
    assert_eq!((journal.tip(), journal.durable()), (tip, 1));
    assert_eq!(journal.epoch(), epoch);
    // There is space again.
    batch(&mut journal, &["after"]);
    journal.sync().unwrap();
    drop(journal);
    let opened = Journal::open(directory.path()).unwrap();
    assert_eq!(notes(&opened), ["kept", "after"]);
    assert_eq!(opened.torn_bytes, 0);
}

#[test]
fn a_long_batch_is_taken_back_though_a_part_was_written_before_the_sync() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(directory.path()).unwrap().journal;
    let long = "x".repeat(PENDING_BYTES);
    batch(&mut journal, &[&long, "short"]);
    journal.fail_next(io::ErrorKind::StorageFull);
    assert!(matches!(journal.sync(), Err(AppendError::Full(_))));
    drop(journal);
    let opened = Journal::open(directory.path()).unwrap();
    assert_eq!((opened.records.len(), opened.torn_bytes), (0, 0));
}

#[test]
fn after_an_unknown_failure_nothing_more_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(directory.path()).unwrap().journal;
    journal.append(&mut record("kept")).unwrap();
    journal.fail_next(io::ErrorKind::Other);
    assert!(matches!(journal.append(&mut record("lost")), Err(AppendError::Broken(_))));
    assert!(matches!(journal.append(&mut record("refused")), Err(AppendError::Broken(_))));
    drop(journal);
    assert_eq!(notes(&Journal::open(directory.path()).unwrap()), ["kept"]);
}

#[test]
fn a_record_renames_the_journal_and_segments_follow() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(directory.path()).unwrap().journal;
    journal.append(&mut Record { epoch: Some("second".into()), ..record("accepted") }).unwrap();
    assert_eq!(journal.epoch(), "second");
    drop(journal);
    let mut journal = Journal::open(directory.path()).unwrap().journal;
    assert_eq!(journal.epoch(), "second");
    journal.rotate(Snapshot { sequence: 1, ..Snapshot::default() }).unwrap();
    journal.append(&mut record("next")).unwrap();
    drop(journal);
    let opened = Journal::open(directory.path()).unwrap();
    assert_eq!((opened.journal.epoch(), opened.journal.tip().0), ("second", 2));
}

#[test]
fn a_segment_does_not_end_in_the_middle_of_a_batch() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(directory.path()).unwrap().journal;
    batch(&mut journal, &["a"]);
    journal.rotate(Snapshot { sequence: 1, ..Snapshot::default() }).unwrap_err();
    journal.sync().unwrap();
    journal.rotate(Snapshot { sequence: 1, ..Snapshot::default() }).unwrap();
}

/// A journal whose last segment has single records and then a batch; the bytes of that
/// segment, and where the batch starts.
fn with_batch(directory: &Path) -> (PathBuf, Vec<u8>, usize) {
    let path = written(directory, 2);
    let start = fs::metadata(&path).unwrap().len() as usize;
    let mut journal = Journal::open(directory).unwrap().journal;
    batch(&mut journal, &["batch 3", "batch 4", "batch 5"]);
    journal.sync().unwrap();
    let bytes = fs::read(&path).unwrap();
    (path, bytes, start)
}

#[test]
fn a_batch_cut_anywhere_leaves_its_first_records() {
    let directory = tempfile::tempdir().unwrap();
    let (path, bytes, start) = with_batch(directory.path());
    let all = ["record 1", "record 2", "batch 3", "batch 4", "batch 5"];
    for cut in start..bytes.len() {
        fs::write(&path, &bytes[..cut]).unwrap();
        let opened = Journal::open(directory.path()).unwrap();
        let found = notes(&opened).len();
        assert!((2..5).contains(&found), "cut at {cut}");
        assert_eq!(notes(&opened), all[..found], "cut at {cut}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Zeros are what file systems leave where data did not arrive.
    #[test]
    fn a_journal_that_ends_early_or_in_zeros_is_a_prefix_or_refused(
        place in 0.0..1.0_f64,
        zeros in any::<bool>(),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let (path, mut bytes, _) = with_batch(directory.path());
        let cut = (place * bytes.len() as f64) as usize;
        if zeros { bytes[cut..].fill(0) } else { bytes.truncate(cut) }
        fs::write(&path, &bytes).unwrap();
        let all = ["record 1", "record 2", "batch 3", "batch 4", "batch 5"];
        match Journal::open(directory.path()) {
            Ok(opened) => {
                let found = notes(&opened);
                prop_assert!(found.len() < all.len());
                prop_assert_eq!(&found[..], &all[..found.len()]);
            }
            Err(JournalError::Damaged { file, .. }) => prop_assert_eq!(file, path),
            Err(other) => prop_assert!(false, "{}", other),
        }
    }
}
