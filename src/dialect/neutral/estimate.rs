//! The tokens of a request, estimated from its length: for platforms that do not count them.

use super::{Arguments, Block, Request, Source, ToolInput};
use crate::text::tree::Text;

/// The bytes of a token. Fewer than most texts have: who is told too few makes a conversation shorter too late.
const BYTES_PER_TOKEN: u64 = 4;

/// The tokens of a picture, or of a page.
const MEDIA_TOKENS: u64 = 1500;

// === impl Request ===

impl Request<'_> {
    /// The tokens that the platform will count, as far as its length tells that.
    pub fn estimated_tokens(&self) -> u64 {
        let system = self.system.iter().map(length);
        let turns = self.turns.iter().flat_map(|turn| &turn.blocks).map(weight);
        let tools = self.tools.iter().map(|tool| {
            let input = match &tool.input {
                ToolInput::Schema(schema) => schema.as_deref().map_or(0, str::len),
                ToolInput::Raw(form) => form.map_or(0, str::len),
            };
            let description = tool.description.as_ref().map_or(0, length);
            length(&tool.name)
                .saturating_add(description)
                .saturating_add(input as u64)
        });
        let bytes = system.chain(turns).chain(tools);
        bytes.fold(0, u64::saturating_add).div_ceil(BYTES_PER_TOKEN)
    }
}

/// The bytes that a block counts for.
fn weight(block: &Block<'_>) -> u64 {
    match block {
        Block::Text { text } | Block::Refusal(text) | Block::Reasoning { text, .. } => length(text),
        Block::Media(media) => match &media.source {
            Source::Plain(text) => length(text),
            Source::Data { .. } | Source::Url(_) => MEDIA_TOKENS.saturating_mul(BYTES_PER_TOKEN),
        },
        Block::Call(call) => {
            let arguments = match &call.arguments {
                Arguments::Text(text) | Arguments::Object(text) | Arguments::Raw(text) => {
                    length(text)
                }
                Arguments::Json(json) => json.len() as u64,
            };
            length(&call.name).saturating_add(arguments)
        }
        Block::Result(result) => {
            let blocks = result.blocks.iter().map(weight);
            blocks.fold(0, u64::saturating_add)
        }
    }
}

/// The bytes of a text, as it stands in the body.
fn length(text: &Text<'_>) -> u64 {
    match text {
        Text::Escaped(text) => text.len() as u64,
        Text::Plain(text) => text.len() as u64,
    }
}
