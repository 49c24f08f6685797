//! `AdminService`: what operators call. Each method is carried out in the module of its
//! resource.

mod agents;
mod api_keys;
mod audit;
mod breakers;
mod budgets;
mod config;
mod deployments;
mod drain;
mod faults;
mod history;
mod mask;
mod page;
mod prices;
mod providers;
mod revisions;
mod state;
mod stats;
mod virtual_models;
mod watch;
mod write;

use std::sync::Arc;

use tonic::{Request, Response, Status};
use trunkline_proto::admin::v1::{
    AcceptPriceEntryRequest, AcceptPriceEntryResponse, ApplyConfigRequest, ApplyConfigResponse,
    ClearFaultRequest, ClearFaultResponse, CreateApiKeyRequest, CreateApiKeyResponse, CreateBudgetRequest,
    CreateBudgetResponse, CreateDeploymentRequest, CreateDeploymentResponse, CreatePriceEntryRequest,
    CreatePriceEntryResponse, CreateProviderRequest, CreateProviderResponse, CreateVirtualModelRequest,
    CreateVirtualModelResponse, DeleteApiKeyRequest, DeleteApiKeyResponse, DeleteBudgetRequest,
    DeleteBudgetResponse, DeleteDeploymentRequest, DeleteDeploymentResponse, DeletePriceEntryRequest,
    DeletePriceEntryResponse, DeleteProviderRequest, DeleteProviderResponse, DeleteVirtualModelRequest,
    DeleteVirtualModelResponse, DrainAgentRequest, DrainAgentResponse, ExportConfigRequest,
    ExportConfigResponse, ExportStateRequest, GetApiKeyRequest, GetApiKeyResponse, GetBudgetRequest,
    GetBudgetResponse, GetDeploymentRequest, GetDeploymentResponse, GetPriceEntryRequest,
    GetPriceEntryResponse, GetProviderRequest, GetProviderResponse, GetStatsRequest, GetStatsResponse,
    GetVirtualModelRequest, GetVirtualModelResponse, ImportPricesRequest, ImportPricesResponse,
    InjectFaultRequest, InjectFaultResponse, ListAgentsRequest, ListAgentsResponse, ListApiKeysRequest,
    ListApiKeysResponse, ListBreakersRequest, ListBreakersResponse, ListBudgetsRequest, ListBudgetsResponse,
    ListDeploymentsRequest, ListDeploymentsResponse, ListFaultsRequest, ListFaultsResponse,
    ListPriceEntriesRequest, ListPriceEntriesResponse, ListProvidersRequest, ListProvidersResponse,
    ListRevisionsRequest, ListRevisionsResponse, ListVirtualModelsRequest, ListVirtualModelsResponse,
    QueryAuditRequest, QueryAuditResponse, QueryHistoryRequest, QueryHistoryResponse, RollbackConfigRequest,
    RollbackConfigResponse, SetBreakerRequest, SetBreakerResponse, UpdateApiKeyRequest, UpdateApiKeyResponse,
    UpdateBudgetRequest, UpdateBudgetResponse, UpdateDeploymentRequest, UpdateDeploymentResponse,
    UpdatePriceEntryRequest, UpdatePriceEntryResponse, UpdateProviderRequest, UpdateProviderResponse,
    UpdateVirtualModelRequest, UpdateVirtualModelResponse, WatchResourcesRequest,
    admin_service_server::AdminService,
};

use super::Context;
use write::principal_of;

/// Serves operators.
#[derive(Debug)]
pub(super) struct Admin {
    context: Arc<Context>,
    watchers: watch::Watchers,
}

impl Admin {
    pub(super) fn new(context: Arc<Context>) -> Self {
        context.tasks.spawn(faults::log(Arc::clone(&context)));
        Self { context, watchers: watch::Watchers::default() }
    }
}

#[tonic::async_trait]
impl AdminService for Admin {
    type WatchResourcesStream = watch::Messages;
    type ExportStateStream = state::Pieces;

    async fn watch_resources(
        &self,
        request: Request<WatchResourcesRequest>,
    ) -> Result<Response<Self::WatchResourcesStream>, Status> {
        self.watchers.watch(&self.context, request.get_ref()).map(Response::new)
    }

