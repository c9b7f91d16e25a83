mod bounds;
mod chat_answers;
mod chat_requests;
mod dear;
mod envelope;
mod ernie;
mod gemini;
mod gemini_platform;
mod laws;
mod messages_platform;
mod responses;
mod table;

use serde_json::{Value, json};

use super::*;
use crate::dialect::{
    accent::Accent,
    grammar::{self, said_in_chat, said_in_messages},
};
use crate::text::tree::Text;

pub(crate) fn target() -> Target<'static> {
    Target {
        model: Text::of("gpt-5.6"),
        refuses: &[],
        accent: accent(),
        streams_only: false,
        asks_usage: false,
        owner: "1f",
        demands: crate::dialect::Demands::default(),
        asked_at: "",
    }
}

/// An accent that says nothing.
fn accent() -> &'static Accent {
    static NONE: std::sync::LazyLock<Accent> = std::sync::LazyLock::new(Accent::default);
    &NONE
}

/// The request that a chat becomes, and what is left out.
fn request(chat: &Value, target: &Target<'_>) -> (Value, Vec<&'static str>) {
    let text = chat.to_string();
    let made = Dialect::Chat.translate_request(Dialect::Responses, text.as_bytes(), target, 0);
    let made = made.unwrap();
    (serde_json::from_slice(&made.body).unwrap(), made.left_out)
}

/// The error of a chat that is not translated.
fn refused(chat: &Value) -> String {
    let text = chat.to_string();
    let made = Dialect::Chat.translate_request(Dialect::Responses, text.as_bytes(), &target(), 0);
    let refused = made.unwrap_err();
    format!("{}: {}", refused.path, refused.why)
}

#[test]
fn a_chat_with_tools_becomes_a_response() {
    let chat = json!({
        "model": "x", "stream": true, "seed": 1, "temperature": 0.5, "reasoning_effort": "low",
        "messages": [
            {"role": "system", "content": "be \u{1f600} brief"},
            {"role": "user", "content": [
                {"type": "text", "text": "look \"here\""},
                {"type": "image_url", "image_url": {"url": "data:image/jpg;name=a;base64,QUJD"}},
            ]},
            {"role": "assistant", "content": null, "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{\"a\":1}"}},
            ]},
            {"role": "tool", "tool_call_id": "c1", "content": [
                {"type": "text", "text": "1"}, {"type": "text", "text": "2"},
            ]},
        ],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"z": 1, "a": 2}}}],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
    });
    let (made, left_out) = request(&chat, &target());
    assert_eq!(left_out, ["seed"]);
    let expected = json!({
        "model": "gpt-5.6", "stream": true, "store": false, "instructions": "be \u{1f600} brief",
        "input": [
            {"type": "message", "role": "user", "content": [
                {"type": "input_text", "text": "look \"here\""},
                {"type": "input_image", "image_url": "data:image/jpeg;base64,QUJD", "detail": "auto"},
            ]},
            {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{\"a\":1}"},
            {"type": "function_call_output", "call_id": "c1", "output": "1\n2"},
        ],
        "tools": [
            {"type": "function", "name": "f", "parameters": {"z": 1, "a": 2}, "strict": false},
        ],
        "tool_choice": {"type": "function", "name": "f"},
        "temperature": 0.5, "reasoning": {"effort": "low", "summary": "auto"},
        "include": ["reasoning.encrypted_content"],
    });
    assert_eq!(made, expected);
}

/// The request that a message becomes.
fn of_messages(messages: &Value) -> (Value, TranslatedRequest) {
    let text = messages.to_string();
    let made =
        Dialect::Messages.translate_request(Dialect::Responses, text.as_bytes(), &target(), 0);
    let made = made.unwrap();
    (serde_json::from_slice(&made.body).unwrap(), made)
}

