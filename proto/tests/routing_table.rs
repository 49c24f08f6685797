//! What a configuration becomes, and what is refused.

#![expect(clippy::unwrap_used, reason = "a test says what it expects")]

use std::time::Duration;

use trunkline_proto::{
    admin::v1::Config,
    convert::routing_table,
    types::v1::{
        Affinity, ApiKey, Balance, BreakerPolicy, Budget, BudgetAction, BudgetPeriod, BudgetScope,
        Constraints, Credential, Deployment, Dialect, HealthCheck, HealthCheckMode, Hedge, OnCancel, Price,
        Provider, Retry, Slo, Strategy, Target, Tier, Timeouts, VirtualModel, credential,
    },
};
use trunkline_routing::{
    budget::Action,
    money::NanoUsd,
    table::{self, Capabilities, RoutingTable, Version},
};

fn version() -> Version {
    Version { epoch: "e".to_owned(), revision: 7 }
}

fn seconds(seconds: i64) -> prost_types::Duration {
    prost_types::Duration { seconds, nanos: 0 }
}

fn deployment(name: &str) -> Deployment {
    Deployment { name: name.to_owned(), ..Deployment::default() }
}

fn provider(name: &str, deployments: &[&str]) -> Provider {
    Provider {
        name: name.to_owned(),
        dialect: Dialect::Openai.into(),
        base_url: format!("https://{name}.example.com/v1/"),
        deployments: deployments.iter().map(|name| deployment(name)).collect(),
        ..Provider::default()
    }
}

fn target(deployment: &str) -> Target {
    Target { deployment: deployment.to_owned(), weight: None }
}

fn model(name: &str, tiers: &[&[&str]]) -> VirtualModel {
    let tier = |targets: &&[&str]| Tier {
        targets: targets.iter().map(|name| target(name)).collect(),
        ..Tier::default()
    };
    VirtualModel { name: name.to_owned(), tiers: tiers.iter().map(tier).collect(), ..VirtualModel::default() }
}

/// Out of order on purpose: `a-b/x` is before `a/x` as text, but not in the table.
fn config() -> Config {
    Config {
        providers: vec![provider("b", &["z", "y"]), provider("a-b", &["x"]), provider("a", &["x"])],
        virtual_models: vec![model("mail", &[&["b/y"]]), model("chat", &[&["b/z", "a/x"], &["a-b/x"]])],
        api_keys: vec![
            ApiKey {
                name: "team-b".to_owned(),
                secret_sha256: "11".repeat(32),
                allowed_models: vec!["chat".to_owned(), "a/x".to_owned()],
                ..ApiKey::default()
            },
            ApiKey {
                name: "team-a".to_owned(),
                secret_sha256: "22".repeat(32),
                allowed_models: vec![],
                ..ApiKey::default()
            },
        ],
        ..Config::default()
    }
}

fn table(config: &Config) -> RoutingTable {
    routing_table(version(), config).unwrap()
}

fn refusal(config: &Config) -> String {
    routing_table(version(), config).unwrap_err().to_string()
}

#[test]
fn an_empty_configuration_is_a_table() {
    let table = table(&Config::default());
    assert_eq!(table.version, version());
    assert!(table.providers.is_empty() && table.virtual_models.is_empty());
}

#[test]
fn the_table_is_sorted_and_its_indices_fit() {
    let table = table(&config());
    let names: Vec<_> = table.providers.iter().map(|one| &*one.name).collect();
    assert_eq!(names, ["a", "a-b", "b"]);
    let names: Vec<_> = table.deployments.iter().map(|one| &*one.name).collect();
    assert_eq!(names, ["a/x", "a-b/x", "b/y", "b/z"]);
    for one in &table.deployments {
        let provider = &table.provider(one.provider).name;
        assert!(one.name.starts_with(&format!("{provider}/")), "{} at {provider}", one.name);
    }
    let chat = table.virtual_model("chat").unwrap();
    let targets: Vec<Vec<_>> = chat
        .tiers
        .iter()
        .map(|tier| tier.targets.iter().map(|one| &*table.deployment(one.deployment).name).collect())
        .collect();
    assert_eq!(targets, [vec!["b/z", "a/x"], vec!["a-b/x"]]);
    let keys: Vec<_> = table.api_keys.iter().map(|one| &*one.name).collect();
    assert_eq!(keys, ["team-a", "team-b"]);
    assert_eq!(table.api_keys[0].secret_sha256, [0x22; 32]);
    assert!(table.api_keys[1].allows("a/x") && !table.api_keys[1].allows("mail"));
}

