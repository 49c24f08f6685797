//! Mergeable histogram of microseconds, in OTLP's exponential shape at scale 3.
//!
//! Agents record latencies in it, reports carry it, the control plane adds it up.
//! Bucket `i` counts values in `(2^(i/8), 2^((i+1)/8)]`; zeroes are counted apart.
//! The bucket of a value is found with integers only, so every machine agrees.

use alloc::vec::Vec;

/// Buckets per doubling are `2^SCALE`.
pub const SCALE: i32 = 3;
/// The bucket of the value 1.
pub const INDEX_MIN: i32 = -1;
/// The bucket of `u64::MAX`. Together with [`INDEX_MIN`] it bounds a histogram to 513
/// buckets, about 4 KiB.
pub const INDEX_MAX: i32 = 511;

/// Buckets per doubling.
const PER_DOUBLING: i32 = 1 << SCALE;

/// `floor(2^(63 + k/8))`: upper bounds of the buckets of `[2^63, 2^64)`.
const THRESHOLDS: [u64; PER_DOUBLING as usize] = [
    0x8000_0000_0000_0000,
    0x8B95_C1E3_EA8B_D6E6,
    0x9837_F051_8DB8_A96F,
    0xA5FE_D6A9_B151_38EA,
    0xB504_F333_F9DE_6484,
    0xC567_2A11_5506_DADD,
    0xD744_FCCA_D69D_6AF4,
    0xEAC0_C6E7_DD24_392E,
];

/// Counts of microseconds by size. Adding two gives the same as recording into one,
/// in any order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// Index of `buckets[0]`.
    offset: i32,
    /// First and last are never zero, so that equal contents compare equal.
    buckets: Vec<u64>,
    zero_count: u64,
    count: u64,
    sum: u64,
    min: u64,
    max: u64,
}

/// Why [`Histogram::from_parts`] refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidHistogram {
    /// A bucket beyond what a `u64` can hold.
    #[error("buckets {offset} to {end} are outside of {INDEX_MIN} to {INDEX_MAX}")]
    Range {
        /// First bucket given.
        offset: i32,
        /// Last bucket given.
        end: i64,
    },
    /// The counts do not fit a `u64`.
    #[error("counts add up to more than 2^64 - 1")]
    CountOverflow,
    /// `min` or `max` is not in the first or last bucket that has a count.
    #[error("{field} {value} does not fit the first and last bucket that have counts")]
    Extreme {
        /// `min` or `max`.
        field: &'static str,
        /// As given.
        value: u64,
    },
    /// `sum` cannot come from these values.
    #[error("sum {sum} cannot be of {count} values from {min} to {max}")]
    Sum {
        /// As given.
        sum: u64,
        /// Values counted.
        count: u64,
        /// As given.
        min: u64,
        /// As given.
        max: u64,
    },
}

/// What a histogram travels as.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// Index of the first bucket.
    pub offset: i32,
    /// Counts from `offset` on.
    pub bucket_counts: Vec<u64>,
    /// Values of 0.
    pub zero_count: u64,
    /// Of all values; saturates.
    pub sum: u64,
    /// Smallest value, 0 if there is none.
    pub min: u64,
    /// Largest value, 0 if there is none.
    pub max: u64,
}

impl Histogram {
    /// An empty one.
    pub const fn new() -> Self {
        Self { offset: 0, buckets: Vec::new(), zero_count: 0, count: 0, sum: 0, min: 0, max: 0 }
    }

    /// Takes what another machine sent; refuses what no recording could have made.
    ///
    /// # Errors
    /// Says which part is impossible.
    pub fn from_parts(parts: Parts) -> Result<Self, InvalidHistogram> {
        let Parts { mut offset, bucket_counts: mut buckets, zero_count, sum, min, max } = parts;
        while buckets.last() == Some(&0) {
            buckets.pop();
        }
        let leading = buckets.iter().take_while(|count| **count == 0).count();
        buckets.drain(..leading);
        if buckets.is_empty() {
            offset = 0;
        } else {
            let start = i64::from(offset) + leading as i64;
            let end = start + buckets.len() as i64 - 1;
            if start < i64::from(INDEX_MIN) || end > i64::from(INDEX_MAX) {
                return Err(InvalidHistogram::Range { offset, end });
            }
            offset = start as i32;
        }
        let count = buckets
            .iter()
            .try_fold(zero_count, |total, count| total.checked_add(*count))
            .ok_or(InvalidHistogram::CountOverflow)?;
        let histogram = Self { offset, buckets, zero_count, count, sum, min, max };
        histogram.check_extremes()?;
        histogram.check_sum()?;
        Ok(histogram)
    }

    fn check_extremes(&self) -> Result<(), InvalidHistogram> {
        let last = self.offset + self.buckets.len() as i32 - 1;
        let min_fits = match (self.zero_count > 0, self.buckets.is_empty()) {
            (true, _) | (false, true) => self.min == 0,
            (false, false) => self.min > 0 && index_of(self.min) == self.offset,
        };
        if !min_fits {
            return Err(InvalidHistogram::Extreme { field: "min", value: self.min });
        }
        let max_fits = if self.buckets.is_empty() {
            self.max == 0
        } else {
            self.max >= self.min && self.max > 0 && index_of(self.max) == last
        };
        if !max_fits {
            return Err(InvalidHistogram::Extreme { field: "max", value: self.max });
        }
        Ok(())
    }

