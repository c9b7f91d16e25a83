//! The grammars of answers, for tests and fuzz targets: what the clients of each dialect rely on. Each reads what was
//! written, and panics where it breaks the grammar. No part of the filter.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]
#![cfg_attr(
    not(test),
    allow(
        dead_code,
        reason = "tests look at more of what was said than fuzz targets"
    )
)]

pub mod meaning;
pub(in crate::dialect) mod responses;

use serde_json::{Value, json};

use crate::dialect::Dialect;

/// Lists the dialects that both callers and platforms speak.
pub fn of_both() -> impl Iterator<Item = Dialect> {
    let callers = Dialect::OF_CALLERS.into_iter();
    callers.filter(|one| one.is_of_platforms())
}

/// Reads a stream of a dialect; tells if it ended well, rather than with a failure.
pub fn read(dialect: Dialect, stream: &str, as_list: bool) -> bool {
    match dialect {
        Dialect::Chat => said_in_chat(stream).failed.is_none(),
        Dialect::Envelope => said_in_chat(&out_of_envelopes(stream)).failed.is_none(),
        Dialect::Responses => responses::read(stream).status != "failed",
        Dialect::Messages => !said_in_messages(stream).contains(&"error".to_owned()),
        Dialect::Gemini => {
            !said_in_gemini(&elements(stream, as_list)).contains(&"error".to_owned())
        }
        Dialect::Ernie => panic!("no caller speaks it"),
    }
}

/// Reads the body of an error, as a dialect's clients do.
pub fn read_error(dialect: Dialect, body: &[u8]) {
    let said: Value = serde_json::from_slice(body).unwrap();
    let error = &said["error"];
    let is_word = |value: &Value| value.is_null() || value.is_string();
    let fits = match dialect {
        Dialect::Chat | Dialect::Responses => {
            error["message"].is_string() && error["type"].is_string() && is_word(&error["code"])
        }
        Dialect::Messages => {
            said["type"] == "error" && error["type"].is_string() && error["message"].is_string()
        }
        Dialect::Gemini => {
            error["code"].is_u64() && error["status"].is_string() && error["message"].is_string()
        }
        Dialect::Envelope => {
            said["code"].is_u64()
                && said["message"].is_string()
                && said["data"].is_null()
                && is_word(error)
        }
        Dialect::Ernie => panic!("no caller speaks it"),
    };
    assert!(fits, "{dialect:?}: {said}");
}

/// The stream of `chat` that one of `envelope` has in its envelopes, an error apart, which has the form of ours.
pub fn out_of_envelopes(stream: &str) -> String {
    let event = |event: &str| {
        let data = event.strip_prefix("data: ").unwrap();
        if data == "[DONE]" {
            return format!("{event}\n\n");
        }
        let said: Value = serde_json::from_str(data).unwrap();
        let inner = match said["data"].is_null() {
            true => {
                read_error(Dialect::Envelope, data.as_bytes());
                json!({"error": {"message": said["message"], "type": "envelope"}})
            }
            false => {
                assert_eq!(said["code"], 200);
                assert_eq!(said["message"], "success");
                said["data"].clone()
            }
        };
        format!("data: {inner}\n\n")
    };
    stream.split_terminator("\n\n").map(event).collect()
}

