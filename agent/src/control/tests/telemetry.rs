//! The agent's reports against a control plane that forgets, delays and breaks off.

use trunkline_routing::{
    classify::OutcomeClass,
    money::{NanoUsd, Tokens},
};

use super::*;

pub(super) fn record(recorder: &Recorder, count: u64) {
    for _ in 0..count {
        recorder.record(AttemptSample {
            deployment: "a/d".into(),
            model: "chat".into(),
            outcome: OutcomeClass::Ok,
            ttft: None,
            duration: Duration::from_millis(5),
            tokens: Some((Tokens { input: 3, cached_input: 0, output: 4 }, UsageSource::Provider)),
            cost: Some(NanoUsd(10)),
            faulted: false,
            was_running: false,
            own_pace: true,
            stream: false,
            input_tokens: 3,
            max_output_tokens: None,
            in_flight: 1,
            predicted_ttft: None,
        });
    }
}

fn acked(seq: u64) -> StreamReportsResponse {
    StreamReportsResponse { acked_seq: seq, ..StreamReportsResponse::default() }
}

#[tokio::test]
async fn totals_are_exact_when_streams_break_and_acknowledgements_come_late() {
    let mut world = World::new().await;
    let shutdown = CancellationToken::new();
    let agent = world.start_telemetry(&shutdown);
    // By number: what a control plane that merges once has.
    let mut merged: Vec<StreamReportsRequest> = Vec::new();
    let mut recorded = 0;
    for round in 1..=3 {
        let mut stream = world.accept_reports().await;
        record(&world.recorder, 7 * round);
        recorded += 7 * round;
        // Each stream takes the old ones again and at least two new ones, then breaks.
        let enough = merged.len() + 2;
        while merged.len() < enough {
            let report = stream.next().await;
            if let Some(known) = merged.get(report.seq as usize - 1) {
                assert_eq!(*known, report, "a report changed");
                continue;
            }
            assert_eq!(report.seq as usize, merged.len() + 1, "a gap");
            merged.push(report);
            record(&world.recorder, 1);
            recorded += 1;
        }
        // Late: all but the last three.
        stream.answer(acked((merged.len() as u64).saturating_sub(3))).await;
    }
    shutdown.cancel();
    let deadline = tokio::time::sleep(LIMIT);
    tokio::pin!(agent, deadline);
    loop {
        // The agent ends by itself once everything is acknowledged.
        let mut stream = tokio::select! {
            biased;
            ended = &mut agent => break ended.unwrap(),
            Some(stream) = world.reports.recv() => stream,
            () = &mut deadline => panic!("the agent doesn't end"),
        };
        while let Ok(Some(report)) = stream.requests.message().await {
            match merged.get(report.seq as usize - 1) {
                Some(known) => assert_eq!(*known, report, "a report changed"),
                None => merged.push(report),
            }
            stream.answers.send(Ok(acked(merged.len() as u64))).await.ok();
        }
    }
    let targets = || merged.iter().flat_map(|report| &report.targets);
    let attempts: u64 = targets().flat_map(|target| &target.outcomes).map(|outcome| outcome.count).sum();
    assert_eq!(attempts, recorded);
    assert_eq!(targets().map(|target| target.output_tokens).sum::<u64>(), 4 * recorded);
    assert_eq!(targets().map(|target| target.cost_nano_usd).sum::<u64>(), 10 * recorded);
}

#[tokio::test]
async fn resend_starts_at_the_first_unacknowledged_report() {
    let mut world = World::new().await;
    let shutdown = CancellationToken::new();
    let agent = world.start_telemetry(&shutdown);
    let mut stream = world.accept_reports().await;
    let mut first = Vec::new();
    for _ in 0..3 {
        record(&world.recorder, 1);
        first.push(stream.next().await);
    }
    let resend = StreamReportsResponse { resend_from_first_unacked: true, ..acked(1) };
    stream.answer(resend).await;
    assert_eq!(stream.next().await, first[1]);
    assert_eq!(stream.next().await, first[2]);
    agent.abort();
}

