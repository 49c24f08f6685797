//! Traces as files: what is written is read, what is cut is read up to there, what is
//! something else is refused.

use std::time::Duration;

use trunkline_routing::{
    breaker::Sample,
    classify::{ErrorFields, OutcomeClass, classify},
    eligibility::Profile,
    hint::{RateHeaders, RateLimit},
    money::NanoUsd,
    registry::{FleetState, Forced, Observation},
    request::{AttemptId, Directive, Failure, Loser, Start},
    table::{Capabilities, DeploymentIndex, Version},
    tenant::Tenant,
    time::Timestamp,
    trace::{Answer, Arrival, Beginning, Call, Event, Goal, Lease, Note, Place, Summary, Verdict},
    train::{Coefficients, DeploymentModel, FleetModels, OutputKey, OutputModel, Sums},
};

use super::*;
use crate::document;

const SECOND: Duration = Duration::from_secs(1);

fn at(nanos: u64) -> Timestamp {
    Timestamp::from_nanos(nanos)
}

fn profile() -> Profile {
    Profile {
        needs: Capabilities::TOOLS.with(Capabilities::STREAMING),
        input_tokens: 70,
        max_output_tokens: Some(0),
        stream: true,
        min_quality: Some(0.1 + 0.2),
        max_cost: Some(NanoUsd(9)),
        session: Some(u64::MAX),
        at_unix_ms: 1_700_000_000_000,
        cheapest: true,
        extra_answers: 3,
    }
}

fn events_of_the_fleet() -> Vec<Event> {
    let model = DeploymentModel {
        slow: Coefficients { samples: 9, ln_ttft: [-1.0, 0.5, 0.25], ..Coefficients::default() },
        ttft_now: Sums { sum: 0.1 + 0.2, weight: 2.0 },
        in_flight: 3.0,
        in_flight_age: Duration::from_nanos(700_000_001),
        newest_age: Some(SECOND),
        ..DeploymentModel::default()
    };
    let output = OutputModel {
        key: OutputKey { route: u64::MAX, bucket: 255 },
        tokens: Sums { sum: 80.0, weight: 2.0 },
    };
    let states = [FleetState::Closed, FleetState::Open, FleetState::HalfOpen, FleetState::Ramping];
    let verdict = |(generation, state)| Verdict {
        subject: "p/m".into(),
        state,
        generation,
        until: (state == FleetState::Open).then(|| at(5)),
        openings: 2,
        admit_percent: 30,
    };
    let lease =
        Lease { deployment: "p/m".into(), lease_id: u64::MAX, generation: 4, expires: at(9), is_check: true };
    vec![
        Event::MissingCredentials(vec!["p".into(), "q".into()]),
        Event::CredentialChanged("p".into()),
        Event::Forced(vec![("p/m".into(), Forced::Open, Some(at(3))), ("q/m".into(), Forced::Closed, None)]),
        Event::Fleet { epoch: "e".into(), verdicts: (1..).zip(states).map(verdict).collect() },
        Event::Leases(vec![lease]),
        Event::Heard(at(77)),
        Event::Adopt(FleetModels { agents: 3, models: vec![("p/m".into(), model)], outputs: vec![output] }),
        Event::TakeProbeResults,
        Event::GiveBackLease(u64::MAX),
    ]
}

fn events_of_requests() -> Vec<Event> {
    let id = AttemptId(3);
    let hint = Some(Duration::from_millis(1_500));
    let failures =
        [401, 402, 404, 429, 500, 503].map(|status| classify(status, &ErrorFields::default(), hint));
    let calls = [Call::Next, Call::Heard(id), Call::Won(id), Call::Abandon].into_iter();
    let calls = calls.chain(failures.map(|failed| Call::Failed(id, failed)));
    let place = Place { table: 2, goal: Goal::Model(1) };
    let pin = Place { table: 2, goal: Goal::Pin(DeploymentIndex(4)) };
    let (deadline, tenant) = (Some(SECOND), Tenant::of(Some("team")));
    let first = Arrival { request: 8, place, profile: profile(), deadline, tenant };
    let plain =
        Arrival { profile: Profile::default(), place: pin, deadline: None, tenant: Tenant::NONE, ..first };
    let mut events =
        vec![Event::Arrive(first), Event::Arrive(plain), Event::Take { place: pin, profile: profile() }];
    events.extend(calls.map(|call| Event::Ask { request: 8, call }));
    events
}

