//! The words of the breaker: what it is told, what it says, and where it stands.

use crate::{tenant::Tenant, time::Timestamp};

/// What a result means to the breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sample {
    /// A stream has its first content: alive, though it may yet break off.
    Begun,
    /// That stream ended well.
    Ended,
    /// That stream broke off: what [`Self::Begun`] counted as well was not, and so
    /// many broken ones in a row are failures in a row.
    BrokeOff,
    /// The target is alive.
    Success,
    /// Counts in the run and in the ratio.
    Failure,
    /// Counts in the ratio only.
    RatioFailure,
    /// Fails a probe, and means nothing otherwise.
    RateLimited,
    /// Means nothing.
    Neutral,
}

/// Why it opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trip {
    /// So many failures in a row.
    Consecutive,
    /// So large a share of failures.
    Ratio,
    /// A probe failed.
    Probe,
    /// Failures on the way back.
    Ramp,
    /// So many health checks failed in a row.
    Checks,
}

impl Trip {
    /// For people.
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Consecutive => "failures in a row",
            Self::Ratio => "share of failures in the window",
            Self::Probe => "the probe failed",
            Self::Ramp => "failures while traffic returned",
            Self::Checks => "health checks failed in a row",
        }
    }
}

/// What a breaker gives an attempt that starts. Its result must bring it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub(super) epoch: u64,
    pub(super) probe: bool,
    pub(super) tenant: Tenant,
}

impl Entry {
    /// That of an attempt which no breaker knows.
    pub(crate) const UNKNOWN: Self = Self { epoch: 0, probe: false, tenant: Tenant::NONE };

    /// The attempt is made for that tenant.
    #[must_use]
    pub const fn of_tenant(self, tenant: Tenant) -> Self {
        Self { tenant, ..self }
    }

    /// Whether it is a probe.
    pub const fn is_probe(self) -> bool {
        self.probe
    }
}

/// The state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Normal.
    Closed,
    /// No traffic until then.
    Open {
        /// When a probe is allowed.
        until: Timestamp,
        /// Why.
        trip: Trip,
    },
    /// One probe at a time.
    HalfOpen {
        /// The running probe's end of lease.
        probe: Option<Timestamp>,
        /// Probes that succeeded.
        successes: u32,
    },
    /// A growing share of its weight.
    Ramping {
        /// Index into the steps.
        step: usize,
        /// When the step began.
        since: Timestamp,
        /// Results in this step.
        results: u32,
        /// Failures among them.
        failures: u32,
    },
}

/// Whether an attempt may start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// With this share of its weight, in percent.
    Share(u8),
    /// As the probe.
    Probe,
    /// Not before then.
    Rejected {
        /// When to ask again.
        until: Timestamp,
    },
}
