//! Documents read, written and compared.

use super::*;

/// The example of the documentation, reduced to what is built.
const EXAMPLE: &str = r#"
providers:
  - name: openai
    dialect: DIALECT_OPENAI            # OPENAI, ANTHROPIC, GEMINI, AZURE_OPENAI, BEDROCK
    base_url: https://api.openai.com/v1
    credential: {env: OPENAI_API_KEY}
    region: us
    allow_private_network: false
    on_cancel: ON_CANCEL_ABORT
    breaker: {consecutive_failures: 5, failure_ratio: 0.5, min_requests: 20, window: 30s, open_base: 2s, open_max: 60s}
    health_check: {mode: HEALTH_CHECK_MODE_PASSIVE, interval: 30s, unhealthy_threshold: 3, healthy_threshold: 2}
    deployments:
      - name: gpt-4o-mini
        upstream_model: gpt-4o-mini
        capabilities: [tools, vision, json_schema, streaming]
        context_window: 128000
        max_output_tokens: 16384
        quality: 0.72
        price: {input_usd_per_mtok: "0.15", cached_input_usd_per_mtok: 0.0750, output_usd_per_mtok: "0.60"}
        limits: {requests_per_minute: 500, tokens_per_minute: 200000, max_in_flight: 64}
  - name: mistral
    dialect: OPENAI
    baseUrl: https://api.mistral.ai/v1
    deployments: [{name: small}]
virtual_models:
  - name: chat
    strategy: WEIGHTED
    constraints: {require: [tools], min_quality: 0.5, max_usd_per_request: "0.02"}
    deadline: 60s
    retry: {max_attempts: 3, retry_budget_percent: 20}
    on_context_length: CONTEXT_LENGTH_ACTION_FALLBACK
    on_content_filter: RETURN
    tiers:
      - targets: [{deployment: openai/gpt-4o-mini, weight: 70}, {deployment: mistral/small, weight: 30}]
        timeouts: {connect: 3s, first_token: 10s, idle: 500ms, attempt: 45s, stream_total: 1h}
        max_attempts: 2
      - targets: [{deployment: mistral/small, weight: 1}]
        timeouts: {first_token: 15s}
        max_attempts: 1
api_keys:
  - name: team-a
    secret_sha256: "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"
    allowed_models: [chat]
"#;

fn errors(text: &str) -> String {
    load(text).unwrap_err().to_string()
}

#[test]
fn the_example_loads_and_is_right() {
    let config = load_and_check(EXAMPLE).unwrap();
    let openai = &config.providers[0];
    assert_eq!(openai.dialect(), crate::types::v1::Dialect::Openai);
    let price = openai.deployments[0].price.as_ref().unwrap();
    assert_eq!(price.cached_input_usd_per_mtok, "0.0750");
    let timeouts = config.virtual_models[0].tiers[0].timeouts.as_ref().unwrap();
    let idle = timeouts.idle.unwrap();
    assert_eq!((idle.seconds, idle.nanos), (0, 500_000_000));
    assert_eq!(timeouts.stream_total.unwrap().seconds, 3_600);
}

#[test]
fn what_is_written_is_read_back() {
    let config = load(EXAMPLE).unwrap();
    let (yaml, json) = (to_yaml(&config), to_json(&config));
    assert_eq!(load(&yaml).unwrap(), config, "{yaml}");
    assert_eq!(load(&json).unwrap(), config, "{json}");
    assert!(serde_json::from_str::<serde_json::Value>(&json).is_ok(), "{json}");
    let empty = Config::default();
    assert_eq!((to_yaml(&empty).as_str(), to_json(&empty).as_str()), ("{}\n", "{}\n"));
    assert_eq!(load("{}"), Ok(empty));
}

#[test]
fn written_documents_are_canonical_and_without_etags() {
    let mut config = load("providers: [{name: p, dialect: OPENAI, base_url: https://x.com/v1}]").unwrap();
    config.providers[0].etag = "abc".to_owned();
    config.providers[0].region = "1e3: \"\u{85}".to_owned();
    config.virtual_models = load(
        "virtual_models: [{name: 'no', deadline: 0.5s, tiers: [{targets: [{deployment: p/d, weight: 0}]}]}]",
    )
    .unwrap()
    .virtual_models;
    assert_eq!(
        to_yaml(&config),
        r#"providers:
  - name: p
    dialect: DIALECT_OPENAI
    base_url: https://x.com/v1
    region: "1e3: \"\u0085"
virtual_models:
  - name: "no"
    deadline: 0.500s
    tiers:
      - targets:
          - deployment: p/d
            weight: 0
"#
    );
    assert_eq!(
        to_json(&Config { virtual_models: vec![], ..config.clone() }),
        r#"{
  "providers": [
    {
      "name": "p",
      "dialect": "DIALECT_OPENAI",
      "baseUrl": "https://x.com/v1",
      "region": "1e3: \"\u0085"
    }
  ]
}
"#
    );
}

