//! A request of `chat`, read.

use super::{EXTRA, MAKER, SIGNATURE};
use crate::{
    dialect::neutral::read::{
        self, Read, add_tool, as_text, audio, expect, file_elsewhere, foreign, foreign_content,
        media, media_by_url, missing, name, object, optional_flag, optional_list, optional_number,
        optional_text, optional_whole, text, tool_name, wrong,
    },
    dialect::neutral::{
        Arguments, Block, Call, Choice, Effort, Media, MediaKind, Output, Reasoning, Request, Role,
        Sampling, Tool, ToolInput, ToolResult, Turn,
    },
    text::tree::{Json, JsonKind, Text, Tree},
};

/// Members that only `chat` has, and without which the answer is another one.
const LEFT_OUT: &[&str] = &[
    "logit_bias",
    "logprobs",
    "top_logprobs",
    "prediction",
    "web_search_options",
];

/// Reads a request.
///
/// # Errors
/// The member that is wrong, or that no other dialect can say.
pub fn read<'a>(tree: &Tree<'a>) -> Read<Request<'a>> {
    let body = object(tree)?;
    let mut request = Request {
        model: optional_text(body, "model")?,
        stream: optional_flag(body, "stream")?.unwrap_or_default(),
        sampling: Sampling {
            temperature: optional_number(body, "temperature")?,
            top_p: optional_number(body, "top_p")?,
            // Not OpenAI's, but vLLM's and others'.
            top_k: optional_number(body, "top_k")?,
            seed: optional_number(body, "seed")?,
            presence_penalty: optional_number(body, "presence_penalty")?,
            frequency_penalty: optional_number(body, "frequency_penalty")?,
        },
        stop: stop(body)?,
        parallel: optional_flag(body, "parallel_tool_calls")?,
        reasoning: reasoning(body)?,
        output: output(body)?,
        verbosity: optional_text(body, "verbosity")?,
        user: match optional_text(body, "safety_identifier")? {
            None => optional_text(body, "user")?,
            identifier => identifier,
        },
        cache_key: optional_text(body, "prompt_cache_key")?,
        tier: optional_text(body, "service_tier")?,
        ..Request::default()
    };
    request.max_output = match optional_whole(body, "max_completion_tokens")? {
        None => optional_whole(body, "max_tokens")?,
        most => most,
    };
    if let Some(options) = body.get("stream_options") {
        request.wants_usage = optional_flag(options, "include_usage")?.unwrap_or_default();
    }
    refuse_what_is_more_than_text(body)?;
    for name in LEFT_OUT {
        let said = body.get(name).filter(|value| value.flag() != Some(false));
        request.left_out.extend(said.map(|_| *name));
    }
    tools(body, &mut request)?;
    request.choice = choice(body)?;
    let messages = body
        .get("messages")
        .ok_or_else(|| missing(body, "messages"))?;
    expect(messages, JsonKind::List)?;
    for message in messages.items() {
        read_message(message, &mut request)?;
    }
    Ok(request)
}

/// Refuses what asks for answers that are more than one, or more than text.
fn refuse_what_is_more_than_text(body: Json<'_, '_>) -> Read<()> {
    if let Some(n) = body.get("n").filter(|n| n.whole() != Some(1)) {
        return Err(foreign(n, "more than one answer is not available here"));
    }
    let modalities = optional_list(body, "modalities")?
        .into_iter()
        .flat_map(Json::items);
    for modality in modalities {
        if !modality.text().is_some_and(|word| word.is("text")) {
            return Err(foreign(
                modality,
                "an answer in anything but text is not available here",
            ));
        }
    }
    Ok(())
}

fn stop<'a>(body: Json<'_, 'a>) -> Read<Vec<Text<'a>>> {
    let Some(stop) = body.get("stop") else {
        return Ok(Vec::new());
    };
    if let Some(one) = stop.text() {
        return Ok(vec![one]);
    }
    expect(stop, JsonKind::List).map_err(|_| wrong(stop, "a string or a list"))?;
    stop.items().map(as_text).collect()
}

fn reasoning<'a>(body: Json<'_, 'a>) -> Read<Reasoning<'a>> {
    let effort = optional_text(body, "reasoning_effort")?.map(Effort::Word);
    Ok(Reasoning { effort, show: true })
}