    fn check_sum(&self) -> Result<(), InvalidHistogram> {
        let Self { sum, count, min, max, .. } = *self;
        let most = u128::from(count) * u128::from(max);
        let least = u128::from(count) * u128::from(min);
        // A sum at the ceiling was cut off there, so only its lower bound is known.
        let possible = u128::from(sum) <= most && (u128::from(sum) >= least || sum == u64::MAX);
        if possible { Ok(()) } else { Err(InvalidHistogram::Sum { sum, count, min, max }) }
    }

    /// Counts one value.
    pub fn record(&mut self, micros: u64) {
        if micros == 0 {
            self.zero_count = self.zero_count.saturating_add(1);
        } else {
            let index = index_of(micros);
            self.cover(index, index);
            let bucket = &mut self.buckets[(index - self.offset) as usize];
            *bucket = bucket.saturating_add(1);
        }
        self.widen(micros, micros);
        self.count = self.count.saturating_add(1);
        self.sum = self.sum.saturating_add(micros);
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        if !other.buckets.is_empty() {
            self.cover(other.offset, other.offset + other.buckets.len() as i32 - 1);
            let shift = (other.offset - self.offset) as usize;
            for (into, from) in self.buckets[shift..].iter_mut().zip(&other.buckets) {
                *into = into.saturating_add(*from);
            }
        }
        self.widen(other.min, other.max);
        self.zero_count = self.zero_count.saturating_add(other.zero_count);
        self.count = self.count.saturating_add(other.count);
        self.sum = self.sum.saturating_add(other.sum);
    }

    /// Makes room for the buckets from `first` to `last`.
    fn cover(&mut self, first: i32, last: i32) {
        if self.buckets.is_empty() {
            self.offset = first;
        }
        if first < self.offset {
            let missing = (self.offset - first) as usize;
            self.buckets.splice(0..0, core::iter::repeat_n(0, missing));
            self.offset = first;
        }
        let needed = (last - self.offset + 1) as usize;
        if needed > self.buckets.len() {
            self.buckets.resize(needed, 0);
        }
    }

    /// Call before `count` changes: an empty histogram takes the extremes as they are.
    fn widen(&mut self, min: u64, max: u64) {
        self.min = if self.count == 0 { min } else { self.min.min(min) };
        self.max = self.max.max(max);
    }

    /// The value that a share `q` of all values does not exceed, at most 4.4 % (and
    /// half a microsecond, for rounding) off. `None`: empty, or `q` is not in 0 to 1.
    pub fn quantile(&self, q: f64) -> Option<u64> {
        if self.count == 0 || !(0.0..=1.0).contains(&q) {
            return None;
        }
        let exact = q * self.count as f64;
        let floor = exact as u64;
        let rank = floor.saturating_add(u64::from((floor as f64) < exact)).clamp(1, self.count);
        let mut below = self.zero_count;
        if rank <= below {
            return Some(0);
        }
        for (position, bucket) in self.buckets.iter().enumerate() {
            below = below.saturating_add(*bucket);
            if rank <= below {
                let middle = middle_of(self.offset + position as i32);
                return Some(middle.clamp(self.min, self.max));
            }
        }
        Some(self.max)
    }

    /// Values recorded.
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// Of all values; saturates.
    pub const fn sum(&self) -> u64 {
        self.sum
    }

    /// Smallest value.
    pub fn min(&self) -> Option<u64> {
        (self.count > 0).then_some(self.min)
    }

    /// Largest value.
    pub fn max(&self) -> Option<u64> {
        (self.count > 0).then_some(self.max)
    }

    /// Mean of all values.
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum as f64 / self.count as f64)
    }

    /// Index of the first of [`Self::bucket_counts`].
    pub const fn offset(&self) -> i32 {
        self.offset
    }

    /// Counts from [`Self::offset`] on.
    pub fn bucket_counts(&self) -> &[u64] {
        &self.buckets
    }

    /// Values of 0.
    pub const fn zero_count(&self) -> u64 {
        self.zero_count
    }

    /// What another machine makes the same histogram of.
    pub fn to_parts(&self) -> Parts {
        Parts {
            offset: self.offset,
            bucket_counts: self.buckets.clone(),
            zero_count: self.zero_count,
            sum: self.sum,
            min: self.min,
            max: self.max,
        }
    }
}

/// The bucket of `value`, which is not 0.
fn index_of(value: u64) -> i32 {
    let zeros = value.leading_zeros();
    let doublings = 63 - zeros as i32;
    let scaled = value << zeros;
    let above = THRESHOLDS.iter().filter(|threshold| scaled > **threshold).count() as i32;
    doublings * PER_DOUBLING + above - 1
}

/// Largest integer in bucket `index`.
fn upper_of(index: i32) -> u64 {
    let steps = index + 1;
    if steps > INDEX_MAX {
        return u64::MAX;
    }
    let doublings = (steps / PER_DOUBLING) as u32;
    THRESHOLDS[(steps % PER_DOUBLING) as usize] >> (63 - doublings)
}

/// The value of bucket `index` whose relative error to both ends is the same: the
/// harmonic mean of its smallest and largest integer.
fn middle_of(index: i32) -> u64 {
    let high = u128::from(upper_of(index));
    let low = if index == INDEX_MIN { 1 } else { u128::from(upper_of(index - 1)) + 1 };
    let (product, total) = (low * high, low + high);
    // Doubled after dividing: twice the product of two 64-bit numbers needs 129 bits.
    (product / total * 2 + (product % total * 2 + total / 2) / total) as u64
}

#[cfg(test)]
mod tests;