fn events_of_attempts() -> Vec<Event> {
    use Sample::{Begun, BrokeOff, Ended, Failure, Neutral, RateLimited, RatioFailure, Success};
    let limit = RateLimit { remaining: 0, limit: None, reset: SECOND };
    let whole = RateLimit { limit: Some(60), ..limit };
    let seen = Observation {
        input_tokens: 1,
        cached_input_tokens: 2,
        max_output_tokens: None,
        output_tokens: 3,
        ttft: Duration::from_nanos(1),
        duration: SECOND,
        stream: true,
    };
    let mut notes = vec![
        Note::RateHeaders(RateHeaders { requests: Some(limit), tokens: Some(whole) }),
        Note::RateHeaders(RateHeaders::default()),
        Note::Pace(Some(0), SECOND),
        Note::Pace(None, SECOND),
        Note::Observe(seen),
        Note::Learn(classify(503, &ErrorFields::default(), None)),
        Note::Answered,
        Note::Cost(Some(NanoUsd(0))),
        Note::Cost(None),
        Note::Check(Failure, 3),
        Note::Release,
    ];
    let samples = [Begun, BrokeOff, Ended, Failure, Neutral, RateLimited, RatioFailure, Success];
    notes.extend(samples.map(Note::Record));
    let begin = Beginning {
        table: 1,
        deployment: DeploymentIndex(0),
        lease: Some(0),
        reported: false,
        tokens: 2,
        tenant: Tenant::NONE,
        route: u64::MAX,
        session: Some(0),
    };
    let mut events = vec![
        Event::Begin(begin),
        Event::Begin(Beginning { lease: None, session: None, reported: true, ..begin }),
    ];
    events.extend(notes.into_iter().map(|note| Event::Note { ticket: 6, note }));
    events
}

fn answers() -> Vec<Answer> {
    let id = AttemptId(2);
    let directives = [
        Directive::Kill(id),
        Directive::Wait(at(u64::MAX)),
        Directive::Fail(Failure::Return(id)),
        Directive::Fail(Failure::Exhausted { retry_after: Some(Duration::ZERO), rate_limited: true }),
        Directive::Fail(Failure::NoTarget { retry_after: None }),
        Directive::Fail(Failure::Deadline),
    ];
    let starts = [Start::First, Start::Retry, Start::Beside, Start::Hedge];
    let starts = starts.map(|why| Directive::Start { id, deployment: DeploymentIndex(9), tier: 1, why });
    let summary = Summary {
        candidates: vec![(DeploymentIndex(1), 0, 0.1 + 0.2), (DeploymentIndex(0), 1, 0.0)],
        excluded: vec![DeploymentIndex(2)],
        digest: u64::MAX,
    };
    let losers = OutcomeClass::ALL.map(|class| Loser { id, class });
    let mut answers = vec![
        Answer::Nothing,
        Answer::Number(None),
        Answer::Number(Some(0)),
        Answer::Opened(false),
        Answer::Opened(true),
        Answer::Decision(summary),
        Answer::Decision(Summary::default()),
        Answer::Ended(None, Vec::new()),
        Answer::Ended(Some(4), losers.to_vec()),
    ];
    answers.extend(directives.into_iter().chain(starts).map(Answer::Directive));
    answers
}

fn all() -> Vec<Entry> {
    let events = [events_of_the_fleet(), events_of_requests(), events_of_attempts()].concat();
    let answers = answers();
    let entry = |(number, event): (usize, Event)| Entry {
        at: at(number as u64),
        seed: u64::MAX - number as u64,
        event,
        answer: answers[number % answers.len()].clone(),
    };
    assert!(events.len() > answers.len(), "each answer is written at least once");
    events.into_iter().enumerate().map(entry).collect()
}

