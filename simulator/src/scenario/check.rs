//! What a scenario must be to be run.

use super::{Effect, Fleet, Incident, Scenario, TrafficSpec, builtin};
use crate::{
    model::{InvalidModel, in_range},
    outage::Outage,
};

/// Longest run: a day. Bounds how many requests a run holds, together with the rate.
const DURATION_MAX_S: f64 = 86_400.0;
/// Most requests per second, bursts not counted.
const RATE_MAX_PER_S: f64 = 1_000.0;
/// Most requests of a run: about 100 bytes each are held.
const REQUESTS_MAX: f64 = 5_000_000.0;
/// Most agents.
const AGENTS_MAX: u32 = 1_000;
/// Most providers.
const PROVIDERS_MAX: usize = 64;
/// Most incidents.
const INCIDENTS_MAX: usize = 1_000;

/// A scenario that can't be run.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum InvalidScenario {
    /// It is no scenario at all.
    #[error("{0}")]
    Syntax(String),
    /// A number that makes no sense.
    #[error("{field} is {value}, must be {min} to {max}")]
    Range {
        /// Its path.
        field: String,
        /// What it is.
        value: f64,
        /// Smallest allowed value.
        min: f64,
        /// Largest allowed value.
        max: f64,
    },
    /// A provider's model is wrong.
    #[error("fleet[{provider}].{error}")]
    Model {
        /// Its place, from 1.
        provider: usize,
        /// What is wrong.
        error: InvalidModel,
    },
    /// There is no such fleet.
    #[error("fleet '{name}' is unknown; there are: {known}")]
    UnknownFleet {
        /// What was asked for.
        name: String,
        /// All names.
        known: String,
    },
    /// Two parts do not fit together.
    #[error("{field}: {problem}")]
    Mismatch {
        /// Its path.
        field: String,
        /// What is wrong, and what would be right.
        problem: String,
    },
}

fn range(field: &str, value: f64, min: f64, max: f64) -> Result<(), InvalidScenario> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(InvalidScenario::Range { field: field.to_owned(), value, min, max })
}

fn mismatch(field: String, problem: impl Into<String>) -> InvalidScenario {
    InvalidScenario::Mismatch { field, problem: problem.into() }
}

impl Scenario {
    /// Checks all that a run relies on.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), InvalidScenario> {
        range("duration_s", self.duration_s, 1.0, DURATION_MAX_S)?;
        range("warmup_s", self.warmup_s, 0.0, self.duration_s)?;
        range("agents", self.agents.into(), 1.0, AGENTS_MAX.into())?;
        range("report_every_s", self.report_every_s, 0.1, 3600.0)?;
        range("publish_delay_s", self.publish_delay_s, 0.0, 3600.0)?;
        range("deadline_s", self.deadline_s, 0.1, 3600.0)?;
        range("slo.ttft_s", self.slo.ttft_s, 0.001, 3600.0)?;
        range("slo.total_s", self.slo.total_s, 0.001, 3600.0)?;
        if let Some(window) = self.window {
            range("window.start_s", window.start_s, 0.0, self.duration_s)?;
            range("window.end_s", window.end_s, window.start_s, self.duration_s)?;
        }
        self.traffic.check(self.duration_s)?;
        self.check_fleet()?;
        for (at, incident) in self.incidents.iter().enumerate() {
            incident.check(&format!("incidents[{at}]"), self.providers().len())?;
        }
        self.check_tiers()?;
        for (at, floor) in self.floors.iter().enumerate() {
            range(&format!("floors[{at}].share"), floor.share, 0.0, 1.0)?;
            range(&format!("floors[{at}].min_quality"), floor.min_quality, 0.0, 1.0)?;
        }
        range("floors (sum of shares)", self.floors.iter().map(|floor| floor.share).sum(), 0.0, 1.000_001)
    }

    fn check_fleet(&self) -> Result<(), InvalidScenario> {
        if let Fleet::Named(name) = &self.fleet {
            let known = || super::FLEETS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
            let unknown = || InvalidScenario::UnknownFleet { name: name.clone(), known: known() };
            builtin::fleet(name).ok_or_else(unknown)??;
        }
        let providers = self.providers();
        range("fleet (providers)", providers.len() as f64, 1.0, PROVIDERS_MAX as f64)?;
        range("incidents (number)", self.incidents.len() as f64, 0.0, INCIDENTS_MAX as f64)?;
        for (at, provider) in (1..).zip(providers) {
            provider.model.validate().map_err(|error| InvalidScenario::Model { provider: at, error })?;
            let path = |field: &str| format!("fleet[{at}].{field}");
            range(&path("weight"), provider.weight.into(), 0.0, 1000.0)?;
            range(&path("answer_sigma"), provider.answer_sigma, 0.0, 2.0)?;
            range(&path("quality"), provider.quality, 0.0, 1.0)?;
            range(&path("verbosity"), provider.verbosity, 0.01, 100.0)?;
            range(&path("price.input"), provider.price.input, 0.0, 10_000.0)?;
            range(&path("price.output"), provider.price.output, 0.0, 10_000.0)?;
            range(&path("price.cached_input"), provider.price.cached_input.unwrap_or(0.0), 0.0, 10_000.0)?;
            let same = providers[..at - 1].iter().any(|other| other.model.name == provider.model.name);
            let name = &provider.model.name;
            if name.is_empty() || same || name.contains('/') {
                return Err(mismatch(path("model.name"), "must be unique, not empty and without a slash"));
            }
        }
        Ok(())
    }

    fn check_tiers(&self) -> Result<(), InvalidScenario> {
        for (at, tier) in self.tiers.iter().enumerate() {
            if tier.is_empty() {
                return Err(mismatch(format!("tiers[{at}]"), "is empty; name providers by number, from 1"));
            }
            for place in tier {
                range(&format!("tiers[{at}]"), *place as f64, 1.0, self.providers().len() as f64)?;
            }
            let twice = (1..tier.len()).any(|index| tier[..index].contains(&tier[index]));
            if twice {
                return Err(mismatch(format!("tiers[{at}]"), "names a provider twice"));
            }
        }
        Ok(())
    }
}

