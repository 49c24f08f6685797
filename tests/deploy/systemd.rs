//! The systemd units: accepted by systemd where it is there, tight, and with what their
//! command lines name.

use std::{fs, process::Command};

use crate::{
    environment, exists, place, read, run,
    unit::{Unit, variables},
};

/// Program, unit and the variables of its flags.
const UNITS: [(&str, &str, &str); 2] = [
    (
        "trunkline-control-plane",
        "deploy/systemd/trunkline-control-plane.service",
        "deploy/systemd/control-plane.env",
    ),
    ("trunkline-agent", "deploy/systemd/trunkline-agent.service", "deploy/systemd/agent.env"),
];

/// Of `systemd-analyze security`, in tenths, 0 to 100; below 20 it says "OK". What is left
/// is the network, which these services are for.
const EXPOSURE_TENTHS_MAX: &str = "15";

/// What makes the sandbox, in both units.
const SANDBOX: [(&str, &str); 27] = [
    ("DynamicUser", "yes"),
    ("StateDirectoryMode", "0700"),
    ("UMask", "0077"),
    ("LimitCORE", "0"),
    ("CapabilityBoundingSet", ""),
    ("AmbientCapabilities", ""),
    ("NoNewPrivileges", "yes"),
    ("ProtectSystem", "strict"),
    ("ProtectHome", "yes"),
    ("PrivateTmp", "yes"),
    ("PrivateDevices", "yes"),
    ("PrivateUsers", "yes"),
    ("ProtectHostname", "yes"),
    ("ProtectClock", "yes"),
    ("ProtectKernelTunables", "yes"),
    ("ProtectKernelModules", "yes"),
    ("ProtectKernelLogs", "yes"),
    ("ProtectControlGroups", "yes"),
    ("ProtectProc", "invisible"),
    ("RestrictAddressFamilies", "AF_INET AF_INET6 AF_UNIX"),
    ("RestrictNamespaces", "yes"),
    ("RestrictRealtime", "yes"),
    ("RestrictSUIDSGID", "yes"),
    ("LockPersonality", "yes"),
    ("MemoryDenyWriteExecute", "yes"),
    ("SystemCallArchitectures", "native"),
    ("Restart", "on-failure"),
];

#[test]
fn sandbox_is_closed_in_both() {
    for (program, unit, _) in UNITS {
        let unit = Unit::read(&read(unit));
        for (key, value) in SANDBOX {
            assert_eq!(unit.one(key), value, "{program}: {key}");
        }
        assert_eq!(unit.service("SystemCallFilter"), ["@system-service", "~@privileged @resources"]);
        // Exit code 2 is wrong input, as docs/guides/operations.md says.
        assert_eq!(unit.one("RestartPreventExitStatus"), "2");
        for bound in ["MemoryMax", "TasksMax", "LimitNOFILE", "TimeoutStopSec"] {
            assert!(!unit.one(bound).is_empty(), "{program}: {bound}");
        }
    }
}

/// Every credential that is loaded is used, and every one that is used is loaded; keys of
/// providers are named by documents.
#[test]
fn credentials_are_those_of_the_command_line() {
    for (program, unit, _) in UNITS {
        let unit = Unit::read(&read(unit));
        let command = unit.command();
        assert_eq!(command[0], format!("/usr/bin/{program}"));
        let mut named: Vec<_> = command
            .iter()
            .filter_map(|word| word.split_once("${CREDENTIALS_DIRECTORY}/"))
            .map(|(_, name)| name.to_owned())
            .collect();
        named.sort_unstable();
        let mut loaded: Vec<_> =
            unit.credentials().into_iter().map(|(name, _)| name).filter(|name| name != "providers").collect();
        loaded.sort_unstable();
        assert_eq!(named, loaded, "{program}");
        let state = unit.one("StateDirectory");
        assert_eq!(state, program);
        assert!(command.contains(&"--data-dir=${STATE_DIRECTORY}".to_owned()), "{command:?}");
    }
}

#[test]
fn variables_are_flags_of_the_program() {
    for (program, _, file) in UNITS {
        let prefix = format!("{}_", program.to_uppercase().replace('-', "_"));
        let help = run(Command::new(crate::program(program)).arg("--help"));
        for (name, _) in variables(&read(file)) {
            assert!(name.starts_with(&prefix), "{file}: {name}");
            assert!(help.contains(&format!("[env: {name}=")), "{file}: {program} has no {name}");
        }
    }
}

/// `systemd-analyze` is part of systemd; where it is there, it must have nothing to say.
#[test]
fn systemd_accepts_the_units_and_their_sandbox() {
    if !exists("systemd-analyze") {
        return;
    }
    let directory = environment::scratch("units");
    for (program, unit, _) in UNITS {
        // It looks for the program, which is not installed here.
        let text =
            read(unit).replace(&format!("/usr/bin/{program}"), crate::program(program).to_str().unwrap());
        let path = directory.join(place(unit).file_name().unwrap());
        fs::write(&path, text).unwrap();
        assert_eq!(run(Command::new("systemd-analyze").arg("verify").arg(&path)), "", "{unit}");
        run(Command::new("systemd-analyze")
            .args(["security", "--offline=true", &format!("--threshold={EXPOSURE_TENTHS_MAX}")])
            .arg(&path));
    }
}
