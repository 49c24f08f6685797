//! Price entries: from the document to the prices of deployments.
#![expect(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

use trunkline_proto::{
    admin::v1::Config,
    convert::{canonical, routing_table, routing_table_lenient, without_feed, without_orphans},
    document,
    types::v1::PriceSource,
};
use trunkline_routing::table::{RoutingTable, Version};

const PROVIDERS: &str = "providers:
  - name: a
    dialect: OPENAI
    base_url: https://a.example.com/v1
    deployments:
      - {name: x, price: {input_usd_per_mtok: 1, output_usd_per_mtok: 2}}
      - {name: y}
";

fn config(entries: &str) -> Config {
    document::load(&format!("{PROVIDERS}price_entries:\n{entries}")).unwrap()
}

fn table(config: &Config) -> RoutingTable {
    routing_table(Version::default(), config).unwrap()
}

/// The input price of a deployment, in millionths of a dollar, at a time.
fn input(table: &RoutingTable, deployment: &str, unix_ms: u64) -> Option<u64> {
    let index = table.deployment_by_name(deployment).unwrap();
    table.deployment(index).prices.at(unix_ms).map(|price| price.base.input / 1_000)
}

#[test]
fn the_newest_entry_that_has_begun_beats_the_price_at_the_deployment() {
    let table = table(&config(
        "  - {name: later, deployment: a/x, price: {input_usd_per_mtok: 3, output_usd_per_mtok: 4}, valid_from: 2026-12-01T00:00:00Z}
  - {name: first, deployment: a/x, price: {input_usd_per_mtok: 2, output_usd_per_mtok: 4}, valid_from: \"2026-11-01T01:00:00+01:00\"}
  - {name: only, deployment: a/y, price: {input_usd_per_mtok: 5, output_usd_per_mtok: 5}, valid_from: 2026-11-01T00:00:00.250Z}
",
    ));
    let november = 1_793_491_200_000;
    let december = november + 30 * 86_400_000;
    let x = |at| input(&table, "a/x", at);
    assert_eq!(
        [x(november - 1), x(november), x(december - 1), x(december)],
        [1, 2, 2, 3].map(|usd| Some(usd * 1_000_000))
    );
    let y = |at| input(&table, "a/y", at);
    assert_eq!([y(november + 249), y(november + 250)], [None, Some(5_000_000)], "unknown, then known");
}

#[test]
fn an_entry_without_a_time_beats_the_price_at_the_deployment_at_all_times() {
    let table = table(&config(
        "  - {name: p, deployment: a/x, price: {input_usd_per_mtok: 9, output_usd_per_mtok: 9}}\n",
    ));
    assert_eq!([input(&table, "a/x", 1), input(&table, "a/x", 0)], [Some(9_000_000); 2]);
}

#[test]
fn tiers_are_prices_of_long_requests() {
    let table = table(&config(
        "  - name: p
    deployment: a/y
    price:
      input_usd_per_mtok: 1
      output_usd_per_mtok: 2
      tiers: [{above_input_tokens: 200000, input_usd_per_mtok: 2, cached_input_usd_per_mtok: 0.5, output_usd_per_mtok: 3}]
",
    ));
    let price = table.deployments[1].prices.at(1).unwrap();
    let input = [200_000, 200_001].map(|tokens| price.rates(tokens).input / 1_000_000_000);
    assert_eq!((input, price.rates(200_001).cached_input), ([1, 2], 500_000_000));
}

#[test]
fn everything_wrong_with_an_entry_is_named() {
    let error = document::load_and_check(&format!(
        "{PROVIDERS}price_entries:
  - {{name: Bad, deployment: a/z, price: {{input_usd_per_mtok: 1, output_usd_per_mtok: 1}}}}
  - {{name: none, deployment: a/x}}
  - {{name: one, deployment: a/x, price: {{input_usd_per_mtok: -1, output_usd_per_mtok: 1}}, valid_from: 1969-12-31T23:59:59Z}}
  - {{name: two, deployment: a/x, price: {{input_usd_per_mtok: 1, output_usd_per_mtok: 1}}, valid_from: 2026-12-01T00:00:00Z}}
  - {{name: two, deployment: a/x, price: {{input_usd_per_mtok: 1, output_usd_per_mtok: 1}}, valid_from: 2026-12-01T00:00:00Z}}
  - name: tiers
    deployment: a/y
    held: why
    price: {{input_usd_per_mtok: 1, output_usd_per_mtok: 1, tiers: [{{input_usd_per_mtok: 1}}, {{above_input_tokens: 5, input_usd_per_mtok: 1, output_usd_per_mtok: 1}}, {{above_input_tokens: 5, input_usd_per_mtok: 1, output_usd_per_mtok: 1}}]}}
"
    ));
    let expect = [
        "price_entries[0].name: \"Bad\" is not a name: write [a-z0-9][a-z0-9-]{0,62}",
        "price_entries[0].deployment: no deployment is called \"a/z\"",
        "price_entries[1].price: is required",
        "price_entries[2].valid_from: is not a time from 1970 to 9999",
        "price_entries[2].price.input_usd_per_mtok: \"-1\" is negative",
        "price_entries[4].name: \"two\" is the name of price_entries[3] already",
        "price_entries[4].valid_from: is that of price_entries[3] for the same deployment",
        "price_entries[5].held: is set by the control plane, for prices from a feed",
        "price_entries[5].price.tiers[0].above_input_tokens: is required, as in 200000",
        "price_entries[5].price.tiers[0].output_usd_per_mtok: is required, as in 0.15; leave the whole tier out if it has no price",
        "price_entries[5].price.tiers[2].above_input_tokens: must be more than that before, 5",
    ];
    let found = error.unwrap_err().to_string();
    let found: Vec<&str> = found.lines().map(|line| line.split_once(": ").unwrap().1).collect();
    assert_eq!(found, expect);
}

#[test]
fn a_time_that_two_readers_would_read_differently_is_refused() {
    for time in ["2026-12-01", "2026-12-01T00:00:00", "1733011200", "tomorrow"] {
        let text = format!(
            "{PROVIDERS}price_entries: [{{name: p, deployment: a/x, valid_from: \"{time}\", price: {{input_usd_per_mtok: 1, output_usd_per_mtok: 1}}}}]"
        );
        let error = document::load(&text).unwrap_err().to_string();
        assert!(error.contains(&format!("'{time}' is not a time such as 2026-12-01T00:00:00Z")), "{error}");
    }
}

#[test]
fn held_prices_do_not_count_and_prices_from_feeds_are_no_part_of_a_document() {
    let mut with_feed = config(
        "  - {name: own, deployment: a/y, price: {input_usd_per_mtok: 7, output_usd_per_mtok: 7}}
  - {name: 'feed:a/x:1', source: FEED, deployment: a/x, price: {input_usd_per_mtok: 8, output_usd_per_mtok: 8}}
  - {name: 'feed:a/x:2', source: FEED, held: a jump, deployment: a/x, price: {input_usd_per_mtok: 9, output_usd_per_mtok: 9}, valid_from: 2020-01-01T00:00:00Z}
",
    );
    assert_eq!(input(&table(&with_feed), "a/x", 1_800_000_000_000), Some(8_000_000));
    let names = |config: &Config| -> Vec<String> {
        canonical(config.clone()).price_entries.into_iter().map(|one| one.name).collect()
    };
    assert_eq!(names(&without_feed(with_feed.clone())), ["own"]);
    with_feed.providers[0].deployments.remove(0);
    assert_eq!(names(&without_orphans(with_feed.clone())), ["own"]);
    // An operator's own entry is never dropped in silence.
    with_feed.providers[0].deployments.clear();
    assert_eq!(names(&without_orphans(with_feed)), ["own"]);
}

#[test]
fn an_agent_takes_an_entry_of_a_source_that_it_does_not_know() {
    let mut newer =
        config("  - {name: p, deployment: a/x, price: {input_usd_per_mtok: 3, output_usd_per_mtok: 3}}\n");
    newer.price_entries[0].source = 99;
    newer.price_entries[0].name = "contract:2026".to_owned();
    assert!(routing_table(Version::default(), &newer).is_err());
    let made = routing_table_lenient(Version::default(), &newer).unwrap();
    assert_eq!(input(&made.table, "a/x", 1), Some(3_000_000));
    let expect = "price_entries[0].source: 99 is not a value of this enum; taken as PRICE_SOURCE_FEED";
    assert_eq!(made.assumed.to_string(), expect);
    assert_eq!(PriceSource::try_from(2).unwrap(), PriceSource::Feed);
}
