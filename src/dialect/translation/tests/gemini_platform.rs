//! Platforms that speak `gemini`.

use super::*;
use crate::dialect::{accent::Accent, neutral::Finish};

fn accent(value: &Value) -> Accent {
    Accent::parse(value.as_object().unwrap().clone()).unwrap()
}

/// The accent of the newest models.
fn newest() -> Accent {
    accent(&json!({
        "signed_calls": true, "media_in_results": true, "refuses": ["presence_penalty"],
        "effort": {"minimal": {"thinkingLevel": "MINIMAL"}, "high": {"thinkingLevel": "HIGH"}},
    }))
}

/// The request of `gemini` that one of `caller` becomes.
fn becomes(
    caller: Dialect,
    body: &Value,
    accent: &Accent,
) -> Result<(Value, TranslatedRequest), String> {
    let text = body.to_string();
    let target = Target { accent, ..target() };
    match caller.translate_request(Dialect::Gemini, text.as_bytes(), &target, 0) {
        Ok(made) => Ok((serde_json::from_slice(&made.body).unwrap(), made)),
        Err(refused) => Err(format!("{}: {}", refused.path, refused.why)),
    }
}

#[test]
fn what_claude_code_sends_becomes_contents_that_take_turns() {
    let own = names::envelope("gemini", "1f", "c2ln");
    let other = names::envelope("gemini", "2f", "bm8=");
    let (made, all) = becomes(Dialect::Messages, &json!({
        "model": "x", "max_tokens": 99, "stream": true, "temperature": 0.5, "top_k": 3, "stop_sequences": ["x"],
        "system": [{"type": "text", "text": "You are"}, {"type": "text", "text": "brief"}],
        "thinking": {"type": "adaptive"},
        "tools": [
            {"name": "1st/tool", "description": "d", "input_schema": {"type": "object", "additionalProperties": false}},
            {"type": "web_search_20250305", "name": "web_search"},
        ],
        "tool_choice": {"type": "any", "disable_parallel_tool_use": true},
        "messages": [
            {"role": "user", "content": [
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "QUJD"}},
                {"type": "text", "text": "hi"},
            ]},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "hm", "signature": own},
                {"type": "text", "text": "I call"},
                {"type": "thinking", "thinking": "hm", "signature": other},
                {"type": "tool_use", "id": "t1", "name": "1st/tool", "input": {"b": 1, "a": 2}},
                {"type": "tool_use", "id": "t2", "name": "1st/tool", "input": {}},
                {"type": "tool_use", "id": "t3", "name": "1st/tool", "input": {}},
            ]},
            {"role": "system", "content": "mind"},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "t2", "is_error": true, "content": "no"},
                {"type": "tool_result", "tool_use_id": "t1", "content": [
                    {"type": "text", "text": "{\"n\": 1}"},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "REVG"}},
                ]},
                {"type": "text", "text": "go on"},
            ]},
            {"role": "assistant", "content": "it is"},
        ],
    }), &newest()).unwrap();
    assert_eq!(all.left_out, ["messages", "parallel_tool_calls", "tools"]);
    let name = all.renamed.keys().next().unwrap();
    assert!(
        name.starts_with('_') && all.renamed[name] == "1st/tool",
        "{name}"
    );
    let call = |id: &str, args: Value| json!({"id": id, "name": name, "args": args});
    let expected = json!([
        {"role": "user", "parts": [{"inlineData": {"mimeType": "image/png", "data": "QUJD"}}, {"text": "hi"}]},
        {"role": "model", "parts": [
            {"text": "I call", "thoughtSignature": "c2ln"},
            {"functionCall": call("t1", json!({"b": 1, "a": 2})), "thoughtSignature": "skip_thought_signature_validator"},
            {"functionCall": call("t2", json!({}))},
            {"functionCall": call("t3", json!({}))},
        ]},
        {"role": "user", "parts": [
            {"functionResponse": {"id": "t1", "name": name, "response": {"n": 1}, "parts": [
                {"inlineData": {"mimeType": "image/png", "data": "REVG"}},
            ]}},
            {"functionResponse": {"id": "t2", "name": name, "response": {"error": "no"}}},
            {"functionResponse": {"id": "t3", "name": name, "response": {"error": NO_RESULT}}},
            {"text": "<system-reminder>\nmind\n</system-reminder>"},
            {"text": "go on"},
        ]},
    ]);
    assert_eq!(made["contents"], expected);
    assert_eq!(
        made["systemInstruction"],
        json!({"parts": [{"text": "You are"}, {"text": "brief"}]})
    );
    assert_eq!(
        made["tools"],
        json!([{"functionDeclarations": [{
            "name": name, "description": "d", "parametersJsonSchema": {"type": "object", "additionalProperties": false},
        }]}])
    );
    assert_eq!(
        made["toolConfig"],
        json!({"functionCallingConfig": {"mode": "ANY"}})
    );
    assert_eq!(
        made["generationConfig"],
        json!({
            "temperature": 0.5, "topK": 3, "maxOutputTokens": 99, "stopSequences": ["x"],
            "thinkingConfig": {"includeThoughts": true, "thinkingLevel": "HIGH"},
        })
    );
    let members: Vec<_> = made.as_object().unwrap().keys().collect();
    assert_eq!(
        members,
        [
            "contents",
            "generationConfig",
            "systemInstruction",
            "toolConfig",
            "tools"
        ]
    );
}

