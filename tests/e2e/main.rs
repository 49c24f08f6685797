//! What users of Trunkline live through, shown with its real processes.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod bad_input;
mod breakers;
mod budget_actions;
mod budgets;
mod cli_admin;
mod client_leaves;
mod compare;
mod control_plane_away;
mod credentials;
mod disk_full;
mod drain;
mod durability;
mod dying_provider;
mod failover;
mod fleet_breaker;
mod grpc_agent;
mod grpc_control_plane;
mod keys;
mod knobs;
mod learning;
mod local_errors;
mod main_job;
mod mid_stream;
mod prices;
mod reconnect_storm;
mod replay;
mod secrets;
mod skew;
mod state_transfer;
mod telemetry_faults;