#[test]
fn what_is_absent_has_the_documented_default() {
    let table = table(&config());
    assert_eq!(&*table.providers[0].base_url, "https://a.example.com/v1");
    let one = &table.deployments[0];
    assert_eq!(&*one.upstream_model, "x");
    assert_eq!(one.capabilities, Capabilities::ALL);
    assert_eq!((one.context_window, one.quality, one.prices.at(1)), (None, None, None));
    assert_eq!(one.breaker, trunkline_routing::table::BreakerPolicy::default());
    let chat = table.virtual_model("chat").unwrap();
    assert_eq!(chat.strategy, trunkline_routing::table::Strategy::Weighted);
    assert_eq!(chat.deadline, Duration::from_secs(60));
    assert_eq!((chat.max_attempts, chat.retry_budget_percent), (3, 20));
    assert!(chat.context_length_fallback && !chat.content_filter_fallback);
    assert_eq!(chat.tiers[0].max_attempts, 2);
    assert_eq!(chat.tiers[0].targets[0].weight, 1);
    assert_eq!(chat.tiers[0].timeouts, trunkline_routing::table::Timeouts::default());
}

#[test]
fn breaker_constants_come_from_deployment_then_provider_then_default() {
    let mut config = config();
    config.providers[2].breaker = Some(BreakerPolicy {
        consecutive_failures: Some(9),
        open_max: Some(seconds(120)),
        ..BreakerPolicy::default()
    });
    config.providers[2].deployments[0].breaker = Some(BreakerPolicy {
        consecutive_failures: Some(2),
        open_base: Some(seconds(90)),
        ..BreakerPolicy::default()
    });
    let policy = table(&config).deployments[0].breaker;
    assert_eq!(policy.consecutive_failures, 2);
    assert_eq!(policy.min_requests, 20);
    assert_eq!(policy.open_base, Duration::from_secs(90));
    assert_eq!(policy.open_max, Duration::from_secs(120));
}

#[test]
fn a_tier_never_tries_more_deployments_than_it_has() {
    let mut config = config();
    config.virtual_models[0].tiers[0].max_attempts = Some(50);
    assert_eq!(table(&config).virtual_model("mail").unwrap().tiers[0].max_attempts, 1);
}

#[test]
fn health_checks_are_passive_unless_they_are_asked_for() {
    let mut config = config();
    let passive = HealthCheckMode::Passive.into();
    // As it was taken before there were active ones.
    let ignored = HealthCheck { mode: passive, interval: Some(seconds(1)), ..HealthCheck::default() };
    config.providers[0].health_check = Some(ignored);
    let active = HealthCheckMode::Active.into();
    let bare = HealthCheck { mode: active, ..HealthCheck::default() };
    config.providers[1].health_check = Some(bare);
    config.providers[2].health_check = Some(HealthCheck {
        mode: active,
        interval: Some(seconds(60)),
        unhealthy_threshold: 5,
        healthy_threshold: 1,
        max_daily_cost_usd: "0.25".to_owned(),
    });
    let table = table(&config);
    let check =
        |name: &str| table.providers.iter().find(|provider| &*provider.name == name).unwrap().health_check;
    assert_eq!(check("b"), table::HealthCheck::default());
    let mode = table::HealthCheckMode::Active;
    assert_eq!(check("a-b"), table::HealthCheck { mode, ..table::HealthCheck::default() });
    let expected = table::HealthCheck {
        mode,
        interval: Duration::from_secs(60),
        unhealthy_threshold: 5,
        healthy_threshold: 1,
        max_daily_cost: Some(NanoUsd(250_000_000)),
    };
    assert_eq!(check("a"), expected);
    assert_eq!(check("a").probes_to_close(), 1);
    assert_eq!(check("b").probes_to_close(), 2, "passive: as breakers do");
}

