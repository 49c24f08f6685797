//! Every fault, and clients that leave.

use std::{io, time::Duration};

use serde_json::{Value, json};
use tokio::{io::AsyncReadExt, net::TcpStream};
use trunkline_simulator::live::{ErrorBody, Fault, LiveProvider};

use crate::harness::{TOKENS, contents, events, model, read_until, start, start_with, within};

#[tokio::test]
async fn status_faults_have_their_body_and_retry_after() {
    let server = start_with(Fault::status(503)).await;
    assert_eq!(server.chat(true).await.unwrap().status(), 503);
    let body = ErrorBody::Custom("<oops>".into());
    server.provider.set_fault(Some(Fault::Status { code: 429, body, retry_after: Some("7".to_owned()) }));
    let answer = server.chat(false).await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers()["retry-after"].to_str().unwrap()), (429, "7"));
    assert_eq!(answer.text().await.unwrap(), "<oops>");
    server.provider.set_fault(None);
    assert_eq!(server.chat(false).await.unwrap().status(), 200);
}

#[tokio::test]
async fn queued_faults_are_used_up_one_per_request() {
    let server = start(LiveProvider::new(model(), 1)).await;
    assert_eq!(server.provider.queue_faults([Some(Fault::status(500)), None, Some(Fault::status(502))]), 3);
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(server.chat(false).await.unwrap().status().as_u16());
    }
    assert_eq!(statuses, [500, 200, 502, 200]);
}

#[tokio::test]
async fn faults_of_the_content_keep_the_http_answer_whole() {
    let server = start_with(Fault::Html200).await;
    let answer = server.chat(true).await.unwrap();
    assert_eq!(answer.headers()["content-type"], "text/html; charset=utf-8");
    for stream in [true, false] {
        server.provider.set_fault(Some(Fault::FirstEventError { code: json!(502) }));
        let answer = server.chat(stream).await.unwrap();
        assert_eq!(answer.status(), 200);
        let text = answer.text().await.unwrap();
        let error = if stream { events(&text).remove(0) } else { serde_json::from_str(&text).unwrap() };
        assert_eq!(error["error"]["code"], 502);
        assert!(!text.contains("[DONE]"));
    }
    server.provider.set_fault(Some(Fault::Empty));
    let (text, ended) = server.stream().await;
    assert_eq!((contents(&text), ended, text.ends_with("data: [DONE]\n\n")), (0, true, true));
    let answer: Value = server.chat(false).await.unwrap().json().await.unwrap();
    assert_eq!(answer["choices"][0]["message"]["content"], "");
    server.provider.set_fault(Some(Fault::MissingDone));
    let (text, ended) = server.stream().await;
    assert_eq!((contents(&text) as u64, ended, text.contains("[DONE]")), (TOKENS, true, false));
    server.provider.set_fault(Some(Fault::Malformed));
    let (text, ended) = server.stream().await;
    assert!(ended && serde_json::from_str::<Value>(text.rsplit("data: ").next().unwrap()).is_err());
    assert!(server.chat(false).await.unwrap().json::<Value>().await.is_err());
    server.provider.set_fault(Some(Fault::ErrorAfterTokens(3)));
    let (text, ended) = server.stream().await;
    assert_eq!((contents(&text), ended, text.contains("[DONE]")), (3, true, false));
    assert_eq!(events(&text).last().unwrap()["error"]["code"], "server_error");
}

#[tokio::test]
async fn a_reset_is_a_reset_and_comes_before_any_byte() {
    let server = start_with(Fault::Reset).await;
    let mut connection = server.raw(true).await;
    let error = within(connection.read(&mut [0; 1])).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    let counters = server.provider.counters();
    assert_eq!((counters.broken, counters.cancelled, counters.in_flight), (1, 0, 0));
}

#[tokio::test]
async fn a_reset_in_the_middle_sends_half_and_then_rst() {
    let server = start_with(Fault::ResetMidBody).await;
    for stream in [true, false] {
        let mut connection = server.raw(stream).await;
        let mut text = Vec::new();
        let error = within(connection.read_to_end(&mut text)).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains("This") && !text.contains("usage"), "stream {stream}: {text:?}");
    }
}

