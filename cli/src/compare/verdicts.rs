//! The judged acceptance table as text: for terminals, Markdown, or JSON.

use serde_json::{Value, json};
use trunkline_simulator::report::acceptance::{NOT_BUILT, NotBuilt};

use super::acceptance::{Judged, Outcome};
use crate::{
    args::CompareFormat,
    table::{self, Align},
};

const COLUMNS: [(&str, Align); 7] = [
    ("ROW", Align::Left),
    ("", Align::Left),
    ("CONDITION", Align::Left),
    ("MEASURED", Align::Right),
    ("BOUND", Align::Right),
    ("MARGIN", Align::Right),
    ("RESULT", Align::Left),
];

/// In the form that was asked for; `line` tells what was run.
pub(super) fn render(outcomes: &[Outcome], line: &str, format: CompareFormat) -> String {
    match format {
        CompareFormat::Table => {
            let table = table::render(COLUMNS, &rows(outcomes));
            format!("Acceptance: {line}\n\n{table}\n{}{}", total(outcomes), not_built())
        }
        CompareFormat::Markdown => markdown(outcomes, line),
        CompareFormat::Json => json_text(outcomes, line),
    }
}

fn total(outcomes: &[Outcome]) -> String {
    let holds = outcomes.iter().filter(|outcome| outcome.holds()).count();
    format!("{holds} of {} rows hold\n", outcomes.len())
}

/// Rows that nobody can judge yet, so that nobody takes the table for the whole of it.
fn not_built() -> String {
    let line = |row: &NotBuilt| format!("row {} ({}): not built yet: {}\n", row.id, row.name, row.missing);
    NOT_BUILT.iter().map(line).collect()
}

fn rows(outcomes: &[Outcome]) -> Vec<[String; 7]> {
    outcomes.iter().flat_map(|outcome| outcome.verdicts.iter().map(|judged| row(outcome, judged))).collect()
}

fn row(outcome: &Outcome, judged: &Judged) -> [String; 7] {
    let Judged { condition, is_control, verdict } = judged;
    let margin = verdict.margin(condition.sense).map(|margin| format!("{:.0} %", margin * 100.0));
    [
        format!("{} {}", outcome.row.id, outcome.row.name),
        if *is_control { "control" } else { "" }.to_owned(),
        condition.to_string(),
        number(verdict.measured),
        number(verdict.bound),
        margin.unwrap_or_else(|| "-".to_owned()),
        if verdict.holds { "pass" } else { "FAIL" }.to_owned(),
    ]
}

/// Enough decimals for shares near 1 and for seconds.
fn number(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.4}"))
}

fn markdown(outcomes: &[Outcome], line: &str) -> String {
    let head = "| row | | condition | measured | bound | margin | result |\n|---|---|---|--:|--:|--:|---|\n";
    let lines: Vec<_> =
        rows(outcomes).into_iter().map(|cells| format!("| {} |", cells.join(" | "))).collect();
    let not_built: Vec<_> = not_built().lines().map(|line| format!("- {line}")).collect();
    let (lines, not_built) = (lines.join("\n"), not_built.join("\n"));
    format!("Acceptance: {line}\n\n{head}{lines}\n\n{}\n{not_built}\n", total(outcomes))
}

fn json_text(outcomes: &[Outcome], line: &str) -> String {
    let rows: Vec<Value> = outcomes
        .iter()
        .map(|outcome| {
            json!({
                "row": outcome.row.id,
                "name": outcome.row.name,
                "holds": outcome.holds(),
                "conditions": outcome.verdicts.iter().map(json_condition).collect::<Vec<_>>(),
            })
        })
        .collect();
    let holds = outcomes.iter().all(Outcome::holds);
    let not_built: Vec<Value> = NOT_BUILT
        .iter()
        .map(|row| json!({ "row": row.id, "name": row.name, "missing": row.missing }))
        .collect();
    // Plain maps, numbers and strings can always be written.
    serde_json::to_string_pretty(
        &json!({ "run": line, "holds": holds, "rows": rows, "not_built": not_built }),
    )
    .unwrap_or_default()
        + "\n"
}

fn json_condition(judged: &Judged) -> Value {
    let Judged { condition, is_control, verdict } = judged;
    json!({
        "condition": condition.to_string(),
        "control": is_control,
        "scenario": condition.scenario,
        "policy": condition.policy,
        "metric": condition.metric,
        "measured": verdict.measured,
        "bound": verdict.bound,
        "margin": verdict.margin(condition.sense),
        "holds": verdict.holds,
    })
}

#[cfg(test)]
mod tests {
    use trunkline_simulator::report::acceptance;

    use super::*;

    /// Row 01 with the same figure for everything.
    fn outcome(figure: f64) -> Outcome {
        let row = acceptance::rows()[0];
        let judged = |condition, is_control| Judged {
            condition,
            is_control,
            verdict: acceptance::Condition::judge(condition, |_| Some(figure)),
        };
        let pass = row.pass.iter().map(|condition| judged(condition, false));
        Outcome { row, verdicts: pass.chain(row.must_fail.iter().map(|c| judged(c, true))).collect() }
    }

    #[test]
    fn a_row_holds_only_with_its_controls() {
        let outcome = outcome(0.01);
        assert!(!outcome.holds(), "the control's regret is not above 0.8");
        let text = render(&[outcome], "x", CompareFormat::Table);
        assert!(text.contains("0 of 1 rows hold"), "{text}");
        let control = text.lines().find(|line| line.contains("control")).unwrap();
        assert!(control.contains("regret > 0.8") && control.ends_with("FAIL"), "{control}");
        let first = text.lines().find(|line| line.contains("regret <= 0.12")).unwrap();
        assert!(first.ends_with("92 %  pass"), "{first}");
    }

    #[test]
    fn every_form_tells_every_condition() {
        let outcome = [outcome(0.01)];
        let value: Value = serde_json::from_str(&render(&outcome, "x", CompareFormat::Json)).unwrap();
        assert_eq!(value["holds"], false);
        assert_eq!(value["not_built"][2]["row"], "E");
        for format in [CompareFormat::Table, CompareFormat::Markdown] {
            assert!(render(&outcome, "x", format).contains("row 16 (predictive, daily pattern): not built"));
        }
        assert_eq!(value["rows"][0]["conditions"].as_array().unwrap().len(), outcome[0].verdicts.len());
        let markdown = render(&outcome, "x", CompareFormat::Markdown);
        assert_eq!(
            markdown.lines().filter(|line| line.starts_with("| 01")).count(),
            outcome[0].verdicts.len()
        );
    }
}
