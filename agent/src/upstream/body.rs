//! The answer of a provider, as it arrives. Read to its end it gives the connection back;
//! dropped before, it closes the connection.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use super::pool::{Connection, Pool};

/// The body of an upstream response.
#[derive(Debug)]
pub struct UpstreamBody {
    incoming: Incoming,
    /// None: given back or closed.
    held: Option<(Connection, Arc<Pool>)>,
    cut: Option<Cut>,
}

/// Where a drill breaks the body off.
#[derive(Debug)]
struct Cut {
    left: u64,
    /// Bytes that came are missing from what was passed on.
    broken: bool,
    unless: CancellationToken,
}

/// Why an answer broke off.
#[derive(Debug, Error)]
pub enum BodyError {
    /// The connection ended or was reset before the answer was complete.
    #[error("upstream closed the connection in the middle of the answer")]
    Cut(#[source] hyper::Error),
    /// What arrived is not HTTP.
    #[error("upstream sent a broken HTTP body")]
    Protocol(#[source] hyper::Error),
    /// It broke off on purpose.
    #[error("a drill broke the answer off")]
    Drill,
}

impl UpstreamBody {
    pub(super) fn new(incoming: Incoming, connection: Connection, pool: Arc<Pool>) -> Self {
        let mut body = Self { incoming, held: Some((connection, pool)), cut: None };
        body.release_at_end();
        body
    }

    /// Breaks off after so many bytes, as if the connection had been reset, unless that
    /// was cancelled by then. A body that is known to end there ends well.
    pub(crate) fn cut_after(&mut self, bytes: u64, unless: CancellationToken) {
        self.cut = Some(Cut { left: bytes, broken: false, unless });
    }

    /// Whether no more may come.
    fn is_cut(&self) -> bool {
        self.cut.as_ref().is_some_and(|cut| {
            let here = cut.left == 0 && !cut.unless.is_cancelled() && !self.incoming.is_end_stream();
            cut.broken || here
        })
    }

    /// What is passed on of a frame.
    fn up_to_the_cut(&mut self, frame: Frame<Bytes>) -> Frame<Bytes> {
        let Some(cut) = self.cut.as_mut().filter(|cut| !cut.unless.is_cancelled()) else { return frame };
        frame.map_data(|data| {
            let passed = usize::try_from(cut.left).unwrap_or(usize::MAX).min(data.len());
            cut.left -= passed as u64;
            if passed < data.len() {
                cut.broken = true;
                self.held = None;
            }
            data.slice(..passed)
        })
    }

    fn release_at_end(&mut self) {
        if self.incoming.is_end_stream() {
            self.release();
        }
    }

    fn release(&mut self) {
        if let Some((connection, pool)) = self.held.take() {
            pool.give_back(connection);
        }
    }
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let body = self.get_mut();
        if body.is_cut() {
            body.held = None;
            return Poll::Ready(Some(Err(BodyError::Drill)));
        }
        Poll::Ready(match ready!(Pin::new(&mut body.incoming).poll_frame(context)) {
            Some(Ok(frame)) => {
                let frame = body.up_to_the_cut(frame);
                body.release_at_end();
                Some(Ok(frame))
            }
            Some(Err(error)) => {
                body.held = None;
                Some(Err(if error.is_parse() { BodyError::Protocol(error) } else { BodyError::Cut(error) }))
            }
            None => {
                body.release();
                None
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream() && self.cut.as_ref().is_none_or(|cut| !cut.broken)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
