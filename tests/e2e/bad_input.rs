//! What no control plane should take: refused with the place and what would be right,
//! nothing changed, and at a price that does not explode with its size.

use std::fs;

use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use trunkline_proto::{
    admin::v1::{ApplyConfigRequest, Config},
    types::v1::{
        ApiKey, Credential, Deployment, Dialect, Price, Provider, Strategy, Target, Tier, VirtualModel,
        credential,
    },
};
use trunkline_tests::{admin::Admin, control_plane::ControlPlane, patience::until};

/// Looks like a key that somebody pasted where a reference belongs.
const CANARY: &str = "sk-canary-5f1d0c2e9b7a4e63";

/// One provider with one deployment, and `chat` over it.
fn good() -> Config {
    let deployment = Deployment {
        name: "m".to_owned(),
        upstream_model: "m".to_owned(),
        quality: Some(0.5),
        ..Deployment::default()
    };
    let provider = Provider {
        name: "p".to_owned(),
        dialect: Dialect::Openai.into(),
        base_url: "https://api.example.com/v1".to_owned(),
        credential: Some(Credential { source: Some(credential::Source::Env("P_KEY".to_owned())) }),
        deployments: vec![deployment],
        ..Provider::default()
    };
    let target = Target { deployment: "p/m".to_owned(), weight: Some(1) };
    let chat = VirtualModel {
        name: "chat".to_owned(),
        strategy: Strategy::Weighted.into(),
        tiers: vec![Tier { targets: vec![target], ..Tier::default() }],
        ..VirtualModel::default()
    };
    Config { providers: vec![provider], virtual_models: vec![chat], ..Config::default() }
}

async fn refuse(admin: &Admin, config: Config) -> Status {
    let request = ApplyConfigRequest { config: Some(config), ..ApplyConfigRequest::default() };
    admin.client.clone().apply_config(request).await.unwrap_err()
}

type Break = fn(&mut Config);

