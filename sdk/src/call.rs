//! One call to one address: metadata, deadline, errors.

use std::{future::Future, time::Duration};

use tokio::time::Instant;
use tonic::{
    Request, Response, Status, Streaming,
    metadata::{Ascii, MetadataValue},
    transport::Channel,
};
use trunkline_proto::routing::v1::routing_service_client::RoutingServiceClient;

use crate::{Error, stream::Messages};

/// A long answer with many tool calls, with room to spare.
const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// Stands for a deadline beyond what the clock can hold.
const NO_DEADLINE: Duration = Duration::from_hours(365 * 24);

/// What all calls of one request share, whichever address they go to.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    authorization: Option<MetadataValue<Ascii>>,
    deadline: Duration,
    ends: Instant,
}

impl Call {
    pub(crate) fn start(authorization: Option<MetadataValue<Ascii>>, deadline: Duration) -> Self {
        let now = Instant::now();
        let ends = now.checked_add(deadline).unwrap_or(now + NO_DEADLINE);
        Self { authorization, deadline, ends }
    }

    /// A message with the key and the time that is left.
    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = self.request_without_deadline(message);
        request.set_timeout(self.ends.saturating_duration_since(Instant::now()));
        request
    }

    /// For streams that go on for as long as both sides live.
    pub(crate) fn request_without_deadline<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(value) = &self.authorization {
            request.metadata_mut().insert("authorization", value.clone());
        }
        request
    }

    pub(crate) async fn unary<T>(
        &self,
        address: &str,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Error> {
        let response = self.until_deadline(call).await?;
        response
            .map(Response::into_inner)
            .map_err(|status| Error::from_status(&status, address, self.deadline))
    }

    /// A stream, once its first message is there.
    pub(crate) async fn stream<T>(
        &self,
        address: &str,
        call: impl Future<Output = Result<Response<Streaming<T>>, Status>>,
    ) -> Result<Messages<T>, Error> {
        let started = self.until_deadline(async {
            let mut rest = call.await?.into_inner();
            let first = rest.message().await?;
            Ok((first, rest))
        });
        let (first, rest) =
            started.await?.map_err(|status: Status| Error::from_status(&status, address, self.deadline))?;
        Ok(Messages::new(first, rest, address.to_owned(), self.deadline))
    }

    async fn until_deadline<T>(&self, call: impl Future<Output = T>) -> Result<T, Error> {
        tokio::time::timeout_at(self.ends, call)
            .await
            .map_err(|_| Error::DeadlineExceeded { deadline: self.deadline })
    }
}

/// A stub with the library's limits.
pub(crate) fn stub(channel: &Channel) -> RoutingServiceClient<Channel> {
    RoutingServiceClient::new(channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
}
