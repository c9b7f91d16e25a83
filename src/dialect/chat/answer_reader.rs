//! An answer of `chat`, read: a stream's events, or the whole, of OpenAI's own server and of all that take after it.

mod calls;

use self::calls::Calls;
use crate::{
    dialect::{
        neutral::{BlockKind, Event, Failure, Finish, Tokens},
        parts::AnswerReader,
    },
    text::tree::{Json, JsonKind, Text, Tree},
};

/// Reads an answer in steps.
///
/// This dialect has no blocks, so they are made here: one of text or of reasoning ends where another one begins, and
/// calls where the answer says that it ends. It has ended at `[DONE]`, or with the stream once it said why.
#[derive(Debug, Default)]
pub struct Reader {
    started: bool,
    ended: bool,
    blocks: u32,
    /// The block of text or reasoning that is open.
    open: Option<(u32, BlockKind)>,
    calls: Calls,
    usage: Tokens,
    finish: Option<Finish>,
}

// === impl Reader ===

impl AnswerReader for Reader {
    fn on_event(&mut self, data: &[u8], events: &mut Vec<Event>) {
        if self.ended {
            return;
        }
        if data.trim_ascii() == b"[DONE]" {
            return self.end(events);
        }
        match Tree::read(data) {
            Ok(tree) => self.chunk(tree.root(), events),
            Err(_) => self.fail(Failure::event_is_no_json(), events),
        }
    }

    fn on_whole(&mut self, body: &[u8], events: &mut Vec<Event>) {
        let Ok(tree) = Tree::read(body) else {
            return self.fail(Failure::answer_is_no_json(), events);
        };
        self.chunk(tree.root(), events);
        if self.ended {
            return;
        }
        match self.started {
            true => self.end(events),
            false => self.fail(
                Failure::grammar("the platform's answer has no choice"),
                events,
            ),
        }
    }

    fn on_end(&mut self, events: &mut Vec<Event>) {
        match (self.ended, &self.finish) {
            (true, _) => {}
            (false, Some(_)) => self.end(events),
            (false, None) => self.fail(Failure::stream_broke_off(), events),
        }
    }

