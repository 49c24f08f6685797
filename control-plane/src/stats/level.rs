//! The three lengths of steps that counts are kept in.

/// A length of steps. Steps begin at multiples of it since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Level {
    /// 10 s, kept 6 h: what happens now.
    TenSeconds,
    /// 1 min, kept 7 days: the last incident.
    Minute,
    /// 1 h, kept 400 days: a year and the month before it, to compare with.
    Hour,
}

impl Level {
    /// The finest first.
    pub(crate) const ALL: [Self; 3] = [Self::TenSeconds, Self::Minute, Self::Hour];

    /// Length of a step, in seconds.
    pub(crate) const fn step_secs(self) -> u64 {
        match self {
            Self::TenSeconds => 10,
            Self::Minute => 60,
            Self::Hour => 3_600,
        }
    }

    /// How long steps are kept after they ended, in seconds.
    pub(crate) const fn kept_secs(self) -> u64 {
        match self {
            Self::TenSeconds => 6 * 3_600,
            Self::Minute => 7 * 86_400,
            Self::Hour => 400 * 86_400,
        }
    }

    /// The number of the step that holds `secs` since 1970.
    pub(crate) const fn step_at(self, secs: u64) -> u32 {
        let step = secs / self.step_secs();
        if step > u32::MAX as u64 { u32::MAX } else { step as u32 }
    }

    /// When the step begins, in seconds since 1970.
    pub(crate) const fn start_of(self, step: u32) -> u64 {
        step as u64 * self.step_secs()
    }

    /// In arrays, and in the store.
    pub(crate) const fn index(self) -> usize {
        self as usize
    }
}
