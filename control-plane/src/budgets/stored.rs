//! The form of ledgers in the store: a row per account. Field numbers never change their
//! meaning.

use prost::Message as _;
use trunkline_routing::budget::{
    ledger::Account,
    period::{Period, Span},
};

use super::books::Key;
use crate::repository::Blob;

/// Rows live under this.
pub(super) const ACCOUNTS: &[u8] = b"budget/account/";

/// One account.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    pub(super) budget: Box<str>,
    pub(super) span: Span,
    pub(super) key: Key,
    pub(super) account: Account,
    pub(super) heard_unix_ms: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Stored {
    #[prost(string, tag = "1")]
    budget: String,
    /// 1: hour, 2: day, 3: month.
    #[prost(uint32, tag = "2")]
    period: u32,
    #[prost(uint64, tag = "3")]
    start: u64,
    #[prost(string, tag = "4")]
    agent_id: String,
    #[prost(string, tag = "5")]
    account: String,
    #[prost(uint64, tag = "6")]
    granted: u64,
    #[prost(uint64, tag = "7")]
    spent: u64,
    #[prost(uint64, tag = "8")]
    returned: u64,
    #[prost(uint64, tag = "9")]
    heard_unix_ms: u64,
}

const fn number(period: Period) -> u32 {
    match period {
        Period::Hour => 1,
        Period::Day => 2,
        Period::Month => 3,
    }
}

/// Where a row is. Names hold no zero bytes.
pub(super) fn key(budget: &str, span: Span, key: &Key) -> Vec<u8> {
    let period = number(span.period).to_string();
    let start = span.start.to_string();
    let parts = [budget, &period, &start, &key.agent_id, &key.account];
    [ACCOUNTS, parts.join("\0").as_bytes()].concat()
}

pub(super) fn blob(row: &Row) -> Blob {
    let stored = Stored {
        budget: row.budget.to_string(),
        period: number(row.span.period),
        start: row.span.start,
        agent_id: row.key.agent_id.to_string(),
        account: row.key.account.to_string(),
        granted: row.account.granted,
        spent: row.account.spent,
        returned: row.account.returned,
        heard_unix_ms: row.heard_unix_ms,
    };
    (key(&row.budget, row.span, &row.key), stored.encode_to_vec())
}

/// None: it is no row, or of a period that this build does not know.
pub(super) fn read(value: &[u8]) -> Option<Row> {
    let Stored { budget, period, start, agent_id, account, granted, spent, returned, heard_unix_ms } =
        Stored::decode(value).ok()?;
    let period = [Period::Hour, Period::Day, Period::Month].into_iter().find(|one| number(*one) == period)?;
    Some(Row {
        budget: budget.into(),
        span: Span { period, start },
        key: Key { agent_id: agent_id.into(), account: account.into() },
        account: Account { granted, spent, returned },
        heard_unix_ms,
    })
}
