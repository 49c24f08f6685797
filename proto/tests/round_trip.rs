//! Properties of configurations: what is sent, written and compared leads back.

use proptest::{collection::vec, option, prelude::*};
use trunkline_proto::{
    admin::v1::Config,
    agent::v1::Resource,
    convert::{
        canonical,
        sync::{apply, chunk, delta, snapshot, state_sha256},
    },
    document::{diff, load, to_json, to_yaml},
    types::v1::{
        Affinity, ApiKey, Balance, BreakerPolicy, Budget, BudgetScope, Constraints, Credential, Deployment,
        HealthCheck, Hedge, Limits, Price, PriceEntry, PriceTier, Provider, Retry, Slo, Target, Tier,
        Timeouts, VirtualModel, credential::Source,
    },
};

/// Few names, so that configurations share some.
fn name() -> impl Strategy<Value = String> {
    "[a-f]"
}

/// Text that YAML readers could take for something else.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        Just("true".to_owned()),
        Just("1e3".to_owned()),
        Just("null".to_owned()),
        Just("~".to_owned()),
        Just("- a: b # c".to_owned()),
        Just("a:".to_owned()),
        Just("5s".to_owned()),
        Just("\u{85}\u{2028}\u{feff}\u{7f}\u{0}\r\n\t".to_owned()),
        any::<String>(),
        "[ -~]{0,12}",
    ]
}

fn duration() -> impl Strategy<Value = Option<prost_types::Duration>> {
    let nanos = prop_oneof![Just(0), Just(500_000_000), Just(1_000), Just(1), 0..1_000_000_000_i32];
    let one = (0..100_000_i64, nanos).prop_map(|(seconds, nanos)| prost_types::Duration { seconds, nanos });
    option::of(one)
}

fn finite() -> impl Strategy<Value = Option<f64>> {
    option::of(prop_oneof![0.0..1.0_f64, any::<f64>().prop_filter("finite", |one| one.is_finite())])
}

prop_compose! {
    fn breaker()(
        consecutive_failures in option::of(any::<u32>()),
        failure_ratio in finite(),
        min_requests in option::of(any::<u32>()),
        window in duration(),
        open_base in duration(),
        open_max in duration(),
    ) -> BreakerPolicy {
        BreakerPolicy { consecutive_failures, failure_ratio, min_requests, window, open_base, open_max }
    }
}

prop_compose! {
    fn deployment()(
        name in name(),
        upstream_model in text(),
        capabilities in vec(text(), 0..3),
        context_window in any::<u32>(),
        quality in finite(),
        price in option::of((text(), "[0-9]{1,3}[.][0-9]{1,3}", text())),
        breaker in option::of(breaker()),
        limits in option::of(any::<u32>()),
    ) -> Deployment {
        let price = price.map(|(input, cached, output)| Price {
            input_usd_per_mtok: input,
            cached_input_usd_per_mtok: cached,
            output_usd_per_mtok: output,
            tiers: Vec::new(),
        });
        let limits = limits.map(|max_in_flight| Limits { max_in_flight, ..Limits::default() });
        Deployment {
            name, upstream_model, capabilities, context_window, quality, price, breaker, limits,
            ..Deployment::default()
        }
    }
}

fn source() -> impl Strategy<Value = Option<Source>> {
    prop_oneof![
        Just(None),
        text().prop_map(|name| Some(Source::Env(name))),
        text().prop_map(|path| Some(Source::File(path))),
    ]
}

prop_compose! {
    fn provider()(
        name in name(),
        dialect in 0..6_i32,
        base_url in text(),
        credential in option::of(source()),
        region in text(),
        allow_private_network in any::<bool>(),
        on_cancel in 0..3_i32,
        breaker in option::of(breaker()),
        health in option::of((0..3_i32, duration(), any::<u32>(), "[0-9]{1,3}[.][0-9]{1,3}")),
        deployments in unique(vec(deployment(), 0..4), |one| one.name.clone()),
    ) -> Provider {
        let health_check = health.map(|(mode, interval, threshold, cost)| HealthCheck {
            mode, interval,
            unhealthy_threshold: threshold,
            healthy_threshold: threshold / 2,
            max_daily_cost_usd: cost,
        });
        Provider {
            name, dialect, base_url, credential: credential.map(|source| Credential { source }),
            region, allow_private_network, on_cancel, breaker, health_check, deployments,
            etag: String::new(),
        }
    }
}

prop_compose! {
    fn tier()(
        targets in unique(
            vec((name(), option::of(any::<u32>())), 0..4), |(name, _)| name.clone(),
        ),
        idle in option::of(duration()),
        max_attempts in option::of(any::<u32>()),
    ) -> Tier {
        let targets = targets.into_iter();
        let targets = targets.map(|(deployment, weight)| Target { deployment, weight }).collect();
        let timeouts = idle.map(|idle| Timeouts { idle, ..Timeouts::default() });
        Tier { targets, timeouts, max_attempts }
    }
}

