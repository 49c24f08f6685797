//! What a feed changes: pure, from the configuration and the feed to the entries that
//! there are afterwards.

use std::collections::BTreeMap;

use prost_types::Timestamp;
use trunkline_proto::{
    admin::v1::Config,
    convert,
    types::v1::{PriceEntry, PriceSource},
};
use trunkline_routing::{
    money::{Price, Rates},
    price::{Entry, Schedule},
};

use super::{
    feed::Feed,
    matching::{self, Matched, Named},
};

/// A price that is more than so many times the one before, or less than that part of it,
/// is held back: most such jumps are mistakes of the feed (a unit, a lost zero).
const JUMP: u64 = 4;

/// Entries of one deployment that count or counted: the newest, and the one before it for
/// agents whose clock is a little behind.
const KEPT: usize = 2;

/// What came of a feed.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// All price entries afterwards.
    pub(crate) entries: Vec<PriceEntry>,
    /// Deployments whose model is in the feed.
    pub(crate) matched: usize,
    /// The others, but those left out by the operator.
    pub(crate) unmatched: Vec<String>,
}

/// What `feed` makes of the price entries. `accept`: jumps are taken over as well.
pub(crate) fn plan(config: &Config, feed: &Feed, named: &Named, now_unix_ms: u64, accept: bool) -> Plan {
    let mut plan = Plan::default();
    let mut by_deployment: BTreeMap<&str, Vec<&PriceEntry>> = BTreeMap::new();
    for entry in &config.price_entries {
        by_deployment.entry(&entry.deployment).or_default().push(entry);
    }
    let mut touched = BTreeMap::new();
    for one in matching::matches(config, feed, named) {
        let Some((name, model)) = one.found else {
            plan.unmatched.push(one.deployment);
            continue;
        };
        plan.matched += 1;
        let entries = by_deployment.get(one.deployment.as_str()).map_or(&[][..], Vec::as_slice);
        let target = Target { matched: &one, name, price: &model.price, now_unix_ms, accept };
        touched.insert(one.deployment.clone(), target.settle(entries));
    }
    let others = config.price_entries.iter();
    let others = others.filter(|one| !convert::is_from_feed(one) || !touched.contains_key(&one.deployment));
    plan.entries = others.cloned().collect();
    plan.entries.extend(touched.into_values().flatten());
    plan
}

/// One deployment, and what the feed says of it.
struct Target<'a> {
    matched: &'a Matched<'a>,
    name: &'a str,
    price: &'a Price,
    now_unix_ms: u64,
    accept: bool,
}

impl Target<'_> {
    /// The deployment's entries from feeds as they are afterwards.
    fn settle(&self, entries: &[&PriceEntry]) -> Vec<PriceEntry> {
        let from_feed = entries.iter().filter(|one| convert::is_from_feed(one));
        let (mut counting, held): (Vec<PriceEntry>, Vec<PriceEntry>) =
            from_feed.map(|one| (*one).clone()).partition(|one| one.held.is_empty());
        counting.sort_by_key(convert::valid_from_unix_ms);
        let is_this = |one: &&PriceEntry| price_of(one).as_ref() == Some(self.price);
        if counting.last().as_ref().is_some_and(is_this) {
            // What was held back is not what the feed says any more.
            return counting;
        }
        let now = self.price_now(entries);
        let jump = if self.accept { None } else { jump(now.as_ref(), self.price) };
        if let Some(reason) = jump {
            let known = held.into_iter().find(|one| is_this(&one));
            counting.push(known.unwrap_or_else(|| PriceEntry { held: reason, ..self.entry() }));
            return counting;
        }
        counting.push(self.entry());
        counting.split_off(counting.len().saturating_sub(KEPT))
    }

    fn entry(&self) -> PriceEntry {
        PriceEntry {
            name: format!("feed:{}:{}", self.matched.deployment, self.now_unix_ms),
            deployment: self.matched.deployment.clone(),
            price: Some(convert::wire_price(self.price)),
            valid_from: Some(wire_time(self.now_unix_ms)),
            source: PriceSource::Feed.into(),
            feed_model: self.name.to_owned(),
            ..PriceEntry::default()
        }
    }

    /// What the deployment costs now, whoever said so.
    fn price_now(&self, entries: &[&PriceEntry]) -> Option<Price> {
        let inline = self.matched.wire.price.as_ref().and_then(convert::checked_price);
        let inline = inline.map(|price| Entry { valid_from_unix_ms: 0, price });
        let counting = entries.iter().filter(|one| one.held.is_empty());
        let entries = counting.filter_map(|one| {
            Some(Entry { valid_from_unix_ms: convert::valid_from_unix_ms(one), price: price_of(one)? })
        });
        Schedule::new(inline.into_iter().chain(entries).collect()).at(self.now_unix_ms).cloned()
    }
}

/// An accepted entry: it counts from now on.
pub(crate) fn accepted(entry: &PriceEntry, now_unix_ms: u64) -> PriceEntry {
    PriceEntry { held: String::new(), valid_from: Some(wire_time(now_unix_ms)), ..entry.clone() }
}

fn price_of(entry: &PriceEntry) -> Option<Price> {
    entry.price.as_ref().and_then(convert::checked_price)
}

fn wire_time(unix_ms: u64) -> Timestamp {
    let nanos = (unix_ms % 1_000) * 1_000_000;
    Timestamp {
        seconds: i64::try_from(unix_ms / 1_000).unwrap_or(i64::MAX),
        nanos: i32::try_from(nanos).unwrap_or(0),
    }
}

/// Why a price is not taken over without being asked for. None: it is plausible.
fn jump(before: Option<&Price>, price: &Price) -> Option<String> {
    let free = |rates: &Rates| rates.input == 0 && rates.output == 0;
    let Some(before) = before else {
        return free(&price.base).then(|| "the price is 0, and none is known so far".to_owned());
    };
    // Where either price begins another tier, and before all tiers.
    let tiers = before.tiers.iter().chain(&price.tiers).map(|tier| u64::from(tier.above_input_tokens) + 1);
    std::iter::once(1).chain(tiers).find_map(|input_tokens| {
        let (was, is) = (before.rates(input_tokens), price.rates(input_tokens));
        let parts = [
            ("input", was.input, is.input),
            ("cached input", was.cached_input, is.cached_input),
            ("output", was.output, is.output),
        ];
        let (part, was, is) = parts.into_iter().find(|(_, was, is)| jumps(*was, *is))?;
        let (was, is) = (convert::written_usd(was), convert::written_usd(is));
        let place =
            if input_tokens > 1 { format!(" above {} tokens", input_tokens - 1) } else { String::new() };
        Some(format!("the {part} price{place} goes from {was} to {is}"))
    })
}

fn jumps(was: u64, is: u64) -> bool {
    was != is && (was == 0 || is == 0 || is > was.saturating_mul(JUMP) || was > is.saturating_mul(JUMP))
}

#[cfg(test)]
mod tests;
