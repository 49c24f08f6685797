//! Drills: faults that operators have this agent make, for a limited time. The engine
//! asks for each attempt whether one takes hold of it; what the drill does there looks to
//! all else as if the provider had done it. See docs/guides/drills.md.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use rand::{Rng, RngExt as _};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use trunkline_proto::types::v1::{Fault, fault};

use crate::{
    control::{self, Orders},
    shared::Shared,
};

/// Longest wait before an attempt. The control plane refuses more.
const LATENCY_MAX: Duration = Duration::from_secs(600);

/// What a drill does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Waits before the request is sent.
    Latency(Duration),
    /// Answers in the provider's place.
    ErrorStatus(u16),
    /// Never answers.
    Stall,
    /// Breaks the body off after so many bytes.
    Cut(u64),
    /// No stream to the control plane; attempts are left alone.
    ControlPlaneLoss,
}

/// A drill that is active.
#[derive(Clone, Debug)]
pub(crate) struct Drill {
    /// As operators know it.
    pub(crate) name: Arc<str>,
    /// What it does.
    pub(crate) effect: Effect,
    /// When it is over, whoever still wants it.
    pub(crate) ends: Instant,
    fault: Fault,
    over: CancellationToken,
}

/// A drill that took hold of an attempt.
#[derive(Clone, Debug)]
pub(crate) struct Hold {
    /// The drill's name.
    pub(crate) name: Arc<str>,
    /// What it does.
    pub(crate) effect: Effect,
    /// Cancelled when the drill is over: the attempt goes on as if there were none.
    pub(crate) over: CancellationToken,
}

/// All active drills, by name: as many as orders may hold.
#[derive(Debug)]
pub(crate) struct Drills {
    /// Whether one may take hold of attempts: all that they look at when there is none.
    armed: AtomicBool,
    active: ArcSwap<Vec<Drill>>,
}

impl Default for Drills {
    fn default() -> Self {
        Self { armed: AtomicBool::new(false), active: ArcSwap::from_pointee(Vec::new()) }
    }
}

impl Drills {
    /// Whether any may take hold of an attempt.
    pub(crate) fn is_armed(&self) -> bool {
        self.armed.load(Ordering::Relaxed)
    }

    /// The drill that takes hold of an attempt at `deployment` (full name), the first by
    /// name if there are several. `model`: the virtual model; None: a pin.
    pub(crate) fn hold(&self, deployment: &str, model: Option<&str>, rng: &mut impl Rng) -> Option<Hold> {
        let now = Instant::now();
        let active = self.active.load();
        let drill = active.iter().find(|drill| drill.takes(deployment, model, now, rng))?;
        Some(Hold { name: Arc::clone(&drill.name), effect: drill.effect, over: drill.over.clone() })
    }

    /// Those that last at `now`.
    pub(crate) fn active(&self, now: Instant) -> Vec<Drill> {
        self.active.load().iter().filter(|drill| now < drill.ends).cloned().collect()
    }

    /// Makes these the active ones, and lets go of what the others hold.
    fn set(&self, wanted: &[control::Drill], now: Instant) {
        let before = self.active.load_full();
        let mut next: Vec<Drill> = wanted.iter().filter_map(|wanted| Drill::new(wanted, now)).collect();
        next.sort_by(|a, b| a.name.cmp(&b.name));
        next.dedup_by(|a, b| a.name == b.name);
        for drill in &mut next {
            match before.iter().find(|known| known.fault == drill.fault && !known.over.is_cancelled()) {
                Some(known) => drill.over = known.over.clone(),
                None => drill.tell_begin(now),
            }
        }
        let armed = next.iter().any(|drill| drill.effect != Effect::ControlPlaneLoss);
        self.active.store(Arc::new(next));
        self.armed.store(armed, Ordering::Relaxed);
        let after = self.active.load();
        for gone in before.iter().filter(|known| !after.iter().any(|kept| kept.fault == known.fault)) {
            tracing::warn!(fault = %gone.name, effect = %gone.effect, "a drill is over");
            gone.over.cancel();
        }
    }

