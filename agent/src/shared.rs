//! What all workers of an agent share.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{
    brain::Brain,
    budgets::Budgets,
    clock::Clock,
    control::{LoadedTable, Recorder},
    credentials::Credentials,
    decisions::Decisions,
    drills::Drills,
    duty::Duty,
    metrics::Metrics,
    snapshot::Snapshot,
};

/// The state of the agent.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Time.
    pub(crate) clock: Clock,
    /// What is known of targets.
    pub(crate) registry: Brain,
    snapshot: ArcSwapOption<Snapshot>,
    /// Keys for providers.
    pub(crate) credentials: Arc<Credentials>,
    /// Telemetry.
    pub(crate) recorder: Arc<Recorder>,
    /// What may be spent.
    pub(crate) budgets: Arc<Budgets>,
    /// The newest decisions.
    pub(crate) decisions: Decisions,
    /// Faults to be made on purpose.
    pub(crate) drills: Drills,
    /// Whether operators want callers to go elsewhere.
    pub(crate) duty: Duty,
    /// For `/metrics`.
    pub(crate) metrics: Metrics,
    /// Woken when a protection may have changed.
    pub(crate) protections_changed: Notify,
    /// Woken when leases to probe may have come.
    pub(crate) leases_changed: Notify,
    /// Woken when another table is in use.
    pub(crate) snapshot_changed: Notify,
    /// Whether callers are turned away while no keys are configured.
    pub(crate) apps_need_keys: bool,
    /// Set when the agent drains.
    pub(crate) draining: CancellationToken,
    in_flight: Arc<AtomicU32>,
    next_id: AtomicU64,
    id_prefix: u32,
}

/// Counts a request as being served until it is dropped.
#[derive(Debug)]
pub(crate) struct InFlight(Arc<AtomicU32>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Shared {
    /// An agent that has no table yet.
    pub(crate) fn new(recorder: Arc<Recorder>, draining: CancellationToken) -> Self {
        let clock = Clock::start();
        let account = format!("{:032x}", rand::random::<u128>());
        Self {
            clock,
            budgets: Arc::new(Budgets::new(clock, account, None)),
            registry: Brain::new(None),
            snapshot: ArcSwapOption::empty(),
            credentials: Arc::new(Credentials::new()),
            recorder,
            decisions: Decisions::default(),
            drills: Drills::default(),
            duty: Duty::default(),
            metrics: Metrics::new(),
            protections_changed: Notify::new(),
            leases_changed: Notify::new(),
            snapshot_changed: Notify::new(),
            apps_need_keys: false,
            draining,
            in_flight: Arc::new(AtomicU32::new(0)),
            next_id: AtomicU64::new(1),
            id_prefix: rand::random(),
        }
    }

    /// The table in use. None: none was loaded yet.
    pub(crate) fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.snapshot.load_full()
    }

    /// Uses another table from now on. Requests under way keep theirs.
    pub(crate) fn load(&self, loaded: Arc<LoadedTable>) {
        let missing = self.credentials.missing(&loaded.table);
        let binding = {
            let mut registry = self.registry.lock();
            let now = self.clock.now();
            let binding = registry.bind(&loaded, now);
            registry.set_missing_credentials(&missing, now);
            binding
        };
        self.budgets.load(&loaded.table);
        let number = self.snapshot().map_or(1, |snapshot| snapshot.number + 1);
        self.snapshot.store(Some(Arc::new(Snapshot::new(loaded, binding, number))));
        self.decisions.retire(number);
        self.snapshot_changed.notify_waiters();
        self.protections_changed.notify_one();
    }

    /// A breaker opened on traffic of `model`.
    pub(crate) fn opened(&self, deployment: &Arc<str>, model: &Arc<str>) {
        tracing::warn!(%deployment, "breaker opened");
        self.recorder.record_opening(Arc::clone(deployment), Arc::clone(model));
        self.protections_changed.notify_one();
    }

    /// Counts a request until the guard is dropped.
    pub(crate) fn enter(&self) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(Arc::clone(&self.in_flight))
    }

    /// The counter of requests being served, for heartbeats.
    pub(crate) fn in_flight_counter(&self) -> Arc<AtomicU32> {
        Arc::clone(&self.in_flight)
    }

    /// Requests being served.
    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// A name for a decision: unique in this process, and almost surely elsewhere.
    pub(crate) fn next_decision_id(&self) -> String {
        let number = self.next_id.fetch_add(1, Ordering::Relaxed);
        format!("{:08x}{number:010x}", self.id_prefix)
    }
}