/// What is broken, and where the answer must point.
const BROKEN: &[(&str, Break, &str)] = &[
    ("no name", |c| c.providers[0].name.clear(), "providers[0].name"),
    ("a name that is a path", |c| c.providers[0].name = "../etc".into(), "providers[0].name"),
    ("a name twice", |c| c.providers.push(c.providers[0].clone()), "providers[1].name"),
    ("no dialect", |c| c.providers[0].dialect = 0, "providers[0].dialect"),
    ("an unknown dialect", |c| c.providers[0].dialect = 99, "providers[0].dialect"),
    ("an unknown strategy", |c| c.virtual_models[0].strategy = -1, "virtual_models[0].strategy"),
    ("a file URL", |c| c.providers[0].base_url = "file:///etc/passwd".into(), "providers[0].base_url"),
    ("http", |c| c.providers[0].base_url = "http://api.example.com".into(), "providers[0].base_url"),
    (
        "a password in the URL",
        |c| c.providers[0].base_url = format!("https://u:{CANARY}@api.example.com"),
        "providers[0].base_url",
    ),
    ("metadata", |c| c.providers[0].base_url = "https://169.254.169.254/".into(), "providers[0].base_url"),
    (
        "metadata in decimal",
        |c| c.providers[0].base_url = "https://2852039166/".into(),
        "providers[0].base_url",
    ),
    (
        "metadata in octal",
        |c| c.providers[0].base_url = "https://0251.0376.0251.0376/".into(),
        "providers[0].base_url",
    ),
    (
        "loopback inside IPv6",
        |c| c.providers[0].base_url = "https://[::ffff:127.0.0.1]/".into(),
        "providers[0].base_url",
    ),
    ("NAT64", |c| c.providers[0].base_url = "https://[64:ff9b::a9fe:a9fe]/".into(), "providers[0].base_url"),
    ("6to4", |c| c.providers[0].base_url = "https://[2002:7f00:1::]/".into(), "providers[0].base_url"),
    (
        "carrier-grade NAT",
        |c| c.providers[0].base_url = "https://100.64.0.1/".into(),
        "providers[0].base_url",
    ),
    (
        "quality that is no number",
        |c| c.providers[0].deployments[0].quality = Some(f64::NAN),
        "providers[0].deployments[0].quality",
    ),
    (
        "negative quality",
        |c| c.providers[0].deployments[0].quality = Some(-0.1),
        "providers[0].deployments[0].quality",
    ),
    (
        "infinite quality",
        |c| c.providers[0].deployments[0].quality = Some(f64::INFINITY),
        "providers[0].deployments[0].quality",
    ),
    (
        "a price that is no number",
        |c| price(c, "NaN"),
        "providers[0].deployments[0].price.input_usd_per_mtok",
    ),
    ("a negative price", |c| price(c, "-1"), "providers[0].deployments[0].price.input_usd_per_mtok"),
    (
        "a huge price",
        |c| price(c, "99999999999999999999"),
        "providers[0].deployments[0].price.input_usd_per_mtok",
    ),
    (
        "a price in scientific form",
        |c| price(c, "1e400"),
        "providers[0].deployments[0].price.input_usd_per_mtok",
    ),
    ("a huge weight", |c| weight(c, u32::MAX), "virtual_models[0].tiers[0].targets[0].weight"),
    (
        "a target that is not there",
        |c| target(c, "p/other"),
        "virtual_models[0].tiers[0].targets[0].deployment",
    ),
    (
        "a virtual model as its own target",
        |c| target(c, "chat"),
        "virtual_models[0].tiers[0].targets[0].deployment",
    ),
    ("no tiers", |c| c.virtual_models[0].tiers.clear(), "virtual_models[0].tiers"),
    ("no targets", |c| c.virtual_models[0].tiers[0].targets.clear(), "virtual_models[0].tiers[0].targets"),
    ("a negative deadline", |c| deadline(c, -5), "virtual_models[0].deadline"),
    ("an endless deadline", |c| deadline(c, i64::MAX), "virtual_models[0].deadline"),
    (
        "a key instead of its hash",
        |c| c.api_keys.push(ApiKey { name: "a".into(), secret_sha256: CANARY.into(), ..ApiKey::default() }),
        "api_keys[0].secret_sha256",
    ),
    (
        "a key instead of its reference",
        |c| c.providers[0].credential = Some(env(&format!("{CANARY} "))),
        "providers[0].credential.env",
    ),
];

fn price(config: &mut Config, text: &str) {
    let price = Price {
        input_usd_per_mtok: text.to_owned(),
        output_usd_per_mtok: "1".to_owned(),
        ..Price::default()
    };
    config.providers[0].deployments[0].price = Some(price);
}

fn weight(config: &mut Config, weight: u32) {
    config.virtual_models[0].tiers[0].targets[0].weight = Some(weight);
}

fn target(config: &mut Config, name: &str) {
    name.clone_into(&mut config.virtual_models[0].tiers[0].targets[0].deployment);
}

fn deadline(config: &mut Config, seconds: i64) {
    config.virtual_models[0].deadline = Some(prost_types::Duration { seconds, nanos: 0 });
}

fn env(name: &str) -> Credential {
    Credential { source: Some(credential::Source::Env(name.to_owned())) }
}

