//! The floor: the fleet's verdicts alone never leave a request without a target. As
//! Envoy's panic threshold and linkerd's ejection limits, with the smallest pool that
//! there is: one target.

use super::{Binding, Block, Health, Registry};
use crate::{
    table::{DeploymentIndex, VirtualModel},
    time::Timestamp,
};

impl Registry {
    /// The target for which the fleet's verdict is ignored, since no target of `model`
    /// is ready under it: the first by tier, then by weight, that its own state here
    /// admits. What an operator forced stays. `fits` says whether a deployment can serve
    /// the request at all.
    pub fn floor(
        &self,
        binding: &Binding,
        model: &VirtualModel,
        now: Timestamp,
        tokens: u64,
        fits: impl Fn(DeploymentIndex) -> bool,
    ) -> Option<DeploymentIndex> {
        if self.fleet.is_empty() {
            return None;
        }
        let mut best: Option<(usize, u32, DeploymentIndex)> = None;
        for (at, tier) in model.tiers.iter().enumerate() {
            for target in tier.targets.iter().filter(|target| fits(target.deployment)) {
                match self.health(binding, target.deployment, now, tokens) {
                    Health::Ready(_) => return None,
                    Health::Blocked(Block::Fleet(_)) => {}
                    Health::Blocked(_) => continue,
                }
                let better = best.is_none_or(|(tier, weight, _)| tier == at && weight < target.weight);
                let local = self.local_health(binding, target.deployment, now, tokens);
                if better && matches!(local, Health::Ready(_)) {
                    best = Some((at, target.weight, target.deployment));
                }
            }
        }
        best.map(|(_, _, deployment)| deployment)
    }

    /// As [`Registry::health`], with the fleet's verdict ignored if the deployment is the
    /// floor's.
    pub fn health_at_floor(
        &self,
        binding: &Binding,
        deployment: DeploymentIndex,
        now: Timestamp,
        tokens: u64,
        floor: Option<DeploymentIndex>,
    ) -> Health {
        if floor == Some(deployment) {
            return self.local_health(binding, deployment, now, tokens);
        }
        self.health(binding, deployment, now, tokens)
    }
}