#[test]
fn what_claude_code_sends_becomes_a_response() {
    let long = format!("mcp__{}__tool", "s".repeat(80));
    let own = names::envelope("responses", "1f", "gAAA");
    let other = names::envelope("responses", "2f", "gBBB");
    let (made, all) = of_messages(&json!({
        "model": "gpt-5.6", "max_tokens": 32000, "stream": true, "top_k": 3,
        "metadata": {"user_id": "x".repeat(120)},
        "system": [{"type": "text", "text": "You are"}, {"type": "text", "text": "brief", "cache_control": {"type": "ephemeral"}}],
        "thinking": {"type": "enabled", "budget_tokens": 8000},
        "tools": [
            {"name": long, "description": "d", "input_schema": {"type": "object"}},
            {"type": "web_search_20250305", "name": "web_search"},
        ],
        "tool_choice": {"type": "auto", "disable_parallel_tool_use": true},
        "messages": [
            {"role": "user", "content": [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "QUJD"}}, {"type": "text", "text": "hi"}]},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "hm", "signature": own},
                {"type": "thinking", "thinking": "hm", "signature": other},
                {"type": "thinking", "thinking": "hm", "signature": "EqQB"},
                {"type": "text", "text": "I call"},
                {"type": "tool_use", "id": "toolu_1", "name": long, "input": {"b": 1, "a": [2]}},
            ]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "toolu_1", "is_error": true, "content": [{"type": "text", "text": "no"}]},
                {"type": "text", "text": "go on"},
            ]},
        ],
    }));
    assert_eq!(all.left_out, ["tools", "top_k"]);
    let short = names::fitting(&Text::of(&long)).plain().into_owned();
    assert_eq!(all.renamed[&short], long);
    assert_eq!(made["instructions"], "You are\n\nbrief");
    assert_eq!(
        made["reasoning"],
        json!({"effort": "medium", "summary": "auto"})
    );
    assert_eq!(
        (&made["max_output_tokens"], &made["parallel_tool_calls"]),
        (&json!(32000), &json!(false))
    );
    assert!(made["safety_identifier"].as_str().unwrap().len() <= 64);
    let expected = json!([
        {"type": "message", "role": "user", "content": [
            {"type": "input_image", "image_url": "data:image/png;base64,QUJD", "detail": "auto"},
            {"type": "input_text", "text": "hi"},
        ]},
        {"type": "reasoning", "summary": [], "encrypted_content": "gAAA"},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I call"}]},
        {"type": "function_call", "call_id": "toolu_1", "name": short, "arguments": "{\"a\":[2],\"b\":1}"},
        {"type": "function_call_output", "call_id": "toolu_1", "output": "no"},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "go on"}]},
    ]);
    assert_eq!(made["input"], expected);
}

/// An answer of `responses` with reasoning, a text and two calls, as events.
fn answer() -> Vec<u8> {
    let item = |number: u64, kind: &str, item: Value| json!({"type": format!("response.output_item.{kind}"), "output_index": number, "item": item});
    let call = |id: &str, arguments: &str| json!({"type": "function_call", "call_id": id, "name": "f", "arguments": arguments});
    let summary = |part: u64, text: &str| json!({"type": "response.reasoning_summary_text.delta", "output_index": 0, "summary_index": part, "delta": text});
    let text = json!({"type": "response.output_text.delta", "output_index": 1, "content_index": 0, "delta": "Hi \u{1f600}"});
    let arguments = |number: u64, text: &str| json!({"type": "response.function_call_arguments.delta", "output_index": number, "delta": text});
    let usage = json!({"input_tokens": 10, "input_tokens_details": {"cached_tokens": 4}, "output_tokens": 3});
    let events = [
        json!({"type": "response.created", "response": {"id": "resp_1", "model": "gpt-5.6", "status": "in_progress"}}),
        item(0, "added", json!({"type": "reasoning", "id": "rs"})),
        summary(0, "a"),
        summary(1, "b"),
        item(
            0,
            "done",
            json!({"type": "reasoning", "summary": [{"text": "a"}, {"text": "b"}], "encrypted_content": "gAAA"}),
        ),
        item(1, "added", json!({"type": "message"})),
        text,
        item(
            1,
            "done",
            json!({"type": "message", "content": [{"type": "output_text", "text": "Hi \u{1f600}"}]}),
        ),
        item(2, "added", call("c1", "")),
        item(3, "added", call("c2", "")),
        arguments(3, "{\"b\""),
        arguments(2, "{\"a\":1}"),
        arguments(3, ":2}"),
        item(3, "done", call("c2", "{\"b\":2}")),
        item(2, "done", call("c1", "{\"a\":1}")),
        json!({"type": "response.completed", "response": {"id": "resp_1", "status": "completed", "output": [], "usage": usage}}),
    ];
    let events = events.iter().map(|event| {
        format!(
            "event: {}\ndata: {event}\n\n",
            event["type"].as_str().unwrap()
        )
    });
    events.collect::<String>().into_bytes()
}

fn translation(caller: Dialect, as_stream: bool) -> AnswerTranslation {
    let renamed = BTreeMap::from([("f".to_owned(), "own/f".to_owned())]);
    AnswerTranslation::new(
        Dialect::Responses,
        caller,
        as_stream,
        About::default(),
        "1f",
        renamed,
    )
    .unwrap()
}

/// The stream that a caller gets of these pieces.
fn streamed(caller: Dialect, pieces: &[&[u8]]) -> String {
    let mut translation = translation(caller, true);
    let mut all = Vec::new();
    for (number, piece) in pieces.iter().enumerate() {
        match translation.on_body(piece, number + 1 == pieces.len()) {
            Written::Stream(bytes) => all.extend(bytes),
            other => panic!("{other:?}"),
        }
    }
    String::from_utf8(all).unwrap()
}

