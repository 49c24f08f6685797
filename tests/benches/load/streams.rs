//! Many streams at the same time: how long each chunk is under way, by the send time it
//! carries.

use std::{net::SocketAddr, time::Duration};

use bytes::BytesMut;
use http_body_util::BodyExt as _;
use memchr::memmem;
use tokio::task::JoinSet;

use crate::{
    caller::{Caller, now_nanos},
    mock::CHUNKS,
    process::Cpu,
    subject::Subject,
};

/// At the same time.
pub(crate) const STREAMS: u32 = 100;
/// Streams of a wave start that far apart: a burst of connects is another matter.
const START_EVERY: Duration = Duration::from_millis(1);
/// What stands before the time in a chunk.
const STAMP: &[u8] = b"\"content\":\"";

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    pub(crate) started: usize,
    /// Those of which all came.
    pub(crate) completed: usize,
    /// From the mock's send to the caller's read, of each chunk.
    pub(crate) transits: Vec<Duration>,
    /// The same of the first chunk of each stream.
    pub(crate) first_transits: Vec<Duration>,
    /// The proxy's.
    pub(crate) cpu: Cpu,
}

struct Received {
    transits: Vec<Duration>,
    done: bool,
}

/// Runs `waves` of streams, one after the other.
pub(crate) async fn run(subject: &Subject, waves: usize) -> anyhow::Result<Streams> {
    let mut all = Streams::default();
    let cpu = subject.cpu()?;
    for _ in 0..waves {
        let mut running = JoinSet::new();
        for number in 0..STREAMS {
            let address = subject.stream;
            running.spawn(async move {
                tokio::time::sleep(START_EVERY * number).await;
                receive(address).await
            });
        }
        while let Some(stream) = running.join_next().await {
            let stream = stream??;
            all.started += 1;
            all.completed += usize::from(stream.done && stream.transits.len() == CHUNKS);
            all.first_transits.extend(stream.transits.first());
            all.transits.extend(stream.transits);
        }
    }
    all.cpu = subject.cpu()?.since(cpu);
    Ok(all)
}

async fn receive(address: SocketAddr) -> anyhow::Result<Received> {
    let mut caller = Caller::connect(address, true).await?;
    let mut body = caller.send().await?.into_body();
    let mut received = Received { transits: Vec::with_capacity(CHUNKS), done: false };
    let mut unread = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        let now = now_nanos();
        unread.extend_from_slice(&data);
        // An event that is not here whole is looked at with its rest.
        let Some(end) = memmem::rfind(&unread, b"\n\n") else { continue };
        let events = unread.split_to(end + 2);
        received.done |= memmem::find(&events, b"data: [DONE]").is_some();
        let stamps = memmem::find_iter(&events, STAMP).filter_map(|at| stamp(&events[at + STAMP.len()..]));
        received.transits.extend(stamps.map(|sent| Duration::from_nanos(now.saturating_sub(sent))));
    }
    Ok(received)
}

/// The time at the start of a chunk's content. None: the first event holds none.
fn stamp(content: &[u8]) -> Option<u64> {
    let end = content.iter().position(|byte| !byte.is_ascii_digit())?;
    std::str::from_utf8(&content[..end]).ok()?.parse().ok()
}
