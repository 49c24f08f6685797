//! Which model of a feed a deployment is. The rule, in this order:
//!
//! 1. What the operator said of the deployment, or of its upstream model.
//! 2. With a provider that the feed knows: that provider's model of that name. A provider
//!    is known by its name (`openai`, or `openai-eu`) or by its host.
//! 3. Else the model that the feed calls exactly like the upstream model.
//!
//! The same model costs something else at another provider, so one that the feed knows
//! never gets another one's price. What is not found is unknown.

use std::collections::{BTreeSet, HashMap};

use trunkline_proto::{
    admin::v1::Config,
    types::v1::{Deployment, Provider},
};

use super::feed::{Feed, Format, Model};

/// What LiteLLM calls those who serve at these hosts.
const HOSTS: [(&str, &str); 12] = [
    ("api.openai.com", "openai"),
    ("api.anthropic.com", "anthropic"),
    ("api.mistral.ai", "mistral"),
    ("api.groq.com", "groq"),
    ("api.deepseek.com", "deepseek"),
    ("api.together.xyz", "together_ai"),
    ("api.fireworks.ai", "fireworks_ai"),
    ("api.x.ai", "xai"),
    ("api.cerebras.ai", "cerebras"),
    ("api.perplexity.ai", "perplexity"),
    ("generativelanguage.googleapis.com", "gemini"),
    ("openrouter.ai", "openrouter"),
];

/// Names of models in a feed by deployment or upstream model. An empty one: none.
pub(crate) type Named = HashMap<String, String>;

/// A deployment and its model in the feed, if it has one there.
#[derive(Debug)]
pub(crate) struct Matched<'a> {
    /// `openai/gpt-4o-mini`.
    pub(crate) deployment: String,
    pub(crate) wire: &'a Deployment,
    /// The feed's name of it, and what it says.
    pub(crate) found: Option<(&'a str, &'a Model)>,
}

/// All deployments, but those that the operator left out.
pub(crate) fn matches<'a>(config: &'a Config, feed: &'a Feed, named: &Named) -> Vec<Matched<'a>> {
    let known: BTreeSet<&str> = feed.models.values().map(|model| model.provider.as_str()).collect();
    let mut all = Vec::new();
    for provider in &config.providers {
        let called = known_as(provider, &known);
        for wire in &provider.deployments {
            let deployment = format!("{}/{}", provider.name, wire.name);
            let upstream = if wire.upstream_model.is_empty() { &wire.name } else { &wire.upstream_model };
            let name = match named.get(&deployment).or_else(|| named.get(upstream)).map(String::as_str) {
                Some("") => continue,
                Some(name) => Some(name.to_owned()),
                None => name_of(feed, &provider.name, called, upstream),
            };
            let found = name.and_then(|name| feed.models.get_key_value(&name));
            all.push(Matched { deployment, wire, found: found.map(|(name, model)| (name.as_str(), model)) });
        }
    }
    all
}

/// What the feed calls the model.
fn name_of(feed: &Feed, provider: &str, called: Option<&str>, upstream: &str) -> Option<String> {
    let is_there = |name: &String| feed.models.contains_key(name);
    let long = |provider: &str| Some(format!("{provider}/{upstream}")).filter(is_there);
    // A gateway's own list names models as they are sent to it.
    let exact = Some(upstream.to_owned()).filter(is_there);
    match called {
        _ if feed.format == Format::Openrouter && exact.is_some() => exact,
        None => exact.or_else(|| long(provider)),
        Some(called) => {
            let of_provider = |name: &String| feed.models.get(name).is_some_and(|it| it.provider == called);
            long(called).or_else(|| exact.filter(of_provider))
        }
    }
}

/// What the feed calls the provider. None: it does not know it.
fn known_as<'a>(provider: &Provider, known: &BTreeSet<&'a str>) -> Option<&'a str> {
    let by_host = host(&provider.base_url)
        .and_then(|host| HOSTS.iter().find(|(known, _)| *known == host))
        .and_then(|(_, called)| known.get(called));
    let by_name = || {
        let named = |called: &&&str| {
            let called = called.replace('_', "-");
            !called.is_empty()
                && (provider.name == called || provider.name.starts_with(&format!("{called}-")))
        };
        // `azure-ai` before `azure`.
        known.iter().filter(named).max_by_key(|called| called.len())
    };
    by_host.or_else(by_name).copied()
}

fn host(url: &str) -> Option<&str> {
    let rest = url.split_once("://")?.1;
    let authority = rest.split(['/', '?', '#']).next()?;
    Some(authority.split_once(':').map_or(authority, |(host, _)| host))
}

#[cfg(test)]
mod tests {
    use trunkline_proto::document;

