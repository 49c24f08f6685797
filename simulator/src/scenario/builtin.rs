//! The scenarios and fleets that come with the simulator.

use std::sync::LazyLock;

use super::{ProviderSpec, Scenario};

/// The acceptance scenarios: id and YAML.
pub const SCENARIOS: [(&str, &str); 1] = [("01", include_str!("../../scenarios/01-steady.yaml"))];

/// The fleets: name and YAML.
pub const FLEETS: [(&str, &str); 1] = [("five", include_str!("../../scenarios/fleets/five.yaml"))];

static FLEETS_READ: LazyLock<Vec<(&str, Vec<ProviderSpec>)>> = LazyLock::new(|| {
    // They are part of the program, and a test reads them all.
    let read = |text| serde_saphyr::from_str(text).unwrap_or_default();
    FLEETS.into_iter().map(|(name, text)| (name, read(text))).collect()
});

static ACCEPTANCE: LazyLock<Vec<Scenario>> =
    LazyLock::new(|| SCENARIOS.into_iter().filter_map(|(_, text)| Scenario::from_yaml(text).ok()).collect());

/// The acceptance scenarios, in the order of the table.
pub fn acceptance() -> &'static [Scenario] {
    &ACCEPTANCE
}

/// The built-in fleet of that name.
pub(super) fn fleet(name: &str) -> Option<&'static [ProviderSpec]> {
    FLEETS_READ.iter().find(|(known, _)| *known == name).map(|(_, fleet)| fleet.as_slice())
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
        assert_eq!(acceptance().len(), SCENARIOS.len());
        for (name, text) in FLEETS {
            let fleet: Vec<ProviderSpec> = serde_saphyr::from_str(text).unwrap();
            assert!(!fleet.is_empty(), "{name}");
        }
    }
}
