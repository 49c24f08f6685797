//! A provider that can be made faulty, killed and brought back, inside the test.

use std::{net::SocketAddr, sync::Arc};

use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use trunkline_simulator::{
    OutputLength, ProviderModel, Tpot, Ttft,
    live::{Fault, LiveProvider, Seen, serve},
};

/// Words, and so tokens, of an answer of [`Provider::start`].
pub const TOKENS: u64 = 10;

/// The text of such an answer.
pub const ANSWER: &str = "This is a simulated answer, one word for each";

/// A provider on a port of its own.
#[derive(Debug)]
pub struct Provider {
    /// Its name in documents.
    pub name: String,
    /// What it counts, saw and does wrong.
    pub live: Arc<LiveProvider>,
    address: SocketAddr,
    task: Option<JoinHandle<()>>,
}

/// No latency, so many tokens, no failures of its own.
pub fn model(name: &str, tokens: u64) -> ProviderModel {
    ProviderModel {
        name: name.to_owned(),
        ttft: Ttft { base_s: 0.0, per_1k_input_s: 0.0, sigma: 0.0, head_share: 0.0 },
        tpot: Tpot { median_s: 0.0, sigma: 0.0 },
        output: OutputLength { median_tokens: tokens as f64, sigma: 0.0, max_tokens: 4096 },
        ..ProviderModel::default()
    }
}

impl Provider {
    /// One that answers [`ANSWER`] at once.
    pub async fn start(name: &str) -> Self {
        Self::serve(name, LiveProvider::new(model(name, TOKENS), 1)).await
    }

    /// One that answers so many words at once.
    pub async fn talkative(name: &str, tokens: u64) -> Self {
        Self::serve(name, LiveProvider::new(model(name, tokens), 1)).await
    }

    /// One that answers so many words, with this much time before each.
    pub async fn slow(name: &str, tokens: u64, tpot_s: f64) -> Self {
        let mut model = model(name, tokens);
        model.tpot.median_s = tpot_s;
        Self::serve(name, LiveProvider::new(model, 1)).await
    }

    /// Serves any live provider.
    pub async fn serve(name: &str, live: LiveProvider) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (live, address) = (Arc::new(live), listener.local_addr().unwrap());
        let task = tokio::spawn(serve(listener, Arc::clone(&live), CancellationToken::new()));
        Self { name: name.to_owned(), live, address, task: Some(task) }
    }

    /// For documents.
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Its one deployment's full name.
    pub fn deployment(&self) -> String {
        format!("{}/m", self.name)
    }

    /// Sets the fault of every request from now on, or ends it.
    pub fn fail(&self, fault: impl Into<Option<Fault>>) {
        self.live.set_fault(fault.into());
    }

    /// Requests it got so far.
    pub fn requests(&self) -> u64 {
        self.live.counters().requests
    }

    /// The newest request.
    pub fn last_seen(&self) -> Seen {
        self.live.last_seen().expect("the provider got no request")
    }

    /// Closes its listener and all its connections, as a crash would.
    pub async fn die(&mut self) {
        let task = self.task.take().expect("it is alive");
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
    }

    /// Serves again on the same port.
    pub async fn revive(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.task = Some(tokio::spawn(serve(listener, Arc::clone(&self.live), CancellationToken::new())));
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}
