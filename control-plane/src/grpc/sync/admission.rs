//! Whose turn it is to get a snapshot. After a restart a whole fleet may want one at the
//! same time; they go out a few at a time, and the rest waits in order. Agents that wait
//! serve from what they hold, and get all else meanwhile.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use prometheus_client::metrics::gauge::Gauge;
use tokio::{
    sync::{AcquireError, OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use crate::metrics::Present;

/// Snapshots under way at a time: each has some messages of half a MiB in memory, and two
/// cores encode not faster with more.
const UNDER_WAY_MAX: usize = 25;

/// Sessions that wait. At a few ms each the last one waits for seconds; the others are
/// better off asking again later.
const WAITING_MAX: usize = 2_000;

/// An agent that does not answer keeps its place no longer.
const HELD_MAX: Duration = Duration::from_secs(10);

/// Places for snapshots, shared by all sessions.
#[derive(Debug)]
pub(super) struct Admission {
    places: Arc<Semaphore>,
    queue: Arc<Semaphore>,
    under_way: Gauge,
    waiting: Gauge,
}

/// Too many wait already.
#[derive(Debug, thiserror::Error)]
#[error("{WAITING_MAX} agents wait for a snapshot already; come again later")]
pub(super) struct Crowded;

type Acquiring = Pin<Box<dyn Future<Output = Result<OwnedSemaphorePermit, AcquireError>> + Send + Sync>>;

/// One session's place or wait for one.
pub(super) struct Turn {
    admission: Arc<Admission>,
    state: State,
}

enum State {
    Idle,
    /// Boxed: sessions that don't wait, nearly all, shall be small.
    Waiting {
        acquiring: Acquiring,
        _queued: OwnedSemaphorePermit,
        _shown: Present,
    },
    Held {
        until: Instant,
        _place: OwnedSemaphorePermit,
        _shown: Present,
    },
}

impl Admission {
    pub(super) fn new(under_way: Gauge, waiting: Gauge) -> Self {
        let places = Arc::new(Semaphore::new(UNDER_WAY_MAX));
        Self { places, queue: Arc::new(Semaphore::new(WAITING_MAX)), under_way, waiting }
    }
}

impl Turn {
    pub(super) fn new(admission: Arc<Admission>) -> Self {
        Self { admission, state: State::Idle }
    }

    /// Whether a snapshot may be sent now. If not, [`Self::granted`] says when.
    pub(super) fn ask(&mut self, now: Instant) -> Result<bool, Crowded> {
        match &mut self.state {
            State::Waiting { .. } => return Ok(false),
            // A snapshot that follows another has the same place.
            State::Held { until, .. } => *until = now + HELD_MAX,
            State::Idle => {
                // Those who wait come first: the semaphore is fair.
                if let Ok(place) = Arc::clone(&self.admission.places).try_acquire_owned() {
                    self.hold(place, now);
                } else {
                    let queued =
                        Arc::clone(&self.admission.queue).try_acquire_owned().map_err(|_| Crowded)?;
                    let acquiring = Box::pin(Arc::clone(&self.admission.places).acquire_owned());
                    let shown = Present::new(&self.admission.waiting);
                    self.state = State::Waiting { acquiring, _queued: queued, _shown: shown };
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Ends when a wait does; without one, never.
    pub(super) async fn granted(&mut self) {
        let State::Waiting { acquiring, .. } = &mut self.state else { return std::future::pending().await };
        // The semaphore is never closed.
        let Ok(place) = acquiring.await else { return std::future::pending().await };
        self.hold(place, Instant::now());
    }

    /// Whether others come first.
    pub(super) fn is_waiting(&self) -> bool {
        matches!(self.state, State::Waiting { .. })
    }

    /// Gives the place back, or stops waiting.
    pub(super) fn release(&mut self) {
        self.state = State::Idle;
    }

    /// When a place that is held is given back at the latest. Gives it back by then.
    pub(super) fn expire(&mut self, now: Instant) -> Option<Instant> {
        match self.state {
            State::Held { until, .. } if until <= now => {
                self.release();
                None
            }
            State::Held { until, .. } => Some(until),
            State::Idle | State::Waiting { .. } => None,
        }
    }

    fn hold(&mut self, place: OwnedSemaphorePermit, now: Instant) {
        let shown = Present::new(&self.admission.under_way);
        self.state = State::Held { until: now + HELD_MAX, _place: place, _shown: shown };
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn admission() -> Arc<Admission> {
        Arc::new(Admission::new(Gauge::default(), Gauge::default()))
    }

    fn turns(admission: &Arc<Admission>, count: usize) -> Vec<Turn> {
        (0..count).map(|_| Turn::new(Arc::clone(admission))).collect()
    }

    #[tokio::test]
    async fn places_are_given_in_the_order_of_asking() {
        let (admission, now) = (admission(), Instant::now());
        let mut held = turns(&admission, UNDER_WAY_MAX);
        assert!(held.iter_mut().all(|turn| turn.ask(now).unwrap()));
        let mut waiting = turns(&admission, 2);
        for turn in &mut waiting {
            assert!(!turn.ask(now).unwrap() && !turn.ask(now).unwrap());
            assert!(turn.granted().now_or_never().is_none());
        }
        assert_eq!((admission.under_way.get(), admission.waiting.get()), (25, 2));
        held.pop();
        assert!(waiting[1].granted().now_or_never().is_none());
        waiting[0].granted().await;
        assert!(waiting[0].ask(now).unwrap());
        assert_eq!((admission.under_way.get(), admission.waiting.get()), (25, 1));
        // One who leaves the queue does not keep a place.
        waiting.pop();
        held.pop();
        assert!(turns(&admission, 1)[0].ask(now).unwrap());
        assert_eq!(admission.waiting.get(), 0);
    }

    #[tokio::test]
    async fn a_place_is_not_held_for_ever() {
        let (admission, now) = (admission(), Instant::now());
        let mut held = turns(&admission, UNDER_WAY_MAX);
        assert!(held.iter_mut().all(|turn| turn.ask(now).unwrap()));
        assert_eq!(held[0].expire(now), Some(now + HELD_MAX));
        assert_eq!(held[0].expire(now + HELD_MAX), None);
        let mut next = Turn::new(Arc::clone(&admission));
        assert!(next.ask(now).unwrap());
    }

    #[tokio::test]
    async fn beyond_the_queue_is_refused() {
        let (admission, now) = (admission(), Instant::now());
        let mut all = turns(&admission, UNDER_WAY_MAX + WAITING_MAX);
        assert!(all.iter_mut().all(|turn| turn.ask(now).is_ok()));
        let mut one_more = Turn::new(Arc::clone(&admission));
        assert!(one_more.ask(now).is_err());
        all.pop();
        assert!(!one_more.ask(now).unwrap());
    }
}
