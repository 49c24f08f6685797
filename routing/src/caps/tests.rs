//! Caps: found from refusals, kept by headers, ended by themselves.

use proptest::prelude::*;

use super::*;

fn at(millis: u64) -> Timestamp {
    Timestamp::from_nanos(1_000_000_000_000 + millis * 1_000_000)
}

/// Sends as fast as is admitted, but at most `per_second`, to a provider that takes
/// `limit` in any one second and shuts the gate until the next; every answer comes at
/// once. Counts what was taken and what was refused.
fn drive(caps: &mut Caps, from: u64, seconds: u64, per_second: u64, limit: u32) -> (u32, u32) {
    let (mut taken, mut refused) = (0, 0);
    for second in 0..seconds {
        let mut room = limit;
        for one in 0..per_second {
            let now = at(from + second * 1_000 + one * 1_000 / per_second);
            if caps.admits(now, 0).is_err() {
                continue;
            }
            caps.begin(now, 0);
            if room == 0 {
                refused += 1;
                caps.refused(now, now);
                break;
            }
            room -= 1;
            taken += 1;
            caps.accepted(now, now);
        }
    }
    (taken, refused)
}

#[test]
fn a_limit_is_found_from_refusals_and_then_rarely_met() {
    let mut caps = Caps::default();
    drive(&mut caps, 0, 30, 40, 10);
    let (taken, refused) = drive(&mut caps, 30_000, 60, 40, 10);
    // With the gate alone there is one refusal each second.
    assert!(refused <= 30, "{refused} refusals for {taken}");
    assert!(taken > 60 * 8, "{taken} of 600 used");
}

#[test]
fn a_cap_ends_after_a_minute_without_refusal() {
    let mut caps = Caps::default();
    for _ in 0..6 {
        caps.begin(at(0), 0);
    }
    caps.refused(at(0), at(0));
    let until = caps.view(at(0)).unwrap().until;
    assert_eq!(until, at(60_000));
    assert!(caps.view(at(59_999)).is_some());
    assert_eq!((caps.view(until), caps.admits(until, 0)), (None, Ok(())));
}

#[test]
fn a_refusal_without_traffic_before_it_teaches_no_rate() {
    let mut caps = Caps::default();
    for _ in 0..5 {
        caps.begin(at(0), 0);
    }
    caps.refused(at(0), at(0));
    assert_eq!((caps.view(at(0)), caps.admits(at(0), 0)), (None, Ok(())));
}

#[test]
fn a_cap_that_traffic_outgrew_ends_early() {
    let mut caps = Caps::default();
    for second in 0..10 {
        for one in 0..10 {
            caps.begin(at(second * 1_000 + one * 100), 0);
        }
    }
    caps.begin(at(9_950), 0);
    caps.refused(at(9_950), at(9_950));
    assert!((caps.view(at(9_950)).unwrap().per_second - 8.5).abs() < 0.1);
    let (taken, _) = drive(&mut caps, 10_000, 20, 100, 1_000);
    assert!(caps.view(at(30_000)).is_none(), "{taken} were answered");
}

#[test]
fn answers_and_refusals_from_before_the_cap_do_not_move_it() {
    let mut caps = Caps::default();
    for one in 0..100 {
        caps.begin(at(one), 0);
    }
    caps.refused(at(99), at(200));
    let before = caps.view(at(200)).unwrap().per_second;
    for one in 0..50 {
        caps.accepted(at(one), at(300));
        caps.refused(at(one), at(300));
    }
    assert!((caps.view(at(300)).unwrap().per_second - before).abs() < 1e-9);
}

#[test]
fn a_refusal_after_an_idle_time_halves_the_cap_at_most() {
    let mut caps = Caps::default();
    for one in 0..100 {
        caps.begin(at(one * 100), 0);
    }
    caps.refused(at(9_900), at(9_900));
    let before = caps.view(at(9_900)).unwrap().per_second;
    caps.begin(at(40_000), 0);
    caps.refused(at(40_000), at(40_000));
    let after = caps.view(at(40_000)).unwrap().per_second;
    assert!((after - before / 2.0).abs() < 1e-9, "{before} {after}");
}

