//! What one revision changed, cut into parts. Remembers which resources are left by their
//! place in the state; the caller brings the state.

use std::collections::VecDeque;

use prost::Message;
use trunkline_proto::admin::v1::{
    Config, WatchResourcesResponse, WatchedName, WatchedResource, watched_name, watched_resource,
};

use crate::{
    grpc::{
        admin::{api_keys, budgets, prices, providers, virtual_models},
        wire_version,
    },
    repository::ConfigState,
};

/// Encoded bytes of a part: below half a MiB with the message around it. A resource
/// that is larger alone is a part of its own.
const PART_BYTES: usize = 500 * 1024;

/// Of each entry: its tags and lengths, and an etag.
const ENTRY_BYTES: usize = 96;

/// What is left of one revision.
#[derive(Debug)]
pub(super) struct Plan {
    revision: u64,
    initial: bool,
    left: VecDeque<Entry>,
}

/// A resource by its place in the canonical configuration, or the name of one that is
/// gone.
#[derive(Debug, PartialEq)]
#[expect(clippy::enum_variant_names, reason = "a price entry is called so on the wire")]
enum Entry {
    Provider(usize),
    VirtualModel(usize),
    ApiKey(usize),
    PriceEntry(usize),
    Budget(usize),
    Gone(watched_name::Name),
}

impl Plan {
    /// Everything.
    pub(super) fn listing(state: &ConfigState) -> Self {
        Self { initial: true, ..Self::between(&Config::default(), state) }
    }

    /// What leads from `before` to `after`.
    pub(super) fn change(before: &ConfigState, after: &ConfigState) -> Self {
        Self::between(&before.config, after)
    }

    fn between(before: &Config, after: &ConfigState) -> Self {
        let mut left = VecDeque::new();
        let now = &after.config;
        let named = |name: &str| name.to_owned();
        compare(
            &before.providers,
            &now.providers,
            |one| &one.name,
            |found| {
                left.push_back(match found {
                    Found::Here(index) => Entry::Provider(index),
                    Found::Gone(name) => Entry::Gone(watched_name::Name::Provider(named(name))),
                });
            },
        );
        compare(
            &before.virtual_models,
            &now.virtual_models,
            |one| &one.name,
            |found| {
                left.push_back(match found {
                    Found::Here(index) => Entry::VirtualModel(index),
                    Found::Gone(name) => Entry::Gone(watched_name::Name::VirtualModel(named(name))),
                });
            },
        );
        compare(
            &before.api_keys,
            &now.api_keys,
            |one| &one.name,
            |found| {
                left.push_back(match found {
                    Found::Here(index) => Entry::ApiKey(index),
                    Found::Gone(name) => Entry::Gone(watched_name::Name::ApiKey(named(name))),
                });
            },
        );
        compare(
            &before.price_entries,
            &now.price_entries,
            |one| &one.name,
            |found| {
                left.push_back(match found {
                    Found::Here(index) => Entry::PriceEntry(index),
                    Found::Gone(name) => Entry::Gone(watched_name::Name::PriceEntry(named(name))),
                });
            },
        );
        compare(
            &before.budgets,
            &now.budgets,
            |one| &one.name,
            |found| {
                left.push_back(match found {
                    Found::Here(index) => Entry::Budget(index),
                    Found::Gone(name) => Entry::Gone(watched_name::Name::Budget(named(name))),
                });
            },
        );
        Self { revision: after.version.revision, initial: false, left }
    }

    /// Which revision it leads to.
    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    /// Takes the next part, at least one entry if any is left. `state` is that of
    /// [`Self::revision`].
    pub(super) fn part(&mut self, state: &ConfigState) -> WatchResourcesResponse {
        let mut part = WatchResourcesResponse {
            version: Some(wire_version(&state.version)),
            initial: self.initial,
            ..WatchResourcesResponse::default()
        };
        let mut bytes = 0;
        while let Some(entry) = self.left.front() {
            bytes += entry.bytes(&state.config);
            if bytes > PART_BYTES && !(part.upserts.is_empty() && part.removals.is_empty()) {
                break;
            }
            match self.left.pop_front() {
                Some(Entry::Gone(name)) => part.removals.push(WatchedName { name: Some(name) }),
                Some(entry) => part.upserts.push(WatchedResource { resource: entry.resource(&state.config) }),
                None => {}
            }
        }
        part.more = !self.left.is_empty();
        part
    }
}

impl Entry {
    fn bytes(&self, config: &Config) -> usize {
        let bytes = match self {
            Self::Provider(index) => config.providers.get(*index).map(Message::encoded_len),
            Self::VirtualModel(index) => config.virtual_models.get(*index).map(Message::encoded_len),
            Self::ApiKey(index) => config.api_keys.get(*index).map(Message::encoded_len),
            Self::PriceEntry(index) => config.price_entries.get(*index).map(Message::encoded_len),
            Self::Budget(index) => config.budgets.get(*index).map(Message::encoded_len),
            Self::Gone(
                watched_name::Name::Provider(name)
                | watched_name::Name::VirtualModel(name)
                | watched_name::Name::ApiKey(name)
                | watched_name::Name::PriceEntry(name)
                | watched_name::Name::Budget(name),
            ) => Some(name.len()),
        };
        bytes.unwrap_or_default() + ENTRY_BYTES
    }

    /// The resource as Get shows it.
    fn resource(&self, config: &Config) -> Option<watched_resource::Resource> {
        use watched_resource::Resource;
        match self {
            Self::Provider(index) => {
                config.providers.get(*index).cloned().map(providers::with_etag).map(Resource::Provider)
            }
            Self::VirtualModel(index) => {
                let model = config.virtual_models.get(*index).cloned();
                model.map(virtual_models::with_etag).map(Resource::VirtualModel)
            }
            Self::ApiKey(index) => {
                config.api_keys.get(*index).cloned().map(api_keys::with_etag).map(Resource::ApiKey)
            }
            Self::PriceEntry(index) => {
                let entry = config.price_entries.get(*index).cloned();
                entry.map(prices::with_etag).map(Resource::PriceEntry)
            }
            Self::Budget(index) => {
                config.budgets.get(*index).cloned().map(budgets::with_etag).map(Resource::Budget)
            }
            Self::Gone(_) => None,
        }
    }
}

/// One difference.
enum Found<'a> {
    /// New or changed, at that place.
    Here(usize),
    /// Gone.
    Gone(&'a str),
}

/// Tells what differs between two lists that are sorted by name.
fn compare<'a, T: PartialEq + 'a>(
    before: &'a [T],
    now: &[T],
    name: impl Fn(&T) -> &str,
    mut found: impl FnMut(Found<'a>),
) {
    let mut old = before.iter().peekable();
    for (index, one) in now.iter().enumerate() {
        while let Some(gone) = old.next_if(|old| name(old) < name(one)) {
            found(Found::Gone(name(gone)));
        }
        let same = old.next_if(|old| name(old) == name(one));
        if same != Some(one) {
            found(Found::Here(index));
        }
    }
    for gone in old {
        found(Found::Gone(name(gone)));
    }
}
