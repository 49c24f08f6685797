//! Messages and services of an older build, see `tests/older/README.md`.

/// Generated from `tests/older/**.proto`.
#[expect(missing_docs, clippy::pedantic, clippy::allow_attributes, reason = "generated code")]
mod generated {
    pub mod types {
        pub mod v1 {
            tonic::include_proto!("trunkline.types.v1");
        }
    }
    pub mod agent {
        pub mod v1 {
            tonic::include_proto!("trunkline.agent.v1");
        }
    }
    pub mod telemetry {
        pub mod v1 {
            tonic::include_proto!("trunkline.telemetry.v1");
        }
    }
}

pub use generated::{agent, telemetry, types};
