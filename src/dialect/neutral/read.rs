//! The steps that readers of all dialects have in common.

use super::{
    Choice, Media, MediaKind, Output, Refused, Request, Schema, Source, Tool, names::MAX_NAME_BYTES,
};
use crate::text::tree::{Json, JsonKind, MAX_VALUES, Text, Tree, Unread};

/// The most tools of a request. OpenAI takes 128. Each costs some copies of its name, and they stay until the answer
/// has ended.
pub const MAX_TOOLS: usize = 4096;

/// The steps that a byte of a tool's name counts for: it is compared with the names of a dozen others, in some tables. So
/// there are 256 KiB of them.
const TOOL_NAME_STEPS: usize = 24;

/// The same for the names and ids in a conversation that are too long to go on as they are: they are hashed. So there are
/// 2 MiB of those.
const LONG_NAME_STEPS: usize = 3;

/// A result whose error names the member.
pub type Read<T> = Result<T, Refused>;

/// The body as an object.
#[inline(never)]
pub fn object<'t, 'a>(tree: &'t Tree<'a>) -> Read<Json<'t, 'a>> {
    let root = tree.root();
    expect(root, JsonKind::Object)?;
    Ok(root)
}

/// Reads a request whole, as `read` reads it.
///
/// # Errors
/// The member that is wrong; or the body is beyond a bound.
#[inline(never)]
pub fn request<'a>(
    tree: &Tree<'a>,
    read: for<'b> fn(&Tree<'b>) -> Read<Request<'b>>,
) -> Read<Request<'a>> {
    let read = read(tree);
    if tree.is_spent() {
        let why = "it takes too long to read: its objects have too many members, or its names and ids are too long";
        return Err(beyond(why.to_owned()));
    }
    if let Ok(Request {
        choice: Some(Choice::Some { names, .. }),
        ..
    }) = &read
        && names.len() > MAX_TOOLS
    {
        let why = format!(
            "the choice of tools names more than {MAX_TOOLS}, the most that a translation takes"
        );
        return Err(Refused::at(String::new(), why));
    }
    read
}

/// The error for a body that is beyond a bound.
#[inline(never)]
pub fn beyond(why: String) -> Refused {
    Refused {
        path: String::new(),
        why,
        too_large: true,
    }
}

/// The error for a body that is no JSON, or beyond a bound.
#[inline(never)]
pub fn unread(unread: Unread) -> Refused {
    let (why, too_large) = match unread {
        Unread::NoJson { line, column } => (
            format!("the body is no JSON: line {line}, column {column}"),
            false,
        ),
        Unread::TooDeep => ("the body is nested too deeply".to_owned(), false),
        Unread::TooLarge => (
            format!(
                "the body has more than {MAX_VALUES} values, the most that a translation takes"
            ),
            true,
        ),
    };
    Refused {
        path: String::new(),
        why,
        too_large,
    }
}

/// Refuses a value that is of another kind.
#[inline(never)]
pub fn expect(json: Json<'_, '_>, kind: JsonKind) -> Read<()> {
    if json.kind() == kind {
        return Ok(());
    }
    Err(wrong(json, kind.word()))
}

/// The error for a value that is not what was expected.
#[inline(never)]
pub fn wrong(json: Json<'_, '_>, expected: &str) -> Refused {
    Refused::at(
        json.path(),
        format!("expected {expected}, found {}", json.kind().word()),
    )
}

/// The error for a member that is missing.
#[inline(never)]
pub fn missing(json: Json<'_, '_>, name: &str) -> Refused {
    Refused::at(json.path(), format!("{name} is missing"))
}

/// The error for a value that no other platform can make sense of.
#[inline(never)]
pub fn foreign(json: Json<'_, '_>, why: &str) -> Refused {
    Refused::at(json.path(), why)
}

/// The error for a part whose kind of content no other platform takes.
#[inline(never)]
pub fn foreign_content(part: Json<'_, '_>) -> Refused {
    foreign(part, "this kind of content is not available here")
}

