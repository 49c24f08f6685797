//! What a drill does to an attempt that it took hold of. Timers, failover and breakers
//! see the provider at work.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header::CONTENT_TYPE};
use serde_json::json;
use tokio::time::timeout;

use super::attempt::{AttemptEnd, FailedAttempt};
use crate::{
    drills::{Effect, Hold},
    upstream::UpstreamBody,
};

/// Until the request may be sent. Some: it will not be. A drill that is over lets go at
/// once.
pub(super) async fn before_sending(hold: &Hold) -> Option<AttemptEnd> {
    match hold.effect {
        Effect::Latency(latency) => {
            timeout(latency, hold.over.cancelled()).await.ok();
            None
        }
        Effect::Stall => {
            hold.over.cancelled().await;
            None
        }
        Effect::ErrorStatus(status) => Some(answer(&hold.name, status)),
        Effect::Cut(_) | Effect::ControlPlaneLoss => None,
    }
}

/// What comes back of the provider's body.
pub(super) fn cut(mut body: UpstreamBody, hold: Hold) -> UpstreamBody {
    if let Effect::Cut(bytes) = hold.effect {
        body.cut_after(bytes, hold.over);
    }
    body
}

/// An error in the provider's place, told as one that is on purpose.
fn answer(name: &str, status: u16) -> AttemptEnd {
    let message = format!("the drill '{name}' answers {status} in the provider's place");
    let body = json!({"error": {"message": message, "type": "drill", "param": null, "code": "drill"}});
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    FailedAttempt::refused(status, headers, Bytes::from(body.to_string()))
}