/// Looks for credentials that came or went, once in a while.
pub(crate) async fn watch_credentials(shared: Arc<Shared>, shutdown: CancellationToken) {
    const EVERY: Duration = Duration::from_secs(2);
    let mut ticks = tokio::time::interval(EVERY);
    let mut before: Vec<String> = Vec::new();
    let mut generations = BTreeMap::new();
    loop {
        tokio::select! {
            biased;
            // Stopping first: there is nothing to finish.
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let Some(snapshot) = shared.snapshot() else { continue };
        let missing = shared.credentials.missing(snapshot.table());
        if missing != before {
            shared.registry.lock().set_missing_credentials(&missing, shared.clock.now());
            shared.protections_changed.notify_one();
            if !missing.is_empty() {
                tracing::warn!(providers = ?missing, "credentials can't be resolved; their providers get no requests");
            }
            before = missing;
        }
        let newest = shared.credentials.generations(snapshot.table());
        for (provider, generation) in &newest {
            let known = generations.get(provider);
            let found = !before.iter().any(|missing| **missing == **provider);
            if found && known.is_some_and(|known| known != generation) {
                shared.registry.lock().credential_changed(provider, shared.clock.now());
                shared.protections_changed.notify_one();
                tracing::info!(%provider, "the credential changed; a quarantine of its account ends");
            }
        }
        generations = newest;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use trunkline_routing::{
        classify::{ErrorFields, classify},
        price::Schedule,
        table::{
            BreakerPolicy, Capabilities, Credential, Deployment, DeploymentIndex, Dialect, HealthCheck,
            Limits, Provider, ProviderIndex, RoutingTable,
        },
        tenant::Tenant,
        trace::Beginning,
    };

    use super::*;

    fn table(key: &std::path::Path) -> RoutingTable {
        RoutingTable {
            providers: vec![Provider {
                name: "openai".into(),
                dialect: Dialect::OpenAi,
                base_url: "https://provider.test".into(),
                credential: Some(Credential::File(key.to_str().unwrap().into())),
                allow_private_network: false,
                region: None,
                health_check: HealthCheck::default(),
            }],
            deployments: vec![Deployment {
                name: "openai/mini".into(),
                provider: ProviderIndex(0),
                upstream_model: "mini".into(),
                capabilities: Capabilities::ALL,
                context_window: None,
                max_output_tokens: None,
                quality: None,
                prices: Schedule::unknown(),
                breaker: BreakerPolicy::default(),
                limits: Limits::default(),
            }],
            ..RoutingTable::default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_was_replaced_in_its_file_ends_the_quarantine_of_its_account() {
        let directory = tempfile::tempdir().unwrap();
        let key = directory.path().join("key");
        fs::write(&key, "sk-refused").unwrap();
        let shared = Arc::new(Shared::new(Arc::new(Recorder::new()), CancellationToken::new()));
        shared.load(Arc::new(LoadedTable { table: table(&key), ..LoadedTable::default() }));
        let snapshot = shared.snapshot().unwrap();
        let quarantined = || !shared.registry.lock().protections(shared.clock.now()).1.is_empty();
        let rotate = async {
            shared.protections_changed.notified().await;
            {
                let mut registry = shared.registry.lock();
                let now = shared.clock.now();
                let beginning = Beginning {
                    table: snapshot.binding.number(),
                    deployment: DeploymentIndex(0),
                    lease: None,
                    reported: false,
                    tokens: 0,
                    tenant: Tenant::NONE,
                    route: 0,
                    session: None,
                };
                let ticket = registry.begin(&snapshot.binding, &beginning, now).unwrap();
                registry.learn(ticket, now, &classify(401, &ErrorFields::default(), None));
                registry.release(ticket, now);
            }
            assert!(quarantined());
            fs::write(&key, "sk-accepted").unwrap();
            shared.protections_changed.notified().await;
            assert!(!quarantined());
        };
        tokio::select! {
            biased;
            // The watch first: it must have seen the key that is replaced.
            () = watch_credentials(Arc::clone(&shared), CancellationToken::new()) => panic!("it stopped"),
            done = tokio::time::timeout(Duration::from_secs(60), rotate) => done.unwrap(),
        }
    }
}
