//! The routing table: all that an agent needs to decide. Immutable; a change makes a
//! new one.

use alloc::{boxed::Box, string::String, vec::Vec};
use core::time::Duration;

use crate::{budget::Budget, money::NanoUsd, price::Schedule};

mod strategy;

pub use strategy::{Affinity, Balance, HEDGE_BUDGET_PERCENT, Slo, Strategy};

/// Names one durable state of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Version {
    /// Revisions of different epochs are not comparable.
    pub epoch: String,
    /// Counts commits from 1; 0: nothing was ever configured.
    pub revision: u64,
}

/// All that an agent needs to decide. Built by `trunkline-proto`, which refuses what
/// is wrong; indices inside a table are valid for that table only.
#[derive(Clone, Debug, Default)]
pub struct RoutingTable {
    /// Which state of the configuration this is.
    pub version: Version,
    /// By name.
    pub providers: Vec<Provider>,
    /// By provider, then by name.
    pub deployments: Vec<Deployment>,
    /// By name.
    pub virtual_models: Vec<VirtualModel>,
    /// By name. Empty: apps need no key.
    pub api_keys: Vec<ApiKey>,
    /// By name.
    pub budgets: Vec<Budget>,
}

/// Index into [`RoutingTable::deployments`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeploymentIndex(pub u32);

/// Index into [`RoutingTable::providers`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProviderIndex(pub u32);

impl RoutingTable {
    /// The virtual model of that name.
    pub fn virtual_model(&self, name: &str) -> Option<&VirtualModel> {
        let found = self.virtual_models.binary_search_by(|model| model.name.as_ref().cmp(name));
        found.ok().map(|index| &self.virtual_models[index])
    }

    /// The deployment of that full name, `provider/deployment`.
    pub fn deployment_by_name(&self, name: &str) -> Option<DeploymentIndex> {
        let found = self.deployments.iter().position(|deployment| deployment.name.as_ref() == name);
        found.map(|index| DeploymentIndex(index as u32))
    }

    /// The deployment at `index`.
    ///
    /// # Panics
    /// If the index is of another table.
    pub fn deployment(&self, index: DeploymentIndex) -> &Deployment {
        &self.deployments[index.0 as usize]
    }

    /// The provider at `index`.
    ///
    /// # Panics
    /// If the index is of another table.
    pub fn provider(&self, index: ProviderIndex) -> &Provider {
        &self.providers[index.0 as usize]
    }
}

/// The API that a provider speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// OpenAI and compatibles.
    OpenAi,
}

/// An upstream account.
#[derive(Clone, Debug)]
pub struct Provider {
    /// Unique.
    pub name: Box<str>,
    /// What it speaks.
    pub dialect: Dialect,
    /// Where it is. Checked text, without a trailing slash.
    pub base_url: Box<str>,
    /// Where the agent finds the key. None: no key is sent.
    pub credential: Option<Credential>,
    /// Allows http and private addresses.
    pub allow_private_network: bool,
    /// Where it computes, in the operator's words. None: not said.
    pub region: Option<Box<str>>,
    /// How its health is found out.
    pub health_check: HealthCheck,
}

/// How the health of a provider's deployments is found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// By real traffic alone, or by own calls too.
    pub mode: HealthCheckMode,
    /// ACTIVE: time between checks of a deployment that has no traffic.
    pub interval: Duration,
    /// ACTIVE: failed checks in a row that count against it.
    pub unhealthy_threshold: u32,
    /// ACTIVE: good checks in a row that bring it back.
    pub healthy_threshold: u32,
    /// ACTIVE: most that checks of the provider may cost a day. None: no limit.
    pub max_daily_cost: Option<NanoUsd>,
}

impl Default for HealthCheck {
    fn default() -> Self {
        Self {
            mode: HealthCheckMode::Passive,
            interval: Duration::from_secs(30),
            unhealthy_threshold: 3,
            healthy_threshold: 2,
            max_daily_cost: None,
        }
    }
}

