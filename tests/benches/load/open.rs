//! Open loop: requests start at fixed times, whether or not earlier ones were answered,
//! and their time counts from then. So a proxy that stalls is charged for those that had
//! to wait, too.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::{task::JoinSet, time::Instant};

use crate::{caller::Caller, process::Cpu, subject::Subject};

/// Requests per second. Both are whole milliseconds apart, as the timers here are.
pub(crate) const RATES: [u32; 2] = [200, 1_000];
/// Callers that take turns; far more than are ever busy.
const CONNECTIONS: usize = 32;
/// Everyone connects and sleeps before the first request is due.
const LEAD: Duration = Duration::from_millis(20);

/// What came of it.
#[derive(Debug)]
pub(crate) struct Open {
    /// From when a request was due until its answer was read.
    pub(crate) latencies: Vec<Duration>,
    /// The proxy's.
    pub(crate) cpu: Cpu,
}

/// Sends `rate` requests per second for `length`.
pub(crate) async fn run(subject: &Subject, rate: u32, length: Duration) -> anyhow::Result<Open> {
    let mut ready = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut caller = Caller::connect(subject.whole, false).await?;
        caller.call().await?;
        ready.push(caller);
    }
    let (every, next) = (Duration::from_secs(1) / rate, Arc::new(AtomicU32::new(0)));
    let total = (length.as_secs_f64() * f64::from(rate)) as u32;
    let cpu = subject.cpu()?;
    let start = Instant::now() + LEAD;
    let mut callers = JoinSet::new();
    for mut caller in ready {
        let next = Arc::clone(&next);
        callers.spawn(async move {
            let mut latencies = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= total {
                    return anyhow::Ok(latencies);
                }
                let due = wait_until(start + every * number).await;
                caller.call().await?;
                latencies.push(due.elapsed());
            }
        });
    }
    let mut latencies = Vec::new();
    while let Some(caller) = callers.join_next().await {
        latencies.extend(caller??);
    }
    Ok(Open { latencies, cpu: subject.cpu()?.since(cpu) })
}

/// Returns from when on the request counts. A caller that was free is started by a
/// timer that wakes up to a millisecond late, which is not the proxy's; one that was
/// still busy counts from when its request was due.
async fn wait_until(due: Instant) -> Instant {
    if Instant::now() >= due {
        return due;
    }
    tokio::time::sleep_until(due).await;
    Instant::now()
}
