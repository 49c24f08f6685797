//! Price entries: Get, List, Create, Update, Delete, Accept, and imports from files.

use std::{
    collections::HashMap,
    time::{SystemTime, UNIX_EPOCH},
};

use tonic::Status;
use trunkline_proto::{
    admin::v1::{
        AcceptPriceEntryRequest, AcceptPriceEntryResponse, Config, CreatePriceEntryRequest,
        CreatePriceEntryResponse, DeletePriceEntryRequest, DeletePriceEntryResponse, ImportPricesRequest,
        ImportPricesResponse, ListPriceEntriesRequest, ListPriceEntriesResponse, UpdatePriceEntryRequest,
        UpdatePriceEntryResponse,
    },
    convert, status,
    types::v1::PriceEntry,
};

use super::{
    mask,
    page::Page,
    write::{Write, checked, etag_matches, required},
};
use crate::{
    grpc::Context,
    prices::{
        feed::{Feed, Format},
        plan::{accepted, plan},
    },
};

const KIND: &str = "price entry";
const FIELD: &str = "price_entry";
const LISTING: &str = "price_entries";

/// Models that are named in one import, as many as there can be entries.
const NAMED_MAX: usize = 10_000;

/// What only the control plane writes.
const OUTPUT: [&str; 5] = ["name", "source", "feed_model", "held", "etag"];

pub(super) fn get(config: &Config, name: &str) -> Result<PriceEntry, Status> {
    Ok(with_etag(config.price_entries[find(config, name)?].clone()))
}

pub(super) fn list(
    context: &Context,
    request: &ListPriceEntriesRequest,
) -> Result<ListPriceEntriesResponse, Status> {
    let listing = format!("{LISTING} of {}", request.deployment);
    let page = Page::parse(&listing, request.page_size, &request.page_token)?;
    let state = page.state(&context.repository)?;
    let wanted = |one: &&PriceEntry| request.deployment.is_empty() || one.deployment == request.deployment;
    let mut sorted: Vec<&PriceEntry> = state.config.price_entries.iter().filter(wanted).collect();
    sorted.sort_by(|one, other| one.name.cmp(&other.name));
    let (entries, next_page_token) = page.cut(&listing, &state, sorted, |entry| &entry.name);
    let price_entries = entries.into_iter().cloned().map(with_etag).collect();
    Ok(ListPriceEntriesResponse { price_entries, next_page_token, feed: context.price_feed.now() })
}

pub(super) async fn create(
    context: &Context,
    principal: String,
    request: CreatePriceEntryRequest,
) -> Result<CreatePriceEntryResponse, Status> {
    let write = Write::new("CreatePriceEntry", principal, &request, &request.request_id)?;
    let write = write.validate_only(request.validate_only);
    let entry = required(FIELD, request.price_entry)?;
    let name = entry.name.clone();
    if convert::is_from_feed(&entry) {
        let message = "is for the control plane to set; leave it out, or write PRICE_SOURCE_OPERATOR";
        return Err(status::invalid_field("price_entry.source", message));
    }
    let written = write.run(context, move |state, config| {
        if find(config, &entry.name).is_ok() {
            return Err(status::already_exists(KIND, &entry.name));
        }
        config.price_entries.push(PriceEntry { etag: String::new(), ..entry });
        let inside = format!("price_entries[{}]", config.price_entries.len() - 1);
        checked(&state.version, config, &inside, FIELD)
    });
    let written = written.await?;
    let price_entry = Some(get(&written.config, &name)?);
    Ok(CreatePriceEntryResponse { price_entry, version: Some(written.version), changes: written.changes })
}

pub(super) async fn update(
    context: &Context,
    principal: String,
    request: UpdatePriceEntryRequest,
) -> Result<UpdatePriceEntryResponse, Status> {
    let write = Write::new("UpdatePriceEntry", principal, &request, &request.request_id)?;
    let write = write.validate_only(request.validate_only);
    let given = required(FIELD, request.price_entry)?;
    let name = given.name.clone();
    let written = write.run(context, move |state, config| {
        let index = find(config, &given.name)?;
        let stored = &config.price_entries[index];
        if convert::is_from_feed(stored) {
            let message = format!(
                "price entry {:?} is from a feed; create one of your own, which counts from its valid_from on",
                given.name
            );
            return Err(status::failed_precondition("FROM_FEED", message, HashMap::new()));
        }
        etag_matches(KIND, &given.name, &given.etag, &convert::etag_of_price_entry(stored))?;
        let mask = request.update_mask.as_ref();
        let merged = mask::merge("trunkline.types.v1.PriceEntry", stored, &given, mask, &OUTPUT)?;
        config.price_entries[index] = merged;
        checked(&state.version, config, &format!("price_entries[{index}]"), FIELD)
    });
    let written = written.await?;
    let price_entry = Some(get(&written.config, &name)?);
    Ok(UpdatePriceEntryResponse { price_entry, version: Some(written.version), changes: written.changes })
}

