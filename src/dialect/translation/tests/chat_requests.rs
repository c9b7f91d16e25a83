//! Requests for platforms that speak `chat`.

use serde_json::{Value, json};

use super::*;

/// The request of a `caller` for a platform of this accent.
fn to_chat(
    caller: Dialect,
    body: &Value,
    accent: &Value,
) -> Result<(Value, TranslatedRequest), Refused> {
    let accent = Accent::parse(accent.as_object().unwrap().clone()).unwrap();
    let target = Target {
        model: Text::of("m"),
        accent: &accent,
        asks_usage: true,
        ..target()
    };
    let made = caller.translate_request(Dialect::Chat, body.to_string().as_bytes(), &target, 0)?;
    Ok((serde_json::from_slice(&made.body).unwrap(), made))
}

fn of_messages(body: &Value, accent: &Value) -> (Value, TranslatedRequest) {
    to_chat(Dialect::Messages, body, accent).unwrap()
}

fn messages_of(messages: &Value, accent: &Value) -> Value {
    let body = json!({"messages": messages});
    let mut made = to_chat(Dialect::Messages, &body, accent).unwrap().0;
    made["messages"].take()
}

/// A conversation of Claude Code: calls at once, one of which fails and one shows a picture, and one that was
/// interrupted.
fn conversation() -> Value {
    json!([
        {"role": "user", "content": [{"type": "text", "text": "hi"}, {"type": "text", "text": "there"}]},
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "hm", "signature": "EqQB"},
            {"type": "text", "text": "I call"},
            {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"b": 1, "a": [2]}},
            {"type": "tool_use", "id": "toolu_2", "name": "f", "input": {}},
            {"type": "tool_use", "id": "toolu_3", "name": "f", "input": {}},
        ]},
        {"role": "system", "content": "mind the gap"},
        {"role": "user", "content": [
            {"type": "text", "text": "go on"},
            {"type": "tool_result", "tool_use_id": "toolu_2", "content": [
                {"type": "text", "text": "a"}, {"type": "text", "text": "b"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "QUJD"}},
            ]},
            {"type": "tool_result", "tool_use_id": "toolu_1", "is_error": true, "content": "no"},
        ]},
    ])
}

