//! Checks what an agent says of itself before it is kept.

use tonic::Status;
use trunkline_proto::{
    agent::v1::{Heartbeat, Hello},
    status,
    types::v1::Version,
};

use crate::repository::DRILLS_MAX;

/// Longest id, incarnation and build version.
const NAME_BYTES_MAX: usize = 256;

/// Longest address.
const ADVERTISE_BYTES_MAX: usize = 1_024;

/// Missing credentials in a list: as many as a configuration has providers.
const CREDENTIALS_MAX: usize = 1_000;

pub(super) fn check(hello: &Hello) -> Result<(), Status> {
    name("hello.agent_id", &hello.agent_id)?;
    name("hello.incarnation", &hello.incarnation)?;
    at_most("hello.build_version", &hello.build_version, NAME_BYTES_MAX)?;
    at_most("hello.advertise", &hello.advertise, ADVERTISE_BYTES_MAX)?;
    // Addresses are told to apps in a list with commas.
    if hello.advertise.contains([',', ' ']) {
        return Err(status::invalid_field("hello.advertise", "must be one URL, without commas and spaces"));
    }
    check_applied("hello.applied", hello.applied.as_ref())?;
    check_credentials("hello.missing_credentials", &hello.missing_credentials)
}

pub(super) fn check_applied(field: &str, applied: Option<&Version>) -> Result<(), Status> {
    let epoch = applied.map_or("", |applied| applied.epoch.as_str());
    at_most(&format!("{field}.epoch"), epoch, NAME_BYTES_MAX)
}

pub(super) fn check_credentials(field: &str, names: &[String]) -> Result<(), Status> {
    if names.len() > CREDENTIALS_MAX {
        return Err(status::invalid_field(field, &format!("must have at most {CREDENTIALS_MAX} names")));
    }
    names.iter().try_for_each(|name| at_most(field, name, NAME_BYTES_MAX))
}

pub(super) fn check_heartbeat(heartbeat: &Heartbeat) -> Result<(), Status> {
    check_applied("heartbeat.applied", heartbeat.applied.as_ref())?;
    check_credentials("heartbeat.missing_credentials", &heartbeat.missing_credentials)?;
    let (field, faults) = ("heartbeat.active_faults", &heartbeat.active_faults);
    // Twice: those that just ended here may not have ended there.
    if faults.len() > 2 * DRILLS_MAX {
        return Err(status::invalid_field(field, &format!("must have at most {} names", 2 * DRILLS_MAX)));
    }
    faults.iter().try_for_each(|name| at_most(field, name, NAME_BYTES_MAX))
}

/// The grammar of agent ids.
pub(in crate::grpc) fn check_agent_id(field: &str, agent_id: &str) -> Result<(), Status> {
    name(field, agent_id)
}

fn name(field: &str, text: &str) -> Result<(), Status> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(status::invalid_field(
            field,
            "must be printable ASCII characters without spaces, at least one",
        ));
    }
    at_most(field, text, NAME_BYTES_MAX)
}

fn at_most(field: &str, text: &str, max: usize) -> Result<(), Status> {
    if text.len() > max {
        return Err(status::invalid_field(field, &format!("must have at most {max} bytes")));
    }
    Ok(())
}
