//! Many runs on a few threads. Runs know nothing of each other, so the results are the
//! same with any number of threads; they come back in the order of the jobs.

use std::{
    num::NonZero,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use super::progress::Progress;

/// Does `work` for each job and shows the progress.
pub(super) fn run<J: Sync, R: Send>(
    jobs: &[J],
    threads: Option<u16>,
    name: impl Fn(&J) -> String + Sync,
    work: impl Fn(&J) -> R + Sync,
) -> Vec<R> {
    let progress = Progress::new(jobs.len());
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<Option<R>>> = Mutex::new((0..jobs.len()).map(|_| None).collect());
    let worker = || {
        while let Some((at, job)) = take(jobs, &next) {
            let result = work(job);
            progress.done(&name(job));
            results.lock().unwrap_or_else(PoisonError::into_inner)[at] = Some(result);
        }
    };
    // A run that panics ends the command: the scope passes the panic on.
    thread::scope(|scope| {
        for _ in 0..threads_for(threads, jobs.len()) {
            scope.spawn(worker);
        }
    });
    progress.finish();
    results.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter().flatten().collect()
}

fn take<'a, J>(jobs: &'a [J], next: &AtomicUsize) -> Option<(usize, &'a J)> {
    let at = next.fetch_add(1, Ordering::Relaxed);
    jobs.get(at).map(|job| (at, job))
}

fn threads_for(wanted: Option<u16>, jobs: usize) -> usize {
    let there = || thread::available_parallelism().map_or(1, NonZero::get);
    wanted.map_or_else(there, usize::from).min(jobs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_jobs_with_any_number_of_threads() {
        let jobs: Vec<u64> = (0..50).collect();
        for threads in [1, 7] {
            let squares = run(&jobs, Some(threads), u64::to_string, |job| job * job);
            assert_eq!(squares, (0..50).map(|n| n * n).collect::<Vec<u64>>());
        }
        assert_eq!(run(&[] as &[u64], None, u64::to_string, |job| *job), [0_u64; 0]);
    }
}
