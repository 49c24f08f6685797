//! Scheduled outages.

use serde::{Deserialize, Serialize};
use trunkline_routing::time::Timestamp;

use crate::model::{InvalidModel, in_range};

/// A stretch of time in which the provider misbehaves. Times count from the zero of
/// the timestamps given to [`ProviderModel::script`](crate::ProviderModel::script).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outage {
    /// When it begins, in seconds.
    pub start_s: f64,
    /// How long it lasts, in seconds.
    pub duration_s: f64,
    /// Seconds from one beginning to the next. Default: it happens once.
    #[serde(default)]
    pub every_s: Option<f64>,
    /// What callers see.
    pub kind: OutageKind,
}

/// What callers see during an outage.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutageKind {
    /// Every call gets 503 at once.
    #[serde(rename = "errors_503")]
    Errors503,
    /// Calls are accepted and never answered.
    BlackHole,
    /// Connections are reset after the request.
    Reset,
    /// Everything takes this many times as long.
    Slow(f64),
}

impl Outage {
    /// Whether it is going on at `now`.
    pub fn is_active(&self, now: Timestamp) -> bool {
        within(now, self.start_s, self.duration_s, self.every_s)
    }

    pub(crate) fn validate(&self) -> Result<(), InvalidModel> {
        in_range("outages.start_s", self.start_s, 0.0, 1e9)?;
        in_range("outages.duration_s", self.duration_s, 0.0, 1e9)?;
        if let Some(every) = self.every_s {
            in_range("outages.every_s", every, 0.001, 1e9)?;
        }
        if let OutageKind::Slow(factor) = self.kind {
            in_range("outages.kind.slow", factor, 1.0, 1000.0)?;
        }
        Ok(())
    }
}

/// Whether `now` is in a stretch of time that may come again every so many seconds.
pub(crate) fn within(now: Timestamp, start_s: f64, duration_s: f64, every_s: Option<f64>) -> bool {
    let since_start = now.since(Timestamp::ZERO).as_secs_f64() - start_s;
    let into = match every_s {
        Some(every) if every > 0.0 && since_start >= 0.0 => since_start % every,
        _ => since_start,
    };
    (0.0..duration_s).contains(&into)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recurring_outage_comes_back() {
        let outage =
            Outage { start_s: 10.0, duration_s: 5.0, every_s: Some(60.0), kind: OutageKind::BlackHole };
        let active = |s: u64| outage.is_active(Timestamp::from_nanos(s * 1_000_000_000));
        assert_eq!(
            [9, 10, 14, 15, 69, 70, 74, 75].map(active),
            [false, true, true, false, false, true, true, false]
        );
    }
}
