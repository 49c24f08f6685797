//! Former revisions and the audit log over a real socket.
#![expect(clippy::expect_used, clippy::unwrap_used, reason = "a failure here is a failure of the test")]

use std::time::{Duration, SystemTime};

use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use trunkline_proto::{
    admin::v1::{
        AuditEntry, ChangeKind, ExportConfigRequest, ExportStateRequest, ListRevisionsRequest,
        QueryAuditRequest, Revision, RollbackConfigRequest, SetBreakerRequest,
    },
    types::v1::BreakerState,
};

use trunkline_control_plane::start::{Options, Recovery};

use crate::support::{DOCUMENT, Plane, apply, config, options};

/// A plane whose document was applied with each of these weights, one after the other.
async fn weighted(directory: &std::path::Path, weights: &[u32]) -> Plane {
    let mut plane = Plane::on_disk(directory).await;
    for weight in weights {
        let document = DOCUMENT.replace("weight: 70", &format!("weight: {weight}"));
        plane.admin.apply_config(apply(config(&document))).await.unwrap();
    }
    plane
}

fn reason(status: &Status) -> String {
    status.get_details_error_info().expect("every error has an ErrorInfo").reason
}

async fn all_revisions(plane: &mut Plane, page_size: i32) -> Vec<Revision> {
    let mut request = ListRevisionsRequest { page_size, ..Default::default() };
    let mut all = Vec::new();
    loop {
        let page = plane.admin.list_revisions(request.clone()).await.unwrap().into_inner();
        assert!(page.revisions.len() <= page_size as usize);
        all.extend(page.revisions);
        if page.next_page_token.is_empty() {
            return all;
        }
        request.page_token = page.next_page_token;
    }
}

async fn audit(plane: &mut Plane, request: QueryAuditRequest) -> Vec<AuditEntry> {
    plane.admin.query_audit(request).await.unwrap().into_inner().entries
}

#[tokio::test]
async fn revisions_are_listed_newest_first_without_gaps_over_restarts() {
    let directory = tempfile::tempdir().unwrap();
    let plane = weighted(directory.path(), &[10, 20, 30]).await;
    plane.stop().await;
    let mut plane = weighted(directory.path(), &[40, 50]).await;
    for page_size in [1, 2, 100] {
        let all = all_revisions(&mut plane, page_size).await;
        let numbers: Vec<_> = all.iter().map(|one| one.version.as_ref().unwrap().revision).collect();
        assert_eq!(numbers, [5, 4, 3, 2, 1], "pages of {page_size}");
        assert!(all.iter().all(|one| one.method == "ApplyConfig" && one.principal == "admin"));
        assert!(all.iter().all(|one| one.restorable && one.create_time.is_some()));
    }
    let wrong = ListRevisionsRequest { page_token: "00".into(), ..Default::default() };
    assert_eq!(plane.admin.list_revisions(wrong).await.unwrap_err().code(), Code::InvalidArgument);
    plane.stop().await;
}