/// The error for a file that is kept at another platform.
#[inline(never)]
pub fn foreign_file(file: Json<'_, '_>) -> Refused {
    foreign(
        file,
        "that file is at another platform; send its data instead",
    )
}

/// The error for a part without the data that it has in the member `lacks`; its file may be at another platform.
#[inline(never)]
pub fn file_elsewhere(part: Json<'_, '_>, lacks: &str) -> Refused {
    match part.get("file_id") {
        Some(id) => foreign_file(id),
        None => missing(part, lacks),
    }
}

/// A member that has to be a string.
#[inline(never)]
pub fn text<'a>(json: Json<'_, 'a>, name: &str) -> Read<Text<'a>> {
    optional_text(json, name)?.ok_or_else(|| missing(json, name))
}

/// The name or the id of a call, read from `json`, with what it costs.
#[inline(never)]
pub fn named<'a>(json: Json<'_, 'a>, name: Text<'a>) -> Text<'a> {
    if name.len() > MAX_NAME_BYTES {
        json.spend(name.len().saturating_mul(LONG_NAME_STEPS));
    }
    name
}

/// A member that has to be a string: the name or the id of a call.
#[inline(never)]
pub fn name<'a>(json: Json<'_, 'a>, name: &str) -> Read<Text<'a>> {
    Ok(named(json, text(json, name)?))
}

/// The name of a tool.
#[inline(never)]
pub fn tool_name<'a>(json: Json<'_, 'a>) -> Read<Text<'a>> {
    let name = text(json, "name")?;
    spend_tool_name(json, name.len());
    Ok(name)
}

/// Takes off what so many bytes of a tool's name cost.
#[inline(never)]
pub fn spend_tool_name(json: Json<'_, '_>, bytes: usize) {
    json.spend(bytes.saturating_mul(TOOL_NAME_STEPS));
}

/// A string.
#[inline(never)]
pub fn as_text<'a>(value: Json<'_, 'a>) -> Read<Text<'a>> {
    value.text().ok_or_else(|| wrong(value, "a string"))
}

/// A boolean.
#[inline(never)]
fn as_flag(value: Json<'_, '_>) -> Read<bool> {
    value.flag().ok_or_else(|| wrong(value, "a boolean"))
}

/// A whole number.
#[inline(never)]
pub fn as_whole(value: Json<'_, '_>) -> Read<u64> {
    value.whole().ok_or_else(|| wrong(value, "a whole number"))
}

/// A number, as it stands there.
#[inline(never)]
pub fn as_number<'a>(value: Json<'_, 'a>) -> Read<&'a str> {
    expect(value, JsonKind::Number)?;
    Ok(value.raw())
}

/// A list.
#[inline(never)]
pub fn as_list<'t, 'a>(value: Json<'t, 'a>) -> Read<Json<'t, 'a>> {
    expect(value, JsonKind::List)?;
    Ok(value)
}

/// A member that is a string, if it is there.
#[inline(never)]
pub fn optional_text<'a>(json: Json<'_, 'a>, name: &str) -> Read<Option<Text<'a>>> {
    json.get(name).map(as_text).transpose()
}

/// A member that is a boolean, if it is there.
#[inline(never)]
pub fn optional_flag(json: Json<'_, '_>, name: &str) -> Read<Option<bool>> {
    json.get(name).map(as_flag).transpose()
}

/// A member that is a whole number, if it is there.
#[inline(never)]
pub fn optional_whole(json: Json<'_, '_>, name: &str) -> Read<Option<u64>> {
    json.get(name).map(as_whole).transpose()
}

/// A member that is a number, as it stands there.
#[inline(never)]
pub fn optional_number<'a>(json: Json<'_, 'a>, name: &str) -> Read<Option<&'a str>> {
    json.get(name).map(as_number).transpose()
}

