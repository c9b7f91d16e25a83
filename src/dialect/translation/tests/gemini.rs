//! Callers of `gemini`.

use proptest::prelude::*;

use super::{
    grammar::{elements, of_both, said_in_gemini as said},
    *,
};
use crate::dialect::neutral::Finish;

const PATH: &str = "/v1beta/models/gpt-5.6:generateContent";

/// The request of `responses` that one of `gemini` becomes.
fn made(gemini: &Value, asked_at: &str) -> Result<(Value, TranslatedRequest), String> {
    let text = gemini.to_string();
    let target = Target {
        asked_at,
        ..target()
    };
    let made = Dialect::Gemini.translate_request(Dialect::Responses, text.as_bytes(), &target, 0);
    match made {
        Ok(made) => Ok((serde_json::from_slice(&made.body).unwrap(), made)),
        Err(refused) => Err(format!("{}: {}", refused.path, refused.why)),
    }
}

fn base64(text: &str) -> String {
    use ::base64::Engine as _;
    ::base64::engine::general_purpose::STANDARD.encode(text)
}

/// A name in snake case.
fn snake(name: &str) -> String {
    let mut snake = String::new();
    for char in name.chars() {
        if char.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(char.to_ascii_lowercase());
    }
    snake
}

/// The same with Google's other names: in snake case.
fn snaked(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(snaked).collect(),
        Value::Object(members) => members
            .iter()
            .map(|(name, value)| match name.as_str() {
                "args" | "response" | "properties" | "parametersJsonSchema" => {
                    (snake(name), value.clone())
                }
                _ => (snake(name), snaked(value)),
            })
            .collect(),
        other => other.clone(),
    }
}

