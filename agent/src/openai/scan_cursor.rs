//! Walks JSON bytes without recursion and without building values.
//!
//! [`super::scan`] uses it to find a few fields in a request that may be megabytes.
//! The bytes must be UTF-8; the caller checked that.

use std::{borrow::Cow, ops::Range};

use super::scan::ScanError;

/// Containers inside of each other, the outermost included. Deeper requests are no
/// real ones, and some upstream parsers recurse.
pub(super) const DEPTH_MAX: u32 = 64;

pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    position: usize,
    /// Whether an object had the key `image_url` since the last [`Self::take_image`].
    image: bool,
}

/// Open containers, innermost in the lowest bit: 1 for an object.
struct Open {
    kinds: u64,
    count: u32,
    outside: u32,
}

impl Open {
    fn push(&mut self, is_object: bool, at: usize) -> Result<(), ScanError> {
        if self.outside + self.count >= DEPTH_MAX {
            return Err(ScanError::TooDeep { at });
        }
        self.kinds = self.kinds << 1 | u64::from(is_object);
        self.count += 1;
        Ok(())
    }

    fn pop(&mut self) {
        self.kinds >>= 1;
        self.count -= 1;
    }

    /// `None`: all are closed.
    fn innermost_is_object(&self) -> Option<bool> {
        (self.count > 0).then_some(self.kinds & 1 == 1)
    }
}

