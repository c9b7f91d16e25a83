//! An answer of `responses`, written: a stream, or the whole.
//!
//! A stream has one item open at a time: clients keep one. What comes of another one meanwhile waits for its turn.
//! Each item is repeated whole at its end, and all of them at the end of the answer, so their text is held.

use std::collections::BTreeMap;

use super::item::{Block, Item, write_logprobs, write_part, write_place};
use crate::{
    dialect::{
        chat::{openai_code, openai_failure},
        neutral::{BlockKind, Event, Failure, Finish, Tokens},
        parts::{About, AnswerWriter},
        translation::MAX_ANSWER_BYTES,
    },
    hash::hash64,
    text::{out::Out, sse},
};

/// The most that is held of a stream, in bytes.
pub(super) const MAX_HELD_BYTES: usize = 4 * 1024 * 1024;

/// The size of an item beside its text, in bytes.
const ITEM_BYTES: usize = 256;

/// Writes an answer.
#[derive(Debug, Default)]
pub(super) struct Writer {
    about: About,
    /// The most that is held, in bytes.
    most: usize,
    /// The bytes of the blocks whose items have not ended.
    waiting: usize,
    id: String,
    sequence: u64,
    /// Blocks that have begun and whose items have not ended, by their numbers.
    blocks: BTreeMap<u32, Block>,
    /// The number of items that have begun.
    items: u64,
    /// The items that have ended, as JSON, with commas between.
    output: String,
    usage: Option<Tokens>,
    finish: Option<Finish>,
    started: bool,
    refused: bool,
    failed: bool,
}

// === impl Writer ===

impl Writer {
    /// Writes an answer that says this.
    pub(super) fn of(about: About) -> Box<dyn AnswerWriter> {
        Box::new(Self::with(about, MAX_HELD_BYTES))
    }

    fn with(about: About, most: usize) -> Self {
        Self {
            about,
            most,
            ..Self::default()
        }
    }

    fn start(&mut self, id: &str, model: &str, bytes: &mut Vec<u8>) {
        self.started = true;
        let prefixes = ["chatcmpl-", "msg_", "resp_"];
        let plain = prefixes.iter().find_map(|prefix| id.strip_prefix(prefix));
        self.id = format!("resp_{}", plain.unwrap_or(id));
        if self.about.model.is_empty() {
            model.clone_into(&mut self.about.model);
        }
        for kind in ["response.created", "response.in_progress"] {
            self.lifecycle(kind, "in_progress", None, bytes);
        }
    }

    /// An event that has the whole response.
    fn lifecycle(
        &mut self,
        kind: &str,
        status: &str,
        failure: Option<&Failure>,
        bytes: &mut Vec<u8>,
    ) {
        let response = self.response(status, failure);
        self.event(bytes, kind, &|out| out.name("response").raw(&response));
    }

    fn event(&mut self, bytes: &mut Vec<u8>, kind: &str, rest: &dyn Fn(&mut Out)) {
        let mut out = Out::default();
        out.object(|out| {
            out.name("type").word(kind);
            out.name("sequence_number").number(self.sequence);
            rest(out);
        });
        self.sequence = self.sequence.saturating_add(1);
        sse::write_event(bytes, kind, &out.into_bytes());
    }

    /// Writes all that its turn has come for; `last`: nothing follows.
    fn turn(&mut self, last: bool, bytes: &mut Vec<u8>) {
        while let Some((number, mut block)) = self.blocks.pop_first() {
            self.tell(&mut block, bytes);
            // An item ends when another one follows: only the end of the answer tells if the last one is whole.
            if last || block.closed && !self.blocks.is_empty() {
                self.end(block, bytes);
            } else {
                self.blocks.insert(number, block);
                return;
            }
        }
    }

    /// Writes what has come of a block and was not written yet.
    fn tell(&mut self, block: &mut Block, bytes: &mut Vec<u8>) {
        let is_call = matches!(block.kind, BlockKind::Call { .. });
        let has_more = block.told < block.text.len();
        if block.item.is_none() && (is_call || has_more) {
            // A text begins with its first piece; a call has a name to tell.
            self.begin(block, bytes);
        }
        let shape = block.shape(&self.about);
        let Some(item) = block.item.as_ref().filter(|_| has_more) else {
            return;
        };
        if !shape.events.is_empty() {
            let piece = block.text.get(block.told..).unwrap_or_default();
            self.event(bytes, &format!("{}.delta", shape.events), &|out| {
                write_place(out, item, shape);
                out.name("delta").word(piece);
                write_logprobs(out, shape);
            });
        }
        block.told = block.text.len();
    }

