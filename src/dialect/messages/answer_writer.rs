//! An answer of `messages`, written: a stream, or the whole.
//!
//! A stream has one block open at a time. What comes of another one meanwhile waits for its turn.

use std::collections::BTreeMap;

use crate::{
    dialect::{
        neutral::{
            BlockKind, CONTEXT_LENGTH, Event, Failure, Finish, Folded, FoldedBlock, Tokens,
            functions::is_object,
        },
        parts::{About, AnswerWriter},
    },
    text::{out::Out, sse},
};

/// The most bytes of blocks that wait for another one's end.
pub(super) const MAX_WAITING_BYTES: usize = 1024 * 1024;

/// Writes an answer.
#[derive(Debug, Default)]
pub(super) struct Writer {
    about: About,
    /// Blocks that have begun and are not closed, by their numbers.
    blocks: BTreeMap<u32, Begun>,
    /// The number of the one that is open, and that of the next one in the stream.
    current: Option<u32>,
    index: u64,
    waiting: usize,
    usage: Tokens,
    finish: Option<Finish>,
    failed: bool,
}

/// A block that has begun.
#[derive(Debug)]
struct Begun {
    kind: BlockKind,
    /// The text of it that has not gone on.
    text: String,
    opaque: Option<String>,
    closed: bool,
    /// Its beginning has gone on.
    is_open: bool,
}

// === impl Writer ===

impl Writer {
    /// Writes an answer that says this.
    pub(super) fn of(about: About) -> Box<dyn AnswerWriter> {
        Box::new(Self {
            about,
            ..Self::default()
        })
    }

    /// Writes all that its turn has come for; `last`: nothing follows.
    fn turn(&mut self, last: bool, bytes: &mut Vec<u8>) {
        while let Some(number) = self.current.or_else(|| self.blocks.keys().next().copied()) {
            let Some(block) = self.blocks.get_mut(&number) else {
                self.current = None;
                continue;
            };
            self.current = Some(number);
            block.write(self.index, bytes);
            if !block.closed {
                return;
            }
            let has_nothing = block.is_call_without_arguments();
            if has_nothing && !last && self.blocks.len() == 1 {
                return;
            }
            let Some(block) = self.blocks.get_mut(&number) else {
                continue;
            };
            // Only the last one can have been cut, and is no call then.
            let finish = self.finish.as_ref();
            if !(has_nothing && last && finish.is_some_and(Finish::cuts)) {
                block.stand_alone(self.index, bytes);
            }
            if block.is_open {
                block.end(self.index, bytes);
                self.index = self.index.saturating_add(1);
            }
            self.blocks.remove(&number);
            self.current = None;
        }
    }

    fn wait(&mut self, size: usize, bytes: &mut Vec<u8>) {
        let waiting = self.blocks.values().map(|block| block.text.len());
        self.waiting = waiting.fold(size, usize::saturating_add);
        if self.waiting > MAX_WAITING_BYTES {
            self.fail(
                &Failure::grammar("the platform sends too much at once"),
                bytes,
            );
        }
    }

    fn fail(&mut self, failure: &Failure, bytes: &mut Vec<u8>) {
        self.failed = true;
        (self.blocks, self.waiting) = (BTreeMap::new(), 0);
        sse::write_event(bytes, "error", &error(failure));
    }
}