    async fn get_provider(
        &self,
        request: Request<GetProviderRequest>,
    ) -> Result<Response<GetProviderResponse>, Status> {
        let state = self.context.repository.state();
        let provider = Some(providers::get(&state.config, &request.get_ref().name)?);
        Ok(Response::new(GetProviderResponse { provider }))
    }

    async fn list_providers(
        &self,
        request: Request<ListProvidersRequest>,
    ) -> Result<Response<ListProvidersResponse>, Status> {
        providers::list(&self.context, request.get_ref()).map(Response::new)
    }

    async fn create_provider(
        &self,
        request: Request<CreateProviderRequest>,
    ) -> Result<Response<CreateProviderResponse>, Status> {
        let principal = principal_of(&request);
        providers::create(&self.context, principal, request.into_inner()).await.map(Response::new)
    }

    async fn update_provider(
        &self,
        request: Request<UpdateProviderRequest>,
    ) -> Result<Response<UpdateProviderResponse>, Status> {
        let principal = principal_of(&request);
        providers::update(&self.context, principal, request.into_inner()).await.map(Response::new)
    }

    async fn delete_provider(
        &self,
        request: Request<DeleteProviderRequest>,
    ) -> Result<Response<DeleteProviderResponse>, Status> {
        let principal = principal_of(&request);
        providers::delete(&self.context, principal, request.into_inner()).await.map(Response::new)
    }

    async fn get_deployment(
        &self,
        request: Request<GetDeploymentRequest>,
    ) -> Result<Response<GetDeploymentResponse>, Status> {
        let state = self.context.repository.state();
        let deployment = Some(deployments::get(&state.config, &request.get_ref().name)?);
        Ok(Response::new(GetDeploymentResponse { deployment }))
    }

    async fn list_deployments(
        &self,
        request: Request<ListDeploymentsRequest>,
    ) -> Result<Response<ListDeploymentsResponse>, Status> {
        deployments::list(&self.context, request.get_ref()).map(Response::new)
    }

    async fn create_deployment(
        &self,
        request: Request<CreateDeploymentRequest>,
    ) -> Result<Response<CreateDeploymentResponse>, Status> {
        let principal = principal_of(&request);
        deployments::create(&self.context, principal, request.into_inner()).await.map(Response::new)
    }

    async fn update_deployment(
        &self,
        request: Request<UpdateDeploymentRequest>,
    ) -> Result<Response<UpdateDeploymentResponse>, Status> {
        let principal = principal_of(&request);
        deployments::update(&self.context, principal, request.into_inner()).await.map(Response::new)
    }

    async fn delete_deployment(
        &self,
        request: Request<DeleteDeploymentRequest>,
    ) -> Result<Response<DeleteDeploymentResponse>, Status> {
        let principal = principal_of(&request);
        deployments::delete(&self.context, principal, request.into_inner()).await.map(Response::new)
    }

    async fn get_virtual_model(
        &self,
        request: Request<GetVirtualModelRequest>,
    ) -> Result<Response<GetVirtualModelResponse>, Status> {
        let state = self.context.repository.state();
        let virtual_model = Some(virtual_models::get(&state.config, &request.get_ref().name)?);
        Ok(Response::new(GetVirtualModelResponse { virtual_model }))
    }

    async fn list_virtual_models(
        &self,
        request: Request<ListVirtualModelsRequest>,
    ) -> Result<Response<ListVirtualModelsResponse>, Status> {
        virtual_models::list(&self.context, request.get_ref()).map(Response::new)
    }

    async fn create_virtual_model(
        &self,
        request: Request<CreateVirtualModelRequest>,
    ) -> Result<Response<CreateVirtualModelResponse>, Status> {
        let principal = principal_of(&request);
        virtual_models::create(&self.context, principal, request.into_inner()).await.map(Response::new)
    }

    async fn update_virtual_model(
        &self,
        request: Request<UpdateVirtualModelRequest>,
    ) -> Result<Response<UpdateVirtualModelResponse>, Status> {
        let principal = principal_of(&request);
        virtual_models::update(&self.context, principal, request.into_inner()).await.map(Response::new)
    }

    async fn delete_virtual_model(
        &self,
        request: Request<DeleteVirtualModelRequest>,
    ) -> Result<Response<DeleteVirtualModelResponse>, Status> {
        let principal = principal_of(&request);
        virtual_models::delete(&self.context, principal, request.into_inner()).await.map(Response::new)
    }

