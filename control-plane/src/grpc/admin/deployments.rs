//! Deployments: Get, List, Create, Update, Delete. They are part of their provider's
//! data and share its etag; only their names differ: full here, short inside.

use tonic::Status;
use trunkline_proto::{
    admin::v1::{
        Config, CreateDeploymentRequest, CreateDeploymentResponse, DeleteDeploymentRequest,
        DeleteDeploymentResponse, ListDeploymentsRequest, ListDeploymentsResponse, UpdateDeploymentRequest,
        UpdateDeploymentResponse,
    },
    convert, status,
    types::v1::{Deployment, Provider},
};

use super::{
    mask,
    page::Page,
    providers,
    write::{Write, checked, etag_matches, required, unused},
};
use crate::grpc::Context;

const KIND: &str = "deployment";

pub(super) fn get(config: &Config, name: &str) -> Result<Deployment, Status> {
    let (provider, deployment) = find(config, name)?;
    let provider = &config.providers[provider];
    Ok(outside(provider, &convert::etag_of_provider(provider), &provider.deployments[deployment]))
}

pub(super) fn list(
    context: &Context,
    request: &ListDeploymentsRequest,
) -> Result<ListDeploymentsResponse, Status> {
    let listing = format!("deployments/{}", request.provider);
    let page = Page::parse(&listing, request.page_size, &request.page_token)?;
    let state = page.state(&context.repository)?;
    let wanted = |provider: &&Provider| request.provider.is_empty() || provider.name == request.provider;
    let mut sorted = Vec::new();
    for provider in state.config.providers.iter().filter(wanted) {
        let etag = convert::etag_of_provider(provider);
        sorted.extend(provider.deployments.iter().map(|deployment| outside(provider, &etag, deployment)));
    }
    sorted.sort_by(|one, other| one.name.cmp(&other.name));
    let (deployments, next_page_token) = page.cut(&listing, &state, sorted, |deployment| &deployment.name);
    Ok(ListDeploymentsResponse { deployments, next_page_token })
}

pub(super) async fn create(
    context: &Context,
    principal: String,
    request: CreateDeploymentRequest,
) -> Result<CreateDeploymentResponse, Status> {
    let write = Write::new("CreateDeployment", principal, &request, &request.request_id)?;
    let write = write.validate_only(request.validate_only);
    let given = required(KIND, request.deployment)?;
    split(&given.name)?;
    let name = given.name.clone();
    let written = write.run(context, move |state, config| {
        let (provider_name, short) = split(&given.name)?;
        let index = providers::find(config, provider_name)?;
        etag_matches(
            "provider",
            provider_name,
            &given.etag,
            &convert::etag_of_provider(&config.providers[index]),
        )?;
        let deployments = &mut config.providers[index].deployments;
        if deployments.iter().any(|deployment| deployment.name == short) {
            return Err(status::already_exists(KIND, &given.name));
        }
        deployments.push(Deployment { name: short.to_owned(), etag: String::new(), ..given.clone() });
        let inside = format!("providers[{index}].deployments[{}]", deployments.len() - 1);
        checked(&state.version, config, &inside, KIND)
    });
    let written = written.await?;
    let deployment = Some(get(&written.config, &name)?);
    Ok(CreateDeploymentResponse { deployment, version: Some(written.version), changes: written.changes })
}

pub(super) async fn update(
    context: &Context,
    principal: String,
    request: UpdateDeploymentRequest,
) -> Result<UpdateDeploymentResponse, Status> {
    let write = Write::new("UpdateDeployment", principal, &request, &request.request_id)?;
    let write = write.validate_only(request.validate_only).force(request.force);
    let given = required(KIND, request.deployment)?;
    let name = given.name.clone();
    let written = write.run(context, move |state, config| {
        let (index, inner) = find(config, &given.name)?;
        let provider = &mut config.providers[index];
        etag_matches("provider", &provider.name, &given.etag, &convert::etag_of_provider(provider))?;
        let mask = request.update_mask.as_ref();
        let stored = &provider.deployments[inner];
        let merged = mask::merge("trunkline.types.v1.Deployment", stored, &given, mask, &["name", "etag"])?;
        provider.deployments[inner] = merged;
        checked(&state.version, config, &format!("providers[{index}].deployments[{inner}]"), KIND)
    });
    let written = written.await?;
    let deployment = Some(get(&written.config, &name)?);
    Ok(UpdateDeploymentResponse { deployment, version: Some(written.version), changes: written.changes })
}

pub(super) async fn delete(
    context: &Context,
    principal: String,
    request: DeleteDeploymentRequest,
) -> Result<DeleteDeploymentResponse, Status> {
    let write = Write::new("DeleteDeployment", principal, &request, &request.request_id)?;
    let write = write.validate_only(request.validate_only).force(request.force);
    let written = write.run(context, move |_, config| {
        let name = request.name.as_str();
        let (index, inner) = find(config, name)?;
        let provider = &config.providers[index];
        etag_matches("provider", &provider.name, &request.etag, &convert::etag_of_provider(provider))?;
        unused(config, KIND, name, |deployment| deployment == name)?;
        config.providers[index].deployments.remove(inner);
        Ok(())
    });
    let written = written.await?;
    Ok(DeleteDeploymentResponse { version: Some(written.version), changes: written.changes })
}

/// The deployment as the Deployment RPCs show it.
fn outside(provider: &Provider, etag: &str, deployment: &Deployment) -> Deployment {
    let name = format!("{}/{}", provider.name, deployment.name);
    Deployment { name, etag: etag.to_owned(), ..deployment.clone() }
}

/// Where the provider and, in it, the deployment are.
fn find(config: &Config, name: &str) -> Result<(usize, usize), Status> {
    let none = || status::not_found(KIND, name);
    let (provider, short) = name.split_once('/').ok_or_else(none)?;
    let provider = config.providers.iter().position(|one| one.name == provider).ok_or_else(none)?;
    let deployment = config.providers[provider].deployments.iter().position(|one| one.name == short);
    Ok((provider, deployment.ok_or_else(none)?))
}

fn split(name: &str) -> Result<(&str, &str), Status> {
    let parts = name.split_once('/');
    parts.ok_or_else(|| {
        status::invalid_field("deployment.name", "must be a full name, as in openai/gpt-4o-mini")
    })
}
