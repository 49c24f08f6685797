//! Former revisions of the configuration: ListRevisions and RollbackConfig.

use std::{
    collections::HashMap,
    time::{Duration, UNIX_EPOCH},
};

use tonic::Status;
use trunkline_proto::{
    admin::v1::{
        ListRevisionsRequest, ListRevisionsResponse, Revision, RollbackConfigRequest, RollbackConfigResponse,
    },
    status,
};

use super::{
    config::Base,
    page::Past,
    write::{Write, with_feed_of},
};
use crate::{
    grpc::{Context, wire_version},
    repository::{Commit, HistoryError},
};

const LISTING: &str = "revisions";

pub(super) async fn list(
    context: &Context,
    request: &ListRevisionsRequest,
) -> Result<ListRevisionsResponse, Status> {
    let page = Past::parse(LISTING, request.page_size, &request.page_token)?;
    let found = context.repository.revisions(page.from, page.size).await;
    let found = found.map_err(|error| unreadable(&error))?;
    Ok(ListRevisionsResponse {
        revisions: found.items.into_iter().map(revision_of).collect(),
        next_page_token: Past::token(LISTING, found.next.as_ref()),
    })
}

pub(super) async fn rollback(
    context: &Context,
    principal: String,
    request: RollbackConfigRequest,
) -> Result<RollbackConfigResponse, Status> {
    let write = Write::new("RollbackConfig", principal, &request, &request.request_id)?;
    let (target, base) = (request.revision, Base::of(context, request.base_revision));
    if target == 0 {
        return Err(status::invalid_field("revision", "is required; ListRevisions shows which there are"));
    }
    let write = write.validate_only(request.validate_only).force(request.force);
    let write = write.subject(format!("revision {target}"));
    // Its content may be gone by now, and what came of the request is known all the same.
    if let Some(written) = write.repeated(context).await? {
        return Ok(RollbackConfigResponse { version: Some(written.version), changes: written.changes });
    }
    let found = context.repository.config_at(target).await.map_err(|error| unreadable(&error))?;
    let former = found.ok_or_else(|| not_held(target, context.repository.state().version.revision))?;
    let written = write.run(context, move |state, config| {
        base.check(state)?;
        *config = with_feed_of(state, former);
        Ok(())
    });
    let written = written.await?;
    Ok(RollbackConfigResponse { version: Some(written.version), changes: written.changes })
}

/// Why there is no configuration of revision `target`.
fn not_held(target: u64, newest: u64) -> Status {
    if target > newest {
        return status::not_found("revision", &target.to_string());
    }
    let message = format!(
        "the configuration of revision {target} is not kept any more; ListRevisions shows which are, and \
         an export of it can be applied with ApplyConfig"
    );
    status::out_of_range("REVISION_COMPACTED", message, HashMap::<String, String>::new())
}

/// The answer when the journal cannot be read.
pub(super) fn unreadable(error: &HistoryError) -> Status {
    match error {
        HistoryError::Journal(_) => Status::data_loss(error.to_string()),
        HistoryError::Busy { retry_after } => {
            status::resource_exhausted("JOURNAL_BUSY", error.to_string(), Some(*retry_after))
        }
        HistoryError::Closing => status::unavailable("STORE_CLOSING", error.to_string(), None),
    }
}

fn revision_of(commit: Commit) -> Revision {
    Revision {
        version: Some(wire_version(&commit.version)),
        create_time: Some((UNIX_EPOCH + Duration::from_millis(commit.unix_ms)).into()),
        principal: commit.principal,
        method: commit.method,
        force: commit.force,
        request_id: commit.request_id.unwrap_or_default(),
        // Where its record is, its configuration is.
        restorable: true,
    }
}
