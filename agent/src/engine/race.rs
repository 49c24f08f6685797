//! Attempts of one request that run side by side. A handful at most.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
};

use tokio::time::{Instant, sleep_until};
use trunkline_routing::request::AttemptId;

use super::attempt::AttemptEnd;

type Running = Pin<Box<dyn Future<Output = AttemptEnd> + Send>>;

/// Whether the head of a whole answer came, told by the attempt while it runs on.
#[derive(Clone, Debug, Default)]
pub(super) struct Heard(Arc<AtomicBool>);

impl Heard {
    pub(super) fn tell(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct Runner {
    id: AttemptId,
    heard: Heard,
    running: Running,
}

/// The race. Dropping it, or removing one, closes its upstream exchange.
#[derive(Default)]
pub(super) struct Race {
    runners: Vec<Runner>,
}

impl Race {
    pub(super) fn add<F>(&mut self, id: AttemptId, attempt: impl FnOnce(Heard) -> F)
    where
        F: Future<Output = AttemptEnd> + Send + 'static,
    {
        let heard = Heard::default();
        let running = Box::pin(attempt(heard.clone()));
        self.runners.push(Runner { id, heard, running });
    }

    pub(super) fn remove(&mut self, id: AttemptId) {
        self.runners.retain(|runner| runner.id != id);
    }

    /// Attempts whose head came since this was last asked.
    pub(super) fn take_heard(&self) -> impl Iterator<Item = AttemptId> {
        let heard = self.runners.iter().filter(|runner| runner.heard.0.swap(false, Ordering::Relaxed));
        heard.map(|runner| runner.id)
    }

    /// The next attempt to end, or None at `until`.
    pub(super) async fn next_until(&mut self, until: Instant) -> Option<(AttemptId, AttemptEnd)> {
        tokio::select! {
            biased;
            // An end that is already there beats the clock.
            end = self.next() => Some(end),
            () = sleep_until(until) => None,
        }
    }

    /// Pending for ever when nothing runs.
    async fn next(&mut self) -> (AttemptId, AttemptEnd) {
        poll_fn(|context| {
            for at in 0..self.runners.len() {
                if let Poll::Ready(end) = self.runners[at].running.as_mut().poll(context) {
                    let Runner { id, .. } = self.runners.swap_remove(at);
                    return Poll::Ready((id, end));
                }
            }
            Poll::Pending
        })
        .await
    }
}
