//! A request of `messages`, read.

use crate::{
    dialect::neutral::{
        Arguments, Block, Call, Choice, Effort, Media, MediaKind, Output, Reasoning, Request, Role,
        Sampling, Source, Tool, ToolInput, ToolResult, Turn,
        read::{
            self, Read, add_tool, as_text, expect, foreign, foreign_content, foreign_file, media,
            media_by_address, missing, name, object, optional_flag, optional_list, optional_number,
            optional_text, optional_whole, text, tool_name, wrong,
        },
    },
    text::tree::{Json, JsonKind, Text, Tree},
};

/// Reads a request.
///
/// # Errors
/// The member that is wrong, or that no other dialect can say.
pub(super) fn read<'a>(tree: &Tree<'a>) -> Read<Request<'a>> {
    let body = object(tree)?;
    let mut request = Request {
        model: optional_text(body, "model")?,
        stream: optional_flag(body, "stream")?.unwrap_or_default(),
        wants_usage: true,
        max_output: optional_whole(body, "max_tokens")?,
        sampling: Sampling {
            temperature: optional_number(body, "temperature")?,
            top_p: optional_number(body, "top_p")?,
            top_k: optional_number(body, "top_k")?,
            ..Sampling::default()
        },
        stop: texts(optional_list(body, "stop_sequences")?)?,
        reasoning: reasoning(body)?,
        output: output(body)?,
        ..Request::default()
    };
    if let Some(metadata) = body.get("metadata") {
        request.user = optional_text(metadata, "user_id")?;
    }
    for name in ["mcp_servers", "container"] {
        let said = body.get(name).filter(|list| list.items().next().is_some());
        request.left_out.extend(said.map(|_| name));
    }
    if let Some(system) = body.get("system") {
        request.system = system_texts(system)?;
    }
    tools(body, &mut request)?;
    choice(body, &mut request)?;
    let messages = body
        .get("messages")
        .ok_or_else(|| missing(body, "messages"))?;
    expect(messages, JsonKind::List)?;
    for message in messages.items() {
        read_message(message, &mut request)?;
    }
    Ok(request)
}

fn texts<'a>(list: Option<Json<'_, 'a>>) -> Read<Vec<Text<'a>>> {
    let items = list.into_iter().flat_map(Json::items);
    items.map(as_text).collect()
}

/// A string, or blocks of text.
fn system_texts<'a>(system: Json<'_, 'a>) -> Read<Vec<Text<'a>>> {
    if let Some(text) = system.text() {
        return Ok(vec![text]);
    }
    expect(system, JsonKind::List).map_err(|_| wrong(system, "a string or a list"))?;
    system.items().map(|block| text(block, "text")).collect()
}

fn reasoning<'a>(body: Json<'_, 'a>) -> Read<Reasoning<'a>> {
    let mut reasoning = Reasoning::default();
    if let Some(thinking) = body.get("thinking") {
        let kind = text(thinking, "type")?;
        reasoning.effort = match &*kind.plain() {
            "disabled" => Some(Effort::Off),
            "adaptive" => Some(Effort::Adaptive),
            _ => optional_whole(thinking, "budget_tokens")?.map(Effort::Budget),
        };
        let omitted = optional_text(thinking, "display")?.is_some_and(|shown| shown.is("omitted"));
        reasoning.show = !omitted && !kind.is("disabled");
    }
    if let Some(config) = body.get("output_config")
        && let Some(effort) = optional_text(config, "effort")?
        && !matches!(reasoning.effort, Some(Effort::Off))
    {
        reasoning.effort = Some(Effort::Word(effort));
    }
    Ok(reasoning)
}

fn output<'a>(body: Json<'_, 'a>) -> Read<Output<'a>> {
    let format = body
        .get("output_config")
        .and_then(|config| config.get("format"));
    let Some(format) = format else {
        return Ok(Output::Free);
    };
    read::schema(format)
}

fn tools<'a>(body: Json<'_, 'a>, request: &mut Request<'a>) -> Read<()> {
    let tools = optional_list(body, "tools")?
        .into_iter()
        .flat_map(Json::items);
    for tool in tools {
        let kind = optional_text(tool, "type")?;
        if kind.is_some_and(|kind| !kind.is("custom")) {
            // The platform's own, which another one does not have.
            request.left_out.insert("tools");
            continue;
        }
        let read = Tool {
            name: tool_name(tool)?,
            description: optional_text(tool, "description")?,
            input: ToolInput::Schema(tool.get("input_schema").map(|one| one.raw().into())),
            strict: optional_flag(tool, "strict")?,
        };
        add_tool(tool, read, request)?;
    }
    Ok(())
}

