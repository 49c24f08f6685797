//! Probes and health checks: calls that this agent makes up because no request came.
//!
//! Under a lease of the control plane the next real request is the probe; when none came
//! in half of the lease's time, a call of one token is made, where the provider's health
//! check is ACTIVE. The control plane leases health checks of idle deployments in the same
//! way, one for the whole fleet. An agent without a control plane checks by itself.
//!
//! One task owns it all. What a call shows goes to the breaker like any result; it teaches
//! no latency and is counted under a model name of its own.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{task::JoinSet, time::sleep_until};
use tokio_util::sync::CancellationToken;
use trunkline_proto::convert::PROBE_MODEL;
use trunkline_routing::{
    breaker::Sample,
    classify::OutcomeClass,
    learn,
    registry::{Block, Health, IdleLease, Ticket},
    table::{DeploymentIndex, HealthCheck, HealthCheckMode, Timeouts},
    tenant::Tenant,
    time::Timestamp,
    trace::Beginning,
};

use crate::{
    control::{AttemptSample, ProbeResults},
    engine::{self, Probed, Worker},
    snapshot::Snapshot,
};

mod spend;
#[cfg(test)]
mod tests;

use spend::Spend;

/// Calls running at the same time. Each is small; a table of a thousand deployments must
/// still not open a thousand connections at once.
const CALLS_MAX: usize = 16;
/// While there are leases, results of requests under them are looked for this often: the
/// rest of the fleet waits for them.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Without any, idle deployments are looked for this often.
const IDLE_EVERY: Duration = Duration::from_millis(500);
/// Kept connections that are too old are closed this often.
const EVICT_EVERY: Duration = Duration::from_secs(10);

/// Who says when to check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lead {
    /// The control plane, by leases.
    ControlPlane,
    /// This agent.
    Own,
}

/// Makes the calls that are due, and hands on what came of leases, until `shutdown`, which
/// comes when the agent begins to drain: calls under way are cancelled, and leases go to
/// others.
pub(crate) async fn run(worker: Arc<Worker>, results: ProbeResults, lead: Lead, shutdown: CancellationToken) {
    let mut checks = Checks {
        worker,
        results,
        lead,
        calls: JoinSet::new(),
        spend: Spend::default(),
        evicted: Instant::now(),
    };
    loop {
        let again = checks.look();
        tokio::select! {
            biased;
            // Nothing new begins after the stop.
            () = shutdown.cancelled() => break,
            Some(ended) = checks.calls.join_next() => checks.ended(ended.ok().flatten()),
            () = checks.worker.shared.leases_changed.notified() => {}
            () = sleep_until(again.into()) => {}
        }
    }
    checks.calls.shutdown().await;
    checks.give_all_back();
}

struct Checks {
    worker: Arc<Worker>,
    results: ProbeResults,
    lead: Lead,
    /// Calls under way. Each says what it cost.
    calls: JoinSet<Option<Cost>>,
    spend: Spend,
    evicted: Instant,
}

/// What a call cost, and whose limit it counts against.
struct Cost {
    provider: Box<str>,
    nano_usd: u64,
    estimated: u64,
}

/// A call to be made.
struct Due {
    ticket: Ticket,
    snapshot: Arc<Snapshot>,
    deployment: DeploymentIndex,
    limit: Duration,
}

impl Checks {
    /// Starts what is due. The answer is when to look again.
    fn look(&mut self) -> Instant {
        let now = Instant::now();
        if now.duration_since(self.evicted) >= EVICT_EVERY {
            self.evicted = now;
            self.worker.upstream.evict_idle();
        }
        let leases = self.leases();
        self.tell();
        if self.lead == Lead::Own {
            self.check_idle();
        }
        now + if leases { LOOK_EVERY } else { IDLE_EVERY }
    }

    /// Hands on what came of leases.
    fn tell(&self) {
        let shared = &self.worker.shared;
        let results = shared.registry.lock().take_probe_results(shared.clock.now());
        for result in &results {
            self.results.push(result);
        }
    }

