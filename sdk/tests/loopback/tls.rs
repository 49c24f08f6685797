//! The client over TLS.

#![expect(clippy::unwrap_used, reason = "a test that can't go on says so")]

use std::sync::{Arc, Mutex};

use trunkline_sdk::{
    Client, CompleteRequestExt as _, CompleteResponseExt as _, Error, types::CompleteRequest,
};
use trunkline_transport::tls::{Acceptor, Protocols, ServerTls};

use crate::fake::{Behaviour, Fake};

/// TLS for 127.0.0.1, and the PEM text that clients must trust.
fn tls() -> (Acceptor, String) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let (certificate, key) = (directory.path().join("cert.pem"), directory.path().join("key.pem"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let acceptor = ServerTls::load(&certificate, &key).unwrap().acceptor(Protocols::H2).unwrap();
    (acceptor, made.cert.pem())
}

#[tokio::test]
async fn an_own_authority_is_trusted_and_no_other() {
    let (tls, authority) = tls();
    let fake = Fake::with(Behaviour::answer(), Some(tls)).await;

    let client = Client::builder(fake.address.as_str()).ca_certificate(authority).api_key("key");
    let client = client.connect().await.unwrap();
    client.complete(CompleteRequest::user("chat", "hello")).await.unwrap();

    let other = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap().cert.pem();
    for client in [
        Client::builder(fake.address.as_str()),
        Client::builder(fake.address.as_str()).ca_certificate(other),
        Client::builder(fake.address.replace("https", "http")),
    ] {
        let client = client.connect_lazy().unwrap();
        let error = client.complete(CompleteRequest::user("chat", "hello")).await.unwrap_err();
        assert!(matches!(error, Error::Unreachable { .. } | Error::Interrupted { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn agents_that_would_be_told_the_key_in_the_clear_are_left_out() {
    let agent = Fake::start(Behaviour::answer()).await;
    let listed = Arc::new(Mutex::new(format!("http://agent.invalid:7700,{}", agent.address)));
    let (tls, authority) = tls();
    let mut home = Fake::with(Behaviour::Redirect(Arc::clone(&listed)), Some(tls)).await;
    let client = || {
        let client = Client::builder(home.address.as_str()).ca_certificate(authority.as_str());
        client.api_key("secret-of-the-app").connect_lazy().unwrap()
    };
    // What stays on this machine needs no TLS.
    let answer = client().complete(CompleteRequest::user("chat", "hello")).await.unwrap();
    assert_eq!(answer.text(), agent.address);

    "http://agent.invalid:7700".clone_into(&mut listed.lock().unwrap());
    let error = client().complete(CompleteRequest::user("chat", "hello")).await.unwrap_err();
    let Error::InvalidAddress { address, problem } = &error else { panic!("{error:?}") };
    assert_eq!(address, "http://agent.invalid:7700");
    assert!(problem.contains("in the clear") && problem.contains("https://host:port"), "{problem}");
    assert!(!format!("{error} {error:?}").contains("secret-of"));
    assert_eq!(home.calls_so_far(), 2);
}
