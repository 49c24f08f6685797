//! What a provider says of its rate limits in the headers of an answer: OpenAI's
//! `x-ratelimit-*` and Anthropic's `anthropic-ratelimit-*`.

use core::time::Duration;

use super::{days_in, days_since_1970, parse_decimal, parse_go_duration, parse_http_date};

/// One limit: so much is left, and all of it is back after a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// What may still be sent, in requests or tokens.
    pub remaining: u64,
    /// What may be sent when nothing was, if the provider says so.
    pub limit: Option<u64>,
    /// Until it is whole, at most [`super::GATE_MAX`].
    pub reset: Duration,
}

/// The limits of a deployment. One without a time of reset says nothing and is left
/// out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RateHeaders {
    /// In requests.
    pub requests: Option<RateLimit>,
    /// In tokens.
    pub tokens: Option<RateLimit>,
}

impl RateHeaders {
    /// Whether nothing was said.
    pub const fn is_empty(&self) -> bool {
        self.requests.is_none() && self.tokens.is_none()
    }
}

/// The limits in the headers that `header` looks up by lower-case name. Garbage is
/// passed over.
pub fn rate_headers<'a>(header: &dyn Fn(&str) -> Option<&'a str>) -> RateHeaders {
    let openai = |names: [&str; 3]| limit(header, names, duration);
    let date = header("date").and_then(parse_http_date);
    let until = |value: &str| {
        let seconds = parse_rfc3339(value)?.checked_sub(date?)?;
        Some(Duration::from_secs(seconds).min(super::GATE_MAX)).filter(|reset| !reset.is_zero())
    };
    let anthropic = |names: [&str; 3]| limit(header, names, until);
    RateHeaders {
        requests: openai([
            "x-ratelimit-remaining-requests",
            "x-ratelimit-limit-requests",
            "x-ratelimit-reset-requests",
        ])
        .or_else(|| {
            anthropic([
                "anthropic-ratelimit-requests-remaining",
                "anthropic-ratelimit-requests-limit",
                "anthropic-ratelimit-requests-reset",
            ])
        }),
        tokens: openai([
            "x-ratelimit-remaining-tokens",
            "x-ratelimit-limit-tokens",
            "x-ratelimit-reset-tokens",
        ])
        .or_else(|| {
            anthropic([
                "anthropic-ratelimit-tokens-remaining",
                "anthropic-ratelimit-tokens-limit",
                "anthropic-ratelimit-tokens-reset",
            ])
        }),
    }
}

fn limit<'a>(
    header: &dyn Fn(&str) -> Option<&'a str>,
    [remaining, limit, reset]: [&str; 3],
    parse: impl Fn(&str) -> Option<Duration>,
) -> Option<RateLimit> {
    let count = |name| header(name).and_then(|value: &str| value.trim().parse::<u64>().ok());
    Some(RateLimit { remaining: count(remaining)?, limit: count(limit), reset: parse(header(reset)?)? })
}

/// `6m0s` as OpenAI writes it, or plain seconds as some who copy it do.
fn duration(value: &str) -> Option<Duration> {
    parse_go_duration(value).or_else(|| parse_decimal(value, 1.0)).map(|reset| reset.min(super::GATE_MAX))
}

