//! A request in no dialect: richer than each, with blocks in their order, each of one kind. It borrows from the
//! body that was read.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use crate::{
    dialect::accent::Accent,
    text::{out::Out, tree::Text},
};

/// A request for an answer of a model.
#[derive(Debug, Default)]
pub struct Request<'a> {
    /// The length of the caller's body, in bytes.
    pub length: usize,
    /// The model, as the caller names it.
    pub model: Option<Text<'a>>,
    /// The answer is to come as a stream.
    pub stream: bool,
    /// A stream is to come as one list of JSON.
    pub as_list: bool,
    /// A stream is to end with the tokens that were used, in dialects that tell them only when asked.
    pub wants_usage: bool,
    /// The texts for the model before the first turn, one entry for each that the caller sent.
    pub system: Vec<Text<'a>>,
    /// The conversation.
    pub turns: Vec<Turn<'a>>,
    /// The tools that the model may call.
    pub tools: Vec<Tool<'a>>,
    /// The tools that it must or may not call.
    pub choice: Option<Choice<'a>>,
    /// True if the model may call several tools at once, false if not; none where the caller does not say.
    pub parallel: Option<bool>,
    /// The most tokens of the answer.
    pub max_output: Option<u64>,
    /// Numbers as they stand in the body.
    pub sampling: Sampling<'a>,
    /// Texts at which the answer ends.
    pub stop: Vec<Text<'a>>,
    /// The effort that the model is to make in thinking.
    pub reasoning: Reasoning<'a>,
    /// The form of the answer's text.
    pub output: Output<'a>,
    /// The length of the answer in a word: `low`, `medium` or `high`.
    pub verbosity: Option<Text<'a>>,
    /// The end user, as the caller names them.
    pub user: Option<Text<'a>>,
    /// The name under which the platform is to look for a cached prompt.
    pub cache_key: Option<Text<'a>>,
    /// The service tier.
    pub tier: Option<Text<'a>>,
    /// The members without which the answer may be another one, and which no other dialect has: names for the caller.
    pub left_out: BTreeSet<&'static str>,
    /// The names of tools that the writer changed, by those that it wrote.
    pub renamed: BTreeMap<String, String>,
    /// Tools that the caller's dialect calls in a form of its own, by their names in [`tools`](Self::tools).
    pub forms: BTreeMap<String, Form>,
    /// Members of the request that its answer repeats, as they stand in an object of JSON.
    pub repeated: String,
    /// The tool whose arguments are the answer's text: the writer had no other form for its schema.
    pub answer_tool: Option<&'static str>,
}

/// The form of its own in which a caller's dialect has the calls of a tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Form {
    /// The tool has a name within a namespace.
    Within {
        /// The namespace.
        namespace: String,
        /// The name in it.
        name: String,
    },
    /// The dialect has a kind of call for this tool alone, by this name.
    BuiltIn(&'static str),
}

/// The numbers that steer the choice of tokens.
#[derive(Debug, Default, Clone, Copy)]
pub struct Sampling<'a> {
    /// `temperature`
    pub temperature: Option<&'a str>,
    /// `top_p`
    pub top_p: Option<&'a str>,
    /// `top_k`
    pub top_k: Option<&'a str>,
    /// `seed`
    pub seed: Option<&'a str>,
    /// `presence_penalty`
    pub presence_penalty: Option<&'a str>,
    /// `frequency_penalty`
    pub frequency_penalty: Option<&'a str>,
}

/// The speaker of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The user, and the results of tools.
    User,
    /// The model.
    Assistant,
    /// The operator of the conversation, between turns.
    System,
}

/// A turn of the conversation: what one speaker says.
#[derive(Debug)]
pub struct Turn<'a> {
    /// The speaker.
    pub role: Role,
    /// The pieces, in order.
    pub blocks: Vec<Block<'a>>,
}

