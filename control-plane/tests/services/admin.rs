//! AdminService over a real socket.
#![expect(clippy::expect_used, reason = "a failure here is a failure of the test")]

use prost_types::FieldMask;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use trunkline_proto::{
    admin::v1::{
        ApplyConfigRequest, Change, ChangeKind, CreateDeploymentRequest, CreateProviderRequest,
        DeleteDeploymentRequest, DeleteProviderRequest, DeleteVirtualModelRequest, ExportConfigRequest,
        GetProviderRequest, GetStatsRequest, ListBreakersRequest, ListDeploymentsRequest,
        ListProvidersRequest, SetBreakerRequest, UpdateDeploymentRequest, UpdateProviderRequest,
        UpdateVirtualModelRequest,
    },
    types::v1::{BreakerState, Deployment, Dialect, Provider, VirtualModel},
};

use crate::support::{DOCUMENT, PATIENCE, Plane, apply, config};

fn provider(name: &str) -> Provider {
    Provider {
        name: name.into(),
        dialect: Dialect::Openai.into(),
        base_url: format!("https://{name}.example.com/v1"),
        ..Provider::default()
    }
}

fn create(provider: Provider) -> CreateProviderRequest {
    CreateProviderRequest { provider: Some(provider), ..Default::default() }
}

fn mask(paths: &[&str]) -> FieldMask {
    FieldMask { paths: paths.iter().map(ToString::to_string).collect() }
}

fn reason(status: &Status) -> String {
    status.get_details_error_info().expect("every error has an ErrorInfo").reason
}

#[tokio::test]
async fn a_provider_is_created_changed_and_deleted() {
    let mut plane = Plane::empty().await;
    let created = plane.admin.create_provider(create(provider("openai"))).await.unwrap().into_inner();
    assert_eq!(created.version.unwrap().revision, 1);
    assert_eq!(created.changes[0].kind(), ChangeKind::Added);
    let stored = created.provider.unwrap();
    assert!(!stored.etag.is_empty());
    let again = plane.admin.create_provider(create(provider("openai"))).await.unwrap_err();
    assert_eq!(again.code(), Code::AlreadyExists);

    let given = Provider { region: "eu".into(), ..stored.clone() };
    let update = UpdateProviderRequest {
        provider: Some(given),
        update_mask: Some(mask(&["region"])),
        ..Default::default()
    };
    let updated = plane.admin.update_provider(update.clone()).await.unwrap().into_inner().provider.unwrap();
    assert_eq!((updated.region.as_str(), &updated.base_url), ("eu", &stored.base_url));
    assert_ne!(updated.etag, stored.etag);
    let stale = UpdateProviderRequest { update_mask: Some(mask(&["base_url"])), ..update };
    let stale = plane.admin.update_provider(stale).await.unwrap_err();
    assert_eq!((stale.code(), reason(&stale).as_str()), (Code::Aborted, "ETAG_MISMATCH"));

    let delete = DeleteProviderRequest { name: "openai".into(), etag: updated.etag, ..Default::default() };
    plane.admin.delete_provider(delete).await.unwrap();
    let gone = plane.admin.get_provider(GetProviderRequest { name: "openai".into() }).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
    plane.stop().await;
}

#[tokio::test]
async fn what_is_invalid_changes_nothing_and_is_named() {
    let mut plane = Plane::empty().await;
    let wrong = Provider { base_url: "ftp://x".into(), ..provider("openai") };
    let error = plane.admin.create_provider(create(wrong)).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    let violations = error.get_details_bad_request().unwrap().field_violations;
    assert_eq!(violations[0].field, "provider.base_url");
    let none = plane.admin.create_provider(CreateProviderRequest::default()).await.unwrap_err();
    assert_eq!(none.get_details_bad_request().unwrap().field_violations[0].field, "provider");
    assert_eq!(plane.running.repository.state().version.revision, 0);
    plane.stop().await;
}

