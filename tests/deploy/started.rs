//! The command lines of `compose.yaml` and of the units, started as plain processes on
//! loopback: addresses and directories are rewritten, everything else is as written.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use tempfile::TempDir;
use trunkline_tests::{patience::until, process::Process};

use crate::{
    compose::services,
    environment::Environment,
    read, said, secrets,
    unit::{Unit, variables},
};

/// The executable of this package that stands for an installed one.
fn tested(program: &str) -> String {
    format!("tested-{}", program.rsplit('/').next().unwrap().trim_start_matches("trunkline-"))
}

/// What is rewritten in a command line, as pairs of what is there and what replaces it.
type Rewrites = Vec<(String, String)>;

fn rewritten(words: &[String], rewrites: &Rewrites) -> Vec<String> {
    let rewrite = |word: &String| {
        rewrites.iter().fold(word.clone(), |word, (from, to)| word.replace(from.as_str(), to))
    };
    words.iter().map(rewrite).collect()
}

/// `https://127.0.0.1:1` by the name that the certificates have too.
fn by_name(url: &str) -> String {
    url.replace("127.0.0.1", "localhost")
}

/// Curl's answer: the status, then the body.
fn curl(ca: &Path, url: &str, key: Option<&str>, body: &str) -> (String, String) {
    let mut command = Command::new("curl");
    command.args([
        "--silent",
        "--show-error",
        "--max-time",
        "20",
        "--write-out",
        "\n%{http_code}",
        "--cacert",
    ]);
    command.arg(ca).args(["--header", "content-type: application/json", "--data", body]);
    if let Some(key) = key {
        command.args(["--header", &format!("authorization: Bearer {key}")]);
    }
    let output = command.arg(url).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    let (body, status) = text.rsplit_once('\n').unwrap();
    (status.to_owned(), body.to_owned())
}

/// The processes, and what they were started with.
struct Deployment {
    secrets: PathBuf,
    provider: Process,
    control_plane: Process,
    agents: Vec<Process>,
    rewrites: Rewrites,
    _data: TempDir,
}

impl Deployment {
    /// All services of the compose file.
    fn compose() -> Self {
        let data = TempDir::new().unwrap();
        let secrets = secrets::make(&data);
        let services = services();
        let mut rewrites: Rewrites = vec![("/run/secrets".to_owned(), secrets.display().to_string())];
        for port in [7600, 7601, 7700, 7701, 9000] {
            rewrites.push((format!("0.0.0.0:{port}"), "127.0.0.1:0".to_owned()));
        }
        let start = |name: &str, rewrites: &Rewrites| {
            let command = rewritten(&services[name].texts("command"), rewrites);
            let directory = data.path().join(name).display().to_string();
            // The image names the volume in these.
            let variables = ["TRUNKLINE_CONTROL_PLANE_DATA_DIR", "TRUNKLINE_AGENT_DATA_DIR"]
                .map(|one| (one, directory.as_str()));
            Process::start(&tested(&command[0]), &command[1..], &variables)
        };
        let provider = start("provider", &rewrites);
        point_document_at(&secrets.join("trunkline.yaml"), &provider.url("provider"));
        let control_plane = start("control-plane", &rewrites);
        rewrites
            .push(("https://control-plane:7600".to_owned(), by_name(&control_plane.url("control-plane"))));
        let agents = ["agent-1", "agent-2"].map(|name| start(name, &rewrites)).into();
        Self { secrets, provider, control_plane, agents, rewrites, _data: data }
    }

    /// The control plane and one agent of the units, beside a provider.
    fn units() -> Self {
        let data = TempDir::new().unwrap();
        let secrets = secrets::make(&data);
        let arguments = ["simulate-provider", "--preset=swift", "--listen=127.0.0.1:0"].map(str::to_owned);
        let provider = Process::start("tested-trunkline", &arguments, &[]);
        point_document_at(&secrets.join("trunkline.yaml"), &provider.url("provider"));
        let control_plane = start_unit(&data, &secrets, "control-plane", &Rewrites::new());
        let url = by_name(&control_plane.url("control-plane"));
        let rewrites = vec![("https://control-plane.example.com:7600".to_owned(), url)];
        let agents = vec![start_unit(&data, &secrets, "agent", &rewrites)];
        Self { secrets, provider, control_plane, agents, rewrites, _data: data }
    }

