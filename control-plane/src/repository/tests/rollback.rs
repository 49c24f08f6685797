//! A store that is older than it was: noticed, refused, and accepted by an operator.

use super::*;

fn accepting(directory: &Path) -> Arc<Repository> {
    let data_dir = Some(directory.to_owned());
    let options = RepositoryOptions { data_dir, accept_rollback: true, ..RepositoryOptions::default() };
    Repository::open(options).unwrap()
}

/// A store of three commits whose journal was put back to two.
pub(super) async fn rolled_back() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let repository = on_disk(directory.path()).unwrap();
    commits(&repository, 2).await;
    let two = fs::read(segment(directory.path())).unwrap();
    commits(&repository, 1).await;
    drop(repository);
    fs::write(segment(directory.path()), two).unwrap();
    directory
}

#[tokio::test]
async fn an_accepted_rollback_starts_an_epoch_in_which_no_version_is_given_twice() {
    let directory = rolled_back().await;
    let error = on_disk(directory.path()).unwrap_err();
    assert!(error.to_string().contains("--accept-rollback"), "{error}");
    let repository = accepting(directory.path());
    let accepted = repository.state();
    assert_eq!((accepted.version.revision, provider_name(&repository).as_str()), (2, "p2"));
    assert!(repository.recent(1).is_none(), "deltas stay within one epoch");
    commits(&repository, 1).await;
    drop(repository);

    let repository = on_disk(directory.path()).unwrap();
    assert_eq!(repository.state().version.epoch, accepted.version.epoch);
    assert_eq!(repository.state().version.revision, 3);
    assert_eq!(repository.health(), StoreHealth::Ok);
    let page = repository.revisions(None, 10).await.unwrap();
    let epochs: Vec<_> = page.items.iter().map(|commit| commit.version.epoch.as_str()).collect();
    assert_eq!(page.items.iter().map(|commit| commit.version.revision).collect::<Vec<_>>(), [3, 2, 1]);
    assert_eq!(epochs[0], accepted.version.epoch);
    assert_ne!(epochs[1], epochs[0]);
    assert_eq!(epochs[1], epochs[2]);
}

#[tokio::test]
async fn an_accepted_rollback_is_in_the_audit_log() {
    let directory = rolled_back().await;
    let repository = accepting(directory.path());
    let page = repository.audit(AuditQuery::default(), None, (1, usize::MAX), |audited| (audited.commit, 1));
    let page = page.await.unwrap();
    assert_eq!((page.items[0].method.as_str(), page.items[0].sequence), ("accept-rollback", 3));
    let next = page.next.unwrap();
    assert_eq!((next.sequence, &next.epoch), (2, &page.items[0].subject));
}
