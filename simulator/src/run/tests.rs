//! Runs: the same inputs give the same report, queues behave as theory says, and every
//! behaviour of a provider shows.

use super::*;

fn scenario(more: &str) -> Scenario {
    Scenario::from_yaml(&format!("id: x\nname: x\nduration_s: 200\nwarmup_s: 20\n{more}")).unwrap()
}

fn figures(more: &str, policy: &str) -> RunReport {
    run(&scenario(more), &Traffic::named("azure-conv").unwrap().unwrap(), policy.parse().unwrap(), 1)
}

#[test]
fn the_same_seed_gives_the_same_report_for_every_policy() {
    let scenario = scenario(
        "fleet: five\ntraffic: {rate_per_s: 3}\nincidents:
  - {provider: 1, start_s: 60, duration_s: 40, effect: {outage: errors_503}}
  - {provider: 2, effect: {errors: {silent: 0.02, http_500: 0.05, mid_stream_break: 0.02}}}
  - {provider: 3, effect: {limits: {requests_per_minute: 20}}}",
    );
    let traffic = Traffic::named("mixed-a").unwrap().unwrap();
    for policy in Policy::all() {
        let once = run(&scenario, &traffic, policy, 7);
        assert_eq!(once, run(&scenario, &traffic, policy, 7), "{policy}");
        assert!(once.whole.success > 0.5, "{policy}: {}", once.whole.success);
        assert_ne!(once, run(&scenario, &traffic, policy, 8), "{policy}");
    }
}

#[test]
fn every_request_ends_and_every_second_is_counted() {
    let report = figures("fleet: five", "round_robin");
    let arrived: u32 = report.seconds.iter().map(|second| second.arrived).sum();
    let first: u32 = report.deployments.iter().flat_map(|series| &series.first_picks).sum();
    assert_eq!(arrived, first);
    assert!((report.whole.success - 1.0).abs() < 1e-9, "{}", report.whole.success);
}

/// Without noise and load an answer takes exactly what its model says: Little's law
/// then gives the requests in flight, and the mean here is the model's own.
#[test]
fn an_idle_provider_takes_the_time_of_its_model() {
    let report = figures(
        "traffic: {rate_per_s: 0.2}
fleet: [{answer_sigma: 0, model: {name: a, ttft: {base_s: 1, per_1k_input_s: 0, sigma: 0},
  tpot: {median_s: 0.01, sigma: 0}, congestion: {strength: 0}}}]",
        "round_robin",
    );
    assert!((report.whole.ttft_s.p99 - 1.0).abs() < 1e-6, "{:?}", report.whole.ttft_s);
    let expected = 1.0 + 0.01 * (report.whole.output_tokens - 1.0);
    assert!((report.whole.e2e_s.mean - expected).abs() < 1e-6);
}

/// Linear congestion of strength 1 and capacity 1 makes an answer that meets n others
/// take 1 + (n + 1) times as long. With Poisson arrivals of rate r and idle time s the
/// mean number in flight n solves n = r s (2 + n) (arrivals see time averages), so that
/// the mean time is s (2 + n) = 2 s / (1 - r s).
#[test]
fn load_follows_its_closed_form() {
    let scenario = Scenario::from_yaml(
        "{id: x, name: x, duration_s: 40000, warmup_s: 100, traffic: {rate_per_s: 0.25},
  fleet: [{answer_sigma: 0, verbosity: 0.01, max_output_tokens: 1, model: {name: a, ttft: {base_s: 1, per_1k_input_s: 0, sigma: 0},
  tpot: {median_s: 0, sigma: 0}, congestion: {law: linear, capacity: 1, strength: 1, max_multiplier: 1000}}}]}",
    )
    .unwrap();
    let traffic = Traffic::named("synthetic").unwrap().unwrap();
    let report = run(
        &scenario,
        &traffic,
        Policy::Core(trunkline_routing::table::Strategy::RoundRobin, Ablation::Whole),
        1,
    );
    let expected = 2.0 / (1.0 - 0.25);
    assert!((report.whole.e2e_s.mean / expected - 1.0).abs() < 0.05, "{}", report.whole.e2e_s.mean);
}

