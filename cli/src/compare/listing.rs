//! What there is to compare: scenarios, strategies, baselines, traffics and fleets, a line
//! each; and a scenario's YAML.

use trunkline_simulator::{
    Law,
    report::complexity,
    run::Policy,
    scenario::{FLEETS, SCENARIOS},
    traffic,
};

use super::names::unknown;
use crate::failure::Failure;

/// Everything by name.
pub(super) fn listing() -> Result<String, Failure> {
    let policies = |core: bool| {
        let all = Policy::all().filter(move |policy| policy.is_core() == core);
        all.map(|policy| (policy.to_string(), complexity(policy).about.to_owned())).collect::<Vec<_>>()
    };
    let scenarios =
        super::inputs::built_ins()?.iter().map(|s| (s.id.clone(), format!("{}: {}", s.name, s.about)));
    let pairs =
        |pairs: &[(&str, &str)]| pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
    let fleets = FLEETS.iter().map(|(name, text)| ((*name).to_owned(), first_comment(text)));
    let laws = Law::NAMES.iter().map(|(name, _)| ((*name).to_owned(), String::new()));
    let text = [
        ("SCENARIOS (--scenario)", scenarios.collect::<Vec<_>>()),
        ("STRATEGIES of Trunkline (--strategies)", policies(true)),
        ("BASELINES (--strategies)", policies(false)),
        ("TRAFFICS (--traffic)", pairs(&traffic::NAMES)),
        ("FLEETS (--fleet)", fleets.collect()),
        ("LAWS OF CONGESTION (--congestion)", laws.collect()),
    ]
    .iter()
    .map(|(title, lines)| section(title, lines))
    .collect::<Vec<_>>()
    .join("\n");
    Ok(text)
}

fn section(title: &str, lines: &[(String, String)]) -> String {
    let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let lines =
        lines.iter().map(|(name, about)| format!("  {name:<width$}  {about}").trim_end().to_owned() + "\n");
    format!("{title}\n{}", lines.collect::<String>())
}

/// The comment that a file opens with, which says what it is.
fn first_comment(text: &str) -> String {
    let lines = text.lines().map_while(|line| line.strip_prefix('#'));
    lines.map(str::trim).collect::<Vec<_>>().join(" ")
}

/// The YAML of a built-in scenario, by id or name.
pub(super) fn yaml(name: &str) -> Result<&'static str, Failure> {
    let id = super::inputs::built_in(name)?.map(|scenario| scenario.id.as_str());
    let text = SCENARIOS.iter().find(|(known, _)| Some(*known) == id).map(|(_, text)| *text);
    text.ok_or_else(|| unknown("scenario", name, SCENARIOS.iter().map(|(known, _)| *known)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_can_be_named_is_listed_with_a_line() {
        let text = listing().unwrap();
        for name in SCENARIOS.iter().map(|(id, _)| *id).chain(FLEETS.iter().map(|(name, _)| *name)) {
            let line = text.lines().find(|line| line.trim_start().starts_with(&format!("{name} ")));
            assert!(line.is_some_and(|line| line.trim().len() > name.len() + 3), "{name}:\n{text}");
        }
        for policy in Policy::all() {
            assert!(text.contains(&format!("  {policy} ")), "{policy}");
        }
    }

    #[test]
    fn the_yaml_of_a_scenario_is_a_scenario() {
        for (id, _) in SCENARIOS {
            assert!(trunkline_simulator::scenario::Scenario::from_yaml(yaml(id).unwrap()).is_ok(), "{id}");
        }
        assert!(yaml("no-such").is_err());
    }
}
