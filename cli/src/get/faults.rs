//! `get faults`: drills that are active.

use trunkline_proto::{
    admin::v1::{Drill, ListFaultsResponse},
    types::v1::{Fault, fault::Effect},
};

use crate::{
    cell::{milliseconds, or_nothing, time},
    table::{Align, render},
};

pub(crate) fn table(list: &ListFaultsResponse) -> String {
    if list.drills.is_empty() {
        return "no drill is active\n".to_owned();
    }
    let columns = [
        ("DRILL", Align::Left),
        ("EFFECT", Align::Left),
        ("WHERE", Align::Left),
        ("ENDS", Align::Left),
        ("MADE BY", Align::Left),
        ("WHO", Align::Left),
        ("REASON", Align::Left),
    ];
    let rows: Vec<_> = list.drills.iter().map(row).collect();
    render(columns, &rows)
}

fn row(drill: &Drill) -> [String; 7] {
    let fault = drill.fault.clone().unwrap_or_default();
    [
        fault.name.clone(),
        effect(&fault),
        place(&fault),
        time(drill.expire_time),
        or_nothing(&drill.active_at.join(" ")),
        or_nothing(&drill.principal),
        or_nothing(&fault.reason),
    ]
}

fn effect(fault: &Fault) -> String {
    match &fault.effect {
        Some(Effect::Latency(latency)) => format!("latency {}", milliseconds(Some(*latency))),
        Some(Effect::ErrorStatus(status)) => format!("error {status}"),
        Some(Effect::Stall(_)) => "stall".to_owned(),
        Some(Effect::Cut(cut)) => format!("cut after {} bytes", cut.after_bytes),
        Some(Effect::ControlPlaneLoss(_)) => "control-plane loss".to_owned(),
        // Of a newer control plane.
        None => "unknown".to_owned(),
    }
}

/// What it concerns; "everywhere" if nothing limits it.
fn place(fault: &Fault) -> String {
    let mut parts = Vec::new();
    let mut limit = |word: &str, names: &[String]| {
        if !names.is_empty() {
            parts.push(format!("{word} {}", names.join(" ")));
        }
    };
    limit("at", &fault.agents);
    limit("of", &fault.deployments);
    limit("for", &fault.virtual_models);
    if fault.percent != 0 && fault.percent != 100 {
        parts.push(format!("{} %", fault.percent));
    }
    if parts.is_empty() { "everywhere".to_owned() } else { parts.join(", ") }
}

#[cfg(test)]
mod tests {
    use trunkline_proto::types::v1::{ControlPlaneLossFault, CutFault, StallFault};

    use super::*;

    #[test]
    fn drills_say_what_where_and_until_when() {
        let fault = Fault {
            name: "slow-swift".to_owned(),
            agents: vec!["agent-1".to_owned()],
            deployments: vec!["swift".to_owned()],
            percent: 30,
            effect: Some(Effect::Latency(prost_types::Duration { seconds: 2, nanos: 0 })),
            ..Fault::default()
        };
        let drill = Drill { fault: Some(fault), principal: "admin:alice".to_owned(), ..Drill::default() };
        let table = table(&ListFaultsResponse { drills: vec![drill] });
        assert!(table.contains("latency 2000 ms  at agent-1, of swift, 30 %"), "{table}");
        assert!(table.contains("admin:alice"), "{table}");
    }

    #[test]
    fn every_effect_has_a_name() {
        let check = |kind: Effect, expected: &str| {
            assert_eq!(effect(&Fault { effect: Some(kind), ..Fault::default() }), expected);
        };
        check(Effect::ErrorStatus(503), "error 503");
        check(Effect::Stall(StallFault {}), "stall");
        check(Effect::Cut(CutFault { after_bytes: 9 }), "cut after 9 bytes");
        check(Effect::ControlPlaneLoss(ControlPlaneLossFault {}), "control-plane loss");
        assert_eq!(place(&Fault::default()), "everywhere");
    }
}
