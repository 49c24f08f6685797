//! `TelemetryService`: takes numbered reports, acknowledges what is durable.

use std::{
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures_util::{Stream, stream};
use tonic::{Request, Response, Status, Streaming};
use trunkline_proto::{
    status,
    telemetry::v1::{
        StreamReportsRequest, StreamReportsResponse, telemetry_service_server::TelemetryService,
    },
};

use super::{Context, wire_duration};
use crate::{
    access::Principal,
    fleet::Evidence,
    grpc::refuse,
    learning::Lesson,
    metrics::{ReportLabels, ReportResult},
    repository::CommitError,
    stats::{
        merger::{Merged, Refused},
        pace::Reporting,
        report::Report,
        stream::ReportStream,
        totals::Invalid,
    },
};

/// For a store that takes no writes: it looks as often whether it can again.
const PAUSE_STORE: Duration = Duration::from_secs(5);

/// For a full queue: it is merged within a second.
const PAUSE_BUSY: Duration = Duration::from_secs(1);

/// Serves agents.
#[derive(Debug)]
pub(super) struct Telemetry {
    context: Arc<Context>,
}

/// One stream of reports.
struct Reports {
    context: Arc<Context>,
    principal: Principal,
    inbound: Streaming<StreamReportsRequest>,
    stream: ReportStream,
    /// Counts this one as long as it is open.
    #[expect(dead_code, reason = "held until dropped")]
    reporting: Reporting,
    /// Whether refused parts were logged; they may come with every report.
    warned: bool,
    ended: bool,
}

impl Telemetry {
    pub(super) fn new(context: Arc<Context>) -> Self {
        Self { context }
    }
}

#[tonic::async_trait]
impl TelemetryService for Telemetry {
    type StreamReportsStream = Pin<Box<dyn Stream<Item = Result<StreamReportsResponse, Status>> + Send>>;

    async fn stream_reports(
        &self,
        request: Request<Streaming<StreamReportsRequest>>,
    ) -> Result<Response<Self::StreamReportsStream>, Status> {
        let (context, principal) = (Arc::clone(&self.context), Principal::of(&request));
        let reports = Reports {
            principal,
            inbound: request.into_inner(),
            stream: ReportStream::default(),
            reporting: context.pace.enter(),
            warned: false,
            ended: false,
            context,
        };
        // The next report is read when the answer to the one before is taken.
        let answers = stream::unfold(reports, |mut reports| async move {
            let answer = reports.next().await?;
            reports.ended = answer.is_err();
            Some((answer, reports))
        });
        Ok(Response::new(Box::pin(answers)))
    }
}

impl Reports {
    async fn next(&mut self) -> Option<Result<StreamReportsResponse, Status>> {
        if self.ended {
            return None;
        }
        let request = tokio::select! {
            biased; // A stop is heeded before more work is taken on.
            () = self.context.shutdown.cancelled() => return None,
            request = self.inbound.message() => request,
        };
        match request {
            Ok(Some(request)) => Some(self.take(request).await),
            // The agent closed the stream, or it broke: nothing to answer to.
            Ok(None) | Err(_) => None,
        }
    }

    async fn take(&mut self, request: StreamReportsRequest) -> Result<StreamReportsResponse, Status> {
        self.principal.check_agent_id(&request.agent_id)?;
        let mut report = Report::try_from(request).map_err(|error| {
            self.count(ReportResult::invalid);
            status::invalid_field(&error.field, &error.why)
        })?;
        let (incarnation, seq) = (report.incarnation.clone(), report.seq);
        if !self.stream.admits(&incarnation, seq) {
            self.count(ReportResult::paused);
            return Ok(self.answer(&incarnation));
        }
        let (agent_id, impossible) = (report.agent_id.clone(), std::mem::take(&mut report.refused));
        let (samples, running) = (std::mem::take(&mut report.samples), std::mem::take(&mut report.running));
        let lesson = Lesson::of_report(agent_id.clone(), report.end_secs, unix_secs(), samples, running);
        let evidence = Evidence::of(&report);
        let merged = match self.context.reports.merge(report).await {
            Ok(merged) => merged,
            Err(refused) => return self.pause(&incarnation, seq, &refused),
        };
        let Merged { acked, resend, lost_before, left_out, fresh } = merged;
        if fresh {
            self.context.fleet.take_in(&evidence);
        }
        self.stream.acknowledge(&incarnation, acked);
        // What is sent again is learned from once.
        if let Some(lesson) = lesson.filter(|_| fresh) {
            self.context.learning.teach(lesson);
        }
        self.refuse(&agent_id, &impossible, left_out);
        if lost_before {
            self.context.metrics.telemetry_gaps.inc();
            self.context.registry.note_telemetry_gap(&agent_id);
        }
        self.count(if resend { ReportResult::gap } else { ReportResult::taken });
        let mut answer = self.answer(&incarnation);
        answer.resend_from_first_unacked = resend;
        let interval = self.context.pace.interval(self.context.reports.backlog());
        answer.report_interval = self.stream.tell(interval).map(wire_duration);
        Ok(answer)
    }

    /// What is durable, and nothing else.
    fn answer(&self, incarnation: &str) -> StreamReportsResponse {
        StreamReportsResponse { acked_seq: self.stream.acked(incarnation), ..Default::default() }
    }

    /// Asks for a report that was not merged to come again later. The agent keeps it.
    fn pause(
        &mut self,
        incarnation: &str,
        seq: u64,
        refused: &Refused,
    ) -> Result<StreamReportsResponse, Status> {
        let pause = match refused {
            Refused::Store(error @ CommitError::Unavailable) => {
                self.count(ReportResult::failed);
                return Err(refuse::commit(error));
            }
            Refused::Store(_) => PAUSE_STORE,
            Refused::Busy => PAUSE_BUSY,
        };
        self.count(ReportResult::paused);
        self.stream.refuse(incarnation, seq);
        let mut answer = self.answer(incarnation);
        answer.resend_from_first_unacked = true;
        answer.pause_for = Some(wire_duration(pause));
        Ok(answer)
    }

    /// Counts what a report was taken without, and says so once.
    fn refuse(&mut self, agent_id: &str, impossible: &[Invalid], left_out: u64) {
        let refused = impossible.len() as u64 + left_out;
        if refused == 0 {
            return;
        }
        self.context.metrics.targets_refused.inc_by(refused);
        if !self.warned {
            self.warned = true;
            let example = impossible.first().map(ToString::to_string);
            tracing::warn!(
                agent_id,
                refused,
                left_out,
                example,
                "parts of telemetry reports are not counted"
            );
        }
    }

    fn count(&self, result: ReportResult) {
        self.context.metrics.reports.get_or_create(&ReportLabels { result }).inc();
    }
}

fn unix_secs() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