impl HealthCheck {
    /// Probes that succeed and so end half-open.
    pub const fn probes_to_close(&self) -> u32 {
        match self.mode {
            HealthCheckMode::Passive => crate::breaker::PROBES_TO_CLOSE,
            HealthCheckMode::Active => self.healthy_threshold,
        }
    }
}

/// Who finds out how a provider is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HealthCheckMode {
    /// The breaker, on real traffic.
    #[default]
    Passive,
    /// Checks of deployments that have no traffic, too.
    Active,
}

/// A reference to a secret; never the secret.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Credential {
    /// An environment variable.
    Env(Box<str>),
    /// A file.
    File(Box<str>),
}

/// One model at one provider.
#[derive(Clone, Debug)]
pub struct Deployment {
    /// Full name, `provider/deployment`. Unique.
    pub name: Box<str>,
    /// The account it belongs to.
    pub provider: ProviderIndex,
    /// The model name sent upstream.
    pub upstream_model: Box<str>,
    /// What it can do.
    pub capabilities: Capabilities,
    /// Tokens of input and output together. None: unknown.
    pub context_window: Option<u32>,
    /// Most tokens of one answer. None: unknown.
    pub max_output_tokens: Option<u32>,
    /// 0 to 1. None: unknown.
    pub quality: Option<f64>,
    /// What it charges, and from when.
    pub prices: Schedule,
    /// Breaker constants.
    pub breaker: BreakerPolicy,
    /// What one agent sends here at most.
    pub limits: Limits,
}

/// What one agent sends to a deployment at most. None: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Attempts started in any 60 s.
    pub requests_per_minute: Option<u32>,
    /// Tokens of attempts started in any 60 s.
    pub tokens_per_minute: Option<u32>,
    /// Attempts running at the same time.
    pub max_in_flight: Option<u32>,
}

/// A set of things a deployment can do or a request needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities(u8);

impl Capabilities {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// Function calling.
    pub const TOOLS: Self = Self(1);
    /// Images as input.
    pub const VISION: Self = Self(2);
    /// Answers that follow a JSON schema.
    pub const JSON_SCHEMA: Self = Self(4);
    /// Answers piece by piece.
    pub const STREAMING: Self = Self(8);
    /// Vectors instead of text.
    pub const EMBEDDINGS: Self = Self(16);
    /// Everything.
    pub const ALL: Self = Self(31);

    /// Each single capability with its name in configuration documents.
    pub const NAMES: [(&'static str, Self); 5] = [
        ("tools", Self::TOOLS),
        ("vision", Self::VISION),
        ("json_schema", Self::JSON_SCHEMA),
        ("streaming", Self::STREAMING),
        ("embeddings", Self::EMBEDDINGS),
    ];

    /// The capability of that name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, capability)| *capability)
    }

    /// Both together.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether `needed` is all here.
    pub const fn contains(self, needed: Self) -> bool {
        self.0 & needed.0 == needed.0
    }

    /// What of `needed` is not here.
    #[must_use]
    pub const fn missing(self, needed: Self) -> Self {
        Self(needed.0 & !self.0)
    }

    /// The names of all that is here.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.into_iter().filter(move |(_, one)| self.contains(*one)).map(|(name, _)| name)
    }
}

/// Breaker constants; ranges and meaning are those of the configuration.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BreakerPolicy {
    /// Failures in a row that open it.
    pub consecutive_failures: u32,
    /// Share of failures in the window that opens it.
    pub failure_ratio: f64,
    /// Results in the window before the share counts.
    pub min_requests: u32,
    /// Sliding window.
    pub window: Duration,
    /// First time it stays open.
    pub open_base: Duration,
    /// Longest time it stays open.
    pub open_max: Duration,
}

impl Default for BreakerPolicy {
    fn default() -> Self {
        Self {
            consecutive_failures: 5,
            failure_ratio: 0.5,
            min_requests: 20,
            window: Duration::from_secs(30),
            open_base: Duration::from_secs(2),
            open_max: Duration::from_secs(60),
        }
    }
}

