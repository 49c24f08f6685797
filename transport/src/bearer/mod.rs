//! Bearer tokens from files: [`TokenSet`] is what a server accepts, [`BearerFile`] what
//! a client presents. Both follow their files, so tokens are replaced without a restart.
//!
//! One token a line, with an optional name before it: `alice 7d0c…`. Empty lines and
//! lines that begin with `#` are skipped.

mod client;
mod lines;
mod server;

pub use self::{
    client::{Bearer, BearerFile},
    lines::{LineProblem, TokenFileError},
    server::{Holder, TokenSet},
};

/// Bytes of a token. Shorter ones can be guessed.
pub const TOKEN_BYTES_MIN: usize = 16;

/// Bytes of a token. It travels with each request.
pub const TOKEN_BYTES_MAX: usize = 512;

/// Lines with a token in a file: one per agent of a fleet that is larger than any known,
/// checked in a millisecond.
pub const TOKENS_MAX: usize = 1_000;
