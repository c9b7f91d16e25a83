//! Requests for platforms that speak `messages`, and their answers.

use serde_json::{Value, json};

use super::*;

/// A model that thinks as much as it likes, and one that thinks within a budget.
fn adaptive() -> Value {
    json!({
        "max_output": 128_000, "thinking": "adaptive", "efforts": ["none", "low", "medium", "high", "max"],
        "refuses": ["temperature", "top_p", "top_k"], "strict": true,
    })
}

fn budget() -> Value {
    json!({
        "max_output": 64000, "thinking": "budget", "one_sampler": true, "schema": "tool",
        "efforts": ["none", "minimal", "low", "medium", "high", "xhigh", "max"],
    })
}

fn to_messages(body: &Value, accent: &Value) -> Result<(Value, TranslatedRequest), Refused> {
    let accent = Accent::parse(accent.as_object().unwrap().clone()).unwrap();
    let target = Target {
        model: Text::of("m"),
        accent: &accent,
        ..target()
    };
    let body = body.to_string();
    let made = Dialect::Chat.translate_request(Dialect::Messages, body.as_bytes(), &target, 0)?;
    Ok((serde_json::from_slice(&made.body).unwrap(), made))
}

fn call(id: &str, arguments: &str) -> Value {
    json!({"id": id, "type": "function", "function": {"name": "f", "arguments": arguments}})
}

fn hi() -> Value {
    json!([{"role": "user", "content": "hi"}])
}

#[test]
fn turns_take_turns_and_results_come_first() {
    let chat = json!({
        "stream": true, "user": "u", "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "system", "content": " "},
            {"role": "user", "content": [
                {"type": "text", "text": "look"},
                {"type": "image_url", "image_url": {"url": "data:image/jpg;base64,QUJD"}},
                {"type": "image_url", "image_url": {"url": "https://a.example/x.png"}},
                {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,QUJD"}},
            ]},
            {"role": "user", "content": "there"},
            {"role": "assistant", "content": " ", "tool_calls": [
                call("f:0", "{\"a\": 1}"), call("c2", "[1]"), call("c3", "{\"a"), call("c4", ""),
            ]},
            {"role": "system", "content": "mind"},
            {"role": "tool", "tool_call_id": "c2", "content": "2"},
            {"role": "tool", "tool_call_id": "f:0", "content": "1"},
            {"role": "user", "content": "go on"},
            {"role": "assistant", "content": "So \n"},
        ],
        "tools": [
            {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"z": 1, "a": 2}, "strict": true}},
            {"type": "function", "function": {"name": "g"}},
        ],
        "tool_choice": "required", "parallel_tool_calls": false, "max_completion_tokens": 99,
    });
    let (made, all) = to_messages(&chat, &adaptive()).unwrap();
    let odd = names::fitting(&Text::of("f:0")).plain().into_owned();
    let text = |text: &str| json!({"type": "text", "text": text});
    let tool_use =
        |id: &str, input: Value| json!({"type": "tool_use", "id": id, "name": "f", "input": input});
    let result = |id: &str, said: &str| json!({"type": "tool_result", "tool_use_id": id, "content": [text(said)]});
    let lost = |id: &str| {
        json!({
            "type": "tool_result", "tool_use_id": id, "is_error": true,
            "content": "The call was interrupted: it has no result.",
        })
    };
    let expected = json!({
        "model": "m", "max_tokens": 99, "stream": true, "system": [text("be brief")],
        "messages": [
            {"role": "user", "content": [
                text("look"),
                {"type": "image", "source": {"type": "base64", "media_type": "image/jpeg", "data": "QUJD"}},
                {"type": "image", "source": {"type": "url", "url": "https://a.example/x.png"}},
                {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "QUJD"}, "title": "a.pdf"},
                text("there"),
            ]},
            {"role": "assistant", "content": [
                tool_use(&odd, json!({"a": 1})), tool_use("c2", json!({"input": "[1]"})),
                tool_use("c3", json!({"input": "{\"a"})), tool_use("c4", json!({})),
            ]},
            {"role": "user", "content": [
                result(&odd, "1"), result("c2", "2"), lost("c3"), lost("c4"),
                text("<system-reminder>\nmind\n</system-reminder>"), text("go on"),
            ]},
            {"role": "assistant", "content": [text("So")]},
        ],
        "tools": [
            {"name": "f", "description": "d", "input_schema": {"z": 1, "a": 2}, "strict": true},
            {"name": "g", "input_schema": {"type": "object", "properties": {}}},
        ],
        "tool_choice": {"type": "any", "disable_parallel_tool_use": true}, "metadata": {"user_id": "u"},
    });
    assert_eq!(made, expected);
    assert_eq!(all.left_out, [""; 0]);
}

