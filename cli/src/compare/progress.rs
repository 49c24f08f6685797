//! How far the runs are: a bar on a terminal, now and then a line elsewhere. On standard
//! error, beside the result.

use std::{
    io::{self, IsTerminal as _},
    sync::Mutex,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

use crate::terminal;

/// Between two lines where there is no terminal: a log stays short.
const LINE_EVERY: Duration = Duration::from_secs(30);

/// Shows how many of the runs are done. Any thread may say that one more is.
#[derive(Debug)]
pub(super) struct Progress {
    total: usize,
    begun: Instant,
    shown: Shown,
}

#[derive(Debug)]
enum Shown {
    Bar(ProgressBar),
    Lines(Mutex<Lines>),
}

#[derive(Debug)]
struct Lines {
    done: usize,
    last: Instant,
}

impl Progress {
    /// Nothing is done yet.
    pub(super) fn new(total: usize) -> Self {
        let begun = Instant::now();
        let shown = if io::stderr().is_terminal() {
            let bar = ProgressBar::new(total as u64);
            let style = ProgressStyle::with_template("{bar:32} {pos} of {len} runs, {eta} left  {msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.enable_steady_tick(Duration::from_millis(250));
            Shown::Bar(bar)
        } else {
            Shown::Lines(Mutex::new(Lines { done: 0, last: begun }))
        };
        Self { total, begun, shown }
    }

    /// One more is done.
    pub(super) fn done(&self, what: &str) {
        match &self.shown {
            Shown::Bar(bar) => {
                bar.set_message(what.to_owned());
                bar.inc(1);
            }
            Shown::Lines(lines) => {
                let now = Instant::now();
                // A thread that panicked in here left two numbers, both usable.
                let mut lines = lines.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                lines.done += 1;
                if now.duration_since(lines.last) >= LINE_EVERY {
                    lines.last = now;
                    terminal::remark(&line(lines.done, self.total, now.duration_since(self.begun)));
                }
            }
        }
    }

    /// All is done; the bar goes away.
    pub(super) fn finish(self) -> Duration {
        if let Shown::Bar(bar) = &self.shown {
            bar.finish_and_clear();
        }
        self.begun.elapsed()
    }
}

fn line(done: usize, total: usize, elapsed: Duration) -> String {
    let left = elapsed.as_secs_f64() * (total - done.min(total)) as f64 / done.max(1) as f64;
    format!("{done} of {total} runs, about {left:.0} s left")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_is_that_of_the_runs_left() {
        assert_eq!(line(10, 40, Duration::from_secs(20)), "10 of 40 runs, about 60 s left");
        assert_eq!(line(0, 40, Duration::ZERO), "0 of 40 runs, about 0 s left");
    }
}
