//! How a configuration travels to agents: whole, or as what changed, in parts, with
//! a hash that both ends compute over the result.

mod state;

use std::collections::BTreeMap;

use prost::Message;
use sha2::{Digest, Sha256};

use super::canonical::canonical;
use crate::{
    admin::v1::Config,
    agent::v1::{Resource, ResourceName, resource, resource_name},
};

pub use self::state::State;

/// Encoded bytes of a part. Far below the 4 MiB that gRPC implementations take.
const CHUNK_BYTES: usize = 512 * 1024;

/// Longest message of the Sync stream that agents take, in bytes. The longest there is, is
/// a publication: 20,000 forced breakers have some 9 MB, 64 drills of 1,000 deployments and
/// 1,000 virtual models some 13 MB. gRPC's own limit of 4 MiB would end the stream, and the
/// next one, for as long as the orders last.
pub const MESSAGE_BYTES_MAX: usize = 32 << 20;

/// The hash of a configuration, whatever its order and etags, as agents know it that
/// do not keep hashes of resources. See [`State::sha256`] for the others.
///
/// It is SHA-256 over all resources of the canonical configuration: providers by
/// name, then virtual models by name, then keys by name; those agents know no other
/// kinds. Each is encoded as an
/// `agent.v1.Resource`, fields by number as protobuf encoders write them, behind its
/// length as a varint.
pub fn state_sha256(config: &Config) -> [u8; 32] {
    let mut hash = Sha256::new();
    for resource in plain(config).into_iter().filter(is_of_a_first_kind) {
        hash.update(resource.encode_length_delimited_to_vec());
    }
    hash.finalize().into()
}

/// Whether agents know the kind that keep no hashes of resources.
fn is_of_a_first_kind(resource: &Resource) -> bool {
    use resource::Resource::{ApiKey, Provider, VirtualModel};
    matches!(resource.resource, Some(Provider(_) | VirtualModel(_) | ApiKey(_)))
}

/// All resources of a configuration, in canonical order, with keys and hashes.
pub fn snapshot(config: &Config) -> Vec<Resource> {
    plain(config).into_iter().map(named).collect()
}

/// With its key and its hash.
fn named(resource: Resource) -> Resource {
    let sha256 = resource_sha256(&resource).to_vec();
    let key = key(&resource).map(|key| key.text()).unwrap_or_default();
    Resource { sha256, key, ..resource }
}

/// SHA-256 of the resource as this build encodes it, with only the oneof set.
fn resource_sha256(resource: &Resource) -> [u8; 32] {
    let bare = Resource { resource: resource.resource.clone(), ..Resource::default() };
    Sha256::digest(bare.encode_to_vec()).into()
}

/// All resources of a configuration, in canonical order, nothing but the oneof set.
fn plain(config: &Config) -> Vec<Resource> {
    let config = canonical(config.clone());
    let providers = config.providers.into_iter().map(resource::Resource::Provider);
    let models = config.virtual_models.into_iter().map(resource::Resource::VirtualModel);
    let keys = config.api_keys.into_iter().map(resource::Resource::ApiKey);
    let prices = config.price_entries.into_iter().map(resource::Resource::PriceEntry);
    let budgets = config.budgets.into_iter().map(resource::Resource::Budget);
    let all = providers.chain(models).chain(keys).chain(prices).chain(budgets);
    all.map(|one| Resource { resource: Some(one), ..Resource::default() }).collect()
}

/// What leads from `old` to `new`: resources to put in place, names to remove.
pub fn delta(old: &Config, new: &Config) -> (Vec<Resource>, Vec<ResourceName>) {
    let mut before = by_key(snapshot(old));
    let mut upserts = Vec::new();
    for resource in snapshot(new) {
        let was = key(&resource).and_then(|key| before.remove(&key));
        if was.as_ref() != Some(&resource) {
            upserts.push(resource);
        }
    }
    (upserts, before.into_keys().map(Key::into_name).collect())
}

/// `base` with resources removed, then put in place. Canonical.
pub fn apply(base: &Config, upserts: Vec<Resource>, removals: &[ResourceName]) -> Config {
    let mut all = by_key(plain(base));
    for name in removals {
        if let Some(key) = Key::of_name(name) {
            all.remove(&key);
        }
    }
    for resource in upserts {
        if let Some(key) = key(&resource) {
            all.insert(key, resource);
        }
    }
    let mut config = Config::default();
    for resource in all.into_values() {
        match resource.resource {
            Some(resource::Resource::Provider(one)) => config.providers.push(one),
            Some(resource::Resource::VirtualModel(one)) => config.virtual_models.push(one),
            Some(resource::Resource::ApiKey(one)) => config.api_keys.push(one),
            Some(resource::Resource::PriceEntry(one)) => config.price_entries.push(one),
            Some(resource::Resource::Budget(one)) => config.budgets.push(one),
            // Of a kind that only newer builds know. A `State` keeps its hash.
            None => {}
        }
    }
    canonical(config)
}

/// Splits resources into parts of about half a megabyte. At least one part, and a
/// resource that is larger alone is a part of its own.
pub fn chunk(resources: Vec<Resource>) -> Vec<Vec<Resource>> {
    let mut parts = vec![Vec::new()];
    let mut size = 0;
    for resource in resources {
        let bytes = resource.encoded_len();
        if size > 0 && size + bytes > CHUNK_BYTES {
            parts.push(Vec::new());
            size = 0;
        }
        size += bytes;
        if let Some(part) = parts.last_mut() {
            part.push(resource);
        }
    }
    parts
}

/// A resource's identity, in canonical order.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Provider(String),
    VirtualModel(String),
    App(String),
    Price(String),
    Budget(String),
}

