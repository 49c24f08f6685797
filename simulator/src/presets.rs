//! Three ready providers of different speed and reliability, for trying things out.

use crate::{
    congestion::Congestion,
    limits::RateLimits,
    model::{ErrorRates, OutputLength, ProviderModel, Tpot, Ttft},
};

/// The three, fastest first.
pub fn presets() -> [ProviderModel; 3] {
    [swift(), steady(), thrifty()]
}

/// Fast and reliable: the one that would be dear.
pub fn swift() -> ProviderModel {
    ProviderModel {
        name: "swift".to_owned(),
        ttft: Ttft { base_s: 0.12, per_1k_input_s: 0.02, sigma: 0.2, ..Ttft::default() },
        tpot: Tpot { median_s: 0.006, sigma: 0.25 },
        output: answers(),
        congestion: Congestion { capacity: 128, ..Congestion::default() },
        ..ProviderModel::default()
    }
}

/// Medium in everything.
pub fn steady() -> ProviderModel {
    ProviderModel {
        name: "steady".to_owned(),
        ttft: Ttft { base_s: 0.3, per_1k_input_s: 0.05, ..Ttft::default() },
        tpot: Tpot { median_s: 0.014, sigma: 0.3 },
        output: answers(),
        congestion: Congestion { capacity: 64, ..Congestion::default() },
        errors: ErrorRates { http_503: 0.001, ..ErrorRates::default() },
        ..ProviderModel::default()
    }
}

/// Slow and less reliable: 1 % errors, and now and then a 429. The cheap one.
pub fn thrifty() -> ProviderModel {
    ProviderModel {
        name: "thrifty".to_owned(),
        ttft: Ttft { base_s: 0.6, per_1k_input_s: 0.12, sigma: 0.45, ..Ttft::default() },
        tpot: Tpot { median_s: 0.028, sigma: 0.5 },
        output: answers(),
        congestion: Congestion { capacity: 32, ..Congestion::default() },
        limits: RateLimits {
            requests_per_minute: Some(600),
            tokens_per_minute: Some(400_000),
            ..RateLimits::default()
        },
        errors: ErrorRates { http_500: 0.01, http_429: 0.005, ..ErrorRates::default() },
        ..ProviderModel::default()
    }
}

/// Short enough to watch.
fn answers() -> OutputLength {
    OutputLength { median_tokens: 50.0, sigma: 0.4, max_tokens: 4096 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_is_valid() {
        assert_eq!(presets().map(|model| model.validate()), [Ok(()), Ok(()), Ok(())]);
    }
}
