//! More agents than can be remembered: over the real merger and a store in memory.

use std::collections::HashMap;
use std::sync::Arc;

use super::Key;
use super::merger::{self, Merged, Merger};
use super::report::Report;
use super::simulation::Fate;
use super::totals::Totals;
use crate::repository::{CommitError, Repository, RepositoryOptions};

const START: u64 = 1_800_000_000;

struct Fleet {
    repository: Arc<Repository>,
    merger: Merger,
}

impl Fleet {
    async fn new() -> Self {
        let repository = Repository::open(RepositoryOptions::default()).unwrap();
        let merger = load(&repository).await;
        Self { repository, merger }
    }

    async fn restart(&mut self) {
        self.merger = load(&self.repository).await;
    }

    async fn report(&mut self, agent_id: &str, seq: u64, now: u64) -> Result<Merged, CommitError> {
        let mut totals = Totals::default();
        totals.outcomes[1] = 1;
        let key = Key { deployment: "p/d".into(), model: agent_id.into() };
        let (job, answer) = merger::of_report(Report {
            agent_id: agent_id.into(),
            incarnation: "i".into(),
            seq,
            covered: std::time::Duration::ZERO,
            counts: HashMap::from([(key, totals)]),
            end_secs: None,
            lost_before: false,
            refused: Vec::new(),
            samples: Vec::new(),
            running: HashMap::new(),
        });
        self.merger.merge(now, vec![job]).await;
        answer.await.unwrap()
    }

    fn attempts(&self, agent_id: &str) -> u64 {
        self.merger.attempts(|key| key.model == agent_id)
    }
}

/// Room for three agents.
async fn load(repository: &Arc<Repository>) -> Merger {
    let (mut merger, ..) = Merger::load(Arc::clone(repository)).await.unwrap();
    merger.agents.max = 3;
    merger.names.any = true;
    merger
}

#[tokio::test]
async fn the_longest_silent_agent_makes_room_also_after_a_restart() {
    let mut fleet = Fleet::new().await;
    for (after, agent_id, seq) in [(0, "a", 1), (100, "b", 1), (200, "c", 1), (300, "a", 2)] {
        fleet.report(agent_id, seq, START + after).await.unwrap();
    }
    fleet.restart().await;
    fleet.report("d", 1, START + 400).await.unwrap();
    fleet.restart().await;
    // They come again, and are known: all but b, which was silent longest.
    for (agent_id, seq) in [("a", 2), ("c", 1), ("d", 1)] {
        assert_eq!(fleet.report(agent_id, seq, START + 500).await.unwrap().acked, seq);
        assert_eq!(fleet.attempts(agent_id), seq, "{agent_id}");
    }
    fleet.report("b", 1, START + 600).await.unwrap();
    assert_eq!(fleet.attempts("b"), 2, "there is room for three");
}

#[tokio::test]
async fn nobody_is_forgotten_for_a_write_that_failed() {
    for fate in [Fate::Refused, Fate::WrittenUnknown] {
        let mut fleet = Fleet::new().await;
        for (after, agent_id) in [(0, "a"), (100, "b"), (200, "c")] {
            fleet.report(agent_id, 1, START + after).await.unwrap();
        }
        fleet.merger.fate = Some(fate);
        fleet.report("d", 1, START + 300).await.unwrap_err();
        // The agent does not come back; the others send again, and one goes on.
        for agent_id in ["a", "b", "c"] {
            fleet.report(agent_id, 1, START + 400).await.unwrap();
            assert_eq!(fleet.attempts(agent_id), 1, "{agent_id} after {fate:?}");
        }
        fleet.report("c", 2, START + 500).await.unwrap();
        fleet.restart().await;
        for agent_id in ["a", "b", "c"] {
            fleet.report(agent_id, 1, START + 600).await.unwrap();
        }
        assert_eq!(["a", "b", "c", "d"].map(|agent_id| fleet.attempts(agent_id)), [1, 1, 2, 0], "{fate:?}");
    }
}

#[tokio::test]
async fn somebody_who_cannot_send_the_beginning_is_heard_at_the_second_time() {
    let mut fleet = Fleet::new().await;
    for (after, agent_id) in [(0, "a"), (100, "b"), (200, "c")] {
        fleet.report(agent_id, 1, START + after).await.unwrap();
    }
    assert!(fleet.report("d", 7, START + 300).await.unwrap().resend);
    // It has merged nothing yet: nobody made room.
    fleet.report("a", 1, START + 300).await.unwrap();
    assert_eq!(fleet.attempts("a"), 1);
    assert_eq!(fleet.report("d", 7, START + 400).await.unwrap().acked, 7);
    assert_eq!(fleet.attempts("d"), 1);
}
