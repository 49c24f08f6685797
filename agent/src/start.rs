//! Puts an agent together and takes it down again: listeners, workers, control-plane
//! streams; then drain, flush, stop.

use std::{fs::File, io, net::SocketAddr, path::PathBuf, sync::Arc, thread, time::Duration};

use thiserror::Error;
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot, watch},
    task::{JoinError, JoinHandle},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic_health::server::{HealthReporter, HealthService};
use trunkline_proto::document;
use trunkline_routing::table::Version;
use trunkline_transport::{
    bearer::TokenFileError,
    client::{AddressError, TrustError},
    exposure::Exposed,
    tls::{Acceptor, Protocols, TlsError},
};

use crate::{
    brain::Brain,
    budgets::{self, Budgets},
    checks::Lead,
    config::Options,
    control::{Cache, Identity, Orders, ProbeResults, Recorder, TableStore, VerdictCache, Verdicts},
    data_dir::{self, DirectoryLock},
    drills,
    engine::Worker,
    grpc,
    ingress::{self, Limits},
    ops, protections,
    shared::{Shared, watch_credentials},
    tape::{self, Tape},
    upstream::{self, Upstream},
};

mod connect;

use connect::Kept;

/// Requests under way may take this long after a stop was asked for.
const DRAIN_WITHIN: Duration = Duration::from_secs(600);
/// Kept connections that are too old are closed this often.
const EVICT_EVERY: Duration = Duration::from_secs(10);

