//! Counts what came of attempts, until telemetry takes the counts away. The request
//! path adds to the shard of its own thread, so nobody waits for anybody.

use std::{
    cell::Cell,
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;
use trunkline_proto::{
    convert::{PROBE_MODEL, wire_histogram, wire_outcome},
    telemetry::v1,
};
use trunkline_routing::{
    classify::OutcomeClass,
    histogram::Histogram,
    money::{NanoUsd, Tokens},
};

use super::samples::{Sample, Samples};

/// More than a machine that runs beside an app has worker threads.
const SHARDS: usize = 16;
/// Pairs of deployment and model in one shard: far more than a table in use has. What
/// comes on top is not counted, and telemetry warns.
const KEYS_MAX: usize = 20_000;
/// A model that was used in this time is in use.
const RECENT: Duration = Duration::from_secs(60);

/// What came of one attempt.
#[expect(clippy::struct_excessive_bools, reason = "independent facts, not states")]
#[derive(Clone, Debug)]
pub struct AttemptSample {
    /// Full name.
    pub deployment: Arc<str>,
    /// The virtual model, or the deployment when pinned.
    pub model: Arc<str>,
    /// How it ended.
    pub outcome: OutcomeClass,
    /// Time to the first content. None: there was none.
    pub ttft: Option<Duration>,
    /// From its start to its end.
    pub duration: Duration,
    /// None: no usage is known, nothing was generated.
    pub tokens: Option<(Tokens, UsageSource)>,
    /// None: no price is known.
    pub cost: Option<NanoUsd>,
    /// Whether a drill took hold of it.
    pub faulted: bool,
    /// Whether [`Recorder::started`] was told of it: attempts that apps make themselves
    /// are known at their end only.
    pub was_running: bool,
    /// Whether its times are the provider's own: not if data waited for a slow reader.
    pub own_pace: bool,
    /// Answered piece by piece.
    pub stream: bool,
    /// Input as estimated, where no usage is known.
    pub input_tokens: u32,
    /// The limit that the request set on the answer.
    pub max_output_tokens: Option<u32>,
    /// Attempts of this agent that ran at the deployment as it started, itself included.
    pub in_flight: u32,
    /// Until the first content, as predicted at its start. None: it was not.
    pub predicted_ttft: Option<Duration>,
}

/// Where token counts come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsageSource {
    /// The provider said so.
    Provider,
    /// Bytes divided by four.
    Estimated,
}

/// Counts by deployment and model since they were last taken.
#[derive(Debug, Default)]
pub struct Recorder {
    shards: [Mutex<Shard>; SHARDS],
    overflowed: AtomicUsize,
    /// What ran when counts were last taken.
    running: Mutex<HashMap<Key, u32>>,
    /// Models and when their counts were last taken.
    recent: Mutex<HashMap<Arc<str>, Instant>>,
}

/// Deployment and model.
type Key = (Arc<str>, Arc<str>);
/// Counts of one window.
pub(super) type Window = HashMap<Key, Counts>;

/// What one thread saw.
#[derive(Debug, Default)]
struct Shard {
    counts: Window,
    samples: Samples,
}

/// What was counted since the last time.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub(super) counts: Window,
    pub(super) samples: Samples,
}

/// Counts of one deployment under one model.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    outcomes: [u64; OutcomeClass::ALL.len()],
    tokens: Tokens,
    cost_nano_usd: u64,
    usage_from_provider: u64,
    usage_estimated: u64,
    unpriced: u64,
    ttft: Histogram,
    duration: Histogram,
    breaker_openings: u64,
    faulted: u64,
    /// Starts less ends; once taken, what runs.
    running: i64,
}

impl Recorder {
    /// Nothing counted yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts an attempt that ended.
    pub fn record(&self, sample: AttemptSample) {
        let AttemptSample { outcome, ttft, duration, tokens, cost, .. } = sample;
        let key = (Arc::clone(&sample.deployment), Arc::clone(&sample.model));
        let drawn = rand::random();
        let ended = Instant::now();
        self.update(key, |shard| {
            let counts = shard.counts;
            counts.add_end(outcome, ttft, duration);
            counts.faulted += u64::from(sample.faulted);
            counts.running -= i64::from(sample.was_running);
            if let Some((tokens, source)) = tokens {
                counts.add_usage(tokens, source, cost);
            }
            // A call of one token is like no request of an app: models learn nothing of it.
            if *sample.model != *PROBE_MODEL && sample.own_pace {
                shard.samples.add(drawn, || sample.kept(ended));
            }
        });
    }

