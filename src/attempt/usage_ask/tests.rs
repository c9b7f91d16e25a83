use proptest::{prelude::*, test_runner::TestRng};

use super::*;
use crate::{
    attempt::forwarding::{Forwarding, MAX_EVENT_BYTES},
    dialect::Dialect,
    snapshot::fixture,
};

/// The rewrite of a body that may have to ask, and what is decided after it.
fn on_request(size: usize, end: bool, read: &dyn Fn() -> Vec<u8>) -> (Rewrite, UsageAsk) {
    let mut usage_ask = UsageAsk::Undecided;
    (
        usage_ask.on_request(Dialect::Chat, size, end, read),
        usage_ask,
    )
}

#[test]
fn a_request_is_asked_where_the_platform_needs_it_and_its_body_is_known() {
    let asks = |endpoint: &Endpoint, length: Option<&[u8]>| {
        UsageAsk::of(endpoint, length) == UsageAsk::Undecided
    };
    let platform = fixture::platform("codex");
    let mut endpoint = platform.endpoints.first().unwrap().clone();
    endpoint.dialect = Dialect::Chat;
    assert!(!asks(&endpoint, None));
    endpoint.include_usage = true;
    assert!(asks(&endpoint, None) && asks(&endpoint, Some(b"9")));
    assert!(!asks(&endpoint, Some(b"8388609")) && !asks(&endpoint, Some(b"x")));
    endpoint.dialect = Dialect::Responses;
    assert!(!asks(&endpoint, None));

    let body = || br#"{"stream":true}"#.to_vec();
    assert_eq!(
        on_request(9, false, &body),
        (Rewrite::NeedMore, UsageAsk::Undecided)
    );
    let asked = br#"{"stream_options":{"include_usage":true},"stream":true}"#.to_vec();
    assert_eq!(
        on_request(9, true, &body),
        (Rewrite::Instead(asked), UsageAsk::Asked)
    );
    let too_large = MAX_REQUEST_BYTES + 1;
    assert_eq!(
        on_request(too_large, false, &body),
        (Rewrite::AsItIs, UsageAsk::NotAsked)
    );
    let odd = || b"{\"stream\":true,".to_vec();
    assert_eq!(
        on_request(9, true, &odd),
        (Rewrite::AsItIs, UsageAsk::NotAsked)
    );
}

const FIXTURE: &str = include_str!("../../../tests/fixtures/meter/chat_include_usage.sse");

/// An answer of a platform that was asked for usage.
fn asked() -> Forwarding {
    Forwarding::new(Dialect::Chat, UsageAsk::Asked)
}

/// Returns what the caller gets of a stream that comes in these chunks.
fn got(chunks: &[&[u8]]) -> Vec<u8> {
    let mut forwarding = asked();
    let mut all = Vec::new();
    for chunk in chunks {
        match forwarding.on_body(chunk, false) {
            Some(changed) => all.extend(changed),
            None => all.extend_from_slice(chunk),
        }
    }
    all.extend(forwarding.on_body(b"", true).unwrap_or_default());
    all
}

/// A stream with the extra chunk, and the same without it, in each kind of line end and with a
/// comment or an error behind the chunk.
fn streams() -> Vec<(String, String)> {
    let extra = FIXTURE
        .split_inclusive("\n\n")
        .find(|event| event.contains("\"choices\":[]"))
        .unwrap();
    let before = FIXTURE.split_inclusive("\n\n").next().unwrap();
    let done = "data: [DONE]\n\n";
    let mut streams = Vec::new();
    for after in [
        done.to_owned(),
        format!(": ping\n\n{done}"),
        String::new(),
        format!("event: x\n{done}"),
    ] {
        for end in ["\n", "\r\n", "\r"] {
            for before in [before, "", ": hello\n\n"] {
                let with = format!("{before}{extra}{after}").replace('\n', end);
                let without = format!("{before}{after}").replace('\n', end);
                streams.push((with, without));
            }
        }
    }
    streams
}

