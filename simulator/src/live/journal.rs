//! The last requests a live provider saw, for tests to look into.

use std::{collections::VecDeque, fmt, time::Instant};

use bytes::Bytes;
use http::{HeaderMap, request::Parts};

/// Requests kept; more than any test looks back.
pub const JOURNAL_MAX: usize = 256;

/// Body bytes kept per request: with the bound above, at most 16 MiB.
const BODY_KEPT_MAX: usize = 64 * 1024;

/// One request as it arrived.
#[derive(Clone)]
pub struct Seen {
    /// Counts from 0 since the provider was made.
    pub number: u64,
    /// When its body was complete.
    pub at: Instant,
    /// The method.
    pub method: String,
    /// The path, without a query.
    pub path: String,
    /// Header names (lower case) and values, in order of arrival.
    pub headers: Vec<(String, String)>,
    /// Length of the body.
    pub body_len: usize,
    /// The body, up to its first 64 KiB.
    pub body: Bytes,
    /// When the client closed the connection before the answer's end, if it did.
    pub closed_early: Option<Instant>,
}

impl Seen {
    /// The first value of a header; `name` in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// Header values and the body may be secret, so only names and lengths are shown.
impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.headers.iter().map(|(name, _)| name).collect();
        f.debug_struct("Seen")
            .field("number", &self.number)
            .field("method", &self.method)
            .field("path", &self.path)
            .field("headers", &names)
            .field("body_len", &self.body_len)
            .field("closed_early", &self.closed_early)
            .finish_non_exhaustive()
    }
}

/// A ring of [`Seen`].
#[derive(Debug, Default)]
pub(super) struct Journal {
    entries: VecDeque<Seen>,
    next: u64,
}

impl Journal {
    /// Notes a request; its number.
    pub(super) fn push(&mut self, head: &Parts, body: &Bytes) -> u64 {
        let number = self.next;
        self.next += 1;
        if self.entries.len() == JOURNAL_MAX {
            self.entries.pop_front();
        }
        self.entries.push_back(Seen {
            number,
            at: Instant::now(),
            method: head.method.to_string(),
            path: head.uri.path().to_owned(),
            headers: headers(&head.headers),
            body_len: body.len(),
            body: Bytes::copy_from_slice(&body[..body.len().min(BODY_KEPT_MAX)]),
            closed_early: None,
        });
        number
    }

    /// Notes that the client of a request left early.
    pub(super) fn closed_early(&mut self, number: u64) {
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.number == number) {
            entry.closed_early = Some(Instant::now());
        }
    }

    pub(super) fn get(&self, number: u64) -> Option<Seen> {
        self.entries.iter().find(|entry| entry.number == number).cloned()
    }

    pub(super) fn last(&self) -> Option<Seen> {
        self.entries.back().cloned()
    }
}

fn headers(map: &HeaderMap) -> Vec<(String, String)> {
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    map.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
}
