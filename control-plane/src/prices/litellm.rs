//! `model_prices_and_context_window.json` of LiteLLM: an object of models by name. Prices
//! are US dollars per token; those for long inputs have names such as
//! `input_cost_per_token_above_200k_tokens`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};
use trunkline_routing::money::{Price, PriceTier, Rates};

use super::{
    feed::{FeedRefused, Model},
    number::nano_usd_per_mtok,
};

const INPUT: &str = "input_cost_per_token";
const OUTPUT: &str = "output_cost_per_token";
const CACHED: &str = "cache_read_input_token_cost";

/// A description of the fields stands among the models.
const SPEC: &str = "sample_spec";

/// Tiers that a price of ours can have.
const TIERS_MAX: usize = 8;

pub(super) fn models(data: &[u8]) -> Result<BTreeMap<String, Model>, FeedRefused> {
    let Value::Object(all) = serde_json::from_slice(data)? else {
        return Err(FeedRefused::Shape("it must be an object of models by name"));
    };
    if all.contains_key("data") && !all.values().any(|one| one.get(INPUT).is_some()) {
        return Err(FeedRefused::Shape("it looks like that of OpenRouter"));
    }
    let all = all.into_iter().filter(|(name, _)| name != SPEC);
    Ok(all.filter_map(|(name, value)| Some((name, model(value.as_object()?)?))).collect())
}

fn model(fields: &Map<String, Value>) -> Option<Model> {
    let number = |name: &str| fields.get(name).and_then(nano_usd_per_mtok);
    let input = number(INPUT)?;
    let output = number(OUTPUT)?;
    let base = Rates { input, cached_input: number(CACHED).unwrap_or(input), output };
    let mut tiers = Vec::new();
    let mut before = base;
    for (thousands, suffix) in thresholds(fields) {
        let at = |name: &str| number(&format!("{name}{suffix}"));
        // What is not said of a tier stays as before it; a cached price that is not said
        // at all is the input price.
        let input = at(INPUT).unwrap_or(before.input);
        let cached = at(CACHED).or_else(|| fields.contains_key(CACHED).then_some(before.cached_input));
        let output = at(OUTPUT).unwrap_or(before.output);
        before = Rates { input, cached_input: cached.unwrap_or(input), output };
        tiers.push(PriceTier { above_input_tokens: thousands.checked_mul(1_000)?, rates: before });
    }
    if tiers.len() > TIERS_MAX {
        return None;
    }
    let provider = fields.get("litellm_provider").and_then(Value::as_str).unwrap_or_default();
    Some(Model { provider: provider.to_owned(), price: Price { base, tiers: tiers.into() } })
}

/// The inputs, in thousands of tokens, above which some price differs, rising.
fn thresholds(fields: &Map<String, Value>) -> BTreeSet<(u32, String)> {
    let suffixes = fields.keys().filter_map(|name| {
        [INPUT, OUTPUT, CACHED]
            .iter()
            .find_map(|base| name.strip_prefix(base))
            .filter(|rest| !rest.is_empty())
    });
    let read = suffixes.filter_map(|suffix| {
        let thousands = suffix.strip_prefix("_above_")?.strip_suffix("k_tokens")?.parse::<u32>().ok()?;
        Some((thousands, suffix.to_owned()))
    });
    read.filter(|(thousands, _)| *thousands > 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(json: &str) -> Option<Model> {
        models(format!("{{\"m\": {json}}}").as_bytes()).unwrap().remove("m")
    }

    #[test]
    fn prices_are_per_million_tokens_and_tiers_by_the_length_of_the_input() {
        let found = one(r#"{"litellm_provider": "gemini", "mode": "chat", "max_input_tokens": 1048576,
                "input_cost_per_token": 1.25e-06, "input_cost_per_token_above_200k_tokens": 2.5e-06,
                "output_cost_per_token": 1e-05, "output_cost_per_token_above_200k_tokens": 1.5e-05,
                "cache_read_input_token_cost": 3.125e-07, "supports_vision": true}"#);
        let found = found.unwrap();
        let base = Rates { input: 1_250_000_000, cached_input: 312_500_000, output: 10_000_000_000 };
        let long = Rates { input: 2_500_000_000, cached_input: 312_500_000, output: 15_000_000_000 };
        let tiers = [PriceTier { above_input_tokens: 200_000, rates: long }];
        assert_eq!(found.price, Price { base, tiers: tiers.into() });
        assert_eq!(found.provider, "gemini");
    }

    #[test]
    fn a_model_without_a_readable_price_is_unknown_not_free() {
        for json in [
            r#"{"litellm_provider": "openai", "output_cost_per_token": 1e-6}"#,
            r#"{"input_cost_per_token": 1e-6}"#,
            r#"{"input_cost_per_token": null, "output_cost_per_token": 1e-6}"#,
            r#"{"input_cost_per_token": "n/a", "output_cost_per_token": 1e-6}"#,
            r#"{"input_cost_per_token": -1, "output_cost_per_token": 1e-6}"#,
            "[]",
            "7",
        ] {
            assert_eq!(one(json), None, "{json}");
        }
    }

    #[test]
    fn the_cached_price_is_that_of_the_input_if_it_is_not_said() {
        let found = one(r#"{"input_cost_per_token": 1e-6, "output_cost_per_token": 0}"#).unwrap();
        let expect = Rates { input: 1_000_000_000, cached_input: 1_000_000_000, output: 0 };
        assert_eq!(found.price, Price::flat(expect));
    }
}
