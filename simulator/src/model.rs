//! What a provider is like: the parameters, their defaults and their limits.

use serde::{Deserialize, Serialize};

use crate::{congestion::Congestion, limits::RateLimits, outage::Outage};

/// Longest answer a model may give: bounds what one script holds.
const OUTPUT_TOKENS_MAX: f64 = 32_768.0;

/// The behaviour of one provider. Every section may be left out; the defaults are
/// a mid-sized hosted model on a good day. Prices are not its business.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProviderModel {
    /// Shown in ids and logs, and listed as a model.
    pub name: String,
    /// Time to first token.
    pub ttft: Ttft,
    /// Time per output token.
    pub tpot: Tpot,
    /// How long answers are.
    pub output: OutputLength,
    /// Slowdown under load.
    pub congestion: Congestion,
    /// Limits that answer 429 with Retry-After.
    pub limits: RateLimits,
    /// Failures by chance.
    pub errors: ErrorRates,
    /// Failures by schedule. Default: none.
    pub outages: Vec<Outage>,
}

/// Time to first token: `(base_s + per_1k_input_s * input / 1000)` times lognormal
/// noise with median 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ttft {
    /// Seconds for an empty prompt. Default 0.35.
    pub base_s: f64,
    /// Seconds more per 1,000 input tokens. Default 0.05.
    pub per_1k_input_s: f64,
    /// Deviation of the noise's logarithm. Default 0.25.
    pub sigma: f64,
    /// Share of this time after which a stream's response head is sent. Default 0.2.
    pub head_share: f64,
}

impl Default for Ttft {
    fn default() -> Self {
        Self { base_s: 0.35, per_1k_input_s: 0.05, sigma: 0.25, head_share: 0.2 }
    }
}

/// Time per output token, lognormal, drawn for each token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tpot {
    /// Median seconds. Default 0.015.
    pub median_s: f64,
    /// Deviation of the logarithm. Default 0.3.
    pub sigma: f64,
}

impl Default for Tpot {
    fn default() -> Self {
        Self { median_s: 0.015, sigma: 0.3 }
    }
}

/// Tokens per answer, lognormal, before the caller's own limit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OutputLength {
    /// Median tokens. Default 60.
    pub median_tokens: f64,
    /// Deviation of the logarithm. Default 0.5.
    pub sigma: f64,
    /// Longest answer. Default 4,096.
    pub max_tokens: u32,
}

impl Default for OutputLength {
    fn default() -> Self {
        Self { median_tokens: 60.0, sigma: 0.5, max_tokens: 4096 }
    }
}

/// Share of calls that fail by chance, each 0..=1 and together at most 1. All default to 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ErrorRates {
    /// Answered 500.
    pub http_500: f64,
    /// Answered 503.
    pub http_503: f64,
    /// Answered 429 with `Retry-After: 1`, whatever the limits say.
    pub http_429: f64,
    /// Answers cut off in the middle.
    pub mid_stream_break: f64,
    /// Answered 200 without content.
    pub empty: f64,
    /// Accepted and never answered.
    pub silent: f64,
}

/// A parameter that makes no sense.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("provider model: {field} is {value}, must be {min} to {max}")]
pub struct InvalidModel {
    /// Dotted path of the parameter.
    pub field: &'static str,
    /// What it was.
    pub value: f64,
    /// Smallest allowed value.
    pub min: f64,
    /// Largest allowed value.
    pub max: f64,
}

impl ProviderModel {
    /// Checks every parameter. Call it where a model enters the program; a script
    /// from an unchecked model is still finite, only meaningless.
    ///
    /// # Errors
    /// The first parameter out of range, with the range.
    pub fn validate(&self) -> Result<(), InvalidModel> {
        in_range("ttft.base_s", self.ttft.base_s, 0.0, 3600.0)?;
        in_range("ttft.per_1k_input_s", self.ttft.per_1k_input_s, 0.0, 3600.0)?;
        in_range("ttft.sigma", self.ttft.sigma, 0.0, 3.0)?;
        in_range("ttft.head_share", self.ttft.head_share, 0.0, 1.0)?;
        in_range("tpot.median_s", self.tpot.median_s, 0.0, 60.0)?;
        in_range("tpot.sigma", self.tpot.sigma, 0.0, 3.0)?;
        in_range("output.median_tokens", self.output.median_tokens, 1.0, OUTPUT_TOKENS_MAX)?;
        in_range("output.sigma", self.output.sigma, 0.0, 3.0)?;
        in_range("output.max_tokens", f64::from(self.output.max_tokens), 1.0, OUTPUT_TOKENS_MAX)?;
        self.congestion.validate()?;
        self.errors.validate()?;
        self.outages.iter().try_for_each(Outage::validate)
    }
}

impl ErrorRates {
    /// Share of calls that get no whole answer.
    pub fn sum(&self) -> f64 {
        self.http_500 + self.http_503 + self.http_429 + self.mid_stream_break + self.empty + self.silent
    }

    /// Both together.
    #[must_use]
    pub fn with(&self, more: &Self) -> Self {
        Self {
            http_500: self.http_500 + more.http_500,
            http_503: self.http_503 + more.http_503,
            http_429: self.http_429 + more.http_429,
            mid_stream_break: self.mid_stream_break + more.mid_stream_break,
            empty: self.empty + more.empty,
            silent: self.silent + more.silent,
        }
    }

    pub(crate) fn validate(&self) -> Result<(), InvalidModel> {
        in_range("errors.http_500", self.http_500, 0.0, 1.0)?;
        in_range("errors.http_503", self.http_503, 0.0, 1.0)?;
        in_range("errors.http_429", self.http_429, 0.0, 1.0)?;
        in_range("errors.mid_stream_break", self.mid_stream_break, 0.0, 1.0)?;
        in_range("errors.empty", self.empty, 0.0, 1.0)?;
        in_range("errors.silent", self.silent, 0.0, 1.0)?;
        in_range("errors (their sum)", self.sum(), 0.0, 1.0 + f64::EPSILON)
    }
}

/// Refuses NaN too: no range contains it.
pub(crate) fn in_range(field: &'static str, value: f64, min: f64, max: f64) -> Result<(), InvalidModel> {
    if (min..=max).contains(&value) { Ok(()) } else { Err(InvalidModel { field, value, min, max }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_an_impossible_value_is_named() {
        let mut model = ProviderModel::default();
        assert_eq!(model.validate(), Ok(()));
        model.tpot.median_s = f64::NAN;
        assert_eq!(model.validate().unwrap_err().field, "tpot.median_s");
        model = ProviderModel::default();
        model.errors = ErrorRates { http_500: 0.6, http_503: 0.6, ..ErrorRates::default() };
        assert_eq!(model.validate().unwrap_err().field, "errors (their sum)");
    }
}