#[tokio::test]
async fn what_is_wrong_is_refused_with_its_place_and_changes_nothing() {
    let control_plane = ControlPlane::start();
    let admin = control_plane.admin().await;
    let request = ApplyConfigRequest { config: Some(good()), ..ApplyConfigRequest::default() };
    admin.client.clone().apply_config(request).await.unwrap();
    let before = admin.export().await;
    for (what, change, field) in BROKEN {
        let mut config = good();
        change(&mut config);
        let status = refuse(&admin, config).await;
        assert_eq!(status.code(), Code::InvalidArgument, "{what}: {status:?}");
        let details = status.get_error_details();
        let violations =
            &details.bad_request().unwrap_or_else(|| panic!("{what}: {status:?}")).field_violations;
        assert!(
            violations.iter().any(|one| one.field == format!("config.{field}") || one.field == *field),
            "{what} is at {field}, but the answer says {violations:?}"
        );
        assert!(violations.iter().all(|one| !one.description.is_empty()), "{what}: {violations:?}");
        assert!(!format!("{status:?}").contains(CANARY), "{what}: the answer repeats a secret: {status:?}");
    }
    assert_eq!(admin.export().await, before);
    assert!(!control_plane.process.log().contains(CANARY), "the log repeats a secret");
    let metrics = reqwest::get(format!("{}/metrics", control_plane.ops_url)).await.unwrap();
    assert!(!metrics.text().await.unwrap().contains(CANARY), "the metrics repeat a secret");
}

/// Processor time of the control plane so far, in ticks.
fn ticks(control_plane: &ControlPlane) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", control_plane.process.id())).unwrap();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// `count` entries of one kind, each wrong in its own way or too many together.
fn crowd(kind: &str, count: usize) -> Config {
    let mut config = good();
    let name = |number: usize| format!("n-{number}");
    match kind {
        "providers" => {
            let provider = config.providers[0].clone();
            config.providers.extend((0..count).map(|number| Provider {
                name: name(number),
                deployments: Vec::new(),
                ..provider.clone()
            }));
        }
        "virtual models" => {
            let model = config.virtual_models[0].clone();
            config
                .virtual_models
                .extend((0..count).map(|number| VirtualModel { name: name(number), ..model.clone() }));
        }
        "targets" => {
            let target = Target { deployment: "p/m".to_owned(), weight: Some(1) };
            config.virtual_models[0].tiers[0].targets = vec![target; count];
        }
        "names that are all wrong" => {
            let key = |number| ApiKey { name: format!("Bad Name {number}"), ..ApiKey::default() };
            config.api_keys = (0..count).map(key).collect();
        }
        _ => unreachable!("no such kind"),
    }
    config
}

#[tokio::test]
async fn a_hundred_thousand_entries_are_refused_without_a_fire() {
    let control_plane = ControlPlane::start();
    let admin = control_plane.admin().await;
    for kind in ["providers", "virtual models", "targets", "names that are all wrong"] {
        let mut used = Vec::new();
        for count in [20_000, 100_000] {
            let config = crowd(kind, count);
            let before = ticks(&control_plane);
            let status = refuse(&admin, config).await;
            used.push(ticks(&control_plane) - before);
            assert!(
                matches!(status.code(), Code::InvalidArgument | Code::OutOfRange | Code::ResourceExhausted),
                "{count} {kind}: {status:?}"
            );
            assert!(
                status.message().len() < 8_192,
                "{count} {kind}: {} bytes of message",
                status.message().len()
            );
        }
        // Five times the entries; a quarter of a second of slack for what else it does.
        assert!(used[1] <= used[0] * 12 + 25, "{kind}: processor time grows like its square: {used:?} ticks");
    }
    assert_eq!(admin.export().await.version.unwrap().revision, 0);
    until("it to be well", async || admin.export().await, |exported| exported.version.is_some()).await;
}

#[tokio::test]
async fn other_bytes_than_grpc_do_no_harm() {
    let control_plane = ControlPlane::start();
    let address = control_plane.url.trim_start_matches("http://").to_owned();
    let bodies: [&[u8]; 5] = [
        b"GET / HTTP/1.1\r\nhost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\0\0\0\0\0\0\0\0",
        &[0xff; 4096],
    ];
    for body in bodies {
        let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, body).await.unwrap();
        drop(stream);
    }
    assert_eq!(control_plane.admin().await.export().await.version.unwrap().revision, 0);
}
