//! Calls that nobody asked for, against a provider on loopback that does what the test
//! wants. Intervals are shorter than a configuration may say, so that nobody waits long.

use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_util::task::AbortOnDropHandle;
use trunkline_proto::{
    agent::v1::{ProbeOutcome, ProbeResult},
    convert::routing_table,
    document,
    types::v1::OutcomeClass as WireClass,
};
use trunkline_routing::{
    breaker::State,
    money::NanoUsd,
    registry::{FleetState, FleetVerdict, ProbeLease},
    table::{RoutingTable, Version},
};

use super::*;
use crate::{
    control::{LoadedTable, Recorder},
    shared::Shared,
    upstream::{self, Upstream},
};

const LIMIT: Duration = Duration::from_secs(20);
const OFTEN: Duration = Duration::from_millis(40);
const ANSWER: &str = r#"{"id":"1","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"p"},"finish_reason":"length"}],"usage":{"prompt_tokens":9,"completion_tokens":1}}"#;
const M: DeploymentIndex = DeploymentIndex(0);

/// A provider that answers with one status. 0: never.
struct Provider {
    url: String,
    status: Arc<AtomicU16>,
    requests: Arc<AtomicUsize>,
    /// Requests that are not of one token.
    others: Arc<AtomicUsize>,
    _serving: AbortOnDropHandle<()>,
}

impl Provider {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let (status, requests, others) = (Arc::new(AtomicU16::new(200)), Arc::default(), Arc::default());
        let seen = (Arc::clone(&status), Arc::clone(&requests), Arc::clone(&others));
        let serving = AbortOnDropHandle::new(tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, seen.clone()));
            }
        }));
        Self { url, status, requests, others, _serving: serving }
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    fn answer(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }
}

type Seen = (Arc<AtomicU16>, Arc<AtomicUsize>, Arc<AtomicUsize>);

