//! The newest decisions of this process, for ExplainDecision and ReportOutcome.

use std::collections::{HashMap, VecDeque};

use parking_lot::Mutex;
use trunkline_proto::types::v1::Decision;

/// Decisions kept; a few megabytes.
const KEPT: usize = 4_096;

/// Bounded: the oldest goes first.
#[derive(Debug, Default)]
pub(super) struct Decisions(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    order: VecDeque<String>,
    by_id: HashMap<String, Decision>,
}

impl Decisions {
    pub(super) fn keep(&self, decision: Decision) {
        let mut kept = self.0.lock();
        if kept.order.len() >= KEPT
            && let Some(oldest) = kept.order.pop_front()
        {
            kept.by_id.remove(&oldest);
        }
        kept.order.push_back(decision.decision_id.clone());
        kept.by_id.insert(decision.decision_id.clone(), decision);
    }

    pub(super) fn get(&self, id: &str) -> Option<Decision> {
        self.0.lock().by_id.get(id).cloned()
    }

    /// Changes a decision that is still kept.
    pub(super) fn update(&self, id: &str, change: impl FnOnce(&mut Decision)) {
        if let Some(decision) = self.0.lock().by_id.get_mut(id) {
            change(decision);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newest_are_kept() {
        let decisions = Decisions::default();
        for number in 0..=KEPT {
            decisions.keep(Decision { decision_id: number.to_string(), ..Decision::default() });
        }
        assert!(decisions.get("0").is_none());
        assert!(decisions.get("1").is_some());
        assert!(decisions.get(&KEPT.to_string()).is_some());
    }
}
