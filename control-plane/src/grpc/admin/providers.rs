//! Providers: Get, List, Create, Update, Delete.

use tonic::Status;
use trunkline_proto::{
    admin::v1::{
        Config, CreateProviderRequest, CreateProviderResponse, DeleteProviderRequest, DeleteProviderResponse,
        ListProvidersRequest, ListProvidersResponse, UpdateProviderRequest, UpdateProviderResponse,
    },
    convert, status,
    types::v1::Provider,
};

use super::{
    mask,
    page::Page,
    write::{Write, checked, etag_matches, required, unused},
};
use crate::grpc::Context;

const KIND: &str = "provider";
const LISTING: &str = "providers";

pub(super) fn get(config: &Config, name: &str) -> Result<Provider, Status> {
    Ok(with_etag(config.providers[find(config, name)?].clone()))
}

pub(super) fn list(
    context: &Context,
    request: &ListProvidersRequest,
) -> Result<ListProvidersResponse, Status> {
    let page = Page::parse(LISTING, request.page_size, &request.page_token)?;
    let state = page.state(&context.repository)?;
    let mut sorted: Vec<&Provider> = state.config.providers.iter().collect();
    sorted.sort_by(|one, other| one.name.cmp(&other.name));
    let (providers, next_page_token) = page.cut(LISTING, &state, sorted, |provider| &provider.name);
    Ok(ListProvidersResponse {
        providers: providers.into_iter().cloned().map(with_etag).collect(),
        next_page_token,
    })
}

pub(super) async fn create(
    context: &Context,
    principal: String,
    request: CreateProviderRequest,
) -> Result<CreateProviderResponse, Status> {
    let write = Write::new("CreateProvider", principal, &request, &request.request_id)?;
    let write = write.validate_only(request.validate_only);
    let provider = required(KIND, request.provider)?;
    let name = provider.name.clone();
    let written = write.run(context, move |state, config| {
        if find(config, &provider.name).is_ok() {
            return Err(status::already_exists(KIND, &provider.name));
        }
        config.providers.push(Provider { etag: String::new(), ..provider });
        let inside = format!("providers[{}]", config.providers.len() - 1);
        checked(&state.version, config, &inside, KIND)
    });
    let written = written.await?;
    let provider = Some(get(&written.config, &name)?);
    Ok(CreateProviderResponse { provider, version: Some(written.version), changes: written.changes })
}

pub(super) async fn update(
    context: &Context,
    principal: String,
    request: UpdateProviderRequest,
) -> Result<UpdateProviderResponse, Status> {
    let write = Write::new("UpdateProvider", principal, &request, &request.request_id)?;
    let write = write.validate_only(request.validate_only).force(request.force);
    let given = required(KIND, request.provider)?;
    let name = given.name.clone();
    let written = write.run(context, move |state, config| {
        let index = find(config, &given.name)?;
        let stored = &config.providers[index];
        etag_matches(KIND, &given.name, &given.etag, &convert::etag_of_provider(stored))?;
        let mask = request.update_mask.as_ref();
        let merged = mask::merge("trunkline.types.v1.Provider", stored, &given, mask, &["name", "etag"])?;
        config.providers[index] = merged;
        checked(&state.version, config, &format!("providers[{index}]"), KIND)
    });
    let written = written.await?;
    let provider = Some(get(&written.config, &name)?);
    Ok(UpdateProviderResponse { provider, version: Some(written.version), changes: written.changes })
}

pub(super) async fn delete(
    context: &Context,
    principal: String,
    request: DeleteProviderRequest,
) -> Result<DeleteProviderResponse, Status> {
    let write = Write::new("DeleteProvider", principal, &request, &request.request_id)?;
    let write = write.validate_only(request.validate_only).force(request.force);
    let written = write.run(context, move |_, config| {
        let name = request.name.as_str();
        let index = find(config, name)?;
        etag_matches(KIND, name, &request.etag, &convert::etag_of_provider(&config.providers[index]))?;
        unused(config, KIND, name, |deployment| {
            deployment.split_once('/').is_some_and(|(provider, _)| provider == name)
        })?;
        config.providers.remove(index);
        Ok(())
    });
    let written = written.await?;
    Ok(DeleteProviderResponse { version: Some(written.version), changes: written.changes })
}

/// Where the provider is.
pub(super) fn find(config: &Config, name: &str) -> Result<usize, Status> {
    let found = config.providers.iter().position(|provider| provider.name == name);
    found.ok_or_else(|| status::not_found(KIND, name))
}

/// As Get and WatchResources show it.
pub(super) fn with_etag(mut provider: Provider) -> Provider {
    provider.etag = convert::etag_of_provider(&provider);
    provider
}
