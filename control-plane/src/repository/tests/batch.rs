//! Commits that share one wait for the disk: each is as if it were alone.

use std::collections::HashSet;
use std::io;

use futures_util::future::{BoxFuture, join_all};

use super::*;

/// Keeps the writer's thread busy until the answer is dropped, so that what is asked
/// meanwhile is one batch.
async fn pause(repository: &Arc<Repository>) -> std::sync::mpsc::Sender<()> {
    let (release, wait) = std::sync::mpsc::channel();
    let (reached, paused) = oneshot::channel();
    let job = Job::Run(Box::new(move |_| {
        reached.send(()).unwrap();
        wait.recv().unwrap_or_default();
    }));
    repository.send(job).await.unwrap();
    paused.await.unwrap();
    release
}

/// Carries out `jobs` as one batch.
async fn at_once<T>(
    repository: &Arc<Repository>,
    jobs: impl IntoIterator<Item = impl Future<Output = T>>,
) -> Vec<T> {
    let release = pause(repository).await;
    let jobs = join_all(jobs);
    let let_go = async {
        // The jobs were all polled before this and wait in the queue.
        drop(release);
    };
    let (answers, ()) = tokio::join!(biased; jobs, let_go);
    answers
}

fn intent(request_id: Option<&str>) -> Intent {
    Intent {
        principal: "tester".into(),
        method: "UpdateProvider",
        request_id: request_id.map(Into::into),
        ..Intent::default()
    }
}

/// Adds a provider of that name.
fn add(
    repository: &Repository,
    name: String,
    request_id: Option<&str>,
) -> impl Future<Output = Result<Edited<()>, CommitError>> {
    repository.edit(intent(request_id), move |state: &ConfigState| {
        let mut next = state.config.clone();
        next.providers.extend(config(&name).providers);
        Ok::<_, CommitError>((next, ()))
    })
}

fn revision_of(edited: &Result<Edited<()>, CommitError>) -> u64 {
    match edited.as_ref().unwrap() {
        Edited::Done { state, .. } => state.version.revision,
        Edited::Repeated(known) => known.revision,
    }
}

#[tokio::test]
async fn edits_in_one_batch_build_on_each_other_and_each_is_a_revision() {
    let directory = tempfile::tempdir().unwrap();
    let repository = on_disk(directory.path()).unwrap();
    let edits = (0..20).map(|index| add(&repository, format!("p{index}"), None));
    let edited = at_once(&repository, edits).await;
    let revisions: Vec<_> = edited.iter().map(revision_of).collect();
    assert_eq!(revisions, (1..=20).collect::<Vec<_>>());
    assert_eq!(repository.state().config.providers.len(), 20);
    assert_eq!(repository.recent(7).unwrap().config.providers.len(), 7);
    assert_eq!(repository.sequence(), 20);
    drop(repository);
    let repository = on_disk(directory.path()).unwrap();
    assert_eq!(repository.state().config.providers.len(), 20);
    assert_eq!(repository.state().version.revision, 20);
}

#[tokio::test]
async fn of_fifty_that_compare_and_swap_one_resource_one_wins_each_revision() {
    let directory = tempfile::tempdir().unwrap();
    let repository = on_disk(directory.path()).unwrap();
    repository.commit(write("p", 0)).await.unwrap();
    let mut won = HashSet::new();
    for round in 1..=5 {
        let seen = repository.state().version.revision;
        let swaps = (0..50).map(|writer| {
            repository.edit(intent(None), move |state: &ConfigState| {
                let current = state.version.revision;
                if current != seen {
                    return Err(CommitError::Conflict { current });
                }
                let mut next = state.config.clone();
                next.providers[0].region = format!("round-{round}-writer-{writer}");
                Ok((next, ()))
            })
        });
        let swapped = at_once(&repository, swaps).await;
        let winners: Vec<_> = swapped.iter().filter(|swap| swap.is_ok()).map(revision_of).collect();
        assert_eq!(winners, [seen + 1], "round {round}");
        let refused = |swap: &&Result<_, _>| matches!(swap, Err(CommitError::Conflict { .. }));
        assert_eq!(swapped.iter().filter(refused).count(), 49);
        assert!(won.insert(repository.state().config.providers[0].region.clone()));
    }
    assert_eq!(repository.state().version.revision, 6);
}

#[tokio::test]
async fn a_request_that_comes_twice_in_one_batch_is_carried_out_once() {
    let repository = in_memory();
    let id = Some("7b0e5a0e-3f0e-4b8e-9d5c-2f1f3c9f0a11");
    let edits = ["a", "a", "b"].map(|name| add(&repository, name.to_owned(), id));
    let edited = at_once(&repository, edits).await;
    assert!(matches!(edited[0], Ok(Edited::Done { .. })), "{edited:?}");
    assert!(edited[1..].iter().all(|again| matches!(again, Ok(Edited::Repeated(_)))), "{edited:?}");
    assert_eq!(edited.iter().map(revision_of).collect::<Vec<_>>(), [1, 1, 1]);
    assert_eq!(repository.state().config.providers.len(), 1);
}

