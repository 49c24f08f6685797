//! `trunkline up` as a newcomer runs it: no configuration, then a change, then again.

#![expect(clippy::unwrap_used, reason = "a test that can't go on says so")]

use std::{
    collections::HashMap,
    io::{BufRead as _, BufReader, Read as _},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
};

use tempfile::TempDir;
use trunkline_sdk::{Client, CompleteRequestExt as _, CompleteResponseExt as _, types::CompleteRequest};

/// A started `up` that has told what to try next.
struct Up {
    child: Child,
    stdout: BufReader<ChildStdout>,
    /// URLs by role, from the `listening` lines.
    listening: HashMap<String, String>,
}

impl Up {
    fn start(data_dir: &Path) -> Self {
        let free = "127.0.0.1:0";
        let mut child = Command::new(env!("CARGO_BIN_EXE_trunkline"))
            .args(["up", "--listen", free, "--ops-listen", free])
            .args(["--control-plane-listen", free, "--control-plane-ops-listen", free])
            .arg("--data-dir")
            .arg(data_dir)
            .env_remove("TRUNKLINE_CONTROL_PLANE_CONFIG")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut listening = HashMap::new();
        let mut line = String::new();
        while !line.starts_with("Ctrl-C finishes") {
            line.clear();
            assert_ne!(stdout.read_line(&mut line).unwrap(), 0, "up ended before it was ready");
            if let Some((role, url)) =
                line.strip_prefix("listening ").and_then(|rest| rest.trim().split_once(' '))
            {
                listening.insert(role.to_owned(), url.to_owned());
            }
        }
        Self { child, stdout, listening }
    }

    fn run(&self, args: &[&str]) -> String {
        let output = Command::new(env!("CARGO_BIN_EXE_trunkline"))
            .args(args)
            .env("TRUNKLINE_CONTROL_PLANE_URL", &self.listening["control-plane"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Sends SIGTERM and waits. The exit code and the rest of what was printed.
    fn terminate(mut self) -> (Option<i32>, String) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap().code(), rest)
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

async fn answer(url: &str) -> String {
    let client = Client::connect(url).await.unwrap();
    let request = CompleteRequest::user("chat", "hello").max_output_tokens(4);
    let answer = client.complete(request).await.unwrap();
    assert!(!answer.text().is_empty());
    answer.deployment().to_owned()
}

#[tokio::test]
async fn answers_at_both_addresses_and_ends_in_order() {
    let data = TempDir::new().unwrap();
    let up = Up::start(data.path());
    for role in ["agent-ops", "control-plane-ops", "provider-swift", "provider-steady", "provider-thrifty"] {
        assert!(up.listening.contains_key(role), "{role}: {:?}", up.listening);
    }
    assert!(answer(&up.listening["agent"]).await.contains("/sim-"));
    // The control plane names the agent, and the client follows.
    assert!(answer(&up.listening["control-plane"]).await.contains("/sim-"));
    let (code, rest) = up.terminate();
    assert_eq!(code, Some(0), "{rest}");
    assert!(rest.contains("ended"), "{rest}");
}

#[tokio::test]
async fn what_the_operator_changed_survives_a_restart() {
    let data = TempDir::new().unwrap();
    let first = Up::start(data.path());
    let document = data.path().join("changed.yaml");
    // All traffic to the cheap one, under the same name.
    let changed = first
        .run(&["export"])
        .replace("deployment: swift/sim-large", "deployment: SWAP")
        .replace("deployment: thrifty/sim-small", "deployment: swift/sim-large")
        .replace("deployment: SWAP", "deployment: thrifty/sim-small")
        .replace("weight: 30", "weight: 0");
    std::fs::write(&document, changed).unwrap();
    first.run(&["apply", "-f", document.to_str().unwrap()]);
    let before = first.listening["provider-thrifty"].clone();
    assert_eq!(first.terminate().0, Some(0));

    let second = Up::start(data.path());
    let exported = second.run(&["export"]);
    assert!(exported.contains("weight: 0"), "{exported}");
    // The providers have moved, and the configuration has followed.
    let now = &second.listening["provider-thrifty"];
    assert!(exported.contains(now.as_str()), "{exported}");
    assert!(&before == now || !exported.contains(before.as_str()), "{exported}");
    answer(&second.listening["agent"]).await;
}
