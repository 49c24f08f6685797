//! What will be sent for one request, and how a fault bends it. No I/O here.

use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;

use super::{
    answer::{Answer, Frame, Part, event},
    faults::{ErrorBody, Fault, error_json},
};
use crate::{End, Script};

const JSON: &str = "application/json";
const EVENT_STREAM: &str = "text/event-stream; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
const HTML_PAGE: &str =
    "<!doctype html><html><head><title>Sign in</title></head><body>Please sign in.</body></html>";
const BROKEN_JSON: &str = r#"{"id": "chatcmpl-broken", "choices": [{"index": 0, "delta": {"content": "#;

/// The whole course of one answer.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) head: Head,
    pub(super) status: u16,
    pub(super) content_type: &'static str,
    pub(super) retry_after: Option<String>,
    /// Content-Length; none for a stream.
    pub(super) length: Option<usize>,
    pub(super) stream: bool,
    pub(super) input_tokens: u64,
    pub(super) frames: Vec<Frame>,
    pub(super) ending: Ending,
    /// In writes of one byte.
    pub(super) drip: bool,
    /// Close the connection afterwards, unannounced.
    pub(super) close_after: bool,
}

/// When the response head is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Head {
    After(Duration),
    Never,
    /// Never: the connection is reset instead.
    Reset,
}

/// What follows the last frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// A normal end of the body.
    Normal,
    /// Nothing, with the connection open.
    Hang,
    Reset,
    /// The connection is closed in the middle of the body.
    Cut,
}

impl From<Answer> for Plan {
    fn from(answer: Answer) -> Self {
        let length = answer.frames.iter().map(|frame| frame.bytes.len()).sum();
        Self {
            head: Head::After(answer.head_delay),
            status: 200,
            content_type: if answer.stream { EVENT_STREAM } else { JSON },
            retry_after: None,
            length: (!answer.stream).then_some(length),
            stream: answer.stream,
            input_tokens: answer.input_tokens,
            frames: answer.frames,
            ending: Ending::Normal,
            drip: false,
            close_after: false,
        }
    }
}

impl Plan {
    /// An error answer at once.
    pub(super) fn refusal(status: u16, body: ErrorBody) -> Self {
        let frame = Frame { part: Part::Whole, wait: Duration::ZERO, bytes: body.into_bytes(), tokens: 0 };
        let answer =
            Answer { stream: false, head_delay: Duration::ZERO, input_tokens: 0, frames: vec![frame] };
        Self { status, ..Self::from(answer) }
    }

    /// What a script says; `write` writes the good answer it is made from.
    pub(super) fn of_script(script: &Script, write: impl Fn(&Script) -> Answer) -> Self {
        match script.end {
            End::Complete => write(script).into(),
            End::Empty => write(&Script { tokens: 0, gaps: Vec::new(), ..script.clone() }).into(),
            End::Break { after_tokens } => Self::from(write(script)).ending_after(after_tokens, Ending::Cut),
            End::Silent => Self { head: Head::Never, ..Self::refusal(503, ErrorBody::usual(503)) },
            End::Reset => Self { head: Head::Reset, ..Self::refusal(503, ErrorBody::usual(503)) },
            End::Refused => Self {
                head: Head::After(script.head_delay),
                retry_after: script.retry_after.map(|wait| wait.as_secs_f64().ceil().to_string()),
                ..Self::refusal(script.status, ErrorBody::usual(script.status))
            },
        }
    }

    /// The same with a fault on top. [`Fault::Empty`] is not known here: an answer
    /// without tokens is written that way from the start.
    pub(super) fn with_fault(self, fault: Fault) -> Self {
        match fault {
            Fault::Status { code, body, retry_after } => Self { retry_after, ..Self::refusal(code, body) },
            Fault::Html200 => self.replaced(HTML, HTML_PAGE.into()),
            Fault::FirstEventError { code } => self.with_error(0, &code),
            Fault::Reset => Self { head: Head::Reset, ..self },
            Fault::Silent => Self { head: Head::Never, ..self },
            Fault::ResetMidBody => {
                let half = self.content_frames() / 2;
                self.ending_after(half, Ending::Reset)
            }
            Fault::RoleThenSilent if self.stream => self.ending_after(0, Ending::Hang),
            Fault::RoleThenSilent | Fault::HeadersThenSilent => {
                Self { frames: Vec::new(), ending: Ending::Hang, ..self }
            }
            Fault::SlowFirstToken(wait) => self.slowed(wait),
            Fault::CutAfterTokens(count) => self.ending_after(count, Ending::Cut),
            Fault::StallAfterTokens(count) => self.ending_after(count, Ending::Hang),
            Fault::ErrorAfterTokens(count) => self.with_error(count, &Value::from("server_error")),
            Fault::Empty => self,
            Fault::MissingDone => {
                let frames = self.frames.into_iter().filter(|frame| frame.part != Part::Done).collect();
                Self { frames, ..self }
            }
            Fault::Malformed if self.stream => {
                let plan = self.ending_after(0, Ending::Normal);
                plan.followed_by(event(BROKEN_JSON))
            }
            Fault::Malformed => self.replaced(JSON, BROKEN_JSON.into()),
            Fault::DripBytes => Self { drip: true, ..self },
            Fault::CloseIdle => Self { close_after: true, ..self },
        }
    }

    fn content_frames(&self) -> u32 {
        self.frames.iter().filter(|frame| frame.part == Part::Content).count() as u32
    }

    /// A stream up to and with its nth content chunk, or half a unary body; then `ending`.
    fn ending_after(mut self, content: u32, ending: Ending) -> Self {
        if self.stream {
            let mut left = content;
            let keep = |frame: &Frame| match frame.part {
                Part::Role => true,
                Part::Content if left > 0 => {
                    left -= 1;
                    true
                }
                _ => false,
            };
            self.frames = self.frames.into_iter().take_while(keep).collect();
        } else {
            for frame in &mut self.frames {
                frame.bytes.truncate(frame.bytes.len() / 2);
                frame.tokens = 0;
            }
        }
        Self { ending, ..self }
    }

    /// An error in the body, after so many content chunks and then a normal end; for
    /// zero it is the very first event.
    fn with_error(self, content: u32, code: &Value) -> Self {
        let error =
            error_json("The server had an error while processing the request.", "server_error", None, code);
        if !self.stream {
            return self.replaced(JSON, error);
        }
        let error = event(&String::from_utf8_lossy(&error));
        let plan = match content {
            0 => Self { frames: Vec::new(), ..self },
            _ => self.ending_after(content, Ending::Normal),
        };
        plan.followed_by(error)
    }

    fn followed_by(mut self, bytes: Bytes) -> Self {
        self.frames.push(Frame { part: Part::Finish, wait: Duration::ZERO, bytes, tokens: 0 });
        self
    }

    /// Another body under the same head.
    fn replaced(self, content_type: &'static str, bytes: Bytes) -> Self {
        let length = Some(bytes.len());
        let frame = Frame { part: Part::Whole, wait: Duration::ZERO, bytes, tokens: 0 };
        Self { content_type, length, stream: false, input_tokens: 0, frames: vec![frame], ..self }
    }

    fn slowed(mut self, wait: Duration) -> Self {
        match self.frames.iter_mut().find(|frame| frame.part == Part::Content) {
            Some(first) => first.wait = wait,
            None => {
                if let Head::After(delay) = self.head {
                    self.head = Head::After(delay + wait);
                }
            }
        }
        self
    }
}