#[tokio::test]
async fn a_batch_that_does_not_get_to_disk_is_taken_back_whole() {
    for kind in [io::ErrorKind::StorageFull, io::ErrorKind::Other] {
        let directory = tempfile::tempdir().unwrap();
        let repository = on_disk(directory.path()).unwrap();
        commits(&repository, 2).await;
        let before = (repository.state(), repository.sequence());
        let mut subscribed = repository.subscribe();
        subscribed.mark_unchanged();
        let fail = move |writer: &mut Writer| writer.disk.as_mut().unwrap().journal.fail_next(kind);
        repository.ask(fail).await.unwrap();
        let mut edits: Vec<BoxFuture<'_, Result<(), CommitError>>> = Vec::new();
        for index in 0..5 {
            let added = add(&repository, format!("x{index}"), Some("7b0e5a0e-3f0e-4b8e-9d5c-2f1f3c9f0a11"));
            edits.push(Box::pin(async { added.await.map(drop) }));
        }
        let stale = repository.commit(write("late", 2));
        edits.push(Box::pin(async { stale.await.map(drop) }));
        let drained = repository.set_drain("agent-1".into(), Some(String::new()), "tester".into());
        edits.push(Box::pin(drained));
        let answers = at_once(&repository, edits).await;
        let refused = |answer: &Result<_, _>| matches!(answer, Err(CommitError::ReadOnly { .. }));
        assert!(answers.iter().all(refused), "{kind}: {answers:?}");
        assert!(!subscribed.has_changed().unwrap());
        assert_eq!(
            (repository.state().version.clone(), repository.sequence()),
            (before.0.version.clone(), before.1)
        );
        assert!(repository.recent(3).is_none());
        assert!(repository.drains().reason("agent-1").is_none());
        drop(repository);
        let repository = on_disk(directory.path()).unwrap();
        assert_eq!(
            (repository.state().version.clone(), repository.sequence()),
            (before.0.version.clone(), before.1)
        );
        commits(&repository, 1).await;
    }
}

#[tokio::test]
async fn an_edit_that_panics_changes_nothing_and_others_go_on() {
    let repository = in_memory();
    let broken = repository.edit(intent(None), |_: &ConfigState| -> Result<(Config, ()), CommitError> {
        panic!("a mistake in an edit")
    });
    assert!(matches!(broken.await, Err(CommitError::Bug)));
    commits(&repository, 2).await;
    assert_eq!(repository.health(), StoreHealth::Ok);
}

#[tokio::test]
async fn after_a_restart_former_states_are_still_there_for_deltas() {
    let directory = tempfile::tempdir().unwrap();
    let repository = on_disk(directory.path()).unwrap();
    commits(&repository, 5).await;
    let third = repository.recent(3).unwrap();
    drop(repository);
    let repository = on_disk(directory.path()).unwrap();
    for revision in 0..=5 {
        assert_eq!(repository.recent(revision).unwrap().version.revision, revision);
    }
    assert_eq!(repository.recent(3).unwrap().config, third.config);
    assert!(repository.recent(6).is_none());
    commits(&repository, 1).await;
    assert_eq!(repository.recent(6).unwrap().version, repository.state().version);
}

#[tokio::test]
async fn a_store_that_agents_know_to_be_older_takes_no_writes_but_reads_on() {
    let repository = in_memory();
    commits(&repository, 2).await;
    drop(repository.note_ahead("agent-1", 2, 2).await);
    assert_eq!(repository.health(), StoreHealth::Ok);
    let claim = repository.note_ahead("agent-1", 2, 9).await;
    let refused = repository.commit(write("p3", 2)).await;
    let Err(CommitError::RolledBack { reason }) = refused else { panic!("{refused:?}") };
    for part in ["\"agent-1\"", "saw commit 9", "ends at revision 2 and commit 2", "--accept-rollback"] {
        assert!(reason.contains(part), "{part} in {reason}");
    }
    assert_eq!(repository.health(), StoreHealth::ReadOnly { reason });
    assert_eq!(provider_name(&repository), "p2");
    repository.put_blobs(vec![(b"totals/a".to_vec(), b"7".to_vec())]).await.unwrap();
    drop(claim);
    assert!(repository.commit(write("p3", 2)).await.is_err(), "the agent may come back");
}

#[tokio::test]
async fn an_agent_that_is_gone_for_an_hour_keeps_nobody_from_writing() {
    let repository = in_memory();
    let wrong = repository.note_ahead("agent-1", u64::MAX, 0).await;
    repository.shared.claims.age();
    assert!(repository.commit(write("p1", 0)).await.is_err(), "it is connected");
    drop(wrong);
    assert!(repository.commit(write("p1", 0)).await.is_err(), "it may come back");
    repository.shared.claims.age();
    // What agents report shows that it is over, before an operator tries.
    repository.put_blobs(vec![(b"totals/a".to_vec(), b"7".to_vec())]).await.unwrap();
    assert_eq!(repository.health(), StoreHealth::Ok);
    commits(&repository, 1).await;
    let _again = repository.note_ahead("agent-1", u64::MAX, 0).await;
    assert!(matches!(repository.commit(write("p2", 1)).await, Err(CommitError::RolledBack { .. })));
}
