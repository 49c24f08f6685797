//! LiteLLM's cooldown (router 1.109): a deployment is left out for five seconds after
//! any 429, or once more than half of at least five requests of the clock minute failed.

/// Left out for so long.
const COOLDOWN_S: f64 = 5.0;
/// The share of failures that is too much.
const FAILED_SHARE: f64 = 0.5;
/// Requests of the minute before the share counts.
const REQUESTS_MIN: u32 = 5;

#[derive(Clone, Copy, Debug, Default)]
struct Minute {
    number: u64,
    requests: u32,
    failures: u32,
}

/// Cooldowns of all deployments, shared by all agents.
#[derive(Clone, Debug)]
pub(super) struct Cooldown {
    minutes: Vec<Minute>,
    until_s: Vec<f64>,
}

impl Cooldown {
    pub(super) fn new(count: usize) -> Self {
        Self { minutes: vec![Minute::default(); count], until_s: vec![0.0; count] }
    }

    /// The ones of `open` that are not cooling down; all if none is.
    pub(super) fn filter(&self, open: &[usize], now_s: f64) -> Vec<usize> {
        let warm: Vec<usize> = open.iter().copied().filter(|at| self.until_s[*at] <= now_s).collect();
        if warm.is_empty() { open.to_vec() } else { warm }
    }

    pub(super) fn succeeded(&mut self, deployment: usize, now_s: f64) {
        self.minute(deployment, now_s).requests += 1;
    }

    pub(super) fn failed(&mut self, deployment: usize, now_s: f64, status: u16) {
        let minute = self.minute(deployment, now_s);
        minute.requests += 1;
        minute.failures += 1;
        let share = f64::from(minute.failures) / f64::from(minute.requests);
        if status == 429 || minute.requests >= REQUESTS_MIN && share > FAILED_SHARE {
            self.until_s[deployment] = now_s + COOLDOWN_S;
        }
    }

    fn minute(&mut self, deployment: usize, now_s: f64) -> &mut Minute {
        let number = (now_s / 60.0) as u64;
        let minute = &mut self.minutes[deployment];
        if minute.number != number {
            *minute = Minute { number, ..Minute::default() };
        }
        minute
    }
}