fn whole(caller: Dialect) -> Value {
    match translation(caller, false).on_body(&answer(), true) {
        Written::Whole(body) => serde_json::from_slice(&body).unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_answer_becomes_a_whole_chat() {
    let call = |id: &str, arguments: &str| json!({"id": id, "type": "function", "function": {"name": "own/f", "arguments": arguments}});
    let message = json!({
        "role": "assistant", "content": "Hi \u{1f600}", "refusal": null, "reasoning_content": "a\n\nb",
        "tool_calls": [call("c1", "{\"a\":1}"), call("c2", "{\"b\":2}")],
    });
    let usage = json!({
        "prompt_tokens": 10, "completion_tokens": 3, "total_tokens": 13,
        "prompt_tokens_details": {"cached_tokens": 4}, "completion_tokens_details": {"reasoning_tokens": 0},
    });
    let expected = json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 0, "model": "gpt-5.6",
        "choices": [{"index": 0, "message": message, "logprobs": null, "finish_reason": "tool_calls"}], "usage": usage,
    });
    assert_eq!(whole(Dialect::Chat), expected);
}

#[test]
fn an_answer_becomes_a_whole_message() {
    let expected = json!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": "gpt-5.6",
        "content": [
            {"type": "thinking", "thinking": "a\n\nb", "signature": "lk1.responses.1f.gAAA"},
            {"type": "text", "text": "Hi \u{1f600}"},
            {"type": "tool_use", "id": "c1", "name": "own/f", "input": {"a": 1}},
            {"type": "tool_use", "id": "c2", "name": "own/f", "input": {"b": 2}},
        ],
        "stop_reason": "tool_use", "stop_sequence": null,
        "usage": {"input_tokens": 6, "cache_read_input_tokens": 4, "cache_creation_input_tokens": 0, "output_tokens": 3},
    });
    assert_eq!(whole(Dialect::Messages), expected);
}

#[test]
fn a_stream_of_messages_has_one_block_open_at_a_time() {
    let answer = answer();
    let expected = [
        "thinking a \n\nb lk1.responses.1f.gAAA",
        "text Hi \u{1f600}",
        "tool_use {\"a\":1}",
        "tool_use {\"b\":2}",
        "\"tool_use\"",
        "stop",
    ];
    for cut in 0..answer.len() {
        let (first, rest) = answer.split_at(cut);
        let stream = streamed(Dialect::Messages, &[first, rest]);
        assert_eq!(said_in_messages(&stream), expected, "{cut}");
    }
}

#[test]
fn a_stream_of_chat_is_the_same_wherever_the_answer_is_cut() {
    let answer = answer();
    let expected = streamed(Dialect::Chat, &[&answer]);
    for cut in 0..answer.len() {
        let (first, rest) = answer.split_at(cut);
        assert_eq!(streamed(Dialect::Chat, &[first, rest]), expected, "{cut}");
    }
    assert!(expected.ends_with("data: [DONE]\n\n"));
    assert_eq!(expected.matches("\"role\"").count(), 1);
    assert_eq!(expected.matches("own/f").count(), 2);
}

#[test]
fn what_breaks_off_is_never_a_good_end() {
    let answer = answer();
    let end = answer
        .windows(25)
        .rposition(|window| window == b"event: response.completed")
        .unwrap();
    for cut in 0..end {
        for caller in [Dialect::Chat, Dialect::Messages, Dialect::Responses] {
            let stream = streamed(caller, &[&answer[..cut]]);
            assert!(stream.contains("\"error\""), "{cut}: {stream}");
            let ends = ["[DONE]", "message_stop", "event: response.completed"];
            assert!(!ends.iter().any(|end| stream.contains(end)), "{cut}");
            let whole = translation(caller, false).on_body(&answer[..cut], true);
            assert!(matches!(whole, Written::Failed(502, _)), "{cut}: {whole:?}");
        }
    }
}

#[test]
fn a_member_that_is_wrong_is_named() {
    let user = |content: Value| json!({"messages": [{"role": "user", "content": content}]});
    for (chat, says) in [
        (json!({}), ": messages is missing"),
        (
            json!({"messages": {}}),
            "messages: expected a list, found an object",
        ),
        (json!({"messages": [{}]}), "messages[0]: role is missing"),
        (
            json!({"messages": [{"role": "robot"}]}),
            "messages[0].role: expected system",
        ),
        (
            user(json!([{"text": "x"}])),
            "messages[0].content[0]: type is missing",
        ),
        (
            user(json!([{"type": "video"}])),
            "messages[0].content[0].type: this kind",
        ),
        (
            json!({"messages": [], "max_tokens": "9"}),
            "max_tokens: expected a whole number, found a string",
        ),
        (
            json!({"messages": [], "modalities": ["text", "audio"]}),
            "modalities[1]: an answer",
        ),
    ] {
        let refused = refused(&chat);
        assert!(refused.starts_with(says), "{refused}");
    }
}

