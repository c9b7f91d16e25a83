//! Tools for platforms that know functions alone, of an object of arguments.

use std::{borrow::Cow, collections::BTreeSet};

use super::{
    Arguments, Block, Call, Choice, Output, Refused, Request, Schema, Tool, ToolInput, names,
    read::beyond,
};
use crate::text::{
    out::{Out, escape},
    tree::{JsonKind, MAX_VALUES, Text, Tree, Unread},
};

/// The schema of a function without one.
pub const NO_SCHEMA: &str = r#"{"type":"object","properties":{}}"#;

/// The schema of a function that stands for a tool of a raw text.
const RAW_SCHEMA: &str =
    r#"{"type":"object","properties":{"input":{"type":"string"}},"required":["input"]}"#;

/// The bytes of texts in which the word JSON is looked for, some 4 ms. Behind them it is said once more.
const MAX_SEARCHED_BYTES: usize = 1024 * 1024;

/// The text that tells the model to answer in JSON.
pub const IN_JSON: &str = "Answer with an object of JSON, and nothing else.";

/// Gives the tools names of at most `most` bytes.
pub fn fit(request: &mut Request<'_>, most: usize) {
    for tool in &mut request.tools {
        let fitting = names::fitting_within(&tool.name, most);
        let (own, wire) = (tool.name.plain(), fitting.plain());
        if own != wire {
            request.renamed.insert(wire.into_owned(), own.into_owned());
        }
        tool.name = fitting;
    }
}

/// Takes away the tools that the caller does not let the model choose, where the platform cannot be told of them.
pub fn keep_chosen(request: &mut Request<'_>, most: usize) {
    let chosen: Vec<_> = match &request.choice {
        Some(Choice::One(name)) => vec![names::fitting_within(name, most).plain().into_owned()],
        Some(Choice::Some { names, .. }) => {
            let fitting = names.iter().map(|name| names::fitting_within(name, most));
            fitting.map(|name| name.plain().into_owned()).collect()
        }
        _ => return,
    };
    let chosen: BTreeSet<_> = chosen.into_iter().collect();
    request
        .tools
        .retain(|tool| chosen.contains(&*tool.name.plain()));
}

/// Makes the choice of tools one that the platform can be told, by fewer tools where it must be. `takes`: the forms of it
/// that the platform takes: `none`, `required`, `one`, `some`. Names of tools have at most `most` bytes.
pub fn choose(request: &mut Request<'_>, takes: &[&str], most: usize) {
    let (any, exact) = match &request.choice {
        None | Some(Choice::Auto) => return,
        Some(Choice::None) if takes.contains(&"none") => return,
        Some(Choice::None) => {
            request.tools.clear();
            return;
        }
        Some(Choice::Any) => (true, true),
        Some(Choice::One(_)) => (true, takes.contains(&"one")),
        Some(Choice::Some { required, .. }) => (*required, takes.contains(&"some")),
    };
    if exact && !matches!(request.choice, Some(Choice::Any)) {
        return;
    }
    keep_chosen(request, most);
    let takes_any = takes.contains(&"required");
    request.choice = Some(match any && takes_any {
        true => Choice::Any,
        false => Choice::Auto,
    });
    if any && !takes_any {
        request.left_out.insert("tool_choice");
    }
}

/// Leaves out that tools are strict, which the platform cannot be told. One that says nothing of that is no loss: OpenAI
/// makes a schema a strict one for itself, where it can.
pub fn leave_out_strict(request: &mut Request<'_>) {
    for tool in &mut request.tools {
        if tool.strict.take() == Some(true) {
            request.left_out.insert("strict");
        }
    }
}

/// The schema of what a function takes.
pub fn schema<'t>(tool: &'t Tool<'_>) -> &'t str {
    match &tool.input {
        ToolInput::Schema(Some(schema)) => schema,
        ToolInput::Schema(None) => NO_SCHEMA,
        ToolInput::Raw(_) => RAW_SCHEMA,
    }
}

/// Describes a function, in pieces of one text. One that stands for a tool of a raw text says so, and in which form
/// that is.
pub fn description<'a>(tool: &Tool<'a>) -> Vec<Text<'a>> {
    let mut pieces: Vec<_> = tool.description.iter().cloned().collect();
    if let ToolInput::Raw(format) = &tool.input {
        pieces.push(Text::of(
            "\n\nIts whole input is one text: put it into `input` as it is, without another layer of JSON.",
        ));
        if let Some(format) = format {
            let quoted = format!(" The form of that text: {format}");
            pieces.push(Text::made(quoted));
        }
    }
    pieces
}

