//! What a server accepts: the tokens of several files, each file for one role.

use std::{
    collections::HashMap,
    fmt,
    path::PathBuf,
    sync::{Arc, LazyLock},
};

use arc_swap::ArcSwap;
use secrecy::ExposeSecret as _;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use super::lines::{LineProblem, TokenFileError, parse};
use crate::file::Watched;

/// Another one in each process: nobody can compute beforehand what a look-up compares,
/// so its timing tells nothing of a token.
static SALT: LazyLock<[u8; 32]> = LazyLock::new(rand::random);

type TokenDigest = [u8; 32];

fn digest(token: &[u8]) -> TokenDigest {
    Sha256::new().chain_update(*SALT).chain_update(token).finalize().into()
}

/// Who holds a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder<R> {
    /// What its file is for.
    pub role: R,
    /// The name before it.
    pub name: Option<Arc<str>>,
}

/// The tokens that a server accepts. Only salted digests are kept. Clones share them.
#[derive(Clone)]
pub struct TokenSet<R> {
    files: Arc<[(R, PathBuf)]>,
    holders: Arc<ArcSwap<HashMap<TokenDigest, Holder<R>>>>,
    changed: Arc<watch::Sender<()>>,
    watched: Watched,
}

impl<R: fmt::Debug> fmt::Debug for TokenSet<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenSet")
            .field("files", &self.files)
            .field("tokens", &self.holders.load().len())
            .finish_non_exhaustive()
    }
}

impl<R: Copy + PartialEq + Send + Sync + 'static> TokenSet<R> {
    /// Loads all files.
    ///
    /// # Errors
    /// If one can't be read or is wrong, or two lines have the same token: it could
    /// mean two roles.
    pub fn load(files: Vec<(R, PathBuf)>) -> Result<Self, TokenFileError> {
        let files: Arc<[_]> = files.into();
        let (watched, contents) = Watched::read(files.iter().map(|(_, path)| path.clone()).collect())?;
        let holders = holders(&files, &contents)?;
        Ok(Self {
            watched,
            holders: Arc::new(ArcSwap::from_pointee(holders)),
            changed: Arc::new(watch::Sender::new(())),
            files,
        })
    }

    /// Whether a role has a file.
    pub fn has(&self, role: R) -> bool {
        self.files.iter().any(|(has, _)| *has == role)
    }

    /// Who holds a token. The work is the same for known and unknown ones.
    pub fn holder(&self, presented: &[u8]) -> Option<Holder<R>> {
        let digest = digest(presented);
        self.holders.load().get(&digest).cloned()
    }

    /// Who holds a token, and what ends when that is not so any more: a long stream that
    /// it opened should end too. Both come from one look, so a file that is replaced at
    /// the same time can't let somebody in for ever. The work is the same for known and
    /// unknown ones, up to the answer.
    pub fn holder_until(
        &self,
        presented: &[u8],
    ) -> Option<(Holder<R>, impl Future<Output = ()> + Send + use<R>)> {
        let digest = digest(presented);
        // Before the look, so that no change is missed.
        let mut changed = self.changed.subscribe();
        let holders = Arc::clone(&self.holders);
        let holder = holders.load().get(&digest).cloned()?;
        let was = holder.clone();
        let withdrawn = async move {
            while changed.changed().await.is_ok() {
                if holders.load().get(&digest) != Some(&was) {
                    return;
                }
            }
            // The set is gone, and nobody can withdraw anything.
            std::future::pending::<()>().await;
        };
        Some((holder, withdrawn))
    }

    /// Looks at the files every two seconds and uses new ones that are good, for ever:
    /// drop it to stop. Wrong ones are logged, and the tokens in use stay.
    pub async fn follow(mut self) {
        loop {
            let contents = self.watched.changed().await;
            match holders(&self.files, &contents) {
                Ok(holders) => {
                    tracing::info!(tokens = holders.len(), "new tokens in use");
                    self.holders.store(Arc::new(holders));
                    self.changed.send_replace(());
                }
                Err(error) => tracing::warn!(%error, "new tokens are refused; the old ones stay in use"),
            }
        }
    }
}

