//! A streamed answer as gRPC events.

use std::sync::Arc;

use tokio_stream::Stream;
use tonic::Status;
use trunkline_proto::{
    routing::v1::{Delta, Finished, Started, StreamCompleteResponse, stream_complete_response::Event},
    status,
};

use super::{chat::ChatAnswer, convert};
use crate::{
    engine::{Tail, Trace, Worker},
    openai::{event, sse::Splitter},
};

type Item = Result<StreamCompleteResponse, Status>;

enum Phase {
    Start,
    Body,
    Over,
}

struct State {
    worker: Arc<Worker>,
    trace: Trace,
    tail: Box<Tail>,
    splitter: Splitter,
    finish_reason: String,
    pending: std::collections::VecDeque<Delta>,
    phase: Phase,
}

/// One started, deltas, one finished; or a status after the deltas.
pub(super) fn events(
    worker: Arc<Worker>,
    trace: Trace,
    tail: Box<Tail>,
) -> impl Stream<Item = Item> + Send {
    let state = State {
        worker,
        trace,
        tail,
        splitter: Splitter::new(),
        finish_reason: String::new(),
        pending: std::collections::VecDeque::new(),
        phase: Phase::Start,
    };
    futures_util::stream::unfold(state, |mut state| async move {
        let item = state.next().await?;
        Some((item, state))
    })
}

impl State {
    async fn next(&mut self) -> Option<Item> {
        loop {
            match self.phase {
                Phase::Over => return None,
                Phase::Start => {
                    self.phase = Phase::Body;
                    return Some(event(Event::Started(Started { decision: self.decision() })));
                }
                Phase::Body => {}
            }
            if let Some(delta) = self.pending.pop_front() {
                return Some(event(Event::Delta(delta)));
            }
            let Some(piece) = self.tail.next().await else {
                self.phase = Phase::Over;
                return Some(self.finished());
            };
            self.splitter.push(&piece);
            if let Err(broken) = self.read_events() {
                // What was read before it comes first.
                self.phase = if self.pending.is_empty() { Phase::Over } else { Phase::Body };
                return Some(Err(broken));
            }
        }
    }

    /// Error events end the stream with a status.
    fn read_events(&mut self) -> Result<(), Status> {
        while let Ok(Some(raw)) = self.splitter.next_event() {
            let facts = event::inspect(&raw);
            if facts.error.is_some() {
                return Err(status::unavailable(
                    "UPSTREAM_BROKE_OFF",
                    format!(
                        "the provider broke off the answer after its first content (decision {})",
                        self.trace.id
                    ),
                    None,
                ));
            }
            let chunk = raw.data.as_deref().and_then(|data| serde_json::from_slice::<ChatAnswer>(data).ok());
            let Some(chunk) = chunk else { continue };
            let (said, finish_reason) = chunk.take();
            if let Some(reason) = finish_reason {
                self.finish_reason = reason;
            }
            if !said.content.is_empty() || !said.tool_calls.is_empty() {
                self.pending.push_back(Delta { content: said.content, tool_calls: said.tool_calls });
            }
        }
        Ok(())
    }

    fn finished(&self) -> Item {
        let (tokens, source) = self.tail.used();
        event(Event::Finished(Finished {
            finish_reason: self.finish_reason.clone(),
            usage: Some(convert::usage(tokens, source)),
            decision: self.decision(),
        }))
    }

    fn decision(&self) -> Option<trunkline_proto::types::v1::Decision> {
        let record = self.worker.shared.decisions.get(&self.trace.id)?;
        let record = record.lock();
        Some(convert::decision(&self.worker.shared, &record))
    }
}

#[expect(clippy::unnecessary_wraps, reason = "the item type of the stream")]
fn event(event: Event) -> Item {
    Ok(StreamCompleteResponse { event: Some(event) })
}
