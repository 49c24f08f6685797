//! What a feed says, whatever it is written in: models by name, with their prices.

use std::collections::BTreeMap;

use trunkline_proto::admin::v1::PriceFeedFormat;
use trunkline_routing::money::Price;

use super::{litellm, openrouter};

/// Most bytes of a feed. That of LiteLLM has 1.5 MB.
pub(crate) const FEED_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Most models of a feed. LiteLLM has some 3,000.
const MODELS_MAX: usize = 50_000;

/// What a feed is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// model_prices_and_context_window.json of LiteLLM.
    Litellm,
    /// `/models` as OpenRouter answers it.
    Openrouter,
}

impl Format {
    /// As the contract has it. None: it is not said.
    pub(crate) fn of_wire(number: i32) -> Option<Self> {
        match PriceFeedFormat::try_from(number).ok()? {
            PriceFeedFormat::Unspecified => None,
            PriceFeedFormat::Litellm => Some(Self::Litellm),
            PriceFeedFormat::Openrouter => Some(Self::Openrouter),
        }
    }
}

/// A model and what it costs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Model {
    /// Whose price it is, as the feed calls them: `openai`, `azure`. Empty: not said.
    pub(crate) provider: String,
    pub(crate) price: Price,
}

/// All models that have a price.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Feed {
    pub(crate) format: Format,
    /// By the feed's name of the model.
    pub(crate) models: BTreeMap<String, Model>,
}

/// Why a feed is not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FeedRefused {
    #[error("has {0} bytes, and at most {FEED_BYTES_MAX} are taken")]
    TooLong(usize),
    #[error("is not JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("is not in this format: {0}")]
    Shape(&'static str),
    #[error("holds {0} models, and at most {MODELS_MAX} are taken")]
    TooMany(usize),
    #[error("holds no model with a price")]
    Empty,
}

impl Feed {
    /// Reads a feed. Models whose price is absent or no number are left out: their price
    /// is unknown. One that holds no price at all is refused, so that a wrong file is
    /// noticed.
    pub(crate) fn read(format: Format, data: &[u8]) -> Result<Self, FeedRefused> {
        if data.len() > FEED_BYTES_MAX {
            return Err(FeedRefused::TooLong(data.len()));
        }
        let models = match format {
            Format::Litellm => litellm::models(data)?,
            Format::Openrouter => openrouter::models(data)?,
        };
        match models.len() {
            0 => Err(FeedRefused::Empty),
            many if many > MODELS_MAX => Err(FeedRefused::TooMany(many)),
            _ => Ok(Self { format, models }),
        }
    }
}