#[test]
fn what_gemini_cli_sends_becomes_a_response_whichever_names_it_has() {
    let own = base64(&names::envelope("responses", "1f", "gAAA"));
    let other = base64(&names::envelope("responses", "2f", "gBBB"));
    let gemini = json!({
        "systemInstruction": {"role": "user", "parts": [{"text": "You are"}, {"text": "brief"}]},
        "contents": [
            {"role": "user", "parts": [{"text": "look"}, {"inlineData": {"mimeType": "image/jpg", "data": "-_A="}}]},
            {"role": "model", "parts": [
                {"text": "hm", "thought": true},
                {"text": "I call", "thoughtSignature": other},
                {"functionCall": {"name": "read_file", "args": {"b": 1, "a": [2]}}, "thoughtSignature": own},
                {"functionCall": {"name": "read_file", "args": {}}},
                {"functionCall": {"id": "c9", "name": "ls"}, "thoughtSignature": "skip_thought_signature_validator"},
            ]},
            {"role": "user", "parts": [
                {"functionResponse": {"id": "c9", "name": "ls", "response": {"error": "no"}}},
                {"functionResponse": {"name": "read_file", "response": {"output": "one"}, "parts": [
                    {"inlineData": {"mimeType": "image/png", "data": "QUJD"}},
                ]}},
                {"functionResponse": {"name": "read_file", "response": {"lines": [1]}}},
                {"text": "go on"},
            ]},
        ],
        "tools": [
            {"functionDeclarations": [
                {"name": "read_file", "description": "d", "parametersJsonSchema": {"type": "object"}},
                {"name": "ls", "parameters": {
                    "type": "OBJECT", "nullable": true, "propertyOrdering": ["type"],
                    "properties": {"type": {"type": "ARRAY", "minItems": "2", "items": {"type": "STRING", "format": "enum"}}},
                    "required": ["type"],
                }},
            ]},
            {"googleSearch": {}},
        ],
        "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["ls"]}},
        "generationConfig": {
            "temperature": 0.5, "topP": 1, "topK": 64, "maxOutputTokens": 99, "stopSequences": ["x"],
            "responseMimeType": "application/json", "responseSchema": {"type": "OBJECT", "properties": {"a": {"type": "INTEGER"}}},
            "thinkingConfig": {"includeThoughts": true, "thinkingLevel": "HIGH"},
        },
        "safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "OFF"}],
    });
    let (made_of_camel, all) = made(&gemini, PATH).unwrap();
    let (made_of_snake, _) = made(&snaked(&gemini), PATH).unwrap();
    assert_eq!(made_of_camel, made_of_snake);
    assert_eq!(all.left_out, ["stop", "tools", "top_k"]);
    assert_eq!(all.about.model, "gpt-5.6");
    let made = made_of_camel;
    let expected = json!([
        {"type": "message", "role": "user", "content": [
            {"type": "input_text", "text": "look"},
            {"type": "input_image", "image_url": "data:image/jpeg;base64,+/A=", "detail": "auto"},
        ]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I call"}]},
        {"type": "reasoning", "summary": [], "encrypted_content": "gAAA"},
        {"type": "function_call", "call_id": "call_1_2", "name": "read_file", "arguments": "{\"a\":[2],\"b\":1}"},
        {"type": "function_call", "call_id": "call_1_3", "name": "read_file", "arguments": "{}"},
        {"type": "function_call", "call_id": "c9", "name": "ls", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "call_1_2", "output": [
            {"type": "input_text", "text": "one"},
            {"type": "input_image", "image_url": "data:image/png;base64,QUJD", "detail": "auto"},
        ]},
        {"type": "function_call_output", "call_id": "call_1_3", "output": "{\"lines\":[1]}"},
        {"type": "function_call_output", "call_id": "c9", "output": "no"},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "go on"}]},
    ]);
    assert_eq!(made["input"], expected);
    assert_eq!(made["instructions"], "You are\n\nbrief");
    let schema = json!({
        "type": ["object", "null"], "required": ["type"],
        "properties": {"type": {"type": "array", "minItems": 2, "items": {"type": "string", "format": "enum"}}},
    });
    assert_eq!(made["tools"][1]["parameters"], schema);
    assert_eq!(made["tools"][0]["parameters"], json!({"type": "object"}));
    assert_eq!(
        made["tool_choice"],
        json!({"type": "function", "name": "ls"})
    );
    assert_eq!(
        made["reasoning"],
        json!({"effort": "high", "summary": "auto"})
    );
    assert_eq!(
        made["text"]["format"]["schema"],
        json!({"type": "object", "properties": {"a": {"type": "integer"}}})
    );
    assert_eq!(
        (&made["temperature"], &made["max_output_tokens"]),
        (&json!(0.5), &json!(99))
    );
}

#[test]
fn the_path_says_the_model_and_the_form_of_the_answer() {
    let asked = json!({"contents": {"parts": [{"text": "hi"}]}});
    for (verb, stream, as_list) in [
        (":generateContent", false, false),
        (":generateContent?alt=sse", false, false),
        (":streamGenerateContent", true, true),
        (":streamGenerateContent?key=x&alt=json", true, true),
        (":streamGenerateContent?key=x&alt=sse", true, false),
    ] {
        let (made, all) = made(&asked, &format!("/v1beta/models/m-1{verb}")).unwrap();
        assert_eq!(made["stream"], json!(stream), "{verb}");
        assert_eq!((all.stream, all.about.as_list), (stream, as_list), "{verb}");
        assert_eq!(all.about.model, "m-1");
    }
}

#[test]
fn a_budget_is_an_effort() {
    for (budget, effort) in [(0, "none"), (-1, "high"), (512, "low"), (9000, "high")] {
        let config = json!({"thinkingConfig": {"thinkingBudget": budget}});
        let (made, _) = made(&json!({"contents": [], "generationConfig": config}), PATH).unwrap();
        assert_eq!(made["reasoning"], json!({"effort": effort}), "{budget}");
    }
}

