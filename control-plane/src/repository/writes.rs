//! Writes: what callers ask of the writer's thread. Each is durable and published when
//! it returns, and carried out even if the caller stops waiting.

use std::sync::Arc;
use std::time::Duration;

use trunkline_proto::admin::v1::Config;
use trunkline_proto::types::v1::Fault;

use super::{
    Blob, Claim, CommitError, ConfigState, Drill, Edited, FleetChange, Repository, VerdictOutcome,
    VerdictState,
};

/// A change of the configuration: by whom and how.
#[derive(Clone, Debug, Default)]
pub struct Intent {
    /// Who.
    pub principal: String,
    /// Called what.
    pub method: &'static str,
    /// To what, where the configuration does not say it.
    pub subject: String,
    /// The caller's name for the request, if it gave one.
    pub request_id: Option<String>,
    /// SHA-256 of the request.
    pub request_sha256: [u8; 32],
    /// Whether checks were overruled.
    pub force: bool,
}

/// A new configuration.
#[derive(Clone, Debug)]
pub struct ConfigWrite {
    /// All of it.
    pub config: Config,
    /// The revision of the state it was computed from.
    pub expected_revision: u64,
    /// Who.
    pub principal: String,
    /// Called what.
    pub method: &'static str,
    /// The caller's name for the request, if it gave one.
    pub request_id: Option<String>,
    /// SHA-256 of the request.
    pub request_sha256: [u8; 32],
    /// Whether checks were overruled.
    pub force: bool,
}

impl Repository {
    /// Makes `write` the configuration: durable and published when this returns. One
    /// that is equal to the newest is no new revision.
    ///
    /// # Errors
    /// See [`CommitError`].
    pub async fn commit(&self, write: ConfigWrite) -> Result<Arc<ConfigState>, CommitError> {
        let ConfigWrite { config, expected_revision, principal, method, request_id, request_sha256, force } =
            write;
        let subject = String::new();
        let intent = Intent { principal, method, subject, request_id, request_sha256, force };
        let edited = self.edit(intent, move |state| match state.version.revision {
            current if current == expected_revision => Ok((config, ())),
            current => Err(CommitError::Conflict { current }),
        });
        match edited.await? {
            Edited::Done { state, .. } => Ok(state),
            Edited::Repeated(known) => Ok(self.recent(known.revision).unwrap_or_else(|| self.state())),
        }
    }

    /// Makes what `edit` answers the configuration: durable and published when this
    /// returns. `edit` is given the newest state, and no other write comes between the
    /// two. It runs on the writer's thread, where it must not wait for anything; what it
    /// refuses or panics in changes nothing.
    ///
    /// # Errors
    /// What `edit` refuses with, and see [`CommitError`].
    pub async fn edit<T, E>(
        &self,
        intent: Intent,
        edit: impl FnOnce(&ConfigState) -> Result<(Config, T), E> + Send + 'static,
    ) -> Result<Edited<T>, E>
    where
        T: Send + 'static,
        E: From<CommitError> + Send + 'static,
    {
        self.stage(move |stage| stage.edit(intent, edit)).await
    }

    /// An agent of this epoch holds `held_revision` and once saw the commit
    /// `seen_sequence`. If this store ends before either, it was rolled back: from then
    /// on it takes no writes of operators, and [`Self::health`] says why and what helps.
    /// The answer is held for as long as the agent is connected; an hour after the last
    /// one is dropped, operators write again.
    pub async fn note_ahead(&self, agent_id: &str, held_revision: u64, seen_sequence: u64) -> Claim {
        let claim = self.shared.claims.begin();
        let agent_id = agent_id.to_owned();
        let noted = self.ask(move |writer| writer.note_ahead(&agent_id, held_revision, seen_sequence));
        // A repository that is closing takes no writes either.
        drop(noted.await);
        claim
    }

    /// Forces the breaker of a deployment, for a time if one is given, or with None
    /// gives it back. Durable and published when this returns.
    ///
    /// # Errors
    /// See [`CommitError`].
    pub async fn set_verdict(
        &self,
        deployment: String,
        forced: Option<(VerdictState, Option<Duration>)>,
        reason: String,
        principal: String,
    ) -> Result<VerdictOutcome, CommitError> {
        self.stage(move |stage| stage.set_verdict(&deployment, forced, reason, principal)).await
    }

    /// Takes over what the fleet found, each change with the next generation. One that was
    /// decided on another verdict than the newest, or for which there is no room, is left
    /// out; the answer is how many were not. Durable and published when this returns.
    ///
    /// # Errors
    /// See [`CommitError`]; then possibly none was taken over.
    pub async fn change_fleet(&self, changes: Vec<FleetChange>) -> Result<usize, CommitError> {
        self.stage(move |stage| stage.change_fleet(changes)).await
    }

