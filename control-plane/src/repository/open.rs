//! Opening: take the directory, check the journal, bring the view up to date, publish.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::{Semaphore, watch};
use trunkline_routing::table::Version;

use super::fold::Folded;
use super::history::Places;
use super::recent::{self, Recent};
use super::requests::Requests;
use super::transfer;
use super::view::{Mark, View};
use super::writer::{Disk, Writer};
use super::{ConfigState, OpenError, RepositoryOptions, Shared, now_unix_ms};
use crate::store::ballast::Ballast;
use crate::store::journal::{Found, Journal, JournalReader, Opened, Record, Snapshot};
use crate::store::sled::{SledStore, move_aside};
use crate::store::{StoreError, StoreHealth, directory};

pub(super) fn open(options: &RepositoryOptions) -> Result<(Writer, Arc<Shared>), OpenError> {
    match &options.data_dir {
        Some(directory) => open_on_disk(directory, options),
        None => open_in_memory(),
    }
}

fn open_in_memory() -> Result<(Writer, Arc<Shared>), OpenError> {
    let epoch = uuid::Uuid::new_v4().to_string();
    let folded = (Folded::default(), Requests::default());
    let shared = publish(&epoch, &folded.0, Recent::default(), None)?;
    let writer = Writer::new(Arc::clone(&shared), epoch, folded, View::in_memory(), None);
    Ok((writer, shared))
}

fn open_on_disk(data_dir: &Path, options: &RepositoryOptions) -> Result<(Writer, Arc<Shared>), OpenError> {
    let lock = directory::lock(data_dir).map_err(|cause| OpenError::Io {
        action: "lock",
        path: data_dir.to_owned(),
        cause,
    })?;
    let lock = lock.ok_or_else(|| OpenError::InUse { directory: data_dir.to_owned() })?;
    let journal_dir = data_dir.join("journal");
    if let Some(file) = &options.import {
        transfer::import(file, data_dir)?;
    }
    let read = Journal::read(&journal_dir)?;
    let mut found = open_view(data_dir);
    if !options.accept_rollback {
        check_view(&found, &read, &journal_dir)?;
    }
    let opened = read.open()?;
    // What is acknowledged must be found again after a power loss: so must its directory.
    for directory in [Some(data_dir), data_dir.parent()].into_iter().flatten() {
        let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
        directory::sync_directory(directory).map_err(|cause| OpenError::Io {
            action: "sync",
            path: directory.to_owned(),
            cause,
        })?;
    }
    if opened.torn_bytes > 0 {
        tracing::warn!(
            bytes = opened.torn_bytes,
            "the journal ended in an interrupted write that was never acknowledged; cut off"
        );
    }
    if let Some(missing) = &opened.missing {
        tracing::error!("{missing}");
    }
    let Opened { mut journal, snapshot, mut records, missing, .. } = opened;
    if options.accept_rollback {
        records.push(new_epoch(&mut journal, &snapshot, &records)?);
    }
    let recent = recent::of(journal.epoch(), &snapshot, &records);
    let (mut folded, mut requests) = Folded::from_snapshot(snapshot);
    for record in records {
        folded.apply(record).into_iter().for_each(|done| requests.insert(done));
    }
    let shared = publish(journal.epoch(), &folded, recent, Some(journal.reader()))?;

    let mark = Mark::new(journal.epoch(), journal.tip());
    let state = Arc::clone(&shared.config.borrow());
    bring_up_to_date(&mut found, &mark, &state, &folded, options.import.is_some());
    let ballast = Ballast::of(data_dir);
    if let (Err(cause), None) = (ballast.load(), &found.trouble) {
        found.trouble = Some(format!("no space for the ballast in {}: {cause}", data_dir.display()));
    }

    let epoch = journal.epoch().to_owned();
    let accept_rollback = options.accept_rollback;
    let disk = Disk { journal, ballast, data_dir: data_dir.to_owned(), accept_rollback, lock };
    let mut writer = Writer::new(Arc::clone(&shared), epoch, (folded, requests), found.view, Some(disk));
    let lost: Vec<_> = [missing, found.lost].into_iter().flatten().collect();
    writer.begin((!lost.is_empty()).then(|| lost.join("; ")), found.trouble);
    Ok((writer, shared))
}

/// Gives the journal another name, so that what is committed from now on is never taken
/// for what was lost. The record says what the name was.
fn new_epoch(journal: &mut Journal, snapshot: &Snapshot, records: &[Record]) -> Result<Record, OpenError> {
    let former = journal.epoch().to_owned();
    let mut record = Record {
        revision: records.last().map_or(snapshot.revision, |record| record.revision),
        unix_ms: now_unix_ms(),
        principal: "command-line".to_owned(),
        method: "accept-rollback".to_owned(),
        subject: former.clone(),
        epoch: Some(uuid::Uuid::new_v4().to_string()),
        ..Record::default()
    };
    let written = journal.append_unsynced(&mut record).and_then(|()| journal.sync());
    written.map_err(|cause| OpenError::Io {
        action: "write a new epoch to",
        path: "journal".into(),
        cause: std::io::Error::other(cause),
    })?;
    tracing::warn!(
        former,
        epoch = journal.epoch(),
        "a rolled-back store was accepted; start without --accept-rollback from now on"
    );
    Ok(record)
}

