//! `get history`: counts of each deployment over time.

use std::time::SystemTime;

use trunkline_proto::admin::v1::{QueryHistoryRequest, QueryHistoryResponse};

use crate::{
    args::HistoryArgs,
    cell::{cost, errors, percentiles, time},
    client::ControlPlane,
    failure::Failure,
    table::{Align, render},
};

/// Points in a page: all that a control plane gives at once.
const PAGE_SIZE: i32 = 10_000;

/// Points in all. More is no table any more, and 100 MB of memory.
const POINTS_MAX: usize = 200_000;

/// All pages in one.
pub(super) async fn all(
    control_plane: &ControlPlane,
    args: &HistoryArgs,
    now: SystemTime,
) -> Result<QueryHistoryResponse, Failure> {
    let request = request(args, now)?;
    let mut all = QueryHistoryResponse::default();
    loop {
        let request = QueryHistoryRequest { page_token: all.next_page_token, ..request.clone() };
        let page =
            control_plane.call(request, async |admin, request| admin.query_history(request).await).await?;
        all.resolution = page.resolution;
        all.points.extend(page.points);
        all.next_page_token = page.next_page_token;
        if all.next_page_token.is_empty() {
            return Ok(all);
        }
        if all.points.len() >= POINTS_MAX {
            return Err(Failure::failed(format!(
                "there are more than {POINTS_MAX} points; ask for less time, one --deployment, or a longer --resolution"
            )));
        }
    }
}

fn request(args: &HistoryArgs, now: SystemTime) -> Result<QueryHistoryRequest, Failure> {
    let resolution = args.resolution.map(prost_types::Duration::try_from).transpose();
    Ok(QueryHistoryRequest {
        start_time: Some(args.since.on(now)),
        end_time: args.until.map(|until| until.on(now)),
        resolution: resolution.map_err(|_| Failure::wrong_input("--resolution: write 10s, 1m or 1h"))?,
        deployment: args.deployment.clone(),
        virtual_model: args.virtual_model.clone(),
        page_size: PAGE_SIZE,
        page_token: String::new(),
    })
}

pub(super) fn table(history: &QueryHistoryResponse) -> String {
    let columns = [
        ("FROM", Align::Left),
        ("DEPLOYMENT", Align::Left),
        ("ATTEMPTS", Align::Right),
        ("OK", Align::Right),
        ("IN DRILLS", Align::Right),
        ("COST USD", Align::Right),
        ("TTFT P50/P95", Align::Right),
        ("DURATION P50/P95", Align::Right),
        ("ERRORS", Align::Left),
    ];
    let rows: Vec<_> = history
        .points
        .iter()
        .map(|point| {
            let row = point.row.clone().unwrap_or_default();
            [
                time(point.start_time),
                row.deployment.clone(),
                row.attempts.to_string(),
                row.successes.to_string(),
                row.faulted_attempts.to_string(),
                cost(&row),
                percentiles(row.ttft.as_ref()),
                percentiles(row.duration.as_ref()),
                errors(&row.errors_by_class),
            ]
        })
        .collect();
    if rows.is_empty() {
        return "no attempts in that time\n".to_owned();
    }
    let seconds = history.resolution.map_or(0, |resolution| resolution.seconds);
    render(columns, &rows) + &format!("in steps of {seconds} s\n")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prost_types::Timestamp;
    use trunkline_proto::admin::v1::{HistoryPoint, StatsRow};

    use super::*;
    use crate::args::Moment;

    #[test]
    fn points_say_when_and_the_table_how_long_each_is() {
        let row = StatsRow {
            deployment: "a/b".to_owned(),
            attempts: 7,
            faulted_attempts: 2,
            ..StatsRow::default()
        };
        let point =
            HistoryPoint { start_time: Some(Timestamp { seconds: 1_795_363_200, nanos: 0 }), row: Some(row) };
        let history = QueryHistoryResponse {
            resolution: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
            points: vec![point],
            next_page_token: String::new(),
        };
        let table = table(&history);
        assert!(table.contains("2026-11-22T16:00:00Z  a/b "), "{table}");
        assert!(table.ends_with("in steps of 60 s\n"), "{table}");
        assert_eq!(super::table(&QueryHistoryResponse::default()), "no attempts in that time\n");
    }

    #[test]
    fn request_has_the_times_that_were_typed() {
        let args = HistoryArgs {
            since: Moment::Ago(Duration::from_secs(3_600)),
            until: None,
            resolution: Some(Duration::from_mins(1)),
            deployment: "a/b".to_owned(),
            virtual_model: String::new(),
        };
        let request = request(&args, SystemTime::UNIX_EPOCH + Duration::from_secs(10_000)).unwrap();
        assert_eq!(request.start_time.unwrap().seconds, 6_400);
        assert_eq!(request.end_time, None);
        assert_eq!(request.resolution.unwrap().seconds, 60);
    }
}