#[test]
fn all_that_is_wrong_is_said_with_its_place() {
    let text = r"
providers:
  - name: 123
    dialect: OPENIA
    base_ulr: x
    region: ~
    region: eu
    allow_private_network: yes
    credential: {env: A, file: /b}
    deployments:
      - {name: a, context_window: -1, quality: .nan, price: {input_usd_per_mtok: cheap}}
      - text
      - null
virtual_models:
  - name: chat
    deadline: 5
    hedge: {budget_percent: 2}
    streamRescue: OFF
    tiers: {}
experiments: []
nothing_like_it: 1
";
    assert_eq!(
        errors(text),
        "3:11: providers[0].name: 123 is not text; quote it: \"123\"
4:14: providers[0].dialect: 'OPENIA' is not a Dialect; did you mean 'OPENAI'? (one of OPENAI, ANTHROPIC, GEMINI, AZURE_OPENAI, BEDROCK)
5:5: providers[0].base_ulr: unknown field in Provider; did you mean 'base_url'?
7:5: providers[0].region: is in line 6 already
8:28: providers[0].allow_private_network: 'yes' is neither true nor false
9:26: providers[0].credential.file: excludes env; only one of them may be given
11:35: providers[0].deployments[0].context_window: '-1' is not a whole number from 0 to 4294967295
11:48: providers[0].deployments[0].quality: '.nan' is not a number
11:82: providers[0].deployments[0].price.input_usd_per_mtok: 'cheap' is not a decimal number such as 0.15
12:9: providers[0].deployments[1]: must be a map of the fields of Deployment
13:9: providers[0].deployments[2]: must not be null
16:15: virtual_models[0].deadline: duration 5 has no unit; write '5s' or '5ms'
18:5: virtual_models[0].streamRescue: streamRescue is not built yet
19:12: virtual_models[0].tiers: must be a list
20:1: experiments: experiments is not built yet
21:1: nothing_like_it: unknown field in Config"
    );
}

#[test]
fn what_means_nothing_sensible_has_its_place_too() {
    let text = "providers:\n  - name: p\n    dialect: GEMINI\n    baseUrl: http://10.0.0.1\n";
    assert_eq!(
        load_and_check(text).unwrap_err().to_string(),
        "3:5: providers[0].dialect: DIALECT_GEMINI is not built yet
4:5: providers[0].base_url: must start with https://; http:// needs allow_private_network"
    );
    let text = "virtual_models: [{name: m}]";
    assert_eq!(
        load_and_check(text).unwrap_err().to_string(),
        "1:18: virtual_models[0].tiers: must not be empty: 1 to 16"
    );
}

#[test]
fn text_that_is_no_document_is_refused() {
    let empty = "1:1: the document is empty; an empty configuration is written {}";
    assert_eq!(errors(""), empty);
    assert_eq!(errors("# nothing\n"), empty);
    assert_eq!(errors("null"), empty);
    assert_eq!(errors("[]"), "1:1: must be a map of the fields of Config");
    assert_eq!(errors("{}\n---\n{}"), "2:1: a second document (---) is not supported");
    assert_eq!(errors("providers: !!seq []"), "1:18: tags (!...) are not supported");
    let inside = "an alias must not be inside of what it stands for";
    assert!(errors("providers: &a [*a]").ends_with(inside));
    assert!(load("{\"providers\": [}").is_err());
    assert!(load("providers: *none").is_err());
}

#[test]
fn aliases_work_and_bombs_do_not() {
    let text = "providers: [{name: a, breaker: &b {window: 5s}}, {name: b, breaker: *b}]";
    let config = load(text).unwrap();
    assert_eq!(config.providers[0].breaker, config.providers[1].breaker);

    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..30 {
        let list = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb = format!("{bomb}a{level}: &a{level} [{list}]\n");
    }
    let expect = "more than 200,000 values, with aliases counted as what they stand for";
    assert!(errors(&bomb).ends_with(expect));
    assert!(errors(&format!("{}{}", "[".repeat(65), "]".repeat(65))).ends_with("64 levels"));
    let blocks: String = (0..70).map(|level| " ".repeat(level) + "-\n").collect();
    assert!(errors(&blocks).ends_with("deeper than 64 levels"));
    // Here the parser's own bounds come first.
    assert!(load(&"[".repeat(100_000)).is_err());
    assert!(load(&"- ".repeat(100_000)).is_err());
    assert!(errors(&"#".repeat(9 << 20)).ends_with("longer than 8 MiB"));
    let chain: Vec<_> = (1..100).map(|n| format!("b{n}: &b{n} [*b{}]\n", n - 1)).collect();
    let chain = chain.concat();
    assert!(errors(&format!("b0: &b0 1\n{chain}")).ends_with("deeper than 64 levels"));
}

#[test]
fn differences_have_names_not_numbers() {
    let old = load(EXAMPLE).unwrap();
    assert_eq!(diff(&old, &old), []);
    let mut new = old.clone();
    new.providers.reverse();
    assert_eq!(diff(&old, &new), [], "the order of providers means nothing");
    let openai = &mut new.providers[1];
    openai.deployments[0].price.as_mut().unwrap().input_usd_per_mtok = "0.20".to_owned();
    openai.deployments[0].quality = None;
    openai.deployments[0].capabilities.pop();
    openai.deployments.push(crate::types::v1::Deployment { name: "gpt-5".to_owned(), ..Default::default() });
    new.virtual_models[0].tiers[0].targets.reverse();
    new.virtual_models[0].tiers.pop();
    new.api_keys.clear();
    assert_eq!(
        render_diff(&diff(&old, &new)),
        r#"~ providers[openai].deployments[gpt-4o-mini].capabilities: [tools, vision, json_schema, streaming] -> [tools, vision, json_schema]
- providers[openai].deployments[gpt-4o-mini].quality: 0.72
~ providers[openai].deployments[gpt-4o-mini].price.input_usd_per_mtok: "0.15" -> "0.20"
+ providers[openai].deployments[gpt-5]: {name: gpt-5}
~ virtual_models[chat].tiers[0].targets: [openai/gpt-4o-mini, mistral/small] -> [mistral/small, openai/gpt-4o-mini]
- virtual_models[chat].tiers[1]: {targets: [{deployment: mistral/small, weight: 1}], timeouts: {first_token: 15s}, max_attempts: 1}
- api_keys[team-a]: {name: team-a, secret_sha256: "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae", allowed_models: [chat]}
"#
    );
}
