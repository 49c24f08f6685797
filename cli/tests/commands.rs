//! The binary as an operator runs it, against a control plane in this process.

#![expect(clippy::unwrap_used, reason = "a test that can't go on says so")]

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
};

use tempfile::TempDir;
use tokio_util::sync::{CancellationToken, DropGuard};
use trunkline_control_plane::{
    security::Security,
    start::{Listen, Options, Recovery, start},
};

const DOCUMENT: &str = "
providers:
  - name: local
    dialect: OPENAI
    base_url: http://127.0.0.1:9/v1
    allow_private_network: true
    deployments:
      - name: small
        price: {input_usd_per_mtok: 0.10, output_usd_per_mtok: 0.40}
      - name: medium
      - name: large
virtual_models:
  - name: chat
    tiers:
      - targets: [{deployment: local/small, weight: 70}]
";

/// A control plane in memory, and a directory for documents.
struct Setting {
    url: String,
    directory: TempDir,
    _stop: DropGuard,
}

impl Setting {
    async fn new() -> Self {
        let stop = CancellationToken::new();
        let loopback = || Listen::Address("127.0.0.1:0".parse().unwrap());
        let options = Options {
            grpc: loopback(),
            ops: loopback(),
            data_dir: None,
            recovery: Recovery::default(),
            config: None,
            security: Security::default(),
            price_feed: None,
        };
        let running = start(options, stop.clone()).await.unwrap();
        let url = format!("http://{}", running.grpc_addr);
        tokio::spawn(running.wait());
        Self { url, directory: TempDir::new().unwrap(), _stop: stop.drop_guard() }
    }

    fn write(&self, text: &str) -> PathBuf {
        let path = self.directory.path().join("trunkline.yaml");
        fs::write(&path, text).unwrap();
        path
    }

    fn run(&self, args: &[&str]) -> Output {
        trunkline().args(args).env("TRUNKLINE_CONTROL_PLANE_URL", &self.url).output().unwrap()
    }

    fn apply(&self, text: &str, options: &[&str]) -> Output {
        let path = self.write(text);
        self.run(&[&["apply", "-f", path.to_str().unwrap()], options].concat())
    }
}

fn trunkline() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trunkline"));
    // What the developer's shell sets must not lead anywhere.
    for variable in ["TRUNKLINE_CONTROL_PLANE_URL", "TRUNKLINE_LOG", "TRUNKLINE_LOG_FORMAT"] {
        command.env_remove(variable);
    }
    command
}

#[track_caller]
fn assert_exit(output: &Output, code: i32) -> (String, String) {
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "stdout: {stdout}\nstderr: {stderr}");
    (stdout, stderr)
}

#[tokio::test(flavor = "multi_thread")]
async fn dry_run_shows_the_diff_and_changes_nothing() {
    let setting = Setting::new().await;
    let (stdout, _) = assert_exit(&setting.apply(DOCUMENT, &[]), 0);
    assert!(stdout.contains("applied; revision 1"), "{stdout}");

    let changed = DOCUMENT.replace("weight: 70", "weight: 60");
    let (stdout, _) = assert_exit(&setting.apply(&changed, &["--dry-run"]), 0);
    assert!(stdout.contains("weight: 70 -> 60"), "{stdout}");
    assert!(stdout.contains("1 change, not applied (dry run); revision 1"), "{stdout}");

    let (stdout, _) = assert_exit(&setting.apply(&changed, &["--base-revision", "1"]), 0);
    assert!(stdout.contains("1 change applied; revision 2"), "{stdout}");
}

