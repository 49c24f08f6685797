//! What a build makes of messages from newer and older ones.

#![expect(clippy::unwrap_used, reason = "a test says what it expects")]

use prost::Message as _;
use trunkline_proto::{
    admin::v1::Config,
    agent::v1::{Resource, SyncResponse, Update},
    convert::{routing_table, routing_table_lenient, sync},
    types::v1::{
        Affinity, ApiKey, Constraints, Credential, Deployment, Dialect, HealthCheck, Provider, Strategy,
        Target, Tier, VirtualModel,
    },
};
use trunkline_routing::{
    decide::{Route, decide},
    eligibility::Profile,
    registry::Registry,
    table::{Capabilities, RoutingTable, Strategy as Picked, Version},
    time::Timestamp,
};

fn deployment(name: &str, capabilities: &[&str]) -> Deployment {
    Deployment {
        name: name.to_owned(),
        capabilities: capabilities.iter().map(|name| (*name).to_owned()).collect(),
        ..Deployment::default()
    }
}

fn provider(name: &str, deployments: Vec<Deployment>) -> Provider {
    Provider {
        name: name.to_owned(),
        dialect: Dialect::Openai.into(),
        base_url: "https://api.example.com/v1".to_owned(),
        deployments,
        ..Provider::default()
    }
}

fn model(name: &str, targets: &[&str]) -> VirtualModel {
    let target = |name: &&str| Target { deployment: (*name).to_owned(), weight: None };
    let tier = Tier { targets: targets.iter().map(target).collect(), ..Tier::default() };
    VirtualModel { name: name.to_owned(), tiers: vec![tier], ..VirtualModel::default() }
}

fn config() -> Config {
    let a = provider("a", vec![deployment("plain", &[]), deployment("tools", &["tools"])]);
    let b = provider("b", vec![deployment("x", &[])]);
    let virtual_models = vec![model("chat", &["a/plain", "a/tools", "b/x"]), model("solo", &["b/x"])];
    Config { providers: vec![a, b], virtual_models, ..Config::default() }
}

fn lenient(config: &Config) -> (RoutingTable, String) {
    assert!(routing_table(Version::default(), config).is_err(), "a strict check passes it");
    let made = routing_table_lenient(Version::default(), config).unwrap();
    (made.table, made.assumed.to_string())
}

fn targets(table: &RoutingTable, model: &str) -> Vec<String> {
    let tiers = &table.virtual_model(model).unwrap().tiers;
    let targets = tiers.iter().flat_map(|tier| &tier.targets);
    targets.map(|target| table.deployment(target.deployment).name.to_string()).collect()
}

#[test]
fn what_is_known_is_converted_as_always_and_what_is_wrong_is_refused() {
    let made = routing_table_lenient(Version::default(), &config()).unwrap();
    assert!(made.assumed.is_empty());
    assert_eq!(targets(&made.table, "chat"), ["a/plain", "a/tools", "b/x"]);
    let mut wrong = config();
    wrong.virtual_models[0].strategy = 99;
    wrong.providers[0].base_url = "ftp://example.com".to_owned();
    wrong.providers[1].dialect = 0;
    let refused = routing_table_lenient(Version::default(), &wrong).unwrap_err().to_string();
    assert!(refused.starts_with("providers[0].base_url: "), "{refused}");
    assert!(refused.ends_with("providers[1].dialect: is required, as in DIALECT_OPENAI"), "{refused}");
}

#[test]
fn unknown_ways_to_do_the_same_are_taken_as_the_default() {
    let mut new = config();
    new.virtual_models[0].strategy = 99;
    new.virtual_models[1].strategy = Strategy::Predictive.into();
    new.virtual_models[1].affinity = Some(Affinity { key: 94 });
    new.virtual_models[1].on_context_length = 98;
    new.virtual_models[1].on_content_filter = 97;
    new.providers[0].on_cancel = 96;
    new.providers[1].health_check = Some(HealthCheck { mode: 95, ..HealthCheck::default() });
    let (table, assumed) = lenient(&new);
    let expected = [
        "providers[0].on_cancel: 96 is not a value of this enum; taken as ON_CANCEL_ABORT",
        "providers[1].health_check.mode: 95 is not a value of this enum; taken as HEALTH_CHECK_MODE_PASSIVE",
        "virtual_models[0].strategy: 99 is not a value of this enum; taken as STRATEGY_WEIGHTED",
        "virtual_models[1].strategy: STRATEGY_PREDICTIVE is not built yet; taken as STRATEGY_WEIGHTED",
        "virtual_models[1].on_context_length: 98 is not a value of this enum; \
         taken as CONTEXT_LENGTH_ACTION_FALLBACK",
        "virtual_models[1].on_content_filter: 97 is not a value of this enum; \
         taken as CONTENT_FILTER_ACTION_RETURN",
        "virtual_models[1].affinity.key: 94 is not a value of this enum; taken as absent",
    ];
    assert_eq!(assumed, expected.join("\n"));
    assert_eq!(table.virtual_models[0].strategy, Picked::Weighted);
    assert_eq!(targets(&table, "chat"), ["a/plain", "a/tools", "b/x"]);
    let solo = table.virtual_model("solo").unwrap();
    assert!(solo.context_length_fallback && !solo.content_filter_fallback);
}