#[test]
fn everything_wrong_with_providers_is_said_at_once() {
    let mut config = config();
    let bad = &mut config.providers[0];
    bad.name = "Bad Name".to_owned();
    bad.dialect = Dialect::Anthropic.into();
    bad.base_url = "https://me:pw@x".to_owned();
    bad.credential = Some(Credential { source: None });
    bad.on_cancel = OnCancel::Drain.into();
    bad.health_check = Some(HealthCheck {
        mode: HealthCheckMode::Active.into(),
        interval: Some(seconds(4)),
        unhealthy_threshold: 101,
        healthy_threshold: 21,
        max_daily_cost_usd: "a lot".to_owned(),
    });
    bad.breaker = Some(BreakerPolicy {
        failure_ratio: Some(f64::NAN),
        open_base: Some(seconds(-1)),
        open_max: Some(seconds(1)),
        ..BreakerPolicy::default()
    });
    let one = &mut bad.deployments[1];
    one.capabilities = vec!["tools".to_owned(), "vison".to_owned()];
    one.quality = Some(1.5);
    one.price = Some(Price {
        input_usd_per_mtok: "1e-1".to_owned(),
        cached_input_usd_per_mtok: "-1".to_owned(),
        output_usd_per_mtok: String::new(),
        ..Price::default()
    });
    bad.deployments.push(deployment("z"));
    config.providers[1].dialect = 99;
    config.providers[1].credential =
        Some(Credential { source: Some(credential::Source::Env("sk-secret".to_owned())) });
    config.providers[2].name = "a-b".to_owned();
    config.virtual_models.clear();
    config.api_keys.clear();
    let expect = r#"providers[0].name: "Bad Name" is not a name: write [a-z0-9][a-z0-9-]{0,62}
providers[0].dialect: DIALECT_ANTHROPIC is not built yet
providers[0].base_url: must not hold user name or password; use credential
providers[0].credential: needs env or file
providers[0].on_cancel: ON_CANCEL_DRAIN is not built yet
providers[0].breaker.failure_ratio: NaN is out of range: over 0, at most 1
providers[0].breaker.open_base: is negative or not a duration
providers[0].breaker.open_max: 1s is shorter than open_base, 2s
providers[0].health_check.interval: 4s is out of range: 5s to 86400s
providers[0].health_check.unhealthy_threshold: 101 is out of range: 1 to 100
providers[0].health_check.healthy_threshold: 21 is out of range: 1 to 20
providers[0].health_check.max_daily_cost_usd: "a lot" is not a decimal number such as 0.15
providers[0].deployments[1].quality: 1.5 is out of range: 0 to 1
providers[0].deployments[1].capabilities[1]: "vison" is not known; known are: tools, vision, json_schema, streaming, embeddings
providers[0].deployments[1].price.input_usd_per_mtok: "1e-1" is not a decimal number such as 0.15
providers[0].deployments[1].price.cached_input_usd_per_mtok: "-1" is negative
providers[0].deployments[1].price.output_usd_per_mtok: is required, as in 0.15; leave the whole price out if unknown
providers[0].deployments[2].name: "z" is the name of deployments[0] already
providers[1].dialect: 99 is not a value of this enum
providers[1].credential.env: is not the name of an environment variable, as in OPENAI_API_KEY; never write the key itself
providers[2].name: "a-b" is the name of providers[1] already"#;
    let mut lines: Vec<_> = expect.lines().collect();
    let text = refusal(&config);
    let mut said: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    said.sort_unstable();
    assert_eq!(said, lines);
}

