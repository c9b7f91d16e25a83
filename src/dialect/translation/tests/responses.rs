//! Callers of `responses`: what they ask becomes a request of another dialect, here of their own for want of one, and
//! the answer is a stream or a whole of theirs.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::dialect::{
    grammar::responses as grammar,
    neutral::{Finish, Tokens},
};

const RESPONSES: Dialect = Dialect::Responses;

fn translated(body: &Value) -> Result<TranslatedRequest, Refused> {
    RESPONSES.translate_request(RESPONSES, body.to_string().as_bytes(), &target(), 7)
}

fn made(body: &Value) -> (Value, TranslatedRequest) {
    let made = translated(body).unwrap();
    (serde_json::from_slice(&made.body).unwrap(), made)
}

/// What Codex sends, on its third turn.
fn codex() -> Value {
    let own = names::envelope("responses", "1f", "gAAA");
    let other = names::envelope("messages", "9", "EqQB");
    json!({
        "model": "gpt-5.6", "instructions": "You are Codex", "stream": true, "store": false,
        "include": ["reasoning.encrypted_content"], "prompt_cache_key": "t1", "parallel_tool_calls": false,
        "reasoning": {"effort": "high", "summary": "auto"}, "text": {"verbosity": "low"}, "tool_choice": "auto",
        "client_metadata": {"x": "y"},
        "tools": [
            {"type": "function", "name": "shell", "strict": false, "parameters": {"type": "object"}},
            {"type": "custom", "name": "apply_patch", "description": "Patches", "format": {"type": "grammar", "syntax": "lark", "definition": "x"}},
            {"type": "namespace", "name": "mcp__docs__", "description": "d", "tools": [{"type": "function", "name": "find", "parameters": {}}]},
            {"type": "tool_search", "execution": "client", "description": "Finds", "parameters": {"type": "object"}},
            {"type": "local_shell"}, {"type": "web_search"},
        ],
        "input": [
            {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "rules"}]},
            {"type": "additional_tools", "role": "developer", "tools": [{"type": "function", "name": "shell"}, {"type": "function", "name": "more"}]},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "go"}, {"type": "input_image", "image_url": "data:image/png;base64,QUJD", "detail": "high"}]},
            {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}], "content": null, "encrypted_content": own},
            {"type": "reasoning", "summary": [], "encrypted_content": other},
            {"type": "message", "id": "msg_1", "role": "assistant", "phase": "commentary", "content": [{"type": "output_text", "text": "I patch", "annotations": []}]},
            {"type": "custom_tool_call", "id": "ctc_1", "call_id": "c1", "name": "apply_patch", "input": "*** Begin", "status": "completed"},
            {"type": "function_call", "call_id": "c2", "name": "find", "namespace": "mcp__docs__", "arguments": "{\"q\":1}"},
            {"type": "local_shell_call", "call_id": "c3", "status": "completed", "action": {"type": "exec", "command": ["ls"], "env": {}}},
            {"type": "custom_tool_call_output", "call_id": "c1", "output": "Done"},
            {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "a"}, {"type": "input_image", "image_url": "data:image/png;base64,QUJD"}]},
            {"type": "function_call_output", "call_id": "c3", "output": "files"},
            {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search", "query": "x"}},
            {"role": "user", "content": "go on"},
        ],
    })
}

