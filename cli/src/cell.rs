//! What stands in the cells of tables: numbers, times and names as people read them.

use std::collections::HashMap;

use prost_types::{Duration, Timestamp};
use trunkline_proto::{
    admin::v1::{Percentiles, StatsRow},
    types::v1::CostSource,
};

/// Stands for what is not known or does not apply.
pub(crate) const NOTHING: &str = "-";

/// In US dollars; `~` before an estimate, and what could not be priced.
pub(crate) fn cost(row: &StatsRow) -> String {
    let dollars = row.cost_nano_usd / 1_000_000_000;
    // Rounded up to microdollars, so that a cost is never shown as none.
    let micros = (row.cost_nano_usd % 1_000_000_000).div_ceil(1_000);
    let (dollars, micros) = if micros == 1_000_000 { (dollars + 1, 0) } else { (dollars, micros) };
    let sign = match row.cost_source() {
        CostSource::Estimated | CostSource::Mixed => "~",
        CostSource::Provider | CostSource::Unspecified => "",
    };
    match row.unpriced_attempts {
        0 => format!("{sign}{dollars}.{micros:06}"),
        unpriced => format!("{sign}{dollars}.{micros:06} + {unpriced} unpriced"),
    }
}

pub(crate) fn percentiles(percentiles: Option<&Percentiles>) -> String {
    let Some(percentiles) = percentiles else {
        return NOTHING.to_owned();
    };
    format!("{} / {}", milliseconds(percentiles.p50), milliseconds(percentiles.p95))
}

pub(crate) fn milliseconds(duration: Option<Duration>) -> String {
    let Some(duration) = duration else {
        return NOTHING.to_owned();
    };
    let milliseconds = duration.seconds.saturating_mul(1_000) + i64::from(duration.nanos) / 1_000_000;
    if milliseconds < 10_000 { format!("{milliseconds} ms") } else { format!("{} s", milliseconds / 1_000) }
}

/// In UTC, to the second.
pub(crate) fn time(time: Option<Timestamp>) -> String {
    time.map_or_else(|| NOTHING.to_owned(), |time| Timestamp { nanos: 0, ..time }.to_string())
}

/// The most frequent first.
pub(crate) fn errors(by_class: &HashMap<String, u64>) -> String {
    let mut counts: Vec<_> = by_class.iter().filter(|(_, count)| **count > 0).collect();
    if counts.is_empty() {
        return NOTHING.to_owned();
    }
    counts.sort_by(|(name, count), (other, others)| others.cmp(count).then(name.cmp(other)));
    counts.iter().map(|(name, count)| format!("{name}:{count}")).collect::<Vec<_>>().join(" ")
}

/// `FORCED_OPEN` with its prefix becomes `forced open`.
pub(crate) fn short_name(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_lowercase().replace('_', " ")
}

pub(crate) fn or_nothing(text: &str) -> String {
    if text.is_empty() { NOTHING.to_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_round_up_and_say_what_is_missing() {
        let check = |cost_nano_usd: u64, source: CostSource, unpriced_attempts: u64, expected: &str| {
            let cost_source = source.into();
            let row = StatsRow { cost_nano_usd, cost_source, unpriced_attempts, ..StatsRow::default() };
            assert_eq!(cost(&row), expected);
        };
        check(0, CostSource::Unspecified, 0, "0.000000");
        check(1, CostSource::Provider, 0, "0.000001");
        check(999_999_999, CostSource::Provider, 0, "1.000000");
        check(2_500_000_000, CostSource::Mixed, 0, "~2.500000");
        check(0, CostSource::Unspecified, 7, "0.000000 + 7 unpriced");
    }

    #[test]
    fn times_are_shown_to_the_second() {
        assert_eq!(time(Some(Timestamp { seconds: 1_795_363_200, nanos: 7 })), "2026-11-22T16:00:00Z");
        assert_eq!(time(None), "-");
    }
}
