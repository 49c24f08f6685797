//! GetStats: what agents counted, by deployment.

use std::collections::BTreeMap;
use std::time::Duration;

use prost_types::Timestamp;
use tonic::Status;
use trunkline_proto::{
    admin::v1::{GetStatsRequest, GetStatsResponse, Percentiles, StatsRow},
    status,
    types::v1::{CostSource, OutcomeClass},
};
use trunkline_routing::histogram::Histogram;

use crate::{
    grpc::{Context, refuse, wire_duration},
    metrics::class_name,
    stats::{level::Level, totals::Totals},
};

pub(super) async fn get(context: &Context, request: &GetStatsRequest) -> Result<GetStatsResponse, Status> {
    let window = window(context, request)?;
    context.stats.check_loaded().map_err(|error| refuse::commit(&error))?;
    let state = context.repository.state();
    let mut rows: BTreeMap<String, Totals> = state
        .table
        .deployments
        .iter()
        .map(|deployment| (deployment.name.to_string(), Totals::default()))
        .collect();
    let model = request.virtual_model.as_str();
    let wanted = |key: &crate::stats::Key| model.is_empty() || key.model == model;
    let counts = match window {
        None => context.stats.totals(wanted),
        Some((from, to)) => {
            let sum = context.stats.sum(from, to, wanted).await;
            sum.map_err(|error| refuse::query(&error))?
        }
    };
    for (key, totals) in counts {
        rows.entry(key.deployment).or_default().merge(&totals);
    }
    Ok(GetStatsResponse {
        rows: rows.into_iter().map(|(deployment, totals)| row(deployment, &totals)).collect(),
    })
}

/// From when until when, in seconds since 1970. None: since the store was made.
fn window(context: &Context, request: &GetStatsRequest) -> Result<Option<(u64, u64)>, Status> {
    let Some(window) = request.window else {
        return match request.end_time {
            None => Ok(None),
            Some(_) => {
                Err(status::invalid_field("end_time", "is the end of a window: give the window as well"))
            }
        };
    };
    let longest = Duration::from_secs(Level::Hour.kept_secs());
    let window = Duration::try_from(window).ok().filter(|window| !window.is_zero() && *window <= longest);
    let Some(window) = window else {
        let why = "must be more than 0 and at most 400 days; leave it out for all time";
        return Err(status::invalid_field("window", why));
    };
    let now = context.stats.now();
    let end = match &request.end_time {
        Some(end) => seconds("end_time", end)?,
        // With the step that has just begun.
        None => now + 1,
    };
    // A part of a second is in a whole step anyway.
    let start = end.saturating_sub(window.as_secs() + u64::from(window.subsec_nanos() > 0));
    if request.end_time.is_some() && !context.stats.keeps(Level::Hour, start) {
        let why = "the window begins before what is kept, 400 days at most; end it later or make it shorter";
        return Err(status::invalid_field("end_time", why));
    }
    Ok(Some((start, end)))
}

/// A time of a request in whole seconds since 1970.
pub(super) fn seconds(field: &str, time: &Timestamp) -> Result<u64, Status> {
    let seconds = u64::try_from(time.seconds).ok();
    let valid = seconds.filter(|_| (0..1_000_000_000).contains(&time.nanos));
    valid.ok_or_else(|| status::invalid_field(field, "must be a time from 1970 on"))
}

pub(super) fn row(deployment: String, totals: &Totals) -> StatsRow {
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
        faulted_attempts: totals.faulted,
    }
}

fn percentiles(histogram: &Histogram) -> Option<Percentiles> {
    let at = |share| histogram.quantile(share).map(|micros| wire_duration(Duration::from_micros(micros)));
    Some(Percentiles { p50: Some(at(0.5)?), p95: at(0.95), p99: at(0.99) })
}