#[test]
fn what_codex_sends_keeps_its_meaning() {
    let (sent, all) = made(&codex());
    assert_eq!(all.left_out, ["tools"], "the platform's own search");
    assert_eq!(sent["instructions"], "You are Codex\n\nrules");
    assert_eq!(
        sent["reasoning"],
        json!({"effort": "high", "summary": "auto"})
    );
    assert_eq!(sent["text"], json!({"verbosity": "low"}));
    assert_eq!(
        (&sent["prompt_cache_key"], &sent["parallel_tool_calls"]),
        (&json!("t1"), &json!(false))
    );
    let tools: Vec<_> = sent["tools"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tool| {
            (
                tool["type"].as_str().unwrap(),
                tool["name"].as_str().unwrap(),
            )
        })
        .collect();
    let expected = [
        ("function", "shell"),
        ("custom", "apply_patch"),
        ("function", "tool_search"),
        ("function", "local_shell"),
        ("function", "mcp__docs__find"),
        ("function", "more"),
    ];
    assert_eq!(tools, expected);
    assert_eq!(sent["tools"][1]["format"]["definition"], "x");
    let text = |kind: &str, text: &str| json!({"type": kind, "text": text});
    let image = |detail: &str| json!({"type": "input_image", "image_url": "data:image/png;base64,QUJD", "detail": detail});
    let expected = json!([
        {"type": "message", "role": "user", "content": [text("input_text", "go"), image("high")]},
        {"type": "reasoning", "summary": [], "encrypted_content": "gAAA"},
        {"type": "message", "role": "assistant", "content": [text("output_text", "I patch")]},
        {"type": "custom_tool_call", "call_id": "c1", "name": "apply_patch", "input": "*** Begin"},
        {"type": "function_call", "call_id": "c2", "name": "mcp__docs__find", "arguments": "{\"q\":1}"},
        {"type": "function_call", "call_id": "c3", "name": "local_shell", "arguments": "{\"command\":[\"ls\"],\"env\":{},\"type\":\"exec\"}"},
        {"type": "custom_tool_call_output", "call_id": "c1", "output": "Done"},
        {"type": "function_call_output", "call_id": "c2", "output": [text("input_text", "a"), image("auto")]},
        {"type": "function_call_output", "call_id": "c3", "output": "files"},
        {"type": "message", "role": "user", "content": [text("input_text", "go on")]},
    ]);
    assert_eq!(sent["input"], expected);
    assert_eq!(all.about.raw, ["apply_patch".to_owned()].into());
    assert!(all.stream && all.about.model == "gpt-5.6");
    // Written again, it says the same.
    let mut again = sent.clone();
    again["model"] = "gpt-5.6".into();
    again["input"][1]["encrypted_content"] = names::envelope("responses", "1f", "gAAA").into();
    assert_eq!(made(&again).0, sent);
}

#[test]
fn what_exists_elsewhere_is_refused_by_its_path() {
    let with = |name: &str, value: Value| json!({"input": "hi", name: value});
    let item = |item: Value| json!({"input": [item]});
    for (body, says) in [
        (json!({}), ": input is missing"),
        (
            with("previous_response_id", json!("resp_1")),
            "previous_response_id: that is at",
        ),
        (
            with("conversation", json!({"id": "conv_1"})),
            "conversation: that is at",
        ),
        (with("prompt", json!({"id": "p"})), "prompt: that is at"),
        (with("background", json!(true)), "background: no platform"),
        (
            with("tool_choice", json!({"type": "web_search"})),
            "tool_choice.type: that tool",
        ),
        (
            item(json!({"type": "item_reference", "id": "msg_1"})),
            "input[0].id: that is at",
        ),
        (
            item(json!({"type": "compaction", "encrypted_content": "x"})),
            "input[0].type: only the platform",
        ),
        (
            item(json!({"type": "compaction_trigger"})),
            "input[0].type: only the platform",
        ),
        (
            item(json!({"type": "hologram"})),
            "input[0].type: this kind of item",
        ),
        (
            item(json!({"type": "function_call", "name": "f"})),
            "input[0]: call_id is missing",
        ),
        (
            item(json!({"role": "robot", "content": "x"})),
            "input[0].role: expected system",
        ),
        (
            item(json!({"role": "user", "content": [{"type": "input_image", "file_id": "f"}]})),
            "input[0].content[0].file_id: that file",
        ),
        (
            item(json!({"role": "user", "content": [{"type": "input_video"}]})),
            "input[0].content[0].type: this kind",
        ),
        (
            item(json!(3)),
            "input[0]: expected an object, found a number",
        ),
    ] {
        let refused = translated(&body).unwrap_err();
        let refused = format!("{}: {}", refused.path, refused.why);
        assert!(refused.starts_with(says), "{refused}");
    }
    for body in [
        with("previous_response_id", Value::Null),
        with("background", json!(false)),
    ] {
        assert!(translated(&body).is_ok());
    }
}

