//! What `deploy/` holds is right: files are read by the tools they are for, and the
//! command lines in them are started.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod compose;
mod container;
mod secrets;
mod started;
mod systemd;
mod unit;

#[path = "../tests/environment/mod.rs"]
mod environment;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// A place in the repository.
fn place(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join(path)
}

fn read(path: &str) -> String {
    let path = place(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()))
}

/// What a command said; the test ends if it failed.
#[track_caller]
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("start {command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}\n{}", output.status, said(&output));
    said(&output)
}

/// Both streams.
fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The program just built that stands for an installed one.
fn program(name: &str) -> PathBuf {
    PathBuf::from(match name {
        "trunkline" => env!("CARGO_BIN_EXE_tested-trunkline"),
        "trunkline-agent" => env!("CARGO_BIN_EXE_tested-agent"),
        "trunkline-control-plane" => env!("CARGO_BIN_EXE_tested-control-plane"),
        other => panic!("no program of Trunkline: {other}"),
    })
}

/// Whether a program is on this machine.
fn exists(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|directory| directory.join(program).is_file()))
}
