//! `export`: the whole configuration as a document.

use trunkline_proto::{admin::v1::ExportConfigRequest, document};

use crate::{
    args::{DocumentFormat, ExportArgs},
    client::ControlPlane,
    failure::Failure,
    terminal,
};

pub(crate) async fn run(args: ExportArgs) -> Result<(), Failure> {
    let control_plane = ControlPlane::of(&args.connection)?;
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
