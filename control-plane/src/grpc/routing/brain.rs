//! The control plane's own state of the decision core: turns, breakers and gates as
//! its own callers know them, under what operators force.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tokio::sync::watch;
use tonic::Status;
use trunkline_proto::{
    convert::{breaker_state, candidates, exclusions, route_state, wire_strategy},
    routing::v1::RouteState,
    status,
    types::v1::Decision,
};
use trunkline_routing::{
    classify::Classified,
    decide::{self, Route},
    eligibility::{Profile, strategy_of},
    fleet::State,
    learn::learn,
    registry::{self, Binding, FleetState, Forced, Registry},
    table::VirtualModel,
    tenant::Tenant,
    time::Timestamp,
};

use super::{afford::afford, unix_ms};
use crate::{
    budgets::Budgets,
    grpc::wire_version,
    learning::{Learning, Published},
    repository::{ConfigState, FleetVerdict, Repository, VerdictSet, VerdictState},
};

/// The control plane is never without its own word.
const ALWAYS: Duration = Duration::from_hours(24 * 3_650);

/// Bound to the newest configuration and verdicts.
#[derive(Debug)]
pub(super) struct Brain {
    registry: Registry,
    zero: Instant,
    bound: Option<Bound>,
    models: watch::Receiver<Arc<Published>>,
}

#[derive(Clone, Debug)]
struct Bound {
    state: Arc<ConfigState>,
    verdicts: Arc<VerdictSet>,
    binding: Arc<Binding>,
}

impl Brain {
    pub(super) fn new(learning: &Learning) -> Self {
        let mut models = learning.subscribe();
        models.mark_changed();
        Self { registry: Registry::new(), zero: Instant::now(), bound: None, models }
    }

    /// Decides for `tenant` within its budgets, and takes a turn.
    pub(super) fn route(
        &mut self,
        repository: &Repository,
        budgets: &Budgets,
        tenant: Option<&str>,
        model: &str,
        profile: &Profile,
    ) -> Result<Decision, Status> {
        let Bound { state, binding, .. } = self.bind(repository);
        let table = &state.table;
        let now = self.now();
        let pin = table.deployment_by_name(model).map(|deployment| VirtualModel::pin(model, deployment));
        let index = table.virtual_models.iter().position(|known| known.name.as_ref() == model);
        let route = match (&pin, index) {
            (Some(pin), _) => Route { model: pin, index: None },
            (None, Some(index)) => Route { model: &table.virtual_models[index], index: Some(index) },
            (None, None) => return Err(status::not_found("virtual model", model)),
        };
        let profile = &afford(budgets, table, route, tenant, profile)?;
        let decision =
            decide::take(&mut self.registry, table, &binding, route, profile, now, &mut rand::rng());
        let breaker = |deployment| breaker_state(&self.registry.breaker(&binding, deployment, now));
        Ok(Decision {
            decision_id: uuid::Uuid::new_v4().to_string(),
            time: Some(SystemTime::now().into()),
            model: model.to_owned(),
            strategy: wire_strategy(strategy_of(route.model, profile)).into(),
            version: Some(wire_version(&table.version)),
            candidates: candidates(table, route.model, &decision, breaker),
            excluded: exclusions(table, &decision),
            ..Decision::default()
        })
    }

    /// Takes in what came of a call that was made for `tenant`, if it is named; the answer
    /// is whether a breaker opened.
    pub(super) fn learn(
        &mut self,
        repository: &Repository,
        deployment: &str,
        tenant: &str,
        outcome: &Classified,
    ) -> bool {
        let Bound { state, binding, .. } = self.bind(repository);
        let now = self.now();
        let Some(deployment) = state.table.deployment_by_name(deployment) else { return false };
        let tenant = Tenant::of(Some(tenant).filter(|name| !name.is_empty()));
        let ticket = self.registry.begin(&binding, deployment, now, 0).of_tenant(tenant);
        let opened = learn(&mut self.registry, ticket, now, outcome, &mut rand::rng());
        self.registry.release(ticket);
        opened
    }

