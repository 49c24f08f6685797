//! Virtual models: Get, List, Create, Update, Delete.

use tonic::Status;
use trunkline_proto::{
    admin::v1::{
        Config, CreateVirtualModelRequest, CreateVirtualModelResponse, DeleteVirtualModelRequest,
        DeleteVirtualModelResponse, ListVirtualModelsRequest, ListVirtualModelsResponse,
        UpdateVirtualModelRequest, UpdateVirtualModelResponse,
    },
    convert, status,
    types::v1::VirtualModel,
};

use super::{
    mask,
    page::Page,
    write::{Write, checked, etag_matches, required},
};
use crate::grpc::Context;

const KIND: &str = "virtual model";
const FIELD: &str = "virtual_model";
const LISTING: &str = "virtual_models";

pub(super) fn get(config: &Config, name: &str) -> Result<VirtualModel, Status> {
    Ok(with_etag(config.virtual_models[find(config, name)?].clone()))
}

pub(super) fn list(
    context: &Context,
    request: &ListVirtualModelsRequest,
) -> Result<ListVirtualModelsResponse, Status> {
    let page = Page::parse(LISTING, request.page_size, &request.page_token)?;
    let state = page.state(&context.repository)?;
    let mut sorted: Vec<&VirtualModel> = state.config.virtual_models.iter().collect();
    sorted.sort_by(|one, other| one.name.cmp(&other.name));
    let (virtual_models, next_page_token) = page.cut(LISTING, &state, sorted, |model| &model.name);
    Ok(ListVirtualModelsResponse {
        virtual_models: virtual_models.into_iter().cloned().map(with_etag).collect(),
        next_page_token,
    })
}

pub(super) async fn create(
    context: &Context,
    principal: String,
    request: CreateVirtualModelRequest,
) -> Result<CreateVirtualModelResponse, Status> {
    let write = Write::new("CreateVirtualModel", principal, &request, &request.request_id)?;
    let write = write.validate_only(request.validate_only);
    let model = required(FIELD, request.virtual_model)?;
    let name = model.name.clone();
    let written = write.run(context, move |state, config| {
        if find(config, &model.name).is_ok() {
            return Err(status::already_exists(KIND, &model.name));
        }
        config.virtual_models.push(VirtualModel { etag: String::new(), ..model });
        let inside = format!("virtual_models[{}]", config.virtual_models.len() - 1);
        checked(&state.version, config, &inside, FIELD)
    });
    let written = written.await?;
    let virtual_model = Some(get(&written.config, &name)?);
    Ok(CreateVirtualModelResponse { virtual_model, version: Some(written.version), changes: written.changes })
}

pub(super) async fn update(
    context: &Context,
    principal: String,
    request: UpdateVirtualModelRequest,
) -> Result<UpdateVirtualModelResponse, Status> {
    let write = Write::new("UpdateVirtualModel", principal, &request, &request.request_id)?;
    let write = write.validate_only(request.validate_only).force(request.force);
    let given = required(FIELD, request.virtual_model)?;
    let name = given.name.clone();
    let written = write.run(context, move |state, config| {
        let index = find(config, &given.name)?;
        let stored = &config.virtual_models[index];
        etag_matches(KIND, &given.name, &given.etag, &convert::etag_of_virtual_model(stored))?;
        let mask = request.update_mask.as_ref();
        let merged = mask::merge("trunkline.types.v1.VirtualModel", stored, &given, mask, &["name", "etag"])?;
        config.virtual_models[index] = merged;
        checked(&state.version, config, &format!("virtual_models[{index}]"), FIELD)
    });
    let written = written.await?;
    let virtual_model = Some(get(&written.config, &name)?);
    Ok(UpdateVirtualModelResponse { virtual_model, version: Some(written.version), changes: written.changes })
}

pub(super) async fn delete(
    context: &Context,
    principal: String,
    request: DeleteVirtualModelRequest,
) -> Result<DeleteVirtualModelResponse, Status> {
    let write = Write::new("DeleteVirtualModel", principal, &request, &request.request_id)?;
    let write = write.validate_only(request.validate_only).force(request.force);
    let written = write.run(context, move |_, config| {
        let name = request.name.as_str();
        let index = find(config, name)?;
        etag_matches(
            KIND,
            name,
            &request.etag,
            &convert::etag_of_virtual_model(&config.virtual_models[index]),
        )?;
        config.virtual_models.remove(index);
        Ok(())
    });
    let written = written.await?;
    Ok(DeleteVirtualModelResponse { version: Some(written.version), changes: written.changes })
}

/// Where the virtual model is.
fn find(config: &Config, name: &str) -> Result<usize, Status> {
    let found = config.virtual_models.iter().position(|model| model.name == name);
    found.ok_or_else(|| status::not_found(KIND, name))
}

/// As Get and WatchResources show it.
pub(super) fn with_etag(mut model: VirtualModel) -> VirtualModel {
    model.etag = convert::etag_of_virtual_model(&model);
    model
}
