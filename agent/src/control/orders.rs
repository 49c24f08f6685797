//! What operators want of this agent for now: drills, and being out of service. Orders
//! outlive the connection. A drill ends by itself, also when the control plane is gone.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use trunkline_proto::{
    agent::v1::Publication,
    types::v1::{ActiveFault, Fault, fault::Effect},
};

use super::duration_from_wire;

/// Drills at the same time. An operator makes a few; each costs a look per attempt.
const DRILLS_MAX: usize = 64;

/// What the newest publication ordered. What it did not name is not ordered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Orders {
    /// In the order of the publication, at most 64. Those that ended are taken out soon;
    /// [`Orders::active`] has none of them.
    pub faults: Vec<Drill>,
    /// The agent shall not be ready; the reason is for people. Stays until the control
    /// plane says otherwise.
    pub out_of_service: Option<String>,
}

/// A fault that this agent makes.
#[derive(Clone, Debug, PartialEq)]
pub struct Drill {
    /// What it does. Its effect is always set.
    pub fault: Fault,
    /// On the local clock, whatever the control plane's clock says.
    pub ends: Instant,
}

impl Orders {
    /// What a publication that arrived at `now` orders `agent_id` to do. Drills that this
    /// build does not know, and those for other agents, are none.
    pub(super) fn from_wire(publication: &Publication, agent_id: &str, now: Instant) -> Self {
        let drills = publication.faults.iter().filter_map(|active| drill(active, agent_id, now));
        Self {
            faults: drills.take(DRILLS_MAX).collect(),
            out_of_service: publication.out_of_service.as_ref().map(|order| order.reason.clone()),
        }
    }

    /// The drills that have not ended at `now`.
    pub fn active(&self, now: Instant) -> impl Iterator<Item = &Fault> {
        self.faults.iter().filter(move |drill| now < drill.ends).map(|drill| &drill.fault)
    }

    /// Until when there shall be no stream to the control plane. None: there may be.
    pub(super) fn control_plane_lost_until(&self, now: Instant) -> Option<Instant> {
        let lost = |drill: &&Drill| matches!(drill.fault.effect, Some(Effect::ControlPlaneLoss(_)));
        let ends = self.faults.iter().filter(lost).map(|drill| drill.ends);
        ends.filter(|ends| now < *ends).max()
    }
}

fn drill(active: &ActiveFault, agent_id: &str, now: Instant) -> Option<Drill> {
    let fault = active.fault.as_ref()?;
    let mine = fault.agents.is_empty() || fault.agents.iter().any(|one| one == agent_id);
    if !mine {
        return None;
    }
    if fault.effect.is_none() {
        tracing::warn!(name = fault.name, "drill that this build does not know; not made");
        return None;
    }
    // A drill without an end is none: it would outlive whoever asked for it.
    let remaining = active.remaining.and_then(duration_from_wire).filter(|left| *left > Duration::ZERO)?;
    Some(Drill { fault: fault.clone(), ends: now.checked_add(remaining)? })
}

/// Takes drills out as they end, so that who follows the orders sees it. Never returns.
pub(super) async fn expire(orders: &watch::Sender<Arc<Orders>>) {
    let mut newest = orders.subscribe();
    loop {
        let next = newest.borrow_and_update().faults.iter().map(|drill| drill.ends).min();
        tokio::select! {
            biased;
            // New orders may end sooner. The sender is borrowed here, so it is never gone.
            _ = newest.changed() => continue,
            () = async {
                match next {
                    Some(ends) => sleep_until(ends).await,
                    None => std::future::pending().await,
                }
            } => {}
        }
        let now = Instant::now();
        orders.send_if_modified(|held| {
            let over = held.faults.iter().any(|drill| drill.ends <= now);
            if over {
                Arc::make_mut(held).faults.retain(|drill| now < drill.ends);
            }
            over
        });
    }
}

/// Returns when a drill that takes the control plane away is active.
pub(super) async fn control_plane_lost(orders: &mut watch::Receiver<Arc<Orders>>) {
    let lost = |orders: &Arc<Orders>| orders.control_plane_lost_until(Instant::now()).is_some();
    if orders.wait_for(lost).await.is_err() {
        // Nobody gives orders any more.
        std::future::pending::<()>().await;
    }
}

/// Returns when no drill takes the control plane away. True: one did.
pub(super) async fn control_plane_back(orders: &watch::Receiver<Arc<Orders>>) -> bool {
    let mut was_lost = false;
    loop {
        let until = orders.borrow().control_plane_lost_until(Instant::now());
        let Some(until) = until else { return was_lost };
        was_lost = true;
        sleep_until(until).await;
    }
}

#[cfg(test)]
mod tests {
    use trunkline_proto::{agent::v1::OutOfService, types::v1::StallFault};

    use super::*;

    fn active(name: &str, agents: &[&str], effect: Option<Effect>, seconds: i64) -> ActiveFault {
        let agents = agents.iter().map(|name| (*name).to_owned()).collect();
        let fault = Fault { name: name.to_owned(), agents, effect, ..Fault::default() };
        let remaining = prost_types::Duration { seconds, nanos: 0 };
        ActiveFault { fault: Some(fault), remaining: Some(remaining) }
    }

    const STALL: Option<Effect> = Some(Effect::Stall(StallFault {}));

    #[test]
    fn only_known_drills_with_an_end_for_this_agent_are_made() {
        let endless = ActiveFault { remaining: None, ..active("endless", &[], STALL, 1) };
        let publication = Publication {
            faults: vec![
                active("all", &[], STALL, 5),
                active("mine", &["x", "me"], STALL, 5),
                active("other", &["x"], STALL, 5),
                active("newer", &[], None, 5),
                active("over", &[], STALL, -5),
                endless,
            ],
            out_of_service: Some(OutOfService { reason: "repair".to_owned() }),
            ..Publication::default()
        };
        let now = Instant::now();
        let orders = Orders::from_wire(&publication, "me", now);
        let names: Vec<_> = orders.active(now).map(|fault| fault.name.as_str()).collect();
        assert_eq!(names, ["all", "mine"]);
        assert_eq!(orders.active(now + Duration::from_secs(5)).count(), 0);
        assert_eq!(orders.out_of_service.as_deref(), Some("repair"));
        assert_eq!(Orders::from_wire(&Publication::default(), "me", now), Orders::default());
    }

    #[tokio::test(start_paused = true)]
    async fn a_drill_ends_without_the_control_plane() {
        let publication = Publication {
            faults: vec![active("short", &[], STALL, 2), active("long", &[], STALL, 60)],
            ..Publication::default()
        };
        let orders = watch::Sender::new(Arc::default());
        let mut seen = orders.subscribe();
        let begin = Instant::now();
        let follow = async {
            orders.send_replace(Arc::new(Orders::from_wire(&publication, "me", begin)));
            let mut left = Vec::new();
            while left.last() != Some(&0) {
                seen.changed().await.unwrap();
                left.push(seen.borrow_and_update().faults.len());
            }
            (left, begin.elapsed().as_secs())
        };
        tokio::select! {
            biased; // The follower ends.
            seen = follow => assert_eq!(seen, (vec![2, 1, 0], 60)),
            () = expire(&orders) => {}
        }
    }
}