/// Reads a stream of `messages`: the blocks, each with its pieces, and its end.
pub(in crate::dialect) fn said_in_messages(stream: &str) -> Vec<String> {
    let (mut said, mut open, mut next) = (Vec::new(), None::<(String, Value)>, 0);
    let mut before = String::new();
    for (number, event) in stream.split_terminator("\n\n").enumerate() {
        let (name, data) = event.split_once("\ndata: ").unwrap();
        let data: Value = serde_json::from_str(data).unwrap();
        let kind = data["type"].as_str().unwrap();
        assert_eq!(name, format!("event: {kind}"));
        let begins = kind == "message_start" || kind == "error";
        assert!(begins || number > 0, "{kind} comes first");
        assert!(
            !["message_stop", "error"].contains(&&*before),
            "{kind} comes behind the end"
        );
        if before == "message_delta" {
            assert!(["message_stop", "error"].contains(&kind), "{kind}");
        }
        match kind {
            "message_start" => {
                assert_eq!(number, 0);
                let message = &data["message"];
                assert_eq!(message["content"], json!([]));
                assert!(message["stop_reason"].is_null());
                counts_in_messages(&message["usage"]);
            }
            "content_block_start" => {
                assert_eq!((&open, data["index"].as_u64()), (&None, Some(next)));
                let block = &data["content_block"];
                let kind = block["type"].as_str().unwrap().to_owned();
                if kind == "redacted_thinking" {
                    assert_ne!(block["data"].as_str().unwrap(), "");
                }
                if kind == "tool_use" {
                    let (id, name) = (&block["id"], &block["name"]);
                    assert!(id.is_string() && name.is_string(), "{block}");
                    assert_eq!(block["input"], json!({}), "it comes in pieces");
                }
                said.push(kind.clone());
                open = Some((kind, Value::Null));
            }
            "content_block_delta" => {
                assert_eq!(Some(next), data["index"].as_u64());
                let (block, last) = open.as_mut().unwrap();
                let delta = data["delta"].as_object().unwrap();
                let fits = match delta["type"].as_str().unwrap() {
                    "text_delta" => block == "text",
                    "thinking_delta" | "signature_delta" => block == "thinking",
                    "input_json_delta" => block == "tool_use",
                    _ => false,
                };
                assert!(fits, "{block}: {delta:?}");
                assert_ne!(*last, "signature_delta", "a signature is the last");
                *last = delta["type"].clone();
                let text = delta.iter().find(|(name, _)| *name != "type").unwrap().1;
                let block = said.last_mut().unwrap();
                block.push_str(&format!(" {}", text.as_str().unwrap()));
            }
            "content_block_stop" => {
                assert_eq!(data["index"].as_u64(), Some(next));
                open.take().unwrap();
                next += 1;
            }
            "message_delta" => {
                assert_eq!(open, None);
                counts_in_messages(&data["usage"]);
                said.push(data["delta"]["stop_reason"].to_string());
            }
            "message_stop" => {
                assert_eq!(before, "message_delta");
                said.push("stop".to_owned());
            }
            "error" => {
                let error = &data["error"];
                assert!(error["type"].is_string() && error["message"].is_string());
                said.push("error".to_owned());
            }
            other => panic!("{other}"),
        }
        before = kind.to_owned();
    }
    assert!(["message_stop", "error"].contains(&&*before), "no end");
    said
}

fn counts_in_messages(usage: &Value) {
    for name in ["input_tokens", "output_tokens"] {
        assert!(usage[name].is_u64(), "{usage}");
    }
}

/// The content of a stream of `chat`.
#[derive(Debug, Default)]
pub(in crate::dialect) struct SaidInChat {
    pub(in crate::dialect) content: String,
    pub(in crate::dialect) reasoning: String,
    /// Name, id and arguments.
    pub(in crate::dialect) calls: Vec<String>,
    pub(in crate::dialect) finish: String,
    pub(in crate::dialect) usage: Option<Value>,
    pub(in crate::dialect) failed: Option<Value>,
}

