//! What the trainer makes of late, old and numerous reports.

use super::*;
use crate::score::SAMPLES_MIN;

const NAME: &str = "p/model";

fn at(seconds: f64) -> Timestamp {
    Timestamp::ZERO + Duration::from_secs_f64(seconds)
}

/// Started at that second, answered after `ttft_s`.
fn sample(started: f64, ttft_s: f64) -> Sample {
    let ttft = Duration::from_secs_f64(ttft_s);
    Sample {
        route: 1,
        started: at(started),
        input_tokens: 100,
        cached_input_tokens: 0,
        max_output_tokens: None,
        output_tokens: 20,
        ttft: Some(ttft),
        duration: ttft,
        kind: SampleKind::Ok,
        in_flight_own: 1,
        predicted_ttft_s: 0.0,
    }
}

fn published(trainer: &mut Trainer, seconds: f64) -> DeploymentModel {
    trainer.publish(at(seconds)).models[0].1
}

#[test]
fn a_late_report_says_little_of_the_moment() {
    let mut trainer = Trainer::new();
    for step in 0..100 {
        trainer.add(1, NAME, &sample(f64::from(step) * 0.2, 0.3));
    }
    // Another agent's report comes after it: ten seconds ago nothing worked.
    for step in 0..50 {
        let started = 8.0 + f64::from(step) * 0.04;
        let kind = SampleKind::Failed;
        trainer.add(2, NAME, &Sample { kind, ..sample(started, 0.3) });
        trainer.add(2, NAME, &sample(started, 6.0));
    }
    let model = published(&mut trainer, 20.0);
    let errors = model.errors.mean(0.0, 0.0);
    assert!((0.1..0.4).contains(&errors), "{errors} of the failures are recent");
    let slower = model.ttft_now.mean(0.0, 0.0);
    assert!(slower < 1.5, "e^{slower} times slower just now");
}

#[test]
fn the_moment_is_measured_against_the_load_at_the_start_of_an_attempt() {
    let slower = |busy_at_start: bool| {
        let mut trainer = Trainer::new();
        for second in 0..60_u32 {
            let (n, second) = (second % 20, f64::from(second));
            trainer.running(2, NAME, n, at(second));
            trainer.add(1, NAME, &sample(second, 0.5 / (1.0 - 0.02 * f64::from(n + 1))));
        }
        // Full as it started, empty when the report came; or the other way round.
        let (first, last) = if busy_at_start { (40, 0) } else { (0, 40) };
        trainer.running(2, NAME, first, at(100.0));
        trainer.running(2, NAME, first, at(101.0));
        trainer.running(2, NAME, last, at(110.0));
        let before = published(&mut trainer, 109.0).ttft_now.sum;
        trainer.add(1, NAME, &sample(100.5, 3.0));
        published(&mut trainer, 110.0).ttft_now.sum - before
    };
    assert!(slower(true) + 0.2 < slower(false), "{} and {}", slower(true), slower(false));
}

#[test]
fn samples_lose_their_weight_with_time_but_a_model_stays_one() {
    let mut trainer = Trainer::new();
    for step in 0..100 {
        trainer.add(1, NAME, &sample(f64::from(step), 0.3));
    }
    let samples = |trainer: &mut Trainer, seconds| published(trainer, seconds).slow.samples;
    assert!((90..=100).contains(&samples(&mut trainer, 100.0)));
    assert!((30..=40).contains(&samples(&mut trainer, 1_900.0)));
    assert_eq!(samples(&mut trainer, 86_400.0), SAMPLES_MIN);
}

#[test]
fn an_attempt_of_unknown_company_says_nothing_of_load() {
    let beta = |in_flight_own: u32| {
        let mut trainer = Trainer::new();
        for step in 0..200 {
            let n = f64::from(step % 30);
            let one = sample(f64::from(step), 0.5 / (1.0 - 0.03 * n));
            trainer.add(1, NAME, &Sample { in_flight_own: in_flight_own * (step % 30) as u32, ..one });
        }
        published(&mut trainer, 200.0).slow.beta
    };
    assert!(beta(1) > 0.02, "{}", beta(1));
    assert!((beta(0) - 0.01).abs() < 1e-9, "still what is assumed first: {}", beta(0));
}

#[test]
fn counts_of_agents_beyond_the_bound_are_left_out() {
    let mut trainer = Trainer::new();
    for agent in 0..=AGENTS_MAX as u64 {
        trainer.running(agent, NAME, 1, at(1.0));
    }
    assert_eq!(published(&mut trainer, 1.0).in_flight as usize, AGENTS_MAX);
    // Five each are as many as there is room for; the sixth of the last ones is not.
    for lane in 0..6 {
        for agent in 0..AGENTS_MAX as u64 {
            trainer.running(agent, &alloc::format!("p/{lane}"), 1, at(2.0));
        }
    }
    let pairs: usize = trainer.lanes.values().map(|lane| lane.running.len()).sum();
    assert_eq!(pairs, PAIRS_MAX);
}
