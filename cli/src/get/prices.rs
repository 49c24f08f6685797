//! `get prices`: what deployments cost now and later, and what is held back.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    time::{SystemTime, UNIX_EPOCH},
};

use trunkline_proto::{
    admin::v1::{ListDeploymentsRequest, ListPriceEntriesRequest, ListPriceEntriesResponse},
    convert::{is_from_feed, valid_from_unix_ms},
    types::v1::{Deployment, Price, PriceEntry},
};

use crate::{
    cell::{NOTHING, or_nothing, time},
    client::ControlPlane,
    failure::Failure,
    table::{Align, render},
};

/// All entries, with the state of the price list that is polled.
pub(super) async fn entries(control_plane: &ControlPlane) -> Result<ListPriceEntriesResponse, Failure> {
    let mut request = ListPriceEntriesRequest::default();
    let mut all = Vec::new();
    loop {
        let page = control_plane
            .call(request.clone(), async |admin, request| admin.list_price_entries(request).await)
            .await?;
        all.extend(page.price_entries);
        if page.next_page_token.is_empty() {
            let feed = page.feed;
            return Ok(ListPriceEntriesResponse { price_entries: all, next_page_token: String::new(), feed });
        }
        request.page_token = page.next_page_token;
    }
}

/// All deployments, for the prices written at them.
pub(super) async fn deployments(control_plane: &ControlPlane) -> Result<Vec<Deployment>, Failure> {
    let mut request = ListDeploymentsRequest::default();
    let mut all = Vec::new();
    loop {
        let page = control_plane
            .call(request.clone(), async |admin, request| admin.list_deployments(request).await)
            .await?;
        all.extend(page.deployments);
        if page.next_page_token.is_empty() {
            return Ok(all);
        }
        request.page_token = page.next_page_token;
    }
}

pub(super) fn table(list: &ListPriceEntriesResponse, deployments: &[Deployment], now: SystemTime) -> String {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
    let mut by_deployment: BTreeMap<&str, Vec<&PriceEntry>> = BTreeMap::new();
    for entry in &list.price_entries {
        by_deployment.entry(&entry.deployment).or_default().push(entry);
    }
    let mut rows = Vec::new();
    for one in deployments {
        rows_of(one, by_deployment.remove(one.name.as_str()).unwrap_or_default(), now, &mut rows);
    }
    let columns = [
        ("DEPLOYMENT", Align::Left),
        ("STATE", Align::Left),
        ("INPUT", Align::Right),
        ("CACHED", Align::Right),
        ("OUTPUT", Align::Right),
        ("SOURCE", Align::Left),
        ("VALID FROM", Align::Left),
        ("ENTRY", Align::Left),
    ];
    let mut text = render(columns, &rows);
    text.push_str("US dollars per million tokens\n");
    if let Some(feed) = &list.feed {
        let good = time(feed.last_success_time);
        // Writing to a String can't fail.
        writeln!(
            text,
            "price list {}: last good answer {good}, {} of {} deployments in it",
            feed.url,
            feed.matched,
            deployments.len()
        )
        .ok();
        if !feed.last_error.is_empty() {
            writeln!(text, "price list: {}", feed.last_error).ok();
        }
    }
    text
}

/// What counts now, then what begins later, then what is held back.
fn rows_of(one: &Deployment, mut entries: Vec<&PriceEntry>, now: u64, rows: &mut Vec<[String; 8]>) {
    // As agents choose: the newest, and of two of one time the operator's.
    entries.sort_by_key(|one| (valid_from_unix_ms(one), !is_from_feed(one)));
    let (counting, held): (Vec<_>, Vec<_>) = entries.into_iter().partition(|one| one.held.is_empty());
    let (begun, later): (Vec<_>, Vec<_>) =
        counting.into_iter().partition(|one| valid_from_unix_ms(one) <= now);
    match (begun.last(), &one.price) {
        (Some(entry), _) => rows.push(row("now", entry)),
        (None, Some(price)) => {
            let [input, cached, output] = figures(price);
            let nothing = || NOTHING.to_owned();
            let source = "deployment".to_owned();
            rows.push([one.name.clone(), "now".into(), input, cached, output, source, nothing(), nothing()]);
        }
        (None, None) => {
            let mut cells = [const { String::new() }; 8].map(|_| NOTHING.to_owned());
            cells[0].clone_from(&one.name);
            "unknown".clone_into(&mut cells[1]);
            rows.push(cells);
        }
    }
    rows.extend(later.into_iter().map(|entry| row("later", entry)));
    rows.extend(held.into_iter().map(|entry| row(&format!("held back: {}", entry.held), entry)));
}

fn row(state: &str, entry: &PriceEntry) -> [String; 8] {
    let [input, cached, output] = figures(&entry.price.clone().unwrap_or_default());
    let source =
        if is_from_feed(entry) { format!("list: {}", entry.feed_model) } else { "operator".to_owned() };
    let from = time(entry.valid_from);
    [entry.deployment.clone(), state.to_owned(), input, cached, output, source, from, entry.name.clone()]
}

/// With a star if long requests have a price of their own.
fn figures(price: &Price) -> [String; 3] {
    let star = if price.tiers.is_empty() { "" } else { "*" };
    let cached = or_nothing(&price.cached_input_usd_per_mtok);
    [format!("{}{star}", price.input_usd_per_mtok), cached, format!("{}{star}", price.output_usd_per_mtok)]
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use trunkline_proto::types::v1::PriceSource;

    use super::*;

    #[expect(clippy::unnecessary_wraps, reason = "as the fields want it")]
    fn price(input: &str) -> Option<Price> {
        Some(Price { input_usd_per_mtok: input.into(), output_usd_per_mtok: "9".into(), ..Price::default() })
    }

    fn entry(name: &str, input: &str, seconds: i64, held: &str) -> PriceEntry {
        PriceEntry {
            name: name.into(),
            deployment: "a/x".into(),
            price: price(input),
            valid_from: Some(prost_types::Timestamp { seconds, nanos: 0 }),
            source: if held.is_empty() { 0 } else { PriceSource::Feed.into() },
            held: held.into(),
            ..PriceEntry::default()
        }
    }

    #[test]
    fn what_counts_what_comes_and_what_is_held_back() {
        let deployments = [("a/x", price("1")), ("a/y", price("2")), ("a/z", None)];
        let deployments =
            deployments.map(|(name, price)| Deployment { name: name.into(), price, ..Deployment::default() });
        let list = ListPriceEntriesResponse {
            price_entries: vec![
                entry("old", "3", 100, ""),
                entry("new", "4", 200, ""),
                entry("next", "5", 400, ""),
                entry("feed:a/x:1", "50", 150, "a jump"),
            ],
            ..ListPriceEntriesResponse::default()
        };
        let text = table(&list, &deployments, UNIX_EPOCH + Duration::from_secs(300));
        let words: Vec<String> =
            text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(
            words[1..6],
            [
                "a/x now 4 - 9 operator 1970-01-01T00:03:20Z new",
                "a/x later 5 - 9 operator 1970-01-01T00:06:40Z next",
                "a/x held back: a jump 50 - 9 list: 1970-01-01T00:02:30Z feed:a/x:1",
                "a/y now 2 - 9 deployment - -",
                "a/z unknown - - - - - -",
            ]
        );
    }
}
