//! Keys of apps over a real socket.
#![expect(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

use prost_types::FieldMask;
use sha2::{Digest as _, Sha256};
use tonic::{Code, Request};
use tonic_types::StatusExt as _;
use trunkline_proto::{
    admin::v1::{
        CreateApiKeyRequest, CreateApiKeyResponse, DeleteApiKeyRequest, ExportConfigRequest,
        ListApiKeysRequest, QueryAuditRequest, UpdateApiKeyRequest,
    },
    routing::v1::{RouteRequest, routing_service_client::RoutingServiceClient},
    types::v1::ApiKey,
};

use crate::support::Plane;

const REQUEST: &str = "6f2f1a34-3f5c-4d0e-8f51-0d3c2b1a9e77";

fn key(name: &str) -> ApiKey {
    ApiKey { name: name.into(), allowed_models: vec!["chat".into()], ..ApiKey::default() }
}

async fn create(plane: &mut Plane, name: &str, request_id: &str) -> CreateApiKeyResponse {
    let request =
        CreateApiKeyRequest { api_key: Some(key(name)), request_id: request_id.into(), ..Default::default() };
    plane.admin.create_api_key(request).await.unwrap().into_inner()
}

fn hash_of(secret: &str) -> String {
    Sha256::digest(secret).iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

async fn route(plane: &Plane, secret: &str) -> Result<(), Code> {
    let mut request = Request::new(RouteRequest { model: "chat".into(), ..Default::default() });
    let value = format!("Bearer {secret}").parse().unwrap();
    request.metadata_mut().insert("authorization", value);
    let mut app = RoutingServiceClient::new(plane.channel.clone());
    app.route(request).await.map(drop).map_err(|status| status.code())
}

#[tokio::test]
async fn a_key_that_is_made_here_is_told_once_and_works_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let mut plane = Plane::on_disk(directory.path()).await;
    plane
        .admin
        .apply_config(crate::support::apply(crate::support::config(crate::support::DOCUMENT)))
        .await
        .unwrap();
    let created = create(&mut plane, "team-a", REQUEST).await;
    let secret = created.secret.clone();
    assert_eq!((secret.len(), &secret[..3]), (46, "tl_"));
    let stored = created.api_key.clone().unwrap();
    let hash = hash_of(&secret);
    assert_eq!(stored.secret_sha256, hash);
    assert!(!format!("{created:?}").contains(&secret), "its Debug hides it");

    // Sent again: the same key, and no secret.
    let again = create(&mut plane, "team-a", REQUEST).await;
    assert_eq!((again.secret.as_str(), again.api_key), ("", Some(stored)));
    assert_eq!(route(&plane, &secret).await, Ok(()));
    assert_eq!(route(&plane, "tl_other").await, Err(Code::Unauthenticated));

    // Nowhere else, on disk or in an answer.
    let exported = plane.admin.export_config(ExportConfigRequest {}).await.unwrap().into_inner();
    let audit = plane.admin.query_audit(QueryAuditRequest::default()).await.unwrap().into_inner();
    let listed = plane.admin.list_api_keys(ListApiKeysRequest::default()).await.unwrap().into_inner();
    let metrics = plane.page("/metrics").await;
    assert!(!format!("{exported:?}{audit:?}{listed:?}{metrics}").contains(&secret[3..]));
    plane.stop().await;
    for file in walk(directory.path()) {
        let bytes = std::fs::read(&file).unwrap();
        let found = bytes.windows(secret.len() - 3).any(|part| part == &secret.as_bytes()[3..]);
        assert!(!found, "{}", file.display());
    }
}

fn walk(directory: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

#[tokio::test]
async fn a_deleted_key_is_refused_and_another_one_goes_on() {
    let mut plane = Plane::configured().await;
    let one = create(&mut plane, "one", "").await;
    let other = create(&mut plane, "other", "").await;
    assert_ne!(one.secret, other.secret);
    let delete =
        DeleteApiKeyRequest { name: "one".into(), etag: one.api_key.unwrap().etag, ..Default::default() };
    plane.admin.delete_api_key(delete.clone()).await.unwrap();
    assert_eq!(route(&plane, &one.secret).await, Err(Code::Unauthenticated));
    assert_eq!(route(&plane, &other.secret).await, Ok(()));
    assert_eq!(plane.admin.delete_api_key(delete).await.unwrap_err().code(), Code::NotFound);
    plane.stop().await;
}

#[tokio::test]
async fn a_key_is_changed_by_mask_and_its_hash_may_be_the_callers() {
    let mut plane = Plane::configured().await;
    let own = ApiKey { secret_sha256: hash_of("my-own-secret"), ..key("own") };
    let request = CreateApiKeyRequest { api_key: Some(own), ..Default::default() };
    let created = plane.admin.create_api_key(request).await.unwrap().into_inner();
    assert_eq!(created.secret, "", "the control plane does not know it");
    assert_eq!(route(&plane, "my-own-secret").await, Ok(()));

    let rotated = ApiKey {
        secret_sha256: hash_of("the-next-one"),
        allowed_models: vec![],
        ..created.api_key.clone().unwrap()
    };
    let update = UpdateApiKeyRequest {
        api_key: Some(rotated),
        update_mask: Some(FieldMask { paths: vec!["secret_sha256".into()] }),
        ..Default::default()
    };
    let updated = plane.admin.update_api_key(update.clone()).await.unwrap().into_inner().api_key.unwrap();
    assert_eq!(updated.allowed_models, ["chat"], "not in the mask");
    assert_eq!(route(&plane, "my-own-secret").await, Err(Code::Unauthenticated));
    assert_eq!(route(&plane, "the-next-one").await, Ok(()));
    assert_eq!(plane.admin.update_api_key(update).await.unwrap_err().code(), Code::Aborted);
    plane.stop().await;
}

#[tokio::test]
async fn a_check_makes_no_key_and_what_is_wrong_is_named() {
    let mut plane = Plane::configured().await;
    let request = CreateApiKeyRequest { api_key: Some(key("k")), validate_only: true, ..Default::default() };
    let checked = plane.admin.create_api_key(request).await.unwrap().into_inner();
    assert_eq!((checked.secret.as_str(), checked.version.unwrap().revision), ("", 1));
    let wrong = ApiKey { allowed_models: vec!["none".into()], ..key("k") };
    let request = CreateApiKeyRequest { api_key: Some(wrong), ..Default::default() };
    let error = plane.admin.create_api_key(request).await.unwrap_err();
    let violations = error.get_details_bad_request().unwrap().field_violations;
    assert_eq!(violations[0].field, "api_key.allowed_models[0]");
    let listed = plane.admin.list_api_keys(ListApiKeysRequest::default()).await.unwrap().into_inner();
    assert_eq!(listed.api_keys, []);
    plane.stop().await;
}
