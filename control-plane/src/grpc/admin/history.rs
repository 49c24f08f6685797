//! QueryHistory: what agents counted, step by step.

use std::time::Duration;

use prost::Message as _;
use prost_types::Timestamp;
use sha2::{Digest as _, Sha256};
use tonic::Status;
use trunkline_proto::{
    admin::v1::{HistoryPoint, QueryHistoryRequest, QueryHistoryResponse},
    status,
};

use super::{
    page::{hex, unhex},
    stats::{row, seconds},
};
use crate::{
    grpc::{Context, refuse, wire_duration},
    stats::{Key, Stats, level::Level, query::Page},
};

/// Used when the caller names no size.
const PAGE_SIZE_DEFAULT: usize = 1_000;

/// The most that one page holds: some 3 MB.
const PAGE_SIZE_MAX: usize = 10_000;

/// Steps that a chart can show. Without a resolution there are no more, if longer steps
/// can do it.
const STEPS_MAX: u64 = 1_000;

pub(super) async fn query(
    context: &Context,
    request: QueryHistoryRequest,
) -> Result<QueryHistoryResponse, Status> {
    let limit = match usize::try_from(request.page_size) {
        Err(_) => {
            return Err(status::invalid_field("page_size", "must not be negative; leave it out for 1,000"));
        }
        Ok(0) => PAGE_SIZE_DEFAULT,
        Ok(size) => size.min(PAGE_SIZE_MAX),
    };
    context.stats.check_loaded().map_err(|error| refuse::commit(&error))?;
    let conditions = conditions(&request);
    let page = if request.page_token.is_empty() {
        let (level, first, last) = span(&context.stats, &request)?;
        Page { level, from: (first, String::new()), last, limit }
    } else {
        let page = decode(&conditions, &request.page_token, limit);
        page.ok_or_else(|| {
            let why = "must be a next_page_token of a query with the same conditions";
            status::invalid_field("page_token", why)
        })?
    };
    let (level, last) = (page.level, page.last);
    let QueryHistoryRequest { deployment, virtual_model, .. } = request;
    let wanted = |key: &Key| {
        (deployment.is_empty() || key.deployment == deployment)
            && (virtual_model.is_empty() || key.model == virtual_model)
    };
    let found = context.stats.history(page, wanted).await;
    let (points, next) = found.map_err(|error| refuse::query(&error))?;
    let points = points.into_iter().map(|point| HistoryPoint {
        start_time: Some(Timestamp { seconds: point.start_secs as i64, nanos: 0 }),
        row: Some(row(point.deployment, &point.totals)),
    });
    Ok(QueryHistoryResponse {
        resolution: Some(wire_duration(Duration::from_secs(level.step_secs()))),
        points: points.collect(),
        next_page_token: next.map(|from| encode(&conditions, level, last, &from)).unwrap_or_default(),
    })
}

/// Which steps, from the first to the last.
fn span(stats: &Stats, request: &QueryHistoryRequest) -> Result<(Level, u32, u32), Status> {
    let now = stats.now();
    let Some(start) = &request.start_time else {
        return Err(status::invalid_field("start_time", "is required: from when on"));
    };
    let start = seconds("start_time", start)?;
    let end = request.end_time.as_ref().map(|end| seconds("end_time", end)).transpose()?;
    if start > end.unwrap_or(now) {
        let (field, why) = match end {
            Some(_) => ("end_time", "must not be before start_time"),
            None => ("start_time", "must not be in the future, unless end_time is later still"),
        };
        return Err(status::invalid_field(field, why));
    }
    // There is nothing after now.
    let end = end.unwrap_or(now).min(now.max(start));
    if !stats.keeps(Level::Hour, start) {
        let why = "is before what is kept, 400 days at most; start later";
        return Err(status::invalid_field("start_time", why));
    }
    let level = if let Some(resolution) = request.resolution {
        resolution_of(stats, resolution, start)?
    } else {
        let kept = |level: &Level| stats.keeps(*level, start);
        let few = |level: &Level| u64::from(level.step_at(end) - level.step_at(start)) < STEPS_MAX;
        let finest = Level::ALL.into_iter().find(|level| kept(level) && few(level));
        finest.unwrap_or(Level::Hour)
    };
    Ok((level, level.step_at(start), level.step_at(end)))
}

/// The level that was asked for, if it reaches back to `start`.
fn resolution_of(stats: &Stats, resolution: prost_types::Duration, start: u64) -> Result<Level, Status> {
    let wanted = Duration::try_from(resolution).ok();
    let level = Level::ALL.into_iter().find(|level| wanted == Some(Duration::from_secs(level.step_secs())));
    let Some(level) = level else {
        let why = "must be 10s, 60s or 3600s; leave it out for the one that fits";
        return Err(status::invalid_field("resolution", why));
    };
    if stats.keeps(level, start) {
        return Ok(level);
    }
    let kept = match level {
        Level::TenSeconds => "steps of 10 s are kept for 6 hours, and less when there are very many",
        Level::Minute => "steps of 1 min are kept for 7 days, and less when there are very many",
        Level::Hour => "steps of 1 h are kept for 400 days, and less when there are very many",
    };
    let why = format!("{kept}; start later, or leave it out for the finest that reaches back to start_time");
    Err(status::invalid_field("resolution", &why))
}

/// What must be the same on all pages, as a short text.
fn conditions(request: &QueryHistoryRequest) -> String {
    let conditions = QueryHistoryRequest { page_size: 0, page_token: String::new(), ..request.clone() };
    hex(&Sha256::digest(conditions.encode_to_vec())[..8])
}

fn encode(conditions: &str, level: Level, last: u32, (step, after): &(u32, String)) -> String {
    hex(format!("history\n{conditions}\n{}\n{last}\n{step}\n{after}", level.index()).as_bytes())
}

fn decode(conditions: &str, token: &str, limit: usize) -> Option<Page> {
    let text = String::from_utf8(unhex(token)?).ok()?;
    let mut parts = text.splitn(6, '\n');
    if parts.next()? != "history" || parts.next()? != conditions {
        return None;
    }
    let level = *Level::ALL.get(parts.next()?.parse::<usize>().ok()?)?;
    let last = parts.next()?.parse().ok()?;
    let step = parts.next()?.parse().ok()?;
    Some(Page { level, from: (step, parts.next()?.to_owned()), last, limit })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_goes_on_where_the_page_ended_under_the_same_conditions() {
        let mut request = QueryHistoryRequest { deployment: "p/d".into(), ..Default::default() };
        let conditions_then = conditions(&request);
        let token = encode(&conditions_then, Level::Minute, 90, &(70, "p/d".into()));
        request.page_size = 7;
        request.page_token.clone_from(&token);
        let page = Page { level: Level::Minute, from: (70, "p/d".into()), last: 90, limit: 7 };
        assert_eq!(decode(&conditions(&request), &token, 7), Some(page));
        request.deployment = "p/e".into();
        assert_eq!(decode(&conditions(&request), &token, 7), None);
        assert_eq!(decode(&conditions_then, "00", 7), None);
    }
}
