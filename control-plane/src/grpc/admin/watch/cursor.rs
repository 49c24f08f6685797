//! How far a watcher is, and what it gets next. Pure but for reading the newest states;
//! holds none of them, so that a watcher that reads slowly keeps nothing in memory.

use std::collections::HashMap;

use tonic::Status;
use trunkline_proto::{admin::v1::WatchResourcesResponse, status, types::v1::Version};

use super::part::Plan;
use crate::repository::Repository;

/// The place of one watcher.
#[derive(Debug)]
pub(super) struct Cursor {
    /// All up to it was sent. In a first listing it is not yet true, but nobody is told.
    at: Version,
    /// What is left of the revision under way.
    under_way: Option<Plan>,
}

impl Cursor {
    /// Goes on after `after`; without it, begins with everything there is.
    pub(super) fn new(repository: &Repository, after: Option<&Version>) -> Result<Self, Status> {
        let state = repository.state();
        let Some(after) = after else {
            let at = Version { epoch: state.version.epoch.clone(), revision: state.version.revision };
            return Ok(Self { at, under_way: Some(Plan::listing(&state)) });
        };
        if after.epoch.is_empty() {
            let right =
                "must be that of a message of this stream; leave `after` out to begin with all resources";
            return Err(status::invalid_field("after.epoch", right));
        }
        if after.epoch != state.version.epoch || repository.recent(after.revision).is_none() {
            return Err(compacted(repository, after));
        }
        Ok(Self { at: after.clone(), under_way: None })
    }

    /// The next part. None: the watcher has seen all there is.
    pub(super) fn next(&mut self, repository: &Repository) -> Result<Option<WatchResourcesResponse>, Status> {
        let plan = match &mut self.under_way {
            Some(plan) => plan,
            None if repository.state().version.revision <= self.at.revision => return Ok(None),
            None => {
                let (before, after) =
                    (repository.recent(self.at.revision), repository.recent(self.at.revision + 1));
                let (Some(before), Some(after)) = (before, after) else {
                    return Err(compacted(repository, &self.at));
                };
                self.under_way.insert(Plan::change(&before, &after))
            }
        };
        let Some(state) = repository.recent(plan.revision()) else {
            return Err(compacted(repository, &self.at));
        };
        let part = plan.part(&state);
        if !part.more {
            self.at.revision = plan.revision();
            self.under_way = None;
        }
        Ok(Some(part))
    }

    /// Says where the watcher is, once it has seen all there is.
    pub(super) fn sign_of_life(&self) -> WatchResourcesResponse {
        WatchResourcesResponse { version: Some(self.at.clone()), ..WatchResourcesResponse::default() }
    }
}

