//! The routing table of a configuration that a newer control plane checked: what this
//! build does not know is replaced by what is safe, and said, instead of refused. Agents
//! use it; writes of operators stay strict.
//!
//! | not known | taken as |
//! |---|---|
//! | strategy | WEIGHTED: the operator's own shares |
//! | `on_context_length`, `on_content_filter`, `on_cancel`, health mode | absent: the default |
//! | dialect, or where a credential is | the provider's deployments are left out: a request in a wrong form, or without its key, must not be sent |
//! | who made a price entry | a feed |
//! | a budget's action | REJECT |
//! | a budget's period | the budget is left out: it can't be told when it begins |
//! | a capability that a virtual model requires | targets that don't list it are left out; without a list they offer everything |
//! | a capability that a deployment offers | not offered: nothing here asks for it |
//!
//! A virtual model may lose all its targets so. It stays, and requests for it find none.

use std::collections::{BTreeMap, BTreeSet};

use trunkline_routing::table::{Capabilities, DeploymentIndex, RoutingTable, Version};

use super::{budget, field, price, provider, routing_table, virtual_model};
use crate::{
    admin::v1::Config,
    problems::{Path, Problems},
    types::v1::{Budget, Dialect, PriceEntry, PriceSource, Provider, VirtualModel},
};

/// A routing table, and what had to be assumed for it.
#[derive(Clone, Debug, Default)]
pub struct Lenient {
    /// What this build can do of the configuration.
    pub table: RoutingTable,
    /// Fields whose value this build does not know, and what it was taken as.
    pub assumed: Problems,
}

/// The routing table of a configuration, with safe assumptions in place of enum values,
/// capabilities and credential sources that this build does not know.
///
/// # Errors
/// Everything else that is wrong with it, as [`routing_table`] says it.
pub fn routing_table_lenient(version: Version, config: &Config) -> Result<Lenient, Problems> {
    let mut settled = config.clone();
    let mut settle = Settle::default();
    for (at, one) in settled.providers.iter_mut().enumerate() {
        settle.provider(one, &Path::Root.item("providers", at));
    }
    for (at, one) in settled.virtual_models.iter_mut().enumerate() {
        settle.virtual_model(one, config, &Path::Root.item("virtual_models", at));
    }
    for (at, one) in settled.price_entries.iter_mut().enumerate() {
        settle.price_entry(one, &Path::Root.item("price_entries", at));
    }
    let mut position = 0..;
    settled.budgets.retain_mut(|one| {
        let position = position.next().unwrap_or_default();
        settle.budget(one, &Path::Root.item("budgets", position))
    });
    let mut table = routing_table(version, &settled)?;
    settle.restrict(&mut table);
    Ok(Lenient { table, assumed: settle.assumed })
}

/// What was replaced, and what the table must therefore leave out.
#[derive(Default)]
struct Settle {
    assumed: Problems,
    /// Deployments that can't be used, by full name.
    unusable: BTreeSet<String>,
    /// Deployments that offer nothing this build knows.
    bare: BTreeSet<String>,
    /// Virtual models, and targets that lack what they require.
    lacking: BTreeMap<String, BTreeSet<String>>,
}

impl Settle {
    fn provider(&mut self, wire: &mut Provider, path: &Path<'_>) {
        let unspecified = Dialect::Unspecified as i32;
        let left_out = "its deployments are left out";
        let known_dialect = wire.dialect == unspecified
            || self.settle(&mut wire.dialect, Dialect::Openai as i32, &path.field("dialect"), left_out, {
                provider::check_dialect
            });
        // A strict check lets no empty source pass: it is one that came later.
        let unknown_source = wire.credential.as_ref().is_some_and(|one| one.source.is_none());
        if unknown_source {
            wire.credential = None;
            let message = format!("is at a place that this build does not know; {left_out}");
            self.assumed.push(path.field("credential"), message);
        }
        if !known_dialect || unknown_source {
            let names = wire.deployments.iter().map(|one| format!("{}/{}", wire.name, one.name));
            self.unusable.extend(names);
        }
        let on_cancel = path.field("on_cancel");
        self.settle(
            &mut wire.on_cancel,
            0,
            &on_cancel,
            "taken as ON_CANCEL_ABORT",
            provider::check_on_cancel,
        );
        if let Some(health) = &mut wire.health_check {
            let path = path.field("health_check");
            let taken = "taken as HEALTH_CHECK_MODE_PASSIVE";
            self.settle(&mut health.mode, 0, &path.field("mode"), taken, provider::check_health_mode);
        }
        for (at, one) in wire.deployments.iter_mut().enumerate() {
            let path = path.item("deployments", at);
            let unknown =
                self.capabilities(&mut one.capabilities, &path, "capabilities", "nothing asks for it");
            if !unknown.is_empty() && one.capabilities.is_empty() {
                // An empty list would say: everything.
                self.bare.insert(format!("{}/{}", wire.name, one.name));
            }
        }
    }

