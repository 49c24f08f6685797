//! Periods of a budget on the wall clock, in UTC.

/// How long a period is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Period {
    /// From minute 0 to minute 0.
    Hour,
    /// From midnight to midnight, UTC.
    #[default]
    Day,
    /// From the first of a month to the first of the next, UTC.
    Month,
}

/// One period.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// Of which length.
    pub period: Period,
    /// Its first second, since 1970.
    pub start: u64,
}

const HOUR: u64 = 3_600;
const DAY: u64 = 24 * HOUR;

impl Span {
    /// The period that holds the second `unix_secs` since 1970.
    pub fn at(period: Period, unix_secs: u64) -> Self {
        let start = match period {
            Period::Hour => unix_secs - unix_secs % HOUR,
            Period::Day => unix_secs - unix_secs % DAY,
            Period::Month => {
                let (year, month) = month_of(unix_secs / DAY);
                days_before(year, month) * DAY
            }
        };
        Self { period, start }
    }

    /// The first second after it.
    pub fn end(self) -> u64 {
        match self.period {
            Period::Hour => self.start + HOUR,
            Period::Day => self.start + DAY,
            Period::Month => {
                let (year, month) = month_of(self.start / DAY);
                let (year, month) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
                days_before(year, month) * DAY
            }
        }
    }
}

/// Year and month (1 to 12) of a day since 1970: Howard Hinnant, "chrono-Compatible
/// Low-Level Date Algorithms", `civil_from_days`.
fn month_of(days: u64) -> (u64, u64) {
    // Years begin in March here, so that the leap day is the last one.
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month)
}

/// Days from 1970 to the first of a month: Hinnant's `days_from_civil`.
fn days_before(year: u64, month: u64) -> u64 {
    let year = year - u64::from(month <= 2);
    let (era, year_of_era) = (year / 400, year % 400);
    let from_march = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * from_march + 2) / 5;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_begin_and_end_where_the_calendar_says() {
        // 2024-02-29T12:34:56Z, a leap day.
        let leap = 1_709_210_096;
        for (period, start, end) in [
            (Period::Hour, 1_709_208_000, 1_709_211_600),
            (Period::Day, 1_709_164_800, 1_709_251_200),
            // February the first and March the first of 2024.
            (Period::Month, 1_706_745_600, 1_709_251_200),
        ] {
            let span = Span::at(period, leap);
            assert_eq!((span.start, span.end()), (start, end), "{period:?}");
        }
        // December 2023 ends where January 2024 begins.
        assert_eq!(Span::at(Period::Month, 1_703_000_000).end(), 1_704_067_200);
    }

    #[test]
    fn periods_follow_each_other_without_gap_or_overlap() {
        for period in [Period::Hour, Period::Day, Period::Month] {
            let mut span = Span::at(period, 0);
            assert_eq!(span.start, 0);
            for _ in 0..3_000 {
                let next = Span::at(period, span.end());
                assert_eq!(next.start, span.end());
                assert_eq!(Span::at(period, next.start - 1), span);
                span = next;
            }
        }
    }
}
