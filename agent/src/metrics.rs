//! Counters for `/metrics`, in OpenMetrics form.

use std::{collections::HashSet, fmt, sync::Arc};

use parking_lot::Mutex;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use crate::drills::Drill;

/// Upper bounds of latency buckets, in seconds: a millisecond to a minute.
const LATENCY_BOUNDS: [f64; 12] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 60.0];

/// Labels of an attempt.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct AttemptLabels {
    /// Full name.
    pub(crate) deployment: String,
    /// Outcome class, or ok.
    pub(crate) outcome: &'static str,
}

/// Labels of an attempt that starts.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct StartLabels {
    /// Why: first, retry, beside or hedge.
    pub(crate) start: &'static str,
}

/// Labels of a request.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct RequestLabels {
    /// Which call.
    pub(crate) route: &'static str,
    /// HTTP status of the answer.
    pub(crate) status: u16,
}

/// Labels of what budgets did to requests.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct BudgetLabels {
    /// The budget's name.
    pub(crate) budget: String,
    /// refused, downgraded or alerted.
    pub(crate) result: &'static str,
}

/// Labels of attempts that drills took hold of.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct FaultedLabels {
    /// The drill's name.
    fault: String,
    /// Full name.
    deployment: String,
}

/// Labels of a drill.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct DrillLabels {
    /// Its name.
    fault: String,
    /// What it does.
    effect: &'static str,
}

/// Names of drills that are counted before the counts begin anew. Counts of drills that
/// are over stay until then, so that the last scrape misses none.
const FAULTS_COUNTED_MAX: usize = 64;

/// All metrics of an agent.
pub(crate) struct Metrics {
    registry: Mutex<Registry>,
    /// Requests answered.
    pub(crate) requests: Family<RequestLabels, Counter>,
    /// Attempts that ended.
    pub(crate) attempts: Family<AttemptLabels, Counter>,
    /// Requests that a budget did something to.
    pub(crate) budget_requests: Family<BudgetLabels, Counter>,
    /// Attempts that started.
    pub(crate) starts: Family<StartLabels, Counter>,
    probes: Family<AttemptLabels, Counter>,
    faulted: Family<FaultedLabels, Counter>,
    faults_counted: Mutex<HashSet<Arc<str>>>,
    faults_active: Family<DrillLabels, Gauge>,
    /// Seconds to first content.
    pub(crate) ttft: Histogram,
    /// Requests being served.
    pub(crate) in_flight: Gauge,
    /// Revision of the table in use.
    pub(crate) revision: Gauge,
    /// Values of its configuration that this build does not know.
    pub(crate) assumed: Gauge,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All at zero.
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("trunkline_agent");
        let metrics = Self {
            requests: Family::default(),
            attempts: Family::default(),
            budget_requests: Family::default(),
            starts: Family::default(),
            probes: Family::default(),
            faulted: Family::default(),
            faults_counted: Mutex::default(),
            faults_active: Family::default(),
            ttft: Histogram::new(LATENCY_BOUNDS),
            in_flight: Gauge::default(),
            revision: Gauge::default(),
            assumed: Gauge::default(),
            registry: Mutex::new(Registry::default()),
        };
        registry.register("requests", "Requests answered", metrics.requests.clone());
        registry.register("attempts", "Upstream attempts that ended", metrics.attempts.clone());
        registry.register("attempt_starts", "Upstream attempts that started, by why", metrics.starts.clone());
        registry.register(
            "budget_requests",
            "Requests that a budget refused, downgraded or let pass with an alert",
            metrics.budget_requests.clone(),
        );
        registry.register(
            "probes",
            "Calls of one token that no app asked for, to find out whether a deployment answers",
            metrics.probes.clone(),
        );
        registry.register(
            "attempts_faulted",
            "Upstream attempts that ended and that a drill took hold of",
            metrics.faulted.clone(),
        );
        registry.register("faults_active", "Drills that are active now", metrics.faults_active.clone());
        registry.register(
            "ttft_seconds",
            "Seconds from an attempt's start to its first content",
            metrics.ttft.clone(),
        );
        registry.register("in_flight", "Requests being served", metrics.in_flight.clone());
        registry.register("revision", "Revision of the routing table in use", metrics.revision.clone());
        registry.register(
            "configuration_values_unknown",
            "Values of the routing table's configuration that this build does not know and replaced",
            metrics.assumed.clone(),
        );
        *metrics.registry.lock() = registry;
        metrics
    }

    /// Counts a call that no app asked for.
    pub(crate) fn count_probe(&self, deployment: &str, outcome: &'static str) {
        let labels = AttemptLabels { deployment: deployment.to_owned(), outcome };
        self.probes.get_or_create(&labels).inc();
    }

    /// Counts an attempt that the drill `fault` took hold of.
    pub(crate) fn count_faulted(&self, fault: &Arc<str>, deployment: &str) {
        {
            let mut counted = self.faults_counted.lock();
            if counted.len() >= FAULTS_COUNTED_MAX && !counted.contains(fault) {
                counted.clear();
                self.faulted.clear();
            }
            counted.insert(Arc::clone(fault));
        }
        let labels = FaultedLabels { fault: fault.to_string(), deployment: deployment.to_owned() };
        self.faulted.get_or_create(&labels).inc();
    }

    /// The text that a scrape gets, with these drills as the active ones.
    ///
    /// # Errors
    /// Never in practice: writing to a string does not fail.
    pub(crate) fn encode(&self, active: &[Drill]) -> Result<String, fmt::Error> {
        // Held for both, or two scrapes at once could see drills that are half shown.
        let registry = self.registry.lock();
        self.faults_active.clear();
        for drill in active {
            let labels = DrillLabels { fault: drill.name.to_string(), effect: drill.effect.name() };
            self.faults_active.get_or_create(&labels).set(1);
        }
        let mut text = String::new();
        encode(&mut text, &registry)?;
        Ok(text)
    }
}
