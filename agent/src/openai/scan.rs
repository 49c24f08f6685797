//! What the agent must know of a request body, found in one pass.
//!
//! The body is checked as JSON but never turned into values: prompts may be megabytes.
//! Ranges are byte positions for [`super::rewrite`]. A repeated key is refused: parsers
//! differ in which one counts, and the one that was checked must be the one that is used.

use std::ops::Range;

use super::scan_cursor::{Cursor, DEPTH_MAX};

/// Why a body is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScanError {
    /// No JSON object at all.
    #[error("the request body must be a JSON object")]
    NotAnObject,
    /// Not JSON.
    #[error("the request body is not valid JSON: expected {expected} at byte {at}")]
    Syntax {
        /// What would be right there.
        expected: &'static str,
        /// Offset from 0.
        at: usize,
    },
    /// Not UTF-8.
    #[error("the request body is not UTF-8 at byte {at}")]
    NotUtf8 {
        /// Offset from 0.
        at: usize,
    },
    /// Containers inside of each other.
    #[error("the request body is nested deeper than {DEPTH_MAX} at byte {at}")]
    TooDeep {
        /// Offset from 0.
        at: usize,
    },
    /// A field that decides the route has a value of the wrong kind.
    #[error("`{field}` must be {expected} (byte {at})")]
    WrongType {
        /// Top-level name.
        field: &'static str,
        /// What would be right.
        expected: &'static str,
        /// Offset from 0.
        at: usize,
    },
    /// A field that is looked at is there twice.
    #[error("`{field}` must be given once (again at byte {at})")]
    Repeated {
        /// Top-level name.
        field: &'static str,
        /// Offset of the second one's value, from 0.
        at: usize,
    },
}

/// The top-level fields that are looked at.
const FIELDS: [&str; 13] = [
    "model",
    "stream",
    "stream_options",
    "messages",
    "input",
    "prompt",
    "max_completion_tokens",
    "max_tokens",
    "tools",
    "response_format",
    "text",
    "n",
    "best_of",
];

/// Which of [`FIELDS`] were met.
#[derive(Default)]
struct Met([bool; FIELDS.len()]);

impl Met {
    /// Takes note of a key. To some parsers upper and lower case are the same.
    fn note(&mut self, key: &str, at: usize) -> Result<(), ScanError> {
        let Some(index) = FIELDS.iter().position(|field| field.eq_ignore_ascii_case(key)) else {
            return Ok(());
        };
        if std::mem::replace(&mut self.0[index], true) {
            return Err(ScanError::Repeated { field: FIELDS[index], at });
        }
        Ok(())
    }
}

/// What was found.
#[expect(clippy::struct_excessive_bools, reason = "independent facts, not states")]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scanned {
    /// Offset just after the `{` of the whole body.
    pub object_start: usize,
    /// `model`; absent or null: none.
    pub model: Option<ModelField>,
    /// `stream`.
    pub stream: bool,
    /// `stream_options`, if it is an object or null.
    pub stream_options: Option<StreamOptions>,
    /// `messages` is there.
    pub has_messages: bool,
    /// `input` is there.
    pub has_input: bool,
    /// `prompt` is there.
    pub has_prompt: bool,
    /// What it says of the length of the answer.
    pub limits: OutputLimits,
    /// `n` or `best_of`, whichever is more: alternatives that are made of one prompt.
    pub answers: Option<u64>,
    /// How many prompts `prompt` holds, each answered by itself. 0: it is not there.
    pub prompts: u64,
    /// `tools` is an array that is not empty.
    pub has_tools: bool,
    /// `response_format.type` (or `text.format.type`) is `json_schema`.
    pub wants_json_schema: bool,
    /// A content part is an image.
    pub has_images: bool,
}

/// Limits of one answer in tokens. Each endpoint knows only some of them, and lenient
/// providers ignore the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutputLimits {
    /// `max_completion_tokens`.
    pub max_completion_tokens: Option<u64>,
    /// `max_tokens`.
    pub max_tokens: Option<u64>,
}

/// The model's name and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelField {
    /// As the caller means it, escapes resolved.
    pub name: String,
    /// With its quotes.
    pub range: Range<usize>,
}

/// What `stream_options` says and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamOptions {
    /// Of the whole value.
    pub range: Range<usize>,
    /// An object without keys.
    pub is_empty: bool,
    /// `null`, the same as absent.
    pub is_null: bool,
    /// Where the value of `include_usage` is, and whether it is `true`.
    pub include_usage: Option<(Range<usize>, bool)>,
}

impl Scanned {
    /// Whether the caller itself asked for usage in the stream.
    pub fn includes_usage(&self) -> bool {
        let field = self.stream_options.as_ref().and_then(|options| options.include_usage.as_ref());
        field.is_some_and(|(_, value)| *value)
    }
}