#[tokio::test]
async fn the_last_window_is_flushed() {
    let mut world = World::new().await;
    // No window would close by itself.
    world.report_interval.send_replace(Duration::from_secs(60));
    let shutdown = CancellationToken::new();
    let agent = world.start_telemetry(&shutdown);
    let mut stream = world.accept_reports().await;
    let hello = stream.next().await;
    stream.answer(acked(hello.seq)).await;
    record(&world.recorder, 3);
    shutdown.cancel();
    let mut stream = world.accept_reports().await;
    let mut last = stream.next().await;
    if last.seq == hello.seq {
        // Its acknowledgement was still on the way.
        last = stream.next().await;
    }
    let counted: Vec<_> = last.targets.iter().map(|target| target.outcomes[0].count).collect();
    assert_eq!(counted, [3]);
    stream.answer(acked(last.seq)).await;
    timeout(LIMIT, agent).await.expect("ends once acknowledged").unwrap();
}

fn counted(reports: &[StreamReportsRequest]) -> u64 {
    let targets = reports.iter().flat_map(|report| &report.targets);
    targets.flat_map(|target| &target.outcomes).map(|outcome| outcome.count).sum()
}

/// As if killed: nothing is flushed.
async fn kill(agent: tokio::task::JoinHandle<()>) {
    agent.abort();
    agent.await.unwrap_err();
}

