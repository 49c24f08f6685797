//! Ways to distribute requests that are not ours, to compare with: what gateways and
//! load balancers do, by their code or their papers, and two oracles.
//!
//! Each is a [`Picker`]; what surrounds it is the same for all and is what such
//! gateways do: three attempts, each ended after ten seconds without a first token,
//! none twice at the same deployment. State is shared by all agents and probes cost
//! nothing, which favours them.

use std::time::Duration;

use rand::rngs::StdRng;
use trunkline_routing::time::Timestamp;

use crate::{
    run::{Attempt, Baseline, Client, Heard, Truth, Why, World},
    scenario::Scenario,
    seeds::{Purpose, rng},
    traffic::Arrival,
};

mod central;
mod cooldown;
mod litellm;
mod oracle;
mod p2c;
mod prequal;
mod price;
mod turns;

/// An attempt without a first token by then is ended.
const FIRST_TOKEN_WITHIN: Duration = Duration::from_secs(10);
/// Attempts of a request.
const ATTEMPTS: u32 = 3;

/// Where a baseline sends a request.
pub(crate) trait Picker {
    /// One of `ask.open`; None: gives up.
    fn pick(&mut self, ask: &Ask<'_, '_>, chance: &mut StdRng) -> Option<usize>;
    /// An attempt was started.
    fn started(&mut self, _agent: usize, _deployment: usize) {}
    /// An attempt had its first token.
    fn begun(&mut self, _place: At, _ttft_s: f64) {}
    /// An attempt is over.
    fn ended(&mut self, _place: At, _ended: &Ended) {}
    /// Seconds between two calls of [`Picker::tick`].
    fn tick_every_s(&self) -> Option<f64> {
        None
    }
    /// The control plane's turn.
    fn tick(&mut self, _now_s: f64) {}
}

/// Where and when something happened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct At {
    pub(crate) agent: usize,
    pub(crate) deployment: usize,
    pub(crate) now_s: f64,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ended {
    /// With a whole answer.
    Answered { ttft_s: f64, total_s: f64, output_tokens: u32 },
    /// With an error status; 0 for a reset.
    Failed { status: u16, after_s: f64 },
    /// It was ended for its silence.
    TimedOut { after_s: f64 },
    /// In the middle of its answer.
    Broke,
}

/// What is asked.
pub(crate) struct Ask<'a, 'w> {
    pub(crate) agent: usize,
    /// With the estimate of its input for tokens.
    pub(crate) request: &'a Arrival,
    number: usize,
    /// Deployments that can serve the request and were not tried, in the order of the
    /// fleet.
    pub(crate) open: &'a [usize],
    pub(crate) now_s: f64,
    pub(crate) world: &'a World<'w>,
}

impl Ask<'_, '_> {
    /// What each deployment would do; only an oracle may ask.
    fn truths(&self) -> Vec<Truth> {
        self.world.truths(self.number)
    }

    /// The open ones that meet the request's quality floor, if any does.
    fn above_floor(&self) -> Vec<usize> {
        let floor = self.request.min_quality.unwrap_or(0.0);
        let quality = |at: &usize| self.world.providers[*at].spec.quality >= floor;
        self.open.iter().copied().filter(quality).collect()
    }
}

/// The client around a picker.
pub(crate) struct Gateway {
    picker: Box<dyn Picker>,
    attempts: u32,
    chance: StdRng,
    active: Vec<Active>,
}

/// One request.
#[derive(Clone, Debug, Default)]
struct Active {
    tried: Vec<usize>,
    live: Option<Attempt>,
    first_token: Option<Timestamp>,
}

/// The client of a baseline.
pub(crate) fn client(baseline: Baseline, scenario: &Scenario, seed: u64) -> Gateway {
    let providers = scenario.providers();
    let weights: Vec<u32> = providers.iter().map(|provider| provider.weight).collect();
    let (count, agents) = (providers.len(), scenario.agents as usize);
    let picker: Box<dyn Picker> = match baseline {
        Baseline::RandomWeighted => Box::new(turns::RandomWeighted::new(weights)),
        Baseline::RoundRobin => Box::new(turns::RoundRobin::new(count, agents)),
        Baseline::SmoothWrr => Box::new(turns::SmoothWrr::new(weights)),
        Baseline::LitellmShuffle => Box::new(litellm::Shuffle::new(count)),
        Baseline::LitellmLatency => Box::new(litellm::Latency::new(count)),
        Baseline::LitellmLowestCost => Box::new(litellm::LowestCost::new(count)),
        Baseline::NaiveEwma => Box::new(central::NaiveEwma::new(count)),
        Baseline::CentralArgmin => Box::new(central::Central::argmin(count, scenario.report_every_s)),
        Baseline::CentralWeights => Box::new(central::Central::weights(count, scenario.report_every_s)),
        Baseline::PeakEwmaP2c => Box::new(p2c::PeakEwma::new(count, agents)),
        Baseline::LeastRequestP2c => Box::new(p2c::LeastRequest::new(count, agents)),
        Baseline::Prequal => Box::new(prequal::Prequal::new(count)),
        Baseline::InverseSquarePrice => Box::new(price::InverseSquare::new(count)),
        Baseline::CheapestExpected => Box::new(price::CheapestExpected::new(count)),
        Baseline::NaiveChain => Box::new(turns::Chain::new(scenario)),
        Baseline::Oracle => Box::new(oracle::Oracle),
        Baseline::OracleCost => Box::new(oracle::OracleCost),
    };
    let chain = baseline == Baseline::NaiveChain;
    Gateway {
        picker,
        attempts: if chain { count as u32 } else { ATTEMPTS },
        chance: rng(seed, Purpose::Policy, 0),
        active: Vec::new(),
    }
}

