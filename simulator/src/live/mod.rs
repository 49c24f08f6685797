//! A provider model served over HTTP/1.1 in OpenAI dialect, for `trunkline up`, for
//! drills and for tests.
//!
//! [`LiveProvider`] holds the model and its state; [`serve`] plays it on a listener.
//! A request is read (`openai`), answered in full on paper (`answer`), bent by a
//! [`Fault`] if one is set (`plan`), and the plan is played step by step (`play`).
//! Only playing does I/O.

mod answer;
mod counters;
mod faults;
mod journal;
mod openai;
mod plan;
mod play;
mod provider;
mod server;

pub use counters::Counters;
pub use faults::{ErrorBody, Fault};
pub use journal::{JOURNAL_MAX, Seen};
pub use provider::{FAULT_QUEUE_MAX, LiveProvider};
pub use server::serve;
