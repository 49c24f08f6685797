//! Prices: what is written at a deployment, and entries that begin at some time.

use std::collections::BTreeMap;

use prost_types::Timestamp;
use trunkline_routing::{
    money::{Price, PriceTier, Rates},
    price::{Entry, Schedule},
    table::DeploymentIndex,
};

use super::{
    field,
    table::{Known, Names},
};
use crate::{
    problems::{Path, Problems},
    types::v1::{self, PriceSource},
};

/// Most entries of each source. As many as there can be virtual models.
pub const PRICE_ENTRIES_MAX: usize = 10_000;

/// Most tiers of a price. Providers have one or two.
const TIERS_MAX: usize = 8;

/// The first second of the year 10000: what protobuf's Timestamp ends before.
const SECONDS_END: i64 = 253_402_300_800;

const NANOS_PER_MS: i32 = 1_000_000;

/// A price as it is written at a deployment or in an entry.
pub(super) fn price(wire: &v1::Price, path: &Path<'_>, problems: &mut Problems) -> Option<Price> {
    let base = rates(
        [&wire.input_usd_per_mtok, &wire.cached_input_usd_per_mtok, &wire.output_usd_per_mtok],
        "leave the whole price out if unknown",
        path,
        problems,
    );
    field::check_count(wire.tiers.len(), 0..=TIERS_MAX, &path.field("tiers"), problems);
    let mut tiers: Vec<PriceTier> = Vec::new();
    for (position, tier) in wire.tiers.iter().enumerate() {
        let path = path.item("tiers", position);
        let above_input_tokens = tier.above_input_tokens;
        let above = path.field("above_input_tokens");
        if above_input_tokens == 0 {
            problems.push(above, "is required, as in 200000");
        } else if let Some(before) = tiers.last().filter(|one| one.above_input_tokens >= above_input_tokens) {
            problems.push(above, format!("must be more than that before, {}", before.above_input_tokens));
        }
        let written = [&tier.input_usd_per_mtok, &tier.cached_input_usd_per_mtok, &tier.output_usd_per_mtok];
        let rates = rates(written, "leave the whole tier out if it has no price", &path, problems);
        tiers.extend(rates.map(|rates| PriceTier { above_input_tokens, rates }));
    }
    Some(Price { base: base?, tiers: tiers.into() })
}

/// `written`: input, cached input, output.
fn rates(written: [&String; 3], advice: &str, path: &Path<'_>, problems: &mut Problems) -> Option<Rates> {
    let mut usd = |text: &str, name, required| {
        let path = path.field(name);
        if required && text.is_empty() {
            problems.push(path, format!("is required, as in 0.15; {advice}"));
            return None;
        }
        field::usd(text, &path, problems)
    };
    let input = usd(written[0], "input_usd_per_mtok", true);
    let cached = usd(written[1], "cached_input_usd_per_mtok", false);
    let output = usd(written[2], "output_usd_per_mtok", true);
    let (input, output) = input.zip(output)?;
    Some(Rates { input, cached_input: cached.unwrap_or(input), output })
}

/// Checks all entries; the answer is those that may count, by deployment.
pub(super) fn entries(
    wire: &[v1::PriceEntry],
    known: &Known<'_>,
    problems: &mut Problems,
) -> BTreeMap<DeploymentIndex, Vec<Entry>> {
    check_counts(wire, problems);
    let mut names = Names::default();
    let mut begins = BTreeMap::new();
    let mut found: BTreeMap<DeploymentIndex, Vec<Entry>> = BTreeMap::new();
    // Of two that begin at the same time the later one in the schedule counts: the
    // operator's.
    let (feed, own): (Vec<_>, Vec<_>) = wire.iter().enumerate().partition(|(_, one)| is_from_feed(one));
    for (position, one) in feed.into_iter().chain(own) {
        let path = Path::Root.item("price_entries", position);
        names.insert(&one.name, "price_entries", position, &path, problems);
        check_source(one, &path, problems);
        let deployment = known.deployments.get(&one.deployment);
        if one.deployment.is_empty() {
            problems.push(path.field("deployment"), "is required, as in openai/gpt-4o-mini");
        } else if deployment.is_none() {
            let message = format!("no deployment is called {}", field::quoted(&one.deployment));
            problems.push(path.field("deployment"), message);
        }
        let valid_from = unix_ms(one.valid_from.as_ref(), &path.field("valid_from"), problems);
        if one.price.is_none() {
            problems.push(path.field("price"), "is required");
        }
        let price = one.price.as_ref().and_then(|one| price(one, &path.field("price"), problems));
        let Some(((deployment, price), valid_from_unix_ms)) = deployment.zip(price).zip(valid_from) else {
            continue;
        };
        if !is_from_feed(one)
            && let Some(first) = begins.insert((*deployment, valid_from_unix_ms), position)
        {
            let message = format!("is that of price_entries[{first}] for the same deployment");
            problems.push(path.field("valid_from"), message);
        }
        if one.held.is_empty() {
            found.entry(*deployment).or_default().push(Entry { valid_from_unix_ms, price });
        }
    }
    found
}

fn check_counts(wire: &[v1::PriceEntry], problems: &mut Problems) {
    let from_feed = wire.iter().filter(|one| is_from_feed(one)).count();
    let path = Path::Root.field("price_entries");
    field::check_count(wire.len() - from_feed, 0..=PRICE_ENTRIES_MAX, &path, problems);
    field::check_count(from_feed, 0..=3 * PRICE_ENTRIES_MAX, &path, problems);
}

