//! Drills and drains: bounded, published, ended in time, and there after a restart.

use trunkline_proto::types::v1::{StallFault, fault::Effect};

use super::*;

fn stall(name: &str) -> Fault {
    let effect = Some(Effect::Stall(StallFault {}));
    Fault { name: name.to_owned(), agents: vec!["agent-1".to_owned()], effect, ..Fault::default() }
}

async fn inject(repository: &Repository, name: &str, ttl: Duration) -> Result<Drill, CommitError> {
    repository.inject_fault(stall(name), ttl, "tester".to_owned()).await
}

#[tokio::test]
async fn a_drill_is_published_and_ends_when_its_time_is_over() {
    let repository = in_memory();
    let mut subscriber = repository.subscribe_faults();
    let drill = inject(&repository, "slow", Duration::from_secs(60)).await.unwrap();
    assert_eq!(drill.expires_unix_ms, drill.start_unix_ms + 60_000);
    assert_eq!(subscriber.borrow_and_update().iter().collect::<Vec<_>>(), [&drill]);
    assert_eq!(repository.next_expiry_unix_ms(), Some(drill.expires_unix_ms));
    assert_eq!(repository.expire(drill.expires_unix_ms - 1).await, Some(drill.expires_unix_ms));
    assert!(!subscriber.has_changed().unwrap());
    assert_eq!(repository.expire(drill.expires_unix_ms).await, None);
    assert!(subscriber.borrow_and_update().is_empty());
}

#[tokio::test]
async fn a_drill_is_cleared_once() {
    let repository = in_memory();
    inject(&repository, "slow", Duration::from_secs(60)).await.unwrap();
    let clear = || repository.clear_fault("slow".to_owned(), "tester".to_owned());
    assert!(clear().await.unwrap());
    assert!(!clear().await.unwrap());
    assert!(repository.faults().is_empty());
    assert_eq!(repository.sequence(), 2);
}

#[tokio::test]
async fn more_drills_than_agents_can_bear_are_refused() {
    let repository = in_memory();
    for index in 0..DRILLS_MAX {
        inject(&repository, &format!("drill-{index}"), Duration::from_secs(60)).await.unwrap();
    }
    let refused = inject(&repository, "one-more", Duration::from_secs(60)).await;
    assert!(matches!(refused, Err(CommitError::TooMuch { max: 64, .. })), "{refused:?}");
    inject(&repository, "drill-0", Duration::from_secs(90)).await.unwrap();
    assert_eq!(repository.faults().iter().count(), DRILLS_MAX);
}

#[tokio::test]
async fn a_drain_is_published_and_the_same_one_again_is_no_commit() {
    let repository = in_memory();
    let mut subscriber = repository.subscribe_drains();
    let set = |reason: Option<&str>| {
        repository.set_drain("agent-1".into(), reason.map(Into::into), "tester".into())
    };
    set(Some("new kernel")).await.unwrap();
    assert_eq!(subscriber.borrow_and_update().reason("agent-1"), Some("new kernel"));
    set(Some("new kernel")).await.unwrap();
    assert_eq!((repository.sequence(), subscriber.has_changed().unwrap()), (1, false));
    set(None).await.unwrap();
    assert_eq!(repository.drains().reason("agent-1"), None);
}

#[tokio::test]
async fn drills_and_drains_are_there_after_a_reopening() {
    let directory = tempfile::tempdir().unwrap();
    let repository = on_disk(directory.path()).unwrap();
    let drill = inject(&repository, "slow", Duration::from_secs(3_600)).await.unwrap();
    inject(&repository, "gone", Duration::from_secs(3_600)).await.unwrap();
    repository.clear_fault("gone".to_owned(), "tester".to_owned()).await.unwrap();
    repository.set_drain("agent-1".into(), Some(String::new()), "tester".into()).await.unwrap();
    let sequence = repository.sequence();
    drop(repository);
    let repository = on_disk(directory.path()).unwrap();
    assert_eq!(repository.faults().iter().collect::<Vec<_>>(), [&drill]);
    assert_eq!(repository.drains().iter().collect::<Vec<_>>(), [("agent-1", "")]);
    assert_eq!((repository.sequence(), sequence), (4, 4));
}

#[tokio::test]
async fn who_sees_a_change_has_seen_its_number() {
    let repository = in_memory();
    let mut subscriber = repository.subscribe();
    commits(&repository, 1).await;
    subscriber.changed().await.unwrap();
    assert_eq!(repository.sequence(), 1);
    inject(&repository, "slow", Duration::from_secs(60)).await.unwrap();
    assert_eq!(*repository.subscribe_sequence().borrow(), 2);
}

#[tokio::test]
async fn a_drill_ends_in_a_store_that_takes_no_writes() {
    let directory = tempfile::tempdir().unwrap();
    let repository = on_disk(directory.path()).unwrap();
    let drill = inject(&repository, "slow", Duration::from_secs(60)).await.unwrap();
    repository.ask(Writer::break_journal).await.unwrap();
    let refused = inject(&repository, "other", Duration::from_secs(60)).await;
    assert!(matches!(refused, Err(CommitError::ReadOnly { .. })), "{refused:?}");
    assert_eq!(repository.expire(drill.expires_unix_ms).await, None);
    assert!(repository.faults().is_empty());
}
