//! `make-secrets.sh`: certificates that verify, tokens that are bound to agents, and
//! nothing overwritten.

use std::{
    fmt::Write as _,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::{place, run, said};

fn script(directory: &Path) -> Command {
    let mut command = Command::new(place("deploy/compose/make-secrets.sh"));
    command.arg(directory).env_remove("AGENTS").env_remove("DOMAIN");
    command
}

/// Makes secrets below a directory.
pub(crate) fn make(below: &TempDir) -> PathBuf {
    let directory = below.path().join("secrets");
    run(&mut script(&directory));
    directory
}

fn content(directory: &Path, name: &str) -> String {
    fs::read_to_string(directory.join(name)).unwrap()
}

#[test]
fn certificates_are_for_servers_under_their_names() {
    let below = TempDir::new().unwrap();
    let directory = below.path().join("secrets");
    run(script(&directory).env("AGENTS", "west-1 west-2").env("DOMAIN", "example.com"));
    for (name, host) in [
        ("control-plane", "control-plane"),
        ("control-plane", "control-plane.example.com"),
        ("west-1", "west-1"),
        ("west-2", "west-2.example.com"),
        ("west-2", "localhost"),
    ] {
        let said = run(Command::new("openssl")
            .args(["verify", "-x509_strict", "-purpose", "sslserver", "-verify_hostname", host, "-CAfile"])
            .arg(directory.join("ca.crt"))
            .arg(directory.join(name).with_extension("crt")));
        assert!(said.contains("OK"), "{said}");
    }
}

#[test]
fn each_agent_has_a_token_of_its_own_and_the_control_plane_all() {
    let below = TempDir::new().unwrap();
    let directory = make(&below);
    let (one, two) = (content(&directory, "agent-1.token"), content(&directory, "agent-2.token"));
    assert_ne!(one.split(' ').nth(1), two.split(' ').nth(1));
    assert!(one.starts_with("agent-1 ") && two.starts_with("agent-2 "));
    assert_eq!(content(&directory, "agent.tokens"), format!("{one}{two}"));
}

#[test]
fn document_knows_the_hash_of_the_apps_key() {
    let below = TempDir::new().unwrap();
    let directory = make(&below);
    let document = content(&directory, "trunkline.yaml");
    let config = trunkline_proto::document::load_and_check(&document).unwrap();
    let hash = Sha256::digest(content(&directory, "app.key"));
    let hash = hash.iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    });
    assert_eq!(config.api_keys[0].secret_sha256, hash);
}

#[test]
fn only_the_owner_gets_at_them_and_none_is_overwritten() {
    let below = TempDir::new().unwrap();
    let directory = make(&below);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&directory), 0o700);
    assert_eq!(mode(&directory.join("ca.key")), 0o400);
    let before = content(&directory, "admin.tokens");

    let again = script(&directory).output().unwrap();
    assert_eq!(again.status.code(), Some(1));
    assert!(said(&again).contains("remove it"), "{}", said(&again));
    assert_eq!(content(&directory, "admin.tokens"), before);
    assert_eq!(fs::read_dir(below.path()).unwrap().count(), 1, "something was left behind");
}

#[test]
fn name_that_is_no_agent_id_is_refused() {
    let below = TempDir::new().unwrap();
    let output = script(&below.path().join("secrets")).env("AGENTS", "../etc").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("AGENTS"), "{}", said(&output));
    assert_eq!(fs::read_dir(below.path()).unwrap().count(), 0);
}
