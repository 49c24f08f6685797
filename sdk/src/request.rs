//! Short ways to write requests and to read answers.

use trunkline_proto::routing::v1::{CompleteRequest, CompleteResponse, Message, RouteRequest};

/// Writes a [`CompleteRequest`].
pub trait CompleteRequestExt: Sized {
    /// One user message for a virtual model, or for a pinned `provider/deployment`.
    #[must_use]
    fn user(model: impl Into<String>, text: impl Into<String>) -> Self;
    /// Adds a message; `role` is system, developer, user, assistant or tool.
    #[must_use]
    fn message(self, role: impl Into<String>, text: impl Into<String>) -> Self;
    /// Puts a system message first.
    #[must_use]
    fn system(self, text: impl Into<String>) -> Self;
    /// At most so many tokens in the answer.
    #[must_use]
    fn max_output_tokens(self, tokens: u32) -> Self;
    /// The provider's temperature.
    #[must_use]
    fn temperature(self, temperature: f64) -> Self;
    /// Requests with the same key prefer the same target, where the strategy allows.
    #[must_use]
    fn affinity_key(self, key: impl Into<String>) -> Self;
    /// A tag, kept with the decision.
    #[must_use]
    fn tag(self, key: impl Into<String>, value: impl Into<String>) -> Self;
}

impl CompleteRequestExt for CompleteRequest {
    fn user(model: impl Into<String>, text: impl Into<String>) -> Self {
        Self { model: model.into(), ..Self::default() }.message("user", text)
    }

    fn message(mut self, role: impl Into<String>, text: impl Into<String>) -> Self {
        self.messages.push(text_message(role.into(), text.into()));
        self
    }

    fn system(mut self, text: impl Into<String>) -> Self {
        self.messages.insert(0, text_message("system".to_owned(), text.into()));
        self
    }

    fn max_output_tokens(mut self, tokens: u32) -> Self {
        self.max_output_tokens = tokens;
        self
    }

    fn temperature(mut self, temperature: f64) -> Self {
        self.temperature = Some(temperature);
        self
    }

    fn affinity_key(mut self, key: impl Into<String>) -> Self {
        self.affinity_key = key.into();
        self
    }

    fn tag(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.tags.insert(key.into(), value.into());
        self
    }
}

fn text_message(role: String, content: String) -> Message {
    Message { role, content, ..Message::default() }
}

/// Writes a [`RouteRequest`].
pub trait RouteRequestExt: Sized {
    /// For a virtual model, or for a pinned `provider/deployment`.
    #[must_use]
    fn model(model: impl Into<String>) -> Self;
}

impl RouteRequestExt for RouteRequest {
    fn model(model: impl Into<String>) -> Self {
        Self { model: model.into(), ..Self::default() }
    }
}

/// Reads a [`CompleteResponse`].
pub trait CompleteResponseExt {
    /// The answer's text; empty when it is tool calls only.
    fn text(&self) -> &str;
    /// `provider/deployment` that answered; empty when unknown.
    fn deployment(&self) -> &str;
}

impl CompleteResponseExt for CompleteResponse {
    fn text(&self) -> &str {
        self.message.as_ref().map_or("", |message| message.content.as_str())
    }

    fn deployment(&self) -> &str {
        self.decision.as_ref().map_or("", |decision| decision.chosen.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_in_the_order_of_a_conversation() {
        let request = CompleteRequest::user("chat", "hello")
            .message("assistant", "hi")
            .message("user", "bye")
            .system("be short");
        let roles: Vec<_> = request.messages.iter().map(|message| message.role.as_str()).collect();
        assert_eq!(roles, ["system", "user", "assistant", "user"]);
        assert_eq!(request.model, "chat");
    }
}
