//! Prices in `/metrics`, read at the scrape.

use std::sync::Arc;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{MetricType, gauge::ConstGauge},
};

use super::poll::{FeedStatus, unix_ms_now};
use crate::repository::Repository;

/// Reads what there is.
#[derive(Debug)]
pub(crate) struct PriceGauges {
    pub(crate) repository: Arc<Repository>,
    pub(crate) feed: Arc<FeedStatus>,
}

impl Collector for PriceGauges {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let state = self.repository.state();
        let now = unix_ms_now();
        let waiting = state.config.price_entries.iter().filter(|one| !one.held.is_empty()).count();
        let unknown = state.table.deployments.iter().filter(|one| one.prices.at(now).is_none()).count();
        let mut gauges = vec![
            ("prices_held", "Price entries that are held back until somebody accepts them", waiting as i64),
            ("prices_unknown", "Deployments without a known price now", unknown as i64),
        ];
        if let Some(feed) = self.feed.now() {
            let seconds = feed.last_success_time.map_or(0, |time| time.seconds);
            let help = "When the price list last gave an answer of use, in seconds since 1970; 0: never";
            gauges.push(("price_feed_last_success_seconds", help, seconds));
            let works = i64::from(feed.last_poll_time.is_some() && feed.last_error.is_empty());
            gauges.push(("price_feed_works", "1 if the newest answer of the price list was of use", works));
            gauges.push(("price_feed_models", "Priced models in the price list", feed.models.into()));
            let help = "Deployments whose model is in the price list";
            gauges.push(("price_feed_matched", help, feed.matched.into()));
        }
        for (name, help, value) in gauges {
            let encoder = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(value).encode(encoder)?;
        }
        Ok(())
    }
}
