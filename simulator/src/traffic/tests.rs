//! Requests of a run: the right number at the right time, and the same for one seed.

use super::*;
use crate::scenario::{Bursts, Day, Scenario, Surge, TrafficSpec};

fn scenario(traffic: TrafficSpec) -> Scenario {
    let steady = Scenario::from_yaml("{id: x, name: x, fleet: five, duration_s: 2000}").unwrap();
    Scenario { traffic, ..steady }
}

fn per_second(arrivals: &[Arrival], from_s: u64, to_s: u64) -> f64 {
    let within = arrivals.iter().filter(|arrival| {
        let second = arrival.at.as_nanos() / 1_000_000_000;
        (from_s..to_s).contains(&second)
    });
    within.count() as f64 / (to_s - from_s) as f64
}

#[test]
fn every_source_comes_at_the_rate_that_was_asked_for() {
    let scenario = scenario(TrafficSpec { rate_per_s: 5.0, ..TrafficSpec::default() });
    for (name, _) in NAMES {
        let arrivals = arrivals(&scenario, &Traffic::named(name).unwrap().unwrap(), 1);
        let rate = per_second(&arrivals, 0, 2000);
        assert!((4.0..6.0).contains(&rate), "{name}: {rate}");
        assert!(arrivals.windows(2).all(|pair| pair[0].at <= pair[1].at));
    }
}

#[test]
fn the_same_seed_gives_the_same_requests_and_another_gives_others() {
    let scenario = scenario(TrafficSpec::default());
    let traffic = Traffic::named("mixed-a").unwrap().unwrap();
    let first = arrivals(&scenario, &traffic, 1);
    assert_eq!(first, arrivals(&scenario, &traffic, 1));
    assert_ne!(first, arrivals(&scenario, &traffic, 2));
}

#[test]
fn a_surge_multiplies_the_rate_while_it_lasts() {
    let surge = Surge { start_s: 500.0, duration_s: 100.0, factor: 6.0 };
    let spec = TrafficSpec { rate_per_s: 20.0, surges: vec![surge], ..TrafficSpec::default() };
    let arrivals = arrivals(&scenario(spec), &Traffic::named("synthetic").unwrap().unwrap(), 3);
    assert!((18.0..22.0).contains(&per_second(&arrivals, 0, 500)));
    assert!((114.0..126.0).contains(&per_second(&arrivals, 500, 600)));
}

#[test]
fn a_day_rises_in_its_first_half_and_bursts_keep_the_mean() {
    let day = Some(Day { length_s: 2000.0, amplitude: 0.8 });
    let spec = TrafficSpec { rate_per_s: 10.0, day, ..TrafficSpec::default() };
    let traffic = Traffic::named("synthetic").unwrap().unwrap();
    let made = arrivals(&scenario(spec), &traffic, 4);
    assert!(per_second(&made, 0, 1000) > 2.5 * per_second(&made, 1000, 2000));
    let bursts = Some(Bursts { quiet_s: 4.0, busy_s: 2.0, factor: 5.0 });
    let spec = TrafficSpec { rate_per_s: 10.0, bursts, ..TrafficSpec::default() };
    let made = arrivals(&scenario(spec), &traffic, 4);
    assert!((8.0..12.0).contains(&per_second(&made, 0, 2000)));
    let busiest = (0..2000).map(|second| per_second(&made, second, second + 1)).fold(0.0, f64::max);
    assert!(busiest > 25.0, "{busiest}");
}

#[test]
fn declared_limits_hold_the_answer_and_floors_have_their_shares() {
    let text = "{id: x, name: x, fleet: five, traffic: {declare_output_from: 512},
        floors: [{share: 0.25, min_quality: 0.9}]}";
    let scenario = Scenario::from_yaml(text).unwrap();
    let made = arrivals(&scenario, &Traffic::named("mixed-a").unwrap().unwrap(), 5);
    assert!(made.iter().all(|arrival| arrival.max_output_tokens >= Some(arrival.output_tokens.max(512))));
    let floored = made.iter().filter(|arrival| arrival.min_quality == Some(0.9)).count() as f64;
    assert!((0.22..0.28).contains(&(floored / made.len() as f64)));
}
