//! An answer of `gemini`, written: a stream of events, a stream that is one list, or the whole.
//!
//! Text goes on in pieces, a call when it is whole. What only the maker of a reasoning reads stands in the next part that
//! is no thought: clients keep those, and send them back as they were.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::status_word;
use crate::{
    dialect::{
        neutral::{
            BlockKind, Event, Failure, Finish, Folded, Tokens, functions::is_object, is_cut,
        },
        parts::{About, AnswerWriter},
    },
    text::out::Out,
};

/// The most bytes of calls that are not whole.
const MAX_WAITING_BYTES: usize = 1024 * 1024;

/// Writes an answer.
#[derive(Debug, Default)]
pub(super) struct Writer {
    about: About,
    id: String,
    /// The blocks that are open, and of calls what has come.
    blocks: BTreeMap<u32, (BlockKind, String)>,
    /// Calls that have ended, and wait until it is known if the end of the answer has cut them: what they take is no
    /// object, or they follow one of that kind.
    ended: Vec<(BlockKind, String)>,
    parts: Parts,
    usage: Tokens,
    finish: Option<Finish>,
    /// The first element of a list was written.
    has_begun: bool,
    failed: bool,
}

/// Writes parts.
#[derive(Debug, Default)]
struct Parts {
    /// The signature that no part has carried yet.
    signature: Option<String>,
    has_written: bool,
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

    /// Writes an element of the stream.
    fn send(&mut self, element: &[u8], is_last: bool, bytes: &mut Vec<u8>) {
        let (before, after): (&[u8], &[u8]) = match (self.about.as_list, self.has_begun) {
            (false, _) => (b"data: ", b"\n\n"),
            (true, false) => (b"[", b""),
            (true, true) => (b",\r\n", b""),
        };
        self.has_begun = true;
        for piece in [before, element, after] {
            bytes.extend_from_slice(piece);
        }
        if is_last && self.about.as_list {
            bytes.push(b']');
        }
    }

    fn part(&mut self, bytes: &mut Vec<u8>, write: impl FnOnce(&mut Parts, &mut Out)) {
        let mut out = Out::default();
        let parts = &mut self.parts;
        out.object(|out| {
            write_candidate(out, None, |out| write(parts, out));
            write_about(out, &self.id, &self.about);
        });
        self.send(&out.into_bytes(), false, bytes);
    }

    fn call(&mut self, kind: &BlockKind, arguments: &str, bytes: &mut Vec<u8>) {
        self.part(bytes, |parts, out| parts.call(kind, arguments, out));
    }

    fn fail(&mut self, failure: &Failure, bytes: &mut Vec<u8>) {
        self.failed = true;
        self.blocks = BTreeMap::new();
        self.send(&error(failure), true, bytes);
    }

    fn end(&mut self, bytes: &mut Vec<u8>) {
        let finish = self.finish.clone().unwrap_or(Finish::Done);
        let ended = std::mem::take(&mut self.ended);
        for (index, (kind, arguments)) in ended.iter().enumerate() {
            let is_last = index.saturating_add(1) == ended.len();
            if !is_cut(arguments, is_last, &finish) {
                self.call(kind, arguments, bytes);
            }
        }
        let mut out = Out::default();
        let parts = &mut self.parts;
        out.object(|out| {
            // Python's client forgets a turn with an event that has no part.
            write_candidate(out, Some(&finish), |out| parts.text("", false, out));
            write_usage(out, &self.usage);
            write_about(out, &self.id, &self.about);
        });
        self.send(&out.into_bytes(), true, bytes);
    }
}

impl AnswerWriter for Writer {
    fn stream(&mut self, event: &Event, bytes: &mut Vec<u8>) {
        if self.failed {
            return;
        }
        match event {
            Event::Start { id, model } => {
                self.id.clone_from(id);
                if self.about.model.is_empty() {
                    self.about.model.clone_from(model);
                }
            }
            Event::Open { block, kind } => {
                // What another one follows was not cut.
                for (kind, arguments) in std::mem::take(&mut self.ended) {
                    self.call(&kind, &arguments, bytes);
                }
                self.blocks.insert(*block, (kind.clone(), String::new()));
            }
            Event::Delta { block, text } => {
                let Some((kind, waiting)) = self.blocks.get_mut(block) else {
                    return;
                };
                if !matches!(kind, BlockKind::Call { .. }) {
                    let is_thought = *kind == BlockKind::Reasoning;
                    return self.part(bytes, |parts, out| parts.text(text, is_thought, out));
                }
                waiting.push_str(text);
                if self.held_bytes() > MAX_WAITING_BYTES {
                    self.fail(
                        &Failure::grammar("the platform sends too much at once"),
                        bytes,
                    );
                }
            }
            Event::Opaque { data, .. } => {
                if self.parts.signature.is_some() {
                    self.part(bytes, |parts, out| parts.text("", false, out));
                }
                self.parts.signature = Some(data.clone());
            }
            Event::Close { block } => {
                if let Some((kind @ BlockKind::Call { .. }, text)) = self.blocks.remove(block) {
                    if self.ended.is_empty() && is_object(&text) {
                        self.call(&kind, &text, bytes);
                    } else {
                        self.ended.push((kind, text));
                    }
                }
            }
            Event::Usage(usage) => self.usage.update(*usage),
            Event::Finish(finish) => self.finish = Some(finish.clone()),
            Event::Fail(failure) => self.fail(failure, bytes),
            Event::End => self.end(bytes),
        }
    }