    async fn get_price_entry(
        &self,
        request: Request<GetPriceEntryRequest>,
    ) -> Result<Response<GetPriceEntryResponse>, Status> {
        let state = self.context.repository.state();
        let price_entry = Some(prices::get(&state.config, &request.get_ref().name)?);
        Ok(Response::new(GetPriceEntryResponse { price_entry }))
    }

    async fn list_price_entries(
        &self,
        request: Request<ListPriceEntriesRequest>,
    ) -> Result<Response<ListPriceEntriesResponse>, Status> {
        prices::list(&self.context, request.get_ref()).map(Response::new)
    }

    async fn create_price_entry(
        &self,
        request: Request<CreatePriceEntryRequest>,
    ) -> Result<Response<CreatePriceEntryResponse>, Status> {
        let principal = principal_of(&request);
        prices::create(&self.context, principal, request.into_inner()).await.map(Response::new)
    }

    async fn update_price_entry(
        &self,
        request: Request<UpdatePriceEntryRequest>,
    ) -> Result<Response<UpdatePriceEntryResponse>, Status> {
        let principal = principal_of(&request);
        prices::update(&self.context, principal, request.into_inner()).await.map(Response::new)
    }

    async fn delete_price_entry(
        &self,
        request: Request<DeletePriceEntryRequest>,
    ) -> Result<Response<DeletePriceEntryResponse>, Status> {
        let principal = principal_of(&request);
        prices::delete(&self.context, principal, request.into_inner()).await.map(Response::new)
    }

    async fn accept_price_entry(
        &self,
        request: Request<AcceptPriceEntryRequest>,
    ) -> Result<Response<AcceptPriceEntryResponse>, Status> {
        let principal = principal_of(&request);
        prices::accept(&self.context, principal, request.into_inner()).await.map(Response::new)
    }

    async fn get_api_key(
        &self,
        request: Request<GetApiKeyRequest>,
    ) -> Result<Response<GetApiKeyResponse>, Status> {
        let state = self.context.repository.state();
        let api_key = Some(api_keys::get(&state.config, &request.get_ref().name)?);
        Ok(Response::new(GetApiKeyResponse { api_key }))
    }

    async fn list_api_keys(
        &self,
        request: Request<ListApiKeysRequest>,
    ) -> Result<Response<ListApiKeysResponse>, Status> {
        api_keys::list(&self.context, request.get_ref()).map(Response::new)
    }

    async fn create_api_key(
        &self,
        request: Request<CreateApiKeyRequest>,
    ) -> Result<Response<CreateApiKeyResponse>, Status> {
        let principal = principal_of(&request);
        api_keys::create(&self.context, principal, request.into_inner()).await.map(Response::new)
    }

    async fn update_api_key(
        &self,
        request: Request<UpdateApiKeyRequest>,
    ) -> Result<Response<UpdateApiKeyResponse>, Status> {
        let principal = principal_of(&request);
        api_keys::update(&self.context, principal, request.into_inner()).await.map(Response::new)
    }

    async fn delete_api_key(
        &self,
        request: Request<DeleteApiKeyRequest>,
    ) -> Result<Response<DeleteApiKeyResponse>, Status> {
        let principal = principal_of(&request);
        api_keys::delete(&self.context, principal, request.into_inner()).await.map(Response::new)
    }

    async fn import_prices(
        &self,
        request: Request<ImportPricesRequest>,
    ) -> Result<Response<ImportPricesResponse>, Status> {
        let principal = principal_of(&request);
        prices::import(&self.context, principal, request.into_inner()).await.map(Response::new)
    }

    async fn get_budget(
        &self,
        request: Request<GetBudgetRequest>,
    ) -> Result<Response<GetBudgetResponse>, Status> {
        budgets::get(&self.context, &request.get_ref().name).map(Response::new)
    }

    async fn list_budgets(
        &self,
        request: Request<ListBudgetsRequest>,
    ) -> Result<Response<ListBudgetsResponse>, Status> {
        budgets::list(&self.context, request.get_ref()).map(Response::new)
    }

    async fn create_budget(
        &self,
        request: Request<CreateBudgetRequest>,
    ) -> Result<Response<CreateBudgetResponse>, Status> {
        let principal = principal_of(&request);
        budgets::create(&self.context, principal, request.into_inner()).await.map(Response::new)
    }

