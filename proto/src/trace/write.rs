//! Events of the decision core as messages of a trace.

use std::time::Duration;

use trunkline_routing::{
    classify::Classified,
    eligibility::Profile,
    hint::{RateHeaders, RateLimit},
    money::NanoUsd,
    registry::{Forced, Observation},
    table::Version,
    time::Timestamp,
    trace::{Arrival, Beginning, Call, Entry, Event, Goal, Lease, Note, Place, Verdict},
};

use super::{answers, words};
use crate::{
    admin::v1::Config,
    agent::v1::{self as wire, resource::Resource as Kind, trace_entry, trace_note, trace_place},
    convert::{sync, wire_model, wire_outputs},
    types::v1,
};

/// What a file begins with.
pub fn header(build: &str) -> wire::TraceHeader {
    wire::TraceHeader { magic: super::MAGIC.to_owned(), format: super::FORMAT, build: build.to_owned() }
}

/// An entry. None: it binds a table, of which only [`table`] knows the resources.
pub fn entry(entry: &Entry) -> Option<wire::TraceEntry> {
    let Entry { at, seed, event, answer } = entry;
    let event = self::event(event)?;
    Some(wire::TraceEntry {
        at_nanos: at.as_nanos(),
        seed: *seed,
        answer: answers::write(answer),
        event: Some(event),
    })
}

/// The entry of a table that became number `number`.
pub fn table(at: Timestamp, version: &Version, config: &Config, number: u64) -> wire::TraceEntry {
    let resources = sync::snapshot(config).into_iter();
    // Hashes of keys are no secret, but nothing to hand around either.
    let resources =
        resources.filter(|one| !matches!(one.resource, Some(Kind::ApiKey(_) | Kind::Budget(_)) | None));
    let version = v1::Version { epoch: version.epoch.clone(), revision: version.revision };
    let number = wire::TraceNumber { value: Some(number) };
    wire::TraceEntry {
        at_nanos: at.as_nanos(),
        seed: 0,
        answer: Some(wire::TraceAnswer { answer: Some(wire::trace_answer::Answer::Number(number)) }),
        event: Some(trace_entry::Event::Table(wire::TraceTable {
            version: Some(version),
            resources: resources.collect(),
        })),
    }
}

fn event(event: &Event) -> Option<trace_entry::Event> {
    use trace_entry::Event as Wire;
    let names = |names: &[Box<str>]| names.iter().map(ToString::to_string).collect();
    Some(match event {
        Event::Bind(_) => return None,
        Event::MissingCredentials(all) => Wire::MissingCredentials(wire::TraceNames { names: names(all) }),
        Event::CredentialChanged(name) => Wire::CredentialChanged(name.to_string()),
        Event::Forced(all) => Wire::Forced(wire::TraceForced {
            breakers: all.iter().map(|(name, word, until)| forced(name, *word, *until)).collect(),
        }),
        Event::Fleet { epoch, verdicts } => Wire::Fleet(wire::TraceFleet {
            epoch: epoch.to_string(),
            verdicts: verdicts.iter().map(verdict).collect(),
        }),
        Event::Leases(all) => Wire::Leases(wire::TraceLeases { leases: all.iter().map(lease).collect() }),
        Event::Heard(until) => Wire::HeardUntilNanos(until.as_nanos()),
        Event::Adopt(models) => Wire::Models(wire::FleetModels {
            agents: models.agents,
            deployments: models.models.iter().map(|(name, model)| wire_model(name, model)).collect(),
            outputs: wire_outputs(&models.outputs),
        }),
        Event::Arrive(one) => Wire::Arrival(arrival(one)),
        Event::Ask { request, call } => Wire::Ask(ask(*request, call)),
        Event::Take { place, profile } => Wire::Take(wire::TraceTake {
            place: Some(self::place(*place)),
            profile: Some(self::profile(profile)),
        }),
        Event::Begin(one) => Wire::Begin(begin(one)),
        Event::Note { ticket, note } => {
            Wire::Note(wire::TraceNote { ticket: *ticket, note: Some(self::note(note)) })
        }
        Event::TakeProbeResults => Wire::TakeProbeResults(true),
        Event::GiveBackLease(id) => Wire::GiveBackLease(*id),
    })
}

fn forced(name: &str, word: Forced, until: Option<Timestamp>) -> wire::TraceForcedBreaker {
    wire::TraceForcedBreaker {
        deployment: name.to_owned(),
        open: word == Forced::Open,
        until_nanos: until.map(Timestamp::as_nanos),
    }
}

fn verdict(one: &Verdict) -> wire::TraceVerdict {
    wire::TraceVerdict {
        subject: one.subject.to_string(),
        state: words::state(one.state).to_owned(),
        generation: one.generation,
        until_nanos: one.until.map(Timestamp::as_nanos),
        openings: one.openings,
        admit_percent: one.admit_percent.into(),
    }
}

