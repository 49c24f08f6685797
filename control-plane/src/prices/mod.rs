//! Prices from elsewhere: files that operators import, and a feed that is polled. What
//! is read becomes price entries, which are state beside the configuration document.
//!
//! ```text
//! file --ImportPrices--+
//!                      +-> feed: models with prices -> plan: entries -> Repository::edit
//! URL --poll-----------+
//! ```

pub(crate) mod feed;
mod fetch;
mod litellm;
pub(crate) mod matching;
pub(crate) mod metrics;
mod number;
mod openrouter;
pub(crate) mod plan;
pub(crate) mod poll;

pub use self::{feed::Format, fetch::FeedUrlRefused, poll::FeedSource};
