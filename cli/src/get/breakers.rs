//! `get breakers`: the three protections, in two tables.

use trunkline_proto::{
    admin::v1::{AgentProtection, Breaker, FleetBreaker, ListBreakersResponse},
    types::v1::{BreakerState, protection::Kind},
};

use crate::{
    cell::{NOTHING, milliseconds, or_nothing, short_name},
    table::{Align, render},
};

pub(super) fn table(list: &ListBreakersResponse) -> String {
    let columns = [
        ("DEPLOYMENT", Align::Left),
        ("BREAKER", Align::Left),
        ("AGENTS", Align::Right),
        ("FLEET", Align::Left),
        ("REMAINING", Align::Right),
        ("PROBES", Align::Left),
        ("REASON", Align::Left),
        ("SEEN", Align::Left),
    ];
    let rows: Vec<_> = list.breakers.iter().map(breaker_row).collect();
    let mut text = if rows.is_empty() { "no breaker to show\n".to_owned() } else { render(columns, &rows) };
    if !list.protections.is_empty() {
        let columns = [
            ("SUBJECT", Align::Left),
            ("PROTECTION", Align::Left),
            ("AGENT", Align::Left),
            ("REMAINING", Align::Right),
            ("REASON", Align::Left),
        ];
        let rows: Vec<_> = list.protections.iter().map(protection_row).collect();
        text.push('\n');
        text.push_str(&render(columns, &rows));
    }
    text
}

fn breaker_row(breaker: &Breaker) -> [String; 8] {
    let fleet = breaker.fleet.clone().unwrap_or_default();
    // An agent's own reason stands in where no operator gave one.
    let local = breaker
        .agents
        .iter()
        .filter_map(|agent| agent.breaker.as_ref())
        .find(|local| !local.reason.is_empty());
    let reason = match local {
        Some(local) if breaker.reason.is_empty() => local.reason.as_str(),
        _ => breaker.reason.as_str(),
    };
    [
        breaker.deployment.clone(),
        breaker_state(breaker.state()),
        breaker.agents.len().to_string(),
        fleet_state(&fleet),
        milliseconds(fleet.remaining),
        or_nothing(&fleet.prober),
        or_nothing(reason),
        or_nothing(&fleet.evidence),
    ]
}

fn protection_row(item: &AgentProtection) -> [String; 5] {
    let protection = item.protection.clone().unwrap_or_default();
    let (kind, remaining, reason) = match protection.kind {
        Some(Kind::Breaker(breaker)) => ("breaker", breaker.remaining, breaker.reason),
        Some(Kind::RateGate(gate)) => ("rate gate", gate.remaining, String::new()),
        Some(Kind::Quarantine(quarantine)) => ("quarantine", quarantine.remaining, quarantine.reason),
        None => (NOTHING, None, String::new()),
    };
    [protection.subject, kind.to_owned(), item.agent_id.clone(), milliseconds(remaining), or_nothing(&reason)]
}

/// With the share while traffic returns, or how often it opened.
fn fleet_state(fleet: &FleetBreaker) -> String {
    let name = breaker_state(fleet.state());
    match fleet.state() {
        BreakerState::Unspecified => NOTHING.to_owned(),
        BreakerState::Ramping => format!("{name}, {} %", fleet.admit_percent),
        BreakerState::Open | BreakerState::HalfOpen => format!("{name}, {} in a row", fleet.openings),
        _ => name,
    }
}

fn breaker_state(state: BreakerState) -> String {
    short_name(state.as_str_name(), "BREAKER_STATE_")
}

#[cfg(test)]
mod tests {
    use trunkline_proto::{
        admin::v1::AgentBreaker,
        types::v1::{LocalBreaker, Protection, RateGate},
    };

    use super::*;

    fn time(seconds: i64, nanos: i32) -> prost_types::Duration {
        prost_types::Duration { seconds, nanos }
    }

    #[test]
    fn breakers_and_protections_are_two_tables() {
        let local = LocalBreaker { reason: "5 failures in a row".to_owned(), ..LocalBreaker::default() };
        let breaker = Breaker {
            deployment: "swift/sim-large".to_owned(),
            state: BreakerState::ForcedOpen.into(),
            agents: vec![AgentBreaker { agent_id: "a1".to_owned(), breaker: Some(local) }],
            fleet: Some(FleetBreaker {
                state: BreakerState::HalfOpen.into(),
                openings: 2,
                prober: "a2".to_owned(),
                evidence: "1 of 2 probes succeeded".to_owned(),
                ..FleetBreaker::default()
            }),
            ..Breaker::default()
        };
        let protection = Protection {
            subject: "thrifty/sim-small".to_owned(),
            kind: Some(Kind::RateGate(RateGate { remaining: Some(time(3, 0)) })),
        };
        let protections = vec![AgentProtection { agent_id: "a1".to_owned(), protection: Some(protection) }];
        let table = super::table(&ListBreakersResponse { breakers: vec![breaker], protections });
        assert!(table.contains("forced open") && table.contains("5 failures in a row"), "{table}");
        assert!(table.contains("half open, 2 in a row") && table.contains("1 of 2 probes"), "{table}");
        assert!(table.contains("rate gate") && table.contains("3000 ms"), "{table}");
    }
}
