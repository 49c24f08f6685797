//! The one table of what each role may call. A test walks it over every RPC there is:
//! an RPC without a row fails it, and so does a row without an RPC.

use std::{collections::HashMap, fmt, sync::LazyLock};

use Allowed::{Authenticated, Everybody, Roles};

/// What a principal is here for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Role {
    /// Reads, and sees no secret.
    Viewer,
    /// Runs it: routes, breakers, drains and drills.
    Operator,
    /// Does everything, also what reaches credentials.
    Admin,
    /// An agent's own streams.
    Agent,
    /// Sends requests.
    App,
}

impl Role {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
            Self::Agent => "agent",
            Self::App => "app",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Who may call an RPC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Allowed {
    /// Also those who say nothing of themselves.
    Everybody,
    /// All roles.
    Authenticated,
    /// These only.
    Roles(&'static [Role]),
}

impl Allowed {
    /// Whether a role may.
    pub(crate) fn role(self, role: Role) -> bool {
        match self {
            Everybody | Authenticated => true,
            Roles(roles) => roles.contains(&role),
        }
    }
}

impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Everybody => f.write_str("everybody"),
            Authenticated => f.write_str("every role"),
            Roles(roles) => f.write_str(&roles.iter().map(|role| role.name()).collect::<Vec<_>>().join(", ")),
        }
    }
}

const READ: Allowed = Roles(&[Role::Viewer, Role::Operator, Role::Admin]);
/// What is needed at night. It can't make the fleet talk to another provider, use
/// another credential, or let somebody in.
const RUN: Allowed = Roles(&[Role::Operator, Role::Admin]);
/// What reaches providers, credentials and keys, or takes all state out.
const OWN: Allowed = Roles(&[Role::Admin]);
const AGENT: Allowed = Roles(&[Role::Agent]);
const APP: Allowed = Roles(&[Role::App]);

/// Paths as they are dispatched.
pub(crate) const ROLES: &[(&str, Allowed)] = &[
    ("/trunkline.admin.v1.AdminService/GetProvider", READ),
    ("/trunkline.admin.v1.AdminService/ListProviders", READ),
    ("/trunkline.admin.v1.AdminService/CreateProvider", OWN),
    ("/trunkline.admin.v1.AdminService/UpdateProvider", OWN),
    ("/trunkline.admin.v1.AdminService/DeleteProvider", OWN),
    ("/trunkline.admin.v1.AdminService/GetDeployment", READ),
    ("/trunkline.admin.v1.AdminService/ListDeployments", READ),
    ("/trunkline.admin.v1.AdminService/CreateDeployment", OWN),
    ("/trunkline.admin.v1.AdminService/UpdateDeployment", OWN),
    ("/trunkline.admin.v1.AdminService/DeleteDeployment", OWN),
    ("/trunkline.admin.v1.AdminService/GetVirtualModel", READ),
    ("/trunkline.admin.v1.AdminService/ListVirtualModels", READ),
    ("/trunkline.admin.v1.AdminService/CreateVirtualModel", RUN),
    ("/trunkline.admin.v1.AdminService/UpdateVirtualModel", RUN),
    ("/trunkline.admin.v1.AdminService/DeleteVirtualModel", RUN),
    ("/trunkline.admin.v1.AdminService/GetPriceEntry", READ),
    ("/trunkline.admin.v1.AdminService/ListPriceEntries", READ),
    ("/trunkline.admin.v1.AdminService/CreatePriceEntry", RUN),
    ("/trunkline.admin.v1.AdminService/UpdatePriceEntry", RUN),
    ("/trunkline.admin.v1.AdminService/DeletePriceEntry", RUN),
    ("/trunkline.admin.v1.AdminService/AcceptPriceEntry", RUN),
    ("/trunkline.admin.v1.AdminService/ImportPrices", RUN),
    ("/trunkline.admin.v1.AdminService/GetApiKey", OWN),
    ("/trunkline.admin.v1.AdminService/ListApiKeys", OWN),
    ("/trunkline.admin.v1.AdminService/CreateApiKey", OWN),
    ("/trunkline.admin.v1.AdminService/UpdateApiKey", OWN),
    ("/trunkline.admin.v1.AdminService/DeleteApiKey", OWN),
    ("/trunkline.admin.v1.AdminService/GetBudget", READ),
    ("/trunkline.admin.v1.AdminService/ListBudgets", READ),
    ("/trunkline.admin.v1.AdminService/CreateBudget", OWN),
    ("/trunkline.admin.v1.AdminService/UpdateBudget", OWN),
    ("/trunkline.admin.v1.AdminService/DeleteBudget", OWN),
    ("/trunkline.admin.v1.AdminService/ApplyConfig", OWN),
    ("/trunkline.admin.v1.AdminService/ExportConfig", READ),
    ("/trunkline.admin.v1.AdminService/ExportState", OWN),
    ("/trunkline.admin.v1.AdminService/ListRevisions", READ),
    ("/trunkline.admin.v1.AdminService/RollbackConfig", OWN),
    ("/trunkline.admin.v1.AdminService/QueryAudit", READ),
    ("/trunkline.admin.v1.AdminService/WatchResources", READ),
    ("/trunkline.admin.v1.AdminService/ListAgents", READ),
    ("/trunkline.admin.v1.AdminService/DrainAgent", RUN),
    ("/trunkline.admin.v1.AdminService/InjectFault", RUN),
    ("/trunkline.admin.v1.AdminService/ListFaults", READ),
    ("/trunkline.admin.v1.AdminService/ClearFault", RUN),
    ("/trunkline.admin.v1.AdminService/ListBreakers", READ),
    ("/trunkline.admin.v1.AdminService/SetBreaker", RUN),
    ("/trunkline.admin.v1.AdminService/GetStats", READ),
    ("/trunkline.admin.v1.AdminService/QueryHistory", READ),
    ("/trunkline.agent.v1.AgentService/Sync", AGENT),
    ("/trunkline.telemetry.v1.TelemetryService/StreamReports", AGENT),
    ("/trunkline.routing.v1.RoutingService/Route", APP),
    ("/trunkline.routing.v1.RoutingService/Complete", APP),
    ("/trunkline.routing.v1.RoutingService/StreamComplete", APP),
    ("/trunkline.routing.v1.RoutingService/ReportOutcome", APP),
    ("/trunkline.routing.v1.RoutingService/ExplainDecision", APP),
    ("/trunkline.routing.v1.RoutingService/WatchRoutes", APP),
    ("/grpc.health.v1.Health/Check", Everybody),
    ("/grpc.health.v1.Health/Watch", Everybody),
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Authenticated),
    ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Authenticated),
];

