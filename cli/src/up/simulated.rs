//! The three simulated providers of `up`, and the configuration that uses them.

use std::{net::SocketAddr, sync::Arc};

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use trunkline_proto::{
    admin::v1::Config,
    types::v1::{Deployment, Dialect, Price, Provider, Strategy, Target, Tier, VirtualModel},
};
use trunkline_simulator::{
    live::{LiveProvider, serve},
    presets,
};

/// What is sold: by name of the behaviour model that serves it. Price and quality
/// fall with speed and reliability.
struct Offer {
    provider: &'static str,
    model: &'static str,
    quality: f64,
    input_usd_per_mtok: &'static str,
    output_usd_per_mtok: &'static str,
}

const OFFERS: [Offer; 3] = [
    Offer {
        provider: "swift",
        model: "sim-large",
        quality: 0.9,
        input_usd_per_mtok: "2.50",
        output_usd_per_mtok: "10.00",
    },
    Offer {
        provider: "steady",
        model: "sim-medium",
        quality: 0.75,
        input_usd_per_mtok: "0.40",
        output_usd_per_mtok: "1.60",
    },
    Offer {
        provider: "thrifty",
        model: "sim-small",
        quality: 0.6,
        input_usd_per_mtok: "0.10",
        output_usd_per_mtok: "0.40",
    },
];

/// A simulated provider that is running.
#[derive(Debug, Clone)]
pub(super) struct Simulated {
    pub(super) name: String,
    address: SocketAddr,
}

impl Simulated {
    /// What a provider's base_url is.
    pub(super) fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }
}

/// Serves the ready models on ports of the system's choice, until `shutdown`.
pub(super) async fn start(
    tasks: &TaskTracker,
    shutdown: &CancellationToken,
) -> anyhow::Result<Vec<Simulated>> {
    let mut running = Vec::new();
    for (model, seed) in presets().into_iter().zip(1..) {
        let name = model.name.clone();
        let listener = TcpListener::bind(("127.0.0.1", 0))
            .await
            .with_context(|| format!("listen for the simulated provider {name}"))?;
        let address = listener.local_addr().context("read the bound address")?;
        let served = OFFERS.iter().filter(|offer| offer.provider == name);
        let served = served.map(|offer| offer.model.to_owned()).collect::<Vec<_>>();
        let provider = LiveProvider::new(model, seed).with_models(served);
        tasks.spawn(serve(listener, Arc::new(provider), shutdown.clone()));
        running.push(Simulated { name, address });
    }
    Ok(running)
}

/// Three providers and the virtual model `chat`: 70 % to the fast one, 30 % to the
/// steady one, and the cheap one when both fail.
pub(super) fn config(running: &[Simulated]) -> Config {
    let providers = running.iter().map(provider).collect();
    let [swift, steady, thrifty] = OFFERS.map(|offer| format!("{}/{}", offer.provider, offer.model));
    let target = |deployment: String, weight: u32| Target { deployment, weight: Some(weight) };
    let tier = |targets| Tier { targets, ..Tier::default() };
    let chat = VirtualModel {
        name: "chat".to_owned(),
        strategy: Strategy::Weighted.into(),
        tiers: vec![tier(vec![target(swift, 70), target(steady, 30)]), tier(vec![target(thrifty, 1)])],
        ..VirtualModel::default()
    };
    Config { providers, virtual_models: vec![chat], ..Config::default() }
}

fn provider(simulated: &Simulated) -> Provider {
    let offers = OFFERS.iter().filter(|offer| offer.provider == simulated.name);
    let deployments = offers
        .map(|offer| Deployment {
            name: offer.model.to_owned(),
            quality: Some(offer.quality),
            context_window: 128_000,
            max_output_tokens: 4_096,
            price: Some(Price {
                input_usd_per_mtok: offer.input_usd_per_mtok.to_owned(),
                output_usd_per_mtok: offer.output_usd_per_mtok.to_owned(),
                ..Price::default()
            }),
            ..Deployment::default()
        })
        .collect();
    Provider {
        name: simulated.name.clone(),
        dialect: Dialect::Openai.into(),
        base_url: simulated.base_url(),
        region: "simulated".to_owned(),
        // They are on loopback and speak plain HTTP.
        allow_private_network: true,
        deployments,
        ..Provider::default()
    }
}

/// Tells a kept configuration where the simulated providers are now; the rest stays
/// as the operator left it. `None`: it uses none of them, or they have not moved.
/// Only providers of region `simulated` are touched, so giving one of them another
/// region or name makes it the operator's own.
pub(super) fn relocated(mut kept: Config, running: &[Simulated]) -> Option<Config> {
    let mut moved = false;
    for provider in kept.providers.iter_mut().filter(|provider| provider.region == "simulated") {
        let Some(simulated) = running.iter().find(|simulated| simulated.name == provider.name) else {
            continue;
        };
        let base_url = simulated.base_url();
        if provider.base_url != base_url {
            provider.base_url = base_url;
            moved = true;
        }
    }
    moved.then_some(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running(first_port: u16) -> Vec<Simulated> {
        let ports = first_port..;
        OFFERS
            .iter()
            .zip(ports)
            .map(|(offer, port)| Simulated {
                name: offer.provider.to_owned(),
                address: SocketAddr::from(([127, 0, 0, 1], port)),
            })
            .collect()
    }

    #[test]
    fn every_preset_has_an_offer() {
        let presets = presets().map(|model| model.name);
        assert_eq!(presets, OFFERS.map(|offer| offer.provider.to_owned()));
    }

    #[test]
    fn configuration_is_a_valid_document() {
        let config = config(&running(40_000));
        let text = trunkline_proto::document::to_yaml(&config);
        assert_eq!(trunkline_proto::document::load_and_check(&text).unwrap(), config);
    }

    #[test]
    fn restart_moves_addresses_and_nothing_else() {
        let mut kept = config(&running(40_000));
        kept.virtual_models[0].name = "renamed".to_owned();
        kept.providers[1].base_url = "http://127.0.0.1:9/other".to_owned();
        kept.providers[1].region = "mine".to_owned();

        let moved = relocated(kept.clone(), &running(50_000)).unwrap();
        assert_eq!(moved.providers[0].base_url, "http://127.0.0.1:50000/v1");
        assert_eq!(moved.providers[1], kept.providers[1]);
        assert_eq!(moved.virtual_models, kept.virtual_models);
    }

    #[test]
    fn nothing_is_written_when_nothing_moved() {
        assert_eq!(relocated(config(&running(40_000)), &running(40_000)), None);
        assert_eq!(relocated(Config::default(), &running(40_000)), None);
    }
}
