//! Closed loop: each connection asks again as soon as it was answered. Shows what a
//! request costs when there is always one waiting.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{task::JoinSet, time::Instant};

use crate::{
    caller::Caller,
    process::{Cpu, Process},
    subject::Subject,
};

/// Callers at the same time.
const CONNECTIONS: usize = 64;

/// What came of it.
#[derive(Debug)]
pub(crate) struct Closed {
    pub(crate) requests: u64,
    pub(crate) took: Duration,
    /// The proxy's.
    pub(crate) cpu: Cpu,
    /// Of all: caller, proxy, mock.
    pub(crate) cpu_of_all: Duration,
}

/// Runs for `warm`, then measures for `length`.
pub(crate) async fn run(
    subject: &Subject,
    mock: &Process,
    warm: Duration,
    length: Duration,
) -> anyhow::Result<Closed> {
    let (done, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let mut callers = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let mut caller = Caller::connect(subject.whole, false).await?;
        let (done, stop) = (Arc::clone(&done), Arc::clone(&stop));
        callers.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                caller.call().await?;
                done.fetch_add(1, Ordering::Relaxed);
            }
            anyhow::Ok(())
        });
    }
    let read = || -> anyhow::Result<_> {
        let all = subject.cpu()?.total() + mock.cpu()?.total() + Cpu::own()?.total();
        Ok((Instant::now(), done.load(Ordering::Relaxed), subject.cpu()?, all))
    };
    tokio::time::sleep(warm).await;
    let before = read()?;
    tokio::time::sleep(length).await;
    let after = read()?;
    stop.store(true, Ordering::Relaxed);
    while let Some(caller) = callers.join_next().await {
        caller??;
    }
    Ok(Closed {
        requests: after.1 - before.1,
        took: after.0 - before.0,
        cpu: after.2.since(before.2),
        cpu_of_all: after.3.saturating_sub(before.3),
    })
}
