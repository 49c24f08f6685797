//! Histograms of latencies, as agents report them.

use trunkline_routing::histogram::{Histogram, InvalidHistogram, Parts, SCALE};

use crate::telemetry::v1;

/// Most buckets that are read at all. A full histogram has 513; more may come as
/// zeroes at the ends.
const BUCKETS_MAX: usize = 1_024;

/// Why a histogram is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HistogramRefused {
    /// Buckets of another width can't be added up exactly.
    #[error("scale {0} is not supported, only {SCALE}")]
    Scale(i32),
    /// More buckets than any value needs.
    #[error("{0} buckets are more than {BUCKETS_MAX}")]
    Buckets(usize),
    /// No recording gives these numbers.
    #[error(transparent)]
    Invalid(#[from] InvalidHistogram),
}

/// The histogram that an agent sent.
///
/// # Errors
/// If no agent could have recorded it.
pub fn histogram(wire: v1::Histogram) -> Result<Histogram, HistogramRefused> {
    if wire.scale != SCALE {
        return Err(HistogramRefused::Scale(wire.scale));
    }
    if wire.bucket_counts.len() > BUCKETS_MAX {
        return Err(HistogramRefused::Buckets(wire.bucket_counts.len()));
    }
    Ok(Histogram::from_parts(Parts {
        offset: wire.offset,
        bucket_counts: wire.bucket_counts,
        zero_count: wire.zero_count,
        sum: wire.sum,
        min: wire.min,
        max: wire.max,
    })?)
}

/// What is sent of a histogram.
pub fn wire_histogram(histogram: &Histogram) -> v1::Histogram {
    let parts = histogram.to_parts();
    v1::Histogram {
        scale: SCALE,
        offset: parts.offset,
        bucket_counts: parts.bucket_counts,
        zero_count: parts.zero_count,
        sum: parts.sum,
        min: parts.min,
        max: parts.max,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded() -> v1::Histogram {
        let mut histogram = Histogram::new();
        for micros in [0, 1, 900, 1_000_000, u64::MAX] {
            histogram.record(micros);
        }
        wire_histogram(&histogram)
    }

    #[test]
    fn what_is_sent_is_received() {
        let wire = recorded();
        assert_eq!(wire_histogram(&histogram(wire.clone()).unwrap()), wire);
        let empty = wire_histogram(&Histogram::new());
        assert_eq!(histogram(empty), Ok(Histogram::new()));
    }

    #[test]
    fn what_nobody_recorded_is_refused() {
        let refusal = |change: fn(&mut v1::Histogram)| {
            let mut wire = recorded();
            change(&mut wire);
            histogram(wire).unwrap_err().to_string()
        };
        assert_eq!(refusal(|wire| wire.scale = 4), "scale 4 is not supported, only 3");
        assert_eq!(refusal(|wire| wire.bucket_counts = vec![1; 1_025]), "1025 buckets are more than 1024");
        for offset in [i32::MIN, -2, 0, i32::MAX] {
            let wire = v1::Histogram { offset, ..recorded() };
            assert!(histogram(wire).is_err(), "{offset}");
        }
        assert!(refusal(|wire| wire.bucket_counts = vec![u64::MAX; 2]).contains("2^64"));
    }
}
