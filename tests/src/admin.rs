//! Short ways to administer a control plane and to see what it knows.

use std::{collections::BTreeMap, time::Duration};

use tonic::{Status, transport::Channel};
use trunkline_proto::{
    admin::v1::{
        Agent, AgentState, ApplyConfigRequest, ApplyConfigResponse, Breaker, ExportConfigRequest,
        ExportConfigResponse, GetStatsRequest, ListAgentsRequest, ListBreakersRequest, ListBreakersResponse,
        SetBreakerRequest, StatsRow, admin_service_client::AdminServiceClient,
    },
    document,
    types::v1::BreakerState,
};

use crate::{document::Document, patience::until};

/// A client of the admin API.
#[derive(Clone, Debug)]
pub struct Admin {
    /// For calls that have no short way here.
    pub client: AdminServiceClient<Channel>,
}

impl Admin {
    /// Connects.
    pub async fn connect(url: &str) -> Self {
        Self { client: AdminServiceClient::connect(url.to_owned()).await.unwrap() }
    }

    /// Applies a document.
    pub async fn apply(&self, document: &Document) -> ApplyConfigResponse {
        self.try_apply(document).await.unwrap()
    }

    /// Applies a document, which may be refused.
    ///
    /// # Errors
    /// As the control plane said.
    pub async fn try_apply(&self, document: &Document) -> Result<ApplyConfigResponse, Status> {
        let config = document::load(&document.yaml()).unwrap();
        let request = ApplyConfigRequest { config: Some(config), ..ApplyConfigRequest::default() };
        Ok(self.client.clone().apply_config(request).await?.into_inner())
    }

    /// The configuration.
    pub async fn export(&self) -> ExportConfigResponse {
        self.client.clone().export_config(ExportConfigRequest {}).await.unwrap().into_inner()
    }

    /// All agents.
    pub async fn agents(&self) -> Vec<Agent> {
        self.client.clone().list_agents(ListAgentsRequest::default()).await.unwrap().into_inner().agents
    }

    /// Waits until `count` connected agents hold `revision` or a newer one.
    pub async fn agents_hold(&self, count: usize, revision: u64) -> Vec<Agent> {
        let holds = |agent: &&Agent| {
            let applied = agent.applied.as_ref().map_or(0, |version| version.revision);
            agent.state() == AgentState::Connected && applied >= revision
        };
        let enough = |agents: &Vec<Agent>| agents.iter().filter(holds).count() == count;
        until("agents to apply the revision", async || self.agents().await, enough).await
    }

    /// All breakers and protections.
    pub async fn breakers(&self) -> ListBreakersResponse {
        self.client.clone().list_breakers(ListBreakersRequest::default()).await.unwrap().into_inner()
    }

    /// One deployment's breaker.
    pub async fn breaker(&self, deployment: &str) -> Breaker {
        let found = self.breakers().await.breakers.into_iter().find(|one| one.deployment == deployment);
        found.unwrap_or_else(|| panic!("no breaker of {deployment}"))
    }

    /// Waits until a breaker is shown in one of these states, and returns it.
    pub async fn breaker_is(&self, deployment: &str, states: &[BreakerState]) -> Breaker {
        let fits = |breaker: &Breaker| states.contains(&breaker.state());
        until("the breaker's state to be shown", async || self.breaker(deployment).await, fits).await
    }

    /// Forces a breaker.
    pub async fn set_breaker(&self, deployment: &str, state: BreakerState, ttl: Option<Duration>) {
        let request = SetBreakerRequest {
            deployment: deployment.to_owned(),
            state: state.into(),
            ttl: ttl.map(|ttl| ttl.try_into().unwrap()),
            reason: "drill".to_owned(),
        };
        self.client.clone().set_breaker(request).await.unwrap();
    }

    /// Counts since the store was made, by deployment.
    pub async fn stats(&self) -> BTreeMap<String, StatsRow> {
        self.try_stats().await.unwrap()
    }

    /// The same, or why there is none.
    ///
    /// # Errors
    /// If the control plane has no counts to show.
    pub async fn try_stats(&self) -> Result<BTreeMap<String, StatsRow>, Status> {
        let response = self.client.clone().get_stats(GetStatsRequest::default()).await?;
        Ok(response.into_inner().rows.into_iter().map(|row| (row.deployment.clone(), row)).collect())
    }

    /// Waits until so many attempts are counted in all, and returns the counts.
    pub async fn stats_count(&self, attempts: u64) -> BTreeMap<String, StatsRow> {
        let all = |rows: &BTreeMap<String, StatsRow>| rows.values().map(|row| row.attempts).sum::<u64>();
        until("all attempts to be counted", async || self.stats().await, |rows| all(rows) >= attempts).await
    }
}
