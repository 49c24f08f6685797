//! What a journal holds: one header per segment, then one record per commit. The
//! fields are stored for years: numbers are never used twice.

/// The layout described here. A newer one is refused, not guessed.
pub(crate) const FORMAT: u32 = 1;

/// First in each segment. With its snapshot a segment stands on its own.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct Header {
    /// [`FORMAT`].
    #[prost(uint32, tag = "1")]
    pub(crate) format: u32,
    /// Made when the journal was.
    #[prost(string, tag = "2")]
    pub(crate) epoch: String,
    /// SHA-256 of the last frame of the segment before; empty in the first.
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) previous_sha256: Vec<u8>,
    /// The state that all former records led to.
    #[prost(message, required, tag = "4")]
    pub(crate) snapshot: Snapshot,
    /// Wall time in ms since 1970 at which the segment was made; 0: not known.
    #[prost(uint64, tag = "5")]
    pub(crate) unix_ms: u64,
}

/// The state after some record.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct Snapshot {
    /// Of the last record; 0: none yet.
    #[prost(uint64, tag = "1")]
    pub(crate) sequence: u64,
    /// Of the configuration; 0: never configured.
    #[prost(uint64, tag = "2")]
    pub(crate) revision: u64,
    /// Whether that revision was forced.
    #[prost(bool, tag = "3")]
    pub(crate) forced: bool,
    /// The configuration, encoded.
    #[prost(bytes = "vec", tag = "4")]
    pub(crate) config: Vec<u8>,
    /// Each deployment that was ever forced.
    #[prost(message, repeated, tag = "5")]
    pub(crate) verdicts: Vec<VerdictChange>,
    /// Requests that may be repeated, oldest first.
    #[prost(message, repeated, tag = "6")]
    pub(crate) requests: Vec<RequestDone>,
    /// Drills that have not ended.
    #[prost(message, repeated, tag = "7")]
    pub(crate) faults: Vec<FaultChange>,
    /// Agents that are out of service.
    #[prost(message, repeated, tag = "8")]
    pub(crate) drains: Vec<DrainChange>,
    /// The first number of a probe's lease that was never reserved.
    #[prost(uint64, tag = "9")]
    pub(crate) lease_end: u64,
}

/// One commit.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct Record {
    /// Counts records from 1, over all segments, without gaps.
    #[prost(uint64, tag = "1")]
    pub(crate) sequence: u64,
    /// Of the configuration after this record.
    #[prost(uint64, tag = "2")]
    pub(crate) revision: u64,
    /// Wall time in ms since 1970, for people.
    #[prost(uint64, tag = "3")]
    pub(crate) unix_ms: u64,
    /// Who.
    #[prost(string, tag = "4")]
    pub(crate) principal: String,
    /// Did what.
    #[prost(string, tag = "5")]
    pub(crate) method: String,
    /// The caller's name for the request, if it gave one.
    #[prost(string, optional, tag = "6")]
    pub(crate) request_id: Option<String>,
    /// SHA-256 of the request.
    #[prost(bytes = "vec", tag = "7")]
    pub(crate) request_sha256: Vec<u8>,
    /// Whether checks were overruled.
    #[prost(bool, tag = "8")]
    pub(crate) force: bool,
    /// SHA-256 of the frame before: a changed past shows.
    #[prost(bytes = "vec", tag = "9")]
    pub(crate) previous_sha256: Vec<u8>,
    /// The whole new configuration, encoded, if it changed.
    #[prost(bytes = "vec", optional, tag = "10")]
    pub(crate) config: Option<Vec<u8>>,
    /// Verdicts that changed.
    #[prost(message, repeated, tag = "11")]
    pub(crate) verdicts: Vec<VerdictChange>,
    /// To what, where it is not the configuration.
    #[prost(string, tag = "12")]
    pub(crate) subject: String,
    /// Drills that began or ended.
    #[prost(message, repeated, tag = "13")]
    pub(crate) faults: Vec<FaultChange>,
    /// Agents that went out of service or came back.
    #[prost(message, repeated, tag = "14")]
    pub(crate) drains: Vec<DrainChange>,
    /// The journal's name from here on: an operator accepted a store that was rolled
    /// back or brought from elsewhere.
    #[prost(string, optional, tag = "15")]
    pub(crate) epoch: Option<String>,
    /// Numbers of probes' leases up to here may be used from now on.
    #[prost(uint64, optional, tag = "16")]
    pub(crate) lease_end: Option<u64>,
}