#[tokio::test]
async fn a_rollback_is_a_new_revision_with_the_former_content() {
    let directory = tempfile::tempdir().unwrap();
    let mut plane = weighted(directory.path(), &[10, 20, 30]).await;
    let rollback = RollbackConfigRequest { revision: 1, validate_only: true, ..Default::default() };
    let preview = plane.admin.rollback_config(rollback.clone()).await.unwrap().into_inner();
    assert_eq!(preview.version.unwrap().revision, 3);
    assert_eq!((preview.changes.len(), preview.changes[0].after.as_str()), (1, "10"));

    let stale = RollbackConfigRequest { base_revision: 2, validate_only: false, ..rollback.clone() };
    let stale = plane.admin.rollback_config(stale).await.unwrap_err();
    assert_eq!((stale.code(), reason(&stale).as_str()), (Code::Aborted, "REVISION_MISMATCH"));

    let rollback = RollbackConfigRequest {
        validate_only: false,
        base_revision: 3,
        request_id: "7b0e5a0e-3f0e-4b8e-9d5c-2f1f3c9f0a11".into(),
        ..rollback
    };
    let done = plane.admin.rollback_config(rollback.clone()).await.unwrap().into_inner();
    assert_eq!(done.version.as_ref().unwrap().revision, 4);
    let again = plane.admin.rollback_config(rollback).await.unwrap().into_inner();
    assert_eq!(done, again);
    let exported = plane.admin.export_config(ExportConfigRequest {}).await.unwrap().into_inner();
    let wanted = config(&DOCUMENT.replace("weight: 70", "weight: 10"));
    assert_eq!(exported.config.unwrap(), trunkline_proto::convert::canonical(wanted));

    let query = QueryAuditRequest { method: "RollbackConfig".into(), ..Default::default() };
    let entries = audit(&mut plane, query).await;
    assert_eq!(entries.len(), 1);
    assert_eq!((entries[0].subject.as_str(), entries[0].changes.len()), ("revision 1", 1));

    let none = RollbackConfigRequest { revision: 99, ..Default::default() };
    assert_eq!(plane.admin.rollback_config(none).await.unwrap_err().code(), Code::NotFound);
    let none = RollbackConfigRequest::default();
    assert_eq!(plane.admin.rollback_config(none).await.unwrap_err().code(), Code::InvalidArgument);
    plane.stop().await;
}

#[tokio::test]
async fn a_repeated_rollback_is_answered_though_the_former_revision_is_not_kept() {
    let directory = tempfile::tempdir().unwrap();
    let mut plane = weighted(directory.path(), &[10, 20]).await;
    let rollback = RollbackConfigRequest {
        revision: 1,
        request_id: "7b0e5a0e-3f0e-4b8e-9d5c-2f1f3c9f0a12".into(),
        ..Default::default()
    };
    let done = plane.admin.rollback_config(rollback.clone()).await.unwrap().into_inner();
    // A store that was made from an export knows requests, but no former revisions.
    let mut exported = plane.admin.export_state(ExportStateRequest {}).await.unwrap().into_inner();
    let mut file = Vec::new();
    while let Some(piece) = exported.message().await.unwrap() {
        file.extend_from_slice(&piece.data);
    }
    plane.stop().await;
    let path = directory.path().join("state");
    std::fs::write(&path, file).unwrap();
    let recovery = Recovery { import_state: Some(path), ..Recovery::default() };
    let data_dir = Some(directory.path().join("new"));
    let mut plane = Plane::with(Options { data_dir, recovery, ..options() }).await;
    let unnamed = RollbackConfigRequest { request_id: String::new(), ..rollback.clone() };
    let gone = plane.admin.rollback_config(unnamed).await.unwrap_err();
    assert_eq!(reason(&gone), "REVISION_COMPACTED");
    let again = plane.admin.rollback_config(rollback.clone()).await.unwrap().into_inner();
    assert_eq!(again.version.unwrap().revision, done.version.unwrap().revision);
    let other = RollbackConfigRequest { revision: 2, ..rollback };
    let other = plane.admin.rollback_config(other).await.unwrap_err();
    assert_eq!(other.code(), Code::InvalidArgument, "{other}");
    plane.stop().await;
}

#[tokio::test]
async fn the_audit_log_says_who_changed_what_and_is_chained() {
    let directory = tempfile::tempdir().unwrap();
    let mut plane = weighted(directory.path(), &[10, 20]).await;
    let set = SetBreakerRequest {
        deployment: "one/small".into(),
        state: BreakerState::ForcedOpen.into(),
        reason: "maintenance".into(),
        ..Default::default()
    };
    plane.admin.set_breaker(set).await.unwrap();
    let entries = audit(&mut plane, QueryAuditRequest::default()).await;
    assert_eq!(entries.iter().map(|entry| entry.sequence).collect::<Vec<_>>(), [3, 2, 1]);
    let [breaker, second, first] = entries.as_slice() else { panic!("{entries:?}") };
    assert_eq!((breaker.method.as_str(), breaker.subject.as_str()), ("SetBreaker", "one/small"));
    assert_eq!(breaker.changes[0].after, "forced open: maintenance");
    assert_eq!(breaker.version.as_ref().unwrap().revision, 2);
    assert_eq!((second.changes.len(), second.changes[0].kind()), (1, ChangeKind::Modified));
    assert_eq!((second.changes[0].before.as_str(), second.changes[0].after.as_str()), ("10", "20"));
    assert!(first.changes.iter().any(|change| change.path.contains("virtual_models[chat]")));
    assert_eq!((&breaker.previous_sha256, &second.previous_sha256), (&second.sha256, &first.sha256));
    plane.stop().await;
}