    /// Counts an attempt as running until it is recorded.
    pub fn started(&self, deployment: Arc<str>, model: Arc<str>) {
        self.update((deployment, model), |shard| shard.counts.running += 1);
    }

    /// Counts an opening of a breaker.
    pub fn record_opening(&self, deployment: Arc<str>, model: Arc<str>) {
        self.update((deployment, model), |shard| shard.counts.breaker_openings += 1);
    }

    /// How many samples were not counted, since last asked, because too many pairs were
    /// in use.
    pub(super) fn take_overflowed(&self) -> usize {
        self.overflowed.swap(0, Ordering::Relaxed)
    }

    /// Whether attempts for `model` ended in the last minute or so.
    pub fn has_traffic(&self, model: &str) -> bool {
        let taken = self.recent.lock().get(model).is_some_and(|at| at.elapsed() < RECENT);
        let held = |shard: &Mutex<Shard>| shard.lock().counts.keys().any(|(_, one)| &**one == model);
        taken || self.shards.iter().any(held)
    }

    fn update(&self, key: Key, change: impl FnOnce(Place<'_>)) {
        let mut shard = self.shards[own_shard()].lock();
        let Shard { counts, samples } = &mut *shard;
        if counts.len() >= KEYS_MAX && !counts.contains_key(&key) {
            self.overflowed.fetch_add(1, Ordering::Relaxed);
            return;
        }
        change(Place { counts: counts.entry(key).or_default(), samples });
    }

    /// Takes all counts away.
    pub(super) fn take(&self) -> Taken {
        let mut whole = Taken::default();
        for shard in &self.shards {
            let Shard { counts, samples } = std::mem::take(&mut *shard.lock());
            whole.samples.merge(samples);
            if whole.counts.is_empty() {
                whole.counts = counts;
                continue;
            }
            for (key, counts) in counts {
                whole.counts.entry(key).or_default().merge(&counts);
            }
        }
        self.settle_running(&mut whole.counts);
        let now = Instant::now();
        let mut recent = self.recent.lock();
        recent.retain(|_, at| now.duration_since(*at) < RECENT);
        recent.extend(whole.counts.keys().map(|(_, model)| (Arc::clone(model), now)));
        drop(recent);
        whole
    }

    /// From starts and ends to what runs. What runs is told though nothing ended.
    fn settle_running(&self, window: &mut Window) {
        let mut running = self.running.lock();
        for key in running.keys() {
            if !window.contains_key(key) {
                window.insert(key.clone(), Counts::default());
            }
        }
        for (key, counts) in window {
            let before = running.get(key).copied().unwrap_or_default();
            let now = u32::try_from(i64::from(before) + counts.running).unwrap_or_default();
            counts.running = now.into();
            if now > 0 {
                running.insert(key.clone(), now);
            } else {
                running.remove(key);
            }
        }
    }
}

/// What one thread keeps for one pair, and its samples.
struct Place<'a> {
    counts: &'a mut Counts,
    samples: &'a mut Samples,
}

impl AttemptSample {
    /// As one of some, if it is kept.
    fn kept(self, ended: Instant) -> Sample {
        let unknown = Tokens { input: self.input_tokens.into(), ..Tokens::default() };
        Sample {
            deployment: self.deployment,
            model: self.model,
            outcome: self.outcome,
            ended,
            duration: self.duration,
            ttft: self.ttft.filter(|_| self.stream),
            tokens: self.tokens.map_or(unknown, |(tokens, _)| tokens),
            max_output_tokens: self.max_output_tokens,
            in_flight: self.in_flight,
            predicted_ttft: self.predicted_ttft,
        }
    }
}

/// Each thread keeps to one shard.
fn own_shard() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static OWN: Cell<Option<usize>> = const { Cell::new(None) });
    OWN.with(|own| {
        own.get().unwrap_or_else(|| {
            let shard = NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS;
            own.set(Some(shard));
            shard
        })
    })
}

impl Counts {
    fn add_end(&mut self, outcome: OutcomeClass, ttft: Option<Duration>, duration: Duration) {
        self.outcomes[outcome as usize] += 1;
        if let Some(ttft) = ttft {
            self.ttft.record(micros(ttft));
        }
        self.duration.record(micros(duration));
    }

    fn add_usage(&mut self, tokens: Tokens, source: UsageSource, cost: Option<NanoUsd>) {
        add_tokens(&mut self.tokens, tokens);
        match source {
            UsageSource::Provider => self.usage_from_provider += 1,
            UsageSource::Estimated => self.usage_estimated += 1,
        }
        match cost {
            Some(NanoUsd(cost)) => self.cost_nano_usd = self.cost_nano_usd.saturating_add(cost),
            None => self.unpriced += 1,
        }
    }