#[test]
fn what_is_only_of_the_system_is_the_users() {
    let chat = json!({"messages": [{"role": "system", "content": "be brief"}]});
    let (made, _) = to_messages(&chat, &json!({})).unwrap();
    let content = json!([{"type": "text", "text": "be brief"}]);
    assert_eq!(
        made["messages"],
        json!([{"role": "user", "content": content}])
    );
    assert_eq!(
        (&made["system"], &made["max_tokens"]),
        (&Value::Null, &json!(8192))
    );
}

#[test]
fn tools_that_are_not_told_any_more_are_made_up() {
    let chat = json!({"messages": [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "tool_calls": [call("c", "{}"), call("d", "{}")]},
        {"role": "tool", "tool_call_id": "c", "content": "1"},
        {"role": "tool", "tool_call_id": "d", "content": "2"},
    ]});
    let (made, _) = to_messages(&chat, &json!({})).unwrap();
    let stub = json!([{"name": "f", "input_schema": {"type": "object", "properties": {}}}]);
    assert_eq!(made["tools"], stub);
}

#[test]
fn a_model_thinks_in_the_form_that_it_has() {
    let made = |more: Value, accent: &Value| {
        let mut chat = json!({"messages": hi(), "temperature": 1.5, "top_p": 0.5, "top_k": 3});
        chat.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        to_messages(&chat, accent).unwrap()
    };
    let word = |word: &str| json!({"reasoning_effort": word});
    let all_numbers = vec!["temperature", "top_k", "top_p"];
    for (more, accent, thinking, effort, bound, left_out) in [
        (
            json!({}),
            adaptive(),
            Value::Null,
            Value::Null,
            128_000,
            all_numbers.clone(),
        ),
        (
            word("xhigh"),
            adaptive(),
            json!({"type": "adaptive", "display": "summarized"}),
            json!("high"),
            128_000,
            all_numbers.clone(),
        ),
        (
            word("minimal"),
            adaptive(),
            json!({"type": "adaptive", "display": "summarized"}),
            json!("low"),
            128_000,
            all_numbers.clone(),
        ),
        (
            word("none"),
            adaptive(),
            json!({"type": "disabled"}),
            Value::Null,
            128_000,
            all_numbers.clone(),
        ),
        (
            word("medium"),
            budget(),
            json!({"type": "enabled", "budget_tokens": 8192}),
            Value::Null,
            64000,
            all_numbers.clone(),
        ),
        (
            word("max"),
            budget(),
            json!({"type": "enabled", "budget_tokens": 63999}),
            Value::Null,
            64000,
            all_numbers.clone(),
        ),
        (
            json!({"reasoning_effort": "high", "max_tokens": 100}),
            budget(),
            json!({"type": "enabled", "budget_tokens": 16384}),
            Value::Null,
            16484,
            all_numbers.clone(),
        ),
        (
            word("none"),
            budget(),
            Value::Null,
            Value::Null,
            64000,
            vec!["top_p"],
        ),
        (
            word("high"),
            json!({"max_output": 4096}),
            Value::Null,
            Value::Null,
            4096,
            vec!["reasoning_effort"],
        ),
        (
            json!({"max_tokens": 9999}),
            json!({"max_output": 4096}),
            Value::Null,
            Value::Null,
            4096,
            vec![],
        ),
    ] {
        let (made, all) = made(more.clone(), &accent);
        assert_eq!(made["thinking"], thinking, "{more} {accent}");
        assert_eq!(made["output_config"]["effort"], effort, "{more} {accent}");
        assert_eq!(made["max_tokens"], bound, "{more} {accent}");
        assert_eq!(all.left_out, left_out, "{more} {accent}");
        let temperature = if left_out.contains(&"temperature") {
            Value::Null
        } else {
            json!(1)
        };
        assert_eq!(made["temperature"], temperature, "{more} {accent}");
    }
}