fn output<'a>(body: Json<'_, 'a>) -> Read<Output<'a>> {
    let Some(format) = body.get("response_format") else {
        return Ok(Output::Free);
    };
    let kind = text(format, "type")?;
    if kind.is("json_object") {
        return Ok(Output::Json);
    }
    if !kind.is("json_schema") {
        return Ok(Output::Free);
    }
    let schema = format
        .get("json_schema")
        .ok_or_else(|| missing(format, "json_schema"))?;
    read::schema(schema)
}

fn tools<'a>(body: Json<'_, 'a>, request: &mut Request<'a>) -> Read<()> {
    let functions = optional_list(body, "functions")?
        .into_iter()
        .flat_map(Json::items);
    for function in functions {
        add_tool(function, tool_of_function(function)?, request)?;
    }
    let tools = optional_list(body, "tools")?
        .into_iter()
        .flat_map(Json::items);
    for tool in tools {
        let kind = optional_text(tool, "type")?.unwrap_or(Text::of("function"));
        if kind.is("function") {
            let function = tool
                .get("function")
                .ok_or_else(|| missing(tool, "function"))?;
            add_tool(function, tool_of_function(function)?, request)?;
        } else if kind.is("custom") {
            let custom = tool.get("custom").ok_or_else(|| missing(tool, "custom"))?;
            let read = Tool {
                name: tool_name(custom)?,
                description: optional_text(custom, "description")?,
                input: ToolInput::Raw(custom.get("format").map(Json::raw)),
                strict: None,
            };
            add_tool(custom, read, request)?;
        } else {
            request.left_out.insert("tools");
        }
    }
    Ok(())
}

fn tool_of_function<'a>(function: Json<'_, 'a>) -> Read<Tool<'a>> {
    Ok(Tool {
        name: tool_name(function)?,
        description: optional_text(function, "description")?,
        input: ToolInput::Schema(function.get("parameters").map(|one| one.raw().into())),
        strict: optional_flag(function, "strict")?,
    })
}

fn choice<'a>(body: Json<'_, 'a>) -> Read<Option<Choice<'a>>> {
    let Some(choice) = body
        .get("tool_choice")
        .or_else(|| body.get("function_call"))
    else {
        return Ok(None);
    };
    if let Some(word) = choice.text() {
        return Ok(Some(Choice::of_word(&word)));
    }
    expect(choice, JsonKind::Object).map_err(|_| wrong(choice, "a string or an object"))?;
    if let Some(allowed) = choice.get("allowed_tools") {
        let tools = optional_list(allowed, "tools")?
            .into_iter()
            .flat_map(Json::items);
        return Ok(Some(Choice::Some {
            required: optional_text(allowed, "mode")?.is_some_and(|mode| mode.is("required")),
            names: tools.map(chosen).collect::<Read<_>>()?,
        }));
    }
    Ok(Some(Choice::One(chosen(choice)?)))
}

/// The name in `{"type": "function", "function": {"name": …}}`, and in the like of older times.
fn chosen<'a>(choice: Json<'_, 'a>) -> Read<Text<'a>> {
    let inner = choice.get("function").or_else(|| choice.get("custom"));
    name(inner.unwrap_or(choice), "name")
}

fn read_message<'a>(message: Json<'_, 'a>, request: &mut Request<'a>) -> Read<()> {
    expect(message, JsonKind::Object)?;
    let role = text(message, "role")?;
    match &*role.plain() {
        "system" | "developer" => read_system(message, request),
        "user" => push(request, Role::User, content(message)?),
        "assistant" => push(request, Role::Assistant, said(message)?),
        "tool" | "function" => {
            let id = match message.get("tool_call_id") {
                None => name(message, "name")?,
                Some(_) => name(message, "tool_call_id")?,
            };
            let result = ToolResult {
                id,
                blocks: content(message)?,
                is_object: false,
                is_error: false,
            };
            push(request, Role::User, vec![Block::Result(result)])
        }
        _ => {
            let why = "expected system, developer, user, assistant or tool";
            Err(foreign(message.get("role").unwrap_or(message), why))
        }
    }
}

