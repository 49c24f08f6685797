//! What a feed changes, and what it does not.

use trunkline_proto::document;

use super::*;
use crate::prices::feed::Format;

const NOW: u64 = 1_700_000_000_000;

fn feed(input: &str, output: &str) -> Feed {
    let text = format!(
        r#"{{"mini": {{"litellm_provider": "openai", "input_cost_per_token": {input}, "output_cost_per_token": {output}}}}}"#
    );
    Feed::read(Format::Litellm, text.as_bytes()).unwrap()
}

fn config(price: &str) -> Config {
    let text = format!(
        "providers: [{{name: openai, dialect: OPENAI, base_url: https://api.openai.com/v1,
           deployments: [{{name: mini{price}}}, {{name: other}}]}}]"
    );
    document::load(&text).unwrap()
}

/// Name, input price, whether it is held back; in order of time.
fn shown(config: &Config) -> Vec<(String, String, bool)> {
    let mut entries = config.price_entries.clone();
    entries.sort_by_key(convert::valid_from_unix_ms);
    let price = |one: &PriceEntry| one.price.clone().unwrap().input_usd_per_mtok;
    entries.iter().map(|one| (one.name.clone(), price(one), !one.held.is_empty())).collect()
}

fn applied(config: &Config, feed: &Feed, now: u64, accept: bool) -> Config {
    let plan = plan(config, feed, &Named::new(), now, accept);
    let config = Config { price_entries: plan.entries, ..config.clone() };
    convert::routing_table(trunkline_routing::table::Version::default(), &config).unwrap();
    config
}

fn entry(at: u64, input: &str, held: bool) -> (String, String, bool) {
    (format!("feed:openai/mini:{at}"), input.to_owned(), held)
}

#[test]
fn a_new_price_counts_from_now_on_and_the_same_price_changes_nothing() {
    let before = config("");
    let plan = plan(&before, &feed("1e-6", "2e-6"), &Named::new(), NOW, false);
    assert_eq!((plan.matched, plan.unmatched), (1, vec!["openai/other".to_owned()]));
    let once = applied(&before, &feed("1e-6", "2e-6"), NOW, false);
    assert_eq!(shown(&once), [entry(NOW, "1", false)]);
    assert_eq!(once.price_entries[0].feed_model, "mini");
    assert_eq!(applied(&once, &feed("1e-6", "2e-6"), NOW + 9, false), once);
}

#[test]
fn the_price_before_stays_for_agents_whose_clock_is_behind_and_no_more_than_that() {
    let mut config = config("");
    for (at, input) in [(0, "1e-6"), (1, "2e-6"), (2, "3e-6")] {
        config = applied(&config, &feed(input, "2e-6"), NOW + at, false);
    }
    assert_eq!(shown(&config), [entry(NOW + 1, "2", false), entry(NOW + 2, "3", false)]);
}

#[test]
fn a_jump_is_held_back_until_it_is_accepted_or_over() {
    let before = applied(&config(""), &feed("1e-6", "2e-6"), NOW, false);
    for (input, output) in [("4.1e-6", "2e-6"), ("0.24e-6", "2e-6"), ("1e-6", "0"), ("1e-9", "2e-9")] {
        let held = applied(&before, &feed(input, output), NOW + 5, false);
        assert_eq!(shown(&held).len(), 2, "{input} {output}");
        assert!(shown(&held)[1].2, "{input} {output}");
        // Polling goes on: it is held back once.
        assert_eq!(applied(&held, &feed(input, output), NOW + 6, false), held);
        // The feed mends its mistake.
        assert_eq!(applied(&held, &feed("1e-6", "2e-6"), NOW + 7, false), before);
        let taken = applied(&held, &feed(input, output), NOW + 8, true);
        assert!(shown(&taken).iter().all(|(_, _, held)| !held), "{input} {output}");
    }
    let allowed = applied(&before, &feed("4e-6", "0.5e-6"), NOW + 5, false);
    assert_eq!(shown(&allowed)[1], entry(NOW + 5, "4", false));
}

#[test]
fn the_reason_names_what_jumped() {
    let before = applied(&config(""), &feed("1e-6", "2e-6"), NOW, false);
    let held = applied(&before, &feed("1e-6", "9e-6"), NOW + 5, false);
    let reasons: Vec<&str> = held.price_entries.iter().map(|one| one.held.as_str()).collect();
    assert_eq!(reasons, ["", "the output price goes from 2 to 9"]);
}

#[test]
fn a_jump_is_measured_against_what_the_operator_said() {
    let inline = ", price: {input_usd_per_mtok: 1, output_usd_per_mtok: 2}";
    let held = applied(&config(inline), &feed("9e-6", "2e-6"), NOW, false);
    assert_eq!(shown(&held), [entry(NOW, "9", true)]);
    let fine = applied(&config(inline), &feed("2e-6", "2e-6"), NOW, false);
    assert_eq!(shown(&fine), [entry(NOW, "2", false)]);
}

#[test]
fn nothing_is_free_by_surprise() {
    let held = applied(&config(""), &feed("0", "0"), NOW, false);
    assert_eq!(shown(&held), [entry(NOW, "0", true)]);
    // Embeddings have no output.
    let fine = applied(&config(""), &feed("1e-8", "0"), NOW, false);
    assert_eq!(shown(&fine), [entry(NOW, "0.01", false)]);
}

#[test]
fn a_model_that_leaves_the_feed_keeps_its_last_price() {
    let before = applied(&config(""), &feed("1e-6", "2e-6"), NOW, false);
    let other = r#"{"gone": {"input_cost_per_token": 1e-6, "output_cost_per_token": 1e-6}}"#;
    let other = Feed::read(Format::Litellm, other.as_bytes()).unwrap();
    assert_eq!(applied(&before, &other, NOW + 5, false), before);
}

#[test]
fn operators_entries_are_left_alone() {
    let mut before = config("");
    before.price_entries.push(PriceEntry {
        name: "own".to_owned(),
        deployment: "openai/mini".to_owned(),
        price: Some(convert::wire_price(&Price::flat(Rates { input: 1, cached_input: 1, output: 1 }))),
        ..PriceEntry::default()
    });
    let after = applied(&before, &feed("1e-6", "2e-6"), NOW, true);
    assert_eq!(after.price_entries[0], before.price_entries[0]);
    assert_eq!(after.price_entries.len(), 2);
}

#[test]
fn an_accepted_price_counts_from_then_on() {
    let before = applied(&config(""), &feed("0", "0"), NOW, false);
    let after = accepted(&before.price_entries[0], NOW + 1_234);
    assert_eq!((after.held.as_str(), convert::valid_from_unix_ms(&after)), ("", NOW + 1_234));
}
