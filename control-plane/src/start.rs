//! Starts a control plane: opens the store, brings in the configuration document,
//! serves until told to stop.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{
    sync::Semaphore,
    task::{JoinError, JoinHandle},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use trunkline_transport::{
    bearer::TokenFileError,
    exposure::Exposed,
    incoming::incoming,
    tls::{Protocols, TlsError},
};

pub use crate::bootstrap::ConfigSource;
use crate::{
    access::Access,
    bootstrap,
    budgets::Keeper,
    fleet::{self, Fleet},
    grpc,
    grpc::{Context, ServeError},
    learning::Learning,
    metrics::Metrics,
    ops,
    prices::{
        FeedSource, FeedUrlRefused,
        metrics::PriceGauges,
        poll::{FeedStatus, Poller},
    },
    registry::Registry,
    repository::{CommitError, OpenError, Repository, RepositoryOptions},
    security::Security,
    stats::{LoadError, merger::Merger, pace::Pace},
};

/// What streams of clients that do not let go get at the end.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// How a control plane runs.
#[derive(Debug)]
pub struct Options {
    /// Where gRPC is served.
    pub grpc: Listen,
    /// Where `/metrics` and the health pages are served.
    pub ops: Listen,
    /// Where durable state is kept. None: in memory, for tests.
    pub data_dir: Option<PathBuf>,
    /// What to do about a store that is missing or older than it was.
    pub recovery: Recovery,
    /// A configuration document to begin with.
    pub config: Option<ConfigSource>,
    /// Who may reach it. Needed beyond loopback.
    pub security: Security,
    /// A price list to poll.
    pub price_feed: Option<FeedSource>,
}

/// What an operator decided about a store that is missing or older than it was.
#[derive(Clone, Debug, Default)]
pub struct Recovery {
    /// Go on from an older state, under a new epoch.
    pub accept_rollback: bool,
    /// Make the store from this file of ExportState.
    pub import_state: Option<PathBuf>,
}

/// A listener, or where to make one.
#[derive(Debug)]
pub enum Listen {
    /// Port 0 is any free one.
    Address(SocketAddr),
    /// Made by the caller.
    Bound(TcpListener),
}

/// A control plane that serves.
#[derive(Debug)]
pub struct Running {
    /// What both listeners speak: `https`, or `http` without TLS.
    pub scheme: &'static str,
    /// Where gRPC is served.
    pub grpc_addr: SocketAddr,
    /// Where `/metrics` and the health pages are served.
    pub ops_addr: SocketAddr,
    /// The durable state.
    pub repository: Arc<Repository>,
    shutdown: CancellationToken,
    grpc: JoinHandle<Result<(), ServeError>>,
    others: TaskTracker,
}