    /// Makes calls for leases that no request used. The answer is whether there are leases.
    fn leases(&mut self) -> bool {
        let shared = Arc::clone(&self.worker.shared);
        let Some(snapshot) = shared.snapshot() else { return false };
        let now = shared.clock.now();
        let (idle, any) = {
            let registry = shared.registry.lock();
            (registry.idle_leases(now), registry.has_leases(now))
        };
        for lease in idle {
            let Some(deployment) = snapshot.table().deployment_by_name(&lease.deployment) else {
                shared.registry.lock().give_back_lease(lease.lease_id, now);
                continue;
            };
            if self.is_hopeless(&snapshot, deployment, &lease, now) {
                shared.registry.lock().give_back_lease(lease.lease_id, now);
            } else if lease.due <= now && policy(&snapshot, deployment).mode == HealthCheckMode::Active {
                self.call_under(&lease, &snapshot, deployment, now);
            }
        }
        any
    }

    /// Whether nothing can be sent before the lease ends, by what this agent knows itself.
    fn is_hopeless(
        &self,
        snapshot: &Snapshot,
        deployment: DeploymentIndex,
        lease: &IdleLease,
        now: Timestamp,
    ) -> bool {
        let registry = self.worker.shared.registry.lock();
        match registry.local_health(&snapshot.binding, deployment, now, 1) {
            Health::Ready(_) | Health::Blocked(Block::Limit(_)) => false,
            Health::Blocked(Block::Forced | Block::Quarantine(..)) => true,
            Health::Blocked(
                Block::Gate(until) | Block::Breaker(until) | Block::Fleet(until) | Block::LearnedCap(until),
            ) => until >= lease.expires,
        }
    }

    fn call_under(
        &mut self,
        lease: &IdleLease,
        snapshot: &Arc<Snapshot>,
        deployment: DeploymentIndex,
        now: Timestamp,
    ) {
        if self.calls.len() >= CALLS_MAX {
            return;
        }
        let shared = Arc::clone(&self.worker.shared);
        if !self.spend.admits(snapshot, deployment, &shared.clock, now) {
            shared.registry.lock().give_back_lease(lease.lease_id, now);
            return;
        }
        let ticket = shared.registry.lock().begin(
            &snapshot.binding,
            &made_up(snapshot, deployment, Some(lease.lease_id)),
            now,
        );
        if let Some(ticket) = ticket {
            let limit = limit().min(lease.expires.since(now));
            self.call(Due { ticket, snapshot: Arc::clone(snapshot), deployment, limit }, now);
        }
    }

    /// Checks deployments that had no result for as long as their provider's interval.
    fn check_idle(&mut self) {
        let shared = Arc::clone(&self.worker.shared);
        let Some(snapshot) = shared.snapshot() else { return };
        let now = shared.clock.now();
        let tokens = engine::PROBE_TOKENS.input + engine::PROBE_TOKENS.output;
        for index in 0..snapshot.table().deployments.len() {
            if self.calls.len() >= CALLS_MAX {
                return;
            }
            let deployment = DeploymentIndex(index as u32);
            let HealthCheck { mode, interval, .. } = policy(&snapshot, deployment);
            if mode != HealthCheckMode::Active {
                continue;
            }
            let ticket = {
                let mut registry = shared.registry.lock();
                let idle = registry.idle_for(&snapshot.binding, deployment, now);
                let health = registry.health(&snapshot.binding, deployment, now, tokens);
                let due = idle >= interval && matches!(health, Health::Ready(_));
                if !due || !self.spend.admits(&snapshot, deployment, &shared.clock, now) {
                    continue;
                }
                registry.begin(&snapshot.binding, &made_up(&snapshot, deployment, None), now)
            };
            let Some(ticket) = ticket else { continue };
            let limit = limit();
            self.call(Due { ticket, snapshot: Arc::clone(&snapshot), deployment, limit }, now);
        }
    }

    fn call(&mut self, due: Due, now: Timestamp) {
        let reserved = self.spend.reserve(&due.snapshot, due.deployment, &self.worker.shared.clock, now);
        self.calls.spawn(call(Arc::clone(&self.worker), due, reserved));
    }

    fn ended(&mut self, cost: Option<Cost>) {
        if let Some(cost) = cost {
            self.spend.settle(&cost.provider, cost.estimated, cost.nano_usd);
        }
    }