#[test]
fn everything_wrong_with_virtual_models_and_keys_is_said_at_once() {
    let mut config = config();
    let bad = &mut config.virtual_models[1];
    bad.strategy = Strategy::Predictive.into();
    bad.deadline = Some(prost_types::Duration { seconds: 0, nanos: 5_000_000 });
    bad.constraints = Some(Constraints {
        require: vec!["fly".to_owned()],
        min_quality: Some(f64::NEG_INFINITY),
        max_usd_per_request: "much".to_owned(),
        regions: vec!["mars".to_owned()],
    });
    bad.slo = Some(Slo { ttft: Some(seconds(3)), total: Some(seconds(2)) });
    bad.balance = Some(Balance { usd_per_second: "-1".to_owned(), usd_per_quality_point: "x".to_owned() });
    bad.hedge = Some(Hedge { budget_percent: Some(101) });
    bad.affinity = Some(Affinity { key: 9 });
    bad.retry = Some(Retry { max_attempts: Some(0), retry_budget_percent: Some(101) });
    bad.on_context_length = 9;
    bad.tiers[0].targets[1] = target("b/z");
    bad.tiers[0].targets[0].weight = Some(1_000_001);
    bad.tiers[1].targets[0] = target("b/zz");
    bad.tiers[1].timeouts = Some(Timeouts { idle: Some(seconds(0)), ..Timeouts::default() });
    bad.tiers[1].max_attempts = Some(0);
    config.virtual_models.push(model("mail", &[]));
    config.api_keys[0].secret_sha256 = "22".repeat(32);
    config.api_keys[0].allowed_models[1] = "a/none".to_owned();
    let key = ApiKey { name: "x".to_owned(), secret_sha256: "sk-1".to_owned(), ..ApiKey::default() };
    config.api_keys.push(key);
    assert_eq!(
        refusal(&config),
        r#"virtual_models[1].strategy: STRATEGY_PREDICTIVE is not built yet
virtual_models[1].constraints.require[0]: "fly" is not known; known are: tools, vision, json_schema, streaming, embeddings
virtual_models[1].constraints.min_quality: -inf is out of range: 0 to 1
virtual_models[1].constraints.max_usd_per_request: "much" is not a decimal number such as 0.15
virtual_models[1].constraints.regions[0]: no provider has the region "mars"
virtual_models[1].deadline: 5ms is out of range: 10ms to 86400s
virtual_models[1].retry.max_attempts: 0 is out of range: 1 to 10
virtual_models[1].retry.retry_budget_percent: 101 is out of range: 0 to 100
virtual_models[1].tiers[0].targets[0].weight: 1000001 is out of range: 0 to 1000000
virtual_models[1].tiers[0].targets[1].deployment: "b/z" is in targets[0] already
virtual_models[1].tiers[1].targets[0].deployment: no deployment is called "b/zz"
virtual_models[1].tiers[1].max_attempts: 0 is out of range: 1 to 4294967295
virtual_models[1].tiers[1].timeouts.idle: 0ns is out of range: 1ms to 86400s
virtual_models[1].slo.total: 2s is shorter than ttft, 3s
virtual_models[1].balance.usd_per_second: "-1" is negative
virtual_models[1].balance.usd_per_quality_point: "x" is not a decimal number such as 0.15
virtual_models[1].hedge.budget_percent: 101 is out of range: 0 to 100
virtual_models[1].affinity.key: 9 is not a value of this enum
virtual_models[1].on_context_length: 9 is not a value of this enum
virtual_models[2].name: "mail" is the name of virtual_models[0] already
virtual_models[2].tiers: must not be empty: 1 to 16
api_keys[0].allowed_models[1]: no virtual model or deployment is called "a/none"
api_keys[1].secret_sha256: is that of api_keys[0] too; each key needs its own
api_keys[2].secret_sha256: is not a SHA-256 hash: write 64 hex digits, never the key itself"#
    );
}

