//! What agents report becomes models that agents are told, and outlives a restart.

use std::collections::HashMap;

use trunkline_proto::{
    admin::v1::Config,
    convert::fleet_models,
    telemetry::v1::AttemptSample,
    types::v1::{self as types, OutcomeClass},
};
use trunkline_routing::train::FleetModels;

use super::*;
use crate::repository::{ConfigWrite, RepositoryOptions};

async fn repository(deployments: &[&str]) -> Arc<Repository> {
    let repository = Repository::open(RepositoryOptions::default()).unwrap();
    let deployment = |name: &&str| types::Deployment { name: (*name).to_owned(), ..Default::default() };
    let provider = types::Provider {
        name: "p".to_owned(),
        dialect: types::Dialect::Openai.into(),
        base_url: "https://api.example.com/v1".to_owned(),
        deployments: deployments.iter().map(deployment).collect(),
        ..Default::default()
    };
    let write = ConfigWrite {
        config: Config { providers: vec![provider], ..Config::default() },
        expected_revision: repository.state().version.revision,
        principal: "tester".to_owned(),
        method: "ApplyConfig",
        request_id: None,
        request_sha256: [0; 32],
        force: false,
    };
    repository.commit(write).await.unwrap();
    repository
}

const fn millis(millis: i64) -> prost_types::Duration {
    prost_types::Duration { seconds: millis / 1_000, nanos: (millis % 1_000 * 1_000_000) as i32 }
}

/// A stream with its first content after so long, and 20 ms for each of 50 tokens.
fn answer(deployment: &str, ttft: i64) -> AttemptSample {
    AttemptSample {
        deployment: deployment.to_owned(),
        model: "chat".to_owned(),
        outcome: OutcomeClass::Ok.into(),
        started_before_end: Some(millis(ttft + 1_000)),
        duration: Some(millis(ttft + 980)),
        ttft: Some(millis(ttft)),
        input_tokens: 100,
        output_tokens: 50,
        in_flight: 1,
        ..AttemptSample::default()
    }
}

fn lesson(agent_id: &str, samples: Vec<AttemptSample>) -> Lesson {
    Lesson { agent_id: agent_id.to_owned(), received: Instant::now(), samples, running: HashMap::new() }
}

/// Runs the task until it published something for which `enough` holds.
async fn until(
    learning: &Learning,
    learner: Learner,
    enough: impl Fn(&Published) -> bool,
) -> (Arc<Published>, Arc<Repository>) {
    let repository = Arc::clone(&learner.repository);
    let shutdown = CancellationToken::new();
    let mut published = learning.subscribe();
    let follow = async {
        let found = published.wait_for(|published| enough(published)).await.unwrap().clone();
        shutdown.cancel();
        found
    };
    let ((), found) = tokio::join!(learner.run(shutdown.clone()), follow);
    (found, repository)
}

fn ttft_s(models: &FleetModels, deployment: &str) -> f64 {
    let (_, model) = models.models.iter().find(|(name, _)| **name == *deployment).unwrap();
    model.slow.ln_ttft[0].exp()
}

#[tokio::test(start_paused = true)]
async fn samples_of_agents_become_models_that_differ_as_the_deployments_do() {
    let repository = repository(&["fast", "slow"]).await;
    let (learning, learner) = Learning::new(repository, Counter::default());
    for agent in ["a", "b"] {
        let samples = (0..20).flat_map(|_| [answer("p/fast", 200), answer("p/slow", 2_000)]);
        learning.teach(lesson(agent, samples.collect()));
    }
    let (published, _) = until(&learning, learner, |published| !published.is_empty()).await;
    let told = fleet_models(published.message_after(0).unwrap());
    assert_eq!((told.agents, told.models.len()), (2, 2));
    let (fast, slow) = (ttft_s(&told, "p/fast"), ttft_s(&told, "p/slow"));
    assert!((0.1..0.4).contains(&fast) && (1.0..4.0).contains(&slow), "{fast} {slow}");
    assert_eq!(published.message_after(published.seq()), None, "nothing new");
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_follows_is_told_what_changed_and_one_that_lagged_is_told_all() {
    let repository = repository(&["one", "two"]).await;
    let (learning, learner) = Learning::new(repository, Counter::default());
    learning.teach(lesson("a", vec![answer("p/one", 100), answer("p/two", 100)]));
    let later = learning.clone();
    let teach = async {
        let mut published = later.subscribe();
        published.wait_for(|published| published.seq() == 1).await.unwrap();
        later.teach(lesson("a", vec![answer("p/two", 300)]));
    };
    let ((), (published, _)) =
        tokio::join!(teach, until(&learning, learner, |published| published.seq() == 2));
    let named = |told: u64| {
        let message = published.message_after(told).unwrap();
        let outputs = !message.outputs.is_empty();
        (message.deployments.into_iter().map(|one| one.deployment).collect::<Vec<_>>(), outputs)
    };
    assert_eq!(named(1), (vec!["p/two".to_owned()], false));
    assert_eq!(named(0), (vec!["p/one".to_owned(), "p/two".to_owned()], true));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_learned_of_deployments_that_are_not_configured_nor_of_refusals() {
    let repository = repository(&["known"]).await;
    let (learning, learner) = Learning::new(repository, Counter::default());
    let refused = AttemptSample { outcome: OutcomeClass::RateLimited.into(), ..answer("p/known", 5) };
    let undated = AttemptSample { duration: None, ..answer("p/known", 5) };
    let ancient = AttemptSample { started_before_end: Some(millis(90_000_000)), ..answer("p/known", 5) };
    learning.teach(lesson("a", vec![answer("q/made-up", 1), refused, undated, ancient]));
    learning.teach(lesson("a", vec![answer("p/known", 100)]));
    let (published, _) = until(&learning, learner, |published| !published.is_empty()).await;
    let known: Vec<_> =
        published.models().models.iter().map(|(name, model)| (&**name, model.slow.samples)).collect();
    assert_eq!(known, [("p/known", 1)]);
}

#[tokio::test(start_paused = true)]
async fn what_was_learned_goes_on_after_a_restart() {
    let repository = repository(&["fast", "slow"]).await;
    let (learning, learner) = Learning::new(repository, Counter::default());
    let samples = (0..30).flat_map(|_| [answer("p/fast", 200), answer("p/slow", 2_000)]);
    learning.teach(lesson("a", samples.collect()));
    let (_, repository) = until(&learning, learner, |published| !published.is_empty()).await;

    let (learning, learner) = Learning::new(repository, Counter::default());
    let (published, _) = until(&learning, learner, |published| !published.is_empty()).await;
    let models = published.models();
    let (fast, slow) = (ttft_s(models, "p/fast"), ttft_s(models, "p/slow"));
    assert!((0.1..0.4).contains(&fast) && (1.0..4.0).contains(&slow), "{fast} {slow}");
    assert!(!models.outputs.is_empty());
}

#[test]
fn a_report_that_came_late_is_no_lesson() {
    let of = |end, now| Lesson::of_report("a".into(), end, now, vec![answer("p/d", 1)], HashMap::new());
    assert!(of(Some(1_000), 1_060).is_some() && of(Some(2_000), 1_000).is_some() && of(None, 5).is_some());
    assert!(of(Some(1_000), 1_061).is_none());
}
