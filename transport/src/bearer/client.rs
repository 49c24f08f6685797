//! What a client presents.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use secrecy::{ExposeSecret as _, SecretString};
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::Interceptor,
};

use super::lines::{LineProblem, TokenFileError, parse};
use crate::file::Watched;

/// The token that a client presents with each call, if any. Clones share it. No `Debug`
/// output shows it: the value is marked sensitive.
#[derive(Clone, Debug, Default)]
pub struct Bearer(Option<Arc<ArcSwap<MetadataValue<Ascii>>>>);

impl Bearer {
    /// No token.
    pub fn none() -> Self {
        Self::default()
    }

    /// A token that stays.
    ///
    /// # Errors
    /// If no header can carry it.
    pub fn token(token: &SecretString) -> Result<Self, LineProblem> {
        Ok(Self(Some(Arc::new(ArcSwap::from_pointee(value(token)?)))))
    }

    /// Whether there is one.
    pub const fn is_some(&self) -> bool {
        self.0.is_some()
    }

    /// `Bearer TOKEN`, as of now.
    pub fn header(&self) -> Option<MetadataValue<Ascii>> {
        Some(MetadataValue::clone(&self.0.as_ref()?.load()))
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = self.header() {
            request.metadata_mut().insert("authorization", value);
        }
        Ok(request)
    }
}

fn value(token: &SecretString) -> Result<MetadataValue<Ascii>, LineProblem> {
    let mut value = MetadataValue::try_from(format!("Bearer {}", token.expose_secret()))
        .map_err(|_| LineProblem::Characters)?;
    value.set_sensitive(true);
    Ok(value)
}

/// A file with a client's token: one line, `TOKEN` or `NAME TOKEN`.
#[derive(Debug)]
pub struct BearerFile {
    path: PathBuf,
    bearer: Arc<ArcSwap<MetadataValue<Ascii>>>,
    watched: Watched,
}

impl BearerFile {
    /// Loads it.
    ///
    /// # Errors
    /// If it can't be read, is wrong, or has not exactly one token.
    pub fn load(path: &Path) -> Result<Self, TokenFileError> {
        let (watched, contents) = Watched::read(vec![path.to_owned()])?;
        let value = only(path, &contents.concat())?;
        Ok(Self { path: path.to_owned(), bearer: Arc::new(ArcSwap::from_pointee(value)), watched })
    }

    /// What is presented; it changes with the file while [`BearerFile::follow`] runs.
    pub fn bearer(&self) -> Bearer {
        Bearer(Some(Arc::clone(&self.bearer)))
    }

    /// Looks at the file every two seconds and presents a new token, for ever: drop it
    /// to stop. A wrong file is logged, and the token in use stays.
    pub async fn follow(mut self) {
        loop {
            let contents = self.watched.changed().await;
            match only(&self.path, &contents.concat()) {
                Ok(value) => {
                    self.bearer.store(Arc::new(value));
                    tracing::info!(path = %self.path.display(), "new token in use");
                }
                Err(error) => tracing::warn!(%error, "the new token is refused; the old one stays in use"),
            }
        }
    }
}

fn only(path: &Path, contents: &[u8]) -> Result<MetadataValue<Ascii>, TokenFileError> {
    let entries = parse(path, contents)?;
    let [entry] = entries.as_slice() else {
        return Err(TokenFileError::Several { path: path.to_owned(), count: entries.len() });
    };
    value(&entry.token).map_err(|problem| TokenFileError::Line {
        path: path.to_owned(),
        line: entry.line,
        problem,
    })
}

#[cfg(test)]
mod tests {
    use std::{fs, time::Duration};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_replaced_file_is_presented_and_a_wrong_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        fs::write(&path, "agent-1 old-0123456789abcdef\n").unwrap();
        let file = BearerFile::load(&path).unwrap();
        let bearer = file.bearer();
        let following = tokio::spawn(file.follow());
        let presented = || bearer.header().unwrap().to_str().unwrap().to_owned();
        assert_eq!(presented(), "Bearer old-0123456789abcdef");
        let looks = || tokio::time::sleep(Duration::from_secs(20));

        fs::write(&path, "one-0123456789abcdef\ntwo-0123456789abcdef\n").unwrap();
        looks().await;
        assert_eq!(presented(), "Bearer old-0123456789abcdef");
        fs::write(&path, "new-0123456789abcdef\n").unwrap();
        looks().await;
        assert_eq!(presented(), "Bearer new-0123456789abcdef");
        following.abort();
    }

    #[test]
    fn a_client_presents_one_token() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        fs::write(&path, "one-0123456789abcdef\ntwo-0123456789abcdef\n").unwrap();
        let error = BearerFile::load(&path).unwrap_err().to_string();
        assert!(error.contains("has 2 tokens"), "{error}");
    }

    #[test]
    fn debug_shows_no_token() {
        let bearer = Bearer::token(&SecretString::from("old-0123456789abcdef".to_owned())).unwrap();
        assert!(!format!("{bearer:?}").contains("old-"));
        let request = bearer.clone().call(Request::new(())).unwrap();
        assert!(!format!("{request:?}").contains("old-"));
        assert!(Bearer::none().call(Request::new(())).unwrap().metadata().is_empty());
    }
}