#[test]
fn a_huge_chain_is_refused() {
    let mut config = config();
    let tier = config.virtual_models[0].tiers[0].clone();
    config.virtual_models[0].tiers = vec![tier; 17];
    assert_eq!(refusal(&config), "virtual_models[0].tiers: holds 17, at most 16 are allowed");
}

#[test]
fn what_the_strategies_that_predict_are_told_arrives() {
    use trunkline_routing::table;
    let mut config = config();
    config.providers[0].region = "eu".to_owned();
    let one = &mut config.virtual_models[0];
    one.strategy = Strategy::Balanced.into();
    one.slo = Some(Slo { ttft: Some(seconds(2)), total: None });
    one.balance = Some(Balance { usd_per_second: "0.5".to_owned(), usd_per_quality_point: String::new() });
    one.hedge = Some(Hedge { budget_percent: Some(0) });
    one.affinity = Some(Affinity { key: v1_session() });
    one.constraints.get_or_insert_default().regions = vec!["eu".to_owned()];
    let name = one.name.clone();
    let table = routing_table(version(), &config).unwrap();
    let made = table.virtual_model(&name).unwrap();
    assert_eq!(made.strategy, table::Strategy::Balanced);
    assert_eq!(made.slo, table::Slo { ttft: Some(std::time::Duration::from_secs(2)), total: None });
    let usual = table::Balance::default().nano_usd_per_quality_point;
    let wanted = table::Balance { nano_usd_per_second: 500_000_000, nano_usd_per_quality_point: usual };
    assert_eq!(made.balance, wanted);
    assert_eq!((made.hedge_budget_percent, made.affinity), (0, table::Affinity::Session));
    assert_eq!(made.constraints.regions, ["eu".into()]);
}

fn v1_session() -> i32 {
    trunkline_proto::types::v1::AffinityKey::Session.into()
}

#[test]
fn budgets_are_limits_on_known_keys_and_models() {
    let scope = |api_key: &str, virtual_model: &str| {
        Some(BudgetScope { api_key: api_key.to_owned(), virtual_model: virtual_model.to_owned() })
    };
    let budget = |name: &str| Budget {
        name: name.to_owned(),
        limit_usd: "0.5".to_owned(),
        period: BudgetPeriod::Day.into(),
        ..Budget::default()
    };
    let all = Budget { action: BudgetAction::Alert.into(), ..budget("b") };
    let one = Budget { scope: scope("team-a", "chat"), ..budget("a") };
    let table = self::table(&Config { budgets: vec![all, one], ..config() });
    assert_eq!((&*table.budgets[0].name, &*table.budgets[1].name), ("a", "b"));
    assert_eq!((table.budgets[0].limit.0, table.budgets[0].action), (500_000_000, Action::Reject));
    assert!(table.budgets[0].scope.covers(Some("team-a"), Some("chat")));
    assert!(!table.budgets[0].scope.covers(Some("team-b"), Some("chat")));
    assert!(table.budgets[1].scope.covers(None, None));

    let wrong = Budget {
        scope: scope("team-c", "chit"),
        limit_usd: "0".to_owned(),
        period: 0,
        action: 9,
        ..budget("a")
    };
    let missing = Budget { limit_usd: String::new(), ..budget("") };
    assert_eq!(
        refusal(&Config { budgets: vec![budget("a"), wrong, missing], ..config() }),
        "budgets[1].name: \"a\" is the name of budgets[0] already
budgets[1].limit_usd: must be more than 0; to let nobody in, take the virtual model from the key
budgets[1].period: is required: HOUR, DAY or MONTH
budgets[1].scope.api_key: no API key is called \"team-c\"
budgets[1].scope.virtual_model: no virtual model is called \"chit\"
budgets[1].action: 9 is not a value of this enum
budgets[2].name: is required
budgets[2].limit_usd: is required, in US dollars, as in 50"
    );
}
