//! What a write that failed may have left behind all the same.
//!
//! A commit can reach the disk and be reported as failed, when the sync after it fails.
//! The reports in it are sent again and may then be counted in other rows. So the next
//! write puts back what was before, in the same commit.

use std::collections::HashMap;
use std::collections::HashSet;

use crate::repository::Blob;

/// Keys that are put back: what some hundred failed writes touch. They are all of the
/// same time, for a store that fails takes no further writes, and have some 500 bytes.
const KEYS_MAX: usize = 20_000;

/// By key, the value before; None: there was none.
#[derive(Debug, Default)]
pub(super) struct Undo {
    before: HashMap<Vec<u8>, Option<Vec<u8>>>,
}

impl Undo {
    /// Notes what was there before a write that failed. The oldest notes hold.
    pub(super) fn remember(&mut self, before: impl Iterator<Item = (Vec<u8>, Option<Vec<u8>>)>) {
        for (key, value) in before {
            if self.before.len() >= KEYS_MAX && !self.before.contains_key(&key) {
                tracing::warn!("too many failed writes to undo; steps of the past may hold some twice");
                return;
            }
            self.before.entry(key).or_insert(value);
        }
    }

    /// Adds to a write what it does not write anyway.
    pub(super) fn complete(&self, puts: &mut Vec<Blob>, deletes: &mut Vec<Vec<u8>>) {
        if self.before.is_empty() {
            return;
        }
        let written: HashSet<Vec<u8>> =
            puts.iter().map(|(key, _)| key).chain(deletes.iter()).cloned().collect();
        for (key, value) in self.before.iter().filter(|(key, _)| !written.contains(*key)) {
            match value {
                Some(value) => puts.push((key.clone(), value.clone())),
                None => deletes.push(key.clone()),
            }
        }
    }

    /// What was there before, in place of what was read now.
    pub(super) fn correct(&self, blobs: Vec<Blob>) -> Vec<Blob> {
        let before = |(key, value): Blob| match self.before.get(&key) {
            Some(before) => before.clone().map(|before| (key, before)),
            None => Some((key, value)),
        };
        blobs.into_iter().filter_map(before).collect()
    }

    /// The write was done: memory and disk agree.
    pub(super) fn clear(&mut self) {
        self.before.clear();
    }
}
