//! The removal guard: refuses what looks like an accident. Operators may override it.

use std::collections::{BTreeMap, BTreeSet};

use crate::{admin::v1::Config, types::v1::VirtualModel};

/// Refuses to remove the last target of a virtual model that has traffic, or more
/// than half of all deployments at once.
///
/// # Errors
/// What would be lost, and how to do it nevertheless.
pub fn removal_guard(old: &Config, new: &Config, has_traffic: &dyn Fn(&str) -> bool) -> Result<(), String> {
    let kept: BTreeMap<&str, &VirtualModel> =
        new.virtual_models.iter().map(|one| (one.name.as_str(), one)).collect();
    for model in &old.virtual_models {
        let left = kept.get(model.name.as_str());
        let left = left.is_some_and(|one| has_target(one, new));
        if !left && has_target(model, old) && has_traffic(&model.name) {
            return Err(format!(
                "this removes the last target of virtual model {}, which has traffic; \
                 repeat it with force to do it nevertheless",
                model.name
            ));
        }
    }
    let before = deployments(old);
    let removed = before.difference(&deployments(new)).count();
    if removed * 2 > before.len() {
        return Err(format!(
            "this removes {removed} of {} deployments at once; \
             repeat it with force to do it nevertheless",
            before.len()
        ));
    }
    Ok(())
}

fn deployments(config: &Config) -> BTreeSet<(&str, &str)> {
    let providers = config.providers.iter();
    providers.flat_map(|one| one.deployments.iter().map(|it| (&*one.name, &*it.name))).collect()
}

/// Whether a target of the model is a deployment that exists.
fn has_target(model: &VirtualModel, config: &Config) -> bool {
    let exists = |name: &str| {
        name.split_once('/').is_some_and(|(provider, deployment)| {
            config
                .providers
                .iter()
                .any(|one| one.name == provider && one.deployments.iter().any(|it| it.name == deployment))
        })
    };
    model.tiers.iter().flat_map(|tier| &tier.targets).any(|target| exists(&target.deployment))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::v1::{Deployment, Provider, Target, Tier};

    fn config(deployments: &[&str], targets: &[&str]) -> Config {
        let deployment = |name: &&str| Deployment { name: (*name).to_owned(), ..Deployment::default() };
        let target = |name: &&str| Target { deployment: format!("p/{name}"), ..Target::default() };
        Config {
            providers: vec![Provider {
                name: "p".to_owned(),
                deployments: deployments.iter().map(deployment).collect(),
                ..Provider::default()
            }],
            virtual_models: vec![VirtualModel {
                name: "chat".to_owned(),
                tiers: vec![Tier { targets: targets.iter().map(target).collect(), ..Tier::default() }],
                ..VirtualModel::default()
            }],
            ..Config::default()
        }
    }

    #[test]
    fn a_busy_model_keeps_its_last_target() {
        let old = config(&["a", "b"], &["a"]);
        let mut gone = old.clone();
        gone.virtual_models.clear();
        let last = "this removes the last target of virtual model chat, which has traffic; \
                    repeat it with force to do it nevertheless";
        for new in [&gone, &config(&["a", "b"], &[]), &config(&["b"], &["a"])] {
            assert_eq!(removal_guard(&old, new, &|_| true), Err(last.to_owned()));
            assert_eq!(removal_guard(&old, new, &|_| false), Ok(()));
        }
        assert_eq!(removal_guard(&old, &config(&["b"], &["b"]), &|_| true), Ok(()));
    }

    #[test]
    fn most_deployments_do_not_go_at_once() {
        let old = config(&["a", "b", "c", "d"], &["a"]);
        let most = "this removes 3 of 4 deployments at once; \
                    repeat it with force to do it nevertheless";
        let new = config(&["a", "x", "y", "z"], &["a"]);
        assert_eq!(removal_guard(&old, &new, &|_| false), Err(most.to_owned()));
        let half = config(&["a", "b"], &["a"]);
        assert_eq!(removal_guard(&old, &half, &|_| false), Ok(()));
        let only = removal_guard(&config(&["a"], &[]), &config(&[], &[]), &|_| false);
        assert!(only.unwrap_err().contains("1 of 1"));
        assert_eq!(removal_guard(&config(&[], &[]), &config(&["a"], &[]), &|_| false), Ok(()));
    }
}
