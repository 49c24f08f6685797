//! What was merged before this start.

use std::collections::HashMap;

use prost::Message as _;

use super::agents::Agents;
use super::level::Level;
use super::rollups::Rollups;
use super::stored::{self, Mark, Size, Unreadable};
use super::{Counts, KEYS_MAX, TRAFFIC_SECS};
use crate::repository::{Blob, CommitError, Repository};

/// Why telemetry cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// The store did not give it.
    #[error(transparent)]
    Store(#[from] CommitError),
    /// It is damaged.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
}

impl From<LoadError> for CommitError {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Store(error) => error,
            LoadError::Unreadable(error) => Self::ReadOnly { reason: error.to_string() },
        }
    }
}

/// Reads totals, sequences, the sizes of all steps, and the rows of those that are open.
/// Rows of the past stay on disk until somebody asks for them. `now` is in seconds since
/// 1970.
///
/// # Errors
/// If the store does not give it, or it is damaged.
pub(super) async fn load(repository: &Repository, now: u64) -> Result<(Counts, Agents), LoadError> {
    let mut totals = HashMap::new();
    for (_, value) in repository.scan_blobs(stored::TOTALS).await? {
        let (key, counts) = stored::read_totals(&value)?;
        totals.insert(key, counts);
    }
    let mut agents = Agents::default();
    for (key, value) in repository.scan_blobs(stored::SEQUENCES).await? {
        let (slot, agent_id, sequences) = stored::read_sequences(&key, &value)?;
        agents.insert(slot, agent_id, sequences);
    }
    let rollups = rollups(repository).await?;
    let traffic = traffic(repository, &rollups, now).await?;
    Ok((Counts { totals, rollups, traffic, missing: None, keys_max: KEYS_MAX }, agents))
}

async fn rollups(repository: &Repository) -> Result<Rollups, LoadError> {
    let mut rollups = Rollups::new();
    for (_, value) in repository.scan_blobs(stored::MARK).await? {
        let Mark { open, reach } = Mark::decode(value.as_slice()).map_err(Unreadable::from)?;
        rollups.open = open;
        for (steps, reach) in rollups.levels.iter_mut().zip(reach) {
            steps.reach = reach;
        }
    }
    for (key, value) in repository.scan_blobs(stored::PAIRS).await? {
        let (id, pair, hour) = stored::read_pair(&key, &value)?;
        let hour = hour.unwrap_or(rollups.open_step(Level::Hour));
        rollups.pairs.insert(id, pair, hour);
    }
    for (key, value) in repository.scan_blobs(stored::STEPS).await? {
        let (level, step, size) = stored::read_step(&key, &value)?;
        rollups.resize(level, step, Some(size));
    }
    let open = Level::ALL.map(|level| stored::rows_of(level, rollups.open_step(level)));
    for (key, value) in repository.scan_blobs_of(open.to_vec()).await? {
        let bytes = (key.len() + value.len()) as u64;
        let (address, row) = (stored::read_address(&key)?, stored::read_row(&value)?);
        let steps = &mut rollups.levels[address.level.index()];
        steps.live.insert(address.pair, (row, bytes));
    }
    for level in Level::ALL {
        let live = &rollups.steps(level).live;
        let size = Size { rows: live.len() as u64, bytes: live.values().map(|(_, bytes)| bytes).sum() };
        let size = (size.rows > 0).then_some(size);
        rollups.resize(level, rollups.open_step(level), size);
    }
    Ok(rollups)
}

/// By virtual model, the latest time of an attempt as far as the removal guard asks, by
/// the minute.
async fn traffic(
    repository: &Repository,
    rollups: &Rollups,
    now: u64,
) -> Result<HashMap<String, u64>, LoadError> {
    let level = Level::Minute;
    let first = level.step_at(now.saturating_sub(TRAFFIC_SECS));
    let minutes = rollups.steps(level).sizes.range(first..=level.step_at(now));
    let minutes = minutes.map(|(step, _)| stored::rows_of(level, *step)).collect();
    let blobs: Vec<Blob> = repository.scan_blobs_of(minutes).await?;
    let keys = rollups.pairs.select(|_| true);
    let mut traffic: HashMap<String, u64> = HashMap::new();
    let mut note = |pair, attempts, secs: u64| {
        if let Some(key) = keys.get(&pair)
            && attempts > 0
        {
            let last = traffic.entry(key.model.clone()).or_default();
            *last = secs.max(*last);
        }
    };
    for (key, value) in blobs {
        let address = stored::read_address(&key)?;
        // At the end of its minute: rather too long than too short.
        note(address.pair, stored::read_row(&value)?.attempts(), level.start_of(address.step + 1));
    }
    // What was not folded into its minute yet.
    for (pair, (totals, _)) in &rollups.steps(Level::TenSeconds).live {
        note(*pair, totals.attempts(), rollups.open);
    }
    Ok(traffic)
}