#[test]
fn a_tool_without_a_namespace_comes_before_one_of_the_same_name() {
    let tool = |name: &str, description: &str| json!({"type": "function", "name": name, "description": description});
    let (sent, all) = made(&json!({"input": "hi", "tools": [
        {"type": "namespace", "name": "a", "tools": [tool("b", "within"), tool("c", "within")]},
        tool("a__b", "plain"),
    ], "tool_choice": {"type": "allowed_tools", "mode": "required", "tools": [
        {"type": "function", "name": "c", "namespace": "a"}, {"type": "web_search"},
    ]}}));
    let tools = sent["tools"].as_array().unwrap().iter();
    let tools: Vec<_> = tools
        .map(|tool| [tool["name"].as_str(), tool["description"].as_str()])
        .collect();
    assert_eq!(
        tools,
        [
            [Some("a__b"), Some("plain")],
            [Some("a__c"), Some("within")]
        ]
    );
    assert_eq!(
        sent["tool_choice"]["tools"],
        json!([{"type": "function", "name": "a__c"}])
    );
    assert_eq!(all.about.forms.len(), 1);
}

/// A caller's many items that each have tools cost time that grows with their number, and not with its square; and what
/// is repeated of them has a bound.
#[test]
fn many_tools_in_items_take_no_worker_long() {
    let item = |number| json!({"type": "additional_tools", "tools": [{"type": "function", "name": format!("t{number}")}]});
    let input: Vec<_> = (0..4_000).map(item).collect();
    let (sent, all) = made(&json!({"input": input, "instructions": "x".repeat(100_000)}));
    assert_eq!(sent["tools"].as_array().unwrap().len(), 4_000);
    assert!(
        all.about.repeated.len() < 66_000 && all.about.repeated.contains(r#""instructions":null"#)
    );
}

/// The stream that the caller of `request` gets of these steps, in which the platform names tools as it was told.
fn written(request: &Value, events: &[Event]) -> String {
    let made = translated(request).unwrap();
    let mut writer = RESPONSES.format().parts().write_answer.unwrap()(made.about);
    let mut bytes = Vec::new();
    events
        .iter()
        .for_each(|event| writer.stream(event, &mut bytes));
    String::from_utf8(bytes).unwrap()
}

fn start() -> Event {
    Event::Start {
        id: "chatcmpl-1".to_owned(),
        model: "m".to_owned(),
    }
}

/// A block of this kind with this text, in pieces of two characters.
fn block(number: u32, kind: BlockKind, text: &str) -> Vec<Event> {
    let chars: Vec<char> = text.chars().collect();
    let pieces = chars.chunks(2).map(|piece| Event::Delta {
        block: number,
        text: piece.iter().collect(),
    });
    let open = Event::Open {
        block: number,
        kind,
    };
    std::iter::once(open)
        .chain(pieces)
        .chain([Event::Close { block: number }])
        .collect()
}

fn call(name: &str, raw: bool) -> BlockKind {
    BlockKind::Call {
        id: format!("call_{name}"),
        name: name.to_owned(),
        raw,
    }
}

fn ended(finish: Finish) -> [Event; 3] {
    let usage = Tokens {
        input: Some(6),
        cache_read: Some(4),
        output: Some(3),
        ..Tokens::default()
    };
    [Event::Finish(finish), Event::Usage(usage), Event::End]
}

#[test]
fn a_stream_has_each_item_in_the_form_that_the_caller_has() {
    let mut events = vec![start()];
    events.extend(block(0, BlockKind::Reasoning, "hm"));
    events.insert(
        events.len() - 1,
        Event::Opaque {
            block: 0,
            data: "lk1.x".to_owned(),
        },
    );
    events.extend(block(1, BlockKind::Text, "Hi \u{1f600}"));
    events.extend(block(2, call("apply_patch", true), "*** Begin"));
    events.extend(block(3, call("mcp__docs__find", false), "{\"q\":1}"));
    events.extend(block(
        4,
        call("local_shell", false),
        "{\"command\":[\"ls\"]}",
    ));
    events.extend(block(5, call("tool_search", false), "no object"));
    events.extend(block(6, call("shell", false), ""));
    events.extend(ended(Finish::Calls));
    let said = grammar::read(&written(&codex(), &events));
    assert_eq!(said.status, "completed");
    let mut items = said.items;
    for item in &mut items {
        let id = item.as_object_mut().unwrap().remove("id").unwrap();
        assert!(id.as_str().unwrap().contains('_'), "{id}");
    }
    let part =
        json!({"type": "output_text", "annotations": [], "logprobs": [], "text": "Hi \u{1f600}"});
    let expected = json!([
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}], "encrypted_content": "lk1.x"},
        {"type": "message", "status": "completed", "role": "assistant", "content": [part]},
        {"type": "custom_tool_call", "name": "apply_patch", "input": "*** Begin", "call_id": "call_apply_patch", "status": "completed"},
        {"type": "function_call", "name": "find", "namespace": "mcp__docs__", "arguments": "{\"q\":1}", "call_id": "call_mcp__docs__find", "status": "completed"},
        {"type": "local_shell_call", "action": {"command": ["ls"]}, "call_id": "call_local_shell", "status": "completed"},
        {"type": "tool_search_call", "execution": "client", "arguments": {}, "call_id": "call_tool_search", "status": "completed"},
        {"type": "function_call", "name": "shell", "arguments": "{}", "call_id": "call_shell", "status": "completed"},
    ]);
    assert_eq!(Value::Array(items), expected);
    let response = &said.response;
    assert_eq!(
        response["usage"],
        json!({
            "input_tokens": 10, "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 0},
            "output_tokens": 3, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 13,
        })
    );
    assert_eq!(
        (
            &response["id"],
            &response["model"],
            &response["created_at"],
            &response["store"]
        ),
        (
            &json!("resp_1"),
            &json!("gpt-5.6"),
            &json!(7),
            &json!(false)
        )
    );
    for name in ["tools", "instructions", "parallel_tool_calls", "reasoning"] {
        assert_eq!(response[name], codex()[name], "repeated");
    }
    assert_eq!(response["truncation"], "disabled");
}