#[test]
fn a_member_that_is_wrong_is_named_by_its_path() {
    let parts = |parts: Value| json!({"contents": [{"role": "user", "parts": parts}]});
    let config = |config: Value| json!({"contents": [], "generationConfig": config});
    for (gemini, says) in [
        (json!({}), ": contents is missing"),
        (
            json!({"contents": 3}),
            "contents: expected a list, found a number",
        ),
        (
            json!({"contents": [{"role": "robot"}]}),
            "contents[0].role: expected user or model",
        ),
        (
            parts(json!([{}])),
            "contents[0].parts[0]: this kind of content",
        ),
        (
            parts(json!([{"text": "a"}, {"videoMetadata": {}}])),
            "contents[0].parts[1]: this kind",
        ),
        (
            parts(json!([{"fileData": {"fileUri": "https://x/files/1"}}])),
            "contents[0].parts[0].fileData.fileUri: that file",
        ),
        (
            parts(json!([{"inline_data": {"mime_type": "video/mp4", "data": ""}}])),
            "contents[0].parts[0].inline_data.mime_type: this kind",
        ),
        (
            parts(json!([{"functionCall": {"name": "f", "args": []}}])),
            "contents[0].parts[0].functionCall.args: expected an object, found a list",
        ),
        (
            parts(json!([{"functionResponse": {"name": "f", "response": {}}}])),
            "contents[0].parts[0].functionResponse: no call of this tool",
        ),
        (
            config(json!({"candidateCount": 2})),
            "generationConfig.candidateCount: more than one",
        ),
        (
            config(json!({"responseModalities": ["TEXT", "IMAGE"]})),
            "generationConfig.responseModalities[1]: an answer",
        ),
        (
            json!({"contents": [], "cachedContent": "cachedContents/1"}),
            "cachedContent: what is cached",
        ),
    ] {
        let refused = made(&gemini, PATH).map(|(made, _)| made).unwrap_err();
        assert!(refused.starts_with(says), "{refused}");
    }
}

fn streamed_as(as_list: bool, pieces: &[&[u8]]) -> String {
    let about = About {
        as_list,
        ..About::default()
    };
    let renamed = BTreeMap::from([("f".to_owned(), "own/f".to_owned())]);
    let (platform, caller) = (Dialect::Responses, Dialect::Gemini);
    let translation = AnswerTranslation::new(platform, caller, true, about, "1f", renamed);
    let mut translation = translation.unwrap();
    let mut all = Vec::new();
    for (number, piece) in pieces.iter().enumerate() {
        match translation.on_body(piece, number + 1 == pieces.len()) {
            Written::Stream(bytes) => all.extend(bytes),
            other => panic!("{other:?}"),
        }
    }
    String::from_utf8(all).unwrap()
}

#[test]
fn a_stream_has_whole_calls_and_is_the_same_wherever_it_is_cut() {
    let answer = answer();
    let signature = base64(&names::envelope("responses", "1f", "gAAA"));
    let expected = [
        json!({"text": "a", "thought": true}).to_string(),
        json!({"text": "\n\nb", "thought": true}).to_string(),
        json!({"text": "Hi \u{1f600}", "thoughtSignature": signature}).to_string(),
        json!({"functionCall": {"id": "c2", "name": "own/f", "args": {"b": 2}}}).to_string(),
        json!({"functionCall": {"id": "c1", "name": "own/f", "args": {"a": 1}}}).to_string(),
        "STOP".to_owned(),
    ];
    for as_list in [false, true] {
        let whole = streamed_as(as_list, &[&answer]);
        let elements = elements(&whole, as_list);
        assert_eq!(said(&elements), expected);
        let usage = json!({"promptTokenCount": 10, "cachedContentTokenCount": 4, "candidatesTokenCount": 3, "totalTokenCount": 13});
        assert_eq!(elements.last().unwrap()["usageMetadata"], usage);
        for cut in 0..answer.len() {
            let (first, rest) = answer.split_at(cut);
            assert_eq!(streamed_as(as_list, &[first, rest]), whole, "{cut}");
        }
    }
}

#[test]
fn a_stream_that_breaks_off_ends_with_an_error_of_googles() {
    let answer = answer();
    let end = answer
        .windows(25)
        .rposition(|window| window == b"event: response.completed");
    for cut in 0..end.unwrap() {
        for as_list in [false, true] {
            let stream = streamed_as(as_list, &[&answer[..cut]]);
            let said = said(&elements(&stream, as_list));
            assert_eq!(said.last().map(String::as_str), Some("error"), "{stream}");
        }
    }
}

