//! The image's recipe: accepted by the linter of Dockerfiles, pinned, without root, and
//! given all that the build needs.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use crate::{environment, place, read, run};

const DOCKERFILE: &str = "deploy/container/Dockerfile";

/// Instructions with their arguments, continued lines joined, comments left out.
fn instructions() -> Vec<(String, String)> {
    let text = read(DOCKERFILE);
    let lines: Vec<_> = text.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
    let joined = lines.join("\n").replace("\\\n", " ");
    joined
        .lines()
        .filter_map(|line| line.trim().split_once(' '))
        .map(|(word, rest)| (word.to_owned(), rest.trim().to_owned()))
        .collect()
}

fn arguments(of: &str) -> Vec<String> {
    instructions().into_iter().filter(|(word, _)| word == of).map(|(_, rest)| rest).collect()
}

#[test]
fn linter_has_nothing_to_say() {
    let environment = environment::Environment::prepare();
    let said = run(Command::new(environment.tool("hadolint")).arg(place(DOCKERFILE)));
    assert_eq!(said, "");
}

/// With the whole workspace cargo would build the tests' features into the programs too,
/// and with them the places at which a control plane can be made to crash.
#[test]
fn programs_are_built_without_what_is_for_tests() {
    let build: Vec<_> = arguments("RUN").into_iter().filter(|run| run.contains("cargo build")).collect();
    assert_eq!(build.len(), 1, "{build:?}");
    let words: Vec<_> = build[0].split_whitespace().collect();
    let packages: Vec<_> =
        words.windows(2).filter(|pair| matches!(pair[0], "--package" | "-p")).map(|pair| pair[1]).collect();
    assert_eq!(packages, ["trunkline", "trunkline-agent", "trunkline-control-plane"]);
    for word in ["--workspace", "--all", "--all-features", "--features", "-F"] {
        assert!(!words.iter().any(|said| said.split('=').next() == Some(word)), "{word} in {}", build[0]);
    }
}

#[test]
fn base_images_are_pinned_by_digest() {
    let images = arguments("FROM");
    assert_eq!(images.len(), 2, "{images:?}");
    for image in images {
        let image = image.split_whitespace().next().unwrap().to_owned();
        let (_, digest) = image.split_once("@sha256:").unwrap_or_else(|| panic!("{image} has no digest"));
        assert_eq!(digest.len(), 64, "{image}");
    }
}

#[test]
fn programs_run_without_root_and_keep_data_in_the_volume() {
    assert_eq!(arguments("USER"), ["65532:65532"]);
    let volume = arguments("VOLUME");
    assert_eq!(volume.len(), 1, "{volume:?}");
    let variables = arguments("ENV").join(" ");
    for variable in ["TRUNKLINE_CONTROL_PLANE_DATA_DIR", "TRUNKLINE_AGENT_DATA_DIR"] {
        assert!(variables.contains(&format!("{variable}={}", volume[0])), "{variables}");
    }
}

/// What `.dockerignore` lets through of the files that git knows.
fn context() -> BTreeSet<String> {
    let ignore = read(".dockerignore");
    let rules: Vec<_> = ignore.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    assert_eq!(rules[0], "*", "an allowlist begins with nothing");
    let allowed: Vec<_> = rules.iter().filter_map(|rule| rule.strip_prefix('!')).collect();
    let never: Vec<_> = rules.iter().filter_map(|rule| rule.strip_prefix("**/")).collect();
    assert_eq!(rules.len(), 1 + allowed.len() + never.len(), "a rule of another kind: {rules:?}");
    let known = run(Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(place("")));
    let lets_through = |path: &&str| {
        let mut parts = path.split('/');
        parts.next().is_some_and(|first| allowed.contains(&first)) && !parts.any(|part| never.contains(&part))
    };
    known.lines().filter(lets_through).map(str::to_owned).collect()
}

/// Cargo reads all manifests and looks for all targets that they name; so nothing that a
/// build of the workspace reads is missing, and the lock file fits.
#[test]
fn build_context_has_what_cargo_needs() {
    let directory = environment::scratch("build-context");
    for path in context() {
        let (from, to) = (place(&path), directory.join(&path));
        // A file that was removed and not yet committed.
        if !from.exists() {
            continue;
        }
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(from, to).unwrap();
    }
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    run(Command::new(cargo)
        .args(["metadata", "--format-version=1", "--locked", "--offline"])
        .current_dir(&directory));
    for missing in ["docs", "deploy", ".git", "target"] {
        assert!(!Path::new(&directory).join(missing).exists(), "{missing} needs not be sent to the builder");
    }
}