    async fn update_budget(
        &self,
        request: Request<UpdateBudgetRequest>,
    ) -> Result<Response<UpdateBudgetResponse>, Status> {
        let principal = principal_of(&request);
        budgets::update(&self.context, principal, request.into_inner()).await.map(Response::new)
    }

    async fn delete_budget(
        &self,
        request: Request<DeleteBudgetRequest>,
    ) -> Result<Response<DeleteBudgetResponse>, Status> {
        let principal = principal_of(&request);
        budgets::delete(&self.context, principal, request.into_inner()).await.map(Response::new)
    }

    async fn apply_config(
        &self,
        request: Request<ApplyConfigRequest>,
    ) -> Result<Response<ApplyConfigResponse>, Status> {
        let principal = principal_of(&request);
        config::apply(&self.context, principal, request.into_inner()).await.map(Response::new)
    }

    async fn export_config(
        &self,
        _: Request<ExportConfigRequest>,
    ) -> Result<Response<ExportConfigResponse>, Status> {
        Ok(Response::new(config::export(&self.context)))
    }

    async fn export_state(
        &self,
        request: Request<ExportStateRequest>,
    ) -> Result<Response<Self::ExportStateStream>, Status> {
        // It is no change, so the audit log of changes has no place for it.
        tracing::info!(principal = principal_of(&request), "all state is exported");
        state::export(&self.context).await.map(Response::new)
    }

    async fn list_revisions(
        &self,
        request: Request<ListRevisionsRequest>,
    ) -> Result<Response<ListRevisionsResponse>, Status> {
        revisions::list(&self.context, request.get_ref()).await.map(Response::new)
    }

    async fn rollback_config(
        &self,
        request: Request<RollbackConfigRequest>,
    ) -> Result<Response<RollbackConfigResponse>, Status> {
        let principal = principal_of(&request);
        revisions::rollback(&self.context, principal, request.into_inner()).await.map(Response::new)
    }

    async fn query_audit(
        &self,
        request: Request<QueryAuditRequest>,
    ) -> Result<Response<QueryAuditResponse>, Status> {
        audit::query(&self.context, request.into_inner()).await.map(Response::new)
    }

    async fn list_agents(
        &self,
        request: Request<ListAgentsRequest>,
    ) -> Result<Response<ListAgentsResponse>, Status> {
        agents::list(&self.context, request.get_ref()).map(Response::new)
    }

    async fn drain_agent(
        &self,
        request: Request<DrainAgentRequest>,
    ) -> Result<Response<DrainAgentResponse>, Status> {
        let principal = principal_of(&request);
        drain::drain(&self.context, request.into_inner(), principal).await.map(Response::new)
    }

    async fn inject_fault(
        &self,
        request: Request<InjectFaultRequest>,
    ) -> Result<Response<InjectFaultResponse>, Status> {
        let principal = principal_of(&request);
        faults::inject(&self.context, request.into_inner(), principal).await.map(Response::new)
    }

    async fn list_faults(
        &self,
        _: Request<ListFaultsRequest>,
    ) -> Result<Response<ListFaultsResponse>, Status> {
        Ok(Response::new(faults::list(&self.context)))
    }

    async fn clear_fault(
        &self,
        request: Request<ClearFaultRequest>,
    ) -> Result<Response<ClearFaultResponse>, Status> {
        let principal = principal_of(&request);
        faults::clear(&self.context, request.into_inner(), principal).await.map(Response::new)
    }

    async fn list_breakers(
        &self,
        request: Request<ListBreakersRequest>,
    ) -> Result<Response<ListBreakersResponse>, Status> {
        Ok(Response::new(breakers::list(&self.context, request.into_inner())))
    }

    async fn set_breaker(
        &self,
        request: Request<SetBreakerRequest>,
    ) -> Result<Response<SetBreakerResponse>, Status> {
        let principal = principal_of(&request);
        breakers::set(&self.context, principal, request.into_inner()).await.map(Response::new)
    }

    async fn get_stats(
        &self,
        request: Request<GetStatsRequest>,
    ) -> Result<Response<GetStatsResponse>, Status> {
        stats::get(&self.context, request.get_ref()).await.map(Response::new)
    }

    async fn query_history(
        &self,
        request: Request<QueryHistoryRequest>,
    ) -> Result<Response<QueryHistoryResponse>, Status> {
        history::query(&self.context, request.into_inner()).await.map(Response::new)
    }
}
