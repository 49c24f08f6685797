//! A stream after its first content: passes events on, watches for silence, notes
//! usage, and ends in one of two ways: as the provider ended it, or with one error
//! event. No other target can take over any more.

use std::{future::poll_fn, pin::Pin, sync::Arc, task::Poll, time::Duration};

use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderMap;
use http_body::Body as _;
use parking_lot::Mutex;
use tokio::time::{Instant, Sleep, sleep_until};
use trunkline_routing::{
    breaker::Sample,
    classify::{
        BodyFault, BreakerCount, Classified, OutcomeClass, TransportFault, classify_body,
        classify_mid_stream, classify_transport,
    },
    money::Tokens,
    registry::Ticket,
    request::AttemptId,
    table::Timeouts,
};

use super::{
    Job, account,
    attempt::{Opened, Progress},
    observation,
};
use crate::{
    control::UsageSource,
    decisions::DecisionRecord,
    openai::{
        error_body,
        event::{self, EventFacts},
        sse::Splitter,
    },
    shared::{InFlight, Shared},
    upstream::UpstreamBody,
};

/// After the last event the provider's end of the answer is awaited for so long, to
/// keep the connection.
const END_WITHIN: Duration = Duration::from_secs(1);

/// An answer is learned from if data waited for its reader for less than this, or than this
/// part of the answer's time.
const AWAY_MAX: Duration = Duration::from_millis(20);
const AWAY_SHARE: u32 = 20;

/// The rest of a stream.
#[derive(Debug)]
pub(crate) struct Tail {
    shared: Arc<Shared>,
    job: Arc<Job>,
    pub(crate) headers: HeaderMap,
    held: Option<Bytes>,
    /// None: what is left of it is read elsewhere, or not at all.
    body: Option<UpstreamBody>,
    splitter: Splitter,
    progress: Progress,
    timeouts: Timeouts,
    total: Instant,
    timer: Pin<Box<Sleep>>,
    /// Found in what was read, to be told after the events before it.
    broken: Option<Classified>,
    ticket: Ticket,
    ttft: Duration,
    pace: Pace,
    id: AttemptId,
    record: Option<Arc<Mutex<DecisionRecord>>>,
    over: bool,
    _in_flight: InFlight,
}

/// When data came from the provider, as far as the caller's own pace lets it be known: it is
/// read only when the caller has taken what came before.
#[derive(Debug)]
struct Pace {
    /// When data last came, or was found.
    last: Instant,
    /// When it was last looked for.
    looked: Instant,
    /// Whether it was looked for in vain since data last came: then the next comes when it
    /// is seen.
    awaited: bool,
    /// Sum of times in which data came that nobody looked for.
    away: Duration,
}

impl Pace {
    fn new() -> Self {
        let now = Instant::now();
        Self { last: now, looked: now, awaited: false, away: Duration::ZERO }
    }

    /// Takes note of a look.
    fn watch<T>(&mut self, seen: Poll<T>) -> Poll<T> {
        let now = Instant::now();
        match seen {
            Poll::Pending => self.awaited = true,
            Poll::Ready(_) => {
                if !self.awaited {
                    self.away += now - self.looked;
                }
                self.last = now;
                self.awaited = false;
            }
        }
        self.looked = now;
        seen
    }

    /// How long ago data last came, of an answer that took so long. None: its times say more
    /// of its reader.
    fn waited(&self, took: Duration) -> Option<Duration> {
        (self.away <= AWAY_MAX.max(took / AWAY_SHARE)).then(|| self.last.elapsed())
    }
}

enum Step {
    Pass(Bytes),
    More,
    End(Result<(), Classified>),
}

impl Tail {
    pub(super) fn new(
        shared: Arc<Shared>,
        job: Arc<Job>,
        opened: Opened,
        ticket: Ticket,
        ttft: Duration,
        id: AttemptId,
    ) -> Self {
        let in_flight = shared.enter();
        let total = opened.started + opened.timeouts.stream_total;
        let timer = Box::pin(sleep_until((Instant::now() + opened.timeouts.idle).min(total)));
        Self {
            shared,
            job,
            headers: opened.headers,
            held: Some(opened.held.freeze()),
            body: Some(opened.body),
            splitter: opened.splitter,
            progress: opened.progress,
            timeouts: opened.timeouts,
            total,
            timer,
            broken: None,
            ticket,
            ttft,
            pace: Pace::new(),
            id,
            record: None,
            over: false,
            _in_flight: in_flight,
        }
    }

