//! A request of `responses`, read.

use super::tools::{self, BuiltIn, Known, TOOL_SEARCH};
use crate::{
    dialect::neutral::{
        Arguments, Block, Call, Effort, Media, MediaKind, Output, Reasoning, Request, Role,
        Sampling, ToolResult, Turn,
        read::{
            self, Read, audio, expect, file_elsewhere, foreign, foreign_content, media,
            media_by_url, missing, name, named, object, optional_flag, optional_list,
            optional_number, optional_text, optional_whole, text, wrong,
        },
    },
    text::{
        out::Out,
        tree::{Json, JsonKind, Text, Tree},
    },
};

/// Members by which a request goes on from something that exists at the caller's platform alone.
const ELSEWHERE: [&str; 3] = ["previous_response_id", "conversation", "prompt"];

const IS_ELSEWHERE: &str =
    "that is at another platform; send the conversation's items in input instead";

/// The members of a request that its answer repeats, and what stands for those that it has not. The long ones are last.
const REPEATED: [(&str, &str); 12] = [
    ("max_output_tokens", "null"),
    ("metadata", "{}"),
    ("parallel_tool_calls", "true"),
    ("reasoning", r#"{"effort":null,"summary":null}"#),
    ("temperature", "null"),
    ("text", r#"{"format":{"type":"text"}}"#),
    ("tool_choice", r#""auto""#),
    ("top_p", "null"),
    ("truncation", r#""disabled""#),
    ("user", "null"),
    ("instructions", "null"),
    ("tools", "[]"),
];

/// The most that is repeated, in bytes: a stream has it three times, and it is kept as long. What does not fit is absent.
const MAX_REPEATED_BYTES: usize = 64 * 1024;

/// Reads a request.
///
/// # Errors
/// The member that is wrong, or that no other dialect can say.
pub(super) fn read<'a>(tree: &Tree<'a>) -> Read<Request<'a>> {
    let body = object(tree)?;
    for name in ELSEWHERE {
        if let Some(value) = body.get(name) {
            return Err(foreign(value, IS_ELSEWHERE));
        }
    }
    if let Some(background) = body.get("background").filter(|it| it.flag() == Some(true)) {
        let why = "no platform that serves this answers in the background";
        return Err(foreign(background, why));
    }
    let mut request = Request {
        model: optional_text(body, "model")?,
        stream: optional_flag(body, "stream")?.unwrap_or_default(),
        wants_usage: true,
        system: optional_text(body, "instructions")?.into_iter().collect(),
        max_output: optional_whole(body, "max_output_tokens")?,
        sampling: Sampling {
            temperature: optional_number(body, "temperature")?,
            top_p: optional_number(body, "top_p")?,
            ..Sampling::default()
        },
        parallel: optional_flag(body, "parallel_tool_calls")?,
        reasoning: reasoning(body)?,
        user: match optional_text(body, "safety_identifier")? {
            None => optional_text(body, "user")?,
            identifier => identifier,
        },
        cache_key: optional_text(body, "prompt_cache_key")?,
        tier: optional_text(body, "service_tier")?,
        repeated: repeated(body),
        ..Request::default()
    };
    for name in ["top_logprobs", "max_tool_calls"] {
        let said = body.get(name).filter(|value| value.whole() != Some(0));
        request.left_out.extend(said.map(|_| name));
    }
    if let Some(text) = body.get("text") {
        request.output = output(text)?;
        request.verbosity = optional_text(text, "verbosity")?;
    }
    let mut known = Known::new();
    tools::read(body, &mut known, &mut request)?;
    read_input(body, &mut known, &mut request)?;
    Ok(request)
}

/// Writes the members that the answer repeats.
fn repeated(body: Json<'_, '_>) -> String {
    let mut out = Out::default();
    let mut room = MAX_REPEATED_BYTES;
    for (name, absent) in REPEATED {
        let value = body.get(name).map_or(absent, Json::raw);
        let left = room.checked_sub(value.len());
        out.name(name).raw(left.map_or(absent, |_| value));
        room = left.unwrap_or(room);
    }
    String::from_utf8(out.into_bytes()).unwrap_or_default()
}

fn reasoning<'a>(body: Json<'_, 'a>) -> Read<Reasoning<'a>> {
    let Some(reasoning) = body.get("reasoning") else {
        return Ok(Reasoning::default());
    };
    let shown = optional_text(reasoning, "summary")?;
    Ok(Reasoning {
        effort: optional_text(reasoning, "effort")?.map(Effort::Word),
        show: shown.is_some_and(|shown| !shown.is("none")),
    })
}

fn output<'a>(said: Json<'_, 'a>) -> Read<Output<'a>> {
    let Some(format) = said.get("format") else {
        return Ok(Output::Free);
    };
    let kind = text(format, "type")?;
    if kind.is("json_object") {
        return Ok(Output::Json);
    }
    if !kind.is("json_schema") {
        return Ok(Output::Free);
    }
    read::schema(format)
}

fn read_input<'a>(body: Json<'_, 'a>, known: &mut Known, request: &mut Request<'a>) -> Read<()> {
    let input = body.get("input").ok_or_else(|| missing(body, "input"))?;
    if let Some(text) = input.text() {
        push(request, Role::User, vec![Block::Text { text }]);
        return Ok(());
    }
    expect(input, JsonKind::List).map_err(|_| wrong(input, "a string or a list"))?;
    for item in input.items() {
        read_item(item, known, request)?;
    }
    Ok(())
}

fn read_item<'a>(item: Json<'_, 'a>, known: &mut Known, request: &mut Request<'a>) -> Read<()> {
    expect(item, JsonKind::Object)?;
    let kind = optional_text(item, "type")?.unwrap_or(Text::of("message"));
    let kind = &*kind.plain();
    match kind {
        "message" => return read_message(item, request),
        "reasoning" => go_on(request, reasoned(item)?),
        "function_call" | "custom_tool_call" => {
            let arguments = match kind {
                "function_call" => {
                    let arguments = optional_text(item, "arguments")?;
                    Arguments::Text(arguments.unwrap_or(Text::of("")))
                }
                _ => Arguments::Raw(text(item, "input")?),
            };
            let call = Call {
                id: name(item, "call_id")?,
                name: tools::name(item)?,
                arguments,
            };
            go_on(request, Block::Call(call));
        }
        "function_call_output" | "custom_tool_call_output" => {
            return returned(item, request);
        }
        "additional_tools" => {
            if let Some(list) = optional_list(item, "tools")? {
                tools::add(list, known, request)?;
            }
        }
        "item_reference" => {
            return Err(foreign(item.get("id").unwrap_or(item), IS_ELSEWHERE));
        }
        "compaction" | "compaction_summary" | "compaction_trigger" => {
            let why = "only the platform that makes it reads a compacted conversation; \
                       begin a new one, or ask for a model of that platform";
            return Err(foreign(item.get("type").unwrap_or(item), why));
        }
        // What the platform's own tools did; the model told it in its text.
        "web_search_call"
        | "file_search_call"
        | "code_interpreter_call"
        | "computer_call"
        | "computer_call_output"
        | "image_generation_call"
        | "program"
        | "program_output" => {}
        _ if kind.starts_with("mcp_") => {}
        _ => return read_built_in(kind, item, known, request),
    }
    Ok(())
}