use crate::dialect::neutral::conversation::NO_RESULT;

#[test]
fn older_models_are_told_in_their_own_way() {
    let older = accent(&json!({
        "form_or_tools": true, "effort": {"none": {"thinkingBudget": 0}, "low": {"thinkingBudget": 1024}},
    }));
    let (made, all) = becomes(Dialect::Chat, &json!({
        "model": "x", "reasoning_effort": "high", "n": 1, "presence_penalty": 1, "parallel_tool_calls": true,
        "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object"}}},
        "stop": ["1", "2", "3", "4", "5", "6"],
        "tools": [{"type": "function", "function": {"name": "f"}}],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "messages": [
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": null, "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "no json"}}]},
            {"role": "tool", "tool_call_id": "c", "content": "2"},
        ],
    }), &older).unwrap();
    assert_eq!(all.left_out, ["response_format", "stop"]);
    assert_eq!(
        made["contents"][1]["parts"],
        json!([{"functionCall": {"id": "c", "name": "f", "args": {"input": "no json"}}}])
    );
    assert_eq!(
        made["contents"][2]["parts"][0]["functionResponse"]["response"],
        json!({"output": "2"})
    );
    assert_eq!(
        made["toolConfig"],
        json!({"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["f"]}})
    );
    let config = &made["generationConfig"];
    assert_eq!(config["thinkingConfig"]["thinkingBudget"], 1024);
    assert_eq!(config["presencePenalty"], 1);
    assert_eq!(config["stopSequences"], json!(["1", "2", "3", "4", "5"]));

    let form =
        json!({"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object"}}});
    let chat = json!({"messages": [{"role": "system", "content": "be brief"}], "response_format": form, "presence_penalty": 1});
    let (made, all) = becomes(Dialect::Chat, &chat, &newest()).unwrap();
    assert_eq!(all.left_out, ["presence_penalty"]);
    assert_eq!(
        made["contents"],
        json!([{"role": "user", "parts": [{"text": "be brief"}]}])
    );
    assert_eq!(made.get("systemInstruction"), None);
    assert_eq!(
        made["generationConfig"]["responseJsonSchema"],
        json!({"type": "object"})
    );
    assert_eq!(
        made["generationConfig"]["responseMimeType"],
        "application/json"
    );
}

#[test]
fn what_has_no_form_is_refused() {
    let image = json!({"type": "image_url", "image_url": {"url": "https://x/y.png"}});
    let chat = json!({"messages": [{"role": "user", "content": [image]}]});
    let refused = becomes(Dialect::Chat, &chat, &newest())
        .map(|(made, _)| made)
        .unwrap_err();
    assert!(refused.contains("fetch no addresses"), "{refused}");
    let orphan = json!({"messages": [{"role": "tool", "tool_call_id": "c", "content": "x"}]});
    let refused = becomes(Dialect::Chat, &orphan, &newest())
        .map(|(made, _)| made)
        .unwrap_err();
    assert!(refused.contains("does not follow that call"), "{refused}");
}

