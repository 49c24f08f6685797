//! All durable state as one file, and back. The file is one state that the store had
//! after some commit; it ends in its own SHA-256.
//!
//! ```text
//! "TRUNKLN1" | frame(Header) | frame(Snapshot) | frame(StoredBlob) ... | u32 0 | SHA-256 of all before
//! frame: u32 length, little-endian | bytes; that of a blob is not empty
//! ```
//!
//! The records of the past are not in it: they are what the journal's files are for.

use std::io::{self, Read};

use prost::Message;
use sha2::{Digest, Sha256};

use super::Blob;
use crate::store::VALUE_BYTES_MAX;
use crate::store::journal::{PAYLOAD_BYTES_MAX, Snapshot};

const MAGIC: &[u8; 8] = b"TRUNKLN1";

/// The layout described here. A newer one is refused, not guessed.
const FORMAT: u32 = 1;

/// The longest frame: a snapshot is as long as a journal's payload can be.
const FRAME_BYTES_MAX: usize = PAYLOAD_BYTES_MAX + VALUE_BYTES_MAX;

/// First in the file.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Header {
    /// [`FORMAT`].
    #[prost(uint32, tag = "1")]
    pub(super) format: u32,
    /// Of the store that was exported.
    #[prost(string, tag = "2")]
    pub(super) epoch: String,
    /// The newest commit that is in it.
    #[prost(uint64, tag = "3")]
    pub(super) sequence: u64,
    /// Of the configuration.
    #[prost(uint64, tag = "4")]
    pub(super) revision: u64,
    /// Wall time in ms since 1970 at which it was made.
    #[prost(uint64, tag = "5")]
    pub(super) unix_ms: u64,
}

/// Telemetry, as it lies in the view.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct StoredBlob {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// One state of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Export {
    pub(super) epoch: String,
    pub(super) unix_ms: u64,
    pub(super) snapshot: Snapshot,
    pub(super) blobs: Vec<Blob>,
}

/// Why a file is not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImportError {
    #[error("it is no export of a control plane's state")]
    Foreign,
    #[error("its format is {0}, and this program reads {FORMAT}: use the one that made it")]
    Format(u32),
    #[error("it is damaged or was cut short: its checksum is not that of its content")]
    Checksum,
    #[error("its content is not what its header says")]
    Content,
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Makes the file, bit by bit.
#[derive(Debug, Default)]
pub(super) struct FileWriter {
    hash: Sha256,
    /// Made and not taken yet.
    made: Vec<u8>,
}

impl FileWriter {
    /// The beginning of a file, up to its blobs.
    pub(super) fn begin(epoch: String, unix_ms: u64, snapshot: &Snapshot) -> Self {
        let mut file = Self::default();
        let (sequence, revision) = (snapshot.sequence, snapshot.revision);
        file.put(MAGIC);
        file.frame(&Header { format: FORMAT, epoch, sequence, revision, unix_ms });
        file.frame(snapshot);
        file
    }

    /// Adds a blob. The order does not matter.
    pub(super) fn blob(&mut self, (key, value): Blob) {
        self.frame(&StoredBlob { key, value });
    }

    /// Ends the file.
    pub(super) fn end(&mut self) {
        self.put(&0_u32.to_le_bytes());
        let sha256 = self.hash.finalize_reset();
        self.made.extend_from_slice(&sha256);
    }

    /// What was made since the last call.
    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.made)
    }

    fn frame(&mut self, message: &impl Message) {
        let bytes = message.encode_to_vec();
        self.put(&(bytes.len() as u32).to_le_bytes());
        self.put(&bytes);
    }

    fn put(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.made.extend_from_slice(bytes);
    }
}

