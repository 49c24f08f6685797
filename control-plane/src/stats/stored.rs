//! The form of telemetry in the store. Field numbers never change their meaning.

use prost::Message;
use trunkline_proto::telemetry::v1::TargetStats;

use super::{
    Key,
    sequence::Sequences,
    totals::{Invalid, Totals},
};

/// Totals live under this, by deployment and virtual model.
pub(super) const TOTALS: &[u8] = b"stats/total/";

/// Sequences live under this, by slot: an agent that is forgotten leaves its slot to
/// another, so that the store does not grow with every agent that ever was.
pub(super) const SEQUENCES: &[u8] = b"stats/sequence/";

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
    #[error("telemetry in the store: a key of {0} bytes where 4 are expected")]
    Key(usize),
}

#[derive(Clone, PartialEq, Message)]
struct Agent {
    #[prost(string, tag = "1")]
    agent_id: String,
    #[prost(message, repeated, tag = "2")]
    incarnations: Vec<Incarnation>,
}

#[derive(Clone, PartialEq, Message)]
struct Incarnation {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(uint64, tag = "2")]
    last: u64,
}

pub(super) fn totals_blob(key: &Key, totals: &Totals) -> (Vec<u8>, Vec<u8>) {
    let name = [TOTALS, key.deployment.as_bytes(), b"\0", key.model.as_bytes()].concat();
    (name, totals.to_wire(key).encode_to_vec())
}

pub(super) fn read_totals(value: &[u8]) -> Result<(Key, Totals), Unreadable> {
    let stats = TargetStats::decode(value)?;
    let totals = Totals::from_wire(&stats)?;
    Ok((Key { deployment: stats.deployment, model: stats.model }, totals))
}

pub(super) fn sequences_blob(slot: u32, agent_id: &str, sequences: &Sequences) -> (Vec<u8>, Vec<u8>) {
    let incarnations = sequences.iter();
    let incarnations =
        incarnations.map(|one| Incarnation { name: one.incarnation.clone(), last: one.last }).collect();
    let agent = Agent { agent_id: agent_id.to_owned(), incarnations };
    ([SEQUENCES, &slot.to_be_bytes()].concat(), agent.encode_to_vec())
}

pub(super) fn read_sequences(key: &[u8], value: &[u8]) -> Result<(u32, String, Sequences), Unreadable> {
    let slot = key.strip_prefix(SEQUENCES).unwrap_or(key);
    let slot = u32::from_be_bytes(slot.try_into().map_err(|_| Unreadable::Key(slot.len()))?);
    let agent = Agent::decode(value)?;
    let sequences = Sequences::new(agent.incarnations.into_iter().map(|one| (one.name, one.last)));
    Ok((slot, agent.agent_id, sequences))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_survive_the_store() {
        let mut sequences = Sequences::default();
        sequences.take("i", 1);
        sequences.take("i", 2);
        let (key, value) = sequences_blob(258, "a", &sequences);
        assert_eq!(read_sequences(&key, &value).unwrap(), (258, "a".into(), sequences));
    }
}
