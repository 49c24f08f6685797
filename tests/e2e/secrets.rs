//! Tokens, app keys and providers' keys are in no output of any process, however it is
//! used and however much it logs.

use std::{
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

use reqwest::Client as Http;
use tempfile::TempDir;
use tonic::{
    Code, Request, Status,
    metadata::{Ascii, MetadataValue},
    transport::{Channel, Endpoint},
};
use trunkline_proto::admin::v1::{
    ExportConfigRequest, ExportStateRequest, GetProviderRequest, GetStatsRequest, ListAgentsRequest,
    ListBreakersRequest, ListFaultsRequest, ListProvidersRequest, ListRevisionsRequest, QueryAuditRequest,
    QueryHistoryRequest, WatchResourcesRequest, admin_service_client::AdminServiceClient,
};
use trunkline_sdk::{Client, CompleteRequestExt as _, types::CompleteRequest};
use trunkline_simulator::live::LiveProvider;
use trunkline_tests::{
    chat::chat,
    document::{Document, api_keys},
    patience::until,
    process::Process,
    provider::{Provider, TOKENS, model},
};

const ADMIN: &str = "canary-admin-5e1f6a7b8c9d";
const VIEWER: &str = "canary-viewer-5e1f6a7b8c9d";
const AGENT: &str = "canary-agent-5e1f6a7b8c9d";
const APP: &str = "canary-app-5e1f6a7b8c9d";
const PROVIDER: &str = "canary-provider-5e1f6a7b8c9d";
const WRONG: &str = "canary-wrong-5e1f6a7b8c9d";
const CANARIES: [&str; 6] = [ADMIN, VIEWER, AGENT, APP, PROVIDER, WRONG];

/// All that came out, by where.
#[derive(Default)]
struct Seen(Vec<(String, String)>);

impl Seen {
    fn note(&mut self, place: &str, said: impl Into<String>) {
        self.0.push((place.to_owned(), said.into()));
    }

    fn check(&self) {
        for (place, said) in &self.0 {
            let found = CANARIES.iter().find(|canary| said.contains(*canary));
            assert!(found.is_none(), "{place} shows {}: {said}", found.unwrap());
        }
    }
}

fn arguments(directory: &Path, more: &[(&str, &Path)]) -> Vec<String> {
    let mut arguments: Vec<_> = ["--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0", "--log", "trace"]
        .map(str::to_owned)
        .to_vec();
    arguments.extend(["--data-dir".to_owned(), directory.display().to_string()]);
    for (flag, path) in more {
        arguments.extend([(*flag).to_owned(), path.display().to_string()]);
    }
    arguments
}

fn start_control_plane(directory: &Path, document: &str) -> Process {
    let write = |name: &str, text: String| {
        let path = directory.join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let files: [(&str, PathBuf); 4] = [
        ("--admin-token-file", write("admin.tokens", format!("alice {ADMIN}\n"))),
        ("--viewer-token-file", write("viewer.tokens", format!("{VIEWER}\n"))),
        ("--agent-token-file", write("agent.tokens", format!("agent-1 {AGENT}\n"))),
        ("--config", write("trunkline.yaml", document.to_owned())),
    ];
    let files = files.each_ref().map(|(flag, path)| (*flag, path.as_path()));
    let arguments = arguments(&directory.join("control-plane"), &files);
    Process::watched("tested-control-plane", &arguments, &[], &CANARIES)
}

fn start_agent(directory: &Path, control_plane: &str) -> Process {
    let token = directory.join("agent.tokens");
    let mut arguments = arguments(&directory.join("agent"), &[("--control-plane-token-file", &token)]);
    arguments.extend(["--control-plane", control_plane, "--agent-id", "agent-1"].map(str::to_owned));
    Process::watched("tested-agent", &arguments, &[("CANARY_KEY", PROVIDER)], &CANARIES)
}

/// Every read of an admin, with a token.
async fn read_everything(url: &str, token: &str, seen: &mut Seen) -> Vec<Code> {
    let channel: Channel = Endpoint::from_shared(url.to_owned()).unwrap().connect().await.unwrap();
    let value: MetadataValue<Ascii> = format!("Bearer {token}").parse().unwrap();
    let mut admin = AdminServiceClient::with_interceptor(channel, move |mut request: Request<()>| {
        request.metadata_mut().insert("authorization", value.clone());
        Ok::<_, Status>(request)
    });
    let mut codes = Vec::new();
    let mut note = |place: &str, said: Result<String, Status>| {
        codes.push(said.as_ref().err().map_or(Code::Ok, Status::code));
        seen.note(place, said.unwrap_or_else(|status| format!("{status} {status:?}")));
    };
    let provider = GetProviderRequest { name: "locked".to_owned() };
    note("GetProvider", admin.get_provider(provider).await.map(|answer| format!("{answer:?}")));
    let providers = admin.list_providers(ListProvidersRequest::default()).await;
    note("ListProviders", providers.map(|answer| format!("{answer:?}")));
    let config = admin.export_config(ExportConfigRequest::default()).await;
    note("ExportConfig", config.map(|answer| format!("{answer:?}")));
    let agents = admin.list_agents(ListAgentsRequest::default()).await;
    note("ListAgents", agents.map(|answer| format!("{answer:?}")));
    let breakers = admin.list_breakers(ListBreakersRequest::default()).await;
    note("ListBreakers", breakers.map(|answer| format!("{answer:?}")));
    let stats = admin.get_stats(GetStatsRequest::default()).await;
    note("GetStats", stats.map(|answer| format!("{answer:?}")));
    let revisions = admin.list_revisions(ListRevisionsRequest::default()).await;
    note("ListRevisions", revisions.map(|answer| format!("{answer:?}")));
    let audit = admin.query_audit(QueryAuditRequest::default()).await;
    note("QueryAudit", audit.map(|answer| format!("{answer:?}")));
    let faults = admin.list_faults(ListFaultsRequest::default()).await;
    note("ListFaults", faults.map(|answer| format!("{answer:?}")));
    let start_time = Some(SystemTime::now().into());
    let history = admin.query_history(QueryHistoryRequest { start_time, ..Default::default() }).await;
    note("QueryHistory", history.map(|answer| format!("{answer:?}")));
    let watched = match admin.watch_resources(WatchResourcesRequest::default()).await {
        Ok(answer) => answer.into_inner().message().await.map(|message| format!("{message:?}")),
        Err(refused) => Err(refused),
    };
    note("WatchResources", watched);
    if token == ADMIN {
        let mut pieces = admin.export_state(ExportStateRequest {}).await.unwrap().into_inner();
        let mut bytes = Vec::new();
        while let Some(piece) = pieces.message().await.unwrap() {
            bytes.extend_from_slice(&piece.data);
        }
        assert!(bytes.windows(6).any(|six| six == b"locked"), "the export holds the configuration");
        note("ExportState", Ok(String::from_utf8_lossy(&bytes).into_owned()));
    }
    codes
}

async fn post(url: &str, body: String, key: &str) -> (u16, String) {
    let request = Http::new().post(format!("{url}/v1/chat/completions"));
    let request = request.header("content-type", "application/json").bearer_auth(key).body(body);
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    (status, format!("{:?} {}", response.headers().clone(), response.text().await.unwrap()))
}

async fn get(url: String) -> (u16, String) {
    let response = Http::new().get(url).send().await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

/// Everything that a process keeps on disk.
fn note_files(directory: &Path, seen: &mut Seen) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            note_files(&path, seen);
        } else {
            let bytes = fs::read(&path).unwrap();
            seen.note(&path.display().to_string(), String::from_utf8_lossy(&bytes));
        }
    }
}

