//! Keys of apps.

use std::collections::BTreeMap;

use trunkline_routing::table::ApiKey;

use super::{
    field,
    table::{Known, Names},
};
use crate::{
    problems::{Path, Problems},
    types::v1,
};

/// All keys, in document order.
pub(super) fn api_keys(wire: &[v1::ApiKey], known: &Known<'_>, problems: &mut Problems) -> Vec<ApiKey> {
    let mut names = Names::default();
    let mut hashes = BTreeMap::new();
    let mut keys = Vec::with_capacity(wire.len());
    for (position, one) in wire.iter().enumerate() {
        let path = Path::Root.item("api_keys", position);
        names.insert(&one.name, "api_keys", position, &path, problems);
        field::check_name(&one.name, "", &path.field("name"), problems);
        check_models(one, known, &path, problems);
        let path = path.field("secret_sha256");
        let secret_sha256 = hash(&one.secret_sha256, &path, problems);
        if let Some(first) = secret_sha256.and_then(|hash| hashes.insert(hash, position)) {
            let message = format!("is that of api_keys[{first}] too; each key needs its own");
            problems.push(path, message);
        }
        keys.push(ApiKey {
            name: one.name.as_str().into(),
            secret_sha256: secret_sha256.unwrap_or_default(),
            allowed_models: one.allowed_models.iter().map(|name| name.as_str().into()).collect(),
        });
    }
    keys
}

fn check_models(wire: &v1::ApiKey, known: &Known<'_>, path: &Path<'_>, problems: &mut Problems) {
    for (index, name) in wire.allowed_models.iter().enumerate() {
        if !known.virtual_models.contains(name.as_str()) && !known.deployments.contains_key(name) {
            problems.push(
                path.item("allowed_models", index),
                format!("no virtual model or deployment is called {}", field::quoted(name)),
            );
        }
    }
}

/// Never repeats the text: somebody may have written the key itself.
fn hash(text: &str, path: &Path<'_>, problems: &mut Problems) -> Option<[u8; 32]> {
    let hash = decode_hex(text);
    if text.is_empty() {
        problems.push(path, "is required");
    } else if hash.is_none() {
        problems.push(path, "is not a SHA-256 hash: write 64 hex digits, never the key itself");
    }
    hash
}

fn decode_hex(text: &str) -> Option<[u8; 32]> {
    let mut hash = [0; 32];
    if text.len() != 2 * hash.len() {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    for (byte, pair) in hash.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok()?;
    }
    Some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_64_hex_digits_in_any_case() {
        let hash = decode_hex(&format!("0aF{}", "0".repeat(61))).unwrap();
        assert_eq!(hash[..3], [0x0a, 0xf0, 0]);
        for text in [String::new(), "0".repeat(63), "0".repeat(65), "g".repeat(64), "ä".repeat(32)] {
            assert_eq!(decode_hex(&text), None, "{text}");
        }
    }
}
