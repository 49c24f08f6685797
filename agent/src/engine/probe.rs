//! A call that no app asked for: one token, to find out whether a deployment answers. It
//! uses the same connections, credentials and rules on errors as any attempt, and is in
//! no app's account.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::timeout;
use trunkline_routing::{
    classify::{Classified, TransportFault, classify_transport},
    eligibility::Profile,
    money::Tokens,
    table::{Capabilities, DeploymentIndex},
};

use super::{
    Endpoint, Forwarded, Job, Worker,
    attempt::{self, AttemptEnd},
    race::Heard,
};
use crate::{
    control::UsageSource,
    openai::scan::{ScanError, scan},
    snapshot::{Goal, Snapshot},
};

/// The smallest request that every chat model answers.
const CHAT: &[u8] = br#"{"model":"probe","messages":[{"role":"user","content":"ping"}],"max_tokens":1}"#;
/// And of one that makes vectors only.
const EMBEDDING: &[u8] = br#"{"model":"probe","input":"ping"}"#;
/// What such a request is expected to use: a few tokens of wrapping, a word, one token.
pub(crate) const PROBE_TOKENS: Tokens = Tokens { input: 8, cached_input: 0, output: 1 };

/// What came of it.
#[derive(Debug)]
pub(crate) struct Probed {
    /// None: a whole answer came.
    pub(crate) failed: Option<Classified>,
    /// Until the head of the answer came.
    pub(crate) ttft: Option<Duration>,
    /// None: nothing was generated.
    pub(crate) used: Option<(Tokens, UsageSource)>,
    /// The drill that took hold of it.
    pub(crate) fault: Option<Arc<str>>,
}

/// Calls `deployment`, for at most `limit`.
///
/// # Errors
/// Never in practice: the request is a constant.
pub(crate) async fn probe(
    worker: &Arc<Worker>,
    snapshot: &Arc<Snapshot>,
    deployment: DeploymentIndex,
    limit: Duration,
) -> Result<Probed, ScanError> {
    let job = Arc::new(job(snapshot, deployment)?);
    let drills = &worker.shared.drills;
    let name = snapshot.deployment_name(deployment);
    let hold = if drills.is_armed() { drills.hold(name, None, &mut rand::rng()) } else { None };
    let fault = hold.as_ref().map(|hold| Arc::clone(&hold.name));
    let attempt = attempt::run(Arc::clone(worker), Arc::clone(&job), deployment, 0, Heard::default(), hold);
    let probed = match timeout(limit, attempt).await {
        Err(_) => Probed {
            failed: Some(classify_transport(TransportFault::AttemptTimeout)),
            ttft: None,
            used: None,
            fault,
        },
        Ok(AttemptEnd::Whole { facts, ttft, .. }) => {
            let used = job.tokens(facts.usage, facts.output_bytes);
            Probed { failed: None, ttft: Some(ttft), used: Some(used), fault }
        }
        // It asked for no stream; one that comes all the same is an answer.
        Ok(AttemptEnd::Stream(opened)) => {
            let used = job.tokens(opened.progress.usage, opened.progress.output_bytes);
            Probed { failed: None, ttft: None, used: Some(used), fault }
        }
        Ok(AttemptEnd::Failed(failed)) => {
            let used = failed.usage.map(|usage| job.tokens(Some(usage), 0));
            Probed { failed: Some(failed.classified), ttft: None, used, fault }
        }
    };
    Ok(probed)
}

fn job(snapshot: &Arc<Snapshot>, deployment: DeploymentIndex) -> Result<Job, ScanError> {
    let offered = snapshot.table().deployment(deployment).capabilities;
    let (endpoint, body) = if offered == Capabilities::EMBEDDINGS {
        (Endpoint::Embeddings, EMBEDDING)
    } else {
        (Endpoint::ChatCompletions, CHAT)
    };
    Ok(Job {
        snapshot: Arc::clone(snapshot),
        goal: Goal::Pin(deployment),
        endpoint,
        scanned: scan(body)?,
        input_bytes: body.len(),
        body: Bytes::from_static(body),
        profile: Profile { max_output_tokens: Some(1), ..Profile::default() },
        deadline: None,
        forwarded: Forwarded::default(),
        tenant: None,
        budget: None,
        tags: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_requests_are_what_providers_ask_for() {
        for (endpoint, body) in [(Endpoint::ChatCompletions, CHAT), (Endpoint::Embeddings, EMBEDDING)] {
            let scanned = scan(body).unwrap();
            assert!(endpoint.required(&scanned).1, "{endpoint:?}");
            assert!(scanned.model.is_some() && !scanned.stream);
        }
        assert_eq!(scan(CHAT).unwrap().limits.max_tokens, Some(1));
    }
}