prop_compose! {
    fn virtual_model()(
        name in name(),
        strategy in 0..7_i32,
        constraints in option::of((vec(text(), 0..3), finite(), text(), vec(text(), 0..3))),
        slo in option::of(duration()),
        hedge in option::of(option::of(any::<u32>())),
        affinity in option::of(0..2_i32),
        usd_per_second in option::of(text()),
        deadline in duration(),
        retry in option::of(option::of(any::<u32>())),
        tiers in vec(tier(), 0..3),
        on_context_length in 0..3_i32,
    ) -> VirtualModel {
        let constraints = constraints.map(|(require, min_quality, max_usd_per_request, regions)| {
            Constraints { require, min_quality, max_usd_per_request, regions }
        });
        let retry = retry.map(|max_attempts| Retry { max_attempts, retry_budget_percent: None });
        VirtualModel {
            name, strategy, constraints, deadline, retry, tiers, on_context_length,
            slo: slo.map(|ttft| Slo { ttft, total: None }),
            hedge: hedge.map(|budget_percent| Hedge { budget_percent }),
            affinity: affinity.map(|key| Affinity { key }),
            balance: usd_per_second
                .map(|usd_per_second| Balance { usd_per_second, ..Balance::default() }),
            ..VirtualModel::default()
        }
    }
}

prop_compose! {
    fn price_entry()(
        name in name(),
        deployment in text(),
        price in option::of((text(), text(), option::of(any::<u32>()))),
        valid_from in option::of((0..253_402_300_800_i64, 0..1_000_000_000_i32)),
        source in 0..3_i32,
    ) -> PriceEntry {
        let price = price.map(|(input, output, above)| Price {
            input_usd_per_mtok: input.clone(),
            output_usd_per_mtok: output.clone(),
            tiers: above.into_iter().map(|above_input_tokens| PriceTier {
                above_input_tokens,
                input_usd_per_mtok: output.clone(),
                output_usd_per_mtok: input.clone(),
                ..PriceTier::default()
            }).collect(),
            ..Price::default()
        });
        let valid_from = valid_from.map(|(seconds, nanos)| prost_types::Timestamp { seconds, nanos });
        PriceEntry { name, deployment, price, valid_from, source, ..PriceEntry::default() }
    }
}

prop_compose! {
    fn config()(
        providers in unique(vec(provider(), 0..4), |one| one.name.clone()),
        virtual_models in unique(vec(virtual_model(), 0..4), |one| one.name.clone()),
        api_keys in unique(vec((name(), text(), vec(text(), 0..3)), 0..3), |one| one.0.clone()),
        price_entries in unique(vec(price_entry(), 0..4), |one| one.name.clone()),
        budgets in unique(
            vec((name(), option::of((text(), text())), text(), 0..4_i32, 0..4_i32), 0..3), |one| one.0.clone(),
        ),
    ) -> Config {
        let api_keys = api_keys.into_iter().map(|(name, secret_sha256, allowed_models)| {
            ApiKey { name, secret_sha256, allowed_models, etag: String::new() }
        });
        let budgets = budgets.into_iter().map(|(name, scope, limit_usd, period, action)| {
            let scope = scope.map(|(api_key, virtual_model)| BudgetScope { api_key, virtual_model });
            Budget { name, scope, limit_usd, period, action, etag: String::new() }
        });
        let (api_keys, budgets) = (api_keys.collect(), budgets.collect());
        Config { providers, virtual_models, api_keys, price_entries, budgets }
    }
}

/// The first of each name.
fn unique<T: std::fmt::Debug>(
    all: impl Strategy<Value = Vec<T>>,
    name: impl Fn(&T) -> String,
) -> impl Strategy<Value = Vec<T>> {
    all.prop_map(move |mut all| {
        let mut seen = std::collections::BTreeSet::new();
        all.retain(|one| seen.insert(name(one)));
        all
    })
}

proptest! {
    #[test]
    fn a_delta_leads_to_the_new_configuration(old in config(), new in config()) {
        let (upserts, removals) = delta(&old, &new);
        let result = apply(&old, upserts, &removals);
        prop_assert_eq!(&result, &canonical(new.clone()));
        prop_assert_eq!(state_sha256(&result), state_sha256(&new));
    }

    #[test]
    fn a_snapshot_in_parts_is_the_configuration(new in config()) {
        let all: Vec<Resource> = chunk(snapshot(&new)).concat();
        prop_assert_eq!(apply(&Config::default(), all, &[]), canonical(new));
    }

    #[test]
    fn what_is_written_is_read_back(config in config()) {
        let yaml = to_yaml(&config);
        prop_assert_eq!(load(&yaml), Ok(config.clone()), "{}", yaml);
        let json = to_json(&config);
        prop_assert_eq!(load(&json), Ok(config.clone()), "{}", json);
        prop_assert!(serde_json::from_str::<serde_json::Value>(&json).is_ok(), "{}", json);
    }

    #[test]
    fn there_are_changes_if_and_only_if_something_changed(old in config(), new in config()) {
        let changes = diff(&canonical(old.clone()), &canonical(new.clone()));
        prop_assert_eq!(changes.is_empty(), canonical(old.clone()) == canonical(new.clone()));
        prop_assert_eq!(diff(&old, &canonical(old.clone())), vec![]);
    }

    #[test]
    fn no_text_makes_the_loader_panic(text in any::<String>(), yaml in "[-a-z0-9:{}\\[\\]&*!|> \n\"'#,?%@`~]{0,80}") {
        drop((load(&text), load(&yaml)));
    }
}
