//! Answers of platforms that speak `chat`.

use serde_json::{Value, json};

use super::*;

/// A stream of these chunks.
fn stream(chunks: &[Value], done: bool) -> Vec<u8> {
    let mut stream: String = chunks
        .iter()
        .map(|chunk| format!("data: {chunk}\n\n"))
        .collect();
    if done {
        stream.push_str("data: [DONE]\n\n");
    }
    stream.into_bytes()
}

fn delta(delta: Value) -> Value {
    json!({"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": null}]})
}

fn finish(reason: &str) -> Value {
    json!({"id": "chatcmpl-1", "model": "m", "choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
}

fn call(index: Option<u64>, id: Option<&str>, name: Option<&str>, arguments: &str) -> Value {
    let mut call = json!({"type": "function", "function": {"arguments": arguments}});
    if let Some(index) = index {
        call["index"] = index.into();
    }
    if let Some(id) = id {
        call["id"] = id.into();
    }
    if let Some(name) = name {
        call["function"]["name"] = name.into();
    }
    delta(json!({"tool_calls": [call]}))
}

fn translation(caller: Dialect, as_stream: bool) -> AnswerTranslation {
    translation_about(caller, as_stream, About::default())
}

fn translation_about(caller: Dialect, as_stream: bool, about: About) -> AnswerTranslation {
    let renamed = BTreeMap::from([("f".to_owned(), "own/f".to_owned())]);
    AnswerTranslation::new(Dialect::Chat, caller, as_stream, about, "1f", renamed).unwrap()
}

/// What a caller of `messages` is told by this answer, in which it comes cut at `cut`.
fn said(answer: &[u8], cut: usize) -> Vec<String> {
    let mut translation = translation(Dialect::Messages, true);
    let (first, rest) = answer.split_at(cut);
    let mut all = Vec::new();
    for (piece, end) in [(first, false), (rest, true)] {
        match translation.on_body(piece, end) {
            Written::Stream(bytes) => all.extend(bytes),
            other => panic!("{other:?}"),
        }
    }
    said_in_messages(&String::from_utf8(all).unwrap())
}

/// The whole answer for a caller of `messages`, or the failure.
fn whole(answer: &[u8]) -> Result<Value, (u16, Value)> {
    match translation(Dialect::Messages, false).on_body(answer, true) {
        Written::Whole(body) => Ok(serde_json::from_slice(&body).unwrap()),
        Written::Failed(status, body) => Err((status, serde_json::from_slice(&body).unwrap())),
        other => panic!("{other:?}"),
    }
}

/// Wire shapes of many servers, and what they say.
#[test]
fn the_streams_of_many_servers_say_what_they_mean() {
    let text = |text: &str| delta(json!({"content": text}));
    let shapes: &[(&str, Vec<Value>, &[&str])] = &[
        (
            "OpenAI: two calls at once, by number",
            vec![
                delta(json!({"role": "assistant", "content": ""})),
                call(Some(0), Some("c1"), Some("f"), ""),
                call(Some(0), None, None, "{\"a\""),
                call(Some(1), Some("c2"), Some("f"), ""),
                call(Some(1), None, None, "{}"),
                call(Some(0), None, None, ":1}"),
                finish("tool_calls"),
            ],
            &["tool_use {\"a\" :1}", "tool_use {}", "\"tool_use\""],
        ),
        (
            "DashScope: reasoning, then empty ids and an empty text between the pieces",
            vec![
                delta(json!({"reasoning_content": "h", "content": null})),
                delta(json!({"reasoning_content": "m"})),
                text("Hi"),
                call(Some(0), Some("c1"), Some("f"), ""),
                text(""),
                call(Some(0), Some(""), Some(""), "{}"),
                json!({"id": "1", "choices": [{"index": 0, "delta": {"content": ""}}]}),
                finish("tool_calls"),
            ],
            &["thinking h m ", "text Hi", "tool_use {}", "\"tool_use\""],
        ),
        (
            "Ollama: all calls have the number 0, and the end says stop",
            vec![
                call(Some(0), Some("c1"), Some("f"), "{\"a\":1}"),
                call(Some(0), Some("c2"), Some("f"), "{\"b\":2}"),
                finish("stop"),
            ],
            &["tool_use {\"a\":1}", "tool_use {\"b\":2}", "\"tool_use\""],
        ),
        (
            "Google: neither numbers nor ids",
            vec![
                call(None, None, Some("f"), "{\"a\":\"}{\"}"),
                call(None, None, Some("f"), "{\"b\":2}"),
                finish("stop"),
            ],
            &[
                "tool_use {\"a\":\"}{\"}",
                "tool_use {\"b\":2}",
                "\"tool_use\"",
            ],
        ),
        (
            "Anthropic: the number counts blocks, and a line break comes between calls",
            vec![
                text("Hi"),
                call(Some(1), Some("c1"), Some("f"), ""),
                call(Some(1), None, None, "{}"),
                text("\n"),
                call(Some(2), Some("c2"), Some("f"), "{}"),
                finish("tool_calls"),
            ],
            &["text Hi", "tool_use {}", "tool_use {}", "\"tool_use\""],
        ),
        (
            "a name that comes later, and is repeated",
            vec![
                call(Some(0), Some("c1"), None, "{\"a\""),
                call(Some(0), Some("c1"), Some("f"), ":1"),
                call(Some(0), Some("c1"), Some("f"), "}"),
                finish("tool_calls"),
            ],
            &["tool_use {\"a\":1 }", "\"tool_use\""],
        ),
        (
            "Azure: a chunk without choices, one without a delta",
            vec![
                json!({"id": "", "model": "", "choices": [], "prompt_filter_results": []}),
                json!({"id": "chatcmpl-1", "choices": [{"index": 0, "content_filter_results": {}}]}),
                text("Hi"),
                finish("content_filter"),
            ],
            &["text Hi", "\"refusal\""],
        ),
        (
            "Spark: one call as an object, no reason and no id",
            vec![
                json!({"code": 0, "message": "Success", "choices": [{"index": 0, "delta": {
                    "tool_calls": {"type": "function", "function": {"name": "f", "arguments": "{}"}},
                }}]}),
            ],
            &["tool_use {}", "\"tool_use\""],
        ),
        (
            "OpenRouter: reasoning twice, said once",
            vec![
                delta(
                    json!({"reasoning": "hm", "reasoning_details": [{"type": "reasoning.text", "text": "hm"}]}),
                ),
                delta(json!({"reasoning_details": [{"summary": "!"}]})),
                text("Hi"),
                finish("length"),
            ],
            &["thinking hm !", "text Hi", "\"max_tokens\""],
        ),
        (
            "Mistral: parts of content",
            vec![
                delta(
                    json!({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]}),
                ),
                delta(json!({"content": [{"type": "text", "text": "Hi"}]})),
                finish("stop"),
            ],
            &["thinking hm", "text Hi", "\"end_turn\""],
        ),
        (
            "the old form of a call",
            vec![
                delta(json!({"function_call": {"name": "f", "arguments": ""}})),
                delta(json!({"function_call": {"arguments": "{}"}})),
                finish("function_call"),
            ],
            &["tool_use {}", "\"tool_use\""],
        ),
        (
            "a call that the limit cut",
            vec![
                call(Some(0), Some("c"), Some("f"), "{\"a"),
                finish("length"),
            ],
            &["tool_use {\"a", "\"max_tokens\""],
        ),
        (
            "a reason for calls without one",
            vec![text("Hi"), finish("tool_calls")],
            &["text Hi", "\"end_turn\""],
        ),
        (
            "Baidu: what was flagged",
            vec![json!({"choices": [{"index": 0, "flag": 1, "delta": {"content": "Hi"}}]})],
            &["text Hi", "\"refusal\""],
        ),
        (
            "a refusal in words",
            vec![delta(json!({"refusal": "No"})), finish("stop")],
            &["text No", "\"end_turn\""],
        ),
        ("nothing", vec![finish("stop")], &["\"end_turn\""]),
        (
            "the tool's name for an id and no number: two calls in one list",
            vec![
                delta(json!({"tool_calls": [unnumbered("{}"), unnumbered("")]})),
                finish("stop"),
            ],
            &["tool_use {}", "tool_use", "\"tool_use\""],
        ),
        (
            "the same, each in a list of its own",
            vec![
                call(None, Some("f"), Some("f"), "{}"),
                call(None, Some("f"), Some("f"), "{\"a\":1}"),
                call(None, Some("f"), Some("f"), ""),
                finish("stop"),
            ],
            &["tool_use {}", "tool_use {\"a\":1}", "\"tool_use\""],
        ),
        (
            "one call, whose pieces all have its id and its name, and no number",
            vec![
                call(None, Some("c"), Some("f"), "{\"a\""),
                call(None, Some("c"), Some("f"), ":1"),
                call(None, Some("c"), Some("f"), "}"),
                call(None, Some("c"), Some("f"), ""),
                finish("stop"),
            ],
            &["tool_use {\"a\" :1 }", "\"tool_use\""],
        ),
    ];
    for (name, chunks, expected) in shapes {
        let answer = stream(chunks, true);
        let expected: Vec<String> = expected
            .iter()
            .map(|said| said.trim_end().to_owned())
            .chain(["stop".to_owned()])
            .collect();
        for cut in 0..=answer.len() {
            let said: Vec<String> = said(&answer, cut)
                .iter()
                .map(|said| said.trim_end().to_owned())
                .collect();
            assert_eq!(said, expected, "{name}, cut at {cut}");
        }
        let made = whole(&answer).unwrap();
        let blocks = made["content"].as_array().unwrap().len();
        let is_cut = name.ends_with("the limit cut");
        assert_eq!(
            blocks,
            expected.len() - 2 - usize::from(is_cut),
            "{name}: {made}"
        );
    }
}

/// A call of a server that gives its calls no number, and the name of the tool for an id.
fn unnumbered(arguments: &str) -> Value {
    json!({"id": "f", "type": "function", "function": {"name": "f", "arguments": arguments}})
}

/// Results could not be told apart by it.
#[test]
fn no_two_calls_are_told_by_one_id() {
    let calls = [unnumbered("{}"), unnumbered("{\"a\":1}"), unnumbered("")];
    let choice =
        json!({"index": 0, "finish_reason": "tool_calls", "message": {"tool_calls": calls}});
    let answer = json!({"id": "x", "model": "m", "choices": [choice]}).to_string();
    let made = whole(answer.as_bytes()).unwrap();
    let blocks = made["content"].as_array().unwrap();
    let inputs: Vec<_> = blocks.iter().map(|block| &block["input"]).collect();
    assert_eq!(inputs, [&json!({}), &json!({"a": 1}), &json!({})]);
    let ids: BTreeSet<_> = blocks
        .iter()
        .map(|block| block["id"].as_str().unwrap())
        .collect();
    assert_eq!((blocks[0]["id"].as_str(), ids.len()), (Some("f"), 3));
}

#[test]
fn calls_without_ids_get_ones_that_no_other_answer_has() {
    let answer = stream(
        &[
            call(None, None, Some("f"), "{}"),
            call(None, None, Some("f"), "{}"),
            finish("stop"),
        ],
        true,
    );
    let made = |created: u64| {
        let about = About {
            created,
            ..About::default()
        };
        let mut translation = AnswerTranslation::new(
            Dialect::Chat,
            Dialect::Messages,
            false,
            about,
            "1f",
            BTreeMap::new(),
        )
        .unwrap();
        let Written::Whole(body) = translation.on_body(&answer, true) else {
            panic!("not whole");
        };
        let made: Value = serde_json::from_slice(&body).unwrap();
        let ids = made["content"]
            .as_array()
            .unwrap()
            .iter()
            .map(|block| block["id"].as_str().unwrap().to_owned());
        ids.collect::<Vec<_>>()
    };
    let all: BTreeSet<String> = [made(1), made(2)].concat().into_iter().collect();
    assert_eq!(all.len(), 4, "{all:?}");
    assert!(
        all.iter()
            .all(|id| id.starts_with("call_") && id.len() <= 40),
        "{all:?}"
    );
}

#[test]
fn a_stream_ends_well_only_where_it_says_so() {
    let hi = delta(json!({"content": "Hi"}));
    let good = [hi.clone(), finish("stop")];
    for (chunks, done, is_good) in [
        (&good[..], false, true),
        (&good[..1], true, true),
        (&good[..1], false, false),
        (&[], false, false),
        (&[hi.clone(), finish("network_error")], true, false),
        (
            &[hi.clone(), json!({"error": {"message": "no", "code": 502}})],
            true,
            false,
        ),
        (
            &[
                hi.clone(),
                json!([{"error": {"message": "no", "code": 503}}]),
            ],
            true,
            false,
        ),
        (
            &[
                hi.clone(),
                json!({"code": 10013, "message": "no", "sid": "x"}),
            ],
            false,
            false,
        ),
        (&[json!({"error": "no"})], false, false),
    ] {
        let answer = stream(chunks, done);
        let Written::Stream(stream) = translation(Dialect::Messages, true).on_body(&answer, true)
        else {
            panic!("no stream");
        };
        let stream = String::from_utf8(stream).unwrap();
        assert_eq!(
            stream.contains("message_stop"),
            is_good,
            "{chunks:?} {stream}"
        );
        assert_eq!(
            stream.contains("event: error"),
            !is_good,
            "{chunks:?} {stream}"
        );
        let answer = translation(Dialect::Messages, false).on_body(&answer, true);
        assert_eq!(matches!(answer, Written::Whole(_)), is_good, "{answer:?}");
    }
    let (status, error) =
        whole(br#"{"error":{"message":"slow down","type":"rate_limit_error"}}"#).unwrap_err();
    assert_eq!(
        (status, &error["error"]["message"]),
        (429, &json!("slow down"))
    );
    assert_eq!(whole(b"{}").unwrap_err().0, 502);
}

#[test]
fn what_was_used_is_told_in_many_ways() {
    let usage = |usage: Value| {
        let answer = json!({"choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}], "usage": usage});
        let made = whole(answer.to_string().as_bytes()).unwrap();
        let count = |name: &str| made["usage"][name].as_u64().unwrap();
        [
            count("input_tokens"),
            count("cache_read_input_tokens"),
            count("cache_creation_input_tokens"),
            count("output_tokens"),
        ]
    };
    let details = json!({"cached_tokens": 4, "cache_write_tokens": 1});
    for (told, expected) in [
        (
            json!({"prompt_tokens": 10, "completion_tokens": 3, "total_tokens": 13, "prompt_tokens_details": details}),
            [5, 4, 1, 3],
        ),
        (
            json!({"prompt_tokens": 10, "completion_tokens": 3, "prompt_cache_hit_tokens": 4}),
            [6, 4, 0, 3],
        ),
        (
            json!({"prompt_tokens": 10, "completion_tokens": 3, "cached_tokens": 4}),
            [6, 4, 0, 3],
        ),
        (
            json!({"prompt_tokens": 10, "completion_tokens": 3, "total_tokens": 33}),
            [10, 0, 0, 23],
        ),
        (
            json!({"prompt_tokens": 3, "completion_tokens": 3, "cached_tokens": 9}),
            [0, 9, 0, 3],
        ),
        (Value::Null, [0, 0, 0, 0]),
    ] {
        assert_eq!(usage(told.clone()), expected, "{told}");
    }
    let mut last = finish("stop");
    last["choices"][0]["usage"] = json!({"prompt_tokens": 10, "completion_tokens": 3});
    let made = whole(&stream(&[delta(json!({"content": "Hi"})), last], true)).unwrap();
    assert_eq!(made["usage"]["output_tokens"], 3);
    let after = json!({"choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 4}});
    let made = whole(&stream(
        &[delta(json!({"content": "Hi"})), finish("stop"), after],
        true,
    ))
    .unwrap();
    assert_eq!(made["usage"]["output_tokens"], 4);
}

#[test]
fn a_call_that_stands_for_something_else_is_that_again() {
    let answer = stream(
        &[
            call(Some(0), Some("c"), Some("patch"), "{\"in"),
            call(Some(0), None, None, "put\":\"*** \\ud83d"),
            call(Some(0), None, None, "\\ude00\\n\"}"),
            finish("tool_calls"),
        ],
        true,
    );
    let about = About {
        raw: ["patch".to_owned()].into(),
        ..About::default()
    };
    for cut in 0..=answer.len() {
        let mut translation = translation_about(Dialect::Chat, false, about.clone());
        let (first, rest) = answer.split_at(cut);
        let answers = [
            translation.on_body(first, false),
            translation.on_body(rest, true),
        ];
        let whole = answers.into_iter().find_map(|answer| match answer {
            Written::Whole(body) => Some(body),
            _ => None,
        });
        let body = whole.unwrap();
        let made: Value = serde_json::from_slice(&body).unwrap();
        let expected = json!([{"id": "c", "type": "custom", "custom": {"name": "patch", "input": "*** \u{1f600}\n"}}]);
        assert_eq!(made["choices"][0]["message"]["tool_calls"], expected);
    }
    let about = About {
        answer_tool: Some("patch"),
        ..About::default()
    };
    let answer = stream(
        &[
            call(Some(0), Some("c"), Some("patch"), "{\"a\":1}"),
            finish("tool_calls"),
        ],
        true,
    );
    let Written::Whole(body) =
        translation_about(Dialect::Messages, false, about).on_body(&answer, true)
    else {
        panic!("not whole");
    };
    let made: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(
        made["content"],
        json!([{"type": "text", "text": "{\"a\":1}"}])
    );
    assert_eq!(made["stop_reason"], "end_turn");
}

#[test]
fn calls_without_end_or_without_a_name_are_a_failure() {
    let many: Vec<Value> = (0..2_000)
        .map(|number| call(Some(number), Some(&format!("c{number}")), Some("f"), "{}"))
        .collect();
    let nameless = [call(Some(0), Some("c"), None, &"x".repeat(2_000_000))];
    for (chunks, says) in [
        (&many[..], "too many tools"),
        (&nameless[..], "without a name"),
    ] {
        let (status, error) = whole(&stream(chunks, true)).unwrap_err();
        assert_eq!(status, 502);
        let message = error["error"]["message"].as_str().unwrap();
        assert!(message.contains(says), "{message}");
    }
}

/// Only the last call can have been cut. One of which nothing came is not begun; what came of another one has gone on.
#[test]
fn what_the_limit_cut_of_a_call_is_told_as_what_it_is() {
    let begun = |index, id: &str| call(Some(index), Some(id), Some("f"), "");
    let arguments = |index, text: &str| call(Some(index), None, None, text);
    let told = |chunks: &[Value]| {
        let mut told = said(&stream(chunks, true), 0);
        assert_eq!(told.pop().as_deref(), Some("stop"));
        told
    };
    for reason in ["length", "content_filter", "model_context_window_exceeded"] {
        let stop = match reason {
            "length" => "max_tokens",
            "content_filter" => "refusal",
            other => other,
        };
        let cut = [begun(0, "a"), finish(reason)];
        assert_eq!(told(&cut), [format!("{stop:?}")], "{reason}");
        let both = [begun(0, "a"), begun(1, "b"), finish(reason)];
        assert_eq!(told(&both), ["tool_use".to_owned(), format!("{stop:?}")]);
        // Anthropic's own streams have what came of it, too.
        let partly = [begun(0, "a"), arguments(0, "{\"x\":"), finish(reason)];
        let mut translation = translation(Dialect::Messages, true);
        let Written::Stream(bytes) = translation.on_body(&stream(&partly, true), true) else {
            panic!("a stream");
        };
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.contains(r#""partial_json":"{\"x\":""#), "{text}");
        assert!(
            text.contains(&format!("\"stop_reason\":\"{stop}\"")),
            "{text}"
        );
    }
    let good = [
        begun(0, "a"),
        begun(1, "b"),
        arguments(1, "{}"),
        finish("tool_calls"),
    ];
    let all = told(&good);
    assert_eq!(all.len(), 3, "{all:?}");
    let none = [begun(0, "a"), finish("tool_calls")];
    assert_eq!(told(&none).len(), 2);
    let body = |arguments: &str, reason: &str| {
        let call = json!({"id": "a", "type": "function", "function": {"name": "f", "arguments": arguments}});
        let choice =
            json!({"index": 0, "finish_reason": reason, "message": {"tool_calls": [call]}});
        let answer = json!({"id": "x", "model": "m", "choices": [choice]}).to_string();
        whole(answer.as_bytes()).unwrap()["content"]
            .as_array()
            .unwrap()
            .len()
    };
    assert_eq!(body("{\"x\":", "content_filter"), 0);
    assert_eq!(body("", "length"), 0);
    assert_eq!(body("{}", "length"), 1);
    assert_eq!(body("3", "tool_calls"), 1);
}
