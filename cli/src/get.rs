//! `get`: one RPC, shown as a table or as its JSON.

use std::collections::HashMap;

use trunkline_proto::{
    admin::v1::{
        Agent, AgentProtection, Breaker, GetStatsRequest, GetStatsResponse, ListAgentsRequest,
        ListAgentsResponse, ListBreakersRequest, ListBreakersResponse, Percentiles, StatsRow,
    },
    types::v1::{BreakerState, CostSource, protection::Kind},
};

use crate::{
    args::{GetArgs, Listing, ListingFormat},
    client::ControlPlane,
    failure::Failure,
    json,
    table::{Align, render},
    terminal,
};

/// Stands for what is not known or does not apply.
const NOTHING: &str = "-";

pub(crate) async fn run(args: GetArgs) -> Result<(), Failure> {
    let control_plane = ControlPlane::at(&args.control_plane)?;
    let text = match args.what {
        Listing::Stats { window, virtual_model } => {
            let window = window.map(wire_duration).transpose()?;
            let request = GetStatsRequest { window, virtual_model, ..GetStatsRequest::default() };
            let stats =
                control_plane.call(request, async |admin, request| admin.get_stats(request).await).await?;
            match args.output {
                ListingFormat::Json => json::pretty("trunkline.admin.v1.GetStatsResponse", &stats)?,
                ListingFormat::Table => stats_table(&stats),
            }
        }
        Listing::Agents => {
            let agents = all_agents(&control_plane).await?;
            match args.output {
                ListingFormat::Json => json::pretty("trunkline.admin.v1.ListAgentsResponse", &agents)?,
                ListingFormat::Table => agents_table(&agents),
            }
        }
        Listing::Breakers { active } => {
            let request = ListBreakersRequest { active_only: active };
            let breakers = control_plane
                .call(request, async |admin, request| admin.list_breakers(request).await)
                .await?;
            match args.output {
                ListingFormat::Json => json::pretty("trunkline.admin.v1.ListBreakersResponse", &breakers)?,
                ListingFormat::Table => breakers_table(&breakers),
            }
        }
    };
    terminal::print(&text)
}

/// All pages in one.
pub(crate) async fn all_agents(control_plane: &ControlPlane) -> Result<ListAgentsResponse, Failure> {
    let mut all = ListAgentsResponse::default();
    let mut page_token = String::new();
    loop {
        let request = ListAgentsRequest { page_size: 1_000, page_token };
        let page =
            control_plane.call(request, async |admin, request| admin.list_agents(request).await).await?;
        all.agents.extend(page.agents);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(all);
        }
    }
}

fn wire_duration(duration: std::time::Duration) -> Result<prost_types::Duration, Failure> {
    prost_types::Duration::try_from(duration)
        .map_err(|_| Failure::wrong_input(format!("--window {duration:?}: at most 31 days")))
}

fn stats_table(stats: &GetStatsResponse) -> String {
    let columns = [
        ("DEPLOYMENT", Align::Left),
        ("ATTEMPTS", Align::Right),
        ("OK", Align::Right),
        ("TOKENS IN", Align::Right),
        ("OUT", Align::Right),
        ("COST USD", Align::Right),
        ("TTFT P50/P95", Align::Right),
        ("DURATION P50/P95", Align::Right),
        ("ERRORS", Align::Left),
    ];
    let rows: Vec<_> = stats
        .rows
        .iter()
        .map(|row| {
            [
                row.deployment.clone(),
                row.attempts.to_string(),
                row.successes.to_string(),
                row.input_tokens.to_string(),
                row.output_tokens.to_string(),
                cost(row),
                percentiles(row.ttft.as_ref()),
                percentiles(row.duration.as_ref()),
                errors(&row.errors_by_class),
            ]
        })
        .collect();
    if rows.is_empty() {
        return "no deployment is configured or was used yet\n".to_owned();
    }
    render(columns, &rows)
}

