//! Every file of a data directory, damaged in every way, many times: opening finds the
//! same state again, perhaps without telemetry totals and saying so, or it refuses and
//! names the file. It never panics, and nothing is older or emptier in silence.

use std::panic::{AssertUnwindSafe, catch_unwind};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use trunkline_routing::table::Version;

use super::*;

/// Damages of one kind per file.
const SEEDS: u64 = 40;

/// Records of about a quarter of a kilobyte: several segments.
const SEGMENT_BYTES: u64 = 4096;

const COMMITS: u64 = 120;

#[derive(Clone, Copy, Debug)]
enum Damage {
    Truncate,
    FlipBit,
    ZeroPage,
    Remove,
}

/// All that is durable.
#[derive(Clone, Debug, PartialEq)]
struct Durable {
    version: Version,
    config: Config,
    verdicts: VerdictSet,
    faults: FaultSet,
    drains: DrainSet,
}

impl Durable {
    fn of(repository: &Repository) -> Self {
        let state = repository.state();
        Self {
            version: state.version.clone(),
            config: state.config.clone(),
            verdicts: (*repository.verdicts()).clone(),
            faults: (*repository.faults()).clone(),
            drains: (*repository.drains()).clone(),
        }
    }
}

/// A closed data directory and what is in it.
struct Template {
    root: tempfile::TempDir,
    durable: Durable,
    blobs: Vec<Blob>,
}

impl Template {
    async fn make() -> Self {
        let root = tempfile::tempdir().unwrap();
        let repository = on_disk(root.path()).unwrap();
        let small = |writer: &mut Writer| {
            writer.disk.as_mut().unwrap().journal.set_segment_bytes(SEGMENT_BYTES);
        };
        repository.ask(small).await.unwrap();
        for number in 0..COMMITS {
            commits(&repository, 1).await;
            if number % 5 == 0 {
                let forced = Some((VerdictState::ForcedOpen, None));
                let deployment = format!("p/m{}", number % 3);
                repository.set_verdict(deployment, forced, "test".into(), "tester".into()).await.unwrap();
                let value = vec![number as u8; 100 * number as usize];
                let key = format!("totals/{}", number % 7).into_bytes();
                repository.put_blobs(vec![(key, value)]).await.unwrap();
            }
        }
        repository.set_drain("agent-1".into(), Some("test".into()), "tester".into()).await.unwrap();
        let durable = Durable::of(&repository);
        let blobs = repository.scan_blobs(b"").await.unwrap();
        drop(repository);
        // sled writes a snapshot when it opens.
        drop(on_disk(root.path()).unwrap());
        Self { root, durable, blobs }
    }

    /// Its files, relative.
    fn files(&self) -> Vec<PathBuf> {
        let mut files = vec!["lock".into(), "ballast".into()];
        for directory in ["journal", "view"] {
            for entry in fs::read_dir(self.root.path().join(directory)).unwrap().map(Result::unwrap) {
                if entry.file_type().unwrap().is_file() {
                    files.push(Path::new(directory).join(entry.file_name()));
                }
            }
        }
        files.sort();
        files
    }

    /// Copies it, with `victim` damaged.
    fn damaged(&self, to: &Path, victim: &Path, damage: Damage, seed: u64) {
        for directory in ["journal", "view", "view/blobs"] {
            fs::create_dir(to.join(directory)).unwrap();
        }
        for file in self.files() {
            let (source, target) = (self.root.path().join(&file), to.join(&file));
            match damage {
                Damage::Remove if file == victim => {}
                _ if file == victim => {
                    fs::write(&target, spoil(fs::read(&source).unwrap(), damage, seed)).unwrap();
                }
                // It is long, and only its length counts.
                _ if file == Path::new("ballast") => fs::hard_link(&source, &target).unwrap(),
                _ => drop(fs::copy(&source, &target).unwrap()),
            }
        }
    }

    /// What is wrong after opening `directory`, in which `victim` was damaged.
    async fn check(&self, directory: &Path, victim: &Path) -> Result<(), String> {
        let opened = catch_unwind(AssertUnwindSafe(|| on_disk(directory)));
        let repository = match opened.map_err(|_| "opening panicked".to_owned())? {
            Ok(repository) => repository,
            Err(error) => return Self::check_refusal(directory, victim, &error.to_string()),
        };
        if Durable::of(&repository) != self.durable {
            return Err(format!("another state: {:?}", repository.state().version));
        }
        let health = repository.health();
        let blobs = repository.scan_blobs(b"").await.map_err(|error| error.to_string())?;
        let told = matches!(&health, StoreHealth::Degraded { reason } if reason.contains("totals"));
        if blobs != self.blobs && !told {
            return Err(format!("{} of {} blobs and health {health:?}", blobs.len(), self.blobs.len()));
        }
        // The newest one's absence is a rollback.
        let history = victim.starts_with("journal") && !directory.join(victim).exists();
        let told = matches!(&health, StoreHealth::Degraded { reason } if reason.contains("audit log"));
        if history != told {
            return Err(format!("history is missing: {history}, and health {health:?}"));
        }
        if matches!(health, StoreHealth::ReadOnly { .. }) {
            return Err(format!("it takes no writes: {health:?}"));
        }
        Ok(())
    }

