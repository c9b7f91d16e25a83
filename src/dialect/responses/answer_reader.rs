//! An answer of `responses`, read: a stream's events, or the whole.

use std::collections::BTreeMap;

use crate::{
    dialect::{
        neutral::{BlockKind, Event, Failure, Finish, Tokens},
        parts::AnswerReader,
    },
    text::tree::{Json, Text, Tree},
};

/// The most items of one answer, and the most parts of them: each is remembered to the end, which may repeat it.
const MAX_ITEMS: usize = 16_384;

/// Reads an answer in steps.
///
/// Items are told apart by `output_index`: ids change from event to event at some servers. What an item's deltas left
/// out is taken from its end, and what no item told from the end of the answer; nothing is told twice.
#[derive(Debug, Default)]
pub struct Reader {
    started: bool,
    ended: bool,
    blocks: u32,
    items: BTreeMap<u64, Item>,
    called: bool,
    refused: bool,
}

/// An item of the answer.
#[derive(Debug, Default)]
struct Item {
    /// Blocks by the index of their part: a message has one for each part.
    parts: BTreeMap<u64, Part>,
    /// The part of its summary of which text came last.
    summary: u64,
    done: bool,
}

#[derive(Debug)]
struct Part {
    block: u32,
    /// The part is of reasoning.
    thought: bool,
    /// Text of it was told.
    told: bool,
    closed: bool,
}

// === impl Reader ===

impl AnswerReader for Reader {
    fn on_event(&mut self, data: &[u8], events: &mut Vec<Event>) {
        if self.ended || data == b"[DONE]" {
            return;
        }
        let Ok(tree) = Tree::read(data) else {
            return self.fail(Failure::event_is_no_json(), events);
        };
        let event = tree.root();
        let kind = event.text_at("type");
        let kind = kind.as_ref().map(Text::plain).unwrap_or_default();
        match &*kind {
            "response.created" | "response.in_progress" | "response.queued" => {
                self.start(event.get("response"), events)
            }
            "response.output_item.added" => self.item_added(event, events),
            "response.output_item.done" => {
                if let Some(item) = event.get("item") {
                    self.item_done(index(event, "output_index"), item, events);
                }
            }
            "response.output_text.delta"
            | "response.refusal.delta"
            | "response.reasoning_text.delta"
            | "response.reasoning_summary_text.delta"
            | "response.function_call_arguments.delta"
            | "response.custom_tool_call_input.delta" => self.delta(event, &kind, events),
            "response.completed"
            | "response.incomplete"
            | "response.failed"
            | "response.cancelled" => {
                if let Some(response) = event.get("response") {
                    self.whole(response, events);
                } else {
                    self.fail(
                        Failure::grammar("the platform's answer ended without saying how"),
                        events,
                    );
                }
            }
            "error" => self.fail(Failure::of(event.get("error").unwrap_or(event)), events),
            _ => {}
        }
        if !self.ended && (self.items.len() > MAX_ITEMS || self.blocks as usize > MAX_ITEMS) {
            let why = "the platform's answer has too many parts";
            self.fail(Failure::grammar(why), events);
        }
    }

