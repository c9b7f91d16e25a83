//! A request of `gemini`, read. The path has the model, and the wish for a stream.
//!
//! Members are named in camel case; Google takes snake case too, and so does this.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, VecDeque},
};

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};

use super::schema;
use crate::{
    dialect::neutral::{
        Arguments, Block, Call, Choice, Effort, MediaKind, Output, Reasoning, Request, Role,
        Sampling, Schema, Source, Tool, ToolInput, ToolResult, Turn,
        names::{ENVELOPE, key},
        read::{
            Read, add_tool, as_list, as_number, as_text, as_whole, expect, foreign,
            foreign_content, foreign_file, media, missing, name, named, object, tool_name, wrong,
        },
    },
    text::{
        find::find_either,
        tree::{Json, JsonKind, Text, Tree},
    },
};

/// The end of a path that asks for a stream.
const STREAM: &str = ":streamGenerateContent";

/// Reads a request.
///
/// # Errors
/// The member that is wrong, or that no other dialect can say.
pub(super) fn read<'a>(tree: &Tree<'a>) -> Read<Request<'a>> {
    let body = object(tree)?;
    // Its tokens may be asked for within one more object.
    let body = get(body, "generateContentRequest").unwrap_or(body);
    expect(body, JsonKind::Object)?;
    if let Some(cached) = get(body, "cachedContent") {
        let why = "what is cached at another platform is not available here; send it instead";
        return Err(foreign(cached, why));
    }
    let mut request = Request {
        wants_usage: true,
        ..Request::default()
    };
    if let Some(system) = get(body, "systemInstruction") {
        request.system = system_texts(system)?;
    }
    if let Some(config) = get(body, "generationConfig") {
        expect(config, JsonKind::Object)?;
        read_config(config, &mut request)?;
    }
    read_tools(body, &mut request)?;
    let contents = get(body, "contents").ok_or_else(|| missing(body, "contents"))?;
    let mut open = Open::default();
    match contents.kind() {
        // A lone one stands for a list of it.
        JsonKind::Object => read_content(contents, 0, &mut open, &mut request)?,
        _ => {
            expect(contents, JsonKind::List)?;
            for (number, content) in contents.items().enumerate() {
                read_content(content, number, &mut open, &mut request)?;
            }
        }
    }
    Ok(request)
}

/// Reads what the path and the query say.
pub(super) fn read_target(request: &mut Request<'_>, asked_at: &str) {
    let (path, query) = asked_at.split_once('?').unwrap_or((asked_at, ""));
    request.stream = path.ends_with(STREAM);
    request.as_list = request.stream && query.split('&').all(|one| one != "alt=sse");
    let model = path.rsplit('/').next().unwrap_or_default();
    let model = model.split_once(':').map_or(model, |(model, _)| model);
    request.model = Some(Text::made(model.to_owned()));
}

/// The member of that name, in camel case or in snake case.
#[inline(never)]
fn get<'t, 'a>(json: Json<'t, 'a>, name: &str) -> Option<Json<'t, 'a>> {
    let found = json.get(name);
    if !name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return found;
    }
    found.or_else(|| {
        let mut snake = String::with_capacity(name.len().saturating_add(4));
        for char in name.chars() {
            if char.is_ascii_uppercase() {
                snake.push('_');
            }
            snake.push(char.to_ascii_lowercase());
        }
        json.get(&snake)
    })
}

#[inline(never)]
fn text<'a>(json: Json<'_, 'a>, name: &str) -> Read<Text<'a>> {
    optional_text(json, name)?.ok_or_else(|| missing(json, name))
}

#[inline(never)]
fn optional_text<'a>(json: Json<'_, 'a>, name: &str) -> Read<Option<Text<'a>>> {
    get(json, name).map(as_text).transpose()
}

#[inline(never)]
fn optional_whole(json: Json<'_, '_>, name: &str) -> Read<Option<u64>> {
    get(json, name).map(as_whole).transpose()
}

#[inline(never)]
fn optional_number<'a>(json: Json<'_, 'a>, name: &str) -> Read<Option<&'a str>> {
    get(json, name).map(as_number).transpose()
}

/// The values of a list that may be missing.
#[inline(never)]
fn items<'t, 'a>(json: Json<'t, 'a>, name: &str) -> Read<impl Iterator<Item = Json<'t, 'a>>> {
    let list = get(json, name).map(as_list).transpose()?;
    Ok(list.into_iter().flat_map(Json::items))
}

#[inline(never)]
fn texts<'a>(json: Json<'_, 'a>, name: &str) -> Read<Vec<Text<'a>>> {
    items(json, name)?.map(as_text).collect()
}

