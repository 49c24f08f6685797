//! A control plane that polls a price list on loopback.
#![expect(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use tokio_util::sync::CancellationToken;
use trunkline_control_plane::{
    prices::{FeedSource, Format},
    start::{Options, StartError, start},
};
use trunkline_proto::{
    admin::v1::{ListPriceEntriesRequest, ListPriceEntriesResponse, UpdateProviderRequest},
    types::v1::{Deployment, PriceEntry},
};

use crate::support::{DOCUMENT, PATIENCE, Plane, apply, config, options};

/// What a server answers from now on, and what it was asked.
#[derive(Debug, Default)]
struct Script {
    /// Status line and headers.
    head: String,
    body: String,
    /// Requests that got a whole answer, and those that got 304.
    sent: usize,
    unchanged: usize,
}

#[derive(Clone)]
struct Server {
    script: Arc<Mutex<Script>>,
    address: SocketAddr,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self { script: Arc::default(), address: listener.local_addr().unwrap() };
        let script = Arc::clone(&server.script);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let script = Arc::clone(&script);
                tokio::spawn(async move {
                    let mut request = Vec::new();
                    while !request.ends_with(b"\r\n\r\n") {
                        if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
                            return;
                        }
                    }
                    let request = String::from_utf8_lossy(&request).to_lowercase();
                    let answer = {
                        let mut script = script.lock().unwrap();
                        let etag = script.head.lines().find_map(|line| line.strip_prefix("etag: "));
                        let known =
                            etag.is_some_and(|etag| request.contains(&format!("if-none-match: {etag}\r")));
                        if known {
                            script.unchanged += 1;
                            "HTTP/1.1 304 Not Modified\r\nconnection: close\r\n\r\n".to_owned()
                        } else {
                            script.sent += 1;
                            let length = script.body.len();
                            format!(
                                "{}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{}",
                                script.head, script.body
                            )
                        }
                    };
                    drop(stream.write_all(answer.as_bytes()).await);
                });
            }
        });
        server
    }

    fn answers(&self, head: &str, body: &str) {
        let mut script = self.script.lock().unwrap();
        (script.head, script.body) = (head.to_owned(), body.to_owned());
    }

    fn costs(&self, etag: &str, input: &str) {
        let body = format!(
            r#"{{"small": {{"input_cost_per_token": {input}, "output_cost_per_token": 2e-6}},
                "medium": {{"input_cost_per_token": 7e-6, "output_cost_per_token": 7e-6}}}}"#
        );
        self.answers(&format!("HTTP/1.1 200 OK\r\netag: {etag}"), &body);
    }

    fn source(&self) -> FeedSource {
        FeedSource {
            url: format!("http://{}/prices.json", self.address),
            format: Format::Litellm,
            interval: Duration::from_millis(50),
            allow_private: true,
        }
    }
}

async fn polling(server: &Server) -> Plane {
    let mut plane = Plane::with(Options { price_feed: Some(server.source()), ..options() }).await;
    plane.admin.apply_config(apply(config(DOCUMENT))).await.unwrap();
    plane
}

