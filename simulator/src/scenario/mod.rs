//! A scenario: providers, what happens to them, what traffic comes, what is promised
//! to callers. Written as YAML; every field not given has the default named here.

use serde::{Deserialize, Serialize};
use trunkline_routing::{money::Rates, time::Timestamp};

use crate::{
    congestion::Law,
    limits::RateLimits,
    model::{ErrorRates, ProviderModel},
    outage::{OutageKind, within},
};

mod builtin;
mod check;
mod fleet;

pub use builtin::{BrokenBuiltin, FLEETS, SCENARIOS, acceptance};
pub use check::InvalidScenario;

// A provider whose answers take 1 s to the first token and 3 s from there, of which the
// load is felt to 0.3, serves at most capacity / 11.8 s by the law `queue`. By the
// others it does so with these strengths, the law `power` at steepness 3.
const SAME_PEAK_POWER: f64 = 8.0;
const SAME_PEAK_LINEAR: f64 = 6.2;

/// One experiment, without policy, traffic source and seed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Short and unique: the row's id in the acceptance table.
    pub id: String,
    /// In a word or two.
    pub name: String,
    /// What happens, in a sentence.
    #[serde(default)]
    pub about: String,
    /// How long requests arrive. Default 600. What runs then may end.
    #[serde(default = "defaults::duration_s")]
    pub duration_s: f64,
    /// Requests that arrive earlier are not counted. Default 60.
    #[serde(default = "defaults::warmup_s")]
    pub warmup_s: f64,
    /// Agents; a request comes in at one of them at random. Default 3.
    #[serde(default = "defaults::agents")]
    pub agents: u32,
    /// Time between two reports of an agent to its control plane. That publishes what it
    /// learned as often, but at least every two seconds. Default 2.
    #[serde(default = "defaults::report_every_s")]
    pub report_every_s: f64,
    /// How late a publication is at the agents. Default 0.2.
    #[serde(default = "defaults::publish_delay_s")]
    pub publish_delay_s: f64,
    /// What callers allow for a request. Default 60.
    #[serde(default = "defaults::deadline_s")]
    pub deadline_s: f64,
    /// What callers were promised.
    #[serde(default)]
    pub slo: SloSpec,
    /// What comes in.
    #[serde(default)]
    pub traffic: TrafficSpec,
    /// The providers: the name of a built-in fleet, or a list.
    pub fleet: Fleet,
    /// What happens to them.
    #[serde(default)]
    pub incidents: Vec<Incident>,
    /// The stretch of time that is measured apart. Default: none.
    #[serde(default)]
    pub window: Option<Window>,
    /// The fallback chain: numbers of providers, from 1, tier by tier. Default: one
    /// tier of all.
    #[serde(default)]
    pub tiers: Vec<Vec<usize>>,
    /// Quality floors of requests. Default: none has one.
    #[serde(default)]
    pub floors: Vec<Floor>,
}

/// What callers were promised: a request meets it with both times.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SloSpec {
    /// Most seconds to the first token. Default 5.
    pub ttft_s: f64,
    /// Most seconds to the last token. Default 20.
    pub total_s: f64,
}

impl Default for SloSpec {
    fn default() -> Self {
        Self { ttft_s: 5.0, total_s: 20.0 }
    }
}

/// What comes in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrafficSpec {
    /// Which traffic, unless the run is given another. Default `mixed-a`.
    pub source: String,
    /// Mean requests per second, before `surges`. Default 7.
    pub rate_per_s: f64,
    /// Stretches of more or fewer requests.
    pub surges: Vec<Surge>,
    /// Random bursts.
    pub bursts: Option<Bursts>,
    /// A day's rise and fall.
    pub day: Option<Day>,
    /// Every request says how many tokens it wants at most: the next power of two above
    /// what it will get, at least this. Default: none says so.
    pub declare_output_from: Option<u32>,
}

impl Default for TrafficSpec {
    fn default() -> Self {
        Self {
            source: "mixed-a".to_owned(),
            rate_per_s: 7.0,
            surges: Vec::new(),
            bursts: None,
            day: None,
            declare_output_from: None,
        }
    }
}

/// The rate times `factor` for a while.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Surge {
    /// Its beginning.
    pub start_s: f64,
    /// How long.
    pub duration_s: f64,
    /// Times the usual rate.
    pub factor: f64,
}

/// Two states that follow each other at random moments, with exponential times: a
/// Markov-modulated Poisson process. The mean rate stays as it is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bursts {
    /// Mean time in the quiet state.
    pub quiet_s: f64,
    /// Mean time in the busy state.
    pub busy_s: f64,
    /// Rate of the busy state, times that of the quiet one.
    pub factor: f64,
}

/// The rate follows a sine. The mean stays as it is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Day {
    /// From one peak to the next.
    pub length_s: f64,
    /// How far it rises and falls, as a share of the mean, 0 to 1.
    pub amplitude: f64,
}

/// The providers.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Fleet {
    /// A built-in one, by its name.
    Named(String),
    /// Written out, the fastest first.
    Listed(Vec<ProviderSpec>),
}

