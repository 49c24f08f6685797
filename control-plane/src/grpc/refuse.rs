//! What callers are told when the repository refuses.

use std::{collections::HashMap, time::Duration};

use tonic::Status;
use trunkline_proto::status;

use crate::repository::CommitError;
use crate::stats::query::QueryError;

/// When to try again a write that the store did not take: about as long as a restart.
const STORE_RETRY: Duration = Duration::from_secs(5);

/// When to ask again for the past: some of those who wait had their turn then.
const QUERY_RETRY: Duration = Duration::from_secs(3);

pub(super) fn commit(error: &CommitError) -> Status {
    match error {
        CommitError::Conflict { current } => {
            let metadata = HashMap::from([("current_revision".to_owned(), current.to_string())]);
            status::aborted("REVISION_MISMATCH", error.to_string(), metadata)
        }
        CommitError::Invalid(problems) => status::invalid(problems),
        CommitError::TooMuch { .. } => status::resource_exhausted("TOO_MUCH", error.to_string(), None),
        CommitError::ReadOnly { .. } => {
            status::unavailable("STORE_READ_ONLY", error.to_string(), Some(STORE_RETRY))
        }
        CommitError::RolledBack { .. } => {
            status::failed_precondition("STORE_ROLLED_BACK", error.to_string(), HashMap::new())
        }
        CommitError::Bug => Status::internal(error.to_string()),
        CommitError::Unavailable => {
            status::unavailable("STORE_CLOSING", error.to_string(), Some(STORE_RETRY))
        }
    }
}

/// For questions about the past.
pub(super) fn query(error: &QueryError) -> Status {
    match error {
        QueryError::Busy(full) => {
            status::resource_exhausted("TOO_MANY_QUERIES", full.to_string(), Some(QUERY_RETRY))
        }
        QueryError::Store(error) => commit(error),
    }
}

/// For edits of the configuration, which refuse in the caller's words.
impl From<CommitError> for Status {
    fn from(error: CommitError) -> Self {
        commit(&error)
    }
}