fn file(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = header("1.2.3").encode_length_delimited_to_vec();
    for entry in entries {
        bytes.extend(wire_entry(entry).unwrap().encode_length_delimited_to_vec());
    }
    bytes
}

#[test]
fn every_kind_of_event_and_answer_is_read_as_it_was_written() {
    let all = all();
    let bytes = file(&all);
    let mut reader = Reader::new(&*bytes).unwrap();
    assert_eq!(reader.build(), "1.2.3");
    let read: Vec<Entry> = reader.by_ref().map(Result::unwrap).collect();
    // `Debug` writes floats to their last bit.
    let text = |entries: &[Entry]| -> Vec<String> { entries.iter().map(|one| format!("{one:?}")).collect() };
    assert_eq!(text(&read), text(&all));
    assert_eq!(reader.cut(), 0);
}

#[test]
fn a_file_that_was_cut_anywhere_is_read_up_to_there() {
    let all = all();
    let bytes = file(&all);
    let start = file(&[]).len();
    for end in start..bytes.len() {
        let mut reader = Reader::new(&bytes[..end]).unwrap();
        let read = reader.by_ref().map(Result::unwrap).count();
        assert_eq!(end as u64 - reader.cut(), file(&all[..read]).len() as u64, "cut at {end}");
    }
}

#[test]
fn a_table_is_made_again_of_its_resources_without_keys_of_apps() {
    let text = "providers:\n  - {name: p, dialect: DIALECT_OPENAI, base_url: 'https://p.test/v1', deployments: [{name: m, upstream_model: m}]}\nvirtual_models:\n  - {name: chat, tiers: [{targets: [{deployment: p/m}]}]}\napi_keys:\n  - {name: team, secret_sha256: '0000000000000000000000000000000000000000000000000000000000000001'}\n";
    let config = document::load_and_check(text).unwrap();
    let version = Version { epoch: "e".to_owned(), revision: 7 };
    let table = wire_table(at(5), &version, &config, 3);
    let mut bytes = file(&[]);
    bytes.extend(table.encode_length_delimited_to_vec());
    assert!(!format!("{table:?}").contains("team"), "a key of an app is in the trace");
    let read = Reader::new(&*bytes).unwrap().next().unwrap().unwrap();
    let Event::Bind(read_table) = read.event else { panic!("{read:?}") };
    let whole = crate::convert::routing_table(version, &config).unwrap();
    assert_eq!(format!("{:?}", read_table.deployments), format!("{:?}", whole.deployments));
    assert_eq!(format!("{:?}", read_table.virtual_models), format!("{:?}", whole.virtual_models));
    assert_eq!(format!("{:?}", read_table.version), format!("{:?}", whole.version));
    assert_eq!(read.answer, Answer::Number(Some(3)));
}

#[test]
fn what_is_no_trace_of_this_build_is_refused_with_what_it_is() {
    let refused = |bytes: &[u8]| Reader::new(bytes).map(|_| ()).unwrap_err().to_string();
    assert!(refused(b"").contains("no trace"));
    assert!(refused(b"providers: []\n").contains("no trace"));
    let later = wire::TraceHeader { format: 2, ..header("9.0.0") };
    let said = refused(&later.encode_length_delimited_to_vec());
    assert!(said.contains("format 2") && said.contains("9.0.0"), "{said}");

    let first = |bytes: &[u8]| Reader::new(bytes).unwrap().next().unwrap().unwrap_err().to_string();
    let mut huge = file(&[]);
    huge.extend([0xff, 0xff, 0xff, 0xff, 0x7f]);
    assert!(first(&huge).contains("damaged"));
    let mut empty = file(&[]);
    empty.extend(wire::TraceEntry::default().encode_length_delimited_to_vec());
    assert!(first(&empty).contains("event"));
}
