//! Streams that a client hands out. Each ends after its last event or its first
//! error, and dropping it tells the server to stop.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{Stream, StreamExt};
use tonic::Streaming;
use trunkline_proto::routing::v1::{
    StreamCompleteResponse, WatchRoutesResponse, stream_complete_response::Event,
};

use crate::Error;

/// The pieces of one answer: started, deltas, finished. An error is the last item.
/// Dropping the stream cancels the request, at the provider as well.
#[derive(Debug)]
#[must_use = "dropping the stream cancels the request"]
pub struct CompletionStream {
    messages: Messages<StreamCompleteResponse>,
    finished: bool,
}

impl CompletionStream {
    pub(crate) fn new(messages: Messages<StreamCompleteResponse>) -> Self {
        Self { messages, finished: false }
    }

    /// The next event; `None` after the last one.
    pub async fn next(&mut self) -> Option<Result<Event, Error>> {
        StreamExt::next(self).await
    }
}

impl Stream for CompletionStream {
    type Item = Result<Event, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let item = match std::task::ready!(self.messages.poll_next_unpin(cx)) {
                Some(Ok(message)) => match message.event {
                    Some(event) => Ok(event),
                    // An event of a newer server.
                    None => continue,
                },
                Some(Err(error)) => Err(error),
                None if self.finished => return Poll::Ready(None),
                None => Err(self.messages.broke_off()),
            };
            // After an error nothing follows, so it needs no second complaint.
            self.finished |= matches!(item, Ok(Event::Finished(_)) | Err(_));
            return Poll::Ready(Some(item));
        }
    }
}

/// The distribution of virtual models: as it is, then each change. Ends when the
/// server ends it or the connection breaks; watch again then.
#[derive(Debug)]
#[must_use = "dropping the stream ends the watch"]
pub struct RouteWatch {
    messages: Messages<WatchRoutesResponse>,
}

impl RouteWatch {
    pub(crate) fn new(messages: Messages<WatchRoutesResponse>) -> Self {
        Self { messages }
    }

    /// The next state; `None` after the last one.
    pub async fn next(&mut self) -> Option<Result<WatchRoutesResponse, Error>> {
        StreamExt::next(self).await
    }
}

impl Stream for RouteWatch {
    type Item = Result<WatchRoutesResponse, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.messages.poll_next_unpin(cx)
    }
}

/// A gRPC stream whose first message was awaited under the deadline.
#[derive(Debug)]
pub(crate) struct Messages<T> {
    first: Option<T>,
    /// `None` once it ended; the connection is free then.
    rest: Option<Streaming<T>>,
    address: String,
    deadline: Duration,
}

impl<T> Messages<T> {
    pub(crate) fn new(first: Option<T>, rest: Streaming<T>, address: String, deadline: Duration) -> Self {
        // A stream that ended without a first message must not be polled again.
        let rest = first.is_some().then_some(rest);
        Self { first, rest, address, deadline }
    }
}

impl<T> Messages<T> {
    /// For a stream that ended too early, though in order.
    fn broke_off(&self) -> Error {
        let problem = "the stream ended without 'finished'".to_owned();
        Error::Interrupted { address: self.address.clone(), problem }
    }
}

// The messages are moved, never pinned.
impl<T> Unpin for Messages<T> {}

impl<T> Stream for Messages<T> {
    type Item = Result<T, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(first)));
        }
        let Some(rest) = self.rest.as_mut() else {
            return Poll::Ready(None);
        };
        let item = match std::task::ready!(rest.poll_next_unpin(cx)) {
            Some(Ok(message)) => return Poll::Ready(Some(Ok(message))),
            Some(Err(status)) => Some(Err(Error::from_status(&status, &self.address, self.deadline))),
            None => None,
        };
        self.rest = None;
        Poll::Ready(item)
    }
}