#[tokio::test]
async fn validate_only_answers_and_changes_nothing() {
    let mut plane = Plane::empty().await;
    let request = CreateProviderRequest { validate_only: true, ..create(provider("openai")) };
    let answer = plane.admin.create_provider(request).await.unwrap().into_inner();
    assert_eq!(answer.provider.unwrap().name, "openai");
    assert!(!answer.changes.is_empty());
    assert_eq!(answer.version.unwrap().revision, 0);
    assert_eq!(plane.running.repository.state().version.revision, 0);
    plane.stop().await;
}

#[tokio::test]
async fn a_repeated_request_has_the_effect_and_answer_of_the_first() {
    let mut plane = Plane::empty().await;
    let request_id = "7b0e5a0e-3f0e-4b8e-9d5c-2f1f3c9f0a11".to_owned();
    let request = CreateProviderRequest { request_id: request_id.clone(), ..create(provider("openai")) };
    let first = plane.admin.create_provider(request.clone()).await.unwrap().into_inner();
    plane.admin.create_provider(create(provider("other"))).await.unwrap();
    let second = plane.admin.create_provider(request).await.unwrap().into_inner();
    assert_eq!(first, second);
    let other = CreateProviderRequest { request_id, ..create(provider("third")) };
    assert_eq!(plane.admin.create_provider(other).await.unwrap_err().code(), Code::InvalidArgument);
    let no_uuid = CreateProviderRequest { request_id: "x".into(), ..create(provider("third")) };
    assert_eq!(plane.admin.create_provider(no_uuid).await.unwrap_err().code(), Code::InvalidArgument);
    plane.stop().await;
}

#[tokio::test]
async fn a_request_that_changed_nothing_is_repeated_as_such() {
    let mut plane = Plane::empty().await;
    plane.admin.create_provider(create(provider("openai"))).await.unwrap();
    let request = UpdateProviderRequest {
        provider: Some(provider("openai")),
        request_id: "7b0e5a0e-3f0e-4b8e-9d5c-2f1f3c9f0a12".into(),
        ..Default::default()
    };
    let first = plane.admin.update_provider(request.clone()).await.unwrap().into_inner();
    assert_eq!((first.version.as_ref().unwrap().revision, first.changes.len()), (1, 0));
    let other = Provider { region: "eu".into(), ..provider("openai") };
    let other = UpdateProviderRequest { provider: Some(other), ..Default::default() };
    plane.admin.update_provider(other).await.unwrap();
    let second = plane.admin.update_provider(request).await.unwrap().into_inner();
    assert_eq!(first, second);
    assert_eq!(plane.running.repository.state().version.revision, 2);
    plane.stop().await;
}

#[tokio::test]
async fn concurrent_writes_of_different_resources_all_succeed() {
    let plane = Plane::empty().await;
    let names: Vec<String> = (0..50).map(|number| format!("p{number}")).collect();
    let writes = names.iter().map(|name| {
        let mut admin = plane.admin.clone();
        async move { admin.create_provider(create(provider(name))).await.unwrap() }
    });
    futures_util::future::join_all(writes).await;
    assert_eq!(plane.running.repository.state().config.providers.len(), names.len());
    plane.stop().await;
}

#[tokio::test]
async fn deployments_are_edited_inside_their_provider() {
    let mut plane = Plane::configured().await;
    let deployment = Deployment { name: "two/large".into(), context_window: 1_000, ..Default::default() };
    let request = CreateDeploymentRequest { deployment: Some(deployment), ..Default::default() };
    let created = plane.admin.create_deployment(request).await.unwrap().into_inner().deployment.unwrap();
    let owner = plane.admin.get_provider(GetProviderRequest { name: "two".into() }).await.unwrap();
    let owner = owner.into_inner().provider.unwrap();
    assert_eq!(created.etag, owner.etag);
    assert_eq!(owner.deployments.len(), 2);

    let given = Deployment { name: "two/large".into(), quality: Some(0.5), ..Default::default() };
    let request = UpdateDeploymentRequest { deployment: Some(given), ..Default::default() };
    let updated = plane.admin.update_deployment(request).await.unwrap().into_inner().deployment.unwrap();
    assert_eq!((updated.context_window, updated.quality), (1_000, Some(0.5)));

    let bad = Deployment { name: "two/large".into(), quality: Some(7.0), ..Default::default() };
    let request = UpdateDeploymentRequest { deployment: Some(bad), ..Default::default() };
    let error = plane.admin.update_deployment(request).await.unwrap_err();
    assert_eq!(error.get_details_bad_request().unwrap().field_violations[0].field, "deployment.quality");

    let used = DeleteDeploymentRequest { name: "two/small".into(), ..Default::default() };
    let error = plane.admin.delete_deployment(used).await.unwrap_err();
    assert_eq!((error.code(), reason(&error).as_str()), (Code::FailedPrecondition, "IN_USE"));
    let unused = DeleteDeploymentRequest { name: "two/large".into(), ..Default::default() };
    plane.admin.delete_deployment(unused).await.unwrap();
    plane.stop().await;
}

