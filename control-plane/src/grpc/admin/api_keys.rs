//! Keys of apps: Get, List, Create, Update, Delete. A key that is made here is told once,
//! in the answer to Create; what is kept, written down and shown is its hash.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use rand::TryRng as _;
use sha2::{Digest as _, Sha256};
use tonic::Status;
use trunkline_proto::{
    admin::v1::{
        Config, CreateApiKeyRequest, CreateApiKeyResponse, DeleteApiKeyRequest, DeleteApiKeyResponse,
        ListApiKeysRequest, ListApiKeysResponse, UpdateApiKeyRequest, UpdateApiKeyResponse,
    },
    convert, status,
    types::v1::ApiKey,
};

use super::{
    mask,
    page::{Page, hex},
    write::{Write, checked, etag_matches, required},
};
use crate::grpc::Context;

const KIND: &str = "API key";
const FIELD: &str = "api_key";
const LISTING: &str = "api_keys";

/// Before each key, so that scanners find one in a log or a repository.
const PREFIX: &str = "tl_";

/// 256 bits: nobody guesses it, and its plain SHA-256 needs no salt.
const SECRET_BYTES: usize = 32;

pub(super) fn get(config: &Config, name: &str) -> Result<ApiKey, Status> {
    Ok(with_etag(config.api_keys[find(config, name)?].clone()))
}

pub(super) fn list(context: &Context, request: &ListApiKeysRequest) -> Result<ListApiKeysResponse, Status> {
    let page = Page::parse(LISTING, request.page_size, &request.page_token)?;
    let state = page.state(&context.repository)?;
    let mut sorted: Vec<&ApiKey> = state.config.api_keys.iter().collect();
    sorted.sort_by(|one, other| one.name.cmp(&other.name));
    let (keys, next_page_token) = page.cut(LISTING, &state, sorted, |key| &key.name);
    Ok(ListApiKeysResponse { api_keys: keys.into_iter().cloned().map(with_etag).collect(), next_page_token })
}

pub(super) async fn create(
    context: &Context,
    principal: String,
    request: CreateApiKeyRequest,
) -> Result<CreateApiKeyResponse, Status> {
    let write = Write::new("CreateApiKey", principal, &request, &request.request_id)?;
    let write = write.validate_only(request.validate_only);
    let mut key = required(FIELD, request.api_key)?;
    let name = key.name.clone();
    let made = if key.secret_sha256.is_empty() { Some(make()?) } else { None };
    if let Some(secret) = &made {
        key.secret_sha256 = hex(&Sha256::digest(secret.as_bytes()));
    }
    let hash = key.secret_sha256.clone();
    let written = write.run(context, move |state, config| {
        if find(config, &key.name).is_ok() {
            return Err(status::already_exists(KIND, &key.name));
        }
        config.api_keys.push(ApiKey { etag: String::new(), ..key });
        let inside = format!("api_keys[{}]", config.api_keys.len() - 1);
        checked(&state.version, config, &inside, FIELD)
    });
    let written = written.await?;
    let api_key = get(&written.config, &name)?;
    // Of a request that is sent again the stored hash is that of the first secret, which
    // is gone; the one just made opens nothing.
    let opens = !request.validate_only && api_key.secret_sha256 == hash;
    let secret = made.filter(|_| opens).unwrap_or_default();
    Ok(CreateApiKeyResponse {
        api_key: Some(api_key),
        secret,
        version: Some(written.version),
        changes: written.changes,
    })
}

pub(super) async fn update(
    context: &Context,
    principal: String,
    request: UpdateApiKeyRequest,
) -> Result<UpdateApiKeyResponse, Status> {
    let write = Write::new("UpdateApiKey", principal, &request, &request.request_id)?;
    let write = write.validate_only(request.validate_only);
    let given = required(FIELD, request.api_key)?;
    let name = given.name.clone();
    let written = write.run(context, move |state, config| {
        let index = find(config, &given.name)?;
        let stored = &config.api_keys[index];
        etag_matches(KIND, &given.name, &given.etag, &convert::etag_of_api_key(stored))?;
        let mask = request.update_mask.as_ref();
        let merged = mask::merge("trunkline.types.v1.ApiKey", stored, &given, mask, &["name", "etag"])?;
        config.api_keys[index] = merged;
        checked(&state.version, config, &format!("api_keys[{index}]"), FIELD)
    });
    let written = written.await?;
    let api_key = Some(get(&written.config, &name)?);
    Ok(UpdateApiKeyResponse { api_key, version: Some(written.version), changes: written.changes })
}

pub(super) async fn delete(
    context: &Context,
    principal: String,
    request: DeleteApiKeyRequest,
) -> Result<DeleteApiKeyResponse, Status> {
    let write = Write::new("DeleteApiKey", principal, &request, &request.request_id)?;
    let write = write.validate_only(request.validate_only);
    let written = write.run(context, move |_, config| {
        let name = request.name.as_str();
        let index = find(config, name)?;
        etag_matches(KIND, name, &request.etag, &convert::etag_of_api_key(&config.api_keys[index]))?;
        config.api_keys.remove(index);
        Ok(())
    });
    let written = written.await?;
    Ok(DeleteApiKeyResponse { version: Some(written.version), changes: written.changes })
}

/// A new key: [`SECRET_BYTES`] from the operating system, in base64url.
fn make() -> Result<String, Status> {
    let mut bytes = [0; SECRET_BYTES];
    let filled = rand::rngs::SysRng.try_fill_bytes(&mut bytes);
    filled.map_err(|error| {
        status::unavailable(
            "NO_ENTROPY",
            format!("the operating system gives no random bytes: {error}"),
            None,
        )
    })?;
    Ok(format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(bytes)))
}

/// Where the key is.
fn find(config: &Config, name: &str) -> Result<usize, Status> {
    let found = config.api_keys.iter().position(|key| key.name == name);
    found.ok_or_else(|| status::not_found(KIND, name))
}

/// As Get and WatchResources show it.
pub(super) fn with_etag(mut key: ApiKey) -> ApiKey {
    key.etag = convert::etag_of_api_key(&key);
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_long_and_each_is_another() {
        let (one, other) = (make().unwrap(), make().unwrap());
        assert_eq!((one.len(), &one[..3]), (3 + 43, "tl_"));
        assert_ne!(one, other);
    }
}