    /// When the next of them ends.
    fn next_end(&self) -> Option<Instant> {
        self.active.load().iter().map(|drill| drill.ends).min()
    }
}

impl Drill {
    /// None: it is over, or of a kind that only a newer agent knows.
    fn new(control::Drill { fault, ends }: &control::Drill, now: Instant) -> Option<Self> {
        if *ends <= now {
            return None;
        }
        let effect = Effect::of(fault)?;
        let over = CancellationToken::new();
        Some(Self { name: fault.name.as_str().into(), effect, ends: *ends, fault: fault.clone(), over })
    }

    fn takes(&self, deployment: &str, model: Option<&str>, now: Instant, rng: &mut impl Rng) -> bool {
        let provider = deployment.split_once('/').map_or(deployment, |(provider, _)| provider);
        let Fault { deployments, virtual_models, percent, .. } = &self.fault;
        self.effect != Effect::ControlPlaneLoss
            && now < self.ends
            && (deployments.is_empty() || deployments.iter().any(|one| one == deployment || one == provider))
            && (virtual_models.is_empty()
                || model.is_some_and(|model| virtual_models.iter().any(|one| one == model)))
            && match percent {
                0 | 100.. => true,
                percent => rng.random_range(0..100) < *percent,
            }
    }

    fn tell_begin(&self, now: Instant) {
        tracing::warn!(
            fault = %self.name, effect = %self.effect, reason = %self.fault.reason,
            deployments = ?self.fault.deployments, virtual_models = ?self.fault.virtual_models,
            lasts = ?self.ends.duration_since(now),
            "a drill begins: what it does to attempts is not the providers' doing"
        );
    }
}

impl Effect {
    /// None: none that this agent knows, or with values out of range.
    fn of(fault: &Fault) -> Option<Self> {
        match fault.effect.as_ref()? {
            fault::Effect::Latency(latency) => {
                Duration::try_from(*latency).ok().map(|latency| Self::Latency(latency.min(LATENCY_MAX)))
            }
            fault::Effect::ErrorStatus(status) => u16::try_from(*status)
                .ok()
                .filter(|status| (400..600).contains(status))
                .map(Self::ErrorStatus),
            fault::Effect::Stall(_) => Some(Self::Stall),
            fault::Effect::Cut(cut) => Some(Self::Cut(cut.after_bytes)),
            fault::Effect::ControlPlaneLoss(_) => Some(Self::ControlPlaneLoss),
        }
    }

    /// The field that sets it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Latency(_) => "latency",
            Self::ErrorStatus(_) => "error_status",
            Self::Stall => "stall",
            Self::Cut(_) => "cut",
            Self::ControlPlaneLoss => "control_plane_loss",
        }
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latency(latency) => write!(f, "latency {latency:?}"),
            Self::ErrorStatus(status) => write!(f, "error_status {status}"),
            Self::Cut(bytes) => write!(f, "cut after {bytes} bytes"),
            Self::Stall | Self::ControlPlaneLoss => f.write_str(self.name()),
        }
    }
}

/// Carries out the newest orders, and ends each drill in time, also when nobody is left
/// to give orders.
pub(crate) async fn obey(
    shared: Arc<Shared>,
    mut orders: watch::Receiver<Arc<Orders>>,
    shutdown: CancellationToken,
) {
    let mut connected = true;
    loop {
        {
            let newest = Arc::clone(&orders.borrow_and_update());
            shared.drills.set(&newest.faults, Instant::now());
            shared.duty.set(newest.out_of_service.as_deref());
        }
        let end = shared.drills.next_end();
        tokio::select! {
            biased;
            // Nothing to obey after the stop.
            () = shutdown.cancelled() => return,
            changed = orders.changed(), if connected => connected = changed.is_ok(),
            () = async { sleep_until(end.unwrap_or_else(Instant::now)).await }, if end.is_some() => {}
        }
    }
}

#[cfg(test)]
mod tests;