#[test]
fn items_come_one_after_the_other_however_their_blocks_come() {
    let pieces = |number: u32| {
        ["{\"a\"", ":1}"].map(|text| Event::Delta {
            block: number,
            text: text.to_owned(),
        })
    };
    let ([one, one_more], [two, two_more]) = (pieces(0), pieces(1));
    let open = |number: u32| Event::Open {
        block: number,
        kind: call("f", false),
    };
    let events = [
        start(),
        open(0),
        open(1),
        two,
        one,
        two_more,
        Event::Close { block: 1 },
        one_more,
        Event::Close { block: 0 },
    ];
    let events = [&events[..], &ended(Finish::Calls)].concat();
    let said = grammar::read(&written(&json!({"input": "hi"}), &events));
    assert_eq!(said.items.len(), 2);
    assert!(
        said.items
            .iter()
            .all(|item| item["arguments"] == "{\"a\":1}"),
        "{said:?}"
    );
}

#[test]
fn an_answer_ends_as_the_platforms_did() {
    let request = json!({"input": "hi"});
    let text = || block(0, BlockKind::Text, "Hi");
    for (finish, status, reason, item) in [
        (Finish::Done, "completed", Value::Null, "completed"),
        (
            Finish::Length,
            "incomplete",
            json!({"reason": "max_output_tokens"}),
            "incomplete",
        ),
        (
            Finish::Refused,
            "incomplete",
            json!({"reason": "content_filter"}),
            "completed",
        ),
    ] {
        let events = [vec![start()], text(), ended(finish).to_vec()].concat();
        let said = grammar::read(&written(&request, &events));
        assert_eq!(
            (&*said.status, &said.response["incomplete_details"]),
            (status, &reason)
        );
        assert_eq!(said.items[0]["status"], item);
    }
    let refusal = [
        vec![start()],
        block(0, BlockKind::Refusal, "No"),
        ended(Finish::Refused).to_vec(),
    ]
    .concat();
    let said = grammar::read(&written(&request, &refusal));
    assert_eq!(said.status, "completed");
    assert_eq!(
        said.items[0]["content"],
        json!([{"type": "refusal", "refusal": "No"}])
    );

    let failure =
        |status, code: Option<&str>| Event::Fail(Failure::told(status, "so", code.into_iter()));
    for (failure, code) in [
        (
            failure(429, Some("rate_limit_error")),
            "rate_limit_exceeded",
        ),
        (failure(503, None), "server_is_overloaded"),
        (
            failure(400, Some("context_length_exceeded")),
            "context_length_exceeded",
        ),
        (failure(502, None), "server_error"),
        (failure(400, None), "invalid_prompt"),
    ] {
        let begun = [vec![start()], text(), vec![failure.clone()]].concat();
        let begun = grammar::read(&written(&request, &begun));
        let at_once = grammar::read(&written(&request, &[failure]));
        for said in [begun, at_once] {
            assert_eq!(said.status, "failed");
            assert_eq!(
                said.response["error"],
                json!({"code": code, "message": "so"})
            );
        }
    }
}

