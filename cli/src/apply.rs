//! `apply`: a document becomes the configuration.

use std::{fs, io, path::Path};

use anyhow::Context as _;
use trunkline_proto::{
    admin::v1::{ApplyConfigRequest, Change, Config},
    document,
    types::v1::Version,
};

use crate::{args::ApplyArgs, client::ControlPlane, failure::Failure, terminal};

pub(crate) async fn run(args: ApplyArgs) -> Result<(), Failure> {
    let control_plane = ControlPlane::of(&args.connection)?;
    let config = read(&args.file)?;
    let request = ApplyConfigRequest {
        config: Some(config),
        validate_only: args.dry_run,
        base_revision: args.base_revision,
        force: args.force,
    };
    let response =
        control_plane.call(request, async |admin, request| admin.apply_config(request).await).await?;
    terminal::print(&changed(&response.changes, response.version.as_ref(), args.dry_run))
}

/// The configuration in a document, or all that is wrong with it.
pub(crate) fn read(path: &Path) -> Result<Config, Failure> {
    let (origin, text) = if path == Path::new("-") {
        ("standard input".to_owned(), io::read_to_string(io::stdin()))
    } else {
        (path.display().to_string(), fs::read_to_string(path))
    };
    let text = text.with_context(|| format!("read {origin}")).map_err(Failure::WrongInput)?;
    document::load_and_check(&text).map_err(|problems| {
        Failure::wrong_input(format!("{origin} is not a valid configuration:\n{problems}"))
    })
}

/// The changes, and in one line what became of them.
pub(crate) fn changed(changes: &[Change], version: Option<&Version>, dry_run: bool) -> String {
    let revision = version.map_or(0, |version| version.revision);
    let count = changes.len();
    let noun = if count == 1 { "change" } else { "changes" };
    let summary = match (count, dry_run) {
        (0, _) => format!("nothing to change; revision {revision}\n"),
        (_, true) => format!("{count} {noun}, not applied (dry run); revision {revision}\n"),
        (_, false) => format!("{count} {noun} applied; revision {revision}\n"),
    };
    document::render_diff(changes) + &summary
}
