//! Traces of the decision core as files: what an agent records, and what `trunkline
//! replay` reads. The messages are those of `agent/v1/trace.proto`.

use std::io::{self, BufRead, Read as _};

use prost::Message as _;
use thiserror::Error;
use trunkline_routing::trace::Entry;

use crate::agent::v1 as wire;

mod answers;
mod read;
#[cfg(test)]
mod tests;
mod words;
mod write;

pub use write::{entry as wire_entry, header, table as wire_table};

const MAGIC: &str = "trunkline-trace";
/// Of this build's traces.
const FORMAT: u32 = 1;
/// The largest message: a table of 20,000 deployments has some 10 MB. What says that it is
/// larger is damaged.
const MESSAGE_BYTES_MAX: u64 = 64 << 20;

/// Why a trace can't be read.
#[derive(Debug, Error)]
pub enum TraceError {
    /// The file can't be read.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It is something else.
    #[error("this is no trace: its header is missing; `trunkline-agent --record FILE` writes traces")]
    NotATrace,
    /// Another build wrote it.
    #[error(
        "the trace has format {0}, this build reads format {FORMAT}; replay it with the build that recorded it, {1}"
    )]
    Format(u32, String),
    /// A message is damaged.
    #[error("a message is damaged: {0}")]
    Damaged(String),
    /// A part is not known to this build.
    #[error(
        "{0} is missing or of a kind that this build does not know; replay it with the build that recorded it"
    )]
    Unknown(&'static str),
    /// A table in it is wrong.
    #[error("the recorded table is not valid for this build:\n{0}")]
    Table(String),
}

/// Entries of a trace, in order.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    build: String,
    /// Bytes after the last whole message.
    cut: u64,
}

impl<R: BufRead> Reader<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// It is no trace that this build can read.
    pub fn new(input: R) -> Result<Self, TraceError> {
        let mut reader = Self { input, build: String::new(), cut: 0 };
        let header = match reader.message()? {
            Some(bytes) => wire::TraceHeader::decode(&*bytes).map_err(|_| TraceError::NotATrace)?,
            None => return Err(TraceError::NotATrace),
        };
        if header.magic != MAGIC {
            return Err(TraceError::NotATrace);
        }
        if header.format != FORMAT {
            return Err(TraceError::Format(header.format, header.build));
        }
        reader.build = header.build;
        Ok(reader)
    }

    /// Version of the agent that recorded it.
    pub fn build(&self) -> &str {
        &self.build
    }

    /// Bytes of the message that was being written when the agent was killed. Known at the
    /// end.
    pub const fn cut(&self) -> u64 {
        self.cut
    }

    /// A whole message. None: there is no other.
    fn message(&mut self) -> Result<Option<Vec<u8>>, TraceError> {
        let mut head = Vec::with_capacity(10);
        let length = loop {
            let mut byte = [0];
            if self.input.read(&mut byte)? == 0 {
                self.cut = head.len() as u64;
                return Ok(None);
            }
            head.push(byte[0]);
            if byte[0] < 0x80 {
                let length = prost::encoding::decode_varint(&mut &*head);
                break length.map_err(|error| TraceError::Damaged(error.to_string()))?;
            }
            if head.len() >= 10 {
                return Err(TraceError::Damaged("the length of a message has no end".to_owned()));
            }
        };
        if length > MESSAGE_BYTES_MAX {
            return Err(TraceError::Damaged(format!("it says that it has {length} bytes")));
        }
        let mut bytes = Vec::new();
        let read = (&mut self.input).take(length).read_to_end(&mut bytes)?;
        if (read as u64) < length {
            self.cut = (head.len() + read) as u64;
            return Ok(None);
        }
        Ok(Some(bytes))
    }
}

impl<R: BufRead> Iterator for Reader<R> {
    type Item = Result<Entry, TraceError>;

    fn next(&mut self) -> Option<Self::Item> {
        let bytes = self.message().transpose()?;
        Some(bytes.and_then(|bytes| {
            let entry = wire::TraceEntry::decode(&*bytes);
            read::entry(entry.map_err(|error| TraceError::Damaged(error.to_string()))?)
        }))
    }
}
