//! An answer of `gemini`, read: a stream's events, a list of them, or the whole.

use crate::{
    dialect::{
        neutral::{BlockKind, Event, Failure, Finish, InTurn, Tokens},
        parts::AnswerReader,
    },
    hash::hash64,
    text::tree::{Json, JsonKind, Text, Tree},
};

/// Reads an answer in steps.
///
/// This dialect has no blocks, so they are made here: one of text or of thoughts ends where another one begins. A stream
/// has no mark at its end: an answer is whole that said why it ended.
#[derive(Debug, Default)]
pub(super) struct Reader {
    id: Option<String>,
    blocks: InTurn,
    calls: u32,
    finish: Option<Finish>,
    ended: bool,
}

// === impl Reader ===

impl AnswerReader for Reader {
    fn on_event(&mut self, data: &[u8], events: &mut Vec<Event>) {
        if self.ended {
            return;
        }
        match Tree::read(data) {
            Ok(tree) => self.chunks(tree.root(), events),
            Err(_) => self.fail(Failure::event_is_no_json(), events),
        }
    }

    fn on_whole(&mut self, body: &[u8], events: &mut Vec<Event>) {
        match Tree::read(body) {
            Ok(tree) => self.chunks(tree.root(), events),
            Err(_) => self.fail(Failure::answer_is_no_json(), events),
        }
        self.on_end(events);
    }

    fn on_end(&mut self, events: &mut Vec<Event>) {
        if self.ended {
            return;
        }
        let Some(finish) = self.finish.take() else {
            return self.fail(Failure::answer_broke_off(), events);
        };
        self.ended = true;
        self.blocks.close(events);
        // It says of calls too that all is well.
        let has_called = self.calls > 0;
        events.push(Event::Finish(match finish {
            Finish::Done if has_called => Finish::Calls,
            finish => finish,
        }));
        events.push(Event::End);
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

    /// Reads a part of an answer, or a list of them.
    fn chunks(&mut self, json: Json<'_, '_>, events: &mut Vec<Event>) {
        if json.kind() != JsonKind::List {
            return self.chunk(json, events);
        }
        for chunk in json.items() {
            if !self.ended {
                self.chunk(chunk, events);
            }
        }
    }

    fn chunk(&mut self, chunk: Json<'_, '_>, events: &mut Vec<Event>) {
        if let Some(error) = chunk.get("error") {
            return self.fail(Failure::of(error), events);
        }
        if self.id.is_none() {
            let text = |name| chunk.text_at(name);
            let text = |name| text(name).map(|text| text.plain().into_owned());
            let id = text("responseId").unwrap_or_default();
            self.id = Some(id.clone());
            let model = text("modelVersion").unwrap_or_default();
            events.push(Event::Start { id, model });
        }
        if let Some(usage) = chunk.get("usageMetadata") {
            events.push(Event::Usage(usage_of(usage)));
        }
        let blocked = chunk.get("promptFeedback");
        if blocked.is_some_and(|feedback| feedback.get("blockReason").is_some()) {
            self.finish = Some(Finish::Refused);
        }
        let candidate = chunk.get("candidates").and_then(|all| all.items().next());
        let Some(candidate) = candidate else {
            return;
        };
        let parts = candidate
            .get("content")
            .and_then(|content| content.get("parts"));
        for part in parts.into_iter().flat_map(Json::items) {
            self.part(part, events);
        }
        if let Some(reason) = candidate.text_at("finishReason") {
            match finish(&reason.plain()) {
                Some(finish) => self.finish = Some(finish),
                None => {
                    let said = candidate.text_at("finishMessage");
                    let said = said.map(|said| said.plain().into_owned());
                    let failure = Failure {
                        status: 502,
                        message: said
                            .unwrap_or_else(|| "the model made a call that is none".to_owned()),
                        code: Some(reason.plain().into_owned()),
                    };
                    self.fail(failure, events);
                }
            }
        }
    }

    fn part(&mut self, part: Json<'_, '_>, events: &mut Vec<Event>) {
        let is_thought = part.get("thought").and_then(Json::flag) == Some(true);
        if let Some(signature) = part.text_at("thoughtSignature") {
            let block = match self.blocks.open() {
                Some((block, BlockKind::Reasoning)) => block,
                _ => self.blocks.begin(BlockKind::Reasoning, events),
            };
            let data = signature.plain().into_owned();
            // The signature of a thought stands in its last piece.
            if is_thought {
                self.text(part, BlockKind::Reasoning, events);
            }
            events.push(Event::Opaque { block, data });
            self.blocks.close(events);
            if is_thought {
                return;
            }
        }
        if let Some(call) = part.get("functionCall") {
            return self.call(call, events);
        }
        let kind = match is_thought {
            true => BlockKind::Reasoning,
            false => BlockKind::Text,
        };
        self.text(part, kind, events);
    }

    /// Adds the text of a part to the events, in a block of this kind.
    fn text(&mut self, part: Json<'_, '_>, kind: BlockKind, events: &mut Vec<Event>) {
        if let Some(text) = part.text_at("text") {
            self.blocks.text(kind, &text, events);
        }
    }

    fn call(&mut self, call: Json<'_, '_>, events: &mut Vec<Event>) {
        let Some(name) = call.text_at("name") else {
            return;
        };
        let arguments = call.get("args").map_or("{}", Json::raw);
        let id = call.text_at("id").filter(|id| !id.is_empty());
        let id = id
            .map(|id| Text::plain(&id).into_owned())
            .unwrap_or_else(|| {
                let (answer, number) = (self.id.as_deref().unwrap_or_default(), self.calls);
                let number = number.to_be_bytes();
                let parts = [answer.as_bytes(), &number, call.raw().as_bytes()];
                format!("call_{:016x}", hash64(&parts))
            });
        self.calls = self.calls.saturating_add(1);
        let kind = BlockKind::Call {
            id,
            name: name.plain().into_owned(),
            raw: false,
        };
        let block = self.blocks.begin(kind, events);
        let text = arguments.to_owned();
        events.push(Event::Delta { block, text });
        self.blocks.close(events);
    }
}

/// The reason for the end; none where the model made a call that is none.
fn finish(reason: &str) -> Option<Finish> {
    Some(match reason {
        "STOP" | "FINISH_REASON_UNSPECIFIED" => Finish::Done,
        "MAX_TOKENS" => Finish::Length,
        "MALFORMED_FUNCTION_CALL"
        | "UNEXPECTED_TOOL_CALL"
        | "TOO_MANY_TOOL_CALLS"
        | "MISSING_THOUGHT_SIGNATURE"
        | "MALFORMED_RESPONSE" => return None,
        // Its filters have many words, and new ones; none of them is a good end.
        _ => Finish::Refused,
    })
}

fn usage_of(usage: Json<'_, '_>) -> Tokens {
    let count = |name| usage.get(name).and_then(Json::whole);
    let (cached, thoughts) = (
        count("cachedContentTokenCount"),
        count("thoughtsTokenCount"),
    );
    let tools = count("toolUsePromptTokenCount").unwrap_or_default();
    let prompt = count("promptTokenCount").map(|prompt| prompt.saturating_add(tools));
    let said = count("candidatesTokenCount");
    let output = said
        .unwrap_or_default()
        .saturating_add(thoughts.unwrap_or_default());
    Tokens {
        input: prompt.map(|prompt| prompt.saturating_sub(cached.unwrap_or_default())),
        cache_read: cached,
        cache_write: None,
        output: (said.is_some() || thoughts.is_some()).then_some(output),
        reasoning: thoughts,
    }
}
