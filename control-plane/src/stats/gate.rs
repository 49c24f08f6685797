//! How many may read the past at the same time.
//!
//! Rows are read on the thread that also writes. It has one queue: without a limit, a
//! thousand questions for a year would be in front of every commit and every
//! acknowledgement.

use tokio::sync::{Semaphore, SemaphorePermit};

/// Questions that are worked on: one reads while the other adds up. So a write waits for
/// two pieces at most, some milliseconds each.
const READING_MAX: usize = 2;

/// Questions that wait. The longest one takes about a second, so the last one of these
/// waits for some ten seconds: about as long as people do.
const WAITING_MAX: usize = 16;

/// Nothing was read: too many wait already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{WAITING_MAX} questions for the past wait already; ask again in a few seconds")]
pub(crate) struct Full;

/// Lets few in, and a bounded number wait.
#[derive(Debug)]
pub(super) struct Gate {
    reading: Semaphore,
    /// For those who read and those who wait.
    present: Semaphore,
}

/// A place of one who reads. Given back when dropped.
#[derive(Debug)]
#[expect(dead_code, reason = "held until dropped")]
pub(super) struct Place<'a>(SemaphorePermit<'a>, SemaphorePermit<'a>);

impl Gate {
    pub(super) fn new() -> Self {
        let reading = Semaphore::new(READING_MAX);
        Self { reading, present: Semaphore::new(READING_MAX + WAITING_MAX) }
    }

    /// Waits for its turn; in the order of arrival.
    pub(super) async fn enter(&self) -> Result<Place<'_>, Full> {
        let present = self.present.try_acquire().map_err(|_| Full)?;
        // Neither is ever closed.
        let reading = self.reading.acquire().await.map_err(|_| Full)?;
        Ok(Place(reading, present))
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    type Entering<'a> = Pin<Box<dyn Future<Output = Result<Place<'a>, Full>> + 'a>>;

    fn poll<'a>(entering: &mut Entering<'a>) -> Poll<Result<Place<'a>, Full>> {
        entering.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn two_read_some_wait_and_more_are_refused() {
        let gate = Gate::new();
        let enter = || -> Entering<'_> { Box::pin(gate.enter()) };
        let mut places = Vec::new();
        for _ in 0..READING_MAX {
            let Poll::Ready(Ok(place)) = poll(&mut enter()) else { panic!("there is a place") };
            places.push(place);
        }
        let mut waiting: Vec<_> = (0..WAITING_MAX).map(|_| enter()).collect();
        assert!(waiting.iter_mut().all(|one| poll(one).is_pending()));
        assert!(matches!(poll(&mut enter()), Poll::Ready(Err(Full))));

        places.pop();
        let Poll::Ready(Ok(place)) = poll(&mut waiting[0]) else { panic!("it is its turn") };
        assert!(poll(&mut waiting[1]).is_pending());
        // Who stops waiting leaves room for another.
        drop(waiting.pop());
        drop(place);
        let mut late: Vec<_> = (0..3).map(|_| enter()).collect();
        assert!(late.iter_mut().all(|one| poll(one).is_pending()));
        assert!(matches!(poll(&mut enter()), Poll::Ready(Err(Full))));
    }
}
