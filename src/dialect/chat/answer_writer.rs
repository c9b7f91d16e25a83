//! An answer of `chat`, written: a stream, or the whole.

use std::collections::BTreeMap;

use super::{EXTRA, MAKER, SIGNATURE};
use crate::{
    dialect::{
        neutral::{BlockKind, Event, Failure, Finish, Folded, FoldedBlock, Tokens},
        parts::{About, AnswerWriter},
    },
    text::{out::Out, sse, tree::Text},
};

/// Writes an answer.
#[derive(Debug, Default)]
pub struct Writer {
    about: About,
    id: String,
    calls: BTreeMap<u32, Called>,
    kinds: BTreeMap<u32, Kind>,
    usage: Tokens,
    role_told: bool,
    /// State that only the platform reads and that belongs to the call that comes next.
    state: Option<String>,
}

/// A call that a stream has begun.
#[derive(Debug, Clone, Copy)]
struct Called {
    /// Its place among the calls.
    number: u64,
    raw: bool,
    /// Arguments of it were told.
    told: bool,
}

/// The member that a block's text goes into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Content,
    Refusal,
    Reasoning,
    Call,
}

impl Kind {
    fn of(kind: &BlockKind) -> Self {
        match kind {
            BlockKind::Text => Self::Content,
            BlockKind::Refusal => Self::Refusal,
            BlockKind::Reasoning => Self::Reasoning,
            BlockKind::Call { .. } => Self::Call,
        }
    }

    fn member(self) -> &'static str {
        match self {
            Self::Content | Self::Call => "content",
            Self::Refusal => "refusal",
            Self::Reasoning => "reasoning_content",
        }
    }
}

// === impl Writer ===

impl Writer {
    /// Writes an answer that says this.
    pub fn of(about: About) -> Box<dyn AnswerWriter> {
        Box::new(Self {
            about,
            ..Self::default()
        })
    }
}

impl AnswerWriter for Writer {
    fn stream(&mut self, event: &Event, bytes: &mut Vec<u8>) {
        match event {
            Event::Start { id, model } => {
                self.id = own_id(id);
                if self.about.model.is_empty() {
                    self.about.model.clone_from(model);
                }
            }
            Event::Open { block, kind } => {
                self.kinds.insert(*block, Kind::of(kind));
                let state = self.state.take();
                if let BlockKind::Call { id, name, raw } = kind {
                    let number = self.calls.len() as u64;
                    let called = Called {
                        number,
                        raw: *raw,
                        told: false,
                    };
                    self.calls.insert(*block, called);
                    let call = Written {
                        number: Some(number),
                        id,
                        name,
                        raw: *raw,
                        arguments: "",
                        state,
                    };
                    self.delta(bytes, None, |out| {
                        out.name("tool_calls").list(|out| call.write(out))
                    });
                }
            }
            Event::Delta { block, text } => self.text(*block, text, bytes),
            Event::Close { block } => {
                // Without arguments a function is called with none; a raw text is empty.
                let call = self.calls.get(block);
                if call.is_some_and(|call| !call.told && !call.raw) {
                    self.text(*block, "{}", bytes);
                }
            }
            Event::Opaque { data, .. } if self.about.state_beside_calls => {
                self.state = Some(data.clone());
            }
            Event::Opaque { .. } => {}
            Event::Usage(usage) => self.usage.update(*usage),
            Event::Finish(finish) => self.delta(bytes, Some(finish), |_| {}),
            Event::Fail(failure) => {
                let error = error(failure);
                sse::write_data(bytes, &error);
            }
            Event::End => {
                if self.about.wants_usage {
                    let usage = self.usage;
                    self.chunk(bytes, |out| {
                        out.name("choices").list(|_| {});
                        write_usage(out, &usage);
                    });
                }
                sse::write_data(bytes, b"[DONE]");
            }
        }
    }

    fn whole(&self, events: &[Event]) -> Result<Vec<u8>, Failure> {
        whole(events, self.about.clone())
    }

    fn error(&self, failure: &Failure) -> Vec<u8> {
        error(failure)
    }
}

