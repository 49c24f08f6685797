//! Handshakes over loopback, with certificates made here.

use std::fs;

use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    time::Instant,
};
use tokio_rustls::TlsConnector;

use super::*;

/// Where a test keeps its pair.
struct Files {
    directory: tempfile::TempDir,
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl Files {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { directory: tempfile::tempdir().unwrap(), authority }
    }

    fn certificate(&self) -> PathBuf {
        self.directory.path().join("cert.pem")
    }

    fn key(&self) -> PathBuf {
        self.directory.path().join("key.pem")
    }

    /// A new pair for a name: the certificate's PEM and the key's.
    fn pair(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.authority).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    fn write(&self, (certificate, key): &(String, String)) {
        fs::write(self.certificate(), certificate).unwrap();
        fs::write(self.key(), key).unwrap();
    }

    fn connector(&self, alpn: &[&str]) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.der().clone()).unwrap();
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        TlsConnector::from(Arc::new(config))
    }

    /// Shakes hands for a name, and moves a byte.
    async fn reach(
        &self,
        acceptor: &Acceptor,
        name: &'static str,
        alpn: &[&str],
    ) -> io::Result<Option<Vec<u8>>> {
        let (client, server): (DuplexStream, _) = duplex(16 * 1024);
        let serve = async {
            let mut stream = acceptor.accept(server).await?;
            let byte = stream.read_u8().await?;
            stream.write_u8(byte).await?;
            stream.flush().await?;
            // The client closes first, or its read could fail.
            stream.read_u8().await.ok();
            io::Result::Ok(())
        };
        let ask = async {
            let name = ServerName::try_from(name).unwrap();
            let mut stream = self.connector(alpn).connect(name, client).await?;
            stream.write_u8(7).await?;
            assert_eq!(stream.read_u8().await?, 7);
            Ok(stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec))
        };
        let (answered, asked) = tokio::join!(serve, ask);
        answered?;
        asked
    }
}

#[tokio::test]
async fn the_protocol_is_agreed_on_and_a_foreign_one_is_turned_away() {
    let files = Files::new();
    files.write(&files.pair("here.test"));
    let tls = ServerTls::load(&files.certificate(), &files.key()).unwrap();
    for (protocols, offer, agreed) in [
        (Protocols::H2AndHttp1, &["http/1.1", "h2"][..], Some("h2")),
        (Protocols::H2AndHttp1, &["http/1.1"], Some("http/1.1")),
        (Protocols::H2AndHttp1, &[], None),
        (Protocols::Http1, &["h2", "http/1.1"], Some("http/1.1")),
        (Protocols::H2, &["h2"], Some("h2")),
    ] {
        let acceptor = tls.acceptor(protocols).unwrap();
        let got = files.reach(&acceptor, "here.test", offer).await.unwrap();
        assert_eq!(got.as_deref(), agreed.map(str::as_bytes), "{protocols:?} {offer:?}");
    }
    let acceptor = tls.acceptor(Protocols::H2).unwrap();
    assert!(files.reach(&acceptor, "here.test", &["http/1.1"]).await.is_err());
    assert!(files.reach(&acceptor, "else.test", &["h2"]).await.is_err(), "the name is checked");
}

