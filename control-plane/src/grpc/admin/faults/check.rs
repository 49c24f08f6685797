//! Checks a drill before it begins: all that is wrong with it, with field paths. Pure.

use std::{collections::HashSet, ops::RangeInclusive, time::Duration};

use trunkline_proto::{
    problems::Problems,
    types::v1::{Fault, fault::Effect},
};
use trunkline_routing::table::RoutingTable;

/// How long a drill may last.
const TTL: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(24);

/// How long an attempt may be held back.
const LATENCY: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_mins(10);

/// Statuses that are errors.
const STATUS: RangeInclusive<u32> = 400..=599;

/// Entries of one list: a drill goes to all agents with every change of orders.
const LIST_MAX: usize = 1_000;

/// Longest agent id and reason.
const TEXT_BYTES_MAX: usize = 256;

/// Longest name.
const NAME_BYTES_MAX: usize = 63;

/// The drill with its defaults filled in, and how long it lasts.
pub(super) fn check(
    fault: Option<Fault>,
    ttl: Option<prost_types::Duration>,
    table: &RoutingTable,
) -> Result<(Fault, Duration), Problems> {
    let mut problems = Problems::default();
    let ttl = between(ttl, &TTL).unwrap_or_else(|| {
        problems.push("ttl", "is required: 1 s to 24 h");
        Duration::ZERO
    });
    let Some(mut fault) = fault else {
        problems.push("fault", "is required");
        return problems.or((Fault::default(), ttl));
    };
    check_name(&fault.name, &mut problems);
    check_agents(&fault.agents, &mut problems);
    check_effect(&fault, &mut problems);
    if fault.reason.len() > TEXT_BYTES_MAX {
        problems.push("fault.reason", format!("must have at most {TEXT_BYTES_MAX} bytes"));
    }
    if let Some(Effect::ControlPlaneLoss(_)) = fault.effect {
        check_whole(&fault, &mut problems);
    } else {
        check_targets(&fault, table, &mut problems);
        match fault.percent {
            0 => fault.percent = 100,
            1..=100 => {}
            _ => problems.push("fault.percent", "must be 1 to 100; leave it out for 100"),
        }
    }
    problems.or((fault, ttl))
}

fn check_name(name: &str, problems: &mut Problems) {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let right = name.starts_with(plain) && name.chars().all(|c| plain(c) || c == '-');
    if name.is_empty() {
        problems.push("fault.name", "is required");
    } else if !right || name.len() > NAME_BYTES_MAX {
        problems.push("fault.name", "is not a name: write [a-z0-9][a-z0-9-]{0,62}");
    }
}

fn check_agents(agents: &[String], problems: &mut Problems) {
    check_count("fault.agents", agents.len(), problems);
    for (index, id) in agents.iter().enumerate() {
        let printable = id.bytes().all(|byte| byte.is_ascii_graphic());
        if id.is_empty() || id.len() > TEXT_BYTES_MAX || !printable {
            let right = format!("must be 1 to {TEXT_BYTES_MAX} printable ASCII characters without spaces");
            problems.push(format!("fault.agents[{index}]"), right);
        }
    }
}

fn check_count(field: &str, count: usize, problems: &mut Problems) {
    if count > LIST_MAX {
        problems.push(field, format!("has {count} entries; at most {LIST_MAX} are possible"));
    }
}

fn check_effect(fault: &Fault, problems: &mut Problems) {
    match &fault.effect {
        None => problems.push(
            "fault.effect",
            "is required: one of latency, error_status, stall, cut, control_plane_loss",
        ),
        Some(Effect::Latency(latency)) if between(Some(*latency), &LATENCY).is_none() => {
            problems.push("fault.latency", "must be 1 ms to 10 min");
        }
        Some(Effect::ErrorStatus(code)) if !STATUS.contains(code) => {
            problems.push("fault.error_status", format!("is {code}; it must be 400 to 599"));
        }
        Some(
            Effect::Latency(_)
            | Effect::ErrorStatus(_)
            | Effect::Stall(_)
            | Effect::Cut(_)
            | Effect::ControlPlaneLoss(_),
        ) => {}
    }
}

/// A loss of the control plane is not of some attempts.
fn check_whole(fault: &Fault, problems: &mut Problems) {
    for (field, given) in [
        ("fault.deployments", !fault.deployments.is_empty()),
        ("fault.virtual_models", !fault.virtual_models.is_empty()),
        ("fault.percent", fault.percent != 0),
    ] {
        if given {
            problems.push(field, "has no meaning with control_plane_loss; leave it out");
        }
    }
}

fn check_targets(fault: &Fault, table: &RoutingTable, problems: &mut Problems) {
    check_count("fault.deployments", fault.deployments.len(), problems);
    check_count("fault.virtual_models", fault.virtual_models.len(), problems);
    let providers = table.providers.iter().map(|one| one.name.as_ref());
    let deployments = table.deployments.iter().map(|one| one.name.as_ref());
    let known: HashSet<&str> = providers.chain(deployments).collect();
    for (index, name) in fault.deployments.iter().take(LIST_MAX).enumerate() {
        if !known.contains(name.as_str()) {
            let wrong = format!("there is no provider or deployment {}", shown(name));
            problems.push(format!("fault.deployments[{index}]"), wrong);
        }
    }
    for (index, name) in fault.virtual_models.iter().take(LIST_MAX).enumerate() {
        if table.virtual_model(name).is_none() {
            let wrong = format!("there is no virtual model {}", shown(name));
            problems.push(format!("fault.virtual_models[{index}]"), wrong);
        }
    }
}

