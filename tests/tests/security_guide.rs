//! docs/guides/security.md is true: its commands make certificates and tokens that a
//! control plane and an agent take, and let a caller in who has one.
//!
//! They run in a directory of their own. Only addresses and names of machines differ.

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    process::{Command, Output},
};

mod environment;

use environment::Environment;

const PACKAGE: &str = env!("CARGO_MANIFEST_DIR");

/// As in the guide, and here.
const REPLACED: [&str; 5] = [
    "DNS:control-plane.example.com,IP:10.0.0.5=DNS:localhost,IP:127.0.0.1",
    "trunkline-control-plane --listen 0.0.0.0:7600=start control-plane ' control-plane-ops ' --listen 127.0.0.1:0",
    "trunkline-agent --listen 0.0.0.0:7700=start agent 'control plane connected' --listen 127.0.0.1:0",
    "https://control-plane.example.com:7600=$(url)",
    "control-plane.example.com:7600=$(url | cut -d/ -f3)",
];

/// Starts in the background what the guide starts on machines of their own, and waits
/// until it says what shows that it is there.
const START: &str = r#"
started=()
trap 'kill "${started[@]}"; wait' EXIT
url() { awk '$2 == "control-plane" { print $3 }' control-plane.log; }
start() { # ROLE SIGN FLAGS
  local role=$1 sign=$2 waited=0
  shift 2
  : >"$role.log"
  "trunkline-$role" --ops-listen 127.0.0.1:0 --data-dir "$role" "$@" >"$role.log" 2>&1 &
  started+=($!)
  until grep -q "$sign" "$role.log"; do
    [ "$((waited += 1))" -le 300 ] || { cat "$role.log"; return 1; }
    sleep 0.1
  done
}
"#;

/// After the guide's last block: who has no token is not let in.
const REFUSED: &str = r#"
grpcurl -cacert ca.crt "$(url | cut -d/ -f3)" trunkline.admin.v1.AdminService/ListAgents 2>&1 || true
"#;

/// What must appear, in this order.
const SEEN: [&str; 4] =
    ["agent-1  connected", r#""agentId": "agent-1""#, "AGENT_STATE_CONNECTED", "a token is required"];

#[test]
fn commands_run_as_printed() {
    // Has grpcurl.
    let environment = Environment::prepare();
    let directory = environment::scratch("security-guide");
    let programs = directory.join("bin");
    fs::create_dir(&programs).unwrap();
    for (name, program) in [
        ("trunkline", env!("CARGO_BIN_EXE_tested-trunkline")),
        ("trunkline-agent", env!("CARGO_BIN_EXE_tested-agent")),
        ("trunkline-control-plane", env!("CARGO_BIN_EXE_tested-control-plane")),
    ] {
        symlink(program, programs.join(name)).unwrap();
    }
    let guide = Path::new(PACKAGE).join("../docs/guides/security.md");
    let blocks = Command::new("python3")
        .arg(Path::new(PACKAGE).join("clients/readme.py"))
        .arg(guide)
        .args(REPLACED)
        .output()
        .unwrap();
    let script = START.to_owned() + &text(&blocks) + REFUSED;
    let tools = environment.tool("");
    let path = format!("{}:{}:{}", programs.display(), tools.display(), std::env::var("PATH").unwrap());
    let run = Command::new("bash")
        .args(["-c", &script])
        .current_dir(&directory)
        .env("PATH", path)
        .output()
        .unwrap();
    let printed = text(&run);
    let mut rest = printed.as_str();
    for wanted in SEEN {
        let found = rest.find(wanted);
        let at = found.unwrap_or_else(|| panic!("'{wanted}' is missing after what came before:\n{printed}"));
        rest = &rest[at + wanted.len()..];
    }
}

fn text(output: &Output) -> String {
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{printed}\n{}", String::from_utf8_lossy(&output.stderr));
    printed
}
