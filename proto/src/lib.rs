//! Trunkline's wire contract: generated messages and services, the configuration
//! document (YAML and JSON), and conversions to the decision core.
//!
//! Agents, the control plane and the SDK all speak through this crate. It holds no
//! state and does no I/O.

pub mod convert;
pub mod document;
pub mod problems;
pub mod status;
pub mod trace;
pub mod url;

/// Generated from `proto/trunkline/**.proto`.
#[expect(missing_docs, clippy::pedantic, clippy::allow_attributes, reason = "generated code")]
mod generated {
    pub mod types {
        pub mod v1 {
            tonic::include_proto!("trunkline.types.v1");
        }
    }
    pub mod routing {
        pub mod v1 {
            tonic::include_proto!("trunkline.routing.v1");
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
    pub mod admin {
        pub mod v1 {
            tonic::include_proto!("trunkline.admin.v1");
        }
    }
}

impl std::fmt::Debug for admin::v1::CreateApiKeyResponse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let secret = if self.secret.is_empty() { "" } else { "[hidden]" };
        f.debug_struct("CreateApiKeyResponse")
            .field("api_key", &self.api_key)
            .field("secret", &secret)
            .field("version", &self.version)
            .field("changes", &self.changes)
            .finish()
    }
}

pub use generated::{admin, agent, routing, telemetry, types};

/// The descriptors of all Trunkline packages and what they import, custom options
/// included, as an encoded `FileDescriptorSet`.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
