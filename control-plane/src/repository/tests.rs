//! What the repository promises over restarts, crashes and damage.

mod batch;
mod corruption;
mod orders;
mod reopening;
mod rollback;
mod transfer;

use std::fs;
use std::path::Path;

use std::time::Duration;
use trunkline_proto::admin::v1::Config;
use trunkline_proto::types::v1::{self as types, Fault};

use super::*;

fn on_disk(directory: &Path) -> Result<Arc<Repository>, OpenError> {
    Repository::open(RepositoryOptions {
        data_dir: Some(directory.to_owned()),
        ..RepositoryOptions::default()
    })
}

fn in_memory() -> Arc<Repository> {
    Repository::open(RepositoryOptions::default()).unwrap()
}

/// A configuration with one provider of that name.
fn config(name: &str) -> Config {
    let provider = types::Provider {
        name: name.to_owned(),
        dialect: types::Dialect::Openai.into(),
        base_url: "https://api.example.com/v1".to_owned(),
        ..types::Provider::default()
    };
    Config { providers: vec![provider], ..Config::default() }
}

fn write(name: &str, expected_revision: u64) -> ConfigWrite {
    ConfigWrite {
        config: config(name),
        expected_revision,
        principal: "tester".to_owned(),
        method: "ApplyConfig",
        request_id: None,
        request_sha256: [0; 32],
        force: false,
    }
}

async fn commits(repository: &Repository, count: u64) {
    for _ in 0..count {
        let revision = repository.state().version.revision;
        let state = repository.commit(write(&format!("p{}", revision + 1), revision)).await;
        assert_eq!(state.unwrap().version.revision, revision + 1);
    }
}

async fn remembered(repository: &Repository, request_id: &str) -> Option<Remembered> {
    repository.remembered(request_id).await.unwrap()
}

fn provider_name(repository: &Repository) -> String {
    repository.state().config.providers[0].name.clone()
}

#[tokio::test]
async fn a_commit_is_published_before_it_is_acknowledged() {
    let repository = in_memory();
    let mut subscriber = repository.subscribe();
    let state = repository.commit(write("a", 0)).await.unwrap();
    assert_eq!(state.version.revision, 1);
    assert!(subscriber.has_changed().unwrap());
    assert_eq!(subscriber.borrow_and_update().version, state.version);
    assert_eq!(state.table.version, state.version);
    assert_eq!(repository.recent(1).unwrap().version, state.version);
    assert_eq!(repository.recent(0).unwrap().config, Config::default());
    assert!(repository.recent(2).is_none());
}

#[tokio::test]
async fn blobs_are_written_and_removed_together_or_not_at_all() {
    let repository = in_memory();
    let blob = |key: &str| (key.as_bytes().to_vec(), b"7".to_vec());
    repository.put_blobs(vec![blob("a/1"), blob("a/2"), blob("b/1")]).await.unwrap();
    let too_long = vec![(b"a/4".to_vec(), vec![0; VALUE_BYTES_MAX + 1])];
    let view = repository.subscribe_view().borrow().unwrap();
    repository.write_blobs(view, too_long, vec![b"a/1".to_vec()]).await.unwrap_err();
    assert_eq!(repository.scan_blobs(b"a/").await.unwrap(), [blob("a/1"), blob("a/2")]);
    let deletes = vec![b"a/1".to_vec(), b"a/9".to_vec()];
    repository.write_blobs(view, vec![blob("a/3")], deletes).await.unwrap();
    let prefixes = vec![b"b/".to_vec(), b"c/".to_vec(), b"a/".to_vec()];
    assert_eq!(repository.scan_blobs_of(prefixes).await.unwrap(), [blob("b/1"), blob("a/2"), blob("a/3")]);
}

#[tokio::test]
async fn a_write_from_an_old_state_conflicts() {
    let repository = in_memory();
    commits(&repository, 2).await;
    let late = repository.commit(write("late", 1)).await;
    assert!(matches!(late, Err(CommitError::Conflict { current: 2 })), "{late:?}");
    assert_eq!(provider_name(&repository), "p2");
}

#[tokio::test]
async fn of_writers_at_the_same_time_one_wins_each_revision() {
    let repository = in_memory();
    let writes = (0..8).map(|index| repository.commit(write(&format!("w{index}"), 0)));
    let outcomes = futures_util::future::join_all(writes).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    assert_eq!(repository.state().version.revision, 1);
}

#[tokio::test]
async fn the_same_configuration_is_no_new_revision() {
    let repository = in_memory();
    commits(&repository, 1).await;
    let state = repository.commit(write("p1", 1)).await.unwrap();
    assert_eq!(state.version.revision, 1);
}

#[tokio::test]
async fn a_wrong_configuration_changes_nothing() {
    let repository = in_memory();
    commits(&repository, 1).await;
    let mut wrong = write("p2", 1);
    wrong.config.providers[0].base_url = "ftp://example.com".to_owned();
    let refused = repository.commit(wrong).await;
    let Err(CommitError::Invalid(problems)) = refused else { panic!("{refused:?}") };
    assert!(problems.iter().any(|problem| problem.path.contains("base_url")), "{problems}");
    assert_eq!(provider_name(&repository), "p1");
    commits(&repository, 1).await;
}

