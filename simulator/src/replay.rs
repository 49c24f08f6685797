//! Tells a trace of a live agent to the same core on virtual time, and compares what it
//! answers with what it answered then.

use std::collections::VecDeque;

use trunkline_routing::{
    request::{Directive, Failure, Start},
    table::{DeploymentIndex, RoutingTable},
    time::Timestamp,
    trace::{Answer, Call, Entry, Event, Note, Player},
};

/// What came before the first difference is shown so far back.
const CONTEXT_LINES: usize = 12;

/// What a replay showed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replay {
    /// What was told.
    pub events: u64,
    /// Tables among that.
    pub tables: u64,
    /// Requests among that.
    pub requests: u64,
    /// Attempts that the core started, and of these: in place of one that failed,
    pub attempts: u64,
    /// in place of one that failed,
    pub retries: u64,
    /// beside a silent one,
    pub beside: u64,
    /// and to race a slow one.
    pub hedges: u64,
    /// Breakers that opened.
    pub openings: u64,
    /// Requests that the core gave up.
    pub given_up: u64,
    /// What was answered then,
    pub answers: u64,
    /// and how much of it is the same now.
    pub same: u64,
    /// Decisions on where to send a request,
    pub decisions: u64,
    /// and how many of them are the same.
    pub decisions_same: u64,
    /// Time from the first event to the last, in nanoseconds.
    pub span_nanos: u64,
    /// Where it went another way first.
    pub first: Option<Difference>,
}

/// Another answer than the recorded one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Which event, from 1.
    pub event: u64,
    /// When it was recorded, in nanoseconds on the agent's clock.
    pub at_nanos: u64,
    /// What was told.
    pub told: String,
    /// What was answered then.
    pub recorded: String,
    /// What is answered now.
    pub replayed: String,
    /// What was told just before, the oldest first.
    pub before: Vec<String>,
}

impl Replay {
    /// Whether all answers are the same, and there were any.
    pub const fn is_same(&self) -> bool {
        self.first.is_none() && self.answers > 0 && self.same == self.answers
    }

    fn count(&mut self, event: &Event, answer: &Answer) {
        match event {
            Event::Bind(_) => self.tables += 1,
            Event::Arrive(_) => self.requests += 1,
            _ => {}
        }
        match answer {
            Answer::Directive(Directive::Start { why, .. }) => {
                self.attempts += 1;
                match why {
                    Start::First => {}
                    Start::Retry => self.retries += 1,
                    Start::Beside => self.beside += 1,
                    Start::Hedge => self.hedges += 1,
                }
            }
            Answer::Directive(Directive::Fail(_)) => self.given_up += 1,
            Answer::Opened(true) => self.openings += 1,
            _ => {}
        }
    }
}

/// Whether an answer says where a request goes.
const fn decides(answer: &Answer) -> bool {
    matches!(answer, Answer::Decision(_) | Answer::Directive(_))
}

/// Replays entries in their order.
///
/// # Errors
/// The first one that could not be read.
pub fn replay<E>(entries: impl IntoIterator<Item = Result<Entry, E>>) -> Result<Replay, E> {
    let mut found = Replay::default();
    let mut player = Player::new();
    let mut before = VecDeque::with_capacity(CONTEXT_LINES);
    let mut began: Option<Timestamp> = None;
    for entry in entries {
        let entry = entry?;
        found.events += 1;
        let began = *began.get_or_insert(entry.at);
        found.span_nanos = found.span_nanos.max(entry.at.as_nanos().saturating_sub(began.as_nanos()));
        found.count(&entry.event, &entry.answer);
        // Before it is played: its end forgets the request.
        let table = table_of(&player, &entry.event);
        let told = line(&entry, table);
        let answer = player.play(&entry);
        let same = answer.as_ref() == Some(&entry.answer);
        let decides = decides(&entry.answer);
        found.answers += u64::from(entry.answer != Answer::Nothing || answer.is_none());
        found.same += u64::from(entry.answer != Answer::Nothing && same);
        found.decisions += u64::from(decides);
        found.decisions_same += u64::from(decides && same);
        if !same && found.first.is_none() {
            let table = table_of(&player, &entry.event);
            let nothing = || "nothing: it names a table, request or attempt that is not there".to_owned();
            found.first = Some(Difference {
                event: found.events,
                at_nanos: entry.at.as_nanos(),
                recorded: describe(&entry.answer, table),
                replayed: answer.as_ref().map_or_else(nothing, |answer| describe(answer, table)),
                before: before.iter().cloned().collect(),
                told: told.clone(),
            });
        }
        if before.len() == CONTEXT_LINES {
            before.pop_front();
        }
        before.push_back(told);
    }
    Ok(found)
}

/// The table that the event is about.
fn table_of<'a>(player: &'a Player, event: &Event) -> Option<&'a RoutingTable> {
    let place = match event {
        Event::Arrive(arrival) => Some(arrival.place),
        Event::Take { place, .. } => Some(*place),
        Event::Ask { request, .. } => player.place(*request),
        _ => None,
    };
    let number = match event {
        Event::Begin(beginning) => Some(beginning.table),
        _ => place.map(|place| place.table),
    };
    player.table(number?)
}

