//! Platforms that speak `ernie`, which no caller does.

use proptest::prelude::*;

use super::{
    laws::conversation,
    table::{asked_at, translation_of},
    *,
};
use crate::dialect::{
    accent::Accent,
    neutral::{CONTEXT_LENGTH, Finish, Tokens},
};

/// The request that one of `chat` becomes, and what is left out.
fn becomes(body: &Value, target: &Target<'_>) -> Result<(Value, Vec<&'static str>), String> {
    let text = body.to_string();
    match Dialect::Chat.translate_request(Dialect::Ernie, text.as_bytes(), target, 0) {
        Ok(made) => Ok((serde_json::from_slice(&made.body).unwrap(), made.left_out)),
        Err(refused) => Err(format!("{}: {}", refused.path, refused.why)),
    }
}

fn told(body: &Value) -> (Value, Vec<&'static str>) {
    becomes(body, &asked_at(Dialect::Ernie, "")).unwrap()
}

fn user(text: &str) -> Value {
    json!({"role": "user", "content": text})
}

fn model(text: &str) -> Value {
    json!({"role": "assistant", "content": text})
}

#[test]
fn what_a_chat_says_becomes_turns_with_one_call_each() {
    let call = |id: &str, arguments: &str| json!({"id": id, "type": "function", "function": {"name": "get_weather", "arguments": arguments}});
    let parameters = json!({"type": "object", "properties": {"city": {"type": "string"}}});
    let (made, left_out) = told(&json!({
        "model": "asked", "stream": true, "temperature": 0, "top_p": 0.5, "max_completion_tokens": 1, "user": "u-1",
        "seed": 7, "frequency_penalty": 0.1, "stop": ["END", "a stop of more than twenty characters"],
        "parallel_tool_calls": false,
        "messages": [
            {"role": "system", "content": "be brief"},
            user("hi"),
            user("there"),
            {"role": "assistant", "content": "I look.", "reasoning_content": "Hm.", "tool_calls": [
                call("a", "{\"city\":\"Rome\"}"), call("b", "{}"), call("c", "{}"),
            ]},
            {"role": "tool", "tool_call_id": "b", "content": ""},
            {"role": "tool", "tool_call_id": "a", "content": "sunny"},
            {"role": "system", "content": "mind"},
            user("go on"),
            model("It is."),
            model("Truly."),
            user("thanks"),
        ],
        "tools": [
            {"type": "function", "function": {"name": "get_weather", "description": "d", "parameters": parameters}},
            {"type": "function", "function": {"name": "now"}},
        ],
        "tool_choice": {"type": "function", "function": {"name": "now"}},
    }));
    assert_eq!(left_out, ["frequency_penalty", "seed", "stop"]);
    let called = |content: &str, arguments: &str| {
        let call = json!({"name": "get_weather", "arguments": arguments});
        json!({"role": "assistant", "content": content, "function_call": call})
    };
    let mut first = called("I look.", "{\"city\":\"Rome\"}");
    first["function_call"]["thoughts"] = "Hm.".into();
    let returned =
        |content: &str| json!({"role": "function", "name": "get_weather", "content": content});
    let reminded = "\n\n<system-reminder>\nmind\n</system-reminder>\n\ngo on";
    let expected = json!({
        "messages": [
            user("hi\n\nthere"),
            first,
            returned("sunny"),
            called("", "{}"),
            returned("{}"),
            called("", "{}"),
            returned(&format!("{}{reminded}", crate::dialect::neutral::conversation::NO_RESULT)),
            model("It is.\n\nTruly."),
            user("thanks"),
        ],
        "system": "be brief", "stream": true,
        "functions": [
            {"name": "get_weather", "description": "d", "parameters": parameters},
            {"name": "now", "description": "now", "parameters": {"type": "object", "properties": {}}},
        ],
        "tool_choice": {"type": "function", "function": {"name": "now"}},
        "temperature": 0.01, "top_p": 0.5, "max_output_tokens": 2, "stop": ["END"], "user_id": "u-1",
    });
    assert_eq!(made, expected);
}