#[tokio::test]
async fn everything_acknowledged_is_there_after_a_reopening() {
    let directory = tempfile::tempdir().unwrap();
    let repository = on_disk(directory.path()).unwrap();
    commits(&repository, 3).await;
    let mut named = write("named", 3);
    named.request_id = Some("request-1".to_owned());
    named.request_sha256 = [9; 32];
    named.force = true;
    repository.commit(named).await.unwrap();
    let forced = Some((VerdictState::ForcedOpen, Some(Duration::from_mins(1))));
    let set =
        |forced| repository.set_verdict("named/m".into(), forced, "maintenance".into(), "tester".into());
    assert_eq!(set(forced).await.unwrap().generation, 1);
    assert_eq!(set(None).await.unwrap().generation, 2);
    let third = set(forced).await.unwrap();
    repository.put_blobs(vec![(b"totals/a".to_vec(), b"7".to_vec())]).await.unwrap();
    let before = repository.state();
    drop(repository);

    let repository = on_disk(directory.path()).unwrap();
    let state = repository.state();
    assert_eq!(state.version, before.version);
    assert_eq!((state.config.clone(), state.forced), (before.config.clone(), true));
    let known = remembered(&repository, "request-1").await.unwrap();
    assert_eq!((known.request_sha256, known.revision), ([9; 32], 4));
    assert_eq!(repository.verdicts().get("named/m"), third.verdict);
    assert_eq!(repository.verdicts().generation("named/m"), 3);
    let blobs = repository.scan_blobs(b"totals/").await.unwrap();
    assert_eq!(blobs, [(b"totals/a".to_vec(), b"7".to_vec())]);
    assert_eq!(repository.health(), StoreHealth::Ok);
    commits(&repository, 1).await;
}

#[tokio::test]
async fn a_repeated_request_without_a_change_is_remembered_too() {
    let repository = in_memory();
    commits(&repository, 1).await;
    let mut same = write("p1", 1);
    same.request_id = Some("again".to_owned());
    assert_eq!(repository.commit(same).await.unwrap().version.revision, 1);
    assert_eq!(remembered(&repository, "again").await.unwrap().revision, 1);
    commits(&repository, 1).await;
}

#[tokio::test]
async fn a_verdict_ends_when_its_time_is_over() {
    let repository = in_memory();
    let forced = Some((VerdictState::ForcedClosed, Some(Duration::from_secs(60))));
    let set = repository.set_verdict("a/b".into(), forced, "test".into(), "tester".into());
    let end = set.await.unwrap().verdict.unwrap().expires_unix_ms.unwrap();
    let mut subscriber = repository.subscribe_verdicts();
    assert_eq!(repository.expire(end - 1).await, Some(end));
    assert!(!subscriber.has_changed().unwrap());
    assert_eq!(repository.expire(end).await, None);
    assert_eq!(subscriber.borrow_and_update().get("a/b"), None);
    assert_eq!(repository.verdicts().generation("a/b"), 2);
}

#[tokio::test]
async fn a_second_opening_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let repository = on_disk(directory.path()).unwrap();
    let error = on_disk(directory.path()).unwrap_err();
    assert!(matches!(error, OpenError::InUse { .. }));
    assert!(error.to_string().contains(&directory.path().display().to_string()), "{error}");
    drop(repository);
    on_disk(directory.path()).unwrap();
}

fn says_that_totals_are_lost(repository: &Repository) -> bool {
    matches!(repository.health(), StoreHealth::Degraded { reason } if reason.contains("totals"))
}

#[tokio::test]
async fn a_view_that_is_gone_is_made_again_from_the_journal() {
    let directory = tempfile::tempdir().unwrap();
    let repository = on_disk(directory.path()).unwrap();
    commits(&repository, 3).await;
    drop(repository);
    fs::remove_dir_all(directory.path().join("view")).unwrap();
    let repository = on_disk(directory.path()).unwrap();
    assert_eq!(provider_name(&repository), "p3");
    assert!(says_that_totals_are_lost(&repository), "{:?}", repository.health());
    commits(&repository, 1).await;
    drop(repository);
    assert_eq!(on_disk(directory.path()).unwrap().health(), StoreHealth::Ok);
}

/// Overwrites the view's files whose name passes; the answer is how many.
fn overwrite(directory: &Path, chosen: impl Fn(&str) -> bool) -> usize {
    let files = fs::read_dir(directory.join("view")).unwrap().map(|entry| entry.unwrap().path());
    let chosen = |path: &PathBuf| path.is_file() && chosen(path.file_name().unwrap().to_str().unwrap());
    let chosen: Vec<_> = files.filter(chosen).collect();
    for path in &chosen {
        fs::write(path, vec![0x5A; fs::metadata(path).unwrap().len() as usize]).unwrap();
    }
    chosen.len()
}

fn is_kept_aside(directory: &Path) -> bool {
    let names = fs::read_dir(directory).unwrap();
    let mut names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.any(|name| name.starts_with("view.damaged-"))
}

