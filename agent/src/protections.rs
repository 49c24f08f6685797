//! Breakers between this agent and its control plane: tells which protections are active
//! here, as a state, newest only; obeys what comes back.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;
use trunkline_proto::{
    convert::breaker_state,
    types::v1::{LocalBreaker, Protection, Quarantine, RateGate, protection::Kind},
};
use trunkline_routing::{
    breaker::{State, ramp_percent},
    hold::QuarantineReason,
    registry::{BreakerView, FleetState, FleetVerdict, Forced, ProbeLease},
    time::Timestamp,
};

use crate::{control::Verdicts, shared::Shared};

/// Time alone changes states too (an open breaker becomes half-open); they are looked
/// at this often.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Publishes the active protections whenever they change.
pub(crate) async fn publish(
    shared: Arc<Shared>,
    out: watch::Sender<Arc<Vec<Protection>>>,
    shutdown: CancellationToken,
) {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    loop {
        tokio::select! {
            biased;
            // Nobody listens after the stop.
            () = shutdown.cancelled() => return,
            () = shared.protections_changed.notified() => {}
            _ = ticks.tick() => {}
        }
        let next = active(&shared);
        out.send_if_modified(|current| {
            let changed = !same_states(current, &next);
            if changed {
                *current = Arc::new(next);
            }
            changed
        });
    }
}

/// Whether two lists say the same but for the time that is left.
fn same_states(a: &[Protection], b: &[Protection]) -> bool {
    let plain = |protection: &Protection| {
        let mut protection = protection.clone();
        match &mut protection.kind {
            Some(Kind::Breaker(breaker)) => breaker.remaining = None,
            Some(Kind::RateGate(gate)) => gate.remaining = None,
            Some(Kind::Quarantine(quarantine)) => quarantine.remaining = None,
            None => {}
        }
        protection
    };
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| plain(a) == plain(b))
}

fn active(shared: &Shared) -> Vec<Protection> {
    let now = shared.clock.now();
    let (deployments, accounts) = shared.registry.lock().protections(now);
    let mut all = Vec::new();
    for one in deployments {
        let subject = one.deployment.to_string();
        let mut push = |kind| all.push(Protection { subject: subject.clone(), kind: Some(kind) });
        if one.breaker.state != State::Closed {
            push(Kind::Breaker(breaker(&one.breaker, now)));
        }
        if let Some(until) = one.gate {
            push(Kind::RateGate(RateGate { remaining: remaining(until, now) }));
        }
        if let Some((reason, until)) = one.quarantine {
            push(Kind::Quarantine(quarantine(reason, until, now)));
        }
    }
    all.extend(accounts.into_iter().map(|account| {
        let (reason, until) = account.quarantine;
        let kind = Kind::Quarantine(quarantine(reason, until, now));
        Protection { subject: account.provider.to_string(), kind: Some(kind) }
    }));
    all
}

fn quarantine(reason: QuarantineReason, until: Timestamp, now: Timestamp) -> Quarantine {
    // A missing credential has no end of its own: it ends when the credential comes.
    let ends = reason != QuarantineReason::MissingCredential;
    let remaining = if ends { remaining(until, now) } else { None };
    Quarantine { reason: reason.describe().to_owned(), remaining }
}

fn remaining(until: Timestamp, now: Timestamp) -> Option<prost_types::Duration> {
    prost_types::Duration::try_from(until.since(now)).ok()
}

fn breaker(view: &BreakerView, now: Timestamp) -> LocalBreaker {
    let mut shown = LocalBreaker {
        state: breaker_state(&BreakerView { forced: None, ..*view }).into(),
        openings: view.openings,
        base_generation: view.base_generation,
        ..LocalBreaker::default()
    };
    match view.state {
        State::Open { until, trip } => {
            trip.describe().clone_into(&mut shown.reason);
            shown.remaining = remaining(until, now);
        }
        State::Ramping { step, .. } => shown.admit_percent = ramp_percent(step).into(),
        State::Closed | State::HalfOpen { .. } => {}
    }
    shown
}

/// What comes from the control plane on breakers.
#[derive(Debug)]
pub(crate) struct Words {
    /// As it was published last.
    pub(crate) verdicts: watch::Receiver<Arc<Verdicts>>,
    /// The control plane counts as heard until then.
    pub(crate) heard_until: watch::Receiver<Instant>,
}

/// Hands the control plane's word on breakers to the registry whenever it changes.
pub(crate) async fn obey(shared: Arc<Shared>, mut words: Words, shutdown: CancellationToken) {
    loop {
        let newest = Arc::clone(&words.verdicts.borrow_and_update());
        take(&shared, &newest);
        let told = loop {
            tokio::select! {
                biased;
                // Nothing to obey after the stop.
                () = shutdown.cancelled() => return,
                changed = words.verdicts.changed() => break changed,
                // A new table may hold deployments that a verdict is about.
                () = shared.snapshot_changed.notified() => break Ok(()),
                heard = words.heard_until.changed() => {
                    if let Err(gone) = heard {
                        break Err(gone);
                    }
                    let until = shared.clock.at(words.heard_until.borrow_and_update().into_std());
                    shared.registry.lock().heard_from_fleet(until, shared.clock.now());
                }
            }
        };
        if told.is_err() {
            return;
        }
    }
}

/// The registry takes all that one publication says.
pub(crate) fn take(shared: &Shared, verdicts: &Verdicts) {
    let now = shared.clock.now();
    let local = |at: Instant| shared.clock.at(at.into_std());
    let forced = verdicts.iter().map(|(deployment, verdict)| {
        let forced = if verdict.forced_open { Forced::Open } else { Forced::Closed };
        (deployment, forced, verdict.expires.map(local))
    });
    // What an operator forces has a generation as well: a breaker that opens under it tells
    // so.
    let ruled = verdicts.iter().map(|(subject, verdict)| FleetVerdict {
        subject,
        state: FleetState::Closed,
        generation: verdict.generation,
        until: None,
        openings: 0,
        admit_percent: 100,
    });
    let fleet = verdicts.fleet().map(|(subject, word)| FleetVerdict {
        subject,
        state: word.state,
        generation: word.generation,
        until: word.until.map(local),
        openings: word.openings,
        admit_percent: word.admit_percent,
    });
    let leases = verdicts.leases().iter().map(|lease| ProbeLease {
        deployment: &lease.deployment,
        lease_id: lease.id,
        generation: lease.generation,
        expires: local(lease.expires),
        is_check: lease.is_check,
    });
    let (forced, leases): (Vec<_>, Vec<_>) = (forced.collect(), leases.collect());
    let fleet: Vec<_> = ruled.chain(fleet).collect();
    {
        let mut registry = shared.registry.lock();
        registry.set_forced(&forced, now);
        registry.set_fleet(&verdicts.epoch, &fleet, now);
        registry.set_leases(&leases, now);
    }
    shared.protections_changed.notify_one();
    shared.leases_changed.notify_one();
}