fn lease(one: &Lease) -> wire::TraceLease {
    wire::TraceLease {
        deployment: one.deployment.to_string(),
        lease_id: one.lease_id,
        generation: one.generation,
        expires_nanos: one.expires.as_nanos(),
        is_check: one.is_check,
    }
}

fn place(place: Place) -> wire::TracePlace {
    let goal = match place.goal {
        Goal::Model(index) => trace_place::Goal::Model(index),
        Goal::Pin(deployment) => trace_place::Goal::Pin(deployment.0),
    };
    wire::TracePlace { table: place.table, goal: Some(goal) }
}

fn profile(profile: &Profile) -> wire::TraceProfile {
    let Profile {
        needs,
        input_tokens,
        max_output_tokens,
        stream,
        min_quality,
        max_cost,
        session,
        at_unix_ms,
        cheapest,
        extra_answers,
    } = *profile;
    wire::TraceProfile {
        needs: needs.names().map(str::to_owned).collect(),
        input_tokens,
        max_output_tokens,
        stream,
        min_quality,
        max_cost_nano_usd: max_cost.map(|NanoUsd(cost)| cost),
        session,
        at_unix_ms,
        cheapest,
        extra_answers,
    }
}

fn arrival(one: &Arrival) -> wire::TraceArrival {
    wire::TraceArrival {
        request: one.request,
        place: Some(place(one.place)),
        profile: Some(profile(&one.profile)),
        deadline_nanos: one.deadline.map(nanos),
        tenant: one.tenant.hash(),
    }
}

fn ask(request: u64, call: &Call) -> wire::TraceAsk {
    let (name, attempt) = match call {
        Call::Next => ("next", 0),
        Call::Heard(id) => ("heard", id.0),
        Call::Failed(id, _) => ("failed", id.0),
        Call::Won(id) => ("won", id.0),
        Call::Abandon => ("abandon", 0),
    };
    let failed = match call {
        Call::Failed(_, failed) => Some(classified(failed)),
        Call::Next | Call::Heard(_) | Call::Won(_) | Call::Abandon => None,
    };
    wire::TraceAsk { request, call: name.to_owned(), attempt, classified: failed }
}

fn classified(one: &Classified) -> wire::TraceClassified {
    wire::TraceClassified {
        outcome: one.class.name().to_owned(),
        remedy: words::remedy(one.remedy).to_owned(),
        breaker: words::count(one.breaker).to_owned(),
        quarantine: one.quarantine_scope.map_or("", words::scope).to_owned(),
        gate_nanos: one.gate.map(|gate| nanos(gate.for_how_long)),
        gate_hinted: one.gate.is_some_and(|gate| gate.hinted),
    }
}

fn begin(one: &Beginning) -> wire::TraceBegin {
    wire::TraceBegin {
        table: one.table,
        deployment: one.deployment.0,
        lease: one.lease,
        reported: one.reported,
        tokens: one.tokens,
        tenant: one.tenant.hash(),
        route: one.route,
        session: one.session,
    }
}

fn note(note: &Note) -> trace_note::Note {
    use trace_note::Note as Wire;
    match note {
        Note::RateHeaders(RateHeaders { requests, tokens }) => Wire::RateHeaders(wire::TraceRateHeaders {
            requests: requests.as_ref().map(rate_limit),
            tokens: tokens.as_ref().map(rate_limit),
        }),
        Note::Pace(max_output_tokens, took) => {
            Wire::Pace(wire::TracePace { max_output_tokens: *max_output_tokens, took_nanos: nanos(*took) })
        }
        Note::Observe(seen) => Wire::Observation(observation(seen)),
        Note::Record(sample) => Wire::Sample(words::sample(*sample).to_owned()),
        Note::Learn(failed) => Wire::Failed(classified(failed)),
        Note::Answered => Wire::Answered(true),
        Note::Cost(cost) => Wire::Cost(wire::TraceCost { nano_usd: cost.map(|NanoUsd(cost)| cost) }),
        Note::Check(sample, unhealthy_threshold) => Wire::Check(wire::TraceCheck {
            sample: words::sample(*sample).to_owned(),
            unhealthy_threshold: *unhealthy_threshold,
        }),
        Note::Release => Wire::Released(true),
    }
}

fn rate_limit(one: &RateLimit) -> wire::TraceRateLimit {
    let RateLimit { remaining, limit, reset } = *one;
    wire::TraceRateLimit { remaining, limit, reset_nanos: nanos(reset) }
}

fn observation(seen: &Observation) -> wire::TraceObservation {
    wire::TraceObservation {
        input_tokens: seen.input_tokens,
        cached_input_tokens: seen.cached_input_tokens,
        max_output_tokens: seen.max_output_tokens,
        output_tokens: seen.output_tokens,
        ttft_nanos: nanos(seen.ttft),
        duration_nanos: nanos(seen.duration),
        stream: seen.stream,
    }
}

/// At most 584 years.
pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