impl Writer {
    fn text(&mut self, block: u32, text: &str, bytes: &mut Vec<u8>) {
        let kind = self.kinds.get(&block).copied().unwrap_or(Kind::Content);
        if let Some(call) = self.calls.get_mut(&block) {
            call.told = true;
            let Called { number, raw, .. } = *call;
            let (kind, member) = form(raw);
            return self.delta(bytes, None, |out| {
                out.name("tool_calls").list(|out| {
                    out.object(|out| {
                        out.name("index").number(number);
                        out.name(kind).object(|out| out.name(member).word(text));
                    });
                });
            });
        }
        self.delta(bytes, None, |out| out.name(kind.member()).word(text));
    }

    /// Writes a chunk with more of the message, or with the reason for its end. The first one tells whose it is.
    fn delta(
        &mut self,
        bytes: &mut Vec<u8>,
        finish: Option<&Finish>,
        delta: impl FnOnce(&mut Out),
    ) {
        let role = !std::mem::replace(&mut self.role_told, true);
        self.chunk(bytes, |out| {
            let delta = |out: &mut Out| {
                if role {
                    out.name("role").word("assistant");
                }
                delta(out);
            };
            write_choice(out, delta, finish);
            if finish.is_some() {
                out.name("usage").null();
            }
        });
    }

    fn chunk(&self, bytes: &mut Vec<u8>, rest: impl FnOnce(&mut Out)) {
        let mut out = Out::default();
        out.object(|out| {
            write_about(out, "chat.completion.chunk", &self.id, &self.about);
            rest(out);
        });
        sse::write_data(bytes, &out.into_bytes());
    }
}

/// The platform's name for an answer, as one of this dialect.
fn own_id(id: &str) -> String {
    let id = id.trim_start_matches("resp_").trim_start_matches("msg_");
    format!("chatcmpl-{id}")
}

fn write_about(out: &mut Out, object: &str, id: &str, about: &About) {
    out.name("id").word(id);
    out.name("object").word(object);
    out.name("created").number(about.created);
    out.name("model").word(&about.model);
}

fn write_choice(out: &mut Out, delta: impl FnOnce(&mut Out), finish: Option<&Finish>) {
    out.name("choices").list(|out| {
        out.object(|out| {
            out.name("index").number(0);
            out.name("delta").object(delta);
            out.name("logprobs").null();
            match finish {
                Some(finish) => out.name("finish_reason").word(word(finish)),
                None => out.name("finish_reason").null(),
            }
        });
    });
}

/// A call as it is written.
struct Written<'a> {
    /// Its place among the calls, in a stream.
    number: Option<u64>,
    id: &'a str,
    name: &'a str,
    raw: bool,
    arguments: &'a str,
    /// State that only the platform reads.
    state: Option<String>,
}

impl Written<'_> {
    fn write(&self, out: &mut Out) {
        out.object(|out| {
            if let Some(number) = self.number {
                out.name("index").number(number);
            }
            out.name("id").word(self.id);
            let (kind, member) = form(self.raw);
            out.name("type").word(kind);
            out.name(kind).object(|out| {
                out.name("name").word(self.name);
                out.name(member).word(self.arguments);
            });
            if let Some(state) = &self.state {
                out.name(EXTRA).object(|out| {
                    out.name(MAKER)
                        .object(|out| out.name(SIGNATURE).word(state));
                });
            }
        });
    }
}

/// The type of a call, and the member of it that has what the tool takes.
fn form(raw: bool) -> (&'static str, &'static str) {
    match raw {
        true => ("custom", "input"),
        false => ("function", "arguments"),
    }
}

fn word(finish: &Finish) -> &'static str {
    match finish {
        Finish::Done | Finish::Stop(_) => "stop",
        Finish::Calls => "tool_calls",
        Finish::Length | Finish::ContextFull | Finish::Paused => "length",
        Finish::Refused => "content_filter",
    }
}