    fn held_bytes(&self) -> usize {
        let waiting = self.blocks.values().chain(&self.ended);
        let waiting = waiting.map(|(_, text)| text.len());
        waiting.fold(0, usize::saturating_add)
    }

    fn whole(&self, events: &[Event]) -> Result<Vec<u8>, Failure> {
        let answer = Folded::of(events)?.without_cut_calls();
        let mut about = self.about.clone();
        if about.model.is_empty() {
            about.model.clone_from(&answer.model);
        }
        let mut parts = Parts::default();
        let mut out = Out::default();
        out.object(|out| {
            write_candidate(out, Some(&answer.finish), |out| {
                for block in &answer.blocks {
                    let (kind, text) = (&block.kind, &*block.text);
                    let is_call = matches!(kind, BlockKind::Call { .. });
                    if is_call {
                        parts.call(kind, text, out);
                    } else if !text.is_empty() {
                        parts.text(text, *kind == BlockKind::Reasoning, out);
                    }
                    if let Some(opaque) = &block.opaque {
                        if parts.signature.is_some() {
                            parts.text("", false, out);
                        }
                        parts.signature = Some(opaque.clone());
                    }
                }
                if parts.signature.is_some() || !parts.has_written {
                    parts.text("", false, out);
                }
            });
            write_usage(out, &answer.usage);
            write_about(out, &answer.id, &about);
        });
        Ok(out.into_bytes())
    }

    fn error(&self, failure: &Failure) -> Vec<u8> {
        error(failure)
    }
}

// === impl Parts ===

impl Parts {
    fn text(&mut self, text: &str, is_thought: bool, out: &mut Out) {
        self.has_written = true;
        out.object(|out| {
            out.name("text").word(text);
            if is_thought {
                out.name("thought").bool(true);
            } else {
                self.sign(out);
            }
        });
    }

    /// A call. What it takes is an object, whatever the model wrote.
    fn call(&mut self, kind: &BlockKind, arguments: &str, out: &mut Out) {
        let BlockKind::Call { id, name, .. } = kind else {
            return;
        };
        self.has_written = true;
        out.object(|out| {
            out.name("functionCall").object(|out| {
                out.name("id").word(id);
                out.name("name").word(name);
                match arguments {
                    "" => out.name("args").object(|_| {}),
                    text if is_object(text) => out.name("args").raw(text),
                    text => out.name("args").object(|out| out.name("input").word(text)),
                }
            });
            self.sign(out);
        });
    }

    /// Clients take a signature for bytes in base64.
    fn sign(&mut self, out: &mut Out) {
        if let Some(signature) = self.signature.take() {
            out.name("thoughtSignature")
                .word(&STANDARD.encode(signature));
        }
    }
}

fn write_candidate(out: &mut Out, finish: Option<&Finish>, parts: impl FnOnce(&mut Out)) {
    out.name("candidates").list(|out| {
        out.object(|out| {
            out.name("content").object(|out| {
                out.name("parts").list(parts);
                out.name("role").word("model");
            });
            if let Some(finish) = finish {
                out.name("finishReason").word(word(finish));
            }
            out.name("index").number(0);
        });
    });
}

fn write_about(out: &mut Out, id: &str, about: &About) {
    out.name("modelVersion").word(&about.model);
    out.name("responseId").word(id);
}

fn word(finish: &Finish) -> &'static str {
    match finish {
        Finish::Done | Finish::Stop(_) | Finish::Calls => "STOP",
        Finish::Length | Finish::ContextFull => "MAX_TOKENS",
        Finish::Refused => "SAFETY",
        Finish::Paused => "OTHER",
    }
}

/// The tokens, if any were told.
fn write_usage(out: &mut Out, usage: &Tokens) {
    if *usage == Tokens::default() {
        return;
    }
    let (prompt, output) = (usage.prompt(), usage.output.unwrap_or_default());
    let said = output.saturating_sub(usage.reasoning.unwrap_or_default());
    out.name("usageMetadata").object(|out| {
        out.name("promptTokenCount").number(prompt);
        out.name("candidatesTokenCount").number(said);
        out.name("totalTokenCount")
            .number(prompt.saturating_add(output));
        for (name, count) in [
            ("cachedContentTokenCount", usage.cache_read),
            ("thoughtsTokenCount", usage.reasoning),
        ] {
            if let Some(count) = count {
                out.name(name).number(count);
            }
        }
    });
}

fn error(failure: &Failure) -> Vec<u8> {
    let status = match failure.status {
        529 => 503,
        status => status,
    };
    let mut out = Out::default();
    out.object(|out| {
        out.name("error").object(|out| {
            out.name("code").number(status.into());
            out.name("message").word(&failure.message);
            out.name("status").word(status_word(status));
            if let Some(code) = &failure.code {
                out.name("details").list(|out| {
                    out.object(|out| {
                        out.name("@type")
                            .word("type.googleapis.com/google.rpc.ErrorInfo");
                        out.name("reason").word(code);
                    });
                });
            }
        });
    });
    out.into_bytes()
}
