//! Sends one chat completion and prints the answer.
//!
//! ```sh
//! cargo run -p trunkline-sdk --example complete -- http://127.0.0.1:7700 "hello"
//! ```
#![expect(clippy::print_stdout, reason = "an example shows its result")]

use std::env;

use trunkline_sdk::{Client, CompleteRequestExt as _, CompleteResponseExt as _, types::CompleteRequest};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut args = env::args().skip(1);
    let address = args.next().or_else(|| env::var("TRUNKLINE_ADDRESS").ok());
    let address = address.unwrap_or_else(|| "http://127.0.0.1:7700".to_owned());
    let prompt = args.next().unwrap_or_else(|| "hello".to_owned());

    let client = Client::connect(address).await?;
    let request = CompleteRequest::user("chat", prompt).max_output_tokens(64);
    match client.complete(request).await {
        Ok(answer) => println!("{}: {}", answer.deployment(), answer.text()),
        Err(error) if error.is_retryable() => {
            anyhow::bail!("{error}; try again in {:?}", error.retry_after().unwrap_or_default())
        }
        Err(error) => return Err(error.into()),
    }
    Ok(())
}