#[test]
fn a_platform_that_refuses_a_member_does_not_get_it() {
    let refuses = ["temperature", "max_output_tokens"].map(str::to_owned);
    let target = Target {
        refuses: &refuses,
        streams_only: true,
        ..target()
    };
    let chat =
        json!({"temperature": 1, "top_p": 0.5, "max_tokens": 3, "stop": "x", "messages": []});
    let (made, left_out) = request(&chat, &target);
    assert_eq!(left_out, ["max_tokens", "stop", "temperature"]);
    assert_eq!(
        (&made["temperature"], &made["max_output_tokens"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(
        (&made["top_p"], &made["stream"]),
        (&json!(0.5), &json!(true))
    );
}

/// A caller's many tools and results cost time that grows with their number, and not with its square.
#[test]
fn many_tools_and_results_take_no_worker_long() {
    const COUNT: usize = 4_000;
    let tools = (0..COUNT).map(|n| json!({"type": "custom", "custom": {"name": format!("t{n}")}}));
    let allowed =
        (0..COUNT).map(|n| json!({"type": "custom", "custom": {"name": format!("t{n}")}}));
    let call = |n: usize| json!({"id": format!("c{n}"), "custom": {"name": "t1", "input": "x"}});
    let calls = (0..COUNT).map(call).collect::<Vec<_>>();
    let calls = json!({"role": "assistant", "tool_calls": calls});
    let result =
        |n: usize| json!({"role": "tool", "tool_call_id": format!("c{n}"), "content": "x"});
    let messages = std::iter::once(calls).chain((0..COUNT).map(result));
    let chat = json!({
        "messages": messages.collect::<Vec<_>>(), "tools": tools.collect::<Vec<_>>(),
        "tool_choice": {"allowed_tools": {"mode": "auto", "tools": allowed.collect::<Vec<_>>()}},
    });
    let (made, _) = request(&chat, &target());
    assert_eq!(made["input"].as_array().unwrap().len(), 2 * COUNT);
    assert_eq!(made["input"][0]["type"], "custom_tool_call");
    assert_eq!(made["tool_choice"]["tools"][3_999]["type"], "custom");
}

#[test]
fn blank_lines_before_an_answer_are_not_kept() {
    let mut translation = translation(Dialect::Chat, true);
    for _ in 0..1_000 {
        assert_eq!(
            translation.on_body(b" \r\n", false),
            Written::Stream(Vec::new())
        );
    }
    assert!(matches!(&translation.source, Source::Unknown(begun) if !begun.has_kept()));
    let Written::Stream(stream) = translation.on_body(&answer(), true) else {
        panic!("no stream");
    };
    assert!(stream.ends_with(b"data: [DONE]\n\n"));
}

/// The pieces of a raw text stand where such a call has them, and one without any is closed with none.
#[test]
fn a_raw_text_comes_in_pieces_of_its_own_form() {
    let item = |number: u64, kind: &str, input: &str| {
        let item = json!({"type": "custom_tool_call", "call_id": "c", "name": "p", "input": input});
        json!({"type": format!("response.output_item.{kind}"), "output_index": number, "item": item})
    };
    let delta = |text: &str| json!({"type": "response.custom_tool_call_input.delta", "output_index": 0, "delta": text});
    let events = [
        item(0, "added", ""),
        delta("*** Be"),
        delta("gin"),
        item(0, "done", "*** Begin"),
        item(1, "added", ""),
        item(1, "done", ""),
        json!({"type": "response.completed", "response": {"status": "completed"}}),
    ];
    let answer: String = events
        .iter()
        .map(|event| format!("data: {event}\n\n"))
        .collect();
    let stream = streamed(Dialect::Chat, &[answer.as_bytes()]);
    let chunks = stream
        .split_terminator("\n\n")
        .map(|chunk| chunk.trim_start_matches("data: "))
        .filter_map(|chunk| serde_json::from_str::<Value>(chunk).ok());
    let calls: Vec<Value> = chunks
        .map(|chunk| chunk["choices"][0]["delta"]["tool_calls"][0].clone())
        .filter(|call| !call.is_null())
        .collect();
    let begins = |number: u64| json!({"index": number, "id": "c", "type": "custom", "custom": {"name": "p", "input": ""}});
    let goes_on = |text: &str| json!({"index": 0, "custom": {"input": text}});
    assert_eq!(
        calls,
        [begins(0), goes_on("*** Be"), goes_on("gin"), begins(1)]
    );
}
