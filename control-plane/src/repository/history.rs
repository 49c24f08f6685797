//! The past, read from the journal beside the writer: former revisions and the audit log.

use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use tokio::sync::Semaphore;
use trunkline_proto::admin::v1::Config;
use trunkline_proto::types::v1::BreakerState;
use trunkline_routing::table::Version;

use super::{CommitError, Remembered, Repository, now_unix_ms};
use crate::store::journal::{FleetState, Hash, JournalError, JournalReader, Logged, Record};

/// Listings that read the journal at the same time: each holds a segment in memory.
const LISTINGS_MAX: usize = 2;

/// Callers that wait for one of these places: a second's work at worst.
const LISTINGS_WAITING_MAX: usize = 16;

/// Former configurations that are looked up at the same time, beside all listings: going
/// back to one must not wait for those who look.
const LOOKUPS_MAX: usize = 1;

/// Callers that wait for a former configuration. Operators, one call each.
const LOOKUPS_WAITING_MAX: usize = 4;

/// After which a place is free again.
const BUSY_RETRY: Duration = Duration::from_secs(1);

/// Places for those who read the journal, and for those who wait for one.
#[derive(Debug)]
pub(super) struct Places {
    reading: Arc<Semaphore>,
    all: Arc<Semaphore>,
}

impl Places {
    /// For revisions and the audit log.
    pub(super) fn for_listings() -> Self {
        Self::new(LISTINGS_MAX, LISTINGS_WAITING_MAX)
    }

    /// For former configurations.
    pub(super) fn for_lookups() -> Self {
        Self::new(LOOKUPS_MAX, LOOKUPS_WAITING_MAX)
    }

    fn new(reading: usize, waiting: usize) -> Self {
        Self { reading: Arc::new(Semaphore::new(reading)), all: Arc::new(Semaphore::new(reading + waiting)) }
    }

    /// Does `read` where it may block, when it is its turn.
    async fn query<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> Result<T, HistoryError> + Send + 'static,
    ) -> Result<T, HistoryError> {
        let busy = |_| HistoryError::Busy { retry_after: BUSY_RETRY };
        let place = Arc::clone(&self.all).try_acquire_owned().map_err(busy)?;
        let turn = Arc::clone(&self.reading).acquire_owned().await.map_err(|_| HistoryError::Closing)?;
        let reading = tokio::task::spawn_blocking(move || {
            // Held until it is done, even if the caller stops waiting.
            let _held = (place, turn);
            read()
        });
        reading.await.map_err(|_| HistoryError::Closing)?
    }
}

/// Bytes of the journal that one page looks at. Segments have 16 MiB, and one is read in
/// some 50 ms.
const PAGE_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Where in the journal a page starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The newest commit to show.
    pub sequence: u64,
    /// The epoch that it belongs to.
    pub epoch: String,
}

/// A page, newest first.
#[derive(Clone, Debug)]
pub struct HistoryPage<T> {
    /// What was found; possibly nothing though there is more.
    pub items: Vec<T>,
    /// Where the next page starts. None: this was the last one.
    pub next: Option<Place>,
}

/// A commit, as far as all kinds of them have it.
#[derive(Clone, Debug)]
pub struct Commit {
    /// Counts commits.
    pub sequence: u64,
    /// Of the configuration after it.
    pub version: Version,
    /// Wall time in ms since 1970.
    pub unix_ms: u64,
    /// Who.
    pub principal: String,
    /// Did what.
    pub method: String,
    /// To what, where it is not the configuration.
    pub subject: String,
    /// Of the request, if it had one.
    pub request_id: Option<String>,
    /// Checks were overruled.
    pub force: bool,
}

/// A commit and what it changed.
#[derive(Clone, Debug)]
pub struct Audited {
    /// Who, what and when.
    pub commit: Commit,
    /// The configuration before and after, if it changed.
    pub configs: Option<(Config, Config)>,
    /// What else it changed: a path and what holds from then on. None: it ended.
    pub orders: Vec<(String, Option<String>)>,
    /// SHA-256 of its record.
    pub sha256: Hash,
    /// SHA-256 of the record before; empty for the very first.
    pub previous_sha256: Vec<u8>,
}

/// Which commits. All given conditions must hold.
#[derive(Clone, Debug, Default)]
pub struct AuditQuery {
    /// From this wall time on, in ms since 1970.
    pub from_unix_ms: Option<u64>,
    /// Before this wall time, in ms since 1970.
    pub until_unix_ms: Option<u64>,
    /// Only what this principal did.
    pub principal: Option<String>,
    /// Only calls of this method.
    pub method: Option<String>,
}