fn compacted(repository: &Repository, after: &Version) -> Status {
    let current = repository.state().version.clone();
    let held = (0..=current.revision).rev().take_while(|revision| repository.recent(*revision).is_some());
    let oldest = held.last().unwrap_or(current.revision);
    let message = if after.epoch != current.epoch {
        format!(
            "{:?} is not this store's epoch: its state is another one; begin without `after`",
            after.epoch
        )
    } else if after.revision > current.revision {
        format!(
            "revision {} is newer than this store, which is at {}; begin without `after`",
            after.revision, current.revision
        )
    } else {
        format!(
            "what followed revision {} is not held any more, only from {oldest} on; begin without `after`",
            after.revision
        )
    };
    let metadata = HashMap::from([
        ("epoch".to_owned(), current.epoch.clone()),
        ("oldest_revision".to_owned(), oldest.to_string()),
        ("current_revision".to_owned(), current.revision.to_string()),
    ]);
    status::out_of_range("REVISION_COMPACTED", message, metadata)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tonic_types::StatusExt;
    use trunkline_proto::{
        admin::v1::{Config, WatchedResource, watched_name::Name, watched_resource::Resource},
        convert,
        types::v1::{ApiKey, Dialect, Provider},
    };

    use super::*;
    use crate::repository::{ConfigWrite, RepositoryOptions};

    /// One more than the newest states that are held.
    const BEYOND: u64 = 257;

    fn config(providers: &[(u8, u8)]) -> Config {
        let provider = |(name, region): &(u8, u8)| Provider {
            name: format!("p{name}"),
            dialect: Dialect::Openai.into(),
            base_url: "https://api.example.com/v1".into(),
            region: format!("r{region}"),
            ..Provider::default()
        };
        let key = |(name, region): &(u8, u8)| ApiKey {
            name: format!("k{name}"),
            secret_sha256: format!("{:02x}", region % 2).repeat(31) + &format!("{name:02x}"),
            ..ApiKey::default()
        };
        let providers: std::collections::BTreeMap<u8, u8> = providers.iter().copied().collect();
        let providers: Vec<_> = providers.into_iter().collect();
        let api_keys = providers.iter().filter(|(name, _)| name % 2 == 0).map(key).collect();
        Config { providers: providers.iter().map(provider).collect(), api_keys, ..Config::default() }
    }

    async fn commit(repository: &Repository, config: Config) {
        let write = ConfigWrite {
            config,
            expected_revision: repository.state().version.revision,
            principal: "tester".into(),
            method: "ApplyConfig",
            request_id: None,
            request_sha256: [0; 32],
            force: true,
        };
        repository.commit(write).await.unwrap();
    }

    async fn in_memory() -> std::sync::Arc<Repository> {
        tokio::task::spawn_blocking(|| Repository::open(RepositoryOptions::default())).await.unwrap().unwrap()
    }

    /// What a watcher knows.
    #[derive(Clone, Default)]
    struct Replica {
        config: Config,
        /// After the last whole revision, with the state of then.
        whole: Option<(Version, Config)>,
    }

    impl Replica {
        fn take(&mut self, part: WatchResourcesResponse) {
            assert!(prost::Message::encoded_len(&part) < 512 * 1024);
            let version = part.version.unwrap();
            if let Some((before, _)) = &self.whole {
                assert_eq!(version.revision, before.revision + 1, "none skipped, none twice");
            }
            for WatchedResource { resource } in part.upserts {
                match resource.unwrap() {
                    Resource::Provider(mut one) => {
                        let etag = std::mem::take(&mut one.etag);
                        assert_eq!(etag, convert::etag_of_provider(&one));
                        self.config.providers.retain(|known| known.name != one.name);
                        self.config.providers.push(one);
                    }
                    Resource::VirtualModel(one) => self.config.virtual_models.push(one),
                    Resource::PriceEntry(one) => self.config.price_entries.push(one),
                    Resource::ApiKey(one) => {
                        self.config.api_keys.retain(|known| known.name != one.name);
                        self.config.api_keys.push(one);
                    }
                    Resource::Budget(one) => self.config.budgets.push(one),
                }
            }
            for name in part.removals {
                match name.name.unwrap() {
                    Name::Provider(name) => self.config.providers.retain(|known| known.name != name),
                    Name::VirtualModel(name) => self.config.virtual_models.retain(|known| known.name != name),
                    Name::PriceEntry(name) => self.config.price_entries.retain(|known| known.name != name),
                    Name::ApiKey(name) => self.config.api_keys.retain(|known| known.name != name),
                    Name::Budget(name) => self.config.budgets.retain(|known| known.name != name),
                }
            }
            if !part.more {
                self.config = convert::canonical(std::mem::take(&mut self.config));
                self.whole = Some((version, self.config.clone()));
            }
        }

        /// What it resumes from when the stream breaks.
        fn breaks(&mut self) -> Option<Version> {
            let (version, config) = self.whole.clone().unzip();
            self.config = config.unwrap_or_default();
            version
        }
    }

    fn reason(status: &Status) -> (tonic::Code, String) {
        (status.code(), status.get_details_error_info().unwrap().reason)
    }

    #[derive(Clone, Debug)]
    enum Step {
        Commit(Vec<(u8, u8)>),
        Read(usize),
        Break,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let commit = prop::collection::vec((0..8_u8, 0..4_u8), 0..8).prop_map(Step::Commit);
        let step = prop_oneof![4 => commit, 3 => (1..6_usize).prop_map(Step::Read), 1 => Just(Step::Break)];
        prop::collection::vec(step, 1..80)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn what_is_replayed_is_each_state_in_turn(steps in steps()) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let repository = in_memory().await;
                let mut cursor = Cursor::new(&repository, None).unwrap();
                let mut replica = Replica::default();
                let read = |cursor: &mut Cursor, replica: &mut Replica| {
                    let part = cursor.next(&repository).unwrap();
                    let is_some = part.is_some();
                    if let Some(part) = part {
                        replica.take(part);
                        let (version, config) = replica.whole.clone().unwrap();
                        assert_eq!(config, repository.recent(version.revision).unwrap().config);
                    }
                    is_some
                };
                for step in steps {
                    match step {
                        Step::Commit(providers) => commit(&repository, config(&providers)).await,
                        Step::Read(times) => for _ in 0..times { read(&mut cursor, &mut replica); },
                        Step::Break => cursor = Cursor::new(&repository, replica.breaks().as_ref()).unwrap(),
                    }
                }
                while read(&mut cursor, &mut replica) {}
                assert_eq!(replica.config, repository.state().config);
            });
        }
    }

    #[tokio::test]
    async fn a_large_revision_comes_in_parts_and_is_resumed_from_before_it() {
        let repository = in_memory().await;
        let mut large = config(&(0..250).map(|name| (name, 1)).collect::<Vec<_>>());
        for provider in &mut large.providers {
            provider.deployments = (0..50)
                .map(|number| trunkline_proto::types::v1::Deployment {
                    name: format!("d{number}"),
                    upstream_model: "m".repeat(60),
                    ..Default::default()
                })
                .collect();
        }
        commit(&repository, config(&[(0, 0)])).await;
        let mut cursor = Cursor::new(&repository, None).unwrap();
        let mut replica = Replica::default();
        replica.take(cursor.next(&repository).unwrap().unwrap());
        commit(&repository, large.clone()).await;
        let first = cursor.next(&repository).unwrap().unwrap();
        assert!(first.more && !first.initial);
        replica.take(first);

        let resumed = replica.breaks();
        assert_eq!(resumed.as_ref().unwrap().revision, 1);
        let mut cursor = Cursor::new(&repository, resumed.as_ref()).unwrap();
        let mut parts = 0;
        while let Some(part) = cursor.next(&repository).unwrap() {
            parts += 1;
            replica.take(part);
        }
        assert!(parts > 1, "{parts}");
        assert_eq!(replica.config, repository.state().config);
    }

    #[tokio::test]
    async fn one_who_is_too_far_behind_is_told_and_can_begin_again() {
        let repository = in_memory().await;
        let mut cursor = Cursor::new(&repository, None).unwrap();
        let mut replica = Replica::default();
        replica.take(cursor.next(&repository).unwrap().unwrap());
        for revision in 0..BEYOND {
            commit(&repository, config(&[(1, (revision % 2) as u8)])).await;
        }
        let behind = cursor.next(&repository).unwrap_err();
        assert_eq!(reason(&behind), (tonic::Code::OutOfRange, "REVISION_COMPACTED".into()));
        let metadata = behind.get_details_error_info().unwrap().metadata;
        let oldest: u64 = metadata["oldest_revision"].parse().unwrap();
        assert_eq!(metadata["current_revision"], BEYOND.to_string());
        assert!(repository.recent(oldest).is_some() && repository.recent(oldest - 1).is_none());

        let epoch = repository.state().version.epoch.clone();
        let from = |epoch: &str, revision| {
            Cursor::new(&repository, Some(&Version { epoch: epoch.to_owned(), revision }))
        };
        assert!(from(&epoch, oldest).is_ok());
        for (epoch, revision) in [(epoch.as_str(), oldest - 1), ("another", oldest), (&epoch, BEYOND + 1)] {
            let refused = from(epoch, revision).unwrap_err();
            assert_eq!(reason(&refused).1, "REVISION_COMPACTED", "{epoch} {revision}");
        }
        assert_eq!(from("", 1).unwrap_err().code(), tonic::Code::InvalidArgument);
        let mut cursor = Cursor::new(&repository, None).unwrap();
        let all = cursor.next(&repository).unwrap().unwrap();
        assert_eq!((all.initial, all.more, all.version.unwrap().revision), (true, false, BEYOND));
        assert_eq!(cursor.next(&repository).unwrap(), None);
    }

    #[tokio::test]
    async fn a_listing_under_way_whose_state_is_gone_ends() {
        let repository = in_memory().await;
        commit(&repository, config(&[(1, 1)])).await;
        let mut cursor = Cursor::new(&repository, None).unwrap();
        for revision in 0..BEYOND {
            commit(&repository, config(&[(1, (revision % 2) as u8)])).await;
        }
        assert_eq!(cursor.next(&repository).unwrap_err().code(), tonic::Code::OutOfRange);
    }
}
