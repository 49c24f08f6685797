//! All state out of one store and into another.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

async fn exported(repository: &Repository) -> Vec<u8> {
    let mut pieces = repository.export_state().await.unwrap();
    let mut file = Vec::new();
    while let Some(piece) = pieces.next().await {
        file.extend_from_slice(&piece.unwrap());
    }
    file
}

fn import(file: &[u8], directory: &Path) -> Result<Arc<Repository>, OpenError> {
    let path = directory.join("export");
    fs::write(&path, file).unwrap();
    let data_dir = Some(directory.join("data"));
    Repository::open(RepositoryOptions { data_dir, import: Some(path), ..RepositoryOptions::default() })
}

#[tokio::test]
async fn all_state_arrives_under_a_new_epoch() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let repository = on_disk(from.path()).unwrap();
    commits(&repository, 3).await;
    let mut named = write("named", 3);
    named.request_id = Some("request-1".to_owned());
    repository.commit(named).await.unwrap();
    let forced = Some((VerdictState::ForcedOpen, None));
    repository.set_verdict("named/m".into(), forced, "test".into(), "tester".into()).await.unwrap();
    let fault = Fault { name: "slow".into(), ..Fault::default() };
    repository.inject_fault(fault, Duration::from_secs(3_600), "tester".into()).await.unwrap();
    repository.set_drain("agent-1".into(), Some("kernel".into()), "tester".into()).await.unwrap();
    repository.put_blobs(vec![(b"totals/a".to_vec(), vec![7; 60_000])]).await.unwrap();
    let file = exported(&repository).await;

    let imported = import(&file, to.path()).unwrap();
    let (then, now) = (repository.state(), imported.state());
    assert_ne!(now.version.epoch, then.version.epoch);
    assert_eq!((now.version.revision, &now.config), (then.version.revision, &then.config));
    assert_eq!(imported.sequence(), repository.sequence());
    assert_eq!(imported.verdicts(), repository.verdicts());
    assert_eq!(imported.faults(), repository.faults());
    assert_eq!(imported.drains(), repository.drains());
    assert_eq!(remembered(&imported, "request-1").await, remembered(&repository, "request-1").await);
    assert_eq!(imported.scan_blobs(b"").await.unwrap(), repository.scan_blobs(b"").await.unwrap());
    assert_eq!(imported.health(), StoreHealth::Ok);
    commits(&imported, 1).await;
    drop(imported);
    let again = import(&file, to.path()).unwrap_err();
    assert!(matches!(again, OpenError::NotEmpty { .. }), "{again}");
    let reopened = on_disk(&to.path().join("data")).unwrap();
    assert_eq!(reopened.state().version.revision, 5);
}

#[tokio::test]
async fn an_export_under_writes_is_a_state_that_the_store_had() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let repository = on_disk(from.path()).unwrap();
    commits(&repository, 1).await;
    let done = Arc::new(AtomicBool::new(false));
    let writing = async {
        while !done.load(Ordering::Relaxed) {
            commits(&repository, 1).await;
        }
    };
    let exporting = async {
        let mut files = Vec::new();
        for _ in 0..5 {
            files.push(exported(&repository).await);
        }
        done.store(true, Ordering::Relaxed);
        files
    };
    let ((), files) = tokio::join!(writing, exporting);
    for (index, file) in files.iter().enumerate() {
        let directory = to.path().join(index.to_string());
        fs::create_dir(&directory).unwrap();
        let imported = import(file, &directory).unwrap();
        let revision = imported.state().version.revision;
        assert_eq!(imported.sequence(), revision);
        assert_eq!(provider_name(&imported), format!("p{revision}"));
        assert_eq!(imported.state().config, repository.config_at(revision).await.unwrap().unwrap());
    }
}

/// More telemetry than waits for a reader.
async fn much_telemetry(repository: &Repository) -> Vec<Blob> {
    let blob = |number: u8| (vec![b'r', number], vec![number; 60_000]);
    let blobs: Vec<_> = (0..40).map(blob).collect();
    repository.put_blobs(blobs.clone()).await.unwrap();
    blobs
}

#[tokio::test]
async fn telemetry_is_of_the_moment_of_the_export() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let repository = on_disk(from.path()).unwrap();
    let then = much_telemetry(&repository).await;
    let view = repository.subscribe_view().borrow().unwrap();
    let mut pieces = repository.export_state().await.unwrap();
    let mut file = Vec::new();
    let mut number = 0;
    while let Some(piece) = pieces.next().await {
        file.extend_from_slice(&piece.unwrap());
        let puts = vec![(vec![b'r', 39 - number], b"new".to_vec()), (vec![b's', number], b"new".to_vec())];
        repository.write_blobs(view, puts, vec![vec![b'r', (number + 20) % 39]]).await.unwrap();
        number = (number + 1) % 19;
    }
    let imported = import(&file, to.path()).unwrap();
    assert_eq!(imported.scan_blobs(b"").await.unwrap(), then);
    assert_ne!(repository.scan_blobs(b"").await.unwrap(), then);
}

#[tokio::test(start_paused = true)]
async fn an_export_that_nobody_reads_gives_its_place_up() {
    let repository = in_memory();
    much_telemetry(&repository).await;
    let mut stalled = repository.export_state().await.unwrap();
    let refused = repository.export_state().await.unwrap_err();
    assert!(matches!(refused, ExportError::Busy { .. }), "{refused}");
    // Writes go on all the while.
    commits(&repository, 1).await;
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    loop {
        match repository.export_state().await {
            Ok(_) => break,
            // In paused time; only the writer's thread takes real time.
            Err(ExportError::Busy { .. }) if std::time::Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
    let mut last = None;
    while let Some(piece) = stalled.next().await {
        last = Some(piece.map(drop));
    }
    assert!(matches!(last, Some(Err(ExportError::Stalled))), "{last:?}");
}

#[tokio::test]
async fn a_repository_closes_though_an_export_is_not_read() {
    let repository = in_memory();
    much_telemetry(&repository).await;
    let mut exported = repository.export_state().await.unwrap();
    drop(repository);
    let mut last = None;
    while let Some(piece) = exported.next().await {
        last = Some(piece.map(drop));
    }
    let closed = matches!(last, Some(Err(ExportError::Store(CommitError::Unavailable))));
    assert!(closed, "{last:?}");
}

#[tokio::test]
async fn a_damaged_file_is_refused_and_makes_no_store() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let repository = on_disk(from.path()).unwrap();
    commits(&repository, 2).await;
    let file = exported(&repository).await;
    let mut flipped = file.clone();
    flipped[file.len() / 2] ^= 1;
    for wrong in [&file[..file.len() - 1], &flipped, b"something else"] {
        let error = import(wrong, to.path()).unwrap_err();
        assert!(matches!(error, OpenError::Import { .. }), "{error}");
        assert!(error.to_string().contains("export"), "{error}");
        let journal = fs::read_dir(to.path().join("data/journal"));
        assert!(journal.is_err(), "a journal was made");
    }
    assert_eq!(provider_name(&import(&file, to.path()).unwrap()), "p2");
}
