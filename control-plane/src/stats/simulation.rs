//! Agents, a network that cuts, repeats and reorders, a store that refuses, crashes of
//! both ends: whatever happens, each report counts once, in the totals and in the steps.
//!
//! The merger, the stream rules and the store's commits are the real ones. One seed gives
//! one history; `TRUNKLINE_SEED=<n>` runs that one only.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::level::Level;
use super::merger::{self, Answer, Job, Merger};
use super::query::Page;
use super::report::Report;
use super::stream::ReportStream;
use super::totals::Totals;
use super::{Key, Stats};
use crate::repository::{CommitError, Repository, RepositoryOptions};

/// What becomes of a write.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fate {
    /// Nothing is written.
    Refused,
    /// It is on disk, but the writer does not know.
    WrittenUnknown,
}

impl Fate {
    pub(super) async fn decide(
        self,
        write: impl Future<Output = Result<(), CommitError>>,
    ) -> Result<(), CommitError> {
        if let Self::WrittenUnknown = self {
            write.await?;
        }
        Err(CommitError::ReadOnly { reason: "the simulation says so".into() })
    }
}

/// A report as its agent keeps it.
#[derive(Clone, Debug)]
struct Sent {
    seq: u64,
    end_secs: u64,
    tokens: u64,
}

/// One run of an agent. A killed one may leave its reports to the next.
#[derive(Debug, Default)]
struct Incarnation {
    name: String,
    /// Tokens of all reports that it made.
    made: Vec<u64>,
    unacked: VecDeque<Sent>,
    acked: u64,
    /// Its reports are gone with it.
    lost: bool,
}

#[derive(Debug)]
struct Agent {
    id: String,
    /// The last one counts; the first one that has something to send, sends.
    incarnations: Vec<Incarnation>,
    stream: Option<Stream>,
    paused: bool,
}

/// A stream: reports on their way, and answers on theirs.
#[derive(Debug)]
struct Stream {
    agent: usize,
    incarnation: usize,
    /// The incarnation's.
    name: String,
    /// How many of the incarnation's reports were sent on it.
    sent: usize,
    up: VecDeque<Sent>,
    rules: ReportStream,
}

/// A report in a batch: whether its stream is a ghost, where that is, and its answer.
type Taken = (bool, usize, Sent, Answer);

struct World {
    rng: StdRng,
    now: u64,
    repository: Arc<Repository>,
    merger: Merger,
    stats: Arc<Stats>,
    agents: Vec<Agent>,
    /// Streams that agents gave up, whose reports still arrive.
    ghosts: Vec<Stream>,
    /// Seconds that one step of time takes at most.
    stride: u64,
    /// The store takes all writes.
    calm: bool,
}

