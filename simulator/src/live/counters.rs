//! What a live provider counted, and the guard that counts one call.

use std::{collections::BTreeMap, sync::Arc};

use tokio_util::sync::CancellationToken;

use super::provider::LiveProvider;

/// Totals since the provider was made; `in_flight` is now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests whose body arrived whole, on any path.
    pub requests: u64,
    /// Response heads sent, by status.
    pub by_status: BTreeMap<u16, u64>,
    /// Event streams begun.
    pub streams_started: u64,
    /// Event streams played to the end of their plan.
    pub streams_completed: u64,
    /// Tokens of the prompts that were answered with 200.
    pub input_tokens: u64,
    /// Tokens sent.
    pub output_tokens: u64,
    /// Answers the client did not wait for.
    pub cancelled: u64,
    /// Answers this side broke off: cuts and resets.
    pub broken: u64,
    /// Requests not yet finished in one way or another.
    pub in_flight: u64,
}

/// Counts one call while it is open. Dropped before it was completed or broken off,
/// it means that the client left.
#[derive(Debug)]
pub(super) struct OpenCall {
    provider: Arc<LiveProvider>,
    number: u64,
    /// Cancelled when this side closes connections, which is no client's doing.
    stop: CancellationToken,
    streaming: bool,
    over: bool,
}

impl OpenCall {
    pub(super) fn begin(provider: Arc<LiveProvider>, number: u64, stop: CancellationToken) -> Self {
        provider.count(|counters| {
            counters.requests += 1;
            counters.in_flight += 1;
        });
        Self { provider, number, stop, streaming: false, over: false }
    }

    pub(super) fn head_sent(&mut self, status: u16, streaming: bool, input_tokens: u64) {
        self.streaming = streaming;
        self.provider.count(|counters| {
            *counters.by_status.entry(status).or_default() += 1;
            counters.streams_started += u64::from(streaming);
            counters.input_tokens += input_tokens;
        });
    }

    pub(super) fn sent(&self, tokens: u32) {
        if tokens > 0 {
            self.provider.count(|counters| counters.output_tokens += u64::from(tokens));
        }
    }

    pub(super) fn complete(&mut self) {
        if !self.over {
            let streaming = self.streaming;
            self.finish(|counters| counters.streams_completed += u64::from(streaming));
        }
    }

    pub(super) fn break_off(&mut self) {
        if !self.over {
            self.finish(|counters| counters.broken += 1);
        }
    }

    fn finish(&mut self, how: impl FnOnce(&mut Counters)) {
        self.over = true;
        self.provider.count(|counters| {
            counters.in_flight -= 1;
            how(counters);
        });
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        if self.stop.is_cancelled() {
            return self.break_off();
        }
        // The journal first: who waits for the counter reads the journal next.
        self.provider.note_closed_early(self.number);
        self.finish(|counters| counters.cancelled += 1);
    }
}
