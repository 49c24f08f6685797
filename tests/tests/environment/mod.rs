//! The Python environment of the client tests: made once per target directory from
//! pinned versions, and made anew when they change.

#![expect(clippy::expect_used, reason = "a test that can't go on says so")]

use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

/// What is installed. A change makes the environment anew.
const REQUIREMENTS: &str = include_str!("../../clients/requirements.txt");

/// A ready environment. The lock keeps a second test process from changing it.
#[derive(Debug)]
pub(crate) struct Environment {
    directory: PathBuf,
    _lock: File,
}

impl Environment {
    /// Makes it if that was not done yet. Needs `python3` with venv, and PyPI for the
    /// first time; without them the test fails, for a skipped one would show nothing.
    pub(crate) fn prepare() -> Self {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("clients-venv");
        let lock = File::create(directory.with_extension("lock")).expect("create the lock file");
        lock.lock().expect("lock the environment");
        let stamp = directory.join("installed.txt");
        if fs::read_to_string(&stamp).ok().as_deref() != Some(REQUIREMENTS) {
            fs::remove_dir_all(&directory).ok();
            run(Command::new("python3").args(["-m", "venv"]).arg(&directory));
            let requirements = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/requirements.txt");
            let mut pip = Command::new(directory.join("bin/python"));
            pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"]);
            run(pip.arg(requirements));
            fs::write(&stamp, REQUIREMENTS).expect("write the stamp");
        }
        Self { directory, _lock: lock }
    }

    /// An executable in it.
    pub(crate) fn tool(&self, name: &str) -> PathBuf {
        self.directory.join("bin").join(name)
    }
}

/// An empty directory for one test, below the target directory.
pub(crate) fn scratch(name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-scratch"));
    fs::remove_dir_all(&directory).ok();
    fs::create_dir_all(&directory).expect("create the scratch directory");
    directory
}

fn run(command: &mut Command) {
    let done = command.status().is_ok_and(|status| status.success());
    assert!(
        done,
        "{command:?} failed. The client tests need python3 with its venv module and PyPI; \
         on Debian: apt-get install python3-venv"
    );
}