/// Reads a stream of `chat`.
pub(in crate::dialect) fn said_in_chat(stream: &str) -> SaidInChat {
    let mut said = SaidInChat::default();
    let mut about = None;
    let (mut chunks, mut done) = (0, false);
    for event in stream.split_terminator("\n\n") {
        assert!(!done && said.failed.is_none(), "behind the end: {event}");
        let data = event.strip_prefix("data: ").unwrap();
        if data == "[DONE]" {
            done = true;
            continue;
        }
        let chunk: Value = serde_json::from_str(data).unwrap();
        if let Some(error) = chunk.get("error") {
            assert!(error["message"].is_string() && error["type"].is_string());
            said.failed = Some(error.clone());
            continue;
        }
        assert_eq!(chunk["object"], "chat.completion.chunk");
        let same = ["id", "created", "model"].map(|name| chunk[name].clone());
        assert_eq!(about.get_or_insert_with(|| same.clone()), &same);
        let Some(choice) = chunk["choices"].get(0) else {
            assert!(!said.finish.is_empty() && said.usage.is_none());
            said.usage = Some(chunk["usage"].clone());
            continue;
        };
        assert!(
            said.finish.is_empty(),
            "nothing is said behind the reason: {chunk}"
        );
        let delta = choice["delta"].as_object().unwrap();
        assert_eq!(
            delta.contains_key("role"),
            chunks == 0,
            "the role is told once, at first: {chunk}"
        );
        chunks += 1;
        if let Some(reason) = choice["finish_reason"].as_str() {
            said.finish = reason.to_owned();
        }
        let text = |name: &str| delta.get(name).and_then(Value::as_str).unwrap_or_default();
        said.content.push_str(text("content"));
        said.content.push_str(text("refusal"));
        said.reasoning.push_str(text("reasoning_content"));
        let calls = delta.get("tool_calls").and_then(Value::as_array);
        for call in calls.into_iter().flatten() {
            let index = call["index"].as_u64().unwrap() as usize;
            let kind = ["function", "custom"]
                .into_iter()
                .find(|kind| call.get(kind).is_some());
            let called = &call[kind.unwrap()];
            if index == said.calls.len() {
                assert_eq!(call["type"], kind.unwrap());
                let (name, id) = (called["name"].as_str(), call["id"].as_str());
                said.calls
                    .push(format!("{} {} ", name.unwrap(), id.unwrap()));
            } else {
                // Clients put texts that come again behind those that they have.
                let again = [call.get("id"), call.get("type"), called.get("name")];
                assert_eq!(again, [None; 3], "{call}");
            }
            let more = called["arguments"].as_str().or(called["input"].as_str());
            said.calls[index].push_str(more.unwrap());
        }
    }
    assert_ne!(done, said.failed.is_some(), "no end");
    assert_eq!(done, done && !said.finish.is_empty());
    said
}

/// The elements of a stream of `gemini`.
pub(in crate::dialect) fn elements(stream: &str, as_list: bool) -> Vec<Value> {
    if as_list {
        return serde_json::from_str(stream).unwrap();
    }
    let events = stream.split_terminator("\n\n");
    let events = events.map(|event| event.strip_prefix("data: ").unwrap());
    events
        .map(|event| serde_json::from_str(event).unwrap())
        .collect()
}

/// Reads the elements of a stream of `gemini`: each has parts of the model's, and the last one alone tells why the
/// answer ended, and what it took.
pub(in crate::dialect) fn said_in_gemini(elements: &[Value]) -> Vec<String> {
    let mut said = Vec::new();
    assert!(!elements.is_empty(), "no end");
    for (at, element) in elements.iter().enumerate() {
        let is_last = at + 1 == elements.len();
        if element["error"].is_object() {
            assert!(is_last, "{element}");
            assert!(element["error"]["code"].is_u64() && element["error"]["status"].is_string());
            said.push("error".to_owned());
            continue;
        }
        let candidate = &element["candidates"][0];
        assert_eq!(candidate["content"]["role"], "model");
        // One that failed has an error in the end.
        if is_last {
            assert!(candidate["finishReason"].is_string(), "{element}");
        } else {
            assert!(candidate["finishReason"].is_null(), "{element}");
            assert!(element.get("usageMetadata").is_none());
        }
        let parts = candidate["content"]["parts"].as_array().unwrap();
        assert!(!parts.is_empty(), "{element}");
        for part in parts {
            if let Some(call) = part.get("functionCall") {
                assert!(call["args"].is_object() && call["id"].is_string());
            } else {
                assert!(part["text"].is_string(), "{part}");
            }
            if *part != json!({"text": ""}) {
                said.push(part.to_string());
            }
        }
        if is_last {
            said.push(candidate["finishReason"].as_str().unwrap().to_owned());
        }
    }
    said
}
