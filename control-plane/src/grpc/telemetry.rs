//! `TelemetryService`: takes numbered reports, acknowledges what is durable.

use std::{pin::Pin, sync::Arc};

use futures_util::{Stream, stream};
use tonic::{Request, Response, Status, Streaming};
use trunkline_proto::{
    status,
    telemetry::v1::{
        StreamReportsRequest, StreamReportsResponse, telemetry_service_server::TelemetryService,
    },
};

use super::{Context, REPORT_INTERVAL, wire_duration};
use crate::{
    access::Principal,
    grpc::refuse,
    metrics::{ReportLabels, ReportResult},
    stats::{merger::Merged, report::Report, totals::Invalid},
};

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
    /// Whether the interval was told.
    told: bool,
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
            context,
            principal,
            inbound: request.into_inner(),
            told: false,
            warned: false,
            ended: false,
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
        let (agent_id, impossible) = (report.agent_id.clone(), std::mem::take(&mut report.refused));
        let merged = self.context.reports.merge(report).await;
        let Merged { acked, resend, left_out } = merged.map_err(|error| {
            self.count(ReportResult::failed);
            refuse::commit(&error)
        })?;
        self.refuse(&agent_id, &impossible, left_out);
        self.count(if resend { ReportResult::gap } else { ReportResult::taken });
        let report_interval = (!self.told).then(|| wire_duration(REPORT_INTERVAL));
        self.told = true;
        let answer = StreamReportsResponse {
            acked_seq: acked,
            report_interval,
            resend_from_first_unacked: resend,
            pause_for: None,
        };
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
