//! The form of telemetry in the store. Field numbers never change their meaning.

use prost::Message;
use trunkline_proto::telemetry::v1::TargetStats;

use super::{
    Key,
    level::Level,
    pairs::PairId,
    sequence::Sequences,
    totals::{Invalid, Totals},
};
use crate::repository::Blob;

/// Totals live under this, by deployment and virtual model.
pub(super) const TOTALS: &[u8] = b"stats/total/";

/// Sequences live under this, by slot: an agent that is forgotten leaves its slot to
/// another, so that the store does not grow with every agent that ever was.
pub(super) const SEQUENCES: &[u8] = b"stats/sequence/";

/// Pairs live under this, by number.
pub(super) const PAIRS: &[u8] = b"stats/pair/";

/// Rows live under this, by level, step and pair: those of a step are together, steps
/// are in the order of time.
const ROWS: &[u8] = b"stats/row/";

/// Sizes of steps live under this, by level and step. A step that is still open has
/// none: its rows are read at the start.
pub(super) const STEPS: &[u8] = b"stats/step/";

/// Which step is open, and how far back steps reach.
pub(super) const MARK: &[u8] = b"stats/mark";

/// What makes a blob unreadable.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unreadable {
    /// Not the message it should be.
    #[error("telemetry in the store: {0}")]
    Decode(#[from] prost::DecodeError),
    /// The message holds what no report could.
    #[error("telemetry in the store: {0}")]
    Invalid(#[from] Invalid),
    /// The key is not of a known form.
    #[error("telemetry in the store: a key of another form: {0}")]
    Key(String),
}

#[derive(Clone, PartialEq, Message)]
struct Agent {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "2")]
    incarnations: Vec<Incarnation>,
    /// When a report of it came last, in seconds since 1970.
    #[prost(uint64, tag = "3")]
    heard: u64,
}

#[derive(Clone, PartialEq, Message)]
struct Incarnation {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(uint64, tag = "2")]
    last: u64,
}

#[derive(Clone, PartialEq, Message)]
struct Pair {
    #[prost(string, tag = "1")]
    deployment: String,
    #[prost(string, tag = "2")]
    model: String,
    /// The newest hour, since 1970, that counts of it are in. None: an older program
    /// stored it, and did not say.
    #[prost(uint32, optional, tag = "3")]
    hour: Option<u32>,
}

/// One step of one level, rows and bytes.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(super) struct Size {
    #[prost(uint64, tag = "1")]
    pub(super) rows: u64,
    /// Of keys and values.
    #[prost(uint64, tag = "2")]
    pub(super) bytes: u64,
}

/// How far rollups are.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Mark {
    /// When the open step of 10 s begins, in seconds since 1970.
    #[prost(uint64, tag = "1")]
    pub(super) open: u64,
    /// By level: steps before this one were dropped for want of room.
    #[prost(uint32, repeated, tag = "2")]
    pub(super) reach: Vec<u32>,
}

/// Which row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Address {
    pub(super) level: Level,
    pub(super) step: u32,
    pub(super) pair: PairId,
}

pub(super) fn pair_key(id: PairId) -> Vec<u8> {
    [PAIRS, &id.to_be_bytes()].concat()
}

pub(super) fn pair_blob(id: PairId, key: &Key, hour: u32) -> (Vec<u8>, Vec<u8>) {
    let pair = Pair { deployment: key.deployment.clone(), model: key.model.clone(), hour: Some(hour) };
    (pair_key(id), pair.encode_to_vec())
}

pub(super) fn read_pair(key: &[u8], value: &[u8]) -> Result<(PairId, Key, Option<u32>), Unreadable> {
    let id = key.strip_prefix(PAIRS).and_then(|id| id.try_into().ok()).ok_or_else(|| unknown(key))?;
    let Pair { deployment, model, hour } = Pair::decode(value)?;
    Ok((PairId::from_be_bytes(id), Key { deployment, model }, hour))
}

/// Before the keys of all rows of a step.
pub(super) fn rows_of(level: Level, step: u32) -> Vec<u8> {
    [ROWS, &[level.index() as u8], &step.to_be_bytes()].concat()
}

pub(super) fn row_key(address: Address) -> Vec<u8> {
    [rows_of(address.level, address.step).as_slice(), &address.pair.to_be_bytes()].concat()
}

pub(super) fn row_value(totals: &Totals) -> Vec<u8> {
    // Whose they are says the key.
    totals.to_wire(&Key { deployment: String::new(), model: String::new() }).encode_to_vec()
}

pub(super) fn read_address(key: &[u8]) -> Result<Address, Unreadable> {
    let parts = key.strip_prefix(ROWS).and_then(|rest| rest.split_last_chunk());
    let (step, pair) = parts.ok_or_else(|| unknown(key))?;
    let (level, step) = split_step(step).ok_or_else(|| unknown(key))?;
    Ok(Address { level, step, pair: PairId::from_be_bytes(*pair) })
}

pub(super) fn read_row(value: &[u8]) -> Result<Totals, Unreadable> {
    Ok(Totals::from_wire(&TargetStats::decode(value)?)?)
}