    /// At the end: who holds no lease any more lets others probe.
    fn give_all_back(&self) {
        let now = self.worker.shared.clock.now();
        {
            let mut registry = self.worker.shared.registry.lock();
            for lease in registry.idle_leases(now) {
                registry.give_back_lease(lease.lease_id, now);
            }
        }
        self.tell();
    }
}

/// A call that no request asked for.
const fn made_up(snapshot: &Snapshot, deployment: DeploymentIndex, lease: Option<u64>) -> Beginning {
    Beginning {
        table: snapshot.binding.number(),
        deployment,
        lease,
        reported: false,
        tokens: engine::PROBE_TOKENS.input + engine::PROBE_TOKENS.output,
        tenant: Tenant::NONE,
        route: 0,
        session: None,
    }
}

/// As long as a real request would wait before it moves on.
fn limit() -> Duration {
    Timeouts::default().first_token
}

fn policy(snapshot: &Snapshot, deployment: DeploymentIndex) -> HealthCheck {
    let table = snapshot.table();
    table.provider(table.deployment(deployment).provider).health_check
}

/// Makes one call and tells what it showed. Cancelled, it says nothing, and its place is
/// free again.
async fn call(worker: Arc<Worker>, due: Due, estimated: u64) -> Option<Cost> {
    let running = Running { worker: &worker, ticket: due.ticket };
    let started = Instant::now();
    let probed = match engine::probe(&worker, &due.snapshot, due.deployment, due.limit).await {
        Ok(probed) => probed,
        Err(error) => {
            tracing::error!(%error, "a probe's request is wrong");
            return None;
        }
    };
    let cost = tell(&worker, &due, &probed, started.elapsed());
    drop(running);
    let table = due.snapshot.table();
    let provider = table.provider(table.deployment(due.deployment).provider).name.clone();
    Some(Cost { provider, nano_usd: cost.unwrap_or(estimated), estimated })
}

/// Gives the attempt's place back, however the call ends.
struct Running<'a> {
    worker: &'a Worker,
    ticket: Ticket,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let shared = &self.worker.shared;
        shared.registry.lock().release(self.ticket, shared.clock.now());
    }
}

/// Breaker, lease, telemetry and metrics learn of it. The answer is what it cost.
fn tell(worker: &Worker, due: &Due, probed: &Probed, took: Duration) -> Option<u64> {
    let Due { ticket, snapshot, deployment, .. } = due;
    let shared = &worker.shared;
    let now = shared.clock.now();
    let name = snapshot.deployment_name(*deployment);
    let class = probed.failed.map_or(OutcomeClass::Ok, |failed| failed.class);
    let prices = &snapshot.table().deployment(*deployment).prices;
    let price = prices.at(shared.clock.unix_ms(now));
    let cost = probed.used.and_then(|(tokens, _)| price.map(|price| price.cost(tokens)));
    let health = policy(snapshot, *deployment);
    let opened = {
        let mut registry = shared.registry.lock();
        registry.note_cost(*ticket, now, cost);
        let opened = match &probed.failed {
            None => registry.answered(*ticket, now),
            Some(failed) => registry.learn(*ticket, now, failed),
        };
        let sample = probed.failed.map_or(Sample::Success, |failed| learn::sample(&failed));
        opened | registry.note_check(*ticket, now, sample, health.unhealthy_threshold)
    };
    let model: Arc<str> = Arc::from(PROBE_MODEL);
    if opened {
        shared.opened(name, &model);
    }
    shared.protections_changed.notify_one();
    tracing::debug!(deployment = %name, outcome = class.name(), "probed");
    shared.metrics.count_probe(name, class.name());
    shared.recorder.record(AttemptSample {
        deployment: Arc::clone(name),
        model,
        outcome: class,
        ttft: probed.ttft,
        duration: took,
        tokens: probed.used,
        cost,
        faulted: probed.fault.is_some(),
        was_running: false,
        own_pace: true,
        stream: false,
        input_tokens: engine::PROBE_TOKENS.input as u32,
        max_output_tokens: Some(1),
        in_flight: 0,
        predicted_ttft: None,
    });
    cost.map(|cost| cost.0)
}
