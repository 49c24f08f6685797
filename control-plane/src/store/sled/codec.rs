//! How records and the tip are written. Stored for years: a golden test holds the bytes.

use sha2::{Digest, Sha256};

use crate::store::{Entry, StoreError};

/// Before the keys of callers.
const DATA: u8 = b'd';

/// Holds the [`Tip`].
pub(super) const META_TIP: &[u8] = b"mtip";

/// The layout of a record: format, CRC-32C of key and the rest, version, value.
const FORMAT: u8 = 2;

/// Bytes of a record before its value.
const RECORD_HEAD: usize = 1 + 4 + 8;

/// What the store must hold: written with every commit, compared at every opening.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tip {
    /// Of the newest commit.
    pub(super) version: u64,
    /// The newest.
    pub(super) term: u64,
    /// How many keys there are.
    pub(super) count: u64,
    /// The sum of all records' hashes, in any order.
    pub(super) digest: u128,
}

impl Tip {
    /// Bytes of one that is encoded.
    pub(super) const BYTES: usize = 8 * 3 + 16 + 4;

    pub(super) fn add(&mut self, key: &[u8], record: &[u8]) {
        self.count += 1;
        self.digest = self.digest.wrapping_add(weight(key, record));
    }

    pub(super) fn remove(&mut self, key: &[u8], record: &[u8]) {
        self.count = self.count.wrapping_sub(1);
        self.digest = self.digest.wrapping_sub(weight(key, record));
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let numbers = [self.version, self.term, self.count].map(u64::to_be_bytes).concat();
        let bytes = [numbers.as_slice(), &self.digest.to_be_bytes()].concat();
        let checksum = crc32c::crc32c(&bytes).to_be_bytes();
        [bytes.as_slice(), &checksum].concat()
    }

    /// None: these are not the bytes of one.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::BYTES] = bytes.try_into().ok()?;
        let (fields, checksum) = bytes.split_last_chunk::<4>()?;
        if crc32c::crc32c(fields) != u32::from_be_bytes(*checksum) {
            return None;
        }
        let (numbers, digest) = fields.split_last_chunk::<16>()?;
        let (numbers, _) = numbers.as_chunks::<8>();
        let [version, term, count] = <[[u8; 8]; 3]>::try_from(numbers).ok()?.map(u64::from_be_bytes);
        Some(Self { version, term, count, digest: u128::from_be_bytes(*digest) })
    }
}

/// A record's part of the digest. Its head holds a checksum of the value.
fn weight(key: &[u8], record: &[u8]) -> u128 {
    let head = record.get(..RECORD_HEAD).unwrap_or(record);
    let hash = Sha256::new().chain_update(head).chain_update(key).finalize();
    hash.first_chunk().map_or(0, |bytes| u128::from_be_bytes(*bytes))
}

/// A caller's key as it is in sled.
pub(super) fn data(key: &[u8]) -> Vec<u8> {
    [&[DATA], key].concat()
}

/// The caller's key. None: sled's key is not of a caller.
pub(super) fn callers(key: &[u8]) -> Option<&[u8]> {
    key.strip_prefix(&[DATA])
}

fn checksum(key: &[u8], versioned: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(key), versioned)
}

pub(super) fn encode(key: &[u8], value: &[u8], version: u64) -> Vec<u8> {
    let versioned = [&version.to_be_bytes(), value].concat();
    let checksum = checksum(key, &versioned).to_be_bytes();
    [&[FORMAT][..], &checksum, &versioned].concat()
}

pub(super) fn decode(key: &[u8], record: &[u8]) -> Result<Entry, StoreError> {
    let (head, value) = record.split_first_chunk::<RECORD_HEAD>().ok_or_else(|| damaged(key))?;
    let [format, a, b, c, d, version @ ..] = *head;
    let intact = format == FORMAT && checksum(key, &record[5..]) == u32::from_be_bytes([a, b, c, d]);
    if !intact {
        return Err(damaged(key));
    }
    Ok(Entry { key: key.to_vec(), value: value.to_vec(), version: u64::from_be_bytes(version) })
}

pub(super) fn damaged(key: &[u8]) -> StoreError {
    StoreError::Damaged { reason: format!("the record of {}", key.escape_ascii()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes() {
        let record = encode(b"key", b"value", 0x0102);
        assert_eq!(record[..1], [2]);
        assert_eq!(record[1..5], crc32c::crc32c(b"key\0\0\0\0\0\0\x01\x02value").to_be_bytes());
        assert_eq!(record[5..], *b"\0\0\0\0\0\0\x01\x02value");
        assert_eq!(decode(b"key", &record).unwrap().value, b"value");
        assert!(decode(b"other", &record).is_err());

        let tip = Tip { version: 1, term: 2, count: 3, digest: 4 };
        let bytes = tip.encode();
        assert_eq!(bytes[..8], 1_u64.to_be_bytes());
        assert_eq!(bytes[8..16], 2_u64.to_be_bytes());
        assert_eq!(bytes[16..24], 3_u64.to_be_bytes());
        assert_eq!(bytes[24..40], 4_u128.to_be_bytes());
        assert_eq!(Tip::decode(&bytes), Some(tip));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Tip::decode(&flipped), None, "bit {bit}");
        }
    }

    #[test]
    fn the_digest_tells_sets_of_records_apart_and_not_their_order() {
        let records = [("a", "1", 1), ("b", "2", 1), ("a", "1", 2), ("a", "2", 1)];
        let records =
            records.map(|(key, value, version)| (key, encode(key.as_bytes(), value.as_bytes(), version)));
        let tip = |chosen: &[usize]| {
            let mut tip = Tip::default();
            for index in chosen {
                tip.add(records[*index].0.as_bytes(), &records[*index].1);
            }
            tip
        };
        assert_eq!(tip(&[0, 1, 2]), tip(&[2, 0, 1]));
        let mut without = tip(&[0, 1, 3]);
        without.remove(records[3].0.as_bytes(), &records[3].1);
        assert_eq!(without, tip(&[0, 1]));
        for (left, right) in [(0, 1), (0, 2), (0, 3), (2, 3)] {
            assert_ne!(tip(&[left]), tip(&[right]));
        }
    }
}
