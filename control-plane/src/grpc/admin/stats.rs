//! GetStats: what agents counted, by deployment.

use std::{collections::BTreeMap, time::Duration};

use tonic::Status;
use trunkline_proto::{
    admin::v1::{GetStatsRequest, GetStatsResponse, Percentiles, StatsRow},
    status,
    types::v1::{CostSource, OutcomeClass},
};
use trunkline_routing::histogram::Histogram;

use crate::{
    grpc::{Context, wire_duration},
    metrics::class_name,
    stats::{WINDOW_MAX, totals::Totals},
};

pub(super) fn get(context: &Context, request: &GetStatsRequest) -> Result<GetStatsResponse, Status> {
    let window = request.window.map(window).transpose()?;
    let state = context.repository.state();
    let mut rows: BTreeMap<String, Totals> = state
        .table
        .deployments
        .iter()
        .map(|deployment| (deployment.name.to_string(), Totals::default()))
        .collect();
    let model = request.virtual_model.as_str();
    for (key, totals) in context.stats.select(window, |key| model.is_empty() || key.model == model) {
        rows.entry(key.deployment).or_default().merge(&totals);
    }
    Ok(GetStatsResponse {
        rows: rows.into_iter().map(|(deployment, totals)| row(deployment, &totals)).collect(),
    })
}

fn window(window: prost_types::Duration) -> Result<Duration, Status> {
    let window = Duration::try_from(window).ok().filter(|window| !window.is_zero() && *window <= WINDOW_MAX);
    window.ok_or_else(|| {
        status::invalid_field("window", "must be more than 0 and at most 31 days; leave it out for all time")
    })
}

fn row(deployment: String, totals: &Totals) -> StatsRow {
    let cost_source = match (totals.usage_from_provider > 0, totals.usage_estimated > 0) {
        (true, true) => CostSource::Mixed,
        (true, false) => CostSource::Provider,
        (false, true) => CostSource::Estimated,
        (false, false) => CostSource::Unspecified,
    };
    let (successes, errors): (Vec<_>, Vec<_>) =
        totals.outcomes().partition(|(class, _)| *class == OutcomeClass::Ok);
    StatsRow {
        deployment,
        attempts: totals.attempts(),
        successes: successes.iter().map(|(_, count)| count).sum(),
        errors_by_class: errors.into_iter().map(|(class, count)| (class_name(class), count)).collect(),
        input_tokens: totals.input_tokens,
        output_tokens: totals.output_tokens,
        cost_nano_usd: totals.cost_nano_usd,
        cost_source: cost_source.into(),
        cached_input_tokens: totals.cached_input_tokens,
        unpriced_attempts: totals.unpriced,
        ttft: percentiles(&totals.ttft),
        duration: percentiles(&totals.duration),
        faulted_attempts: 0,
    }
}

fn percentiles(histogram: &Histogram) -> Option<Percentiles> {
    let at = |share| histogram.quantile(share).map(|micros| wire_duration(Duration::from_micros(micros)));
    Some(Percentiles { p50: Some(at(0.5)?), p95: at(0.95), p99: at(0.99) })
}