#[tokio::test(flavor = "multi_thread")]
async fn exported_document_applies_without_a_change() {
    let setting = Setting::new().await;
    assert_exit(&setting.apply(DOCUMENT, &[]), 0);
    for format in ["yaml", "json"] {
        let (exported, _) = assert_exit(&setting.run(&["export", "-o", format]), 0);
        assert!(exported.contains("chat"), "{exported}");
        let (stdout, _) = assert_exit(&setting.apply(&exported, &[]), 0);
        assert_eq!(stdout, "nothing to change; revision 1\n");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stale_base_revision_and_guarded_removal_fail_until_forced() {
    let setting = Setting::new().await;
    assert_exit(&setting.apply(DOCUMENT, &[]), 0);
    let (_, stderr) = assert_exit(&setting.apply(DOCUMENT, &["--base-revision", "7"]), 1);
    assert!(stderr.contains("revision"), "{stderr}");

    let (_, stderr) = assert_exit(&setting.apply("{}", &[]), 1);
    assert!(stderr.contains("force"), "{stderr}");
    let (stdout, _) = assert_exit(&setting.apply("{}", &["--force"]), 0);
    assert!(stdout.contains("revision 2"), "{stdout}");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_document_names_place_and_field() {
    let setting = Setting::new().await;
    let (_, stderr) = assert_exit(&setting.apply("providers: [{nam: x}]", &[]), 2);
    assert!(stderr.contains("1:14: providers[0].nam"), "{stderr}");
    assert_exit(&setting.run(&["apply", "-f", "/no/such/file"]), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn listings_are_tables_or_json() {
    let setting = Setting::new().await;
    assert_exit(&setting.apply(DOCUMENT, &[]), 0);
    let (stdout, _) = assert_exit(&setting.run(&["get", "stats"]), 0);
    assert!(stdout.starts_with("DEPLOYMENT") && stdout.contains("local/small"), "{stdout}");
    let (stdout, _) = assert_exit(&setting.run(&["get", "breakers"]), 0);
    assert!(stdout.contains("closed"), "{stdout}");
    assert_exit(&setting.run(&["get", "agents"]), 0);

    let (stdout, _) = assert_exit(&setting.run(&["get", "stats", "-o", "json"]), 0);
    let value: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(value["rows"][2]["deployment"], "local/small");

    let (_, stderr) = assert_exit(&setting.run(&["get", "stats", "--window", "401d"]), 2);
    assert!(stderr.contains("window"), "{stderr}");
}

#[test]
fn control_plane_that_is_not_there_is_exit_1() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", free.local_addr().unwrap());
    drop(free);
    let output = trunkline().args(["get", "stats", "--control-plane", &url]).output().unwrap();
    let (_, stderr) = assert_exit(&output, 1);
    assert!(stderr.contains("trunkline up"), "{stderr}");
}

#[test]
fn completions_name_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let output = trunkline().args(["completions", shell]).output().unwrap();
        let (stdout, _) = assert_exit(&output, 0);
        assert!(stdout.contains("simulate-provider"), "{shell}");
    }
}

/// A started `simulate-provider`, ended with the test.
struct Provider {
    child: Child,
    address: String,
}

impl Provider {
    fn start(args: &[&str]) -> Self {
        let mut child =
            trunkline().arg("simulate-provider").args(args).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.strip_prefix("listening provider http://").unwrap().trim();
        let address = url.strip_suffix("/v1").unwrap().to_owned();
        Self { child, address }
    }

    fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn simulated_provider_answers_and_ends_on_sigterm() {
    let mut provider = Provider::start(&["--preset", "swift"]);
    assert!(provider.get("/v1/models").starts_with("HTTP/1.1 200"));

    let pid = provider.child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert_eq!(provider.child.wait().unwrap().code(), Some(0));
}

#[test]
fn simulated_provider_shows_its_fault_and_takes_a_model_file() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("model.yaml");
    fs::write(&path, "name: mine\nttft: {base_s: 0.01}\n").unwrap();
    let file = path.to_str().unwrap();
    let provider = Provider::start(&["--model-file", file, "--fault", "status:503"]);
    assert!(provider.get("/v1/models").starts_with("HTTP/1.1 503"));

    fs::write(&path, "tpot: {median_s: -1}\n").unwrap();
    let output = trunkline().args(["simulate-provider", "--model-file", file]).output().unwrap();
    let (_, stderr) = assert_exit(&output, 2);
    assert!(stderr.contains("tpot.median_s"), "{stderr}");
}

#[test]
fn listener_beyond_loopback_needs_a_word() {
    let args = ["simulate-provider", "--preset", "swift", "--listen", "0.0.0.0:0"];
    let (_, stderr) = assert_exit(&trunkline().args(args).output().unwrap(), 2);
    assert!(stderr.contains("--insecure"), "{stderr}");
}