fn holders<R: Copy>(
    files: &[(R, PathBuf)],
    contents: &[Vec<u8>],
) -> Result<HashMap<TokenDigest, Holder<R>>, TokenFileError> {
    let mut holders = HashMap::new();
    let mut first = HashMap::new();
    for ((role, path), contents) in files.iter().zip(contents) {
        for entry in parse(path, contents)? {
            let digest = digest(entry.token.expose_secret().as_bytes());
            if let Some((path_first, line_first)) = first.insert(digest, (path, entry.line)) {
                let problem = LineProblem::Repeated { path: PathBuf::clone(path_first), line: line_first };
                return Err(TokenFileError::Line { path: path.clone(), line: entry.line, problem });
            }
            holders.insert(digest, Holder { role: *role, name: entry.name });
        }
    }
    Ok(holders)
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path, time::Duration};

    use super::*;

    const OLD: &[u8] = b"old-0123456789abcdef";
    const NEW: &[u8] = b"new-0123456789abcdef";

    fn write(directory: &Path, name: &str, text: &str) -> PathBuf {
        let path = directory.join(name);
        fs::write(&path, text).unwrap();
        path
    }

    #[test]
    fn a_token_is_known_by_its_file_and_name() {
        let dir = tempfile::tempdir().unwrap();
        let one = write(dir.path(), "one", "alice old-0123456789abcdef\n");
        let two = write(dir.path(), "two", "new-0123456789abcdef\n");
        let tokens = TokenSet::load(vec![(1, one), (2, two)]).unwrap();
        assert_eq!(tokens.holder(OLD), Some(Holder { role: 1, name: Some("alice".into()) }));
        assert_eq!(tokens.holder(NEW), Some(Holder { role: 2, name: None }));
        for unknown in [b"".as_slice(), b"alice", b"old-0123456789abcdeg", b"alice old-0123456789abcdef"] {
            assert_eq!(tokens.holder(unknown), None);
        }
        assert!(tokens.has(1) && !tokens.has(3));
    }

    #[test]
    fn one_token_can_not_mean_two_roles() {
        let dir = tempfile::tempdir().unwrap();
        let one = write(dir.path(), "one", "#\nold-0123456789abcdef\n");
        let two = write(dir.path(), "two", "old-0123456789abcdef\n");
        let error = TokenSet::load(vec![(1, one), (2, two)]).unwrap_err().to_string();
        assert!(error.contains("two, line 1") && error.contains("one, line 2"), "{error}");
        assert!(!error.contains("old-"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn tokens_are_replaced_while_running_and_a_wrong_file_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = write(dir.path(), "tokens", "old-0123456789abcdef\n");
        let tokens = TokenSet::load(vec![((), path.clone())]).unwrap();
        let (_, withdrawn) = tokens.holder_until(OLD).unwrap();
        assert!(tokens.holder_until(NEW).is_none());
        let following = tokio::spawn(tokens.clone().follow());
        // Paused time runs on by itself, so this is several looks.
        let looks = || tokio::time::sleep(Duration::from_secs(20));

        fs::write(&path, "short\n").unwrap();
        looks().await;
        assert!(tokens.holder(OLD).is_some(), "the old ones stay");
        fs::remove_file(&path).unwrap();
        looks().await;
        assert!(tokens.holder(OLD).is_some(), "the old ones stay");

        fs::write(&path, "new-0123456789abcdef\n").unwrap();
        withdrawn.await;
        assert!(tokens.holder(OLD).is_none() && tokens.holder(NEW).is_some());
        following.abort();
    }

    #[test]
    fn debug_shows_no_token() {
        let dir = tempfile::tempdir().unwrap();
        let path = write(dir.path(), "tokens", "alice old-0123456789abcdef\n");
        let tokens = TokenSet::load(vec![((), path)]).unwrap();
        assert!(!format!("{tokens:?}").contains("old-"));
    }
}
