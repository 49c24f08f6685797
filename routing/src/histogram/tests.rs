//! The bucket edges, the merge laws and the error bound.

use proptest::prelude::*;

use super::*;

fn of(values: &[u64]) -> Histogram {
    let mut histogram = Histogram::new();
    for value in values {
        histogram.record(*value);
    }
    histogram
}

/// Latencies of all sizes, zero and the extremes among them.
fn values() -> impl Strategy<Value = Vec<u64>> {
    let value = prop_oneof![
        Just(0),
        Just(u64::MAX),
        0_u64..2_000,
        (0_u32..64, any::<u64>()).prop_map(|(shift, value)| value >> shift),
    ];
    prop::collection::vec(value, 0..60)
}

#[test]
fn buckets_hold_what_their_name_says() {
    assert_eq!(index_of(1), -1);
    assert_eq!(index_of(2), 7);
    assert_eq!(index_of(3), 12);
    assert_eq!(index_of(4), 15);
    assert_eq!(index_of(1 << 63), 503);
    assert_eq!(index_of((1 << 63) + 1), 504);
    assert_eq!(index_of(u64::MAX), INDEX_MAX);
    for index in INDEX_MIN..=INDEX_MAX {
        let high = upper_of(index);
        assert!(index_of(high) <= index, "largest of {index}");
        if index < INDEX_MAX {
            assert!(index_of(high + 1) > index, "past {index}");
        }
    }
}

#[test]
fn empty_has_no_quantile() {
    let empty = Histogram::new();
    assert_eq!((empty.quantile(0.5), empty.min(), empty.max(), empty.mean()), (None, None, None, None));
    assert_eq!(of(&[1]).quantile(f64::NAN), None);
    assert_eq!(of(&[1]).quantile(1.1), None);
}

#[test]
fn one_value_is_every_quantile() {
    let histogram = of(&[12_345; 7]);
    for q in [0.0, 0.5, 0.99, 1.0] {
        assert_eq!(histogram.quantile(q), Some(12_345));
    }
}

#[test]
fn impossible_parts_are_refused() {
    let good = of(&[10, 1_000]).to_parts();
    let check = |change: &dyn Fn(&mut Parts), expect: &str| {
        let mut parts = good.clone();
        change(&mut parts);
        let error = Histogram::from_parts(parts).unwrap_err().to_string();
        assert!(error.contains(expect), "{error}");
    };
    check(&|parts| parts.offset = -3, "outside");
    check(&|parts| parts.offset = 500, "outside");
    check(&|parts| parts.offset = i32::MAX, "outside");
    check(&|parts| parts.min = 0, "min 0");
    check(&|parts| parts.min = 11, "min 11");
    check(&|parts| parts.max = 1_200, "max 1200");
    check(&|parts| parts.sum = 19, "sum 19");
    check(&|parts| parts.sum = 2_001, "sum 2001");
    check(&|parts| parts.zero_count = u64::MAX, "2^64");
    check(&|parts| parts.bucket_counts.clear(), "min 10");
}

#[test]
fn padding_does_not_matter() {
    let histogram = of(&[10, 1_000]);
    let mut parts = histogram.to_parts();
    parts.offset -= 2;
    parts.bucket_counts.splice(0..0, [0, 0]);
    parts.bucket_counts.extend([0; 5]);
    assert_eq!(Histogram::from_parts(parts), Ok(histogram));
    assert_eq!(Histogram::from_parts(Parts::default()), Ok(Histogram::new()));
}

proptest! {
    #[test]
    fn merging_equals_recording(a in values(), b in values()) {
        let mut merged = of(&a);
        merged.merge(&of(&b));
        prop_assert_eq!(merged, of(&[a, b].concat()));
    }

    #[test]
    fn merge_is_commutative_and_associative(a in values(), b in values(), c in values()) {
        let (a, b, c) = (of(&a), of(&b), of(&c));
        let join = |left: &Histogram, right: &Histogram| {
            let mut joined = left.clone();
            joined.merge(right);
            joined
        };
        prop_assert_eq!(join(&a, &b), join(&b, &a));
        prop_assert_eq!(join(&join(&a, &b), &c), join(&a, &join(&b, &c)));
    }

    #[test]
    fn parts_come_back(values in values()) {
        let histogram = of(&values);
        prop_assert_eq!(Histogram::from_parts(histogram.to_parts()), Ok(histogram));
    }

    #[test]
    fn quantiles_are_close(mut values in values(), q in 0.0_f64..=1.0) {
        prop_assume!(!values.is_empty());
        let histogram = of(&values);
        values.sort_unstable();
        let rank = ((q * values.len() as f64).ceil() as usize).clamp(1, values.len());
        let exact = values[rank - 1] as f64;
        let estimate = histogram.quantile(q).unwrap() as f64;
        prop_assert!((estimate - exact).abs() <= exact * 0.044 + 0.5, "{estimate} for {exact}");
    }

    #[test]
    fn buckets_stay_bounded(values in values()) {
        let histogram = of(&values);
        prop_assert!(histogram.bucket_counts().len() <= (INDEX_MAX - INDEX_MIN + 1) as usize);
        for value in values.into_iter().filter(|value| *value > 0) {
            let index = index_of(value);
            prop_assert!(value <= upper_of(index));
            prop_assert!(index == INDEX_MIN || value > upper_of(index - 1));
        }
    }
}
