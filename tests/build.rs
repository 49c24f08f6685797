//! Compiles the protos of an older build, for tests of version skew.

use std::error::Error;

use prost::Message as _;
use protox::Compiler;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=older");
    let mut compiler = Compiler::new(["older"])?;
    compiler
        .include_imports(true)
        .open_files(["trunkline/agent/v1/agent.proto", "trunkline/telemetry/v1/telemetry.proto"])?;
    let set = compiler.file_descriptor_set();
    tonic_prost_build::configure()
        .extern_path(".google.rpc", "::tonic_types::pb")
        .compile_well_known_types(false)
        .compile_fds(prost_types::FileDescriptorSet::decode(&*set.encode_to_vec())?)?;
    Ok(())
}
