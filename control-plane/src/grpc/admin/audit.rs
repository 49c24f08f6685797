//! The audit log: QueryAudit. Who changed what and when, as the journal has it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prost::Message;
use tonic::Status;
use trunkline_proto::{
    admin::v1::{AuditEntry, Change, ChangeKind, QueryAuditRequest, QueryAuditResponse},
    document, status,
};

use super::{page::Past, revisions::unreadable};
use crate::{
    grpc::{Context, wire_version},
    repository::{AuditQuery, Audited},
};

/// Changes that are shown of one commit.
const CHANGES_MAX: usize = 1_000;

/// Bytes of entries in a page: clients take 4 MiB in a message, and one commit whose
/// values are long has about half of that.
const PAGE_BYTES_MAX: usize = 1024 * 1024;

pub(super) async fn query(
    context: &Context,
    request: QueryAuditRequest,
) -> Result<QueryAuditResponse, Status> {
    let query = AuditQuery {
        from_unix_ms: request.start_time.map(|time| unix_ms("start_time", time)).transpose()?,
        until_unix_ms: request.end_time.map(|time| unix_ms("end_time", time)).transpose()?,
        principal: Some(request.principal).filter(|principal| !principal.is_empty()),
        method: Some(request.method).filter(|method| !method.is_empty()),
    };
    let listing = format!("audit {query:?}").replace('\n', " ");
    let page = Past::parse(&listing, request.page_size, &request.page_token)?;
    let limits = (page.size, PAGE_BYTES_MAX);
    let found = context.repository.audit(query, page.from, limits, |audited| {
        let entry = entry_of(audited);
        let bytes = entry.encoded_len();
        (entry, bytes)
    });
    let found = found.await.map_err(|error| unreadable(&error))?;
    let next_page_token = Past::token(&listing, found.next.as_ref());
    Ok(QueryAuditResponse { entries: found.items, next_page_token })
}

fn unix_ms(field: &str, time: prost_types::Timestamp) -> Result<u64, Status> {
    let since = SystemTime::try_from(time).ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let since = since.ok_or_else(|| status::invalid_field(field, "must be a time from 1970 on"))?;
    Ok(since.as_millis() as u64)
}

fn entry_of(audited: Audited) -> AuditEntry {
    let Audited { commit, configs, orders, sha256, previous_sha256 } = audited;
    let mut changes = configs.map(|(before, after)| document::diff(&before, &after)).unwrap_or_default();
    changes.extend(orders.into_iter().map(|(path, after)| match after {
        Some(after) => Change { kind: ChangeKind::Modified.into(), path, after, ..Change::default() },
        None => Change { kind: ChangeKind::Removed.into(), path, ..Change::default() },
    }));
    let mut bytes = 0;
    let fits = |change: &&Change| {
        bytes += change.encoded_len();
        bytes <= PAGE_BYTES_MAX
    };
    let shown = changes.iter().take(CHANGES_MAX).take_while(fits).count();
    let changes_omitted = (changes.len() - shown) as u64;
    changes.truncate(shown);
    AuditEntry {
        sequence: commit.sequence,
        time: Some((UNIX_EPOCH + Duration::from_millis(commit.unix_ms)).into()),
        principal: commit.principal,
        method: commit.method,
        subject: commit.subject,
        request_id: commit.request_id.unwrap_or_default(),
        version: Some(wire_version(&commit.version)),
        force: commit.force,
        changes,
        changes_omitted,
        sha256: sha256.to_vec(),
        previous_sha256,
    }
}
