//! Where the control plane is, and how a command makes itself known to it.

use std::path::PathBuf;

use clap::Args;

/// Where the control plane is, and who asks.
#[derive(Clone, Debug, Args)]
pub(crate) struct Connection {
    /// gRPC address of the control plane.
    #[arg(
        long,
        global = true,
        env = "TRUNKLINE_CONTROL_PLANE_URL",
        default_value = "http://127.0.0.1:7600",
        value_name = "URL"
    )]
    pub(crate) control_plane: String,
    /// File with the operator's token: one line, `TOKEN` or `NAME TOKEN`. Without it: none.
    #[arg(long, global = true, env = "TRUNKLINE_TOKEN_FILE", value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Certificate authorities to trust for https://, PEM, instead of the public ones.
    #[arg(long, global = true, env = "TRUNKLINE_CA_FILE", value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
}
