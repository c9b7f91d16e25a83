//! The grammar of a stream of `responses`: what OpenAI's clients and Codex rely on.

use serde_json::{Map, Value};

/// The content of a stream.
#[derive(Debug, Default, PartialEq)]
pub(in crate::dialect) struct Said {
    /// The items, as they ended.
    pub(in crate::dialect) items: Vec<Value>,
    /// The last response.
    pub(in crate::dialect) response: Value,
    /// `completed`, `incomplete` or `failed`.
    pub(in crate::dialect) status: String,
}

/// An item that has begun.
struct Open {
    added: Value,
    /// The pieces that came, and the whole of each part.
    pieces: String,
    parts: Vec<Value>,
    part: Option<Value>,
    /// The whole that `….done` told.
    whole: Option<String>,
}

/// Reads a stream, and panics where it breaks the grammar.
pub(in crate::dialect) fn read(stream: &str) -> Said {
    let (mut said, mut open, mut id) = (Said::default(), None::<Open>, Value::Null);
    assert!(stream.is_empty() || stream.ends_with("\n\n"), "{stream}");
    for (number, event) in stream.split_terminator("\n\n").enumerate() {
        assert!(said.status.is_empty(), "nothing follows the end: {event}");
        let (name, data) = event.split_once("\ndata: ").expect("a name and data");
        let data: Map<String, Value> = serde_json::from_str(data).expect("JSON");
        let kind = data["type"].as_str().expect("a type");
        assert_eq!(name, format!("event: {kind}"));
        assert_eq!(data["sequence_number"], number, "{kind}");
        assert!(data.get("error").is_none(), "OpenAI's clients throw at it");
        if let Some(response) = data.get("response") {
            match number {
                0 => id = response["id"].clone(),
                _ => assert_eq!(response["id"], id, "{kind}"),
            }
        }
        match (number, kind) {
            (0, "response.created") | (1, "response.in_progress") => {
                assert_eq!(data["response"]["status"], "in_progress");
                assert_eq!(data["response"]["output"], Value::Array(Vec::new()));
            }
            (0 | 1, _) => panic!("{kind} comes {number}."),
            (_, "response.completed" | "response.incomplete" | "response.failed") => {
                said.status = kind["response.".len()..].to_owned();
                said.response = data["response"].clone();
                assert_eq!(said.response["status"], *said.status);
                assert_eq!(said.response["output"], Value::Array(said.items.clone()));
                let is_failed = said.status == "failed";
                assert!(is_failed || open.is_none(), "an item has not ended");
                assert_eq!(said.response["error"].is_null(), !is_failed);
            }
            _ => {
                assert_eq!(data["output_index"], said.items.len(), "{kind}");
                step(kind, &data, &mut open, &mut said.items);
            }
        }
    }
    assert!(!said.status.is_empty(), "the stream has no end");
    said
}

fn step(kind: &str, data: &Map<String, Value>, open: &mut Option<Open>, items: &mut Vec<Value>) {
    if kind == "response.output_item.added" {
        assert!(open.is_none(), "one item at a time");
        *open = Some(Open {
            added: data["item"].clone(),
            pieces: String::new(),
            parts: Vec::new(),
            part: None,
            whole: None,
        });
        return;
    }
    if kind == "response.output_item.done" {
        let open = open.take().expect("an item that began");
        return items.push(open.done(&data["item"]));
    }
    let open = open.as_mut().expect("an item that began");
    assert_eq!(data["item_id"], open.added["id"], "{kind}");
    let item = open.added["type"].as_str().expect("a type");
    let (stem, step) = kind.rsplit_once('.').expect("a step");
    let (events, index) = match stem {
        "response.output_text" | "response.refusal" | "response.content_part" => {
            ("message", Some("content_index"))
        }
        "response.reasoning_summary_text" | "response.reasoning_summary_part" => {
            ("reasoning", Some("summary_index"))
        }
        "response.function_call_arguments" => ("function_call", None),
        "response.custom_tool_call_input" => ("custom_tool_call", None),
        _ => panic!("{kind}"),
    };
    assert_eq!(item, events, "{kind}");
    if let Some(index) = index {
        assert_eq!(data[index], open.parts.len(), "{kind}");
    }
    match (stem.ends_with("_part"), step) {
        (true, "added") => {
            assert!(open.part.replace(data["part"].clone()).is_none());
        }
        (true, "done") => {
            let part = open.part.take().expect("a part that began");
            assert_eq!(part["type"], data["part"]["type"]);
            assert_eq!(text_of(&data["part"]), open.whole.take(), "{kind}");
            open.parts.push(data["part"].clone());
            open.pieces.clear();
        }
        (false, "delta") => {
            assert!(index.is_none() || open.part.is_some(), "no part has begun");
            assert!(open.whole.is_none(), "it was whole");
            let piece = data["delta"].as_str().expect("a piece");
            assert!(!piece.is_empty());
            open.pieces.push_str(piece);
        }
        (false, "done") => {
            let whole = ["text", "refusal", "arguments", "input"];
            let whole = whole.iter().find_map(|name| data.get(*name)?.as_str());
            assert_eq!(whole, Some(&*open.pieces), "{kind}");
            open.whole = Some(open.pieces.clone());
        }
        _ => panic!("{kind}"),
    }
}

fn text_of(part: &Value) -> Option<String> {
    let text = part["text"].as_str().or_else(|| part["refusal"].as_str());
    text.map(str::to_owned)
}

impl Open {
    /// The item as it ended, which is what was told of it.
    fn done(self, item: &Value) -> Value {
        for name in ["id", "type", "call_id", "name", "namespace", "role"] {
            assert_eq!(self.added[name], item[name], "{item}");
        }
        assert!(self.part.is_none(), "a part has not ended");
        let parts = Value::Array(self.parts);
        match item["type"].as_str().expect("a type") {
            "message" => assert_eq!(item["content"], parts),
            "reasoning" => assert_eq!(item["summary"], parts),
            "function_call" => {
                assert_eq!(item["arguments"].as_str(), self.whole.as_deref());
            }
            "custom_tool_call" => {
                assert_eq!(item["input"].as_str(), self.whole.as_deref());
            }
            kind => assert!(kind.ends_with("_call") && self.pieces.is_empty(), "{kind}"),
        }
        let is_whole = item["status"] == "completed" || item["status"] == "incomplete";
        assert!(is_whole || item["type"] == "reasoning", "{item}");
        item.clone()
    }
}