    fn held_bytes(&self) -> usize {
        self.calls.waiting_bytes()
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

    /// Ends an answer that said so.
    fn end(&mut self, events: &mut Vec<Event>) {
        self.ended = true;
        self.start(None, events);
        self.close(events);
        self.calls.close(&mut self.blocks, events);
        let called = self.calls.any();
        // A call that the limit cut is none; any other one counts, whatever the platform says.
        let finish = match self.finish.take() {
            Some(Finish::Done) | None if called => Finish::Calls,
            Some(Finish::Calls) | None if !called => Finish::Done,
            Some(finish) => finish,
            None => Finish::Done,
        };
        events.push(Event::Usage(self.usage));
        events.push(Event::Finish(finish));
        events.push(Event::End);
    }

    fn start(&mut self, answer: Option<Json<'_, '_>>, events: &mut Vec<Event>) {
        if std::mem::replace(&mut self.started, true) {
            return;
        }
        events.push(Event::start(answer, ["id", "model"]));
    }

    /// Reads a chunk of a stream, or a whole answer.
    fn chunk(&mut self, chunk: Json<'_, '_>, events: &mut Vec<Event>) {
        // An error may come as a list of one.
        let chunk = chunk.items().next().unwrap_or(chunk);
        let choices = chunk.get("choices");
        let own_code = chunk.get("code").filter(|code| code.raw() != "0");
        let error = match chunk.get("error") {
            Some(error) if error.flag() != Some(false) => Some(error),
            _ => own_code
                .filter(|_| choices.is_none() && chunk.get("message").is_some())
                .map(|_| chunk),
        };
        if let Some(error) = error {
            return self.fail(Failure::of(error), events);
        }
        if let Some(usage) = chunk.get("usage") {
            self.usage.update(usage_of(usage));
        }
        let choices = choices.into_iter().flat_map(Json::items);
        let is_first = |choice: &Json<'_, '_>| {
            let index = choice.get("index").and_then(Json::whole);
            index.unwrap_or_default() == 0
        };
        for choice in choices.filter(is_first) {
            self.start(Some(chunk), events);
            self.choice(choice, events);
            if self.ended {
                return;
            }
        }
    }

    fn choice(&mut self, choice: Json<'_, '_>, events: &mut Vec<Event>) {
        if let Some(usage) = choice.get("usage") {
            self.usage.update(usage_of(usage));
        }
        if let Some(said) = choice.get("delta").or_else(|| choice.get("message")) {
            self.said(said, events);
        }
        if self.ended {
            return;
        }
        // Baidu's word for what its filter took out.
        let flagged = choice.get("flag").and_then(Json::whole).unwrap_or_default() != 0;
        let reason = choice.text_at("finish_reason");
        let reason = reason.as_ref().map(Text::plain).unwrap_or_default();
        let finish = match &*reason {
            _ if flagged => Finish::Refused,
            "" | "null" => return,
            "length" | "max_tokens" | "model_length" => Finish::Length,
            "model_context_window_exceeded" => Finish::ContextFull,
            "content_filter" | "sensitive" | "refusal" => Finish::Refused,
            "tool_calls" | "function_call" | "tool_use" => Finish::Calls,
            "network_error" | "error" | "malformed_function_call" | "MALFORMED_FUNCTION_CALL" => {
                let why = format!("the platform gave the answer up: {reason}");
                return self.fail(Failure::grammar(&why), events);
            }
            _ => Finish::Done,
        };
        self.finish = Some(finish);
        self.close(events);
        self.calls.close(&mut self.blocks, events);
    }

    /// Reads what the model says in a piece, or in all.
    fn said(&mut self, said: Json<'_, '_>, events: &mut Vec<Event>) {
        let thought = ["reasoning_content", "reasoning"]
            .into_iter()
            .find_map(|name| said.text_at(name).filter(|text| !text.is_empty()));
        match (thought, said.get("reasoning_details")) {
            (Some(thought), _) => self.text(BlockKind::Reasoning, &thought, events),
            (None, Some(details)) => {
                for detail in details.items() {
                    let text = detail.text_at("text").or_else(|| detail.text_at("summary"));
                    if let Some(text) = text {
                        self.text(BlockKind::Reasoning, &text, events);
                    }
                }
            }
            (None, None) => {}
        }
        if let Some(content) = said.get("content") {
            self.content(content, events);
        }
        if let Some(refusal) = said.text_at("refusal") {
            self.text(BlockKind::Refusal, &refusal, events);
        }
        // Spark has one call as an object, where it was not asked for a list.
        let calls = said.get("tool_calls").into_iter();
        let calls = calls.flat_map(|calls| {
            let one = (calls.kind() == JsonKind::Object).then_some(calls);
            one.into_iter().chain(calls.items())
        });
        self.calls.begin_list();
        for call in calls {
            self.call(call, events);
        }
        if said.get("function_call").is_some() {
            self.call(said, events);
        }
    }

    fn call(&mut self, call: Json<'_, '_>, events: &mut Vec<Event>) {
        self.close(events);
        if let Err(failure) = self.calls.read(call, &mut self.blocks, events) {
            self.fail(failure, events);
        }
    }

    /// Reads content: a text, or parts as Mistral has them.
    fn content(&mut self, content: Json<'_, '_>, events: &mut Vec<Event>) {
        if let Some(text) = content.text() {
            return self.text(BlockKind::Text, &text, events);
        }
        for part in content.items() {
            if let Some(text) = part.text_at("text") {
                self.text(BlockKind::Text, &text, events);
            }
            let thinking = part.get("thinking").into_iter().flat_map(Json::items);
            for thought in thinking.filter_map(|part| part.text_at("text")) {
                self.text(BlockKind::Reasoning, &thought, events);
            }
        }
    }

    fn text(&mut self, kind: BlockKind, text: &Text<'_>, events: &mut Vec<Event>) {
        // Some servers put a line break between two calls.
        if text.is_empty() || self.calls.any() && text.is_blank() {
            return;
        }
        if self.open.as_ref().is_none_or(|(_, open)| *open != kind) {
            self.close(events);
            let block = self.blocks;
            self.blocks = block.saturating_add(1);
            self.open = Some((block, kind.clone()));
            events.push(Event::Open { block, kind });
        }
        if let Some((block, _)) = self.open {
            let text = text.plain().into_owned();
            events.push(Event::Delta { block, text });
        }
    }

    fn close(&mut self, events: &mut Vec<Event>) {
        if let Some((block, _)) = self.open.take() {
            events.push(Event::Close { block });
        }
    }
}

fn usage_of(usage: Json<'_, '_>) -> Tokens {
    let whole = |name: &str| usage.get(name).and_then(Json::whole);
    let detail = |details: &str, name: &str| usage.get(details)?.get(name)?.whole();
    let read = detail("prompt_tokens_details", "cached_tokens")
        .or_else(|| whole("prompt_cache_hit_tokens"))
        .or_else(|| whole("cached_tokens"));
    let write = detail("prompt_tokens_details", "cache_write_tokens");
    let cached = read
        .unwrap_or_default()
        .saturating_add(write.unwrap_or_default());
    let (prompt, completion) = (whole("prompt_tokens"), whole("completion_tokens"));
    // Google leaves the thoughts out of what was made, and counts them in all.
    let rest = whole("total_tokens").zip(prompt);
    let rest = rest.map(|(total, prompt)| total.saturating_sub(prompt));
    Tokens {
        input: prompt.map(|prompt| prompt.saturating_sub(cached)),
        cache_read: read,
        cache_write: write,
        output: completion.map(|made| made.max(rest.unwrap_or_default())),
        reasoning: detail("completion_tokens_details", "reasoning_tokens"),
    }
}