impl World {
    async fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let repository = Repository::open(RepositoryOptions::default()).unwrap();
        let (mut merger, stats, _) = Merger::load(Arc::clone(&repository)).await.unwrap();
        merger.names.any = true;
        let agents = (0..rng.random_range(1..=3)).map(|number| Agent {
            id: format!("a{number}"),
            incarnations: vec![Incarnation { name: "i0".into(), ..Incarnation::default() }],
            stream: None,
            paused: false,
        });
        let agents = agents.collect();
        // Minutes in all, or months.
        let stride = if seed.is_multiple_of(4) { 300_000 } else { 40 };
        let now = 1_800_000_000 + rng.random_range(0..7_200);
        Self { rng, now, repository, merger, stats, agents, ghosts: Vec::new(), stride, calm: false }
    }

    async fn run(&mut self) {
        for _ in 0..self.rng.random_range(40..120) {
            let agent = self.rng.random_range(0..self.agents.len());
            match self.rng.random_range(0..100) {
                0..30 => self.count(agent),
                30..55 => self.send(agent),
                55..80 => self.merge().await,
                80..86 => self.pass().await,
                86..91 => self.cut(agent),
                91..94 => self.kill(agent),
                94..97 => self.agents[agent].paused = false,
                97..99 => self.crash().await,
                _ => self.merge_and_crash().await,
            }
        }
    }

    /// Time passes, or the clock is set: the wall clock says more than what passed.
    async fn pass(&mut self) {
        let wall = self.rng.random_range(0..self.stride);
        self.now += wall;
        let passed = self.rng.random_range(0..=wall.min(4_000));
        tokio::time::advance(Duration::from_secs(passed)).await;
    }

    /// The agent makes a report.
    fn count(&mut self, agent: usize) {
        let (tokens, end_secs) = (self.rng.random_range(1..1_000), self.now);
        let Some(incarnation) = self.agents[agent].incarnations.last_mut() else { return };
        incarnation.made.push(tokens);
        let seq = incarnation.made.len() as u64;
        incarnation.unacked.push_back(Sent { seq, end_secs, tokens });
    }

    /// The agent sends the next report, on a new stream if it has none.
    fn send(&mut self, number: usize) {
        let agent = &mut self.agents[number];
        let waiting = agent.incarnations.iter().position(|one| !one.unacked.is_empty());
        let Some(waiting) = waiting.filter(|_| !agent.paused) else { return };
        if agent.stream.as_ref().is_some_and(|stream| stream.incarnation != waiting) {
            self.ghosts.extend(agent.stream.take());
        }
        let stream = agent.stream.get_or_insert_with(|| Stream {
            agent: number,
            incarnation: waiting,
            name: agent.incarnations[waiting].name.clone(),
            sent: 0,
            up: VecDeque::new(),
            rules: ReportStream::default(),
        });
        if let Some(report) = agent.incarnations[waiting].unacked.get(stream.sent) {
            stream.sent += 1;
            stream.up.push_back(report.clone());
        }
    }

    /// The stream breaks: a part of what is under way may still arrive, later than what
    /// is sent on the next one.
    fn cut(&mut self, agent: usize) {
        let Some(mut stream) = self.agents[agent].stream.take() else { return };
        stream.up.truncate(self.rng.random_range(0..=stream.up.len()));
        self.ghosts.push(stream);
    }

    fn kill(&mut self, agent: usize) {
        self.cut(agent);
        let spooled = self.rng.random_bool(0.5);
        let agent = &mut self.agents[agent];
        if let Some(killed) = agent.incarnations.last_mut().filter(|_| !spooled) {
            killed.lost = !killed.unacked.is_empty();
            killed.unacked.clear();
        }
        let name = format!("i{}", agent.incarnations.len());
        agent.incarnations.push(Incarnation { name, ..Incarnation::default() });
        agent.paused = false;
    }

    /// One batch, and its answers if they arrive.
    async fn merge(&mut self) {
        let fate = match self.rng.random_range(0..10) {
            0 if !self.calm => Some(Fate::Refused),
            1 if !self.calm => Some(Fate::WrittenUnknown),
            _ => None,
        };
        let (jobs, taken) = self.take();
        self.merger.fate = fate;
        self.merger.merge(self.now, jobs).await;
        self.merger.fate = None;
        for (ghost, place, report, answer) in taken {
            self.answer(ghost, place, &report, answer).await;
        }
        self.ghosts.retain(|ghost| !ghost.up.is_empty());
    }

    /// The control plane dies when the batch is durable and nobody knows yet.
    async fn merge_and_crash(&mut self) {
        let (jobs, _) = self.take();
        self.merger.merge(self.now, jobs).await;
        self.crash().await;
    }

    async fn crash(&mut self) {
        for agent in 0..self.agents.len() {
            self.agents[agent].stream = None;
        }
        self.ghosts.clear();
        (self.merger, self.stats, _) = Merger::load(Arc::clone(&self.repository)).await.unwrap();
        self.merger.names.any = true;
        // The next one's clock may be behind.
        self.now -= self.rng.random_range(0..self.stride);
    }

    /// The next report of some streams: each has one under way at most.
    fn take(&mut self) -> (Vec<Job>, Vec<Taken>) {
        let (mut jobs, mut taken) = (Vec::new(), Vec::new());
        let current = (0..self.agents.len()).map(|place| (false, place));
        let ghosts = (0..self.ghosts.len()).map(|place| (true, place));
        for (ghost, place) in current.chain(ghosts).collect::<Vec<_>>() {
            if self.rng.random_bool(0.3) {
                continue;
            }
            let Some(stream) = stream(&mut self.agents, &mut self.ghosts, ghost, place) else { continue };
            let Some(report) = stream.up.pop_front() else { continue };
            if !stream.rules.admits(&stream.name, report.seq) {
                continue;
            }
            let (agent, name) = (stream.agent, stream.name.clone());
            let (job, answer) = merger::of_report(on_the_wire(&self.agents[agent].id, &name, &report));
            jobs.push(job);
            taken.push((ghost, place, report, answer));
        }
        (jobs, taken)
    }

    async fn answer(&mut self, ghost: bool, place: usize, report: &Sent, answer: Answer) {
        let answer = answer.await.unwrap();
        let heard = !ghost && self.rng.random_bool(0.9);
        let Some(stream) = stream(&mut self.agents, &mut self.ghosts, ghost, place) else { return };
        let resend = if let Ok(merged) = &answer {
            stream.rules.acknowledge(&stream.name, merged.acked);
            merged.resend
        } else {
            stream.rules.refuse(&stream.name, report.seq);
            true
        };
        if ghost {
            return;
        }
        let agent = &mut self.agents[place];
        // An answer that is lost takes its stream with it.
        if !heard {
            self.ghosts.extend(agent.stream.take());
            return;
        }
        let Some(stream) = &mut agent.stream else { return };
        agent.paused = answer.is_err();
        let incarnation = &mut agent.incarnations[stream.incarnation];
        let acked = stream.rules.acked(&stream.name);
        while incarnation.unacked.front().is_some_and(|sent| sent.seq <= acked) {
            incarnation.unacked.pop_front();
            stream.sent = stream.sent.saturating_sub(1);
        }
        incarnation.acked = incarnation.acked.max(acked);
        if resend {
            stream.sent = 0;
        }
    }

    /// Nothing fails any more, until nothing is left to send.
    async fn heal(&mut self) {
        for _ in 0..100_000 {
            let waiting = |agent: &Agent| agent.incarnations.iter().any(|one| !one.unacked.is_empty());
            if !self.agents.iter().any(waiting) {
                return;
            }
            for agent in 0..self.agents.len() {
                self.agents[agent].paused = false;
                self.send(agent);
            }
            self.now += self.rng.random_range(0..3);
            self.merge().await;
        }
        panic!("reports are never acknowledged: {:?}", self.agents);
    }
}