/// Reads a call of a tool of the dialect's own, or what it returned.
fn read_built_in<'a>(
    kind: &str,
    item: Json<'_, 'a>,
    known: &mut Known,
    request: &mut Request<'a>,
) -> Read<()> {
    if let Some(built_in) = BuiltIn::find(|built_in| built_in.call == kind) {
        // A platform's own search for tools has no id: nobody else ran it.
        let Some(id) = call_id(item) else {
            return Ok(());
        };
        let arguments = item.get(built_in.member);
        let call = Call {
            id,
            name: Text::of(built_in.name),
            arguments: Arguments::Json(arguments.map_or("{}", Json::raw)),
        };
        go_on(request, Block::Call(call));
        return Ok(());
    }
    if let Some(built_in) = BuiltIn::find(|built_in| built_in.output == kind) {
        if built_in.name == TOOL_SEARCH
            && let Some(list) = optional_list(item, "tools")?
        {
            tools::add(list, known, request)?;
        }
        return returned(item, request);
    }
    let why = "this kind of item is not available here";
    Err(foreign(item.get("type").unwrap_or(item), why))
}

fn call_id<'a>(item: Json<'_, 'a>) -> Option<Text<'a>> {
    // What a local shell returned names its call by `id`.
    let id = item.text_at("call_id").or_else(|| item.text_at("id"))?;
    Some(named(item, id))
}

