//! Plays a plan: waits, sends, and ends it as planned. The body is a stream that
//! hyper drops when the client leaves, and the call guard in it notices that.

use std::{collections::VecDeque, io, pin::Pin};

use bytes::Bytes;
use futures_util::{Stream, stream};
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::StreamBody;
use hyper::body;
use tokio::{sync::mpsc, time::Instant};

use super::{
    answer::Frame,
    counters::OpenCall,
    plan::{Ending, Head, Plan},
};

/// A body as hyper takes it.
pub(super) type Body = StreamBody<Pin<Box<dyn Stream<Item = io::Result<body::Frame<Bytes>>> + Send>>>;

/// What an answer asks of the connection it is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// RST, now.
    Reset,
    /// Close after this answer, without a word in its head.
    CloseAfterAnswer,
}

/// Waits for the head's time, then answers with a body that plays the rest.
pub(super) async fn play(
    plan: Plan,
    request_id: &str,
    mut call: OpenCall,
    orders: mpsc::Sender<Order>,
) -> Response<Body> {
    match plan.head {
        Head::After(delay) => {
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
        }
        Head::Never => std::future::pending().await,
        Head::Reset => reset(&mut call, &orders).await,
    }
    let status = StatusCode::from_u16(plan.status).ok().filter(|status| !status.is_informational());
    let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    call.head_sent(status.as_u16(), plan.stream, plan.input_tokens);
    let mut response = Response::new(());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(plan.content_type));
    if let Some(length) = plan.length {
        headers.insert(header::CONTENT_LENGTH, length.into());
    }
    if plan.stream {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    }
    for (name, value) in [("x-request-id", Some(request_id)), ("retry-after", plan.retry_after.as_deref())] {
        if let Some(value) = value.and_then(|value| HeaderValue::from_str(value).ok()) {
            headers.insert(name, value);
        }
    }
    response.map(|()| body(plan, call, orders))
}

fn body(plan: Plan, call: OpenCall, orders: mpsc::Sender<Order>) -> Body {
    let player = Player {
        frames: plan.frames.into(),
        ending: plan.ending,
        drip: plan.drip,
        close_after: plan.close_after,
        due: Instant::now(),
        call,
        orders,
    };
    let pieces = stream::unfold(player, |mut player| async move {
        let piece = player.next().await?;
        Some((piece.map(body::Frame::data), player))
    });
    StreamBody::new(Box::pin(pieces))
}

struct Player {
    frames: VecDeque<Frame>,
    ending: Ending,
    drip: bool,
    close_after: bool,
    /// When the newest frame was due; waits count from here, so that a timer's
    /// rounding does not add up over an answer.
    due: Instant,
    call: OpenCall,
    orders: mpsc::Sender<Order>,
}

impl Player {
    /// The next piece of the body; none at its normal end.
    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        let Some(mut frame) = self.frames.pop_front() else { return self.end().await };
        if !frame.wait.is_zero() {
            self.due += frame.wait;
            tokio::time::sleep_until(self.due).await;
        }
        if self.drip {
            // hyper writes out what it has whenever the body is not ready.
            tokio::task::yield_now().await;
            let rest = frame.bytes.split_off(frame.bytes.len().min(1));
            if !rest.is_empty() {
                let bytes = std::mem::replace(&mut frame.bytes, rest);
                frame.wait = std::time::Duration::ZERO;
                self.frames.push_front(frame);
                return Some(Ok(bytes));
            }
        }
        self.call.sent(frame.tokens);
        if self.frames.is_empty() && self.ending == Ending::Normal {
            // Here and not at the end: with a Content-Length nobody asks for more.
            self.complete();
        }
        Some(Ok(frame.bytes))
    }

    async fn end(&mut self) -> Option<io::Result<Bytes>> {
        // So that all that was sent so far is on the wire.
        tokio::task::yield_now().await;
        match self.ending {
            Ending::Normal => {
                self.complete();
                None
            }
            Ending::Hang => std::future::pending().await,
            Ending::Reset => reset(&mut self.call, &self.orders).await,
            Ending::Cut => {
                self.call.break_off();
                Some(Err(io::Error::new(io::ErrorKind::ConnectionAborted, "cut off as planned")))
            }
        }
    }

    fn complete(&mut self) {
        self.call.complete();
        if self.close_after {
            give(&self.orders, Order::CloseAfterAnswer);
        }
    }
}

async fn reset<T>(call: &mut OpenCall, orders: &mpsc::Sender<Order>) -> T {
    call.break_off();
    give(orders, Order::Reset);
    std::future::pending().await
}

/// A full queue means that the connection already has an order that ends it.
fn give(orders: &mpsc::Sender<Order>, order: Order) {
    orders.try_send(order).ok();
}
