//! The LLM endpoints: what an authenticated request is answered with. Pure; one file a platform.

pub mod anthropic;
pub mod codex;
pub mod ernie;
pub mod gemini;
pub mod openai;
mod tools;

#[cfg(test)]
mod tests;

use serde_json::Value;

use crate::{clock::UnixMillis, fixtures::Fill};

/// Characters of the caller's text that an answer repeats.
const MAX_ECHO_CHARS: usize = 200;

/// The facts that an endpoint needs beside the body.
#[derive(Debug)]
pub struct Context<'a> {
    /// The account that is served: the user's email or the API key's name.
    pub account: &'a str,
    /// Random id of the answer.
    pub id: String,
    /// In how many deltas a stream carries the text.
    pub pieces: usize,
    /// The time at which the answer is made.
    pub now: UnixMillis,
}

impl Context<'_> {
    /// The answer to a body: it says who served it and repeats the last user text; as JSON where that is asked for.
    ///
    /// Tokens are whitespace-separated words, at least one, of the last user text and of the answer.
    pub fn reply(&self, body: &Value) -> Fill {
        let asked = last_user_text(body);
        let echo: String = asked.chars().take(MAX_ECHO_CHARS).collect();
        let text = format!("Hello from {}: you said {echo}", self.account);
        let text = if asks_schema(body) {
            in_schema(&text)
        } else {
            text
        };
        Fill {
            id: self.id.clone(),
            model: body["model"].as_str().unwrap_or_default().to_owned(),
            input_tokens: words(asked),
            output_tokens: words(&text),
            text,
            pieces: self.pieces,
            now: self.now,
        }
    }

    /// A fill for answers without a text.
    pub fn plain(&self) -> Fill {
        self.reply(&Value::Null)
    }
}

/// The text of the last user message, in any of the dialects: `input` (a string or items) or
/// `messages`, whose content is a string or parts with a `text`.
fn last_user_text(body: &Value) -> &str {
    if let Some(text) = body["input"].as_str() {
        return text;
    }
    let messages = body["input"]
        .as_array()
        .or_else(|| body["messages"].as_array());
    let content = messages
        .into_iter()
        .flatten()
        .rev()
        .find(|message| message["role"] == "user")
        .map_or(&Value::Null, |message| &message["content"]);
    match content {
        Value::String(text) => text,
        Value::Array(parts) => parts
            .iter()
            .rev()
            .find_map(|part| part["text"].as_str())
            .unwrap_or_default(),
        _ => "",
    }
}

/// Tells a request for an answer that fits a schema, in any of the dialects.
fn asks_schema(body: &Value) -> bool {
    let forms = [
        &body["response_format"],
        &body["text"]["format"],
        &body["output_config"]["format"],
    ];
    forms.iter().any(|form| form["type"] == "json_schema")
}

/// The answer as the one schema has it that clients here ask for.
fn in_schema(text: &str) -> String {
    serde_json::json!({ "said": text }).to_string()
}

fn words(text: &str) -> u64 {
    text.split_whitespace().count().max(1) as u64
}
