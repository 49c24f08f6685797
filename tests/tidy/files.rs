//! What is in the files.

use crate::{read, rust_files};

/// A file is one idea; past this it is two.
const LINES_MAX: usize = 450;

#[test]
fn files_stay_small() {
    for path in rust_files() {
        let lines = read(&path).lines().count();
        assert!(lines <= LINES_MAX, "{} has {lines} lines; split it at its second idea", path.display());
    }
}

#[test]
fn nothing_is_unfinished() {
    let unfinished = [concat!("todo", "!("), concat!("unimplemented", "!("), concat!("dbg", "!(")];
    for path in rust_files() {
        let text = read(&path);
        for mark in unfinished {
            assert!(!text.contains(mark), "{} holds {mark}", path.display());
        }
    }
}

#[test]
fn every_file_says_what_it_is_for() {
    for path in rust_files() {
        // Build scripts and examples too.
        let first =
            read(&path).lines().find(|line| !line.starts_with("#!") && !line.is_empty()).map(str::to_owned);
        let first = first.unwrap_or_default();
        assert!(first.starts_with("//!"), "{} opens with {first:?}, not with //!", path.display());
    }
}
