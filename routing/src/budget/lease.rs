//! How large a lease is: large enough that an agent need not ask all the time and can
//! do without the control plane for a while, small enough that what is stranded with a
//! dead agent does not matter.

/// Part of what remains that may be held ahead of demand, over all agents: 1/20.
const AHEAD_DIVISOR: u64 = 20;

/// Part of what remains that waiting requests of one agent may get at once, times the
/// contenders: 1/2. Near the limit leases so become ever smaller, and every agent gets
/// some of the last money.
const WAITING_DIVISOR: u64 = 2;

/// Below this part of the limit (1/20), idle money is called back: somebody else may
/// need it.
const SCARCE_DIVISOR: u64 = 20;

/// What an agent asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ask {
    /// What requests that wait need beyond what it holds, in nano-dollars.
    pub waiting: u64,
    /// What the smallest of them needs. Less than that helps nobody.
    pub least: u64,
    /// What it would like to hold beside, for requests to come.
    pub ahead: u64,
}

/// What to give for `ask` out of `remaining`, with so many `contenders` (agents that ask
/// for money of this budget, at least 1).
pub fn size(ask: &Ask, remaining: u64, contenders: u64) -> u64 {
    let contenders = contenders.max(1);
    let ahead = ask.ahead.min(remaining / AHEAD_DIVISOR / contenders);
    let waiting = if ask.waiting == 0 {
        0
    } else if ask.least > remaining {
        // Kept for a smaller request.
        return 0;
    } else {
        ask.waiting.min((remaining / WAITING_DIVISOR / contenders).max(ask.least))
    };
    waiting.saturating_add(ahead).min(remaining)
}

/// Whether idle money of agents is better given back.
pub fn is_scarce(remaining: u64, limit: u64) -> bool {
    remaining <= limit / SCARCE_DIVISOR
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_shrink_towards_the_limit_and_never_below_one_request() {
        let ask = Ask { waiting: 500, least: 10, ahead: 1_000_000 };
        assert_eq!(size(&ask, 1_000_000, 4), 500 + 12_500);
        assert_eq!(size(&ask, 1_000, 4), 125 + 12);
        assert_eq!(size(&ask, 12, 4), 10);
        assert_eq!(size(&ask, 9, 4), 0);
        assert_eq!(size(&Ask { waiting: 0, least: 0, ahead: 7 }, 1_000_000, 0), 7);
    }
}