#[test]
fn calls_are_one_message_and_results_follow_it() {
    let call = |id: &str, arguments: &str| json!({"id": id, "type": "function", "function": {"name": "f", "arguments": arguments}});
    let tool = |id: &str, text: &str| json!({"role": "tool", "tool_call_id": id, "content": text});
    let picture = json!({"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}});
    let calls = [
        call("toolu_1", "{\"a\":[2],\"b\":1}"),
        call("toolu_2", "{}"),
        call("toolu_3", "{}"),
    ];
    let expected = json!([
        {"role": "user", "content": "hi\n\nthere"},
        {"role": "assistant", "content": "I call", "tool_calls": calls},
        tool("toolu_1", "no"),
        tool("toolu_2", "a\nb\n[image]"),
        tool("toolu_3", "The call was interrupted: it has no result."),
        {"role": "user", "content": [picture]},
        {"role": "user", "content": "<system-reminder>\nmind the gap\n</system-reminder>"},
        {"role": "user", "content": "go on"},
    ]);
    assert_eq!(messages_of(&conversation(), &json!({})), expected);
}

#[test]
fn an_accent_says_where_reasoning_and_the_system_go() {
    let accent = json!({
        "reasoning_in": "reasoning_content", "reasoning_required": true, "system_role": "developer",
        "system_between": true, "content": "parts",
    });
    let said = messages_of(&conversation(), &accent);
    assert_eq!(said[1]["reasoning_content"], "hm");
    assert_eq!(
        said[1]["content"],
        json!([{"type": "text", "text": "I call"}])
    );
    assert_eq!(
        said[6],
        json!({"role": "developer", "content": "mind the gap"})
    );
    let texts = json!([{"type": "text", "text": "hi"}, {"type": "text", "text": "there"}]);
    assert_eq!(said[0]["content"], texts);
    let bare = json!([
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t"}]},
    ]);
    let said = messages_of(&bare, &accent);
    assert_eq!(
        (&said[1]["content"], &said[1]["reasoning_content"]),
        (&Value::Null, &json!(" "))
    );
    assert_eq!(said[2]["content"], "");
}

#[test]
fn ids_and_names_are_those_that_the_platform_takes() {
    let long = format!("mcp__{}__tool", "s".repeat(80));
    let body = json!({
        "messages": [
            {"role": "assistant", "content": [{"type": "tool_use", "id": "f:0", "name": long, "input": {}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "f:0", "content": "x"}]},
        ],
        "tools": [{"name": long, "input_schema": {"type": "object"}}, {"name": "g"}],
        "tool_choice": {"type": "tool", "name": long},
    });
    for (accent, name_length, id_length) in [
        (json!({}), 64, 20),
        (json!({"name_max": 32, "id_length": 9}), 32, 9),
    ] {
        let (made, all) = of_messages(&body, &accent);
        let name = made["tools"][0]["function"]["name"].as_str().unwrap();
        assert_eq!((name.len(), &all.renamed[name]), (name_length, &long));
        let call = &made["messages"][0]["tool_calls"][0];
        assert_eq!(call["function"]["name"], name);
        assert_eq!(made["tool_choice"]["function"]["name"], name);
        let id = call["id"].as_str().unwrap();
        assert_eq!(id.len(), id_length, "{id}");
        assert_eq!(made["messages"][1]["tool_call_id"], id);
    }
}

#[test]
fn a_choice_that_is_not_taken_is_made_by_the_tools() {
    let body = |choice: Value| {
        json!({
            "messages": [{"role": "user", "content": "hi"}], "tools": [{"name": "f"}, {"name": "g"}],
            "tool_choice": choice,
        })
    };
    let one = body(json!({"type": "tool", "name": "g", "disable_parallel_tool_use": true}));
    let any = body(json!({"type": "any"}));
    let none = body(json!({"type": "none"}));
    for (body, accent, tools, choice, left_out) in [
        (
            &one,
            json!({}),
            2,
            json!({"type": "function", "function": {"name": "g"}}),
            vec![],
        ),
        (
            &one,
            json!({"tool_choice": ["auto", "required"]}),
            1,
            json!("required"),
            vec![],
        ),
        (
            &one,
            json!({"tool_choice": ["auto"]}),
            1,
            json!("auto"),
            vec!["tool_choice"],
        ),
        (&any, json!({}), 2, json!("required"), vec![]),
        (
            &any,
            json!({"tool_choice": ["auto"]}),
            2,
            json!("auto"),
            vec!["tool_choice"],
        ),
        (&none, json!({}), 2, json!("none"), vec![]),
        (
            &none,
            json!({"tool_choice": ["auto"]}),
            0,
            Value::Null,
            vec![],
        ),
    ] {
        let (made, all) = of_messages(body, &accent);
        assert_eq!(
            made["tools"].as_array().map_or(0, Vec::len),
            tools,
            "{made}"
        );
        assert_eq!(made["tool_choice"], choice);
        assert_eq!(all.left_out, left_out);
    }
    let (made, _) = of_messages(&one, &json!({}));
    assert_eq!(made["parallel_tool_calls"], false);
    let (made, all) = of_messages(&one, &json!({"refuses": ["parallel_tool_calls"]}));
    assert_eq!(
        (&made["parallel_tool_calls"], all.left_out),
        (&Value::Null, vec!["parallel_tool_calls"])
    );
}

#[test]
fn limits_and_numbers_are_those_of_the_accent() {
    let body = json!({
        "messages": [{"role": "user", "content": "hi"}], "max_tokens": 9000, "temperature": 1.5, "top_p": 0.5,
        "top_k": 3, "stop_sequences": ["a", "b", "c", "d", "e"], "stream": true,
        "thinking": {"type": "enabled", "budget_tokens": 5000}, "metadata": {"user_id": "u"},
    });
    let (made, all) = of_messages(&body, &json!({}));
    let expected = json!({
        "model": "m", "stream": true, "stream_options": {"include_usage": true},
        "messages": [{"role": "user", "content": "hi"}], "max_tokens": 9000, "temperature": 1.5, "top_p": 0.5,
        "stop": ["a", "b", "c", "d"],
    });
    assert_eq!(made, expected);
    assert_eq!(all.left_out, ["reasoning_effort", "stop", "top_k"]);
    let accent = json!({
        "max_tokens_field": "max_completion_tokens", "max_output": 8192, "max_temperature": 1, "takes": ["top_k", "user"],
        "refuses": ["stop"], "one_sampler": true, "set": {"tool_calls_switch": true},
        "effort": {"none": {"thinking": {"type": "disabled"}}, "low": {"thinking": {"type": "enabled"}}},
    });
    let (made, all) = of_messages(&body, &accent);
    let expected = json!({
        "model": "m", "stream": true, "stream_options": {"include_usage": true},
        "messages": [{"role": "user", "content": "hi"}], "max_completion_tokens": 8192, "temperature": 1,
        "top_k": 3, "user": "u", "thinking": {"type": "enabled"}, "tool_calls_switch": true,
    });
    assert_eq!(made, expected);
    assert_eq!(all.left_out, ["stop", "top_p"]);
    let (made, _) = of_messages(&body, &json!({"efforts": ["low", "high"]}));
    assert_eq!(made["reasoning_effort"], "low");
}

#[test]
fn a_schema_is_said_in_the_form_that_the_platform_has() {
    let schema = json!({"type": "object", "properties": {"z": {}, "a": {}}});
    let body = json!({
        "system": [{"type": "text", "text": "be brief"}, {"type": "text", "text": "and kind"}],
        "messages": [{"role": "user", "content": "hi"}],
        "output_config": {"format": {"type": "json_schema", "schema": schema}},
    });
    let (made, _) = of_messages(&body, &json!({}));
    let format = json!({"type": "json_schema", "json_schema": {"name": "structured_output", "schema": schema}});
    assert_eq!(made["response_format"], format);
    assert_eq!(
        made["messages"][0],
        json!({"role": "system", "content": "be brief\n\nand kind"})
    );
    for (form, format, left_out) in [
        ("json_object", json!({"type": "json_object"}), vec![]),
        ("none", Value::Null, vec!["response_format"]),
    ] {
        let (made, all) = of_messages(&body, &json!({"schema": form}));
        assert_eq!(made["response_format"], format);
        assert_eq!(all.left_out, left_out);
        let system = made["messages"][0]["content"].as_str().unwrap();
        assert!(
            system.contains(&format!("JSON Schema, and with nothing else: {schema}")),
            "{system}"
        );
    }
}

#[test]
fn what_is_no_text_is_refused_where_only_text_is_taken() {
    let image =
        json!({"type": "image", "source": {"type": "url", "url": "https://a.example/x.png"}});
    let document = |source: Value| json!({"type": "document", "source": source});
    let body = |block: &Value| json!({"messages": [{"role": "user", "content": [block]}]});
    let alone = json!({"content": "text_alone"});
    let refused = |block: &Value, accent: &Value| {
        to_chat(Dialect::Messages, &body(block), accent)
            .map(|(made, _)| made["messages"].clone())
            .map_err(|refused| refused.why)
    };
    let url = json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://a.example/x.png"}}]}]);
    assert_eq!(refused(&image, &json!({})), Ok(url));
    assert!(
        refused(&image, &alone)
            .unwrap_err()
            .contains("takes no pictures")
    );
    let plain = document(json!({"type": "text", "media_type": "text/plain", "data": "abc"}));
    assert_eq!(
        refused(&plain, &alone),
        Ok(json!([{"role": "user", "content": "abc"}]))
    );
    let web = document(json!({"type": "url", "url": "https://a.example/x.pdf"}));
    assert!(
        refused(&web, &json!({}))
            .unwrap_err()
            .contains("send its data instead")
    );
    let pdf = document(json!({"type": "base64", "media_type": "application/pdf", "data": "QUJD"}));
    let made = refused(&pdf, &json!({})).unwrap();
    let file = json!({"filename": "document.pdf", "file_data": "data:application/pdf;base64,QUJD"});
    assert_eq!(made[0]["content"][0], json!({"type": "file", "file": file}));
}

#[test]
fn a_result_of_no_call_is_refused() {
    let body = json!({"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t"}]}]});
    let refused = to_chat(Dialect::Messages, &body, &json!({})).unwrap_err();
    assert!(
        refused.why.contains("\"t\" does not follow that call"),
        "{refused:?}"
    );
}