fn stream<'a>(
    agents: &'a mut [Agent],
    ghosts: &'a mut [Stream],
    ghost: bool,
    place: usize,
) -> Option<&'a mut Stream> {
    if ghost { ghosts.get_mut(place) } else { agents[place].stream.as_mut() }
}

fn on_the_wire(agent_id: &str, incarnation: &str, sent: &Sent) -> Report {
    let totals = |tokens| {
        let mut totals = Totals { input_tokens: tokens, ..Totals::default() };
        totals.outcomes[1] = 1;
        totals
    };
    let own = Key { deployment: "p/d".into(), model: format!("{agent_id}/{incarnation}") };
    let shared = Key { deployment: "p/d".into(), model: "shared".into() };
    Report {
        agent_id: agent_id.into(),
        incarnation: incarnation.into(),
        seq: sent.seq,
        covered: std::time::Duration::ZERO,
        counts: HashMap::from([(own, totals(sent.tokens)), (shared, totals(sent.tokens))]),
        end_secs: Some(sent.end_secs),
        lost_before: false,
        refused: Vec::new(),
        samples: Vec::new(),
        running: HashMap::new(),
    }
}

/// Attempts and tokens by virtual model.
type Sums = BTreeMap<String, (u64, u64)>;

fn add(sums: &mut Sums, model: &str, attempts: u64, tokens: u64) {
    let sum = sums.entry(model.to_owned()).or_default();
    *sum = (sum.0 + attempts, sum.1 + tokens);
}

