//! A figure over several seeds: its mean and how sure it is.

use serde::Serialize;

/// Two-sided 95 % points of Student's t for 1 to 30 degrees of freedom.
const STUDENT_T: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
];
/// The same for any more: the normal distribution's.
const NORMAL: f64 = 1.960;

/// A mean with its 95 % confidence interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    /// Mean over seeds.
    pub mean: f64,
    /// Lower end; the mean with fewer than two seeds, which say nothing on spread.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Interval {
    /// Of one value per seed. None without values, or if one is not finite.
    pub fn of(values: &[f64]) -> Option<Self> {
        if values.is_empty() || values.iter().any(|value| !value.is_finite()) {
            return None;
        }
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        if values.len() < 2 {
            return Some(Self { mean, low: mean, high: mean });
        }
        let variance =
            values.iter().map(|value| (value - mean) * (value - mean)).sum::<f64>() / (count - 1.0);
        let t = STUDENT_T.get(values.len() - 2).copied().unwrap_or(NORMAL);
        let half = t * libm::sqrt(variance / count);
        Some(Self { mean, low: mean - half, high: mean + half })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_is_students() {
        // scipy.stats.t.interval(.95, 4, mean, sem) of 1..5: 3 -+ 1.9634.
        let interval = Interval::of(&[1.0, 2.0, 3.0, 4.0, 5.0]).unwrap();
        assert!((interval.mean - 3.0).abs() < 1e-12);
        assert!((interval.high - 4.9634).abs() < 1e-3, "{interval:?}");
        assert!((interval.low - 1.0366).abs() < 1e-3, "{interval:?}");
    }

    #[test]
    fn one_seed_has_no_spread_and_no_seed_no_value() {
        assert_eq!(Interval::of(&[2.0]), Some(Interval { mean: 2.0, low: 2.0, high: 2.0 }));
        assert_eq!(Interval::of(&[]), None);
        assert_eq!(Interval::of(&[1.0, f64::NAN]), None);
    }
}
