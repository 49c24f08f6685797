//! One form of each configuration, so that equal ones are equal bytes.

use prost::Message;
use sha2::{Digest, Sha256};

use crate::{
    admin::v1::Config,
    types::v1::{Provider, VirtualModel},
};

/// Bytes of the hash in an etag; collisions would need billions of versions.
const ETAG_BYTES: usize = 8;

/// The configuration with providers, deployments, virtual models and keys by name
/// and without etags. Tiers and targets keep their order: it means something.
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