fn write_usage(out: &mut Out, usage: &Tokens) {
    let (prompt, output) = (usage.prompt(), usage.output.unwrap_or_default());
    out.name("usage").object(|out| {
        out.name("prompt_tokens").number(prompt);
        out.name("completion_tokens").number(output);
        out.name("total_tokens")
            .number(prompt.saturating_add(output));
        out.name("prompt_tokens_details").object(|out| {
            out.name("cached_tokens")
                .number(usage.cache_read.unwrap_or_default());
            if let Some(written) = usage.cache_write {
                out.name("cache_write_tokens").number(written);
            }
        });
        out.name("completion_tokens_details").object(|out| {
            out.name("reasoning_tokens")
                .number(usage.reasoning.unwrap_or_default());
        });
    });
}

/// The code of a failure in OpenAI's words: the platform's, or that of the status.
pub fn openai_code(failure: &Failure) -> Option<&str> {
    failure.code.as_deref().or(match failure.status {
        401 => Some("invalid_api_key"),
        402 => Some("insufficient_quota"),
        404 => Some("model_not_found"),
        413 => Some("request_too_large"),
        429 => Some("rate_limit_exceeded"),
        503 | 529 => Some("server_is_overloaded"),
        504 => Some("timeout"),
        400..=499 => None,
        _ => Some("server_error"),
    })
}

/// A platform's failure, as OpenAI writes it in both of its dialects.
pub fn error(failure: &Failure) -> Vec<u8> {
    let code = openai_code(failure);
    let kind = match failure.status {
        402 | 429 if code == Some("insufficient_quota") => "insufficient_quota",
        429 => "rate_limit_error",
        403 => "permission_error",
        400..=499 => "invalid_request_error",
        _ => "server_error",
    };
    let mut out = Out::default();
    out.object(|out| {
        out.name("error").object(|out| {
            out.name("message").word(&failure.message);
            out.name("type").word(kind);
            out.name("param").null();
            match code {
                Some(code) => out.name("code").word(code),
                None => out.name("code").null(),
            }
        });
    });
    out.into_bytes()
}

/// The whole answer that `events` make, or the failure in them.
///
/// # Errors
/// The platform's failure.
fn whole(events: &[Event], mut about: About) -> Result<Vec<u8>, Failure> {
    let answer = Folded::of(events)?;
    if about.model.is_empty() {
        about.model.clone_from(&answer.model);
    }
    let mut out = Out::default();
    out.object(|out| {
        write_about(out, "chat.completion", &own_id(&answer.id), &about);
        out.name("choices").list(|out| {
            out.object(|out| {
                out.name("index").number(0);
                out.name("message")
                    .object(|out| write_message(out, &answer.blocks, about.state_beside_calls));
                out.name("logprobs").null();
                out.name("finish_reason").word(word(&answer.finish));
            });
        });
        write_usage(out, &answer.usage);
    });
    Ok(out.into_bytes())
}

fn write_message(out: &mut Out, blocks: &[FoldedBlock], state_beside_calls: bool) {
    let texts = |wanted: Kind| {
        let blocks = blocks
            .iter()
            .filter(move |block| Kind::of(&block.kind) == wanted);
        blocks
            .map(|block| Text::of(&block.text))
            .collect::<Vec<_>>()
    };
    out.name("role").word("assistant");
    match texts(Kind::Content) {
        none if none.is_empty() => out.name("content").null(),
        content => out.name("content").texts(&content),
    }
    match texts(Kind::Refusal) {
        none if none.is_empty() => out.name("refusal").null(),
        refusal => out.name("refusal").texts(&refusal),
    }
    let reasoning = texts(Kind::Reasoning);
    if reasoning.iter().any(|text| !text.is_empty()) {
        out.name("reasoning_content").texts(&reasoning);
    }
    let is_call = |block: &FoldedBlock| Kind::of(&block.kind) == Kind::Call;
    if !blocks.iter().any(is_call) {
        return;
    }
    let mut state = None;
    out.name("tool_calls").list(|out| {
        for FoldedBlock {
            kind,
            text: arguments,
            opaque,
        } in blocks
        {
            let BlockKind::Call { id, name, raw } = kind else {
                state = opaque.clone().filter(|_| state_beside_calls);
                continue;
            };
            let arguments = if arguments.is_empty() && !raw {
                "{}"
            } else {
                arguments
            };
            let call = Written {
                number: None,
                id,
                name,
                raw: *raw,
                arguments,
                state: state.take(),
            };
            call.write(out);
        }
    });
}