/// Rows with the bytes that they take. One that cannot be read is left out: the engine
/// checks what it gives, so this is a fault of this program, and the rest is worth more.
pub(super) fn read_rows(blobs: Vec<Blob>) -> impl Iterator<Item = (Address, (Totals, u64))> {
    blobs.into_iter().filter_map(|(key, value)| {
        let bytes = (key.len() + value.len()) as u64;
        let row = read_address(&key).and_then(|address| Ok((address, (read_row(&value)?, bytes))));
        row.inspect_err(|error| tracing::error!(%error, "a row of the past cannot be read")).ok()
    })
}

pub(super) fn step_key(level: Level, step: u32) -> Vec<u8> {
    [STEPS, &[level.index() as u8], &step.to_be_bytes()].concat()
}

pub(super) fn read_step(key: &[u8], value: &[u8]) -> Result<(Level, u32, Size), Unreadable> {
    let (level, step) = key.strip_prefix(STEPS).and_then(split_step).ok_or_else(|| unknown(key))?;
    Ok((level, step, Size::decode(value)?))
}

/// The end of a key: level and step.
fn split_step(bytes: &[u8]) -> Option<(Level, u32)> {
    let (level, step) = bytes.split_first()?;
    Some((*Level::ALL.get(usize::from(*level))?, u32::from_be_bytes(step.try_into().ok()?)))
}

fn unknown(key: &[u8]) -> Unreadable {
    Unreadable::Key(key.escape_ascii().to_string())
}

pub(super) fn totals_blob(key: &Key, totals: &Totals) -> (Vec<u8>, Vec<u8>) {
    (totals_key(key), totals.to_wire(key).encode_to_vec())
}

pub(super) fn totals_key(key: &Key) -> Vec<u8> {
    [TOTALS, key.deployment.as_bytes(), b"\0", key.model.as_bytes()].concat()
}

pub(super) fn read_totals(value: &[u8]) -> Result<(Key, Totals), Unreadable> {
    let stats = TargetStats::decode(value)?;
    let totals = Totals::from_wire(&stats)?;
    Ok((Key { deployment: stats.deployment, model: stats.model }, totals))
}

pub(super) fn sequences_blob(
    slot: u32,
    agent_id: &str,
    (sequences, heard): (&Sequences, u64),
) -> (Vec<u8>, Vec<u8>) {
    let incarnations = sequences.iter();
    let incarnations =
        incarnations.map(|one| Incarnation { name: one.incarnation.clone(), last: one.last }).collect();
    let agent = Agent { name: agent_id.to_owned(), incarnations, heard };
    ([SEQUENCES, &slot.to_be_bytes()].concat(), agent.encode_to_vec())
}

pub(super) fn read_sequences(
    key: &[u8],
    value: &[u8],
) -> Result<(u32, String, (Sequences, u64)), Unreadable> {
    let slot = key.strip_prefix(SEQUENCES).unwrap_or(key);
    let slot = u32::from_be_bytes(slot.try_into().map_err(|_| unknown(key))?);
    let agent = Agent::decode(value)?;
    let sequences = Sequences::new(agent.incarnations.into_iter().map(|one| (one.name, one.last)));
    Ok((slot, agent.name, (sequences, agent.heard)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_in_the_order_of_time() {
        let address = |level, step, pair| Address { level, step, pair };
        let ordered = [
            address(Level::TenSeconds, 255, 9),
            address(Level::TenSeconds, 256, 0),
            address(Level::TenSeconds, 256, 300),
            address(Level::Hour, 1, 0),
        ];
        assert!(ordered.is_sorted_by_key(|address| row_key(*address)));
        for one in ordered {
            assert_eq!(read_address(&row_key(one)).unwrap(), one);
            assert!(row_key(one).starts_with(&rows_of(one.level, one.step)));
        }
        assert_eq!(row_key(ordered[2]), b"stats/row/\x00\x00\x00\x01\x00\x01\x2c");
        assert!(read_address(b"stats/row/\x03\0\0\0\0\0\0").is_err());
        assert!(read_address(b"stats/row/").is_err());
    }

    #[test]
    fn steps_and_pairs_survive_the_store() {
        let size = Size { rows: 3, bytes: 700 };
        let (key, value) = (step_key(Level::Minute, 70_000), size.encode_to_vec());
        assert_eq!(read_step(&key, &value).unwrap(), (Level::Minute, 70_000, size));
        let pair = Key { deployment: "p/d".into(), model: "chat".into() };
        let (key, value) = pair_blob(300, &pair, 500_000);
        assert_eq!(read_pair(&key, &value).unwrap(), (300, pair, Some(500_000)));
    }

    #[test]
    fn sequences_survive_the_store() {
        let mut sequences = Sequences::default();
        sequences.take("i", 1);
        sequences.take("i", 2);
        let (key, value) = sequences_blob(258, "a", (&sequences, 1_800_000_000));
        let expect = (258, "a".into(), (sequences, 1_800_000_000));
        assert_eq!(read_sequences(&key, &value).unwrap(), expect);
    }
}