/// A string, or the texts of its parts.
fn system_texts<'a>(system: Json<'_, 'a>) -> Read<Vec<Text<'a>>> {
    if let Some(text) = system.text() {
        return Ok(vec![text]);
    }
    expect(system, JsonKind::Object).map_err(|_| wrong(system, "a string or an object"))?;
    let parts = items(system, "parts")?;
    let texts = parts.filter_map(|part| optional_text(part, "text").transpose());
    texts.collect()
}

fn read_config<'a>(config: Json<'_, 'a>, request: &mut Request<'a>) -> Read<()> {
    request.sampling = Sampling {
        temperature: optional_number(config, "temperature")?,
        top_p: optional_number(config, "topP")?,
        top_k: optional_number(config, "topK")?,
        seed: optional_number(config, "seed")?,
        presence_penalty: optional_number(config, "presencePenalty")?,
        frequency_penalty: optional_number(config, "frequencyPenalty")?,
    };
    request.max_output = optional_whole(config, "maxOutputTokens")?;
    request.stop = texts(config, "stopSequences")?;
    if let Some(count) = get(config, "candidateCount").filter(|count| count.whole() != Some(1)) {
        return Err(foreign(count, "more than one answer is not available here"));
    }
    for modality in items(config, "responseModalities")? {
        if !modality.text().is_some_and(|word| is_word(&word, "TEXT")) {
            let why = "an answer in anything but text is not available here";
            return Err(foreign(modality, why));
        }
    }
    for name in ["responseLogprobs", "logprobs"] {
        let said = get(config, name).filter(|value| value.flag() != Some(false));
        request.left_out.extend(said.map(|_| name));
    }
    request.reasoning = reasoning(config)?;
    request.output = output(config)?;
    Ok(())
}

fn reasoning<'a>(config: Json<'_, 'a>) -> Read<Reasoning<'a>> {
    let Some(thinking) = get(config, "thinkingConfig") else {
        return Ok(Reasoning::default());
    };
    expect(thinking, JsonKind::Object)?;
    let show = get(thinking, "includeThoughts").and_then(Json::flag);
    let level = optional_text(thinking, "thinkingLevel")?;
    let level = level.map(|level| level.plain().to_ascii_lowercase());
    let level = level.filter(|level| level != "thinking_level_unspecified");
    let effort = match (level, get(thinking, "thinkingBudget")) {
        (Some(level), _) => Some(Effort::Word(Text::made(level))),
        (None, None) => None,
        (None, Some(budget)) => Some(match budget.raw() {
            "-1" => Effort::Adaptive,
            "0" => Effort::Off,
            _ => Effort::Budget(as_whole(budget)?),
        }),
    };
    Ok(Reasoning {
        effort,
        show: show.unwrap_or_default(),
    })
}

fn output<'a>(config: Json<'_, 'a>) -> Read<Output<'a>> {
    let schema = match get(config, "responseJsonSchema") {
        Some(schema) => Some(Cow::Borrowed(schema.raw())),
        None => get(config, "responseSchema").map(schema::of_google),
    };
    if let Some(schema) = schema {
        return Ok(Output::Schema(Schema {
            name: None,
            description: None,
            schema,
            strict: None,
        }));
    }
    let mime = optional_text(config, "responseMimeType")?;
    let is_json = mime.is_some_and(|mime| mime.is("application/json"));
    Ok(if is_json { Output::Json } else { Output::Free })
}

fn read_tools<'a>(body: Json<'_, 'a>, request: &mut Request<'a>) -> Read<()> {
    for tool in items(body, "tools")? {
        expect(tool, JsonKind::Object)?;
        for function in items(tool, "functionDeclarations")? {
            let input = match get(function, "parametersJsonSchema") {
                Some(schema) => Some(Cow::Borrowed(schema.raw())),
                None => get(function, "parameters").map(schema::of_google),
            };
            let read = Tool {
                name: tool_name(function)?,
                description: optional_text(function, "description")?,
                input: ToolInput::Schema(input),
                strict: None,
            };
            add_tool(function, read, request)?;
        }
        // The platform's own, as its search, which another one does not have.
        let is_own =
            |name: &Text<'_>| !name.is("functionDeclarations") && !name.is("function_declarations");
        if tool
            .members()
            .any(|(name, value)| is_own(&name) && !value.is_null())
        {
            request.left_out.insert("tools");
        }
    }
    let config = get(body, "toolConfig").and_then(|config| get(config, "functionCallingConfig"));
    let Some(config) = config else {
        return Ok(());
    };
    let Some(mode) = optional_text(config, "mode")? else {
        return Ok(());
    };
    let mut names = texts(config, "allowedFunctionNames")?;
    let required = is_word(&mode, "ANY");
    request.choice = Some(match names.len() {
        _ if is_word(&mode, "NONE") => Choice::None,
        0 if required => Choice::Any,
        0 => Choice::Auto,
        1 if required => Choice::One(names.remove(0)),
        _ => Choice::Some { required, names },
    });
    Ok(())
}

