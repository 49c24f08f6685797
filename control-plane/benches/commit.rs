//! What a commit of an operator costs beside the wait for the disk that it cannot do
//! without: a raw write with fdatasync, one writer, and sixteen at once that share waits.
#![expect(clippy::unwrap_used, reason = "a failure here is a failure of the benchmark")]

use std::{
    fs::File,
    hint::black_box,
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use criterion::{Criterion, criterion_group, criterion_main};
use trunkline_control_plane::repository::{
    CommitError, ConfigState, Edited, Intent, Repository, RepositoryOptions,
};
use trunkline_proto::{
    admin::v1::Config,
    types::v1::{Dialect, Provider},
};

/// About as long as a record of [`commits`].
const RECORD: [u8; 256] = [0xA5; 256];

fn raw(c: &mut Criterion) {
    let directory = tempfile::tempdir().unwrap();
    let mut file = File::create(directory.path().join("raw")).unwrap();
    c.bench_function("raw write and fdatasync", |bench| {
        bench.iter(|| {
            file.write_all(black_box(&RECORD)).unwrap();
            file.sync_data().unwrap();
        });
    });
}

fn commits(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    for writers in [1, 16] {
        let directory = tempfile::tempdir().unwrap();
        let options = RepositoryOptions { data_dir: Some(directory.path().to_owned()), ..Default::default() };
        let repository = Repository::open(options).unwrap();
        c.bench_function(&format!("commit, {writers} at once"), |bench| {
            bench.iter_custom(|count| runtime.block_on(commit_all(&repository, writers, count)));
        });
    }
}

/// The time of `count` commits by so many writers.
async fn commit_all(repository: &Arc<Repository>, writers: u64, count: u64) -> Duration {
    let left = Arc::new(AtomicU64::new(count));
    let start = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..writers {
        let (repository, left) = (Arc::clone(repository), Arc::clone(&left));
        tasks.spawn(async move {
            while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
            {
                commit(&repository).await;
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    start.elapsed()
}

async fn commit(repository: &Repository) {
    let intent = Intent { principal: "bench".into(), method: "ApplyConfig", ..Intent::default() };
    let edited = repository.edit(intent, |state: &ConfigState| {
        let provider = Provider {
            name: "openai".into(),
            dialect: Dialect::Openai.into(),
            base_url: "https://api.example.com/v1".into(),
            region: format!("r{}", state.version.revision),
            ..Provider::default()
        };
        Ok::<_, CommitError>((Config { providers: vec![provider], ..Config::default() }, ()))
    });
    assert!(matches!(edited.await.unwrap(), Edited::Done { .. }));
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3));
    targets = raw, commits
}
criterion_main!(benches);
