//! Virtual models and what stands behind them.

use std::{collections::BTreeMap, ops::RangeInclusive, time::Duration};

use trunkline_routing::{
    money::NanoUsd,
    table::{
        Affinity, Balance, Constraints, DeploymentIndex, HEDGE_BUDGET_PERCENT, Slo, Strategy, Target, Tier,
        Timeouts, VirtualModel,
    },
};

use super::{field, table::Known};
use crate::{
    problems::{Path, Problems},
    types::v1,
};

/// Most steps of a fallback chain.
const TIERS_MAX: usize = 16;

/// Most deployments in a tier.
const TARGETS_MAX: usize = 100;

/// Most regions of a constraint: more than any cloud has.
const REGIONS_MAX: usize = 64;

/// Largest weight; a sum of 100 stays far from overflow.
const WEIGHT_MAX: u32 = 1_000_000;

/// Shorter than that no request can be answered; longer nobody waits.
const DEADLINE: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(24 * 3600);

/// Of each time limit: no shorter than a timer's tick, no longer than a deadline.
const TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(24 * 3600);

/// A virtual model.
pub(super) fn virtual_model(
    wire: &v1::VirtualModel,
    known: &Known<'_>,
    path: &Path<'_>,
    problems: &mut Problems,
) -> VirtualModel {
    field::check_name(&wire.name, "", &path.field("name"), problems);
    let strategy = strategy(wire.strategy, &path.field("strategy"), problems);
    let constraints = constraints(wire, known, &path.field("constraints"), problems);
    let deadline = path.field("deadline");
    let deadline = field::duration(wire.deadline.as_ref(), DEADLINE, &deadline, problems);
    let retry = wire.retry.unwrap_or_default();
    let retry_path = path.field("retry");
    let max_attempts =
        field::whole(retry.max_attempts, 3, 1..=10, &retry_path.field("max_attempts"), problems);
    let retry_budget_percent = field::whole(
        retry.retry_budget_percent,
        20,
        0..=100,
        &retry_path.field("retry_budget_percent"),
        problems,
    );
    field::check_count(wire.tiers.len(), 1..=TIERS_MAX, &path.field("tiers"), problems);
    let tiers = wire.tiers.iter().enumerate();
    let tiers = tiers.map(|(at, one)| tier(one, known, &path.item("tiers", at), problems)).collect();
    VirtualModel {
        name: wire.name.as_str().into(),
        strategy,
        slo: slo(wire.slo.as_ref(), &path.field("slo"), problems),
        balance: balance(wire.balance.as_ref(), &path.field("balance"), problems),
        hedge_budget_percent: field::whole(
            wire.hedge.and_then(|hedge| hedge.budget_percent),
            HEDGE_BUDGET_PERCENT,
            0..=100,
            &path.field("hedge").field("budget_percent"),
            problems,
        ),
        affinity: affinity(
            wire.affinity.map_or(0, |one| one.key),
            &path.field("affinity").field("key"),
            problems,
        ),
        constraints,
        deadline: deadline.unwrap_or(Duration::from_secs(60)),
        max_attempts,
        retry_budget_percent,
        tiers,
        context_length_fallback: context_length_fallback(
            wire.on_context_length,
            &path.field("on_context_length"),
            problems,
        ),
        content_filter_fallback: content_filter_fallback(
            wire.on_content_filter,
            &path.field("on_content_filter"),
            problems,
        ),
    }
}

/// All but PREDICTIVE are built.
pub(super) fn strategy(number: i32, path: &Path<'_>, problems: &mut Problems) -> Strategy {
    match v1::Strategy::try_from(number) {
        Ok(v1::Strategy::RoundRobin) => return Strategy::RoundRobin,
        Ok(v1::Strategy::Unspecified | v1::Strategy::Weighted) => {}
        Ok(v1::Strategy::Latency) => return Strategy::Latency,
        Ok(v1::Strategy::Cost) => return Strategy::Cost,
        Ok(v1::Strategy::Balanced) => return Strategy::Balanced,
        Ok(other @ v1::Strategy::Predictive) => field::not_built(other.as_str_name(), path, problems),
        Err(_) => field::unknown_enum(number, path, problems),
    }
    Strategy::Weighted
}

fn slo(wire: Option<&v1::Slo>, path: &Path<'_>, problems: &mut Problems) -> Slo {
    let Some(wire) = wire else { return Slo::default() };
    let ttft = field::duration(wire.ttft.as_ref(), TIMEOUT, &path.field("ttft"), problems);
    let total = field::duration(wire.total.as_ref(), TIMEOUT, &path.field("total"), problems);
    if let (Some(ttft), Some(total)) = (ttft, total)
        && total < ttft
    {
        let message = format!("{total:?} is shorter than ttft, {ttft:?}");
        problems.push(path.field("total"), message);
    }
    Slo { ttft, total }
}

fn balance(wire: Option<&v1::Balance>, path: &Path<'_>, problems: &mut Problems) -> Balance {
    let default = Balance::default();
    let Some(wire) = wire else { return default };
    let mut usd = |text: &str, name| field::usd(text, &path.field(name), problems);
    let second = usd(&wire.usd_per_second, "usd_per_second");
    let quality = usd(&wire.usd_per_quality_point, "usd_per_quality_point");
    Balance {
        nano_usd_per_second: second.unwrap_or(default.nano_usd_per_second),
        nano_usd_per_quality_point: quality.unwrap_or(default.nano_usd_per_quality_point),
    }
}

