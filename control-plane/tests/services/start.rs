//! How a control plane starts: configuration documents, and what it refuses.
#![expect(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

use std::{
    path::Path,
    process::Command,
    time::{Duration, SystemTime},
};

use tokio_util::sync::CancellationToken;
use tonic::Code;
use trunkline_control_plane::{
    config::ConfigPolicy,
    repository::OpenError,
    start::{ConfigSource, Listen, Options, StartError, start},
    store::sled::SledStore,
};
use trunkline_proto::admin::v1::{GetStatsRequest, QueryHistoryRequest};

use crate::support::{DOCUMENT, PATIENCE, Plane, options};

fn with_document(directory: &Path, text: &str, policy: ConfigPolicy) -> Options {
    let config = ConfigSource { origin: "trunkline.yaml".into(), text: text.into(), policy };
    Options { data_dir: Some(directory.to_owned()), config: Some(config), ..options() }
}

/// Why it does not start.
async fn refusal(options: Options) -> StartError {
    start(options, CancellationToken::new()).await.unwrap_err()
}

#[tokio::test]
async fn a_document_is_applied_to_an_empty_store_and_later_only_when_asked_always() {
    let dir = tempfile::tempdir().unwrap();
    let other = DOCUMENT.replace("weight: 70", "weight: 60");
    // More than half of all deployments go, and nobody is asked.
    let less = "providers: [{name: one, dialect: DIALECT_OPENAI, base_url: https://one.example.com/v1, \
                deployments: [{name: small}]}]";
    for (text, policy, revision, deployments) in [
        (DOCUMENT, ConfigPolicy::Bootstrap, 1, 3),
        (&other, ConfigPolicy::Bootstrap, 1, 3),
        (DOCUMENT, ConfigPolicy::Always, 1, 3),
        (&other, ConfigPolicy::Always, 2, 3),
        (less, ConfigPolicy::Always, 3, 1),
    ] {
        let plane = Plane::with(with_document(dir.path(), text, policy)).await;
        let state = plane.running.repository.state();
        assert_eq!((state.version.revision, state.table.deployments.len()), (revision, deployments));
        drop(state);
        plane.stop().await;
    }
}

#[tokio::test]
async fn a_store_whose_view_does_not_open_is_served_and_says_what_it_cannot_tell() {
    let dir = tempfile::tempdir().unwrap();
    Plane::with(with_document(dir.path(), DOCUMENT, ConfigPolicy::Bootstrap)).await.stop().await;
    let held = SledStore::open(&dir.path().join("view")).unwrap();
    let other = DOCUMENT.replace("weight: 70", "weight: 60");
    let mut plane = Plane::with(with_document(dir.path(), &other, ConfigPolicy::Always)).await;
    assert_eq!(plane.running.repository.state().version.revision, 1);
    let query = QueryHistoryRequest { start_time: Some(SystemTime::now().into()), ..Default::default() };
    for refused in [
        plane.admin.get_stats(GetStatsRequest::default()).await.map(drop),
        plane.admin.query_history(query.clone()).await.map(drop),
    ] {
        let status = refused.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        assert!(status.message().contains("telemetry can't be read"), "{status:?}");
        assert!(status.message().contains("view"), "{status:?}");
    }

    drop(held);
    let told = async {
        while plane.admin.get_stats(GetStatsRequest::default()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, told).await.unwrap();
    plane.admin.query_history(query).await.unwrap();
    plane.stop().await;
}

#[tokio::test]
async fn an_invalid_document_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    Plane::with(with_document(dir.path(), DOCUMENT, ConfigPolicy::Bootstrap)).await.stop().await;
    let wrong = DOCUMENT.replace("one/small", "one/smal");
    let error = refusal(with_document(dir.path(), &wrong, ConfigPolicy::Always)).await;
    assert!(matches!(error, StartError::Config { .. }), "{error}");
    assert!(error.to_string().contains("one/smal"), "{error}");
    let plane = Plane::on_disk(dir.path()).await;
    assert_eq!(plane.running.repository.state().version.revision, 1);
    plane.stop().await;
}

#[tokio::test]
async fn a_data_directory_has_one_control_plane() {
    let dir = tempfile::tempdir().unwrap();
    let plane = Plane::on_disk(dir.path()).await;
    let second = Options { data_dir: Some(dir.path().to_owned()), ..options() };
    let error = refusal(second).await;
    assert!(matches!(error, StartError::Open(OpenError::InUse { .. })), "{error}");
    plane.stop().await;
    Plane::on_disk(dir.path()).await.stop().await;
}

#[tokio::test]
async fn readyz_says_that_something_was_lost() {
    let dir = tempfile::tempdir().unwrap();
    let plane = Plane::with(with_document(dir.path(), DOCUMENT, ConfigPolicy::Bootstrap)).await;
    assert!(plane.page("/readyz").await.ends_with("\r\n\r\nok\n"));
    plane.stop().await;
    std::fs::remove_dir_all(dir.path().join("view")).unwrap();
    let plane = Plane::on_disk(dir.path()).await;
    let ready = plane.page("/readyz").await;
    assert!(ready.starts_with("HTTP/1.1 200 ") && ready.contains("ok\nstore: something was lost"), "{ready}");
    plane.stop().await;
}

#[tokio::test]
async fn a_listener_beyond_loopback_needs_a_word_more() {
    let open = || Listen::Address("0.0.0.0:0".parse().unwrap());
    for options in [Options { grpc: open(), ..options() }, Options { ops: open(), ..options() }] {
        let error = refusal(options).await;
        assert!(matches!(error, StartError::Exposed(_)) && error.is_input(), "{error}");
        assert!(error.to_string().contains("--tls-cert"), "{error}");
        assert!(error.to_string().contains("--insecure"), "{error}");
    }
}

#[test]
fn the_command_ends_with_2_when_its_document_is_invalid() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("trunkline.yaml");
    std::fs::write(&file, "provders: []\n").unwrap();
    for config in [file, dir.path().join("missing.yaml")] {
        let output = Command::new(env!("CARGO_BIN_EXE_trunkline-control-plane"))
            .args(["--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0", "--config"])
            .arg(&config)
            .arg("--data-dir")
            .arg(dir.path().join("data"))
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(config.to_str().unwrap()), "{said}");
        assert_eq!(output.stdout, b"");
    }
}
