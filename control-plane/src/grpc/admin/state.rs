//! ExportState: all durable state as one file, in pieces.

use std::collections::HashMap;
use std::pin::Pin;

use futures_util::{Stream, StreamExt as _, stream};
use tonic::Status;
use trunkline_proto::{admin::v1::ExportStateResponse, status};

use crate::{
    grpc::{Context, refuse},
    repository::ExportError,
};

/// The pieces of a file, in order.
pub(super) type Pieces = Pin<Box<dyn Stream<Item = Result<ExportStateResponse, Status>> + Send>>;

pub(super) async fn export(context: &Context) -> Result<Pieces, Status> {
    let exported = context.repository.export_state().await.map_err(|error| refused(&error))?;
    let pieces = stream::unfold(exported, async |mut exported| {
        let piece = exported.next().await?;
        let answer = piece.map(|data| ExportStateResponse { data }).map_err(|error| refused(&error));
        Some((answer, exported))
    });
    // A stop does not wait for a slow reader: the file is then without its end, and so
    // refused by whoever would import it.
    let stopped = context.shutdown.clone().cancelled_owned();
    Ok(Box::pin(pieces.take_until(stopped)))
}

fn refused(error: &ExportError) -> Status {
    match error {
        ExportError::Busy { retry_after } => {
            status::resource_exhausted("EXPORT_UNDER_WAY", error.to_string(), Some(*retry_after))
        }
        ExportError::Stalled => status::aborted("EXPORT_STALLED", error.to_string(), HashMap::new()),
        ExportError::Overtaken => status::aborted("EXPORT_OVERTAKEN", error.to_string(), HashMap::new()),
        ExportError::Store(error) => refuse::commit(error),
    }
}
