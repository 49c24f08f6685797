//! One form of each configuration, so that equal ones are equal bytes.

use std::collections::HashSet;

use prost::Message;
use sha2::{Digest, Sha256};

use super::price::is_from_feed;
use crate::{
    admin::v1::Config,
    types::v1::{ApiKey, Budget, PriceEntry, Provider, VirtualModel},
};

/// Bytes of the hash in an etag; collisions would need billions of versions.
const ETAG_BYTES: usize = 8;

/// The configuration with providers, deployments, virtual models, keys, price entries
/// and budgets by name and without etags. Tiers and targets keep their order: it means something.
pub fn canonical(mut config: Config) -> Config {
    config.providers.sort_by(|a, b| a.name.cmp(&b.name));
    for one in &mut config.providers {
        canonical_provider(one);
    }
    config.virtual_models.sort_by(|a, b| a.name.cmp(&b.name));
    for one in &mut config.virtual_models {
        one.etag.clear();
    }
    config.api_keys.sort_by(|a, b| a.name.cmp(&b.name));
    for one in &mut config.api_keys {
        one.etag.clear();
    }
    config.price_entries.sort_by(|a, b| a.name.cmp(&b.name));
    for one in &mut config.price_entries {
        one.etag.clear();
    }
    config.budgets.sort_by(|a, b| a.name.cmp(&b.name));
    for one in &mut config.budgets {
        one.etag.clear();
    }
    config
}

/// The configuration as a document has it: without prices from feeds, which are state.
#[must_use]
pub fn without_feed(mut config: Config) -> Config {
    config.price_entries.retain(|one| !is_from_feed(one));
    config
}

/// Without prices from a feed for deployments that are not there: nobody wrote them by
/// hand, so nobody has to remove them by hand.
#[must_use]
pub fn without_orphans(mut config: Config) -> Config {
    if !config.price_entries.iter().any(is_from_feed) {
        return config;
    }
    let providers = config.providers.iter();
    let there: HashSet<String> = providers
        .flat_map(|one| one.deployments.iter().map(|it| format!("{}/{}", one.name, it.name)))
        .collect();
    config.price_entries.retain(|one| !is_from_feed(one) || there.contains(&one.deployment));
    config
}

fn canonical_provider(provider: &mut Provider) {
    provider.etag.clear();
    provider.deployments.sort_by(|a, b| a.name.cmp(&b.name));
    for one in &mut provider.deployments {
        one.etag.clear();
    }
}

/// The etag of a provider with its deployments; their order does not matter.
pub fn etag_of_provider(provider: &Provider) -> String {
    let mut provider = provider.clone();
    canonical_provider(&mut provider);
    etag(&provider)
}

/// The etag of a virtual model.
pub fn etag_of_virtual_model(model: &VirtualModel) -> String {
    etag(&VirtualModel { etag: String::new(), ..model.clone() })
}

/// The etag of a key.
pub fn etag_of_api_key(key: &ApiKey) -> String {
    etag(&ApiKey { etag: String::new(), ..key.clone() })
}

/// The etag of a budget.
pub fn etag_of_budget(budget: &Budget) -> String {
    etag(&Budget { etag: String::new(), ..budget.clone() })
}

/// The etag of a price entry.
pub fn etag_of_price_entry(entry: &PriceEntry) -> String {
    etag(&PriceEntry { etag: String::new(), ..entry.clone() })
}

fn etag(message: &impl Message) -> String {
    let hash = Sha256::digest(message.encode_to_vec());
    let head = hash.iter().take(ETAG_BYTES).fold(0, |head, byte| (head << 8) | u64::from(*byte));
    format!("{head:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::v1::Deployment;

    fn provider(names: [&str; 2], etag: &str) -> Provider {
        let deployment =
            |name: &str| Deployment { name: name.to_owned(), etag: etag.to_owned(), ..Deployment::default() };
        Provider {
            name: "p".to_owned(),
            deployments: names.map(deployment).to_vec(),
            etag: etag.to_owned(),
            ..Provider::default()
        }
    }

    #[test]
    fn etags_depend_on_content_only() {
        let etag = etag_of_provider(&provider(["a", "b"], ""));
        assert_eq!(etag.len(), 16);
        assert_eq!(etag, etag_of_provider(&provider(["b", "a"], "old")));
        assert_ne!(etag, etag_of_provider(&provider(["a", "c"], "")));
        let model = VirtualModel { name: "m".to_owned(), ..VirtualModel::default() };
        let tagged = VirtualModel { etag: "x".to_owned(), ..model.clone() };
        assert_eq!(etag_of_virtual_model(&model), etag_of_virtual_model(&tagged));
    }

    #[test]
    fn lists_are_sorted_by_name() {
        let config = canonical(Config {
            providers: vec![
                Provider { name: "z".to_owned(), ..Provider::default() },
                provider(["b", "a"], "e"),
            ],
            ..Config::default()
        });
        assert_eq!(config.providers[0], provider(["a", "b"], ""));
        assert_eq!(config.providers[1].name, "z");
    }
}
