//! What apps connect to: OpenAI-compatible HTTP and gRPC on one port.

mod accept;
mod answer;
mod caller;
mod error;
mod http_api;
mod knobs;

pub(crate) use self::{
    accept::{Listeners, serve},
    caller::{Admitted, Caller},
    error::{LocalError, cut},
    knobs::api_key,
};