#[tokio::test]
async fn a_virtual_model_is_changed_by_mask_and_unknown_paths_are_refused() {
    let mut plane = Plane::configured().await;
    let given = VirtualModel {
        name: "chat".into(),
        retry: Some(trunkline_proto::types::v1::Retry { max_attempts: Some(5), ..Default::default() }),
        ..Default::default()
    };
    let request = |paths| UpdateVirtualModelRequest {
        virtual_model: Some(given.clone()),
        update_mask: Some(mask(paths)),
        ..Default::default()
    };
    let updated =
        plane.admin.update_virtual_model(request(&["retry.max_attempts"])).await.unwrap().into_inner();
    let model = updated.virtual_model.unwrap();
    assert_eq!((model.retry.unwrap().max_attempts, model.tiers.len()), (Some(5), 1));
    let error = plane.admin.update_virtual_model(request(&["retries"])).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(error.message().contains("retry"), "{}", error.message());
    plane.stop().await;
}

#[tokio::test]
async fn all_pages_of_a_listing_show_one_state() {
    let mut plane = Plane::empty().await;
    for number in 0..5 {
        plane.admin.create_provider(create(provider(&format!("p{number}")))).await.unwrap();
    }
    let first = ListProvidersRequest { page_size: 2, ..Default::default() };
    let page = plane.admin.list_providers(first).await.unwrap().into_inner();
    assert_eq!(page.providers.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["p0", "p1"]);
    // A change between two pages is not seen.
    plane
        .admin
        .delete_provider(DeleteProviderRequest { name: "p2".into(), ..Default::default() })
        .await
        .unwrap();
    let mut names = Vec::new();
    let mut page_token = page.next_page_token.clone();
    while !page_token.is_empty() {
        let next = ListProvidersRequest { page_size: 2, page_token };
        let page = plane.admin.list_providers(next).await.unwrap().into_inner();
        names.extend(page.providers.into_iter().map(|one| one.name));
        page_token = page.next_page_token;
    }
    assert_eq!(names, ["p2", "p3", "p4"]);
    let foreign = ListDeploymentsRequest { page_token: page.next_page_token, ..Default::default() };
    assert_eq!(plane.admin.list_deployments(foreign).await.unwrap_err().code(), Code::InvalidArgument);
    let negative = ListProvidersRequest { page_size: -1, ..Default::default() };
    assert_eq!(plane.admin.list_providers(negative).await.unwrap_err().code(), Code::InvalidArgument);
    plane.stop().await;
}

#[tokio::test]
async fn what_is_applied_is_exported_and_applying_it_again_changes_nothing() {
    let mut plane = Plane::configured().await;
    let exported = plane.admin.export_config(ExportConfigRequest {}).await.unwrap().into_inner();
    assert_eq!(exported.version.as_ref().unwrap().revision, 1);
    let again = plane.admin.apply_config(apply(exported.config.unwrap())).await.unwrap().into_inner();
    assert_eq!((again.version, again.changes), (exported.version, Vec::<Change>::new()));

    let stale = ApplyConfigRequest { base_revision: 9, ..apply(config(DOCUMENT)) };
    let error = plane.admin.apply_config(stale).await.unwrap_err();
    assert_eq!((error.code(), reason(&error).as_str()), (Code::Aborted, "REVISION_MISMATCH"));

    let changed = config(&DOCUMENT.replace("weight: 70", "weight: 60"));
    let preview = ApplyConfigRequest { validate_only: true, ..apply(changed) };
    let preview = plane.admin.apply_config(preview).await.unwrap().into_inner();
    assert_eq!((preview.changes.len(), preview.version.unwrap().revision), (1, 1));
    plane.stop().await;
}