    /// One line of a file of secrets, without the name before it.
    fn token(&self, file: &str) -> String {
        let text = fs::read_to_string(self.secrets.join(file)).unwrap();
        text.split_whitespace().last().unwrap().to_owned()
    }

    fn ca(&self) -> PathBuf {
        self.secrets.join("ca.crt")
    }

    /// `trunkline`, with an operator's token.
    fn trunkline(&self, words: &[&str]) -> Output {
        Command::new(crate::program("trunkline"))
            .args(words)
            .env("TRUNKLINE_CONTROL_PLANE_URL", by_name(&self.control_plane.url("control-plane")))
            .env("TRUNKLINE_TOKEN_FILE", self.secrets.join("admin.tokens"))
            .env("TRUNKLINE_CA_FILE", self.ca())
            .output()
            .unwrap()
    }

    /// Whether a service's own health check is content.
    fn is_healthy(&self, service: &str) -> (bool, String) {
        let (process, role, port) = match service {
            "provider" => (&self.provider, "provider", "http://localhost:9000/v1"),
            "control-plane" => (&self.control_plane, "control-plane-ops", "https://localhost:7601"),
            "agent-1" => (&self.agents[0], "agent-ops", "https://localhost:7701"),
            _ => (&self.agents[1], "agent-ops", "https://localhost:7701"),
        };
        let mut rewrites = self.rewrites.clone();
        rewrites.push((port.to_owned(), by_name(&process.url(role))));
        let command = rewritten(&services()[service].health_check(), &rewrites);
        let output = Command::new(crate::program(&command[0])).args(&command[1..]).output().unwrap();
        (output.status.success(), said(&output))
    }

    /// Chats through one agent with a key.
    fn chat(&self, agent: &Process, key: Option<&str>) -> (String, String) {
        let body = r#"{"model": "chat", "messages": [{"role": "user", "content": "hello"}]}"#;
        curl(&self.ca(), &format!("{}/v1/chat/completions", by_name(&agent.url("agent"))), key, body)
    }

    /// Calls a method of the admin API as grpcurl does.
    fn grpcurl(&self, environment: &Environment, token: Option<&str>, data: &str, method: &str) -> Output {
        let mut command = Command::new(environment.tool("grpcurl"));
        command.arg("-cacert").arg(self.ca()).args(["-d", data]);
        if let Some(token) = token {
            command.args(["-H", &format!("authorization: Bearer {token}")]);
        }
        let url = by_name(&self.control_plane.url("control-plane"));
        command
            .args([url.trim_start_matches("https://"), &format!("trunkline.admin.v1.AdminService/{method}")]);
        command.output().unwrap()
    }

    /// Waits until so many agents are connected, as an operator sees it.
    async fn agents_are_connected(&self, count: usize) {
        let connected = async || {
            let output = self.trunkline(&["get", "agents"]);
            assert!(output.status.success(), "{}", said(&output));
            said(&output)
        };
        until("the agents to connect", connected, |table| table.matches(" connected ").count() == count)
            .await;
    }

    /// Ends all as the files' owners do: agents first.
    async fn stop(mut self) {
        for process in self.agents.iter_mut().chain([&mut self.control_plane]) {
            process.terminate();
            let status = process.ended().await;
            assert_eq!(status.code(), Some(0), "{}", process.log());
        }
    }
}

/// The document's provider is the one that runs here.
fn point_document_at(document: &Path, url: &str) {
    let text = fs::read_to_string(document).unwrap();
    assert!(text.contains("http://provider:9000/v1"), "{text}");
    // It is read-only, its directory is not.
    fs::remove_file(document).unwrap();
    fs::write(document, text.replace("http://provider:9000/v1", url)).unwrap();
}

