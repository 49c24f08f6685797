//! The process ends at each step of a commit and of a rotation. It is this test binary
//! again, which runs one function as told by its environment.

use std::io::Write as _;
use std::process::{Command, Stdio};

use super::*;

/// Where the child works. Without it there is nothing for it to do.
const DIRECTORY: &str = "TRUNKLINE_CRASH_DIRECTORY";

const BATCHES: u64 = 12;

/// Commits batches of two records and tells after each how far it is acknowledged.
#[test]
fn child() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let _scenario = fail::FailScenario::setup();
    let mut journal = Journal::open_with(Path::new(&directory), 300).unwrap().journal;
    for batch in 1..=BATCHES {
        for part in ["a", "b"] {
            journal.append_unsynced(&mut record(&format!("{part}{batch}"))).unwrap();
        }
        journal.sync().unwrap();
        // Past the capture of tests, and at once.
        let mut told = fs::File::options().append(true).open(Path::new(&directory).join("told")).unwrap();
        writeln!(told, "{}", journal.durable()).unwrap();
        if journal.is_full() {
            journal.rotate(Snapshot { sequence: journal.durable(), ..Snapshot::default() }).unwrap();
        }
    }
}

/// What was acknowledged, and what the journal has, after a crash at `name` when it was
/// passed `passes` times before.
fn crash(name: &str, passes: usize) -> (u64, u64) {
    let directory = tempfile::tempdir().unwrap();
    let told = directory.path().join("told");
    fs::write(&told, "").unwrap();
    let module = module_path!().split_once("::").unwrap().1;
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", &format!("{module}::child"), "--test-threads=1"]);
    child.env(DIRECTORY, directory.path()).env("FAILPOINTS", format!("{name}={passes}*off->return"));
    child.stdout(Stdio::null()).stderr(Stdio::null());
    assert!(!child.status().unwrap().success(), "it did not end at {name}");
    let told = fs::read_to_string(&told).unwrap();
    let acknowledged = told.lines().last().map_or(0, |line| line.parse().unwrap());
    let mut journal = Journal::open_with(directory.path(), 300).unwrap().journal;
    let found = journal.durable();
    journal.append(&mut record("after")).unwrap();
    (acknowledged, found)
}

#[test]
fn what_was_acknowledged_is_there_after_a_crash_at_each_step() {
    for passes in [0, 1, 5] {
        for (name, at_least) in [
            (failpoints::COMMIT_BEFORE_WRITE, 0),
            (failpoints::COMMIT_HALF_WRITTEN, 0),
            (failpoints::COMMIT_BEFORE_SYNC, 0),
            (failpoints::COMMIT_AFTER_SYNC, 2),
        ] {
            let (acknowledged, found) = crash(name, passes);
            assert_eq!(acknowledged, 2 * passes as u64, "{name} after {passes}");
            assert!(found >= acknowledged + at_least, "{name}: {found} of {acknowledged}");
            assert!(found <= acknowledged + 2, "{name}: {found} of {acknowledged}");
        }
    }
    for name in
        [failpoints::ROTATE_HALF_SEGMENT, failpoints::ROTATE_AFTER_RENAME, failpoints::ROTATE_BEFORE_REMOVAL]
    {
        let (acknowledged, found) = crash(name, 1);
        assert_eq!(found, acknowledged, "{name}");
        assert!(found > 0, "{name}");
    }
}
