//! The configuration document that a control plane is started with.

use sha2::{Digest, Sha256};
use trunkline_proto::{admin::v1::Config, convert, document};

use crate::{
    config::ConfigPolicy,
    repository::{CommitError, ConfigWrite, Repository},
    start::StartError,
};

/// A configuration document, and when it is applied.
#[derive(Clone, Debug)]
pub struct ConfigSource {
    /// Where it came from, for messages and the command that is suggested.
    pub origin: String,
    /// YAML or JSON.
    pub text: String,
    /// When.
    pub policy: ConfigPolicy,
}

/// A document that was checked.
#[derive(Debug)]
pub(crate) struct Document {
    source: ConfigSource,
    config: Config,
}

/// Reads and checks all of it.
pub(crate) fn load(source: ConfigSource) -> Result<Document, StartError> {
    match document::load_and_check(&source.text) {
        Ok(config) => Ok(Document { source, config: convert::without_feed(convert::canonical(config)) }),
        Err(error) => Err(StartError::Config { origin: source.origin, problems: error.to_string() }),
    }
}

/// Applies the document, or warns that it differs from what is stored. A store that
/// takes no writes now, but has a configuration, goes on with that one.
pub(crate) async fn bring_in(repository: &Repository, document: Document) -> Result<(), CommitError> {
    let Document { source, mut config } = document;
    let state = repository.state();
    // Prices from feeds are no part of a document, and stay.
    let from_feed = state.config.price_entries.iter().filter(|one| convert::is_from_feed(one));
    config.price_entries.extend(from_feed.cloned());
    let config = convert::without_orphans(convert::canonical(config));
    let changes = document::diff(&state.config, &config);
    let empty = state.version.revision == 0;
    match source.policy {
        ConfigPolicy::Bootstrap if !empty => {
            if !changes.is_empty() {
                tracing::warn!(
                    "{} differs from the stored revision {} and is not applied:\n{}to apply it: trunkline apply -f {}",
                    source.origin,
                    state.version.revision,
                    document::render_diff(&changes),
                    source.origin,
                );
            }
            Ok(())
        }
        ConfigPolicy::Bootstrap | ConfigPolicy::Always => {
            if changes.is_empty() && !empty {
                return Ok(());
            }
            let write = ConfigWrite {
                config,
                expected_revision: state.version.revision,
                principal: "config-file".to_owned(),
                method: "ApplyConfig",
                request_id: None,
                request_sha256: Sha256::digest(&source.text).into(),
                // Whoever starts it with this document means all of it.
                force: !empty,
            };
            let state = match repository.commit(write).await {
                Err(error @ (CommitError::ReadOnly { .. } | CommitError::RolledBack { .. })) if !empty => {
                    tracing::error!(
                        origin = source.origin,
                        revision = state.version.revision,
                        %error,
                        "the configuration is not applied; serving the stored one"
                    );
                    return Ok(());
                }
                committed => committed?,
            };
            tracing::info!(
                origin = source.origin,
                revision = state.version.revision,
                "configuration applied"
            );
            Ok(())
        }
    }
}
