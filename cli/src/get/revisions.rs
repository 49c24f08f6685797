//! `get revisions`: the past of the configuration.

use trunkline_proto::admin::v1::{ListRevisionsRequest, ListRevisionsResponse};

use crate::{
    cell::{or_nothing, time},
    client::ControlPlane,
    failure::Failure,
    table::{Align, render},
};

/// The newest ones, at most `limit`.
pub(super) async fn newest(
    control_plane: &ControlPlane,
    limit: u32,
) -> Result<ListRevisionsResponse, Failure> {
    let mut all = ListRevisionsResponse::default();
    loop {
        let missing = limit.saturating_sub(u32::try_from(all.revisions.len()).unwrap_or(u32::MAX));
        let page_size = super::page_size(missing);
        let request = ListRevisionsRequest { page_size, page_token: all.next_page_token };
        let page =
            control_plane.call(request, async |admin, request| admin.list_revisions(request).await).await?;
        all.revisions.extend(page.revisions);
        all.next_page_token = page.next_page_token;
        if all.next_page_token.is_empty() || all.revisions.len() >= limit as usize {
            return Ok(all);
        }
    }
}

pub(super) fn table(list: &ListRevisionsResponse) -> String {
    if list.revisions.is_empty() {
        return "no change of the configuration is in the journal\n".to_owned();
    }
    let columns = [
        ("REVISION", Align::Right),
        ("TIME", Align::Left),
        ("WHO", Align::Left),
        ("BY", Align::Left),
        ("FORCED", Align::Left),
        ("ROLLBACK", Align::Left),
    ];
    let rows: Vec<_> = list
        .revisions
        .iter()
        .map(|one| {
            [
                one.version.as_ref().map_or(0, |version| version.revision).to_string(),
                time(one.create_time),
                or_nothing(&one.principal),
                or_nothing(&one.method),
                if one.force { "yes" } else { "" }.to_owned(),
                if one.restorable { "possible" } else { "gone" }.to_owned(),
            ]
        })
        .collect();
    render(columns, &rows) + super::more(&list.next_page_token)
}

#[cfg(test)]
mod tests {
    use trunkline_proto::{admin::v1::Revision, types::v1::Version};

    use super::*;

    #[test]
    fn revisions_say_who_made_them_and_whether_they_can_come_back() {
        let revision = |revision: u64, restorable: bool| Revision {
            version: Some(Version { epoch: "e".to_owned(), revision }),
            principal: "admin:alice".to_owned(),
            method: "ApplyConfig".to_owned(),
            force: restorable,
            restorable,
            ..Revision::default()
        };
        let list = ListRevisionsResponse {
            revisions: vec![revision(8, true), revision(7, false)],
            next_page_token: "more".to_owned(),
        };
        let table = table(&list);
        let lines: Vec<_> = table.lines().collect();
        assert!(lines[1].contains("admin:alice  ApplyConfig  yes     possible"), "{table}");
        assert!(lines[2].ends_with("gone"), "{table}");
        assert!(lines[3].contains("--limit"), "{table}");
    }
}