/// In US dollars; `~` before an estimate, and what could not be priced.
fn cost(row: &StatsRow) -> String {
    let dollars = row.cost_nano_usd / 1_000_000_000;
    // Rounded up to microdollars, so that a cost is never shown as none.
    let micros = (row.cost_nano_usd % 1_000_000_000).div_ceil(1_000);
    let (dollars, micros) = if micros == 1_000_000 { (dollars + 1, 0) } else { (dollars, micros) };
    let sign = match row.cost_source() {
        CostSource::Estimated | CostSource::Mixed => "~",
        CostSource::Provider | CostSource::Unspecified => "",
    };
    match row.unpriced_attempts {
        0 => format!("{sign}{dollars}.{micros:06}"),
        unpriced => format!("{sign}{dollars}.{micros:06} + {unpriced} unpriced"),
    }
}

fn percentiles(percentiles: Option<&Percentiles>) -> String {
    let Some(percentiles) = percentiles else {
        return NOTHING.to_owned();
    };
    format!("{} / {}", milliseconds(percentiles.p50), milliseconds(percentiles.p95))
}

fn milliseconds(duration: Option<prost_types::Duration>) -> String {
    let Some(duration) = duration else {
        return NOTHING.to_owned();
    };
    let milliseconds = duration.seconds.saturating_mul(1_000) + i64::from(duration.nanos) / 1_000_000;
    if milliseconds < 10_000 { format!("{milliseconds} ms") } else { format!("{} s", milliseconds / 1_000) }
}

/// The most frequent first.
fn errors(by_class: &HashMap<String, u64>) -> String {
    let mut counts: Vec<_> = by_class.iter().filter(|(_, count)| **count > 0).collect();
    if counts.is_empty() {
        return NOTHING.to_owned();
    }
    counts.sort_by(|(name, count), (other, others)| others.cmp(count).then(name.cmp(other)));
    counts.iter().map(|(name, count)| format!("{name}:{count}")).collect::<Vec<_>>().join(" ")
}

fn agents_table(agents: &ListAgentsResponse) -> String {
    if agents.agents.is_empty() {
        return "no agent is connected\n".to_owned();
    }
    let columns = [
        ("AGENT", Align::Left),
        ("STATE", Align::Left),
        ("REVISION", Align::Right),
        ("IN FLIGHT", Align::Right),
        ("ADDRESS", Align::Left),
        ("VERSION", Align::Left),
        ("PROBLEM", Align::Left),
    ];
    let rows: Vec<_> = agents
        .agents
        .iter()
        .map(|agent| {
            [
                agent.agent_id.clone(),
                short_name(agent.state().as_str_name(), "AGENT_STATE_"),
                agent.applied.as_ref().map_or(0, |version| version.revision).to_string(),
                agent.in_flight.to_string(),
                or_nothing(&agent.advertise),
                or_nothing(&agent.build_version),
                problem(agent),
            ]
        })
        .collect();
    render(columns, &rows)
}

fn problem(agent: &Agent) -> String {
    let mut problems = Vec::new();
    if !agent.last_nack.is_empty() {
        problems.push(format!("refused an update: {}", agent.last_nack));
    }
    if !agent.missing_credentials.is_empty() {
        problems.push(format!("no credential for {}", agent.missing_credentials.join(", ")));
    }
    or_nothing(&problems.join("; "))
}

