//! Learns how long deployments take from the samples that all agents report, and tells
//! the agents about once a second.
//!
//! One task owns the trainer. Nobody waits for it: a lesson that finds no place is lost,
//! a publication that an agent does not read is replaced by the next. What it knows goes
//! to the store each minute, so that a restart does not begin with nothing.

mod lesson;
mod published;
mod stored;
#[cfg(test)]
mod tests;

use std::{
    collections::{HashSet, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use prometheus_client::metrics::counter::Counter;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use trunkline_routing::{table::RoutingTable, time::Timestamp, train::Trainer};

pub(crate) use self::{lesson::Lesson, published::Published};
use crate::repository::Repository;

/// Lessons that wait, one per report: two seconds of a fleet of a thousand agents.
const LESSONS_MAX: usize = 2_048;

/// Between publications while there is traffic.
const PUBLISH_EVERY: Duration = Duration::from_secs(1);

/// All models are published so often, also without traffic: agents forget what they were
/// told after half a minute.
const REFRESH_EVERY: Duration = Duration::from_secs(10);

/// Between writes to the store.
const KEEP_EVERY: Duration = Duration::from_secs(60);

/// The trainer's clock begins here: attempts may have begun before this process.
const ZERO: Timestamp = Timestamp::from_nanos(3_600_000_000_000);

/// Where lessons go and models come from. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Learning {
    lessons: mpsc::Sender<Lesson>,
    published: watch::Receiver<Arc<Published>>,
    lost: Counter,
}

/// The task's part.
#[derive(Debug)]
pub(crate) struct Learner {
    repository: Arc<Repository>,
    trainer: Trainer,
    lessons: mpsc::Receiver<Lesson>,
    publish: watch::Sender<Arc<Published>>,
    zero: Instant,
    /// Deployments that something was learned of since the last publication.
    changed: HashSet<Box<str>>,
    refreshed: Option<Instant>,
    /// Something was learned since the last write.
    unkept: bool,
}

impl Learning {
    /// Both parts. `lost` counts reports whose samples found no place.
    pub(crate) fn new(repository: Arc<Repository>, lost: Counter) -> (Self, Learner) {
        let (lessons, inbox) = mpsc::channel(LESSONS_MAX);
        let publish = watch::Sender::new(Arc::default());
        let published = publish.subscribe();
        let learner = Learner {
            repository,
            trainer: Trainer::new(),
            lessons: inbox,
            publish,
            zero: Instant::now(),
            changed: HashSet::new(),
            refreshed: None,
            unkept: false,
        };
        (Self { lessons, published, lost }, learner)
    }

    /// Hands over what a report says. Waits for nothing.
    pub(crate) fn teach(&self, lesson: Lesson) {
        if !lesson.is_empty() && self.lessons.try_send(lesson).is_err() {
            self.lost.inc();
        }
    }

    /// The newest models, and their changes.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<Published>> {
        self.published.clone()
    }
}

impl Learner {
    /// Learns until `shutdown`; keeps what it knows at the end.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        self.restore().await;
        let mut publish = interval(PUBLISH_EVERY);
        publish.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut keep = interval(KEEP_EVERY);
        keep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        keep.reset();
        loop {
            tokio::select! {
                biased; // A stop first. Then clocks, which a flood of lessons must not hold up.
                () = shutdown.cancelled() => break,
                _ = publish.tick() => self.publish(Instant::now()),
                _ = keep.tick() => self.keep().await,
                lesson = self.lessons.recv() => match lesson {
                    Some(lesson) => self.learn(&lesson),
                    // All who report are gone.
                    None => break,
                },
            }
        }
        self.keep().await;
    }

    fn learn(&mut self, lesson: &Lesson) {
        let agent = hash(&lesson.agent_id);
        let at = self.time(lesson.received);
        let state = self.repository.state();
        for sample in &lesson.samples {
            let Some(known) = lesson::sample(sample, at).filter(|_| names(&state.table, &sample.deployment))
            else {
                continue;
            };
            self.trainer.add(agent, &sample.deployment, &known);
            self.note(&sample.deployment);
        }
        for (deployment, in_flight) in &lesson.running {
            if names(&state.table, deployment) {
                self.trainer.running(agent, deployment, *in_flight, at);
                self.note(deployment);
            }
        }
    }

    fn note(&mut self, deployment: &str) {
        if !self.changed.contains(deployment) {
            self.changed.insert(deployment.into());
        }
        self.unkept = true;
    }

    fn publish(&mut self, now: Instant) {
        let whole = self.refreshed.is_none_or(|at| now.duration_since(at) >= REFRESH_EVERY);
        if self.changed.is_empty() && !whole {
            return;
        }
        if whole {
            let state = self.repository.state();
            self.trainer.retain(|deployment| names(&state.table, deployment));
            self.refreshed = Some(now);
        }
        let models = self.trainer.publish(self.time(now));
        let changed = std::mem::take(&mut self.changed);
        if models.models.is_empty() && self.publish.borrow().is_empty() {
            return;
        }
        self.publish.send_modify(|last| *last = Arc::new(last.next(models, &changed, whole)));
    }

    fn time(&self, at: Instant) -> Timestamp {
        ZERO + at.saturating_duration_since(self.zero)
    }
}

/// Agents are told apart by a number.
fn hash(agent_id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    agent_id.hash(&mut hasher);
    hasher.finish()
}

/// Nothing is learned of what is not configured: names from reports take no place.
fn names(table: &RoutingTable, deployment: &str) -> bool {
    table.deployment_by_name(deployment).is_some()
}
