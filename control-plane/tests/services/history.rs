//! Counts by time over real sockets: QueryHistory, GetStats with an end, late reports, a
//! store that takes no writes, and what a restart keeps.
#![expect(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

use std::time::{Duration, SystemTime};

use prost_types::Timestamp;
use tonic::Code;
use tonic_types::StatusExt as _;
use trunkline_proto::admin::v1::{
    GetStatsRequest, HistoryPoint, ListAgentsRequest, QueryHistoryRequest, QueryHistoryResponse,
};
use trunkline_proto::telemetry::v1::StreamReportsRequest;

use crate::support::{DOCUMENT, PATIENCE, Plane, apply, config};
use crate::telemetry::{Reporter, report};

const HOUR: u64 = 3_600;

fn ago(seconds: u64) -> Timestamp {
    (SystemTime::now() - Duration::from_secs(seconds)).into()
}

fn length(seconds: u64) -> prost_types::Duration {
    prost_types::Duration { seconds: seconds as i64, nanos: 0 }
}

/// A report whose window ended so long ago.
fn late(seq: u64, seconds: u64) -> StreamReportsRequest {
    StreamReportsRequest { end_time: Some(ago(seconds)), ..report(seq) }
}

fn since(seconds: u64) -> QueryHistoryRequest {
    QueryHistoryRequest { start_time: Some(ago(seconds)), ..Default::default() }
}

async fn attempts(plane: &mut Plane, window: u64, end: Option<u64>) -> u64 {
    let (window, end_time) = (Some(length(window)), end.map(ago));
    let request = GetStatsRequest { window, end_time, ..Default::default() };
    let rows = plane.admin.get_stats(request).await.unwrap().into_inner().rows;
    rows.iter().map(|row| row.attempts).sum()
}

async fn history(plane: &mut Plane, request: QueryHistoryRequest) -> QueryHistoryResponse {
    plane.admin.query_history(request).await.unwrap().into_inner()
}

fn counts(points: &[HistoryPoint]) -> Vec<(String, u64)> {
    let rows = points.iter().map(|point| point.row.as_ref().unwrap());
    rows.map(|row| (row.deployment.clone(), row.attempts)).collect()
}

/// The field that a refusal names.
async fn refused(plane: &mut Plane, request: QueryHistoryRequest) -> String {
    let status = plane.admin.query_history(request).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    status.get_details_bad_request().unwrap().field_violations.remove(0).field
}

#[tokio::test]
async fn a_late_report_counts_when_its_window_was() {
    let mut plane = Plane::configured().await;
    let mut reporter = Reporter::connect(&plane).await;
    assert_eq!(reporter.send(late(1, 2 * HOUR)).await.unwrap().acked_seq, 1);
    // Less than a minute: as of now, for clocks differ.
    assert_eq!(reporter.send(late(2, 20)).await.unwrap().acked_seq, 2);
    // Ten days old: only the hour is left of it.
    assert_eq!(reporter.send(late(3, 240 * HOUR)).await.unwrap().acked_seq, 3);
    let ahead = Timestamp { seconds: ago(0).seconds + 5_000, nanos: 0 };
    let from_the_future = StreamReportsRequest { end_time: Some(ahead), ..report(4) };
    assert_eq!(reporter.send(from_the_future).await.unwrap().acked_seq, 4);

    assert_eq!(attempts(&mut plane, 60, None).await, 6);
    assert_eq!(attempts(&mut plane, HOUR, None).await, 6);
    assert_eq!(attempts(&mut plane, HOUR, Some(HOUR + HOUR / 2)).await, 3);
    assert_eq!(attempts(&mut plane, HOUR, Some(3 * HOUR)).await, 0);
    for window in [3 * HOUR, 48 * HOUR] {
        assert_eq!(attempts(&mut plane, window, None).await, 9, "{window} s");
    }
    assert_eq!(attempts(&mut plane, 300 * HOUR, None).await, 12);
    assert_eq!(attempts(&mut plane, 2 * HOUR, Some(239 * HOUR)).await, 3);

    let points = history(&mut plane, since(3 * HOUR)).await;
    assert_eq!(points.resolution, Some(length(60)));
    assert_eq!(counts(&points.points), [("one/small".into(), 3), ("one/small".into(), 6)]);
    let start = points.points[0].start_time.unwrap().seconds;
    assert_eq!((start % 60, (ago(2 * HOUR).seconds - start) / 100), (0, 0));
    drop(reporter);
    plane.stop().await;
}

