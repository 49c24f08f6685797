//! Starts that fail.

use super::*;

#[tokio::test]
async fn wrong_control_plane_leaves_nothing_running() {
    let directory = tempfile::tempdir().unwrap();
    let probe = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = probe.local_addr().unwrap();
    drop(probe);
    let control_plane = Some("http://[".to_owned());
    let options = Options { listen, control_plane, ..options(directory.path()) };
    let error = Agent::with(options, directory, Limits::default()).await.err().unwrap();
    assert!(error.is_input(), "{error}");
    TcpStream::connect(listen).await.unwrap_err();
}

#[tokio::test]
async fn missing_configuration_and_unusable_directory_are_wrong_input() {
    let directory = tempfile::tempdir().unwrap();
    let missing = Some(directory.path().join("nonesuch.yaml"));
    let options_missing = Options { static_config: missing, ..options(directory.path()) };
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    let options_file = options(&file.join("below"));
    for options in [options_missing, options_file] {
        let error = start_limited(options, Limits::default(), CancellationToken::new()).await.err().unwrap();
        assert!(error.is_input(), "{error}");
    }
}

#[tokio::test]
async fn a_data_directory_is_for_one_agent_until_it_stopped() {
    let root = tempfile::tempdir().unwrap();
    let data = root.path().join("data");
    let start = async || Agent::with(options(&data), tempfile::tempdir().unwrap(), Limits::default()).await;
    let first = start().await.unwrap();
    let error = start().await.err().unwrap();
    assert!(error.is_input(), "{error}");
    let said = error.to_string();
    assert!(said.contains(&data.display().to_string()) && said.contains("--data-dir"), "{said}");
    first.stopped().await;
    start().await.unwrap().stopped().await;
}
