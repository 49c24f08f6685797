//! Counters for `/metrics`, in OpenMetrics form.

use std::fmt;

use parking_lot::Mutex;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

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

/// Labels of a request.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct RequestLabels {
    /// Which call.
    pub(crate) route: &'static str,
    /// HTTP status of the answer.
    pub(crate) status: u16,
}

/// All metrics of an agent.
pub(crate) struct Metrics {
    registry: Mutex<Registry>,
    /// Requests answered.
    pub(crate) requests: Family<RequestLabels, Counter>,
    /// Attempts that ended.
    pub(crate) attempts: Family<AttemptLabels, Counter>,
    /// Seconds to first content.
    pub(crate) ttft: Histogram,
    /// Requests being served.
    pub(crate) in_flight: Gauge,
    /// Revision of the table in use.
    pub(crate) revision: Gauge,
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
            ttft: Histogram::new(LATENCY_BOUNDS),
            in_flight: Gauge::default(),
            revision: Gauge::default(),
            registry: Mutex::new(Registry::default()),
        };
        registry.register("requests", "Requests answered", metrics.requests.clone());
        registry.register("attempts", "Upstream attempts that ended", metrics.attempts.clone());
        registry.register(
            "ttft_seconds",
            "Seconds from an attempt's start to its first content",
            metrics.ttft.clone(),
        );
        registry.register("in_flight", "Requests being served", metrics.in_flight.clone());
        registry.register("revision", "Revision of the routing table in use", metrics.revision.clone());
        *metrics.registry.lock() = registry;
        metrics
    }

    /// The text that a scrape gets.
    ///
    /// # Errors
    /// Never in practice: writing to a string does not fail.
    pub(crate) fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry.lock())?;
        Ok(text)
    }
}
