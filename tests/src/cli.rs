//! `trunkline` as an operator types it.

use std::process::Command;

use crate::process;

/// What a command said, and how it ended.
#[derive(Debug)]
pub struct Ran {
    /// The exit code.
    pub code: i32,
    /// Results.
    pub stdout: String,
    /// Complaints.
    pub stderr: String,
}

impl Ran {
    /// The results of a command that must have done what it was told.
    #[track_caller]
    pub fn done(self) -> String {
        assert_eq!(self.code, 0, "{self:#?}");
        self.stdout
    }
}

/// Runs it to its end against a control plane.
pub fn trunkline(control_plane: &str, words: &[&str]) -> Ran {
    let mut command = Command::new(process::path("tested-trunkline"));
    // What the developer's shell sets must not lead anywhere.
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("TRUNKLINE_")) {
        command.env_remove(name);
    }
    let output = command.args(words).env("TRUNKLINE_CONTROL_PLANE_URL", control_plane).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran {
        code: output.status.code().expect("no signal ends it"),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}