    /// Where the account of the request is kept.
    pub(super) fn follow(&mut self, record: Arc<Mutex<DecisionRecord>>) {
        self.record = Some(record);
    }

    /// Tokens so far, as the provider said or by the bytes.
    pub(crate) fn used(&self) -> (Tokens, UsageSource) {
        self.job.tokens(self.progress.usage, self.progress.output_bytes)
    }

    /// The next piece, whole events only. None: the stream is over. An error event, if
    /// any, is the last piece.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        if let Some(held) = self.held.take() {
            return Some(held);
        }
        while !self.over {
            match self.step().await {
                Step::Pass(bytes) => return Some(bytes),
                Step::More => {}
                Step::End(Ok(())) => self.close(OutcomeClass::Ok, BreakerCount::Neutral),
                Step::End(Err(classified)) => {
                    self.close(classified.class, classified.breaker);
                    return Some(error_event());
                }
            }
        }
        None
    }

    async fn step(&mut self) -> Step {
        match self.take_events() {
            Step::More => {}
            step => return step,
        }
        let Some(body) = self.body.as_mut().filter(|_| !self.progress.done) else {
            self.read_on();
            return Step::End(Ok(()));
        };
        let pace = &mut self.pace;
        let frame = tokio::select! {
            biased;
            // Data that is already there beats the clock.
            frame = poll_fn(|context| pace.watch(Pin::new(&mut *body).poll_frame(context))) => frame,
            () = self.timer.as_mut() => {
                return Step::End(Err(classify_transport(TransportFault::TimeoutAfterContent)));
            }
        };
        match frame {
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    self.splitter.push(&data);
                }
                Step::More
            }
            // All that counts had come.
            Some(Err(_)) if self.progress.finished => Step::End(Ok(())),
            Some(Err(_)) => Step::End(Err(classify_transport(TransportFault::ResetAfterContent))),
            None => self.ended(),
        }
    }

    /// All whole events that are here, less those the caller did not ask for.
    fn take_events(&mut self) -> Step {
        if let Some(broken) = self.broken.take() {
            return Step::End(Err(broken));
        }
        let mut first: Option<Bytes> = None;
        let mut several = BytesMut::new();
        loop {
            let event = match self.splitter.next_event() {
                Ok(Some(event)) => event,
                Ok(None) => break,
                Err(_) => {
                    self.broken = Some(classify_body(BodyFault::TruncatedAfterContent));
                    break;
                }
            };
            let facts = event::inspect(&event);
            self.progress.note(&facts);
            if let Some(error) = &facts.error {
                // What came before it in the same read is passed on first.
                self.broken = Some(classify_mid_stream(&error.fields()));
                break;
            }
            if facts.done && !self.progress.finished {
                // Passed on, it would make a cut answer look whole.
                self.broken = Some(classify_body(BodyFault::TruncatedAfterContent));
                break;
            }
            if self.is_unasked(&facts) {
                continue;
            }
            if facts.has_content || facts.unreadable {
                self.touch();
            }
            match first.take() {
                None if several.is_empty() => first = Some(event.raw),
                None => several.put(event.raw),
                Some(one) => {
                    several.put(one);
                    several.put(event.raw);
                }
            }
        }
        match first {
            Some(one) => Step::Pass(one),
            None if !several.is_empty() => Step::Pass(several.freeze()),
            None => self.broken.take().map_or(Step::More, |broken| Step::End(Err(broken))),
        }
    }

    /// Usage that only our own request for it brought.
    fn is_unasked(&self, facts: &EventFacts) -> bool {
        facts.usage_only && self.job.injects_usage()
    }

    fn touch(&mut self) {
        let until = (Instant::now() + self.timeouts.idle).min(self.total);
        self.timer.as_mut().reset(until);
    }

    /// The caller has its answer. What the provider still sends is read beside, so that
    /// the connection can serve again; not ending in time costs no more than it.
    fn read_on(&mut self) {
        let Some(mut body) = self.body.take() else { return };
        let end = async move {
            while let Some(Ok(_)) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {}
        };
        tokio::spawn(async move { tokio::time::timeout(END_WITHIN, end).await.ok() });
    }

    fn ended(&mut self) -> Step {
        let leftover = self.splitter.leftover();
        if let Some(error) = error_body::parse_in_success(leftover) {
            return Step::End(Err(classify_mid_stream(&error.fields())));
        }
        self.verdict_at_end()
    }

    /// A finish reason proves an answer whole; `[DONE]` does not, nor does its absence
    /// disprove it.
    fn verdict_at_end(&self) -> Step {
        if self.progress.finished {
            return Step::End(Ok(()));
        }
        Step::End(Err(classify_body(BodyFault::TruncatedAfterContent)))
    }

    fn close(&mut self, class: OutcomeClass, count: BreakerCount) {
        if self.over {
            return;
        }
        self.over = true;
        let sample = match (class, count) {
            (OutcomeClass::Ok, _) => Sample::Ended,
            (_, BreakerCount::Failure | BreakerCount::RatioOnly | BreakerCount::Poisonable) => {
                Sample::BrokeOff
            }
            (_, BreakerCount::Neutral | BreakerCount::Success) => Sample::Neutral,
        };
        let used = self.used();
        // What the caller's own pace made is not the provider's.
        let waited = self.pace.waited(self.shared.clock.now().since(self.ticket.started()));
        let opened = {
            let now = self.shared.clock.now();
            let mut registry = self.shared.registry.lock();
            let opened = registry.result(self.ticket, now, sample);
            if let Some(waited) = waited.filter(|_| class == OutcomeClass::Ok) {
                let took = now.since(self.ticket.started()).saturating_sub(waited);
                registry.observe(self.ticket, now, &observation(&self.job.profile, used.0, self.ttft, took));
            }
            registry.release(self.ticket, now);
            opened
        };
        if let Some(record) = &self.record {
            let mut record = record.lock();
            let attempt = &mut record.attempts[self.id.0 as usize];
            account::close(&self.shared, &self.job, attempt, class, 200, Some(used), waited);
            if let Some((budget, cost)) = self.job.budget.as_ref().zip(attempt.cost) {
                budget.charge(cost);
            }
            if opened {
                let snapshot = &self.job.snapshot;
                let name = snapshot.deployment_name(attempt.deployment);
                self.shared.opened(name, snapshot.goal_name(self.job.goal));
            }
        }
    }
}