impl<'a> Cursor<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0, image: false }
    }

    pub(super) const fn position(&self) -> usize {
        self.position
    }

    pub(super) fn take_image(&mut self) -> bool {
        std::mem::take(&mut self.image)
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.position).copied()
    }

    /// The next byte that is not white space.
    pub(super) fn next_token(&mut self) -> Option<u8> {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.position += 1;
        }
        self.peek()
    }

    fn expected(&self, expected: &'static str) -> ScanError {
        ScanError::Syntax { expected, at: self.position }
    }

    pub(super) fn end(&mut self) -> Result<(), ScanError> {
        if self.next_token().is_some() { Err(self.expected("nothing after the object")) } else { Ok(()) }
    }

    /// Calls `value` at the value of each key of the object that starts here. It must
    /// move past that value.
    pub(super) fn entries(
        &mut self,
        mut value: impl FnMut(&mut Self, &str) -> Result<(), ScanError>,
    ) -> Result<(), ScanError> {
        self.position += 1;
        if self.next_token() == Some(b'}') {
            self.position += 1;
            return Ok(());
        }
        loop {
            let key = self.key()?;
            self.next_token();
            value(self, &key)?;
            match self.next_token() {
                Some(b',') => self.position += 1,
                Some(b'}') => {
                    self.position += 1;
                    return Ok(());
                }
                _ => return Err(self.expected("`,` or `}`")),
            }
        }
    }

    /// A key and its colon.
    fn key(&mut self) -> Result<Cow<'a, str>, ScanError> {
        if self.next_token() != Some(b'"') {
            return Err(self.expected("a key in quotes"));
        }
        let range = self.string()?;
        if self.next_token() != Some(b':') {
            return Err(self.expected("`:`"));
        }
        self.position += 1;
        self.text(range)
    }

    /// What the string at `range`, quotes included, means.
    pub(super) fn text(&self, range: Range<usize>) -> Result<Cow<'a, str>, ScanError> {
        let at = range.start;
        let invalid = ScanError::Syntax { expected: "valid escapes in a string", at };
        let quoted = &self.bytes[range];
        let inner = &quoted[1..quoted.len() - 1];
        if memchr::memchr(b'\\', inner).is_some() {
            return serde_json::from_slice::<String>(quoted).map(Cow::Owned).map_err(|_| invalid);
        }
        str::from_utf8(inner).map(Cow::Borrowed).map_err(|_| invalid)
    }

    /// Moves past the string that starts here; its range includes the quotes.
    pub(super) fn string(&mut self) -> Result<Range<usize>, ScanError> {
        let start = self.position;
        self.position += 1;
        loop {
            let rest = &self.bytes[self.position.min(self.bytes.len())..];
            let special = memchr::memchr2(b'"', b'\\', rest);
            let plain = &rest[..special.unwrap_or(rest.len())];
            // Without an early exit this looks at many bytes at a time.
            if plain.iter().copied().fold(u8::MAX, u8::min) < 0x20 {
                self.position += plain.iter().take_while(|byte| **byte >= 0x20).count();
                return Err(self.expected("control characters as escapes"));
            }
            self.position += plain.len();
            let Some(offset) = special else { return Err(self.expected("the end of a string")) };
            if rest[offset] == b'"' {
                self.position += 1;
                return Ok(start..self.position);
            }
            self.escape(&rest[offset + 1..])?;
        }
    }

    fn escape(&mut self, after: &[u8]) -> Result<(), ScanError> {
        let hex = |digits: &[u8]| digits.len() == 4 && digits.iter().all(u8::is_ascii_hexdigit);
        self.position += match after {
            [b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', ..] => 2,
            [b'u', digits @ ..] if hex(digits.get(..4).unwrap_or_default()) => 6,
            _ => return Err(self.expected("a valid escape")),
        };
        Ok(())
    }

    /// Moves past the value that starts here, which has `outside` containers around it.
    pub(super) fn skip(&mut self, outside: u32) -> Result<Range<usize>, ScanError> {
        self.next_token();
        let start = self.position;
        let mut open = Open { kinds: 0, count: 0, outside };
        loop {
            if self.opens_or_scalar(&mut open)? {
                continue;
            }
            if self.closes(&mut open)? {
                return Ok(start..self.position);
            }
        }
    }

    /// True: a container was opened that is not empty, and a value follows.
    fn opens_or_scalar(&mut self, open: &mut Open) -> Result<bool, ScanError> {
        match self.next_token() {
            Some(b'"') => self.string().map(|_| false),
            Some(byte @ (b'{' | b'[')) => {
                let is_object = byte == b'{';
                open.push(is_object, self.position)?;
                self.position += 1;
                match (self.next_token(), is_object) {
                    (Some(b'}'), true) | (Some(b']'), false) => Ok(false),
                    (_, true) => self.inner_key().map(|()| true),
                    (_, false) => Ok(true),
                }
            }
            Some(b't') => self.literal(b"true").map(|()| false),
            Some(b'f') => self.literal(b"false").map(|()| false),
            Some(b'n') => self.literal(b"null").map(|()| false),
            Some(b'-' | b'0'..=b'9') => self.number().map(|()| false),
            _ => Err(self.expected("a value")),
        }
    }

    /// After a value: true if all is closed, false if another value follows.
    fn closes(&mut self, open: &mut Open) -> Result<bool, ScanError> {
        while let Some(is_object) = open.innermost_is_object() {
            match (self.next_token(), is_object) {
                (Some(b','), true) => {
                    self.position += 1;
                    self.inner_key()?;
                    return Ok(false);
                }
                (Some(b','), false) => {
                    self.position += 1;
                    return Ok(false);
                }
                (Some(b'}'), true) | (Some(b']'), false) => {
                    self.position += 1;
                    open.pop();
                }
                (_, true) => return Err(self.expected("`,` or `}`")),
                (_, false) => return Err(self.expected("`,` or `]`")),
            }
        }
        Ok(true)
    }

    fn inner_key(&mut self) -> Result<(), ScanError> {
        self.image |= self.key()? == "image_url";
        Ok(())
    }

    fn literal(&mut self, word: &'static [u8]) -> Result<(), ScanError> {
        if !self.bytes[self.position..].starts_with(word) {
            return Err(self.expected("`true`, `false` or `null`"));
        }
        self.position += word.len();
        Ok(())
    }

    fn number(&mut self) -> Result<(), ScanError> {
        if self.peek() == Some(b'-') {
            self.position += 1;
        }
        if self.peek() == Some(b'0') {
            self.position += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.position += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.position += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.position += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), ScanError> {
        let start = self.position;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.position += 1;
        }
        if self.position == start { Err(self.expected("a digit")) } else { Ok(()) }
    }
}
