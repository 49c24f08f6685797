//! Scalar text as the value of a field.

use prost_reflect::{DynamicMessage, EnumDescriptor, MessageDescriptor, Value};
use prost_types::Timestamp;

use super::names::{self, shown};

/// Longest duration of protobuf, in seconds: 10,000 years.
const MAX_SECONDS: u128 = 315_576_000_000;

/// `true` or `false`.
pub(super) fn boolean(text: &str) -> Result<Value, String> {
    match text {
        "true" => Ok(Value::Bool(true)),
        "false" => Ok(Value::Bool(false)),
        _ => Err(format!("'{}' is neither true nor false", shown(text))),
    }
}

/// A whole number. Proto3 JSON also knows quoted ones.
pub(super) fn uint32(text: &str) -> Result<Value, String> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let value = text.parse().ok().filter(|_| digits).map(Value::U32);
    value.ok_or_else(|| format!("'{}' is not a whole number from 0 to 4294967295", shown(text)))
}

/// A number, neither infinite nor NaN.
pub(super) fn double(text: &str) -> Result<Value, String> {
    let finite = |number: &f64| number.is_finite();
    let value = text.parse().ok().filter(finite).filter(|_| is_number(text)).map(Value::F64);
    value.ok_or_else(|| format!("'{}' is not a number", shown(text)))
}

/// Text. Other tools read some plain scalars as something else, so those are quoted.
pub(super) fn string(text: &str, quoted: bool) -> Result<Value, String> {
    let word = text.to_ascii_lowercase();
    if !quoted && (is_number(text) || matches!(word.as_str(), "true" | "false")) {
        let text = shown(text);
        return Err(format!("{text} is not text; quote it: \"{text}\""));
    }
    Ok(Value::String(text.to_owned()))
}

/// A decimal number, kept as it is written: 0.10 is not 0.1.
pub(super) fn decimal(text: &str, quoted: bool) -> Result<Value, String> {
    if !quoted && !is_number(text) {
        return Err(format!("'{}' is not a decimal number such as 0.15", shown(text)));
    }
    Ok(Value::String(text.to_owned()))
}

/// Whether YAML readers would take the plain scalar for a number.
fn is_number(text: &str) -> bool {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let radix = ["0x", "0o", "0b"].iter().any(|prefix| unsigned.starts_with(prefix));
    let special = matches!(unsigned.to_ascii_lowercase().as_str(), ".inf" | ".nan");
    let decimal =
        unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') && unsigned.parse::<f64>().is_ok();
    radix || special || decimal
}

/// A value of an enum by its name.
pub(super) fn enumeration(of: &EnumDescriptor, text: &str) -> Result<Value, String> {
    let value = names::value(of, text).map(|value| Value::EnumNumber(value.number()));
    value.ok_or_else(|| names::no_value(of, text))
}

/// A duration such as 30s, 1.5s, 500ms, 2m or 1h, exact.
pub(super) fn duration(of: &MessageDescriptor, text: &str) -> Result<Value, String> {
    let nanos = nanos(text)?;
    let mut message = DynamicMessage::new(of.clone());
    // Both fit: checked against the longest duration.
    let seconds = i64::try_from(nanos / 1_000_000_000).unwrap_or(i64::MAX);
    let rest = i32::try_from(nanos % 1_000_000_000).unwrap_or(0);
    message.set_field_by_name("seconds", Value::I64(seconds));
    message.set_field_by_name("nanos", Value::I32(rest));
    Ok(Value::Message(message))
}

/// A time in RFC 3339, such as 2026-12-01T00:00:00Z or with an offset, +01:00.
pub(super) fn timestamp(of: &MessageDescriptor, text: &str) -> Result<Value, String> {
    // Shorter forms, which leave out the time or its zone, say different things to
    // different readers.
    let whole = text.len() >= "2026-12-01T00:00:00Z".len() && text.is_ascii();
    let time = text.parse::<Timestamp>().ok().filter(|_| whole);
    let time = time.ok_or_else(|| format!("'{}' is not a time such as 2026-12-01T00:00:00Z", shown(text)))?;
    let mut message = DynamicMessage::new(of.clone());
    message.set_field_by_name("seconds", Value::I64(time.seconds));
    message.set_field_by_name("nanos", Value::I32(time.nanos));
    Ok(Value::Message(message))
}

fn nanos(text: &str) -> Result<u128, String> {
    let wrong = || format!("'{}' is not a duration such as '5s' or '500ms'", shown(text));
    if text.starts_with('-') {
        return Err(format!("duration '{}' is negative", shown(text)));
    }
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let per_unit: u128 = match unit {
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        "" if !number.is_empty() => {
            let number = shown(number);
            return Err(format!("duration {number} has no unit; write '{number}s' or '{number}ms'"));
        }
        _ => return Err(wrong()),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    // Longer numbers could overflow and are no durations anyway.
    let digits =
        |part: &str| (1..=15).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return Err(wrong());
    }
    let whole: u128 = whole.parse().map_err(|_| wrong())?;
    let scale = 10_u128.pow(u32::try_from(fraction.len()).unwrap_or(0));
    let fraction: u128 = fraction.parse().map_err(|_| wrong())?;
    if !(fraction * per_unit).is_multiple_of(scale) {
        return Err(format!("duration '{}' is finer than a nanosecond", shown(text)));
    }
    let nanos = whole * per_unit + fraction * per_unit / scale;
    if nanos > MAX_SECONDS * 1_000_000_000 {
        return Err(format!("duration '{}' is longer than 10,000 years", shown(text)));
    }
    Ok(nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_exact() {
        for (text, expect) in [
            ("0s", 0),
            ("30s", 30_000_000_000),
            ("1.5s", 1_500_000_000),
            ("0.500s", 500_000_000),
            ("0.000000001s", 1),
            ("500ms", 500_000_000),
            ("0.5ms", 500_000),
            ("2m", 120_000_000_000),
            ("1h", 3_600_000_000_000),
        ] {
            assert_eq!(nanos(text), Ok(expect), "{text}");
        }
    }

    #[test]
    fn wrong_durations_say_what_would_be_right() {
        for (text, expect) in [
            ("5", "duration 5 has no unit; write '5s' or '5ms'"),
            ("", "'' is not a duration such as '5s' or '500ms'"),
            ("s", "'s' is not a duration such as '5s' or '500ms'"),
            ("5 s", "'5 s' is not a duration such as '5s' or '500ms'"),
            ("5d", "'5d' is not a duration such as '5s' or '500ms'"),
            ("1.2.3s", "'1.2.3s' is not a duration such as '5s' or '500ms'"),
            (".5s", "'.5s' is not a duration such as '5s' or '500ms'"),
            ("-5s", "duration '-5s' is negative"),
            ("0.0000000001s", "duration '0.0000000001s' is finer than a nanosecond"),
            ("999999999999999h", "duration '999999999999999h' is longer than 10,000 years"),
        ] {
            assert_eq!(nanos(text), Err(expect.to_owned()), "{text}");
        }
    }

    #[test]
    fn numbers_are_finite_and_plain() {
        assert_eq!(double("0.5"), Ok(Value::F64(0.5)));
        assert_eq!(double("1e-3"), Ok(Value::F64(0.001)));
        for text in ["nan", ".nan", "inf", ".inf", "1e400", "0x10", "", "1_000"] {
            assert!(double(text).is_err(), "{text}");
        }
        assert_eq!(uint32("4294967295"), Ok(Value::U32(u32::MAX)));
        for text in ["4294967296", "-1", "+1", "1.0", "0x10", "", "1_000"] {
            assert!(uint32(text).is_err(), "{text}");
        }
    }
}
