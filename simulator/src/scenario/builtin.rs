//! The scenarios and fleets that come with the simulator.

use std::sync::LazyLock;

use super::{InvalidScenario, ProviderSpec, Scenario};

/// The acceptance scenarios: id and YAML.
pub const SCENARIOS: [(&str, &str); 20] = [
    ("01", include_str!("../../scenarios/01-steady.yaml")),
    ("02", include_str!("../../scenarios/02-brownout.yaml")),
    ("03", include_str!("../../scenarios/03-outage.yaml")),
    ("04", include_str!("../../scenarios/04-black-hole.yaml")),
    ("05", include_str!("../../scenarios/05-flapping.yaml")),
    ("06", include_str!("../../scenarios/06-gray.yaml")),
    ("07", include_str!("../../scenarios/07-rate-limits.yaml")),
    ("08", include_str!("../../scenarios/08-daily-brownout.yaml")),
    ("09", include_str!("../../scenarios/09-spike.yaml")),
    ("10", include_str!("../../scenarios/10-herding.yaml")),
    ("11", include_str!("../../scenarios/11-length.yaml")),
    ("12", include_str!("../../scenarios/12-cost.yaml")),
    ("13", include_str!("../../scenarios/13-two-down.yaml")),
    ("14", include_str!("../../scenarios/14-new-bad-provider.yaml")),
    ("15", include_str!("../../scenarios/15-bursty.yaml")),
    ("16", include_str!("../../scenarios/16-daily-brownout-quiet.yaml")),
    ("17", include_str!("../../scenarios/17-two-providers.yaml")),
    ("18", include_str!("../../scenarios/18-mid-stream.yaml")),
    ("F", include_str!("../../scenarios/F-fallback-black-hole.yaml")),
    ("FO", include_str!("../../scenarios/FO-fallback-outage.yaml")),
];

/// The fleets: name and YAML.
pub const FLEETS: [(&str, &str); 2] = [
    ("five", include_str!("../../scenarios/fleets/five.yaml")),
    ("priced", include_str!("../../scenarios/fleets/priced.yaml")),
];

/// What came of reading a fleet.
type FleetRead = Result<Vec<ProviderSpec>, InvalidScenario>;

static FLEETS_READ: LazyLock<Vec<(&str, FleetRead)>> = LazyLock::new(|| {
    let read =
        |text| serde_saphyr::from_str(text).map_err(|error| InvalidScenario::Syntax(error.to_string()));
    FLEETS.into_iter().map(|(name, text)| (name, read(text))).collect()
});

static ACCEPTANCE: LazyLock<Result<Vec<Scenario>, BrokenBuiltin>> = LazyLock::new(|| {
    let read = |(id, text)| Scenario::from_yaml(text).map_err(|error| BrokenBuiltin { id, error });
    SCENARIOS.into_iter().map(read).collect()
});

/// A scenario that comes with the simulator can't be read: its file was changed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("built-in scenario {id}: {error}")]
pub struct BrokenBuiltin {
    /// Its id.
    pub id: &'static str,
    /// What is wrong.
    pub error: InvalidScenario,
}

/// The acceptance scenarios, in the order of the table.
///
/// # Errors
/// One of them can't be read: none is left out silently.
pub fn acceptance() -> Result<&'static [Scenario], BrokenBuiltin> {
    ACCEPTANCE.as_deref().map_err(Clone::clone)
}

/// The built-in fleet of that name. None: there is none.
pub(super) fn fleet(name: &str) -> Option<Result<&'static [ProviderSpec], InvalidScenario>> {
    let (_, read) = FLEETS_READ.iter().find(|(known, _)| *known == name)?;
    Some(read.as_deref().map_err(Clone::clone))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_scenario_and_fleet_can_be_read() {
        for (id, text) in SCENARIOS {
            let scenario = Scenario::from_yaml(text).unwrap_or_else(|error| panic!("{id}: {error}"));
            assert_eq!(scenario.id, id);
        }
        assert_eq!(acceptance().unwrap().len(), SCENARIOS.len());
        for (name, text) in FLEETS {
            let fleet: Vec<ProviderSpec> = serde_saphyr::from_str(text).unwrap();
            assert!(!fleet.is_empty(), "{name}");
        }
    }
}
