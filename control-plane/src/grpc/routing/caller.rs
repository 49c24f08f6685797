//! Who calls: the app key, as soon as one is configured.

use std::collections::HashMap;

use sha2::{Digest, Sha256};
use tonic::{Code, Status, metadata::MetadataMap};
use tonic_types::{ErrorDetails, StatusExt as _};
use trunkline_routing::table::RoutingTable;

/// The name of the caller's key; None while no keys are configured.
pub(super) fn authenticate(table: &RoutingTable, metadata: &MetadataMap) -> Result<Option<String>, Status> {
    if table.api_keys.is_empty() {
        return Ok(None);
    }
    let text = |name| metadata.get(name).and_then(|value| value.to_str().ok());
    let bearer = text("authorization").and_then(|value| value.strip_prefix("Bearer "));
    let key = bearer.or_else(|| text("x-api-key")).map(|key| <[u8; 32]>::from(Sha256::digest(key)));
    // Only digests are compared, so timing tells nothing of a key.
    let known = key.and_then(|digest| table.api_keys.iter().find(|known| known.secret_sha256 == digest));
    let message = "an API key is required, as `authorization: Bearer KEY` or `x-api-key: KEY`";
    known
        .map(|key| Some(key.name.to_string()))
        .ok_or_else(|| refusal(Code::Unauthenticated, "INVALID_API_KEY", message))
}

/// Refuses a model that the caller's key does not allow, or a key that is gone by now.
pub(super) fn may_use(table: &RoutingTable, tenant: Option<&str>, model: &str) -> Result<(), Status> {
    let key = tenant.and_then(|tenant| table.api_keys.iter().find(|key| key.name.as_ref() == tenant));
    if table.api_keys.is_empty() || key.is_some_and(|key| key.allows(model)) {
        return Ok(());
    }
    let message = format!("this API key may not use {model:?}");
    Err(refusal(Code::PermissionDenied, "MODEL_NOT_ALLOWED", &message))
}

fn refusal(code: Code, reason: &str, message: &str) -> Status {
    Status::with_error_details(
        code,
        message,
        ErrorDetails::with_error_info(reason, "trunkline", HashMap::new()),
    )
}