#[tokio::test]
async fn the_audit_log_is_filtered_and_paged() {
    let directory = tempfile::tempdir().unwrap();
    let mut plane = weighted(directory.path(), &[10, 20, 30]).await;
    let nobody = QueryAuditRequest { principal: "bob".into(), ..Default::default() };
    assert!(audit(&mut plane, nobody).await.is_empty());
    let before = QueryAuditRequest {
        end_time: Some((SystemTime::now() - Duration::from_secs(3_600)).into()),
        ..Default::default()
    };
    assert!(audit(&mut plane, before).await.is_empty());
    let after = QueryAuditRequest {
        start_time: Some((SystemTime::now() - Duration::from_secs(3_600)).into()),
        principal: "admin".into(),
        page_size: 2,
        ..Default::default()
    };
    let page = plane.admin.query_audit(after.clone()).await.unwrap().into_inner();
    assert_eq!(page.entries.iter().map(|entry| entry.sequence).collect::<Vec<_>>(), [3, 2]);
    let rest = QueryAuditRequest { page_token: page.next_page_token.clone(), ..after };
    assert_eq!(audit(&mut plane, rest).await[0].sequence, 1);
    let other = QueryAuditRequest { page_token: page.next_page_token, ..Default::default() };
    assert_eq!(plane.admin.query_audit(other).await.unwrap_err().code(), Code::InvalidArgument);
    plane.stop().await;
}

#[tokio::test]
async fn an_export_of_all_state_makes_a_store_elsewhere_and_holds_no_credential() {
    let directory = tempfile::tempdir().unwrap();
    let mut plane = weighted(directory.path(), &[10, 20]).await;
    let secret = directory.path().join("key");
    std::fs::write(&secret, "sk-very-secret").unwrap();
    let provider =
        format!("base_url: https://one.example.com/v1\n    credential: {{file: {}}}", secret.display());
    let document = DOCUMENT.replace("base_url: https://one.example.com/v1", &provider);
    plane.admin.apply_config(apply(config(&document))).await.unwrap();
    let mut pieces = plane.admin.export_state(ExportStateRequest {}).await.unwrap().into_inner();
    let mut file = Vec::new();
    while let Some(piece) = pieces.message().await.unwrap() {
        file.extend_from_slice(&piece.data);
    }
    assert!(!file.windows(14).any(|bytes| bytes == b"sk-very-secret"));
    let before = plane.admin.export_config(ExportConfigRequest {}).await.unwrap().into_inner();
    plane.stop().await;
    let (elsewhere, path) = (tempfile::tempdir().unwrap(), directory.path().join("state"));
    std::fs::write(&path, &file).unwrap();
    let recovery = Recovery { import_state: Some(path), ..Recovery::default() };
    let data_dir = Some(elsewhere.path().to_owned());
    let mut plane = Plane::with(Options { data_dir, recovery, ..options() }).await;
    let after = plane.admin.export_config(ExportConfigRequest {}).await.unwrap().into_inner();
    assert_eq!(after.config, before.config);
    let (before, after) = (before.version.unwrap(), after.version.unwrap());
    assert_eq!(after.revision, before.revision);
    assert_ne!(after.epoch, before.epoch);
    plane.stop().await;
}