/// Why the past cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The journal is damaged, or the file system says no.
    #[error("read the journal: {0}")]
    Journal(String),
    /// Too many callers wait already.
    #[error("too many callers read the journal; try again in {} s", retry_after.as_secs())]
    Busy {
        /// When there may be a place.
        retry_after: Duration,
    },
    /// The control plane is stopping.
    #[error("the store is closing")]
    Closing,
}

impl Repository {
    /// The newest revisions of the configuration, newest first, at most `limit`. A page
    /// ends earlier when it has looked at much of the journal.
    ///
    /// # Errors
    /// See [`HistoryError`].
    pub async fn revisions(
        &self,
        from: Option<Place>,
        limit: usize,
    ) -> Result<HistoryPage<Commit>, HistoryError> {
        self.read_journal(from, move |walk| {
            walk.collect((limit, usize::MAX), |logged, version| {
                Ok(logged.record.config.is_some().then(|| (commit_of(&logged.record, version), 0)))
            })
        })
        .await
    }

    /// The commits that `query` asks for, newest first, as `render` shows them. At most
    /// `limit` of them, until `render` has made `bytes_max` of them, or until much of the
    /// journal was looked at.
    ///
    /// # Errors
    /// See [`HistoryError`].
    pub async fn audit<T: Send + 'static>(
        &self,
        query: AuditQuery,
        from: Option<Place>,
        (limit, bytes_max): (usize, usize),
        render: impl Fn(Audited) -> (T, usize) + Send + 'static,
    ) -> Result<HistoryPage<T>, HistoryError> {
        self.read_journal(from, move |walk| {
            if let Some(until) = query.until_unix_ms {
                walk.place.sequence = walk.reader.newest_at(until, walk.place.sequence)?;
            }
            walk.collect((limit, bytes_max), |logged, version| {
                let wanted = query.asks_for(&logged.record).then(|| audited(logged, version));
                Ok(wanted.transpose()?.map(&render))
            })
        })
        .await
    }

    /// The configuration of `revision` in this store's journal. None: there was none, or
    /// it is not kept any more.
    ///
    /// # Errors
    /// See [`HistoryError`].
    pub async fn config_at(&self, revision: u64) -> Result<Option<Config>, HistoryError> {
        if let Some(state) = self.recent(revision) {
            return Ok(Some(state.config.clone()));
        }
        let Some(reader) = self.shared.journal.clone() else { return Ok(None) };
        let durable = self.sequence();
        self.shared
            .lookups
            .query(move || match reader.config_at(revision, durable)? {
                Some(bytes) => decode(&bytes).map(Some),
                None => Ok(None),
            })
            .await
    }

    async fn read_journal<T: Send + 'static>(
        &self,
        from: Option<Place>,
        read: impl FnOnce(&mut Walk) -> Result<HistoryPage<T>, HistoryError> + Send + 'static,
    ) -> Result<HistoryPage<T>, HistoryError> {
        let Some(reader) = self.shared.journal.clone() else {
            return Ok(HistoryPage { items: Vec::new(), next: None });
        };
        let durable = self.sequence();
        let newest = || Place { sequence: durable, epoch: self.state().version.epoch.clone() };
        let mut place = from.unwrap_or_else(newest);
        place.sequence = place.sequence.min(durable);
        self.shared.listings.query(move || read(&mut Walk { reader, place })).await
    }

    /// What came of the request of that id, if it was carried out before.
    ///
    /// # Errors
    /// If the control plane is stopping.
    pub async fn remembered(&self, request_id: &str) -> Result<Option<Remembered>, CommitError> {
        let id = request_id.to_owned();
        self.ask(move |writer| writer.requests.get(&id, now_unix_ms())).await
    }
}

/// A way through the journal, back in time.
struct Walk {
    reader: JournalReader,
    place: Place,
}

impl Walk {
    /// What `find` finds, from the place on back.
    fn collect<T>(
        &mut self,
        (limit, bytes_max): (usize, usize),
        mut find: impl FnMut(&Logged, Version) -> Result<Option<(T, usize)>, HistoryError>,
    ) -> Result<HistoryPage<T>, HistoryError> {
        let Place { sequence: mut next, mut epoch } = self.place.clone();
        let mut items = Vec::new();
        let (mut bytes, mut made) = (0, 0);
        for logged in self.reader.newest_first(next) {
            let logged = logged?;
            if items.len() == limit || made >= bytes_max || bytes >= PAGE_BYTES_MAX {
                return Ok(HistoryPage { items, next: Some(Place { sequence: next, epoch }) });
            }
            bytes += logged.record.encoded_len();
            let version = Version { epoch: epoch.clone(), revision: logged.record.revision };
            if let Some((item, bytes)) = find(&logged, version)? {
                items.push(item);
                made += bytes;
            }
            next = logged.record.sequence - 1;
            if logged.record.epoch.is_some() {
                // Such a record names the epoch before it.
                epoch.clone_from(&logged.record.subject);
            }
        }
        Ok(HistoryPage { items, next: None })
    }
}