#[tokio::test(start_paused = true)]
async fn a_replaced_pair_is_used_and_a_broken_one_is_not() {
    let files = Files::new();
    files.write(&files.pair("old.test"));
    let tls = ServerTls::load(&files.certificate(), &files.key()).unwrap();
    let acceptor = tls.acceptor(Protocols::H2).unwrap();
    let following = tokio::spawn(tls.follow());
    // Paused time runs on by itself, so this is several looks.
    let looks = || tokio::time::sleep(Duration::from_secs(20));
    files.reach(&acceptor, "old.test", &["h2"]).await.unwrap();

    // As while it is being replaced: the key is still the old one's.
    let new = files.pair("new.test");
    fs::write(files.certificate(), &new.0).unwrap();
    looks().await;
    files.reach(&acceptor, "old.test", &["h2"]).await.unwrap();
    fs::remove_file(files.key()).unwrap();
    looks().await;
    files.reach(&acceptor, "old.test", &["h2"]).await.unwrap();

    files.write(&new);
    looks().await;
    files.reach(&acceptor, "new.test", &["h2"]).await.unwrap();
    assert!(files.reach(&acceptor, "old.test", &["h2"]).await.is_err());
    following.abort();
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_given_up_and_holds_no_place() {
    let files = Files::new();
    files.write(&files.pair("here.test"));
    let tls = ServerTls::load(&files.certificate(), &files.key()).unwrap();
    let acceptor = tls.acceptor(Protocols::H2).unwrap();
    let (_client, server) = duplex(16);
    let started = Instant::now();
    let error = acceptor.accept(server).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert_eq!(started.elapsed(), HELLO_TIMEOUT);
    assert_eq!(acceptor.waiting.available_permits(), WAITING_MAX);
}

#[tokio::test(start_paused = true)]
async fn silent_clients_hold_nobody_out_until_there_are_too_many() {
    let files = Files::new();
    files.write(&files.pair("here.test"));
    let tls = ServerTls::load(&files.certificate(), &files.key()).unwrap();
    let acceptor = tls.acceptor(Protocols::H2).unwrap();
    let started = Instant::now();
    let mut clients = Vec::new();
    let mut handshakes = tokio::task::JoinSet::new();
    let mut more = |count: usize| {
        for _ in 0..count {
            let (client, server) = duplex(16);
            let acceptor = acceptor.clone();
            clients.push(client);
            handshakes.spawn(async move { acceptor.accept(server).await });
        }
    };
    more(WAITING_MAX - 1);
    while acceptor.waiting.available_permits() > 1 {
        tokio::task::yield_now().await;
    }
    files.reach(&acceptor, "here.test", &["h2"]).await.unwrap();
    more(1);
    while acceptor.waiting.available_permits() > 0 {
        tokio::task::yield_now().await;
    }
    assert!(files.reach(&acceptor, "here.test", &["h2"]).await.is_err());
    let other = tls.acceptor(Protocols::Http1).unwrap();
    files.reach(&other, "here.test", &["http/1.1"]).await.unwrap();
    assert_eq!(started.elapsed(), Duration::ZERO, "somebody waited");

    let results = handshakes.join_all().await;
    assert!(results.iter().all(|result| result.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::TimedOut)));
    assert_eq!(started.elapsed(), HELLO_TIMEOUT);
    files.reach(&acceptor, "here.test", &["h2"]).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_wait_for_a_turn_ends_with_the_time_for_the_handshake() {
    let files = Files::new();
    files.write(&files.pair("here.test"));
    let tls = ServerTls::load(&files.certificate(), &files.key()).unwrap();
    let acceptor = tls.acceptor(Protocols::H2).unwrap();
    let all = u32::try_from(HANDSHAKES_MAX).unwrap();
    let places = acceptor.handshakes.acquire_many(all).await.unwrap();
    let started = Instant::now();
    assert!(files.reach(&acceptor, "here.test", &["h2"]).await.is_err());
    assert_eq!(started.elapsed(), HANDSHAKE_TIMEOUT);
    drop(places);
    files.reach(&acceptor, "here.test", &["h2"]).await.unwrap();
}

#[test]
fn what_is_wrong_with_a_pair_is_told_without_showing_the_key() {
    let files = Files::new();
    let (certificate, key) = files.pair("here.test");
    let (_, other) = files.pair("here.test");
    let secret = key.lines().nth(1).unwrap().to_owned();
    let broken = key.replace("-----END", "!!-----END");
    for (certificate, key, said) in [
        (&certificate, &other, "can't be used together"),
        (&key, &key, "cert.pem has no certificate"),
        (&certificate, &certificate, "key.pem has no private key"),
        (&certificate, &broken, "key.pem has no private key"),
    ] {
        files.write(&(certificate.clone(), key.clone()));
        let error = ServerTls::load(&files.certificate(), &files.key()).unwrap_err();
        assert!(error.to_string().contains(said), "{error}");
        assert!(!format!("{error} {error:?}").contains(&secret));
    }
    let missing = ServerTls::load(&files.directory.path().join("none.pem"), &files.key()).unwrap_err();
    assert!(missing.to_string().contains("read ") && missing.to_string().contains("none.pem"), "{missing}");
    files.write(&(certificate, key));
    let tls = ServerTls::load(&files.certificate(), &files.key()).unwrap();
    assert!(!format!("{tls:?}").contains(&secret));
}
