//! README.md is true: its commands run as printed, its Rust is that of the examples,
//! and its links lead somewhere.
//!
//! The commands run in a directory of their own, against an `up` on free ports whose
//! addresses replace the default ones. `target/release` there holds the program just
//! built, and a `cargo` that starts the examples just built: `cargo test --workspace`
//! has made them, and a cargo within cargo would build everything again.

#![expect(clippy::unwrap_used, reason = "a test that can't go on says so")]

use std::{
    env, fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use trunkline_tests::up::Up;

const README: &str = include_str!("../../README.md");

const PACKAGE: &str = env!("CARGO_MANIFEST_DIR");

/// Stands for cargo: `run -p trunkline-sdk --example NAME -- ARGUMENTS`.
const CARGO: &str = r#"#!/bin/sh
[ "$1 $2 $3 $4 $6" = "run -p trunkline-sdk --example --" ] || { echo "cargo $*: not foreseen" >&2; exit 1; }
example=$TRUNKLINE_EXAMPLES/$5
shift 6
exec "$example" "$@"
"#;

/// What must appear, in this order, when the blocks do what they are there for.
const SEEN: [&str; 17] = [
    // curl, whole and streamed.
    r#""object":"chat.completion","#,
    "data: [DONE]",
    // The openai SDK: an answer and a stream, so twice.
    "This is a simulated answer",
    "This is a simulated answer",
    // grpcurl.
    "grpc.health.v1.Health",
    "rpc ApplyConfig",
    r#""validFor""#,
    r#""finishReason""#,
    "BREAKER_STATE_FORCED_OPEN",
    "forced open",
    "BREAKER_STATE_CLOSED",
    "virtual_models[chat].tiers[0].targets[swift/sim-large].weight",
    "swift/sim-large",
    // The SDK's examples.
    "This is a simulated answer",
    "tokens]",
    "attempts known to Trunkline: 1",
    // The document of the section on configuration.
    "openai/gpt-4o-mini",
];

#[test]
fn commands_run_as_printed() {
    let up = Up::start();
    let agent = up.process.url("agent");
    let control_plane = up.process.url("control-plane");
    let directory = directory();
    let script = output(
        Command::new("python3")
            .arg(Path::new(PACKAGE).join("clients/readme.py"))
            .arg(root().join("README.md"))
            .arg(format!("127.0.0.1:7700={}", agent.trim_start_matches("http://")))
            .arg(format!("127.0.0.1:7600={}", control_plane.trim_start_matches("http://"))),
    );
    fs::write(directory.join("readme.sh"), &script.stdout).unwrap();
    wait_until_served(&directory, &up);

    let run = output(
        Command::new("bash")
            .arg("readme.sh")
            .current_dir(&directory)
            .env("TRUNKLINE_CONTROL_PLANE_URL", &control_plane)
            .env("TRUNKLINE_EXAMPLES", executables().join("examples"))
            // The versions of the client tests, whatever is newest today.
            .env("PIP_CONSTRAINT", Path::new(PACKAGE).join("clients/requirements.txt"))
            .env("PIP_DISABLE_PIP_VERSION_CHECK", "1"),
    );
    let printed = String::from_utf8(run.stdout).unwrap();
    let mut rest = printed.as_str();
    for wanted in SEEN {
        let found = rest.find(wanted);
        let at = found.unwrap_or_else(|| panic!("'{wanted}' is missing after what came before:\n{printed}"));
        rest = &rest[at + wanted.len()..];
    }
}

#[test]
fn two_commands_are_those_that_ci_runs() {
    let ci = fs::read_to_string(root().join(".ci/run")).unwrap();
    for command in ["cargo run --release -- up", "cargo test --workspace"] {
        assert!(README.contains(&format!("\n{command}\n")), "README.md lacks '{command}'");
        assert!(ci.contains(command), ".ci/run lacks '{command}'");
    }
}

#[test]
fn rust_is_that_of_the_example() {
    let example = fs::read_to_string(root().join("sdk/examples/complete.rs")).unwrap();
    let lines = |text: &str| text.lines().map(str::trim).collect::<Vec<_>>().join("\n");
    let (_, block) = README.split_once("```rust\n").unwrap();
    let (block, _) = block.split_once("```").unwrap();
    assert!(lines(&example).contains(lines(block).trim()), "sdk/examples/complete.rs has changed:\n{block}");
}

#[test]
fn links_lead_somewhere() {
    let targets =
        README.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target);
    let local: Vec<_> = targets.filter(|target| !target.contains("://")).collect();
    assert!(local.len() > 5, "{local:?}");
    for target in local {
        let path = target.split('#').next().unwrap();
        assert!(root().join(path).exists(), "README.md links to {target}, which is not there");
    }
}

/// Where the blocks run. Its `.venv` is kept from run to run.
fn directory() -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("readme");
    let release = directory.join("target/release");
    fs::remove_dir_all(directory.join("target")).ok();
    fs::create_dir_all(&release).unwrap();
    symlink(env!("CARGO_BIN_EXE_tested-trunkline"), release.join("trunkline")).unwrap();
    fs::write(release.join("cargo"), CARGO).unwrap();
    fs::set_permissions(release.join("cargo"), fs::Permissions::from_mode(0o755)).unwrap();
    directory
}

/// A newcomer reads `up`'s invitation first, which comes when the agent has its table.
fn wait_until_served(directory: &Path, up: &Up) {
    let ready = format!("{}/readyz", up.process.url("agent-ops"));
    output(
        Command::new("curl")
            .args([
                "--silent",
                "--fail",
                "--retry",
                "100",
                "--retry-delay",
                "1",
                "--retry-all-errors",
                &ready,
            ])
            .current_dir(directory),
    );
}

/// Cargo puts tests into `deps/` below the directory of executables.
fn executables() -> PathBuf {
    let own = env::current_exe().unwrap();
    own.parent().and_then(Path::parent).unwrap().to_owned()
}

fn root() -> &'static Path {
    Path::new(PACKAGE).parent().unwrap()
}

fn output(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("start {command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}
