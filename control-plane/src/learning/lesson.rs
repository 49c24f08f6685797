//! What one report says of attempts, and what the trainer makes of it.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;
use trunkline_proto::{telemetry::v1::AttemptSample, types::v1::OutcomeClass};
use trunkline_routing::{
    time::Timestamp,
    train::{Sample, SampleKind, route_id},
};

/// Longer attempts, and reports of attempts longer ago, say nothing.
const AGE_MAX: Duration = Duration::from_secs(3_600);

/// A report whose window ended longer ago came late: what it says of the moment is over.
/// The same as for counts, see the merger.
const LATE_SECS: u64 = 60;

/// Samples and running attempts of one agent's window.
#[derive(Debug)]
pub(crate) struct Lesson {
    pub(crate) agent_id: String,
    pub(crate) received: Instant,
    pub(crate) samples: Vec<AttemptSample>,
    pub(crate) running: HashMap<String, u32>,
}

impl Lesson {
    /// None: the report came too late to learn from. `end_secs` and `now_secs` are in
    /// seconds since 1970, on the agent's clock and on this one.
    pub(crate) fn of_report(
        agent_id: String,
        end_secs: Option<u64>,
        now_secs: u64,
        samples: Vec<AttemptSample>,
        running: HashMap<String, u32>,
    ) -> Option<Self> {
        let late = end_secs.is_some_and(|end| now_secs.saturating_sub(end) > LATE_SECS);
        (!late).then(|| Self { agent_id, received: Instant::now(), samples, running })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.samples.is_empty() && self.running.is_empty()
    }
}

/// A sample whose window ended `at`, on the trainer's clock. None: nothing can be learned
/// from it.
pub(super) fn sample(wire: &AttemptSample, at: Timestamp) -> Option<Sample> {
    let time = |wire: Option<prost_types::Duration>| Duration::try_from(wire?).ok();
    let duration = time(wire.duration)?;
    // An attempt ends within its window, whatever the agent's clock did.
    let before = time(wire.started_before_end)?.max(duration);
    if before > AGE_MAX {
        return None;
    }
    Some(Sample {
        route: route_id(&wire.model),
        started: at - before,
        input_tokens: wire.input_tokens,
        cached_input_tokens: wire.cached_input_tokens.min(wire.input_tokens),
        max_output_tokens: wire.max_output_tokens,
        output_tokens: wire.output_tokens,
        ttft: time(wire.ttft).map(|ttft| ttft.min(duration)),
        duration,
        kind: kind(wire.outcome())?,
        in_flight_own: wire.in_flight,
        predicted_ttft_s: time(wire.predicted_ttft).unwrap_or_default().as_secs_f32(),
    })
}

/// None: it says nothing about how the deployment does.
const fn kind(class: OutcomeClass) -> Option<SampleKind> {
    use OutcomeClass as Class;
    match class {
        Class::Ok => Some(SampleKind::Ok),
        Class::MidStream => Some(SampleKind::Broke),
        Class::Timeout => Some(SampleKind::Silent),
        Class::Overtaken | Class::Cancelled => Some(SampleKind::Overtaken),
        Class::Connect
        | Class::Reset
        | Class::ServerError
        | Class::Unavailable
        | Class::Overloaded
        | Class::Malformed
        | Class::Empty => Some(SampleKind::Failed),
        // The rate gate, the quarantine or the request itself.
        Class::Unspecified
        | Class::RateLimited
        | Class::Auth
        | Class::Quota
        | Class::ModelNotFound
        | Class::InvalidRequest
        | Class::ContextLength
        | Class::ContentFilter
        | Class::Transient
        | Class::Misconfigured => None,
    }
}
