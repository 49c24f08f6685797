//! Attempts of one request that run side by side. A handful at most.

use std::{future::poll_fn, pin::Pin, task::Poll};

use tokio::time::{Instant, sleep_until};
use trunkline_routing::request::AttemptId;

use super::attempt::AttemptEnd;

type Running = Pin<Box<dyn Future<Output = AttemptEnd> + Send>>;

/// The race. Dropping it, or removing one, closes its upstream exchange.
#[derive(Default)]
pub(super) struct Race {
    running: Vec<(AttemptId, Running)>,
}

impl Race {
    pub(super) fn add(&mut self, id: AttemptId, attempt: impl Future<Output = AttemptEnd> + Send + 'static) {
        self.running.push((id, Box::pin(attempt)));
    }

    pub(super) fn remove(&mut self, id: AttemptId) {
        self.running.retain(|(running, _)| *running != id);
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
            for at in 0..self.running.len() {
                if let Poll::Ready(end) = self.running[at].1.as_mut().poll(context) {
                    let (id, _) = self.running.swap_remove(at);
                    return Poll::Ready((id, end));
                }
            }
            Poll::Pending
        })
        .await
    }
}
