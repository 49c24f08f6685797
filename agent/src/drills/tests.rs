//! What a drill takes hold of, and when it is over.

use rand::{SeedableRng as _, rngs::StdRng};
use trunkline_proto::types::v1::{ControlPlaneLossFault, CutFault, StallFault};

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

fn fault(name: &str, effect: fault::Effect) -> Fault {
    Fault { name: name.to_owned(), effect: Some(effect), ..Fault::default() }
}

fn stall(name: &str) -> Fault {
    fault(name, fault::Effect::Stall(StallFault {}))
}

fn lasting(fault: Fault, ends: Instant) -> control::Drill {
    control::Drill { fault, ends }
}

fn drills(faults: impl IntoIterator<Item = Fault>) -> Drills {
    let drills = Drills::default();
    let now = Instant::now();
    let wanted: Vec<_> = faults.into_iter().map(|fault| lasting(fault, now + MINUTE)).collect();
    drills.set(&wanted, now);
    drills
}

fn name_of(hold: Option<Hold>) -> Option<String> {
    hold.map(|hold| hold.name.to_string())
}

#[tokio::test(start_paused = true)]
async fn drill_takes_what_it_names_and_nothing_else() {
    let rng = &mut StdRng::seed_from_u64(1);
    let one = Fault { deployments: vec!["a/m".into()], ..stall("x") };
    let provider = Fault { deployments: vec!["a".into(), "b".into()], ..stall("x") };
    let model = Fault { virtual_models: vec!["chat".into()], ..stall("x") };
    let both = Fault { deployments: vec!["a".into()], ..model.clone() };
    for (fault, deployment, model, taken) in [
        (stall("x"), "a/m", Some("chat"), true),
        (stall("x"), "a/m", None, true),
        (one.clone(), "a/m", None, true),
        (one.clone(), "a/mm", None, false),
        (one, "b/m", None, false),
        (provider.clone(), "b/else", None, true),
        (provider.clone(), "a/x/y", None, true),
        (provider, "ab/m", None, false),
        (model.clone(), "a/m", Some("chat"), true),
        (model.clone(), "a/m", Some("chats"), false),
        // A pin of the same name is no virtual model.
        (model, "chat", None, false),
        (both.clone(), "a/m", Some("chat"), true),
        (both, "b/m", Some("chat"), false),
    ] {
        let held = drills([fault.clone()]).hold(deployment, model, rng);
        assert_eq!(held.is_some(), taken, "{fault:?} {deployment} {model:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn half_of_the_attempts_is_about_half() {
    let rng = &mut StdRng::seed_from_u64(7);
    let taken = |percent, rng: &mut StdRng| {
        let drills = drills([Fault { percent, ..stall("x") }]);
        (0..400).filter(|_| drills.hold("a/m", None, rng).is_some()).count()
    };
    // Seven standard deviations to each side.
    assert!((130..=270).contains(&taken(50, rng)));
    assert_eq!((taken(0, rng), taken(100, rng)), (400, 400));
    assert!((1..=30).contains(&taken(1, rng)));
}

#[tokio::test(start_paused = true)]
async fn first_by_name_takes_an_attempt_and_the_loss_of_the_control_plane_takes_none() {
    let rng = &mut StdRng::seed_from_u64(1);
    let loss = fault("a", fault::Effect::ControlPlaneLoss(ControlPlaneLossFault {}));
    let cut = fault("b", fault::Effect::Cut(CutFault { after_bytes: 9 }));
    let all = drills([stall("c"), cut, loss.clone()]);
    assert_eq!(name_of(all.hold("a/m", None, rng)).as_deref(), Some("b"));
    assert_eq!(all.active(Instant::now()).len(), 3);
    let none = drills([loss]);
    assert!(none.hold("a/m", None, rng).is_none());
    assert_eq!(none.active(Instant::now())[0].effect, Effect::ControlPlaneLoss);
}

#[tokio::test(start_paused = true)]
async fn drill_is_over_in_time_though_nobody_says_so() {
    let rng = &mut StdRng::seed_from_u64(1);
    let drills = drills([stall("x")]);
    let held = drills.hold("a/m", None, rng).unwrap();
    tokio::time::advance(MINUTE).await;
    assert!(drills.hold("a/m", None, rng).is_none());
    assert!(drills.active(Instant::now()).is_empty());
    // Whoever it holds is let go when the task that obeys looks at it.
    assert!(!held.over.is_cancelled());
    drills.set(&[lasting(stall("x"), Instant::now())], Instant::now());
    assert!(held.over.is_cancelled() && drills.next_end().is_none());
}

#[tokio::test(start_paused = true)]
async fn the_same_drill_goes_on_and_another_of_its_name_lets_go() {
    let rng = &mut StdRng::seed_from_u64(1);
    let drills = drills([stall("x")]);
    let held = drills.hold("a/m", None, rng).unwrap();
    let now = Instant::now();
    // Published again: less time is left.
    drills.set(&[lasting(stall("x"), now + MINUTE / 2)], now);
    assert!(!held.over.is_cancelled());
    assert_eq!(drills.next_end(), Some(now + MINUTE / 2));
    drills.set(&[lasting(Fault { percent: 3, ..stall("x") }, now + MINUTE)], now);
    assert!(held.over.is_cancelled());
    assert_eq!(drills.active(now).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_this_agent_does_not_know_is_no_drill() {
    let latency = |seconds| fault("x", fault::Effect::Latency(prost_types::Duration { seconds, nanos: 0 }));
    for unknown in [
        Fault { name: "x".into(), ..Fault::default() },
        fault("x", fault::Effect::ErrorStatus(200)),
        fault("x", fault::Effect::ErrorStatus(70_000)),
        latency(-1),
    ] {
        assert!(drills([unknown.clone()]).active(Instant::now()).is_empty(), "{unknown:?}");
    }
    let longest = &drills([latency(1 << 40)]).active(Instant::now())[0];
    assert_eq!(longest.effect, Effect::Latency(LATENCY_MAX));
}

#[tokio::test(start_paused = true)]
async fn drills_end_in_time_and_service_stays_as_it_was_without_a_control_plane() {
    let recorder = Arc::new(crate::control::Recorder::new());
    let shared = Arc::new(Shared::new(recorder, CancellationToken::new()));
    let faults = vec![lasting(stall("x"), Instant::now() + MINUTE)];
    let orders = Orders { faults, out_of_service: Some("upgrade".into()) };
    let (orders_in, orders_out) = watch::channel(Arc::new(orders));
    drop(orders_in);
    let stop = CancellationToken::new();
    let obeying = tokio::spawn(obey(Arc::clone(&shared), orders_out, stop.clone()));
    tokio::time::sleep(MINUTE / 2).await;
    let held = shared.drills.hold("a/m", None, &mut rand::rng()).unwrap();
    let waited = Instant::now();
    held.over.cancelled().await;
    assert_eq!(waited.elapsed().as_secs(), 30);
    assert!(shared.duty.is_off());
    stop.cancel();
    obeying.await.unwrap();
}