/// What holds of the breaker of a deployment, or of a provider, from now on.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct VerdictChange {
    /// Full name.
    #[prost(string, tag = "1")]
    pub(crate) deployment: String,
    /// Changes so far.
    #[prost(uint64, tag = "2")]
    pub(crate) generation: u64,
    /// What an operator wants. Absent: not forced any more.
    #[prost(message, optional, tag = "3")]
    pub(crate) forced: Option<Forced>,
    /// What the fleet found, under what is forced. Absent: closed, and it never opened.
    #[prost(message, optional, tag = "4")]
    pub(crate) fleet: Option<FleetState>,
}

/// What the fleet found of a breaker.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct FleetState {
    /// As `types.v1.BreakerState`, but none that is forced.
    #[prost(int32, tag = "1")]
    pub(crate) state: i32,
    /// Of the weight while it ramps.
    #[prost(uint32, tag = "2")]
    pub(crate) admit_percent: u32,
    /// In a row.
    #[prost(uint32, tag = "3")]
    pub(crate) openings: u32,
    /// How long it is open.
    #[prost(uint64, tag = "4")]
    pub(crate) open_for_ms: u64,
    /// Wall time in ms since 1970 at which it became so. It only bounds what is left after
    /// a restart.
    #[prost(uint64, tag = "5")]
    pub(crate) unix_ms: u64,
    /// For people.
    #[prost(string, tag = "6")]
    pub(crate) reason: String,
}

/// A forced state.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct Forced {
    /// Open, else closed.
    #[prost(bool, tag = "1")]
    pub(crate) open: bool,
    /// For people.
    #[prost(string, tag = "2")]
    pub(crate) reason: String,
    /// Wall time in ms since 1970 at which it ends; absent: never.
    #[prost(uint64, optional, tag = "3")]
    pub(crate) expires_unix_ms: Option<u64>,
}

/// A drill that begins or ends.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct FaultChange {
    /// Of the fault.
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    /// Absent: ended.
    #[prost(message, optional, tag = "2")]
    pub(crate) injected: Option<Injected>,
}

/// A drill.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct Injected {
    /// What goes wrong: an encoded `types.v1.Fault`.
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) fault: Vec<u8>,
    /// Wall time in ms since 1970 at which it began.
    #[prost(uint64, tag = "2")]
    pub(crate) start_unix_ms: u64,
    /// Wall time in ms since 1970 at which it ends.
    #[prost(uint64, tag = "3")]
    pub(crate) expire_unix_ms: u64,
    /// Who began it.
    #[prost(string, tag = "4")]
    pub(crate) principal: String,
}

/// An agent that goes out of service or comes back.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct DrainChange {
    /// Which.
    #[prost(string, tag = "1")]
    pub(crate) agent_id: String,
    /// Why, for people. Absent: back in service.
    #[prost(string, optional, tag = "2")]
    pub(crate) reason: Option<String>,
}

/// A request that was carried out.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct RequestDone {
    /// The caller's name for it.
    #[prost(string, tag = "1")]
    pub(crate) request_id: String,
    /// What it called.
    #[prost(string, tag = "2")]
    pub(crate) method: String,
    /// SHA-256 of it.
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) request_sha256: Vec<u8>,
    /// The revision that it led to.
    #[prost(uint64, tag = "4")]
    pub(crate) revision: u64,
    /// Wall time in ms since 1970.
    #[prost(uint64, tag = "5")]
    pub(crate) unix_ms: u64,
    /// It led to no new revision: everything was like that already.
    #[prost(bool, tag = "6")]
    pub(crate) unchanged: bool,
}