#[tokio::test]
async fn a_killed_agent_sends_again_what_was_numbered_and_then_what_was_not() {
    let mut world = World::new().await;
    let shutdown = CancellationToken::new();
    let agent = world.start_telemetry(&shutdown);
    let mut stream = world.accept_reports().await;
    let mut first = Vec::new();
    for _ in 0..3 {
        record(&world.recorder, 5);
        first.push(stream.next().await);
    }
    stream.answer(acked(1)).await;
    // Nothing is sent in a pause, and what is counted is kept without a number.
    let pause = Some(prost_types::Duration { seconds: 60, nanos: 0 });
    stream.answer(StreamReportsResponse { pause_for: pause, ..acked(1) }).await;
    let spool = super::super::spool::Spool::new(world.directory.path().join(SPOOL_FILE));
    record(&world.recorder, 4);
    let kept = async {
        loop {
            let held = spool.load(SystemTime::now()).backlog;
            if held.waiting().count() == 1 && held.numbered().len() == 2 {
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    timeout(LIMIT, kept).await.expect("kept on disk");
    kill(agent).await;
    drop(stream);

    let before = world.identity.incarnation.clone();
    world.identity = Arc::new(Identity { incarnation: "after".to_owned(), ..(*world.identity).clone() });
    let agent = world.start_telemetry(&shutdown);
    let mut stream = world.accept_reports().await;
    assert_eq!([stream.next().await, stream.next().await], first[1..]);
    assert!(first.iter().all(|report| report.incarnation == before && report.end_time.is_some()));
    stream.answer(acked(3)).await;
    // Acknowledgements don't name an incarnation: the next one has a stream of its own.
    let mut stream = world.accept_reports().await;
    let report = stream.next().await;
    assert_eq!((report.incarnation.as_str(), report.seq), ("after", 1));
    assert_eq!(counted(std::slice::from_ref(&report)), 4);
    assert!(report.lost_before.is_some(), "the end without a stop is told");
    stream.answer(acked(1)).await;
    record(&world.recorder, 1);
    let report = stream.next().await;
    assert_eq!((report.seq, report.lost_before), (2, None));
    stream.answer(acked(2)).await;

    let done = async {
        while !spool.load(SystemTime::now()).backlog.is_empty() {
            tokio::task::yield_now().await;
        }
    };
    timeout(LIMIT, done).await.expect("acknowledged on disk");

    // After a stop in order nothing is lost.
    shutdown.cancel();
    timeout(LIMIT, agent).await.expect("ends").unwrap();
    let left = spool.load(SystemTime::now());
    assert!(left.backlog.is_empty() && left.lost.is_none());
}

#[tokio::test]
async fn a_pause_and_a_new_interval_are_obeyed_at_once() {
    let mut world = World::new().await;
    world.report_interval.send_replace(Duration::from_secs(60));
    let shutdown = CancellationToken::new();
    let agent = world.start_telemetry(&shutdown);
    let mut stream = world.accept_reports().await;
    let opening = stream.next().await;
    let quick = Some(prost_types::Duration { seconds: 0, nanos: 50_000_000 });
    stream.answer(StreamReportsResponse { report_interval: quick, ..acked(opening.seq) }).await;
    record(&world.recorder, 1);
    // It would have come after a minute.
    let second = stream.next().await;
    let begin = tokio::time::Instant::now();
    let pause = Duration::from_millis(300);
    let answer = StreamReportsResponse {
        pause_for: Some(duration_to_wire(pause)),
        resend_from_first_unacked: true,
        ..acked(opening.seq)
    };
    stream.answer(answer).await;
    record(&world.recorder, 2);
    assert_eq!(stream.next().await, second, "sent again");
    assert!(begin.elapsed() >= pause, "the pause was not kept");
    assert_eq!(counted(&[stream.next().await]), 2);
    agent.abort();
}

#[tokio::test]
async fn what_a_stop_could_not_flush_is_sent_by_the_next_start() {
    let mut world = World::new().await;
    let shutdown = CancellationToken::new();
    let agent = world.start_telemetry(&shutdown);
    let mut stream = world.accept_reports().await;
    record(&world.recorder, 3);
    let mut sent = vec![stream.next().await];
    shutdown.cancel();
    timeout(LIMIT, agent).await.expect("ends without an acknowledgement").unwrap();
    drop(stream);
    while world.reports.try_recv().is_ok() {}

    world.identity = Arc::new(Identity { incarnation: "after".to_owned(), ..(*world.identity).clone() });
    let agent = world.start_telemetry(&CancellationToken::new());
    let mut stream = world.accept_reports().await;
    while counted(&sent) < 3 {
        let report = stream.next().await;
        if let Some(known) = sent.iter().find(|known| known.seq == report.seq) {
            assert_eq!(*known, report);
            continue;
        }
        sent.push(report);
    }
    assert_eq!(counted(&sent), 3);
    agent.abort();
}

#[tokio::test]
async fn what_was_numbered_under_another_name_is_counted_under_the_new_one() {
    let mut world = World::new().await;
    let shutdown = CancellationToken::new();
    let agent = world.start_telemetry(&shutdown);
    let mut stream = world.accept_reports().await;
    record(&world.recorder, 3);
    let mut before = vec![stream.next().await];
    while counted(&before) < 3 {
        before.push(stream.next().await);
    }
    kill(agent).await;
    drop(stream);

    let (agent_id, incarnation) = ("agent-1".to_owned(), "after".to_owned());
    world.identity = Arc::new(Identity { agent_id, incarnation, ..(*world.identity).clone() });
    let agent = world.start_telemetry(&shutdown);
    let mut stream = world.accept_reports().await;
    record(&world.recorder, 2);
    let mut after = Vec::new();
    while counted(&after) < 5 {
        after.push(stream.next().await);
    }
    assert_eq!(counted(&after), 5);
    for (at, report) in after.iter().enumerate() {
        let whose = (report.agent_id.as_str(), report.incarnation.as_str(), report.seq);
        assert_eq!(whose, ("agent-1", "after", at as u64 + 1));
    }
    agent.abort();
}

#[tokio::test]
async fn counts_are_on_disk_long_before_a_report_is_due() {
    let mut world = World::new().await;
    // No report is due while the test runs.
    world.report_interval.send_replace(Duration::from_secs(60));
    let agent = world.start_telemetry(&CancellationToken::new());
    let mut stream = world.accept_reports().await;
    let opening = stream.next().await;
    stream.answer(acked(opening.seq)).await;
    let spool = super::super::spool::Spool::new(world.directory.path().join(SPOOL_FILE));
    for sum in [3, 7] {
        record(&world.recorder, if sum == 3 { 3 } else { 4 });
        let kept = async {
            loop {
                let held = spool.load(SystemTime::now()).backlog;
                let outcomes = || held.waiting().flat_map(|one| &one.targets).flat_map(|one| &one.outcomes);
                if outcomes().map(|outcome| outcome.count).sum::<u64>() == sum {
                    assert_eq!(held.waiting().count(), 1, "one report is due for all of it");
                    break;
                }
                tokio::task::yield_now().await;
            }
        };
        timeout(LIMIT, kept).await.expect("kept on disk");
    }
    agent.abort();
}
