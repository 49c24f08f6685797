//! What the registry shows of protections, to people and to the control plane.

use alloc::{boxed::Box, vec::Vec};

use super::{Binding, Forced, Registry, slot::Slot};
use crate::{breaker::State, caps::CapView, hold::QuarantineReason, table::DeploymentIndex, time::Timestamp};

/// A breaker, as shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerView {
    /// What the breaker says.
    pub state: State,
    /// What an operator says; it rules.
    pub forced: Option<Forced>,
    /// Openings in a row.
    pub openings: u32,
    /// Generation of the fleet's verdict that was held when it opened last. 0: none.
    pub base_generation: u64,
}

/// What protects a deployment now.
#[derive(Clone, Debug)]
pub struct DeploymentProtection {
    /// Full name.
    pub deployment: Box<str>,
    /// Its breaker.
    pub breaker: BreakerView,
    /// End of its rate gate.
    pub gate: Option<Timestamp>,
    /// Its quarantine.
    pub quarantine: Option<(QuarantineReason, Timestamp)>,
    /// The rate that its refusals taught.
    pub cap: Option<CapView>,
}

/// What protects an account now.
#[derive(Clone, Debug)]
pub struct AccountProtection {
    /// The provider.
    pub provider: Box<str>,
    /// Its quarantine.
    pub quarantine: (QuarantineReason, Timestamp),
}

impl Registry {
    /// The breaker of a deployment, as shown. One that is gone is shown forced open.
    pub fn breaker(&self, binding: &Binding, deployment: DeploymentIndex, now: Timestamp) -> BreakerView {
        let gone =
            BreakerView { state: State::Closed, forced: Some(Forced::Open), openings: 0, base_generation: 0 };
        self.slot(binding.slot(deployment)).map_or(gone, |slot| slot.view(now))
    }

    /// Everything that is not normal, by deployment, then accounts by provider.
    pub fn protections(&self, now: Timestamp) -> (Vec<DeploymentProtection>, Vec<AccountProtection>) {
        let live = self.slots.iter().filter(|slot| slot.live);
        let mut deployments: Vec<_> = live
            .map(|slot| DeploymentProtection {
                deployment: slot.name.clone(),
                breaker: slot.view(now),
                gate: slot.hold.gated_until(now),
                quarantine: slot.hold.quarantined(now),
                cap: slot.caps.view(now),
            })
            .filter(|slot| {
                let held = slot.gate.is_some() || slot.quarantine.is_some() || slot.cap.is_some();
                slot.breaker.state != State::Closed || held
            })
            .collect();
        deployments.sort_by(|a, b| a.deployment.cmp(&b.deployment));
        let accounts = self
            .accounts
            .iter()
            .filter_map(|account| {
                let missing = account.missing.then_some((QuarantineReason::MissingCredential, now));
                let quarantine = missing.or_else(|| account.hold.quarantined(now))?;
                Some(AccountProtection { provider: account.provider.clone(), quarantine })
            })
            .collect();
        (deployments, accounts)
    }
}

impl Slot {
    fn view(&self, now: Timestamp) -> BreakerView {
        BreakerView {
            state: self.breaker.state(now),
            forced: self.forced(now),
            openings: self.breaker.openings(),
            base_generation: self.base_generation,
        }
    }
}