/// Looks at a request body.
///
/// # Errors
/// If it is not a JSON object of at most 64 levels, if `model` or `stream` are of the
/// wrong kind, or if a field that is looked at is there twice.
pub fn scan(body: &[u8]) -> Result<Scanned, ScanError> {
    if let Err(error) = str::from_utf8(body) {
        return Err(ScanError::NotUtf8 { at: error.valid_up_to() });
    }
    let mut cursor = Cursor::new(body);
    if cursor.next_token() != Some(b'{') {
        return Err(ScanError::NotAnObject);
    }
    let mut scanned = Scanned { object_start: cursor.position() + 1, ..Scanned::default() };
    let mut met = Met::default();
    cursor.entries(|cursor, key| {
        met.note(key, cursor.position())?;
        match key {
            "model" => scanned.model = model(cursor, body)?,
            "stream" => scanned.stream = stream(cursor, body)?,
            "stream_options" => scanned.stream_options = stream_options(cursor, body)?,
            "messages" => (scanned.has_messages, scanned.has_images) = (true, images(cursor)?),
            "input" => (scanned.has_input, scanned.has_images) = (true, images(cursor)?),
            "prompt" => {
                scanned.prompts = prompts(&body[cursor.skip(1)?]);
                scanned.has_prompt = true;
            }
            "max_completion_tokens" => scanned.limits.max_completion_tokens = count(cursor, body)?,
            "max_tokens" => scanned.limits.max_tokens = count(cursor, body)?,
            "n" | "best_of" => scanned.answers = scanned.answers.max(count(cursor, body)?),
            "tools" => scanned.has_tools = has_items(&body[cursor.skip(1)?]),
            "response_format" => scanned.wants_json_schema = is_json_schema(cursor, body, 1)?,
            "text" => scanned.wants_json_schema |= text_format(cursor, body)?,
            _ => {
                cursor.skip(1)?;
            }
        }
        Ok(())
    })?;
    cursor.end()?;
    Ok(scanned)
}

fn model(cursor: &mut Cursor<'_>, body: &[u8]) -> Result<Option<ModelField>, ScanError> {
    let range = cursor.skip(1)?;
    match body[range.start] {
        b'"' => Ok(Some(ModelField { name: cursor.text(range.clone())?.into_owned(), range })),
        b'n' => Ok(None),
        _ => Err(ScanError::WrongType { field: "model", expected: "a string", at: range.start }),
    }
}

fn stream(cursor: &mut Cursor<'_>, body: &[u8]) -> Result<bool, ScanError> {
    let range = cursor.skip(1)?;
    match &body[range.clone()] {
        b"true" => Ok(true),
        b"false" | b"null" => Ok(false),
        _ => Err(ScanError::WrongType { field: "stream", expected: "true or false", at: range.start }),
    }
}

fn stream_options(cursor: &mut Cursor<'_>, body: &[u8]) -> Result<Option<StreamOptions>, ScanError> {
    let start = cursor.position();
    let (mut include_usage, mut is_empty) = (None, true);
    match cursor.next_token() {
        Some(b'{') => cursor.entries(|cursor, key| {
            is_empty = false;
            let range = cursor.skip(2)?;
            if key == "include_usage" {
                let value = &body[range.clone()] == b"true";
                include_usage = Some((range, value));
            }
            Ok(())
        })?,
        _ => {
            cursor.skip(1)?;
        }
    }
    let range = start..cursor.position();
    let is_null = &body[range.clone()] == b"null";
    // Anything else is wrong, and the provider says so better.
    let usable = is_null || body[start] == b'{';
    Ok(usable.then_some(StreamOptions { range, is_empty, is_null, include_usage }))
}

/// Text that mentions images is a value; only keys count.
fn images(cursor: &mut Cursor<'_>) -> Result<bool, ScanError> {
    cursor.take_image();
    cursor.skip(1)?;
    Ok(cursor.take_image())
}

/// A number that any provider may take for a whole one: also `8.0`, and `"8"`. What is none
/// the provider judges.
fn count(cursor: &mut Cursor<'_>, body: &[u8]) -> Result<Option<u64>, ScanError> {
    let range = cursor.skip(1)?;
    let Ok(text) = str::from_utf8(&body[range]) else { return Ok(None) };
    let text = text.trim_matches('"').trim();
    let whole = |number: &f64| number.fract() == 0.0 && *number >= 0.0;
    // A cast saturates.
    let lenient = || text.parse::<f64>().ok().filter(whole).map(|number| number as u64);
    Ok(text.parse().ok().or_else(lenient))
}

/// One text or one array of tokens is one prompt; an array of either holds several.
fn prompts(value: &[u8]) -> u64 {
    let Some(inner) = value.strip_prefix(b"[").and_then(|rest| rest.strip_suffix(b"]")) else { return 1 };
    if !matches!(inner.trim_ascii_start().first(), Some(b'"' | b'[')) {
        return 1;
    }
    let (mut items, mut depth, mut quoted, mut escaped) = (1, 0_u32, false, false);
    for byte in inner {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if quoted => {}
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            b',' if depth == 0 => items += 1,
            _ => {}
        }
    }
    items
}

fn has_items(array: &[u8]) -> bool {
    let inner = array.strip_prefix(b"[").and_then(|rest| rest.strip_suffix(b"]"));
    inner.is_some_and(|inner| !inner.trim_ascii().is_empty())
}

/// Whether the object here has a `type` of `json_schema`.
fn is_json_schema(cursor: &mut Cursor<'_>, body: &[u8], outside: u32) -> Result<bool, ScanError> {
    if cursor.next_token() != Some(b'{') {
        return cursor.skip(outside).map(|_| false);
    }
    let mut found = false;
    cursor.entries(|cursor, key| {
        let range = cursor.skip(outside + 1)?;
        if key == "type" {
            found = body[range.start] == b'"' && cursor.text(range)? == "json_schema";
        }
        Ok(())
    })?;
    Ok(found)
}

fn text_format(cursor: &mut Cursor<'_>, body: &[u8]) -> Result<bool, ScanError> {
    if cursor.next_token() != Some(b'{') {
        return cursor.skip(1).map(|_| false);
    }
    let mut found = false;
    cursor.entries(|cursor, key| {
        if key == "format" {
            found = is_json_schema(cursor, body, 2)?;
        } else {
            cursor.skip(2)?;
        }
        Ok(())
    })?;
    Ok(found)
}

#[cfg(test)]
#[path = "scan_tests.rs"]
mod tests;
