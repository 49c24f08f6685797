//! `get stats`: counts of each deployment.

use std::time::{Duration, SystemTime};

use trunkline_proto::admin::v1::{GetStatsRequest, GetStatsResponse};

use crate::{
    args::StatsArgs,
    cell::{cost, errors, percentiles},
    failure::Failure,
    table::{Align, render},
};

pub(super) fn request(args: StatsArgs, now: SystemTime) -> Result<GetStatsRequest, Failure> {
    let StatsArgs { window, since, until, virtual_model } = args;
    let (window, end_time) = match since {
        None => (window, None),
        Some(since) => {
            let start = since.on(now);
            let end = until.map_or_else(|| now.into(), |until| until.on(now));
            // Conversions fail only for times before 1970.
            let length = SystemTime::try_from(end)
                .ok()
                .zip(SystemTime::try_from(start).ok())
                .and_then(|(end, start)| end.duration_since(start).ok())
                .filter(|length| !length.is_zero());
            let Some(length) = length else {
                return Err(Failure::wrong_input(format!(
                    "--since {start} is not before --until {end}; the earlier one is --since"
                )));
            };
            (Some(length), until.is_some().then_some(end))
        }
    };
    let window = window.map(wire).transpose()?;
    Ok(GetStatsRequest { window, virtual_model, end_time })
}

fn wire(window: Duration) -> Result<prost_types::Duration, Failure> {
    prost_types::Duration::try_from(window)
        .map_err(|_| Failure::wrong_input(format!("--window {window:?}: at most 400 days")))
}

pub(super) fn table(stats: &GetStatsResponse) -> String {
    let columns = [
        ("DEPLOYMENT", Align::Left),
        ("ATTEMPTS", Align::Right),
        ("OK", Align::Right),
        ("TOKENS IN", Align::Right),
        ("OUT", Align::Right),
        ("COST USD", Align::Right),
        ("TTFT P50/P95", Align::Right),
        ("DURATION P50/P95", Align::Right),
        ("ERRORS", Align::Left),
    ];
    let rows: Vec<_> = stats
        .rows
        .iter()
        .map(|row| {
            [
                row.deployment.clone(),
                row.attempts.to_string(),
                row.successes.to_string(),
                row.input_tokens.to_string(),
                row.output_tokens.to_string(),
                cost(row),
                percentiles(row.ttft.as_ref()),
                percentiles(row.duration.as_ref()),
                errors(&row.errors_by_class),
            ]
        })
        .collect();
    if rows.is_empty() {
        return "no deployment is configured or was used yet\n".to_owned();
    }
    render(columns, &rows)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use prost_types::Timestamp;
    use trunkline_proto::{
        admin::v1::{Percentiles, StatsRow},
        types::v1::CostSource,
    };

    use super::*;
    use crate::args::Moment;

    fn time(seconds: i64, nanos: i32) -> prost_types::Duration {
        prost_types::Duration { seconds, nanos }
    }

    #[test]
    fn stats_are_one_line_per_deployment() {
        let times =
            Percentiles { p50: Some(time(0, 120_000_000)), p95: Some(time(12, 0)), p99: Some(time(12, 0)) };
        let busy = StatsRow {
            deployment: "swift/sim-large".to_owned(),
            attempts: 100,
            successes: 96,
            errors_by_class: HashMap::from([("timeout".to_owned(), 1), ("rate_limited".to_owned(), 3)]),
            input_tokens: 900,
            output_tokens: 5_000,
            cost_nano_usd: 1_234_567_001,
            cost_source: CostSource::Provider.into(),
            ttft: Some(times),
            ..StatsRow::default()
        };
        let idle = StatsRow { deployment: "a/b".to_owned(), ..StatsRow::default() };
        let table = super::table(&GetStatsResponse { rows: vec![busy, idle] });
        let lines: Vec<_> = table.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[1].contains("1.234568"), "{table}");
        assert!(lines[1].contains("120 ms / 12 s"), "{table}");
        assert!(lines[1].ends_with("rate_limited:3 timeout:1"), "{table}");
        assert!(lines[2].contains("0.000000") && lines[2].ends_with('-'), "{table}");
    }

    #[test]
    fn since_and_until_become_a_window_and_its_end() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(10_000);
        let check = |since: Option<u64>, until: Option<u64>| {
            let ago = |seconds: u64| Moment::Ago(Duration::from_secs(seconds));
            let args = StatsArgs {
                window: None,
                since: since.map(ago),
                until: until.map(ago),
                virtual_model: String::new(),
            };
            request(args, now)
        };
        let all = check(None, None).unwrap();
        assert_eq!((all.window, all.end_time), (None, None));
        let last = check(Some(3_600), None).unwrap();
        assert_eq!((last.window, last.end_time), (Some(time(3_600, 0)), None));
        let past = check(Some(3_600), Some(600)).unwrap();
        assert_eq!(past.window, Some(time(3_000, 0)));
        assert_eq!(past.end_time, Some(Timestamp { seconds: 9_400, nanos: 0 }));
        for (since, until) in [(600, 3_600), (600, 600)] {
            assert!(check(Some(since), Some(until)).unwrap_err().to_string().contains("--since"));
        }
    }
}
