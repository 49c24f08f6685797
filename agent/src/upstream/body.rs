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

use super::pool::{Connection, Pool};

/// The body of an upstream response.
#[derive(Debug)]
pub struct UpstreamBody {
    incoming: Incoming,
    /// None: given back or closed.
    held: Option<(Connection, Arc<Pool>)>,
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
}

impl UpstreamBody {
    pub(super) fn new(incoming: Incoming, connection: Connection, pool: Arc<Pool>) -> Self {
        let mut body = Self { incoming, held: Some((connection, pool)) };
        body.release_at_end();
        body
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
        Poll::Ready(match ready!(Pin::new(&mut body.incoming).poll_frame(context)) {
            Some(Ok(frame)) => {
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
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
