//! `trunkline compare` as somebody types it who chooses a strategy. No process beside it.

use std::fs;

use serde_json::Value;
use trunkline_tests::cli::{Ran, trunkline};

/// Runs `compare`; there is no control plane that it could ask.
fn compare(words: &[&str]) -> Ran {
    trunkline("http://127.0.0.1:9", &[&["compare"], words].concat())
}

const STEADY: [&str; 6] = ["--scenario", "01", "--strategies", "latency,peak-ewma-p2c", "--seeds", "2"];

#[test]
fn the_same_seed_gives_the_same_bytes_on_any_number_of_threads() {
    let one = compare(&[&STEADY[..], &["--threads", "1"]].concat()).done();
    let two = compare(&[&STEADY[..], &["--threads", "2"]].concat()).done();
    assert_eq!(one, two);
    assert!(one.contains("peak-ewma-p2c"), "{one}");
    let other = compare(&[&STEADY[..], &["--seed", "7"]].concat()).done();
    assert_ne!(one, other);
}

#[test]
fn a_scenario_that_was_printed_gives_what_the_built_in_one_gives() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("mine.yaml");
    let file = file.to_str().unwrap();
    compare(&["--show-scenario", "01", "--out", file]).done();
    let words = [&["--scenario", file], &STEADY[2..], &["--format", "json"]].concat();
    let own = compare(&words).done();
    let built_in = compare(&[&STEADY[..], &["--format", "json"]].concat()).done();
    assert_eq!(own, built_in);
    let value: Value = serde_json::from_str(&own).unwrap();
    let success = &value["strategies"][0]["reliability"]["success"]["mean"];
    assert!(success.as_f64().unwrap() > 0.9, "{success}");
}

#[test]
fn plots_are_drawn_as_svg_and_png() {
    let directory = tempfile::tempdir().unwrap();
    let plots = directory.path().join("plots");
    let ran = compare(&[&STEADY[..], &["--plots", plots.to_str().unwrap()]].concat());
    assert!(ran.stderr.contains("shares.svg"), "{ran:?}");
    ran.done();
    let head = |name: &str| fs::read(plots.join(name)).unwrap()[..4].to_vec();
    for name in ["latency", "latency-cdf", "shares", "success", "cost"] {
        assert_eq!(head(&format!("{name}.svg")), b"<svg", "{name}");
        assert_eq!(head(&format!("{name}.png")), b"\x89PNG", "{name}");
    }
}

#[test]
fn mistakes_are_told_with_what_would_be_right() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let scenario = write("bad.yaml", "id: x\nname: y\nfleet: five\ntraffic:\n  rate: 9\n");
    let traffic = write("bad.csv", "t_s,input_tokens,output_tokens\n0,1,1\n1,x,1\n");
    let check = |words: &[&str], said: &[&str]| {
        let ran = compare(words);
        assert_eq!(ran.code, 2, "{ran:?}");
        for part in said {
            assert!(ran.stderr.contains(part), "{part}: {ran:?}");
        }
    };
    check(&["--scenario", "01", "--strategies", "latnecy"], &["did you mean 'latency'?"]);
    check(&["--scenario", "no-such-file.yaml"], &["no-such-file.yaml", "01, 02"]);
    check(&["--scenario", &scenario], &["bad.yaml", "line 5", "`rate`", "rate_per_s"]);
    check(&["--scenario", "01", "--traffic", &traffic], &["bad.csv", "line 3", "input_tokens"]);
    check(&["--scenario", "01", "--congestion", "linaer"], &["power, queue, linear"]);
    check(&["--acceptance", "--rows", "99"], &["no row '99'"]);
    check(&[], &["--scenario"]);
}

#[test]
fn acceptance_judges_the_rows_it_is_asked_for() {
    let table = compare(&["--acceptance", "--quick", "--rows", "B"]).done();
    assert!(table.contains("1 of 1 rows hold") && table.contains("control"), "{table}");
    let json = compare(&["--acceptance", "--quick", "--rows", "B", "--format", "json"]).done();
    let value: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(value["holds"], true);
    assert_eq!(value["rows"][0]["row"], "B");
}
