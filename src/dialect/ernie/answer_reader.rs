//! An answer of `ernie`, read: a stream's events, or the whole.

use crate::{
    dialect::{
        neutral::{BlockKind, CONTEXT_LENGTH, Event, Failure, Finish, InTurn, Progress, Tokens},
        parts::AnswerReader,
    },
    text::tree::{Json, Text, Tree},
};

/// Reads an answer in steps.
///
/// This dialect has no blocks, so they are made here: one of text ends where a call begins, or the answer.
#[derive(Debug, Default)]
pub(super) struct Reader {
    started: bool,
    ended: bool,
    blocks: InTurn,
    /// The arguments of the call that is open.
    arguments: Progress,
    has_called: bool,
    usage: Tokens,
    /// The kind of end that it has told: this one and the next two.
    refused: bool,
    cut: bool,
    stopped: bool,
}

// === impl Reader ===

impl AnswerReader for Reader {
    fn on_event(&mut self, data: &[u8], events: &mut Vec<Event>) {
        if self.ended {
            return;
        }
        match Tree::read(data) {
            Ok(tree) => self.chunk(tree.root(), false, events),
            Err(_) => self.fail(Failure::event_is_no_json(), events),
        }
    }

    fn on_whole(&mut self, body: &[u8], events: &mut Vec<Event>) {
        match Tree::read(body) {
            Ok(tree) => self.chunk(tree.root(), true, events),
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
    pub(super) fn begin() -> Box<dyn AnswerReader> {
        Box::new(Self::default())
    }

    fn fail(&mut self, failure: Failure, events: &mut Vec<Event>) {
        self.ended = true;
        events.push(Event::Fail(failure));
    }

    /// Reads an event's data, or an answer that is `whole`.
    fn chunk(&mut self, chunk: Json<'_, '_>, whole: bool, events: &mut Vec<Event>) {
        let result = chunk.text_at("result");
        if let Some(failure) = failure(chunk, result.is_none()) {
            return self.fail(failure, events);
        }
        let call = chunk.get("function_call").filter(|call| !call.is_null());
        if whole && result.is_none() && call.is_none() {
            let why = "the platform's answer has no result";
            return self.fail(Failure::grammar(why), events);
        }
        if !std::mem::replace(&mut self.started, true) {
            events.push(Event::start(Some(chunk), ["id", "model"]));
        }
        if let Some(usage) = chunk.get("usage") {
            let count = |name| usage.get(name).and_then(Json::whole);
            self.usage.update(Tokens {
                input: count("prompt_tokens"),
                output: count("completion_tokens"),
                ..Tokens::default()
            });
        }
        // Text ends a call, so what belongs to that call comes before it.
        let more = call.filter(|call| self.is_more(*call));
        if let Some(more) = more {
            self.arguments(more, events);
        }
        if let Some(result) = result {
            self.blocks.text(BlockKind::Text, &result, events);
        }
        if let Some(call) = call.filter(|_| more.is_none()) {
            self.call(call, events);
        }
        let is = |name| chunk.get(name).and_then(Json::flag) == Some(true);
        let flagged = chunk.get("flag").and_then(Json::whole).unwrap_or_default() != 0;
        let reason = chunk.text_at("finish_reason");
        let reason = reason.as_ref().map(Text::plain).unwrap_or_default();
        // What it wants forgotten was refused.
        self.refused |= is("need_clear_history") || flagged || reason == "content_filter";
        self.cut |= is("is_truncated") || reason == "length";
        self.stopped |= reason == "stop";
        if !self.ended && (whole || is("is_end")) {
            self.end(events);
        }
    }

    fn end(&mut self, events: &mut Vec<Event>) {
        self.ended = true;
        self.blocks.close(events);
        events.push(Event::Usage(self.usage));
        events.push(Event::Finish(match () {
            () if self.refused => Finish::Refused,
            () if self.cut => Finish::Length,
            () if self.has_called => Finish::Calls,
            () if self.stopped => Finish::Stop(None),
            () => Finish::Done,
        }));
        events.push(Event::End);
    }

    /// Returns true if `call` is more of the call that is open: it has no name, or that name again before the
    /// arguments are whole.
    fn is_more(&self, call: Json<'_, '_>) -> bool {
        let Some((_, BlockKind::Call { name: open, .. })) = self.blocks.open() else {
            return false;
        };
        let name = call.text_at("name");
        let name = name.as_ref().map(Text::plain).unwrap_or_default();
        name.is_empty() || (name == open.as_str() && !self.arguments.is_whole())
    }

    /// Reads a call that begins. What the model thought before it stands in it.
    fn call(&mut self, call: Json<'_, '_>, events: &mut Vec<Event>) {
        if let Some(thoughts) = call.text_at("thoughts") {
            self.blocks.text(BlockKind::Reasoning, &thoughts, events);
        }
        if let Some(name) = call.text_at("name").filter(|name| !name.is_empty()) {
            self.has_called = true;
            let kind = BlockKind::Call {
                // The platform has none.
                id: String::new(),
                name: name.plain().into_owned(),
                raw: false,
            };
            self.blocks.begin(kind, events);
            self.arguments = Progress::default();
        }
        self.arguments(call, events);
    }

    /// Reads arguments of the call that is open.
    fn arguments(&mut self, call: Json<'_, '_>, events: &mut Vec<Event>) {
        let arguments = call.get("arguments");
        let text = match arguments.and_then(Json::text) {
            Some(text) => text.plain().into_owned(),
            None => arguments.map_or("", Json::raw).to_owned(),
        };
        if text.is_empty() {
            return;
        }
        let Some((block, BlockKind::Call { .. })) = self.blocks.open() else {
            let why = "the platform's answer has arguments of no call";
            return self.fail(Failure::grammar(why), events);
        };
        self.arguments.read(&text);
        events.push(Event::Delta { block, text });
    }
}

/// The failure that an answer is, or an event. `bare`: it has no result, so any code in it is that of an error.
fn failure(said: Json<'_, '_>, bare: bool) -> Option<Failure> {
    if let Some(error) = said.get("error").filter(|error| !error.is_null()) {
        return Some(Failure::of(error));
    }
    let code = said.get("error_code");
    let code = code.or_else(|| said.get("code").filter(|_| bare))?;
    let words = code.text().map_or(code.raw().into(), |text| text.plain());
    let number: u64 = words.parse().unwrap_or(u64::MAX);
    let status = match number {
        0 => return None,
        4 | 17 | 18 | 19 | 336_501 | 336_502 => 429,
        1 | 2 | 13 | 14 | 15 | 100 | 110 | 111 | 336_000 | 336_100 | 500_000 => 500,
        _ => 400,
    };
    let message = ["error_msg", "msg", "message"];
    let message = message.into_iter().find_map(|name| said.text_at(name));
    let message = message.map_or_else(String::new, |text| text.plain().into_owned());
    // It is longer than the model takes.
    let code = match number {
        336_103 => CONTEXT_LENGTH.to_owned(),
        _ => words.into_owned(),
    };
    Some(Failure {
        status,
        message,
        code: Some(code),
    })
}
