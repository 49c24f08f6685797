//! StreamReports and GetStats over real sockets.
#![expect(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};
use trunkline_proto::{
    admin::v1::{GetStatsRequest, StatsRow},
    telemetry::v1::{
        Histogram, OutcomeCount, StreamReportsRequest, StreamReportsResponse, TargetStats,
        telemetry_service_client::TelemetryServiceClient,
    },
    types::v1::OutcomeClass,
};

use crate::support::{DOCUMENT, PATIENCE, Plane, apply, config};

pub(crate) struct Reporter {
    outbox: mpsc::Sender<StreamReportsRequest>,
    inbound: Streaming<StreamReportsResponse>,
}

impl Reporter {
    pub(crate) async fn connect(plane: &Plane) -> Self {
        let (outbox, messages) = mpsc::channel(8);
        let mut client = TelemetryServiceClient::new(plane.channel.clone());
        let inbound = client.stream_reports(ReceiverStream::new(messages)).await.unwrap().into_inner();
        Self { outbox, inbound }
    }

    pub(crate) async fn report(&mut self, seq: u64) -> Result<StreamReportsResponse, Status> {
        self.send(report(seq)).await
    }

    pub(crate) async fn send(
        &mut self,
        report: StreamReportsRequest,
    ) -> Result<StreamReportsResponse, Status> {
        self.outbox.send(report).await.unwrap();
        Ok(tokio::time::timeout(PATIENCE, self.inbound.message()).await.unwrap()?.unwrap())
    }
}

pub(crate) fn report(seq: u64) -> StreamReportsRequest {
    let outcome = |outcome: OutcomeClass, count| OutcomeCount { outcome: outcome.into(), count };
    let target = TargetStats {
        deployment: "one/small".into(),
        model: "chat".into(),
        outcomes: vec![outcome(OutcomeClass::Ok, 2), outcome(OutcomeClass::Timeout, 1)],
        input_tokens: 100,
        usage_from_provider: 2,
        ..Default::default()
    };
    StreamReportsRequest {
        agent_id: "a".into(),
        incarnation: "i".into(),
        seq,
        targets: vec![target],
        ..Default::default()
    }
}

async fn row(plane: &mut Plane, window: Option<i64>) -> StatsRow {
    let window = window.map(|seconds| prost_types::Duration { seconds, nanos: 0 });
    let request = GetStatsRequest { window, virtual_model: "chat".into(), end_time: None };
    let rows = plane.admin.get_stats(request).await.unwrap().into_inner().rows;
    rows.into_iter().find(|row| row.deployment == "one/small").unwrap()
}

#[tokio::test]
async fn each_report_counts_once_and_gaps_are_asked_for() {
    let mut plane = Plane::configured().await;
    let mut reporter = Reporter::connect(&plane).await;
    let first = reporter.report(1).await.unwrap();
    assert_eq!((first.acked_seq, first.report_interval.is_some()), (1, true));
    let repeated = reporter.report(1).await.unwrap();
    assert_eq!((repeated.acked_seq, repeated.resend_from_first_unacked), (1, false));
    let gap = reporter.report(3).await.unwrap();
    assert_eq!((gap.acked_seq, gap.resend_from_first_unacked), (1, true));
    // On another stream it is the same sequence.
    let mut reporter = Reporter::connect(&plane).await;
    assert_eq!(reporter.report(2).await.unwrap().acked_seq, 2);
    assert_eq!(reporter.report(3).await.unwrap().acked_seq, 3);
    for window in [None, Some(600), Some(86_400)] {
        let row = row(&mut plane, window).await;
        assert_eq!((row.attempts, row.successes, row.input_tokens), (9, 6, 300));
        assert_eq!(row.errors_by_class["timeout"], 3);
    }
    drop(reporter);
    plane.stop().await;
}

#[tokio::test]
async fn what_is_impossible_in_a_report_is_left_out_and_the_rest_counts() {
    let mut plane = Plane::configured().await;
    let mut reporter = Reporter::connect(&plane).await;
    let histogram = Histogram { scale: 9, ..Default::default() };
    let mut report = report(1);
    report.targets.insert(0, TargetStats { ttft: Some(histogram), ..report.targets[0].clone() });
    // An error would have the agent send the same again, for ever.
    assert_eq!(reporter.send(report).await.unwrap().acked_seq, 1);
    assert_eq!(reporter.report(2).await.unwrap().acked_seq, 2);
    assert_eq!(row(&mut plane, None).await.attempts, 6);
    drop(reporter);
    plane.stop().await;
}

#[tokio::test]
async fn a_report_without_a_number_is_refused() {
    let plane = Plane::configured().await;
    let mut reporter = Reporter::connect(&plane).await;
    let error = reporter.report(0).await.unwrap_err();
    assert_eq!((error.code(), error.message().starts_with("seq:")), (Code::InvalidArgument, true));
    drop(reporter);
    plane.stop().await;
}

#[tokio::test]
async fn totals_steps_and_sequences_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut plane = Plane::on_disk(dir.path()).await;
    plane.admin.apply_config(apply(config(DOCUMENT))).await.unwrap();
    let mut reporter = Reporter::connect(&plane).await;
    assert_eq!(reporter.report(1).await.unwrap().acked_seq, 1);
    drop(reporter);
    plane.stop().await;

    let mut plane = Plane::on_disk(dir.path()).await;
    let mut reporter = Reporter::connect(&plane).await;
    assert_eq!(reporter.report(1).await.unwrap().acked_seq, 1);
    assert_eq!(row(&mut plane, None).await.attempts, 3);
    assert_eq!(row(&mut plane, Some(600)).await.attempts, 3);
    assert_eq!(row(&mut plane, Some(86_400 * 400)).await.attempts, 3);
    drop(reporter);
    plane.stop().await;
}
