use proptest::prelude::*;

use super::*;

/// Looks at an answer of the dialect that has the most kinds of events.
fn look(body: &[u8], end: bool) -> Look {
    looked(Dialect::Responses, body, end)
}

fn looked(dialect: Dialect, body: &[u8], end: bool) -> Look {
    Beginning::new(dialect, true).look(body, end)
}

fn in_dialect(name: &str, end: bool) -> Look {
    looked(dialect_of(name), &read(name), end)
}

fn is_error(looked: &Look, code: &str) -> bool {
    matches!(looked, Look::Error(failure) if failure.error.has_code(code))
}

/// The dialect of a fixture.
fn dialect_of(name: &str) -> Dialect {
    match name {
        name if name.starts_with("anthropic/") => Dialect::Messages,
        name if name.starts_with("openai/chat") => Dialect::Chat,
        _ => Dialect::Responses,
    }
}

fn read(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(path).unwrap()
}

/// Asks with each chunk, as the filter does.
fn in_chunks(dialect: Dialect, body: &[u8], chunk: usize) -> Look {
    let mut beginning = Beginning::new(dialect, true);
    for chunk in body.chunks(chunk) {
        match beginning.look(chunk, false) {
            Look::NeedMore => {}
            decided => return decided,
        }
    }
    beginning.look(b"", true)
}

#[test]
fn what_is_neither_json_nor_events_is_not_looked_at() {
    for kind in [
        "audio/mpeg",
        "Audio/L16; rate=24000",
        "image/png",
        "video/mp4",
        "text/plain; charset=utf-8",
        "application/octet-stream",
    ] {
        for body in [": a", "id: 3", "data: x", "{\"error\":{\"code\":\"x\"}}"] {
            let beginning = Beginning::new(Dialect::Chat, false);
            let mut beginning = beginning.of_type(Some(kind.as_bytes()));
            assert_eq!(beginning.look(body.as_bytes(), true), Look::Fine, "{kind}");
        }
    }
    // Platforms send events and errors as other things.
    for kind in [None, Some("text/html"), Some("application/json")] {
        let beginning = Beginning::new(Dialect::Chat, true);
        let mut beginning = beginning.of_type(kind.map(str::as_bytes));
        let body = b"data: {\"error\":{\"code\":\"x\"}}\n\n";
        assert!(is_error(&beginning.look(body, false), "x"), "{kind:?}");
    }
}

/// Counts how often a text that grows byte by byte is read, and the bytes that are read so in all.
fn read_in_all(text: &[u8]) -> (usize, usize) {
    let mut begun = Text::default();
    let worth = text.iter().filter_map(|byte| {
        let is_worth_reading = begun.grows(std::slice::from_ref(byte));
        is_worth_reading.then_some(begun.bytes.len())
    });
    let lengths: Vec<usize> = worth.collect();
    (lengths.len(), lengths.iter().sum())
}

#[test]
fn the_work_grows_with_a_json_text_and_not_with_its_pieces() {
    let long = format!("{{\"id\":\"{}", "a}".repeat(MAX_LOOK_BYTES / 2));
    let many = format!("{{{}", "\"id\":{},".repeat(MAX_LOOK_BYTES / 8));
    for text in [long, many] {
        let (times, bytes) = read_in_all(text.as_bytes());
        assert!(times < 60 && bytes < 6 * text.len(), "{times} {bytes}");
    }
}

#[test]
fn an_error_that_is_whole_is_told_at_once() {
    let text = b"{\"id\":\"0123456789\",\"error\":{\"code\":\"x\"}}";
    let mut beginning = Beginning::new(Dialect::Chat, true);
    let (last, rest) = text.split_last().unwrap();
    for byte in rest {
        let looked = beginning.look(std::slice::from_ref(byte), false);
        if looked != Look::NeedMore {
            assert!(is_error(&looked, "x"));
            return;
        }
    }
    assert!(is_error(&beginning.look(&[*last], false), "x"));
}

