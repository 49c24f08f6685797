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

/// What an attempt tells while it runs on.
#[derive(Clone, Debug, Default)]
pub(super) struct Heard(Arc<Signs>);

#[derive(Debug, Default)]
struct Signs {
    /// The head of a whole answer came.
    head: AtomicBool,
    /// The provider has the request, or some of it.
    sent: AtomicBool,
}

impl Heard {
    pub(super) fn tell(&self) {
        self.0.head.store(true, Ordering::Relaxed);
    }

    pub(super) fn tell_sent(&self, sent: bool) {
        self.0.sent.store(sent, Ordering::Relaxed);
    }

    pub(super) fn is_sent(&self) -> bool {
        self.0.sent.load(Ordering::Relaxed)
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
    pub(super) fn add<F>(&mut self, id: AttemptId, heard: Heard, attempt: F)
    where
        F: Future<Output = AttemptEnd> + Send + 'static,
    {
        self.runners.push(Runner { id, heard, running: Box::pin(attempt) });
    }

    pub(super) fn remove(&mut self, id: AttemptId) {
        self.runners.retain(|runner| runner.id != id);
    }

    /// Attempts whose head came since this was last asked.
    pub(super) fn take_heard(&self) -> impl Iterator<Item = AttemptId> {
        let heard = self.runners.iter().filter(|runner| runner.heard.0.head.swap(false, Ordering::Relaxed));
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
    pub(super) async fn next(&mut self) -> (AttemptId, AttemptEnd) {
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
