//! A control plane that is away for long, on paused time: no socket, only memory.

use std::{
    future::{Ready, ready},
    io,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    task::{Context, Poll},
    time::UNIX_EPOCH,
};

use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{DuplexStream, duplex},
    time::{Instant, sleep, sleep_until},
};
use tonic::transport::Endpoint;
use trunkline_proto::{
    admin::v1::Config,
    agent::v1::{BreakerVerdict, Publication, Welcome, sync_response},
    convert::sync::State,
    types::v1::BreakerState,
};

use super::*;

const HOUR: Duration = Duration::from_secs(3_600);
const MINUTE: Duration = Duration::from_secs(60);

/// The way to the control plane: counts who tries it, lets nobody through while it is shut.
#[derive(Clone)]
struct Way {
    open: Arc<AtomicBool>,
    tries: Arc<AtomicUsize>,
    far_ends: mpsc::Sender<io::Result<DuplexStream>>,
}

impl tower_service::Service<Uri> for Way {
    type Response = TokioIo<DuplexStream>;
    type Error = io::Error;
    type Future = Ready<io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        self.tries.fetch_add(1, Ordering::Relaxed);
        if !self.open.load(Ordering::Relaxed) {
            return ready(Err(io::ErrorKind::ConnectionRefused.into()));
        }
        let (near, far) = duplex(1 << 16);
        self.far_ends.try_send(Ok(far)).unwrap();
        ready(Ok(TokioIo::new(near)))
    }
}

/// Follows the paused clock.
fn wall_clock() -> SystemTime {
    thread_local!(static BEGIN: Instant = Instant::now());
    UNIX_EPOCH + 1_000_000 * HOUR + BEGIN.with(Instant::elapsed)
}

#[tokio::test(start_paused = true)]
async fn a_day_without_a_control_plane_changes_nothing_and_loses_nothing() {
    let (far_ends, incoming) = mpsc::channel(16);
    let way = Way { open: Arc::default(), tries: Arc::default(), far_ends };
    let channel = Endpoint::from_static("http://control-plane").connect_with_connector_lazy(way.clone());
    let mut world = World::over(ReceiverStream::new(incoming), channel);
    world.wall_clock = wall_clock;
    world.report_interval.send_replace(MINUTE);
    // What an earlier start left.
    let cache = Cache::new(world.directory.path().join("cache"));
    let version = Version { epoch: "e".to_owned(), revision: 7 };
    cache.store(&version, &State::of(&Config::default())).unwrap();
    world.tables.load_cache();
    assert_eq!(world.tables.applied(), Some(version.clone()), "it serves before it connects");
    let verdict = BreakerVerdict {
        deployment: "a/d".to_owned(),
        state: BreakerState::ForcedOpen as i32,
        remaining: Some(duration_to_wire(HOUR)),
        ..BreakerVerdict::default()
    };
    let publication = Publication { verdicts: vec![verdict], ..Publication::default() };
    let begin = Instant::now();
    world.verdicts.send_replace(Arc::new(Verdicts::from_wire(publication, "e", begin)));
    let shutdown = CancellationToken::new();
    let _sync = world.start_sync();
    let telemetry = world.start_telemetry(&shutdown);

    let verdict_holds = |world: &World| world.verdicts.borrow().get("a/d", Instant::now()).is_some();
    for minute in 0..24 * 60 {
        super::telemetry::record(&world.recorder, 1);
        sleep_until(begin + MINUTE * (minute + 1)).await;
        assert_eq!(verdict_holds(&world), minute + 1 < 60, "minute {minute}");
    }
    assert_eq!(world.tables.applied(), Some(version.clone()));
    let spool = world.directory.path().join(SPOOL_FILE);
    let bytes = std::fs::metadata(&spool).unwrap().len();
    assert!((1..32_768).contains(&bytes), "{bytes} bytes for a day of one target");
    // Two streams, 15 s apart on average.
    let tries = way.tries.load(Ordering::Relaxed);
    assert!((2_000..20_000).contains(&tries), "{tries} tries in a day");

    way.open.store(true, Ordering::Relaxed);
    let back = Instant::now();
    let mut stream = timeout(MINUTE, world.syncs.recv()).await.expect("comes back").unwrap();
    match stream.next().await.message {
        Some(sync_request::Message::Hello(hello)) => assert_eq!(hello.applied.unwrap().revision, 7),
        other => panic!("no Hello but {other:?}"),
    }
    let welcome = sync_response::Message::Welcome(Welcome::default());
    stream.answer(SyncResponse { message: Some(welcome) }).await;
    let mut reports = timeout(MINUTE, world.reports.recv()).await.expect("comes back").unwrap();
    assert!(back.elapsed() <= MINUTE, "{:?}", back.elapsed());
    let (mut counted, mut end, mut all) = (0, UNIX_EPOCH, Vec::new());
    while counted < 24 * 60 {
        let report = reports.next().await;
        let ended = SystemTime::try_from(report.end_time.unwrap()).unwrap();
        let covered = duration_from_wire(report.covered.unwrap()).unwrap();
        assert!(covered <= HOUR && ended >= end, "{covered:?}");
        end = ended;
        counted += report.targets.iter().flat_map(|one| &one.outcomes).map(|one| one.count).sum::<u64>();
        all.push(report.seq);
        reports.answer(StreamReportsResponse { acked_seq: report.seq, ..Default::default() }).await;
    }
    assert_eq!(counted, 24 * 60, "each attempt once");
    assert_eq!(all, (1..=all.len() as u64).collect::<Vec<_>>());
    assert!(all.len() <= 128);
    // Nothing is left to say but for empty time.
    sleep(2 * MINUTE).await;
    shutdown.cancel();
    telemetry.await.unwrap();
    let left = super::super::spool::Spool::new(spool).load(wall_clock());
    assert!(left.backlog.is_empty() && left.lost.is_none());
}
