//! A configuration together with the hashes that the control plane gave its resources.
//! An agent whose build does not know all fields or kinds still agrees with a newer
//! control plane on what it holds: it compares hashes that it was told, not those of
//! what it understood.

use std::collections::BTreeMap;

use prost::encoding::encode_varint;
use sha2::{Digest as _, Sha256};

use super::{Key, apply, key, plain, resource_sha256};
use crate::{
    admin::v1::Config,
    agent::v1::{Resource, ResourceName},
};

/// A configuration as one end of a stream holds it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    config: Config,
    hashes: BTreeMap<String, [u8; 32]>,
}

impl State {
    /// Of a configuration that this build knows in full: hashes are those of its own
    /// encoding.
    pub fn of(config: &Config) -> Self {
        Self::default().apply(plain(config), &[])
    }

    /// What [`State::config`] and [`State::hashes`] gave before.
    pub fn restored(config: Config, hashes: BTreeMap<String, [u8; 32]>) -> Self {
        Self { config, hashes }
    }

    /// With resources removed, then put in place. A resource of an unknown kind is kept
    /// as its key and hash. One without a hash, from a control plane that gives none,
    /// has that of its encoding here. One of an unknown kind without a key is left out;
    /// then the hash of the whole differs.
    #[must_use]
    pub fn apply(&self, upserts: Vec<Resource>, removals: &[ResourceName]) -> Self {
        let mut hashes = self.hashes.clone();
        for name in removals {
            let known = Key::of_name(name).map(|key| key.text());
            hashes.remove(known.as_deref().unwrap_or(&name.key));
        }
        for resource in &upserts {
            let key = key(resource).map_or_else(|| resource.key.clone(), |key| key.text());
            let told = <[u8; 32]>::try_from(resource.sha256.as_slice());
            if !key.is_empty() {
                hashes.insert(key, told.unwrap_or_else(|_| resource_sha256(resource)));
            }
        }
        Self { config: apply(&self.config, upserts, removals), hashes }
    }

    /// What this build understands of it. Canonical.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// SHA-256 of each resource by `Resource.key`, unknown kinds included.
    pub fn hashes(&self) -> &BTreeMap<String, [u8; 32]> {
        &self.hashes
    }

    /// The hash of the whole: SHA-256 over all resources in bytewise order of their
    /// keys, each as the key's length as a varint, the key, and the resource's hash.
    pub fn sha256(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        for (key, one) in &self.hashes {
            let mut length = Vec::new();
            encode_varint(key.len() as u64, &mut length);
            hash.update(length);
            hash.update(key);
            hash.update(one);
        }
        hash.finalize().into()
    }

    /// Keys of resources that hold more than this build knows: their encoding here has
    /// another hash, or their kind is unknown.
    pub fn not_fully_known(&self) -> Vec<&str> {
        let own = plain(&self.config);
        let own: BTreeMap<String, [u8; 32]> =
            own.iter().filter_map(|one| Some((key(one)?.text(), resource_sha256(one)))).collect();
        let known = |(key, hash): &(&String, &[u8; 32])| own.get(*key) == Some(*hash);
        self.hashes.iter().filter(|one| !known(one)).map(|(key, _)| key.as_str()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        convert::sync::{delta, snapshot},
        types::v1::{ApiKey, Provider, VirtualModel},
    };

    fn config(region: &str) -> Config {
        let provider = Provider { name: "a".into(), region: region.into(), ..Provider::default() };
        Config {
            providers: vec![provider],
            virtual_models: vec![VirtualModel { name: "m".into(), ..VirtualModel::default() }],
            api_keys: vec![ApiKey { name: "k".into(), ..ApiKey::default() }],
            ..Config::default()
        }
    }

    #[test]
    fn the_hash_never_changes() {
        // Agents and control planes of different builds compare it.
        let hex = State::of(&config("eu")).sha256().map(|byte| format!("{byte:02x}")).concat();
        assert_eq!(hex, "87ee6a40f894f1be2d4839a4af0a6b999ae0863d7eb24c7c675bc88552e6ea3a");
    }

    #[test]
    fn a_delta_leads_to_the_hash_of_the_new_configuration() {
        let (old, new) = (config(""), Config { api_keys: vec![], ..config("eu") });
        let (upserts, removals) = delta(&old, &new);
        let state = State::of(&old).apply(upserts, &removals);
        assert_eq!((state.sha256(), state.config()), (State::of(&new).sha256(), &new));
        assert_eq!(state, State::default().apply(snapshot(&new), &[]));
        assert!(state.not_fully_known().is_empty());
    }

    #[test]
    fn unknown_fields_and_kinds_count_by_the_hashes_that_came_with_them() {
        let mut upserts = snapshot(&config("eu"));
        // As if this build had dropped a field of it.
        upserts[0].sha256 = vec![7; 32];
        let unknown = Resource { sha256: vec![9; 32], key: "lottery/b".into(), resource: None };
        upserts.push(unknown);
        let state = State::default().apply(upserts, &[]);
        assert_eq!(state.config(), &config("eu"));
        assert_eq!(state.not_fully_known(), ["lottery/b", "provider/a"]);
        assert_ne!(state.sha256(), State::of(&config("eu")).sha256());

        let gone = ResourceName { name: None, key: "lottery/b".into() };
        let (upserts, _) = delta(&config(""), &config("eu"));
        assert_eq!(state.apply(upserts, &[gone]), State::of(&config("eu")));
    }

    #[test]
    fn resources_without_hashes_have_those_of_their_encoding() {
        let state = State::default().apply(plain(&config("eu")), &[]);
        assert_eq!(state.sha256(), State::of(&config("eu")).sha256());
    }
}
