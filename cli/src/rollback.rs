//! `rollback`: the configuration becomes what it was.

use trunkline_proto::admin::v1::RollbackConfigRequest;

use crate::{apply, args::RollbackArgs, client::ControlPlane, failure::Failure, terminal};

pub(crate) async fn run(args: RollbackArgs) -> Result<(), Failure> {
    let control_plane = ControlPlane::of(&args.connection)?;
    let request = RollbackConfigRequest {
        revision: args.revision,
        validate_only: args.dry_run,
        base_revision: args.base_revision,
        force: args.force,
        request_id: String::new(),
    };
    let response =
        control_plane.call(request, async |admin, request| admin.rollback_config(request).await).await?;
    terminal::print(&apply::changed(&response.changes, response.version.as_ref(), args.dry_run))
}
