//! The form of a token file. What is wrong is told by line, and never by content.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use secrecy::SecretString;

use super::{TOKEN_BYTES_MAX, TOKEN_BYTES_MIN, TOKENS_MAX};
use crate::file::Unreadable;

/// Bytes of a name. It is in audit entries and metrics.
const NAME_BYTES_MAX: usize = 64;

/// Why a token file is refused.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    /// It can't be read.
    #[error(transparent)]
    Read(#[from] Unreadable),
    /// A line is wrong.
    #[error("{path}, line {line}: {problem}", path = .path.display())]
    Line {
        /// Which file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong.
        problem: LineProblem,
    },
    /// It has no token, so nobody could be let in.
    #[error("{path} has no token; it must have one a line, for example from `openssl rand -hex 32`", path = .0.display())]
    Empty(PathBuf),
    /// It has several, and a client presents one.
    #[error("{path} has {count} tokens; a client's file must have one", path = .path.display())]
    Several {
        /// Which file.
        path: PathBuf,
        /// How many.
        count: usize,
    },
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineProblem {
    /// Neither `TOKEN` nor `NAME TOKEN`.
    #[error("it must be `TOKEN` or `NAME TOKEN`, with nothing after it")]
    Fields,
    /// Too short, or too long.
    #[error("the token must have 16 to 512 bytes; `openssl rand -hex 32` makes a good one")]
    Length,
    /// No header can carry it.
    #[error("the token must be visible ASCII characters")]
    Characters,
    /// A name that is none.
    #[error("the name must have 1 to 64 letters, digits, '-', '_', '.' or '@'")]
    Name,
    /// The same token again.
    #[error("the token is the one of {path}, line {line}; each must be its own", path = .path.display())]
    Repeated {
        /// Which file.
        path: PathBuf,
        /// From 1.
        line: usize,
    },
    /// One too many.
    #[error("a file may have 1,000 tokens at most")]
    TooMany,
}

/// A token with where it was found.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) line: usize,
    pub(super) name: Option<Arc<str>>,
    pub(super) token: SecretString,
}

/// All tokens of a file's contents, at least one.
pub(super) fn parse(path: &Path, contents: &[u8]) -> Result<Vec<Entry>, TokenFileError> {
    let mut entries = Vec::new();
    for (at, bytes) in contents.split(|byte| *byte == b'\n').enumerate() {
        let line = at + 1;
        let wrong = |problem| TokenFileError::Line { path: path.to_owned(), line, problem };
        let text = str::from_utf8(bytes).map_err(|_| wrong(LineProblem::Characters))?.trim();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        if entries.len() == TOKENS_MAX {
            return Err(wrong(LineProblem::TooMany));
        }
        entries.push(entry(line, text).map_err(wrong)?);
    }
    if entries.is_empty() { Err(TokenFileError::Empty(path.to_owned())) } else { Ok(entries) }
}

fn entry(line: usize, text: &str) -> Result<Entry, LineProblem> {
    let mut fields = text.split_whitespace();
    let (name, token) = match (fields.next(), fields.next(), fields.next()) {
        (Some(token), None, None) => (None, token),
        (Some(name), Some(token), None) => (Some(name), token),
        _ => return Err(LineProblem::Fields),
    };
    if !(TOKEN_BYTES_MIN..=TOKEN_BYTES_MAX).contains(&token.len()) {
        return Err(LineProblem::Length);
    }
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(LineProblem::Characters);
    }
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.@".contains(&byte);
    if name.is_some_and(|name| name.len() > NAME_BYTES_MAX || !name.bytes().all(good)) {
        return Err(LineProblem::Name);
    }
    Ok(Entry { line, name: name.map(Arc::from), token: SecretString::from(token.to_owned()) })
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    fn refused(text: &str) -> String {
        parse(Path::new("tokens"), text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn tokens_may_have_names_and_comments_beside_them() {
        let text = "# ours\n\n0123456789abcdef\n  alice   fedcba9876543210  \r\n";
        let entries = parse(Path::new("tokens"), text.as_bytes()).unwrap();
        let seen: Vec<_> = entries
            .iter()
            .map(|entry| (entry.line, entry.name.as_deref(), entry.token.expose_secret()))
            .collect();
        assert_eq!(seen, [(3, None, "0123456789abcdef"), (4, Some("alice"), "fedcba9876543210")]);
    }

    #[test]
    fn a_wrong_line_is_told_by_number_and_not_shown() {
        for (text, line, problem) in [
            ("0123456789abcdef\nsecret-too-sho", 2, "16 to 512 bytes"),
            ("a b-secret-secret-secret c", 1, "`TOKEN` or `NAME TOKEN`"),
            ("#\n#\nal!ce secret-secret-secret", 3, "letters, digits"),
            ("secret-secret-secr\u{e9}t", 1, "visible ASCII"),
        ] {
            let error = refused(text);
            assert!(error.contains(&format!("line {line}:")) && error.contains(problem), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
        let many = "0123456789abcdef\n".repeat(TOKENS_MAX + 1);
        assert!(refused(&many).contains("line 1001"));
        assert!(refused("# nothing\n").contains("has no token"));
        assert!(parse(Path::new("tokens"), b"secret-secret\xff-secret").is_err());
    }

    #[test]
    fn debug_shows_no_token() {
        let entries = parse(Path::new("tokens"), b"alice secret-secret-secret").unwrap();
        assert!(!format!("{entries:?}").contains("secret-secret"));
    }
}