/// One provider, with the one model that is used there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProviderSpec {
    /// How fast, how reliable, how limited. Its `name` names the provider; its `output`
    /// is not used, as traffic says how long answers are.
    pub model: ProviderModel,
    /// Share of the traffic that an operator would configure. Default 1.
    #[serde(default = "defaults::weight")]
    pub weight: u32,
    /// Deviation of the logarithm of a whole answer's speed. Default 0.15.
    #[serde(default = "defaults::answer_sigma")]
    pub answer_sigma: f64,
    /// 0 to 1. Default 0.5.
    #[serde(default = "defaults::quality")]
    pub quality: f64,
    /// What it charges.
    #[serde(default)]
    pub price: PriceSpec,
    /// Its answers are so many times as long as those of the trace. Default 1.
    #[serde(default = "defaults::verbosity")]
    pub verbosity: f64,
    /// Most tokens of one answer. Default: no limit.
    #[serde(default)]
    pub max_output_tokens: Option<u32>,
    /// Tokens of input and output together. Default: no limit.
    #[serde(default)]
    pub context_window: Option<u32>,
}

/// USD per million tokens.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriceSpec {
    /// Input. Default 1.
    pub input: f64,
    /// Output. Default 4.
    pub output: f64,
    /// Input that was cached. Default: as `input`.
    #[serde(default)]
    pub cached_input: Option<f64>,
}

impl Default for PriceSpec {
    fn default() -> Self {
        Self { input: 1.0, output: 4.0, cached_input: None }
    }
}

/// Something that happens to a provider for a while.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Incident {
    /// Which, by its place in the fleet, from 1.
    pub provider: usize,
    /// Its beginning. Default: from the run's beginning.
    #[serde(default)]
    pub start_s: f64,
    /// How long. Default: to the end.
    #[serde(default)]
    pub duration_s: Option<f64>,
    /// Seconds from one beginning to the next. Default: it happens once.
    #[serde(default)]
    pub every_s: Option<f64>,
    /// What happens.
    pub effect: Effect,
}

/// What happens to a provider.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Callers see an outage, or everything is slow.
    Outage(OutageKind),
    /// These rates come on top of its own.
    Errors(ErrorRates),
    /// These limits instead of its own.
    Limits(RateLimits),
    /// It is not configured yet, or no more.
    Absent,
    /// It charges this.
    Price(PriceSpec),
}

/// A stretch of time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// Its beginning.
    pub start_s: f64,
    /// Its end.
    pub end_s: f64,
}

/// This share of requests needs at least that quality.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Floor {
    /// 0 to 1; what the floors leave to 1 needs none.
    pub share: f64,
    /// 0 to 1.
    pub min_quality: f64,
}

impl PriceSpec {
    /// As accounts keep it: nano-dollars per million tokens.
    pub fn rates(&self) -> Rates {
        let nano = |usd: f64| (usd.max(0.0) * 1e9) as u64;
        Rates {
            input: nano(self.input),
            cached_input: nano(self.cached_input.unwrap_or(self.input)),
            output: nano(self.output),
        }
    }
}

impl Incident {
    /// Whether it is going on.
    pub fn is_active(&self, now: Timestamp) -> bool {
        within(now, self.start_s, self.duration_s.unwrap_or(f64::INFINITY), self.every_s)
    }
}

impl Scenario {
    /// Reads a scenario and checks it.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn from_yaml(text: &str) -> Result<Self, InvalidScenario> {
        let scenario: Self =
            serde_saphyr::from_str(text).map_err(|error| InvalidScenario::Syntax(error.to_string()))?;
        scenario.check()?;
        Ok(scenario)
    }

    /// The providers, written out.
    pub fn providers(&self) -> &[ProviderSpec] {
        match &self.fleet {
            Fleet::Listed(listed) => listed,
            // One that is unknown or can't be read is refused by the check before.
            Fleet::Named(name) => builtin::fleet(name).and_then(Result::ok).unwrap_or_default(),
        }
    }

    /// The same with other providers. Incidents and tiers go by place.
    ///
    /// # Errors
    /// The fleet has fewer providers than the scenario speaks of, or there is none of
    /// that name.
    pub fn with_fleet(&self, fleet: Fleet) -> Result<Self, InvalidScenario> {
        let changed = Self { fleet, ..self.clone() };
        changed.check()?;
        Ok(changed)
    }

    /// The same, with providers that slow down by another law, and serve about as many
    /// requests per second at most.
    #[must_use]
    pub fn with_congestion(&self, law: Law) -> Self {
        let providers = self.providers().iter().cloned().map(|mut provider| {
            let congestion = &mut provider.model.congestion;
            if congestion.law != law {
                congestion.strength = match law {
                    Law::Power => SAME_PEAK_POWER,
                    Law::Linear => SAME_PEAK_LINEAR,
                    Law::Queue => congestion.strength,
                };
            }
            congestion.law = law;
            provider
        });
        Self { fleet: Fleet::Listed(providers.collect()), ..self.clone() }
    }
}

/// What `serde` puts where nothing is written.
mod defaults {
    pub(super) const fn duration_s() -> f64 {
        600.0
    }
    pub(super) const fn warmup_s() -> f64 {
        60.0
    }
    pub(super) const fn agents() -> u32 {
        3
    }
    pub(super) const fn report_every_s() -> f64 {
        2.0
    }
    pub(super) const fn publish_delay_s() -> f64 {
        0.2
    }
    pub(super) const fn deadline_s() -> f64 {
        60.0
    }
    pub(super) const fn weight() -> u32 {
        1
    }
    pub(super) const fn answer_sigma() -> f64 {
        0.15
    }
    pub(super) const fn quality() -> f64 {
        0.5
    }
    pub(super) const fn verbosity() -> f64 {
        1.0
    }
}