/// The name that an app asks for, and what stands behind it.
#[derive(Clone, Debug)]
pub struct VirtualModel {
    /// Unique.
    pub name: Box<str>,
    /// How a target is picked.
    pub strategy: Strategy,
    /// COST: within it a target is feasible.
    pub slo: Slo,
    /// BALANCED: the prices of time and quality.
    pub balance: Balance,
    /// Extra attempts that race a slow one, in percent of requests. 0: none.
    pub hedge_budget_percent: u32,
    /// What makes a change of target cost something.
    pub affinity: Affinity,
    /// What a deployment must offer.
    pub constraints: Constraints,
    /// The whole request.
    pub deadline: Duration,
    /// All upstream calls of one request; at least 1.
    pub max_attempts: u32,
    /// Retry tokens earned per request, in percent.
    pub retry_budget_percent: u32,
    /// The fallback chain; at least one.
    pub tiers: Vec<Tier>,
    /// Whether a request that is too long moves to a larger declared window.
    pub context_length_fallback: bool,
    /// Whether a request that a content filter refused moves on.
    pub content_filter_fallback: bool,
}

impl VirtualModel {
    /// What a `provider/deployment` pin stands for: that one target, with defaults.
    pub fn pin(name: &str, deployment: DeploymentIndex) -> Self {
        Self {
            name: name.into(),
            strategy: Strategy::Weighted,
            slo: Slo::default(),
            balance: Balance::default(),
            hedge_budget_percent: HEDGE_BUDGET_PERCENT,
            affinity: Affinity::None,
            constraints: Constraints::default(),
            deadline: Duration::from_secs(60),
            max_attempts: 3,
            retry_budget_percent: 20,
            tiers: alloc::vec![Tier {
                targets: alloc::vec![Target { deployment, weight: 1 }],
                timeouts: Timeouts::default(),
                max_attempts: 1,
            }],
            context_length_fallback: false,
            content_filter_fallback: false,
        }
    }
}

/// What a deployment must offer to be used.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Constraints {
    /// Capabilities.
    pub require: Capabilities,
    /// Least quality.
    pub min_quality: Option<f64>,
    /// Most expected cost of a request.
    pub max_cost: Option<NanoUsd>,
    /// Regions of providers that may be used. Empty: any.
    pub regions: Vec<Box<str>>,
}

/// One step of the fallback chain.
#[derive(Clone, Debug)]
pub struct Tier {
    /// At least one, no deployment twice.
    pub targets: Vec<Target>,
    /// Time limits of its attempts.
    pub timeouts: Timeouts,
    /// Distinct deployments tried; at least 1, at most `targets.len()`.
    pub max_attempts: u32,
}

/// A deployment in a tier.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Which.
    pub deployment: DeploymentIndex,
    /// 0: only when all others are out.
    pub weight: u32,
}

/// Time limits of attempts; meaning as in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// DNS, TCP and TLS together.
    pub connect: Duration,
    /// Starts the next target beside the running attempt.
    pub first_token: Duration,
    /// Longest gap between content events.
    pub idle: Duration,
    /// Ends an attempt. None: the deadline does.
    pub attempt: Option<Duration>,
    /// Ends a stream.
    pub stream_total: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(3),
            first_token: Duration::from_secs(10),
            idle: Duration::from_secs(30),
            attempt: None,
            stream_total: Duration::from_secs(3600),
        }
    }
}

/// A key that apps present.
#[derive(Clone, Debug)]
pub struct ApiKey {
    /// Unique; the tenant in telemetry.
    pub name: Box<str>,
    /// SHA-256 of the key.
    pub secret_sha256: [u8; 32],
    /// Virtual models and pins it may use. Empty: every virtual model, no pin.
    pub allowed_models: Vec<Box<str>>,
}

impl ApiKey {
    /// Whether the key may use `model`; a pin holds a slash.
    pub fn allows(&self, model: &str) -> bool {
        if self.allowed_models.is_empty() {
            return !model.contains('/');
        }
        self.allowed_models.iter().any(|allowed| allowed.as_ref() == model)
    }
}