/// The calls that have no result yet.
#[derive(Default)]
struct Open<'a> {
    /// Their ids by the names of their tools, in order.
    by_name: BTreeMap<String, VecDeque<Text<'a>>>,
    /// The ids that calls have.
    known: BTreeSet<String>,
    answered: BTreeSet<String>,
    /// The content that was read last was the model's.
    after_model: bool,
}

fn read_content<'a>(
    content: Json<'_, 'a>,
    number: usize,
    open: &mut Open<'a>,
    request: &mut Request<'a>,
) -> Read<()> {
    expect(content, JsonKind::Object)?;
    let role = optional_text(content, "role")?.unwrap_or(Text::of("user"));
    let role = match &*role.plain() {
        "model" => Role::Assistant,
        "user" | "function" | "" => Role::User,
        "system" => Role::System,
        _ => {
            let role = content.get("role").unwrap_or(content);
            return Err(foreign(role, "expected user or model"));
        }
    };
    let is_model = role == Role::Assistant;
    if is_model && !open.after_model {
        open.by_name.clear();
    }
    open.after_model = is_model;
    let mut blocks = Vec::new();
    for (at, part) in items(content, "parts")?.enumerate() {
        expect(part, JsonKind::Object)?;
        read_part(part, (number, at), open, &mut blocks)?;
    }
    if !blocks.is_empty() {
        request.turns.push(Turn { role, blocks });
    }
    Ok(())
}

/// Reads a part, which stands at this content and this place in it.
fn read_part<'a>(
    part: Json<'_, 'a>,
    place: (usize, usize),
    open: &mut Open<'a>,
    blocks: &mut Vec<Block<'a>>,
) -> Read<()> {
    let opaque = optional_text(part, "thoughtSignature")?.map(signed);
    let said = optional_text(part, "text")?;
    if get(part, "thought").and_then(Json::flag) == Some(true) {
        think(blocks, said.unwrap_or(Text::of("")), opaque);
        return Ok(());
    }
    let has_opaque = opaque.is_some();
    if has_opaque {
        think(blocks, Text::of(""), opaque);
    }
    if let Some(text) = said {
        if !text.is_empty() {
            blocks.push(Block::Text { text });
        }
        return Ok(());
    }
    if let Some(data) = get(part, "inlineData") {
        blocks.push(inline(data)?);
        return Ok(());
    }
    if let Some(call) = get(part, "functionCall") {
        blocks.push(Block::Call(read_call(call, place, open)?));
        return Ok(());
    }
    if let Some(result) = get(part, "functionResponse") {
        blocks.push(Block::Result(read_result(result, open)?));
        return Ok(());
    }
    if let Some(file) = get(part, "fileData") {
        let file = get(file, "fileUri").unwrap_or(file);
        return Err(foreign_file(file));
    }
    // What the platform's own tools did; the model told it in its text.
    let own = [
        "executableCode",
        "codeExecutionResult",
        "toolCall",
        "toolResponse",
    ];
    if has_opaque || own.iter().any(|name| get(part, name).is_some()) {
        return Ok(());
    }
    Err(foreign_content(part))
}

/// Appends a thought, or more of the one before: it comes in pieces, and what only its maker reads is the last of it.
fn think<'a>(blocks: &mut Vec<Block<'a>>, text: Text<'a>, opaque: Option<Text<'a>>) {
    let Some(Block::Reasoning {
        text: begun,
        opaque: own @ None,
    }) = blocks.last_mut()
    else {
        blocks.push(Block::Reasoning { text, opaque });
        return;
    };
    *own = opaque;
    match begun {
        Text::Plain(Cow::Owned(begun)) => begun.push_str(&text.plain()),
        begun => *begun = Text::made(format!("{}{}", begun.plain(), text.plain())),
    }
}

/// Reads a signature, which only its maker reads. An envelope comes in base64: clients take it for bytes.
fn signed<'a>(signature: Text<'a>) -> Text<'a> {
    let bytes = STANDARD_NO_PAD.decode(usual(&signature.plain()).trim_end_matches('='));
    let envelope = bytes.ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let envelope = envelope.filter(|text| text.starts_with(ENVELOPE));
    envelope.map_or(signature, Text::made)
}

