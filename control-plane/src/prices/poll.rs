//! Polls a price feed. The last good answer stays in use: a feed that is away, or talks
//! nonsense, changes no price. It is looked at again whenever the configuration changes,
//! so that a new deployment has its price at once.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;
use trunkline_proto::{
    admin::v1::{Config, PriceFeed, PriceFeedFormat},
    convert,
};

use super::{
    feed::{Feed, Format},
    fetch::{Answer, FeedUrlRefused, Fetcher},
    matching::{self, Named},
    plan::plan,
};
use crate::repository::{CommitError, ConfigState, Edited, Intent, Repository};

/// Who polls, as the audit log names it.
const PRINCIPAL: &str = "price-feed";

/// After a failure, unless the interval is shorter.
const RETRY_AFTER: Duration = Duration::from_secs(60);

/// A feed to poll.
#[derive(Clone, Debug)]
pub struct FeedSource {
    /// https, without user info and query.
    pub url: String,
    /// What it is written in.
    pub format: Format,
    /// How often it is asked.
    pub interval: Duration,
    /// Also on loopback and private networks, and without TLS.
    pub allow_private: bool,
}

/// What others see of the feed.
#[derive(Debug, Default)]
pub(crate) struct FeedStatus(Mutex<Option<PriceFeed>>);

impl FeedStatus {
    /// None: no feed is polled.
    pub(crate) fn now(&self) -> Option<PriceFeed> {
        self.0.lock().clone()
    }

    fn update(&self, change: impl FnOnce(&mut PriceFeed)) {
        change(self.0.lock().get_or_insert_default());
    }
}

/// The one that polls.
#[derive(Debug)]
pub(crate) struct Poller {
    fetcher: Fetcher,
    source: FeedSource,
    repository: Arc<Repository>,
    status: Arc<FeedStatus>,
    /// The last good answer.
    feed: Option<Arc<Feed>>,
}

impl Poller {
    pub(crate) fn new(
        source: FeedSource,
        repository: Arc<Repository>,
        status: Arc<FeedStatus>,
    ) -> Result<Self, FeedUrlRefused> {
        let fetcher = Fetcher::new(&source.url, source.allow_private)?;
        let format = match source.format {
            Format::Litellm => PriceFeedFormat::Litellm,
            Format::Openrouter => PriceFeedFormat::Openrouter,
        };
        status.update(|feed| {
            feed.url.clone_from(&source.url);
            feed.format = format.into();
        });
        Ok(Self { fetcher, source, repository, status, feed: None })
    }

    /// Polls until `shutdown`.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        let mut configs = self.repository.subscribe();
        let mut due = tokio::time::Instant::now();
        loop {
            tokio::select! {
                biased; // A stop first; then what is due, which a busy operator must not put off.
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep_until(due) => {
                    let polled = tokio::select! {
                        biased; // As above.
                        () = shutdown.cancelled() => return,
                        polled = self.poll() => polled,
                    };
                    due = tokio::time::Instant::now() + self.settle(polled);
                }
                changed = configs.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    // What fails now is tried again with the next poll.
                    drop(self.apply().await.inspect_err(|error| {
                        tracing::warn!(%error, "prices of the feed could not be stored");
                    }));
                }
            }
        }
    }

    /// Notes what came of a poll; the answer is when to ask again.
    fn settle(&self, polled: Result<(), String>) -> Duration {
        let now = SystemTime::now().into();
        let error = polled.err().unwrap_or_default();
        let wait =
            if error.is_empty() { self.source.interval } else { self.source.interval.min(RETRY_AFTER) };
        if !error.is_empty() {
            tracing::warn!(error, "the price feed is of no use now; the last good prices stay");
        }
        self.status.update(|feed| {
            feed.last_poll_time = Some(now);
            if error.is_empty() {
                feed.last_success_time = Some(now);
            }
            feed.last_error = error;
        });
        wait
    }

    async fn poll(&mut self) -> Result<(), String> {
        if let Answer::Feed(data) = self.fetcher.fetch().await.map_err(|error| error.to_string())? {
            let format = self.source.format;
            // Megabytes of JSON are for no thread that serves others.
            let read = tokio::task::spawn_blocking(move || Feed::read(format, &data)).await;
            let feed = read.map_err(|_| "the reader of the feed ended".to_owned())?;
            self.feed = Some(Arc::new(feed.map_err(|refused| format!("the answer {refused}"))?));
            self.fetcher.keep();
        }
        self.apply().await.map_err(|error| format!("store the prices: {error}"))
    }

    /// Makes the last good answer part of the state, as far as it differs.
    async fn apply(&self) -> Result<(), CommitError> {
        let Some(feed) = self.feed.clone() else { return Ok(()) };
        let state = self.repository.state();
        let found = matching::matches(&state.config, &feed, &Named::new());
        let matched = found.iter().filter(|one| one.found.is_some()).count() as u32;
        self.status.update(|status| {
            status.models = feed.models.len() as u32;
            status.matched = matched;
        });
        // No write where there is nothing to write, also for a store that takes none.
        let next = with_prices(&state, &feed);
        if convert::canonical(next) == state.config {
            return Ok(());
        }
        let intent = Intent {
            principal: PRINCIPAL.to_owned(),
            method: "PollPrices",
            subject: self.source.url.clone(),
            request_sha256: Sha256::digest(&self.source.url).into(),
            ..Intent::default()
        };
        let edit = move |state: &ConfigState| -> Result<(Config, ()), CommitError> {
            Ok((with_prices(state, &feed), ()))
        };
        if let Edited::Done { state, .. } = self.repository.edit(intent, edit).await? {
            tracing::info!(revision = state.version.revision, "prices of the feed changed");
        }
        Ok(())
    }
}

/// The wall clock, in ms since 1970.
pub(super) fn unix_ms_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

fn with_prices(state: &ConfigState, feed: &Feed) -> Config {
    let plan = plan(&state.config, feed, &Named::new(), unix_ms_now(), false);
    Config { price_entries: plan.entries, ..state.config.clone() }
}
