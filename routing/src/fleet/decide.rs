//! The transitions: what evidence, probes and time lead to.

use alloc::{boxed::Box, collections::BTreeMap, format, vec::Vec};
use core::time::Duration;

use rand_core::Rng;

use super::{
    Fleet,
    evidence::{Counts, Summary},
    probe::Shown,
    verdict::{self, Forced, Record, State, Verdict},
};
use crate::{math, time::Timestamp};

/// A step of the ramp lasts for so many results ...
const STEP_RESULTS: u32 = 5;
/// ... or so long without them,
const STEP_MAX: Duration = Duration::from_secs(5);
/// and never shorter.
const STEP_MIN: Duration = Duration::from_secs(2);
/// Failures within one step that open it again when they are half of it.
const STEP_FAILURES: u32 = 3;
/// A step with many failures that opens nothing is looked at again after so long.
const STEP_LOOK: Duration = Duration::from_secs(1);

/// A change of a verdict that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// `provider/deployment`, or `provider` alone.
    pub subject: Box<str>,
    /// That of the verdict it replaces. If the store has another one, it is not due.
    pub from_generation: u64,
    /// What to make durable.
    pub record: Record,
}

/// Transitions so far, and what they make of the rest.
struct Draft<'a> {
    fleet: &'a Fleet,
    states: BTreeMap<Box<str>, State>,
    transitions: Vec<Transition>,
    now: Timestamp,
}

impl Fleet {
    /// The transitions that are due. Each has to become durable before it is adopted; until
    /// then they are due still.
    pub fn decide(&mut self, now: Timestamp, rng: &mut impl Rng) -> Vec<Transition> {
        let recovering = self.is_recovering(now);
        let mut draft = Draft { fleet: self, states: BTreeMap::new(), transitions: Vec::new(), now };
        for subject in &self.active {
            draft.move_on(subject, recovering, rng);
        }
        if recovering {
            return draft.transitions;
        }
        for deployment in &self.dirty {
            draft.look_for_failure(deployment, rng);
        }
        draft.roll_up(rng);
        let transitions = draft.transitions;
        // What led to nothing needs no second look before there is news.
        self.dirty.retain(|name| transitions.iter().any(|due| due.subject == *name));
        transitions
    }

    /// When to decide and grant again though nothing was told. None: only when something
    /// is.
    pub fn next_due(&self, now: Timestamp) -> Option<Timestamp> {
        let verdicts = self.active.iter().filter_map(|subject| self.verdicts.get(subject));
        let verdicts = verdicts.filter_map(|verdict| match verdict.record.state {
            State::Open => Some(verdict.open_until()),
            State::Ramping(_) => {
                let looks = [verdict.since + STEP_MIN, verdict.since + STEP_MAX, now + STEP_LOOK];
                looks.into_iter().find(|at| *at > now)
            }
            State::HalfOpen => verdict.restored.and_then(|(_, over)| over).filter(|over| *over > now),
            State::Closed => None,
        });
        let leases = self.leases.iter().map(super::Lease::over_at);
        let recovering = self
            .recovering
            .iter()
            .flat_map(|one| [super::RECOVERING_MIN, super::RECOVERING_MAX].map(|length| one.since + length));
        let checks = self.checks.next_due(&self.topology, now);
        verdicts.chain(leases).chain(checks).chain(recovering.filter(|at| *at > now)).min()
    }

    /// Of a provider, the sum over its deployments.
    fn counts(&self, subject: &str, now: Timestamp) -> Counts {
        let deployments = self.topology.deployments_of(subject).iter().map(AsRef::as_ref);
        let all = deployments.chain([subject]).map(|name| self.evidence.counts(name, now));
        all.fold(Counts::default(), Counts::and)
    }
}