impl Export {
    /// Reads a file and checks all of it.
    pub(super) fn read(from: impl Read) -> Result<Self, ImportError> {
        let mut from = Hashing { inner: from, hash: Sha256::new() };
        let mut magic = [0; MAGIC.len()];
        from.read_exact(&mut magic).map_err(cut_short)?;
        if magic != *MAGIC {
            return Err(ImportError::Foreign);
        }
        let header: Header = read_frame(&mut from)?;
        if header.format != FORMAT {
            return Err(ImportError::Format(header.format));
        }
        let snapshot: Snapshot = read_frame(&mut from)?;
        let mut blobs = Vec::new();
        loop {
            let bytes = read_bytes(&mut from)?;
            if bytes.is_empty() {
                break;
            }
            let blob = StoredBlob::decode(bytes.as_slice()).map_err(|_| ImportError::Checksum)?;
            blobs.push((blob.key, blob.value));
        }
        let Hashing { mut inner, hash } = from;
        let mut trailer = Vec::new();
        inner.by_ref().take(33).read_to_end(&mut trailer)?;
        if trailer != hash.finalize().as_slice() {
            return Err(ImportError::Checksum);
        }
        if (header.sequence, header.revision) != (snapshot.sequence, snapshot.revision) {
            return Err(ImportError::Content);
        }
        Ok(Self { epoch: header.epoch, unix_ms: header.unix_ms, snapshot, blobs })
    }
}

fn read_frame<T: Message + Default>(from: &mut impl Read) -> Result<T, ImportError> {
    T::decode(read_bytes(from)?.as_slice()).map_err(|_| ImportError::Checksum)
}

fn read_bytes(from: &mut impl Read) -> Result<Vec<u8>, ImportError> {
    let mut length = [0; 4];
    from.read_exact(&mut length).map_err(cut_short)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > FRAME_BYTES_MAX {
        return Err(ImportError::Checksum);
    }
    // A length that was damaged costs no more memory than there is file.
    let mut bytes = Vec::new();
    from.by_ref().take(length as u64).read_to_end(&mut bytes)?;
    if bytes.len() < length {
        return Err(ImportError::Checksum);
    }
    Ok(bytes)
}

fn cut_short(cause: io::Error) -> ImportError {
    match cause.kind() {
        io::ErrorKind::UnexpectedEof => ImportError::Checksum,
        _ => ImportError::Io(cause),
    }
}

/// Hashes what goes through.
struct Hashing<T> {
    inner: T,
    hash: Sha256,
}

impl<T: Read> Read for Hashing<T> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(bytes)?;
        self.hash.update(&bytes[..read]);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> Vec<u8> {
        let Export { epoch, unix_ms, snapshot, blobs } = export();
        let mut file = FileWriter::begin(epoch, unix_ms, &snapshot);
        for blob in blobs {
            file.blob(blob);
        }
        file.end();
        file.take()
    }

    fn export() -> Export {
        Export {
            epoch: "e".to_owned(),
            unix_ms: 7,
            snapshot: Snapshot { sequence: 5, revision: 3, ..Snapshot::default() },
            blobs: vec![(b"totals/a".to_vec(), b"7".to_vec()), (b"totals/b".to_vec(), vec![1; 300])],
        }
    }

    #[test]
    fn a_file_gives_back_what_was_put_in() {
        assert_eq!(Export::read(file().as_slice()).unwrap(), export());
        // Of a store without any commit.
        let mut empty = FileWriter::begin(String::new(), 0, &Snapshot::default());
        empty.end();
        assert_eq!(Export::read(empty.take().as_slice()).unwrap().blobs, []);
    }

    #[test]
    fn a_file_cut_anywhere_or_with_any_flipped_bit_is_refused() {
        let mut file = file();
        for cut in 0..file.len() {
            assert!(Export::read(&file[..cut]).is_err(), "cut at {cut}");
        }
        for bit in 0..file.len() * 8 {
            let mut flipped = file.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Export::read(flipped.as_slice()).is_err(), "bit {bit}");
        }
        file.push(0);
        assert!(Export::read(file.as_slice()).is_err());
    }
}
