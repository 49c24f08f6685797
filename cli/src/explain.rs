//! `explain`: why a request went where it went, as the agent that answered knows it.

use std::time::Duration;

use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;
use trunkline_proto::{
    routing::v1::{ExplainDecisionRequest, routing_service_client::RoutingServiceClient},
    types::v1::{Attempt, Candidate, Decision, Exclusion, Score, ScoreBasis, Strategy},
};
use trunkline_transport::{
    bearer::{Bearer, BearerFile},
    client::{Trust, endpoint},
};

use crate::{
    args::{ExplainArgs, ListingFormat},
    cell::{NOTHING, or_nothing, short_name, time},
    client::may_carry,
    failure::Failure,
    json,
    table::{Align, render},
    terminal,
};

/// An agent answers from memory.
const TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) async fn run(args: ExplainArgs) -> Result<(), Failure> {
    let decision = ask(&args).await?;
    match args.output {
        ListingFormat::Json => terminal::print(&json::pretty("trunkline.types.v1.Decision", &decision)?),
        ListingFormat::Table => terminal::print(&told(&decision)),
    }
}

async fn ask(args: &ExplainArgs) -> Result<Decision, Failure> {
    let wrong = |flag: &str, problem: String| Failure::wrong_input(format!("{flag}: {problem}"));
    let trust = Trust::file_or_public(args.ca_file.as_deref())
        .map_err(|error| wrong("--ca-file", error.to_string()))?;
    let bearer = match &args.token_file {
        None => Bearer::none(),
        Some(path) => {
            BearerFile::load(path).map_err(|error| wrong("--token-file", error.to_string()))?.bearer()
        }
    };
    let endpoint = endpoint(&args.agent, &trust).map_err(|error| wrong("--agent", error.to_string()))?;
    may_carry(endpoint.uri(), &bearer)?;
    let channel = endpoint.connect_timeout(TIMEOUT).timeout(TIMEOUT).connect_lazy();
    let mut routing = RoutingServiceClient::with_interceptor(channel, bearer);
    let request = ExplainDecisionRequest { decision_id: args.decision.clone() };
    let answer = routing.explain_decision(Request::new(request)).await;
    let answer = answer.map_err(|status| refused(&status, &args.agent))?;
    answer.into_inner().decision.ok_or_else(|| Failure::failed("the answer holds no decision".to_owned()))
}

fn refused(status: &Status, agent: &str) -> Failure {
    let help = match status.code() {
        Code::NotFound => {
            "\nAsk the agent that answered the request, with --agent URL. It keeps its newest 4,096 \
             decisions, of the newest 4 revisions."
        }
        Code::Unauthenticated | Code::PermissionDenied => {
            "\nPresent the app key that made the request, with --token-file FILE."
        }
        Code::Unavailable if status.get_error_details().error_info().is_none() => {
            "\nSay where the agent is with --agent URL."
        }
        _ => "",
    };
    Failure::failed(format!("{agent}: {}{help}", status.message()))
}

/// The decision for people.
fn told(decision: &Decision) -> String {
    let revision = decision.version.as_ref().map_or(0, |version| version.revision);
    let strategy = decision.strategy().as_str_name();
    let mut text = format!(
        "decision {} at {}\nmodel {}, strategy {}, revision {revision}\nanswered by {}\n",
        decision.decision_id,
        time(decision.time),
        decision.model,
        short_name(strategy, "STRATEGY_"),
        if decision.chosen.is_empty() { "nobody" } else { &decision.chosen },
    );
    text.push('\n');
    text.push_str(&candidates(decision));
    if !decision.excluded.is_empty() {
        text.push('\n');
        text.push_str(&excluded(&decision.excluded));
    }
    if !decision.attempts.is_empty() {
        text.push('\n');
        text.push_str(&attempts(&decision.attempts));
    }
    text
}

fn candidates(decision: &Decision) -> String {
    let columns = [
        ("CANDIDATE", Align::Left),
        ("TIER", Align::Right),
        ("CHANCE", Align::Right),
        ("COST USD", Align::Right),
        ("TTFT S", Align::Right),
        ("OUTPUT S", Align::Right),
        ("ERRORS S", Align::Right),
        ("BREAKS S", Align::Right),
        ("SCORE", Align::Right),
        ("RUNNING", Align::Right),
        ("BASIS", Align::Left),
    ];
    let rows: Vec<_> = decision.candidates.iter().map(|one| candidate(decision.strategy(), one)).collect();
    render(columns, &rows)
}

fn candidate(strategy: Strategy, one: &Candidate) -> [String; 11] {
    let score = |show: fn(&Score) -> String| one.score.as_ref().map_or_else(|| NOTHING.to_owned(), show);
    let value = match strategy {
        Strategy::Cost | Strategy::Balanced => score(|score| dollars(score.value)),
        _ => score(|score| seconds(score.value)),
    };
    [
        one.deployment.clone(),
        one.tier.to_string(),
        format!("{:.1} %", 100.0 * one.probability),
        one.expected_cost_nano_usd.map_or_else(|| NOTHING.to_owned(), |cost| dollars(cost as f64)),
        score(|score| seconds(score.ttft_seconds)),
        score(|score| seconds(score.output_seconds)),
        score(|score| seconds(score.error_seconds)),
        score(|score| seconds(score.break_seconds)),
        value,
        score(|score| format!("{:.1}", score.in_flight)),
        score(|score| match score.basis() {
            ScoreBasis::Unspecified => NOTHING.to_owned(),
            basis => short_name(basis.as_str_name(), "SCORE_BASIS_"),
        }),
    ]
}

