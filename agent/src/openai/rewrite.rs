//! The request as the provider gets it: the model's own name, and usage asked for in
//! streams. Every other byte stays as the caller wrote it.

use std::ops::Range;

use bytes::{BufMut as _, Bytes, BytesMut};

use super::scan::Scanned;

const INCLUDE_USAGE: &str = r#""include_usage":true"#;

/// `body` with the model named `upstream_model` and, if it is a stream and
/// `force_include_usage`, with `stream_options.include_usage` true. `scanned` must be
/// of this body.
pub fn rewrite(body: &Bytes, scanned: &Scanned, upstream_model: &str, force_include_usage: bool) -> Bytes {
    let mut edits: Vec<(Range<usize>, String)> = Vec::with_capacity(2);
    if let Some(model) = &scanned.model
        && model.name != upstream_model
    {
        edits.push((model.range.clone(), serde_json::Value::from(upstream_model).to_string()));
    }
    if force_include_usage && scanned.stream {
        edits.extend(usage_edit(scanned));
    }
    if edits.is_empty() {
        return body.clone();
    }
    edits.sort_by_key(|(range, _)| range.start);
    let added: usize = edits.iter().map(|(_, text)| text.len()).sum();
    let mut rewritten = BytesMut::with_capacity(body.len() + added);
    let mut copied = 0;
    for (range, text) in edits {
        rewritten.put_slice(&body[copied..range.start]);
        rewritten.put_slice(text.as_bytes());
        copied = range.end;
    }
    rewritten.put_slice(&body[copied..]);
    rewritten.freeze()
}

fn usage_edit(scanned: &Scanned) -> Option<(Range<usize>, String)> {
    let Some(options) = &scanned.stream_options else {
        // A stream has at least the key `stream` after it, so the comma is right.
        let at = scanned.object_start;
        return Some((at..at, format!(r#""stream_options":{{{INCLUDE_USAGE}}},"#)));
    };
    match &options.include_usage {
        Some((_, true)) => None,
        Some((range, false)) => Some((range.clone(), "true".to_owned())),
        None if options.is_null => Some((options.range.clone(), format!("{{{INCLUDE_USAGE}}}"))),
        None => {
            let at = options.range.start + 1;
            let comma = if options.is_empty { "" } else { "," };
            Some((at..at, format!("{INCLUDE_USAGE}{comma}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::openai::scan::scan;

    fn check(body: &str, expect: &str) {
        let bytes = Bytes::copy_from_slice(body.as_bytes());
        let rewritten = rewrite(&bytes, &scan(body.as_bytes()).unwrap(), "up", true);
        assert_eq!(str::from_utf8(&rewritten).unwrap(), expect);
        let again = scan(&rewritten).unwrap();
        assert_eq!(again.model.as_ref().unwrap().name, "up");
        assert!(!again.stream || again.includes_usage());
    }

    #[test]
    fn only_the_named_bytes_change() {
        check(r#" { "model" : "chat" , "n":1.0e0 } "#, r#" { "model" : "up" , "n":1.0e0 } "#);
        check(
            r#"{"model":"c","stream":true}"#,
            r#"{"stream_options":{"include_usage":true},"model":"up","stream":true}"#,
        );
        check(
            r#"{"stream_options":{"include_usage":false},"model":"c","stream":true}"#,
            r#"{"stream_options":{"include_usage":true},"model":"up","stream":true}"#,
        );
        check(
            r#"{"stream_options": { },"model":"c","stream":true}"#,
            r#"{"stream_options": {"include_usage":true },"model":"up","stream":true}"#,
        );
        check(
            r#"{"model":"c","stream":true,"stream_options":{"a":[1]}}"#,
            r#"{"model":"up","stream":true,"stream_options":{"include_usage":true,"a":[1]}}"#,
        );
        check(
            r#"{"model":"c","stream":true,"stream_options":null}"#,
            r#"{"model":"up","stream":true,"stream_options":{"include_usage":true}}"#,
        );
    }

    #[test]
    fn untouched_if_nothing_is_to_change() {
        let body = Bytes::from_static(br#"{"model":"up","stream":false}"#);
        let rewritten = rewrite(&body, &scan(&body).unwrap(), "up", true);
        assert_eq!(rewritten.as_ptr(), body.as_ptr());
    }

    #[test]
    fn names_are_escaped() {
        let body = Bytes::from_static(br#"{"model":"c"}"#);
        let rewritten = rewrite(&body, &scan(&body).unwrap(), "a\"b\\", false);
        assert_eq!(scan(&rewritten).unwrap().model.unwrap().name, "a\"b\\");
    }
}