/// What the totals must be: of each incarnation the reports up to one, without gaps, and
/// all that were acknowledged.
fn check_totals(world: &World) -> Sums {
    let mut sums = Sums::new();
    for (key, totals) in world.stats.totals(|_| true) {
        add(&mut sums, &key.model, totals.attempts(), totals.input_tokens);
    }
    let mut shared = (0, 0);
    for agent in &world.agents {
        for one in &agent.incarnations {
            let (merged, tokens) =
                sums.get(&format!("{}/{}", agent.id, one.name)).copied().unwrap_or_default();
            assert!(merged >= one.acked, "{} {}: {merged} of {} acknowledged", agent.id, one.name, one.acked);
            if !one.lost {
                assert_eq!(merged, one.made.len() as u64, "{} {}", agent.id, one.name);
            }
            assert_eq!(tokens, one.made[..merged as usize].iter().sum::<u64>(), "{} {}", agent.id, one.name);
            shared = (shared.0 + merged, shared.1 + tokens);
        }
    }
    assert_eq!(sums.get("shared").copied().unwrap_or_default(), shared);
    sums
}

/// All rows of a level, by the hour and virtual model.
async fn by_hour(stats: &Stats, level: Level) -> BTreeMap<u64, Sums> {
    let mut hours: BTreeMap<u64, Sums> = BTreeMap::new();
    let models: Vec<_> = stats.totals(|_| true).into_iter().map(|(key, _)| key.model).collect();
    for model in models {
        let page = Page { level, from: (0, String::new()), last: u32::MAX - 1, limit: usize::MAX };
        let (points, rest) = stats.history(page, |key| key.model == model).await.unwrap();
        assert_eq!(rest, None);
        for point in points {
            let sums = hours.entry(point.start_secs / 3_600).or_default();
            add(sums, &model, point.totals.attempts(), point.totals.input_tokens);
        }
    }
    hours
}

async fn check_steps(world: &World, totals: &Sums) {
    let hours = by_hour(&world.stats, Level::Hour).await;
    let mut sums = Sums::new();
    for (model, (attempts, tokens)) in hours.values().flatten() {
        add(&mut sums, model, *attempts, *tokens);
    }
    assert_eq!(&sums, totals, "hours");
    // What is finer is only kept for a time.
    if world.stride < 3_600 {
        assert_eq!(by_hour(&world.stats, Level::Minute).await, hours, "minutes");
        assert_eq!(by_hour(&world.stats, Level::TenSeconds).await, hours, "10 s");
    }
}

async fn check(seed: u64) {
    eprintln!("TRUNKLINE_SEED={seed}");
    let mut world = World::new(seed).await;
    world.run().await;
    world.heal().await;
    // A write that failed last is only known to be undone when one succeeds.
    world.calm = true;
    world.count(0);
    world.heal().await;
    let totals = check_totals(&world);
    check_steps(&world, &totals).await;
    let sizes =
        |stats: &Stats| stats.counts.lock().rollups.levels.each_ref().map(|steps| steps.sizes.clone());
    let before = sizes(&world.stats);
    world.crash().await;
    assert_eq!(sizes(&world.stats), before, "sizes are what is stored");
    assert_eq!(check_totals(&world), totals);
    check_steps(&world, &totals).await;
}

#[tokio::test(start_paused = true)]
async fn each_report_counts_once_whatever_happens() {
    let seeds = match std::env::var("TRUNKLINE_SEED") {
        Ok(seed) => seed.parse().map(|seed| seed..seed + 1).unwrap(),
        Err(_) => 0..SEEDS,
    };
    for seed in seeds {
        check(seed).await;
    }
}

/// Some ten seconds.
const SEEDS: u64 = 2_000;
