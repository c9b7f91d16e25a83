//! The meaning of an answer or a request in the words that every dialect has: what they keep on their way through another
//! dialect.

use std::fmt::Write as _;

use serde_json::Value;

use crate::{
    dialect::{
        Dialect,
        neutral::{
            Arguments, Block, BlockKind, Call, Event, Finish, Folded, Refused, Role, ToolResult,
            functions, read,
        },
    },
    text::{
        sse::{Framer, Piece},
        tree::Tree,
    },
};

/// The meaning of an answer.
#[derive(Debug, PartialEq)]
pub struct Meaning {
    /// Its texts, refusals among them.
    pub text: String,
    /// The thoughts of the model.
    pub reasoning: String,
    /// The calls: id, name and arguments.
    pub calls: Vec<(String, String, Value)>,
    /// `length` or `good`.
    pub finish: &'static str,
    /// The prompt, what of it a cache had, and the answer.
    pub usage: [u64; 3],
}

// === impl Meaning ===

impl Meaning {
    /// The meaning of these steps; none where they fail or have no end.
    pub fn of(events: &[Event]) -> Option<Self> {
        let folded = Folded::of(events).ok()?;
        let texts = |wanted: &[BlockKind]| {
            let blocks = folded.blocks.iter();
            let blocks = blocks.filter(|block| wanted.contains(&block.kind));
            blocks.map(|block| &*block.text).collect::<String>()
        };
        let is_cut = folded.finish == Finish::Length;
        let calls = folded.blocks.iter().filter_map(|block| {
            let BlockKind::Call { id, name, .. } = &block.kind else {
                return None;
            };
            let text = if block.text.is_empty() {
                "{}"
            } else {
                &block.text
            };
            let arguments: Option<Value> = serde_json::from_str(text).ok();
            // A call that the limit cut is none.
            (!is_cut || arguments.is_some()).then(|| {
                let arguments = arguments.unwrap_or_default();
                (id.clone(), name.clone(), arguments)
            })
        });
        let usage = folded.usage;
        Some(Self {
            // A refusal is a text where there is none.
            text: texts(&[BlockKind::Text, BlockKind::Refusal]),
            reasoning: texts(&[BlockKind::Reasoning]),
            calls: calls.collect(),
            finish: match folded.finish {
                Finish::Length => "length",
                // A refusal in words is a good end in some, and a call says that it is one.
                _ => "good",
            },
            usage: [
                usage.prompt(),
                usage.cache_read.unwrap_or_default(),
                usage.output.unwrap_or_default(),
            ],
        })
    }
}

/// Reads an answer of a platform's dialect with that dialect's own reader.
pub fn read_back(dialect: Dialect, text: &[u8], is_stream: bool) -> Vec<Event> {
    let mut reader = dialect.format().parts().read_answer.unwrap()();
    let mut events = Vec::new();
    if !is_stream {
        reader.on_whole(text, &mut events);
        return events;
    }
    let (mut framer, mut data, mut rest) = (Framer::default(), Vec::new(), text);
    while let Some(piece) = framer.next(&mut rest) {
        match piece {
            Piece::Data(piece) => data.extend_from_slice(piece),
            Piece::End => {
                reader.on_event(&data, &mut events);
                data.clear();
            }
            _ => {}
        }
    }
    reader.on_end(&mut events);
    events
}

/// The meaning of a conversation: runs of texts, calls and results. Blanks do not count: dialects cut texts otherwise.
///
/// # Errors
/// Those of the dialect's reader.
pub fn told(dialect: Dialect, body: &[u8]) -> Result<Vec<String>, Refused> {
    fn run(all: &mut Vec<String>, who: &str, text: &str) {
        let text: String = text.split_whitespace().collect();
        if text.is_empty() {
            return;
        }
        match all.last_mut() {
            Some(last) if last.starts_with(who) => last.push_str(&text),
            _ => all.push(format!("{who}{text}")),
        }
    }
    let tree = Tree::read(body).map_err(read::unread)?;
    let request = dialect.format().parts().read_request.unwrap()(&tree)?;
    let mut all = Vec::new();
    for text in &request.system {
        run(&mut all, "system: ", &text.plain());
    }
    for turn in &request.turns {
        for block in &turn.blocks {
            match block {
                Block::Text { text } | Block::Refusal(text) => {
                    // An operator's word between turns leads where nothing is said before it.
                    let who = match turn.role {
                        Role::User => "user: ",
                        Role::Assistant => "model: ",
                        Role::System => "system: ",
                    };
                    run(&mut all, who, &text.plain());
                }
                Block::Call(call) => all.push(called(call)),
                Block::Result(result) => all.push(returned(result)),
                Block::Media(_) | Block::Reasoning { .. } => {}
            }
        }
    }
    // Results of calls that were made at once may stand in any order, and each in a turn of its own.
    for run in
        all.chunk_by_mut(|one, other| [one, other].iter().all(|line| line.starts_with("result ")))
    {
        run.sort();
    }
    let tools = request.tools.iter();
    all.extend(tools.map(|tool| format!("tool {} {}", tool.name.plain(), functions::schema(tool))));
    Ok(all)
}

fn called(call: &Call<'_>) -> String {
    let arguments = match &call.arguments {
        Arguments::Json(json) => (*json).to_owned(),
        Arguments::Text(text) | Arguments::Object(text) | Arguments::Raw(text) => {
            text.plain().into_owned()
        }
    };
    let json: Option<Value> = serde_json::from_str(&arguments).ok();
    let arguments = json.map_or(arguments, |json| json.to_string());
    format!("call {} {} {arguments}", call.id.plain(), call.name.plain())
}

fn returned(result: &ToolResult<'_>) -> String {
    let mut line = format!("result {} ", result.id.plain());
    for block in &result.blocks {
        if let Block::Text { text } = block {
            write!(line, "{}", text.plain()).unwrap();
        }
    }
    line
}