impl Key {
    fn of_name(name: &ResourceName) -> Option<Self> {
        Some(match name.name.clone()? {
            resource_name::Name::Provider(name) => Self::Provider(name),
            resource_name::Name::VirtualModel(name) => Self::VirtualModel(name),
            resource_name::Name::ApiKey(name) => Self::App(name),
            resource_name::Name::PriceEntry(name) => Self::Price(name),
            resource_name::Name::Budget(name) => Self::Budget(name),
        })
    }

    fn into_name(self) -> ResourceName {
        let key = self.text();
        let name = match self {
            Self::Provider(name) => resource_name::Name::Provider(name),
            Self::VirtualModel(name) => resource_name::Name::VirtualModel(name),
            Self::App(name) => resource_name::Name::ApiKey(name),
            Self::Price(name) => resource_name::Name::PriceEntry(name),
            Self::Budget(name) => resource_name::Name::Budget(name),
        };
        ResourceName { name: Some(name), key }
    }

    /// As in `Resource.key`.
    fn text(&self) -> String {
        match self {
            Self::Provider(name) => format!("provider/{name}"),
            Self::VirtualModel(name) => format!("virtual_model/{name}"),
            Self::App(name) => format!("api_key/{name}"),
            Self::Price(name) => format!("price_entry/{name}"),
            Self::Budget(name) => format!("budget/{name}"),
        }
    }
}

fn key(resource: &Resource) -> Option<Key> {
    Some(match resource.resource.as_ref()? {
        resource::Resource::Provider(one) => Key::Provider(one.name.clone()),
        resource::Resource::VirtualModel(one) => Key::VirtualModel(one.name.clone()),
        resource::Resource::ApiKey(one) => Key::App(one.name.clone()),
        resource::Resource::PriceEntry(one) => Key::Price(one.name.clone()),
        resource::Resource::Budget(one) => Key::Budget(one.name.clone()),
    })
}

fn by_key(resources: Vec<Resource>) -> BTreeMap<Key, Resource> {
    resources.into_iter().filter_map(|one| Some((key(&one)?, one))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::v1::{ApiKey, PriceEntry, Provider, VirtualModel};

    fn config(providers: &[&str], region: &str) -> Config {
        let provider = |name: &&str| Provider {
            name: (*name).to_owned(),
            region: region.to_owned(),
            ..Provider::default()
        };
        Config {
            providers: providers.iter().map(provider).collect(),
            virtual_models: vec![VirtualModel { name: "a".to_owned(), ..VirtualModel::default() }],
            api_keys: vec![ApiKey { name: "a".to_owned(), ..ApiKey::default() }],
            ..Config::default()
        }
    }

    #[test]
    fn the_hash_is_of_content_not_order() {
        let hash = state_sha256(&config(&["a", "b"], ""));
        assert_eq!(hash, state_sha256(&config(&["b", "a"], "")));
        assert_ne!(hash, state_sha256(&config(&["a", "c"], "")));
        assert_ne!(hash, state_sha256(&config(&["a", "b"], "eu")));
    }

    #[test]
    fn the_hash_never_changes() {
        // Agents and control planes of different builds compare it.
        let hash = state_sha256(&config(&["a", "b"], "eu"));
        let hex = hash.map(|byte| format!("{byte:02x}")).concat();
        assert_eq!(hex, "4a7882ef78e3ec34585d1fbb6bc745fbc437ebb11163f769ce14b2a9662c22a9");
    }

    #[test]
    fn agents_that_know_no_price_entries_agree_on_the_hash_without_them() {
        let mut priced = config(&["a", "b"], "eu");
        priced.price_entries.push(PriceEntry { name: "p".to_owned(), ..PriceEntry::default() });
        assert_eq!(state_sha256(&priced), state_sha256(&config(&["a", "b"], "eu")));
        assert_ne!(State::of(&priced).sha256(), State::of(&config(&["a", "b"], "eu")).sha256());
        let (upserts, removals) = delta(&config(&["a", "b"], "eu"), &priced);
        assert_eq!((upserts[0].key.as_str(), upserts.len(), removals.len()), ("price_entry/p", 1, 0));
        assert_eq!(apply(&config(&["a", "b"], "eu"), upserts, &removals), priced);
        let (upserts, removals) = delta(&priced, &config(&["a", "b"], "eu"));
        assert_eq!(apply(&priced, upserts, &removals), config(&["a", "b"], "eu"));
    }

    #[test]
    fn a_delta_holds_only_what_changed() {
        let (upserts, removals) = delta(&config(&["a", "b"], ""), &config(&["b", "c"], ""));
        assert_eq!(upserts.len(), 1);
        assert_eq!(removals, [Key::Provider("a".to_owned()).into_name()]);
        let none = delta(&config(&["a", "b"], ""), &config(&["b", "a"], ""));
        assert_eq!(none, (vec![], vec![]));
    }

    #[test]
    fn parts_are_bounded_and_lose_nothing() {
        let long = "x".repeat(100_000);
        let names: Vec<String> = (10..40).map(|number| number.to_string()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let all = snapshot(&config(&names, &long));
        let parts = chunk(all.clone());
        assert_eq!(parts.len(), 6);
        for part in &parts {
            assert!(part.iter().map(Message::encoded_len).sum::<usize>() <= CHUNK_BYTES);
        }
        assert_eq!(parts.concat(), all);
        assert_eq!(chunk(vec![]), [vec![]]);
    }

    #[test]
    fn one_huge_resource_is_a_part_of_its_own() {
        let parts = chunk(snapshot(&config(&["a", "b"], &"x".repeat(2 * CHUNK_BYTES))));
        assert_eq!(parts.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1, 2]);
    }
}