/// A chat that goes through the neutral form says the same.
#[test]
fn a_chat_stays_what_it_is() {
    let chat = json!({
        "model": "m", "stream": false, "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": [
                {"type": "text", "text": "look"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD", "detail": "low"}},
                {"type": "input_audio", "input_audio": {"data": "QUJD", "format": "wav"}},
            ]},
            {"role": "assistant", "content": null, "reasoning_content": "hm", "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{\"a\": 1}"}},
                {"id": "c2", "type": "function", "function": {"name": "f", "arguments": "{\"a\""}},
            ]},
            {"role": "tool", "tool_call_id": "c1", "content": "1"},
            {"role": "tool", "tool_call_id": "c2", "content": "2"},
            {"role": "developer", "content": "mind"},
            {"role": "assistant", "content": "done"},
        ],
        "tools": [{"type": "function", "function": {
            "name": "f", "description": "d", "parameters": {"z": 1, "a": 2}, "strict": true,
        }}],
        "parallel_tool_calls": true,
        "tool_choice": {"type": "allowed_tools", "allowed_tools": {
            "mode": "required", "tools": [{"type": "function", "function": {"name": "f"}}],
        }},
        "max_completion_tokens": 5, "temperature": 0.5, "top_p": 1, "seed": 7, "presence_penalty": -1,
        "frequency_penalty": 0.1, "stop": ["x"], "reasoning_effort": "minimal", "verbosity": "low",
        "prompt_cache_key": "k", "service_tier": "flex", "safety_identifier": "u",
        "response_format": {"type": "json_schema", "json_schema": {
            "name": "n", "description": "d", "schema": {"type": "object"}, "strict": true,
        }},
    });
    let accent = json!({
        "max_tokens_field": "max_completion_tokens", "system_between": true, "strict": true,
        "reasoning_in": "reasoning_content", "tool_choice": ["auto", "some"], "efforts": ["minimal", "high"],
        "takes": ["verbosity", "prompt_cache_key", "service_tier", "safety_identifier"],
    });
    let (made, all) = to_chat(Dialect::Chat, &chat, &accent).unwrap();
    let mut expected = chat;
    expected["messages"][5]["role"] = "system".into();
    assert_eq!(made, expected);
    assert_eq!(all.left_out, [""; 0]);
}