/// Seconds since 1970 of a time in UTC, `2024-05-01T12:00:00Z`; parts of a second are
/// cut off. Other offsets are not understood: no provider sends them.
fn parse_rfc3339(value: &str) -> Option<u64> {
    let value = value.trim();
    let bytes = value.as_bytes();
    if !value.is_ascii() || bytes.len() < 20 || !value.ends_with('Z') {
        return None;
    }
    if [bytes[4], bytes[7], bytes[10], bytes[13], bytes[16]] != *b"--T::" {
        return None;
    }
    let fraction = &bytes[19..bytes.len() - 1];
    let whole = fraction.is_empty() || fraction.len() > 1 && fraction[0] == b'.';
    if !whole || !fraction.iter().skip(1).all(u8::is_ascii_digit) {
        return None;
    }
    let number = |from: usize, to: usize| {
        let digits = &value[from..to];
        if digits.bytes().all(|byte| byte.is_ascii_digit()) { digits.parse::<u64>().ok() } else { None }
    };
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if year < 1970 || !(1..=12).contains(&month) || day == 0 || day > days_in(month, year) {
        return None;
    }
    // 60 is a leap second.
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    Some(days_since_1970(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(headers: &[(&str, &str)]) -> RateHeaders {
        rate_headers(&|name| headers.iter().find(|(key, _)| *key == name).map(|(_, value)| *value))
    }

    #[test]
    fn openai_says_what_is_left_until_when() {
        let found = read(&[
            ("x-ratelimit-remaining-requests", "59"),
            ("x-ratelimit-limit-requests", "60"),
            ("x-ratelimit-reset-requests", "1s"),
            ("x-ratelimit-remaining-tokens", "149984"),
            ("x-ratelimit-reset-tokens", "6m0s"),
        ]);
        let requests = RateLimit { remaining: 59, limit: Some(60), reset: Duration::from_secs(1) };
        let tokens = RateLimit { remaining: 149_984, limit: None, reset: super::super::GATE_MAX };
        assert_eq!(found, RateHeaders { requests: Some(requests), tokens: Some(tokens) });
    }

    #[test]
    fn anthropic_names_a_moment_which_counts_from_the_answers_own_date() {
        let found = read(&[
            ("date", "Wed, 01 May 2024 12:00:00 GMT"),
            ("anthropic-ratelimit-requests-remaining", "0"),
            ("anthropic-ratelimit-requests-limit", "50"),
            ("anthropic-ratelimit-requests-reset", "2024-05-01T12:00:07Z"),
            ("anthropic-ratelimit-tokens-remaining", "10"),
            ("anthropic-ratelimit-tokens-reset", "2024-05-01T12:00:30.25Z"),
        ]);
        assert_eq!(found.requests.unwrap().reset, Duration::from_secs(7));
        assert_eq!(found.tokens.unwrap().reset, Duration::from_secs(30));
    }

    #[test]
    fn what_has_no_end_or_is_garbage_says_nothing() {
        assert!(read(&[("x-ratelimit-remaining-requests", "0")]).is_empty());
        for (remaining, reset) in [("-1", "1s"), ("many", "1s"), ("3", "soon"), ("3", "0s"), ("", "")] {
            let headers =
                [("x-ratelimit-remaining-requests", remaining), ("x-ratelimit-reset-requests", reset)];
            assert!(read(&headers).is_empty(), "{headers:?}");
        }
        let undated = [
            ("anthropic-ratelimit-requests-remaining", "0"),
            ("anthropic-ratelimit-requests-reset", "2024-05-01T12:00:07Z"),
        ];
        assert!(read(&undated).is_empty());
        for garbage in ["2024-05-01 12:00:07Z", "2024-13-01T12:00:07Z", "2024-05-01T12:00:07+02:00", "Z"] {
            assert_eq!(parse_rfc3339(garbage), None, "{garbage}");
        }
    }

    proptest! {
        #[test]
        fn any_header_is_read_without_panic_and_within_bounds(
            remaining in "\\PC{0,20}", reset in "\\PC{0,30}", date in "\\PC{0,30}"
        ) {
            for kind in ["x-ratelimit-", "anthropic-ratelimit-"] {
                let found = rate_headers(&|name| match name {
                    "date" => Some(date.as_str()),
                    name if !name.starts_with(kind) => None,
                    name if name.contains("reset") => Some(reset.as_str()),
                    _ => Some(remaining.as_str()),
                });
                for limit in [found.requests, found.tokens].into_iter().flatten() {
                    prop_assert!(!limit.reset.is_zero() && limit.reset <= super::super::GATE_MAX);
                }
            }
        }
    }
}