/// Does what systemd would: credentials in a directory, variables from their file.
fn start_unit(data: &TempDir, secrets: &Path, name: &str, rewrites: &Rewrites) -> Process {
    let unit = Unit::read(&read(&format!("deploy/systemd/trunkline-{name}.service")));
    let credentials = data.path().join(format!("{name}-credentials"));
    fs::create_dir(&credentials).unwrap();
    for (credential, file) in
        unit.credentials().into_iter().filter(|(credential, _)| credential != "providers")
    {
        // Installed under these names; the script has the agent's id in them.
        let made = match file.trim_start_matches("/etc/trunkline/") {
            "agent.crt" => "agent-1.crt",
            "agent.key" => "agent-1.key",
            "agent.token" => "agent-1.token",
            same => same,
        };
        fs::copy(secrets.join(made), credentials.join(&credential))
            .unwrap_or_else(|error| panic!("{made}: {error}"));
    }
    let mut all = rewrites.clone();
    all.push(("${CREDENTIALS_DIRECTORY}".to_owned(), credentials.display().to_string()));
    all.push(("${STATE_DIRECTORY}".to_owned(), data.path().join(name).display().to_string()));
    for port in [7600, 7601, 7700, 7701] {
        all.push((format!("0.0.0.0:{port}"), "127.0.0.1:0".to_owned()));
    }
    let command = rewritten(&unit.command(), &all);
    let file = read(&format!("deploy/systemd/{name}.env"));
    let (names, values): (Vec<_>, Vec<_>) = variables(&file).into_iter().unzip();
    let values = rewritten(&values, &all);
    let variables: Vec<_> = names.iter().map(String::as_str).zip(values.iter().map(String::as_str)).collect();
    Process::start(&tested(&command[0]), &command[1..], &variables)
}

#[tokio::test(flavor = "multi_thread")]
async fn composed_services_are_healthy_and_serve_over_tls_with_keys_only() {
    let environment = Environment::prepare();
    let deployment = Deployment::compose();
    for service in services().keys() {
        let healthy = async || deployment.is_healthy(service);
        until(&format!("{service} to be healthy"), healthy, |(healthy, _)| *healthy).await;
    }
    deployment.agents_are_connected(2).await;

    let key = deployment.token("app.key");
    for agent in &deployment.agents {
        let (status, body) = deployment.chat(agent, Some(&key));
        assert_eq!(status, "200", "{body}");
        assert!(body.contains("This is a simulated answer"), "{body}");
        for wrong in [None, Some("sk-wrong")] {
            assert_eq!(deployment.chat(agent, wrong).0, "401", "{wrong:?}");
        }
    }

    let admin = deployment.token("admin.tokens");
    let listed = deployment.grpcurl(&environment, Some(&admin), "{}", "ListAgents");
    assert_eq!(said(&listed).matches("AGENT_STATE_CONNECTED").count(), 2, "{}", said(&listed));
    let refused = deployment.grpcurl(&environment, None, "{}", "ListAgents");
    assert!(!refused.status.success() && said(&refused).contains("Unauthenticated"), "{}", said(&refused));
    let viewer = deployment.token("viewer.tokens");
    let refused = deployment.grpcurl(&environment, Some(&viewer), r#"{"config": {}}"#, "ApplyConfig");
    assert!(!refused.status.success() && said(&refused).contains("PermissionDenied"), "{}", said(&refused));
    deployment.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn units_start_serve_and_end_as_systemd_runs_them() {
    let deployment = Deployment::units();
    deployment.agents_are_connected(1).await;
    let key = deployment.token("app.key");
    let chat = async || deployment.chat(&deployment.agents[0], Some(&key));
    let (_, body) = until("the agent to serve", chat, |(status, _)| status == "200").await;
    assert!(body.contains("This is a simulated answer"), "{body}");
    deployment.stop().await;
}
