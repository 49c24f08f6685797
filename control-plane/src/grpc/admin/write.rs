//! How every write of the configuration goes: edit a copy, check the whole, guard
//! against accidents, commit. They go one by one; a state that moved all the same is edited
//! again. The caller's own guards (etag, base revision) are checked on each try.

use std::{collections::HashMap, sync::Arc};

use prost::Message;
use sha2::{Digest, Sha256};
use tonic::Status;
use trunkline_proto::{
    admin::v1::{Change, Config},
    convert, document,
    problems::Problems,
    status,
    types::v1::Version,
};

use crate::{
    grpc::{Context, refuse, wire_version},
    repository::{CommitError, ConfigState, ConfigWrite, Remembered},
};

/// Tries before a write gives up. Others change the configuration meanwhile only if
/// their caller left before they were done.
const TRIES: usize = 8;

/// Who writes, until operators authenticate.
pub(super) const PRINCIPAL: &str = "admin";

/// What a write asks for, apart from the change itself.
#[derive(Debug)]
pub(super) struct Write {
    method: &'static str,
    request_id: Option<String>,
    request_sha256: [u8; 32],
    validate_only: bool,
    force: bool,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Written {
    /// All of it, as it is now or would be.
    pub(super) config: Config,
    pub(super) version: Version,
    pub(super) changes: Vec<Change>,
}

impl Write {
    /// `request_id` empty: not idempotent.
    pub(super) fn new(
        method: &'static str,
        request: &impl Message,
        request_id: &str,
    ) -> Result<Self, Status> {
        let request_id = match request_id {
            "" => None,
            id => match uuid::Uuid::try_parse(id) {
                Ok(id) => Some(id.to_string()),
                Err(_) => return Err(status::invalid_field("request_id", "must be a UUID")),
            },
        };
        let request_sha256 = Sha256::digest(request.encode_to_vec()).into();
        Ok(Self { method, request_id, request_sha256, validate_only: false, force: false })
    }

    /// Check and answer, change nothing.
    pub(super) fn validate_only(self, validate_only: bool) -> Self {
        Self { validate_only, ..self }
    }

    /// Overrides the removal guard, here and at agents.
    pub(super) fn force(self, force: bool) -> Self {
        Self { force, ..self }
    }

    /// Carries out the write. `edit` may be called several times.
    pub(super) async fn run(
        &self,
        context: &Context,
        edit: impl Fn(&ConfigState, &mut Config) -> Result<(), Status> + Sync,
    ) -> Result<Written, Status> {
        // One write at a time, so that each is made from the newest state. Previews wait
        // for nobody.
        let _turn = if self.validate_only { None } else { Some(context.writes.lock().await) };
        let mut conflict = CommitError::Unavailable;
        for _ in 0..TRIES {
            let known = self.request_id.as_deref().and_then(|id| context.repository.remembered(id));
            if let Some(known) = known {
                return self.repeat(context, &known);
            }
            let state = context.repository.state();
            let mut config = state.config.clone();
            edit(&state, &mut config)?;
            let (config, written) = self.check(context, &state, config)?;
            let nothing_to_keep = config == state.config && self.request_id.is_none();
            if self.validate_only || nothing_to_keep {
                return Ok(written);
            }
            match context.repository.commit(self.commit(config, &state)).await {
                Ok(state) => return Ok(Written { version: wire_version(&state.version), ..written }),
                Err(error @ CommitError::Conflict { .. }) => conflict = error,
                Err(error) => return Err(refuse::commit(&error)),
            }
        }
        Err(refuse::commit(&conflict))
    }

    /// The canonical configuration, and the answer if it is not committed.
    fn check(
        &self,
        context: &Context,
        state: &ConfigState,
        config: Config,
    ) -> Result<(Config, Written), Status> {
        let next = trunkline_routing::table::Version {
            revision: state.version.revision + 1,
            ..state.version.clone()
        };
        // Checked before it is brought into order, so that paths are those of the caller.
        convert::routing_table(next, &config).map_err(|problems| status::invalid(&problems))?;
        let config = convert::canonical(config);
        if !self.force {
            convert::removal_guard(&state.config, &config, &|model| context.stats.has_traffic(model))
                .map_err(|message| status::failed_precondition("REMOVAL_GUARD", message, HashMap::new()))?;
        }
        let changes = document::diff(&state.config, &config);
        let written = Written { config: config.clone(), version: wire_version(&state.version), changes };
        Ok((config, written))
    }

    fn commit(&self, config: Config, state: &ConfigState) -> ConfigWrite {
        ConfigWrite {
            config,
            expected_revision: state.version.revision,
            principal: PRINCIPAL.to_owned(),
            method: self.method,
            request_id: self.request_id.clone(),
            request_sha256: self.request_sha256,
            force: self.force,
        }
    }

    /// The answer to a request that was carried out before.
    fn repeat(&self, context: &Context, known: &Remembered) -> Result<Written, Status> {
        if known.method != self.method || known.request_sha256 != self.request_sha256 {
            let message = format!("was used for another request ({}); take a new UUID", known.method);
            return Err(status::invalid_field("request_id", &message));
        }
        let repository = &context.repository;
        let then: Arc<ConfigState> = repository.recent(known.revision).unwrap_or_else(|| repository.state());
        let before = known.revision.checked_sub(u64::from(!known.unchanged));
        let before = before.and_then(|revision| repository.recent(revision));
        let changes = before.map(|before| document::diff(&before.config, &then.config)).unwrap_or_default();
        let version = Version { epoch: then.version.epoch.clone(), revision: known.revision };
        Ok(Written { config: then.config.clone(), version, changes })
    }
}

/// Checks one resource's part of the whole, so that paths start at the request's own
/// field: `providers[3].base_url` is `provider.base_url` to the caller.
pub(super) fn checked(
    version: &trunkline_routing::table::Version,
    config: &Config,
    inside: &str,
    outside: &str,
) -> Result<(), Status> {
    let Err(problems) = convert::routing_table(version.clone(), config) else { return Ok(()) };
    let mut renamed = Problems::default();
    for problem in problems.iter() {
        let path = match problem.path.strip_prefix(inside) {
            Some(rest) => format!("{outside}{rest}"),
            None => problem.path.clone(),
        };
        renamed.push(path, problem.message.clone());
    }
    Err(status::invalid(&renamed))
}

/// Refuses to remove what virtual models name.
pub(super) fn unused(
    config: &Config,
    kind: &str,
    name: &str,
    names: impl Fn(&str) -> bool,
) -> Result<(), Status> {
    let users: Vec<_> = config
        .virtual_models
        .iter()
        .filter(|model| {
            model.tiers.iter().flat_map(|tier| &tier.targets).any(|target| names(&target.deployment))
        })
        .map(|model| model.name.as_str())
        .collect();
    if users.is_empty() {
        return Ok(());
    }
    let users = users.join(", ");
    let message = format!("{kind} {name:?} is a target of virtual models {users}; remove it there first");
    Err(status::failed_precondition("IN_USE", message, HashMap::from([("virtual_models".to_owned(), users)])))
}

/// Refuses a stale etag; an empty one asks for no check.
pub(super) fn etag_matches(kind: &str, name: &str, given: &str, current: &str) -> Result<(), Status> {
    if given.is_empty() || given == current { Ok(()) } else { Err(status::aborted_etag(kind, name, current)) }
}

/// Refuses an absent resource.
pub(super) fn required<T>(field: &str, given: Option<T>) -> Result<T, Status> {
    given.ok_or_else(|| status::invalid_field(field, "is required"))
}