impl AnswerWriter for Writer {
    fn stream(&mut self, event: &Event, bytes: &mut Vec<u8>) {
        if self.failed {
            return;
        }
        match event {
            Event::Start { id, model } => {
                if self.about.model.is_empty() {
                    self.about.model.clone_from(model);
                }
                let mut out = Out::default();
                out.object(|out| {
                    out.name("type").word("message_start");
                    out.name("message").object(|out| {
                        write_about(out, id, &self.about);
                        out.name("content").list(|_| {});
                        out.name("stop_reason").null();
                        out.name("stop_sequence").null();
                        write_usage(out, &Tokens::default());
                    });
                });
                sse::write_event(bytes, "message_start", &out.into_bytes());
            }
            Event::Open { block, kind } => {
                let begun = Begun {
                    kind: kind.clone(),
                    text: String::new(),
                    opaque: None,
                    closed: false,
                    is_open: false,
                };
                self.blocks.insert(*block, begun);
                self.turn(false, bytes);
            }
            Event::Delta { block, text } => {
                if let Some(block) = self.blocks.get_mut(block) {
                    block.text.push_str(text);
                }
                self.turn(false, bytes);
                self.wait(0, bytes);
            }
            Event::Opaque { block, data } => {
                if let Some(block) = self.blocks.get_mut(block) {
                    block.opaque = Some(data.clone());
                }
            }
            Event::Close { block } => {
                if let Some(block) = self.blocks.get_mut(block) {
                    block.closed = true;
                }
                self.turn(false, bytes);
            }
            Event::Usage(usage) => self.usage.update(*usage),
            Event::Finish(finish) => self.finish = Some(finish.clone()),
            Event::Fail(failure) => self.fail(failure, bytes),
            Event::End => {
                self.turn(true, bytes);
                let finish = self.finish.clone().unwrap_or(Finish::Done);
                let mut out = Out::default();
                out.object(|out| {
                    out.name("type").word("message_delta");
                    out.name("delta").object(|out| write_finish(out, &finish));
                    write_usage(out, &self.usage);
                });
                sse::write_event(bytes, "message_delta", &out.into_bytes());
                sse::write_event(bytes, "message_stop", br#"{"type":"message_stop"}"#);
            }
        }
    }

    fn held_bytes(&self) -> usize {
        self.waiting
    }

    fn whole(&self, events: &[Event]) -> Result<Vec<u8>, Failure> {
        whole(events, self.about.clone())
    }

    fn error(&self, failure: &Failure) -> Vec<u8> {
        error(failure)
    }
}

// === impl Begun ===

impl Begun {
    /// Writes what has come of it, at `index` of the stream.
    fn write(&mut self, index: u64, bytes: &mut Vec<u8>) {
        // Thinking begins with its first text: without any, what is opaque stands alone. A call begins with its first
        // arguments: without any, the end of the answer may have cut it.
        let waits = matches!(self.kind, BlockKind::Reasoning | BlockKind::Call { .. });
        let begins = !self.text.is_empty() || !waits;
        if !self.is_open && begins {
            self.is_open = true;
            start(index, bytes, |out| write_block(out, &self.kind, "", None));
        }
        if self.text.is_empty() {
            return;
        }
        let text = std::mem::take(&mut self.text);
        let (kind, member) = match self.kind {
            BlockKind::Text | BlockKind::Refusal => ("text_delta", "text"),
            BlockKind::Reasoning => ("thinking_delta", "thinking"),
            BlockKind::Call { .. } => ("input_json_delta", "partial_json"),
        };
        delta(index, bytes, kind, member, &text);
        if self.closed {
            self.close_opaque(index, bytes);
        }
    }

    /// Returns true if a call came without arguments.
    fn is_call_without_arguments(&self) -> bool {
        !self.is_open && matches!(self.kind, BlockKind::Call { .. })
    }

    /// Writes what is opaque as a block of its own, where no text came before it, and a call without arguments.
    fn stand_alone(&mut self, index: u64, bytes: &mut Vec<u8>) {
        if self.is_open || (self.opaque.is_none() && !self.is_call_without_arguments()) {
            return;
        }
        let opaque = self.opaque.take();
        self.is_open = true;
        start(index, bytes, |out| {
            write_block(out, &self.kind, "", opaque.as_deref());
        });
    }

    fn close_opaque(&mut self, index: u64, bytes: &mut Vec<u8>) {
        if let Some(signature) = self.opaque.take() {
            delta(index, bytes, "signature_delta", "signature", &signature);
        }
    }

