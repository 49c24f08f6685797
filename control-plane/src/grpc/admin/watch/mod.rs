//! WatchResources: the configuration, then each revision as it comes. A watcher is read
//! from at its own pace: nothing is queued for it, and writers never wait for it. One that
//! is further behind than the newest states reach is told so and begins again.

mod cursor;
mod part;

use std::{pin::Pin, sync::Arc, time::Duration};

use futures_util::{Stream, stream};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::Instant,
};
use tonic::Status;
use trunkline_proto::{
    admin::v1::{WatchResourcesRequest, WatchResourcesResponse},
    status,
};

use self::cursor::Cursor;
use crate::{grpc::Context, metrics::Present, repository::ConfigState};

/// Watchers at a time. Each has a stream and a short list; programs that watch are a few
/// per site.
const WATCHERS_MAX: usize = 256;

/// When one that found no room asks again.
const FULL_RETRY: Duration = Duration::from_secs(30);

/// Longest silence: the watcher sees that the stream lives, and from where to resume.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// When to ask again after the control plane stopped: about as long as a restart.
const STOP_RETRY: Duration = Duration::from_secs(2);

/// What the RPC answers with.
pub(in crate::grpc) type Messages =
    Pin<Box<dyn Stream<Item = Result<WatchResourcesResponse, Status>> + Send>>;

/// Room for watchers.
#[derive(Debug)]
pub(super) struct Watchers {
    places: Arc<Semaphore>,
}

impl Default for Watchers {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(WATCHERS_MAX)) }
    }
}

impl Watchers {
    pub(super) fn watch(
        &self,
        context: &Arc<Context>,
        request: &WatchResourcesRequest,
    ) -> Result<Messages, Status> {
        let cursor = Cursor::new(&context.repository, request.after.as_ref())?;
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            let message = format!("{WATCHERS_MAX} watchers are connected already");
            status::resource_exhausted("TOO_MANY_WATCHERS", message, Some(FULL_RETRY))
        })?;
        let states = context.repository.subscribe();
        let watch = Watch {
            context: Arc::clone(context),
            cursor,
            states,
            spoke: Instant::now(),
            _place: place,
            _present: Present::new(&context.metrics.watchers),
        };
        let messages = stream::unfold(Some(watch), |watch| async {
            let mut watch = watch?;
            let next = watch.next().await;
            // An error is the last that is said.
            let goes_on = next.is_ok();
            Some((next, goes_on.then_some(watch)))
        });
        Ok(Box::pin(messages))
    }
}

/// One watcher.
struct Watch {
    context: Arc<Context>,
    cursor: Cursor,
    /// Only says that there is something new: it skips states.
    states: watch::Receiver<Arc<ConfigState>>,
    spoke: Instant,
    _place: OwnedSemaphorePermit,
    _present: Present,
}

impl Watch {
    async fn next(&mut self) -> Result<WatchResourcesResponse, Status> {
        loop {
            // Marked as seen first: what comes after this look wakes the wait below.
            self.states.mark_unchanged();
            if let Some(part) = self.cursor.next(&self.context.repository)? {
                self.spoke = Instant::now();
                return Ok(part);
            }
            tokio::select! {
                biased; // A stop first; news before a sign of life, which they are as well.
                () = self.context.shutdown.cancelled() => return Err(stopping()),
                changed = self.states.changed() => changed.map_err(|_| stopping())?,
                () = tokio::time::sleep_until(self.spoke + KEEP_ALIVE) => {
                    self.spoke = Instant::now();
                    return Ok(self.cursor.sign_of_life());
                }
            }
        }
    }
}

fn stopping() -> Status {
    status::unavailable(
        "CONTROL_PLANE_STOPPING",
        "the control plane stops; resume from the last version",
        Some(STOP_RETRY),
    )
}