fn check_source(wire: &v1::PriceEntry, path: &Path<'_>, problems: &mut Problems) {
    let name = path.field("name");
    match PriceSource::try_from(wire.source) {
        Ok(PriceSource::Unspecified | PriceSource::Operator) => {
            field::check_name(&wire.name, "", &name, problems);
            for (field, text) in [("feed_model", &wire.feed_model), ("held", &wire.held)] {
                if !text.is_empty() {
                    problems.push(path.field(field), "is set by the control plane, for prices from a feed");
                }
            }
        }
        Ok(PriceSource::Feed) if wire.name.is_empty() => problems.push(name, "is required"),
        Ok(PriceSource::Feed) => {}
        Err(_) => check_known(wire.source, &path.field("source"), problems),
    }
}

/// Only sources that the contract names.
pub(super) fn check_known(source: i32, path: &Path<'_>, problems: &mut Problems) {
    if PriceSource::try_from(source).is_err() {
        field::unknown_enum(source, path, problems);
    }
}

/// Whether it is state from a feed, no part of a document.
pub fn is_from_feed(entry: &v1::PriceEntry) -> bool {
    entry.source == PriceSource::Feed as i32
}

/// When it begins, in ms since 1970. None: no time.
fn unix_ms(wire: Option<&Timestamp>, path: &Path<'_>, problems: &mut Problems) -> Option<u64> {
    let Some(wire) = wire else { return Some(0) };
    let seconds = u64::try_from(wire.seconds).ok().filter(|_| wire.seconds < SECONDS_END);
    let nanos = Some(wire.nanos).filter(|nanos| (0..1_000_000_000).contains(nanos));
    let Some((seconds, nanos)) = seconds.zip(nanos) else {
        problems.push(path, "is not a time from 1970 to 9999");
        return None;
    };
    if nanos % NANOS_PER_MS != 0 {
        problems.push(path, "is finer than a millisecond");
        return None;
    }
    Some(seconds * 1_000 + u64::from((nanos / NANOS_PER_MS).unsigned_abs()))
}

/// When an entry that was checked begins, in ms since 1970; 0: since ever.
pub fn valid_from_unix_ms(entry: &v1::PriceEntry) -> u64 {
    unix_ms(entry.valid_from.as_ref(), &Path::Root, &mut Problems::default()).unwrap_or(0)
}

/// A price that was checked, as the decision core has it. None: it is not right.
pub fn checked_price(wire: &v1::Price) -> Option<Price> {
    let mut problems = Problems::default();
    let price = price(wire, &Path::Root, &mut problems);
    price.filter(|_| problems.is_empty())
}

/// The price as it is written.
pub fn wire_price(price: &Price) -> v1::Price {
    let [input, cached, output] = written(&price.base);
    v1::Price {
        input_usd_per_mtok: input,
        cached_input_usd_per_mtok: cached,
        output_usd_per_mtok: output,
        tiers: price.tiers.iter().map(wire_tier).collect(),
    }
}

fn wire_tier(tier: &PriceTier) -> v1::PriceTier {
    let [input, cached, output] = written(&tier.rates);
    v1::PriceTier {
        above_input_tokens: tier.above_input_tokens,
        input_usd_per_mtok: input,
        cached_input_usd_per_mtok: cached,
        output_usd_per_mtok: output,
    }
}

fn written(rates: &Rates) -> [String; 3] {
    let cached = if rates.cached_input == rates.input { String::new() } else { usd(rates.cached_input) };
    [usd(rates.input), cached, usd(rates.output)]
}

/// Nano-dollars as dollars, exact: `0.15`.
pub fn usd(nanos: u64) -> String {
    const NANOS: u64 = 1_000_000_000;
    let (whole, rest) = (nanos / NANOS, nanos % NANOS);
    if rest == 0 {
        return whole.to_string();
    }
    let rest = format!("{rest:09}");
    format!("{whole}.{}", rest.trim_end_matches('0'))
}

/// The prices of a deployment: entries before what is written at it.
pub(super) fn schedule(inline: Option<Price>, entries: Vec<Entry>) -> Schedule {
    let inline = inline.map(|price| Entry { valid_from_unix_ms: 0, price });
    Schedule::new(inline.into_iter().chain(entries).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nano_dollars_are_written_exactly() {
        for (nanos, expect) in [
            (0, "0"),
            (150_000_000, "0.15"),
            (1, "0.000000001"),
            (10_000_000_000, "10"),
            (1_500_000_000, "1.5"),
        ] {
            assert_eq!(usd(nanos), expect);
            assert_eq!(field::nano_usd(expect), Ok(nanos));
        }
    }

    #[test]
    fn a_price_survives_being_written() {
        let rates = |factor| Rates { input: factor * 3, cached_input: factor, output: factor * 7 };
        let same = Rates { input: 5, cached_input: 5, output: 9 };
        let tiers = [(128_000, rates(11)), (200_000, same)];
        let tiers = tiers.map(|(above_input_tokens, rates)| PriceTier { above_input_tokens, rates });
        let price = Price { base: rates(1_000_000_007), tiers: tiers.into() };
        assert_eq!(checked_price(&wire_price(&price)), Some(price));
    }

    #[test]
    fn times_are_whole_milliseconds_from_1970_on() {
        let read = |seconds, nanos| {
            let mut problems = Problems::default();
            let found = unix_ms(Some(&Timestamp { seconds, nanos }), &Path::Root.field("t"), &mut problems);
            found.ok_or_else(|| problems.to_string())
        };
        assert_eq!(read(1_700_000_000, 5_000_000), Ok(1_700_000_000_005));
        assert_eq!(read(-1, 0), Err("t: is not a time from 1970 to 9999".to_owned()));
        assert_eq!(read(SECONDS_END, 0), Err("t: is not a time from 1970 to 9999".to_owned()));
        assert_eq!(read(1, -1), Err("t: is not a time from 1970 to 9999".to_owned()));
        assert_eq!(read(1, 1), Err("t: is finer than a millisecond".to_owned()));
    }
}
