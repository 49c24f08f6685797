//! Answers of the decision core as messages of a trace, and back.

use std::time::Duration;

use trunkline_routing::{
    request::{AttemptId, Directive, Failure, Loser},
    table::DeploymentIndex,
    time::Timestamp,
    trace::{Answer, Summary},
};

use super::{words, write::nanos};
use crate::agent::v1::{self as wire, trace_answer::Answer as Wire};

/// None: there was none.
pub(super) fn write(answer: &Answer) -> Option<wire::TraceAnswer> {
    let answer = match answer {
        Answer::Nothing => return None,
        Answer::Number(value) => Wire::Number(wire::TraceNumber { value: *value }),
        Answer::Opened(opened) => Wire::Opened(*opened),
        Answer::Directive(directive) => self::directive(directive),
        Answer::Decision(summary) => Wire::Decision(decision(summary)),
        Answer::Ended(ticket, losers) => Wire::End(wire::TraceEnd {
            ticket: *ticket,
            losers: losers
                .iter()
                .map(|loser| wire::TraceLoser { attempt: loser.id.0, outcome: loser.class.name().to_owned() })
                .collect(),
        }),
    };
    Some(wire::TraceAnswer { answer: Some(answer) })
}

fn directive(directive: &Directive) -> Wire {
    match *directive {
        Directive::Start { id, deployment, tier, why } => Wire::Start(wire::TraceStart {
            attempt: id.0,
            deployment: deployment.0,
            tier: tier as u32,
            why: words::start(why).to_owned(),
        }),
        Directive::Kill(id) => Wire::Kill(id.0),
        Directive::Wait(until) => Wire::WaitUntilNanos(until.as_nanos()),
        Directive::Fail(failure) => Wire::Failure(self::failure(failure)),
    }
}

fn failure(failure: Failure) -> wire::TraceFailure {
    let plain = |kind: &str| wire::TraceFailure { kind: kind.to_owned(), ..wire::TraceFailure::default() };
    match failure {
        Failure::Return(id) => wire::TraceFailure { attempt: id.0, ..plain("return") },
        Failure::Exhausted { retry_after, rate_limited } => wire::TraceFailure {
            retry_after_nanos: retry_after.map(nanos),
            rate_limited,
            ..plain("exhausted")
        },
        Failure::NoTarget { retry_after } => {
            wire::TraceFailure { retry_after_nanos: retry_after.map(nanos), ..plain("no_target") }
        }
        Failure::Deadline => plain("deadline"),
    }
}

fn decision(summary: &Summary) -> wire::TraceDecision {
    let candidates = summary.candidates.iter();
    wire::TraceDecision {
        candidates: candidates
            .map(|&(deployment, tier, probability)| wire::TraceCandidate {
                deployment: deployment.0,
                tier,
                probability,
            })
            .collect(),
        excluded: summary.excluded.iter().map(|one| one.0).collect(),
        digest: summary.digest,
    }
}

/// None: it is none that this build knows.
pub(super) fn read(answer: Option<wire::TraceAnswer>) -> Option<Answer> {
    let Some(answer) = answer else { return Some(Answer::Nothing) };
    Some(match answer.answer? {
        Wire::Number(wire::TraceNumber { value }) => Answer::Number(value),
        Wire::Opened(opened) => Answer::Opened(opened),
        Wire::Start(start) => Answer::Directive(Directive::Start {
            id: AttemptId(start.attempt),
            deployment: DeploymentIndex(start.deployment),
            tier: start.tier as usize,
            why: words::to_start(&start.why)?,
        }),
        Wire::Kill(id) => Answer::Directive(Directive::Kill(AttemptId(id))),
        Wire::WaitUntilNanos(until) => Answer::Directive(Directive::Wait(Timestamp::from_nanos(until))),
        Wire::Failure(failure) => Answer::Directive(Directive::Fail(to_failure(&failure)?)),
        Wire::Decision(decision) => Answer::Decision(to_summary(&decision)),
        Wire::End(end) => {
            let losers = end.losers.iter().map(|loser| {
                Some(Loser { id: AttemptId(loser.attempt), class: words::to_class(&loser.outcome)? })
            });
            Answer::Ended(end.ticket, losers.collect::<Option<_>>()?)
        }
    })
}

fn to_failure(failure: &wire::TraceFailure) -> Option<Failure> {
    let retry_after = failure.retry_after_nanos.map(Duration::from_nanos);
    match failure.kind.as_str() {
        "return" => Some(Failure::Return(AttemptId(failure.attempt))),
        "exhausted" => Some(Failure::Exhausted { retry_after, rate_limited: failure.rate_limited }),
        "no_target" => Some(Failure::NoTarget { retry_after }),
        "deadline" => Some(Failure::Deadline),
        _ => None,
    }
}

fn to_summary(decision: &wire::TraceDecision) -> Summary {
    let candidates = decision.candidates.iter();
    Summary {
        candidates: candidates
            .map(|one| (DeploymentIndex(one.deployment), one.tier, one.probability))
            .collect(),
        excluded: decision.excluded.iter().map(|one| DeploymentIndex(*one)).collect(),
        digest: decision.digest,
    }
}