const ONE_OF_TWO: &str = "traffic: {rate_per_s: 2}
fleet: [{model: {name: a}}, {model: {name: b}}]
window: {start_s: 60, end_s: 180}
incidents: [{provider: 1, start_s: 60, duration_s: 120, effect: ";

#[test]
fn every_behaviour_of_a_provider_shows() {
    let meet = |effect: &str| figures(&format!("{ONE_OF_TWO}{effect}}}]"), "naive-round-robin");
    let calm = figures(
        "traffic: {rate_per_s: 2}\nfleet: [{model: {name: a}}, {model: {name: b}}]",
        "naive-round-robin",
    );
    let window = |report: &RunReport| report.window.clone().unwrap();

    let slow = window(&meet("{outage: {slow: 6}}"));
    assert!(slow.ttft_s.p95 > 3.0 * calm.whole.ttft_s.p95 && slow.success > 0.99);
    let down = window(&meet("{outage: errors_503}"));
    assert!((0.4..1.0).contains(&down.wasted) && down.success > 0.99, "{}", down.wasted);
    let hole = window(&meet("{outage: black_hole}"));
    assert!(hole.ttft_s.p95 > 10.0 && hole.success > 0.99);
    let broken = window(&meet("{errors: {mid_stream_break: 0.2}}"));
    assert!((0.05..0.15).contains(&broken.broken) && broken.success < 0.95, "{}", broken.broken);
    let limited = window(&meet("{limits: {requests_per_minute: 6}}"));
    assert!(limited.refused > 0.3 && limited.wasted < 0.01, "{}", limited.refused);
    let stalled = window(&meet("{errors: {silent: 0.2}}"));
    assert!(stalled.ttft_s.p95 > 10.0);
    let dear = meet("{price: {input: 100, output: 100}}");
    assert!(dear.deployments[0].usd > 5.0 * dear.deployments[1].usd);
}

#[test]
fn a_provider_that_joins_late_gets_nothing_before() {
    for policy in ["round_robin", "naive-round-robin"] {
        let report = figures(
            "fleet: [{model: {name: a}}, {model: {name: b}}]\nincidents: [{provider: 2, duration_s: 100, effect: absent}]",
            policy,
        );
        assert_eq!(report.share(1, 0, 100), Some(0.0), "{policy}");
        assert!(report.share(1, 101, 200).unwrap() > 0.4, "{policy}");
    }
}

#[test]
fn a_price_is_in_force_with_the_next_publication_and_not_before() {
    let old_price_s = |more: &str, policy: &str| {
        let fleet = "fleet: [{price: {input: 1, output: 1}, model: {name: a}}, {price: {input: 2, output: 2}, model: {name: b}}]";
        let change = "{provider: 1, start_s: 100, effect: {price: {input: 9, output: 9}}}";
        let more = format!("{fleet}\ntraffic: {{rate_per_s: 4}}\nincidents: [{change}]\n{more}");
        let report = figures(&more, policy);
        (report.old_price_s.unwrap(), report.share(0, 120, 200).unwrap())
    };
    let (usual, share) = old_price_s("", "cost");
    assert!((1.2..=2.2).contains(&usual), "{usual}");
    assert!(share < 0.5, "{share}");
    let (late, _) = old_price_s("publish_delay_s: 30", "cost");
    assert!((31.0..=32.2).contains(&late), "{late}");
    // Baselines are given the price list of the moment.
    assert!(old_price_s("", "cheapest-expected").0.abs() < f64::EPSILON);
    assert_eq!(figures("fleet: five", "cost").old_price_s, None);
}

/// Sends everything to the first provider, so many seconds late; or never.
struct Late(Option<f64>);

impl Client for Late {
    fn begin(&mut self, _world: &mut World<'_>) {}

    fn arrived(&mut self, world: &mut World<'_>, request: usize) {
        match self.0 {
            Some(seconds) => world.wake_at(request, world.now + crate::math::seconds(seconds)),
            None => world.failed(request, false),
        }
    }

    fn woken(&mut self, world: &mut World<'_>, request: usize) {
        world.start(request, 0, Why::Usual);
    }

    fn heard(&mut self, world: &mut World<'_>, attempt: Attempt, heard: Heard) {
        if let Heard::Done { output_tokens } = heard {
            world.answered(attempt, world.now, output_tokens);
        }
    }

    fn timer(&mut self, _world: &mut World<'_>, _number: usize) {}

    fn fleet_changed(&mut self, _world: &mut World<'_>) {}
}

#[test]
fn waiting_for_a_first_attempt_is_regretted_and_so_is_never_starting() {
    // Every answer takes one second.
    let scenario = scenario(
        "traffic: {rate_per_s: 0.2}
fleet: [{answer_sigma: 0, max_output_tokens: 1, model: {name: a, ttft: {base_s: 1, per_1k_input_s: 0, sigma: 0}, congestion: {strength: 0}}}]",
    );
    let traffic = Traffic::named("azure-conv").unwrap().unwrap();
    let policy = Policy::Baseline(Baseline::RoundRobin);
    let regret = |late: Option<f64>| {
        execute(&scenario, &traffic, policy, 1, |world, _| world.run(&mut Late(late))).whole.regret
    };
    assert!(regret(Some(0.0)).abs() < 1e-6);
    assert!((regret(Some(4.0)) - 4.0).abs() < 1e-6, "{}", regret(Some(4.0)));
    assert!((regret(None) - 59.0).abs() < 1e-6, "{}", regret(None));
}

#[test]
fn policies_meet_the_same_luck() {
    // What one agent sends in turns another sends in the same turns: equal reports but
    // for the names, though one runs the core and one a baseline.
    let one = "agents: 1\nfleet: [{model: {name: a}}, {model: {name: b}}]\ntraffic: {rate_per_s: 1}";
    let (core, naive) = (figures(one, "round_robin"), figures(one, "naive-round-robin"));
    assert_eq!(core.whole.e2e_s, naive.whole.e2e_s);
    assert_eq!(core.deployments, naive.deployments);
}
