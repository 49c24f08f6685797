//! Counts refusals on all listeners, and slows down who tries tokens.

use std::{net::IpAddr, sync::Arc, time::Instant};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    limiter::{DELAY, Limiter},
    refusal::{Refusal, RefusalReason},
};

/// Answers that wait at a time. Beyond, they do not wait: a flood may not pile up.
const DELAYED_MAX: usize = 256;

/// Calls that were refused.
pub(crate) type Refused = Family<RefusedLabels, Counter>;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct RefusedLabels {
    reason: RefusalReason,
}

/// What all listeners know of refusals.
#[derive(Debug)]
pub(crate) struct Refusals {
    limiter: Limiter,
    delayed: Arc<Semaphore>,
    refused: Refused,
}

/// A refused caller's wait for the answer.
#[derive(Debug)]
pub(crate) struct Delay(Option<OwnedSemaphorePermit>);

impl Refusals {
    pub(super) fn new(refused: Refused) -> Self {
        Self { limiter: Limiter::default(), delayed: Arc::new(Semaphore::new(DELAYED_MAX)), refused }
    }

    /// Counts one. Its answer comes after the delay, for whoever does this often.
    pub(super) fn count(&self, refusal: &Refusal, peer: Option<IpAddr>) -> Delay {
        self.refused.get_or_create(&RefusedLabels { reason: refusal.reason() }).inc();
        let too_often = refusal.is_guess() && !self.limiter.allows(peer, Instant::now());
        Delay(too_often.then(|| Arc::clone(&self.delayed).try_acquire_owned().ok()).flatten())
    }
}

impl Delay {
    /// Ends when the caller may be answered.
    pub(crate) async fn over(self) {
        if let Some(_place) = self.0 {
            tokio::time::sleep(DELAY).await;
        }
    }
}
