//! Checks of single fields. Each notes what is wrong and gives a harmless value, so
//! that the rest of the document is checked too.

use std::{ops::RangeInclusive, time::Duration};

use prost_types::Duration as WireDuration;
use trunkline_routing::table::Capabilities;

use crate::problems::{Path, Problems};

/// Longest provider, deployment, virtual model or key name.
const NAME_MAX_BYTES: usize = 63;

/// Longest free text (region, upstream model).
const TEXT_MAX_BYTES: usize = 256;

/// Most US dollars in any field. No price is near; sums stay far from overflow.
pub(super) const MAX_USD: u64 = 1_000_000;

/// Nano-dollars of a dollar.
const NANOS: u64 = 1_000_000_000;

/// A name: `[a-z0-9][a-z0-9-]{0,62}`, and `extra` after the first character.
pub(super) fn check_name(text: &str, extra: &str, path: &Path<'_>, problems: &mut Problems) {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let right = text.starts_with(plain)
        && text.len() <= NAME_MAX_BYTES
        && text.chars().all(|c| plain(c) || c == '-' || extra.contains(c));
    if text.is_empty() {
        problems.push(path, "is required");
    } else if !right {
        problems
            .push(path, format!("{} is not a name: write [a-z0-9][a-z0-9-{extra}]{{0,62}}", quoted(text)));
    }
}

/// Text from a document for an error message: escaped, and not longer than a line.
pub(crate) fn quoted(text: &str) -> String {
    const SHOWN: usize = 80;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{:?}...", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// Free text that ends up in headers, bodies and tables.
pub(super) fn check_text(text: &str, path: &Path<'_>, problems: &mut Problems) {
    if text.len() > TEXT_MAX_BYTES {
        problems.push(path, format!("is longer than {TEXT_MAX_BYTES} bytes"));
    } else if text.chars().any(char::is_control) {
        problems.push(path, "must not hold control characters");
    }
}

/// How many elements a list has.
pub(super) fn check_count(
    count: usize,
    range: RangeInclusive<usize>,
    path: &Path<'_>,
    problems: &mut Problems,
) {
    if count < *range.start() {
        problems.push(path, format!("must not be empty: {} to {}", range.start(), range.end()));
    } else if count > *range.end() {
        problems.push(path, format!("holds {count}, at most {} are allowed", range.end()));
    }
}

/// A whole number, `default` if absent.
pub(super) fn whole(
    value: Option<u32>,
    default: u32,
    range: RangeInclusive<u32>,
    path: &Path<'_>,
    problems: &mut Problems,
) -> u32 {
    let value = value.unwrap_or(default);
    if !range.contains(&value) {
        problems.push(path, format!("{value} is out of range: {} to {}", range.start(), range.end()));
        return default;
    }
    value
}

/// A number from 0 to 1.
pub(super) fn share(value: Option<f64>, path: &Path<'_>, problems: &mut Problems) -> Option<f64> {
    let value = value?;
    if (0.0..=1.0).contains(&value) {
        return Some(value);
    }
    problems.push(path, format!("{value} is out of range: 0 to 1"));
    None
}

/// A length of time within `range`. None if absent or wrong.
pub(super) fn duration(
    value: Option<&WireDuration>,
    range: RangeInclusive<Duration>,
    path: &Path<'_>,
    problems: &mut Problems,
) -> Option<Duration> {
    let value = value?;
    let Some(exact) = exact(value) else {
        problems.push(path, "is negative or not a duration");
        return None;
    };
    if range.contains(&exact) {
        return Some(exact);
    }
    problems.push(path, format!("{exact:?} is out of range: {:?} to {:?}", range.start(), range.end()));
    None
}

fn exact(value: &WireDuration) -> Option<Duration> {
    let seconds = u64::try_from(value.seconds).ok()?;
    let nanos = u32::try_from(value.nanos).ok().filter(|nanos| u64::from(*nanos) < NANOS)?;
    Some(Duration::new(seconds, nanos))
}

/// US dollars as an exact decimal, in nano-dollars. None if empty or wrong.
pub(super) fn usd(text: &str, path: &Path<'_>, problems: &mut Problems) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    let value = nano_usd(text);
    if let Err(reason) = value {
        problems.push(path, format!("{} {reason}", quoted(text)));
    }
    value.ok()
}

pub(super) fn nano_usd(text: &str) -> Result<u64, &'static str> {
    const SHAPE: &str = "is not a decimal number such as 0.15";
    const TOO_MUCH: &str = "is more than 1000000 US dollars";
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if text.starts_with('-') && text.len() > 1 {
        return Err("is negative");
    }
    if !digits(whole) || !digits(fraction) {
        return Err(SHAPE);
    }
    if fraction.len() > 9 {
        return Err("has more than 9 decimal places");
    }
    // Digits only, so a failure is an overflow.
    let dollars: u64 = whole.parse().map_err(|_| TOO_MUCH)?;
    let nanos: u64 = format!("{fraction:0<9}").parse().map_err(|_| SHAPE)?;
    if dollars > MAX_USD || (dollars == MAX_USD && nanos > 0) {
        return Err(TOO_MUCH);
    }
    Ok(dollars * NANOS + nanos)
}

