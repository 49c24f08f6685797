//! What callers may ask for in headers.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use trunkline_proto::convert;
use trunkline_routing::{eligibility::Profile, money::NanoUsd};

use super::{answer::REQUEST_ID, error::LocalError};

/// Longest wait a caller may ask for.
const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);
/// An id from the caller; a longer one is no id.
const REQUEST_ID_MAX: usize = 128;

// Checked and hashed at compile time, or once, not per request.
static TIMEOUT: HeaderName = HeaderName::from_static("x-trunkline-timeout-ms");
static MAX_COST: HeaderName = HeaderName::from_static("x-trunkline-max-cost-usd");
static MIN_QUALITY: HeaderName = HeaderName::from_static("x-trunkline-min-quality");
static SESSION: HeaderName = HeaderName::from_static("x-trunkline-session");
static TAGS: HeaderName = HeaderName::from_static("x-trunkline-tags");
static API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// The knobs of one request.
#[derive(Debug, Default)]
pub(crate) struct Knobs {
    pub(crate) timeout: Option<Duration>,
    pub(crate) max_cost: Option<NanoUsd>,
    pub(crate) min_quality: Option<f64>,
    /// Hash of the session's name.
    pub(crate) session: Option<u64>,
    pub(crate) tags: Vec<(String, String)>,
}

impl Knobs {
    /// Reads them.
    pub(crate) fn read(headers: &HeaderMap) -> Result<Self, LocalError> {
        let text = |name: &'static HeaderName| -> Result<Option<&str>, LocalError> {
            let Some(value) = headers.get(name) else { return Ok(None) };
            let text = value.to_str().map_err(|_| LocalError::knob(name.as_str(), "not plain text"))?;
            Ok(Some(text.trim()))
        };
        let mut knobs = Self::default();
        if let Some(millis) = text(&TIMEOUT)? {
            let wrong = || LocalError::knob(TIMEOUT.as_str(), "must be whole milliseconds, 1 to 86400000");
            let timeout = Duration::from_millis(millis.parse().map_err(|_| wrong())?);
            if timeout.is_zero() || timeout > TIMEOUT_MAX {
                return Err(wrong());
            }
            knobs.timeout = Some(timeout);
        }
        if let Some(text_usd) = text(&MAX_COST)? {
            let wrong =
                || LocalError::knob(MAX_COST.as_str(), "must be US dollars such as 0.02, at most 9 places");
            knobs.max_cost = Some(convert::usd(text_usd).ok_or_else(wrong)?);
        }
        if let Some(quality) = text(&MIN_QUALITY)? {
            let quality: Option<f64> = quality.parse().ok().filter(|quality| (0.0..=1.0).contains(quality));
            let wrong = || LocalError::knob(MIN_QUALITY.as_str(), "must be a number from 0 to 1");
            knobs.min_quality = Some(quality.ok_or_else(wrong)?);
        }
        if let Some(session) = text(&SESSION)? {
            let session = convert::session(session);
            knobs.session = session.map_err(|problem| LocalError::knob(SESSION.as_str(), &problem))?;
        }
        if let Some(tags) = text(&TAGS)? {
            knobs.tags = parse_tags(tags).map_err(|problem| LocalError::knob(TAGS.as_str(), &problem))?;
        }
        Ok(knobs)
    }

    /// Puts what bears on the decision into the profile.
    pub(crate) fn narrow(&self, profile: &mut Profile) {
        profile.min_quality = self.min_quality;
        profile.max_cost = self.max_cost;
        profile.session = self.session;
    }
}

/// An id that the caller chose, if it is a sane one.
pub(crate) fn request_id(headers: &HeaderMap) -> Option<HeaderValue> {
    let id = headers.get(&REQUEST_ID)?;
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
    headers.get(&API_KEY).map(|value| value.as_bytes().trim_ascii())
}

/// `team=a,feature=search`.
fn parse_tags(text: &str) -> Result<Vec<(String, String)>, String> {
    let pairs = text.split(',').map(str::trim).filter(|pair| !pair.is_empty());
    let tags: Option<Vec<(String, String)>> = pairs
        .map(|pair| pair.split_once('=').map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned())))
        .collect();
    let tags = tags.ok_or("must be key=value pairs with commas between them")?;
    convert::check_tags(tags.iter().map(|(key, value)| (key, value))).map_err(|(_, problem)| problem)?;
    Ok(tags)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_bounded() {
        assert_eq!(parse_tags("team=a, feature=search").unwrap().len(), 2);
        assert!(parse_tags("team").is_err());
        assert!(parse_tags(&"k=v,".repeat(17)).is_err());
    }
}