/// Why a control plane did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Anybody could reach it.
    #[error(transparent)]
    Exposed(#[from] Exposed),
    /// The certificate or its key can't be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A token file can't be used.
    #[error(transparent)]
    Tokens(#[from] TokenFileError),
    /// The address cannot be had.
    #[error("listen on {address} for {role}: {cause}")]
    Listen {
        /// Which listener.
        role: &'static str,
        /// Where.
        address: String,
        /// The answer.
        #[source]
        cause: io::Error,
    },
    /// The configuration document is wrong. Nothing was changed.
    #[error("configuration {origin} is refused:\n{problems}")]
    Config {
        /// Where it came from.
        origin: String,
        /// All that is wrong, one a line.
        problems: String,
    },
    /// The price list is none that may be polled.
    #[error(transparent)]
    PriceFeed(#[from] FeedUrlRefused),
    /// The store does not open.
    #[error("open the store: {0}")]
    Open(#[from] OpenError),
    /// The store did not take the configuration document.
    #[error("store the configuration: {0}")]
    Commit(#[from] CommitError),
    /// Telemetry totals cannot be read.
    #[error("start telemetry: {0}")]
    Telemetry(String),
    /// A thread ended in a way that it should not.
    #[error("start: {0}")]
    Join(#[from] JoinError),
}

impl StartError {
    /// Whether the operator's input is wrong: starting again won't help.
    pub const fn is_input(&self) -> bool {
        match self {
            Self::Exposed(_) | Self::Tls(_) | Self::Tokens(_) | Self::Config { .. } | Self::PriceFeed(_) => {
                true
            }
            Self::Open(error) => error.is_input(),
            Self::Listen { .. } | Self::Commit(_) | Self::Telemetry(_) | Self::Join(_) => false,
        }
    }
}

/// Why a control plane stopped without being told to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The gRPC listener ended.
    #[error("{0}")]
    Serve(String),
    /// A task ended in a way that it should not.
    #[error("serve: {0}")]
    Join(#[from] JoinError),
}

/// Starts a control plane; it runs until `shutdown`.
///
/// # Errors
/// See [`StartError`]; nothing runs then.
pub async fn start(options: Options, shutdown: CancellationToken) -> Result<Running, StartError> {
    let document = options.config.map(bootstrap::load).transpose()?;
    let security = options.security;
    let security = tokio::task::spawn_blocking(move || security.load()).await??;
    let (grpc_listener, grpc_addr) =
        listen("control-plane", options.grpc, |address| security.check_grpc(address))?;
    let (ops_listener, ops_addr) =
        listen("control-plane-ops", options.ops, |address| security.check_ops(address))?;
    let (grpc_tls, ops_tls) = (security.acceptor(Protocols::H2)?, security.acceptor(Protocols::Http1)?);
    let repository_options = RepositoryOptions {
        data_dir: options.data_dir,
        accept_rollback: options.recovery.accept_rollback,
        import: options.recovery.import_state,
    };
    let repository = tokio::task::spawn_blocking(move || Repository::open(repository_options)).await??;
    if let Some(document) = document {
        bootstrap::bring_in(&repository, document).await?;
    }
    let loaded = Merger::load(Arc::clone(&repository)).await;
    let (merger, stats, reports) =
        loaded.map_err(|error: LoadError| StartError::Telemetry(error.to_string()))?;

    let (keeper, budgets) = Keeper::new(Arc::clone(&repository), SystemTime::now);
    let price_feed = Arc::new(FeedStatus::default());
    let poller = options
        .price_feed
        .map(|source| Poller::new(source, Arc::clone(&repository), Arc::clone(&price_feed)));
    let poller = poller.transpose()?;
    let fleet = Fleet::new(repository.lease_end().await?, merger.known_agents());
    let registry = Arc::new(Registry::new());
    let mut metrics = Metrics::new(Arc::clone(&repository), Arc::clone(&registry), Arc::clone(&stats));
    metrics
        .register_prices(PriceGauges { repository: Arc::clone(&repository), feed: Arc::clone(&price_feed) });
    let apps_need_keys = security.apps_need_keys(grpc_addr);
    let refused = metrics.calls_refused.clone();
    let access = Access::new(security.tokens.clone(), Arc::clone(&repository), apps_need_keys, refused);
    let (learning, learner) = Learning::new(Arc::clone(&repository), metrics.lessons_lost.clone());
    let context = Arc::new(Context {
        repository: Arc::clone(&repository),
        registry,
        fleet: Arc::clone(&fleet),
        stats: Arc::clone(&stats),
        reports,
        budgets,
        learning,
        pace: Pace::default(),
        metrics: Arc::new(metrics),
        previews: Arc::new(Semaphore::new(grpc::PREVIEWS_MAX)),
        price_feed,
        instance: uuid::Uuid::new_v4().to_string(),
        shutdown: shutdown.clone(),
        tasks: TaskTracker::new(),
    });
    let others = TaskTracker::new();
    // Ends when the last stream of reports has ended, so that none is lost.
    others.spawn(merger.run());
    others.spawn(keeper.run(shutdown.clone()));
    others.spawn(learner.run(shutdown.clone()));
    let pages = ops::Pages {
        repository: Arc::clone(&repository),
        metrics: Arc::clone(&context.metrics),
        access: (!ops_addr.ip().is_loopback()).then(|| access.clone()),
    };
    let scheme = security.scheme();
    others.spawn(ops::serve(ops_listener, ops_tls, pages, shutdown.clone()));
    others.spawn(security.follow(shutdown.clone()));
    if let Some(poller) = poller {
        others.spawn(poller.run(shutdown.clone()));
    }
    let transitions = context.metrics.fleet_transitions.clone();
    let breakers = fleet::Keeper { fleet, repository: Arc::clone(&repository), stats, transitions };
    others.spawn(breakers.run(shutdown.clone()));
    others.spawn(expire(Arc::clone(&repository), shutdown.clone()));
    let incoming = incoming(grpc_listener, grpc_tls, access.limits());
    let grpc = others.spawn(grpc::serve(incoming, access, context));
    others.close();
    Ok(Running { scheme, grpc_addr, ops_addr, repository, shutdown, grpc, others })
}

impl Running {
    /// Waits for the end: `shutdown` was cancelled and everything is drained, or
    /// serving failed.
    ///
    /// # Errors
    /// If it ended without being told to.
    pub async fn wait(self) -> Result<(), RunError> {
        let Self { shutdown, mut grpc, others, .. } = self;
        let drained = async {
            shutdown.cancelled().await;
            tokio::time::sleep(DRAIN_TIMEOUT).await;
        };
        let served = tokio::select! {
            biased; // An end in time is no timeout.
            served = &mut grpc => Some(served),
            () = drained => None,
        };
        // Whatever the reason was, nothing goes on alone.
        shutdown.cancel();
        let Some(served) = served else {
            tracing::warn!("clients kept their streams open; closing them");
            grpc.abort();
            return Ok(());
        };
        served?.map_err(|error| RunError::Serve(error.to_string()))?;
        if tokio::time::timeout(DRAIN_TIMEOUT, others.wait()).await.is_err() {
            tracing::warn!("some tasks did not end in time");
        }
        Ok(())
    }
}

fn listen(
    role: &'static str,
    listen: Listen,
    may_listen: impl Fn(SocketAddr) -> Result<(), Exposed>,
) -> Result<(tokio::net::TcpListener, SocketAddr), StartError> {
    let name = format!("{listen:?}");
    let failed = |address: String| move |cause| StartError::Listen { role, address, cause };
    let listener = match listen {
        Listen::Address(address) => {
            // Before anybody could connect.
            may_listen(address)?;
            TcpListener::bind(address).map_err(failed(address.to_string()))?
        }
        Listen::Bound(listener) => listener,
    };
    let address = listener.local_addr().map_err(failed(name))?;
    may_listen(address)?;
    listener.set_nonblocking(true).map_err(failed(address.to_string()))?;
    let listener = tokio::net::TcpListener::from_std(listener).map_err(failed(address.to_string()))?;
    Ok((listener, address))
}

/// Ends verdicts and drills when their time is over.
async fn expire(repository: Arc<Repository>, shutdown: CancellationToken) {
    /// Wall clocks jump; a look now and then finds what a long sleep would miss.
    const LOOK: Duration = Duration::from_secs(1);
    let (mut verdicts, mut faults) = (repository.subscribe_verdicts(), repository.subscribe_faults());
    loop {
        let now = unix_ms();
        verdicts.mark_unchanged();
        faults.mark_unchanged();
        let next = match repository.next_expiry_unix_ms() {
            Some(due) if due <= now => repository.expire(now).await,
            due => due,
        };
        let wait = next.map(|next| Duration::from_millis(next.saturating_sub(now).max(1)).min(LOOK));
        tokio::select! {
            biased; // A stop first; a change may bring an earlier end.
            () = shutdown.cancelled() => return,
            changed = verdicts.changed() => if changed.is_err() { return },
            changed = faults.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(wait.unwrap_or(LOOK)), if wait.is_some() => {}
        }
    }
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}
