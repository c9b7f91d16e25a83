use serde_json::{Value, json};

use super::*;
use crate::text::tree::Text;

fn target() -> Target<'static> {
    Target {
        model: Text::of("gpt-5.6"),
        refuses: &[],
        streams_only: false,
    }
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