/// With thoughts that are lost a model of a budget may not think on; and no old one that has to call a tool.
#[test]
fn a_model_does_not_think_where_it_may_not() {
    let turns = json!([
        {"role": "user", "content": "hi"},
        {"role": "assistant", "tool_calls": [call("c", "{}")]},
        {"role": "tool", "tool_call_id": "c", "content": "1"},
    ]);
    let tools = json!([{"type": "function", "function": {"name": "f"}}]);
    for (messages, choice, accent, thinks) in [
        (&turns, "auto", budget(), false),
        (&turns, "auto", adaptive(), true),
        (&hi(), "auto", budget(), true),
        (&hi(), "required", budget(), false),
        (&hi(), "required", adaptive(), false),
        (
            &hi(),
            "required",
            json!({"thinking": "adaptive", "efforts": ["high"], "forced_with_thinking": true}),
            true,
        ),
    ] {
        let chat = json!({"messages": messages, "tools": tools, "tool_choice": choice, "reasoning_effort": "high"});
        let (made, all) = to_messages(&chat, &accent).unwrap();
        assert_eq!(made["thinking"].is_object(), thinks, "{chat} {accent}");
        assert_eq!(all.left_out.contains(&"reasoning_effort"), !thinks);
    }
}

#[test]
fn what_was_thought_goes_back_to_the_platform_that_made_it() {
    let sealed = |maker: &str, owner: &str, payload: &str| names::envelope(maker, owner, payload);
    let thinking = |text: &str, signature: String| json!({"type": "thinking", "thinking": text, "signature": signature});
    let body = json!({"max_tokens": 9, "messages": [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": [
            thinking("hm \u{e9}", sealed("messages", "1f", "s.EqQB/+=")),
            {"type": "redacted_thinking", "data": sealed("messages", "1f", "Zm9v")},
            thinking("x", sealed("messages", "2f", "s.EqQC")),
            thinking("x", sealed("responses", "1f", "gAAA")),
            thinking("x", String::new()),
            {"type": "text", "text": "Hi"},
        ]},
        {"role": "user", "content": "go on"},
    ]});
    let body = body.to_string();
    let made = Dialect::Messages
        .translate_request(Dialect::Messages, body.as_bytes(), &target(), 0)
        .unwrap();
    let made: Value = serde_json::from_slice(&made.body).unwrap();
    let expected = json!([
        {"type": "thinking", "thinking": "hm \u{e9}", "signature": "EqQB/+="},
        {"type": "redacted_thinking", "data": "Zm9v"},
        {"type": "text", "text": "Hi"},
    ]);
    assert_eq!(made["messages"][1]["content"], expected);
}

