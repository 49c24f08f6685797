//! `export`: the whole configuration as a document, or all state as a file.

use std::path::Path;

use anyhow::Context as _;
use tokio::{fs, io::AsyncWriteExt as _};
use trunkline_proto::{
    admin::v1::{ExportConfigRequest, ExportStateRequest},
    document,
};

use crate::{
    args::{DocumentFormat, ExportArgs},
    client::ControlPlane,
    failure::Failure,
    terminal,
};

pub(crate) async fn run(args: ExportArgs) -> Result<(), Failure> {
    let control_plane = ControlPlane::of(&args.connection)?;
    if let Some(path) = &args.state {
        return state(&control_plane, path).await;
    }
    let response = control_plane
        .call(ExportConfigRequest {}, async |admin, request| admin.export_config(request).await)
        .await?;
    let config = response.config.unwrap_or_default();
    let text = match args.output {
        DocumentFormat::Yaml => document::to_yaml(&config),
        DocumentFormat::Json => document::to_json(&config),
    };
    terminal::print(&text)
}

/// Beside the file first, so that what has its name is whole.
async fn state(control_plane: &ControlPlane, path: &Path) -> Result<(), Failure> {
    let Some(name) = path.file_name() else {
        return Err(Failure::wrong_input(format!("--state {}: name a file", path.display())));
    };
    let mut partial = name.to_owned();
    partial.push(".partial");
    let partial = path.with_file_name(partial);
    let written = download(control_plane, &partial).await;
    let renamed = match written {
        Ok(bytes) => keep(&partial, path).await.map(|()| bytes).map_err(Failure::from),
        Err(failure) => Err(failure),
    };
    match renamed {
        Ok(bytes) => terminal::print_line(&format!("{}: {bytes} bytes", path.display())),
        Err(failure) => {
            // Why it failed matters more than what is left behind.
            fs::remove_file(&partial).await.ok();
            Err(failure)
        }
    }
}

async fn download(control_plane: &ControlPlane, to: &Path) -> Result<u64, Failure> {
    // Asked first: without a control plane, or the right to it, no file is made.
    let mut pieces = control_plane
        .call(ExportStateRequest {}, async |admin, request| admin.export_state(request).await)
        .await?;
    let context = || format!("write {}", to.display());
    // Of the operator alone: it holds hashes of keys and what everybody did.
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(to).await.with_context(context)?;
    let mut bytes = 0;
    while let Some(piece) = pieces.message().await.map_err(|status| control_plane.explain(&status))? {
        file.write_all(&piece.data).await.with_context(context)?;
        bytes += piece.data.len() as u64;
    }
    file.sync_all().await.with_context(context)?;
    Ok(bytes)
}

async fn keep(partial: &Path, path: &Path) -> anyhow::Result<()> {
    fs::rename(partial, path).await.with_context(|| format!("name {}", path.display()))?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let synced = async { fs::File::open(directory).await?.sync_all().await };
    synced.await.with_context(|| format!("make {} durable", path.display()))
}