/// Marks the arguments of calls that are objects, for a platform that takes objects alone; and the results of calls
/// that are, where it `takes_results`.
///
/// # Errors
/// Together they have more values than a body may have.
#[inline(never)]
pub fn find_objects(request: &mut Request<'_>, takes_results: bool) -> Result<(), Refused> {
    let mut left = MAX_VALUES;
    let blocks = request.turns.iter_mut().flat_map(|turn| &mut turn.blocks);
    for block in blocks {
        match block {
            Block::Call(Call { arguments, .. }) => {
                let Arguments::Text(text) = arguments else {
                    continue;
                };
                match is_object_of(text, &mut left) {
                    Ok(true) => *arguments = Arguments::Object(text.clone()),
                    Ok(false) => {}
                    Err(()) => {
                        let why = format!(
                            "the arguments of its calls have more than {MAX_VALUES} values, the most that a translation takes"
                        );
                        return Err(beyond(why));
                    }
                }
            }
            Block::Result(result) if takes_results => {
                let mut texts = result.blocks.iter().filter_map(|block| match block {
                    Block::Text { text } => Some(text),
                    _ => None,
                });
                if let (Some(text), None) = (texts.next(), texts.next()) {
                    result.is_object = is_object_of(text, &mut left).unwrap_or_default();
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Returns true if the text is an object; its values count against those that are `left`.
///
/// # Errors
/// They have more.
#[inline(never)]
fn is_object_of(text: &Text<'_>, left: &mut usize) -> Result<bool, ()> {
    let plain = text.plain();
    if !plain.trim_start().starts_with('{') {
        return Ok(false);
    }
    match Tree::read_of(plain.as_bytes(), left) {
        Err(Unread::TooLarge) => Err(()),
        read => Ok(read.is_ok_and(|tree| tree.root().kind() == JsonKind::Object)),
    }
}

/// The arguments of a call as an object of JSON: what is [none](find_objects) is put into one.
pub fn object<'c>(call: &'c Call<'_>) -> Cow<'c, str> {
    match &call.arguments {
        // It stands in a body that was read.
        Arguments::Json(json) if json.starts_with('{') => (*json).into(),
        Arguments::Json(json) => format!("{{\"input\":{json}}}").into(),
        Arguments::Object(text) => text.plain(),
        Arguments::Text(text) => {
            let plain = text.plain();
            match plain.trim() {
                "" => "{}".into(),
                _ => within_input(&plain).into(),
            }
        }
        Arguments::Raw(text) => within_input(&text.plain()).into(),
    }
}

/// An object whose `input` is this text.
pub fn within_input(text: &str) -> String {
    let mut bytes = b"{\"input\":\"".to_vec();
    escape(&mut bytes, text);
    bytes.extend_from_slice(b"\"}");
    String::from_utf8(bytes).unwrap_or_default()
}

/// Says the schema of the answer to the model, in words.
pub fn say_schema(request: &mut Request<'_>) {
    if let Output::Schema(asked) = &request.output {
        let said = format!(
            "Answer with JSON that fits this JSON Schema, and with nothing else: {}",
            asked.schema
        );
        request.system.push(Text::made(said));
    }
}

/// Says the form of the answer to the model, in words, where the platform cannot be told. `form`: what it can be told,
/// as an accent says it.
pub fn tell_schema(request: &mut Request<'_>, form: &str) {
    match &request.output {
        Output::Json if form == "none" => {
            request.system.push(Text::of(IN_JSON));
        }
        Output::Json if !say_json(request.system.iter()) && !turns_say_json(request) => {
            // Most platforms refuse it without the word.
            request.system.push(Text::of(IN_JSON));
            return;
        }
        Output::Schema(_) if form != "native" => say_schema(request),
        _ => return,
    }
    request.output = match form {
        "none" => {
            request.left_out.insert("response_format");
            Output::Free
        }
        _ => Output::Json,
    };
}

/// Writes a schema for the answer as OpenAI's dialects have it.
pub fn write_schema(asked: &Schema<'_>, strict: Option<bool>, out: &mut Out) {
    let name = asked.name.as_ref();
    out.name("name")
        .text(name.unwrap_or(&Text::of("structured_output")));
    if let Some(description) = &asked.description {
        out.name("description").text(description);
    }
    out.name("schema").raw(&asked.schema);
    if let Some(strict) = strict {
        out.name("strict").bool(strict);
    }
}

/// Returns true if one of the texts speaks of JSON, as far as [`MAX_SEARCHED_BYTES`].
pub fn say_json<'t, 'a: 't>(texts: impl Iterator<Item = &'t Text<'a>>) -> bool {
    let mut left = MAX_SEARCHED_BYTES;
    for text in texts {
        let (Text::Escaped(text) | Text::Plain(Cow::Borrowed(text))) = text else {
            continue;
        };
        let text = text.as_bytes();
        let text = text.get(..left).unwrap_or(text);
        left = left.saturating_sub(text.len());
        let mut words = text.windows(b"json".len());
        if words.any(|word| word.eq_ignore_ascii_case(b"json")) {
            return true;
        }
    }
    false
}

/// Returns true if the conversation speaks of JSON.
pub fn turns_say_json(request: &Request<'_>) -> bool {
    let blocks = request.turns.iter().flat_map(|turn| &turn.blocks);
    say_json(blocks.filter_map(|block| match block {
        Block::Text { text } => Some(text),
        _ => None,
    }))
}

/// Returns true if the text is an object of JSON.
pub fn is_object(text: &str) -> bool {
    Tree::read(text.as_bytes()).is_ok_and(|tree| tree.root().kind() == JsonKind::Object)
}
