//! The agent's reports against a control plane that forgets, delays and breaks off.

use trunkline_routing::{
    classify::OutcomeClass,
    money::{NanoUsd, Tokens},
};

use super::*;

fn record(recorder: &Recorder, count: u64) {
    for _ in 0..count {
        recorder.record(AttemptSample {
            deployment: "a/d".into(),
            model: "chat".into(),
            outcome: OutcomeClass::Ok,
            ttft: None,
            duration: Duration::from_millis(5),
            tokens: Some((Tokens { input: 3, cached_input: 0, output: 4 }, UsageSource::Provider)),
            cost: Some(NanoUsd(10)),
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
