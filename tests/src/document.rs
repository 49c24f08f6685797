//! Configuration documents as operators write them.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

use crate::provider::Provider;

/// A document with the virtual model `chat` over some providers.
#[derive(Clone, Debug)]
pub struct Document {
    providers: Vec<ProviderText>,
    tiers: String,
    chat: String,
    models: String,
    rest: String,
}

#[derive(Clone, Debug)]
struct ProviderText {
    name: String,
    base_url: String,
    settings: String,
    deployment: String,
}

/// Each provider's prices: per million tokens 1 dollar in, 4 dollars out.
const PRICE: &str = "price: {input_usd_per_mtok: 1, output_usd_per_mtok: 4}";

impl Document {
    /// One tier of equal shares, in the order given.
    pub fn even(providers: &[&Provider]) -> Self {
        let weighted: Vec<_> = providers.iter().map(|provider| (*provider, 1)).collect();
        Self::weighted(&weighted)
    }

    /// One tier with weights.
    pub fn weighted(providers: &[(&Provider, u32)]) -> Self {
        let targets: Vec<_> =
            providers.iter().map(|(provider, weight)| target(&provider.deployment(), *weight)).collect();
        let mut document = Self::without_tiers(providers.iter().map(|(provider, _)| *provider));
        document.tiers = format!("{{targets: [{}]}}", targets.join(", "));
        document
    }

    /// One tier for each provider, in order.
    pub fn chain(providers: &[&Provider]) -> Self {
        let tiers: Vec<_> = providers
            .iter()
            .map(|provider| format!("{{targets: [{}]}}", target(&provider.deployment(), 1)))
            .collect();
        let mut document = Self::without_tiers(providers.iter().copied());
        document.tiers = tiers.join(", ");
        document
    }

    fn without_tiers<'a>(providers: impl Iterator<Item = &'a Provider>) -> Self {
        let providers = providers.map(|provider| ProviderText {
            name: provider.name.clone(),
            base_url: provider.base_url(),
            settings: String::new(),
            deployment: PRICE.to_owned(),
        });
        Self {
            providers: providers.collect(),
            tiers: String::new(),
            chat: String::new(),
            models: String::new(),
            rest: String::new(),
        }
    }

    /// Time limits of every tier: `first_token: 300ms, idle: 1s`.
    #[must_use]
    pub fn timeouts(mut self, text: &str) -> Self {
        self.tiers = self.tiers.replace("{targets:", &format!("{{timeouts: {{{text}}}, targets:"));
        self
    }

    /// More fields of the virtual model: `deadline: 5s`.
    #[must_use]
    pub fn chat(mut self, line: &str) -> Self {
        writeln!(self.chat, "    {line}").unwrap();
        self
    }

    /// More fields of all providers: `breaker: {consecutive_failures: 3}`.
    #[must_use]
    pub fn providers(mut self, line: &str) -> Self {
        for provider in &mut self.providers {
            writeln!(provider.settings, "    {line}").unwrap();
        }
        self
    }

    /// More fields of one provider.
    #[must_use]
    pub fn provider(mut self, name: &str, line: &str) -> Self {
        let provider = self.providers.iter_mut().find(|provider| provider.name == name).unwrap();
        writeln!(provider.settings, "    {line}").unwrap();
        self
    }

    /// Other fields of one provider's deployment, instead of the price.
    #[must_use]
    pub fn deployment(mut self, name: &str, fields: &str) -> Self {
        let provider = self.providers.iter_mut().find(|provider| provider.name == name).unwrap();
        fields.clone_into(&mut provider.deployment);
        self
    }

    /// A second virtual model, over one deployment.
    #[must_use]
    pub fn virtual_model(mut self, name: &str, deployment: &str) -> Self {
        let target = target(deployment, 1);
        writeln!(self.models, "  - name: {name}\n    tiers: [{{targets: [{target}]}}]").unwrap();
        self
    }

    /// Further sections: `api_keys: [...]`.
    #[must_use]
    pub fn section(mut self, text: &str) -> Self {
        writeln!(self.rest, "{text}").unwrap();
        self
    }

    /// The text.
    pub fn yaml(&self) -> String {
        let mut text = "providers:\n".to_owned();
        for ProviderText { name, base_url, settings, deployment } in &self.providers {
            let comma = if deployment.is_empty() { "" } else { ", " };
            write!(
                text,
                "  - name: {name}\n    dialect: DIALECT_OPENAI\n    base_url: {base_url}\n    \
                 allow_private_network: true\n{settings}    deployments: [{{name: m{comma}{deployment}}}]\n"
            )
            .unwrap();
        }
        let Self { tiers, chat, models, rest, .. } = self;
        write!(text, "virtual_models:\n  - name: chat\n{chat}    tiers: [{tiers}]\n{models}{rest}").unwrap();
        text
    }
}

fn target(deployment: &str, weight: u32) -> String {
    format!("{{deployment: {deployment}, weight: {weight}}}")
}

/// The `api_keys` section for keys of this name and secret, with what they allow.
pub fn api_keys(keys: &[(&str, &str, &[&str])]) -> String {
    let mut text = "api_keys:".to_owned();
    for (name, secret, allowed) in keys {
        let hash: String = Sha256::digest(secret).iter().fold(String::new(), |mut hex, byte| {
            write!(hex, "{byte:02x}").unwrap();
            hex
        });
        let allowed = allowed.join(", ");
        write!(text, "\n  - {{name: {name}, secret_sha256: \"{hash}\", allowed_models: [{allowed}]}}")
            .unwrap();
    }
    text
}