/// An answer of `gemini` with thoughts, text and two calls, as events.
fn answer_of_gemini() -> Vec<u8> {
    let parts = |parts: Value| json!({"candidates": [{"content": {"role": "model", "parts": parts}, "index": 0}], "responseId": "r1", "modelVersion": "gemini-3"});
    let events = [
        parts(json!([{"text": "h", "thought": true}])),
        parts(json!([{"text": "m", "thought": true}])),
        parts(json!([{"text": "Hi "}])),
        json!({"usageMetadata": {"promptTokenCount": 4}}),
        parts(
            json!([{"text": "\u{1f600}"}, {"functionCall": {"id": "c1", "name": "f", "args": {"a": 1}}, "thoughtSignature": "c2ln"}]),
        ),
        parts(json!([{"functionCall": {"name": "f", "args": {}}}])),
        json!({
            "candidates": [{"content": {"parts": [{"text": "", "thoughtSignature": "ZW5k"}]}, "finishReason": "STOP"}],
            "usageMetadata": {"promptTokenCount": 10, "cachedContentTokenCount": 4, "candidatesTokenCount": 3, "thoughtsTokenCount": 2, "totalTokenCount": 15},
        }),
    ];
    events
        .iter()
        .map(|event| format!("data: {event}\r\n\r\n"))
        .collect::<String>()
        .into_bytes()
}

fn of_gemini(caller: Dialect, as_stream: bool, pieces: &[&[u8]]) -> Written {
    let renamed = BTreeMap::from([("f".to_owned(), "own/f".to_owned())]);
    let about = About::default();
    let translation =
        AnswerTranslation::new(Dialect::Gemini, caller, as_stream, about, "1f", renamed);
    let mut translation = translation.unwrap();
    let mut all = Vec::new();
    for (number, piece) in pieces.iter().enumerate() {
        match translation.on_body(piece, number + 1 == pieces.len()) {
            Written::Stream(bytes) => all.extend(bytes),
            Written::NotYet => {}
            other => return other,
        }
    }
    Written::Stream(all)
}

