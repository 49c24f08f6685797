//! A request's body that must come at a pace: a client that trickles it would hold its
//! memory and the drain.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use thiserror::Error;
use tokio::time::{Instant, Sleep, sleep_until};

/// Bytes per second on average, after the time that any body has. Slower than any
/// network that an app could live with.
const RATE_MIN: u64 = 1_024;

/// Why a body did not come whole.
#[derive(Debug, Error)]
pub(super) enum PaceError {
    /// The client took too long.
    #[error("the request body came too slowly")]
    Slow,
    /// The connection or stream ended.
    #[error("the request body ended before it was complete")]
    BrokeOff,
}

/// The body.
#[derive(Debug)]
pub(super) struct Paced<B> {
    body: B,
    silence: Duration,
    started: Instant,
    received: u64,
    /// Runs while nothing comes. Most bodies come with their heads and need none.
    timer: Option<Pin<Box<Sleep>>>,
}

impl<B> Paced<B> {
    /// `silence`: longest time without a byte.
    pub(super) fn new(body: B, silence: Duration) -> Self {
        Self { body, silence, started: Instant::now(), received: 0, timer: None }
    }

    fn until(&self) -> Instant {
        let earned = Duration::from_millis(self.received.saturating_mul(1_000) / RATE_MIN);
        (Instant::now() + self.silence).min(self.started + self.silence + earned)
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Paced<B> {
    type Data = Bytes;
    type Error = PaceError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, PaceError>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) {
            this.timer = None;
            let frame = frame.map(|frame| frame.map_err(|_| PaceError::BrokeOff));
            if let Some(data) = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()) {
                this.received += data.len() as u64;
            }
            return Poll::Ready(frame);
        }
        let until = this.until();
        let timer = this.timer.get_or_insert_with(|| Box::pin(sleep_until(until)));
        timer.as_mut().poll(context).map(|()| Some(Err(PaceError::Slow)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::stream::unfold;
    use http_body_util::{BodyExt as _, StreamBody};

    use super::*;

    const SILENCE: Duration = Duration::from_secs(10);

    /// `pieces` of `size` bytes, each after `pause`; seconds until the body was read.
    async fn read(pieces: usize, size: usize, pause: Duration) -> (Result<usize, PaceError>, u64) {
        let stream = unfold(pieces, move |left| async move {
            let left = left.checked_sub(1)?;
            tokio::time::sleep(pause).await;
            Some((Ok::<_, Infallible>(Frame::data(Bytes::from(vec![0; size]))), left))
        });
        let started = Instant::now();
        let body = Paced::new(StreamBody::new(Box::pin(stream)), SILENCE);
        let read = body.collect().await.map(|body| body.to_bytes().len());
        (read, started.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_too_slow() {
        let (read, took) = read(3, 1_000_000, Duration::from_secs(11)).await;
        assert!(matches!(read, Err(PaceError::Slow)));
        assert_eq!(took, 10);
    }

    #[tokio::test(start_paused = true)]
    async fn trickle_is_too_slow() {
        let (read, took) = read(1_000, 1, Duration::from_secs(1)).await;
        assert!(matches!(read, Err(PaceError::Slow)));
        assert!((10..=11).contains(&took), "{took}");
    }

    #[tokio::test(start_paused = true)]
    async fn slow_line_is_not() {
        let (read, took) = read(100, 2_048, Duration::from_secs(1)).await;
        assert_eq!(read.unwrap(), 204_800);
        assert_eq!(took, 100);
    }
}
