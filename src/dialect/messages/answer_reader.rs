//! An answer of `messages`, read: a stream's events, or the whole.

use std::collections::BTreeMap;

use super::SIGNED;
use crate::{
    dialect::{
        neutral::{BlockKind, Event, Failure, Finish, Tokens},
        parts::AnswerReader,
    },
    text::tree::{Json, Text, Tree},
};

/// The most blocks that are open at once: one, as Anthropic has it.
const MAX_OPEN: usize = 1_024;

/// Reads an answer in steps. It has ended at `message_stop`.
#[derive(Debug, Default)]
pub struct Reader {
    started: bool,
    ended: bool,
    count: u32,
    /// The blocks that are open, by their index. Those of the platform's own tools are none.
    blocks: BTreeMap<u64, Open>,
    called: bool,
    usage: Tokens,
    finish: Option<Finish>,
}

/// A block that is open.
#[derive(Debug, Clone, Copy)]
struct Open {
    block: u32,
    /// The block is of reasoning: nothing else has a signature.
    thought: bool,
}

// === impl Reader ===

impl AnswerReader for Reader {
    fn on_event(&mut self, data: &[u8], events: &mut Vec<Event>) {
        if self.ended {
            return;
        }
        let Ok(tree) = Tree::read(data) else {
            return self.fail(Failure::event_is_no_json(), events);
        };
        let event = tree.root();
        let kind = event.text_at("type");
        let index = event.get("index").and_then(Json::whole);
        let index = index.unwrap_or_default();
        match &*kind.as_ref().map(Text::plain).unwrap_or_default() {
            "message_start" => {
                if let Some(message) = event.get("message") {
                    self.start(Some(message), events);
                }
            }
            "content_block_start" => {
                if let Some(block) = event.get("content_block") {
                    self.open(index, block, events);
                }
            }
            "content_block_delta" => {
                if let Some(delta) = event.get("delta") {
                    self.delta(index, delta, events);
                }
            }
            "content_block_stop" => self.close(index, events),
            "message_delta" => {
                if let Some(delta) = event.get("delta") {
                    self.reason(delta);
                }
                self.used(event);
            }
            "message_stop" => self.end(events),
            "error" => self.fail(Failure::of(event.get("error").unwrap_or(event)), events),
            _ => {}
        }
        if !self.ended && self.blocks.len() > MAX_OPEN {
            let why = "the platform's answer has too many blocks that do not end";
            self.fail(Failure::grammar(why), events);
        }
    }

    fn on_whole(&mut self, body: &[u8], events: &mut Vec<Event>) {
        let Ok(tree) = Tree::read(body) else {
            return self.fail(Failure::answer_is_no_json(), events);
        };
        let message = tree.root();
        if let Some(error) = message.get("error") {
            return self.fail(Failure::of(error), events);
        }
        if message.get("content").is_none() && message.get("stop_reason").is_none() {
            return self.fail(
                Failure::grammar("the platform's answer has no content"),
                events,
            );
        }
        self.start(Some(message), events);
        let content = message.get("content").into_iter().flat_map(Json::items);
        for (number, block) in content.enumerate() {
            let index = number as u64;
            self.open(index, block, events);
            if let Some(signature) = block.text_at("signature") {
                self.opaque(index, &signature, events);
            }
            self.close(index, events);
        }
        self.reason(message);
        self.end(events);
    }

    fn on_end(&mut self, events: &mut Vec<Event>) {
        if !self.ended {
            self.fail(Failure::stream_broke_off(), events);
        }
    }
}

impl Reader {
    /// Begins an answer.
    pub fn begin() -> Box<dyn AnswerReader> {
        Box::new(Self::default())
    }

    fn fail(&mut self, failure: Failure, events: &mut Vec<Event>) {
        self.ended = true;
        events.push(Event::Fail(failure));
    }

    /// Begins the answer, with its first event or, where that was left out, with what comes in its place.
    fn start(&mut self, message: Option<Json<'_, '_>>, events: &mut Vec<Event>) {
        if let Some(message) = message {
            self.used(message);
        }
        if std::mem::replace(&mut self.started, true) {
            return;
        }
        events.push(Event::start(message, ["id", "model"]));
    }

    fn end(&mut self, events: &mut Vec<Event>) {
        self.ended = true;
        self.start(None, events);
        let open: Vec<u64> = self.blocks.keys().copied().collect();
        for index in open {
            self.close(index, events);
        }
        events.push(Event::Usage(self.usage));
        let finish = match self.finish.take() {
            Some(Finish::Done) | None if self.called => Finish::Calls,
            finish => finish.unwrap_or(Finish::Done),
        };
        events.push(Event::Finish(finish));
        events.push(Event::End);
    }