fn breakers_table(list: &ListBreakersResponse) -> String {
    let columns = [
        ("DEPLOYMENT", Align::Left),
        ("BREAKER", Align::Left),
        ("AGENTS", Align::Right),
        ("REASON", Align::Left),
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

fn breaker_row(breaker: &Breaker) -> [String; 4] {
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
        or_nothing(reason),
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

fn breaker_state(state: BreakerState) -> String {
    short_name(state.as_str_name(), "BREAKER_STATE_")
}

/// `FORCED_OPEN` with its prefix becomes `forced open`.
fn short_name(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_lowercase().replace('_', " ")
}

fn or_nothing(text: &str) -> String {
    if text.is_empty() { NOTHING.to_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use trunkline_proto::{
        admin::v1::{AgentBreaker, AgentState},
        types::v1::{LocalBreaker, Protection, RateGate, Version},
    };

    use super::*;

    fn time(seconds: i64, nanos: i32) -> prost_types::Duration {
        prost_types::Duration { seconds, nanos }
    }

    #[test]
    fn stats_are_one_line_per_deployment() {
        let times =
            Percentiles { p50: Some(time(0, 120_000_000)), p95: Some(time(12, 0)), p99: Some(time(12, 0)) };
        let busy = StatsRow {
            deployment: "swift/sim-large".to_owned(),
            attempts: 100,
            successes: 96,
            errors_by_class: HashMap::from([("timeout".to_owned(), 1), ("rate_limited".to_owned(), 3)]),
            input_tokens: 900,
            output_tokens: 5_000,
            cost_nano_usd: 1_234_567_001,
            cost_source: CostSource::Provider.into(),
            ttft: Some(times),
            ..StatsRow::default()
        };
        let idle = StatsRow { deployment: "a/b".to_owned(), ..StatsRow::default() };
        let table = stats_table(&GetStatsResponse { rows: vec![busy, idle] });
        let lines: Vec<_> = table.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[1].contains("1.234568"), "{table}");
        assert!(lines[1].contains("120 ms / 12 s"), "{table}");
        assert!(lines[1].ends_with("rate_limited:3 timeout:1"), "{table}");
        assert!(lines[2].contains("0.000000") && lines[2].ends_with('-'), "{table}");
    }

    #[test]
    fn costs_round_up_and_say_what_is_missing() {
        let check = |cost_nano_usd: u64, source: CostSource, unpriced_attempts: u64, expected: &str| {
            let cost_source = source.into();
            let row = StatsRow { cost_nano_usd, cost_source, unpriced_attempts, ..StatsRow::default() };
            assert_eq!(cost(&row), expected);
        };
        check(0, CostSource::Unspecified, 0, "0.000000");
        check(1, CostSource::Provider, 0, "0.000001");
        check(999_999_999, CostSource::Provider, 0, "1.000000");
        check(2_500_000_000, CostSource::Mixed, 0, "~2.500000");
        check(0, CostSource::Unspecified, 7, "0.000000 + 7 unpriced");
    }

    #[test]
    fn agents_show_what_keeps_them_from_working() {
        let agent = Agent {
            agent_id: "a1".to_owned(),
            state: AgentState::Connected.into(),
            applied: Some(Version { epoch: String::new(), revision: 7 }),
            missing_credentials: vec!["openai".to_owned()],
            ..Agent::default()
        };
        let table = agents_table(&ListAgentsResponse { agents: vec![agent], next_page_token: String::new() });
        assert!(table.contains("connected") && table.contains('7'), "{table}");
        assert!(table.contains("no credential for openai"), "{table}");
    }

    #[test]
    fn breakers_and_protections_are_two_tables() {
        let local = LocalBreaker { reason: "5 failures in a row".to_owned(), ..LocalBreaker::default() };
        let breaker = Breaker {
            deployment: "swift/sim-large".to_owned(),
            state: BreakerState::ForcedOpen.into(),
            agents: vec![AgentBreaker { agent_id: "a1".to_owned(), breaker: Some(local) }],
            ..Breaker::default()
        };
        let protection = Protection {
            subject: "thrifty/sim-small".to_owned(),
            kind: Some(Kind::RateGate(RateGate { remaining: Some(time(3, 0)) })),
        };
        let protections = vec![AgentProtection { agent_id: "a1".to_owned(), protection: Some(protection) }];
        let table = breakers_table(&ListBreakersResponse { breakers: vec![breaker], protections });
        assert!(table.contains("forced open") && table.contains("5 failures in a row"), "{table}");
        assert!(table.contains("rate gate") && table.contains("3000 ms"), "{table}");
    }
}