fn excluded(excluded: &[Exclusion]) -> String {
    let columns =
        [("LEFT OUT", Align::Left), ("TIER", Align::Right), ("REASON", Align::Left), ("WHY", Align::Left)];
    let row = |one: &Exclusion| {
        let reason = short_name(one.reason().as_str_name(), "EXCLUSION_REASON_");
        [one.deployment.clone(), one.tier.to_string(), reason, or_nothing(&one.detail)]
    };
    render(columns, &excluded.iter().map(row).collect::<Vec<_>>())
}

fn attempts(attempts: &[Attempt]) -> String {
    let columns = [
        ("ATTEMPT", Align::Left),
        ("START", Align::Left),
        ("AFTER S", Align::Right),
        ("TTFT S", Align::Right),
        ("TOOK S", Align::Right),
        ("TOKENS IN/OUT", Align::Right),
        ("COST USD", Align::Right),
        ("OUTCOME", Align::Left),
    ];
    let took = |time: Option<prost_types::Duration>| {
        let time = time.and_then(|time| Duration::try_from(time).ok());
        time.map_or_else(|| NOTHING.to_owned(), |time| seconds(time.as_secs_f64()))
    };
    let row = |one: &Attempt| {
        let start = short_name(one.start().as_str_name(), "ATTEMPT_START_");
        let tokens = one.usage.map(|usage| format!("{}/{}", usage.input_tokens, usage.output_tokens));
        let outcome = short_name(one.outcome().as_str_name(), "OUTCOME_CLASS_");
        let status = if one.status == 0 { String::new() } else { format!(" ({})", one.status) };
        [
            one.deployment.clone(),
            if start == "unspecified" { NOTHING.to_owned() } else { start },
            took(one.started_after),
            took(one.ttft),
            took(one.duration),
            tokens.unwrap_or_else(|| NOTHING.to_owned()),
            one.cost_nano_usd.map_or_else(|| NOTHING.to_owned(), |cost| dollars(cost as f64)),
            format!("{outcome}{status}"),
        ]
    };
    render(columns, &attempts.iter().map(row).collect::<Vec<_>>())
}

fn seconds(seconds: f64) -> String {
    format!("{seconds:.3}")
}

fn dollars(nano_usd: f64) -> String {
    format!("{:.6}", nano_usd / 1e9)
}

#[cfg(test)]
mod tests {
    use trunkline_proto::types::v1::{AttemptStart, ExclusionReason, OutcomeClass, Usage};

    use super::*;

    #[test]
    fn a_decision_is_told_with_its_terms_exclusions_and_attempts() {
        let score = Score {
            value: 1.75,
            ttft_seconds: 0.5,
            output_seconds: 1.0,
            error_seconds: 0.25,
            in_flight: 3.0,
            basis: ScoreBasis::Fleet.into(),
            ..Score::default()
        };
        let decision = Decision {
            decision_id: "d1".to_owned(),
            model: "chat".to_owned(),
            strategy: Strategy::RoundRobin.into(),
            chosen: "a/m".to_owned(),
            candidates: vec![
                Candidate {
                    deployment: "a/m".to_owned(),
                    probability: 0.875,
                    expected_cost_nano_usd: Some(1_500_000),
                    score: Some(score),
                    ..Candidate::default()
                },
                Candidate { deployment: "b/m".to_owned(), probability: 0.125, ..Candidate::default() },
            ],
            excluded: vec![Exclusion {
                deployment: "c/m".to_owned(),
                reason: ExclusionReason::LearnedCap.into(),
                detail: "it takes no more now".to_owned(),
                tier: 1,
            }],
            attempts: vec![Attempt {
                deployment: "a/m".to_owned(),
                outcome: OutcomeClass::Ok.into(),
                status: 200,
                start: AttemptStart::Hedge.into(),
                usage: Some(Usage { input_tokens: 10, output_tokens: 20, ..Usage::default() }),
                ..Attempt::default()
            }],
            ..Decision::default()
        };
        assert_eq!(
            told(&decision),
            "decision d1 at -\n\
             model chat, strategy round robin, revision 0\n\
             answered by a/m\n\
             \n\
             CANDIDATE  TIER  CHANCE  COST USD  TTFT S  OUTPUT S  ERRORS S  BREAKS S  SCORE  RUNNING  BASIS\n\
             a/m           0  87.5 %  0.001500   0.500     1.000     0.250     0.000  1.750      3.0  fleet\n\
             b/m           0  12.5 %         -       -         -         -         -      -        -  -\n\
             \n\
             LEFT OUT  TIER  REASON       WHY\n\
             c/m          1  learned cap  it takes no more now\n\
             \n\
             ATTEMPT  START  AFTER S  TTFT S  TOOK S  TOKENS IN/OUT  COST USD  OUTCOME\n\
             a/m      hedge        -       -       -          10/20         -  ok (200)\n"
        );
    }

    #[test]
    fn a_decision_that_is_not_there_says_whom_to_ask() {
        let failure = refused(&Status::not_found("no decision d1"), "http://a:1");
        assert!(failure.to_string().contains("--agent URL"), "{failure}");
    }
}