/// What says nothing is no item, and reasoning that nobody may see is one without a text.
#[test]
fn a_block_without_a_text_is_an_item_only_where_it_says_something() {
    let mut events = vec![start()];
    events.extend(block(0, BlockKind::Text, ""));
    events.extend(block(1, BlockKind::Reasoning, ""));
    events.extend(block(2, BlockKind::Reasoning, ""));
    events.insert(
        events.len() - 1,
        Event::Opaque {
            block: 2,
            data: "lk1".to_owned(),
        },
    );
    events.extend(ended(Finish::Done));
    let said = grammar::read(&written(&json!({"input": "hi"}), &events));
    assert_eq!(said.items.len(), 1);
    assert_eq!(
        (
            &said.items[0]["summary"],
            &said.items[0]["encrypted_content"]
        ),
        (&json!([]), &json!("lk1"))
    );
}

#[test]
fn a_stream_that_is_too_long_to_be_held_fails() {
    let piece = |_| Event::Delta {
        block: 0,
        text: "x".repeat(1024 * 1024),
    };
    let open = Event::Open {
        block: 0,
        kind: BlockKind::Text,
    };
    let events = [
        vec![start(), open],
        (0..6).map(piece).collect(),
        ended(Finish::Done).to_vec(),
    ]
    .concat();
    let said = grammar::read(&written(&json!({"input": "hi"}), &events));
    assert_eq!(
        (&*said.status, &said.response["error"]["code"]),
        ("failed", &json!("server_error"))
    );
}

