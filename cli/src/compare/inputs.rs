//! What is to be run: scenario, traffic and strategies, by name or from files.

use std::path::Path;

use anyhow::Context as _;
use trunkline_simulator::{
    Law,
    run::Policy,
    scenario::{self, Fleet, Scenario},
    traffic::{self, Traffic},
};

use super::names::unknown;
use crate::{args::CompareArgs, failure::Failure};

/// A scenario with what was asked of it changed.
pub(super) fn scenario(name: &str, args: &CompareArgs) -> Result<Scenario, Failure> {
    let scenario = match built_in(name)? {
        Some(scenario) => scenario.clone(),
        None if Path::new(name).exists() => from_file(Path::new(name))?,
        None => {
            let known = built_ins()?.iter().map(|scenario| scenario.id.as_str());
            return Err(unknown("scenario or file", name, known));
        }
    };
    changed(scenario, args)
}

/// The built-in scenario of that id or name.
pub(super) fn built_in(name: &str) -> Result<Option<&'static Scenario>, Failure> {
    Ok(built_ins()?.iter().find(|scenario| scenario.id == name || scenario.name == name))
}

/// All built-in scenarios.
pub(super) fn built_ins() -> Result<&'static [Scenario], Failure> {
    scenario::acceptance().map_err(Failure::failed)
}

/// With the fleet and the law of congestion that were asked for.
pub(super) fn changed(scenario: Scenario, args: &CompareArgs) -> Result<Scenario, Failure> {
    let scenario = match &args.fleet {
        Some(name) if !scenario::FLEETS.iter().any(|(known, _)| known == name) => {
            return Err(unknown("fleet", name, scenario::FLEETS.iter().map(|(known, _)| *known)));
        }
        Some(name) => scenario
            .with_fleet(Fleet::Named(name.clone()))
            .with_context(|| format!("use the fleet {name} in scenario {}", scenario.id))
            .map_err(Failure::WrongInput)?,
        None => scenario,
    };
    Ok(match args.congestion {
        Some(law) => scenario.with_congestion(law),
        None => scenario,
    })
}

fn from_file(path: &Path) -> Result<Scenario, Failure> {
    let read = || -> anyhow::Result<Scenario> {
        let text = std::fs::read_to_string(path)?;
        // The reader of YAML says "error: " itself, and so does the terminal.
        Scenario::from_yaml(&text).map_err(|error| {
            let said = error.to_string();
            anyhow::anyhow!("{}", said.strip_prefix("error: ").unwrap_or(&said).trim_end())
        })
    };
    read().with_context(|| format!("read the scenario {}", path.display())).map_err(Failure::WrongInput)
}

/// The traffic that was asked for, else the scenario's own.
pub(super) fn traffic(scenario: &Scenario, args: &CompareArgs) -> Result<Traffic, Failure> {
    let name = args.traffic.as_deref().unwrap_or(&scenario.traffic.source);
    if let Some(traffic) = Traffic::named(name).map_err(Failure::failed)? {
        return Ok(traffic);
    }
    let path = Path::new(name);
    if !path.exists() {
        let known = traffic::NAMES.iter().map(|(known, _)| *known);
        return Err(unknown("traffic or file", name, known));
    }
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let read =
        || -> anyhow::Result<Traffic> { Ok(Traffic::from_csv(&stem, &std::fs::read_to_string(path)?)?) };
    read().with_context(|| format!("read the traffic {}", path.display())).map_err(Failure::WrongInput)
}

/// The strategies that were asked for, each once; some that are worth knowing otherwise.
pub(super) fn policies(names: &[String]) -> Result<Vec<Policy>, Failure> {
    let mut policies: Vec<Policy> = Vec::new();
    for name in names {
        let policy = policy(name.trim())?;
        if !policies.contains(&policy) {
            policies.push(policy);
        }
    }
    if policies.is_empty() {
        return Ok(Policy::all().collect());
    }
    Ok(policies)
}

/// The strategy or baseline of that name.
pub(super) fn policy(name: &str) -> Result<Policy, Failure> {
    // The core's names have underscores, those of baselines hyphens: both are understood.
    let parsed = name.parse().or_else(|_| name.replace('-', "_").parse());
    parsed.map_err(|_| {
        let known: Vec<String> = Policy::all().map(|policy| policy.to_string()).collect();
        unknown("strategy", name, known.iter().map(String::as_str))
    })
}

/// The name of a law of congestion.
pub(super) fn law_name(law: Law) -> String {
    let named = Law::NAMES.into_iter().find(|(_, known)| *known == law);
    named.map(|(name, _)| name.to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    const GUIDE: &str = include_str!("../../../docs/guides/compare.md");

    /// The fenced blocks of a language.
    fn blocks(language: &str) -> impl Iterator<Item = &'static str> {
        let parts = GUIDE.split("\n```").filter_map(move |part| part.strip_prefix(language));
        parts.map(|part| part.trim_start_matches('\n'))
    }

    /// Every field in it, however deep, by path; items of lists have none of their own.
    fn fields(value: &Value, path: &str, found: &mut Vec<String>) {
        match value {
            Value::Object(object) => {
                for (name, value) in object {
                    let path = format!("{path}.{name}");
                    fields(value, &path, found);
                    found.push(path);
                }
            }
            Value::Array(items) => items.iter().for_each(|item| fields(item, path, found)),
            _ => {}
        }
    }

    #[test]
    fn the_guide_shows_every_field_of_a_scenario() {
        let text = blocks("yaml").next().unwrap();
        let scenario = Scenario::from_yaml(text).unwrap();
        let written: Value = serde_saphyr::from_str(text).unwrap();
        let (mut shown, mut all) = (Vec::new(), Vec::new());
        fields(&written, "", &mut shown);
        fields(&serde_json::to_value(&scenario).unwrap(), "", &mut all);
        // An incident's errors, limits and prices have the fields of the provider's own.
        let name = |path: &String| path.rsplit('.').next().map(str::to_owned);
        let names: Vec<_> = shown.iter().map(name).collect();
        let of_effect = |path: &String| path.starts_with(".incidents.effect.") && names.contains(&name(path));
        all.retain(|path| !shown.contains(path) && !of_effect(path));
        assert!(all.is_empty(), "the guide lacks {all:?}");
    }

    #[test]
    fn the_traffic_of_the_guide_can_be_played() {
        assert!(Traffic::from_csv("guide", blocks("csv").next().unwrap()).is_ok());
    }
}
