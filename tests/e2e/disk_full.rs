//! A full disk under the control plane: writes are refused in clear words, reads,
//! agents and a restart go on, and with room again all is as before.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use tonic::Status;
use tonic_types::StatusExt as _;
use trunkline_tests::{
    agent::Agent,
    control_plane::ControlPlane,
    document::Document,
    patience::until,
    provider::{ANSWER, Provider},
};

/// The ballast, a view, a journal, and little more.
const DISK: &str = "size=56m";

fn reason(status: &Status) -> Option<String> {
    status.get_error_details().error_info().map(|info| info.reason.clone())
}

/// A small file system in a mount namespace of its own, which needs no privileges.
struct SmallDisk {
    holder: Child,
    directory: tempfile::TempDir,
}

impl SmallDisk {
    async fn mount() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let script = r#"mount -t tmpfs -o "$1" tmpfs "$2" && touch "$2/mounted" && exec sleep infinity"#;
        let holder = Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount", "sh", "-c", script, "sh", DISK])
            .arg(directory.path())
            .stdin(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("start unshare of util-linux: {error}"));
        let disk = Self { holder, directory };
        let mounted = disk.seen_from_outside().join("mounted");
        until("the file system to be mounted", async || mounted.exists(), |mounted| *mounted).await;
        disk
    }

    /// A command that goes into the namespace.
    fn enter(&self) -> Vec<String> {
        let process = self.holder.id().to_string();
        ["nsenter", "--preserve-credentials", "--user", "--mount", "--target", &process]
            .map(str::to_owned)
            .to_vec()
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn seen_from_outside(&self) -> PathBuf {
        let inside = self.path().strip_prefix("/").unwrap();
        PathBuf::from(format!("/proc/{}/root", self.holder.id())).join(inside)
    }

    fn run(&self, script: &str) {
        let enter = self.enter();
        let status = Command::new(&enter[0])
            .args(&enter[1..])
            .args(["sh", "-c", script, "sh"])
            .arg(self.path())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success(), "{script}");
    }

    /// Takes all room that is left.
    fn fill(&self) {
        self.run(r#"cat /dev/zero > "$1/filler"; test -s "$1/filler""#);
    }

    fn empty(&self) {
        self.run(r#"rm "$1/filler""#);
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Its namespace and the file system end with it.
        drop(self.holder.kill());
        drop(self.holder.wait());
    }
}

#[tokio::test]
async fn a_full_disk_stops_writes_and_nothing_else() {
    let provider = Provider::start("alpha").await;
    let disk = SmallDisk::mount().await;
    let control_plane = ControlPlane::start_under(&disk.enter(), &disk.path().join("data"));
    let admin = control_plane.admin().await;
    let mut applied = admin.apply(&Document::even(&[&provider])).await.version.unwrap().revision;
    let agent = Agent::following(&control_plane.url);
    agent.ready().await;
    assert_eq!(agent.chat(false).await.text(), ANSWER);
    admin.stats_count(provider.requests()).await;

    disk.fill();
    // What room there is inside of files that exist already may take some writes.
    let refusal = until(
        "a write to be refused",
        async || {
            let document = Document::even(&[&provider]).chat(&format!("deadline: {}ms", 10_000 + applied));
            match admin.try_apply(&document).await {
                Ok(done) => {
                    applied = done.version.unwrap().revision;
                    disk.fill();
                    None
                }
                Err(status) => Some(status),
            }
        },
        Option::is_some,
    )
    .await
    .unwrap();
    assert_eq!(reason(&refusal).as_deref(), Some("STORE_READ_ONLY"), "{refusal:?}");
    assert!(
        refusal.message().contains("free some space") || refusal.message().contains("space"),
        "{refusal}"
    );
    assert_eq!(admin.export().await.version.unwrap().revision, applied);
    assert_eq!(agent.chat(false).await.text(), ANSWER);
    admin.agents_hold(1, applied).await;

    // A restart on the full disk, without even the room that the ballast gave up: what
    // was counted can't be read.
    disk.fill();
    let control_plane = control_plane.restart();
    let admin = control_plane.admin().await;
    assert_eq!(admin.export().await.version.unwrap().revision, applied);
    let document = Document::even(&[&provider]).chat("deadline: 9s");
    let refusal = admin.try_apply(&document).await.unwrap_err();
    assert_eq!(reason(&refusal).as_deref(), Some("STORE_READ_ONLY"), "{refusal:?}");
    let unknown = admin.try_stats().await.unwrap_err();
    assert_eq!(reason(&unknown).as_deref(), Some("STORE_READ_ONLY"), "{unknown:?}");
    admin.agents_hold(1, applied).await;
    assert_eq!(agent.chat(true).await.text(), ANSWER);

    disk.empty();
    let written = until("a write", async || admin.try_apply(&document).await, Result::is_ok).await.unwrap();
    assert_eq!(written.version.unwrap().revision, applied + 1);
    admin.agents_hold(1, applied + 1).await;
    // What was counted before is there, and what the agent counted meanwhile, once each.
    until("counts to be read", async || admin.try_stats().await, Result::is_ok).await.unwrap();
    let rows = admin.stats_count(provider.requests()).await;
    assert_eq!(rows.values().map(|row| row.attempts).sum::<u64>(), provider.requests());
}