#[test]
fn a_provider_that_cannot_be_spoken_to_is_left_out() {
    for change in [
        (|one: &mut Provider| one.dialect = 77) as fn(&mut Provider),
        |one| one.dialect = Dialect::Anthropic.into(),
        |one| one.credential = Some(Credential { source: None }),
    ] {
        let mut new = config();
        change(&mut new.providers[0]);
        new.api_keys.push(ApiKey {
            name: "team".to_owned(),
            secret_sha256: "11".repeat(32),
            allowed_models: vec!["a/plain".to_owned()],
            ..ApiKey::default()
        });
        let (table, assumed) = lenient(&new);
        assert!(assumed.starts_with("providers[0].") && assumed.ends_with("are left out"), "{assumed}");
        assert_eq!(targets(&table, "chat"), ["b/x"]);
        assert_eq!(targets(&table, "solo"), ["b/x"]);
        assert_eq!(table.deployment_by_name("a/plain"), None, "a pin would reach it");
        assert_eq!(table.virtual_model("chat").unwrap().tiers[0].max_attempts, 1);
        // Less is left of what the key may use; never more.
        assert!(!table.api_keys[0].allows("chat"));
    }
}

#[test]
fn a_virtual_model_that_loses_every_target_stays_and_has_none() {
    let mut new = config();
    new.providers[1].dialect = 77;
    let (table, _) = lenient(&new);
    assert_eq!(targets(&table, "chat"), ["a/plain", "a/tools"]);
    assert_eq!(targets(&table, "solo"), Vec::<String>::new());
    // A decision finds nothing, and that is all.
    let mut registry = Registry::new();
    let binding = registry.bind(&table, Timestamp::ZERO);
    let mut candidates = |name: &str| {
        let index = table.virtual_models.iter().position(|model| &*model.name == name);
        let route = Route { model: &table.virtual_models[index.unwrap()], index };
        let decision = decide(&mut registry, &table, &binding, route, &Profile::default(), Timestamp::ZERO);
        decision.candidates.len()
    };
    assert_eq!((candidates("solo"), candidates("chat")), (0, 2));
}

#[test]
fn an_unknown_requirement_excludes_what_does_not_list_it() {
    let mut new = config();
    new.providers[0].deployments.push(deployment("audio", &["audio"]));
    new.providers[0].deployments.push(deployment("both", &["audio", "tools"]));
    let all = ["a/plain", "a/tools", "a/audio", "a/both", "b/x"];
    new.virtual_models = vec![model("chat", &all), model("any", &all)];
    let require = vec!["audio".to_owned(), "tools".to_owned()];
    new.virtual_models[0].constraints = Some(Constraints { require, ..Constraints::default() });
    let (table, assumed) = lenient(&new);
    assert_eq!(targets(&table, "chat"), ["a/plain", "a/audio", "a/both", "b/x"]);
    assert_eq!(targets(&table, "any"), all);
    let constraint = table.virtual_model("chat").unwrap().constraints.require;
    assert_eq!(constraint, Capabilities::TOOLS);
    let offered = |name| table.deployment(table.deployment_by_name(name).unwrap()).capabilities;
    // Not everything, as an empty list would say.
    assert_eq!(offered("a/audio"), Capabilities::NONE);
    assert_eq!(offered("a/both"), Capabilities::TOOLS);
    assert!(
        assumed.contains("virtual_models[0].constraints.require[0]: \"audio\" is not known"),
        "{assumed}"
    );
}

/// A length-delimited field of a later version of a message.
fn field(number: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    prost::encoding::encode_key(number, prost::encoding::WireType::LengthDelimited, &mut bytes);
    prost::encoding::encode_varint(payload.len() as u64, &mut bytes);
    bytes.extend(payload);
    bytes
}

#[test]
fn an_update_of_a_newer_control_plane_has_the_hash_that_it_says() {
    // The newer control plane knows a field 200 of the provider, one of the update, and
    // a kind 9 of resources.
    let known = sync::snapshot(&config());
    let mut provider = known[0].clone();
    let inner = match provider.resource.take() {
        Some(trunkline_proto::agent::v1::resource::Resource::Provider(one)) => one.encode_to_vec(),
        other => panic!("{other:?}"),
    };
    let newer = [inner, field(200, b"new")].concat();
    let identity = |key: &str, sha256: u8| [field(15, &[sha256; 32]), field(16, key.as_bytes())].concat();
    let provider = [field(1, &newer), identity("provider/a", 7)].concat();
    let budget = [field(9, b"\x0a\x01b"), identity("lottery/b", 8)].concat();
    let rest = Update { full: true, upserts: known[1..].to_vec(), ..Update::default() };
    let update = [rest.encode_to_vec(), field(6, &provider), field(6, &budget), field(300, b"new")].concat();
    let update = Update::decode(update.as_slice()).unwrap();

    // What the newer control plane computes.
    let of = |key: &str, sha256: u8| Resource {
        key: key.to_owned(),
        sha256: vec![sha256; 32],
        ..Resource::default()
    };
    let all = [vec![of("provider/a", 7), of("lottery/b", 8)], known[1..].to_vec()].concat();
    let expected = sync::State::default().apply(all, &[]).sha256();

    let state = sync::State::default().apply(update.upserts, &update.removals);
    assert_eq!(state.sha256(), expected);
    assert_eq!(state.config(), &config());
    assert_eq!(state.not_fully_known(), ["lottery/b", "provider/a"]);
}

#[test]
fn a_message_of_an_unknown_kind_is_no_error() {
    let message = SyncResponse::decode(field(90, b"\x0a\x03new").as_slice()).unwrap();
    assert_eq!(message.message, None);
}
