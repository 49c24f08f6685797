//! A streamed answer as gRPC events.

use std::{collections::VecDeque, sync::Arc};

use tokio_stream::Stream;
use tonic::Status;
use trunkline_proto::routing::v1::{
    Delta, Finished, Started, StreamCompleteResponse, stream_complete_response::Event,
};

use super::{
    chat, convert,
    refuse::{self, Broken},
};
use crate::{
    engine::{Tail, Trace, Worker},
    openai::{
        event,
        sse::{self, Splitter},
    },
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
    reader: Reader,
    phase: Phase,
}

/// One started, deltas, one finished; or a status after the deltas.
pub(super) fn events(worker: Arc<Worker>, trace: Trace, tail: Box<Tail>) -> impl Stream<Item = Item> + Send {
    let state = State { worker, trace, tail, reader: Reader::default(), phase: Phase::Start };
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
            match self.reader.next() {
                Some(Ok(delta)) => return Some(event(Event::Delta(delta))),
                Some(Err(broken)) => {
                    self.phase = Phase::Over;
                    return Some(Err(refuse::broken(broken, &self.trace.id)));
                }
                None => {}
            }
            let Some(piece) = self.tail.next().await else {
                self.phase = Phase::Over;
                return Some(self.finished());
            };
            self.reader.read(&piece);
        }
    }

    fn finished(&self) -> Item {
        let (tokens, source) = self.tail.used();
        event(Event::Finished(Finished {
            finish_reason: self.reader.finish_reason.clone(),
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

/// Makes deltas of the provider's events.
#[derive(Default)]
struct Reader {
    splitter: Splitter,
    pending: VecDeque<Delta>,
    /// Told after what is pending.
    broken: Option<Broken>,
    /// The first content came.
    begun: bool,
    finish_reason: String,
}

impl Reader {
    /// None: more must be read.
    fn next(&mut self) -> Option<Result<Delta, Broken>> {
        let delta = self.pending.pop_front().map(Ok);
        delta.or_else(|| self.broken.take().map(Err))
    }

    fn read(&mut self, piece: &[u8]) {
        self.splitter.push(piece);
        while self.broken.is_none() {
            match self.splitter.next_event() {
                Ok(Some(event)) => self.broken = self.take(&event).err(),
                Ok(None) => return,
                Err(_) => self.broken = Some(Broken::Unreadable),
            }
        }
    }

    fn take(&mut self, event: &sse::Event) -> Result<(), Broken> {
        let facts = event::inspect(event);
        if facts.error.is_some() {
            return Err(Broken::Off);
        }
        // Before content it is rubbish that begins no answer; after it, it may be a
        // piece of the answer.
        if facts.unreadable && self.begun {
            return Err(Broken::Unreadable);
        }
        if let Some(reason) = facts.finish_reason {
            self.finish_reason = reason;
        }
        if !facts.has_content {
            return Ok(());
        }
        self.begun = true;
        let delta = chat::chunk(event.data.as_deref().unwrap_or_default());
        let delta = delta.map_err(|chat::Unreadable| Broken::Unreadable)?;
        if !delta.content.is_empty() || !delta.tool_calls.is_empty() {
            self.pending.push_back(delta);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Deltas as their text, and how the piece ended.
    fn read(piece: &str) -> (Vec<String>, Option<Broken>) {
        let mut reader = Reader::default();
        reader.read(piece.as_bytes());
        let mut said = Vec::new();
        loop {
            match reader.next() {
                Some(Ok(delta)) => said.push(delta.content),
                Some(Err(broken)) => {
                    assert!(reader.next().is_none(), "nothing follows a failure");
                    return (said, Some(broken));
                }
                None => return (said, None),
            }
        }
    }

    const HEY: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"hey\"}}]}\n\n";

    #[test]
    fn what_came_before_an_error_is_told_first() {
        let (said, broken) = read(&format!("{HEY}{HEY}data: {{\"error\":{{\"message\":\"m\"}}}}\n\n{HEY}"));
        assert_eq!((said.len(), broken), (2, Some(Broken::Off)));
    }

    #[test]
    fn content_that_cannot_be_read_is_a_failure() {
        for unreadable in ["{\"choices\":[{\"delta\":{\"content\":7}}]}", "{\"choices\":[{\"del"] {
            let (said, broken) = read(&format!("{HEY}data: {unreadable}\n\n{HEY}"));
            assert_eq!((said.len(), broken), (1, Some(Broken::Unreadable)), "{unreadable}");
        }
    }

    #[test]
    fn what_is_no_content_is_passed_over() {
        let (said, broken) = read(&format!(
            "data: rubbish\n\n: ping\n\ndata: {{\"choices\":[{{\"delta\":{{\"role\":\"assistant\"}}}}]}}\n\n{HEY}\
             data: {{\"choices\":[],\"usage\":{{\"prompt_tokens\":3}}}}\n\ndata: [DONE]\n\n"
        ));
        assert_eq!((said, broken), (vec!["hey".to_owned()], None));
    }

    #[test]
    fn last_finish_reason_that_says_something_counts() {
        let mut reader = Reader::default();
        for reason in ["stop", ""] {
            let chunk =
                format!("data: {{\"choices\":[{{\"delta\":{{}},\"finish_reason\":\"{reason}\"}}]}}\n\n");
            reader.read(chunk.as_bytes());
        }
        assert_eq!(reader.finish_reason, "stop");
    }
}