#[test]
fn the_extra_chunk_goes_wherever_the_stream_is_cut() {
    for (with, without) in streams() {
        for at in 0..=with.len() {
            let (left, right) = with.as_bytes().split_at(at);
            assert_eq!(
                String::from_utf8_lossy(&got(&[left, right])),
                without,
                "{with:?} {at}"
            );
        }
        let bytes: Vec<&[u8]> = with.as_bytes().chunks(1).collect();
        assert_eq!(got(&bytes), without.as_bytes());
        // A CRLF that is cut in the middle, and events of both line ends.
        let mixed = format!("{}{with}", without.replace("\r\n", "\n"));
        let expected = format!("{}{without}", without.replace("\r\n", "\n"));
        assert_eq!(String::from_utf8_lossy(&got(&[mixed.as_bytes()])), expected);
    }
}

#[test]
fn streams_without_the_chunk_pass_as_they_are() {
    let large = format!(
        "data: {{\"choices\":[],\"x\":\"{}\",\"usage\":{{\"prompt_tokens\":1}}}}\n\n",
        "x".repeat(MAX_EVENT_BYTES)
    );
    for stream in [
        include_str!("../../../tests/fixtures/meter/chat_inline_usage.sse"),
        include_str!("../../../tests/fixtures/meter/chat_choice_usage.sse"),
        include_str!("../../../tests/fixtures/meter/chat_spark.sse"),
        "data: {\"choices\":[],\"prompt_filter_results\":[]}\n\n",
        "data: {\"choices\":[],\"usage\":null}\n\n",
        "data: {\"usage\":{\"prompt_tokens\":1}}\n\n",
        "data: {\"choices\":[{}],\"usage\":{\"prompt_tokens\":1}}\n\n",
        &large,
    ] {
        assert_eq!(asked().on_body(stream.as_bytes(), false), None);
        let bytes: Vec<&[u8]> = stream.as_bytes().chunks(5).collect();
        assert_eq!(got(&bytes), stream.as_bytes());
    }
}

#[test]
fn an_event_is_not_held_longer_than_to_its_end() {
    let mut forwarding = asked();
    let mut passed = 0;
    for event in FIXTURE.split_inclusive("\n\n") {
        let sent = forwarding.on_body(event.as_bytes(), false);
        passed += usize::from(sent.is_none());
        assert_eq!(sent.is_some(), event.contains("\"choices\":[]"), "{event}");
    }
    assert_eq!(passed, FIXTURE.matches("\n\n").count() - 1);
    let begun = b"data: {\"choices\":[{\"delta\":{\"content\":\"half a wo".as_slice();
    assert_eq!(forwarding.on_body(begun, false), None);
    let more = vec![b'x'; MAX_EVENT_BYTES];
    assert_eq!(forwarding.on_body(&more, false), None);
}

#[test]
fn what_is_held_is_bounded() {
    let mut forwarding = asked();
    let mut passed = 0;
    for _ in 0..100 {
        let sent = forwarding.on_body(&vec![b':'; MAX_EVENT_BYTES / 3], false);
        passed += sent.map_or(MAX_EVENT_BYTES / 3, |bytes| bytes.len());
        assert!(forwarding.kept_bytes() <= MAX_EVENT_BYTES);
    }
    assert_eq!(passed, 100 * (MAX_EVENT_BYTES / 3));
}

proptest! {
    #[test]
    fn cuts_change_nothing(
        stream in prop::collection::vec(prop::sample::select(vec![
            "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1}}", "data: {\"choices\":[{}]}", "data: ", ":",
            "\n", "\r", "\r\n", "\n\n", "\r\n\r\n", "[DONE]", "\"usage\":{\"prompt_tokens\":1}", "\"choices\":[", "]",
        ]), 0..30).prop_map(|pieces| pieces.concat()),
        seed: [u8; 32],
    ) {
        let mut rng = TestRng::from_seed(proptest::test_runner::RngAlgorithm::ChaCha, &seed);
        let mut cuts: Vec<usize> = (0..6).map(|_| rng.random_range(0..=stream.len())).collect();
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        let chunks: Vec<&[u8]> = cuts.windows(2).map(|cut| &stream.as_bytes()[cut[0]..cut[1]]).collect();
        prop_assert_eq!(got(&chunks), got(&[stream.as_bytes()]));
    }
}