/// The caller left. With the finish reason the answer was whole; many close at
/// `[DONE]`.
impl Drop for Tail {
    fn drop(&mut self) {
        let whole = self.progress.finished;
        self.close(if whole { OutcomeClass::Ok } else { OutcomeClass::Cancelled }, BreakerCount::Neutral);
    }
}

/// What the caller sees when the provider breaks off. No `[DONE]` follows.
fn error_event() -> Bytes {
    Bytes::from_static(
        b"data: {\"error\":{\"message\":\"the provider broke off the answer after its first content; what came before is incomplete\",\"type\":\"upstream_error\",\"param\":null,\"code\":\"upstream_broke_off\"}}\n\n",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(100);

    #[tokio::test(start_paused = true)]
    async fn times_of_an_answer_are_those_of_its_provider() {
        let mut pace = Pace::new();
        for _ in 0..10 {
            assert!(pace.watch(Poll::<()>::Pending).is_pending());
            tokio::time::advance(TICK).await;
            assert!(pace.watch(Poll::Ready(())).is_ready());
        }
        tokio::time::advance(TICK).await;
        assert_eq!(pace.waited(TICK * 10), Some(TICK));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_waited_for_its_reader_teaches_nothing() {
        let mut pace = Pace::new();
        for _ in 0..10 {
            tokio::time::advance(TICK).await;
            assert!(pace.watch(Poll::Ready(())).is_ready());
        }
        assert_eq!(pace.waited(TICK * 10), None);
    }
}