fn stream_of_gemini(caller: Dialect, pieces: &[&[u8]]) -> String {
    match of_gemini(caller, true, pieces) {
        Written::Stream(bytes) => String::from_utf8(bytes).unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_answer_of_gemini_is_a_message() {
    let answer = answer_of_gemini();
    let sealed = |payload: &str| names::envelope("gemini", "1f", payload);
    let second = |message: &Value| message["content"][4]["id"].as_str().unwrap().to_owned();
    let Written::Whole(body) = of_gemini(Dialect::Messages, false, &[&answer]) else {
        panic!("no answer");
    };
    let message: Value = serde_json::from_slice(&body).unwrap();
    let id = second(&message);
    assert!(id.starts_with("call_") && id.len() == 21, "{id}");
    assert_eq!(
        message["content"],
        json!([
            {"type": "thinking", "thinking": "hm", "signature": ""},
            {"type": "text", "text": "Hi \u{1f600}"},
            {"type": "redacted_thinking", "data": sealed("c2ln")},
            {"type": "tool_use", "id": "c1", "name": "own/f", "input": {"a": 1}},
            {"type": "tool_use", "id": id, "name": "own/f", "input": {}},
            {"type": "redacted_thinking", "data": sealed("ZW5k")},
        ])
    );
}

/// What only Google reads stands in blocks of its own, in a stream as in the whole.
#[test]
fn a_stream_of_messages_has_what_only_the_platform_reads() {
    let stream = stream_of_gemini(Dialect::Messages, &[&answer_of_gemini()]);
    let starts = stream.split("\n\n").filter_map(|event| {
        let data = event.split_once("data: ")?.1;
        let data: Value = serde_json::from_str(data).unwrap();
        (data["type"] == "content_block_start")
            .then(|| (data["index"].clone(), data["content_block"].clone()))
    });
    let starts: Vec<(Value, Value)> = starts.collect();
    let kinds: Vec<&str> = starts
        .iter()
        .map(|(_, block)| block["type"].as_str().unwrap())
        .collect();
    assert_eq!(
        kinds,
        [
            "thinking",
            "text",
            "redacted_thinking",
            "tool_use",
            "tool_use",
            "redacted_thinking"
        ]
    );
    for (at, payload) in [(2, "c2ln"), (5, "ZW5k")] {
        assert_eq!(
            starts[at].1["data"],
            names::envelope("gemini", "1f", payload)
        );
    }
    for (at, (index, _)) in starts.iter().enumerate() {
        assert_eq!(*index, json!(at), "no number is left out");
    }
    let stops = stream.matches("event: content_block_stop").count();
    assert_eq!(stops, starts.len(), "{stream}");
}

/// What a caller of chat gets of a call, it sends back as it is: so does its signature.
#[test]
fn a_signature_travels_with_the_call_of_a_chat() {
    let answer = answer_of_gemini();
    let state =
        |translation: &Value| translation["extra_content"]["google"]["thought_signature"].clone();
    let about = |platform: Dialect| {
        let body = json!({"messages": [{"role": "user", "content": "x"}]}).to_string();
        let made = Dialect::Chat.translate_request(platform, body.as_bytes(), &target(), 0);
        made.unwrap().about
    };
    let answered = |as_stream| {
        let about = about(Dialect::Gemini);
        let translation = AnswerTranslation::new(
            Dialect::Gemini,
            Dialect::Chat,
            as_stream,
            about,
            "1f",
            BTreeMap::new(),
        );
        translation.unwrap().on_body(&answer, true)
    };
    let Written::Whole(body) = answered(false) else {
        panic!("no answer");
    };
    let chat: Value = serde_json::from_slice(&body).unwrap();
    let said = &chat["choices"][0]["message"];
    let sealed = names::envelope("gemini", "1f", "c2ln");
    assert_eq!(state(&said["tool_calls"][0]), json!(sealed));
    assert_eq!(state(&said["tool_calls"][1]), Value::Null);
    let Written::Stream(stream) = answered(true) else {
        panic!("no stream");
    };
    let stream = String::from_utf8(stream).unwrap();
    assert_eq!(stream.matches(&sealed).count(), 1, "{stream}");

    let result = |at: usize| json!({"role": "tool", "tool_call_id": said["tool_calls"][at]["id"], "content": "2"});
    let turns = json!([{"role": "user", "content": "hi"}, said, result(0), result(1)]);
    let signatures = |owner: &'static str| {
        let accent = newest();
        let target = Target {
            accent: &accent,
            owner,
            ..target()
        };
        let body = json!({"messages": turns}).to_string();
        let made = Dialect::Chat.translate_request(Dialect::Gemini, body.as_bytes(), &target, 0);
        let made: Value = serde_json::from_slice(&made.unwrap().body).unwrap();
        let parts = made["contents"][1]["parts"].as_array().unwrap().iter();
        parts
            .filter_map(|part| part.get("thoughtSignature").cloned())
            .collect::<Vec<_>>()
    };
    assert_eq!(signatures("1f"), [json!("c2ln")]);
    assert_eq!(
        signatures("2f"),
        [json!("skip_thought_signature_validator")],
        "another platform's"
    );

    // What Claude signed is nothing without its thoughts, which no caller of chat gives back unchanged.
    assert!(!about(Dialect::Messages).state_beside_calls);
}

/// A signature that stands before a text is not that of the call behind it.
#[test]
fn a_call_has_no_signature_but_its_own() {
    let parts = json!([{"text": "Hi", "thoughtSignature": "dGV4dA=="}, {"functionCall": {"id": "c1", "name": "f", "args": {}}}]);
    let body =
        json!({"candidates": [{"content": {"parts": parts}, "finishReason": "STOP"}]}).to_string();
    for as_stream in [false, true] {
        let about = About {
            state_beside_calls: true,
            ..About::default()
        };
        let translation = AnswerTranslation::new(
            Dialect::Gemini,
            Dialect::Chat,
            as_stream,
            about,
            "1f",
            BTreeMap::new(),
        );
        let (Written::Whole(bytes) | Written::Stream(bytes)) =
            translation.unwrap().on_body(body.as_bytes(), true)
        else {
            panic!("no answer");
        };
        let text = String::from_utf8(bytes).unwrap();
        assert!(
            text.contains("\"tool_calls\"") && !text.contains("dGV4dA"),
            "{text}"
        );
    }
}

#[test]
fn an_answer_of_gemini_is_the_same_wherever_it_is_cut() {
    let answer = answer_of_gemini();
    for caller in [Dialect::Chat, Dialect::Messages, Dialect::Responses] {
        let expected = stream_of_gemini(caller, &[&answer]);
        assert!(!expected.contains("\"error\":{"), "{expected}");
        for cut in 0..answer.len() {
            let (first, rest) = answer.split_at(cut);
            assert_eq!(stream_of_gemini(caller, &[first, rest]), expected, "{cut}");
        }
    }
    let Written::Whole(body) = of_gemini(Dialect::Chat, false, &[&answer]) else {
        panic!("no answer");
    };
    let chat: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(chat["choices"][0]["finish_reason"], "tool_calls");
    assert_eq!(chat["usage"]["prompt_tokens"], 10);
    assert_eq!(chat["usage"]["prompt_tokens_details"]["cached_tokens"], 4);
    assert_eq!(chat["usage"]["completion_tokens"], 5);
    assert_eq!(
        chat["usage"]["completion_tokens_details"]["reasoning_tokens"],
        2
    );
}

#[test]
fn an_answer_of_gemini_without_an_end_is_a_failure() {
    let answer = answer_of_gemini();
    let end = answer
        .windows(12)
        .rposition(|window| window == b"finishReason")
        .unwrap();
    for cut in 0..end {
        let stream = stream_of_gemini(Dialect::Messages, &[&answer[..cut]]);
        assert!(
            stream.contains("event: error") && !stream.contains("message_stop"),
            "{stream}"
        );
    }
}

/// What is read of one whole answer.
fn read(body: &Value) -> Vec<Event> {
    let mut reader = Dialect::Gemini.format().parts().read_answer.unwrap()();
    let mut events = Vec::new();
    reader.on_whole(body.to_string().as_bytes(), &mut events);
    events
}

#[test]
fn every_end_is_told_as_what_it_is() {
    let ends = |reason: &str| {
        let body = json!({"candidates": [{"content": {"parts": [{"text": "x"}]}, "finishReason": reason}]});
        read(&body).into_iter().rev().find_map(|event| match event {
            Event::Finish(finish) => Some(Ok(finish)),
            Event::Fail(failure) => Some(Err(failure.code.unwrap_or_default())),
            _ => None,
        })
    };
    for (reason, finish) in [
        ("STOP", Finish::Done),
        ("MAX_TOKENS", Finish::Length),
        ("SAFETY", Finish::Refused),
        ("RECITATION", Finish::Refused),
        ("SOMETHING_NEW", Finish::Refused),
    ] {
        assert_eq!(ends(reason), Some(Ok(finish)), "{reason}");
    }
    let broken = "MALFORMED_FUNCTION_CALL";
    assert_eq!(ends(broken), Some(Err(broken.to_owned())));
    let blocked = read(
        &json!({"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 3}}),
    );
    assert!(blocked.contains(&Event::Finish(Finish::Refused)) && blocked.ends_with(&[Event::End]));
    let error = json!({"error": {"code": 429, "message": "slow", "status": "RESOURCE_EXHAUSTED"}});
    let failure = Failure {
        status: 429,
        message: "slow".to_owned(),
        // The word says no more than the status.
        code: None,
    };
    for body in [error.clone(), json!([error])] {
        assert_eq!(read(&body), [Event::Fail(failure.clone())]);
    }
    // What a platform has around its answers is off before they are read here.
    let wrapped = json!({"response": {"candidates": [{"finishReason": "STOP"}]}, "traceId": "t"});
    assert!(matches!(read(&wrapped).last(), Some(Event::Fail(_))));
}
