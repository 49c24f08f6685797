//! What apps connect to: OpenAI-compatible HTTP and gRPC on one port.

mod accept;
mod answer;
mod caller;
mod connection;
mod count;
mod error;
mod grpc_call;
mod http_api;
mod knobs;
mod limits;
mod pace;
mod socket;
#[cfg(test)]
mod tests;

pub(crate) use self::{
    accept::{Listeners, serve},
    caller::{Admitted, Caller},
    connection::Site,
    error::{LocalError, cut},
    grpc_call::Arrived,
    knobs::{Knobs, api_key},
    limits::Limits,
};
