//! Messages of a trace as events of the decision core.

use std::time::Duration;

use trunkline_routing::{
    classify::Classified,
    eligibility::Profile,
    hint::{RateHeaders, RateLimit},
    hold::Gate,
    money::NanoUsd,
    registry::{Forced, Observation},
    request::AttemptId,
    table::{Capabilities, DeploymentIndex, RoutingTable, Version},
    tenant::Tenant,
    time::Timestamp,
    trace::{Arrival, Beginning, Call, Entry, Event, Goal, Lease, Note, Place, Verdict},
};

use super::{TraceError, answers, words};
use crate::{
    admin::v1::Config,
    agent::v1::{self as wire, trace_entry::Event as Wire, trace_note, trace_place},
    convert::{fleet_models, routing_table_lenient, sync},
};

/// An entry of a trace.
///
/// # Errors
/// The part that this build can't read.
pub(super) fn entry(entry: wire::TraceEntry) -> Result<Entry, TraceError> {
    let wire::TraceEntry { at_nanos, seed, answer, event } = entry;
    let event = event.ok_or(TraceError::Unknown("event"))?;
    Ok(Entry {
        at: Timestamp::from_nanos(at_nanos),
        seed,
        event: self::event(event)?,
        answer: answers::read(answer).ok_or(TraceError::Unknown("answer"))?,
    })
}

fn event(event: Wire) -> Result<Event, TraceError> {
    let unknown = TraceError::Unknown;
    Ok(match event {
        Wire::Table(table) => Event::Bind(Box::new(self::table(table)?)),
        Wire::MissingCredentials(all) => Event::MissingCredentials(names(all.names)),
        Wire::CredentialChanged(name) => Event::CredentialChanged(name.into()),
        Wire::Forced(all) => Event::Forced(all.breakers.into_iter().map(forced).collect()),
        Wire::Fleet(fleet) => Event::Fleet {
            epoch: fleet.epoch.into(),
            verdicts: fleet
                .verdicts
                .into_iter()
                .map(verdict)
                .collect::<Option<_>>()
                .ok_or(unknown("fleet.verdicts.state"))?,
        },
        Wire::Leases(all) => Event::Leases(all.leases.into_iter().map(lease).collect()),
        Wire::HeardUntilNanos(until) => Event::Heard(Timestamp::from_nanos(until)),
        Wire::Models(models) => Event::Adopt(fleet_models(models)),
        Wire::Arrival(one) => Event::Arrive(arrival(&one).ok_or(unknown("arrival"))?),
        Wire::Ask(ask) => Event::Ask { request: ask.request, call: call(&ask).ok_or(unknown("ask"))? },
        Wire::Take(take) => Event::Take {
            place: take.place.and_then(place).ok_or(unknown("take.place"))?,
            profile: take.profile.as_ref().and_then(profile).ok_or(unknown("take.profile"))?,
        },
        Wire::Begin(one) => Event::Begin(begin(&one)),
        Wire::Note(one) => Event::Note {
            ticket: one.ticket,
            note: one.note.and_then(|one| note(&one)).ok_or(unknown("note"))?,
        },
        Wire::TakeProbeResults(_) => Event::TakeProbeResults,
        Wire::GiveBackLease(id) => Event::GiveBackLease(id),
    })
}

fn names(names: Vec<String>) -> Vec<Box<str>> {
    names.into_iter().map(String::into_boxed_str).collect()
}

fn table(table: wire::TraceTable) -> Result<RoutingTable, TraceError> {
    let version = table.version.unwrap_or_default();
    let version = Version { epoch: version.epoch, revision: version.revision };
    let config = sync::apply(&Config::default(), table.resources, &[]);
    let read = routing_table_lenient(version, &config);
    read.map(|read| read.table).map_err(|problems| TraceError::Table(problems.to_string()))
}

fn forced(one: wire::TraceForcedBreaker) -> (Box<str>, Forced, Option<Timestamp>) {
    let word = if one.open { Forced::Open } else { Forced::Closed };
    (one.deployment.into(), word, one.until_nanos.map(Timestamp::from_nanos))
}

fn verdict(one: wire::TraceVerdict) -> Option<Verdict> {
    Some(Verdict {
        state: words::to_state(&one.state)?,
        subject: one.subject.into(),
        generation: one.generation,
        until: one.until_nanos.map(Timestamp::from_nanos),
        openings: one.openings,
        admit_percent: u8::try_from(one.admit_percent).ok()?,
    })
}