/// Base64 in its usual alphabet: Google takes that of URLs too, and its Python client sends it.
fn usual(base64: &str) -> Cow<'_, str> {
    match find_either(base64.as_bytes(), b'-', b'_') {
        Some(_) => base64.replace('-', "+").replace('_', "/").into(),
        None => base64.into(),
    }
}

fn inline<'a>(data: Json<'_, 'a>) -> Read<Block<'a>> {
    let (mime, base64) = (text(data, "mimeType")?, text(data, "data")?);
    let plain = mime.plain();
    let (family, _) = plain.split_once('/').unwrap_or((&plain, ""));
    let kind = match (family, &*plain) {
        ("image", _) => MediaKind::Image,
        ("audio", _) => MediaKind::Audio,
        ("text", _) | (_, "application/pdf") => MediaKind::Document,
        _ => {
            let mime = get(data, "mimeType").unwrap_or(data);
            return Err(foreign_content(mime));
        }
    };
    let base64 = match usual(&base64.plain()) {
        Cow::Owned(changed) => Text::made(changed),
        Cow::Borrowed(_) => base64,
    };
    let source = match family {
        "text" => {
            let bytes = STANDARD_NO_PAD.decode(base64.plain().trim_end_matches('='));
            let text = bytes.ok().and_then(|bytes| String::from_utf8(bytes).ok());
            let data = get(data, "data").unwrap_or(data);
            Source::Plain(Text::made(
                text.ok_or_else(|| wrong(data, "a text in base64"))?,
            ))
        }
        _ => Source::Data {
            mime: if mime.is("image/jpg") {
                Text::of("image/jpeg")
            } else {
                mime
            },
            base64,
        },
    };
    Ok(Block::Media(media(kind, source)))
}

fn read_call<'a>(
    call: Json<'_, 'a>,
    (content, part): (usize, usize),
    open: &mut Open<'a>,
) -> Read<Call<'a>> {
    let name = name(call, "name")?;
    let id = optional_text(call, "id")?
        .map(|id| named(call, id))
        .filter(|id| !id.is_empty());
    // The same one each time that the conversation is sent.
    let id = id.unwrap_or_else(|| Text::made(format!("call_{content}_{part}")));
    let arguments = match get(call, "args") {
        None => "{}",
        Some(args) => {
            expect(args, JsonKind::Object)?;
            args.raw()
        }
    };
    open.known.insert(key(&id));
    let of_tool = open.by_name.entry(name.plain().into_owned()).or_default();
    of_tool.push_back(id.clone());
    Ok(Call {
        id,
        name,
        arguments: Arguments::Json(arguments),
    })
}

fn read_result<'a>(result: Json<'_, 'a>, open: &mut Open<'a>) -> Read<ToolResult<'a>> {
    let id = optional_text(result, "id")?.map(|id| named(result, id));
    let id = id.filter(|id| open.known.contains(&key(id)));
    let id = match id {
        Some(id) => id,
        None => {
            let name = name(result, "name")?;
            let calls = open.by_name.get_mut(&*name.plain());
            let answered = &open.answered;
            calls
                .and_then(|calls| {
                    loop {
                        let id = calls.pop_front()?;
                        if !answered.contains(&key(&id)) {
                            break Some(id);
                        }
                    }
                })
                .ok_or_else(|| foreign(result, "no call of this tool comes before its result"))?
        }
    };
    open.answered.insert(key(&id));
    let (mut blocks, mut is_error) = (Vec::new(), false);
    if let Some(response) = get(result, "response") {
        let (text, failed) = response_text(response);
        is_error = failed;
        if !text.is_empty() {
            blocks.push(Block::Text { text });
        }
    }
    for part in items(result, "parts")? {
        let data = get(part, "inlineData");
        blocks.push(inline(data.ok_or_else(|| foreign_content(part))?)?);
    }
    Ok(ToolResult {
        id,
        blocks,
        is_object: false,
        is_error,
    })
}

/// The text of a result, and if it tells an error: a lone text under one of the usual names, or the object as it is.
fn response_text<'a>(response: Json<'_, 'a>) -> (Text<'a>, bool) {
    let mut members = response.members();
    if let (Some((name, value)), None) = (members.next(), members.next()) {
        let is_error = name.is("error");
        let is_usual = is_error
            || ["output", "result", "content"]
                .iter()
                .any(|one| name.is(one));
        if let Some(text) = value.text().filter(|_| is_usual) {
            return (text, is_error);
        }
        if is_error {
            return (Text::of(value.raw()), true);
        }
    }
    (response.text().unwrap_or(Text::of(response.raw())), false)
}

/// Returns true if the text is `word`, which Google writes in capitals.
fn is_word(text: &Text<'_>, word: &str) -> bool {
    text.plain().eq_ignore_ascii_case(word)
}