/// A member that is a list, if it is there.
#[inline(never)]
pub fn optional_list<'t, 'a>(json: Json<'t, 'a>, name: &str) -> Read<Option<Json<'t, 'a>>> {
    json.get(name).map(as_list).transpose()
}

/// The form of an answer by a schema, which all dialects that name one have alike.
#[inline(never)]
pub fn schema<'a>(json: Json<'_, 'a>) -> Read<Output<'a>> {
    let schema = json.get("schema").ok_or_else(|| missing(json, "schema"))?;
    Ok(Output::Schema(Schema {
        name: optional_text(json, "name")?,
        description: optional_text(json, "description")?,
        schema: schema.raw().into(),
        strict: optional_flag(json, "strict")?,
    }))
}

/// Adds a tool, read from `json`, to those of a request.
#[inline(never)]
pub fn add_tool<'a>(json: Json<'_, 'a>, tool: Tool<'a>, request: &mut Request<'a>) -> Read<()> {
    if request.tools.len() >= MAX_TOOLS {
        let why =
            format!("there are more than {MAX_TOOLS} tools, the most that a translation takes");
        return Err(foreign(json, &why));
    }
    request.tools.push(tool);
    Ok(())
}

/// Media by a web address.
///
/// # Errors
/// It is none: a path or what is at hand elsewhere is no platform's to read. `expected`: what it may be.
#[inline(never)]
pub fn media_by_address<'a>(json: Json<'_, 'a>, expected: &'static str) -> Read<Source<'a>> {
    let url = as_text(json)?;
    let plain = url.plain();
    let is_web = ["https://", "http://"]
        .iter()
        .any(|scheme| plain.starts_with(scheme));
    if !is_web {
        return Err(Refused::at(json.path(), expected));
    }
    drop(plain);
    Ok(Source::Url(url))
}

/// Media by a URL, which may be a data URL (RFC 2397).
#[inline(never)]
pub fn media_by_url<'a>(json: Json<'_, 'a>, kind: MediaKind) -> Read<Source<'a>> {
    let url = as_text(json)?;
    let Some((mime, base64)) = data_url(&url) else {
        return media_by_address(json, "expected a web address or a data URL in base64");
    };
    // Some write each slash as `\/`, and the names of types know no case.
    let plain = Text::Escaped(mime).plain().to_ascii_lowercase();
    let mime = match (plain.as_str(), kind) {
        ("image/jpg", _) => "image/jpeg",
        ("", MediaKind::Document) => "application/pdf",
        (plain, MediaKind::Image) if !plain.starts_with("image/") => {
            let why = "expected an image, found data of another media type";
            return Err(Refused::at(json.path(), why));
        }
        _ => mime,
    };
    Ok(Source::Data {
        mime: Text::Escaped(mime),
        base64: Text::Escaped(base64),
    })
}

/// The media type and the base64 of a data URL. Its parameters are left out.
fn data_url<'a>(url: &Text<'a>) -> Option<(&'a str, &'a str)> {
    let Text::Escaped(url) = url else {
        return None;
    };
    let (head, base64) = url.strip_prefix("data:")?.split_once(',')?;
    let mut head = head.split(';');
    let mime = head.next()?;
    head.any(|part| part == "base64").then_some((mime, base64))
}

/// The sound in a part's `input_audio`.
#[inline(never)]
pub fn audio<'a>(part: Json<'_, 'a>) -> Read<Media<'a>> {
    let audio = part.get("input_audio");
    let audio = audio.ok_or_else(|| missing(part, "input_audio"))?;
    let mime = Text::made(format!("audio/{}", text(audio, "format")?.plain()));
    let base64 = text(audio, "data")?;
    Ok(media(MediaKind::Audio, Source::Data { mime, base64 }))
}

/// A media with nothing but its source.
#[inline(never)]
pub fn media<'a>(kind: MediaKind, source: Source<'a>) -> Media<'a> {
    Media {
        kind,
        source,
        name: None,
        detail: None,
    }
}