fn choice<'a>(body: Json<'_, 'a>, request: &mut Request<'a>) -> Read<()> {
    let Some(choice) = body.get("tool_choice") else {
        return Ok(());
    };
    let kind = text(choice, "type")?;
    request.choice = Some(match &*kind.plain() {
        "none" => Choice::None,
        "any" => Choice::Any,
        "tool" => Choice::One(name(choice, "name")?),
        _ => Choice::Auto,
    });
    if optional_flag(choice, "disable_parallel_tool_use")? == Some(true) {
        request.parallel = Some(false);
    }
    Ok(())
}

fn read_message<'a>(message: Json<'_, 'a>, request: &mut Request<'a>) -> Read<()> {
    expect(message, JsonKind::Object)?;
    let role = text(message, "role")?;
    let role = match &*role.plain() {
        "user" => Role::User,
        "assistant" => Role::Assistant,
        "system" => Role::System,
        _ => {
            let role = message.get("role").unwrap_or(message);
            return Err(foreign(role, "expected user or assistant"));
        }
    };
    let content = message
        .get("content")
        .ok_or_else(|| missing(message, "content"))?;
    let blocks = blocks(content)?;
    if !blocks.is_empty() {
        request.turns.push(Turn { role, blocks });
    }
    Ok(())
}

/// A string, or blocks.
fn blocks<'a>(content: Json<'_, 'a>) -> Read<Vec<Block<'a>>> {
    if let Some(text) = content.text() {
        let says = !text.is_empty();
        return Ok(says.then_some(Block::Text { text }).into_iter().collect());
    }
    expect(content, JsonKind::List).map_err(|_| wrong(content, "a string or a list"))?;
    let mut all = Vec::new();
    for one in content.items() {
        all.extend(block(one)?);
    }
    Ok(all)
}

/// A block; none where it says nothing to another platform.
fn block<'a>(block: Json<'_, 'a>) -> Read<Option<Block<'a>>> {
    let kind = text(block, "type")?;
    Ok(Some(match &*kind.plain() {
        "text" => Block::Text {
            text: text(block, "text")?,
        },
        "image" => Block::Media(media(MediaKind::Image, source(block)?)),
        "document" => Block::Media(Media {
            name: optional_text(block, "title")?,
            ..media(MediaKind::Document, source(block)?)
        }),
        "search_result" => Block::Media(Media {
            name: optional_text(block, "title")?,
            ..media(MediaKind::Document, Source::Plain(text_of_parts(block)?))
        }),
        "thinking" => Block::Reasoning {
            text: text(block, "thinking")?,
            opaque: optional_text(block, "signature")?,
        },
        "redacted_thinking" => Block::Reasoning {
            text: Text::of(""),
            opaque: optional_text(block, "data")?,
        },
        "tool_use" => Block::Call(Call {
            id: name(block, "id")?,
            name: name(block, "name")?,
            arguments: Arguments::Json(block.get("input").map_or("{}", Json::raw)),
        }),
        "tool_result" => Block::Result(ToolResult {
            id: name(block, "tool_use_id")?,
            blocks: block.get("content").map_or(Ok(Vec::new()), blocks)?,
            is_object: false,
            is_error: optional_flag(block, "is_error")?.unwrap_or_default(),
        }),
        // What the platform's own tools did; the model told it in its text.
        "server_tool_use" | "tool_reference" | "compaction" => return Ok(None),
        other if other.ends_with("_tool_result") => return Ok(None),
        _ => {
            return Err(foreign_content(block.get("type").unwrap_or(block)));
        }
    }))
}

/// The texts in the content of a search result.
fn text_of_parts<'a>(block: Json<'_, 'a>) -> Read<Text<'a>> {
    let parts = optional_list(block, "content")?
        .into_iter()
        .flat_map(Json::items);
    let texts = parts.filter_map(|part| part.text_at("text"));
    let texts: Vec<String> = texts.map(|text| text.plain().into_owned()).collect();
    Ok(Text::made(texts.join("\n")))
}

/// The source of an image or a document.
fn source<'a>(block: Json<'_, 'a>) -> Read<Source<'a>> {
    let source = block
        .get("source")
        .ok_or_else(|| missing(block, "source"))?;
    let kind = text(source, "type")?;
    Ok(match &*kind.plain() {
        "base64" => Source::Data {
            mime: text(source, "media_type")?,
            base64: text(source, "data")?,
        },
        "url" => {
            let url = source.get("url").ok_or_else(|| missing(source, "url"))?;
            media_by_address(url, "expected a web address")?
        }
        "text" => Source::Plain(text(source, "data")?),
        "file" => {
            let id = source.get("file_id").unwrap_or(source);
            return Err(foreign_file(id));
        }
        _ => return Err(foreign(source, "this kind of source is not available here")),
    })
}
