//! One live provider: a model, its state, what it saw, and the faults set on it.

use std::{
    collections::VecDeque,
    fmt,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use http::{HeaderMap, Method, header, request::Parts};
use parking_lot::Mutex;
use rand::{SeedableRng, rngs::StdRng};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;
use trunkline_routing::time::Timestamp;

use super::{
    answer::{self, Stamp},
    counters::{Counters, OpenCall},
    faults::{ErrorBody, Fault},
    journal::{Journal, Seen},
    openai::{self, Api},
    plan::Plan,
};
use crate::{Call, End, ProviderModel, RateGate, Script};

/// Faults that can wait in the queue; a longer script is a mistake in a test.
pub const FAULT_QUEUE_MAX: usize = 100_000;

/// A provider to be served by [`serve`](super::serve). Time zero of the model's
/// outages is when it was made.
pub struct LiveProvider {
    model: ProviderModel,
    served_models: Vec<String>,
    bearer_key: Option<String>,
    started: Instant,
    state: Mutex<State>,
    counters: watch::Sender<Counters>,
}

struct State {
    rng: StdRng,
    gate: RateGate,
    fault: Option<Fault>,
    queue: VecDeque<Option<Fault>>,
    journal: Journal,
}

impl LiveProvider {
    /// A provider that behaves like `model`; the same seed and the same order of
    /// requests give the same behaviour.
    pub fn new(model: ProviderModel, seed: u64) -> Self {
        let state = State {
            rng: StdRng::seed_from_u64(seed),
            gate: RateGate::default(),
            fault: None,
            queue: VecDeque::new(),
            journal: Journal::default(),
        };
        Self {
            served_models: vec![model.name.clone()],
            model,
            bearer_key: None,
            started: Instant::now(),
            state: Mutex::new(state),
            counters: watch::Sender::default(),
        }
    }

    /// Requires `Authorization: Bearer <key>`; anything else gets 401.
    #[must_use]
    pub fn with_bearer_key(mut self, key: impl Into<String>) -> Self {
        self.bearer_key = Some(key.into());
        self
    }

    /// What `GET /models` lists (default: the model's name). Any model is answered.
    #[must_use]
    pub fn with_models(mut self, models: impl IntoIterator<Item = String>) -> Self {
        self.served_models = models.into_iter().collect();
        self
    }

    /// The model it plays.
    pub fn model(&self) -> &ProviderModel {
        &self.model
    }

    /// Sets the fault of every request from now on, or ends it. A fault replaces the
    /// model's own errors, limits and outages; its latencies stay.
    pub fn set_fault(&self, fault: Option<Fault>) {
        self.state.lock().fault = fault;
    }

    /// Queues faults, consumed one per well-formed POST before [`Self::set_fault`]
    /// counts again; `None` is a request with a good answer. Returns how many fitted
    /// into the queue.
    pub fn queue_faults(&self, faults: impl IntoIterator<Item = Option<Fault>>) -> usize {
        let mut state = self.state.lock();
        let before = state.queue.len();
        state.queue.extend(faults.into_iter().take(FAULT_QUEUE_MAX - before));
        state.queue.len() - before
    }

    /// What was counted so far.
    pub fn counters(&self) -> Counters {
        self.counters.borrow().clone()
    }

    /// Waits until the counters meet a condition, and returns them.
    pub async fn wait_for(&self, condition: impl Fn(&Counters) -> bool) -> Counters {
        let mut receiver = self.counters.subscribe();
        loop {
            {
                let counters = receiver.borrow_and_update();
                if condition(&counters) {
                    return counters.clone();
                }
            }
            if receiver.changed().await.is_err() {
                return self.counters();
            }
        }
    }

    /// Request `number`, from 0, if it was seen and is among the last 256.
    pub fn seen(&self, number: u64) -> Option<Seen> {
        self.state.lock().journal.get(number)
    }

    /// The newest request.
    pub fn last_seen(&self) -> Option<Seen> {
        self.state.lock().journal.last()
    }

    /// Header names and values of the newest request; empty before the first.
    pub fn last_headers(&self) -> Vec<(String, String)> {
        self.last_seen().map(|seen| seen.headers).unwrap_or_default()
    }

    pub(super) fn count(&self, change: impl FnOnce(&mut Counters)) {
        self.counters.send_modify(change);
    }

    pub(super) fn note_closed_early(&self, number: u64) {
        self.state.lock().journal.closed_early(number);
    }

    /// Opens a call: it is in the journal and counted from here on.
    pub(super) fn open(
        self: &Arc<Self>,
        head: &Parts,
        body: &Bytes,
        stop: CancellationToken,
    ) -> (u64, OpenCall) {
        let number = self.state.lock().journal.push(head, body);
        (number, OpenCall::begin(Arc::clone(self), number, stop))
    }

    /// Decides what to do with a request.
    pub(super) fn plan(&self, number: u64, head: &Parts, body: &Bytes) -> Plan {
        if !self.is_authorized(&head.headers) {
            return Plan::refusal(401, ErrorBody::usual(401));
        }
        let path = head.uri.path();
        let path = path.strip_prefix("/v1").unwrap_or(path);
        let api = match (&head.method, path) {
            (&Method::GET, "/models") => return self.plan_models(),
            (&Method::POST, "/chat/completions") => Api::Chat,
            (&Method::POST, "/completions") => Api::Completions,
            (&Method::POST, "/embeddings") => Api::Embeddings,
            _ => return Plan::refusal(404, ErrorBody::usual(404)),
        };
        match openai::read(api, body) {
            Ok(ask) => self.plan_answer(number, &ask),
            Err(error) => Plan::refusal(400, ErrorBody::Custom(error.into_json())),
        }
    }

    fn plan_models(&self) -> Plan {
        let plan = Plan::from(answer::models(&self.served_models));
        match self.state.lock().fault.clone() {
            Some(fault) => plan.with_fault(fault),
            None => plan,
        }
    }

    fn plan_answer(&self, number: u64, ask: &openai::Ask) -> Plan {
        let call = Call {
            input_tokens: ask.input_tokens,
            max_output_tokens: ask.max_tokens,
            in_flight: u32::try_from(self.counters.borrow().in_flight).unwrap_or(u32::MAX),
        };
        let (script, fault) = {
            let mut state = self.state.lock();
            let State { rng, gate, fault, queue, .. } = &mut *state;
            if let Some(fault) = queue.pop_front().or_else(|| fault.clone().map(Some)) {
                (self.model.answer(call, 1.0, rng), fault)
            } else {
                let now = Timestamp::ZERO + self.started.elapsed();
                (self.model.script(gate, now, call, rng), None)
            }
        };
        let script = if fault == Some(Fault::Empty) { Script { end: End::Empty, ..script } } else { script };
        let stamp = Stamp { id: format!("{}-{number}", self.model.name), created: unix_seconds() };
        let plan = Plan::of_script(&script, |script| answer::write(ask, script, &stamp));
        match fault {
            Some(fault) => plan.with_fault(fault),
            None => plan,
        }
    }

    fn is_authorized(&self, headers: &HeaderMap) -> bool {
        let Some(key) = &self.bearer_key else { return true };
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        given.and_then(|given| given.strip_prefix("Bearer ")) == Some(key)
    }
}

/// For `created`, which OpenAI gives in wall time.
fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The key and the journal stay out.
impl fmt::Debug for LiveProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveProvider").field("model", &self.model.name).finish_non_exhaustive()
    }
}