async fn until(
    plane: &mut Plane,
    what: &str,
    is_so: impl Fn(&ListPriceEntriesResponse) -> bool,
) -> ListPriceEntriesResponse {
    let looking = async {
        loop {
            let listed = plane.admin.list_price_entries(ListPriceEntriesRequest::default()).await.unwrap();
            if is_so(listed.get_ref()) {
                return listed.into_inner();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, looking).await.unwrap_or_else(|_| panic!("waited for {what}"))
}

fn counts(listed: &ListPriceEntriesResponse, deployment: &str, input: &str) -> bool {
    let is_it = |one: &PriceEntry| {
        one.deployment == deployment
            && one.held.is_empty()
            && one.price.as_ref().unwrap().input_usd_per_mtok == input
    };
    listed.price_entries.iter().any(is_it)
}

fn failed(listed: &ListPriceEntriesResponse, with: &str) -> bool {
    listed.feed.as_ref().unwrap().last_error.contains(with)
}

fn works(listed: &ListPriceEntriesResponse) -> bool {
    let feed = listed.feed.as_ref().unwrap();
    feed.last_error.is_empty() && feed.last_success_time.is_some()
}

#[tokio::test]
async fn prices_come_once_and_an_unchanged_list_is_not_sent_again() {
    let server = Server::start().await;
    server.costs("\"one\"", "1.5e-6");
    let mut plane = polling(&server).await;
    let listed = until(&mut plane, "the price", |listed| counts(listed, "one/small", "1.5")).await;
    let feed = listed.feed.unwrap();
    assert_eq!((feed.models, feed.matched), (2, 2));
    let revision = plane.running.repository.state().version.revision;
    let polled = async {
        while server.script.lock().unwrap().unchanged < 3 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, polled).await.unwrap();
    assert_eq!(server.script.lock().unwrap().sent, 1);
    assert_eq!(plane.running.repository.state().version.revision, revision, "nothing changed");

    // A deployment that is new has its price although the list is not sent again.
    let mut provider = config(DOCUMENT).providers.remove(1);
    provider.deployments.push(Deployment { name: "medium".into(), ..Deployment::default() });
    let update = UpdateProviderRequest { provider: Some(provider), ..Default::default() };
    plane.admin.update_provider(update).await.unwrap();
    until(&mut plane, "the new deployment", |listed| counts(listed, "two/medium", "7")).await;
    assert_eq!(server.script.lock().unwrap().sent, 1);
    server.costs("\"two\"", "1.6e-6");
    until(&mut plane, "the change", |listed| counts(listed, "one/small", "1.6")).await;
    plane.stop().await;
}

#[tokio::test]
async fn nonsense_and_an_outage_leave_the_last_good_prices() {
    let server = Server::start().await;
    server.costs("\"one\"", "1.5e-6");
    let mut plane = polling(&server).await;
    let before =
        until(&mut plane, "the price", |listed| counts(listed, "one/small", "1.5")).await.price_entries;
    for (head, body, said) in [
        ("HTTP/1.1 500 Internal Server Error", "{}", "500"),
        ("HTTP/1.1 200 OK", "<html>login</html>", "is not JSON"),
        ("HTTP/1.1 200 OK", "{}", "no model with a price"),
        ("HTTP/1.1 200 OK\r\netag: \"bad\"", "{\"small\": 7}", "no model with a price"),
        ("HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/latest", "", "metadata"),
        ("HTTP/1.1 302 Found\r\nlocation: file:///etc/passwd", "", "redirected"),
        ("nonsense", "", "HTTP failed"),
    ] {
        server.answers(head, body);
        let listed = until(&mut plane, said, |listed| failed(listed, said)).await;
        assert_eq!(listed.price_entries, before, "{head}");
        server.costs("\"one\"", "1.5e-6");
        until(&mut plane, "it to work again", works).await;
    }
    let metrics = plane.page("/metrics").await;
    assert!(metrics.contains("trunkline_control_plane_price_feed_works 1"), "{metrics}");
    plane.stop().await;
}

#[tokio::test]
async fn an_answer_without_end_is_cut_off() {
    let server = Server::start().await;
    server.answers("HTTP/1.1 200 OK", &"x".repeat(9 * 1024 * 1024));
    let mut plane = polling(&server).await;
    until(&mut plane, "the refusal", |listed| failed(listed, "more than")).await;
    plane.stop().await;
}

#[tokio::test]
async fn a_jump_is_held_back_and_shown_until_the_list_mends_it() {
    let server = Server::start().await;
    server.costs("\"one\"", "1.5e-6");
    let mut plane = polling(&server).await;
    let before =
        until(&mut plane, "the price", |listed| counts(listed, "one/small", "1.5")).await.price_entries;
    server.costs("\"two\"", "1.5e-3");
    let is_held = |listed: &ListPriceEntriesResponse| {
        listed.price_entries.iter().filter(|one| !one.held.is_empty()).count() == 2
    };
    until(&mut plane, "both to be held back", is_held).await;
    let metrics = plane.page("/metrics").await;
    assert!(metrics.contains("trunkline_control_plane_prices_held 2"), "{metrics}");
    server.costs("\"three\"", "1.5e-6");
    until(&mut plane, "the list to be mended", |listed| listed.price_entries == before).await;
    plane.stop().await;
}

#[tokio::test]
async fn a_list_in_a_place_that_was_not_allowed_stops_the_start() {
    for url in [
        "http://127.0.0.1:1/x",
        "https://10.0.0.1/x",
        "https://169.254.169.254/",
        "ftp://x",
        "https://u:p@x/",
    ] {
        let source = FeedSource {
            url: url.to_owned(),
            format: Format::Openrouter,
            interval: Duration::from_secs(1),
            allow_private: false,
        };
        let refused =
            start(Options { price_feed: Some(source), ..options() }, CancellationToken::new()).await;
        let refused = refused.unwrap_err();
        assert!(matches!(refused, StartError::PriceFeed(_)) && refused.is_input(), "{url}: {refused}");
    }
}
