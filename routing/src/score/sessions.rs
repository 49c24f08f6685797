//! Which deployment holds the prompt of which session in its cache.
//!
//! A table of fixed size with four places per row; the row is chosen by the session's
//! hash, and of a full row the place that was used longest ago is given away.

use alloc::{boxed::Box, vec};
use core::time::Duration;

use crate::{math, registry::SlotId, time::Timestamp};

/// Rows of four places of 40 bytes: 8,192 sessions in 330 KiB, made when the first comes.
const ROWS: usize = 2_048;
const WAYS: usize = 4;
/// Providers forget a prompt some minutes after its last use; what is left of the chance
/// that it is still there falls with this time constant.
const TAU_S: f64 = 300.0;
/// After so long it counts as gone.
const GONE: Duration = Duration::from_secs(1_200);

#[derive(Clone, Copy, Debug)]
struct Place {
    session: u64,
    slot: SlotId,
    tokens: u32,
    at: Timestamp,
}

/// The table.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sessions {
    rows: Box<[[Option<Place>; WAYS]]>,
}

impl Sessions {
    /// A request of the session was answered by `slot`, which may now hold so many
    /// tokens of its prompt.
    pub(crate) fn note(&mut self, session: u64, slot: SlotId, tokens: u64, now: Timestamp) {
        if self.rows.is_empty() {
            self.rows = vec![[None; WAYS]; ROWS].into_boxed_slice();
        }
        let tokens = u32::try_from(tokens).unwrap_or(u32::MAX);
        let row = &mut self.rows[row(session)];
        let own = row.iter().position(|place| place.is_some_and(|place| place.session == session));
        let oldest = (0..WAYS).min_by_key(|at| row[*at].map_or(Timestamp::ZERO, |place| place.at));
        if let Some(at) = own.or(oldest) {
            row[at] = Some(Place { session, slot, tokens, at: now });
        }
    }

    /// Prompt tokens of the session that `slot` is expected to hold.
    pub(crate) fn cached(&self, session: u64, slot: SlotId, now: Timestamp) -> f64 {
        let Some(row) = self.rows.get(row(session)) else { return 0.0 };
        let place = row.iter().flatten().find(|place| place.session == session && place.slot == slot);
        place
            .filter(|place| now.since(place.at) < GONE)
            .map_or(0.0, |place| f64::from(place.tokens) * math::decay(now.since(place.at), TAU_S))
    }
}

const fn row(session: u64) -> usize {
    // The hash may be of any quality: Fibonacci hashing spreads it.
    (session.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 53) as usize % ROWS
}