    fn check_refusal(directory: &Path, victim: &Path, said: &str) -> Result<(), String> {
        let journal = directory.join("journal");
        let by_name = said.contains(journal.to_str().unwrap_or_default());
        if victim.starts_with("journal") && by_name {
            return Ok(());
        }
        Err(format!("refused: {said}"))
    }

    /// Damages each file `seeds` times and opens.
    async fn survives(&self, damage: Damage, seeds: u64) {
        let mut failures = Vec::new();
        let files = self.files();
        assert!(files.len() >= 10, "{files:?}");
        for victim in &files {
            if fs::metadata(self.root.path().join(victim)).unwrap().len() == 0 && seeds > 1 {
                continue;
            }
            for seed in 0..seeds {
                let directory = tempfile::tempdir().unwrap();
                self.damaged(directory.path(), victim, damage, seed);
                if let Err(wrong) = self.check(directory.path(), victim).await {
                    failures.push(format!("{} {damage:?} seed {seed}: {wrong}", victim.display()));
                }
            }
        }
        assert!(failures.is_empty(), "{}", failures.join("\n"));
    }
}

fn spoil(mut bytes: Vec<u8>, damage: Damage, seed: u64) -> Vec<u8> {
    let place = StdRng::seed_from_u64(seed).random_range(0..bytes.len());
    match damage {
        Damage::Truncate => bytes.truncate(place),
        Damage::FlipBit => bytes[place] ^= 1 << (seed % 8),
        Damage::ZeroPage => {
            let start = place / 4096 * 4096;
            let end = bytes.len().min(start + 4096);
            bytes[start..end].fill(0);
        }
        Damage::Remove => {}
    }
    bytes
}

#[tokio::test]
async fn truncated_files_are_mended_or_refused_by_name() {
    Template::make().await.survives(Damage::Truncate, SEEDS).await;
}

#[tokio::test]
async fn flipped_bits_are_mended_or_refused_by_name() {
    Template::make().await.survives(Damage::FlipBit, SEEDS).await;
}

#[tokio::test]
async fn zeroed_pages_are_mended_or_refused_by_name() {
    Template::make().await.survives(Damage::ZeroPage, SEEDS).await;
}

#[tokio::test]
async fn removed_files_are_mended_or_refused_by_name() {
    Template::make().await.survives(Damage::Remove, 1).await;
}

#[tokio::test]
async fn removed_history_is_told_and_the_state_is_the_same() {
    let template = Template::make().await;
    let mut segments: Vec<_> =
        template.files().into_iter().filter(|file| file.starts_with("journal")).collect();
    assert!((4..16).contains(&segments.len()), "{segments:?}");
    segments.truncate(3);
    let directory = tempfile::tempdir().unwrap();
    template.damaged(directory.path(), Path::new("none"), Damage::Remove, 0);
    for victim in &segments {
        fs::remove_file(directory.path().join(victim)).unwrap();
        template.check(directory.path(), victim).await.unwrap();
        let repository = on_disk(directory.path()).unwrap();
        let StoreHealth::Degraded { reason } = repository.health() else {
            panic!("{:?}", repository.health())
        };
        assert!(reason.contains(directory.path().to_str().unwrap()), "{reason}");
        commits(&repository, 0).await;
    }
}

/// Without any local evidence an older journal cannot be told from the newest. What is
/// there is a former state all the same, and agents know newer revisions than it has.
#[tokio::test]
async fn a_shorter_journal_without_its_view_is_a_former_state() {
    let template = Template::make().await;
    let newest = segment(template.root.path());
    let bytes = fs::read(&newest).unwrap();
    for seed in 0..SEEDS {
        let directory = tempfile::tempdir().unwrap();
        template.damaged(directory.path(), Path::new("view/db"), Damage::Remove, seed);
        fs::remove_dir_all(directory.path().join("view")).unwrap();
        let short = spoil(bytes.clone(), Damage::Truncate, seed);
        fs::write(segment(directory.path()), short).unwrap();
        match on_disk(directory.path()) {
            Ok(repository) => {
                let state = repository.state();
                let revision = state.version.revision;
                assert!((1..=COMMITS).contains(&revision), "seed {seed}: {revision}");
                assert_eq!(state.version.epoch, template.durable.version.epoch, "seed {seed}");
                assert_eq!(state.config, config(&format!("p{revision}")), "seed {seed}");
                assert!(says_that_totals_are_lost(&repository), "seed {seed}: {:?}", repository.health());
            }
            // In its header.
            Err(error) => assert!(error.to_string().contains("journal"), "seed {seed}: {error}"),
        }
    }
}
