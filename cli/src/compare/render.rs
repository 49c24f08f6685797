//! A comparison as text: aligned for terminals, Markdown, or JSON. The same comparison gives
//! the same bytes.

use serde_json::{Map, Value, json};

use super::{
    columns::{GROUPS, text},
    result::{Comparison, Line},
};
use crate::args::CompareFormat;

/// In the form that was asked for, with a line break at the end.
pub(super) fn render(comparison: &Comparison, format: CompareFormat) -> String {
    match format {
        CompareFormat::Table => tables(comparison, aligned),
        CompareFormat::Markdown => tables(comparison, markdown),
        CompareFormat::Json => json_text(comparison),
    }
}

/// A title, headings, and rows of as many cells.
struct Table {
    title: &'static str,
    rows: Vec<Vec<String>>,
}

fn tables(comparison: &Comparison, written: fn(&Table) -> String) -> String {
    let setup = &comparison.setup;
    let mut parts = vec![
        format!("{} {}: {}\n{}\n", setup.scenario, setup.name, setup.about, setup.line()),
        format!("Figures: value (ratio to {}) [95 % interval over seeds]\n", setup.reference),
    ];
    parts.push(written(&complexity(comparison)));
    for (at, group) in GROUPS.iter().enumerate() {
        let heading = std::iter::once("strategy").chain(group.columns.iter().map(|column| column.heading));
        let mut rows = vec![heading.map(str::to_owned).collect::<Vec<_>>()];
        for line in &comparison.lines {
            let cells =
                line.cells[at].iter().zip(group.columns).map(|(cell, column)| text(*cell, column.unit));
            rows.push(std::iter::once(line.policy.clone()).chain(cells).collect());
        }
        parts.push(written(&Table { title: group.title, rows }));
    }
    parts.join("\n")
}

fn complexity(comparison: &Comparison) -> Table {
    let timed = comparison.lines.iter().any(|line| line.decision_us.is_some());
    let mut heading = vec!["strategy", "knobs", "state"];
    heading.extend(timed.then_some("decision us p50 / p99"));
    let row = |line: &Line| {
        let mut row = vec![line.policy.clone(), knobs(line), line.state.to_owned()];
        row.extend(timed.then(|| {
            line.decision_us.map_or_else(|| "-".to_owned(), |[p50, p99]| format!("{p50:.1} / {p99:.1}"))
        }));
        row
    };
    let heading = heading.into_iter().map(str::to_owned).collect();
    Table {
        title: "Complexity",
        rows: std::iter::once(heading).chain(comparison.lines.iter().map(row)).collect(),
    }
}

fn knobs(line: &Line) -> String {
    if line.knobs.is_empty() {
        return "0".to_owned();
    }
    format!("{}: {}", line.knobs.len(), line.knobs.join(", "))
}

fn aligned(table: &Table) -> String {
    let columns = table.rows.first().map_or(0, Vec::len);
    let width = |column: usize| table.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    format!("{}\n{}", table.title.to_uppercase(), table.rows.iter().map(line).collect::<String>())
}

fn markdown(table: &Table) -> String {
    let line = |row: &Vec<String>| format!("| {} |\n", row.join(" | ").replace('[', "\\["));
    let mut lines = table.rows.iter();
    let head = lines.next().map(line).unwrap_or_default();
    let rule = format!("|{}\n", "---|".repeat(table.rows.first().map_or(0, Vec::len)));
    format!("### {}\n\n{head}{rule}{}", table.title, lines.map(line).collect::<String>())
}

fn json_text(comparison: &Comparison) -> String {
    let lines: Vec<Value> = comparison.lines.iter().map(json_line).collect();
    let value = json!({ "setup": comparison.setup, "strategies": lines });
    // Plain maps, numbers and strings can always be written.
    serde_json::to_string_pretty(&value).unwrap_or_default() + "\n"
}

fn json_line(line: &Line) -> Value {
    let mut object = Map::new();
    object.insert("strategy".to_owned(), json!(line.policy));
    let mut complexity = json!({ "knobs": line.knobs, "state": line.state });
    if let Some([p50, p99]) = line.decision_us {
        complexity["decision_us"] = json!({ "p50": p50, "p99": p99 });
    }
    object.insert("complexity".to_owned(), complexity);
    for (group, cells) in GROUPS.iter().zip(&line.cells) {
        let mut figures = Map::new();
        for (column, cell) in group.columns.iter().zip(cells) {
            figures.insert(json!(column.metric).as_str().unwrap_or_default().to_owned(), json!(cell));
        }
        object.insert(group.key.to_owned(), Value::Object(figures));
    }
    Value::Object(object)
}

#[cfg(test)]
mod tests {
    use trunkline_simulator::{
        report::PolicyRuns,
        run::{RunReport, report::Span},
    };

    use super::*;
    use crate::compare::result::{Setup, cells};

    fn comparison() -> Comparison {
        let runs = |policy: &str, regrets: [f64; 2]| PolicyRuns {
            policy: policy.to_owned(),
            runs: regrets
                .map(|regret| RunReport {
                    whole: Span { regret, success: 0.5, ..Span::default() },
                    ..RunReport::default()
                })
                .to_vec(),
        };
        let (ours, reference) = (runs("latency", [0.1, 0.3]), runs("naive-round-robin", [1.0, 1.0]));
        let line = |runs: &PolicyRuns| Line {
            policy: runs.policy.clone(),
            knobs: &["weights"],
            state: "a counter",
            decision_us: None,
            cells: cells(runs, Some(&reference)),
        };
        let setup = Setup {
            scenario: "01".to_owned(),
            name: "steady".to_owned(),
            about: "Nothing happens.".to_owned(),
            traffic: "mixed-a".to_owned(),
            congestion: None,
            agents: 3,
            requests_per_run: 4000,
            first_seed: 1,
            seeds: 2,
            reference: "naive-round-robin".to_owned(),
        };
        Comparison { setup, lines: vec![line(&ours), line(&reference)] }
    }

    #[test]
    fn every_form_tells_every_strategy_with_ratio_and_interval() {
        for format in [CompareFormat::Table, CompareFormat::Markdown] {
            let text = render(&comparison(), format);
            assert!(text.contains("0.200 (0.20x)"), "{text}");
            assert_eq!(text.matches("naive-round-robin").count(), 1 + 5, "{text}");
            assert!(text.contains("1: weights"), "{text}");
        }
        let value: Value = serde_json::from_str(&render(&comparison(), CompareFormat::Json)).unwrap();
        assert_eq!(value["strategies"][0]["strategy"], "latency");
        assert_eq!(value["strategies"][0]["oracle"]["regret"]["mean"], 0.2);
        assert_eq!(value["strategies"][0]["oracle"]["regret"]["ratio"], 0.2);
        assert_eq!(value["strategies"][0]["reliability"]["detect_s"], Value::Null);
        assert_eq!(value["setup"]["seeds"], 2);
    }

    #[test]
    fn terminal_lines_end_without_spaces_and_columns_stand_under_each_other() {
        let text = render(&comparison(), CompareFormat::Table);
        assert!(text.lines().all(|line| line == line.trim_end()));
        let at = |needle: &str| text.lines().find_map(|line| line.find(needle));
        assert_eq!(at("regret"), at("0.200 (0.20x)"));
    }
}