/// What somebody wrote in a name's place: escaped, and not longer than a name can be.
fn shown(name: &str) -> String {
    const SHOWN: usize = 2 * NAME_BYTES_MAX + 1;
    match name.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{:?}...", &name[..end]),
        None => format!("{name:?}"),
    }
}

fn between(given: Option<prost_types::Duration>, range: &RangeInclusive<Duration>) -> Option<Duration> {
    let duration = given.and_then(|given| Duration::try_from(given).ok());
    duration.filter(|duration| range.contains(duration))
}

#[cfg(test)]
mod tests {
    use trunkline_proto::{
        convert, document,
        types::v1::{ControlPlaneLossFault, CutFault, StallFault},
    };
    use trunkline_routing::table::Version;

    use super::*;

    const DOCUMENT: &str = "
providers:
  - {name: one, dialect: DIALECT_OPENAI, base_url: https://one.example.com/v1, deployments: [{name: small}]}
virtual_models:
  - {name: chat, strategy: STRATEGY_WEIGHTED, tiers: [{targets: [{deployment: one/small, weight: 1}]}]}
";

    fn seconds(seconds: i64) -> prost_types::Duration {
        prost_types::Duration { seconds, nanos: 0 }
    }

    fn stall() -> Fault {
        Fault { name: "drill".into(), effect: Some(Effect::Stall(StallFault {})), ..Fault::default() }
    }

    fn of(effect: Effect) -> Fault {
        Fault { effect: Some(effect), ..stall() }
    }

    /// Which fields are wrong.
    fn wrong(fault: Fault, ttl: impl Into<Option<prost_types::Duration>>) -> Vec<String> {
        let table = convert::routing_table(Version::default(), &document::load(DOCUMENT).unwrap()).unwrap();
        match check(Some(fault), ttl.into(), &table) {
            Ok(_) => Vec::new(),
            Err(problems) => problems.iter().map(|problem| problem.path.clone()).collect(),
        }
    }

    #[test]
    fn a_whole_drill_passes_and_the_share_is_filled_in() {
        let table = RoutingTable::default();
        let (fault, ttl) = check(Some(stall()), Some(seconds(60)), &table).unwrap();
        assert_eq!((fault.percent, ttl), (100, Duration::from_secs(60)));
        let targets = Fault {
            deployments: vec!["one".into(), "one/small".into()],
            virtual_models: vec!["chat".into()],
            agents: vec!["agent-1".into()],
            percent: 1,
            ..of(Effect::Cut(CutFault { after_bytes: 0 }))
        };
        assert_eq!(wrong(targets, seconds(24 * 3_600)), Vec::<String>::new());
    }

    #[test]
    fn each_field_is_checked_at_its_bounds() {
        let bad = Fault {
            name: "Über".into(),
            agents: vec![String::new(), "a b".into(), "x".repeat(257)],
            deployments: vec!["one/large".into()],
            virtual_models: vec!["talk".into()],
            percent: 101,
            effect: Some(Effect::ErrorStatus(399)),
            reason: "x".repeat(257),
        };
        let expected = [
            "ttl",
            "fault.name",
            "fault.agents[0]",
            "fault.agents[1]",
            "fault.agents[2]",
            "fault.error_status",
            "fault.reason",
            "fault.deployments[0]",
            "fault.virtual_models[0]",
            "fault.percent",
        ];
        assert_eq!(wrong(bad, seconds(24 * 3_600 + 1)), expected);
        assert_eq!(wrong(Fault { effect: None, ..stall() }, None), ["ttl", "fault.effect"]);
        for (status, fields) in [(400, 0), (599, 0), (600, 1), (200, 1)] {
            assert_eq!(wrong(of(Effect::ErrorStatus(status)), seconds(1)).len(), fields, "{status}");
        }
        let latency = |seconds, nanos| of(Effect::Latency(prost_types::Duration { seconds, nanos }));
        for (fault, fields) in [
            (latency(0, 1_000_000), 0),
            (latency(600, 0), 0),
            (latency(0, 999_999), 1),
            (latency(600, 1), 1),
            (latency(-1, 0), 1),
        ] {
            assert_eq!(wrong(fault.clone(), seconds(1)).len(), fields, "{fault:?}");
        }
        let many = Fault { agents: vec!["a".into(); LIST_MAX + 1], ..stall() };
        assert_eq!(wrong(many, seconds(1)), ["fault.agents"]);
    }

    #[test]
    fn a_loss_of_the_control_plane_is_not_of_some_attempts() {
        let loss = of(Effect::ControlPlaneLoss(ControlPlaneLossFault {}));
        assert_eq!(wrong(loss.clone(), seconds(1)), Vec::<String>::new());
        let partial = Fault {
            deployments: vec!["one".into()],
            virtual_models: vec!["chat".into()],
            percent: 5,
            ..loss
        };
        let fields = ["fault.deployments", "fault.virtual_models", "fault.percent"];
        assert_eq!(wrong(partial, seconds(1)), fields);
    }
}