impl Gateway {
    fn try_next(&mut self, world: &mut World<'_>, request: usize) {
        let arrival = world.arrivals[request];
        // As in an agent: before the answer nobody knows more than the bytes tell.
        let arrival = Arrival { input_tokens: arrival.input_estimate, ..arrival };
        let active = &self.active[request];
        if active.tried.len() as u32 >= self.attempts {
            return world.failed(request, false);
        }
        let open = (0..world.providers.len())
            .filter(|at| !active.tried.contains(at) && world.providers[*at].fits(&arrival, world.now));
        let open: Vec<usize> = open.collect();
        let ask = Ask {
            agent: arrival.agent,
            request: &arrival,
            number: request,
            open: &open,
            now_s: seconds(world.now),
            world,
        };
        let pick = if open.is_empty() { None } else { self.picker.pick(&ask, &mut self.chance) };
        // A second draw of the same gives up.
        let Some(deployment) = pick.filter(|pick| open.contains(pick)) else {
            return world.failed(request, false);
        };
        let attempt = world.start(request, deployment, Why::Usual);
        self.picker.started(arrival.agent, deployment);
        let active = &mut self.active[request];
        active.tried.push(deployment);
        active.live = Some(attempt);
        active.first_token = None;
        world.wake_at(request, world.now + FIRST_TOKEN_WITHIN);
    }

    fn at(world: &World<'_>, attempt: Attempt) -> At {
        let call = world.call(attempt);
        let agent = world.arrivals[call.request].agent;
        At { agent, deployment: call.deployment, now_s: seconds(world.now) }
    }
}

impl Client for Gateway {
    fn begin(&mut self, world: &mut World<'_>) {
        self.active = vec![Active::default(); world.arrivals.len()];
        if let Some(every) = self.picker.tick_every_s() {
            world.timer_at(0, world.now + Duration::from_secs_f64(every));
        }
    }

    fn arrived(&mut self, world: &mut World<'_>, request: usize) {
        self.try_next(world, request);
    }

    fn woken(&mut self, world: &mut World<'_>, request: usize) {
        let active = &mut self.active[request];
        if active.first_token.is_some() {
            return;
        }
        if let Some(attempt) = active.live.take() {
            let after_s = FIRST_TOKEN_WITHIN.as_secs_f64();
            self.picker.ended(Self::at(world, attempt), &Ended::TimedOut { after_s });
            world.cancel(attempt);
        }
        self.try_next(world, request);
    }

    fn heard(&mut self, world: &mut World<'_>, attempt: Attempt, heard: Heard) {
        let call = *world.call(attempt);
        let at = Self::at(world, attempt);
        let active = &mut self.active[call.request];
        let since = |then: Timestamp| then.since(call.started).as_secs_f64();
        let (after_s, ttft_s) = (since(world.now), active.first_token.map_or(0.0, since));
        let failed = |status| Ended::Failed { status, after_s };
        match heard {
            Heard::FirstToken => {
                active.first_token = Some(world.now);
                return self.picker.begun(at, after_s);
            }
            Heard::Done { output_tokens } => {
                let first_token = active.first_token.unwrap_or(world.now);
                self.picker.ended(at, &Ended::Answered { ttft_s, total_s: after_s, output_tokens });
                return world.answered(attempt, first_token, output_tokens);
            }
            Heard::Broke => {
                self.picker.ended(at, &Ended::Broke);
                return world.failed(call.request, true);
            }
            Heard::Refused { status, .. } => self.picker.ended(at, &failed(status)),
            Heard::Reset => self.picker.ended(at, &failed(0)),
            Heard::Empty => self.picker.ended(at, &failed(200)),
        }
        active.live = None;
        self.try_next(world, call.request);
    }

    fn timer(&mut self, world: &mut World<'_>, number: usize) {
        self.picker.tick(seconds(world.now));
        if let Some(every) = self.picker.tick_every_s() {
            world.timer_at(number, world.now + Duration::from_secs_f64(every));
        }
    }

    fn fleet_changed(&mut self, _world: &mut World<'_>) {}
}

fn seconds(at: Timestamp) -> f64 {
    at.as_nanos() as f64 / 1e9
}

/// The index of the smallest value among `of`. Ties go to the first.
fn smallest(of: &[usize], value: impl Fn(usize) -> f64) -> Option<usize> {
    of.iter().copied().min_by(|a, b| value(*a).total_cmp(&value(*b)))
}