fn name(deployment: DeploymentIndex, table: Option<&RoutingTable>) -> String {
    let known = table.and_then(|table| table.deployments.get(deployment.0 as usize));
    known.map_or_else(|| format!("deployment {}", deployment.0), |known| known.name.to_string())
}

/// One event in words, with what was answered.
fn line(entry: &Entry, table: Option<&RoutingTable>) -> String {
    let seconds = entry.at.as_nanos() as f64 / 1e9;
    let told = title(&entry.event);
    match &entry.answer {
        Answer::Nothing => format!("{seconds:.6} s: {told}"),
        answer => format!("{seconds:.6} s: {told}: {}", describe(answer, table)),
    }
}

fn title(event: &Event) -> String {
    match event {
        Event::Bind(table) => format!("table of revision {}", table.version.revision),
        Event::MissingCredentials(names) => format!("{} credentials are missing", names.len()),
        Event::CredentialChanged(provider) => format!("the credential of {provider} changed"),
        Event::Forced(all) => format!("{} breakers are forced", all.len()),
        Event::Fleet { verdicts, .. } => format!("{} verdicts of the fleet", verdicts.len()),
        Event::Leases(leases) => format!("{} leases to probe", leases.len()),
        Event::Heard(_) => "the control plane is heard".to_owned(),
        Event::Adopt(models) => format!("models of {} deployments", models.models.len()),
        Event::Arrive(arrival) => format!("request {} came", arrival.request),
        Event::Ask { request, call } => format!("request {request}, {}", call_title(call)),
        Event::Take { .. } => "an app asks for a route".to_owned(),
        Event::Begin(_) => "an attempt without a request".to_owned(),
        Event::Note { ticket, note } => format!("attempt {ticket}, {}", note_title(note)),
        Event::TakeProbeResults => "results of probes are fetched".to_owned(),
        Event::GiveBackLease(lease) => format!("lease {lease} is given back"),
    }
}

fn call_title(call: &Call) -> String {
    match call {
        Call::Next => "what next".to_owned(),
        Call::Heard(id) => format!("attempt {} is heard", id.0),
        Call::Failed(id, failed) => format!("attempt {} failed ({})", id.0, failed.class.name()),
        Call::Won(id) => format!("attempt {} won", id.0),
        Call::Abandon => "it ends without a winner".to_owned(),
    }
}

fn note_title(note: &Note) -> String {
    match note {
        Note::RateHeaders(_) => "rate-limit headers".to_owned(),
        Note::Pace(..) => "its pace".to_owned(),
        Note::Observe(seen) => format!("an answer of {} tokens", seen.output_tokens),
        Note::Record(sample) => format!("result {sample:?}"),
        Note::Learn(failed) => format!("it ended as {}", failed.class.name()),
        Note::Answered => "a good answer".to_owned(),
        Note::Cost(_) => "its cost".to_owned(),
        Note::Check(sample, _) => format!("health check, result {sample:?}"),
        Note::Release => "it is over".to_owned(),
    }
}

fn describe(answer: &Answer, table: Option<&RoutingTable>) -> String {
    match answer {
        Answer::Nothing => "nothing".to_owned(),
        Answer::Number(Some(number)) => format!("number {number}"),
        Answer::Number(None) => "refused".to_owned(),
        Answer::Opened(opened) => format!("the breaker {}", if *opened { "opens" } else { "stays" }),
        Answer::Directive(directive) => match directive {
            Directive::Start { id, deployment, why, .. } => {
                format!("start attempt {} at {} ({})", id.0, name(*deployment, table), why.name())
            }
            Directive::Kill(id) => format!("end attempt {}", id.0),
            Directive::Wait(until) => format!("wait until {:.9} s", until.as_nanos() as f64 / 1e9),
            Directive::Fail(failure) => format!("give up: {}", failure_title(*failure)),
        },
        Answer::Decision(summary) => {
            let candidates = summary.candidates.iter();
            let candidates: Vec<String> = candidates
                .map(|(deployment, _, chance)| format!("{} {chance:.4}", name(*deployment, table)))
                .collect();
            let excluded = summary.excluded.len();
            format!("[{}], {excluded} left out, digest {:016x}", candidates.join(", "), summary.digest)
        }
        Answer::Ended(ticket, losers) => {
            let losers: Vec<String> =
                losers.iter().map(|loser| format!("{} {}", loser.id.0, loser.class.name())).collect();
            let winner = ticket.map_or_else(|| "no winner".to_owned(), |ticket| format!("ticket {ticket}"));
            format!("{winner}, losers [{}]", losers.join(", "))
        }
    }
}

fn failure_title(failure: Failure) -> String {
    match failure {
        Failure::Return(id) => format!("what attempt {} got goes to the caller", id.0),
        Failure::Exhausted { .. } => "all was tried".to_owned(),
        Failure::NoTarget { .. } => "no target".to_owned(),
        Failure::Deadline => "the deadline passed".to_owned(),
    }
}