    use super::*;

    fn feed(format: Format, text: &str) -> Feed {
        Feed::read(format, text.as_bytes()).unwrap()
    }

    fn litellm(models: &[(&str, &str)]) -> Feed {
        let one = |(name, provider): &(&str, &str)| {
            format!(
                r#""{name}": {{"litellm_provider": "{provider}", "input_cost_per_token": 1e-6, "output_cost_per_token": 1e-6}}"#
            )
        };
        let all: Vec<String> = models.iter().map(one).collect();
        feed(Format::Litellm, &format!("{{{}}}", all.join(",")))
    }

    fn config(provider: &str, url: &str, deployment: &str) -> Config {
        document::load(&format!(
            "providers: [{{name: {provider}, dialect: OPENAI, base_url: \"{url}\", allow_private_network: true,
               deployments: [{deployment}]}}]"
        ))
        .unwrap()
    }

    fn found(feed: &Feed, config: &Config, named: &[(&str, &str)]) -> Option<String> {
        let named = named.iter().map(|(one, name)| ((*one).to_owned(), (*name).to_owned())).collect();
        let all = matches(config, feed, &named);
        all.first().and_then(|one| one.found).map(|(name, _)| name.to_owned())
    }

    #[test]
    fn a_provider_that_the_feed_knows_gets_its_own_prices_only() {
        let feed = litellm(&[
            ("mini", "openai"),
            ("azure/mini", "azure"),
            ("azure_ai/mini", "azure_ai"),
            ("only", "openai"),
        ]);
        for (provider, url, model, expect) in [
            ("openai", "http://127.0.0.1:1", "mini", Some("mini")),
            ("openai-eu", "http://127.0.0.1:1", "mini", Some("mini")),
            ("azure-eu", "http://127.0.0.1:1", "mini", Some("azure/mini")),
            ("azure-ai-eu", "http://127.0.0.1:1", "mini", Some("azure_ai/mini")),
            ("azure", "http://127.0.0.1:1", "only", None),
            ("main", "https://api.openai.com/v1", "mini", Some("mini")),
            // The host says more than the name.
            ("azure", "https://api.openai.com/v1", "mini", Some("mini")),
            // Not known to the feed: the name must be the very same.
            ("own", "http://10.0.0.1", "mini", Some("mini")),
            ("own", "http://10.0.0.1", "mini2", None),
            ("openaix", "http://10.0.0.1", "only", Some("only")),
        ] {
            let config = config(provider, url, &format!("{{name: {model}}}"));
            assert_eq!(found(&feed, &config, &[]).as_deref(), expect, "{provider} {url} {model}");
        }
    }

    #[test]
    fn the_upstream_model_is_what_is_looked_for() {
        let feed = litellm(&[("big-model", "openai"), ("small", "openai")]);
        let config = config("openai", "http://127.0.0.1:1", "{name: small, upstream_model: big-model}");
        assert_eq!(found(&feed, &config, &[]).as_deref(), Some("big-model"));
    }

    #[test]
    fn the_operator_is_right() {
        let feed = litellm(&[("mini", "openai"), ("azure/mini", "azure")]);
        let config = config("openai", "http://127.0.0.1:1", "{name: m, upstream_model: mini}");
        assert_eq!(found(&feed, &config, &[("openai/m", "azure/mini")]).as_deref(), Some("azure/mini"));
        assert_eq!(found(&feed, &config, &[("mini", "azure/mini")]).as_deref(), Some("azure/mini"));
        assert_eq!(found(&feed, &config, &[("mini", "gone")]), None);
        let none = HashMap::from([("openai/m".to_owned(), String::new())]);
        assert!(matches(&config, &feed, &none).is_empty());
    }

    #[test]
    fn a_gateways_list_names_models_as_they_are_sent() {
        let text = r#"{"data": [{"id": "openai/mini", "pricing": {"prompt": "0.000001", "completion": "0.000001"}},
            {"id": "openrouter/x", "pricing": {"prompt": "0.000001", "completion": "0.000001"}}]}"#;
        let feed = feed(Format::Openrouter, text);
        let gateway =
            config("openrouter", "https://openrouter.ai/api/v1", "{name: m, upstream_model: openai/mini}");
        assert_eq!(found(&feed, &gateway, &[]).as_deref(), Some("openai/mini"));
        let direct = config("openai", "https://api.openai.com/v1", "{name: mini}");
        assert_eq!(found(&feed, &direct, &[]).as_deref(), Some("openai/mini"));
        let other = config("azure", "http://127.0.0.1:1", "{name: mini}");
        assert_eq!(found(&feed, &other, &[]), None);
    }
}
