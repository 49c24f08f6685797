//! What a Rust service imports to send LLM requests through Trunkline.
//!
//! A [`Client`] talks gRPC to an agent, or to the control plane: there, completions
//! are answered with the agents that serve them, and the client follows by itself.
//!
//! ```no_run
//! use trunkline_sdk::{Client, CompleteRequestExt as _, CompleteResponseExt as _, types::CompleteRequest};
//!
//! # async fn example() -> Result<(), trunkline_sdk::Error> {
//! let client = Client::connect("http://127.0.0.1:7700").await?;
//! let answer = client.complete(CompleteRequest::user("chat", "hello")).await?;
//! println!("{}", answer.text());
//! # Ok(())
//! # }
//! ```
//!
//! The library never retries a request that may have been sent: agents fail over, and
//! [`Error::is_retryable`] says when a later call may do better.

mod builder;
mod call;
mod client;
mod directory;
mod error;
mod request;
mod stream;

pub use builder::ClientBuilder;
pub use client::Client;
pub use error::{Error, FieldViolation, Rejection};
pub use request::{CompleteRequestExt, CompleteResponseExt, RouteRequestExt};
pub use stream::{CompletionStream, RouteWatch};
pub use tonic::Code;

/// The messages of the wire contract that callers meet.
pub mod types {
    pub use prost_types::{Duration, Struct, Timestamp, Value};
    pub use trunkline_proto::{
        routing::v1::{
            CompleteRequest, CompleteResponse, ContentPart, Delta, ExplainDecisionRequest,
            ExplainDecisionResponse, Finished, Message, ReportOutcomeRequest, RouteRequest, RouteResponse,
            RouteState, Started, TargetState, Tool, ToolCall, WatchRoutesRequest, WatchRoutesResponse,
            content_part::Part, stream_complete_response::Event,
        },
        types::v1::{
            Attempt, AttemptStart, BreakerState, Candidate, CostSource, Decision, Exclusion, ExclusionReason,
            OutcomeClass, Score, ScoreBasis, Strategy, Usage, Version,
        },
    };
}