#[test]
fn a_choice_or_a_form_that_it_does_not_know_is_said_otherwise() {
    let tools = ["f", "g"].map(|name| json!({"type": "function", "function": {"name": name}}));
    let asks = |more: Value| {
        let mut body = json!({"messages": [user("hi")], "tools": tools});
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        told(&body)
    };
    let (made, left_out) = asks(json!({"tool_choice": "required"}));
    assert_eq!(
        (&made["tool_choice"], left_out),
        (&Value::Null, vec!["tool_choice"])
    );
    let (made, left_out) = asks(json!({"tool_choice": "none"}));
    assert_eq!((&made["functions"], left_out), (&Value::Null, vec![]));
    let some =
        json!({"mode": "required", "tools": [{"type": "function", "function": {"name": "g"}}]});
    let (made, left_out) =
        asks(json!({"tool_choice": {"type": "allowed_tools", "allowed_tools": some}}));
    assert_eq!(left_out, ["tool_choice"]);
    assert_eq!(
        (&made["functions"][0]["name"], &made["functions"][1]),
        (&json!("g"), &Value::Null)
    );
    let schema = json!({"name": "n", "schema": {"type": "object"}});
    let (made, left_out) =
        asks(json!({"response_format": {"type": "json_schema", "json_schema": schema}}));
    assert_eq!(
        (&made["response_format"], left_out),
        (&json!("json_object"), vec![])
    );
    assert!(
        made["system"]
            .as_str()
            .unwrap()
            .ends_with(r#"{"type":"object"}"#),
        "{made}"
    );

    let few = json!({"schema": "none", "refuses": ["functions", "stop"], "max_output": 9, "set": {"disable_search": true}});
    let few = Accent::parse(few.as_object().unwrap().clone()).unwrap();
    let target = Target {
        accent: &few,
        ..asked_at(Dialect::Ernie, "")
    };
    let body = json!({
        "messages": [user("hi")], "tools": tools, "stop": "x", "max_tokens": 10, "temperature": 0.5, "user": "u",
        "response_format": {"type": "json_object"}, "reasoning_effort": "high",
    });
    let (made, left_out) = becomes(&body, &target).unwrap();
    assert_eq!(
        left_out,
        ["reasoning_effort", "response_format", "stop", "tools"]
    );
    let expected = json!({
        "messages": [user("hi")], "system": crate::dialect::neutral::functions::IN_JSON, "stream": false,
        "temperature": 0.5, "max_output_tokens": 9, "disable_search": true,
    });
    assert_eq!(made, expected);
}

#[test]
fn what_has_no_form_here_is_refused_or_left_out() {
    let system = json!({"role": "system", "content": "be brief"});
    let (made, _) = told(&json!({"messages": [system]}));
    assert_eq!(
        made,
        json!({"messages": [user("be brief")], "stream": false})
    );
    let (made, left_out) =
        told(&json!({"messages": [user("hi"), user(" "), model("to go on from")]}));
    assert_eq!(made["messages"], json!([user("hi")]));
    assert_eq!(left_out, ["messages"]);
    let (_, left_out) = told(&json!({"messages": [user("hi"), model(" ")]}));
    assert_eq!(left_out, [""; 0], "nothing was said");
    let picture =
        json!([{"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}}]);
    let refused = |messages: Value| {
        becomes(
            &json!({"messages": messages}),
            &asked_at(Dialect::Ernie, ""),
        )
        .unwrap_err()
    };
    for messages in [
        json!([{"role": "user", "content": picture}]),
        json!([user("hi"), {"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "{}"}}]},
            {"role": "tool", "tool_call_id": "a", "content": picture}]),
    ] {
        assert!(refused(messages).contains("takes no pictures"));
    }
    assert!(
        refused(json!([model("I begin."), user("hi")]))
            .contains("begins with words of the model's")
    );
}

/// What the reader says of an answer.
fn read(texts: &[&str], is_stream: bool) -> Vec<Event> {
    let mut reader = Dialect::Ernie.format().parts().read_answer.unwrap()();
    let mut events = Vec::new();
    for text in texts {
        match is_stream {
            true => reader.on_event(text.as_bytes(), &mut events),
            false => reader.on_whole(text.as_bytes(), &mut events),
        }
    }
    reader.on_end(&mut events);
    events
}

#[test]
fn a_call_comes_behind_what_was_thought_and_may_come_in_pieces() {
    let events = read(
        &[
            r#"{"id":"as-1","sentence_id":0,"is_end":false,"result":"So","usage":{"prompt_tokens":3,"completion_tokens":0}}"#,
            r#"{"is_end":false,"result":"","function_call":{"name":"f","thoughts":"hm","arguments":"{\"a\""}}"#,
            r#"{"is_end":false,"result":"","function_call":{"name":"","arguments":":1}"}}"#,
            r#"{"is_end":true,"result":"","finish_reason":"function_call","usage":{"prompt_tokens":3,"completion_tokens":7}}"#,
            r#"{"is_end":true,"result":"behind the end"}"#,
        ],
        true,
    );
    let open = |block, kind| Event::Open { block, kind };
    let delta = |block, text: &str| Event::Delta {
        block,
        text: text.to_owned(),
    };
    let call = BlockKind::Call {
        id: String::new(),
        name: "f".to_owned(),
        raw: false,
    };
    let usage = Tokens {
        input: Some(3),
        output: Some(7),
        ..Tokens::default()
    };
    let expected = [
        Event::Start {
            id: "as-1".to_owned(),
            model: String::new(),
        },
        open(0, BlockKind::Text),
        delta(0, "So"),
        Event::Close { block: 0 },
        open(1, BlockKind::Reasoning),
        delta(1, "hm"),
        Event::Close { block: 1 },
        open(2, call),
        delta(2, r#"{"a""#),
        delta(2, ":1}"),
        Event::Close { block: 2 },
        Event::Usage(usage),
        Event::Finish(Finish::Calls),
        Event::End,
    ];
    assert_eq!(events, expected);
}

/// The arguments of each call by its name, and the last event.
fn calls(texts: &[&str]) -> (Vec<(String, String)>, Event) {
    let mut events = read(texts, true);
    let mut calls: Vec<(u32, String, String)> = Vec::new();
    for event in &events {
        match event {
            Event::Open {
                block,
                kind: BlockKind::Call { name, .. },
            } => calls.push((*block, name.clone(), String::new())),
            Event::Delta { block, text } => {
                let call = calls.iter_mut().find(|call| call.0 == *block);
                call.into_iter().for_each(|call| call.2.push_str(text));
            }
            _ => {}
        }
    }
    let calls = calls.into_iter().map(|(_, name, text)| (name, text));
    (calls.collect(), events.pop().unwrap())
}

#[test]
fn no_piece_of_arguments_is_lost_in_silence() {
    let begun =
        r#"{"result":"","function_call":{"name":"f","thoughts":"hm","arguments":"{\"x\""}}"#;
    let end = r#"{"is_end":true,"result":""}"#;
    let one = |arguments: &str| vec![("f".to_owned(), arguments.to_owned())];
    for more in [
        r#"{"result":"","function_call":{"name":"","thoughts":"more","arguments":":\"{\"}"}}"#,
        r#"{"result":"","function_call":{"name":"f","arguments":":\"{\"}"}}"#,
        r#"{"result":"","function_call":{"name":"f","thoughts":"hm","arguments":":\"{\"}"}}"#,
        r#"{"result":"Said.","function_call":{"arguments":":\"{\"}"}}"#,
    ] {
        let told = calls(&[begun, more, end]);
        assert_eq!(told, (one(r#"{"x":"{"}"#), Event::End), "{more}");
    }
    let whole = r#"{"result":"","function_call":{"name":"f","arguments":"{\"x\":\"\\\"}\"}"}}"#;
    let again = r#"{"result":"And.","function_call":{"name":"f","arguments":"{}"}}"#;
    let two = [one(r#"{"x":"\"}"}"#), one("{}")].concat();
    assert_eq!(calls(&[whole, again, end]), (two, Event::End));
    // Of no call, or of one that has ended.
    let nameless = r#"{"result":"","function_call":{"arguments":":1}"}}"#;
    let text = r#"{"result":"Said."}"#;
    let last = r#"{"is_end":true,"result":"","function_call":{"arguments":":1}"}}"#;
    for texts in [
        &[nameless, end][..],
        &[begun, text, nameless, end],
        &[begun, text, last],
    ] {
        let (_, last) = calls(texts);
        assert!(matches!(last, Event::Fail(_)), "{texts:?}: {last:?}");
    }
}

#[test]
fn a_model_without_functions_is_told_of_calls_in_words() {
    let few = json!({"refuses": ["functions"]});
    let few = Accent::parse(few.as_object().unwrap().clone()).unwrap();
    let target = Target {
        accent: &few,
        ..asked_at(Dialect::Ernie, "")
    };
    let call = |id: &str, arguments: &str| json!({"id": id, "type": "function", "function": {"name": "get.weather", "arguments": arguments}});
    let result =
        |id: &str, text: &str| json!({"role": "tool", "tool_call_id": id, "content": text});
    let calls = json!([call("a", "{\"city\":\"Rome\"}"), call("b", "{}")]);
    let body = json!({"messages": [
        user("hi"),
        {"role": "assistant", "content": "I look.", "tool_calls": calls},
        result("a", "sunny"), result("b", ""), user("go on"),
        {"role": "assistant", "tool_calls": [call("c", "{}")]},
        result("c", "rain"),
    ]});
    let (made, left_out) = becomes(&body, &target).unwrap();
    let expected = json!([
        user("hi"),
        model("I look.\n\nget.weather({\"city\":\"Rome\"})"),
        user("The result of get.weather:\nsunny"),
        model("get.weather({})"),
        user("The result of get.weather:\n{}\n\ngo on"),
        model("get.weather({})"),
        user("The result of get.weather:\nrain"),
    ]);
    assert_eq!((&made["messages"], left_out), (&expected, vec![]));
}

#[test]
fn an_end_says_what_it_was() {
    for (members, finish) in [
        (r#""finish_reason":"normal""#, Finish::Done),
        (r#""finish_reason":"stop""#, Finish::Stop(None)),
        (r#""finish_reason":"length""#, Finish::Length),
        (
            r#""is_truncated":true,"finish_reason":"normal""#,
            Finish::Length,
        ),
        (r#""finish_reason":"content_filter""#, Finish::Refused),
        (
            r#""need_clear_history":true,"ban_round":-1,"finish_reason":"normal""#,
            Finish::Refused,
        ),
        (r#""is_truncated":true,"flag":3"#, Finish::Refused),
        // A call that is none.
        (r#""finish_reason":"function_call""#, Finish::Done),
    ] {
        let text = format!(r#"{{"id":"as-1","result":"x",{members}}}"#);
        let whole = read(&[&text], false);
        assert!(
            whole.contains(&Event::Finish(finish.clone())),
            "{text}: {whole:?}"
        );
        let last = format!(r#"{{"result":"","is_end":true,{members}}}"#);
        let stream = read(
            &[r#"{"id":"as-1","result":"x","is_end":false}"#, &last],
            true,
        );
        assert!(stream.contains(&Event::Finish(finish)), "{stream:?}");
    }
}

#[test]
fn an_error_is_told_as_one_wherever_it_comes() {
    let begun = r#"{"id":"as-1","result":"x","is_end":false}"#;
    for (error, status, code) in [
        (r#"{"error_code":336100,"error_msg":"m"}"#, 500, "336100"),
        (r#"{"error_code":336001,"error_msg":"m"}"#, 400, "336001"),
        (r#"{"error_code":"18","error_msg":"m"}"#, 429, "18"),
        (
            r#"{"error_code":336003,"error_msg":"m","id":"as-1"}"#,
            400,
            "336003",
        ),
        (
            r#"{"error_code":336103,"error_msg":"m"}"#,
            400,
            CONTEXT_LENGTH,
        ),
        (r#"{"code":336501,"msg":"m"}"#, 429, "336501"),
        (
            r#"{"error":{"code":"rate_limit_exceeded","message":"m"}}"#,
            429,
            "rate_limit_exceeded",
        ),
    ] {
        let failure = Failure {
            status,
            message: "m".to_owned(),
            code: Some(code.to_owned()),
        };
        for events in [
            read(&[error], false),
            read(&[error], true),
            read(&[begun, error, begun], true),
        ] {
            assert_eq!(
                events.last(),
                Some(&Event::Fail(failure.clone())),
                "{error}"
            );
        }
    }
    // None of these is an answer, or its end.
    for texts in [&[begun][..], &["x"], &["[]", "{}"], &["[DONE]"], &[]] {
        assert!(
            matches!(read(texts, true).last(), Some(Event::Fail(_))),
            "{texts:?}"
        );
    }
    for text in ["x", "[]", "{}", r#"{"id":"as-1","result":null}"#] {
        assert!(
            matches!(read(&[text], false).last(), Some(Event::Fail(_))),
            "{text}"
        );
    }
    let none = read(&[r#"{"error_code":0,"code":7,"result":"x"}"#], false);
    assert_eq!(
        none.last(),
        Some(&Event::End),
        "0 is none, and a code beside a result too"
    );
}

/// Of two calls without ids each has one of its own.
#[test]
fn calls_have_ids_of_their_own() {
    let call = |name: &str| json!({"is_end": false, "result": "", "function_call": {"name": name, "arguments": "{}"}});
    let end = json!({"is_end": true, "result": ""});
    let stream: String = [call("now"), call("get_weather"), end]
        .iter()
        .map(|event| format!("data: {event}\n\n"))
        .collect();
    let mut translation = translation_of(Dialect::Ernie, Dialect::Chat, false);
    let Written::Whole(body) = translation.on_body(stream.as_bytes(), true) else {
        panic!("no answer");
    };
    let body: Value = serde_json::from_slice(&body).unwrap();
    let calls = body["choices"][0]["message"]["tool_calls"]
        .as_array()
        .unwrap();
    let ids: Vec<_> = calls
        .iter()
        .map(|call| call["id"].as_str().unwrap())
        .collect();
    assert!(
        ids.len() == 2 && ids[0] != ids[1] && !ids[0].is_empty(),
        "{ids:?}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever a conversation is, the user's side and the model take turns, the user's is the first and the last, and
    /// every text, call and result is there, once.
    #[test]
    fn a_conversation_takes_turns_and_loses_nothing(messages in conversation()) {
        let (made, _) = told(&json!({"messages": messages}));
        let turns = made["messages"].as_array().unwrap();
        let sides = turns.iter().map(|turn| turn["role"] == "assistant");
        prop_assert!(sides.enumerate().all(|(at, is_model)| is_model == (at % 2 == 1)), "{}", made);
        prop_assert_eq!(turns.len() % 2, 1);
        let texts = |turns: &[Value], role: &[&str]| {
            let turns = turns.iter().filter(|turn| role.contains(&turn["role"].as_str().unwrap()));
            let texts = turns.filter_map(|turn| turn["content"].as_str());
            let mut words: Vec<String> =
                texts.flat_map(|text| text.split_whitespace().map(str::to_owned)).collect();
            words.sort();
            words
        };
        let said = messages.as_array().unwrap();
        let mut expected = texts(said, &["user", "tool"]);
        let calls: Vec<&Value> = said.iter().filter_map(|one| one["tool_calls"].as_array()).flatten().collect();
        let results = said.iter().filter(|one| one["role"] == "tool").count();
        let none = crate::dialect::neutral::conversation::NO_RESULT;
        for _ in results..calls.len() {
            expected.extend(none.split_whitespace().map(str::to_owned));
        }
        expected.sort();
        prop_assert_eq!(texts(turns, &["user", "function"]), expected);
        prop_assert_eq!(texts(turns, &["assistant"]), texts(said, &["assistant"]));
        let arguments = |call: &Value| -> Value {
            serde_json::from_str(call["arguments"].as_str().unwrap()).unwrap()
        };
        let made: Vec<Value> = turns.iter().filter(|turn| turn.get("function_call").is_some())
            .map(|turn| arguments(&turn["function_call"])).collect();
        let asked: Vec<Value> = calls.iter().map(|call| arguments(&call["function"])).collect();
        prop_assert_eq!(made, asked);
    }
}