#[test]
fn a_whole_answer_has_all_parts_in_order() {
    let translation = AnswerTranslation::new(
        Dialect::Responses,
        Dialect::Gemini,
        false,
        About::default(),
        "1f",
        BTreeMap::new(),
    );
    let Written::Whole(body) = translation.unwrap().on_body(&answer(), true) else {
        panic!("no answer");
    };
    let body: Value = serde_json::from_slice(&body).unwrap();
    let signature = base64(&names::envelope("responses", "1f", "gAAA"));
    let expected = json!({
        "candidates": [{"content": {"role": "model", "parts": [
            {"text": "a\n\nb", "thought": true},
            {"text": "Hi \u{1f600}", "thoughtSignature": signature},
            {"functionCall": {"id": "c1", "name": "f", "args": {"a": 1}}},
            {"functionCall": {"id": "c2", "name": "f", "args": {"b": 2}}},
        ]}, "finishReason": "STOP", "index": 0}],
        "usageMetadata": {"promptTokenCount": 10, "cachedContentTokenCount": 4, "candidatesTokenCount": 3, "totalTokenCount": 13},
        "modelVersion": "gpt-5.6", "responseId": "resp_1",
    });
    assert_eq!(body, expected);
}

/// What a writer makes of these steps, as a stream and whole.
fn written(events: &[Event]) -> (Vec<String>, Result<Value, Failure>) {
    let write = Dialect::Gemini.format().parts().write_answer.unwrap();
    let mut writer = write(About::default());
    let mut bytes = Vec::new();
    events
        .iter()
        .for_each(|event| writer.stream(event, &mut bytes));
    let stream = said(&elements(&String::from_utf8(bytes).unwrap(), false));
    let whole = writer.whole(events);
    (
        stream,
        whole.map(|body| serde_json::from_slice(&body).unwrap()),
    )
}

fn call(arguments: &str, finish: Finish) -> Vec<Event> {
    let kind = BlockKind::Call {
        id: "c".to_owned(),
        name: "f".to_owned(),
        raw: false,
    };
    let block = 0;
    let text = arguments.to_owned();
    vec![
        Event::Open { block, kind },
        Event::Delta { block, text },
        Event::Close { block },
        Event::Finish(finish),
        Event::End,
    ]
}

#[test]
fn a_call_that_the_limit_cut_is_none_and_any_other_takes_an_object() {
    for (arguments, finish, word) in [
        ("{\"a\":", Finish::Length, "MAX_TOKENS"),
        ("{\"a\":", Finish::ContextFull, "MAX_TOKENS"),
        ("{\"a\":", Finish::Refused, "SAFETY"),
        ("", Finish::Length, "MAX_TOKENS"),
    ] {
        let (stream, whole) = written(&call(arguments, finish));
        assert_eq!(stream, [word], "{arguments}");
        assert_eq!(
            whole.unwrap()["candidates"][0]["content"]["parts"],
            json!([{"text": ""}])
        );
    }
    // What another one follows was not cut, and stays before it.
    let call_of = |block, text: &str| {
        let mut events = call(text, Finish::Length);
        events.truncate(3);
        for event in &mut events {
            match event {
                Event::Open { block: of, .. }
                | Event::Delta { block: of, .. }
                | Event::Close { block: of } => *of = block,
                _ => {}
            }
        }
        events
    };
    let end = [Event::Finish(Finish::Length), Event::End];
    let two = [call_of(0, ""), call_of(1, "{\"a\":1}"), end.to_vec()].concat();
    let (stream, whole) = written(&two);
    assert_eq!(stream.len(), 3, "{stream:?}");
    assert!(
        stream[0].contains("{}") && stream[1].contains("\"a\":1"),
        "{stream:?}"
    );
    let parts = whole.unwrap()["candidates"][0]["content"]["parts"].take();
    assert_eq!(parts.as_array().map(Vec::len), Some(2));
    let part = json!({"functionCall": {"id": "c", "name": "f", "args": {"input": "3"}}});
    let (stream, whole) = written(&call("3", Finish::Calls));
    assert_eq!(stream, [part.to_string(), "STOP".to_owned()]);
    assert_eq!(
        whole.unwrap()["candidates"][0]["content"]["parts"],
        json!([part])
    );
}

