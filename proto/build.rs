//! Compiles the .proto files without protoc.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;
use protox::Compiler;

const FILES: &[&str] = &[
    "trunkline/types/v1/options.proto",
    "trunkline/types/v1/version.proto",
    "trunkline/types/v1/price.proto",
    "trunkline/types/v1/provider.proto",
    "trunkline/types/v1/virtual_model.proto",
    "trunkline/types/v1/api_key.proto",
    "trunkline/types/v1/budget.proto",
    "trunkline/types/v1/breaker.proto",
    "trunkline/types/v1/decision.proto",
    "trunkline/types/v1/fault.proto",
    "trunkline/routing/v1/routing.proto",
    "trunkline/agent/v1/agent.proto",
    "trunkline/agent/v1/model.proto",
    "trunkline/agent/v1/trace.proto",
    "trunkline/telemetry/v1/telemetry.proto",
    "trunkline/admin/v1/config.proto",
    "trunkline/admin/v1/agent.proto",
    "trunkline/admin/v1/change.proto",
    "trunkline/admin/v1/budget.proto",
    "trunkline/admin/v1/stats.proto",
    "trunkline/admin/v1/history.proto",
    "trunkline/admin/v1/watch.proto",
    "trunkline/admin/v1/drill.proto",
    "trunkline/admin/v1/state.proto",
    "trunkline/admin/v1/price.proto",
    "trunkline/admin/v1/api_key.proto",
    "trunkline/admin/v1/admin.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=trunkline");
    println!("cargo:rerun-if-changed=google");
    let mut compiler = Compiler::new(["."])?;
    compiler.include_imports(true).include_source_info(true).open_files(FILES)?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    // With custom options, for reflection and the document loader.
    fs::write(out.join("descriptors.bin"), compiler.encode_file_descriptor_set())?;
    let set = compiler.file_descriptor_set();
    // Comments become doc comments; leading ASCII art in none, so doctests stay off.
    tonic_prost_build::configure()
        .extern_path(".google.rpc", "::tonic_types::pb")
        .compile_well_known_types(false)
        .bytes(".trunkline.agent.v1.Update.state_sha256")
        .bytes(".trunkline.agent.v1.Update.resources_sha256")
        // Holds a key: its Debug is written by hand.
        .skip_debug([".trunkline.admin.v1.CreateApiKeyResponse"])
        .compile_fds(prost_types::FileDescriptorSet::decode(&*set.encode_to_vec())?)?;
    Ok(())
}