impl AuditQuery {
    fn asks_for(&self, record: &Record) -> bool {
        self.from_unix_ms.is_none_or(|from| record.unix_ms >= from)
            && self.until_unix_ms.is_none_or(|until| record.unix_ms < until)
            && self.principal.as_ref().is_none_or(|principal| record.principal == *principal)
            && self.method.as_ref().is_none_or(|method| record.method == *method)
    }
}

fn commit_of(record: &Record, version: Version) -> Commit {
    Commit {
        sequence: record.sequence,
        version,
        unix_ms: record.unix_ms,
        principal: record.principal.clone(),
        method: record.method.clone(),
        subject: record.subject.clone(),
        request_id: record.request_id.clone(),
        force: record.force,
    }
}

fn audited(logged: &Logged, version: Version) -> Result<Audited, HistoryError> {
    let configs = match &logged.record.config {
        None => None,
        Some(after) => Some((decode(&logged.config_before()?)?, decode(after)?)),
    };
    Ok(Audited {
        commit: commit_of(&logged.record, version),
        configs,
        orders: orders(&logged.record),
        sha256: logged.sha256,
        previous_sha256: logged.previous_sha256.clone(),
    })
}

/// What a record changed beside the configuration.
fn orders(record: &Record) -> Vec<(String, Option<String>)> {
    let verdicts = record.verdicts.iter().map(|change| {
        let forced = change.forced.as_ref().map(|forced| {
            let state = if forced.open { "forced open" } else { "forced closed" };
            worded(state, &forced.reason)
        });
        let found = || change.fleet.as_ref().and_then(found_in_words);
        (format!("breakers[{}]", change.deployment), forced.or_else(found))
    });
    let faults = record.faults.iter().map(|change| {
        let drill =
            change.injected.as_ref().map(|drill| worded("active", &format!("by {}", drill.principal)));
        (format!("faults[{}]", change.name), drill)
    });
    let drains = record.drains.iter().map(|change| {
        let reason = change.reason.as_ref().map(|reason| worded("out of service", reason));
        (format!("agents[{}]", change.agent_id), reason)
    });
    verdicts.chain(faults).chain(drains).collect()
}

/// None: closed.
fn found_in_words(found: &FleetState) -> Option<String> {
    let state = match BreakerState::try_from(found.state) {
        Ok(BreakerState::Open) => "open".to_owned(),
        Ok(BreakerState::HalfOpen) => "half open".to_owned(),
        Ok(BreakerState::Ramping) => format!("ramping, {} %", found.admit_percent),
        _ => return None,
    };
    Some(worded(&state, &found.reason))
}

fn worded(state: &str, reason: &str) -> String {
    if reason.is_empty() { state.to_owned() } else { format!("{state}: {reason}") }
}

fn decode(config: &[u8]) -> Result<Config, HistoryError> {
    Config::decode(config).map_err(|cause| HistoryError::Journal(cause.to_string()))
}

impl From<JournalError> for HistoryError {
    fn from(error: JournalError) -> Self {
        Self::Journal(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use futures_util::future::join_all;

    use super::*;

    #[tokio::test]
    async fn those_who_wait_have_a_bound_and_get_their_turn() {
        let places = Places::new(1, 2);
        let (go, wait) = mpsc::channel::<()>();
        let first = places.query(move || {
            wait.recv().map_err(|_| HistoryError::Closing)?;
            Ok(())
        });
        let waiting = async {
            let all = join_all((0..4).map(|number| places.query(move || Ok(number))));
            let release = async { go.send(()).unwrap() };
            tokio::join!(all, release).0
        };
        let (first, others) = tokio::join!(first, waiting);
        first.unwrap();
        let done: Vec<_> = others.iter().filter_map(|answer| answer.as_ref().ok()).collect();
        assert_eq!(done, [&0, &1]);
        let busy = others.iter().filter(|answer| matches!(answer, Err(HistoryError::Busy { .. })));
        assert_eq!(busy.count(), 2);
        assert_eq!(places.query(|| Ok(9)).await.unwrap(), 9);
    }
}
