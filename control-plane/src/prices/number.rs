//! Numbers in feeds: US dollars per token, as exact decimals.

use serde_json::Value;

/// Most digits of a number that are read: more are no price.
const DIGITS_MAX: usize = 30;

/// From dollars per token to nano-dollars per million tokens: 10^9 * 10^6.
const SHIFT: i32 = 15;

/// The most that any price may be, 1,000,000 US dollars per million tokens.
const NANOS_MAX: u128 = 1_000_000_000_000_000;

/// US dollars per token, a JSON number or text, as nano-dollars per million tokens. What
/// is finer is rounded: feeds hold numbers such as 3.7500000000000005e-07. None: it is no
/// number, negative (feeds say so of what has no fixed price), or no price in this world.
pub(super) fn nano_usd_per_mtok(value: &Value) -> Option<u64> {
    match value {
        // The text of the number, the shortest that reads as the same.
        Value::Number(number) => scaled(&number.to_string()),
        Value::String(text) => scaled(text.trim()),
        _ => None,
    }
}

/// `text` times 10^15, rounded half up.
fn scaled(text: &str) -> Option<u64> {
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let exponent: i32 = exponent.parse().ok()?;
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = [whole, fraction].concat();
    if digits.is_empty() || digits.len() > DIGITS_MAX || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits: u128 = digits.parse().ok()?;
    let power = exponent.checked_add(SHIFT)?.checked_sub(i32::try_from(fraction.len()).ok()?)?;
    let scale = 10_u128.checked_pow(power.unsigned_abs());
    let nanos = match scale {
        _ if digits == 0 => 0,
        Some(scale) if power >= 0 => digits.checked_mul(scale)?,
        Some(scale) => (digits + scale / 2) / scale,
        // Too large for any price, or too small for a nano-dollar.
        None if power >= 0 => return None,
        None => 0,
    };
    if nanos > NANOS_MAX { None } else { u64::try_from(nanos).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Option<u64> {
        nano_usd_per_mtok(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn dollars_per_token_are_read_exactly() {
        for (json, expect) in [
            ("1.5e-07", 150_000_000),
            ("0.00000015", 150_000_000),
            ("\"0.00000015\"", 150_000_000),
            ("\"0\"", 0),
            ("0.0", 0),
            ("0e-99", 0),
            ("3.7500000000000005e-07", 375_000_000),
            ("2.4999999999999999e-07", 250_000_000),
            ("1e-15", 1),
            ("5e-16", 1),
            ("4e-16", 0),
            ("5e-17", 0),
            ("5e-400", 0),
            ("1", 1_000_000_000_000_000),
            ("0.000075", 75_000_000_000),
        ] {
            assert_eq!(read(json), Some(expect), "{json}");
        }
    }

    #[test]
    fn what_is_no_price_is_unknown() {
        for json in
            ["-1", "\"-1\"", "\"\"", "\"free\"", "null", "true", "[]", "1.1", "1e300", "\"1e99999999999\""]
        {
            assert_eq!(read(json), None, "{json}");
        }
    }
}
