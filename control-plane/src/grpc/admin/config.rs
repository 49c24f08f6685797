//! The configuration as one document: ApplyConfig and ExportConfig.

use std::collections::HashMap;

use tonic::Status;
use trunkline_proto::{
    admin::v1::{ApplyConfigRequest, ApplyConfigResponse, ExportConfigResponse},
    status,
};

use super::write::{Write, required};
use crate::{
    grpc::{Context, wire_version},
    repository::ConfigState,
};

pub(super) async fn apply(
    context: &Context,
    principal: String,
    request: ApplyConfigRequest,
) -> Result<ApplyConfigResponse, Status> {
    let write = Write::new("ApplyConfig", principal, &request, "")?;
    let write = write.validate_only(request.validate_only).force(request.force);
    let given = required("config", request.config)?;
    let base = request.base_revision;
    let written = write.run(context, move |state, config| {
        made_from(base, state)?;
        *config = given;
        Ok(())
    });
    let written = written.await?;
    Ok(ApplyConfigResponse { version: Some(written.version), changes: written.changes })
}

/// Refuses what was made from another revision than the newest; 0 asks for no check.
pub(super) fn made_from(base: u64, state: &ConfigState) -> Result<(), Status> {
    let current = state.version.revision;
    if base == 0 || base == current {
        return Ok(());
    }
    let message =
        format!("the document was made from revision {base}, but {current} is the newest; export it again");
    let metadata = HashMap::from([("current_revision".to_owned(), current.to_string())]);
    Err(status::aborted("REVISION_MISMATCH", message, metadata))
}

pub(super) fn export(context: &Context) -> ExportConfigResponse {
    let state = context.repository.state();
    ExportConfigResponse { config: Some(state.config.clone()), version: Some(wire_version(&state.version)) }
}
