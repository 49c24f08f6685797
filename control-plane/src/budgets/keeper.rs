//! The one task that changes ledgers: many demands, one durable write, then answers.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;
use tokio::{
    sync::{mpsc, watch},
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use super::{
    Budgets, Demand, Now, QUEUE_MAX,
    books::{Batch, Books, Key},
    stored,
};
use crate::repository::{CommitError, Repository};
use trunkline_routing::budget::period::Span;

/// Demands in one durable write: about what arrives while the write before is synced.
const BATCH_MAX: usize = 256;

/// Rows in one durable write, when a view is new and all are written.
const ROWS_MAX: usize = 2_000;

/// Between looks at what is over, and at a store that could not be read.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Owns the ledgers; runs until the stop.
#[derive(Debug)]
pub(crate) struct Keeper {
    repository: Arc<Repository>,
    books: Arc<Mutex<Books>>,
    demands: mpsc::Receiver<Demand>,
    view: watch::Receiver<Option<u64>>,
    /// The opening of the view that was read. None: nothing may be granted.
    loaded: Option<u64>,
    wall_clock: fn() -> SystemTime,
}

impl Keeper {
    /// A keeper, and the way to it. It reads the store once it runs.
    pub(crate) fn new(repository: Arc<Repository>, wall_clock: fn() -> SystemTime) -> (Self, Budgets) {
        let (sender, demands) = mpsc::channel(QUEUE_MAX);
        let books = Arc::new(Mutex::new(Books::new()));
        let budgets = Budgets { books: Arc::clone(&books), demands: sender };
        let view = repository.subscribe_view();
        (Self { repository, books, demands, view, loaded: None, wall_clock }, budgets)
    }

    /// Serves until `shutdown`.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut demands = Vec::with_capacity(BATCH_MAX);
        loop {
            tokio::select! {
                biased; // A stop first: agents ask again. What is over makes room for what comes.
                () = shutdown.cancelled() => return,
                _ = ticks.tick() => self.expire().await,
                received = self.demands.recv_many(&mut demands, BATCH_MAX) => {
                    if received == 0 {
                        return;
                    }
                    self.serve(std::mem::take(&mut demands)).await;
                }
            }
        }
    }

    /// Takes in some demands with one write, and answers them.
    pub(super) async fn serve(&mut self, demands: Vec<Demand>) {
        if !self.follow_view().await {
            return;
        }
        let now = Now::at((self.wall_clock)());
        let state = self.repository.state();
        let mut batch = Batch::default();
        {
            let mut books = self.books.lock();
            for demand in demands {
                books.take(&state.table, demand, now, &mut batch);
            }
        }
        let dirty = std::mem::take(&mut batch.dirty);
        let durable = self.write(dirty.iter(), &[]).await;
        batch.dirty = dirty;
        let mut books = self.books.lock();
        match durable {
            Ok(()) => books.answer(&state.table, &batch, now),
            Err(error) => {
                tracing::warn!(%error, "budgets are not stored; agents get no new leases");
                books.undo(batch);
            }
        }
    }

    /// Reads what is stored if the view was opened since that was done last. What is in
    /// memory is never less than what was durable, so both are put together, and written:
    /// a view that is new may have lost it. False: nothing may be granted now.
    pub(super) async fn follow_view(&mut self) -> bool {
        let opening = *self.view.borrow_and_update();
        if opening.is_some() && opening == self.loaded {
            return true;
        }
        self.loaded = None;
        let rows = match self.repository.scan_blobs(stored::ACCOUNTS).await {
            Ok(rows) => rows,
            Err(error) => {
                tracing::debug!(%error, "budgets are not read; agents get no new leases");
                return false;
            }
        };
        // Reading may have opened it.
        let opening = *self.view.borrow_and_update();
        let all: Vec<_> = {
            let mut books = self.books.lock();
            let known = books.all();
            for (key, value) in &rows {
                match stored::read(value) {
                    Some(row) => books.load(row),
                    None => {
                        tracing::warn!(key = %String::from_utf8_lossy(key), "a budget's account in the store can't be read");
                    }
                }
            }
            known.into_iter().collect()
        };
        self.loaded = opening;
        for some in all.chunks(ROWS_MAX) {
            if let Err(error) = self.write(some.iter(), &[]).await {
                tracing::warn!(%error, "budgets are not stored; agents get no new leases");
                self.loaded = None;
                return false;
            }
        }
        self.loaded.is_some()
    }

    async fn write(
        &self,
        changed: impl Iterator<Item = &(Box<str>, Span, Key)>,
        gone: &[(Box<str>, Span, Key)],
    ) -> Result<(), CommitError> {
        let puts: Vec<_> = {
            let books = self.books.lock();
            let rows = changed.filter_map(|(name, span, key)| books.row(name, *span, key));
            rows.map(|row| stored::blob(&row)).collect()
        };
        let deletes: Vec<_> = gone.iter().map(|(name, span, key)| stored::key(name, *span, key)).collect();
        if puts.is_empty() && deletes.is_empty() {
            return Ok(());
        }
        let Some(view) = self.loaded else {
            return Err(CommitError::ReadOnly { reason: "the view is not open".into() });
        };
        self.repository.write_blobs(view, puts, deletes).await
    }

    async fn expire(&mut self) {
        if !self.follow_view().await {
            return;
        }
        let (batch, gone) = self.books.lock().expire(Now::at((self.wall_clock)()));
        if let Err(error) = self.write(batch.dirty.iter(), &gone).await {
            // What is gone from memory is found again, and removed, at the next start.
            tracing::debug!(%error, "ended budget periods are not removed from the store");
        }
    }
}
