//! What is found, what is refused, and agreement with a full JSON parser.

use proptest::prelude::*;

use super::*;

fn found(body: &str) -> Scanned {
    scan(body.as_bytes()).unwrap()
}

#[test]
fn whole_chat_request() {
    let body = r#"{"model":"ch\u0061t","stream":true,"messages":[{"role":"user","content":[
        {"type":"image_url","image_url":{"url":"data:x"}}]}],"max_tokens":7,
        "max_completion_tokens":9,"tools":[{}],"response_format":{"type":"json_schema"},
        "stream_options":{"include_usage":true}}"#;
    let scanned = found(body);
    let model = scanned.model.clone().unwrap();
    assert_eq!(model.name, "chat");
    assert_eq!(&body[model.range], r#""ch\u0061t""#);
    assert!(scanned.stream && scanned.has_messages && scanned.has_images && scanned.has_tools);
    assert!(scanned.wants_json_schema && scanned.includes_usage());
    let limits = OutputLimits { max_completion_tokens: Some(9), max_tokens: Some(7) };
    assert_eq!((scanned.limits, scanned.answers), (limits, None));
    assert!(!scanned.has_input && !scanned.has_prompt);
}

#[test]
fn alternatives_are_counted_by_the_larger_of_n_and_best_of() {
    for (body, answers) in
        [("{}", None), (r#"{"n":3}"#, Some(3)), (r#"{"best_of":5,"n":2}"#, Some(5)), (r#"{"n":null}"#, None)]
    {
        assert_eq!(found(body).answers, answers, "{body}");
    }
}

#[test]
fn only_what_is_at_its_place_counts() {
    let scanned = found(
        r#"{"messages":[{"content":"\"image_url\": {\"model\":1}","model":"x","stream":true}],
        "tools":[ ],"metadata":{"image_url":1,"input":2},"response_format":{"type":"text"},"max_tokens":1.5}"#,
    );
    let expect = Scanned { object_start: 1, has_messages: true, ..Scanned::default() };
    assert_eq!(scanned, expect);
    assert!(found(r#"{"text":{"format":{"type":"json_schema"}},"input":"x"}"#).wants_json_schema);
}

#[test]
fn answers_and_prompts_are_counted() {
    let answers = |body: &str| found(body).answers;
    assert_eq!(answers(r#"{"n":3,"best_of":5}"#), Some(5));
    assert_eq!(answers(r#"{"best_of":2,"n":4}"#), Some(4));
    assert_eq!((answers(r#"{"n":"128"}"#), answers(r#"{"n":1e2}"#)), (Some(128), Some(100)));
    assert_eq!(
        (answers(r#"{"n":null}"#), answers(r#"{"n":-1}"#), answers(r#"{"n":1.5}"#)),
        (None, None, None)
    );
    let prompts = |value: &str| found(&format!("{{\"prompt\":{value}}}")).prompts;
    assert_eq!((prompts(r#""a, b""#), prompts("[1, 2, 3]"), prompts("[]")), (1, 1, 1));
    assert_eq!(prompts(r#"[ "a,\"[b", "c]" , "d"]"#), 3);
    assert_eq!(prompts("[[1,2],[3]]"), 2);
}

#[test]
fn repeated_key_is_refused() {
    for field in FIELDS {
        let body = format!(r#"{{"{field}":null,"x":1,"{field}":null}}"#);
        let at = body.rfind("null").unwrap();
        assert_eq!(scan(body.as_bytes()), Err(ScanError::Repeated { field, at }), "{body}");
    }
    for body in [r#"{"model":"a","mod\u0065l":"b"}"#, r#"{"Model":"a","model":"b"}"#] {
        let error = scan(body.as_bytes()).unwrap_err();
        assert!(matches!(error, ScanError::Repeated { field: "model", .. }), "{body}: {error}");
    }
    found(r#"{"model":"a","x":1,"x":2,"metadata":{"model":"b"}}"#);
}

#[test]
fn refusals_say_what_and_where() {
    let check = |body: &[u8], expect: &str| {
        let error = scan(body).unwrap_err().to_string();
        assert!(error.contains(expect), "{error}");
    };
    check(b"", "must be a JSON object");
    check(b"[]", "must be a JSON object");
    check(b"{", "a key in quotes at byte 1");
    check(b"{\"a\"", "`:` at byte 4");
    check(b"{\"a\":}", "a value at byte 5");
    check(b"{\"a\":1,}", "a key in quotes at byte 7");
    check(b"{\"a\":1} x", "nothing after the object at byte 8");
    check(b"{\"a\":\"\\x\"}", "a valid escape");
    check(b"{\"a\":\"\n\"}", "control characters");
    check(b"{\"a\":\"", "end of a string");
    check(b"{\"a\":01}", "`,` or `}` at byte 6");
    check(b"{\"a\":[1 2]}", "`,` or `]` at byte 8");
    check(b"{\"a\":[}}", "a value");
    check(b"{\"a\":\"\xff\"}", "UTF-8 at byte 6");
    check(b"{\"model\":3}", "`model` must be a string (byte 9)");
    check(b"{\"stream\":\"true\"}", "`stream` must be true or false");
}

#[test]
fn depth_is_counted_with_the_outermost() {
    let nested = |levels: usize| format!("{{\"a\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
    assert!(scan(nested(63).as_bytes()).is_ok());
    assert_eq!(scan(nested(64).as_bytes()), Err(ScanError::TooDeep { at: 68 }));
    assert!(matches!(scan(nested(100_000).as_bytes()), Err(ScanError::TooDeep { .. })));
    let format = format!("{{\"response_format\":{{\"schema\":{}{}}}}}", "[".repeat(63), "]".repeat(63));
    assert!(matches!(scan(format.as_bytes()), Err(ScanError::TooDeep { .. })));
}

proptest! {
    #[test]
    fn agrees_with_a_full_parser(text in r#"\{("(model|stream|a)":[\[\]{}"0-9a-z.,:eE+\- \\]{0,8},?){0,3}\}"#) {
        let strict = serde_json::from_str::<serde_json::Value>(&text);
        match (scan(text.as_bytes()), strict) {
            (Ok(_) | Err(ScanError::WrongType { .. } | ScanError::Repeated { .. }), Ok(_)) | (Err(_), Err(_)) => {}
            // A number beyond f64 is JSON, though that parser refuses it.
            (Ok(_), Err(error)) if error.to_string().contains("out of range") => {}
            (ours, theirs) => prop_assert!(false, "{text}: {ours:?} but {theirs:?}"),
        }
    }

    #[test]
    fn no_input_panics(bytes in prop::collection::vec(prop::sample::select(&b"{}[]\",:\\u0a1 tfn-.e\xc3"[..]), 0..40)) {
        let mut body = b"{\"model\":".to_vec();
        body.extend(bytes);
        let valid = serde_json::from_slice::<serde_json::Value>(&body).is_ok();
        let accepted = matches!(scan(&body), Ok(_) | Err(ScanError::WrongType { .. }));
        prop_assert!(!valid || accepted);
    }
}
