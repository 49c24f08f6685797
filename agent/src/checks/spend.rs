//! What health checks may cost a day, by provider.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use trunkline_routing::{
    money::NanoUsd,
    table::{DeploymentIndex, RoutingTable},
    time::Timestamp,
};

use crate::{clock::Clock, engine::PROBE_TOKENS, snapshot::Snapshot};

/// From the first call on, not by the calendar: clocks and time zones of agents differ.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// What was spent. One entry per provider that was ever checked: as many as tables hold.
#[derive(Debug, Default)]
pub(super) struct Spend {
    by_provider: HashMap<Box<str>, Day>,
}

#[derive(Debug)]
struct Day {
    began: Instant,
    nano_usd: u64,
    warned: bool,
}

impl Spend {
    /// Whether the provider's limit leaves room for one more call. A limit means nothing
    /// for a deployment without a price.
    pub(super) fn admits(
        &mut self,
        snapshot: &Snapshot,
        deployment: DeploymentIndex,
        clock: &Clock,
        now: Timestamp,
    ) -> bool {
        let table = snapshot.table();
        let provider = table.provider(table.deployment(deployment).provider);
        let Some(NanoUsd(most)) = provider.health_check.max_daily_cost else { return true };
        let estimate = estimate(table, deployment, clock.unix_ms(now));
        let day = self.today(&provider.name, Instant::now());
        let room = day.nano_usd.saturating_add(estimate) <= most;
        if !room && !std::mem::replace(&mut day.warned, true) {
            let provider = &provider.name;
            tracing::warn!(%provider, "health checks stop until tomorrow: max_daily_cost_usd is spent");
        }
        room
    }

    /// Takes the expected cost of a call, which is returned, until it is known.
    pub(super) fn reserve(
        &mut self,
        snapshot: &Snapshot,
        deployment: DeploymentIndex,
        clock: &Clock,
        now: Timestamp,
    ) -> u64 {
        let table = snapshot.table();
        let estimate = estimate(table, deployment, clock.unix_ms(now));
        let provider = &table.provider(table.deployment(deployment).provider).name;
        let day = self.today(provider, Instant::now());
        day.nano_usd = day.nano_usd.saturating_add(estimate);
        estimate
    }

    /// What it cost in the place of what was reserved.
    pub(super) fn settle(&mut self, provider: &str, reserved: u64, spent: u64) {
        let day = self.today(provider, Instant::now());
        day.nano_usd = day.nano_usd.saturating_sub(reserved).saturating_add(spent);
    }

    fn today(&mut self, provider: &str, now: Instant) -> &mut Day {
        let day = self.by_provider.entry(provider.into());
        let day = day.or_insert_with(|| Day { began: now, nano_usd: 0, warned: false });
        if now.duration_since(day.began) >= DAY {
            *day = Day { began: now, nano_usd: 0, warned: false };
        }
        day
    }
}

/// In nano-dollars; 0 without a price.
fn estimate(table: &RoutingTable, deployment: DeploymentIndex, unix_ms: u64) -> u64 {
    let price = table.deployment(deployment).prices.at(unix_ms);
    price.map_or(0, |price| price.cost(PROBE_TOKENS).0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_twenty_four_hours_from_the_first_call() {
        let mut spend = Spend::default();
        let begin = Instant::now();
        spend.today("p", begin).nano_usd = 7;
        assert_eq!(spend.today("p", begin + DAY / 2).nano_usd, 7);
        assert_eq!(spend.today("q", begin).nano_usd, 0);
        assert_eq!(spend.today("p", begin + DAY).nano_usd, 0);
    }
}