    /// The first number of a probe's lease that was never reserved.
    ///
    /// # Errors
    /// If the store is closing.
    pub async fn lease_end(&self) -> Result<u64, CommitError> {
        self.ask(|writer| writer.folded.lease_end).await
    }

    /// Reserves the numbers of probes' leases below `end`: durable when this returns. The
    /// answer is up to where they are reserved.
    ///
    /// # Errors
    /// See [`CommitError`].
    pub async fn reserve_leases(&self, end: u64) -> Result<u64, CommitError> {
        self.stage(move |stage| stage.reserve_leases(end)).await
    }

    /// Begins a drill that ends by itself after `ttl`; one of the same name ends now.
    /// `fault` is taken as it is: checking it is the caller's. Durable and published
    /// when this returns.
    ///
    /// # Errors
    /// [`CommitError::TooMuch`] beyond 64 active drills, and see [`CommitError`].
    pub async fn inject_fault(
        &self,
        fault: Fault,
        ttl: Duration,
        principal: String,
    ) -> Result<Drill, CommitError> {
        self.stage(move |stage| stage.inject_fault(fault, ttl, principal)).await
    }

    /// Ends a drill before its time. The answer is whether it was active.
    ///
    /// # Errors
    /// See [`CommitError`].
    pub async fn clear_fault(&self, name: String, principal: String) -> Result<bool, CommitError> {
        self.stage(move |stage| stage.clear_fault(name, principal)).await
    }

    /// Takes an agent out of service for a reason, possibly an empty one, or with None
    /// brings it back. Durable and published when this returns.
    ///
    /// # Errors
    /// [`CommitError::TooMuch`] beyond 10,000 drains, and see [`CommitError`].
    pub async fn set_drain(
        &self,
        agent_id: String,
        reason: Option<String>,
        principal: String,
    ) -> Result<(), CommitError> {
        self.stage(move |stage| stage.set_drain(agent_id, reason, principal)).await
    }

    /// Ends the verdicts and drills whose time is over. The answer is when the next one
    /// ends, as wall time in ms since 1970. Works in a read-only repository as well: an
    /// operator's word on the end holds.
    pub async fn expire(&self, now_unix_ms: u64) -> Option<u64> {
        let next = self.ask(move |writer| writer.expire(now_unix_ms)).await;
        next.ok().flatten()
    }

    /// Writes all of `blobs` or none, durable when this returns. They live beside the
    /// journal: if the view is damaged they are lost, and [`Self::health`] says so.
    ///
    /// # Errors
    /// See [`CommitError`]; a value has at most [`VALUE_BYTES_MAX`](super::VALUE_BYTES_MAX).
    pub async fn put_blobs(&self, blobs: Vec<Blob>) -> Result<(), CommitError> {
        self.ask(move |writer| writer.write_blobs(None, blobs, Vec::new())).await?
    }

    /// As [`Self::put_blobs`], and removes the blobs of the keys in `deletes`, if there:
    /// all of it or nothing. A key is in one of the two at most. `view` is the opening
    /// from which was read what is written now, see [`Self::subscribe_view`].
    ///
    /// # Errors
    /// [`CommitError::ReadOnly`] if the view was opened again since: read again. Else
    /// see [`CommitError`]; a value has at most [`VALUE_BYTES_MAX`](super::VALUE_BYTES_MAX).
    pub async fn write_blobs(
        &self,
        view: u64,
        puts: Vec<Blob>,
        deletes: Vec<Vec<u8>>,
    ) -> Result<(), CommitError> {
        self.ask(move |writer| writer.write_blobs(Some(view), puts, deletes)).await?
    }

    /// The blobs whose key starts with `prefix`, by key.
    ///
    /// # Errors
    /// [`CommitError::ReadOnly`] while the view is not open, which is tried again now and
    /// then; else see [`CommitError`].
    pub async fn scan_blobs(&self, prefix: &[u8]) -> Result<Vec<Blob>, CommitError> {
        let prefix = prefix.to_vec();
        self.ask(move |writer| writer.scan_blobs(&prefix)).await?
    }

    /// The blobs under each of `prefixes`, in the order of these. Writes wait meanwhile,
    /// so the caller bounds how many there are.
    ///
    /// # Errors
    /// As [`Self::scan_blobs`].
    pub async fn scan_blobs_of(&self, prefixes: Vec<Vec<u8>>) -> Result<Vec<Blob>, CommitError> {
        let scan = move |writer: &mut super::writer::Writer| {
            let found = prefixes.iter().map(|prefix| writer.scan_blobs(prefix));
            found.collect::<Result<Vec<_>, _>>().map(|found| found.into_iter().flatten().collect())
        };
        self.ask(scan).await?
    }
}