    fn on_whole(&mut self, body: &[u8], events: &mut Vec<Event>) {
        match Tree::read(body) {
            Ok(tree) => self.whole(tree.root(), events),
            Err(_) => self.fail(Failure::answer_is_no_json(), events),
        }
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

    /// Reads the whole answer, which the last event of a stream repeats.
    fn whole(&mut self, response: Json<'_, '_>, events: &mut Vec<Event>) {
        self.start(Some(response), events);
        let output = response.get("output").into_iter().flat_map(Json::items);
        for (number, item) in output.enumerate() {
            self.item_done(number as u64, item, events);
        }
        self.close_all(events);
        if let Some(usage) = response.get("usage") {
            events.push(Event::Usage(usage_of(usage)));
        }
        let status = response.text_at("status");
        let status = status
            .as_ref()
            .map(Text::plain)
            .unwrap_or("completed".into());
        match &*status {
            "failed" | "cancelled" => {
                let failure = response.get("error").map(Failure::of);
                return self.fail(
                    failure.unwrap_or_else(|| Failure::grammar("the platform gave the answer up")),
                    events,
                );
            }
            "incomplete" => {
                let reason = response
                    .get("incomplete_details")
                    .and_then(|details| details.text_at("reason"));
                let filtered = reason.is_some_and(|reason| reason.is("content_filter"));
                events.push(Event::Finish(if filtered {
                    Finish::Refused
                } else {
                    Finish::Length
                }));
            }
            _ if self.called => events.push(Event::Finish(Finish::Calls)),
            _ if self.refused => events.push(Event::Finish(Finish::Refused)),
            _ => events.push(Event::Finish(Finish::Done)),
        }
        self.ended = true;
        events.push(Event::End);
    }

    fn fail(&mut self, failure: Failure, events: &mut Vec<Event>) {
        self.ended = true;
        events.push(Event::Fail(failure));
    }

    fn start(&mut self, response: Option<Json<'_, '_>>, events: &mut Vec<Event>) {
        if std::mem::replace(&mut self.started, true) {
            return;
        }
        events.push(Event::start(response, ["id", "model"]));
    }

    fn item_added(&mut self, event: Json<'_, '_>, events: &mut Vec<Event>) {
        self.start(None, events);
        let Some(item) = event.get("item") else {
            return;
        };
        // A message and a reasoning open with their first text.
        if let Some(kind) = call_of(item) {
            self.part(index(event, "output_index"), 0, kind, events);
        }
    }

    /// The block of a part of an item, opened if it is new.
    fn part(
        &mut self,
        output: u64,
        part: u64,
        kind: BlockKind,
        events: &mut Vec<Event>,
    ) -> &mut Part {
        let Self { blocks, items, .. } = self;
        self.called |= matches!(kind, BlockKind::Call { .. });
        self.refused |= kind == BlockKind::Refusal;
        items
            .entry(output)
            .or_default()
            .parts
            .entry(part)
            .or_insert_with(|| {
                let block = *blocks;
                *blocks = blocks.saturating_add(1);
                let thought = kind == BlockKind::Reasoning;
                events.push(Event::Open { block, kind });
                Part {
                    block,
                    thought,
                    told: false,
                    closed: false,
                }
            })
    }

    fn delta(&mut self, event: Json<'_, '_>, kind: &str, events: &mut Vec<Event>) {
        self.start(None, events);
        let output = index(event, "output_index");
        let Some(text) = event.text_at("delta").filter(|text| !text.is_empty()) else {
            return;
        };
        let (part, kind) = match kind {
            "response.output_text.delta" => (index(event, "content_index"), BlockKind::Text),
            "response.refusal.delta" => (index(event, "content_index"), BlockKind::Refusal),
            "response.reasoning_text.delta" => (0, BlockKind::Reasoning),
            "response.reasoning_summary_text.delta" => (0, BlockKind::Reasoning),
            // A call whose beginning was left out has no name yet; its end has.
            _ if !self.items.contains_key(&output) => return,
            _ => (0, BlockKind::Text),
        };
        // The parts of a summary are one block, with an empty line between them.
        let summary = event.get("summary_index").and_then(Json::whole);
        let between = self.begins_summary_part(output, summary);
        let part = self.part(output, part, kind, events);
        if part.closed {
            return;
        }
        part.told = true;
        let text = text.plain();
        let text = if between {
            format!("\n\n{text}")
        } else {
            text.into_owned()
        };
        let block = part.block;
        events.push(Event::Delta { block, text });
    }

    /// Notes the part of a summary that this text is of; returns true if it is a later one than the last.
    fn begins_summary_part(&mut self, output: u64, summary: Option<u64>) -> bool {
        let Some(summary) = summary else { return false };
        let item = self.items.entry(output).or_default();
        std::mem::replace(&mut item.summary, summary) < summary
    }

    /// Reads an item that is whole: tells what was not told, and closes it.
    fn item_done(&mut self, output: u64, item: Json<'_, '_>, events: &mut Vec<Event>) {
        self.start(None, events);
        if self.items.entry(output).or_default().done {
            return;
        }
        let kind = item.text_at("type");
        let kind = kind.as_ref().map(Text::plain).unwrap_or_default();
        match &*kind {
            "message" => {
                let content = item.get("content").into_iter().flat_map(Json::items);
                for (number, part) in content.enumerate() {
                    let (kind, text) = match part.text_at("refusal") {
                        Some(refusal) => (BlockKind::Refusal, Some(refusal)),
                        None => (BlockKind::Text, part.text_at("text")),
                    };
                    if let Some(text) = text {
                        self.tell(output, number as u64, kind, &text, events);
                    }
                }
            }
            "reasoning" => {
                let opaque = item.text_at("encrypted_content");
                let texts = |name| {
                    item.get(name)
                        .into_iter()
                        .flat_map(Json::items)
                        .filter_map(|part| part.text_at("text"))
                };
                let texts: Vec<_> = texts("summary")
                    .chain(texts("content"))
                    .map(|text| text.plain())
                    .collect();
                let text = Text::made(texts.join("\n\n"));
                if !text.is_empty() || opaque.is_some() {
                    self.tell(output, 0, BlockKind::Reasoning, &text, events);
                }
                // An item whose deltas were a message's has no place for it.
                if let Some(opaque) = opaque {
                    let part = self.part(output, 0, BlockKind::Reasoning, events);
                    let (block, thought) = (part.block, part.thought && !part.closed);
                    let data = opaque.plain().into_owned();
                    events.extend(thought.then_some(Event::Opaque { block, data }));
                }
            }
            _ => {
                if let Some(kind) = call_of(item) {
                    let text = item.text_at("arguments").or_else(|| item.text_at("input"));
                    self.tell(output, 0, kind, &text.unwrap_or(Text::of("")), events);
                }
            }
        }
        let item = self.items.entry(output).or_default();
        item.done = true;
        close(item, events);
    }

    /// Adds a whole text to the events, unless pieces of it were added before.
    fn tell(
        &mut self,
        output: u64,
        part: u64,
        kind: BlockKind,
        text: &Text<'_>,
        events: &mut Vec<Event>,
    ) {
        let part = self.part(output, part, kind, events);
        if !part.told && !part.closed && !text.is_empty() {
            part.told = true;
            let text = text.plain().into_owned();
            events.push(Event::Delta {
                block: part.block,
                text,
            });
        }
    }

    fn close_all(&mut self, events: &mut Vec<Event>) {
        self.items.values_mut().for_each(|item| close(item, events));
    }
}

fn close(item: &mut Item, events: &mut Vec<Event>) {
    for part in item.parts.values_mut().filter(|part| !part.closed) {
        part.closed = true;
        events.push(Event::Close { block: part.block });
    }
}

fn index(event: Json<'_, '_>, name: &str) -> u64 {
    event.get(name).and_then(Json::whole).unwrap_or_default()
}

/// The call that an item is, if it is one of a tool of the caller's.
fn call_of(item: Json<'_, '_>) -> Option<BlockKind> {
    let kind = item.text_at("type")?;
    let raw = kind.is("custom_tool_call");
    if !raw && !kind.is("function_call") {
        return None;
    }
    Some(BlockKind::Call {
        id: item.text_at("call_id")?.plain().into_owned(),
        name: item.text_at("name")?.plain().into_owned(),
        raw,
    })
}

fn usage_of(usage: Json<'_, '_>) -> Tokens {
    let detail = |details: &str, name: &str| usage.get(details)?.get(name)?.whole();
    let (read, write) = (
        detail("input_tokens_details", "cached_tokens"),
        detail("input_tokens_details", "cache_write_tokens"),
    );
    let cached = read
        .unwrap_or_default()
        .saturating_add(write.unwrap_or_default());
    let whole = usage.get("input_tokens").and_then(Json::whole);
    Tokens {
        input: whole.map(|whole| whole.saturating_sub(cached)),
        cache_read: read,
        cache_write: write,
        output: usage.get("output_tokens").and_then(Json::whole),
        reasoning: detail("output_tokens_details", "reasoning_tokens"),
    }
}
