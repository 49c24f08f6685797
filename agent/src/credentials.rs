//! Resolves what a provider's credential refers to. The configuration holds references
//! only; the value never leaves the agent except in the provider's own header, and is
//! never logged or shown.

use std::{
    collections::{BTreeMap, HashMap},
    env, fmt, fs, io,
    io::Read as _,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    time::SystemTime,
};

use http::HeaderValue;
use parking_lot::Mutex;
use secrecy::{ExposeSecret as _, SecretString};
use thiserror::Error;
use tokio::time::{Duration, Instant};
use trunkline_routing::table::{Credential, Provider, RoutingTable};

/// A rotated secret is picked up within this time; a check costs a stat.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Keys have some hundred bytes, signed tokens a few thousand; headers are limited to
/// about this by servers.
const VALUE_BYTES_MAX: u64 = 16 * 1024;
/// References known at the same time: one per provider of the largest table, and those
/// of the table before. Beyond it the memory starts anew.
const REFERENCES_MAX: usize = 2_000;

/// The credentials of all providers, each read once and again when it changed.
#[derive(Default)]
pub struct Credentials {
    known: Mutex<HashMap<Credential, Known>>,
    reads: AtomicU64,
}

/// Why a provider's credential is missing here. Never holds a value.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CredentialError {
    /// The variable is absent or not UTF-8.
    #[error("environment variable {0} is not set to text")]
    Variable(Box<str>),
    /// The file can't be read.
    #[error("read credential file {0}: {1}")]
    File(Box<str>, io::ErrorKind),
    /// There is nothing in it.
    #[error("{0} is empty")]
    Empty(String),
    /// It could not stand in a header.
    #[error("{0} holds something else than visible ASCII characters on one line")]
    Characters(String),
    /// Larger than any key.
    #[error("{0} holds more than 16 KiB")]
    TooLong(String),
}

struct Known {
    /// The file it was read from, to see a change.
    stamp: Option<Stamp>,
    checked: Instant,
    /// Changes with the value.
    generation: u64,
    value: Result<HeaderValue, CredentialError>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    bytes: u64,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Credentials").finish_non_exhaustive()
    }
}

impl Credentials {
    /// Nothing read yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The value of the `Authorization` header for `provider`, marked sensitive. None:
    /// the provider wants no key.
    ///
    /// # Errors
    /// If the reference can't be resolved here.
    pub fn resolve(&self, provider: &Provider) -> Result<Option<HeaderValue>, CredentialError> {
        let Some(reference) = &provider.credential else { return Ok(None) };
        let now = Instant::now();
        let mut known = self.known.lock();
        if let Some(entry) = known.get_mut(reference) {
            if now.duration_since(entry.checked) < CHECK_INTERVAL {
                return entry.value.clone().map(Some);
            }
            entry.checked = now;
            // A variable of this process does not change; one that is missing may appear
            // only with a restart, and asking again is cheap.
            if entry.value.is_ok() && entry.stamp == stamp(reference) {
                return entry.value.clone().map(Some);
            }
        } else if known.len() >= REFERENCES_MAX {
            known.clear();
        }
        // The stamp first: what is written in between is seen at the next check.
        let stamp = stamp(reference);
        let value = read(reference).and_then(|value| bearer(reference, &value));
        let generation = match known.get(reference) {
            Some(before) if before.value == value => before.generation,
            _ => self.reads.fetch_add(1, Ordering::Relaxed),
        };
        known.insert(reference.clone(), Known { stamp, checked: now, generation, value: value.clone() });
        value.map(Some)
    }

    /// The names of the providers whose credential can't be resolved here.
    pub fn missing(&self, table: &RoutingTable) -> Vec<String> {
        let broken = table.providers.iter().filter(|provider| self.resolve(provider).is_err());
        broken.map(|provider| provider.name.to_string()).collect()
    }

    /// For each provider whose credential is known a number that changes when the value
    /// does, and says nothing about it.
    pub fn generations(&self, table: &RoutingTable) -> BTreeMap<Box<str>, u64> {
        let known = self.known.lock();
        let generation = |provider: &Provider| Some(known.get(provider.credential.as_ref()?)?.generation);
        let providers = table.providers.iter();
        providers.filter_map(|provider| Some((provider.name.clone(), generation(provider)?))).collect()
    }
}

fn stamp(reference: &Credential) -> Option<Stamp> {
    let Credential::File(path) = reference else { return None };
    let metadata = fs::metadata(&**path).ok()?;
    Some(Stamp { modified: metadata.modified().ok(), bytes: metadata.len() })
}

fn read(reference: &Credential) -> Result<SecretString, CredentialError> {
    match reference {
        Credential::Env(name) => {
            env::var(&**name).map(SecretString::from).map_err(|_| CredentialError::Variable(name.clone()))
        }
        Credential::File(path) => {
            let text = read_file(Path::new(&**path))
                .map_err(|error| CredentialError::File(path.clone(), error.kind()))?;
            Ok(SecretString::from(text))
        }
    }
}

