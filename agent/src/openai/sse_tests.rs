//! Every cut of a stream gives the same events and the same bytes.

use proptest::prelude::*;

use super::*;

type Fields = (Option<Vec<u8>>, Option<Vec<u8>>);

/// The fields of all events that have any, and all bytes.
fn split<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Fields>, Vec<u8>, Vec<u8>) {
    let mut splitter = Splitter::new();
    let (mut fields, mut bytes) = (Vec::new(), Vec::new());
    for chunk in chunks {
        splitter.push(chunk);
        while let Some(event) = splitter.next_event().unwrap() {
            bytes.extend_from_slice(&event.raw);
            let owned = |part: Option<Bytes>| part.map(|part| part.to_vec());
            let pair = (owned(event.name), owned(event.data));
            if pair != (None, None) {
                fields.push(pair);
            }
        }
    }
    let leftover = splitter.leftover().to_vec();
    bytes.extend_from_slice(&leftover);
    (fields, bytes, leftover)
}

fn data(text: &str) -> Vec<String> {
    let (fields, bytes, _) = split([text.as_bytes()]);
    assert_eq!(bytes, text.as_bytes());
    fields.into_iter().filter_map(|(_, data)| data).map(|data| String::from_utf8(data).unwrap()).collect()
}

#[test]
fn line_ends_and_fields() {
    assert_eq!(data("data: a\n\ndata:b\r\rdata:  c\r\n\r\n"), ["a", "b", " c"]);
    assert_eq!(data("data: a\ndata\ndata: b\n\n"), ["a\n\nb"]);
    assert_eq!(data(": ping\n\nid: 1\nretry: 2\ndatabase: x\ndata: a\n\n"), ["a"]);
    assert_eq!(data("\u{feff}data: a\n\n\u{feff}data: b\n\n"), ["a"]);
    assert_eq!(data("\n\n\ndata: a\n\n"), ["a"]);
    assert_eq!(data("data: cut"), Vec::<String>::new());
    let (fields, ..) = split([&b"event: error\ndata: {}\n\n"[..]]);
    assert_eq!(fields, [(Some(b"error".to_vec()), Some(b"{}".to_vec()))]);
}

#[test]
fn every_cut_gives_the_same() {
    let stream =
        "\u{feff}: hi\r\n\r\ndata: {\"a\":\"\u{e9}\u{1f600}\"}\r\n\r\nevent: x\rdata: 1\rdata: 2\r\r\
                  data: y\n\n\r\ndata: z\n\r\n: c\n\ndata: [DONE]\n\n{\"error\":1}"
            .as_bytes();
    let (fields, bytes, leftover) = split([stream]);
    assert_eq!((fields.len(), leftover.as_slice()), (5, &b"{\"error\":1}"[..]));
    assert_eq!(bytes, stream);
    for first in 0..=stream.len() {
        for second in first..=stream.len() {
            let cut = split([&stream[..first], &stream[first..second], &stream[second..]]);
            assert_eq!(cut, (fields.clone(), bytes.clone(), leftover.clone()), "{first} {second}");
        }
    }
    assert_eq!(split(stream.chunks(1)).0, fields);
}

#[test]
fn event_is_here_as_soon_as_it_ends() {
    let mut splitter = Splitter::new();
    splitter.push(b"data: a\r\n\r");
    assert_eq!(splitter.next_event().unwrap().unwrap().data.as_deref(), Some(&b"a"[..]));
    splitter.push(b"\n");
    assert_eq!(splitter.next_event(), Ok(None));
}

#[test]
fn long_events_end_the_stream() {
    let mut splitter = Splitter::new();
    splitter.push(b"data: ");
    splitter.push(&vec![b'x'; EVENT_MAX]);
    assert_eq!(splitter.next_event(), Err(SseError::EventTooLong));
}

proptest! {
    #[test]
    fn no_byte_is_lost(
        bytes in prop::collection::vec(prop::sample::select(&b"data:event \r\n\r\n\xEF\xBB\xBFx"[..]), 0..200),
        size in 1_usize..20,
    ) {
        let whole = split([bytes.as_slice()]);
        prop_assert_eq!(&whole.1, &bytes);
        let cut = split(bytes.chunks(size));
        prop_assert_eq!(&cut.1, &bytes);
        prop_assert_eq!(whole.0, cut.0);
    }
}
