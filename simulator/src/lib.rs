//! Provider behaviour models: what an LLM provider does with one call.
//!
//! A [`ProviderModel`] is data: distributions, a load curve, limits, error rates and
//! outages. [`ProviderModel::script`] turns one call into a [`Script`], and that is
//! all the model does: no I/O, no clock, no randomness of its own. Discrete-event
//! runs read scripts in virtual time; with feature `live` the same scripts are
//! played over HTTP (the `live` module).

mod baselines;
mod congestion;
mod limits;
#[cfg(feature = "live")]
pub mod live;
mod math;
mod model;
mod outage;
mod presets;
pub mod replay;
pub mod report;
pub mod run;
pub mod scenario;
mod script;
mod seeds;
pub mod spending;
pub mod traffic;

pub use congestion::{Congestion, Law};
pub use limits::{RateGate, RateLimits};
pub use model::{ErrorRates, InvalidModel, OutputLength, ProviderModel, Tpot, Ttft};
pub use outage::{Outage, OutageKind};
pub use presets::{presets, steady, swift, thrifty};
pub use script::{Call, End, Script};
