//! Values with a form of their own: durations and points in time.

use std::time::{Duration, SystemTime};

use prost_types::Timestamp;

/// A whole number with a unit: `500ms`, `20s`, `10m`, `1h`, `7d`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("'{text}' is no duration; write 500ms, 20s, 10m, 1h or 7d");
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    number.checked_mul(milliseconds).map(Duration::from_millis).ok_or_else(wrong)
}

/// A point in time: `2026-11-22T16:00:00Z` (RFC 3339), or so long ago, `2h`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Moment {
    /// That time.
    At(Timestamp),
    /// So long before the command began.
    Ago(Duration),
}

impl Moment {
    /// The time it means, with `now` as the command's beginning.
    pub(crate) fn on(self, now: SystemTime) -> Timestamp {
        match self {
            Self::At(time) => time,
            // Further back than times go is as early as any.
            Self::Ago(age) => now.checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH).into(),
        }
    }
}

/// Reads a point in time as it is typed.
pub(crate) fn moment(text: &str) -> Result<Moment, String> {
    if let Ok(age) = duration(text) {
        return Ok(Moment::Ago(age));
    }
    // A day without a time is read too generously there: whose midnight?
    let time = if text.contains(['T', 't']) { text.parse().ok() } else { None };
    time.map(Moment::At)
        .ok_or_else(|| format!("'{text}' is no time; write 2026-11-22T16:00:00Z, or 2h for two hours ago"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit_that_is_known() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("10m"), Ok(Duration::from_mins(10)));
        for wrong in ["", "5", "s", "1.5s", "-1s", "5w", "99999999999999999999h", "9999999999999999h"] {
            assert!(duration(wrong).unwrap_err().contains("10m"), "{wrong}");
        }
    }

    #[test]
    fn moments_are_times_or_ages() {
        let at = moment("2026-11-22T16:00:00Z").unwrap();
        let expected = Timestamp { seconds: 1_795_363_200, nanos: 0 };
        assert_eq!(at, Moment::At(expected));
        let now = SystemTime::try_from(expected).unwrap();
        assert_eq!(moment("2026-11-22T17:00:00+01:00").unwrap().on(now), expected);
        assert_eq!(moment("2h").unwrap().on(now).seconds, expected.seconds - 7_200);
        assert_eq!(Moment::Ago(Duration::MAX).on(now).seconds, 0);
        for wrong in ["", "yesterday", "2026-11-22", "2026-13-22T16:00:00Z", "-1h"] {
            assert!(moment(wrong).unwrap_err().contains("2h"), "{wrong}");
        }
    }
}
