//! The configuration as one document: ApplyConfig and ExportConfig.

use std::{collections::HashMap, sync::Arc};

use tonic::Status;
use trunkline_proto::{
    admin::v1::{ApplyConfigRequest, ApplyConfigResponse, ExportConfigResponse},
    convert, status,
};

use super::write::{Write, replaced_by, required};
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
    let base = Base::of(context, request.base_revision);
    let written = write.run(context, move |state, config| {
        base.check(state)?;
        *config = replaced_by(state, given)?;
        Ok(())
    });
    let written = written.await?;
    Ok(ApplyConfigResponse { version: Some(written.version), changes: written.changes })
}

/// The revision that a document was made from.
#[derive(Debug)]
pub(super) struct Base {
    revision: u64,
    /// Its configuration, if it is one of the newest.
    state: Option<Arc<ConfigState>>,
}

impl Base {
    /// `revision` 0: it does not matter.
    pub(super) fn of(context: &Context, revision: u64) -> Self {
        let state = Some(revision).filter(|revision| *revision > 0);
        Self { revision, state: state.and_then(|revision| context.repository.recent(revision)) }
    }

    /// Refuses what was made from another document than the newest. Revisions in which
    /// only a price feed changed something hold the same document.
    pub(super) fn check(&self, state: &ConfigState) -> Result<(), Status> {
        let (base, current) = (self.revision, state.version.revision);
        let same = |then: &Arc<ConfigState>| {
            convert::without_feed(then.config.clone()) == convert::without_feed(state.config.clone())
        };
        if base == 0 || base == current || (base < current && self.state.as_ref().is_some_and(same)) {
            return Ok(());
        }
        let message = format!(
            "the document was made from revision {base}, but {current} is the newest; export it again"
        );
        let metadata = HashMap::from([("current_revision".to_owned(), current.to_string())]);
        Err(status::aborted("REVISION_MISMATCH", message, metadata))
    }
}

pub(super) fn export(context: &Context) -> ExportConfigResponse {
    let state = context.repository.state();
    let config = convert::without_feed(state.config.clone());
    ExportConfigResponse { config: Some(config), version: Some(wire_version(&state.version)) }
}
