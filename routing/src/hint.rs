//! How long a provider asks to be left alone, from its response headers.
//!
//! The most exact header wins; one that is garbage is passed over. Dates are relative
//! to the response's own `Date`, so clocks need not agree.

use core::time::Duration;

mod rates;

pub use rates::{RateHeaders, RateLimit, rate_headers};

/// No hint closes a gate for longer; what is longer is checked again by then.
pub const GATE_MAX: Duration = Duration::from_mins(5);

/// When the request's and token's limits are whole again, as Go durations.
const RESET_HEADERS: [&str; 2] = ["x-ratelimit-reset-requests", "x-ratelimit-reset-tokens"];

/// The hint in the headers that `header` looks up by lower-case name, at most
/// [`GATE_MAX`].
pub fn retry_hint<'a>(status: u16, header: &dyn Fn(&str) -> Option<&'a str>) -> Option<Duration> {
    let millis = |name| header(name).and_then(|value| parse_decimal(value, 1e-3));
    millis("retry-after-ms")
        .or_else(|| millis("x-ms-retry-after-ms"))
        .or_else(|| header("retry-after").and_then(|value| retry_after(value, header("date"))))
        .or_else(|| if status == 429 { reset(header) } else { None })
        .map(|hint| hint.min(GATE_MAX))
}

/// Either limit may be the one that was hit: the longer wait is the safe one.
fn reset<'a>(header: &dyn Fn(&str) -> Option<&'a str>) -> Option<Duration> {
    RESET_HEADERS.iter().filter_map(|name| parse_go_duration(header(name)?)).max()
}

fn retry_after(value: &str, date: Option<&str>) -> Option<Duration> {
    if let Some(seconds) = parse_decimal(value, 1.0) {
        return Some(seconds);
    }
    let (then, now) = (parse_http_date(value)?, parse_http_date(date?)?);
    let seconds = then.checked_sub(now)?;
    (seconds > 0).then(|| Duration::from_secs(seconds))
}

/// A positive number of `unit` seconds each. Capped before conversion, which would
/// fail on what is too large.
fn parse_decimal(value: &str, unit: f64) -> Option<Duration> {
    let number: f64 = value.trim().parse().ok()?;
    let seconds = number * unit;
    if !number.is_finite() || seconds <= 0.0 {
        return None;
    }
    Duration::try_from_secs_f64(seconds.min(GATE_MAX.as_secs_f64())).ok().filter(|hint| !hint.is_zero())
}

/// `6m0s`, `1.5s`, `12ms`: numbers with units, in any number.
fn parse_go_duration(value: &str) -> Option<Duration> {
    let mut rest = value.trim();
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, next) = tail.split_at(letters);
        let unit = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "\u{b5}s" | "\u{3bc}s" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        let number: f64 = number.parse().ok()?;
        let part = Duration::try_from_secs_f64((number * unit).min(GATE_MAX.as_secs_f64())).ok()?;
        total = total.saturating_add(part);
        rest = next;
    }
    (!total.is_zero()).then_some(total)
}

/// Seconds since 1970 of an IMF-fixdate: `Sun, 06 Nov 1994 08:49:37 GMT`. The obsolete
/// forms are not understood: no provider sends them.
pub fn parse_http_date(value: &str) -> Option<u64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let value = value.trim();
    let bytes = value.as_bytes();
    // Fixed positions are only those of characters if each is one byte.
    if !value.is_ascii() || bytes.len() != 29 || !value.ends_with(" GMT") || &bytes[3..5] != b", " {
        return None;
    }
    if [bytes[7], bytes[11], bytes[16]] != *b"   " || [bytes[19], bytes[22]] != *b"::" {
        return None;
    }
    let number = |from: usize, to: usize| {
        let digits = &value[from..to];
        if digits.bytes().all(|byte| byte.is_ascii_digit()) { digits.parse::<u64>().ok() } else { None }
    };
    let month = MONTHS.iter().position(|name| *name == &value[8..11])? as u64 + 1;
    let (day, year) = (number(5, 7)?, number(12, 16)?);
    let (hour, minute, second) = (number(17, 19)?, number(20, 22)?, number(23, 25)?);
    // 60 is a leap second.
    if day == 0 || day > days_in(month, year) || year < 1970 || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    Some(days_since_1970(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second)
}

const fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400)
}

const fn days_in(month: u64, year: u64) -> u64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn days_since_1970(year: u64, month: u64, day: u64) -> u64 {
    let before = year - 1;
    // Leap days up to the end of a year; 477 of them lie before 1970.
    let leaps = before / 4 - before / 100 + before / 400 - 477;
    let months: u64 = (1..month).map(|month| days_in(month, year)).sum();
    (year - 1970) * 365 + leaps + months + day - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(status: u16, headers: &[(&str, &str)], expect_ms: Option<u64>) {
        let found =
            retry_hint(status, &|name| headers.iter().find(|(key, _)| *key == name).map(|(_, value)| *value));
        assert_eq!(found, expect_ms.map(Duration::from_millis), "{headers:?}");
    }

    #[test]
    fn most_exact_header_wins() {
        let all = [("retry-after-ms", "1500"), ("x-ms-retry-after-ms", "2500"), ("retry-after", "7")];
        check(429, &all, Some(1_500));
        check(429, &all[1..], Some(2_500));
        check(503, &all[2..], Some(7_000));
        check(503, &[], None);
    }

    #[test]
    fn garbage_is_passed_over() {
        for garbage in ["-1", "0", "-0", "NaN", "inf", "-inf", "soon", "", "1e-30", "0x10"] {
            check(429, &[("retry-after-ms", garbage), ("retry-after", "2")], Some(2_000));
            check(429, &[("retry-after", garbage)], None);
        }
    }

    #[test]
    fn seconds_may_be_fractions_and_are_capped() {
        check(429, &[("retry-after", "0.25")], Some(250));
        check(429, &[("retry-after", " 3 ")], Some(3_000));
        check(429, &[("retry-after", "86400")], Some(300_000));
        check(429, &[("retry-after", "1e300")], Some(300_000));
    }

    #[test]
    fn dates_are_relative_to_the_response() {
        let date = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");
        check(503, &[("retry-after", "Sun, 06 Nov 1994 08:50:07 GMT"), date], Some(30_000));
        check(503, &[("retry-after", "Mon, 07 Nov 1994 08:50:07 GMT"), date], Some(300_000));
        check(503, &[("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT"), date], None);
        check(503, &[("retry-after", "Sun, 06 Nov 1994 08:00:00 GMT"), date], None);
        check(503, &[("retry-after", "Sun, 06 Nov 1994 08:50:07 GMT")], None);
    }

    #[test]
    fn reset_headers_count_for_a_429_without_others() {
        let reset = [("x-ratelimit-reset-requests", "12ms"), ("x-ratelimit-reset-tokens", "1m2.5s")];
        check(429, &reset, Some(62_500));
        check(429, &reset[..1], Some(12));
        check(503, &reset, None);
        check(429, &[("x-ratelimit-reset-tokens", "6m0s")], Some(300_000));
        check(429, &[("retry-after", "2"), reset[1]], Some(2_000));
        for garbage in ["", "0s", "5", "s", "1x", "-1s", "1..2s", "2026-02-25T20:02:36Z"] {
            check(429, &[("x-ratelimit-reset-tokens", garbage)], None);
        }
    }

    #[test]
    fn http_dates() {
        for (date, expect) in [
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777)),
            ("Tue, 29 Feb 2000 23:59:59 GMT", Some(951_868_799)),
            ("Fri, 01 Mar 2024 00:00:00 GMT", Some(1_709_251_200)),
            ("Mon, 29 Feb 2100 00:00:00 GMT", None),
            ("Sun, 00 Nov 1994 08:49:37 GMT", None),
            ("Sun, 06 Nov 1994 24:49:37 GMT", None),
            ("Sun, 06 Foo 1994 08:49:37 GMT", None),
            ("Sun, +6 Nov 1994 08:49:37 GMT", None),
            ("Sunday, 06-Nov-94 08:49:37 GMT", None),
            ("S\u{fc}n, 06 Nov 194 08:49:37 GMT", None),
            ("", None),
        ] {
            assert_eq!(parse_http_date(date), expect, "{date}");
        }
    }
}