impl Draft<'_> {
    /// What time and probes make of a verdict that is not closed.
    fn move_on(&mut self, subject: &str, recovering: bool, rng: &mut impl Rng) {
        let Some(verdict) = self.fleet.verdicts.get(subject) else { return };
        if !self.fleet.topology.knows(subject) {
            let reason = "it is not configured any more".into();
            let record = Record { openings: 0, ..verdict.record.with(State::Closed, reason) };
            return self.change(subject, record);
        }
        match verdict.record.state {
            State::Open if self.has_recovered(subject) => self.ramp(subject, verdict),
            State::Open if verdict.open_until() <= self.now => {
                let reason = verdict.record.reason.clone();
                self.change(subject, verdict.record.with(State::HalfOpen, reason));
            }
            State::HalfOpen => match verdict.probing.shown() {
                Shown::Failing(how) => {
                    let reason = format!("the probe failed: {how}");
                    self.open(subject, reason.into(), rng);
                }
                Shown::Recovered => self.ramp(subject, verdict),
                Shown::Nothing | Shown::Nobody if self.has_recovered(subject) => {
                    self.ramp(subject, verdict);
                }
                Shown::Nobody => self.open_again(subject, verdict, rng),
                Shown::Nothing => {}
            },
            State::Ramping(percent) => self.step(subject, verdict, percent, recovering, rng),
            State::Open | State::Closed => {}
        }
    }

    fn ramp(&mut self, subject: &str, verdict: &Verdict) {
        let record = verdict.record.with(State::first_step(), "traffic returns".into());
        self.change(subject, record);
    }

    /// Nobody had a request to probe with. It opens as before, for longer each time: where
    /// there is no traffic nobody waits for it.
    fn open_again(&mut self, subject: &str, verdict: &Verdict, rng: &mut impl Rng) {
        let doublings = verdict.record.openings.saturating_sub(1).saturating_add(verdict.idle_rounds + 1);
        let policy = self.fleet.topology.policy(subject);
        let open_for = verdict::open_for(&policy, doublings, math::unit(rng));
        let reason = "no agent had a request to probe with".into();
        self.change(subject, Record { open_for, ..verdict.record.with(State::Open, reason) });
    }

    fn step(&mut self, subject: &str, verdict: &Verdict, percent: u8, recovering: bool, rng: &mut impl Rng) {
        let counts = self.fleet.counts(subject, self.now);
        let summary = self.fleet.evidence.summary(subject, verdict.base, self.now);
        let failing =
            counts.failures >= STEP_FAILURES && counts.failures.saturating_mul(2) >= counts.requests;
        if !recovering && (failing || summary.is_enough()) && self.can_do_without(subject) {
            let reason = if failing { describe_counts(counts) } else { describe(&summary) };
            return self.open(subject, format!("while traffic returned, {reason}").into(), rng);
        }
        let lasted = self.now.since(verdict.since);
        let clean = counts.failures.saturating_mul(5) < counts.requests.max(1);
        let over = clean && lasted >= STEP_MIN && (counts.requests >= STEP_RESULTS || lasted >= STEP_MAX);
        if over {
            let next = State::after_step(percent);
            let reason = if next == State::Closed { "" } else { "traffic returns" };
            self.change(subject, verdict.record.with(next, reason.into()));
        }
    }

    /// Opens a closed deployment if there is enough evidence and its virtual models can do
    /// without it.
    fn look_for_failure(&mut self, deployment: &str, rng: &mut impl Rng) {
        if !self.is_at_rest(deployment) {
            return;
        }
        let base = self.fleet.verdicts.get(deployment).map_or(0, |verdict| verdict.base);
        let failed = self.fleet.checks.failed(deployment, &self.fleet.topology);
        if let Some(failed) = failed.filter(|_| self.can_do_without(deployment)) {
            return self.open(deployment, format!("{failed} health checks failed in a row").into(), rng);
        }
        let summary = self.fleet.evidence.summary(deployment, base, self.now);
        if summary.is_enough() && self.can_do_without(deployment) {
            self.open(deployment, describe(&summary).into(), rng);
        }
    }

    /// Opens providers of which more than half of the deployments are open, since one of
    /// them opened now. One of which another deployment answers is not broken as a whole.
    fn roll_up(&mut self, rng: &mut impl Rng) {
        let fallen = self
            .transitions
            .iter()
            .filter(|due| due.record.state == State::Open && !self.fleet.state_of(&due.subject).is_out());
        let providers = fallen.filter_map(|due| self.fleet.topology.provider_of(&due.subject));
        let mut providers: Vec<_> = providers.collect();
        providers.sort_unstable();
        providers.dedup();
        for provider in providers {
            let deployments = self.fleet.topology.deployments_of(provider);
            let out = deployments.iter().filter(|name| self.is_out(name)).count();
            let answers = deployments.iter().filter(|name| !self.is_out(name)).any(|name| {
                let counts = self.fleet.evidence.counts(name, self.now);
                counts.requests > 0 && counts.failures.saturating_mul(2) < counts.requests
            });
            let most = deployments.len() > 1 && out * 2 > deployments.len();
            if most && !answers && self.is_at_rest(provider) && self.can_do_without(provider) {
                let reason = format!("{out} of {} deployments are open", deployments.len());
                self.open(provider, reason.into(), rng);
            }
        }
    }

    /// Whether `subject` is a provider of which no more than half of the deployments are
    /// open.
    fn has_recovered(&self, subject: &str) -> bool {
        let deployments = self.fleet.topology.deployments_of(subject);
        let out = deployments.iter().filter(|name| self.is_out(name)).count();
        !deployments.is_empty() && out * 2 <= deployments.len()
    }

    fn open(&mut self, subject: &str, reason: Box<str>, rng: &mut impl Rng) {
        let openings = self.fleet.verdicts.get(subject).map_or(0, |verdict| verdict.openings(self.now));
        let policy = self.fleet.topology.policy(subject);
        self.change(subject, verdict::opening(&policy, openings, reason, math::unit(rng)));
    }

    fn change(&mut self, subject: &str, record: Record) {
        self.states.insert(subject.into(), record.state);
        let from_generation = self.fleet.generation(subject);
        self.transitions.push(Transition { subject: subject.into(), from_generation, record });
    }

    fn is_out(&self, subject: &str) -> bool {
        self.states.get(subject).copied().unwrap_or_else(|| self.fleet.state_of(subject)).is_out()
    }

    /// Closed, and no operator has said anything.
    fn is_at_rest(&self, subject: &str) -> bool {
        let forced = self.fleet.verdicts.get(subject).is_some_and(|verdict| verdict.forced.is_some());
        !forced && !self.states.contains_key(subject) && self.fleet.state_of(subject) == State::Closed
    }

    /// Whether every virtual model has another target that verdicts let through.
    fn can_do_without(&self, subject: &str) -> bool {
        let alone = [Box::from(subject)];
        let deployments = self.fleet.topology.deployments_of(subject);
        let leaving = if deployments.is_empty() { &alone } else { deployments };
        self.fleet.topology.can_do_without(leaving, |name| {
            let admits = |subject: &str| match self.fleet.forced(subject) {
                Some(forced) => forced == Forced::Closed,
                None => !self.is_out(subject),
            };
            admits(name) && self.fleet.topology.provider_of(name).is_none_or(admits)
        })
    }
}

impl Record {
    /// Another state with as many openings.
    fn with(&self, state: State, reason: Box<str>) -> Self {
        Self { state, openings: self.openings, open_for: Duration::ZERO, reason }
    }
}

fn describe_counts(counts: Counts) -> alloc::string::String {
    format!("{} of {} requests failed", counts.failures, counts.requests)
}

/// What was seen, for people.
pub(super) fn describe(summary: &Summary) -> alloc::string::String {
    let Summary { counts, agents, witnesses, open } = *summary;
    if open > 0 && (counts.failures == 0 || open >= witnesses) {
        return format!("{open} of {agents} agents opened their breaker");
    }
    format!("{} in 10 s, seen by {witnesses} of {agents} agents", describe_counts(counts))
}