/// Why an agent did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// Anybody could use it.
    #[error(transparent)]
    Exposed(#[from] Exposed),
    /// The certificate or its key can't be used.
    #[error(transparent)]
    Certificate(#[from] TlsError),
    /// A token file can't be used.
    #[error(transparent)]
    Tokens(#[from] TokenFileError),
    /// The authorities for the control plane can't be used.
    #[error("--control-plane-ca: {0}")]
    Trust(#[from] TrustError),
    /// Everybody on the way could read the token.
    #[error(
        "--control-plane {0}: the token of --control-plane-token-file would be sent in the clear; write https://, or say --insecure where the network is trusted"
    )]
    TokenInTheClear(String),
    /// The address can't be used.
    #[error("listen on {0}: {1}")]
    Listen(SocketAddr, #[source] io::Error),
    /// The data directory can't be used.
    #[error("use data directory {path}: {error}", path = .0.display(), error = .1)]
    DataDirectory(PathBuf, #[source] io::Error),
    /// Two agents would overwrite each other's state.
    #[error(
        "data directory {path} is in use by another agent; give each agent one of its own with --data-dir",
        path = .0.display()
    )]
    DirectoryInUse(PathBuf),
    /// The trace can't be written.
    #[error("--record {path}: {error}", path = .0.display(), error = .1)]
    Record(PathBuf, #[source] io::Error),
    /// The static configuration can't be read.
    #[error("read {path}: {error}", path = .0.display(), error = .1)]
    ReadStatic(PathBuf, #[source] io::Error),
    /// The static configuration is wrong.
    #[error("{path}:\n{problems}", path = .0.display(), problems = .1)]
    Static(PathBuf, String),
    /// The control plane's URL is none.
    #[error("--control-plane: {0}")]
    ControlPlane(#[source] AddressError),
    /// TLS can't be set up.
    #[error("set up TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// Reflection can't be set up.
    #[error("set up reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// A worker thread can't be started.
    #[error("start a worker: {0}")]
    Worker(#[source] io::Error),
    /// A thread ended in a way that it should not.
    #[error("start: {0}")]
    Join(#[from] JoinError),
}

impl StartError {
    /// Whether the operator's input is wrong, and not the machine.
    pub const fn is_input(&self) -> bool {
        match self {
            Self::Exposed(_)
            | Self::Certificate(_)
            | Self::Tokens(_)
            | Self::Trust(_)
            | Self::TokenInTheClear(_)
            | Self::Static(..)
            | Self::ReadStatic(..)
            | Self::DataDirectory(..)
            | Self::DirectoryInUse(_)
            | Self::Record(..)
            | Self::ControlPlane(_) => true,
            Self::Listen(..) | Self::Tls(_) | Self::Reflection(_) | Self::Worker(_) | Self::Join(_) => false,
        }
    }
}

/// An agent that serves. Stop it by the token it was started with.
#[derive(Debug)]
pub struct Running {
    /// What both listeners speak: `https`, or `http` without TLS.
    pub scheme: &'static str,
    /// Where apps reach it.
    pub listen: SocketAddr,
    /// Where operators reach it.
    pub ops_listen: SocketAddr,
    /// Its stable name.
    pub agent_id: String,
    stopped: oneshot::Receiver<()>,
    /// What the control plane would order.
    #[cfg(test)]
    pub(crate) orders: watch::Sender<Arc<Orders>>,
}

impl Running {
    /// Returns when the agent was stopped: requests finished, telemetry flushed.
    pub async fn wait(self) {
        // The sender is dropped at the end, also of a panic.
        self.stopped.await.ok();
    }
}

/// Starts an agent. It serves when this returns; `shutdown` drains it.
///
/// # Errors
/// Why it can't serve; nothing is left running then.
pub async fn start(options: Options, shutdown: CancellationToken) -> Result<Running, StartError> {
    start_limited(options, Limits::default(), shutdown).await
}

pub(crate) async fn start_limited(
    options: Options,
    limits: Limits,
    shutdown: CancellationToken,
) -> Result<Running, StartError> {
    let security = options.security.clone();
    let security = tokio::task::spawn_blocking(move || security.load()).await??;
    security.check_apps(options.listen)?;
    security.check_ops(options.ops_listen)?;
    let (tls, ops_tls) = (security.acceptor(Protocols::H2AndHttp1)?, security.acceptor(Protocols::Http1)?);
    let channel = options.control_plane.as_deref().map(|url| security.channel(url)).transpose()?;
    // Before anything in it is read, and before the ports: of two agents with the same
    // settings the second one is told of the directory.
    let directory = directory(&options).await?;
    let listeners = ingress::Listeners::bind(options.listen, options.workers.max(1))
        .map_err(|error| StartError::Listen(options.listen, error))?;
    let ops = TcpListener::bind(options.ops_listen)
        .await
        .map_err(|error| StartError::Listen(options.ops_listen, error))?;
    let ops_listen = ops.local_addr().map_err(|error| StartError::Listen(options.ops_listen, error))?;
    let listen = listeners.address;
    let scheme = security.scheme();
    let identity = identity(&options, format!("{scheme}://{listen}"))?;
    let tables = tables(&options)?;
    let draining = CancellationToken::new();
    let recorder = Arc::new(Recorder::new());
    let mut shared = Shared::new(Arc::clone(&recorder), draining.clone());
    shared.apps_need_keys = security.apps_need_keys(listen);
    let account = identity.incarnation.clone();
    shared.budgets = Arc::new(Budgets::new(shared.clock, account, Some(options.data_dir.clone())));
    let recording = tape(&options).await?;
    shared.registry = Brain::new(recording.as_ref().map(|(tape, _)| Arc::clone(tape)));
    let shared = Arc::new(shared);
    if let Some(loaded) = tables.newest() {
        shared.load(loaded);
    }
    // Before the first request comes.
    let verdicts = verdicts(&options).await?;
    protections::take(&shared, &verdicts);
    let reporter = HealthReporter::new();
    grpc::health::tell(&reporter, tables.newest().is_some()).await;
    // Threads that were started before another could not be end at once.
    let workers =
        workers(&shared, listeners, tls.as_ref(), limits, &reporter).inspect_err(|_| draining.cancel())?;

    let (background, stop_budgets) = (TaskTracker::new(), CancellationToken::new());
    let alone = options.static_config.is_some();
    let keep = budgets::run(Arc::clone(&shared.budgets), alone, stop_budgets.clone());
    let agent = Agent {
        budgets: background.spawn(keep),
        stop_budgets,
        background,
        stop: CancellationToken::new(),
        stop_telemetry: CancellationToken::new(),
        directory,
        shared,
        workers,
    };
    if let Some((tape, file)) = recording {
        agent.background.spawn(tape::run(tape, file, agent.stop.clone()));
    }
    let health = grpc::health::follow(Arc::clone(&agent.shared), reporter, shutdown.clone());
    let health = agent.background.spawn(health);
    let pages = ops::Pages { shared: Arc::clone(&agent.shared), tokens: security.ops_tokens.clone() };
    agent.background.spawn(ops::serve(pages, ops, ops_tls, agent.stop.clone()));
    agent.background.spawn(security.follow(agent.stop.clone()));
    agent.follow_tables(&tables);
    agent.background.spawn(watch_credentials(Arc::clone(&agent.shared), agent.stop.clone()));
    let probe_results = ProbeResults::default();
    let lead = if channel.is_some() { Lead::ControlPlane } else { Lead::Own };
    agent.check(lead, probe_results.clone())?;
    let (orders, obeyed) = watch::channel(Arc::new(Orders::default()));
    agent.background.spawn(drills::obey(Arc::clone(&agent.shared), obeyed, agent.stop.clone()));
    if let Some(channel) = channel {
        let kept = Kept { tables, verdicts, data_dir: options.data_dir };
        agent.connect(channel, &identity, kept, recorder, &orders, probe_results);
    }
    let (done, stopped) = oneshot::channel();
    tokio::spawn(agent.run(health, done));
    Ok(Running {
        scheme,
        listen,
        ops_listen,
        agent_id: identity.agent_id.clone(),
        stopped,
        #[cfg(test)]
        orders,
    })
}

/// The recording that was asked for, if one was.
async fn tape(options: &Options) -> Result<Option<(Arc<Tape>, File)>, StartError> {
    let Some(path) = options.record.clone() else { return Ok(None) };
    let asked = path.clone();
    let opened = tokio::task::spawn_blocking(move || Tape::open(&path, tape::Limits::default())).await?;
    opened.map(Some).map_err(|error| StartError::Record(asked, error))
}

/// The data directory, for this agent alone.
async fn directory(options: &Options) -> Result<DirectoryLock, StartError> {
    let path = options.data_dir.clone();
    let locked = tokio::task::spawn_blocking(move || data_dir::lock(&path)).await?;
    let locked = locked.map_err(|error| StartError::DataDirectory(options.data_dir.clone(), error))?;
    locked.ok_or_else(|| StartError::DirectoryInUse(options.data_dir.clone()))
}

fn identity(options: &Options, bound: String) -> Result<Arc<Identity>, StartError> {
    let advertise = options.advertise.clone().unwrap_or(bound);
    let mut identity = Identity::load(&options.data_dir, advertise)
        .map_err(|error| StartError::DataDirectory(options.data_dir.clone(), error))?;
    if let Some(agent_id) = &options.agent_id {
        identity.agent_id.clone_from(agent_id);
    }
    Ok(Arc::new(identity))
}

/// The table from the static file, or else from disk.
fn tables(options: &Options) -> Result<Arc<TableStore>, StartError> {
    let Some(path) = &options.static_config else {
        let tables = TableStore::new(Some(Cache::new(options.data_dir.clone())));
        tables.load_cache();
        return Ok(Arc::new(tables));
    };
    let text = std::fs::read_to_string(path).map_err(|error| StartError::ReadStatic(path.clone(), error))?;
    let wrong = |problems: String| StartError::Static(path.clone(), problems);
    let config = document::load_and_check(&text).map_err(|error| wrong(error.to_string()))?;
    let tables = TableStore::new(None);
    let version = Version { epoch: "static".to_owned(), revision: 1 };
    tables.install(version, &config).map_err(|problems| wrong(problems.to_string()))?;
    Ok(Arc::new(tables))
}

/// What the control plane said of breakers before the last stop. Without one nobody said
/// anything.
async fn verdicts(options: &Options) -> Result<Verdicts, StartError> {
    if options.control_plane.is_none() {
        return Ok(Verdicts::default());
    }
    let cache = VerdictCache::new(options.data_dir.clone());
    Ok(tokio::task::spawn_blocking(move || cache.load()).await?)
}

/// One thread with its own runtime, socket and upstream connections per worker: a
/// request never leaves the thread that accepted it.
fn workers(
    shared: &Arc<Shared>,
    listeners: ingress::Listeners,
    acceptor: Option<&Acceptor>,
    limits: Limits,
    reporter: &HealthReporter,
) -> Result<Workers, StartError> {
    let tls = upstream::client_config()?;
    let mut threads = Vec::new();
    let (alive, ended) = mpsc::channel(1);
    for (number, socket) in listeners.sockets.into_iter().enumerate() {
        let worker =
            Arc::new(Worker { shared: Arc::clone(shared), upstream: Upstream::new(Arc::clone(&tls)) });
        let grpc = grpc::routes(&worker, HealthService::from_health_reporter(reporter.clone()))?;
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(StartError::Worker)?;
        let draining = shared.draining.clone();
        let site = Arc::new(ingress::Site { worker, grpc, tls: acceptor.cloned(), limits, draining });
        let alive = alive.clone();
        let serve = async move {
            let _alive = alive;
            let Ok(listener) = TcpListener::from_std(socket) else { return };
            tokio::spawn(evict(Arc::clone(&site)));
            ingress::serve(site, listener).await;
        };
        let name = format!("worker-{number}");
        let thread = thread::Builder::new().name(name).spawn(move || runtime.block_on(serve));
        threads.push(thread.map_err(StartError::Worker)?);
    }
    Ok(Workers { threads, ended })
}

async fn evict(site: Arc<ingress::Site>) {
    let mut ticks = tokio::time::interval(EVICT_EVERY);
    while site.draining.run_until_cancelled(ticks.tick()).await.is_some() {
        site.worker.upstream.evict_idle();
    }
}

/// The worker threads. Nothing is ever sent on `ended`: it closes when the last of them
/// is done.
struct Workers {
    threads: Vec<thread::JoinHandle<()>>,
    ended: mpsc::Receiver<()>,
}

/// What must be taken down in order.
struct Agent {
    shared: Arc<Shared>,
    workers: Workers,
    background: TaskTracker,
    stop: CancellationToken,
    stop_telemetry: CancellationToken,
    /// Gives back what is left of budgets, while there is still a stream to say so.
    budgets: JoinHandle<()>,
    stop_budgets: CancellationToken,
    /// Given back last.
    directory: DirectoryLock,
}

impl Agent {
    /// Uses each table that comes in.
    fn follow_tables(&self, tables: &TableStore) {
        let mut newest = tables.subscribe();
        let shared = Arc::clone(&self.shared);
        let stop = self.stop.clone();
        // The one at hand is in use already.
        newest.borrow_and_update();
        self.background.spawn(async move {
            while let Some(Ok(())) = stop.run_until_cancelled(newest.changed()).await {
                let loaded = newest.borrow_and_update().clone();
                if let Some(loaded) = loaded {
                    tracing::info!(revision = loaded.table.version.revision, "routing table in use");
                    shared.load(loaded);
                }
            }
        });
    }

    /// Serves until a stop was asked for, and gRPC's health says so; then: not ready,
    /// accept nothing, let requests finish, flush telemetry, stop.
    async fn run(self, health: JoinHandle<()>, done: oneshot::Sender<()>) {
        // Should it have panicked, the agent must not run on without a way to stop.
        health.await.ok();
        tracing::info!(in_flight = self.shared.in_flight(), "draining");
        self.shared.draining.cancel();
        let mut workers = self.workers;
        // Threads that still serve after that end with the process.
        if tokio::time::timeout(DRAIN_WITHIN, workers.ended.recv()).await.is_err() {
            tracing::warn!("requests were still running when the time to drain was up");
        }
        for thread in workers.threads.into_iter().filter(thread::JoinHandle::is_finished) {
            if thread.join().is_err() {
                tracing::error!("a worker thread panicked");
            }
        }
        self.stop_telemetry.cancel();
        self.stop_budgets.cancel();
        // It takes a second or two at most, and tells if it did not work.
        self.budgets.await.ok();
        self.background.close();
        // Telemetry has a token of its own and still flushes, for seconds at most; all
        // else may go at once.
        self.stop.cancel();
        self.background.wait().await;
        tracing::info!("stopped");
        drop(self.directory);
        drop(done);
    }
}
