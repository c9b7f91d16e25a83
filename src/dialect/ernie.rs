//! `ernie`: the first version of Baidu's chat. The model is in the path.
//!
//! No caller speaks it: whatever is asked of such a platform is translated. A stream is events, of which the last one
//! says that it is (`is_end`). An error is a number, with HTTP 200.

mod answer_reader;
mod request_writer;

use serde_json::{Map, Value};

use super::{
    Dialect,
    chat::Chat,
    format::{
        Count, ErrorText, EventKind, Format, ListedModel, Member, OpeningMember, RequestMember,
    },
    parts::Parts,
};

/// The format.
pub(super) struct Ernie;

impl Format for Ernie {
    fn word(&self) -> &'static str {
        "ernie"
    }

    fn listed_with(&self) -> &'static [Dialect] {
        &[]
    }

    fn request_members(&self) -> &'static [RequestMember] {
        &[]
    }

    fn opening(&self) -> &'static [OpeningMember] {
        &[]
    }

    fn member(&self, name: &[u8]) -> Member {
        match name {
            b"result" => Member::TextOrSection,
            b"function_call" => Member::Section,
            b"arguments" | b"thoughts" => Member::Text,
            b"usage" => Member::Usage,
            b"is_end" => Member::IsEnd,
            b"error" => Member::Error,
            b"error_code" => Member::ErrorCode,
            _ => Member::Other,
        }
    }

    /// Events have no names, and no type.
    fn event(&self, kind: &[u8]) -> EventKind {
        match kind {
            b"error" => EventKind::Error,
            _ => EventKind::Plain,
        }
    }

    fn announces(&self, kind: &[u8]) -> bool {
        matches!(kind, b"ping" | b"keepalive")
    }

    /// An event that says nothing, and is not the last one.
    fn announces_in(&self, data: &Value) -> bool {
        data["result"] == "" && data["is_end"] == false && data.get("function_call").is_none()
    }

    fn count(&self, details: &[u8], name: &[u8]) -> Option<Count> {
        Some(match (details, name) {
            (b"", b"prompt_tokens") => Count::Input,
            (b"", b"completion_tokens") => Count::Output,
            (b"", b"total_tokens") => Count::Total,
            _ => return None,
        })
    }

    fn counts_on_the_way(&self) -> bool {
        true
    }

    // What goes to a caller has the form of the caller's dialect, so nobody asks for these.

    fn platforms_error(&self, status: u16, error: Map<String, Value>) -> Value {
        Chat.platforms_error(status, error)
    }

    fn error(&self, error: &ErrorText<'_>) -> Value {
        Chat.error(error)
    }

    fn models(&self, models: &[ListedModel<'_>]) -> Value {
        Chat.models(models)
    }

    fn model(&self, model: &ListedModel<'_>) -> Value {
        Chat.model(model)
    }

    fn parts(&self) -> Parts {
        Parts {
            write_request: Some(request_writer::write),
            read_answer: Some(answer_reader::Reader::begin),
            ..Parts::default()
        }
    }
}
