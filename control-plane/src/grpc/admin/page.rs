//! Pages of a listing. A token names the revision that the first page showed, so that
//! all pages of a listing show one state.

use std::{collections::HashMap, sync::Arc};

use tonic::Status;
use trunkline_proto::status;

use crate::repository::{ConfigState, Place, Repository};

/// Used when the caller names no size.
const PAGE_SIZE_DEFAULT: usize = 100;

/// The most that one page holds.
const PAGE_SIZE_MAX: usize = 1_000;

/// Where a page starts and how long it may be.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) size: usize,
    /// Show names after this one. Empty: from the start.
    pub(super) after: String,
    /// The state that the first page showed. None on the first page.
    origin: Option<Origin>,
}

#[derive(Debug, PartialEq)]
struct Origin {
    epoch: String,
    revision: u64,
}

impl Page {
    /// Reads the request's fields. `listing` names what is listed and how it is
    /// filtered; a token of another listing is refused.
    pub(super) fn parse(listing: &str, size: i32, token: &str) -> Result<Self, Status> {
        let size = size_of(size)?;
        if token.is_empty() {
            return Ok(Self { size, after: String::new(), origin: None });
        }
        let (origin, after) = decode(listing, token).ok_or_else(wrong_token)?;
        Ok(Self { size, after, origin: Some(origin) })
    }

    /// The state to list.
    pub(super) fn state(&self, repository: &Repository) -> Result<Arc<ConfigState>, Status> {
        let current = repository.state();
        let Some(origin) = &self.origin else { return Ok(current) };
        let same_epoch = origin.epoch == current.version.epoch;
        let found = if same_epoch && origin.revision == current.version.revision {
            Some(current)
        } else if same_epoch {
            repository.recent(origin.revision)
        } else {
            None
        };
        found.ok_or_else(|| {
            let message = format!("revision {} is no longer held; start the listing again", origin.revision);
            status::aborted("LISTING_GONE", message, HashMap::new())
        })
    }

    /// The page of `sorted`, and the token for the next one.
    pub(super) fn cut<T>(
        &self,
        listing: &str,
        state: &ConfigState,
        sorted: Vec<T>,
        name: impl Fn(&T) -> &str,
    ) -> (Vec<T>, String) {
        let mut rest: Vec<T> = sorted.into_iter().filter(|item| name(item) > self.after.as_str()).collect();
        if rest.len() <= self.size {
            return (rest, String::new());
        }
        rest.truncate(self.size);
        let last = rest.last().map(&name).unwrap_or_default();
        let origin = Origin { epoch: state.version.epoch.clone(), revision: state.version.revision };
        let token = encode(listing, &origin, last);
        (rest, token)
    }
}

/// Where a page of the journal starts and how long it may be.
#[derive(Debug)]
pub(super) struct Past {
    pub(super) size: usize,
    /// None: at the newest commit.
    pub(super) from: Option<Place>,
}

impl Past {
    /// Reads the request's fields; see [`Page::parse`].
    pub(super) fn parse(listing: &str, size: i32, token: &str) -> Result<Self, Status> {
        let size = size_of(size)?;
        if token.is_empty() {
            return Ok(Self { size, from: None });
        }
        let (origin, _) = decode(listing, token).ok_or_else(wrong_token)?;
        Ok(Self { size, from: Some(Place { sequence: origin.revision, epoch: origin.epoch }) })
    }

    /// The token of the page that starts at `next`.
    pub(super) fn token(listing: &str, next: Option<&Place>) -> String {
        let origin = next.map(|place| Origin { epoch: place.epoch.clone(), revision: place.sequence });
        origin.map(|origin| encode(listing, &origin, "")).unwrap_or_default()
    }
}

fn size_of(size: i32) -> Result<usize, Status> {
    match usize::try_from(size) {
        Err(_) => Err(status::invalid_field("page_size", "must not be negative; leave it out for 100")),
        Ok(0) => Ok(PAGE_SIZE_DEFAULT),
        Ok(size) => Ok(size.min(PAGE_SIZE_MAX)),
    }
}

fn wrong_token() -> Status {
    status::invalid_field("page_token", "must be a next_page_token of the same listing")
}

fn encode(listing: &str, origin: &Origin, last: &str) -> String {
    hex(format!("{listing}\n{}\n{}\n{last}", origin.epoch, origin.revision).as_bytes())
}

fn decode(listing: &str, token: &str) -> Option<(Origin, String)> {
    let text = String::from_utf8(unhex(token)?).ok()?;
    let mut parts = text.splitn(4, '\n');
    if parts.next()? != listing {
        return None;
    }
    let epoch = parts.next()?.to_owned();
    let revision = parts.next()?.parse().ok()?;
    Some((Origin { epoch, revision }, parts.next()?.to_owned()))
}

pub(super) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

pub(super) fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_returns_what_was_put_in() {
        let origin = Origin { epoch: "e".into(), revision: 7 };
        let token = encode("providers", &origin, "openai");
        assert_eq!(decode("providers", &token), Some((origin, "openai".into())));
        assert_eq!(decode("deployments", &token), None);
        assert_eq!(decode("providers", "zz"), None);
        assert_eq!(decode("providers", "é"), None);
    }

    #[test]
    fn sizes_are_defaulted_capped_and_refused() {
        assert_eq!(Page::parse("x", 0, "").unwrap().size, PAGE_SIZE_DEFAULT);
        assert_eq!(Page::parse("x", 5_000, "").unwrap().size, PAGE_SIZE_MAX);
        assert_eq!(Page::parse("x", -1, "").unwrap_err().code(), tonic::Code::InvalidArgument);
    }
}
