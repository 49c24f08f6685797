//! What one agent holds, and what to send it next. Pure: the session carries it out.

use std::time::Duration;

use tokio::time::Instant;
use trunkline_proto::{agent::v1::Ack, types::v1::Version};

/// A refused version is not sent again for so long: the agent's reason rarely passes
/// by itself, and a newer version goes out at once.
const NACK_BACKOFF: Duration = Duration::from_secs(5);

/// An update that was overtaken by a newer state is waited for so long; then the newer
/// one goes out as a snapshot, which needs no base.
const ACK_PATIENCE: Duration = Duration::from_secs(2);

/// How far an agent is.
#[derive(Debug, Default)]
pub(super) struct Progress {
    held: Version,
    in_flight: Option<InFlight>,
    refused: Option<Refused>,
    nonces: u64,
}

#[derive(Debug)]
struct InFlight {
    nonce: String,
    version: Version,
    since: Instant,
}

#[derive(Debug)]
struct Refused {
    version: Version,
    retry: Instant,
}

/// What to do now.
#[derive(Debug, PartialEq)]
pub(super) enum Next {
    /// Until something changes.
    Nothing,
    /// Ask again then.
    Wait(Instant),
    /// Send the newest state: a delta on that base if there is one and it is still
    /// known, else a snapshot.
    Send { base: Option<Version> },
}

/// What an Ack said.
#[derive(Debug, PartialEq)]
pub(super) enum Answer {
    /// It is not about the update that is under way.
    Stale,
    Applied,
    Refused(String),
}

impl Progress {
    pub(super) fn new(held: Version) -> Self {
        Self { held, ..Self::default() }
    }

    pub(super) fn held(&self) -> &Version {
        &self.held
    }

    pub(super) fn next(&self, newest: &Version, now: Instant) -> Next {
        if let Some(in_flight) = &self.in_flight {
            let patience = in_flight.since + ACK_PATIENCE;
            return match in_flight.version == *newest {
                true => Next::Nothing,
                false if now < patience => Next::Wait(patience),
                false => Next::Send { base: None },
            };
        }
        let same_epoch = self.held.epoch == newest.epoch;
        // A newer one than ours is never taken back: a store that lost commits must not
        // take them from the agents as well.
        if same_epoch && self.held.revision >= newest.revision {
            return Next::Nothing;
        }
        match &self.refused {
            Some(refused) if refused.version == *newest && now < refused.retry => Next::Wait(refused.retry),
            // What the agent holds may not be what a delta expects.
            Some(_) => Next::Send { base: None },
            None => Next::Send { base: same_epoch.then(|| self.held.clone()) },
        }
    }

    /// Notes that `version` is on its way; the answer is its nonce.
    pub(super) fn sent(&mut self, version: Version, now: Instant) -> String {
        self.nonces += 1;
        let nonce = self.nonces.to_string();
        self.in_flight = Some(InFlight { nonce: nonce.clone(), version, since: now });
        nonce
    }

    /// Notes that all parts of what is under way are with the transport: only from now on
    /// can an answer be late.
    pub(super) fn handed_over(&mut self, now: Instant) {
        if let Some(in_flight) = &mut self.in_flight {
            in_flight.since = now;
        }
    }

    pub(super) fn acknowledged(&mut self, ack: &Ack, now: Instant) -> Answer {
        let Some(in_flight) = self.in_flight.take_if(|in_flight| in_flight.nonce == ack.nonce) else {
            return Answer::Stale;
        };
        match &ack.error_detail {
            None => {
                self.held = in_flight.version;
                self.refused = None;
                Answer::Applied
            }
            Some(error) => {
                if let Some(applied) = &ack.applied {
                    self.held = applied.clone();
                }
                self.refused = Some(Refused { version: in_flight.version, retry: now + NACK_BACKOFF });
                Answer::Refused(error.message.clone())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tonic_types::pb::Status;

    use super::*;

    fn version(revision: u64) -> Version {
        Version { epoch: "e".into(), revision }
    }

    fn ack(nonce: &str, error: Option<&str>) -> Ack {
        let error_detail = error.map(|message| Status { message: message.into(), ..Status::default() });
        Ack { nonce: nonce.into(), applied: None, error_detail }
    }

    #[test]
    fn an_agent_that_is_behind_gets_a_delta_and_one_without_state_a_snapshot() {
        let now = Instant::now();
        assert_eq!(Progress::new(version(3)).next(&version(5), now), Next::Send { base: Some(version(3)) });
        assert_eq!(Progress::new(version(5)).next(&version(5), now), Next::Nothing);
        assert_eq!(Progress::default().next(&version(5), now), Next::Send { base: None });
    }

    #[test]
    fn an_agent_ahead_of_a_store_that_lost_commits_keeps_what_it_has() {
        let (now, ahead) = (Instant::now(), Progress::new(version(9)));
        assert_eq!(ahead.next(&version(5), now), Next::Nothing);
        let other = Version { epoch: "restored".into(), revision: 1 };
        assert_eq!(ahead.next(&other, now), Next::Send { base: None });
    }

    #[test]
    fn an_answer_is_late_only_after_all_parts_were_handed_over() {
        let now = Instant::now();
        let mut progress = Progress::new(version(1));
        progress.sent(version(2), now);
        progress.handed_over(now + ACK_PATIENCE);
        let next = progress.next(&version(3), now + ACK_PATIENCE);
        assert_eq!(next, Next::Wait(now + 2 * ACK_PATIENCE));
    }

    #[test]
    fn a_refused_version_waits_but_a_newer_one_does_not() {
        let now = Instant::now();
        let mut progress = Progress::new(version(1));
        let nonce = progress.sent(version(2), now);
        assert_eq!(progress.acknowledged(&ack(&nonce, Some("no")), now), Answer::Refused("no".into()));
        assert_eq!(progress.next(&version(2), now), Next::Wait(now + NACK_BACKOFF));
        assert_eq!(progress.next(&version(2), now + NACK_BACKOFF), Next::Send { base: None });
        assert_eq!(progress.next(&version(3), now), Next::Send { base: None });
    }

    #[test]
    fn one_update_is_under_way_at_a_time_but_not_for_ever() {
        let now = Instant::now();
        let mut progress = Progress::new(version(1));
        let nonce = progress.sent(version(2), now);
        assert_eq!(progress.next(&version(2), now), Next::Nothing);
        assert_eq!(progress.next(&version(3), now), Next::Wait(now + ACK_PATIENCE));
        assert_eq!(progress.next(&version(3), now + ACK_PATIENCE), Next::Send { base: None });
        assert_eq!(progress.acknowledged(&ack(&nonce, None), now), Answer::Applied);
        assert_eq!(progress.next(&version(3), now), Next::Send { base: Some(version(2)) });
    }

    #[test]
    fn an_answer_to_another_update_changes_nothing() {
        let now = Instant::now();
        let mut progress = Progress::new(version(1));
        progress.sent(version(2), now);
        assert_eq!(progress.acknowledged(&ack("77", None), now), Answer::Stale);
        assert_eq!(progress.held(), &version(1));
    }
}