#[test]
fn headers_hold_back_what_is_not_left_and_refill_as_a_bucket() {
    let mut caps = Caps::default();
    let requests = RateLimit { remaining: 2, limit: Some(62), reset: Duration::from_mins(1) };
    caps.headers(at(0), at(0), &RateHeaders { requests: Some(requests), tokens: None });
    for _ in 0..2 {
        assert_eq!(caps.admits(at(0), 0), Ok(()));
        caps.begin(at(0), 0);
    }
    // One comes back each second.
    assert_eq!(caps.admits(at(0), 0), Err(at(1_000)));
    assert_eq!(caps.admits(at(1_000), 0), Ok(()));
}

#[test]
fn tokens_are_held_back_until_the_reset_when_no_limit_is_named() {
    let mut caps = Caps::default();
    let tokens = RateLimit { remaining: 100, limit: None, reset: Duration::from_secs(5) };
    caps.headers(at(0), at(0), &RateHeaders { requests: None, tokens: Some(tokens) });
    assert_eq!(caps.admits(at(0), 100), Ok(()));
    assert_eq!(caps.admits(at(0), 101), Err(at(5_000)));
    // A giant passes once the limit is whole: else it could never be sent.
    assert_eq!(caps.admits(at(5_000), 1_000_000), Ok(()));
}

#[test]
fn headers_of_an_older_attempt_are_of_the_past() {
    let mut caps = Caps::default();
    let left = |remaining| RateHeaders {
        requests: Some(RateLimit { remaining, limit: None, reset: Duration::from_secs(5) }),
        tokens: None,
    };
    caps.headers(at(10), at(20), &left(5));
    caps.headers(at(0), at(30), &left(0));
    assert_eq!(caps.admits(at(30), 0), Ok(()));
    caps.headers(at(11), at(31), &left(0));
    assert_eq!(caps.admits(at(31), 0), Err(at(5_031)));
}

#[derive(Clone, Debug)]
enum Event {
    Begin(u64),
    Refused(u64),
    Accepted(u64),
    Headers { remaining: u64, limit: Option<u64>, reset_ms: u64 },
}

fn event() -> impl Strategy<Value = (u64, Event)> {
    let kind = prop_oneof![
        4 => (0_u64..10_000).prop_map(Event::Begin),
        2 => (0_u64..20_000).prop_map(Event::Refused),
        4 => (0_u64..20_000).prop_map(Event::Accepted),
        1 => (any::<u64>(), any::<Option<u64>>(), 1_u64..400_000)
            .prop_map(|(remaining, limit, reset_ms)| Event::Headers { remaining, limit, reset_ms }),
    ];
    (0_u64..3_000, kind)
}

proptest! {
    /// Whatever happens, traffic is never shut out for good: the moment named is in the
    /// future, near, and then something has opened.
    #[test]
    fn what_is_held_back_is_let_through_soon(events in prop::collection::vec(event(), 1..200)) {
        let mut caps = Caps::default();
        let mut now = 0;
        for (later, event) in events {
            now += later;
            match event {
                Event::Begin(tokens) => caps.begin(at(now), tokens),
                Event::Refused(ago) => caps.refused(at(now.saturating_sub(ago)), at(now)),
                Event::Accepted(ago) => caps.accepted(at(now.saturating_sub(ago)), at(now)),
                Event::Headers { remaining, limit, reset_ms } => {
                    let reset = Duration::from_millis(reset_ms);
                    let limit = RateLimit { remaining, limit, reset };
                    caps.headers(at(now), at(now), &RateHeaders { requests: Some(limit), tokens: Some(limit) });
                }
            }
            if let Err(until) = caps.admits(at(now), 500) {
                prop_assert!(until > at(now) && until <= at(now + 60_000));
            }
            if let Some(cap) = caps.view(at(now)) {
                prop_assert!(cap.per_second.is_finite() && cap.per_second >= FLOOR);
            }
            prop_assert_eq!(caps.admits(at(now + 60_000), u64::MAX), Ok(()));
        }
    }
}