/// A tool of a raw text is a function of one argument, and its calls in the conversation are too.
#[test]
fn a_tool_of_a_raw_text_becomes_a_function() {
    let format =
        json!({"type": "grammar", "grammar": {"syntax": "lark", "definition": "start: \"x\""}});
    let chat = json!({
        "messages": [
            {"role": "assistant", "content": null, "tool_calls": [
                {"id": "c", "type": "custom", "custom": {"name": "patch", "input": "a \"b\"\n"}},
            ]},
            {"role": "tool", "tool_call_id": "c", "content": "ok"},
        ],
        "tools": [{"type": "custom", "custom": {"name": "patch", "description": "d", "format": format}}],
    });
    let (made, all) = to_chat(Dialect::Chat, &chat, &json!({})).unwrap();
    assert!(all.about.raw.contains("patch"));
    let function = &made["tools"][0]["function"];
    assert_eq!(function["parameters"]["required"], json!(["input"]));
    let description = function["description"].as_str().unwrap();
    assert!(
        description.starts_with("d\n\n") && description.contains("lark"),
        "{description}"
    );
    let call = &made["messages"][0]["tool_calls"][0]["function"];
    let arguments: Value = serde_json::from_str(call["arguments"].as_str().unwrap()).unwrap();
    assert_eq!(arguments, json!({"input": "a \"b\"\n"}));
}

/// A tool that its caller says to be strict is that, or its caller is told.
#[test]
fn a_strict_tool_stays_one_where_the_platform_has_such() {
    let tool = |strict: &Value| {
        let mut tool = json!({"type": "function", "name": "f", "parameters": {"type": "object"}});
        if !strict.is_null() {
            tool["strict"] = strict.clone();
        }
        json!({"input": "hi", "tools": [tool]})
    };
    let takes = json!({"strict": true});
    for (strict, accent, expected, left_out) in [
        (json!(true), &takes, json!(true), &[][..]),
        (json!(false), &takes, json!(false), &[]),
        // OpenAI makes the schema a strict one where it can; it is no wish of the caller's.
        (Value::Null, &takes, Value::Null, &[]),
        (json!(true), &json!({}), Value::Null, &["strict"]),
        (json!(false), &json!({}), Value::Null, &[]),
        (Value::Null, &json!({}), Value::Null, &[]),
    ] {
        let (made, about) = to_chat(Dialect::Responses, &tool(&strict), accent).unwrap();
        assert_eq!(made["tools"][0]["function"]["strict"], expected);
        assert_eq!(about.left_out, left_out, "{strict}");
    }
    let (asked, none) = (tool(&json!(true)).to_string(), target());
    for platform in [Dialect::Messages, Dialect::Gemini] {
        let made = Dialect::Responses.translate_request(platform, asked.as_bytes(), &none, 0);
        assert_eq!(made.unwrap().left_out, ["strict"], "{platform:?}");
    }
}

#[test]
fn a_prompt_that_is_the_systems_alone_asks_for_json_by_that_word() {
    let body = json!({
        "messages": [{"role": "system", "content": "Where?"}], "response_format": {"type": "json_object"},
    });
    let made = Dialect::Chat.translate_request(
        Dialect::Responses,
        body.to_string().as_bytes(),
        &target(),
        0,
    );
    let made: Value = serde_json::from_slice(&made.unwrap().body).unwrap();
    assert!(made["input"].to_string().contains("JSON"), "{made}");
}

#[test]
fn an_image_is_one() {
    let image =
        json!({"type": "image_url", "image_url": {"url": "data:imag%/png;base64,iVBORw0KGgo="}});
    let body = json!({"messages": [{"role": "user", "content": [image]}]}).to_string();
    let refused = Dialect::Chat.translate_request(Dialect::Gemini, body.as_bytes(), &target(), 0);
    let refused = refused.unwrap_err();
    assert_eq!(refused.path, "messages[0].content[0].image_url.url");
}
