//! Callers of `envelope`.

use super::*;

/// The request that one in an envelope becomes for `platform`, and what its answer is to say.
fn asked(platform: Dialect, body: &Value) -> Result<TranslatedRequest, Refused> {
    let text = body.to_string();
    Dialect::Envelope.translate_request(platform, text.as_bytes(), &target(), 7)
}

/// What a caller gets of an answer of `chat`.
fn answered(as_stream: bool, answer: &[u8]) -> Written {
    let body = json!({"model": "x", "messages": [], "stream_options": {"include_usage": true}});
    let about = asked(Dialect::Chat, &body).unwrap().about;
    let (chat, own) = (Dialect::Chat, Dialect::Envelope);
    let translation = AnswerTranslation::new(chat, own, as_stream, about, "1f", BTreeMap::new());
    translation.unwrap().on_body(answer, true)
}

/// The data of each event.
fn events(stream: &[u8]) -> Vec<String> {
    let stream = std::str::from_utf8(stream).unwrap();
    let events = stream.split_terminator("\n\n");
    let data = |event: &str| event.strip_prefix("data: ").expect("an event").to_owned();
    events.map(data).collect()
}

fn chat(answer: &str) -> Vec<u8> {
    let message = json!({"role": "assistant", "content": answer});
    let usage = json!({"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5});
    json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage,
    })
    .to_string()
    .into_bytes()
}

#[test]
fn every_platform_is_asked_what_a_chat_asks() {
    let body = json!({
        "account_id": "acc_1", "platform": "codex", "model": "x", "stream": true,
        "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}],
    });
    let mut plain = body.clone();
    for name in ["account_id", "platform"] {
        plain.as_object_mut().unwrap().remove(name);
    }
    for platform in Dialect::OF_PLATFORMS {
        let made = asked(platform, &body).unwrap();
        assert!(made.stream);
        let text = String::from_utf8(made.body).unwrap();
        assert!(text.contains("be brief") && text.contains("hi"), "{text}");
        assert!(!text.contains("acc_1") && !text.contains("codex"), "{text}");
        if platform != Dialect::Chat {
            let plain = plain.to_string();
            let chat = Dialect::Chat.translate_request(platform, plain.as_bytes(), &target(), 7);
            assert_eq!(text.into_bytes(), chat.unwrap().body, "{platform:?}");
        }
    }
    assert!(!Dialect::Chat.is_translated_to(Dialect::Envelope));
    for (name, value) in [("account_id", json!(7)), ("platform", json!(["codex"]))] {
        let refused = asked(Dialect::Chat, &json!({name: value, "messages": []})).unwrap_err();
        assert_eq!(
            refused.path, name,
            "a wish that cannot be read is none that may be passed over"
        );
    }
    let refused = asked(Dialect::Chat, &json!({"messages": 1})).unwrap_err();
    assert_eq!(refused.path, "messages");
}

#[test]
fn an_answer_stands_in_one_envelope_and_a_stream_in_as_many_as_events() {
    let Written::Whole(body) = answered(false, &chat("Hi \u{1f600}\n\"")) else {
        panic!("no answer");
    };
    let whole: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(
        (&whole["code"], &whole["message"]),
        (&json!(200), &json!("success"))
    );
    assert_eq!(
        whole["data"]["choices"][0]["message"]["content"],
        "Hi \u{1f600}\n\""
    );
    assert_eq!(whole["data"]["usage"]["total_tokens"], 5);

    let Written::Stream(stream) = answered(true, &chat("Hi \u{1f600}\n\"")) else {
        panic!("no stream");
    };
    let mut events = events(&stream);
    assert_eq!(events.pop().as_deref(), Some("[DONE]"));
    let events: Vec<Value> = events
        .iter()
        .map(|event| serde_json::from_str(event).unwrap())
        .collect();
    for event in &events {
        assert_eq!(
            (&event["code"], &event["message"]),
            (&json!(200), &json!("success"))
        );
        assert_eq!(event["data"]["object"], "chat.completion.chunk");
    }
    let texts = events
        .iter()
        .filter_map(|event| event["data"]["choices"][0]["delta"]["content"].as_str());
    assert_eq!(texts.collect::<String>(), "Hi \u{1f600}\n\"");
    assert_eq!(events.last().unwrap()["data"]["usage"]["total_tokens"], 5);
}

#[test]
fn an_error_stands_in_an_envelope_before_the_stream_and_in_it() {
    let failure = json!({"error": {"message": "slow down", "code": "rate_limit_exceeded"}});
    let expected =
        json!({"code": 429, "message": "slow down", "data": null, "error": "rate_limit_exceeded"});
    let Written::Failed(429, body) = answered(false, failure.to_string().as_bytes()) else {
        panic!("no failure");
    };
    assert_eq!(serde_json::from_slice::<Value>(&body).unwrap(), expected);
    let Written::Stream(stream) = answered(true, format!("data: {failure}\n\n").as_bytes()) else {
        panic!("no stream");
    };
    let events = events(&stream);
    assert_eq!(events.len(), 1, "nothing follows, no mark of an end either");
    assert_eq!(serde_json::from_str::<Value>(&events[0]).unwrap(), expected);
    let members = failure["error"].as_object().unwrap().clone();
    assert_eq!(
        Dialect::Envelope.format().platforms_error(429, members),
        expected
    );
}