fn lease(one: wire::TraceLease) -> Lease {
    Lease {
        deployment: one.deployment.into(),
        lease_id: one.lease_id,
        generation: one.generation,
        expires: Timestamp::from_nanos(one.expires_nanos),
        is_check: one.is_check,
    }
}

fn place(place: wire::TracePlace) -> Option<Place> {
    let goal = match place.goal? {
        trace_place::Goal::Model(index) => Goal::Model(index),
        trace_place::Goal::Pin(index) => Goal::Pin(DeploymentIndex(index)),
    };
    Some(Place { table: place.table, goal })
}

fn profile(one: &wire::TraceProfile) -> Option<Profile> {
    let needs = one.needs.iter().try_fold(Capabilities::NONE, |all, name| {
        Capabilities::by_name(name).map(|capability| all.with(capability))
    });
    Some(Profile {
        needs: needs?,
        input_tokens: one.input_tokens,
        max_output_tokens: one.max_output_tokens,
        stream: one.stream,
        min_quality: one.min_quality,
        max_cost: one.max_cost_nano_usd.map(NanoUsd),
        session: one.session,
        at_unix_ms: one.at_unix_ms,
        cheapest: one.cheapest,
        extra_answers: one.extra_answers,
    })
}

fn tenant(hash: u64) -> Tenant {
    if hash == 0 { Tenant::NONE } else { Tenant::from_hash(hash) }
}

fn arrival(one: &wire::TraceArrival) -> Option<Arrival> {
    Some(Arrival {
        request: one.request,
        place: one.place.and_then(place)?,
        profile: one.profile.as_ref().and_then(profile)?,
        deadline: one.deadline_nanos.map(Duration::from_nanos),
        tenant: tenant(one.tenant),
    })
}

fn call(ask: &wire::TraceAsk) -> Option<Call> {
    let id = AttemptId(ask.attempt);
    match ask.call.as_str() {
        "next" => Some(Call::Next),
        "heard" => Some(Call::Heard(id)),
        "failed" => Some(Call::Failed(id, classified(ask.classified.as_ref()?)?)),
        "won" => Some(Call::Won(id)),
        "abandon" => Some(Call::Abandon),
        _ => None,
    }
}

fn classified(one: &wire::TraceClassified) -> Option<Classified> {
    let quarantine_scope = match one.quarantine.as_str() {
        "" => None,
        scope => Some(words::to_scope(scope)?),
    };
    let hinted = one.gate_hinted;
    Some(Classified {
        class: words::to_class(&one.outcome)?,
        remedy: words::to_remedy(&one.remedy)?,
        breaker: words::to_count(&one.breaker)?,
        quarantine_scope,
        gate: one.gate_nanos.map(|nanos| Gate { for_how_long: Duration::from_nanos(nanos), hinted }),
    })
}

fn begin(one: &wire::TraceBegin) -> Beginning {
    Beginning {
        table: one.table,
        deployment: DeploymentIndex(one.deployment),
        lease: one.lease,
        reported: one.reported,
        tokens: one.tokens,
        tenant: tenant(one.tenant),
        route: one.route,
        session: one.session,
    }
}

fn note(note: &trace_note::Note) -> Option<Note> {
    use trace_note::Note as Wire;
    Some(match note {
        Wire::RateHeaders(headers) => Note::RateHeaders(RateHeaders {
            requests: headers.requests.as_ref().map(rate_limit),
            tokens: headers.tokens.as_ref().map(rate_limit),
        }),
        Wire::Pace(pace) => Note::Pace(pace.max_output_tokens, Duration::from_nanos(pace.took_nanos)),
        Wire::Observation(seen) => Note::Observe(Observation {
            input_tokens: seen.input_tokens,
            cached_input_tokens: seen.cached_input_tokens,
            max_output_tokens: seen.max_output_tokens,
            output_tokens: seen.output_tokens,
            ttft: Duration::from_nanos(seen.ttft_nanos),
            duration: Duration::from_nanos(seen.duration_nanos),
            stream: seen.stream,
        }),
        Wire::Sample(sample) => Note::Record(words::to_sample(sample)?),
        Wire::Failed(failed) => Note::Learn(classified(failed)?),
        Wire::Answered(_) => Note::Answered,
        Wire::Cost(cost) => Note::Cost(cost.nano_usd.map(NanoUsd)),
        Wire::Check(check) => Note::Check(words::to_sample(&check.sample)?, check.unhealthy_threshold),
        Wire::Released(_) => Note::Release,
    })
}

fn rate_limit(one: &wire::TraceRateLimit) -> RateLimit {
    RateLimit { remaining: one.remaining, limit: one.limit, reset: Duration::from_nanos(one.reset_nanos) }
}
