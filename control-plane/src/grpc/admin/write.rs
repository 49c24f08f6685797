//! How every write of the configuration goes: edit a copy of the newest state, check the
//! whole, guard against accidents, commit. All of that but the answer runs on the
//! repository's thread, one write after the other; previews wait for other
//! previews only.

use std::{collections::HashMap, sync::Arc};

use prost::Message;
use sha2::{Digest, Sha256};
use tonic::{Request, Status};
use trunkline_proto::{
    admin::v1::{Change, Config},
    convert, document,
    problems::Problems,
    status,
    types::v1::Version,
};

use crate::{
    access::Principal,
    grpc::{Context, refuse, wire_version},
    repository::{CommitError, ConfigState, Edited, Intent, Remembered},
};

/// Who sent `request`, as the audit log names it.
pub(super) fn principal_of<T>(request: &Request<T>) -> String {
    Principal::of(request).audit_name().to_string()
}

/// What a write asks for, apart from the change itself.
#[derive(Debug)]
pub(super) struct Write {
    intent: Intent,
    validate_only: bool,
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
        principal: String,
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
        let intent = Intent { principal, method, request_id, request_sha256, ..Intent::default() };
        Ok(Self { intent, validate_only: false })
    }

    /// Check and answer, change nothing.
    pub(super) fn validate_only(self, validate_only: bool) -> Self {
        Self { validate_only, ..self }
    }

    /// Overrides the removal guard, here and at agents.
    pub(super) fn force(mut self, force: bool) -> Self {
        self.intent.force = force;
        self
    }

    /// Names what is written to, where the change does not say it.
    pub(super) fn subject(mut self, subject: String) -> Self {
        self.intent.subject = subject;
        self
    }

    /// Carries out the write: `edit` changes a copy of the newest state, and no other
    /// write comes between the two.
    pub(super) async fn run(
        self,
        context: &Context,
        edit: impl FnOnce(&ConfigState, &mut Config) -> Result<(), Status> + Send + 'static,
    ) -> Result<Written, Status> {
        let (force, stats) = (self.intent.force, Arc::clone(&context.stats));
        let work_out = move |state: &ConfigState| {
            let mut config = state.config.clone();
            edit(state, &mut config)?;
            check(state, config, force, &|model| stats.has_traffic(model))
        };
        if self.validate_only {
            return preview(context, work_out).await;
        }
        let request = (self.intent.method, self.intent.request_sha256);
        match context.repository.edit(self.intent, work_out).await? {
            Edited::Done { state, value } => Ok(Written { version: wire_version(&state.version), ..value }),
            Edited::Repeated(known) => repeat(context, request, &known),
        }
    }

    /// The answer, if this very request was carried out before. For writes that need
    /// more than the newest state: [`Self::run`] asks by itself.
    pub(super) async fn repeated(&self, context: &Context) -> Result<Option<Written>, Status> {
        let Some(id) = self.intent.request_id.as_deref().filter(|_| !self.validate_only) else {
            return Ok(None);
        };
        let known = context.repository.remembered(id).await?;
        let request = (self.intent.method, self.intent.request_sha256);
        known.map(|known| repeat(context, request, &known)).transpose()
    }
}

/// The answer to a write that is not to happen. The work is that of a write, and a
/// configuration has up to 10 MB: it is for no thread that serves others.
async fn preview(
    context: &Context,
    work_out: impl FnOnce(&ConfigState) -> Result<(Config, Written), Status> + Send + 'static,
) -> Result<Written, Status> {
    let place = Arc::clone(&context.previews).acquire_owned().await;
    let state = context.repository.state();
    let worked_out = tokio::task::spawn_blocking(move || {
        // Held until the work is done, also when nobody waits for it any more.
        let _place = place;
        work_out(&state).map(|(_, written)| written)
    });
    worked_out.await.map_err(|_| refuse::commit(&CommitError::Bug))?
}

/// The canonical configuration, and the answer if it is not committed.
fn check(
    state: &ConfigState,
    config: Config,
    force: bool,
    has_traffic: &dyn Fn(&str) -> bool,
) -> Result<(Config, Written), Status> {
    let config = convert::without_orphans(config);
    let next =
        trunkline_routing::table::Version { revision: state.version.revision + 1, ..state.version.clone() };
    // Checked before it is brought into order, so that paths are those of the caller.
    convert::routing_table(next, &config).map_err(|problems| status::invalid(&problems))?;
    let config = convert::canonical(config);
    if !force {
        convert::removal_guard(&state.config, &config, has_traffic)
            .map_err(|message| status::failed_precondition("REMOVAL_GUARD", message, HashMap::new()))?;
    }
    let changes = document::diff(&state.config, &config);
    let written = Written { config: config.clone(), version: wire_version(&state.version), changes };
    Ok((config, written))
}

/// A document in place of the configuration: prices from feeds are none of its business
/// and stay.
pub(super) fn replaced_by(state: &ConfigState, document: Config) -> Result<Config, Status> {
    let foreign = document.price_entries.iter().position(convert::is_from_feed);
    if let Some(at) = foreign {
        let message = "is for the control plane to set; leave it out, or write PRICE_SOURCE_OPERATOR";
        return Err(status::invalid_field(&format!("price_entries[{at}].source"), message));
    }
    Ok(with_feed_of(state, document))
}

/// The same with the prices that feeds gave so far.
pub(super) fn with_feed_of(state: &ConfigState, document: Config) -> Config {
    let mut config = convert::without_feed(document);
    config
        .price_entries
        .extend(state.config.price_entries.iter().filter(|one| convert::is_from_feed(one)).cloned());
    config
}

/// The answer to a request whose id was used before: the same answer, if it is the same.
fn repeat(context: &Context, request: (&str, [u8; 32]), known: &Remembered) -> Result<Written, Status> {
    if request != (known.method.as_str(), known.request_sha256) {
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

/// Refuses to remove what virtual models or operators' price entries name.
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
    if !users.is_empty() {
        let users = users.join(", ");
        let message = format!("{kind} {name:?} is a target of virtual models {users}; remove it there first");
        let metadata = HashMap::from([("virtual_models".to_owned(), users)]);
        return Err(status::failed_precondition("IN_USE", message, metadata));
    }
    let entries = config.price_entries.iter().filter(|one| !convert::is_from_feed(one));
    let users: Vec<_> = entries.filter(|one| names(&one.deployment)).map(|one| one.name.as_str()).collect();
    if users.is_empty() {
        return Ok(());
    }
    let users = users.join(", ");
    let message = format!("{kind} {name:?} has the price entries {users}; remove them first");
    let metadata = HashMap::from([("price_entries".to_owned(), users)]);
    Err(status::failed_precondition("IN_USE", message, metadata))
}

/// Refuses a stale etag; an empty one asks for no check.
pub(super) fn etag_matches(kind: &str, name: &str, given: &str, current: &str) -> Result<(), Status> {
    if given.is_empty() || given == current { Ok(()) } else { Err(status::aborted_etag(kind, name, current)) }
}

/// Refuses an absent resource.
pub(super) fn required<T>(field: &str, given: Option<T>) -> Result<T, Status> {
    given.ok_or_else(|| status::invalid_field(field, "is required"))
}
