//! A view that does not open at the start, and one that is opened again while the store
//! runs: nothing is overwritten by what another one lacks.

use super::rollback::rolled_back;
use super::*;
use crate::store::sled::SledStore;

/// While this is held the view does not open.
fn hold(directory: &Path) -> SledStore {
    SledStore::open(&directory.join("view")).unwrap()
}

fn blob() -> Blob {
    (b"totals/a".to_vec(), b"7".to_vec())
}

#[tokio::test]
async fn a_view_that_does_not_open_neither_gives_blobs_nor_takes_them() {
    let directory = tempfile::tempdir().unwrap();
    let repository = on_disk(directory.path()).unwrap();
    commits(&repository, 2).await;
    repository.put_blobs(vec![blob()]).await.unwrap();
    drop(repository);

    let held = hold(directory.path());
    let repository = on_disk(directory.path()).unwrap();
    assert_eq!(provider_name(&repository), "p2");
    assert!(matches!(repository.health(), StoreHealth::ReadOnly { .. }), "{:?}", repository.health());
    assert_eq!(*repository.subscribe_view().borrow(), None);
    let Err(CommitError::ReadOnly { reason }) = repository.scan_blobs(b"").await else { panic!() };
    assert!(reason.contains("view"), "{reason}");
    repository.put_blobs(vec![blob()]).await.unwrap_err();

    drop(held);
    repository.pretend_full().await;
    assert_eq!(repository.scan_blobs(b"").await.unwrap(), [blob()]);
    assert_eq!(repository.health(), StoreHealth::Ok);
    commits(&repository, 1).await;
}

#[tokio::test]
async fn what_was_read_before_the_view_was_opened_again_is_not_written() {
    let directory = tempfile::tempdir().unwrap();
    let repository = on_disk(directory.path()).unwrap();
    let mut view = repository.subscribe_view();
    let read_from = view.borrow_and_update().unwrap();
    repository.write_blobs(read_from, vec![blob()], Vec::new()).await.unwrap();
    repository.pretend_full().await;
    // This very write is what finds that there is room.
    let late = repository.write_blobs(read_from, Vec::new(), vec![blob().0]).await;
    assert!(matches!(late, Err(CommitError::ReadOnly { .. })), "{late:?}");
    assert_eq!(repository.scan_blobs(b"").await.unwrap(), [blob()]);
    assert!(view.has_changed().unwrap());
    let now = view.borrow_and_update().unwrap();
    repository.write_blobs(now, Vec::new(), vec![blob().0]).await.unwrap();
}

#[tokio::test]
async fn a_view_that_is_lost_while_the_store_runs_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let repository = on_disk(directory.path()).unwrap();
    commits(&repository, 2).await;
    repository.pretend_full().await;
    fs::rename(directory.path().join("view"), directory.path().join("view.away")).unwrap();
    commits(&repository, 1).await;
    assert!(says_that_totals_are_lost(&repository), "{:?}", repository.health());
}

#[tokio::test]
async fn a_rollback_shows_when_the_view_can_be_read_again() {
    let directory = rolled_back().await;
    let held = hold(directory.path());
    let repository = on_disk(directory.path()).unwrap();
    assert_eq!(provider_name(&repository), "p2");
    drop(held);
    repository.pretend_full().await;
    let refused = repository.commit(write("p3", 2)).await;
    let Err(CommitError::RolledBack { reason }) = refused else { panic!("{refused:?}") };
    assert!(reason.contains("record 3 was acknowledged"), "{reason}");
    assert_eq!(repository.health(), StoreHealth::ReadOnly { reason });
    drop(repository);
    // What shows it was not overwritten.
    let error = on_disk(directory.path()).unwrap_err();
    assert!(matches!(error, OpenError::RolledBack { journal: 2, seen: 3, .. }), "{error}");
}

#[tokio::test]
async fn a_start_that_is_refused_leaves_the_journal_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let repository = on_disk(directory.path()).unwrap();
    commits(&repository, 3).await;
    drop(repository);
    let segment = segment(directory.path());
    let whole = fs::read(&segment).unwrap();
    // The last record looks like an interrupted write, but the view saw it.
    fs::write(&segment, &whole[..whole.len() - 1]).unwrap();
    let error = on_disk(directory.path()).unwrap_err();
    assert!(matches!(error, OpenError::RolledBack { journal: 2, seen: 3, .. }), "{error}");
    assert_eq!(fs::read(&segment).unwrap(), whole[..whole.len() - 1]);

    let (journal, backup) = (directory.path().join("journal"), directory.path().join("backup"));
    fs::write(&segment, &whole).unwrap();
    fs::rename(&journal, &backup).unwrap();
    let error = on_disk(directory.path()).unwrap_err();
    assert!(matches!(error, OpenError::RolledBack { journal: 0, seen: 3, .. }), "{error}");
    assert!(!journal.exists());
    fs::rename(&backup, &journal).unwrap();
    assert_eq!(provider_name(&on_disk(directory.path()).unwrap()), "p3");
}

#[tokio::test]
async fn no_journal_is_made_where_the_view_cannot_tell_whether_there_was_one() {
    let directory = tempfile::tempdir().unwrap();
    let repository = on_disk(directory.path()).unwrap();
    commits(&repository, 1).await;
    drop(repository);
    let journal = directory.path().join("journal");
    fs::remove_dir_all(&journal).unwrap();
    let held = hold(directory.path());
    let error = on_disk(directory.path()).unwrap_err();
    assert!(error.to_string().contains("there is no journal"), "{error}");
    assert!(!journal.exists());
    drop(held);
}