#[test]
fn errors_inside_200_are_found_in_the_first_chunk() {
    for (name, code) in [
        (
            "codex/response_failed_rate_limit_exceeded.sse",
            "rate_limit_exceeded",
        ),
        (
            "codex/response_failed_context_length_exceeded.sse",
            "context_length_exceeded",
        ),
        (
            "codex/error_event_usage_limit_reached.sse",
            "usage_limit_reached",
        ),
        (
            "openai/response_failed_insufficient_quota.sse",
            "insufficient_quota",
        ),
        ("anthropic/error_event_overloaded.sse", "overloaded_error"),
    ] {
        let looked = in_dialect(name, false);
        assert!(is_error(&looked, code), "{name}: {looked:?}");
    }
    for (body, code) in [
        (r#"{"error":{"code":"c"},"id""#, "c"),
        (r#"{"type":"error","error":{"type":"c"}}"#, "c"),
        (
            r#"{"id":"r","object":"response","status":"failed","error":{"code":"c"},"instr"#,
            "c",
        ),
        (r#"{"error_code":336501,"error_msg":"m"}"#, "336501"),
        (r#"{"code":10007,"message":"m","sid":"s"}"#, "10007"),
        ("data: {\"error\":{\"code\":\"c\"}}\n\n", "c"),
        ("data:{\"code\":10007,\"message\":\"m\"}\r\n\r\n", "10007"),
        (
            "event: error\ndata: {\"type\":\"c_error\",\"message\":\"m\"}\n\n",
            "c_error",
        ),
        (
            "event: ping\ndata: {}\n\nevent: error\ndata: {\"code\":\"c\"}\n\n",
            "c",
        ),
    ] {
        let looked = look(body.as_bytes(), false);
        assert!(is_error(&looked, code), "{body}: {looked:?}");
    }
}

#[test]
fn good_answers_go_at_their_first_sign() {
    for body in [
        r#"{"id":"c","object":"chat.completion","created":1,"model""#,
        r#"{"id":"m","type":"message","#,
        r#"{"id":"r","error":null,"incomplete_details""#,
        r#"{"object":"list","data":["#,
        r#"{"input_tokens":"#,
        r#"{"code":0,"message":"Success","sid":"s","choices":["#,
        r#"{"code":0,"message":"Success"}"#,
        "[1",
        "nonsense",
        "data: {\"output\":[]}\n\ndata: {\"error\":{\"code\":\"late\"}}\n\n",
        "event: response.output_text.delta\ndata: {\"delta\":\"a\"}\n\n",
    ] {
        assert_eq!(look(body.as_bytes(), false), Look::Fine, "{body}");
    }
    for name in [
        "codex/response.sse",
        "codex/response_incomplete.sse",
        "anthropic/message.sse",
        "anthropic/message.json",
        "anthropic/message_then_overloaded.sse",
        "openai/chat.sse",
        "openai/chat.json",
        "openai/embeddings.json",
        "openai/models.json",
        "openai/response.json",
    ] {
        let body = read(name);
        for chunk in 1..=body.len() {
            assert_eq!(
                in_chunks(dialect_of(name), &body, chunk),
                Look::Fine,
                "{name} by {chunk}"
            );
        }
    }
}

#[test]
fn what_does_not_tell_yet_is_held_and_empty_at_its_end() {
    for (body, at_end) in [
        ("", Look::Empty),
        (" ", Look::Empty),
        ("da", Look::Fine),
        ("data: {\"error\"", Look::Empty),
        ("{\"id\":\"", Look::Empty),
        ("event: response.created\nda", Look::Empty),
        (
            "event: response.created\ndata: {\"type\":\"response.created\"}\n\n",
            Look::Empty,
        ),
        (": keep-alive\n\n", Look::Empty),
    ] {
        assert_eq!(look(body.as_bytes(), false), Look::NeedMore, "{body}");
        assert_eq!(look(body.as_bytes(), true), at_end, "{body}");
    }
    let nothing_expected = Beginning::new(Dialect::Chat, false).look(b"", true);
    assert_eq!(nothing_expected, Look::Fine, "an empty file");
    for start in ["{\"id\":\"", "{\"error\":\""] {
        let long = format!("{start}{}", "x".repeat(MAX_LOOK_BYTES));
        assert_eq!(look(long.as_bytes(), false), Look::Fine, "{start}");
    }
    let ended = b"data: {\"error\":{\"code\":\"c\"}}";
    assert!(is_error(&look(ended, true), "c"));
}

/// The events before the first with content, of each dialect, and such an event.
fn announced(dialect: Dialect) -> (Vec<String>, &'static str) {
    let echo = format!("{}\"", "instructions \\u00e9 ".repeat(9_000));
    let tools = r#"{"type":"function","name":"t"},"#.repeat(3_000);
    let response = |kind: &str| {
        format!(
            "event: {kind}\ndata: {{\"type\":\"{kind}\",\"response\":{{\"error\":null,\"instructions\":\"{echo},\"tools\":[{tools}null]}}}}\n\n"
        )
    };
    match dialect {
        Dialect::Responses => (
            ["response.created", "response.queued", "response.in_progress"].map(response).into(),
            "event: response.output_item.added\ndata: {\"type\":\"response.output_item.added\"}\n\n",
        ),
        Dialect::Messages => (
            [
                "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"content\":[]}}\n\n",
                "event: ping\ndata: {\"type\":\"ping\"}\n\n",
                "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n",
            ]
            .map(str::to_owned)
            .into(),
            "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"}}\n\n",
        ),
        Dialect::Gemini => (
            [
                "data: {\"usageMetadata\":{\"promptTokenCount\":4},\"modelVersion\":\"m\",\"responseId\":\"r\"}\n\n",
                ": keep-alive\n\n",
            ]
            .map(str::to_owned)
            .into(),
            "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"a\"}]}}]}\n\n",
        ),
        Dialect::Ernie => (
            ["data: {\"id\":\"as-1\",\"sentence_id\":0,\"is_end\":false,\"result\":\"\",\"finish_reason\":\"normal\"}\n\n"]
                .map(str::to_owned)
                .into(),
            "data: {\"id\":\"as-1\",\"sentence_id\":1,\"is_end\":true,\"result\":\"\"}\n\n",
        ),
        Dialect::Chat | Dialect::Envelope => (
            [
                ": OPENROUTER PROCESSING\n\n",
                "data: {\"choices\":[],\"prompt_filter_results\":[{}]}\n\n",
                "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\",\"refusal\":null},\"finish_reason\":null}],\"usage\":null}\n\n",
            ]
            .map(str::to_owned)
            .into(),
            "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n",
        ),
    }
}

#[test]
fn what_announces_is_passed_over_until_content_or_a_failure_comes() {
    for dialect in Dialect::OF_PLATFORMS {
        let (announced, content) = announced(dialect);
        let failure = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\"}}\n\n";
        let mut beginning = Beginning::new(dialect, true);
        for event in &announced {
            let looked = beginning.look(event.as_bytes(), false);
            assert_eq!(looked, Look::NeedMore, "{dialect:?} {:.80}", event);
        }
        let all = announced.concat();
        for chunk in [1, 100, 16_384, 1_000_000] {
            let ends = |with: &str| in_chunks(dialect, format!("{all}{with}").as_bytes(), chunk);
            assert_eq!(ends(content), Look::Fine, "{dialect:?}");
            assert_eq!(ends(""), Look::Empty, "{dialect:?}");
            assert_eq!(ends("data: {\"type\":\"resp"), Look::Empty, "cut off");
            assert!(is_error(&ends(failure), "overloaded_error"), "{dialect:?}");
        }
    }
    let done = looked(Dialect::Chat, b"data: [DONE]\n\n", false);
    assert_eq!(done, Look::Empty, "an end without a beginning");
}

/// Gemini streams a list where no events are asked for.
#[test]
fn of_a_list_the_first_answer_decides() {
    let of = |body: &str| looked(Dialect::Gemini, body.as_bytes(), true);
    let error = r#"{"error":{"code":503,"status":"UNAVAILABLE"}}"#;
    let content = r#"{"candidates":[]}"#;
    assert!(is_error(&of(&format!("[{error}\n")), "UNAVAILABLE"));
    assert!(is_error(&of(&format!("[ {error}]")), "UNAVAILABLE"));
    for fine in [
        format!("[{content},\n{error}]"),
        "[1]".into(),
        "[]".into(),
        "[music]".into(),
    ] {
        assert_eq!(of(&fine), Look::Fine, "{fine}");
    }
    for chunk in [1, 7] {
        let whole = format!("[{error}]");
        assert!(is_error(
            &in_chunks(Dialect::Gemini, whole.as_bytes(), chunk),
            "UNAVAILABLE"
        ));
    }
    // A stream that has begun is let go before it ends.
    let mut begun = Beginning::new(Dialect::Gemini, true);
    assert_eq!(begun.look(b"[", false), Look::NeedMore);
    assert_eq!(begun.look(content.as_bytes(), false), Look::Fine);
}

#[test]
fn the_words_of_a_failure_are_not_shown() {
    let body = "data: {\"error\":{\"code\":\"c\",\"message\":\"hush\"}}\n\n";
    let shown = format!("{:?}", look(body.as_bytes(), true));
    assert!(shown.contains('c') && !shown.contains("hush"), "{shown}");
}

const ANNOUNCEMENTS: [&str; 3] = [
    "event: ping\ndata: {}\n\n",
    "data: {\"type\":\"response.created\",\"response\":{\"error\":null}}\n\n",
    ": keep-alive\n\n",
];

/// Streams and JSON answers in pieces, good and bad, whole and cut.
fn any_body(more: &[&'static str]) -> impl Strategy<Value = Vec<u8>> + use<> {
    let mut pieces = vec![
        "data: {\"type\":\"error\",\"error\":{\"code\":\"c\"}}\n\n",
        "event: error\r\ndata: {\"type\":\"x_error\"}\r\n\r\n",
        "data: {\"choices\":[]}\n\n",
        "event: response.failed\ndata: {\"response\":{\"error\":{\"code\":\"c\"}}}\n\n",
        "\n",
        "data: ",
        "{\"id\":\"i\",",
        "\"error\":{\"code\":\"c\"}",
        "\"error\":null,",
        "\"code\":7,",
        "\"choices\":[]",
        "}",
        "{",
        "[DONE]",
        "é",
        "\"",
    ];
    pieces.extend(more);
    prop::collection::vec(prop::sample::select(pieces), 1..6)
        .prop_map(|pieces| pieces.concat().into_bytes())
}

/// JSON answers and events as they are, nearly so, and cut.
fn any_json() -> impl Strategy<Value = Vec<u8>> {
    let pieces = [
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        " ",
        "\"",
        "\\",
        "7",
        "null",
        "\u{1}",
        "é",
        "\"type\":",
        "\"x\"",
        "\"error\"",
        "\"a_error\"",
        "\"error\":null,",
        "\"error\":",
        "\"detail\":\"\",",
        "\"id\":\"i\",",
        "\"status\":",
        "\"code\":7,",
        "\"code\":\"0\",",
        "\"output\":",
        "\"message\":{\"a\":[1]},",
        "\"ty\\u0070e\":",
        "\"e\\u0072ror\"",
    ];
    prop::collection::vec(prop::sample::select(pieces.to_vec()), 0..9)
        .prop_map(|pieces| format!("{{{}", pieces.concat()).into_bytes())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_096))]

    /// The first members tell nothing that the whole would not.
    #[test]
    fn what_is_plainly_output_is_output(body in any_json(), end: bool) {
        if is_plainly_output(&body) {
            prop_assert_eq!(answer_by_all(&body, end), Look::Fine, "{}", String::from_utf8_lossy(&body));
        }
    }

    /// An event's first member tells its type as a parser does, if there is no other.
    #[test]
    fn a_type_is_that_of_the_whole(body in any_json()) {
        let Ok(Value::Object(members)) = serde_json::from_slice(&body) else {
            return Ok(());
        };
        let is_once = String::from_utf8_lossy(&body).matches("\"ty").count() < 2;
        let of_whole = members.get("type").and_then(Value::as_str).filter(|_| is_once);
        let found = type_of(&body);
        prop_assert!(!is_once || found.as_deref() == of_whole.map(str::as_bytes), "{}", String::from_utf8_lossy(&body));
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(body in prop::collection::vec(any::<u8>(), 0..200), end: bool) {
        look(&body, end);
    }

    /// Chunks do not matter: a decision is that of the whole.
    #[test]
    fn any_split_decides_as_the_whole_does(body in any_body(&ANNOUNCEMENTS), chunk in 1_usize..40) {
        let decided = |looked| match looked {
            // As much of a JSON text is kept as had come.
            Look::Error(failure) => (None, Some(failure.error)),
            looked => (Some(looked), None),
        };
        let whole = decided(look(&body, true));
        prop_assert_eq!(decided(in_chunks(Dialect::Responses, &body, chunk)), whole);
    }
}
