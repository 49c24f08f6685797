//! Properties of the behaviour models, over any valid parameters.

use std::time::Duration;

use proptest::prelude::*;
use rand::{SeedableRng, rngs::StdRng};
use trunkline_routing::time::Timestamp;
use trunkline_simulator::{
    Call, Congestion, End, ErrorRates, Outage, OutageKind, OutputLength, ProviderModel, RateGate, RateLimits,
    Tpot, Ttft,
};

fn models() -> impl Strategy<Value = ProviderModel> {
    let speed = (0.0..10.0, 0.0..5.0, 0.0..3.0, 0.0..=1.0, 0.0..1.0, 0.0..3.0);
    let size = (1.0..2000.0, 0.0..3.0, 1..4096_u32);
    let load = (1..500_u32, 0.0..10.0, 0.1..8.0, 1.0..100.0);
    let rates = (0.0..0.15, 0.0..0.15, 0.0..0.15, 0.0..0.15, 0.0..0.15, 0.0..0.15);
    (speed, size, load, rates, outages()).prop_map(|(speed, size, load, rates, outages)| ProviderModel {
        name: "any".to_owned(),
        ttft: Ttft { base_s: speed.0, per_1k_input_s: speed.1, sigma: speed.2, head_share: speed.3 },
        tpot: Tpot { median_s: speed.4, sigma: speed.5 },
        output: OutputLength { median_tokens: size.0, sigma: size.1, max_tokens: size.2 },
        congestion: Congestion {
            capacity: load.0,
            strength: load.1,
            steepness: load.2,
            max_multiplier: load.3,
            ..Congestion::default()
        },
        limits: RateLimits {
            requests_per_minute: Some(600),
            tokens_per_minute: Some(1_000_000),
            ..RateLimits::default()
        },
        errors: ErrorRates {
            http_500: rates.0,
            http_503: rates.1,
            http_429: rates.2,
            mid_stream_break: rates.3,
            empty: rates.4,
            silent: rates.5,
        },
        outages,
    })
}

fn outages() -> impl Strategy<Value = Vec<Outage>> {
    let kind = prop_oneof![
        Just(OutageKind::Errors503),
        Just(OutageKind::BlackHole),
        Just(OutageKind::Reset),
        (1.0..50.0).prop_map(OutageKind::Slow),
    ];
    let outage = (0.0..100.0, 0.0..50.0, proptest::option::of(1.0..100.0), kind)
        .prop_map(|(start_s, duration_s, every_s, kind)| Outage { start_s, duration_s, every_s, kind });
    proptest::collection::vec(outage, 0..3)
}

fn calls() -> impl Strategy<Value = Call> {
    (0..200_000_u64, proptest::option::of(1..2000_u32), 0..2000_u32).prop_map(
        |(input_tokens, max_output_tokens, in_flight)| Call { input_tokens, max_output_tokens, in_flight },
    )
}

fn at(seconds: u64) -> Timestamp {
    Timestamp::ZERO + Duration::from_secs(seconds)
}

