//! Which crate may use which.

use std::{collections::BTreeMap, env, path::Path, process::Command};

use serde_json::Value;

use crate::{read, root, rust_files};

/// What each crate may use of the workspace at run time. Those that are not here stand
/// on top and may use all.
const ARROWS: [(&str, &[&str]); 7] = [
    ("trunkline-routing", &[]),
    ("trunkline-proto", &["trunkline-routing"]),
    ("trunkline-transport", &[]),
    ("trunkline-agent", &["trunkline-proto", "trunkline-routing", "trunkline-transport"]),
    ("trunkline-sdk", &["trunkline-proto", "trunkline-routing", "trunkline-transport"]),
    ("trunkline-simulator", &["trunkline-routing"]),
    (
        "trunkline-control-plane",
        &["trunkline-proto", "trunkline-routing", "trunkline-simulator", "trunkline-transport"],
    ),
];

/// All that the decision core may use: none of it does I/O or knows the time.
const PURE: [&str; 3] = ["libm", "rand_core", "thiserror"];

#[derive(Debug)]
struct Dependency {
    name: String,
    is_dev: bool,
}

/// Direct dependencies by crate, as cargo sees the manifests.
fn dependencies() -> BTreeMap<String, Vec<Dependency>> {
    let cargo = env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .expect("run cargo metadata");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo writes JSON");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let dependency =
        |value: &Value| Dependency { name: text(&value["name"]), is_dev: value["kind"] == "dev" };
    let package = |value: &Value| {
        let dependencies = value["dependencies"].as_array().expect("an array");
        (text(&value["name"]), dependencies.iter().map(dependency).collect())
    };
    metadata["packages"].as_array().expect("an array").iter().map(package).collect()
}

#[test]
fn arrows_between_crates_point_one_way() {
    let all = dependencies();
    for (name, allowed) in ARROWS {
        let own = &all[name];
        let used = own.iter().filter(|one| !one.is_dev && one.name.starts_with("trunkline"));
        for used in used {
            assert!(allowed.contains(&used.name.as_str()), "{name} must not depend on {}", used.name);
        }
    }
    for (name, own) in &all {
        let uses = |other: &str| own.iter().any(|one| one.name == other);
        assert!(!uses("trunkline") && !uses("trunkline-tests"), "{name} depends on what stands on top");
    }
    // Not even in their tests.
    for name in ["trunkline-agent", "trunkline-sdk"] {
        assert!(
            !all[name].iter().any(|one| one.name == "trunkline-control-plane"),
            "{name} sees the control plane"
        );
    }
}

#[test]
fn decision_core_stays_pure() {
    let all = dependencies();
    for used in all["trunkline-routing"].iter().filter(|one| !one.is_dev) {
        assert!(PURE.contains(&used.name.as_str()), "the decision core must not depend on {}", used.name);
    }
}

#[test]
fn only_the_store_knows_the_database() {
    for (name, own) in dependencies() {
        let uses = own.iter().any(|one| one.name == "sled");
        assert!(!uses || name == "trunkline-control-plane", "{name} depends on sled");
    }
    let store = Path::new("control-plane/src/store");
    for path in rust_files().iter().filter(|path| !path.starts_with(store)) {
        // `store::sled::` is our own module of that name.
        let text = read(path).replace("store::sled::", "");
        assert!(!text.contains(concat!("sled", "::")), "{} uses the database", path.display());
    }
}
