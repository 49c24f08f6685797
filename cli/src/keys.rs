//! `keys`: keys of apps are made, listed and removed.

use trunkline_proto::{
    admin::v1::{CreateApiKeyRequest, DeleteApiKeyRequest, ListApiKeysRequest},
    types::v1::ApiKey,
};

use crate::{
    args::{KeysArgs, KeysCommand},
    client::ControlPlane,
    failure::Failure,
    table::{Align, render},
    terminal,
};

/// Hex digits of a hash that are shown: enough to tell keys apart.
const HASH_SHOWN: usize = 12;

pub(crate) async fn run(args: KeysArgs) -> Result<(), Failure> {
    let control_plane = ControlPlane::of(&args.connection)?;
    match args.command {
        KeysCommand::Create { name, allowed_models, dry_run } => {
            let api_key = Some(ApiKey { name, allowed_models, ..ApiKey::default() });
            let request =
                CreateApiKeyRequest { api_key, validate_only: dry_run, ..CreateApiKeyRequest::default() };
            let made =
                control_plane.call(request, async |admin, request| admin.create_api_key(request).await);
            let made = made.await?;
            if dry_run {
                return terminal::print_line("not made (dry run)");
            }
            terminal::remark("this is the only time that the key is shown:");
            terminal::print_line(&made.secret)
        }
        KeysCommand::List => terminal::print(&table(&all(&control_plane).await?)),
        KeysCommand::Delete { name } => {
            let request = DeleteApiKeyRequest { name: name.clone(), ..DeleteApiKeyRequest::default() };
            control_plane.call(request, async |admin, request| admin.delete_api_key(request).await).await?;
            terminal::print_line(&format!("{name} is gone; agents refuse it when they hear of it"))?;
            let request = ListApiKeysRequest { page_size: 1, ..ListApiKeysRequest::default() };
            let left = control_plane
                .call(request, async |admin, request| admin.list_api_keys(request).await)
                .await?;
            if left.api_keys.is_empty() {
                terminal::remark("it was the last one: apps on loopback need no key now");
            }
            Ok(())
        }
    }
}

async fn all(control_plane: &ControlPlane) -> Result<Vec<ApiKey>, Failure> {
    let mut keys = Vec::new();
    let mut request = ListApiKeysRequest::default();
    loop {
        let page = control_plane
            .call(request.clone(), async |admin, request| admin.list_api_keys(request).await)
            .await?;
        keys.extend(page.api_keys);
        if page.next_page_token.is_empty() {
            return Ok(keys);
        }
        request.page_token = page.next_page_token;
    }
}

fn table(keys: &[ApiKey]) -> String {
    if keys.is_empty() {
        return "there are no keys; apps on loopback need none\n".to_owned();
    }
    let columns = [("KEY", Align::Left), ("MAY USE", Align::Left), ("SHA-256", Align::Left)];
    let rows: Vec<_> = keys
        .iter()
        .map(|key| {
            let models = key.allowed_models.join(" ");
            let models = if models.is_empty() { "every virtual model".to_owned() } else { models };
            let hash: String = key.secret_sha256.chars().take(HASH_SHOWN).collect();
            [key.name.clone(), models, hash]
        })
        .collect();
    render(columns, &rows)
}
