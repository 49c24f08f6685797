//! An agent as a process, with a client for its HTTP.

use std::{
    fs,
    time::{SystemTime, UNIX_EPOCH},
};

use reqwest::{Client, RequestBuilder, Response};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    chat::chat,
    document::Document,
    patience::{PATIENCE, until},
    process::Process,
    reply::Reply,
};

/// An agent.
#[derive(Debug)]
pub struct Agent {
    /// Its process.
    pub process: Process,
    /// Where apps reach it.
    pub url: String,
    /// Where operators reach it.
    pub ops_url: String,
    http: Client,
    data: TempDir,
    settings: Settings,
}

/// How an agent is started.
#[derive(Clone, Debug, Default)]
struct Settings {
    control_plane: Option<String>,
    static_config: Option<String>,
    variables: Vec<(&'static str, String)>,
}

impl Agent {
    /// One that runs alone on a document; ready when this returns.
    pub async fn alone(document: &Document) -> Self {
        Self::alone_on(document.yaml(), &[]).await
    }

    /// One that runs alone on a document's text, with environment variables.
    pub async fn alone_on(text: String, variables: &[(&'static str, &str)]) -> Self {
        let variables = variables.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        let settings = Settings { static_config: Some(text), variables, ..Settings::default() };
        let agent = Self::start(settings, TempDir::new().unwrap());
        agent.ready().await;
        agent
    }

    /// One that follows a control plane; maybe not ready yet.
    pub fn following(control_plane: &str) -> Self {
        let settings = Settings { control_plane: Some(control_plane.to_owned()), ..Settings::default() };
        Self::start(settings, TempDir::new().unwrap())
    }

    /// The same with environment variables.
    pub fn following_with(control_plane: &str, variables: &[(&'static str, &str)]) -> Self {
        let variables = variables.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        let settings =
            Settings { control_plane: Some(control_plane.to_owned()), variables, ..Settings::default() };
        Self::start(settings, TempDir::new().unwrap())
    }

    /// Kills it and starts it again on the same data.
    #[must_use]
    pub fn restart(mut self) -> Self {
        self.process.kill();
        let Self { data, settings, .. } = self;
        Self::start(settings, data)
    }

    /// Has it finish and end, and starts it again on the same data.
    pub async fn stop_and_start(mut self) -> Self {
        self.process.terminate();
        let status = self.process.ended().await;
        assert_eq!(status.code(), Some(0), "{}", self.process.log());
        let Self { data, settings, .. } = self;
        Self::start(settings, data)
    }

    /// Waits until what it has counted by now is on its disk.
    pub async fn spooled(&self) {
        let spool = self.data.path().join("agent").join("telemetry.spool");
        let since = SystemTime::now();
        // The write after the next one began after this call.
        let mut seen = Vec::new();
        let newer = async || {
            let written = fs::metadata(&spool).and_then(|about| about.modified()).unwrap_or(UNIX_EPOCH);
            if written > since && !seen.contains(&written) {
                seen.push(written);
            }
            seen.len()
        };
        until("the agent to write its spool", newer, |writes| *writes >= 1).await;
    }

    /// Waits until a routing table is on its disk: it serves one before that, and a start
    /// after a kill would have none.
    pub async fn table_kept(&self) {
        let table = self.data.path().join("agent").join("table.bin");
        until("the agent to keep its routing table", async || table.exists(), |kept| *kept).await;
    }

    fn start(settings: Settings, data: TempDir) -> Self {
        let mut arguments: Vec<String> =
            ["--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0"].map(str::to_owned).to_vec();
        arguments.extend(["--data-dir".to_owned(), data.path().join("agent").display().to_string()]);
        if let Some(url) = &settings.control_plane {
            arguments.extend(["--control-plane".to_owned(), url.clone()]);
        }
        if let Some(text) = &settings.static_config {
            let path = data.path().join("static.yaml");
            fs::write(&path, text).unwrap();
            arguments.extend(["--static-config".to_owned(), path.display().to_string()]);
        }
        let variables: Vec<_> =
            settings.variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let process = Process::start("tested-agent", &arguments, &variables);
        let (url, ops_url) = (process.url("agent"), process.url("agent-ops"));
        // Longer than any wait inside, so that those tell what was missing.
        let http = Client::builder().timeout(PATIENCE * 2).build().unwrap();
        Self { process, url, ops_url, http, data, settings }
    }

    /// Waits until it has a routing table.
    pub async fn ready(&self) {
        until("the agent to be ready", async || self.readiness().await.0, |status| *status == 200).await;
    }

    /// Status and text of `/readyz`.
    pub async fn readiness(&self) -> (u16, String) {
        let response = self.http.get(format!("{}/readyz", self.ops_url)).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    /// A POST to be completed with headers.
    pub fn request(&self, path: &str, body: &Value) -> RequestBuilder {
        self.http.post(format!("{}{path}", self.url)).json(body)
    }

    /// A GET.
    pub async fn get(&self, path: &str) -> Reply {
        Reply::read(self.http.get(format!("{}{path}", self.url)).send().await.unwrap()).await
    }

    /// A POST, read to its end.
    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        Reply::read(self.request(path, body).send().await.unwrap()).await
    }

    /// A short chat request for `chat`.
    pub async fn chat(&self, stream: bool) -> Reply {
        self.post("/v1/chat/completions", &chat(stream)).await
    }

    /// A chat request whose body is still to be read.
    pub async fn open(&self, body: &Value) -> Response {
        self.request("/v1/chat/completions", body).send().await.unwrap()
    }

    /// A client of its gRPC.
    pub async fn sdk(&self) -> trunkline_sdk::Client {
        trunkline_sdk::Client::connect(self.url.as_str()).await.unwrap()
    }

    /// The decision behind a reply, as far as it is known by now.
    pub async fn decision(&self, reply: &Reply) -> trunkline_sdk::types::Decision {
        self.sdk().await.explain_decision(reply.header("x-trunkline-decision")).await.unwrap()
    }
}
