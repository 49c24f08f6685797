//! The core stays pure: these crates and no others.

use std::process::Command;

#[test]
fn the_core_depends_on_three_crates_only() {
    let cargo = Command::new(env!("CARGO"))
        .args(["tree", "-p", "trunkline-routing", "-e", "normal", "--prefix", "none", "--depth", "1"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("run cargo tree");
    assert!(cargo.status.success(), "{}", String::from_utf8_lossy(&cargo.stderr));
    let tree = String::from_utf8(cargo.stdout).expect("cargo tree prints text");
    let mut names: Vec<&str> = tree.lines().filter_map(|line| line.split_whitespace().next()).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        ["libm", "rand_core", "thiserror", "trunkline-routing"],
        "the core is pure and no_std; see its Cargo.toml"
    );
}
