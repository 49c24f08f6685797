//! Places where a process can be made to end at once, to show what a crash there leaves
//! behind. They are there with the feature `failpoints` only; without it nothing of
//! them is compiled. A build of the whole workspace has them too, because the tests ask
//! for the feature and cargo unites the features of what it builds together: programs for
//! use are built one package at a time, as the image's recipe does.
//!
//! With the feature, the environment says which one and when, for example
//! `FAILPOINTS="commit::before_sync=7*off->return"`: the eighth commit ends the process
//! between writing its records and syncing them. Actions other than `return` (`sleep`,
//! `pause`, `print`) do what the crate `fail` says.
//!
//! ```text
//! a commit:    BEFORE_WRITE  HALF_WRITTEN  BEFORE_SYNC  AFTER_SYNC | AFTER_VIEW  AFTER_PUBLISH
//!              the journal does these                              | the repository these
//! a rotation:  HALF_SEGMENT  AFTER_RENAME  BEFORE_REMOVAL
//! ```
//!
//! What was acknowledged is there after each of them. From [`COMMIT_AFTER_SYNC`] on the
//! commit itself is there as well, though nobody was told.

/// Nothing of the commit is on disk.
pub(crate) const COMMIT_BEFORE_WRITE: &str = "commit::before_write";

/// The first half of the batch's bytes is written, not synced.
pub(crate) const COMMIT_HALF_WRITTEN: &str = "commit::half_written";

/// All of the batch is written, not synced.
pub(crate) const COMMIT_BEFORE_SYNC: &str = "commit::before_sync";

/// The batch is on disk; the view does not show it.
pub(crate) const COMMIT_AFTER_SYNC: &str = "commit::after_sync";

/// The view shows it; nothing is published. Called by the repository.
pub(crate) const COMMIT_AFTER_VIEW: &str = "commit::after_view";

/// It is published; nobody has an answer. Called by the repository.
pub(crate) const COMMIT_AFTER_PUBLISH: &str = "commit::after_publish";

/// The new segment has half of its header, under the name of unfinished ones.
pub(crate) const ROTATE_HALF_SEGMENT: &str = "rotate::half_segment";

/// The new segment has its name; its directory is not synced.
pub(crate) const ROTATE_AFTER_RENAME: &str = "rotate::after_rename";

/// The new segment is in use; older ones than should be kept are still there.
pub(crate) const ROTATE_BEFORE_REMOVAL: &str = "rotate::before_removal";

/// A segment is full at [`EARLY_BYTES`], so that rotations come often.
#[cfg(feature = "failpoints")]
pub(crate) const ROTATE_EARLY: &str = "rotate::early";

/// A few dozen small commits.
#[cfg(feature = "failpoints")]
pub(crate) const EARLY_BYTES: u64 = 64 * 1024;

/// Ends the process as `kill -9` does if `name` is configured with `return`.
pub(crate) fn failpoint(name: &'static str) {
    failpoint_after(name, || {});
}

/// The same after doing `first`.
#[cfg_attr(not(feature = "failpoints"), expect(unused_variables, reason = "nothing is left of it"))]
pub(crate) fn failpoint_after(name: &'static str, first: impl FnOnce()) {
    fail::fail_point!(name, |_| {
        first();
        std::process::abort()
    });
}