/// A list of capabilities.
pub(super) fn capabilities(
    names: &[String],
    parent: &Path<'_>,
    field: &'static str,
    problems: &mut Problems,
) -> Capabilities {
    let mut all = Capabilities::NONE;
    for (index, name) in names.iter().enumerate() {
        match Capabilities::by_name(name) {
            Some(one) => all = all.with(one),
            None => problems.push(
                parent.item(field, index),
                format!("{} is not known; known are: {}", quoted(name), known_capabilities()),
            ),
        }
    }
    all
}

fn known_capabilities() -> String {
    Capabilities::NAMES.map(|(name, _)| name).join(", ")
}

/// An enum value that the contract does not know.
pub(super) fn unknown_enum(number: i32, path: &Path<'_>, problems: &mut Problems) {
    problems.push(path, format!("{number} is not a value of this enum"));
}

/// Something in the contract that does not work yet.
pub(super) fn not_built(what: &str, path: &Path<'_>, problems: &mut Problems) {
    problems.push(path, format!("{what} is not built yet"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_exact() {
        for (text, expect) in [
            ("0", 0),
            ("0.15", 150_000_000),
            ("0.075", 75_000_000),
            ("10", 10_000_000_000),
            ("00.10", 100_000_000),
            ("0.000000001", 1),
            ("1000000", 1_000_000_000_000_000),
            ("999999.999999999", 999_999_999_999_999),
        ] {
            assert_eq!(nano_usd(text), Ok(expect), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_price_is_refused() {
        let shape = "is not a decimal number such as 0.15";
        for text in [".5", "5.", "1e3", "+1", "-", "0x1", "1,5", "1.2.3", " 1", "NaN", "١"] {
            assert_eq!(nano_usd(text), Err(shape), "{text}");
        }
        assert_eq!(nano_usd("-1"), Err("is negative"));
        assert_eq!(nano_usd("0.0000000001"), Err("has more than 9 decimal places"));
        for text in ["1000000.000000001", "1000001", "99999999999999999999999999"] {
            assert_eq!(nano_usd(text), Err("is more than 1000000 US dollars"), "{text}");
        }
    }

    #[test]
    fn names_are_short_lower_case_and_plain() {
        let check = |name: &str, extra: &str| {
            let mut problems = Problems::default();
            check_name(name, extra, &Path::Root.field("name"), &mut problems);
            problems.to_string()
        };
        assert_eq!(check("a", ""), "");
        assert_eq!(check(&"a".repeat(63), ""), "");
        assert_eq!(check("gpt-4.1:mini_2", "._:"), "");
        assert_eq!(check("", ""), "name: is required");
        let wrong = "name: \"Chat\" is not a name: write [a-z0-9][a-z0-9-]{0,62}";
        assert_eq!(check("Chat", ""), wrong);
        for name in ["-a", "a/b", "a b", "a.b", "ä", "a\n"] {
            assert_ne!(check(name, ""), "", "{name}");
        }
        assert_ne!(check(&"a".repeat(64), ""), "");
        assert_ne!(check(".a", "._:"), "");
    }
}