/// A piece of a turn.
#[derive(Debug)]
pub enum Block<'a> {
    /// Text.
    Text {
        /// The text.
        text: Text<'a>,
    },
    /// A picture, a sound or a document.
    Media(Media<'a>),
    /// Reasoning of the model.
    Reasoning {
        /// The text of it that may be shown; empty if none.
        text: Text<'a>,
        /// State that only the reasoning's maker reads.
        opaque: Option<Text<'a>>,
    },
    /// The model's refusal.
    Refusal(Text<'a>),
    /// A call of a tool.
    Call(Call<'a>),
    /// A tool's result.
    Result(ToolResult<'a>),
}

/// A call of a tool.
#[derive(Debug, Clone)]
pub struct Call<'a> {
    /// The id by which the result names it.
    pub id: Text<'a>,
    /// The tool.
    pub name: Text<'a>,
    /// The arguments, as the model wrote them.
    pub arguments: Arguments<'a>,
}

/// Arguments of a call.
#[derive(Debug, Clone)]
pub enum Arguments<'a> {
    /// A text that should be an object of JSON, as a string has it. The model may have written something else.
    Text(Text<'a>),
    /// Such a text that is one.
    Object(Text<'a>),
    /// JSON as it stands in the body.
    Json(&'a str),
    /// The raw text that a free-form tool takes.
    Raw(Text<'a>),
}

/// The result of a call of a tool.
#[derive(Debug)]
pub struct ToolResult<'a> {
    /// The call.
    pub id: Text<'a>,
    /// Texts and media.
    pub blocks: Vec<Block<'a>>,
    /// True if the result is one text, and that an object of JSON; told only where the platform takes such results.
    pub is_object: bool,
    /// The tool failed.
    pub is_error: bool,
}

/// A picture, a sound or a document.
#[derive(Debug)]
pub struct Media<'a> {
    /// The kind.
    pub kind: MediaKind,
    /// The place of its bytes.
    pub source: Source<'a>,
    /// A file name or a title.
    pub name: Option<Text<'a>>,
    /// The precision with which a picture is looked at.
    pub detail: Option<Text<'a>>,
}

/// The kinds of media.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediaKind {
    /// A picture.
    Image,
    /// A sound.
    Audio,
    /// A document.
    Document,
}

/// The place of the bytes of a piece of media.
#[derive(Debug)]
pub enum Source<'a> {
    /// In the body, in base64.
    Data {
        /// `image/png`
        mime: Text<'a>,
        /// The base64.
        base64: Text<'a>,
    },
    /// At an address.
    Url(Text<'a>),
    /// A document that is text.
    Plain(Text<'a>),
}

/// A tool.
#[derive(Debug)]
pub struct Tool<'a> {
    /// The name by which it is called.
    pub name: Text<'a>,
    /// A description for the model.
    pub description: Option<Text<'a>>,
    /// The form of its arguments.
    pub input: ToolInput<'a>,
    /// The arguments must fit the schema.
    pub strict: Option<bool>,
}

/// The form of a tool's arguments.
#[derive(Debug)]
pub enum ToolInput<'a> {
    /// An object: its JSON Schema, if there is one; as it stands in the body where that is one.
    Schema(Option<Cow<'a, str>>),
    /// A raw text: its `format` as it stands in the body, if there is one.
    Raw(Option<&'a str>),
}

/// The tools that the model must or may not call.
#[derive(Debug)]
pub enum Choice<'a> {
    /// The model may call tools or not.
    Auto,
    /// The model must call no tool.
    None,
    /// The model must call a tool.
    Any,
    /// The model must call this tool.
    One(Text<'a>),
    /// The model may call these tools alone.
    Some {
        /// The model must call one.
        required: bool,
        /// Their names.
        names: Vec<Text<'a>>,
    },
}

// === impl Choice ===

impl Choice<'_> {
    /// The choice of a word of `chat` and `responses`.
    pub fn of_word(word: &Text<'_>) -> Self {
        match word {
            word if word.is("none") => Self::None,
            word if word.is("required") => Self::Any,
            _ => Self::Auto,
        }
    }

    /// The word that `chat` and `responses` have for a choice, whichever tools it names.
    pub fn word(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Auto
            | Self::Some {
                required: false, ..
            } => "auto",
            Self::Any | Self::One(_) | Self::Some { .. } => "required",
        }
    }
}

/// The effort that the model is to make in thinking.
#[derive(Debug, Default)]
pub struct Reasoning<'a> {
    /// The effort or the bound, if the caller says one.
    pub effort: Option<Effort<'a>>,
    /// The caller is to see its thoughts.
    pub show: bool,
}

/// The effort, as the caller says it.
#[derive(Debug, Clone)]
pub enum Effort<'a> {
    /// A word: `none`, `minimal`, `low`, `medium`, `high`, `xhigh`, `max`.
    Word(Text<'a>),
    /// A bound in tokens.
    Budget(u64),
    /// Thoughts as the model likes.
    Adaptive,
    /// No thoughts.
    Off,
}

/// The form of the answer's text.
#[derive(Debug, Default)]
pub enum Output<'a> {
    /// Any.
    #[default]
    Free,
    /// JSON.
    Json,
    /// JSON of this schema.
    Schema(Schema<'a>),
}

/// A schema for the answer.
#[derive(Debug)]
pub struct Schema<'a> {
    /// Its name.
    pub name: Option<Text<'a>>,
    /// A description for the model.
    pub description: Option<Text<'a>>,
    /// JSON Schema, as it stands in the body where that is one.
    pub schema: Cow<'a, str>,
    /// The answer must fit it.
    pub strict: Option<bool>,
}

/// A request that is not translated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The path of the member at which it fails; empty for the whole.
    pub path: String,
    /// The fault, in words that follow the path.
    pub why: String,
    /// The body is beyond a bound, rather than wrong.
    pub too_large: bool,
}

// === impl Request ===

impl Request<'_> {
    /// Begins the request for the platform, with room for what is in this one: most of it goes on as it stands.
    pub fn out(&self) -> Out {
        Out::with_capacity(self.length.saturating_add(4096))
    }

    /// The word that says how much the model is to think, as the platform takes it; what it does not take at all is
    /// left out.
    pub fn effort_for(&mut self, accent: &Accent) -> Option<&'static str> {
        let word = self.reasoning.effort.as_ref()?.word();
        let nearest = accent.nearest_effort(&word);
        if nearest.is_none() && word != "none" {
            self.left_out.insert("reasoning_effort");
        }
        nearest
    }
}

// === impl Effort ===

impl Effort<'_> {
    /// The effort in one word.
    pub fn word(&self) -> Cow<'_, str> {
        match self {
            Self::Word(word) => word.plain(),
            Self::Budget(0) | Self::Off => "none".into(),
            Self::Budget(..=1024) => "low".into(),
            Self::Budget(..=8192) => "medium".into(),
            Self::Budget(..=24576) | Self::Adaptive => "high".into(),
            Self::Budget(_) => "xhigh".into(),
        }
    }
}

// === impl Refused ===

impl Refused {
    /// A member that is wrong.
    pub fn at(path: String, why: impl Into<String>) -> Self {
        Self {
            path,
            why: why.into(),
            too_large: false,
        }
    }
}