    fn merge(&mut self, other: &Self) {
        for (sum, more) in self.outcomes.iter_mut().zip(other.outcomes) {
            *sum += more;
        }
        add_tokens(&mut self.tokens, other.tokens);
        self.cost_nano_usd = self.cost_nano_usd.saturating_add(other.cost_nano_usd);
        self.usage_from_provider += other.usage_from_provider;
        self.usage_estimated += other.usage_estimated;
        self.unpriced += other.unpriced;
        self.ttft.merge(&other.ttft);
        self.duration.merge(&other.duration);
        self.breaker_openings += other.breaker_openings;
        self.faulted += other.faulted;
        self.running += other.running;
    }

    /// As it travels.
    pub(super) fn to_wire(&self, (deployment, model): &Key) -> v1::TargetStats {
        let seen = OutcomeClass::ALL.iter().filter(|class| self.outcomes[**class as usize] > 0);
        v1::TargetStats {
            deployment: deployment.to_string(),
            model: model.to_string(),
            outcomes: seen
                .map(|class| v1::OutcomeCount {
                    outcome: wire_outcome(*class) as i32,
                    count: self.outcomes[*class as usize],
                })
                .collect(),
            input_tokens: self.tokens.input,
            cached_input_tokens: self.tokens.cached_input,
            output_tokens: self.tokens.output,
            cost_nano_usd: self.cost_nano_usd,
            usage_from_provider: self.usage_from_provider,
            usage_estimated: self.usage_estimated,
            unpriced: self.unpriced,
            ttft: recorded(&self.ttft),
            duration: recorded(&self.duration),
            breaker_openings: self.breaker_openings,
            faulted: self.faulted,
            in_flight: u32::try_from(self.running).unwrap_or_default(),
        }
    }
}

fn add_tokens(sum: &mut Tokens, more: Tokens) {
    sum.input = sum.input.saturating_add(more.input);
    sum.cached_input = sum.cached_input.saturating_add(more.cached_input);
    sum.output = sum.output.saturating_add(more.output);
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// None: nothing was recorded.
fn recorded(histogram: &Histogram) -> Option<v1::Histogram> {
    (histogram.count() > 0).then(|| wire_histogram(histogram))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_all_threads_are_taken_once() {
        let recorder = Recorder::new();
        let sample = AttemptSample {
            deployment: "p/d".into(),
            model: "chat".into(),
            outcome: OutcomeClass::Ok,
            ttft: Some(Duration::from_millis(3)),
            duration: Duration::from_millis(9),
            tokens: Some((Tokens { input: 5, cached_input: 2, output: 7 }, UsageSource::Provider)),
            cost: None,
            faulted: true,
            was_running: true,
            own_pace: true,
            stream: true,
            input_tokens: 0,
            max_output_tokens: None,
            in_flight: 1,
            predicted_ttft: None,
        };
        for _ in 0..23 {
            recorder.started("p/d".into(), "chat".into());
        }
        std::thread::scope(|scope| {
            for _ in 0..20 {
                scope.spawn(|| recorder.record(sample.clone()));
            }
        });
        recorder.record_opening("p/d".into(), "chat".into());
        let taken = recorder.take();
        let stats: Vec<_> = taken.counts.iter().map(|(key, counts)| counts.to_wire(key)).collect();
        assert_eq!(stats.len(), 1);
        let ok = v1::OutcomeCount { outcome: wire_outcome(OutcomeClass::Ok) as i32, count: 20 };
        assert_eq!(stats[0].outcomes, [ok]);
        assert_eq!((stats[0].input_tokens, stats[0].output_tokens), (100, 140));
        assert_eq!((stats[0].usage_from_provider, stats[0].unpriced), (20, 20));
        assert_eq!((stats[0].breaker_openings, stats[0].faulted), (1, 20));
        let ttft = stats[0].ttft.as_ref().unwrap();
        assert_eq!((ttft.sum, ttft.min, ttft.max), (60_000, 3_000, 3_000));
        assert_eq!((stats[0].in_flight, taken.samples.into_wire(Instant::now()).len()), (3, 20));
        // What runs is told again though nothing ended.
        let again: Vec<_> = recorder.take().counts.into_values().map(|counts| counts.running).collect();
        assert_eq!(again, [3]);
        (0..3).for_each(|_| recorder.record(sample.clone()));
        recorder.take();
        assert!(recorder.take().counts.is_empty());
        assert!(recorder.has_traffic("chat") && !recorder.has_traffic("other"));
    }
}