impl TrafficSpec {
    fn check(&self, duration_s: f64) -> Result<(), InvalidScenario> {
        range("traffic.rate_per_s", self.rate_per_s, 0.001, RATE_MAX_PER_S)?;
        range("traffic (requests of the run)", self.rate_per_s * duration_s, 1.0, REQUESTS_MAX)?;
        for (at, surge) in self.surges.iter().enumerate() {
            let path = |field: &str| format!("traffic.surges[{at}].{field}");
            range(&path("start_s"), surge.start_s, 0.0, duration_s)?;
            range(&path("duration_s"), surge.duration_s, 0.0, duration_s)?;
            range(&path("factor"), surge.factor, 0.0, 100.0)?;
        }
        if let Some(bursts) = self.bursts {
            range("traffic.bursts.quiet_s", bursts.quiet_s, 0.1, DURATION_MAX_S)?;
            range("traffic.bursts.busy_s", bursts.busy_s, 0.1, DURATION_MAX_S)?;
            range("traffic.bursts.factor", bursts.factor, 1.0, 100.0)?;
        }
        if let Some(day) = self.day {
            range("traffic.day.length_s", day.length_s, 1.0, DURATION_MAX_S)?;
            range("traffic.day.amplitude", day.amplitude, 0.0, 1.0)?;
        }
        Ok(())
    }
}

impl Incident {
    fn check(&self, path: &str, providers: usize) -> Result<(), InvalidScenario> {
        let path = |field: &str| format!("{path}.{field}");
        range(&path("provider"), self.provider as f64, 1.0, providers as f64)?;
        range(&path("start_s"), self.start_s, 0.0, DURATION_MAX_S)?;
        if let Some(duration) = self.duration_s {
            range(&path("duration_s"), duration, 0.0, DURATION_MAX_S)?;
        }
        if let Some(every) = self.every_s {
            range(&path("every_s"), every, 0.1, DURATION_MAX_S)?;
        }
        let model = |result: Result<(), InvalidModel>| {
            result.map_err(|error| mismatch(path("effect"), error.to_string()))
        };
        match self.effect {
            Effect::Outage(kind) => {
                let outage = Outage { start_s: 0.0, duration_s: 1.0, every_s: None, kind };
                model(outage.validate())
            }
            Effect::Errors(rates) => model(rates.validate()),
            Effect::Price(price) => model(in_range("price", price.input.min(price.output), 0.0, 10_000.0)),
            Effect::Absent if self.every_s.is_some() => {
                Err(mismatch(path("every_s"), "a provider is absent once; leave it out"))
            }
            Effect::Absent | Effect::Limits(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_named_with_its_path() {
        let check = |text: &str, said: &str| {
            let error = Scenario::from_yaml(text).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        };
        check("{id: x, name: x, fleet: six}", "'six'");
        check("{id: x, name: x, fleet: five, agents: 0}", "agents is 0");
        check("{id: x, name: x, fleet: five, agent: 1}", "agent");
        check("{id: x, name: x, fleet: five, tiers: [[1, 1]]}", "tiers[0]");
        check(
            "{id: x, name: x, fleet: five, incidents: [{provider: 9, effect: absent}]}",
            "incidents[0].provider is 9",
        );
        check(
            "{id: x, name: x, fleet: five, incidents: [{provider: 1, effect: {outage: {slow: 0.5}}}]}",
            "incidents[0].effect",
        );
    }
}