#[tokio::test]
async fn history_comes_in_pages_by_time_and_deployment() {
    let mut plane = Plane::configured().await;
    let mut reporter = Reporter::connect(&plane).await;
    for seq in 1..=3 {
        let mut report = late(seq, 1_000 - 100 * seq);
        let mut other = report.targets[0].clone();
        other.deployment = "two/small".into();
        other.model = "two/small".into();
        other.faulted = 2;
        report.targets.push(other);
        assert_eq!(reporter.send(report).await.unwrap().acked_seq, seq);
    }
    let all = history(&mut plane, since(1_200)).await;
    assert_eq!((all.resolution, all.points.len()), (Some(length(10)), 6));
    assert_eq!(all.points[1].row.as_ref().unwrap().faulted_attempts, 2);
    let mut request = QueryHistoryRequest { page_size: 4, ..since(1_200) };
    let first = history(&mut plane, request.clone()).await;
    assert_eq!(first.points, all.points[..4]);
    request.page_token = first.next_page_token;
    let second = history(&mut plane, request.clone()).await;
    assert_eq!((second.points.as_slice(), second.next_page_token.as_str()), (&all.points[4..], ""));

    let of = |deployment: &str, virtual_model: &str| QueryHistoryRequest {
        deployment: deployment.into(),
        virtual_model: virtual_model.into(),
        resolution: Some(length(HOUR)),
        ..since(1_200)
    };
    let pinned = history(&mut plane, of("two/small", "")).await.points;
    assert_eq!(counts(&pinned).iter().map(|(_, count)| count).sum::<u64>(), 9);
    assert_eq!(history(&mut plane, of("two/small", "chat")).await.points, []);
    let chat = history(&mut plane, of("", "chat")).await.points;
    assert!(counts(&chat).iter().all(|(deployment, _)| deployment == "one/small"));

    request.virtual_model = "chat".into();
    assert_eq!(refused(&mut plane, request).await, "page_token");
    drop(reporter);
    plane.stop().await;
}

#[tokio::test]
async fn a_question_that_cannot_be_answered_says_why() {
    let mut plane = Plane::configured().await;
    let hours = |start, resolution| QueryHistoryRequest {
        resolution: Some(length(resolution)),
        ..since(start * HOUR)
    };
    for (request, field) in [
        (QueryHistoryRequest::default(), "start_time"),
        (since(401 * 24 * HOUR), "start_time"),
        (QueryHistoryRequest { end_time: Some(ago(HOUR)), ..since(60) }, "end_time"),
        (QueryHistoryRequest { page_size: -1, ..since(60) }, "page_size"),
        (QueryHistoryRequest { page_token: "x".into(), ..since(60) }, "page_token"),
        (hours(1, 30), "resolution"),
        (hours(7, 10), "resolution"),
        (hours(169, 60), "resolution"),
        (
            QueryHistoryRequest { start_time: Some(Timestamp { seconds: -1, nanos: 0 }), ..since(0) },
            "start_time",
        ),
    ] {
        assert_eq!(refused(&mut plane, request.clone()).await, field, "{request:?}");
    }
    assert_eq!(history(&mut plane, hours(6, 10)).await.points, []);
    assert_eq!(history(&mut plane, since(400 * 24 * HOUR)).await.resolution, Some(length(HOUR)));

    let stats = |window, end_time| GetStatsRequest { window, end_time, ..Default::default() };
    for (request, field) in [
        (stats(None, Some(ago(5))), "end_time"),
        (stats(Some(length(0)), None), "window"),
        (stats(Some(length(401 * 24 * HOUR)), None), "window"),
        (stats(Some(length(399 * 24 * HOUR)), Some(ago(48 * HOUR))), "end_time"),
    ] {
        let refusal = plane.admin.get_stats(request).await.unwrap_err();
        assert_eq!(refusal.code(), Code::InvalidArgument);
        assert_eq!(refusal.get_details_bad_request().unwrap().field_violations[0].field, field);
    }
    plane.stop().await;
}