proptest! {
    #[test]
    fn any_script_is_in_range_and_the_same_for_the_same_seed(
        model in models(), call in calls(), seed: u64, now in 0..200_u64,
    ) {
        prop_assert_eq!(model.validate(), Ok(()));
        let draw = || model.script(&mut RateGate::default(), at(now), call, &mut StdRng::seed_from_u64(seed));
        let script = draw();
        prop_assert_eq!(&script, &draw());
        prop_assert!(script.tokens <= model.output.max_tokens);
        prop_assert!(script.tokens <= call.max_output_tokens.unwrap_or(u32::MAX));
        prop_assert_eq!(script.gaps.len(), script.tokens.saturating_sub(1) as usize);
        match script.end {
            End::Complete | End::Empty => prop_assert_eq!(script.status, 200),
            End::Break { after_tokens } => prop_assert!(after_tokens < script.tokens),
            End::Refused => prop_assert!([429, 500, 503].contains(&script.status)),
            End::Silent | End::Reset => prop_assert_eq!(script.status, 0),
        }
        prop_assert_eq!(script.retry_after.is_some(), script.status == 429);
    }

    #[test]
    fn load_only_ever_raises_latency(model in models(), call in calls(), more in 1..2000_u32, seed: u64) {
        let draw = |call| model.answer(call, 1.0, &mut StdRng::seed_from_u64(seed));
        let (light, heavy) = (draw(call), draw(Call { in_flight: call.in_flight + more, ..call }));
        // One nanosecond of rounding for each of head, first token and gaps.
        prop_assert!(heavy.ttft() + Duration::from_nanos(2) >= light.ttft());
        prop_assert!(heavy.total() + Duration::from_nanos(1 + u64::from(light.tokens)) >= light.total());
    }

    #[test]
    fn a_request_past_the_limit_gets_429_and_passes_after_retry_after(limit in 1..50_u32, seed: u64) {
        let model = ProviderModel {
            limits: RateLimits { requests_per_minute: Some(limit), tokens_per_minute: None, ..RateLimits::default() },
            ..ProviderModel::default()
        };
        let call = Call { input_tokens: 10, max_output_tokens: None, in_flight: 1 };
        let (mut gate, mut rng) = (RateGate::default(), StdRng::seed_from_u64(seed));
        for _ in 0..limit {
            prop_assert_eq!(model.script(&mut gate, at(0), call, &mut rng).status, 200);
        }
        let refused = model.script(&mut gate, at(0), call, &mut rng);
        prop_assert_eq!(refused.status, 429);
        let later = at(0) + refused.retry_after.unwrap();
        prop_assert_eq!(model.script(&mut gate, later, call, &mut rng).status, 200);
    }
}

#[test]
fn twice_the_capacity_is_much_slower_than_idle() {
    let model = ProviderModel::default();
    let draw = |in_flight| {
        let call = Call { input_tokens: 100, max_output_tokens: None, in_flight };
        model.answer(call, 1.0, &mut StdRng::seed_from_u64(7)).total()
    };
    assert!(draw(2 * model.congestion.capacity) > 5 * draw(1));
}

#[test]
fn error_rates_hold_in_the_limit() {
    let errors = ErrorRates { http_500: 0.1, mid_stream_break: 0.05, ..ErrorRates::default() };
    let model = ProviderModel { errors, ..ProviderModel::default() };
    let call = Call { input_tokens: 10, max_output_tokens: Some(4), in_flight: 1 };
    let (mut gate, mut rng) = (RateGate::default(), StdRng::seed_from_u64(1));
    let scripts: Vec<_> = (0..10_000).map(|_| model.script(&mut gate, at(0), call, &mut rng)).collect();
    let share = |is: fn(&End) -> bool| scripts.iter().filter(|script| is(&script.end)).count();
    assert!((900..1100).contains(&share(|end| matches!(end, End::Refused))));
    assert!((420..580).contains(&share(|end| matches!(end, End::Break { .. }))));
}

#[test]
fn a_model_reads_from_json_with_defaults_and_refuses_unknown_fields() {
    let text = r#"{"name": "x", "tpot": {"median_s": 0.02},
        "outages": [{"start_s": 5, "duration_s": 10, "kind": "errors_503"}, {"start_s": 1, "duration_s": 2, "kind": {"slow": 4}}]}"#;
    let model: ProviderModel = serde_json::from_str(text).unwrap();
    assert_eq!(model.tpot, Tpot { median_s: 0.02, ..Tpot::default() });
    assert_eq!(model.outages[1].kind, OutageKind::Slow(4.0));
    assert_eq!(model.ttft, Ttft::default());
    assert!(serde_json::from_str::<ProviderModel>(r#"{"tpott": {}}"#).is_err());
}
