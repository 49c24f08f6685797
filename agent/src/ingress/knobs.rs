//! What callers may ask for in headers.

use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use trunkline_routing::money::NanoUsd;

use super::error::LocalError;

/// Longest wait a caller may ask for.
const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);
/// Tags per request, and the bytes of their keys and values.
pub(crate) const TAGS_MAX: usize = 16;
pub(crate) const TAG_KEY_MAX: usize = 64;
pub(crate) const TAG_VALUE_MAX: usize = 256;
/// An id from the caller; a longer one is no id.
const REQUEST_ID_MAX: usize = 128;

/// The knobs of one request.
#[derive(Debug, Default)]
pub(crate) struct Knobs {
    pub(crate) timeout: Option<Duration>,
    pub(crate) max_cost: Option<NanoUsd>,
    pub(crate) min_quality: Option<f64>,
    pub(crate) tags: Vec<(String, String)>,
}

impl Knobs {
    /// Reads them. `x-trunkline-session` has no effect on strategies with exact
    /// shares, so it is not looked at.
    pub(crate) fn read(headers: &HeaderMap) -> Result<Self, LocalError> {
        let text = |name: &'static str| -> Result<Option<&str>, LocalError> {
            let Some(value) = headers.get(name) else { return Ok(None) };
            let text = value.to_str().map_err(|_| LocalError::knob(name, "not plain text"))?;
            Ok(Some(text.trim()))
        };
        let mut knobs = Self::default();
        if let Some(millis) = text("x-trunkline-timeout-ms")? {
            let wrong = || LocalError::knob("x-trunkline-timeout-ms", "must be whole milliseconds, 1 to 86400000");
            let timeout = Duration::from_millis(millis.parse().map_err(|_| wrong())?);
            if timeout.is_zero() || timeout > TIMEOUT_MAX {
                return Err(wrong());
            }
            knobs.timeout = Some(timeout);
        }
        if let Some(usd) = text("x-trunkline-max-cost-usd")? {
            let wrong = || LocalError::knob("x-trunkline-max-cost-usd", "must be US dollars such as 0.02, at most 9 places");
            knobs.max_cost = Some(parse_usd(usd).ok_or_else(wrong)?);
        }
        if let Some(quality) = text("x-trunkline-min-quality")? {
            let quality: Option<f64> = quality.parse().ok().filter(|quality| (0.0..=1.0).contains(quality));
            let wrong = || LocalError::knob("x-trunkline-min-quality", "must be a number from 0 to 1");
            knobs.min_quality = Some(quality.ok_or_else(wrong)?);
        }
        if let Some(tags) = text("x-trunkline-tags")? {
            knobs.tags = parse_tags(tags).map_err(|problem| LocalError::knob("x-trunkline-tags", problem))?;
        }
        Ok(knobs)
    }
}

/// An id that the caller chose, if it is a sane one.
pub(crate) fn request_id(headers: &HeaderMap) -> Option<HeaderValue> {
    let id = headers.get("x-request-id")?;
    let sane = !id.is_empty() && id.len() <= REQUEST_ID_MAX && id.as_bytes().iter().all(u8::is_ascii_graphic);
    sane.then(|| id.clone())
}

/// The key that the caller presented, by either header.
pub(crate) fn api_key(headers: &HeaderMap) -> Option<&[u8]> {
    if let Some(value) = headers.get(http::header::AUTHORIZATION) {
        let value = value.as_bytes();
        if value.len() > 7 && value[..7].eq_ignore_ascii_case(b"bearer ") {
            return Some(value[7..].trim_ascii());
        }
    }
    headers.get("x-api-key").map(|value| value.as_bytes().trim_ascii())
}

/// US dollars as an exact decimal of at most nine places.
pub(crate) fn parse_usd(text: &str) -> Option<NanoUsd> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() && fraction.is_empty() || !digits(whole) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let fraction: u64 = format!("{fraction:0<9}").parse().ok()?;
    whole.checked_mul(1_000_000_000)?.checked_add(fraction).map(NanoUsd)
}

/// `team=a,feature=search`.
fn parse_tags(text: &str) -> Result<Vec<(String, String)>, &'static str> {
    let mut tags = Vec::new();
    for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').ok_or("must be key=value pairs with commas between them")?;
        let (key, value) = (key.trim(), value.trim());
        if key.is_empty() || key.len() > TAG_KEY_MAX || value.len() > TAG_VALUE_MAX {
            return Err("keys have 1 to 64 bytes and values at most 256");
        }
        if tags.len() == TAGS_MAX {
            return Err("at most 16 tags");
        }
        tags.push((key.to_owned(), value.to_owned()));
    }
    Ok(tags)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dollars_are_exact_and_garbage_is_refused() {
        assert_eq!(parse_usd("0.02"), Some(NanoUsd(20_000_000)));
        assert_eq!(parse_usd("12"), Some(NanoUsd(12_000_000_000)));
        for garbage in ["", ".", "-1", "1e3", "NaN", "0.0000000001", "99999999999999999999"] {
            assert_eq!(parse_usd(garbage), None, "{garbage}");
        }
    }

    #[test]
    fn tags_are_bounded() {
        assert_eq!(parse_tags("team=a, feature=search").unwrap().len(), 2);
        assert!(parse_tags("team").is_err());
        assert!(parse_tags(&"k=v,".repeat(17)).is_err());
    }
}