/// The first states that others see.
fn publish(
    epoch: &str,
    folded: &Folded,
    mut recent: Recent,
    journal: Option<JournalReader>,
) -> Result<Arc<Shared>, OpenError> {
    let version = Version { epoch: epoch.to_owned(), revision: folded.revision };
    let config = folded.config().map_err(|cause| OpenError::Io {
        action: "decode the configuration of",
        path: "journal".into(),
        cause: std::io::Error::other(cause),
    })?;
    let state = ConfigState::new(version, config, folded.forced)
        .map_err(|problems| OpenError::Refused { revision: folded.revision, problems })?;
    let state = Arc::new(state);
    recent.push(Arc::clone(&state));
    Ok(Arc::new(Shared {
        config: watch::Sender::new(state),
        sequence: watch::Sender::new(folded.sequence),
        verdicts: watch::Sender::new(Arc::clone(&folded.verdicts)),
        faults: watch::Sender::new(Arc::clone(&folded.faults)),
        drains: watch::Sender::new(Arc::clone(&folded.drains)),
        recent: RwLock::new(recent),
        journal,
        view: watch::Sender::new(None),
        listings: Places::for_listings(),
        lookups: Places::for_lookups(),
        exports: Arc::new(Semaphore::new(1)),
        health: watch::Sender::new(StoreHealth::Ok),
        claims: Arc::default(),
    }))
}

/// A view that was opened somehow.
#[derive(Debug)]
pub(super) struct FoundView {
    pub(super) view: View,
    /// Where it is, or should be.
    pub(super) directory: PathBuf,
    /// What was lost.
    pub(super) lost: Option<String>,
    /// Why it is not on disk.
    pub(super) trouble: Option<String>,
}

/// Opens the view. A damaged one is moved aside, never removed. If it does not open, as
/// without space, another stands in, and reads go on.
pub(super) fn open_view(data_dir: &Path) -> FoundView {
    let directory = data_dir.join("view");
    let mut lost = None;
    let mut opened = sled_view(&directory);
    if let Err(StoreError::Damaged { reason }) = &opened {
        tracing::error!(
            reason,
            "the view is damaged: moved aside and rebuilt from the journal; telemetry totals are lost"
        );
        lost = Some(format!(
            "the view was damaged ({reason}); telemetry totals before this start are lost but for these files"
        ));
        // The store moved its files away, unless it is their meaning that is wrong.
        let free = if directory.exists() { move_aside(&directory).map(drop) } else { Ok(()) };
        opened = free.map_err(StoreError::Io).and_then(|()| sled_view(&directory));
    }
    match opened {
        Ok(view) => FoundView { view, directory, lost, trouble: None },
        Err(cause) => {
            let trouble = format!("open {}: {cause}", directory.display());
            FoundView { view: View::stand_in(trouble.clone()), directory, lost, trouble: Some(trouble) }
        }
    }
}

fn sled_view(directory: &Path) -> Result<View, StoreError> {
    let view = View::open(Box::new(SledStore::open(directory)?))?;
    view.mark()?;
    Ok(view)
}

/// Before anything is written: a start that is refused leaves the journal as it was.
fn check_view(found: &FoundView, journal: &Found, journal_dir: &Path) -> Result<(), OpenError> {
    if let Some(trouble) = &found.trouble
        && journal.is_empty()
        && found.directory.exists()
    {
        // There may have been a journal. A new one would be in its way if it comes back.
        return Err(OpenError::Io {
            action: "there is no journal, and the view that could tell whether there was one can't be read:",
            path: found.directory.clone(),
            cause: std::io::Error::other(trouble.clone()),
        });
    }
    refuse_rollback(found, journal.sequence(), journal_dir)
}

/// A view knows of acknowledged records only. If it knows of more than the journal has,
/// the journal lost some; going on would give their revisions to other configurations.
pub(super) fn refuse_rollback(found: &FoundView, journal: u64, journal_dir: &Path) -> Result<(), OpenError> {
    let view_dir = &found.directory;
    let seen = found.view.mark().ok().flatten().map_or(0, |mark| mark.sequence);
    if seen <= journal {
        return Ok(());
    }
    Err(OpenError::RolledBack { directory: journal_dir.to_owned(), view: view_dir.clone(), journal, seen })
}

/// Makes the view show the journal's state, and says what differed.
fn bring_up_to_date(found: &mut FoundView, tip: &Mark, state: &ConfigState, folded: &Folded, imported: bool) {
    if found.trouble.is_some() {
        // It is in memory until there is room; nothing can be told from it.
        return;
    }
    let before = found.view.mark().ok().flatten();
    let shown = found.view.show(tip, &state.config, folded);
    match shown {
        Ok(0) => {}
        // sled can open damaged files as empty ones, and say nothing.
        Ok(_) if before.is_none() && tip.sequence > 0 && found.lost.is_none() && !imported => {
            tracing::error!("the view is gone: rebuilt from the journal; telemetry totals are lost");
            found.lost = Some("the view was gone; telemetry totals before this start are lost".into());
        }
        Ok(keys) if before.as_ref() == Some(tip) => {
            tracing::error!(keys, "the view had lost or changed keys; rebuilt from the journal");
            found.lost = Some(format!(
                "the view had {keys} wrong keys; telemetry totals before this start may be incomplete"
            ));
        }
        Ok(keys) => tracing::info!(keys, record = tip.sequence, "the view follows the journal"),
        Err(cause) => found.trouble = Some(format!("write the view: {cause}")),
    }
}