#[test]
fn a_schema_is_a_form_or_a_tool_that_must_be_called() {
    let schema = json!({"type": "object", "properties": {"a": {"type": "integer", "minimum": 1}}});
    let format = json!({"type": "json_schema", "json_schema": {"name": "n", "schema": schema}});
    let chat = json!({"messages": hi(), "response_format": format});
    let (made, _) = to_messages(&chat, &adaptive()).unwrap();
    let reduced = json!({
        "type": "object", "additionalProperties": false,
        "properties": {"a": {"type": "integer", "description": "(minimum: 1)"}},
    });
    assert_eq!(
        made["output_config"]["format"],
        json!({"type": "json_schema", "schema": reduced})
    );
    let (made, all) = to_messages(&chat, &budget()).unwrap();
    assert_eq!(made["tools"][0]["input_schema"], schema);
    assert_eq!(
        made["tool_choice"],
        json!({"type": "tool", "name": "structured_output"})
    );
    assert_eq!(all.about.answer_tool, Some("structured_output"));
    let mut with_tools = chat.clone();
    with_tools["tools"] = json!([{"type": "function", "function": {"name": "f"}}]);
    assert_eq!(
        to_messages(&with_tools, &budget()).unwrap_err().path,
        "response_format"
    );
    let (made, all) = to_messages(&chat, &json!({"schema": "none"})).unwrap();
    assert!(
        made["system"][0]["text"]
            .as_str()
            .unwrap()
            .contains("JSON Schema")
    );
    assert_eq!(all.left_out, ["response_format"]);
    let json_alone = json!({"messages": hi(), "response_format": {"type": "json_object"}});
    assert_eq!(
        to_messages(&json_alone, &adaptive()).unwrap().1.left_out,
        ["response_format"]
    );
}

fn event(data: &Value) -> String {
    format!(
        "event: {}\ndata: {data}\n\n",
        data["type"].as_str().unwrap()
    )
}

