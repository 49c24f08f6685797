//! The world of a run: virtual time, providers, requests under way. It knows
//! everything and decides nothing; a [`Client`] decides.

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use trunkline_routing::{money::NanoUsd, time::Timestamp};

use super::{
    provider::{Course, Provider, Truth},
    record::{Field, Record, Verdict},
    report::DeploymentSeries,
};
use crate::{
    scenario::Scenario,
    seeds::{Purpose, rng},
    traffic::Arrival,
};

/// Attempts of one request at one provider that have luck of their own.
const REPEATS: u64 = 16;

/// Names an attempt within a run.
pub(crate) type Attempt = usize;

/// What distributes requests: it is told what happens, and starts and ends attempts.
pub(crate) trait Client {
    /// Before anything else.
    fn begin(&mut self, world: &mut World<'_>);
    /// A request came in.
    fn arrived(&mut self, world: &mut World<'_>, request: usize);
    /// The moment asked for with [`World::wake_at`].
    fn woken(&mut self, world: &mut World<'_>, request: usize);
    /// An attempt that was not ended said something.
    fn heard(&mut self, world: &mut World<'_>, attempt: Attempt, heard: Heard);
    /// The moment asked for with [`World::timer_at`].
    fn timer(&mut self, world: &mut World<'_>, number: usize);
    /// Providers came or went.
    fn fleet_changed(&mut self, world: &mut World<'_>);
}

/// What an attempt said.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Heard {
    /// An error status; it is over.
    Refused { status: u16, retry_after: Option<Duration> },
    /// The connection is lost before any content; it is over.
    Reset,
    /// A 200 without content; it is over.
    Empty,
    /// First content.
    FirstToken,
    /// The whole answer is there.
    Done { output_tokens: u32 },
    /// The answer broke off; it is over.
    Broke,
}

/// Why an attempt was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// First, again, or beside a silent one.
    Usual,
    /// Beside one that is only slow so far.
    Hedge,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    FleetChanged,
    Arrives(usize),
    /// An attempt's next step.
    Step(Attempt),
    Wakes {
        request: usize,
        stamp: u32,
    },
    Timer(usize),
}

/// One attempt.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    pub(crate) request: usize,
    pub(crate) deployment: usize,
    pub(crate) started: Timestamp,
    course: Course,
    streaming: bool,
    over: bool,
}

/// The world.
#[derive(Debug)]
pub(crate) struct World<'a> {
    pub(crate) scenario: &'a Scenario,
    pub(crate) arrivals: Vec<Arrival>,
    pub(crate) providers: Vec<Provider>,
    pub(crate) now: Timestamp,
    pub(crate) records: Vec<Record>,
    pub(crate) series: Vec<DeploymentSeries>,
    pub(crate) events: u64,
    /// Longest time after a change of price at which a first pick still went by the old
    /// one, in seconds. None: no price changes.
    pub(crate) old_price_s: Option<f64>,
    seed: u64,
    queue: BinaryHeap<Reverse<(Timestamp, u64, Event)>>,
    sequence: u64,
    calls: Vec<Call>,
    open: usize,
}

impl<'a> World<'a> {
    pub(crate) fn new(scenario: &'a Scenario, arrivals: Vec<Arrival>, seed: u64) -> Self {
        let providers = Provider::all(scenario);
        let series = |provider: &Provider| DeploymentSeries {
            name: provider.spec.model.name.clone(),
            watched: provider.watched(),
            ..DeploymentSeries::default()
        };
        let mut world = Self {
            records: arrivals.iter().map(Record::new).collect(),
            series: providers.iter().map(series).collect(),
            open: arrivals.len(),
            scenario,
            arrivals,
            providers,
            now: Timestamp::ZERO,
            events: 0,
            old_price_s: super::table::changes_prices(scenario).then_some(0.0),
            seed,
            queue: BinaryHeap::new(),
            sequence: 0,
            calls: Vec::new(),
        };
        for change in super::table::changes(scenario) {
            world.push(change, Event::FleetChanged);
        }
        if let Some(first) = world.arrivals.first() {
            world.push(first.at, Event::Arrives(0));
        }
        world
    }

    /// Lets the run happen, to the end of its last request.
    pub(crate) fn run(&mut self, client: &mut dyn Client) {
        client.begin(self);
        while self.open > 0
            && let Some(Reverse((at, _, event))) = self.queue.pop()
        {
            self.now = at;
            self.events += 1;
            match event {
                Event::FleetChanged => client.fleet_changed(self),
                Event::Arrives(request) => {
                    if let Some(next) = self.arrivals.get(request + 1) {
                        self.push(next.at, Event::Arrives(request + 1));
                    }
                    self.look(request);
                    client.arrived(self, request);
                }
                Event::Step(attempt) => {
                    if let Some(heard) = self.step(attempt) {
                        client.heard(self, attempt, heard);
                    }
                }
                Event::Wakes { request, stamp } => {
                    let record = &self.records[request];
                    if record.stamp == stamp && !record.is_over() {
                        client.woken(self, request);
                    }
                }
                Event::Timer(number) => client.timer(self, number),
            }
        }
    }

    /// The run's seed.
    pub(crate) const fn seed(&self) -> u64 {
        self.seed
    }

    /// Events of the same moment come in the order in which they were asked for.
    fn push(&mut self, at: Timestamp, event: Event) {
        self.sequence += 1;
        self.queue.push(Reverse((at.max(self.now), self.sequence, event)));
    }

    /// [`Client::woken`] is called then, unless another moment is asked for before.
    pub(crate) fn wake_at(&mut self, request: usize, at: Timestamp) {
        let record = &mut self.records[request];
        record.stamp += 1;
        let stamp = record.stamp;
        self.push(at, Event::Wakes { request, stamp });
    }

    /// [`Client::timer`] is called then.
    pub(crate) fn timer_at(&mut self, number: usize, at: Timestamp) {
        self.push(at, Event::Timer(number));
    }

    /// Sends the request to a deployment.
    pub(crate) fn start(&mut self, request: usize, deployment: usize, why: Why) -> Attempt {
        if self.records[request].started == 0 {
            self.judge(request, deployment);
        }
        let arrival = self.arrivals[request];
        let nth = self.records[request].begin(deployment, why);
        let index =
            (request as u64 * self.providers.len() as u64 + deployment as u64) * REPEATS + nth % REPEATS;
        let mut chance = rng(self.seed, Purpose::Provider, index);
        let provider = &mut self.providers[deployment];
        let course = provider.take(self.now, &arrival, &mut chance);
        if matches!(course, Course::Answer { .. } | Course::Silent | Course::Empty { .. }) {
            provider.in_flight += 1;
        }
        let below = arrival.min_quality.is_some_and(|least| provider.spec.quality < least);
        self.records[request].below_floor |= below;
        let attempt = self.calls.len();
        let first = match course {
            Course::Refused { after, .. } | Course::Reset { after } | Course::Empty { after } => Some(after),
            Course::Answer { ttft, .. } => Some(ttft),
            Course::Silent => None,
        };
        let call = Call { request, deployment, started: self.now, course, streaming: false, over: false };
        self.calls.push(call);
        if let Some(after) = first {
            self.push(self.now + after, Event::Step(attempt));
        }
        let series = &mut self.series[deployment];
        count(&mut series.attempts, self.now);
        if self.records[request].started == 1 {
            count(&mut series.first_picks, self.now);
        }
        attempt
    }

    fn step(&mut self, attempt: Attempt) -> Option<Heard> {
        let call = self.calls[attempt];
        if call.over {
            return None;
        }
        let heard = match call.course {
            Course::Refused { status, retry_after, .. } => Heard::Refused { status, retry_after },
            Course::Reset { .. } => Heard::Reset,
            Course::Empty { .. } => Heard::Empty,
            Course::Silent => return None,
            Course::Answer { total, breaks, .. } if !call.streaming => {
                self.calls[attempt].streaming = true;
                self.push(call.started + breaks.unwrap_or(total), Event::Step(attempt));
                return Some(Heard::FirstToken);
            }
            Course::Answer { breaks: Some(_), .. } => Heard::Broke,
            Course::Answer { output_tokens, .. } => Heard::Done { output_tokens },
        };
        self.finish_call(attempt);
        let record = &mut self.records[call.request];
        let refused = matches!(heard, Heard::Refused { status: 429, .. });
        record.refused += u32::from(refused);
        if !matches!(heard, Heard::Done { .. }) {
            count(&mut self.series[call.deployment].failures, self.now);
        }
        Some(heard)
    }

    /// Ends an attempt: the provider stops working on it.
    pub(crate) fn cancel(&mut self, attempt: Attempt) {
        if !self.calls[attempt].over {
            let call = self.calls[attempt];
            if call.course == Course::Silent {
                count(&mut self.series[call.deployment].failures, self.now);
            }
            self.finish_call(attempt);
        }
    }

    fn finish_call(&mut self, attempt: Attempt) {
        let call = &mut self.calls[attempt];
        call.over = true;
        let call = *call;
        let provider = &mut self.providers[call.deployment];
        if matches!(call.course, Course::Answer { .. } | Course::Silent | Course::Empty { .. }) {
            provider.in_flight = provider.in_flight.saturating_sub(1);
        }
        let cost = billed(&call, self.now).map_or(NanoUsd(0), |output| {
            provider.cost(call.started, self.arrivals[call.request].input_tokens.into(), output)
        });
        self.series[call.deployment].usd += cost.0 as f64 / 1e9;
        let record = &mut self.records[call.request];
        record.cost += cost.0;
        record.live -= 1;
    }

    /// The request's answer is whole: `attempt` brought it.
    pub(crate) fn answered(&mut self, attempt: Attempt, first_token: Timestamp, output_tokens: u32) {
        let request = self.calls[attempt].request;
        let (now, slo) = (self.now, self.scenario.slo);
        self.records[request].answered(first_token, now, output_tokens, slo);
        self.open -= 1;
    }

    /// The request got no whole answer.
    pub(crate) fn failed(&mut self, request: usize, broke: bool) {
        if self.records[request].started == 0 {
            let never = Verdict::never_started(self.records[request].best_s);
            self.records[request].verdict = Some(never);
        }
        self.records[request].failed(self.now, broke);
        self.open -= 1;
    }

    pub(crate) fn call(&self, attempt: Attempt) -> &Call {
        &self.calls[attempt]
    }

    /// What the request would have to expect at each deployment.
    pub(crate) fn truths(&self, request: usize) -> Vec<Truth> {
        let arrival = &self.arrivals[request];
        self.providers.iter().map(|provider| provider.truth(self.now, arrival)).collect()
    }

    /// Notes what the best first pick would be as the request comes in: who waits for a
    /// calmer moment is held against this one.
    fn look(&mut self, request: usize) {
        let best_s = self.field(request).best_s();
        self.records[request].best_s = best_s;
    }

    /// Notes how good the first pick is.
    fn judge(&mut self, request: usize, deployment: usize) {
        let waited_s = self.now.since(self.arrivals[request].at).as_secs_f64();
        let best_s = self.records[request].best_s;
        let verdict = self.field(request).judge(deployment, best_s, waited_s, self.scenario.slo);
        self.records[request].verdict = Some(verdict);
    }

    /// What is there for a request now.
    fn field(&self, request: usize) -> Field {
        let floor = self.arrivals[request].min_quality.unwrap_or(0.0);
        let above = self.providers.iter().map(|provider| provider.spec.quality >= floor);
        Field { truths: self.truths(request), above: above.collect() }
    }

    /// A first pick went by the price that a deployment had `since` it changed.
    pub(crate) fn picked_by_old_price(&mut self, changed: Timestamp) {
        let late_s = self.now.since(changed).as_secs_f64();
        self.old_price_s = self.old_price_s.map(|longest| longest.max(late_s));
    }
}

/// Output tokens that are charged for a call that is over; None: it costs nothing.
fn billed(call: &Call, now: Timestamp) -> Option<u64> {
    let Course::Answer { ttft, total, output_tokens, .. } = call.course else { return None };
    let streamed = now.since(call.started).saturating_sub(ttft).as_secs_f64();
    let rest = total.saturating_sub(ttft).as_secs_f64();
    let share = if rest > 0.0 { (streamed / rest).min(1.0) } else { 1.0 };
    let begun = now.since(call.started) >= ttft;
    Some(if begun { (f64::from(output_tokens) * share).ceil() as u64 } else { 0 })
}

/// Counts something in the second of `now`.
fn count(series: &mut Vec<u32>, now: Timestamp) {
    let second = (now.as_nanos() / 1_000_000_000) as usize;
    if series.len() <= second {
        series.resize(second + 1, 0);
    }
    series[second] += 1;
}