    /// The distribution of the virtual models that `wanted` accepts, by name.
    pub(super) fn routes(
        &mut self,
        repository: &Repository,
        wanted: impl Fn(&str) -> bool,
    ) -> (Arc<ConfigState>, Vec<RouteState>) {
        let Bound { state, binding, .. } = self.bind(repository);
        let models = state.table.virtual_models.iter().enumerate().filter(|(_, model)| wanted(&model.name));
        let routes = models.map(|(index, model)| self.state_of(&state, &binding, index, model)).collect();
        (state, routes)
    }

    fn state_of(
        &mut self,
        state: &ConfigState,
        binding: &Binding,
        index: usize,
        model: &VirtualModel,
    ) -> RouteState {
        let (table, now) = (&state.table, self.now());
        let route = Route { model, index: Some(index) };
        let profile = Profile { at_unix_ms: unix_ms(Duration::ZERO), ..Profile::default() };
        let decision = decide::decide(&mut self.registry, table, binding, route, &profile, now);
        route_state(table, model, &decision, |deployment| {
            breaker_state(&self.registry.breaker(binding, deployment, now))
        })
    }

    /// Follows configuration and verdicts when they changed.
    fn bind(&mut self, repository: &Repository) -> Bound {
        let (state, verdicts) = (repository.state(), repository.verdicts());
        let now = self.now();
        if self.models.has_changed().is_ok_and(|changed| changed) {
            let published = Arc::clone(&self.models.borrow_and_update());
            self.registry.adopt(published.models(), now);
        }
        let binding = match &self.bound {
            Some(bound) if Arc::ptr_eq(&bound.state, &state) => {
                if Arc::ptr_eq(&bound.verdicts, &verdicts) {
                    return bound.clone();
                }
                Arc::clone(&bound.binding)
            }
            _ => Arc::new(self.registry.bind(&state.table, now)),
        };
        let forced: Vec<_> = verdicts.iter().collect();
        let forced = forced.iter().map(|verdict| {
            let what = match verdict.state {
                VerdictState::ForcedOpen => Forced::Open,
                VerdictState::ForcedClosed => Forced::Closed,
            };
            let until = verdict.expires_unix_ms.map(|end| now + remaining(end));
            (verdict.deployment.as_str(), what, until)
        });
        self.registry.set_forced(forced, now);
        let found: Vec<_> = verdicts.fleet().filter(|verdict| verdict.forced.is_none()).collect();
        let found = found.iter().filter_map(|verdict| fleet_verdict(verdict, now));
        self.registry.set_fleet(&state.version.epoch, found, now, &mut rand::rng());
        self.registry.heard_from_fleet(now + ALWAYS);
        let bound = Bound { state, verdicts, binding };
        self.bound = Some(bound.clone());
        bound
    }

    fn now(&self) -> Timestamp {
        Timestamp::ZERO + self.zero.elapsed()
    }
}

/// None: it is closed.
fn fleet_verdict(verdict: &FleetVerdict, now: Timestamp) -> Option<registry::FleetVerdict<'_>> {
    let (state, admit_percent) = match verdict.record.state {
        State::Closed => return None,
        State::Open => (FleetState::Open, 100),
        State::HalfOpen => (FleetState::HalfOpen, 100),
        State::Ramping(percent) => (FleetState::Ramping, percent),
    };
    Some(registry::FleetVerdict {
        subject: &verdict.subject,
        state,
        generation: verdict.generation,
        until: (state == FleetState::Open).then(|| now + verdict.record.open_for),
        openings: verdict.record.openings,
        admit_percent,
    })
}

fn remaining(end_unix_ms: u64) -> Duration {
    (UNIX_EPOCH + Duration::from_millis(end_unix_ms)).duration_since(SystemTime::now()).unwrap_or_default()
}
