//! What a purse holds, over periods and leases.

use super::*;

const T0: Timestamp = Timestamp::from_nanos(1_000_000_000);

fn word(start: u64, granted: u64, obtainable: u64) -> Word {
    let span = Span { period: Period::Hour, start };
    Word { span, remaining: Duration::from_secs(10), granted, obtainable, scarce: false }
}

/// As it is once the disk has what it asked for.
fn settle(held: &Held, now: Timestamp) {
    while let (Some(note), true) = held.note(now) {
        held.noted(&note);
    }
}

#[test]
fn money_is_of_one_period_and_so_is_what_it_pays() {
    let held = Held::new(Period::Hour, T0);
    assert_eq!(held.offer(40, T0), Offer::Wait);
    held.begin_wait(40);
    held.hear(&word(0, 100, 100), T0);
    settle(&held, T0);
    held.end_wait(40);
    let Offer::Reserved(first) = held.offer(40, T0) else { panic!("there is money") };

    let later = T0 + Duration::from_secs(10);
    assert_eq!(held.offer(40, later), Offer::Wait, "another period's money is none");
    held.begin_wait(40);
    held.spend(first, 30, 30, later);
    let claims = held.claims(false, later);
    assert_eq!(claims.len(), 2);
    assert_eq!((claims[0].span.map(|span| span.start), claims[0].account.spent), (Some(0), 30));
    assert_eq!((claims[1].span, claims[1].account.spent), (None, 0));
    held.hear(&word(3_600, 50, 50), later);
    settle(&held, later);
    assert!(matches!(held.offer(40, later), Offer::Reserved(second) if second != first));
}

#[test]
fn a_period_is_kept_until_all_that_began_in_it_is_paid() {
    let held = Held::new(Period::Hour, T0);
    held.begin_wait(40);
    held.hear(&word(0, 100, 100), T0);
    settle(&held, T0);
    held.end_wait(40);
    let Offer::Reserved(first) = held.offer(40, T0) else { panic!("there is money") };
    for hour in 1..=5 {
        let now = T0 + Duration::from_secs(10 * hour);
        held.hear(&word(3_600 * hour, 0, 100), now);
        held.claims(false, now);
    }
    let end = T0 + Duration::from_secs(55);
    held.spend(first, 30, 30, end);
    held.release(first, 10);
    held.close_one(first);
    let told = held.claims(false, end);
    assert!(
        told.iter().any(|claim| claim.span.is_some_and(|span| span.start == 0) && claim.account.spent == 30),
        "{told:?}"
    );
    // Paid and told of, it goes with the next period.
    held.hear(&word(3_600 * 6, 0, 100), T0 + Duration::from_secs(60));
    let kept = held.claims(true, T0 + Duration::from_secs(60));
    assert!(kept.iter().all(|claim| claim.span.is_none_or(|span| span.start > 0)), "{kept:?}");
}

#[test]
fn what_cannot_be_had_any_more_is_refused_at_once() {
    let held = Held::new(Period::Hour, T0);
    held.hear(&word(0, 10, 30), T0);
    settle(&held, T0);
    assert_eq!(held.offer(30, T0), Offer::Wait);
    assert_eq!(held.offer(31, T0), Offer::Never);
}

#[test]
fn a_lease_ends_a_day_after_the_ledger_was_last_heard() {
    let held = Held::new(Period::Month, T0);
    let span = Span { period: Period::Month, start: 0 };
    let remaining = Duration::from_secs(30 * 24 * 3_600);
    held.begin_wait(1_000);
    held.hear(&Word { span, remaining, granted: 1_000, obtainable: 1_000, scarce: false }, T0);
    held.end_wait(1_000);
    held.force(500, T0);
    let later = T0 + LEASE_FOR + Duration::from_secs(1);
    assert_eq!(held.offer(100, later), Offer::Wait);
    assert_eq!(held.close().unwrap().account.outstanding(), 500, "what is under way is kept");
}