/// Who may call what is dispatched by `path`. None: there is no such RPC, or nobody said
/// who may.
pub(crate) fn allowed(path: &str) -> Option<Allowed> {
    static BY_PATH: LazyLock<HashMap<&str, Allowed>> = LazyLock::new(|| ROLES.iter().copied().collect());
    BY_PATH.get(path).copied()
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fmt::Write as _};

    use prost_reflect::DescriptorPool;

    use super::*;

    /// All RPCs that any of our processes serves, as paths.
    fn served() -> BTreeSet<String> {
        [
            trunkline_proto::FILE_DESCRIPTOR_SET,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
        ]
        .into_iter()
        .flat_map(|set| {
            let pool = DescriptorPool::decode(set).unwrap();
            let services: Vec<_> = pool.services().collect();
            services.into_iter().flat_map(|service| {
                let methods: Vec<_> = service.methods().collect();
                methods.into_iter().map(move |method| format!("/{}/{}", service.full_name(), method.name()))
            })
        })
        .collect()
    }

    #[test]
    fn every_rpc_has_one_row_and_every_row_an_rpc() {
        let rows: BTreeSet<_> = ROLES.iter().map(|(path, _)| (*path).to_owned()).collect();
        assert_eq!(rows.len(), ROLES.len(), "a path is there twice");
        let served = served();
        let missing: Vec<_> = served.difference(&rows).collect();
        assert!(missing.is_empty(), "say in control-plane/src/access/roles.rs who may call {missing:?}");
        let stale: Vec<_> = rows.difference(&served).collect();
        assert!(stale.is_empty(), "there is no such RPC any more: {stale:?}");
    }

    #[test]
    fn agents_apps_and_people_do_not_share_calls() {
        for (path, allowed) in ROLES {
            let Roles(roles) = allowed else { continue };
            let people = roles.iter().filter(|role| !matches!(role, Role::Agent | Role::App)).count();
            assert!(people == roles.len() || roles.len() == 1, "{path}");
            // Who may do more may do all that who may do less may.
            assert!(people == 0 || roles.contains(&Role::Admin), "{path}");
            assert!(!roles.contains(&Role::Viewer) || roles.contains(&Role::Operator), "{path}");
        }
    }

    #[test]
    fn the_guide_has_this_table() {
        let mut table = "| call | who may |\n|---|---|\n".to_owned();
        for (path, allowed) in ROLES {
            let call = path.rsplit('.').next().unwrap();
            let call = if path.contains(".v1alpha.") { format!("{call} (v1alpha)") } else { call.to_owned() };
            writeln!(table, "| {call} | {allowed} |").unwrap();
        }
        let guide = include_str!("../../../docs/guides/security.md");
        assert!(guide.contains(&table), "put this table into docs/guides/security.md:\n{table}");
    }

    #[test]
    fn a_path_must_be_the_one_that_dispatches() {
        assert!(allowed("/trunkline.admin.v1.AdminService/GetStats").is_some());
        for other in [
            "/trunkline.admin.v1.AdminService/getstats",
            "/trunkline.admin.v1.AdminService/GetStats/",
            "//trunkline.admin.v1.AdminService/GetStats",
            "/trunkline.admin.v1.AdminService/Get%53tats",
            "/",
            "",
        ] {
            assert_eq!(allowed(other), None, "{other}");
        }
    }
}