async fn serve(mut stream: TcpStream, (status, requests, others): Seen) {
    let mut read = Vec::new();
    loop {
        let Ok(byte) = stream.read_u8().await else { return };
        read.push(byte);
        let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8(read[..end].to_vec()).unwrap().to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        let mut body = vec![0; length.parse().unwrap()];
        stream.read_exact(&mut body).await.unwrap();
        let body = String::from_utf8(body).unwrap();
        if !(body.contains(r#""model":"m""#) && body.contains(r#""max_tokens":1"#)) {
            others.fetch_add(1, Ordering::SeqCst);
        }
        requests.fetch_add(1, Ordering::SeqCst);
        let status = status.load(Ordering::SeqCst);
        if status == 0 {
            std::future::pending::<()>().await;
        }
        let text = if status == 200 { ANSWER } else { r#"{"error":{"message":"it is so"}}"# };
        let head = format!("HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: ");
        stream.write_all(format!("{head}{}\r\n\r\n{text}", text.len()).as_bytes()).await.unwrap();
        read.clear();
    }
}

struct World {
    shared: Arc<Shared>,
    results: ProbeResults,
    shutdown: CancellationToken,
    running: AbortOnDropHandle<()>,
}

fn table(provider: &Provider, health: &str) -> RoutingTable {
    let text = format!(
        "providers:\n  - name: p\n    dialect: DIALECT_OPENAI\n    base_url: {}\n    \
         allow_private_network: true\n    breaker: {{open_base: 100ms, open_max: 200ms}}\n    \
         health_check: {{{health}}}\n    \
         deployments: [{{name: m, price: {{input_usd_per_mtok: \"1\", output_usd_per_mtok: \"1\"}}}}]\n",
        provider.url
    );
    let config = document::load_and_check(&text).unwrap();
    routing_table(Version::default(), &config).unwrap()
}

impl World {
    fn start(table: RoutingTable, lead: Lead) -> Self {
        let shutdown = CancellationToken::new();
        let shared = Arc::new(Shared::new(Arc::new(Recorder::new()), shutdown.clone()));
        shared.load(Arc::new(LoadedTable { table, ..LoadedTable::default() }));
        let upstream = Upstream::new(upstream::client_config().unwrap());
        let worker = Arc::new(Worker { shared: Arc::clone(&shared), upstream });
        let results = ProbeResults::default();
        let running = tokio::spawn(run(worker, results.clone(), lead, shutdown.clone()));
        Self { shared, results, shutdown, running: AbortOnDropHandle::new(running) }
    }

    fn alone(provider: &Provider, health: &str) -> Self {
        let mut table = table(provider, health);
        table.providers[0].health_check.interval = OFTEN;
        Self::start(table, Lead::Own)
    }

    fn led(provider: &Provider, health: &str) -> Self {
        Self::start(table(provider, health), Lead::ControlPlane)
    }

    fn state(&self) -> State {
        let snapshot = self.shared.snapshot().unwrap();
        let now = self.shared.clock.now();
        self.shared.registry.lock().breaker(&snapshot.binding, M, now).state
    }

    fn in_flight(&self) -> u32 {
        let snapshot = self.shared.snapshot().unwrap();
        self.shared.registry.lock().in_flight(&snapshot.binding, M)
    }

    /// The fleet's verdict is half-open, and this agent may probe for so long.
    fn lease(&self, lasts: Duration) {
        let now = self.shared.clock.now();
        let verdict = FleetVerdict {
            subject: "p/m",
            state: FleetState::HalfOpen,
            generation: 5,
            until: None,
            openings: 1,
            admit_percent: 0,
        };
        let lease = ProbeLease {
            deployment: "p/m",
            lease_id: 77,
            generation: 5,
            expires: now + lasts,
            is_check: false,
        };
        let mut registry = self.shared.registry.lock();
        registry.heard_from_fleet(now + LIMIT, now);
        registry.set_fleet("e", &[verdict], now);
        registry.set_leases(&[lease], now);
        drop(registry);
        self.shared.leases_changed.notify_one();
    }

    async fn result(&self) -> ProbeResult {
        timeout(LIMIT, self.results.next()).await.expect("a result")
    }
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let seen = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LIMIT, seen).await.unwrap_or_else(|_| panic!("never: {what}"));
}

#[tokio::test]
async fn an_idle_deployment_is_checked_with_one_token_and_counted_under_its_own_name() {
    let provider = Provider::start().await;
    let world = World::alone(&provider, "mode: ACTIVE");
    until("three checks", || provider.requests() >= 3).await;
    assert_eq!(provider.others.load(Ordering::SeqCst), 0);
    assert_eq!(world.state(), State::Closed);
    world.shutdown.cancel();
    timeout(LIMIT, world.running).await.unwrap().unwrap();
    let metrics = world.shared.metrics.encode(&[]).unwrap();
    assert!(metrics.contains(r#"trunkline_agent_probes_total{deployment="p/m",outcome="ok"}"#), "{metrics}");
    assert!(!metrics.contains("trunkline_agent_attempts_total{"), "{metrics}");
    assert!(world.shared.recorder.has_traffic(PROBE_MODEL));
    assert!(!world.shared.recorder.has_traffic("p/m"));
}

#[tokio::test]
async fn a_passive_provider_is_never_called() {
    let (passive, active) = (Provider::start().await, Provider::start().await);
    let _world = World::alone(&passive, "mode: PASSIVE");
    let _other = World::alone(&active, "mode: ACTIVE");
    until("checks of the other", || active.requests() >= 3).await;
    assert_eq!(passive.requests(), 0);
}

#[tokio::test]
async fn checks_that_fail_in_a_row_open_the_breaker_and_good_ones_bring_it_back() {
    let provider = Provider::start().await;
    provider.answer(503);
    let world = World::alone(&provider, "mode: ACTIVE, unhealthy_threshold: 2, healthy_threshold: 3");
    until("it to open", || matches!(world.state(), State::Open { .. })).await;
    assert_eq!(provider.requests(), 2, "as the threshold says");
    provider.answer(200);
    let before = provider.requests();
    until("it to come back", || matches!(world.state(), State::Ramping { .. })).await;
    assert!(provider.requests() >= before + 3, "as the threshold says");
}

#[tokio::test]
async fn a_lease_that_no_request_used_is_used_by_a_call() {
    let provider = Provider::start().await;
    let world = World::led(&provider, "mode: ACTIVE");
    let begin = Instant::now();
    world.lease(Duration::from_millis(600));
    let result = world.result().await;
    assert!(begin.elapsed() >= Duration::from_millis(300), "a request may come first");
    assert_eq!((result.lease_id, result.generation, &*result.deployment), (77, 5, "p/m"));
    assert_eq!(result.outcome(), ProbeOutcome::Succeeded);
    // Nine tokens in and one out, at a dollar per million.
    assert_eq!((result.outcome_class(), result.cost_nano_usd), (WireClass::Ok, 10_000));
    assert_eq!(provider.requests(), 1);
}

#[tokio::test]
async fn a_failed_call_says_how_it_failed() {
    let provider = Provider::start().await;
    provider.answer(429);
    let world = World::led(&provider, "mode: ACTIVE");
    world.lease(Duration::from_millis(200));
    let result = world.result().await;
    assert_eq!(result.outcome(), ProbeOutcome::Failed);
    assert_eq!(result.outcome_class(), WireClass::RateLimited);
}

#[tokio::test]
async fn without_active_checks_a_lease_waits_for_a_request() {
    let (passive, active) = (Provider::start().await, Provider::start().await);
    let (world, other) = (World::led(&passive, "mode: PASSIVE"), World::led(&active, "mode: ACTIVE"));
    world.lease(Duration::from_secs(10));
    other.lease(Duration::from_millis(200));
    assert_eq!(other.result().await.outcome(), ProbeOutcome::Succeeded);
    assert_eq!(passive.requests(), 0);
    world.shutdown.cancel();
    assert_eq!(world.result().await.outcome(), ProbeOutcome::Unused, "others may, when it stops");
}

#[tokio::test]
async fn a_lease_that_cannot_be_used_is_given_back_at_once() {
    let provider = Provider::start().await;
    let world = World::led(&provider, "mode: ACTIVE");
    world.shared.registry.lock().set_missing_credentials(&["p"], world.shared.clock.now());
    world.lease(LIMIT);
    let begin = Instant::now();
    assert_eq!(world.result().await.outcome(), ProbeOutcome::Unused);
    assert!(begin.elapsed() < LIMIT / 4);
    assert_eq!(provider.requests(), 0);
}

#[tokio::test]
async fn a_stop_cancels_the_call_and_its_place_is_free() {
    let provider = Provider::start().await;
    provider.answer(0);
    let world = World::alone(&provider, "mode: ACTIVE");
    until("the call to hang", || provider.requests() == 1).await;
    assert_eq!(world.in_flight(), 1);
    world.shutdown.cancel();
    let shared = Arc::clone(&world.shared);
    timeout(LIMIT, world.running).await.expect("at once").unwrap();
    let snapshot = shared.snapshot().unwrap();
    assert_eq!(shared.registry.lock().in_flight(&snapshot.binding, M), 0);
    let state = shared.registry.lock().breaker(&snapshot.binding, M, shared.clock.now()).state;
    assert_eq!(state, State::Closed);
}

#[tokio::test]
async fn checks_stop_when_the_day_has_cost_enough() {
    let (limited, free) = (Provider::start().await, Provider::start().await);
    // Two calls cost 10,000 nano-dollars each; a third is expected to cost 9,000.
    let world = World::alone(&limited, "mode: ACTIVE, max_daily_cost_usd: \"0.000028\"");
    let snapshot = world.shared.snapshot().unwrap();
    let limit = snapshot.table().providers[0].health_check.max_daily_cost;
    assert_eq!(limit, Some(NanoUsd(28_000)));
    let _other = World::alone(&free, "mode: ACTIVE");
    until("many checks of the other", || free.requests() >= 6).await;
    assert_eq!(limited.requests(), 2);
}
