//! What is learned of deployments, between the decision core and the wire.

use trunkline_routing::train::{Coefficients, DeploymentModel, FleetModels, OutputKey, OutputModel, Sums};

use crate::agent::v1 as wire;

/// One deployment, as it travels.
pub fn wire_model(name: &str, model: &DeploymentModel) -> wire::DeploymentModel {
    let Coefficients { samples, ln_ttft, ln_tpot, beta, tpot_beta, sigma2, verbosity } = model.slow;
    wire::DeploymentModel {
        deployment: name.to_owned(),
        samples,
        ln_ttft: ln_ttft.to_vec(),
        ln_tpot,
        beta,
        tpot_beta,
        sigma2,
        verbosity,
        ttft_now: evidence(model.ttft_now),
        tpot_now: evidence(model.tpot_now),
        errors: evidence(model.errors),
        breaks: evidence(model.breaks),
        in_flight: model.in_flight,
        in_flight_age: prost_types::Duration::try_from(model.in_flight_age).ok(),
        newest_age: model.newest_age.and_then(|age| prost_types::Duration::try_from(age).ok()),
    }
}

/// Lengths of answers, as they travel.
pub fn wire_outputs(outputs: &[OutputModel]) -> Vec<wire::OutputModel> {
    let wire = |one: &OutputModel| wire::OutputModel {
        route: one.key.route,
        bucket: one.key.bucket.into(),
        tokens: evidence(one.tokens),
    };
    outputs.iter().map(wire).collect()
}

/// None: nothing is known.
fn evidence(sums: Sums) -> Option<wire::Evidence> {
    (sums != Sums::default()).then_some(wire::Evidence { sum: sums.sum, weight: sums.weight })
}

/// What a control plane sent. What no model can be is left out: the agent goes on with
/// what it knows itself.
pub fn fleet_models(models: wire::FleetModels) -> FleetModels {
    let known = models.deployments.into_iter().filter_map(deployment_model);
    let outputs = models.outputs.into_iter().filter_map(|one| {
        let key = OutputKey { route: one.route, bucket: u8::try_from(one.bucket).ok()? };
        let tokens = sums(one.tokens);
        (tokens.sane() == tokens).then_some(OutputModel { key, tokens })
    });
    FleetModels { agents: models.agents, models: known.collect(), outputs: outputs.collect() }
}

fn deployment_model(model: wire::DeploymentModel) -> Option<(Box<str>, DeploymentModel)> {
    let slow = Coefficients {
        samples: model.samples,
        ln_ttft: <[f64; 3]>::try_from(model.ln_ttft).ok()?,
        ln_tpot: model.ln_tpot,
        beta: model.beta,
        tpot_beta: model.tpot_beta,
        sigma2: model.sigma2,
        verbosity: model.verbosity,
    };
    let age = |wire: prost_types::Duration| std::time::Duration::try_from(wire).ok();
    let known = DeploymentModel {
        slow,
        ttft_now: sums(model.ttft_now).sane(),
        tpot_now: sums(model.tpot_now).sane(),
        errors: sums(model.errors).sane(),
        breaks: sums(model.breaks).sane(),
        in_flight: model.in_flight,
        in_flight_age: model.in_flight_age.and_then(age).unwrap_or_default(),
        newest_age: model.newest_age.and_then(age),
    };
    (slow.is_sane() && model.in_flight.is_finite()).then(|| (model.deployment.into(), known))
}

fn sums(evidence: Option<wire::Evidence>) -> Sums {
    evidence.map_or_else(Sums::default, |wire::Evidence { sum, weight }| Sums { sum, weight })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn model() -> DeploymentModel {
        DeploymentModel {
            slow: Coefficients { samples: 9, ln_ttft: [-1.0, 0.5, 0.25], ..Coefficients::default() },
            ttft_now: Sums { sum: 0.5, weight: 2.0 },
            in_flight: 3.0,
            in_flight_age: Duration::from_millis(700),
            newest_age: Some(Duration::from_secs(2)),
            ..DeploymentModel::default()
        }
    }

    #[test]
    fn a_model_travels_whole() {
        let key = OutputKey { route: u64::MAX, bucket: 255 };
        let outputs = vec![OutputModel { key, tokens: Sums { sum: 80.0, weight: 2.0 } }];
        let sent = wire::FleetModels {
            agents: 4,
            deployments: vec![wire_model("p/d", &model())],
            outputs: wire_outputs(&outputs),
        };
        let got = fleet_models(sent);
        assert_eq!(got, FleetModels { agents: 4, models: vec![("p/d".into(), model())], outputs });
    }

    #[test]
    fn what_no_model_can_be_is_left_out() {
        let good = wire_model("p/d", &model());
        let few = wire::DeploymentModel { ln_ttft: vec![1.0], ..good.clone() };
        let odd = wire::DeploymentModel { beta: f64::NAN, ..good.clone() };
        let endless = wire::DeploymentModel { in_flight: f64::INFINITY, ..good.clone() };
        let output = wire::OutputModel { route: 1, bucket: 256, tokens: None };
        let sent = wire::FleetModels {
            agents: 1,
            deployments: vec![few, odd, endless, good],
            outputs: vec![output],
        };
        let got = fleet_models(sent);
        assert_eq!((got.models.len(), got.outputs.len()), (1, 0));
    }
}