/// Reads what a tool returned.
fn returned<'a>(item: Json<'_, 'a>, request: &mut Request<'a>) -> Read<()> {
    let Some(id) = call_id(item) else {
        return match item.text_at("execution") {
            Some(_) => Ok(()),
            None => Err(missing(item, "call_id")),
        };
    };
    let blocks = match item.get("output").or_else(|| item.get("tools")) {
        None => Vec::new(),
        Some(output) if output.text().is_some() || has_parts(output) => content(output)?,
        Some(output) => {
            let text = Text::of(output.raw());
            vec![Block::Text { text }]
        }
    };
    let status = item.text_at("status");
    let result = Block::Result(ToolResult {
        id,
        blocks,
        is_object: false,
        is_error: status.is_some_and(|status| status.is("failed")),
    });
    // What tools return that were called at once is one turn.
    match request.turns.last_mut() {
        Some(turn) if matches!(turn.blocks.last(), Some(Block::Result(_))) => {
            turn.blocks.push(result);
        }
        _ => push(request, Role::User, vec![result]),
    }
    Ok(())
}

/// Returns true if a tool's output is a list of parts.
fn has_parts(output: Json<'_, '_>) -> bool {
    let kind = output.items().next().and_then(|part| part.text_at("type"));
    kind.is_some_and(|kind| {
        let kind = kind.plain();
        kind.starts_with("input_") || kind.ends_with("_text") || &*kind == "text"
    })
}

fn read_message<'a>(item: Json<'_, 'a>, request: &mut Request<'a>) -> Read<()> {
    let role = text(item, "role")?;
    let said = item
        .get("content")
        .ok_or_else(|| missing(item, "content"))?;
    let blocks = content(said)?;
    match &*role.plain() {
        "user" => push(request, Role::User, blocks),
        "assistant" => blocks.into_iter().for_each(|block| go_on(request, block)),
        "system" | "developer" if request.turns.is_empty() => {
            for block in blocks {
                match block {
                    Block::Text { text } => request.system.push(text),
                    _ => return Err(foreign(said, "such a message may have text alone")),
                }
            }
        }
        "system" | "developer" => push(request, Role::System, blocks),
        _ => {
            let role = item.get("role").unwrap_or(item);
            return Err(foreign(
                role,
                "expected system, developer, user or assistant",
            ));
        }
    }
    Ok(())
}

fn push<'a>(request: &mut Request<'a>, role: Role, blocks: Vec<Block<'a>>) {
    if !blocks.is_empty() {
        request.turns.push(Turn { role, blocks });
    }
}

/// Appends what the model said, which comes in several items for one turn.
fn go_on<'a>(request: &mut Request<'a>, block: Block<'a>) {
    match request.turns.last_mut() {
        Some(turn) if turn.role == Role::Assistant => turn.blocks.push(block),
        _ => push(request, Role::Assistant, vec![block]),
    }
}

fn reasoned<'a>(item: Json<'_, 'a>) -> Read<Block<'a>> {
    let mut texts = Vec::new();
    for name in ["summary", "content"] {
        let parts = optional_list(item, name)?;
        for part in parts.into_iter().flat_map(Json::items) {
            texts.push(text(part, "text")?);
        }
    }
    let text = match texts.as_slice() {
        [one] => one.clone(),
        several => {
            let several: Vec<_> = several.iter().map(Text::plain).collect();
            Text::made(several.join("\n\n"))
        }
    };
    let opaque = optional_text(item, "encrypted_content")?;
    Ok(Block::Reasoning { text, opaque })
}

/// A string, or parts.
fn content<'a>(content: Json<'_, 'a>) -> Read<Vec<Block<'a>>> {
    if let Some(text) = content.text() {
        let says = !text.is_empty();
        return Ok(says.then_some(Block::Text { text }).into_iter().collect());
    }
    expect(content, JsonKind::List).map_err(|_| wrong(content, "a string or a list"))?;
    content.items().map(part).collect()
}

fn part<'a>(part: Json<'_, 'a>) -> Read<Block<'a>> {
    let kind = text(part, "type")?;
    Ok(match &*kind.plain() {
        "input_text" | "output_text" | "text" => Block::Text {
            text: text(part, "text")?,
        },
        "refusal" => Block::Refusal(text(part, "refusal")?),
        "input_image" => {
            let Some(url) = part.get("image_url") else {
                return Err(file_elsewhere(part, "image_url"));
            };
            Block::Media(Media {
                detail: optional_text(part, "detail")?,
                ..media(MediaKind::Image, media_by_url(url, MediaKind::Image)?)
            })
        }
        "input_file" => {
            let data = part.get("file_data").or_else(|| part.get("file_url"));
            let Some(data) = data else {
                return Err(file_elsewhere(part, "file_data"));
            };
            let source = media_by_url(data, MediaKind::Document)?;
            Block::Media(Media {
                name: optional_text(part, "filename")?,
                ..media(MediaKind::Document, source)
            })
        }
        "input_audio" => Block::Media(audio(part)?),
        _ => return Err(foreign_content(part.get("type").unwrap_or(part))),
    })
}
