//! The items of an answer of `responses`, and what the events of a stream say of them.

use super::tools::{BuiltIn, TOOL_SEARCH};
use crate::{
    dialect::{
        neutral::{BlockKind, Form, functions::is_object},
        parts::About,
    },
    text::out::Out,
};

/// A block of the answer, of which an item is made.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) kind: BlockKind,
    /// All of it.
    pub(super) text: String,
    /// The bytes of it that have gone on.
    pub(super) told: usize,
    /// State that only its maker reads.
    pub(super) opaque: Option<String>,
    pub(super) closed: bool,
    /// Its item, once that has begun.
    pub(super) item: Option<Item>,
}

/// The place of an item that has begun.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) index: u64,
    pub(super) id: String,
    /// Its part has begun.
    pub(super) has_part: bool,
}

/// The names of what comes of an item.
#[derive(Debug)]
pub(super) struct Shape {
    /// The beginning of an item's id.
    pub(super) id: &'static str,
    /// The pieces and the whole: `….delta`, `….done`. Empty for an item that comes at once.
    pub(super) events: &'static str,
    /// The member that has the whole.
    pub(super) whole: &'static str,
    /// The names of its part, where it has one.
    pub(super) part: Option<Part>,
}

/// The names of what comes of an item's part.
#[derive(Debug)]
pub(super) struct Part {
    /// `….added`, `….done`.
    pub(super) events: &'static str,
    index: &'static str,
    kind: &'static str,
}

const TEXT: Shape = Shape {
    id: "msg",
    events: "response.output_text",
    whole: "text",
    part: Some(Part {
        events: "response.content_part",
        index: "content_index",
        kind: "output_text",
    }),
};

const REFUSAL: Shape = Shape {
    id: "msg",
    events: "response.refusal",
    whole: "refusal",
    part: Some(Part {
        events: "response.content_part",
        index: "content_index",
        kind: "refusal",
    }),
};

const REASONING: Shape = Shape {
    id: "rs",
    events: "response.reasoning_summary_text",
    whole: "text",
    part: Some(Part {
        events: "response.reasoning_summary_part",
        index: "summary_index",
        kind: "summary_text",
    }),
};

const FUNCTION: Shape = Shape {
    id: "fc",
    events: "response.function_call_arguments",
    whole: "arguments",
    part: None,
};

const FREE_FORM: Shape = Shape {
    id: "ctc",
    events: "response.custom_tool_call_input",
    whole: "input",
    part: None,
};

const BUILT_IN: Shape = Shape {
    id: "call",
    events: "",
    whole: "",
    part: None,
};

// === impl Block ===

impl Block {
    pub(super) fn begin(kind: BlockKind) -> Self {
        Self {
            kind,
            text: String::new(),
            told: 0,
            opaque: None,
            closed: false,
            item: None,
        }
    }

    /// The form that the caller's dialect has of its own for the call that this is.
    fn form<'a>(&self, about: &'a About) -> Option<&'a Form> {
        match &self.kind {
            BlockKind::Call { name, .. } => about.forms.get(name),
            _ => None,
        }
    }

    pub(super) fn shape(&self, about: &About) -> &'static Shape {
        match &self.kind {
            BlockKind::Text => &TEXT,
            BlockKind::Refusal => &REFUSAL,
            BlockKind::Reasoning => &REASONING,
            BlockKind::Call { .. } if matches!(self.form(about), Some(Form::BuiltIn(_))) => {
                &BUILT_IN
            }
            BlockKind::Call { raw: true, .. } => &FREE_FORM,
            BlockKind::Call { raw: false, .. } => &FUNCTION,
        }
    }

    /// The name of the tool that is called, as the caller has it.
    pub(super) fn tool<'a>(&'a self, about: &'a About) -> Option<&'a str> {
        match (&self.kind, self.form(about)) {
            (BlockKind::Call { .. }, Some(Form::Within { name, .. })) => Some(name),
            (BlockKind::Call { name, .. }, _) => Some(name),
            _ => None,
        }
    }

    /// The item as it begins, or, with all of its text, as it ends.
    pub(super) fn written(&self, item: &Item, status: &str, about: &About) -> String {
        let text = match status {
            "in_progress" => "",
            _ => &*self.text,
        };
        let shape = self.shape(about);
        let mut out = Out::default();
        out.object(|out| {
            out.name("id").word(&item.id);
            match &self.kind {
                BlockKind::Text | BlockKind::Refusal => {
                    out.name("type").word("message");
                    out.name("status").word(status);
                    out.name("role").word("assistant");
                    out.name("content")
                        .list(|out| write_part_of(out, shape, text));
                }
                BlockKind::Reasoning => {
                    out.name("type").word("reasoning");
                    out.name("summary")
                        .list(|out| write_part_of(out, shape, text));
                    if let Some(opaque) = self.opaque.as_ref().filter(|_| status != "in_progress") {
                        out.name("encrypted_content").word(opaque);
                    }
                }
                BlockKind::Call { id, .. } => {
                    self.write_call(out, about, text);
                    out.name("call_id").word(id);
                    out.name("status").word(status);
                }
            }
        });
        String::from_utf8(out.into_bytes()).unwrap_or_default()
    }

    fn write_call(&self, out: &mut Out, about: &About, text: &str) {
        if let Some(Form::BuiltIn(name)) = self.form(about)
            && let Some(built_in) = BuiltIn::find(|built_in| built_in.name == *name)
        {
            out.name("type").word(built_in.call);
            if *name == TOOL_SEARCH {
                out.name("execution").word("client");
            }
            let arguments = out.name(built_in.member);
            return match text {
                text if is_object(text) => arguments.raw(text),
                _ => arguments.object(|_| {}),
            };
        }
        let raw = matches!(self.kind, BlockKind::Call { raw: true, .. });
        let kind = if raw {
            "custom_tool_call"
        } else {
            "function_call"
        };
        out.name("type").word(kind);
        out.name("name").word(self.tool(about).unwrap_or_default());
        if let Some(Form::Within { namespace, .. }) = self.form(about) {
            out.name("namespace").word(namespace);
        }
        out.name(if raw { "input" } else { "arguments" }).word(text);
    }
}

/// The part of an item, unless it has nothing.
fn write_part_of(out: &mut Out, shape: &Shape, text: &str) {
    if !text.is_empty() {
        write_part(out, shape, text);
    }
}

/// The part of an item.
pub(super) fn write_part(out: &mut Out, shape: &Shape, text: &str) {
    out.object(|out| {
        let kind = shape.part.as_ref().map_or("", |part| part.kind);
        out.name("type").word(kind);
        if kind == "output_text" {
            out.name("annotations").list(|_| {});
            write_logprobs(out, shape);
        }
        out.name(shape.whole).word(text);
    });
}

/// The place of an event in the answer.
pub(super) fn write_place(out: &mut Out, item: &Item, shape: &Shape) {
    out.name("item_id").word(&item.id);
    out.name("output_index").number(item.index);
    if let Some(part) = &shape.part {
        out.name(part.index).number(0);
    }
}

/// The likelihoods that a text has, of which none are known.
pub(super) fn write_logprobs(out: &mut Out, shape: &Shape) {
    if shape.whole == "text" && shape.id == "msg" {
        out.name("logprobs").list(|_| {});
    }
}
