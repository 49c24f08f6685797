//! What `/metrics` shows. Counters are counted here; the rest is read at the scrape.

use std::sync::Arc;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeLabelValue, EncodeMetric, text},
    metrics::{
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::{ConstGauge, Gauge},
    },
    registry::Registry as Metered,
};
use trunkline_proto::types::v1::OutcomeClass;
use trunkline_routing::fleet::State;

use crate::{
    access::Refused,
    prices::metrics::PriceGauges,
    registry::Registry,
    repository::{Repository, StoreHealth},
    stats::Stats,
};

/// All metrics of the process.
#[derive(Debug)]
pub(crate) struct Metrics {
    metered: Metered,
    /// Routing table updates sent to agents.
    pub(crate) updates: Family<UpdateLabels, Counter>,
    /// Updates that agents refused.
    pub(crate) nacks: Counter,
    /// Calls that were refused for who made them.
    pub(crate) calls_refused: Refused,
    /// Telemetry reports by what came of them.
    pub(crate) reports: Family<ReportLabels, Counter>,
    /// Parts of acknowledged reports that were not counted.
    pub(crate) targets_refused: Counter,
    /// Snapshots that were sent and not yet acknowledged.
    pub(crate) snapshots_under_way: Gauge,
    /// Agents that wait for their turn to get one.
    pub(crate) snapshots_waiting: Gauge,
    /// Agents that came back without all they had counted.
    pub(crate) telemetry_gaps: Counter,
    /// Changes of breakers that the fleet's evidence, probes and time led to.
    pub(crate) fleet_transitions: Counter,
    /// WatchResources streams that are open.
    pub(crate) watchers: Gauge,
    /// Reports whose samples nobody learned from.
    pub(crate) lessons_lost: Counter,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct UpdateLabels {
    pub(crate) kind: UpdateKind,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[expect(non_camel_case_types, reason = "the names are label values")]
pub(crate) enum UpdateKind {
    snapshot,
    delta,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ReportLabels {
    pub(crate) result: ReportResult,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[expect(non_camel_case_types, reason = "the names are label values")]
pub(crate) enum ReportResult {
    taken,
    gap,
    paused,
    invalid,
    failed,
}

impl Metrics {
    pub(crate) fn new(repository: Arc<Repository>, agents: Arc<Registry>, stats: Arc<Stats>) -> Self {
        let mut metered = Metered::with_prefix("trunkline_control_plane");
        let updates = Family::default();
        metered.register("sync_updates", "Routing table updates sent to agents", updates.clone());
        let nacks = Counter::default();
        metered.register("sync_nacks", "Routing table updates that agents refused", nacks.clone());
        let calls_refused = Refused::default();
        let help = "Calls refused for who made them, by reason";
        metered.register("calls_refused", help, calls_refused.clone());
        let reports = Family::default();
        metered.register("telemetry_reports", "Telemetry reports by what came of them", reports.clone());
        let targets_refused = Counter::default();
        metered.register(
            "telemetry_targets_refused",
            "Parts of acknowledged telemetry reports that were impossible or had no place",
            targets_refused.clone(),
        );
        let snapshots_under_way = Gauge::default();
        let help = "Snapshots sent to agents and not yet acknowledged";
        metered.register("sync_snapshots_under_way", help, snapshots_under_way.clone());
        let snapshots_waiting = Gauge::default();
        let help = "Agents that wait for their turn to get a snapshot";
        metered.register("sync_snapshots_waiting", help, snapshots_waiting.clone());
        let fleet_transitions = Counter::default();
        let help = "Changes of the fleet's breakers by evidence, probes and time";
        metered.register("fleet_breaker_transitions", help, fleet_transitions.clone());
        let watchers = Gauge::default();
        metered.register("watchers_connected", "Open WatchResources streams", watchers.clone());
        let telemetry_gaps = Counter::default();
        metered.register(
            "telemetry_gaps",
            "Times an agent came back without having reported all it had counted",
            telemetry_gaps.clone(),
        );
        let lessons_lost = Counter::default();
        let help = "Telemetry reports whose samples were not learned from, since too many waited";
        metered.register("learning_reports_lost", help, lessons_lost.clone());
        metered.register_collector(Box::new(Now { repository, agents, stats }));
        Self {
            metered,
            updates,
            nacks,
            calls_refused,
            reports,
            targets_refused,
            snapshots_under_way,
            snapshots_waiting,
            telemetry_gaps,
            fleet_transitions,
            watchers,
            lessons_lost,
        }
    }

    /// Shows prices as well.
    pub(crate) fn register_prices(&mut self, prices: PriceGauges) {
        self.metered.register_collector(Box::new(prices));
    }

    /// OpenMetrics text.
    pub(crate) fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut out = String::new();
        text::encode(&mut out, &self.metered)?;
        Ok(out)
    }
}

/// Counts something in a gauge while it is there.
#[derive(Debug)]
pub(crate) struct Present {
    gauge: Gauge,
}

impl Present {
    pub(crate) fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self { gauge: gauge.clone() }
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}

/// What is read at the scrape.
#[derive(Debug)]
struct Now {
    repository: Arc<Repository>,
    agents: Arc<Registry>,
    stats: Arc<Stats>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AttemptLabels {
    deployment: String,
    virtual_model: String,
    outcome: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DeploymentLabels {
    deployment: String,
    virtual_model: String,
}

impl Collector for Now {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let forced = self.repository.verdicts().iter().count() as i64;
        let open = self.repository.verdicts();
        let open = open.fleet().filter(|one| one.forced.is_none() && one.record.state != State::Closed);
        let open = open.count() as i64;
        let drills = self.repository.faults().iter().count() as i64;
        let drains = self.repository.drains().iter().count() as i64;
        let history = self.stats.occupied();
        let writable = i64::from(!matches!(self.repository.health(), StoreHealth::ReadOnly { .. }));
        for (name, help, value) in [
            (
                "config_revision",
                "Revision of the configuration",
                self.repository.state().version.revision as i64,
            ),
            ("agents_connected", "Agents with an open Sync stream", self.agents.connected() as i64),
            ("breakers_forced", "Breakers that an operator forces", forced),
            ("breakers_open", "Breakers that are not closed for the fleet", open),
            ("faults_active", "Drills that agents are told to make", drills),
            ("drains_requested", "Agents that an operator takes out of service", drains),
            ("store_writable", "1 while the store takes writes", writable),
            ("history_rows", "Rows of counts by time", history.rows as i64),
            ("history_bytes", "Bytes of counts by time", history.bytes as i64),
        ] {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        let dropped = ConstCounter::new(history.dropped);
        let help = "Rows of counts by time that were dropped before their time, for want of room";
        let kind = dropped.metric_type();
        dropped.encode(encoder.encode_descriptor("history_rows_dropped", help, None, kind)?)?;
        self.fleet(&mut encoder)
    }
}

impl Now {
    /// What all agents reported since the store was made.
    fn fleet(&self, encoder: &mut DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let mut rows = self.stats.totals(|_| true);
        rows.sort_by(|one, other| one.0.cmp(&other.0));
        let attempts = Counted::new("fleet_attempts", "Attempts that ended, by outcome");
        let attempts = attempts.rows(rows.iter().flat_map(|(key, totals)| {
            totals.outcomes().map(|(outcome, count)| {
                let labels = AttemptLabels {
                    deployment: key.deployment.clone(),
                    virtual_model: key.model.clone(),
                    outcome: class_name(outcome),
                };
                (labels, count)
            })
        }));
        attempts.encode(encoder)?;
        let by_key = |count: fn(&crate::stats::totals::Totals) -> u64| {
            rows.iter().map(move |(key, totals)| {
                let labels =
                    DeploymentLabels { deployment: key.deployment.clone(), virtual_model: key.model.clone() };
                (labels, count(totals))
            })
        };
        Counted::new("fleet_input_tokens", "Input tokens")
            .rows(by_key(|totals| totals.input_tokens))
            .encode(encoder)?;
        Counted::new("fleet_output_tokens", "Output tokens")
            .rows(by_key(|totals| totals.output_tokens))
            .encode(encoder)?;
        let cost = Counted::new("fleet_cost_nano_usd", "Cost in nano-dollars");
        cost.rows(by_key(|totals| totals.cost_nano_usd)).encode(encoder)
    }
}

/// A counter with labels whose values are known already.
struct Counted<L> {
    name: &'static str,
    help: &'static str,
    rows: Vec<(L, u64)>,
}

impl<L: EncodeLabelSet> Counted<L> {
    fn new(name: &'static str, help: &'static str) -> Self {
        Self { name, help, rows: Vec::new() }
    }

    fn rows(mut self, rows: impl Iterator<Item = (L, u64)>) -> Self {
        self.rows = rows.collect();
        self
    }

    fn encode(self, encoder: &mut DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let kind = prometheus_client::metrics::MetricType::Counter;
        let mut metric = encoder.encode_descriptor(self.name, self.help, None, kind)?;
        for (labels, count) in &self.rows {
            ConstCounter::new(*count).encode(metric.encode_family(labels)?)?;
        }
        Ok(())
    }
}

/// The name of an outcome class without its prefix, in lower case.
pub(crate) fn class_name(class: OutcomeClass) -> String {
    let name = class.as_str_name();
    name.strip_prefix("OUTCOME_CLASS_").unwrap_or(name).to_lowercase()
}
