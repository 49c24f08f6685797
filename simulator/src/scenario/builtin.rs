//! The scenarios and fleets that come with the simulator.

use std::sync::LazyLock;

use super::{ProviderSpec, Scenario};

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
