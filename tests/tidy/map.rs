//! ARCHITECTURE.md names places; they exist.

use std::path::Path;

use crate::{read, root};

/// Longer, it is no map any more.
const LINES_MAX: usize = 150;

/// Whether something in backticks or a link is meant as a place in the repository: it
/// begins with a directory at the root, or ends like a file.
fn is_place(text: &str) -> bool {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "/._-".contains(letter);
    if text.is_empty() || !text.chars().all(plain) || text.starts_with('/') {
        return false;
    }
    let below_a_directory = text.split_once('/').is_some_and(|(first, _)| root().join(first).is_dir());
    let extension = Path::new(text).extension().and_then(|extension| extension.to_str());
    below_a_directory || matches!(extension, Some("rs" | "md" | "toml" | "proto" | "yaml" | "py" | "sh"))
}

fn places(text: &str) -> Vec<&str> {
    let quoted = text.split('`').skip(1).step_by(2);
    let linked = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
    quoted.chain(linked).filter(|place| is_place(place)).collect()
}

#[test]
fn every_place_on_the_map_exists() {
    let map = read(Path::new("ARCHITECTURE.md"));
    let places = places(&map);
    assert!(places.len() >= 8, "a map of {} places leads nowhere", places.len());
    for place in places {
        assert!(root().join(place).exists(), "ARCHITECTURE.md names {place}, which does not exist");
    }
    assert!(map.lines().count() <= LINES_MAX, "ARCHITECTURE.md is longer than {LINES_MAX} lines");
}

#[test]
fn places_are_told_from_other_words() {
    let text =
        "`routing/src/lib.rs`, `docs/`, `openai/gpt-4o-mini`, `Cargo.toml`, `cargo test` [x](docs/adr#top)";
    assert_eq!(places(text), ["routing/src/lib.rs", "docs/", "Cargo.toml", "docs/adr"]);
}