#[tokio::test]
async fn most_deployments_are_not_removed_by_accident() {
    let mut plane = Plane::configured().await;
    let error = plane.admin.apply_config(apply(config("{}"))).await.unwrap_err();
    assert_eq!((error.code(), reason(&error).as_str()), (Code::FailedPrecondition, "REMOVAL_GUARD"));
    let forced = ApplyConfigRequest { force: true, ..apply(config("{}")) };
    let applied = plane.admin.apply_config(forced).await.unwrap().into_inner();
    assert_eq!(applied.version.unwrap().revision, 2);
    let error = plane
        .admin
        .delete_virtual_model(DeleteVirtualModelRequest { name: "chat".into(), ..Default::default() });
    assert_eq!(error.await.unwrap_err().code(), Code::NotFound);
    plane.stop().await;
}

#[tokio::test]
async fn breakers_are_forced_shown_and_given_back() {
    let mut plane = Plane::configured().await;
    let request = |state: BreakerState| SetBreakerRequest {
        deployment: "one/small".into(),
        state: state.into(),
        reason: "maintenance".into(),
        ..Default::default()
    };
    let ttl = prost_types::Duration { seconds: 60, nanos: 0 };
    let forced = SetBreakerRequest { ttl: Some(ttl), ..request(BreakerState::ForcedOpen) };
    let breaker = plane.admin.set_breaker(forced).await.unwrap().into_inner().breaker.unwrap();
    assert_eq!((breaker.state(), breaker.generation), (BreakerState::ForcedOpen, 1));
    assert!(breaker.expire_time.is_some());
    let active =
        plane.admin.list_breakers(ListBreakersRequest { active_only: true }).await.unwrap().into_inner();
    assert_eq!(active.breakers, [breaker]);
    plane.admin.set_breaker(request(BreakerState::Closed)).await.unwrap();
    let all = plane.admin.list_breakers(ListBreakersRequest::default()).await.unwrap().into_inner();
    assert_eq!(all.breakers.len(), 3);
    assert!(all.breakers.iter().all(|breaker| breaker.state() == BreakerState::Closed));
    let unknown = SetBreakerRequest { deployment: "no/where".into(), ..request(BreakerState::ForcedOpen) };
    assert_eq!(plane.admin.set_breaker(unknown).await.unwrap_err().code(), Code::NotFound);
    let wrong = plane.admin.set_breaker(request(BreakerState::HalfOpen)).await.unwrap_err();
    assert_eq!(wrong.code(), Code::InvalidArgument);
    plane.stop().await;
}

#[tokio::test]
async fn a_forced_breaker_ends_by_itself() {
    let mut plane = Plane::configured().await;
    let ttl = Some(prost_types::Duration { seconds: 1, nanos: 0 });
    let state = BreakerState::ForcedOpen.into();
    let request = SetBreakerRequest { deployment: "one/small".into(), state, ttl, ..Default::default() };
    plane.admin.set_breaker(request).await.unwrap();
    let mut verdicts = plane.running.repository.subscribe_verdicts();
    let ended = verdicts.wait_for(|verdicts| verdicts.get("one/small").is_none());
    tokio::time::timeout(PATIENCE, ended).await.unwrap().unwrap();
    plane.stop().await;
}

#[tokio::test]
async fn stats_have_a_row_for_each_configured_deployment() {
    let mut plane = Plane::configured().await;
    let stats = plane.admin.get_stats(GetStatsRequest::default()).await.unwrap().into_inner();
    let names: Vec<_> = stats.rows.iter().map(|row| row.deployment.as_str()).collect();
    assert_eq!(names, ["one/large", "one/small", "two/small"]);
    let window = Some(prost_types::Duration { seconds: 401 * 86_400, nanos: 0 });
    let error = plane.admin.get_stats(GetStatsRequest { window, ..Default::default() }).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    plane.stop().await;
}
