//! `prices`: price lists are taken over, and prices that were held back accepted.

use std::{fmt::Write as _, fs, io, io::Read as _, path::Path};

use anyhow::Context as _;
use trunkline_proto::admin::v1::{
    AcceptPriceEntryRequest, ImportPricesRequest, ImportPricesResponse, PriceFeedFormat,
};

use crate::{
    apply,
    args::{ImportArgs, PriceListFormat, PricesArgs, PricesCommand},
    client::ControlPlane,
    failure::Failure,
    terminal,
};

/// Deployments that are named one by one as not in the list.
const UNMATCHED_SHOWN: usize = 20;

pub(crate) async fn run(args: PricesArgs) -> Result<(), Failure> {
    let control_plane = ControlPlane::of(&args.connection)?;
    match args.command {
        PricesCommand::Import(args) => {
            let dry_run = args.dry_run;
            let request = request(args)?;
            let done = control_plane
                .call(request, async |admin, request| admin.import_prices(request).await)
                .await?;
            terminal::print(&said(&done, dry_run))
        }
        PricesCommand::Accept { names } => {
            for name in names {
                let request =
                    AcceptPriceEntryRequest { name: name.clone(), ..AcceptPriceEntryRequest::default() };
                control_plane
                    .call(request, async |admin, request| admin.accept_price_entry(request).await)
                    .await?;
                terminal::print_line(&format!("{name} counts from now on"))?;
            }
            Ok(())
        }
    }
}

fn request(args: ImportArgs) -> Result<ImportPricesRequest, Failure> {
    let ImportArgs { file, format, models, dry_run, accept_held } = args;
    let format = match format {
        PriceListFormat::Litellm => PriceFeedFormat::Litellm,
        PriceListFormat::Openrouter => PriceFeedFormat::Openrouter,
    };
    Ok(ImportPricesRequest {
        format: format.into(),
        data: read(&file).with_context(|| format!("read {}", file.display())).map_err(Failure::WrongInput)?,
        models: models.into_iter().collect(),
        accept_held,
        validate_only: dry_run,
        ..ImportPricesRequest::default()
    })
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    if path != Path::new("-") {
        return fs::read(path);
    }
    let mut data = Vec::new();
    io::stdin().read_to_end(&mut data)?;
    Ok(data)
}

fn said(done: &ImportPricesResponse, dry_run: bool) -> String {
    let mut text = apply::changed(&done.changes, done.version.as_ref(), dry_run);
    for one in &done.held {
        // Writing to a String can't fail.
        writeln!(text, "held back: {}: {}; trunkline prices accept {}", one.deployment, one.held, one.name)
            .ok();
    }
    let unmatched = &done.unmatched;
    for name in unmatched.iter().take(UNMATCHED_SHOWN) {
        writeln!(text, "not in the list: {name}; name its model with --map {name}=MODEL").ok();
    }
    if unmatched.len() > UNMATCHED_SHOWN {
        writeln!(text, "and {} more", unmatched.len() - UNMATCHED_SHOWN).ok();
    }
    text
}
