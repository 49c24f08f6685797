//! `compose.yaml`: valid for the schema of compose files, and tight.

use std::{collections::BTreeMap, process::Command};

use serde_json::{Map, Value};

use crate::{environment, exists, place, read, run};

const FILE: &str = "deploy/compose/compose.yaml";

/// A service as it is meant, merge keys carried out.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) name: String,
    pub(crate) fields: Map<String, Value>,
}

impl Service {
    /// A field that is a list of texts; empty when it is absent.
    pub(crate) fn texts(&self, field: &str) -> Vec<String> {
        let list = self.fields.get(field).and_then(Value::as_array).cloned().unwrap_or_default();
        list.iter().map(|value| value.as_str().unwrap().to_owned()).collect()
    }

    /// Program and arguments of the health check.
    pub(crate) fn health_check(&self) -> Vec<String> {
        let test = self.fields["healthcheck"]["test"].as_array().unwrap();
        let test: Vec<_> = test.iter().map(|value| value.as_str().unwrap().to_owned()).collect();
        assert_eq!(test[0], "CMD", "the image has no shell");
        test[1..].to_vec()
    }
}

fn document() -> Value {
    merged(serde_saphyr::from_str(&read(FILE)).unwrap())
}

/// All services by name.
pub(crate) fn services() -> BTreeMap<String, Service> {
    let Value::Object(services) = document()["services"].take() else { panic!("no services") };
    let service = |(name, fields): (String, Value)| {
        let Value::Object(fields) = fields else { panic!("{name} is no map") };
        (name.clone(), Service { name, fields })
    };
    services.into_iter().map(service).collect()
}

/// Carries out `<<`: what is said beside it wins.
fn merged(value: Value) -> Value {
    match value {
        Value::Object(mut map) => {
            let mut whole = match map.remove("<<") {
                Some(base) => match merged(base) {
                    Value::Object(base) => base,
                    other => panic!("<<: {other}"),
                },
                None => Map::new(),
            };
            whole.extend(map.into_iter().map(|(key, value)| (key, merged(value))));
            Value::Object(whole)
        }
        Value::Array(list) => Value::Array(list.into_iter().map(merged).collect()),
        other => other,
    }
}

#[test]
fn schema_of_compose_files_accepts_it() {
    let environment = environment::Environment::prepare();
    run(Command::new(environment.tool("check-jsonschema"))
        .args(["--builtin-schema", "vendor.compose-spec"])
        .arg(place(FILE)));
}

/// Where compose itself is there, it has the last word.
#[test]
fn compose_accepts_it() {
    let has_compose = exists("docker")
        && Command::new("docker").args(["compose", "version"]).output().unwrap().status.success();
    if has_compose {
        run(Command::new("docker").args(["compose", "--file"]).arg(place(FILE)).args(["config", "--quiet"]));
    }
}

#[test]
fn every_service_is_confined() {
    let services = services();
    assert_eq!(services.keys().collect::<Vec<_>>(), ["agent-1", "agent-2", "control-plane", "provider"]);
    for Service { name, fields } in services.values() {
        assert_eq!(fields["read_only"], true, "{name}");
        assert_eq!(fields["cap_drop"], serde_json::json!(["ALL"]), "{name}");
        assert_eq!(fields["security_opt"], serde_json::json!(["no-new-privileges:true"]), "{name}");
        assert_eq!(fields["user"], "65532:65532", "{name}");
        assert_eq!(fields["ulimits"]["core"], 0, "{name}");
        for bound in ["mem_limit", "pids_limit", "healthcheck", "restart", "logging"] {
            assert!(fields.contains_key(bound), "{name} has no {bound}");
        }
        for open in ["privileged", "network_mode", "pid", "ipc", "devices", "cap_add", "environment"] {
            assert!(!fields.contains_key(open), "{name} has {open}");
        }
        let image = fields["image"].as_str().unwrap();
        let tag = image.split_once(':').unwrap_or_else(|| panic!("{name}: {image} has no tag")).1;
        assert_eq!(tag, env!("CARGO_PKG_VERSION"), "{name}");
    }
}

#[test]
fn ports_are_of_this_machine_only() {
    for service in services().values() {
        for port in service.texts("ports") {
            assert!(port.starts_with("127.0.0.1:"), "{}: {port}", service.name);
        }
    }
}

/// A process sees the secrets that its command line names, and no others; all are made by
/// the script.
#[test]
fn each_service_gets_its_own_secrets() {
    let below = tempfile::TempDir::new().unwrap();
    let made = crate::secrets::make(&below);
    let document = document();
    for service in services().values() {
        let words = [service.texts("command"), service.health_check()].concat();
        let mut named: Vec<_> =
            words.iter().filter_map(|word| word.split_once("/run/secrets/")).map(|(_, name)| name).collect();
        named.sort_unstable();
        named.dedup();
        let mut given = service.texts("secrets");
        given.sort_unstable();
        assert_eq!(named, given, "{}", service.name);
        for name in given {
            let file =
                document["secrets"][&name]["file"].as_str().unwrap_or_else(|| panic!("no secret {name}"));
            assert_eq!(file, format!("./secrets/{name}"));
            assert!(made.join(&name).is_file(), "the script does not make {name}");
        }
    }
}
