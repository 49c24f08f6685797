//! `/models` as OpenRouter answers it: `data`, a list of models with `id` and `pricing`.
//! Prices are US dollars per token, as text; -1 says that there is no fixed one.

use std::collections::BTreeMap;

use serde_json::Value;
use trunkline_routing::money::{Price, Rates};

use super::{
    feed::{FeedRefused, Model},
    number::nano_usd_per_mtok,
};

pub(super) fn models(data: &[u8]) -> Result<BTreeMap<String, Model>, FeedRefused> {
    let all: Value = serde_json::from_slice(data)?;
    let Some(models) = all.get("data").and_then(Value::as_array) else {
        return Err(FeedRefused::Shape("it must hold the models as a list called data"));
    };
    Ok(models.iter().filter_map(model).collect())
}

fn model(value: &Value) -> Option<(String, Model)> {
    let id = value.get("id")?.as_str().filter(|id| !id.is_empty())?;
    let pricing = value.get("pricing")?;
    let number = |name: &str| pricing.get(name).and_then(nano_usd_per_mtok);
    let input = number("prompt")?;
    let cached_input = number("input_cache_read").unwrap_or(input);
    let price = Price::flat(Rates { input, cached_input, output: number("completion")? });
    let provider = id.split_once('/').map_or("", |(provider, _)| provider);
    Some((id.to_owned(), Model { provider: provider.to_owned(), price }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_are_text_per_token() {
        let found = models(
            br#"{"data": [
                {"id": "openai/gpt-4o-mini", "context_length": 128000, "pricing":
                    {"prompt": "0.00000015", "completion": "0.0000006", "input_cache_read": "0.000000075",
                     "request": "0", "image": "0.000217"}},
                {"id": "openrouter/auto", "pricing": {"prompt": "-1", "completion": "-1"}},
                {"id": "a/free:free", "pricing": {"prompt": "0", "completion": "0"}},
                {"id": "no/price"}, {"pricing": {"prompt": "1", "completion": "1"}}, null, 3]}"#,
        );
        let found = found.unwrap();
        let mini = Rates { input: 150_000_000, cached_input: 75_000_000, output: 600_000_000 };
        assert_eq!(found.keys().collect::<Vec<_>>(), ["a/free:free", "openai/gpt-4o-mini"]);
        let one = &found["openai/gpt-4o-mini"];
        assert_eq!((one.provider.as_str(), &one.price), ("openai", &Price::flat(mini)));
    }

    #[test]
    fn another_shape_is_refused() {
        for data in [&b"{}"[..], b"[]", b"{\"data\": {}}", b"{\"data\": []"] {
            assert!(models(data).is_err());
        }
    }
}
