use proptest::prelude::*;

use super::*;

/// Looks at an answer of the dialect that has the most kinds of events.
fn look(body: &[u8], end: bool) -> Look {
    super::look(Dialect::Responses, body, end)
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

/// Asks after each chunk, as the filter does.
fn in_chunks(dialect: Dialect, body: &[u8], chunk: usize) -> Look {
    let mut end = 0;
    while end < body.len() {
        end = body.len().min(end + chunk);
        match super::look(dialect, &body[..end], end == body.len()) {
            Look::NeedMore => {}
            decided => return decided,
        }
    }
    panic!("no decision at the end of {} bytes", body.len())
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
        let Look::Error(error) = super::look(dialect_of(name), &read(name), false) else {
            panic!("{name}");
        };
        assert!(error.has_code(code), "{name}: {error:?}");
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
        let Look::Error(error) = look(body.as_bytes(), false) else {
            panic!("{body}");
        };
        assert!(error.has_code(code), "{body}: {error:?}");
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
        "data: [DONE]\n\n",
        "event: response.created\ndata: {\"type\":\"response.created\"}\n\n",
        ": keep-alive\n\n",
        "data: {\"choices\":[]}\n\ndata: {\"error\":{\"code\":\"late\"}}\n\n",
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
fn nothing_is_held_back_for_long() {
    for body in [
        "",
        " ",
        "da",
        "data: {\"error\"",
        "{\"id\":\"",
        "event: response.created\nda",
    ] {
        assert_eq!(look(body.as_bytes(), false), Look::NeedMore, "{body}");
        assert_eq!(look(body.as_bytes(), true), Look::Fine, "{body}");
    }
    for start in ["{\"id\":\"", "data: ", "data: {\"error\":\""] {
        let long = format!("{start}{}", "x".repeat(MAX_LOOK_BYTES));
        assert_eq!(look(long.as_bytes(), false), Look::Fine, "{start}");
    }
    let ended = b"data: {\"error\":{\"code\":\"c\"}}";
    assert!(matches!(look(ended, true), Look::Error(_)));
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

proptest! {
    #[test]
    fn no_bytes_panic(body in prop::collection::vec(any::<u8>(), 0..200), end: bool) {
        look(&body, end);
    }

    /// Where nothing only announces, chunks do not matter: a decision is that of the whole.
    #[test]
    fn any_split_decides_as_the_whole_does(body in any_body(&[]), chunk in 1_usize..40) {
        prop_assert_eq!(in_chunks(Dialect::Responses, &body, chunk), look(&body, true));
    }

    /// An announcement at a chunk's end lets go of what might have been an error, no more.
    #[test]
    fn an_announcement_only_hides_errors(body in any_body(&ANNOUNCEMENTS), chunk in 1_usize..40) {
        let decided = in_chunks(Dialect::Responses, &body, chunk);
        prop_assert!(decided == Look::Fine || decided == look(&body, true));
    }
}

#[test]
fn an_error_after_an_announcement_is_seen_in_the_same_chunk_alone() {
    for name in [
        "codex/response_failed_rate_limit_exceeded.sse",
        "codex/response_failed_server_is_overloaded.sse",
    ] {
        let body = read(name);
        let whole = look(&body, true);
        assert!(matches!(whole, Look::Error(_)));
        for chunk in 1..=body.len() {
            let decided = in_chunks(Dialect::Responses, &body, chunk);
            assert!(
                decided == Look::Fine || decided == whole,
                "{name} by {chunk}"
            );
        }
    }
}
