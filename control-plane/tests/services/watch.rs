//! WatchResources over real sockets.
#![expect(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

use tonic::{Code, Streaming};
use tonic_types::StatusExt;
use trunkline_proto::{
    admin::v1::{
        GetProviderRequest, WatchResourcesRequest, WatchResourcesResponse, watched_resource::Resource,
    },
    types::v1::Version,
};

use crate::support::{DOCUMENT, PATIENCE, Plane, apply, config};

async fn watch(plane: &mut Plane, after: Option<Version>) -> Streaming<WatchResourcesResponse> {
    plane.admin.watch_resources(WatchResourcesRequest { after }).await.unwrap().into_inner()
}

async fn next(stream: &mut Streaming<WatchResourcesResponse>) -> WatchResourcesResponse {
    tokio::time::timeout(PATIENCE, stream.message()).await.unwrap().unwrap().unwrap()
}

fn revision(message: &WatchResourcesResponse) -> u64 {
    message.version.as_ref().unwrap().revision
}

#[tokio::test]
async fn a_watcher_sees_all_there_is_and_then_each_revision() {
    let mut plane = Plane::configured().await;
    let mut stream = watch(&mut plane, None).await;
    let all = next(&mut stream).await;
    assert_eq!((all.initial, all.more, revision(&all), all.upserts.len()), (true, false, 1, 3));
    let request = GetProviderRequest { name: "one".into() };
    let got = plane.admin.get_provider(request).await.unwrap().into_inner().provider.unwrap();
    assert_eq!(all.upserts[0].resource, Some(Resource::Provider(got)));

    // Three changes before anything is read: none is folded into another.
    for weight in [60, 50, 40] {
        let changed = config(&DOCUMENT.replace("weight: 70", &format!("weight: {weight}")));
        plane.admin.apply_config(apply(changed)).await.unwrap();
    }
    for (expected, weight) in [(2, 60), (3, 50), (4, 40)] {
        let change = next(&mut stream).await;
        assert_eq!((revision(&change), change.initial, change.upserts.len()), (expected, false, 1));
        let Some(Resource::VirtualModel(model)) = &change.upserts[0].resource else { panic!("{change:?}") };
        assert_eq!(model.tiers[0].targets[0].weight, Some(weight));
        assert!(!model.etag.is_empty());
    }
    drop(stream);
    plane.stop().await;
}

#[tokio::test]
async fn a_watcher_resumes_after_what_it_saw_or_is_told_that_it_cannot() {
    let mut plane = Plane::configured().await;
    let seen = next(&mut watch(&mut plane, None).await).await.version;
    plane.admin.apply_config(apply(config(&DOCUMENT.replace("weight: 70", "weight: 60")))).await.unwrap();
    let change = next(&mut watch(&mut plane, seen.clone()).await).await;
    assert_eq!((revision(&change), change.initial), (2, false));

    let foreign = Version { epoch: "another".into(), revision: 1 };
    let request = WatchResourcesRequest { after: Some(foreign) };
    let refused = plane.admin.watch_resources(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange);
    let info = refused.get_details_error_info().unwrap();
    assert_eq!(
        (info.reason.as_str(), info.metadata["oldest_revision"].as_str()),
        ("REVISION_COMPACTED", "0")
    );
    plane.stop().await;
}

#[tokio::test]
async fn watchers_are_bounded_and_leave_their_place() {
    let mut plane = Plane::configured().await;
    let mut streams = Vec::new();
    for _ in 0..256 {
        let mut stream = watch(&mut plane, None).await;
        next(&mut stream).await;
        streams.push(stream);
    }
    let refused = plane.admin.watch_resources(WatchResourcesRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.get_details_retry_info().is_some());
    streams.pop();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while plane.admin.watch_resources(WatchResourcesRequest::default()).await.is_err() {
        assert!(tokio::time::Instant::now() < deadline);
        tokio::task::yield_now().await;
    }
    // A stop ends them all with an error that says when to come back.
    plane.shutdown.cancel();
    let ended = tokio::time::timeout(PATIENCE, streams[0].message()).await.unwrap().unwrap_err();
    assert_eq!(ended.code(), Code::Unavailable);
    drop(streams);
    plane.stop().await;
}
