//! The pace of configuration: the first change after a quiet time goes to agents at once;
//! of a burst they see the first state and the last, and one each second between. Made
//! once for all sessions. What operators order beside the configuration does not pass here.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::repository::ConfigState;

/// A burst is over after so long without a change.
const QUIET: Duration = Duration::from_millis(100);

/// A burst that does not end shows its newest state after so long.
const PATIENCE: Duration = Duration::from_secs(1);

/// When the newest state is due. Pure.
#[derive(Debug, Default)]
struct Pace {
    shown: Option<Instant>,
    /// The first and the last change that were not shown.
    unseen: Option<(Instant, Instant)>,
}

impl Pace {
    fn changed(&mut self, now: Instant) {
        let first = self.unseen.map_or(now, |(first, _)| first);
        self.unseen = Some((first, now));
    }

    /// When to show the newest state. None: it was shown.
    fn due(&self) -> Option<Instant> {
        let (first, last) = self.unseen?;
        let quiet = self.shown.is_none_or(|shown| shown + QUIET <= first);
        Some(if quiet { first } else { (last + QUIET).min(first + PATIENCE) })
    }

    fn shown(&mut self, now: Instant) {
        *self = Self { shown: Some(now), unseen: None };
    }
}

/// Shows `newest` at that pace, until `shutdown`.
pub(super) async fn follow(
    mut newest: watch::Receiver<Arc<ConfigState>>,
    shown: watch::Sender<Arc<ConfigState>>,
    shutdown: CancellationToken,
) {
    let mut pace = Pace::default();
    // It may have changed since `shown` was made.
    newest.mark_changed();
    loop {
        let due = pace.due();
        tokio::select! {
            biased; // A stop; then what is due, or a burst would hold it back.
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                let state = Arc::clone(&newest.borrow());
                shown.send_if_modified(|known| {
                    let changed = known.version != state.version;
                    *known = state;
                    changed
                });
                pace.shown(Instant::now());
            }
            changed = newest.changed() => match changed {
                Ok(()) => pace.changed(Instant::now()),
                Err(_) => return,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn a_change_after_a_quiet_time_is_due_at_once() {
        let start = Instant::now();
        let mut pace = Pace::default();
        assert_eq!(pace.due(), None);
        pace.changed(start);
        assert_eq!(pace.due(), Some(start));
        pace.shown(start);
        assert_eq!(pace.due(), None);
        pace.changed(start + QUIET);
        assert_eq!(pace.due(), Some(start + QUIET));
    }

    #[test]
    fn a_burst_is_due_when_it_is_over() {
        let start = Instant::now();
        let mut pace = Pace::default();
        pace.changed(start);
        pace.shown(start);
        pace.changed(start + ms(10));
        assert_eq!(pace.due(), Some(start + ms(110)));
        pace.changed(start + ms(90));
        assert_eq!(pace.due(), Some(start + ms(190)));
    }

    #[test]
    fn a_burst_without_end_is_due_each_second() {
        let start = Instant::now();
        let mut pace = Pace::default();
        pace.changed(start);
        pace.shown(start);
        let mut shown = Vec::new();
        for at in (50..4_000).step_by(50) {
            let now = start + ms(at);
            pace.changed(now);
            if pace.due().is_some_and(|due| due <= now) {
                pace.shown(now);
                shown.push(at);
            }
        }
        assert_eq!(shown, [1_050, 2_100, 3_150]);
    }
}