#[tokio::test]
async fn secrets_are_in_no_output() {
    let directory = TempDir::new().unwrap();
    let provider = LiveProvider::new(model("locked", TOKENS), 1).with_bearer_key(PROVIDER);
    let provider = Provider::serve("locked", provider).await;
    let document = Document::even(&[&provider])
        .provider("locked", "credential: {env: CANARY_KEY}")
        .section(&api_keys(&[("team-a", APP, &[])]));
    let control_plane = start_control_plane(directory.path(), &document.yaml());
    let (url, ops) = (control_plane.url("control-plane"), control_plane.url("control-plane-ops"));
    let agent = start_agent(directory.path(), &url);
    let (agent_url, agent_ops) = (agent.url("agent"), agent.url("agent-ops"));
    let ready = async || get(format!("{agent_ops}/readyz")).await.0;
    until("the agent to be ready", ready, |status| *status == 200).await;

    let mut seen = Seen::default();
    for (body, key, status) in [
        (chat(false).to_string(), APP, 200),
        (chat(true).to_string(), APP, 200),
        (chat(false).to_string(), WRONG, 401),
        ("{".to_owned(), APP, 400),
    ] {
        let (got, said) = post(&agent_url, body, key).await;
        assert_eq!(got, status, "{said}");
        seen.note("an answer", said);
    }
    // Without them in use, their absence would show nothing.
    assert_eq!(provider.last_seen().header("authorization"), Some(&*format!("Bearer {PROVIDER}")));
    for key in [APP, WRONG] {
        for url in [&agent_url, &url] {
            let builder = Client::builder(url.as_str()).api_key(key);
            seen.note("a client", format!("{builder:?}"));
            let client = builder.connect().await.unwrap();
            let answer = client.complete(CompleteRequest::user("chat", "hello")).await;
            assert_eq!(answer.is_ok(), key == APP, "{answer:?}");
            seen.note("a completion", format!("{answer:?}"));
        }
    }
    for (token, code) in [(ADMIN, Code::Ok), (VIEWER, Code::Ok), (WRONG, Code::Unauthenticated)] {
        let codes = read_everything(&url, token, &mut seen).await;
        assert!(codes.iter().all(|got| *got == code), "{codes:?}");
    }
    for ops in [&ops, &agent_ops] {
        let (status, said) = get(format!("{ops}/metrics")).await;
        assert_eq!(status, 200);
        seen.note("metrics", said);
    }
    for data in ["control-plane", "agent"] {
        note_files(&directory.path().join(data), &mut seen);
    }
    seen.check();
    assert!(control_plane.said("TRACE") && agent.said("TRACE"), "they must have logged everything");
    assert_eq!((control_plane.found(), agent.found()), (Vec::new(), Vec::new()));
}
