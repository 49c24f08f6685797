//! Each acceptance scenario is hard: what must fail in it fails, and for its reason. Run
//! without the decision core, so that no change of a policy changes this; but for row 06,
//! whose control is the core without hedges.

#![expect(clippy::unwrap_used, reason = "what is missing fails the test")]

use trunkline_simulator::{
    run::{RunReport, report::Span, run},
    scenario::acceptance,
    traffic::Traffic,
};

const SEEDS: [u64; 2] = [1, 2];

/// The mean of a figure over the seeds, each run on the scenario's own traffic.
fn mean(id: &str, policy: &str, figure: impl Fn(&RunReport) -> f64) -> f64 {
    let scenario = acceptance().unwrap().iter().find(|scenario| scenario.id == id).unwrap();
    let traffic = Traffic::named(&scenario.traffic.source).unwrap().unwrap();
    let sum: f64 =
        SEEDS.iter().map(|seed| figure(&run(scenario, &traffic, policy.parse().unwrap(), *seed))).sum();
    sum / SEEDS.len() as f64
}

fn window(report: &RunReport) -> &Span {
    report.window.as_ref().unwrap()
}

#[test]
fn incidents_hurt_those_who_do_not_see_them() {
    assert!(mean("01", "naive-round-robin", |report| report.whole.regret) > 0.8);
    assert!(mean("02", "naive-round-robin", |report| window(report).slo) < 0.75);
    assert!(mean("03", "naive-round-robin", |report| report.whole.wasted) > 0.07);
    assert!(mean("04", "litellm-latency", |report| window(report).ttft_s.p99) > 10.0);
    assert!(mean("14", "naive-round-robin", |report| report.whole.ttft_s.p99) > 9.0);
    assert!(mean("F", "naive-chain", |report| window(report).ttft_s.p95) > 10.0);
    assert!(mean("FO", "naive-chain", |report| window(report).wasted) > 0.9);
}

#[test]
fn load_hurts_those_who_follow_latency_alone() {
    assert!(mean("07", "peak-ewma-p2c", |report| report.whole.refused) > 0.05);
    assert!(mean("09", "litellm-latency", |report| report.whole.success) < 0.75);
    assert!(mean("10", "central-argmin", |report| report.whole.success) < 0.7);
    assert!(mean("13", "naive-round-robin", |report| report.whole.success) < 0.96);
    assert!(mean("15", "litellm-latency", |report| report.whole.success) < 0.95);
}

#[test]
fn simple_rules_miss_length_price_and_broken_answers() {
    assert!(mean("11", "naive-ewma", |report| report.whole.regret) > 0.4);
    assert!(mean("12", "litellm-lowest-cost", |report| report.whole.floor_violations) > 0.3);
    assert!(mean("17", "naive-round-robin", |report| report.whole.success) < 0.97);
    let success = |policy| mean("18", policy, |report| report.whole.success);
    assert!(success("litellm-latency") < success("naive-round-robin"));
}

#[test]
fn without_hedges_calls_that_are_never_answered_are_waited_for() {
    assert!(mean("06", "latency/no-hedge", |report| report.whole.ttft_s.p99) > 10.0);
}

#[test]
fn an_oracle_shows_that_each_scenario_can_be_mastered() {
    for id in ["01", "02", "03", "04", "05", "06", "10", "11", "14", "15", "18", "F", "FO"] {
        let mastered = |report: &RunReport| report.whole.success > 0.999 && report.whole.slo > 0.97;
        let share = mean(id, "oracle", |report| f64::from(u8::from(mastered(report))));
        assert!(share > 0.99, "{id}");
    }
}
