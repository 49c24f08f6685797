//! Providers and their deployments.

use std::{ops::RangeInclusive, time::Duration};

use trunkline_routing::{
    money::NanoUsd,
    price::Schedule,
    table::{
        BreakerPolicy, Capabilities, Credential, Deployment, Dialect, HealthCheck, HealthCheckMode, Limits,
        Provider, ProviderIndex,
    },
};

use super::{field, price, table::Names};
use crate::{
    problems::{Path, Problems},
    types::v1,
    url,
};

/// Most deployments of a provider.
const DEPLOYMENTS_MAX: usize = 1_000;

/// Longest path of a file, as on Linux.
const FILE_PATH_MAX_BYTES: usize = 4_096;

/// The model name under which telemetry counts calls that no app asked for. No virtual
/// model and no deployment can have it.
pub const PROBE_MODEL: &str = "trunkline:probe";

/// Time between health checks of a deployment: a few seconds to a day.
const HEALTH_INTERVAL: RangeInclusive<Duration> = Duration::from_secs(5)..=Duration::from_secs(24 * 3600);

/// A provider, without its deployments.
pub(super) fn provider(wire: &v1::Provider, path: &Path<'_>, problems: &mut Problems) -> Provider {
    field::check_name(&wire.name, "", &path.field("name"), problems);
    check_dialect(wire.dialect, &path.field("dialect"), problems);
    let base_url = url::check_base_url(&wire.base_url, wire.allow_private_network);
    let base_url = base_url.unwrap_or_else(|refused| {
        problems.push(path.field("base_url"), refused.to_string());
        ""
    });
    let credential = wire.credential.as_ref();
    let credential = credential.and_then(|one| self::credential(one, &path.field("credential"), problems));
    field::check_text(&wire.region, &path.field("region"), problems);
    check_on_cancel(wire.on_cancel, &path.field("on_cancel"), problems);
    breaker(wire.breaker.as_ref(), BreakerPolicy::default(), &path.field("breaker"), problems);
    let health_check = health(wire.health_check.as_ref(), &path.field("health_check"), problems);
    Provider {
        name: wire.name.as_str().into(),
        dialect: Dialect::OpenAi,
        base_url: base_url.into(),
        credential,
        allow_private_network: wire.allow_private_network,
        region: (!wire.region.is_empty()).then(|| wire.region.as_str().into()),
        health_check,
    }
}

/// Only ABORT is built.
pub(super) fn check_on_cancel(number: i32, path: &Path<'_>, problems: &mut Problems) {
    match v1::OnCancel::try_from(number) {
        Ok(v1::OnCancel::Unspecified | v1::OnCancel::Abort) => {}
        Ok(other @ v1::OnCancel::Drain) => field::not_built(other.as_str_name(), path, problems),
        Err(_) => field::unknown_enum(number, path, problems),
    }
}

/// Only OPENAI is built.
pub(super) fn check_dialect(number: i32, path: &Path<'_>, problems: &mut Problems) {
    match v1::Dialect::try_from(number) {
        Ok(v1::Dialect::Openai) => {}
        Ok(v1::Dialect::Unspecified) => {
            problems.push(path, "is required, as in DIALECT_OPENAI");
        }
        Ok(
            other @ (v1::Dialect::Anthropic
            | v1::Dialect::Gemini
            | v1::Dialect::AzureOpenai
            | v1::Dialect::Bedrock),
        ) => field::not_built(other.as_str_name(), path, problems),
        Err(_) => field::unknown_enum(number, path, problems),
    }
}

/// The text of a reference is not repeated: it may be the secret itself by mistake.
fn credential(wire: &v1::Credential, path: &Path<'_>, problems: &mut Problems) -> Option<Credential> {
    match &wire.source {
        None => {
            problems.push(path, "needs env or file");
            None
        }
        Some(v1::credential::Source::Env(name)) => {
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let right = name.chars().all(plain) && !name.starts_with(|c: char| c.is_ascii_digit());
            if name.is_empty() || !right || name.len() > 256 {
                let message = "is not the name of an environment variable, \
                               as in OPENAI_API_KEY; never write the key itself";
                problems.push(path.field("env"), message);
            }
            Some(Credential::Env(name.as_str().into()))
        }
        Some(v1::credential::Source::File(name)) => {
            let right = name.starts_with('/') && !name.chars().any(char::is_control);
            if !right || name.len() > FILE_PATH_MAX_BYTES {
                problems.push(path.field("file"), "is not an absolute path of a file");
            }
            Some(Credential::File(name.as_str().into()))
        }
    }
}

/// PASSIVE looks at the mode alone.
fn health(wire: Option<&v1::HealthCheck>, path: &Path<'_>, problems: &mut Problems) -> HealthCheck {
    let default = HealthCheck::default();
    let Some(wire) = wire else { return default };
    check_health_mode(wire.mode, &path.field("mode"), problems);
    if wire.mode() != v1::HealthCheckMode::Active {
        return default;
    }
    let interval =
        field::duration(wire.interval.as_ref(), HEALTH_INTERVAL, &path.field("interval"), problems);
    let mut threshold = |value: u32, default, most, name| {
        field::whole(known(value), default, 1..=most, &path.field(name), problems)
    };
    let unhealthy_threshold =
        threshold(wire.unhealthy_threshold, default.unhealthy_threshold, 100, "unhealthy_threshold");
    let healthy_threshold =
        threshold(wire.healthy_threshold, default.healthy_threshold, 20, "healthy_threshold");
    let max_daily_cost =
        field::usd(&wire.max_daily_cost_usd, &path.field("max_daily_cost_usd"), problems).map(NanoUsd);
    HealthCheck {
        mode: HealthCheckMode::Active,
        interval: interval.unwrap_or(default.interval),
        unhealthy_threshold,
        healthy_threshold,
        max_daily_cost,
    }
}