#[tokio::test]
async fn a_cut_ends_without_the_final_chunk() {
    let server = start_with(Fault::CutAfterTokens(4)).await;
    let (text, ended) = server.stream().await;
    assert_eq!((contents(&text), ended), (4, false));
    assert!(server.chat(false).await.unwrap().bytes().await.is_err());
    assert_eq!(server.provider.counters().broken, 2);
    assert_eq!(server.provider.counters().output_tokens, 4);
}

/// In each silent phase the client leaves, and that is noticed and counted.
#[tokio::test]
async fn a_client_that_leaves_is_noticed_in_every_phase() {
    let phases: [(Fault, bool, &str); 6] = [
        (Fault::Silent, true, ""),
        (Fault::Silent, false, ""),
        (Fault::HeadersThenSilent, true, "\r\n\r\n"),
        (Fault::RoleThenSilent, true, "assistant"),
        (Fault::StallAfterTokens(2), true, "\" is\""),
        (Fault::SlowFirstToken(Duration::from_hours(1)), true, "assistant"),
    ];
    for (fault, stream, sign) in phases {
        let server = start_with(fault.clone()).await;
        let mut connection = server.raw(stream).await;
        within(server.provider.wait_for(|counters| counters.in_flight == 1)).await;
        let text = read_until(&mut connection, sign).await;
        assert!(!text.contains("[DONE]"), "{fault:?}");
        assert_eq!(server.provider.counters().cancelled, 0, "{fault:?}");
        let left = std::time::Instant::now();
        drop(connection);
        let counters = within(server.provider.wait_for(|counters| counters.cancelled == 1)).await;
        assert_eq!((counters.in_flight, counters.broken, counters.streams_completed), (0, 0, 0), "{fault:?}");
        let noticed = server.provider.seen(0).unwrap().closed_early.unwrap() - left;
        assert!(noticed < Duration::from_millis(500), "{fault:?}: {noticed:?}");
    }
}

#[tokio::test]
async fn dripped_bytes_add_up_to_the_whole_answer() {
    let server = start_with(Fault::DripBytes).await;
    let (text, ended) = server.stream().await;
    assert_eq!((contents(&text) as u64, ended, text.ends_with("data: [DONE]\n\n")), (TOKENS, true, true));
    let answer: Value = server.chat(false).await.unwrap().json().await.unwrap();
    assert_eq!(answer["usage"]["completion_tokens"], TOKENS);
    assert_eq!(server.provider.counters().output_tokens, 2 * TOKENS);
    let mut connection = server.raw(true).await;
    let raw = read_until(&mut connection, "0\r\n\r\n").await;
    assert!(raw.contains("1\r\nd\r\n1\r\na\r\n1\r\nt\r\n"), "one byte to a chunk");
}

#[tokio::test]
async fn close_idle_closes_without_announcing_it() {
    let server = start_with(Fault::CloseIdle).await;
    for stream in [true, false] {
        let mut text = String::new();
        within(server.raw(stream).await.read_to_string(&mut text)).await.unwrap();
        assert!(text.contains("chatcmpl-test") && !text.to_lowercase().contains("connection: close"));
    }
    assert_eq!(server.provider.counters().cancelled, 0);
}

#[tokio::test]
async fn a_slow_first_token_comes_late_and_whole() {
    let server = start_with(Fault::SlowFirstToken(Duration::from_millis(200))).await;
    for stream in [true, false] {
        let begun = std::time::Instant::now();
        assert!(server.chat(stream).await.unwrap().text().await.unwrap().contains("simulated"));
        assert!(begun.elapsed() >= Duration::from_millis(200));
    }
}

#[tokio::test]
async fn shutdown_ends_idle_connections_and_a_dropped_server_is_gone_at_once() {
    let server = start(LiveProvider::new(model(), 1)).await;
    let mut connection = server.raw(false).await;
    read_until(&mut connection, "usage").await;
    server.shutdown.cancel();
    within(server.task).await.unwrap();
    assert_eq!(within(connection.read(&mut [0; 1])).await.unwrap(), 0);

    let server = start_with(Fault::StallAfterTokens(1)).await;
    let mut connection = server.raw(true).await;
    read_until(&mut connection, "This").await;
    server.task.abort();
    let counters = within(server.provider.wait_for(|counters| counters.in_flight == 0)).await;
    assert_eq!((counters.cancelled, counters.broken), (0, 1));
    assert!(matches!(within(connection.read(&mut [0; 1])).await, Ok(0) | Err(_)));
    assert!(TcpStream::connect(server.address).await.is_err());
}
