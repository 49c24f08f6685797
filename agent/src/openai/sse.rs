//! Splits a stream of bytes into server-sent events, keeping every byte.
//!
//! Lines end with LF, CR or CRLF, wherever chunks are cut. The raw bytes of all events
//! and the leftover, one after the other, are exactly what came in. Time is linear: no
//! byte is searched twice for line ends.

use bytes::{Bytes, BytesMut};

/// Longest event. Providers send images in events, of a megabyte or two.
pub const EVENT_MAX: usize = 4 * 1024 * 1024;

const BOM: &[u8] = b"\xEF\xBB\xBF";

/// One event, complete with the blank line that ends it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// As it came.
    pub raw: Bytes,
    /// The `event` field.
    pub name: Option<Bytes>,
    /// The `data` lines, joined by LF. `None`: there was none (a comment, a ping).
    pub data: Option<Bytes>,
}

/// Why a stream cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SseError {
    /// Memory per stream is bounded.
    #[error("an event is longer than {EVENT_MAX} bytes")]
    EventTooLong,
}

/// Push chunks, then take events until there is none.
#[derive(Debug, Default)]
pub struct Splitter {
    buffer: BytesMut,
    /// Up to here there is no unseen line end.
    seen: usize,
    line_start: usize,
    /// The byte before `seen` was a CR: an LF there belongs to it.
    after_cr: bool,
    /// A byte order mark may only open the stream.
    past_start: bool,
}

impl Splitter {
    /// For a new stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds what came in.
    pub fn push(&mut self, chunk: &[u8]) {
        self.buffer.extend_from_slice(chunk);
    }

    /// The next whole event; `None`: push more first.
    ///
    /// # Errors
    /// If an event is too long. The stream is then of no more use.
    pub fn next_event(&mut self) -> Result<Option<Event>, SseError> {
        while let Some(line_end) = self.next_line_end() {
            let is_blank = self.line_is_blank(line_end);
            self.line_start = self.seen;
            if is_blank {
                if self.seen > EVENT_MAX {
                    return Err(SseError::EventTooLong);
                }
                return Ok(Some(self.take_event()));
            }
        }
        if self.buffer.len() > EVENT_MAX { Err(SseError::EventTooLong) } else { Ok(None) }
    }

    /// What came after the last whole event. Not an event, but some providers end a
    /// stream with plain JSON that says what went wrong.
    pub fn leftover(&self) -> &[u8] {
        &self.buffer
    }

    /// Where the current line ends, its terminator not included; moves past that. The
    /// LF of a CRLF is skipped on the next call, as it may not be here yet.
    fn next_line_end(&mut self) -> Option<usize> {
        if self.after_cr {
            let next = *self.buffer.get(self.seen)?;
            self.after_cr = false;
            if next == b'\n' {
                self.seen += 1;
                self.line_start = self.seen;
            }
        }
        let Some(offset) = memchr::memchr2(b'\n', b'\r', &self.buffer[self.seen..]) else {
            self.seen = self.buffer.len();
            return None;
        };
        let end = self.seen + offset;
        self.after_cr = self.buffer[end] == b'\r';
        self.seen = end + 1;
        Some(end)
    }

    fn line_is_blank(&self, line_end: usize) -> bool {
        let line = &self.buffer[self.line_start..line_end];
        line.is_empty() || !self.past_start && self.line_start == 0 && line == BOM
    }

    fn take_event(&mut self) -> Event {
        // With the LF of a CRLF, if it is here.
        if self.after_cr && self.buffer.get(self.seen) == Some(&b'\n') {
            self.seen += 1;
            self.after_cr = false;
        }
        let raw = self.buffer.split_to(self.seen).freeze();
        (self.seen, self.line_start) = (0, 0);
        let bom = if self.past_start || !raw.starts_with(BOM) { 0 } else { BOM.len() };
        self.past_start = true;
        parse(raw, bom)
    }
}

/// The fields of a whole event.
fn parse(raw: Bytes, start: usize) -> Event {
    let name = lines(&raw, start).filter_map(|line| field(&line, b"event")).last();
    let data = data_of(&raw, start);
    Event { raw, name, data }
}

/// All data lines with LF between them. LLM providers write one: a slice of `raw`.
fn data_of(raw: &Bytes, start: usize) -> Option<Bytes> {
    let mut values = lines(raw, start).filter_map(|line| field(&line, b"data"));
    let first = values.next()?;
    let Some(second) = values.next() else { return Some(first) };
    let mut joined = BytesMut::with_capacity(raw.len());
    joined.extend_from_slice(&first);
    for value in std::iter::once(second).chain(values) {
        joined.extend_from_slice(b"\n");
        joined.extend_from_slice(&value);
    }
    Some(joined.freeze())
}

fn lines(raw: &Bytes, start: usize) -> impl Iterator<Item = Bytes> {
    let mut position = start;
    std::iter::from_fn(move || {
        let rest = raw.get(position..).filter(|rest| !rest.is_empty())?;
        let length = memchr::memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
        let line = raw.slice(position..position + length);
        position += length + 1;
        Some(line)
    })
}

/// The value, if the line is of this field. One space after the colon is not part of it.
fn field(line: &Bytes, name: &[u8]) -> Option<Bytes> {
    let rest = line.strip_prefix(name)?;
    let skip = match rest {
        [] => name.len(),
        [b':', b' ', ..] => name.len() + 2,
        [b':', ..] => name.len() + 1,
        _ => return None,
    };
    Some(line.slice(skip..))
}

#[cfg(test)]
#[path = "sse_tests.rs"]
mod tests;