    fn begin(&mut self, block: &mut Block, bytes: &mut Vec<u8>) {
        let shape = block.shape(&self.about);
        let index = self.items;
        self.items = self.items.saturating_add(1);
        let hash = hash64(&[self.id.as_bytes(), &index.to_be_bytes()]);
        let item = Item {
            index,
            id: format!("{}_{hash:016x}", shape.id),
            // Reasoning that is opaque alone has none.
            has_part: shape.part.is_some() && !block.text.is_empty(),
        };
        let added = block.written(&item, "in_progress", &self.about);
        self.item("response.output_item.added", index, &added, bytes);
        self.part(block, &item, "added", "", bytes);
        block.item = Some(item);
    }

    fn item(&mut self, kind: &str, index: u64, item: &str, bytes: &mut Vec<u8>) {
        self.event(bytes, kind, &|out| {
            out.name("output_index").number(index);
            out.name("item").raw(item);
        });
    }

    /// A step of the part of an item, if it has one.
    fn part(&mut self, block: &Block, item: &Item, step: &str, text: &str, bytes: &mut Vec<u8>) {
        let shape = block.shape(&self.about);
        if let Some(part) = shape.part.as_ref().filter(|_| item.has_part) {
            self.event(bytes, &format!("{}.{step}", part.events), &|out| {
                write_place(out, item, shape);
                write_part(out.name("part"), shape, text);
            });
        }
    }

    fn end(&mut self, mut block: Block, bytes: &mut Vec<u8>) {
        let opaque = block.opaque.as_ref().map_or(0, String::len);
        let size = ITEM_BYTES.saturating_add(block.text.len().saturating_add(opaque));
        self.waiting = self.waiting.saturating_sub(size);
        if block.text.is_empty() && matches!(block.kind, BlockKind::Call { raw: false, .. }) {
            // It is called with nothing, which is an object without members.
            block.text.push_str("{}");
            self.tell(&mut block, bytes);
        }
        if block.item.is_none() && block.opaque.is_some() {
            self.begin(&mut block, bytes);
        }
        let Some(item) = block.item.take() else {
            // It says nothing.
            return;
        };
        let shape = block.shape(&self.about);
        if !shape.events.is_empty() && (item.has_part || shape.part.is_none()) {
            let about = std::mem::take(&mut self.about);
            self.event(bytes, &format!("{}.done", shape.events), &|out| {
                write_place(out, &item, shape);
                if let Some(tool) = block.tool(&about) {
                    out.name("name").word(tool);
                }
                out.name(shape.whole).word(&block.text);
                write_logprobs(out, shape);
            });
            self.about = about;
        }
        self.part(&block, &item, "done", &block.text, bytes);
        let is_cut = matches!(self.finish, Some(Finish::Length | Finish::ContextFull));
        let status = match is_cut && self.blocks.is_empty() {
            true => "incomplete",
            false => "completed",
        };
        let done = block.written(&item, status, &self.about);
        self.item("response.output_item.done", item.index, &done, bytes);
        if !self.output.is_empty() {
            self.output.push(',');
        }
        self.output.push_str(&done);
    }

    /// Counts what is held, with so much more of a block.
    fn hold(&mut self, size: usize, bytes: &mut Vec<u8>) {
        self.waiting = self.waiting.saturating_add(size);
        if self.held_bytes() > self.most {
            let why = "the platform's answer is too long for a stream of this form";
            self.fail(&Failure::grammar(why), bytes);
        }
    }

    fn fail(&mut self, failure: &Failure, bytes: &mut Vec<u8>) {
        if !self.started {
            // Clients take nothing before this.
            self.start("", "", bytes);
        }
        self.failed = true;
        self.lifecycle("response.failed", "failed", Some(failure), bytes);
        self.lets_go();
    }

    /// Holds nothing more: the answer has ended.
    fn lets_go(&mut self) {
        (self.blocks, self.output) = (BTreeMap::new(), String::new());
        self.waiting = 0;
    }

