//! Asks for a decision, pretends to call the provider itself, and reports what came
//! of it. For services that keep their own provider clients.
//!
//! ```sh
//! cargo run -p trunkline-sdk --example route_and_report -- http://127.0.0.1:7700
//! ```
#![expect(clippy::print_stdout, reason = "an example shows its result")]

use std::env;

use anyhow::Context as _;
use trunkline_sdk::{
    Client, RouteRequestExt as _,
    types::{CostSource, Duration, OutcomeClass, ReportOutcomeRequest, RouteRequest, Usage},
};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let address = env::args().nth(1).or_else(|| env::var("TRUNKLINE_ADDRESS").ok());
    let address = address.unwrap_or_else(|| "http://127.0.0.1:7700".to_owned());
    let client = Client::connect(address).await?;

    let response = client.route(RouteRequest::model("chat")).await?;
    let decision = response.decision.context("the answer has no decision")?;
    for candidate in &decision.candidates {
        println!(
            "tier {}: {} (first with {:.0} %)",
            candidate.tier,
            candidate.deployment,
            candidate.probability * 100.0
        );
    }
    let first = decision.candidates.first().context("no target can take the request")?;

    // Here the service calls `first.deployment` and measures.
    client
        .report_outcome(ReportOutcomeRequest {
            decision_id: decision.decision_id.clone(),
            deployment: first.deployment.clone(),
            outcome: OutcomeClass::Ok.into(),
            status: 200,
            duration: Some(Duration { seconds: 0, nanos: 420_000_000 }),
            usage: Some(Usage {
                input_tokens: 12,
                output_tokens: 34,
                source: CostSource::Provider.into(),
                ..Usage::default()
            }),
            ..ReportOutcomeRequest::default()
        })
        .await?;

    let explained = client.explain_decision(decision.decision_id).await?;
    println!("attempts known to Trunkline: {}", explained.attempts.len());
    Ok(())
}