/// What ties requests together.
pub(super) fn affinity(number: i32, path: &Path<'_>, problems: &mut Problems) -> Affinity {
    match v1::AffinityKey::try_from(number) {
        Ok(v1::AffinityKey::Session) => return Affinity::Session,
        Ok(v1::AffinityKey::Unspecified) => {}
        Err(_) => field::unknown_enum(number, path, problems),
    }
    Affinity::None
}

/// Regions that may be used; one that no provider has would leave nothing.
fn regions(wire: &[String], known: &Known<'_>, path: &Path<'_>, problems: &mut Problems) -> Vec<Box<str>> {
    field::check_count(wire.len(), 0..=REGIONS_MAX, &path.field("regions"), problems);
    for (at, region) in wire.iter().enumerate() {
        if !known.regions.contains(region.as_str()) {
            let message = format!("no provider has the region {}", field::quoted(region));
            problems.push(path.item("regions", at), message);
        }
    }
    wire.iter().map(|region| region.as_str().into()).collect()
}

/// Whether a request that is too long goes on to larger targets.
pub(super) fn context_length_fallback(number: i32, path: &Path<'_>, problems: &mut Problems) -> bool {
    use v1::ContextLengthAction::{Fallback, Return, Unspecified};
    match v1::ContextLengthAction::try_from(number) {
        Ok(Unspecified | Fallback) => true,
        Ok(Return) => false,
        Err(_) => {
            field::unknown_enum(number, path, problems);
            true
        }
    }
}

/// Whether a request that a content filter refused goes on to other targets.
pub(super) fn content_filter_fallback(number: i32, path: &Path<'_>, problems: &mut Problems) -> bool {
    use v1::ContentFilterAction::{Fallback, Return, Unspecified};
    match v1::ContentFilterAction::try_from(number) {
        Ok(Unspecified | Return) => false,
        Ok(Fallback) => true,
        Err(_) => {
            field::unknown_enum(number, path, problems);
            false
        }
    }
}

fn constraints(
    wire: &v1::VirtualModel,
    known: &Known<'_>,
    path: &Path<'_>,
    problems: &mut Problems,
) -> Constraints {
    let Some(wire) = &wire.constraints else { return Constraints::default() };
    let max_usd = path.field("max_usd_per_request");
    Constraints {
        require: field::capabilities(&wire.require, path, "require", problems),
        min_quality: field::share(wire.min_quality, &path.field("min_quality"), problems),
        max_cost: field::usd(&wire.max_usd_per_request, &max_usd, problems).map(NanoUsd),
        regions: regions(&wire.regions, known, path, problems),
    }
}

fn tier(wire: &v1::Tier, known: &Known<'_>, path: &Path<'_>, problems: &mut Problems) -> Tier {
    field::check_count(wire.targets.len(), 1..=TARGETS_MAX, &path.field("targets"), problems);
    let mut seen = BTreeMap::new();
    let mut targets = Vec::with_capacity(wire.targets.len());
    for (position, one) in wire.targets.iter().enumerate() {
        let path = path.item("targets", position);
        let target = target(one, known, &path, problems);
        if let Some(first) = seen.insert(one.deployment.as_str(), position) {
            problems.push(
                path.field("deployment"),
                format!("{} is in targets[{first}] already", field::quoted(&one.deployment)),
            );
        }
        targets.push(target);
    }
    // Larger than the tier means the same as all of it.
    let all = u32::try_from(targets.len()).unwrap_or(u32::MAX).max(1);
    let attempts = path.field("max_attempts");
    let attempts = field::whole(wire.max_attempts, all, 1..=u32::MAX, &attempts, problems);
    Tier {
        targets,
        timeouts: timeouts(wire.timeouts.as_ref(), &path.field("timeouts"), problems),
        max_attempts: attempts.min(all),
    }
}

fn target(wire: &v1::Target, known: &Known<'_>, path: &Path<'_>, problems: &mut Problems) -> Target {
    let found = known.deployments.get(&wire.deployment).copied();
    if wire.deployment.is_empty() {
        problems.push(path.field("deployment"), "is required, as in openai/gpt-4o-mini");
    } else if found.is_none() {
        let message = format!("no deployment is called {}", field::quoted(&wire.deployment));
        problems.push(path.field("deployment"), message);
    }
    Target {
        deployment: found.unwrap_or(DeploymentIndex(0)),
        weight: field::whole(wire.weight, 1, 0..=WEIGHT_MAX, &path.field("weight"), problems),
    }
}

fn timeouts(wire: Option<&v1::Timeouts>, path: &Path<'_>, problems: &mut Problems) -> Timeouts {
    let defaults = Timeouts::default();
    let Some(wire) = wire else { return defaults };
    let mut limit = |value: &Option<prost_types::Duration>, name| {
        field::duration(value.as_ref(), TIMEOUT, &path.field(name), problems)
    };
    Timeouts {
        connect: limit(&wire.connect, "connect").unwrap_or(defaults.connect),
        first_token: limit(&wire.first_token, "first_token").unwrap_or(defaults.first_token),
        idle: limit(&wire.idle, "idle").unwrap_or(defaults.idle),
        attempt: limit(&wire.attempt, "attempt"),
        stream_total: limit(&wire.stream_total, "stream_total").unwrap_or(defaults.stream_total),
    }
}