/// An answer with thinking, text and two calls, and a block of a tool of the platform's own.
fn answer_of_claude() -> Vec<u8> {
    let start = |index: u64, block: Value| json!({"type": "content_block_start", "index": index, "content_block": block});
    let delta = |index: u64, kind: &str, name: &str, text: &str| json!({"type": "content_block_delta", "index": index, "delta": {"type": kind, name: text}});
    let stop = |index: u64| json!({"type": "content_block_stop", "index": index});
    let usage = json!({"input_tokens": 34, "output_tokens": 1});
    let last = json!({"input_tokens": 3, "cache_read_input_tokens": 30, "cache_creation_input_tokens": 1, "output_tokens": 9});
    [
        json!({"type": "message_start", "message": {"id": "msg_1", "model": "claude", "content": [], "usage": usage}}),
        json!({"type": "ping"}),
        start(0, json!({"type": "thinking", "thinking": "", "signature": ""})),
        delta(0, "thinking_delta", "thinking", "hm"),
        delta(0, "signature_delta", "signature", "EqQB"),
        stop(0),
        start(1, json!({"type": "redacted_thinking", "data": "Zm9v"})),
        stop(1),
        start(2, json!({"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}})),
        delta(2, "input_json_delta", "partial_json", "{}"),
        stop(2),
        start(3, json!({"type": "text", "text": ""})),
        delta(3, "text_delta", "text", "Hi \u{1f600}"),
        stop(3),
        json!({"type": "message_start", "message": {"id": "msg_2"}}),
        start(4, json!({"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}})),
        delta(4, "input_json_delta", "partial_json", ""),
        delta(4, "input_json_delta", "partial_json", "{\"a\""),
        delta(4, "input_json_delta", "partial_json", ":1}"),
        stop(4),
        start(5, json!({"type": "tool_use", "id": "toolu_2", "name": "f", "input": {"b": 2}})),
        json!({"type": "message_delta", "delta": {"stop_reason": "tool_use", "stop_sequence": null}, "usage": last}),
        json!({"type": "message_stop"}),
    ]
    .iter()
    .map(event)
    .collect::<String>()
    .into_bytes()
}

fn translation_to_chat(as_stream: bool) -> AnswerTranslation {
    let renamed = BTreeMap::from([("f".to_owned(), "own/f".to_owned())]);
    let about = About {
        wants_usage: true,
        ..About::default()
    };
    AnswerTranslation::new(
        Dialect::Messages,
        Dialect::Chat,
        as_stream,
        about,
        "1f",
        renamed,
    )
    .unwrap()
}

fn chat_of(answer: &[u8]) -> Result<Value, u16> {
    match translation_to_chat(false).on_body(answer, true) {
        Written::Whole(body) => Ok(serde_json::from_slice(&body).unwrap()),
        Written::Failed(status, _) => Err(status),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_answer_of_claude_becomes_a_chat() {
    let call = |id: &str, arguments: &str| json!({"id": id, "type": "function", "function": {"name": "own/f", "arguments": arguments}});
    let message = json!({
        "role": "assistant", "content": "Hi \u{1f600}", "refusal": null, "reasoning_content": "hm",
        "tool_calls": [call("toolu_1", "{\"a\":1}"), call("toolu_2", "{\"b\":2}")],
    });
    let made = chat_of(&answer_of_claude()).unwrap();
    assert_eq!(made["choices"][0]["message"], message);
    assert_eq!(made["choices"][0]["finish_reason"], "tool_calls");
    assert_eq!(made["id"], "chatcmpl-1");
    assert_eq!(made["usage"]["prompt_tokens"], 34);
    assert_eq!(
        made["usage"]["prompt_tokens_details"],
        json!({"cached_tokens": 30, "cache_write_tokens": 1})
    );
    let whole = json!({
        "id": "msg_1", "type": "message", "model": "claude", "role": "assistant", "stop_reason": "tool_use",
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": "EqQB"},
            {"type": "text", "text": "Hi \u{1f600}"},
            {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": 1}},
            {"type": "tool_use", "id": "toolu_2", "name": "f", "input": {"b": 2}},
        ],
        "usage": {"input_tokens": 3, "cache_read_input_tokens": 30, "cache_creation_input_tokens": 1, "output_tokens": 9},
    });
    assert_eq!(chat_of(whole.to_string().as_bytes()).unwrap(), made);
}

#[test]
fn a_stream_of_claude_is_the_same_wherever_it_is_cut() {
    let answer = answer_of_claude();
    let streamed = |pieces: &[&[u8]]| {
        let mut translation = translation_to_chat(true);
        let mut all = Vec::new();
        for (number, piece) in pieces.iter().enumerate() {
            match translation.on_body(piece, number + 1 == pieces.len()) {
                Written::Stream(bytes) => all.extend(bytes),
                other => panic!("{other:?}"),
            }
        }
        String::from_utf8(all).unwrap()
    };
    let expected = streamed(&[&answer]);
    let said = said_in_chat(&expected);
    let calls = [("toolu_1", "{\"a\":1}"), ("toolu_2", "{\"b\":2}")];
    let calls: Vec<_> = calls
        .iter()
        .map(|(id, arguments)| format!("own/f {id} {arguments}"))
        .collect();
    assert_eq!(
        (
            said.content.as_str(),
            said.reasoning.as_str(),
            said.finish.as_str()
        ),
        ("Hi \u{1f600}", "hm", "tool_calls")
    );
    assert_eq!(said.calls, calls);
    for cut in 0..answer.len() {
        let (first, rest) = answer.split_at(cut);
        assert_eq!(streamed(&[first, rest]), expected, "{cut}");
    }
    let stop = answer
        .windows(19)
        .rposition(|window| window == b"event: message_stop")
        .unwrap();
    for cut in 0..stop {
        let stream = streamed(&[&answer[..cut]]);
        assert!(
            stream.contains("\"error\"") && !stream.contains("[DONE]"),
            "{cut}: {stream}"
        );
        assert_eq!(chat_of(&answer[..cut]), Err(502));
    }
}

#[test]
fn ends_of_claude_are_those_of_a_chat() {
    let ends = |reason: Value, content: Value| {
        let mut whole = json!({"id": "msg_1", "type": "message", "model": "m", "content": content});
        whole
            .as_object_mut()
            .unwrap()
            .extend(reason.as_object().unwrap().clone());
        let made = chat_of(whole.to_string().as_bytes()).unwrap();
        made["choices"][0]["finish_reason"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let text = json!([{"type": "text", "text": "Hi"}]);
    for (reason, content, expected) in [
        (json!({"stop_reason": "end_turn"}), &text, "stop"),
        (
            json!({"stop_reason": "stop_sequence", "stop_sequence": "x"}),
            &text,
            "stop",
        ),
        (json!({"stop_reason": "max_tokens"}), &text, "length"),
        (
            json!({"stop_reason": "model_context_window_exceeded"}),
            &text,
            "length",
        ),
        (json!({"stop_reason": "pause_turn"}), &text, "length"),
        (
            json!({"stop_reason": "refusal", "stop_details": {"type": "refusal"}}),
            &json!([]),
            "content_filter",
        ),
    ] {
        assert_eq!(ends(reason.clone(), content.clone()), expected, "{reason}");
    }
    let error = json!({"type": "error", "error": {"type": "overloaded_error", "message": "busy"}});
    assert_eq!(chat_of(error.to_string().as_bytes()), Err(503));
    assert_eq!(chat_of(event(&error).as_bytes()), Err(503));
    assert_eq!(chat_of(b"{}"), Err(502));
}

/// A path of the caller's, or what is at hand there, is no platform's to read.
#[test]
fn an_image_of_messages_has_a_web_address() {
    let refused = |kind: &str, url: &str| {
        let source = format!(r#"{{"type":"url","url":{url}}}"#);
        let body = format!(
            r#"{{"max_tokens":9,"messages":[{{"role":"user","content":[{{"type":"{kind}","source":{source}}}]}}]}}"#
        );
        let all = [Dialect::Chat, Dialect::Responses, Dialect::Gemini].map(|platform| {
            let made = Dialect::Messages.translate_request(platform, body.as_bytes(), &target(), 0);
            made.err()
                .map(|refused| format!("{}: {}", refused.path, refused.why))
        });
        all.into_iter().min().flatten()
    };
    for kind in ["image", "document"] {
        for url in ["https://x.test/a.png", r"http:\/\/x.test\/a.png"] {
            let said = refused(kind, &format!("\"{url}\"")).unwrap_or_default();
            assert!(!said.contains("expected"), "{url}: {said}");
        }
        for url in [
            "file:///etc/passwd",
            "data:image/png;base64,QUJD",
            "/a.png",
            "",
        ] {
            let said = refused(kind, &format!("\"{url}\"")).unwrap();
            assert_eq!(
                said,
                "messages[0].content[0].source.url: expected a web address"
            );
        }
        let said = refused(kind, "7").unwrap();
        assert_eq!(
            said,
            "messages[0].content[0].source.url: expected a string, found a number"
        );
    }
}

/// PHP writes each slash of JSON as `\/`, and the names of media types know no case.
#[test]
fn an_image_is_one_however_its_type_is_written() {
    let made = |url: &str| {
        let body = format!(
            r#"{{"messages":[{{"role":"user","content":[{{"type":"image_url","image_url":{{"url":"{url}"}}}}]}}]}}"#
        );
        let accent = Accent::default();
        let target = Target {
            model: Text::of("m"),
            accent: &accent,
            ..target()
        };
        let made = Dialect::Chat.translate_request(Dialect::Messages, body.as_bytes(), &target, 0);
        let body: Value = serde_json::from_slice(&made.ok()?.body).unwrap();
        let source = &body["messages"][0]["content"][0]["source"];
        Some(source["media_type"].as_str().unwrap().to_owned())
    };
    for (url, expected) in [
        (r"data:image\/png;base64,QUJD", Some("image/png")),
        ("data:IMAGE/PNG;base64,QUJD", Some("IMAGE/PNG")),
        (r"data:image\/jpg;base64,QUJD", Some("image/jpeg")),
        (r"data:text\/plain;base64,QUJD", None),
    ] {
        assert_eq!(made(url).as_deref(), expected, "{url}");
    }
}