fn read_file(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    // One byte more shows that it is too long.
    fs::File::open(path)?.take(VALUE_BYTES_MAX + 1).read_to_string(&mut text)?;
    Ok(text)
}

fn bearer(reference: &Credential, value: &SecretString) -> Result<HeaderValue, CredentialError> {
    let shown = || match reference {
        Credential::Env(name) => format!("environment variable {name}"),
        Credential::File(path) => format!("credential file {path}"),
    };
    let value = value.expose_secret();
    if value.len() as u64 > VALUE_BYTES_MAX {
        return Err(CredentialError::TooLong(shown()));
    }
    let value = value.strip_suffix('\n').unwrap_or(value);
    let value = value.strip_suffix('\r').unwrap_or(value);
    if value.is_empty() {
        return Err(CredentialError::Empty(shown()));
    }
    if !value.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(CredentialError::Characters(shown()));
    }
    let mut header =
        HeaderValue::try_from(format!("Bearer {value}")).map_err(|_| CredentialError::Characters(shown()))?;
    header.set_sensitive(true);
    Ok(header)
}

#[cfg(test)]
mod tests {
    use trunkline_routing::table::{Dialect, HealthCheck};

    use super::*;

    fn provider(credential: Option<Credential>) -> Provider {
        Provider {
            name: "openai".into(),
            dialect: Dialect::OpenAi,
            base_url: "https://api.openai.com/v1".into(),
            credential,
            allow_private_network: false,
            region: None,
            health_check: HealthCheck::default(),
        }
    }

    fn file(path: &Path) -> Provider {
        provider(Some(Credential::File(path.to_str().unwrap().into())))
    }

    #[test]
    fn a_provider_without_a_reference_gets_no_header() {
        assert_eq!(Credentials::new().resolve(&provider(None)), Ok(None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_is_read_again_when_it_changed_and_a_second_passed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let credentials = Credentials::new();
        let bearer = || credentials.resolve(&file(&path)).map(|header| header.unwrap());

        fs::write(&path, "sk-one\n").unwrap();
        assert_eq!(bearer().unwrap(), "Bearer sk-one");
        assert!(bearer().unwrap().is_sensitive());
        fs::write(&path, "sk-three").unwrap();
        assert_eq!(bearer().unwrap(), "Bearer sk-one");
        tokio::time::advance(CHECK_INTERVAL).await;
        assert_eq!(bearer().unwrap(), "Bearer sk-three");
        fs::remove_file(&path).unwrap();
        tokio::time::advance(CHECK_INTERVAL).await;
        assert!(matches!(bearer(), Err(CredentialError::File(_, io::ErrorKind::NotFound))));
        fs::write(&path, "sk-three").unwrap();
        tokio::time::advance(CHECK_INTERVAL).await;
        assert_eq!(bearer().unwrap(), "Bearer sk-three");
    }

    #[tokio::test(start_paused = true)]
    async fn a_generation_changes_with_the_value_and_with_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let credentials = Credentials::new();
        let table = RoutingTable { providers: vec![file(&path)], ..RoutingTable::default() };
        let generation = async |text: &str| {
            fs::write(&path, text).unwrap();
            tokio::time::advance(CHECK_INTERVAL).await;
            assert!(credentials.missing(&table).is_empty());
            credentials.generations(&table)["openai"]
        };
        assert!(credentials.generations(&table).is_empty());
        let first = generation("sk-one").await;
        assert_eq!(generation("sk-one\n").await, first, "the same key in another file");
        let second = generation("sk-three").await;
        assert_ne!(second, first);
        assert_ne!(generation("sk-one").await, second);
    }

    #[test]
    fn an_error_names_the_reference_and_never_the_value() {
        let directory = tempfile::tempdir().unwrap();
        let check = |content: &str, expected: &str| {
            let path = directory.path().join(format!("key-{}", content.len()));
            fs::write(&path, content).unwrap();
            let credentials = Credentials::new();
            let error = credentials.resolve(&file(&path)).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("key-"), "{error}");
            assert!(!error.contains("secret"), "{error}");
            assert!(!format!("{credentials:?}").contains("secret"));
        };
        check("", "is empty");
        check("\n", "is empty");
        check("secret one", "visible ASCII");
        check("secret\nsecret", "visible ASCII");
        check(&"secret".repeat(3_000), "16 KiB");
    }

    #[test]
    fn providers_with_missing_credentials_are_named() {
        let mut table = RoutingTable::default();
        let absent = Credential::Env("TRUNKLINE_TEST_NEVER_SET".into());
        table.providers = vec![provider(None), provider(Some(absent))];
        table.providers[1].name = "mistral".into();
        assert_eq!(Credentials::new().missing(&table), ["mistral"]);
    }
}
