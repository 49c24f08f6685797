//! ExportState: all durable state as one file, in pieces.

use std::pin::Pin;

use futures_util::{Stream, StreamExt as _};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use trunkline_proto::admin::v1::ExportStateResponse;

use crate::grpc::{Context, refuse};

/// The pieces of a file, in order.
pub(super) type Pieces = Pin<Box<dyn Stream<Item = Result<ExportStateResponse, Status>> + Send>>;

pub(super) async fn export(context: &Context) -> Result<Pieces, Status> {
    let pieces = context.repository.export_state().await.map_err(|error| refuse::commit(&error))?;
    let pieces = ReceiverStream::new(pieces);
    // A stop does not wait for a slow reader: the file is then without its end, and so
    // refused by whoever would import it.
    let stopped = context.shutdown.clone().cancelled_owned();
    let pieces = pieces.map(|data| Ok(ExportStateResponse { data })).take_until(stopped);
    Ok(Box::pin(pieces))
}
