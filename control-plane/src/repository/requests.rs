//! Requests that were carried out and may come again under the same id. Pure.

use std::collections::{HashMap, VecDeque};

use crate::store::journal::RequestDone;

/// For so long a repeated request is known. Callers that retry later than a day are
/// not retrying.
const KEPT_MS: u64 = 24 * 60 * 60 * 1_000;

/// So many are known. About 2 MB; a deployment pipeline makes some hundred a day.
const KEPT_MAX: usize = 10_000;

/// A request that was carried out before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// What it called.
    pub method: String,
    /// What it asked for: a different hash under the same id is a mistake.
    pub request_sha256: [u8; 32],
    /// The revision after it.
    pub revision: u64,
    /// It led to no new revision.
    pub unchanged: bool,
}

impl Remembered {
    pub(crate) fn of(done: &RequestDone) -> Self {
        Self {
            method: done.method.clone(),
            request_sha256: done.request_sha256.as_slice().try_into().unwrap_or_default(),
            revision: done.revision,
            unchanged: done.unchanged,
        }
    }
}

/// The newest requests.
#[derive(Clone, Debug, Default)]
pub(crate) struct Requests {
    by_id: HashMap<String, RequestDone>,
    /// Oldest first.
    order: VecDeque<String>,
}

impl Requests {
    pub(crate) fn get(&self, request_id: &str, now_unix_ms: u64) -> Option<Remembered> {
        let done = self.by_id.get(request_id)?;
        if done.unix_ms.saturating_add(KEPT_MS) < now_unix_ms {
            return None;
        }
        Some(Remembered::of(done))
    }

    /// Adds one, and forgets those that are too old or too many.
    pub(crate) fn insert(&mut self, done: RequestDone) {
        let now_unix_ms = done.unix_ms;
        let id = done.request_id.clone();
        if self.by_id.insert(id.clone(), done).is_some() {
            self.order.retain(|known| *known != id);
        }
        self.order.push_back(id);
        while self.order.len() > KEPT_MAX || self.oldest_is_too_old(now_unix_ms) {
            let Some(oldest) = self.order.pop_front() else { break };
            self.by_id.remove(&oldest);
        }
    }

    /// Oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &RequestDone> {
        self.order.iter().filter_map(|id| self.by_id.get(id))
    }

    fn oldest_is_too_old(&self, now_unix_ms: u64) -> bool {
        let oldest = self.iter().next();
        oldest.is_some_and(|done| done.unix_ms.saturating_add(KEPT_MS) < now_unix_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(id: usize, unix_ms: u64) -> RequestDone {
        RequestDone {
            request_id: id.to_string(),
            method: "ApplyConfig".into(),
            request_sha256: vec![7; 32],
            revision: id as u64,
            unix_ms,
            unchanged: false,
        }
    }

    #[test]
    fn a_request_is_known_for_a_day() {
        let mut requests = Requests::default();
        requests.insert(done(1, 1_000));
        assert_eq!(requests.get("1", 1_000 + KEPT_MS).unwrap().request_sha256, [7; 32]);
        assert_eq!(requests.get("1", 1_001 + KEPT_MS), None);
        requests.insert(done(2, 1_001 + KEPT_MS));
        assert_eq!(requests.iter().count(), 1);
    }

    #[test]
    fn the_newest_ten_thousand_are_known() {
        let mut requests = Requests::default();
        for id in 0..=KEPT_MAX {
            requests.insert(done(id, 1_000));
        }
        assert_eq!(requests.get("0", 1_000), None);
        assert_eq!(requests.get("1", 1_000).unwrap().revision, 1);
        assert_eq!(requests.iter().count(), KEPT_MAX);
    }
}
