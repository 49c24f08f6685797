//! Official clients against the product: the `openai` SDK, grpcurl and `buf curl`. The
//! tests themselves are Python, in `tests/clients`; this runs them.

use std::{path::Path, process::Command};

mod environment;

#[test]
fn official_clients_agree_with_the_agent_and_the_control_plane() {
    let environment = environment::Environment::prepare();
    let clients = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients");
    let status = Command::new(environment.tool("python"))
        .args(["-m", "pytest"])
        .arg(&clients)
        .current_dir(environment::scratch("clients"))
        // No caches in the source tree.
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("TRUNKLINE_BIN", env!("CARGO_BIN_EXE_tested-trunkline"))
        .status()
        .expect("start pytest");
    assert!(status.success(), "pytest {}: {status}", clients.display());
}
