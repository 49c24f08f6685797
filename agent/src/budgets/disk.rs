//! What this agent writes down of budgets: how much of each lease it may have used at
//! most, and, where it runs alone, the ledger. Synced, for it is what a limit rests on.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::Path,
};

use prost::Message as _;
use trunkline_proto::agent::v1::BudgetClaim;
use trunkline_routing::budget::ledger::Account;

use super::{
    claims::{span_of, wire_span},
    held::Note,
};

/// Says what the file is; the last digit grows when the layout changes.
const MAGIC: [u8; 8] = *b"TRUNKBG1";
/// Magic and CRC-32C of all after it.
const HEAD_BYTES: usize = 12;
/// Accounts of earlier starts that are kept until the ledger confirms them. What is
/// dropped is taken for spent: safe, and gone with its period.
pub(super) const FORMER_MAX: usize = 10_000;

/// An account that is over.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Former {
    pub(super) account: String,
    pub(super) budget: Box<str>,
    /// Its last state; `mark` is the most that was spent of it.
    pub(super) note: Note,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Body {
    #[prost(message, repeated, tag = "1")]
    accounts: Vec<BudgetClaim>,
    /// Of an agent that runs alone: what its own ledger gave, by start.
    #[prost(message, repeated, tag = "2")]
    ledger: Vec<BudgetClaim>,
}

/// What the file holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Content {
    pub(super) accounts: Vec<Former>,
    pub(super) ledger: Vec<Former>,
}

/// Reads the file. Blocks.
///
/// # Errors
/// Why it is not used. It then counts as if there were none: leases of before are taken
/// for spent by the control plane, and an agent that runs alone begins anew.
pub(super) fn read(path: &Path) -> Result<Content, String> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Content::default()),
        Err(error) => return Err(error.to_string()),
    };
    let (head, body) = bytes.split_at_checked(HEAD_BYTES).ok_or("it is cut off")?;
    let checksum = head.strip_prefix(&MAGIC).ok_or("it is of another kind or version")?;
    if checksum != crc32c::crc32c(body).to_le_bytes() {
        return Err("its checksum differs from its content".to_owned());
    }
    let body = Body::decode(body).map_err(|error| error.to_string())?;
    let all = |claims: Vec<BudgetClaim>| claims.into_iter().filter_map(former).collect();
    Ok(Content { accounts: all(body.accounts), ledger: all(body.ledger) })
}

/// Replaces the file. Blocks.
///
/// # Errors
/// If the disk refuses; the file is then as it was.
pub(super) fn write(path: &Path, content: &Content) -> io::Result<()> {
    let body = Body {
        accounts: content.accounts.iter().map(wire).collect(),
        ledger: content.ledger.iter().map(wire).collect(),
    };
    let body = body.encode_to_vec();
    let temporary = path.with_extension("tmp");
    let mut file = File::create(&temporary)?;
    file.write_all(&MAGIC)?;
    file.write_all(&crc32c::crc32c(&body).to_le_bytes())?;
    file.write_all(&body)?;
    file.sync_data()?;
    fs::rename(&temporary, path)
}

fn wire(former: &Former) -> BudgetClaim {
    BudgetClaim {
        budget: former.budget.to_string(),
        account: former.account.clone(),
        span: Some(wire_span(former.note.span)),
        granted_nano_usd: former.note.account.granted,
        spent_nano_usd: former.note.account.spent,
        returned_nano_usd: former.note.account.returned,
        at_most_nano_usd: Some(former.note.mark),
        ..BudgetClaim::default()
    }
}

fn former(wire: BudgetClaim) -> Option<Former> {
    let span = span_of(&wire.span.unwrap_or_default())?;
    let account = Account {
        granted: wire.granted_nano_usd,
        spent: wire.spent_nano_usd,
        returned: wire.returned_nano_usd,
    };
    let mark = wire.at_most_nano_usd?;
    Some(Former { account: wire.account, budget: wire.budget.into(), note: Note { span, account, mark } })
}

#[cfg(test)]
mod tests {
    use trunkline_routing::budget::period::{Period, Span};

    use super::*;

    #[test]
    fn what_was_written_is_read_and_damage_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("budgets");
        assert_eq!(read(&path), Ok(Content::default()));
        let account = Account { granted: 3, spent: 2, returned: 1 };
        let note = Note { span: Span { period: Period::Month, start: 86_400 }, account, mark: 9 };
        let one = Former { account: "a".into(), budget: "b".into(), note };
        let content = Content { accounts: vec![one.clone()], ledger: vec![one] };
        write(&path, &content).unwrap();
        assert_eq!(read(&path), Ok(content));
        let good = fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(&path, &bad).unwrap();
            read(&path).unwrap_err();
            fs::write(&path, &good[..at]).unwrap();
            read(&path).unwrap_err();
        }
    }
}