#[test]
fn every_reason_has_its_word_and_every_error_its_status() {
    for (finish, word) in [
        (Finish::Done, "STOP"),
        (Finish::Stop(Some("x".to_owned())), "STOP"),
        (Finish::ContextFull, "MAX_TOKENS"),
        (Finish::Refused, "SAFETY"),
        (Finish::Paused, "OTHER"),
    ] {
        let (stream, whole) = written(&[Event::Finish(finish), Event::End]);
        assert_eq!(stream, [word]);
        assert_eq!(whole.unwrap()["candidates"][0]["finishReason"], word);
    }
    let write = Dialect::Gemini.format().parts().write_answer.unwrap();
    for (status, code, word) in [
        (400, 400, "INVALID_ARGUMENT"),
        (401, 401, "UNAUTHENTICATED"),
        (429, 429, "RESOURCE_EXHAUSTED"),
        (529, 503, "UNAVAILABLE"),
        (502, 502, "INTERNAL"),
    ] {
        let body = write(About::default()).error(&Failure {
            status,
            message: "so \"it\" is".to_owned(),
            code: Some("theirs".to_owned()),
        });
        let body: Value = serde_json::from_slice(&body).unwrap();
        let error = &body["error"];
        assert_eq!(
            (&error["code"], &error["status"]),
            (&json!(code), &json!(word))
        );
        assert_eq!(error["message"], "so \"it\" is");
        assert_eq!(error["details"][0]["reason"], "theirs");
    }
}

#[test]
fn what_waits_for_its_end_has_a_bound() {
    let mut events = call(&"x".repeat(1_100_000), Finish::Calls);
    events.truncate(2);
    let (stream, _) = written(&events);
    assert_eq!(stream, ["error"]);
}

proptest! {
    /// A conversation without ids has each result at its call, in whatever order results of other tools come.
    #[test]
    fn results_without_ids_find_their_calls(tools in proptest::collection::vec(0..3_u8, 1..8), seed: u64) {
        let call = |tool: &u8| json!({"functionCall": {"name": format!("t{tool}"), "args": {}}});
        let mut order: Vec<usize> = (0..tools.len()).collect();
        order.sort_by_key(|at| (u64::from(tools[*at]).wrapping_mul(seed | 1) % 7, *at));
        let result = |at: &usize| {
            let (name, output) = (format!("t{}", tools[*at]), format!("of {at}"));
            json!({"functionResponse": {"name": name, "response": {"output": output}}})
        };
        let gemini = json!({"contents": [
            {"role": "user", "parts": [{"text": "hi"}]},
            {"role": "model", "parts": tools.iter().map(call).collect::<Vec<_>>()},
            {"role": "user", "parts": order.iter().map(result).collect::<Vec<_>>()},
        ]});
        let (made, _) = made(&gemini, PATH).unwrap();
        for item in made["input"].as_array().unwrap() {
            if let Some(output) = item["output"].as_str() {
                let at = output.strip_prefix("of ").unwrap();
                prop_assert_eq!(item["call_id"].as_str(), Some(&*format!("call_1_{at}")));
            }
        }
    }
}

#[test]
fn a_call_that_is_not_the_models_is_refused() {
    let call = json!({"functionCall": {"name": "now", "args": {}}});
    let body = json!({"contents": [{"parts": [{"text": "Hi"}, call]}]}).to_string();
    for platform in of_both() {
        let refused = Dialect::Gemini.translate_request(platform, body.as_bytes(), &target(), 0);
        let why = refused.unwrap_err().why;
        assert_eq!(
            why,
            "the call of \"now\" stands in a turn that is not the model's"
        );
    }
}