    fn virtual_model(&mut self, wire: &mut VirtualModel, config: &Config, path: &Path<'_>) {
        let strategy = path.field("strategy");
        self.settle(
            &mut wire.strategy,
            0,
            &strategy,
            "taken as STRATEGY_WEIGHTED",
            |number, path, problems| {
                virtual_model::strategy(number, path, problems);
            },
        );
        let (length, filter) = (path.field("on_context_length"), path.field("on_content_filter"));
        let taken = "taken as CONTEXT_LENGTH_ACTION_FALLBACK";
        self.settle(&mut wire.on_context_length, 0, &length, taken, |number, path, problems| {
            virtual_model::context_length_fallback(number, path, problems);
        });
        let taken = "taken as CONTENT_FILTER_ACTION_RETURN";
        self.settle(&mut wire.on_content_filter, 0, &filter, taken, |number, path, problems| {
            virtual_model::content_filter_fallback(number, path, problems);
        });
        if let Some(affinity) = &mut wire.affinity {
            let path = path.field("affinity");
            self.settle(
                &mut affinity.key,
                0,
                &path.field("key"),
                "taken as absent",
                |number, path, problems| {
                    virtual_model::affinity(number, path, problems);
                },
            );
        }
        let Some(constraints) = &mut wire.constraints else { return };
        let path = path.field("constraints");
        let taken = "targets that don't list it are left out";
        let unknown = self.capabilities(&mut constraints.require, &path, "require", taken);
        if unknown.is_empty() {
            return;
        }
        let targets = wire.tiers.iter().flat_map(|tier| &tier.targets).map(|target| &target.deployment);
        let lacking = targets.filter(|target| !offers(config, target, &unknown)).cloned().collect();
        self.lacking.insert(wire.name.clone(), lacking);
    }

    fn price_entry(&mut self, wire: &mut PriceEntry, path: &Path<'_>) {
        let source = path.field("source");
        let feed = PriceSource::Feed as i32;
        self.settle(&mut wire.source, feed, &source, "taken as PRICE_SOURCE_FEED", price::check_known);
    }

    /// False: it is to be left out.
    fn budget(&mut self, wire: &mut Budget, path: &Path<'_>) -> bool {
        let taken = "taken as BUDGET_ACTION_REJECT";
        self.settle(&mut wire.action, 0, &path.field("action"), taken, |number, path, problems| {
            budget::action(number, path, problems);
        });
        let taken = "the budget is left out";
        self.settle(&mut wire.period, 0, &path.field("period"), taken, |number, path, problems| {
            budget::period(number, path, problems);
        })
    }

    /// Replaces a number that `check` refuses by `safe`. True: it was fine.
    fn settle(
        &mut self,
        number: &mut i32,
        safe: i32,
        path: &Path<'_>,
        taken: &str,
        check: impl Fn(i32, &Path<'_>, &mut Problems),
    ) -> bool {
        let mut problems = Problems::default();
        check(*number, path, &mut problems);
        for problem in problems.iter() {
            self.assumed.push(&problem.path, format!("{}; {taken}", problem.message));
        }
        if !problems.is_empty() {
            *number = safe;
        }
        problems.is_empty()
    }

    /// Takes names that this build does not know out of a list, and gives them.
    fn capabilities(
        &mut self,
        names: &mut Vec<String>,
        parent: &Path<'_>,
        list: &'static str,
        taken: &str,
    ) -> Vec<String> {
        for (at, name) in names.iter().enumerate() {
            if Capabilities::by_name(name).is_none() {
                let message = format!("{} is not known to this build; {taken}", field::quoted(name));
                self.assumed.push(parent.item(list, at), message);
            }
        }
        names.extract_if(.., |name| Capabilities::by_name(name).is_none()).collect()
    }

    /// Takes out of the table what must not be used.
    fn restrict(&self, table: &mut RoutingTable) {
        for one in table.deployments.iter_mut().filter(|one| self.bare.contains(&*one.name)) {
            one.capabilities = Capabilities::NONE;
        }
        if self.unusable.is_empty() && self.lacking.is_empty() {
            return;
        }
        let mut moved = Vec::with_capacity(table.deployments.len());
        let mut kept = 0;
        for one in &table.deployments {
            let usable = !self.unusable.contains(&*one.name);
            moved.push(usable.then_some(DeploymentIndex(kept)));
            kept += u32::from(usable);
        }
        for model in &mut table.virtual_models {
            let lacking = self.lacking.get(&*model.name);
            for tier in &mut model.tiers {
                tier.targets.retain_mut(|target| {
                    let at = target.deployment.0 as usize;
                    let lacks = lacking.is_some_and(|lacking| lacking.contains(&*table.deployments[at].name));
                    let Some(index) = moved[at].filter(|_| !lacks) else { return false };
                    target.deployment = index;
                    true
                });
                tier.max_attempts = tier.max_attempts.min(tier.targets.len().max(1) as u32);
            }
        }
        table.deployments.retain(|one| !self.unusable.contains(&*one.name));
    }
}

/// Whether a deployment has all of these capabilities by its own list. No list: it has
/// everything.
fn offers(config: &Config, full_name: &str, wanted: &[String]) -> bool {
    let Some((provider, name)) = full_name.split_once('/') else { return false };
    let provider = config.providers.iter().find(|one| one.name == provider);
    let found = provider.and_then(|one| one.deployments.iter().find(|one| one.name == name));
    found.is_some_and(|one| {
        one.capabilities.is_empty() || wanted.iter().all(|wanted| one.capabilities.contains(wanted))
    })
}