#[test]
fn a_free_form_tool_takes_the_text_in_the_arguments_of_a_function() {
    for (arguments, input) in [
        (r#"{"input":"*** Begin\nPatch"}"#, "*** Begin\nPatch"),
        (r#"{"patch":"*** Begin\nPatch"}"#, "*** Begin\nPatch"),
        ("*** Begin\nPatch", "*** Begin\nPatch"),
    ] {
        let item = |text: &str| json!({"type": "function_call", "call_id": "c1", "name": "apply_patch", "arguments": text});
        let delta = |text: &str| json!({"type": "response.function_call_arguments.delta", "output_index": 0, "delta": text});
        let (first, rest) = arguments.split_at(12);
        let events = [
            json!({"type": "response.created", "response": {"id": "resp_1", "model": "m"}}),
            json!({"type": "response.output_item.added", "output_index": 0, "item": item("")}),
            delta(first),
            delta(rest),
            json!({"type": "response.output_item.done", "output_index": 0, "item": item(arguments)}),
            json!({"type": "response.completed", "response": {"id": "resp_1", "status": "completed", "output": []}}),
        ];
        let answer: String = events
            .iter()
            .map(|event| format!("data: {event}\n\n"))
            .collect();
        let said = grammar::read(&streamed_of(&codex(), &[answer.as_bytes()]));
        assert_eq!(said.items[0]["type"], "custom_tool_call");
        assert_eq!(said.items[0]["input"], input);
    }
}

/// The stream that the caller of `request` gets of an answer of `responses` in these pieces.
fn streamed_of(request: &Value, pieces: &[&[u8]]) -> String {
    let about = translated(request).unwrap().about;
    let mut translation =
        AnswerTranslation::new(RESPONSES, RESPONSES, true, about, "1f", BTreeMap::new()).unwrap();
    let mut stream = String::new();
    for (number, piece) in pieces.iter().enumerate() {
        match translation.on_body(piece, number + 1 == pieces.len()) {
            Written::Stream(bytes) => stream.push_str(std::str::from_utf8(&bytes).unwrap()),
            other => panic!("{other:?}"),
        }
    }
    stream
}

#[test]
fn an_answer_becomes_the_same_items_in_a_stream_and_whole() {
    let answer = answer();
    let expected = streamed(RESPONSES, &[&answer]);
    let said = grammar::read(&expected);
    let kinds: Vec<_> = said
        .items
        .iter()
        .map(|item| item["type"].as_str().unwrap())
        .collect();
    assert_eq!(
        kinds,
        ["reasoning", "message", "function_call", "function_call"]
    );
    assert_eq!(said.items[0]["summary"][0]["text"], "a\n\nb");
    assert_eq!(said.items[0]["encrypted_content"], "lk1.responses.1f.gAAA");
    assert_eq!(
        (&said.items[3]["name"], &said.items[3]["arguments"]),
        (&json!("own/f"), &json!("{\"b\":2}"))
    );
    assert_eq!(whole(RESPONSES), said.response);
    for cut in 0..answer.len() {
        let (first, rest) = answer.split_at(cut);
        assert_eq!(streamed(RESPONSES, &[first, rest]), expected, "{cut}");
    }
}

fn kind() -> impl Strategy<Value = BlockKind> {
    prop_oneof![
        Just(BlockKind::Text),
        Just(BlockKind::Refusal),
        Just(BlockKind::Reasoning),
        Just(call("f", false)),
        Just(call("apply_patch", true)),
        Just(call("mcp__docs__find", false)),
        Just(call("local_shell", false)),
    ]
}

proptest! {
    /// Blocks come in any order, as far as they open in the order of their numbers; each is an item with its text.
    #[test]
    fn every_stream_follows_the_grammar(
        blocks in prop::collection::vec((kind(), prop::collection::vec("\\PC{0,4}", 0..4)), 0..5),
        order in prop::collection::vec(any::<prop::sample::Index>(), 40),
        finish in prop::sample::select(vec![Finish::Done, Finish::Calls, Finish::Length, Finish::Refused]),
        fails in any::<bool>(),
    ) {
        let mut waiting: Vec<Vec<Event>> = Vec::new();
        for (number, (kind, texts)) in blocks.iter().enumerate() {
            let block = number as u32;
            let mut steps = vec![Event::Open { block, kind: kind.clone() }];
            steps.extend(texts.iter().map(|text| Event::Delta { block, text: text.clone() }));
            steps.push(Event::Close { block });
            steps.reverse();
            waiting.push(steps);
        }
        let mut events = vec![start()];
        for choice in &order {
            // A block opens once those before it have.
            let opened = waiting.iter().position(|steps| matches!(steps.last(), Some(Event::Open { .. })));
            let all = opened.map_or(waiting.len(), |at| at + 1);
            if all > 0 {
                events.extend(waiting[choice.index(all)].pop());
            }
        }
        waiting.iter_mut().for_each(|steps| events.extend(steps.drain(..).rev()));
        if fails {
            events.push(Event::Fail(Failure::grammar("so")));
        } else {
            events.extend(ended(finish));
        }
        let said = grammar::read(&written(&codex(), &events));
        prop_assert_eq!(said.status == "failed", fails);
        if !fails {
            let texts = blocks.iter().filter(|(kind, texts)| matches!(kind, BlockKind::Call { .. }) || !texts.concat().is_empty());
            prop_assert_eq!(said.items.len(), texts.count());
        }
    }
}
