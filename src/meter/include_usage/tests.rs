use proptest::{prelude::*, test_runner::TestRng};
use serde_json::{Map, Value, json};

use super::*;

fn asked(body: &str) -> Option<String> {
    ask(body.as_bytes()).map(|body| String::from_utf8(body).unwrap())
}

#[test]
fn the_option_is_put_where_it_belongs() {
    for (body, expected) in [
        (
            r#"{"model":"m","stream":true}"#,
            r#"{"stream_options":{"include_usage":true},"model":"m","stream":true}"#,
        ),
        (
            "\n{ \"stream\" : true, \"messages\":[{\"stream_options\":{\"include_usage\":false}}] }\n",
            "\n{\"stream_options\":{\"include_usage\":true}, \"stream\" : true, \"messages\":[{\"stream_options\":{\"include_usage\":false}}] }\n",
        ),
        (
            r#"{"stream":true,"stream_options": null }"#,
            r#"{"stream":true,"stream_options": {"include_usage":true} }"#,
        ),
        (
            r#"{"stream_options":{ },"stream":true}"#,
            r#"{"stream_options":{"include_usage":true },"stream":true}"#,
        ),
        (
            r#"{"stream_options":{"include_obfuscation":false},"stream":true}"#,
            r#"{"stream_options":{"include_usage":true,"include_obfuscation":false},"stream":true}"#,
        ),
        (
            r#"{"stream":true,"stream_options":{"a":{"include_usage":1},"include_usage": false}}"#,
            r#"{"stream":true,"stream_options":{"a":{"include_usage":1},"include_usage": true}}"#,
        ),
        (
            r#"{"stream":true,"stream_options":{"include_usage":null},"n":{"include_usage":false}}"#,
            r#"{"stream":true,"stream_options":{"include_usage":true},"n":{"include_usage":false}}"#,
        ),
    ] {
        assert_eq!(asked(body).as_deref(), Some(expected));
    }
}

#[test]
fn depth_does_no_harm() {
    let deep = format!(
        r#""stream":true,"x":{}{}}}"#,
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    let expected = format!(r#"{{"stream_options":{{"include_usage":true}},{deep}"#);
    assert_eq!(asked(&format!("{{{deep}")), Some(expected));
}

#[test]
fn other_requests_stay_as_they_are() {
    for body in [
        "",
        "{",
        "[true,null]",
        r#"{"model":"m"}"#,
        r#"{"stream":false}"#,
        r#"{"stream":"true"}"#,
        r#"{"stream":true"#,
        r#"{"stream":true} x"#,
        r#"{"stream":true,"stream":true}"#,
        r#"{"stream":true,"stream_options":[false]}"#,
        r#"{"stream":true,"stream_options":{"include_usage":true}}"#,
        r#"{"stream":true,"stream_options":{"include_usage":"no"}}"#,
    ] {
        assert_eq!(asked(body), None, "{body}");
    }
    let large = format!(
        r#"{{"stream":true,"x":"{}"}}"#,
        "x".repeat(MAX_REQUEST_BYTES)
    );
    assert_eq!(asked(&large), None);
}

fn any_value() -> impl Strategy<Value = Value> {
    let text = r#"[ -~é"\\{}:,]{0,12}"#;
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(Value::from),
        text.prop_map(Value::from)
    ];
    leaf.prop_recursive(3, 24, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(
                "[a-d\"]{1,3}|include_usage|stream_options|stream",
                inner,
                0..4
            )
            .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn no_request_panics(pieces in prop::collection::vec(prop::sample::select(vec![
        "{", "}", "[", "]", ",", ":", " ", "\"", "\\", "\"stream\":true", "\"stream_options\":", "\"include_usage\":false",
    ]), 0..20), bytes: Vec<u8>) {
        ask(&bytes);
        ask(pieces.concat().as_bytes());
    }

    #[test]
    fn nothing_but_the_option_changes(
        others in prop::collection::btree_map(r#"[a-z"\\]{1,4}|include_usage"#, any_value(), 0..5),
        options in prop_oneof![
            Just(None),
            Just(Some(json!(null))),
            prop::collection::btree_map("[a-d]{1,3}", any_value(), 0..3).prop_map(|map| Some(json!(map))),
            prop::option::of(Just(false)).prop_map(|flag| Some(json!({"z": [1], "include_usage": flag, "a": {}}))),
        ],
        pretty: bool,
    ) {
        let mut request: Map<String, Value> = others.into_iter().collect();
        request.insert("stream".to_owned(), json!(true));
        request.extend(options.map(|options| ("stream_options".to_owned(), options)));
        let body = if pretty { serde_json::to_vec_pretty(&request) } else { serde_json::to_vec(&request) };
        let asked: Map<String, Value> = serde_json::from_slice(&ask(&body.unwrap()).unwrap()).unwrap();
        let options = request.entry("stream_options").or_insert(json!(null));
        if options.is_null() {
            *options = json!({});
        }
        options["include_usage"] = json!(true);
        prop_assert_eq!(asked, request);
    }
}

const FIXTURE: &str = include_str!("../../../tests/fixtures/meter/chat_include_usage.sse");

/// What the caller gets of a stream that comes in these chunks.
fn got(chunks: &[&[u8]]) -> Vec<u8> {
    let mut remover = ChunkRemover::default();
    let mut all = Vec::new();
    for chunk in chunks {
        match remover.on_body(chunk) {
            Some(changed) => all.extend(changed),
            None => all.extend_from_slice(chunk),
        }
    }
    all.extend(remover.finish());
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
        "x".repeat(MAX_CHUNK_BYTES)
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
        assert_eq!(ChunkRemover::default().on_body(stream.as_bytes()), None);
        let bytes: Vec<&[u8]> = stream.as_bytes().chunks(5).collect();
        assert_eq!(got(&bytes), stream.as_bytes());
    }
}

#[test]
fn an_event_is_not_held_longer_than_to_its_end() {
    let mut remover = ChunkRemover::default();
    let mut passed = 0;
    for event in FIXTURE.split_inclusive("\n\n") {
        let sent = remover.on_body(event.as_bytes());
        passed += usize::from(sent.is_none());
        assert_eq!(sent.is_some(), event.contains("\"choices\":[]"), "{event}");
    }
    assert_eq!(passed, FIXTURE.matches("\n\n").count() - 1);
    let begun = b"data: {\"choices\":[{\"delta\":{\"content\":\"half a wo".as_slice();
    assert_eq!(remover.on_body(begun), None);
    assert_eq!(remover.on_body(&vec![b'x'; MAX_CHUNK_BYTES]), None);
}

#[test]
fn what_is_held_is_bounded() {
    let mut remover = ChunkRemover::default();
    let mut passed = 0;
    for _ in 0..100 {
        let sent = remover.on_body(&vec![b':'; MAX_CHUNK_BYTES / 3]);
        passed += sent.map_or(MAX_CHUNK_BYTES / 3, |bytes| bytes.len());
        assert!(remover.held.len() <= MAX_CHUNK_BYTES);
    }
    assert_eq!(passed, 100 * (MAX_CHUNK_BYTES / 3));
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
