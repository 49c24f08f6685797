//! Prints the distribution of virtual models, and each change of it, until Ctrl-C.
//! Watches again when the stream ends, as a service would.
//!
//! ```sh
//! cargo run -p trunkline-sdk --example watch_routes -- http://127.0.0.1:7700
//! ```
#![expect(clippy::print_stdout, reason = "an example shows its result")]

use std::{env, time::Duration};

use trunkline_sdk::{
    Client, Error,
    types::{BreakerState, WatchRoutesResponse},
};

/// Between watches.
const PAUSE: Duration = Duration::from_secs(1);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let address = env::args().nth(1).or_else(|| env::var("TRUNKLINE_ADDRESS").ok());
    let address = address.unwrap_or_else(|| "http://127.0.0.1:7700".to_owned());
    let client = Client::connect_lazy(address)?;
    loop {
        match watch(&client).await {
            Ok(()) => println!("the stream ended"),
            Err(error) if error.is_retryable() => println!("{error}"),
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn watch(client: &Client) -> Result<(), Error> {
    let mut states = client.watch_routes(["chat"]).await?;
    while let Some(state) = states.next().await {
        show(&state?);
    }
    Ok(())
}

fn show(state: &WatchRoutesResponse) {
    let revision = state.version.as_ref().map_or(0, |version| version.revision);
    for route in &state.routes {
        println!("revision {revision}, {}:", route.model);
        for target in &route.targets {
            let breaker = BreakerState::try_from(target.breaker_state).unwrap_or_default();
            println!(
                "  tier {}: {:<28} {:>5.1} %  {}",
                target.tier,
                target.deployment,
                target.share * 100.0,
                breaker.as_str_name()
            );
        }
    }
}