    /// Reads the beginning of a block, which may have all of it.
    fn open(&mut self, index: u64, block: Json<'_, '_>, events: &mut Vec<Event>) {
        let text = |name| block.text_at(name).unwrap_or(Text::of(""));
        let own = |name| text(name).plain().into_owned();
        let kind = text("type");
        let (kind, said) = match &*kind.plain() {
            "text" => (BlockKind::Text, text("text")),
            "thinking" => (BlockKind::Reasoning, text("thinking")),
            "redacted_thinking" => (BlockKind::Reasoning, Text::of("")),
            "tool_use" => {
                self.called = true;
                let (id, name, raw) = (own("id"), own("name"), false);
                let input = block.get("input").map_or("", Json::raw);
                // What comes in pieces begins with an object of nothing.
                let is_empty = input.trim_matches(['{', '}', ' ', '\n']).is_empty();
                let input = if is_empty { "" } else { input };
                (BlockKind::Call { id, name, raw }, Text::of(input))
            }
            _ => return,
        };
        self.start(None, events);
        self.close(index, events);
        let number = self.count;
        self.count = number.saturating_add(1);
        let (block_number, text) = (number, said.plain().into_owned());
        let thought = kind == BlockKind::Reasoning;
        let open = Open {
            block: block_number,
            thought,
        };
        self.blocks.insert(index, open);
        events.push(Event::Open {
            block: block_number,
            kind,
        });
        if !text.is_empty() {
            events.push(Event::Delta {
                block: block_number,
                text,
            });
        }
        if let Some(data) = block.text_at("data").filter(|_| thought) {
            let data = data.plain().into_owned();
            events.push(Event::Opaque {
                block: block_number,
                data,
            });
        }
    }

    fn delta(&mut self, index: u64, delta: Json<'_, '_>, events: &mut Vec<Event>) {
        if let Some(signature) = delta.text_at("signature") {
            return self.opaque(index, &signature, events);
        }
        let texts = ["text", "thinking", "partial_json"].into_iter();
        let text = texts.filter_map(|name| delta.text_at(name)).next();
        let Some((open, text)) = self.blocks.get(&index).zip(text) else {
            return;
        };
        if !text.is_empty() {
            let (block, text) = (open.block, text.plain().into_owned());
            events.push(Event::Delta { block, text });
        }
    }

    /// Adds a signature to the events, marked as one.
    fn opaque(&mut self, index: u64, signature: &Text<'_>, events: &mut Vec<Event>) {
        let open = self.blocks.get(&index).filter(|open| open.thought);
        if let Some(open) = open.filter(|_| !signature.is_empty()) {
            let (block, data) = (open.block, format!("{SIGNED}{}", signature.plain()));
            events.push(Event::Opaque { block, data });
        }
    }

    fn close(&mut self, index: u64, events: &mut Vec<Event>) {
        if let Some(Open { block, .. }) = self.blocks.remove(&index) {
            events.push(Event::Close { block });
        }
    }

    fn reason(&mut self, said: Json<'_, '_>) {
        let Some(reason) = said.text_at("stop_reason") else {
            return;
        };
        self.finish = Some(match &*reason.plain() {
            "stop_sequence" => {
                let text = said.text_at("stop_sequence");
                Finish::Stop(text.map(|text| text.plain().into_owned()))
            }
            "tool_use" => Finish::Calls,
            "max_tokens" => Finish::Length,
            "model_context_window_exceeded" => Finish::ContextFull,
            "refusal" => Finish::Refused,
            "pause_turn" => Finish::Paused,
            _ => Finish::Done,
        });
    }

    fn used(&mut self, said: Json<'_, '_>) {
        let Some(usage) = said.get("usage") else {
            return;
        };
        let count = |name| usage.get(name).and_then(Json::whole);
        let thought = usage
            .get("output_tokens_details")
            .and_then(|details| details.get("thinking_tokens"));
        let (read, write) = (
            count("cache_read_input_tokens"),
            count("cache_creation_input_tokens"),
        );
        let cached = read.unwrap_or_default() > 0 || write.unwrap_or_default() > 0;
        self.usage.update(Tokens {
            // Some servers know the prompt at the beginning and say 0 at the end.
            input: count("input_tokens").filter(|input| *input > 0 || cached),
            cache_read: read,
            cache_write: write,
            output: count("output_tokens"),
            reasoning: thought.and_then(Json::whole),
        });
    }
}