fn push<'a>(request: &mut Request<'a>, role: Role, blocks: Vec<Block<'a>>) -> Read<()> {
    if !blocks.is_empty() {
        request.turns.push(Turn { role, blocks });
    }
    Ok(())
}

fn read_system<'a>(message: Json<'_, 'a>, request: &mut Request<'a>) -> Read<()> {
    let blocks = content(message)?;
    if !request.turns.is_empty() {
        return push(request, Role::System, blocks);
    }
    for block in blocks {
        match block {
            Block::Text { text } => request.system.push(text),
            _ => return Err(foreign(message, "a system message may have text alone")),
        }
    }
    Ok(())
}

/// Reads an earlier turn of the model.
fn said<'a>(message: Json<'_, 'a>) -> Read<Vec<Block<'a>>> {
    let mut blocks = Vec::new();
    let reasoning = match optional_text(message, "reasoning_content")? {
        None => message.get("reasoning").and_then(Json::text),
        text => text,
    };
    if let Some(text) = reasoning.filter(|text| !text.is_empty()) {
        blocks.push(Block::Reasoning { text, opaque: None });
    }
    blocks.extend(content(message)?);
    if let Some(refusal) = optional_text(message, "refusal")? {
        blocks.push(Block::Refusal(refusal));
    }
    if let Some(function) = message.get("function_call") {
        blocks.push(Block::Call(Call {
            // The result names the function, for want of an id.
            id: name(function, "name")?,
            name: name(function, "name")?,
            arguments: Arguments::Text(text(function, "arguments")?),
        }));
    }
    let calls = optional_list(message, "tool_calls")?
        .into_iter()
        .flat_map(Json::items);
    for call in calls {
        let id = name(call, "id")?;
        let (name, arguments) = if let Some(custom) = call.get("custom") {
            (
                name(custom, "name")?,
                Arguments::Raw(text(custom, "input")?),
            )
        } else {
            let function = call
                .get("function")
                .ok_or_else(|| missing(call, "function"))?;
            let arguments = optional_text(function, "arguments")?.unwrap_or(Text::of(""));
            (name(function, "name")?, Arguments::Text(arguments))
        };
        let extra = call.get(EXTRA).and_then(|extra| extra.get(MAKER));
        if let Some(signature) = extra.and_then(|extra| extra.text_at(SIGNATURE)) {
            blocks.push(Block::Reasoning {
                text: Text::of(""),
                opaque: Some(signature),
            });
        }
        blocks.push(Block::Call(Call {
            id,
            name,
            arguments,
        }));
    }
    Ok(blocks)
}

/// The content of a message: a string, or parts.
fn content<'a>(message: Json<'_, 'a>) -> Read<Vec<Block<'a>>> {
    let Some(content) = message.get("content") else {
        return Ok(Vec::new());
    };
    if let Some(text) = content.text() {
        let said = !text.is_empty();
        return Ok(said.then_some(Block::Text { text }).into_iter().collect());
    }
    expect(content, JsonKind::List).map_err(|_| wrong(content, "a string or a list"))?;
    content.items().map(part).collect()
}

fn part<'a>(part: Json<'_, 'a>) -> Read<Block<'a>> {
    let kind = text(part, "type")?;
    let within = |name| part.get(name).ok_or_else(|| missing(part, name));
    Ok(match &*kind.plain() {
        "text" => Block::Text {
            text: text(part, "text")?,
        },
        "refusal" => Block::Refusal(text(part, "refusal")?),
        "image_url" => {
            let image = within("image_url")?;
            let url = match image.kind() {
                JsonKind::Object => image.get("url").ok_or_else(|| missing(image, "url"))?,
                _ => image,
            };
            Block::Media(Media {
                detail: image.text_at("detail"),
                ..media(MediaKind::Image, media_by_url(url, MediaKind::Image)?)
            })
        }
        "input_audio" => Block::Media(audio(part)?),
        "file" => {
            let file = within("file")?;
            let Some(data) = file.get("file_data") else {
                return Err(file_elsewhere(file, "file_data"));
            };
            Block::Media(Media {
                name: optional_text(file, "filename")?,
                ..media(
                    MediaKind::Document,
                    media_by_url(data, MediaKind::Document)?,
                )
            })
        }
        _ => return Err(foreign_content(part.get("type").unwrap_or(part))),
    })
}
