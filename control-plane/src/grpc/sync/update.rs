//! Updates of the routing table, made once per pair of states and shared by all
//! agents that need the same one.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::{OnceCell, Semaphore};
use tonic::Status;
use trunkline_proto::{agent::v1::Update, convert::sync, types::v1::Version};

use crate::{
    grpc::wire_version,
    repository::{ConfigState, Repository},
};

/// Updates that are kept, all to the newest state. Agents are nearly always on the newest
/// revision or a few behind; other updates are made again.
const KEPT_MAX: usize = 16;

/// Updates that are made at a time: each encodes and hashes up to 20 MB. The rest of the
/// processors is for everything else.
const MAKING_MAX: usize = 2;

/// Updates that lead to the newest state.
#[derive(Debug)]
pub(super) struct Updates {
    newest: Mutex<Newest>,
    making: Semaphore,
}

#[derive(Debug, Default)]
struct Newest {
    version: Option<Version>,
    made: HashMap<Key, Made>,
}

/// What an update depends on beside its end: the base's revision, and whether it is forced.
type Key = (Option<u64>, bool);

/// Whoever asks first makes it; the others wait for that.
type Made = Arc<OnceCell<Arc<[Update]>>>;

impl Default for Updates {
    fn default() -> Self {
        Self { newest: Mutex::default(), making: Semaphore::new(MAKING_MAX) }
    }
}

impl Updates {
    /// The parts of the update to `state`, without a nonce: a delta on `base`,
    /// without one a snapshot. `held` is what the agent has, whatever the update is based
    /// on.
    pub(super) async fn to(
        &self,
        repository: &Repository,
        state: &Arc<ConfigState>,
        base: Option<Arc<ConfigState>>,
        held: &Version,
    ) -> Result<Arc<[Update]>, Status> {
        let force = forced_since(repository, state, held);
        let key = (base.as_ref().map(|base| base.version.revision), force);
        let made = self.place(wire_version(&state.version), key);
        made.get_or_try_init(|| self.make(Arc::clone(state), base, force)).await.cloned()
    }

    /// Shared with all that need the same, while there is room.
    fn place(&self, version: Version, key: Key) -> Made {
        let mut newest = self.newest.lock();
        if newest.version.as_ref() != Some(&version) {
            *newest = Newest { version: Some(version), made: HashMap::new() };
        }
        if let Some(made) = newest.made.get(&key) {
            return Arc::clone(made);
        }
        let made = Made::default();
        if newest.made.len() < KEPT_MAX {
            newest.made.insert(key, Arc::clone(&made));
        }
        made
    }

    async fn make(
        &self,
        state: Arc<ConfigState>,
        base: Option<Arc<ConfigState>>,
        force: bool,
    ) -> Result<Arc<[Update]>, Status> {
        // The semaphore is never closed.
        let _place = self.making.acquire().await.map_err(|error| Status::internal(error.to_string()))?;
        let made = tokio::task::spawn_blocking(move || make(&state, base.as_deref(), force).into());
        made.await.map_err(|error| Status::internal(format!("a bug in the control plane: {error}")))
    }
}

/// Whether an operator confirmed a removal that the agent has not seen yet.
fn forced_since(repository: &Repository, state: &ConfigState, held: &Version) -> bool {
    if state.forced {
        return true;
    }
    let known = if held.epoch == state.version.epoch { held.revision } else { 0 };
    let unseen = (known + 1..state.version.revision).rev();
    unseen.map_while(|revision| repository.recent(revision)).any(|state| state.forced)
}

fn make(state: &ConfigState, base: Option<&ConfigState>, force: bool) -> Vec<Update> {
    let (upserts, removals) = match base {
        Some(base) => sync::delta(&base.config, &state.config),
        None => (sync::snapshot(&state.config), Vec::new()),
    };
    let mut parts = sync::chunk(upserts);
    let last = parts.pop().unwrap_or_default();
    let version = Some(wire_version(&state.version));
    let template = Update {
        version,
        base: base.map(|base| wire_version(&base.version)),
        full: base.is_none(),
        force,
        ..Update::default()
    };
    let mut updates: Vec<_> =
        parts.into_iter().map(|upserts| Update { upserts, more: true, ..template.clone() }).collect();
    let state_sha256 = sync::state_sha256(&state.config).to_vec().into();
    let resources_sha256 = sync::State::of(&state.config).sha256().to_vec().into();
    updates.push(Update { upserts: last, removals, state_sha256, resources_sha256, ..template });
    updates
}

#[cfg(test)]
mod tests {
    use trunkline_proto::{
        admin::v1::Config,
        types::v1::{Dialect, Provider},
    };

    use super::*;
    use crate::repository::{ConfigWrite, RepositoryOptions};

    #[tokio::test]
    async fn agents_that_need_the_same_update_share_it_also_when_it_is_forced() {
        let repository = Repository::open(RepositoryOptions::default()).unwrap();
        let provider = Provider {
            name: "a".to_owned(),
            dialect: Dialect::Openai.into(),
            base_url: "https://api.example.com/v1".to_owned(),
            ..Provider::default()
        };
        let write = ConfigWrite {
            config: Config { providers: vec![provider], ..Config::default() },
            expected_revision: 0,
            principal: "tester".to_owned(),
            method: "ApplyConfig",
            request_id: None,
            request_sha256: [0; 32],
            force: true,
        };
        let before = repository.state();
        let state = repository.commit(write).await.unwrap();
        assert!(state.forced);
        let (updates, new) = (Updates::default(), Version::default());
        let (one, other) = tokio::join!(
            updates.to(&repository, &state, None, &new),
            updates.to(&repository, &state, None, &new)
        );
        let (one, other) = (one.unwrap(), other.unwrap());
        assert!(one[0].force && Arc::ptr_eq(&one, &other));
        // Another base is another update.
        let held = wire_version(&before.version);
        let delta = updates.to(&repository, &state, Some(before), &held).await.unwrap();
        assert!(delta[0].force && !delta[0].full);
        assert_eq!(updates.newest.lock().made.len(), 2);
    }
}
