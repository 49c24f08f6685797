//! What a caller got: status, headers, and the body, read to its end.

use futures_util::StreamExt as _;
use http::HeaderMap;
use reqwest::{Response, StatusCode};
use serde_json::Value;

use crate::patience::within;

/// An answer over HTTP.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body as far as it came.
    pub body: String,
    /// Whether it ended as HTTP wants it, and was not cut off.
    pub ended_cleanly: bool,
}

impl Reply {
    /// Reads a response to its end.
    pub async fn read(response: Response) -> Self {
        let (status, headers) = (response.status(), response.headers().clone());
        let mut chunks = response.bytes_stream();
        let mut bytes = Vec::new();
        let mut ended_cleanly = true;
        while let Some(chunk) = within("a piece of the body", chunks.next()).await {
            match chunk {
                Ok(chunk) => bytes.extend_from_slice(&chunk),
                Err(_) => ended_cleanly = false,
            }
        }
        let body = String::from_utf8(bytes).expect("the body is UTF-8");
        Self { status, headers, body, ended_cleanly }
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }

    /// A header's text; empty when it is absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The data of all events but `[DONE]`.
    pub fn events(&self) -> Vec<Value> {
        let data = self.body.split("\n\n").filter_map(|event| event.strip_prefix("data: "));
        let parse = |data: &str| serde_json::from_str(data).unwrap_or_else(|error| panic!("{error}: {data}"));
        data.filter(|data| *data != "[DONE]").map(parse).collect()
    }

    /// Whether the stream said that it is complete.
    pub fn has_done(&self) -> bool {
        self.body.split("\n\n").any(|event| event == "data: [DONE]")
    }

    /// Error events.
    pub fn errors(&self) -> Vec<Value> {
        self.events().into_iter().filter(|event| event.get("error").is_some()).collect()
    }

    /// Error events of a stream; none of a whole answer.
    pub fn errors_if_stream(&self) -> Vec<Value> {
        if self.is_stream() { self.errors() } else { Vec::new() }
    }

    fn is_stream(&self) -> bool {
        self.header("content-type").starts_with("text/event-stream")
    }

    /// The answer's text, of a stream or of a whole body, chat or completion.
    pub fn text(&self) -> String {
        let of = |event: &Value| {
            let choice = &event["choices"][0];
            let places = [&choice["delta"]["content"], &choice["message"]["content"], &choice["text"]];
            places.iter().find_map(|place| place.as_str()).unwrap_or_default().to_owned()
        };
        if self.is_stream() { self.events().iter().map(of).collect() } else { of(&self.json()) }
    }

    /// `type` and `code` of an error.
    pub fn error_code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
    }
}