#[tokio::test]
async fn a_view_whose_snapshot_is_damaged_is_recovered_and_the_damaged_one_kept() {
    let directory = tempfile::tempdir().unwrap();
    let repository = on_disk(directory.path()).unwrap();
    commits(&repository, 3).await;
    repository.put_blobs(vec![(b"totals/a".to_vec(), b"7".to_vec())]).await.unwrap();
    drop(repository);
    // sled writes a snapshot when it opens.
    drop(on_disk(directory.path()).unwrap());
    assert!(overwrite(directory.path(), |name| name.starts_with("snap.")) > 0);
    let repository = on_disk(directory.path()).unwrap();
    assert_eq!(provider_name(&repository), "p3");
    assert_eq!(repository.scan_blobs(b"").await.unwrap(), [(b"totals/a".to_vec(), b"7".to_vec())]);
    assert_eq!(repository.health(), StoreHealth::Ok);
    assert!(is_kept_aside(directory.path()));
    commits(&repository, 1).await;
}

#[tokio::test]
async fn a_damaged_view_is_moved_aside_and_health_says_what_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    let repository = on_disk(directory.path()).unwrap();
    commits(&repository, 3).await;
    drop(repository);
    assert!(overwrite(directory.path(), |name| name == "db") > 0);
    let repository = on_disk(directory.path()).unwrap();
    assert_eq!(provider_name(&repository), "p3");
    assert!(says_that_totals_are_lost(&repository), "{:?}", repository.health());
    assert!(is_kept_aside(directory.path()));
    commits(&repository, 1).await;
}

#[tokio::test]
async fn a_view_full_of_garbage_loses_no_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let repository = on_disk(directory.path()).unwrap();
    commits(&repository, 3).await;
    drop(repository);
    assert!(overwrite(directory.path(), |_| true) > 0);
    let repository = on_disk(directory.path()).unwrap();
    assert_eq!(provider_name(&repository), "p3");
    assert!(says_that_totals_are_lost(&repository), "{:?}", repository.health());
    commits(&repository, 1).await;
}

/// The newest segment of the journal.
fn segment(directory: &Path) -> PathBuf {
    let entries = fs::read_dir(directory.join("journal")).unwrap();
    entries.map(|entry| entry.unwrap().path()).max().unwrap()
}

#[tokio::test]
async fn a_damaged_journal_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let repository = on_disk(directory.path()).unwrap();
    commits(&repository, 3).await;
    drop(repository);
    let path = segment(directory.path());
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    let error = on_disk(directory.path()).unwrap_err();
    assert!(matches!(error, OpenError::Damaged { .. }));
    assert!(error.to_string().contains(&path.display().to_string()), "{error}");
}

#[tokio::test]
async fn a_journal_that_lost_what_was_acknowledged_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let repository = on_disk(directory.path()).unwrap();
    commits(&repository, 2).await;
    let two = fs::read(segment(directory.path())).unwrap();
    commits(&repository, 1).await;
    drop(repository);
    fs::write(segment(directory.path()), two).unwrap();
    let error = on_disk(directory.path()).unwrap_err();
    assert!(matches!(error, OpenError::RolledBack { journal: 2, seen: 3, .. }), "{error}");
    fs::rename(directory.path().join("view"), directory.path().join("view.away")).unwrap();
    assert_eq!(provider_name(&on_disk(directory.path()).unwrap()), "p2");
}

#[tokio::test]
async fn a_crash_between_journal_and_view_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let repository = on_disk(directory.path()).unwrap();
    commits(&repository, 2).await;
    let view = directory.path().join("view");
    let kept = directory.path().join("kept");
    fs::create_dir(&kept).unwrap();
    for entry in fs::read_dir(&view).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::copy(&path, kept.join(path.file_name().unwrap())).unwrap();
        }
    }
    commits(&repository, 1).await;
    drop(repository);
    fs::remove_dir_all(&view).unwrap();
    fs::rename(&kept, &view).unwrap();
    let repository = on_disk(directory.path()).unwrap();
    assert_eq!(provider_name(&repository), "p3");
    assert_eq!(repository.state().version.revision, 3);
}

#[tokio::test]
async fn after_a_failed_write_it_reads_on_and_says_why_it_does_not_write() {
    let directory = tempfile::tempdir().unwrap();
    let repository = on_disk(directory.path()).unwrap();
    commits(&repository, 2).await;
    repository.ask(Writer::break_journal).await.unwrap();
    for _ in 0..2 {
        let refused = repository.commit(write("p3", 2)).await;
        let Err(CommitError::ReadOnly { reason }) = refused else { panic!("{refused:?}") };
        assert!(reason.contains(&directory.path().display().to_string()), "{reason}");
        assert_eq!(repository.health(), StoreHealth::ReadOnly { reason });
    }
    assert_eq!(provider_name(&repository), "p2");
    drop(repository);
    let repository = on_disk(directory.path()).unwrap();
    assert_eq!(provider_name(&repository), "p2");
    commits(&repository, 1).await;
}