pub(super) fn check_health_mode(number: i32, path: &Path<'_>, problems: &mut Problems) {
    if v1::HealthCheckMode::try_from(number).is_err() {
        field::unknown_enum(number, path, problems);
    }
}

/// Breaker constants over `base`. Absent ones are those of `base`.
fn breaker(
    wire: Option<&v1::BreakerPolicy>,
    base: BreakerPolicy,
    path: &Path<'_>,
    problems: &mut Problems,
) -> BreakerPolicy {
    const MINUTES: u64 = 60;
    let Some(wire) = wire else { return base };
    let failure_ratio = match wire.failure_ratio {
        None => base.failure_ratio,
        Some(ratio) if ratio > 0.0 && ratio <= 1.0 => ratio,
        Some(ratio) => {
            let message = format!("{ratio} is out of range: over 0, at most 1");
            problems.push(path.field("failure_ratio"), message);
            base.failure_ratio
        }
    };
    let window = Duration::from_secs(1)..=Duration::from_secs(10 * MINUTES);
    let open_base = Duration::from_millis(100)..=Duration::from_secs(10 * MINUTES);
    let open_max = Duration::from_millis(100)..=Duration::from_secs(60 * MINUTES);
    let mut length = |value: &Option<prost_types::Duration>, range, name| {
        field::duration(value.as_ref(), range, &path.field(name), problems)
    };
    let window = length(&wire.window, window, "window").unwrap_or(base.window);
    let open_base = length(&wire.open_base, open_base, "open_base").unwrap_or(base.open_base);
    let open_max = length(&wire.open_max, open_max, "open_max").unwrap_or(base.open_max);
    let given = wire.open_base.is_some() || wire.open_max.is_some();
    if given && open_max < open_base {
        let message = format!("{open_max:?} is shorter than open_base, {open_base:?}");
        problems.push(path.field("open_max"), message);
    }
    let mut whole =
        |value, default, range, name| field::whole(value, default, range, &path.field(name), problems);
    BreakerPolicy {
        consecutive_failures: whole(
            wire.consecutive_failures,
            base.consecutive_failures,
            1..=1_000,
            "consecutive_failures",
        ),
        failure_ratio,
        min_requests: whole(wire.min_requests, base.min_requests, 1..=100_000, "min_requests"),
        window,
        open_base,
        open_max,
    }
}

/// The deployments of a provider, in document order.
pub(super) fn deployments(
    wire: &v1::Provider,
    provider: ProviderIndex,
    path: &Path<'_>,
    problems: &mut Problems,
) -> Vec<Deployment> {
    let count = path.field("deployments");
    field::check_count(wire.deployments.len(), 0..=DEPLOYMENTS_MAX, &count, problems);
    // What is wrong with it was said at the provider.
    let base =
        breaker(wire.breaker.as_ref(), BreakerPolicy::default(), &Path::Root, &mut Problems::default());
    let mut names = Names::default();
    let mut all = Vec::with_capacity(wire.deployments.len());
    for (position, one) in wire.deployments.iter().enumerate() {
        let path = path.item("deployments", position);
        names.insert(&one.name, "deployments", position, &path, problems);
        field::check_name(&one.name, "._:", &path.field("name"), problems);
        all.push(deployment(one, &wire.name, provider, base, &path, problems));
    }
    all
}

fn deployment(
    wire: &v1::Deployment,
    provider_name: &str,
    provider: ProviderIndex,
    base: BreakerPolicy,
    path: &Path<'_>,
    problems: &mut Problems,
) -> Deployment {
    field::check_text(&wire.upstream_model, &path.field("upstream_model"), problems);
    let upstream_model = if wire.upstream_model.is_empty() { &wire.name } else { &wire.upstream_model };
    let capabilities = if wire.capabilities.is_empty() {
        Capabilities::ALL
    } else {
        field::capabilities(&wire.capabilities, path, "capabilities", problems)
    };
    Deployment {
        name: format!("{provider_name}/{}", wire.name).into(),
        provider,
        upstream_model: upstream_model.as_str().into(),
        capabilities,
        context_window: known(wire.context_window),
        max_output_tokens: known(wire.max_output_tokens),
        quality: field::share(wire.quality, &path.field("quality"), problems),
        prices: wire
            .price
            .as_ref()
            .and_then(|one| price::price(one, &path.field("price"), problems))
            .map_or_else(Schedule::unknown, Schedule::fixed),
        breaker: breaker(wire.breaker.as_ref(), base, &path.field("breaker"), problems),
        limits: wire.limits.as_ref().map(limits).unwrap_or_default(),
    }
}

/// In the contract 0 says: unknown, or no limit.
fn known(value: u32) -> Option<u32> {
    (value > 0).then_some(value)
}

fn limits(wire: &v1::Limits) -> Limits {
    Limits {
        requests_per_minute: known(wire.requests_per_minute),
        tokens_per_minute: known(wire.tokens_per_minute),
        max_in_flight: known(wire.max_in_flight),
    }
}
