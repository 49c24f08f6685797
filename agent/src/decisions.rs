//! The newest decisions, for ExplainDecision. Never holds prompt or answer text.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use trunkline_routing::{
    classify::OutcomeClass,
    decide::Decision,
    eligibility::Profile,
    money::{NanoUsd, Tokens},
    request::Start,
    table::DeploymentIndex,
    time::Timestamp,
};

use crate::{
    control::UsageSource,
    snapshot::{Goal, Snapshot},
};

/// Decisions kept. At about a kilobyte each this is a few megabytes.
const KEPT: usize = 4_096;
/// Tables whose decisions are kept: each holds on to its whole table.
const TABLES_KEPT: u64 = 4;

/// One call to one target.
#[derive(Clone, Debug)]
pub(crate) struct AttemptRecord {
    /// Where it went.
    pub(crate) deployment: DeploymentIndex,
    /// What came of it. None: it runs.
    pub(crate) class: Option<OutcomeClass>,
    /// HTTP status. 0: there was none.
    pub(crate) status: u16,
    /// When it started.
    pub(crate) started: Timestamp,
    /// Until its first content, or its whole answer.
    pub(crate) ttft: Option<Duration>,
    /// Until its end.
    pub(crate) duration: Option<Duration>,
    /// What it used.
    pub(crate) tokens: Option<(Tokens, UsageSource)>,
    /// What it cost. None: no price is known, or nothing was used.
    pub(crate) cost: Option<NanoUsd>,
    /// The drill that took hold of it.
    pub(crate) fault: Option<Arc<str>>,
    /// Why it started. None: the app made it.
    pub(crate) why: Option<Start>,
    /// Attempts of this agent that ran there as it started, itself included.
    pub(crate) in_flight: u32,
    /// Until its first content, as predicted.
    pub(crate) predicted_ttft: Option<Duration>,
}

/// One decision with what came of it.
#[derive(Debug)]
pub(crate) struct DecisionRecord {
    /// Its name.
    pub(crate) id: String,
    /// The table it was made under.
    pub(crate) snapshot: Arc<Snapshot>,
    /// What it was made on.
    pub(crate) goal: Goal,
    /// When.
    pub(crate) at: Timestamp,
    /// The app key's name.
    pub(crate) tenant: Option<Arc<str>>,
    /// As the caller set them.
    pub(crate) tags: Vec<(String, String)>,
    /// What the decision knew of the request.
    pub(crate) profile: Profile,
    /// Candidates and exclusions.
    pub(crate) decision: Decision,
    /// Why a budget refused it, for people. None: none did.
    pub(crate) over_budget: Option<String>,
    /// Attempts, by order of starts.
    pub(crate) attempts: Vec<AttemptRecord>,
    /// Whose answer the caller got.
    pub(crate) chosen: Option<DeploymentIndex>,
    /// Digests of the app's reports on it. None: the agent makes its attempts itself.
    pub(crate) reports: Option<Vec<[u8; 32]>>,
}

/// A bounded store of them: the oldest goes first.
#[derive(Debug, Default)]
pub(crate) struct Decisions {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    order: VecDeque<Arc<Mutex<DecisionRecord>>>,
    by_id: HashMap<String, Arc<Mutex<DecisionRecord>>>,
}

impl Decisions {
    /// Keeps a decision.
    pub(crate) fn keep(&self, record: DecisionRecord) -> Arc<Mutex<DecisionRecord>> {
        let id = record.id.clone();
        let record = Arc::new(Mutex::new(record));
        let mut kept = self.kept.lock();
        if kept.order.len() >= KEPT
            && let Some(oldest) = kept.order.pop_front()
        {
            let id = oldest.lock().id.clone();
            kept.by_id.remove(&id);
        }
        kept.order.push_back(Arc::clone(&record));
        kept.by_id.insert(id, Arc::clone(&record));
        record
    }

    /// A table of that number is in use: those long out of use can go.
    pub(crate) fn retire(&self, newest: u64) {
        let mut kept = self.kept.lock();
        let Kept { order, by_id } = &mut *kept;
        order.retain(|record| {
            let record = record.lock();
            let keep = record.snapshot.number + TABLES_KEPT > newest;
            if !keep {
                by_id.remove(&record.id);
            }
            keep
        });
    }

    /// The decision of that name.
    pub(crate) fn get(&self, id: &str) -> Option<Arc<Mutex<DecisionRecord>>> {
        self.kept.lock().by_id.get(id).cloned()
    }
}