    /// Writes its end.
    fn end(&mut self, index: u64, bytes: &mut Vec<u8>) {
        self.close_opaque(index, bytes);
        let mut out = Out::default();
        out.object(|out| {
            out.name("type").word("content_block_stop");
            out.name("index").number(index);
        });
        sse::write_event(bytes, "content_block_stop", &out.into_bytes());
    }
}

fn start(index: u64, bytes: &mut Vec<u8>, block: impl FnOnce(&mut Out)) {
    let mut out = Out::default();
    out.object(|out| {
        out.name("type").word("content_block_start");
        out.name("index").number(index);
        block(out.name("content_block"));
    });
    sse::write_event(bytes, "content_block_start", &out.into_bytes());
}

fn delta(index: u64, bytes: &mut Vec<u8>, kind: &str, member: &str, text: &str) {
    let mut out = Out::default();
    out.object(|out| {
        out.name("type").word("content_block_delta");
        out.name("index").number(index);
        out.name("delta").object(|out| {
            out.name("type").word(kind);
            out.name(member).word(text);
        });
    });
    sse::write_event(bytes, "content_block_delta", &out.into_bytes());
}

fn write_about(out: &mut Out, id: &str, about: &About) {
    let id = id
        .trim_start_matches("resp_")
        .trim_start_matches("chatcmpl-");
    let id = id.trim_start_matches("msg_");
    out.name("id").word(&format!("msg_{id}"));
    out.name("type").word("message");
    out.name("role").word("assistant");
    out.name("model").word(&about.model);
}

/// A block. What a call takes is an object, whatever the model wrote.
fn write_block(out: &mut Out, kind: &BlockKind, text: &str, opaque: Option<&str>) {
    out.object(|out| match kind {
        BlockKind::Text | BlockKind::Refusal => {
            out.name("type").word("text");
            out.name("text").word(text);
        }
        BlockKind::Reasoning if text.is_empty() && opaque.is_some() => {
            out.name("type").word("redacted_thinking");
            out.name("data").word(opaque.unwrap_or_default());
        }
        BlockKind::Reasoning => {
            out.name("type").word("thinking");
            out.name("thinking").word(text);
            out.name("signature").word(opaque.unwrap_or_default());
        }
        BlockKind::Call { id, name, .. } => {
            out.name("type").word("tool_use");
            out.name("id").word(id);
            out.name("name").word(name);
            match text {
                "" => out.name("input").object(|_| {}),
                text if is_object(text) => out.name("input").raw(text),
                text => out.name("input").object(|out| out.name("input").word(text)),
            }
        }
    });
}

fn write_finish(out: &mut Out, finish: &Finish) {
    let word = match finish {
        Finish::Done | Finish::Stop(None) => "end_turn",
        Finish::Stop(Some(_)) => "stop_sequence",
        Finish::Calls => "tool_use",
        Finish::Length => "max_tokens",
        Finish::ContextFull => "model_context_window_exceeded",
        Finish::Refused => "refusal",
        Finish::Paused => "pause_turn",
    };
    out.name("stop_reason").word(word);
    match finish {
        Finish::Stop(Some(text)) => out.name("stop_sequence").word(text),
        _ => out.name("stop_sequence").null(),
    }
}

fn write_usage(out: &mut Out, usage: &Tokens) {
    out.name("usage").object(|out| {
        for (name, count) in [
            ("input_tokens", usage.input),
            ("cache_read_input_tokens", usage.cache_read),
            ("cache_creation_input_tokens", usage.cache_write),
            ("output_tokens", usage.output),
        ] {
            out.name(name).number(count.unwrap_or_default());
        }
        if let Some(thought) = usage.reasoning {
            out.name("output_tokens_details")
                .object(|out| out.name("thinking_tokens").number(thought));
        }
    });
}

/// The beginning of the message for a conversation that is too long.
const TOO_LONG: &str = "prompt is too long: ";

fn error(failure: &Failure) -> Vec<u8> {
    let kind = match failure.status {
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        503 | 529 => "overloaded_error",
        504 => "timeout_error",
        400..=499 => "invalid_request_error",
        _ => "api_error",
    };
    // Claude Code makes a conversation shorter on these words.
    let is_too_long = failure.code.as_deref() == Some(CONTEXT_LENGTH);
    let begins = match is_too_long && !failure.message.starts_with(TOO_LONG) {
        true => TOO_LONG,
        false => "",
    };
    let mut out = Out::default();
    out.object(|out| {
        out.name("type").word("error");
        out.name("error").object(|out| {
            out.name("type").word(kind);
            out.name("message")
                .word(&format!("{begins}{}", failure.message));
        });
    });
    out.into_bytes()
}

fn whole(events: &[Event], mut about: About) -> Result<Vec<u8>, Failure> {
    let Folded {
        id,
        model,
        blocks,
        usage,
        finish,
    } = Folded::of(events)?.without_cut_calls();
    if about.model.is_empty() {
        about.model = model;
    }
    let mut out = Out::default();
    out.object(|out| {
        write_about(out, &id, &about);
        out.name("content").list(|out| {
            for FoldedBlock { kind, text, opaque } in &blocks {
                let is_call = matches!(kind, BlockKind::Call { .. });
                if !text.is_empty() || is_call || opaque.is_some() {
                    write_block(out, kind, text, opaque.as_deref());
                }
            }
        });
        write_finish(out, &finish);
        write_usage(out, &usage);
    });
    Ok(out.into_bytes())
}
