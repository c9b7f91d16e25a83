//! `envelope`: chat completions as other gateways hand them out, each answer in an object that says how it went:
//! `{"code": 200, "message": "success", "data": …}`. The request is one of `chat`, and may name the platform or the account.
//!
//! No platform speaks it: whatever an account speaks, its answer is translated.

mod answer_writer;

use serde_json::{Map, Value, json};

use super::{
    chat::{self, Chat},
    format::{
        Count, ErrorText, EventKind, Format, ListedModel, Member, OpeningMember, RequestMember,
        RequestValue, ThingPlace,
    },
    neutral::{
        Request,
        read::{Read, optional_text},
    },
    parts::Parts,
};
use crate::text::tree::Tree;

/// The format.
pub(super) struct Envelope;

/// The members of `chat` that decide, and two more.
const REQUEST: [RequestMember; chat::REQUEST.len() + 2] = {
    let mut all = [RequestMember::of_body(ACCOUNT, RequestValue::Account); chat::REQUEST.len() + 2];
    let [_, platform, others @ ..] = &mut all;
    *platform = RequestMember::of_body(PLATFORM, RequestValue::Platform);
    others.copy_from_slice(chat::REQUEST);
    all
};

/// The members by which a request names the account or the platform that is to serve it.
const ACCOUNT: &str = "account_id";
const PLATFORM: &str = "platform";

impl Format for Envelope {
    fn word(&self) -> &'static str {
        "envelope"
    }

    fn is_hinted_by(&self, path: &str) -> bool {
        path.starts_with("/api/v1/oauth/")
    }

    fn request_members(&self) -> &'static [RequestMember] {
        &REQUEST
    }

    fn opening(&self) -> &'static [OpeningMember] {
        Chat.opening()
    }

    fn things(&self) -> &'static [ThingPlace] {
        Chat.things()
    }

    fn member(&self, name: &[u8]) -> Member {
        Chat.member(name)
    }

    fn event(&self, kind: &[u8]) -> EventKind {
        Chat.event(kind)
    }

    fn announces(&self, kind: &[u8]) -> bool {
        Chat.announces(kind)
    }

    fn announces_in(&self, data: &Value) -> bool {
        Chat.announces_in(data)
    }

    fn end_mark(&self) -> Option<&'static [u8]> {
        Chat.end_mark()
    }

    fn count(&self, details: &[u8], name: &[u8]) -> Option<Count> {
        Chat.count(details, name)
    }

    /// The platform's own word for it stands in `error`, as ours does.
    fn platforms_error(&self, status: u16, error: Map<String, Value>) -> Value {
        let text = |name: &str| error.get(name).and_then(Value::as_str);
        let word = text("code").or_else(|| text("type"));
        failed(status, text("message").unwrap_or_default(), word)
    }

    fn error(&self, error: &ErrorText<'_>) -> Value {
        failed(error.status, error.message, Some(error.code))
    }

    fn models(&self, models: &[ListedModel<'_>]) -> Value {
        succeeded(&Chat.models(models))
    }

    fn model(&self, model: &ListedModel<'_>) -> Value {
        succeeded(&Chat.model(model))
    }

    fn parts(&self) -> Parts {
        Parts {
            read_request: Some(read),
            write_answer: Some(answer_writer::Writer::of),
            ..Parts::default()
        }
    }
}

/// An error, of which the platform or the gateway has this word.
fn failed(status: u16, message: &str, word: Option<&str>) -> Value {
    json!({"code": status, "message": message, "data": null, "error": word})
}

/// Puts a good answer into its envelope.
fn succeeded(data: &Value) -> Value {
    let envelope = answer_writer::wrapped(data.to_string().as_bytes());
    serde_json::from_slice(&envelope).unwrap_or_default()
}

/// Reads a request: one of `chat`.
///
/// # Errors
/// The member that is wrong, or that no other dialect can say.
fn read<'a>(tree: &Tree<'a>) -> Read<Request<'a>> {
    for name in [ACCOUNT, PLATFORM] {
        optional_text(tree.root(), name)?;
    }
    chat::read_request(tree)
}
