//! The agent as a process, where it does not come to serve.

use std::process::Command;

#[test]
fn wrong_input_is_said_and_is_exit_code_2() {
    let directory = tempfile::tempdir().unwrap();
    for (arguments, said) in [
        (["--log", "a=b=c"], "--log"),
        (["--static-config", "/nonesuch/config.yaml"], "/nonesuch/config.yaml"),
        (["--control-plane", "http://["], "--control-plane"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trunkline-agent"));
        command.args(["--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0", "--data-dir"]);
        let output = command.arg(directory.path()).args(arguments).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {stderr}");
        assert!(stderr.contains(said), "{arguments:?}: {stderr}");
    }
}

#[test]
fn a_data_directory_in_use_is_said_and_is_exit_code_2() {
    let directory = tempfile::tempdir().unwrap();
    let lock = std::fs::File::create(directory.path().join("lock")).unwrap();
    lock.lock().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_trunkline-agent"));
    command.args(["--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0", "--data-dir"]);
    let output = command.arg(directory.path()).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("in use by another agent"), "{stderr}");
}
