//! A control plane on loopback sockets, and clients for it.
#![expect(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

use std::{path::Path, time::Duration};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use trunkline_control_plane::{
    security::Security,
    start::{Listen, Options, Recovery, Running, start},
};
use trunkline_proto::{
    admin::v1::{Config, admin_service_client::AdminServiceClient},
    document,
};

/// Two providers of which one virtual model uses both.
pub(crate) const DOCUMENT: &str = r#"
providers:
  - name: one
    dialect: DIALECT_OPENAI
    base_url: https://one.example.com/v1
    deployments:
      - {name: small, price: {input_usd_per_mtok: "1", output_usd_per_mtok: "2"}}
      - {name: large}
  - name: two
    dialect: DIALECT_OPENAI
    base_url: https://two.example.com/v1
    deployments: [{name: small}]
virtual_models:
  - name: chat
    strategy: STRATEGY_WEIGHTED
    tiers:
      - targets: [{deployment: one/small, weight: 70}, {deployment: two/small, weight: 30}]
"#;

/// Longest wait for anything in a test.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A control plane in this process.
pub(crate) struct Plane {
    pub(crate) running: Running,
    pub(crate) shutdown: CancellationToken,
    pub(crate) channel: Channel,
    pub(crate) admin: AdminServiceClient<Channel>,
}

impl Plane {
    /// In memory.
    pub(crate) async fn empty() -> Self {
        Self::with(options()).await
    }

    /// In memory, with [`DOCUMENT`] applied.
    pub(crate) async fn configured() -> Self {
        let mut plane = Self::empty().await;
        plane.admin.apply_config(apply(config(DOCUMENT))).await.unwrap();
        plane
    }

    /// With its data in `directory`.
    pub(crate) async fn on_disk(directory: &Path) -> Self {
        Self::with(Options { data_dir: Some(directory.to_owned()), ..options() }).await
    }

    pub(crate) async fn with(options: Options) -> Self {
        let shutdown = CancellationToken::new();
        let running = start(options, shutdown.clone()).await.unwrap();
        let channel = Channel::from_shared(format!("http://{}", running.grpc_addr)).unwrap();
        let channel = channel.connect().await.unwrap();
        let admin = AdminServiceClient::new(channel.clone());
        Self { running, shutdown, channel, admin }
    }

    /// What the ops listener answers, with its head.
    pub(crate) async fn page(&self, path: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(self.running.ops_addr).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    /// Drains it.
    pub(crate) async fn stop(self) {
        let Self { running, shutdown, channel, admin } = self;
        drop((channel, admin));
        shutdown.cancel();
        running.wait().await.unwrap();
    }
}

pub(crate) fn options() -> Options {
    let any = || Listen::Address("127.0.0.1:0".parse().unwrap());
    Options {
        grpc: any(),
        ops: any(),
        data_dir: None,
        recovery: Recovery::default(),
        config: None,
        security: Security::default(),
        price_feed: None,
    }
}

pub(crate) fn config(text: &str) -> Config {
    document::load(text).unwrap()
}

pub(crate) fn apply(config: Config) -> trunkline_proto::admin::v1::ApplyConfigRequest {
    trunkline_proto::admin::v1::ApplyConfigRequest { config: Some(config), ..Default::default() }
}