#[tokio::test]
async fn history_and_the_removal_guard_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut plane = Plane::on_disk(dir.path()).await;
    plane.admin.apply_config(apply(config(DOCUMENT))).await.unwrap();
    let mut reporter = Reporter::connect(&plane).await;
    assert_eq!(reporter.send(late(1, 2 * HOUR)).await.unwrap().acked_seq, 1);
    assert_eq!(reporter.report(2).await.unwrap().acked_seq, 2);
    let before = history(&mut plane, since(3 * HOUR)).await.points;
    drop(reporter);
    plane.stop().await;

    let mut plane = Plane::on_disk(dir.path()).await;
    assert_eq!(history(&mut plane, since(3 * HOUR)).await.points, before);
    assert_eq!(counts(&before), [("one/small".into(), 3), ("one/small".into(), 3)]);
    let without_chat = DOCUMENT.split("virtual_models:").next().unwrap();
    let status = plane.admin.apply_config(apply(config(without_chat))).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    plane.stop().await;
}

#[tokio::test]
async fn agents_pause_while_the_store_takes_no_writes_and_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let obstacle = crate::routing::obstruct(dir.path());
    let mut plane = Plane::on_disk(dir.path()).await;
    let mut reporter = Reporter::connect(&plane).await;
    let paused = reporter.report(1).await.unwrap();
    assert_eq!((paused.acked_seq, paused.resend_from_first_unacked), (0, true));
    let mut pause = paused.pause_for;
    std::fs::remove_dir(&obstacle).unwrap();
    // These were under way already. Merged now, they would be a gap for good.
    for seq in [2, 3, 3] {
        let passed_over = reporter.report(seq).await.unwrap();
        assert_eq!((passed_over.acked_seq, passed_over.resend_from_first_unacked), (0, false));
    }
    let resumed = async {
        while let Some(time) = pause {
            tokio::time::sleep(time.try_into().unwrap()).await;
            pause = reporter.report(1).await.unwrap().pause_for;
        }
    };
    tokio::time::timeout(PATIENCE, resumed).await.unwrap();
    assert_eq!(reporter.report(2).await.unwrap().acked_seq, 2);
    assert_eq!(reporter.report(3).await.unwrap().acked_seq, 3);
    assert_eq!(attempts(&mut plane, 60, None).await, 9);
    drop(reporter);
    plane.stop().await;
}

#[tokio::test]
async fn an_agent_that_lost_counts_shows_in_the_listing() {
    let mut plane = Plane::configured().await;
    let mut reporter = Reporter::connect(&plane).await;
    let after_a_kill = StreamReportsRequest { lost_before: Some(length(1)), ..report(1) };
    for _ in 0..2 {
        assert_eq!(reporter.send(after_a_kill.clone()).await.unwrap().acked_seq, 1);
    }
    drop(reporter);
    let agent = crate::scripted::Agent::connect(&plane, None).await;
    let listed = async {
        loop {
            let agents = plane.admin.list_agents(ListAgentsRequest::default()).await.unwrap();
            if let Some(agent) = agents.into_inner().agents.first() {
                return agent.telemetry_gaps;
            }
        }
    };
    assert_eq!(tokio::time::timeout(PATIENCE, listed).await.unwrap(), 1);
    drop(agent);
    plane.stop().await;
}
