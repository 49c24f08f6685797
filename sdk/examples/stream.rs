//! Streams one chat completion to the terminal.
//!
//! ```sh
//! cargo run -p trunkline-sdk --example stream -- http://127.0.0.1:7700 "tell a story"
//! ```
#![expect(clippy::print_stdout, reason = "an example shows its result")]

use std::{
    env,
    io::{Write as _, stdout},
};

use trunkline_sdk::{
    Client, CompleteRequestExt as _,
    types::{CompleteRequest, Event},
};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut args = env::args().skip(1);
    let address = args.next().or_else(|| env::var("TRUNKLINE_ADDRESS").ok());
    let address = address.unwrap_or_else(|| "http://127.0.0.1:7700".to_owned());
    let prompt = args.next().unwrap_or_else(|| "tell a story".to_owned());

    let client = Client::connect(address).await?;
    let request = CompleteRequest::user("chat", prompt).max_output_tokens(64);
    let mut events = client.stream_complete(request).await?;
    while let Some(event) = events.next().await {
        match event? {
            Event::Started(started) => {
                let decision = started.decision.unwrap_or_default();
                println!("[{} by {}]", decision.decision_id, decision.chosen);
            }
            Event::Delta(delta) => {
                print!("{}", delta.content);
                stdout().flush()?;
            }
            Event::Finished(finished) => {
                let usage = finished.usage.unwrap_or_default();
                println!("\n[{}, {} tokens]", finished.finish_reason, usage.output_tokens);
            }
        }
    }
    Ok(())
}