    /// The reason for which the answer is not whole, if it is not.
    fn incomplete(&self) -> Option<&'static str> {
        match self.finish {
            Some(Finish::Length | Finish::ContextFull | Finish::Paused) => {
                Some("max_output_tokens")
            }
            // A refusal in words is an answer.
            Some(Finish::Refused) if !self.refused => Some("content_filter"),
            _ => None,
        }
    }

    /// The response as it stands.
    fn response(&self, status: &str, failure: Option<&Failure>) -> String {
        let reason = self.incomplete().filter(|_| status == "incomplete");
        let mut out = Out::with_capacity(self.output.len().saturating_add(1024));
        out.object(|out| {
            out.name("id").word(&self.id);
            out.name("object").word("response");
            out.name("created_at").number(self.about.created);
            out.name("status").word(status);
            out.name("background").bool(false);
            match failure {
                None => out.name("error").null(),
                Some(failure) => out.name("error").object(|out| {
                    out.name("code")
                        .word(openai_code(failure).unwrap_or("invalid_prompt"));
                    out.name("message").word(&failure.message);
                }),
            }
            match reason {
                None => out.name("incomplete_details").null(),
                Some(reason) => out
                    .name("incomplete_details")
                    .object(|out| out.name("reason").word(reason)),
            }
            out.name("model").word(&self.about.model);
            out.name("output").list(|out| {
                if !self.output.is_empty() {
                    out.raw(&self.output);
                }
            });
            out.name("previous_response_id").null();
            out.name("store").bool(false);
            if !self.about.repeated.is_empty() {
                out.raw(&self.about.repeated);
            }
            match self.usage.as_ref().filter(|_| status != "in_progress") {
                None => out.name("usage").null(),
                Some(usage) => write_usage(out, usage),
            }
        });
        String::from_utf8(out.into_bytes()).unwrap_or_default()
    }
}

impl AnswerWriter for Writer {
    fn stream(&mut self, event: &Event, bytes: &mut Vec<u8>) {
        if self.failed {
            return;
        }
        match event {
            Event::Start { id, model } => self.start(id, model, bytes),
            Event::Open { block, kind } => {
                self.refused |= *kind == BlockKind::Refusal;
                self.blocks.insert(*block, Block::begin(kind.clone()));
                self.hold(ITEM_BYTES, bytes);
                self.turn(false, bytes);
            }
            Event::Delta { block, text } => {
                if let Some(block) = self.blocks.get_mut(block) {
                    block.text.push_str(text);
                    self.turn(false, bytes);
                    self.hold(text.len(), bytes);
                }
            }
            Event::Opaque { block, data } => {
                if let Some(block) = self.blocks.get_mut(block) {
                    block.opaque = Some(data.clone());
                    self.hold(data.len(), bytes);
                }
            }
            Event::Close { block } => {
                if let Some(block) = self.blocks.get_mut(block) {
                    block.closed = true;
                }
                self.turn(false, bytes);
            }
            Event::Usage(usage) => self.usage.get_or_insert_default().update(*usage),
            Event::Finish(finish) => self.finish = Some(finish.clone()),
            Event::Fail(failure) => self.fail(failure, bytes),
            Event::End => {
                self.turn(true, bytes);
                let (kind, status) = match self.incomplete() {
                    Some(_) => ("response.incomplete", "incomplete"),
                    None => ("response.completed", "completed"),
                };
                self.lifecycle(kind, status, None, bytes);
                self.lets_go();
            }
        }
    }

    fn held_bytes(&self) -> usize {
        self.waiting.saturating_add(self.output.len())
    }

    fn whole(&self, events: &[Event]) -> Result<Vec<u8>, Failure> {
        // What a stream says at its end is the whole.
        let mut writer = Self::with(self.about.clone(), MAX_ANSWER_BYTES);
        let mut stream = Vec::new();
        for event in events {
            if let Event::Fail(failure) = event {
                return Err(failure.clone());
            }
            if *event == Event::End {
                break;
            }
            stream.clear();
            writer.stream(event, &mut stream);
        }
        if writer.failed {
            let why = "the platform's answer is too long to be translated whole";
            return Err(Failure::grammar(why));
        }
        if writer.finish.is_none() {
            return Err(Failure::answer_broke_off());
        }
        writer.turn(true, &mut stream);
        let status = writer.incomplete().map_or("completed", |_| "incomplete");
        Ok(writer.response(status, None).into_bytes())
    }

    fn error(&self, failure: &Failure) -> Vec<u8> {
        openai_failure(failure)
    }
}

fn write_usage(out: &mut Out, usage: &Tokens) {
    let (input, output) = (usage.prompt(), usage.output.unwrap_or_default());
    out.name("usage").object(|out| {
        out.name("input_tokens").number(input);
        out.name("input_tokens_details").object(|out| {
            out.name("cached_tokens")
                .number(usage.cache_read.unwrap_or_default());
            out.name("cache_write_tokens")
                .number(usage.cache_write.unwrap_or_default());
        });
        out.name("output_tokens").number(output);
        out.name("output_tokens_details").object(|out| {
            out.name("reasoning_tokens")
                .number(usage.reasoning.unwrap_or_default());
        });
        out.name("total_tokens")
            .number(input.saturating_add(output));
    });
}
