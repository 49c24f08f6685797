//! The client over TLS.

use trunkline_sdk::{Client, CompleteRequestExt as _, Error, types::CompleteRequest};
use trunkline_transport::tls::{Protocols, ServerTls};

use crate::fake::{Behaviour, Fake};

#[tokio::test]
async fn an_own_authority_is_trusted_and_no_other() {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let (certificate, key) = (directory.path().join("cert.pem"), directory.path().join("key.pem"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let tls = ServerTls::load(&certificate, &key).unwrap().acceptor(Protocols::H2).unwrap();
    let fake = Fake::with(Behaviour::answer(), Some(tls)).await;

    let client = Client::builder(fake.address.as_str()).ca_certificate(made.cert.pem()).api_key("key");
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