pub(super) async fn delete(
    context: &Context,
    principal: String,
    request: DeletePriceEntryRequest,
) -> Result<DeletePriceEntryResponse, Status> {
    let write = Write::new("DeletePriceEntry", principal, &request, &request.request_id)?;
    let write = write.validate_only(request.validate_only);
    let written = write.run(context, move |_, config| {
        let name = request.name.as_str();
        let index = find(config, name)?;
        let current = convert::etag_of_price_entry(&config.price_entries[index]);
        etag_matches(KIND, name, &request.etag, &current)?;
        config.price_entries.remove(index);
        Ok(())
    });
    let written = written.await?;
    Ok(DeletePriceEntryResponse { version: Some(written.version), changes: written.changes })
}

pub(super) async fn accept(
    context: &Context,
    principal: String,
    request: AcceptPriceEntryRequest,
) -> Result<AcceptPriceEntryResponse, Status> {
    let write = Write::new("AcceptPriceEntry", principal, &request, &request.request_id)?;
    let write = write.validate_only(request.validate_only);
    let name = request.name.clone();
    let written = write.run(context, move |_, config| {
        let name = request.name.as_str();
        let index = find(config, name)?;
        let stored = &config.price_entries[index];
        etag_matches(KIND, name, &request.etag, &convert::etag_of_price_entry(stored))?;
        if stored.held.is_empty() {
            let message = format!("price entry {name:?} is not held back");
            return Err(status::failed_precondition("NOT_HELD", message, HashMap::new()));
        }
        config.price_entries[index] = accepted(stored, now_unix_ms());
        Ok(())
    });
    let written = written.await?;
    let price_entry = Some(get(&written.config, &name)?);
    Ok(AcceptPriceEntryResponse { price_entry, version: Some(written.version), changes: written.changes })
}

pub(super) async fn import(
    context: &Context,
    principal: String,
    request: ImportPricesRequest,
) -> Result<ImportPricesResponse, Status> {
    let write = Write::new("ImportPrices", principal, &request, &request.request_id)?;
    let write = write.validate_only(request.validate_only);
    let format = Format::of_wire(request.format).ok_or_else(|| {
        let message = "must be PRICE_FEED_FORMAT_LITELLM or PRICE_FEED_FORMAT_OPENROUTER";
        status::invalid_field("format", message)
    })?;
    if request.models.len() > NAMED_MAX {
        return Err(status::invalid_field("models", &format!("must not name more than {NAMED_MAX}")));
    }
    let ImportPricesRequest { data, models: named, accept_held, .. } = request;
    // Megabytes of JSON are for no thread that serves others.
    let read = tokio::task::spawn_blocking(move || Feed::read(format, &data)).await;
    let feed = read.map_err(|_| Status::internal("the reader of the file ended"))?;
    let feed = feed.map_err(|refused| status::invalid_field("data", &refused.to_string()))?;
    if let Some((of, name)) =
        named.iter().find(|(_, name)| !name.is_empty() && !feed.models.contains_key(*name))
    {
        let message = format!("names {name:?} for {of:?}, which is no priced model of the file");
        return Err(status::invalid_field("models", &message));
    }
    let models = feed.models.len() as u32;
    let (told, unmatched) = tokio::sync::oneshot::channel();
    let written = write.run(context, move |state, config| {
        let plan = plan(&state.config, &feed, &named, now_unix_ms(), accept_held);
        config.price_entries = plan.entries;
        // Whoever waits for it is this function.
        drop(told.send(plan.unmatched));
        Ok(())
    });
    let written = written.await?;
    let is_held = |one: &&PriceEntry| !one.held.is_empty();
    Ok(ImportPricesResponse {
        version: Some(written.version),
        held: written.config.price_entries.iter().filter(is_held).cloned().map(with_etag).collect(),
        changes: written.changes,
        models,
        // A request that was sent again is not worked out again.
        unmatched: unmatched.await.unwrap_or_default(),
    })
}

fn now_unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

/// Where the entry is.
fn find(config: &Config, name: &str) -> Result<usize, Status> {
    let found = config.price_entries.iter().position(|entry| entry.name == name);
    found.ok_or_else(|| status::not_found(KIND, name))
}

/// As Get and WatchResources show it.
pub(super) fn with_etag(mut entry: PriceEntry) -> PriceEntry {
    entry.etag = convert::etag_of_price_entry(&entry);
    entry
}
