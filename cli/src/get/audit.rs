//! `get audit`: who changed what and when.

use std::{fmt::Write as _, time::SystemTime};

use trunkline_proto::{
    admin::v1::{AuditEntry, QueryAuditRequest, QueryAuditResponse},
    document,
};

use crate::{
    args::AuditArgs,
    cell::{or_nothing, time},
    client::ControlPlane,
    failure::Failure,
    table::{Align, render},
};

/// The newest ones that fit, at most as many as are asked for.
pub(super) async fn newest(
    control_plane: &ControlPlane,
    args: &AuditArgs,
    now: SystemTime,
) -> Result<QueryAuditResponse, Failure> {
    let mut all = QueryAuditResponse::default();
    loop {
        let missing = args.limit.saturating_sub(u32::try_from(all.entries.len()).unwrap_or(u32::MAX));
        let request = QueryAuditRequest {
            start_time: args.since.map(|since| since.on(now)),
            end_time: args.until.map(|until| until.on(now)),
            principal: args.principal.clone(),
            method: args.method.clone(),
            page_size: super::page_size(missing),
            page_token: all.next_page_token,
        };
        let page =
            control_plane.call(request, async |admin, request| admin.query_audit(request).await).await?;
        all.entries.extend(page.entries);
        all.next_page_token = page.next_page_token;
        if all.next_page_token.is_empty() || all.entries.len() >= args.limit as usize {
            return Ok(all);
        }
    }
}

pub(super) fn table(list: &QueryAuditResponse) -> String {
    if list.entries.is_empty() {
        return "no entry\n".to_owned();
    }
    let columns = [
        ("ENTRY", Align::Right),
        ("TIME", Align::Left),
        ("WHO", Align::Left),
        ("BY", Align::Left),
        ("WHAT", Align::Left),
        ("REVISION", Align::Right),
        ("CHANGES", Align::Right),
        ("FORCED", Align::Left),
    ];
    let rows: Vec<_> = list
        .entries
        .iter()
        .map(|entry| {
            [
                entry.sequence.to_string(),
                time(entry.time),
                or_nothing(&entry.principal),
                or_nothing(&entry.method),
                subject(entry),
                revision(entry).to_string(),
                (entry.changes.len() as u64 + entry.changes_omitted).to_string(),
                if entry.force { "yes" } else { "" }.to_owned(),
            ]
        })
        .collect();
    render(columns, &rows) + super::more(&list.next_page_token)
}

/// Each entry with its changes, as `apply` shows them.
pub(super) fn changes(list: &QueryAuditResponse) -> String {
    let mut text = String::new();
    for entry in &list.entries {
        let forced = if entry.force { ", forced" } else { "" };
        let subject = subject(entry);
        // Writing to a String can't fail.
        writeln!(
            text,
            "{} {} {} {} {subject}, revision {}{forced}",
            entry.sequence,
            time(entry.time),
            entry.principal,
            entry.method,
            revision(entry)
        )
        .ok();
        for line in document::render_diff(&entry.changes).lines() {
            writeln!(text, "  {line}").ok();
        }
        if entry.changes_omitted > 0 {
            writeln!(text, "  and {} more", entry.changes_omitted).ok();
        }
    }
    text + super::more(&list.next_page_token)
}

fn subject(entry: &AuditEntry) -> String {
    if entry.subject.is_empty() { "configuration".to_owned() } else { entry.subject.clone() }
}

fn revision(entry: &AuditEntry) -> u64 {
    entry.version.as_ref().map_or(0, |version| version.revision)
}

#[cfg(test)]
mod tests {
    use trunkline_proto::{
        admin::v1::{Change, ChangeKind},
        types::v1::Version,
    };

    use super::*;

    fn list() -> QueryAuditResponse {
        let weight = Change {
            kind: ChangeKind::Modified.into(),
            path: "virtual_models[chat].weight".to_owned(),
            before: "70".to_owned(),
            after: "60".to_owned(),
        };
        let entry = AuditEntry {
            sequence: 12,
            principal: "admin:alice".to_owned(),
            method: "ApplyConfig".to_owned(),
            version: Some(Version { epoch: "e".to_owned(), revision: 9 }),
            force: true,
            changes: vec![weight],
            changes_omitted: 4,
            ..AuditEntry::default()
        };
        let breaker =
            AuditEntry { sequence: 11, subject: "swift/sim-large".to_owned(), ..AuditEntry::default() };
        QueryAuditResponse { entries: vec![entry, breaker], next_page_token: String::new() }
    }

    #[test]
    fn entries_are_one_line_each_with_the_number_of_changes() {
        let table = table(&list());
        let lines: Vec<_> = table.lines().collect();
        assert_eq!(lines.len(), 3, "{table}");
        assert!(lines[1].contains("configuration"), "{table}");
        assert!(lines[1].ends_with("5  yes"), "{table}");
        assert!(lines[2].contains("swift/sim-large"), "{table}");
    }

    #[test]
    fn changes_are_shown_as_apply_shows_them() {
        let text = changes(&list());
        assert!(text.contains("12 - admin:alice ApplyConfig configuration, revision 9, forced\n"), "{text}");
        assert!(text.contains("\n  ~ virtual_models[chat].weight: 70 -> 60\n  and 4 more\n11 "), "{text}");
    }
}
