//! The messages of a request of `chat`.

use super::system;
use crate::{
    dialect::{
        accent::{self, Accent},
        neutral::{
            Arguments, Block, Call, Media, MediaKind, Refused, Request, Source, ToolResult,
            conversation::{NO_RESULT, Step, joined, reminder, steps},
            functions,
            names::{self, MAX_NAME_BYTES},
        },
    },
    text::{out::Out, tree::Text},
};

/// The longest names and ids that a platform takes.
#[derive(Debug)]
pub(super) struct Limits {
    pub(super) name: usize,
    id: usize,
    /// Its ids are all of this length.
    id_length: Option<usize>,
}

impl Limits {
    pub(super) fn of(accent: &Accent) -> Self {
        let limit = |name| usize::try_from(accent.number(name)?).ok();
        Self {
            name: limit(accent::NAME_MAX).unwrap_or(MAX_NAME_BYTES),
            id: limit(accent::ID_MAX).unwrap_or(MAX_NAME_BYTES),
            id_length: limit(accent::ID_LENGTH),
        }
    }

    fn id<'a>(&self, id: &Text<'a>) -> Text<'a> {
        match self.id_length {
            Some(length) => names::of_length(id, length),
            None => names::fitting_within(id, self.id),
        }
    }
}

/// Writes the messages.
///
/// # Errors
/// Content that has no form here.
pub(super) fn write(
    request: &Request<'_>,
    accent: &Accent,
    limits: &Limits,
    out: &mut Out,
) -> Result<(), Refused> {
    let role = accent.word(accent::SYSTEM_ROLE).unwrap_or("system");
    if !request.system.is_empty() {
        write_message(role, out, |out| out.name("content").texts(&system(request)));
    }
    // The media of results, which go into the user's message behind the last of them.
    let mut media: Vec<&Media<'_>> = Vec::new();
    for step in steps(&request.turns)? {
        match step {
            Step::User(blocks) => {
                write_user(&std::mem::take(&mut media), &blocks, accent, out)?;
                continue;
            }
            Step::Assistant(blocks) => {
                write_media_alone(&mut media, accent, out)?;
                write_assistant(&blocks, accent, limits, out);
            }
            Step::System(blocks) => {
                write_media_alone(&mut media, accent, out)?;
                let said = texts(blocks.iter().copied());
                if accent.flag(accent::SYSTEM_BETWEEN) {
                    let said = joined(said, "\n\n");
                    write_message(role, out, |out| out.name("content").texts(&said));
                } else {
                    let said = said.iter().map(reminder).collect::<Vec<_>>();
                    write_message("user", out, |out| out.name("content").texts(&said.concat()));
                }
            }
            Step::Results(results) => {
                for (call, result) in results {
                    write_result(call, result, limits, &mut media, out);
                }
            }
        }
    }
    write_media_alone(&mut media, accent, out)
}

fn write_message(role: &str, out: &mut Out, rest: impl FnOnce(&mut Out)) {
    out.object(|out| {
        out.name("role").word(role);
        rest(out);
    });
}

/// The texts among blocks. What is a text at heart is one.
pub(in crate::dialect) fn texts<'b, 'a: 'b>(
    blocks: impl Iterator<Item = &'b Block<'a>>,
) -> Vec<Text<'a>> {
    let text = |block: &Block<'a>| match block {
        Block::Text { text } | Block::Refusal(text) if !text.is_empty() => Some(text.clone()),
        Block::Media(Media {
            source: Source::Plain(text),
            name,
            ..
        }) => Some(match name {
            Some(name) => Text::made(format!("{}\n\n{}", name.plain(), text.plain())),
            None => text.clone(),
        }),
        _ => None,
    };
    blocks.filter_map(text).collect()
}

/// Returns true if the media is no text at heart.
pub(in crate::dialect) fn is_media(media: &Media<'_>) -> bool {
    !matches!(media.source, Source::Plain(_))
}

fn write_media_alone(
    media: &mut Vec<&Media<'_>>,
    accent: &Accent,
    out: &mut Out,
) -> Result<(), Refused> {
    match std::mem::take(media) {
        none if none.is_empty() => Ok(()),
        media => write_user(&media, &[], accent, out),
    }
}

fn write_user(
    media: &[&Media<'_>],
    blocks: &[&Block<'_>],
    accent: &Accent,
    out: &mut Out,
) -> Result<(), Refused> {
    let form = accent.word(accent::CONTENT).unwrap_or("text");
    let own = blocks.iter().filter_map(|block| match block {
        Block::Media(media) => Some(media),
        _ => None,
    });
    let has_media = media.iter().copied().chain(own).any(is_media);
    if has_media && form == "text_alone" {
        let why = "the model takes no pictures and no files at the platforms of this pool";
        return Err(Refused::at(String::new(), why));
    }
    if !has_media && form != "parts" {
        let said = joined(texts(blocks.iter().copied()), "\n\n");
        if !said.is_empty() {
            write_message("user", out, |out| out.name("content").texts(&said));
        }
        return Ok(());
    }
    let mut failed = None;
    write_message("user", out, |out| {
        out.name("content").list(|out| {
            let all = media.iter().map(|media| write_media(media, out));
            failed = all.filter_map(Result::err).next();
            for block in blocks {
                match block {
                    Block::Media(media) if is_media(media) => {
                        failed = failed.take().or_else(|| write_media(media, out).err());
                    }
                    block => {
                        for text in texts(std::iter::once(*block)) {
                            write_text(&text, out);
                        }
                    }
                }
            }
        });
    });
    failed.map_or(Ok(()), Err)
}

fn write_text(text: &Text<'_>, out: &mut Out) {
    out.object(|out| {
        out.name("type").word("text");
        out.name("text").text(text);
    });
}

fn write_media(media: &Media<'_>, out: &mut Out) -> Result<(), Refused> {
    let refused = |why: &str| Err(Refused::at(String::new(), why));
    match (media.kind, &media.source) {
        (_, Source::Plain(text)) => write_text(text, out),
        (MediaKind::Image, source) => {
            let url = match source {
                Source::Url(url) => vec![url.clone()],
                source => data_url(source),
            };
            write_part("image_url", out, |out| {
                out.name("url").texts(&url);
                if let Some(detail) = &media.detail {
                    out.name("detail").text(detail);
                }
            });
        }
        (MediaKind::Document, Source::Url(_)) => {
            return refused("no platform of this pool fetches a document: send its data instead");
        }
        (MediaKind::Document, source) => write_part("file", out, |out| {
            let name = media
                .name
                .as_ref()
                .unwrap_or(&Text::of("document.pdf"))
                .clone();
            out.name("filename").text(&name);
            out.name("file_data").texts(&data_url(source));
        }),
        (MediaKind::Audio, Source::Data { mime, base64 }) => {
            let mime = mime.plain();
            let format = mime.trim_start_matches("audio/").trim_start_matches("x-");
            let format = if format == "mpeg" { "mp3" } else { format };
            write_part("input_audio", out, |out| {
                out.name("data").text(base64);
                out.name("format").word(format);
            });
        }
        (MediaKind::Audio, Source::Url(_)) => {
            return refused("no platform of this pool fetches a sound: send its data instead");
        }
    }
    Ok(())
}

fn write_part(kind: &str, out: &mut Out, members: impl FnOnce(&mut Out)) {
    out.object(|out| {
        out.name("type").word(kind);
        out.name(kind).object(members);
    });
}

fn data_url<'a>(source: &Source<'a>) -> Vec<Text<'a>> {
    let Source::Data { mime, base64 } = source else {
        return Vec::new();
    };
    let (begin, form) = (Text::of("data:"), Text::of(";base64,"));
    vec![begin, mime.clone(), form, base64.clone()]
}

fn write_assistant(blocks: &[&Block<'_>], accent: &Accent, limits: &Limits, out: &mut Out) {
    let said = joined(texts(blocks.iter().copied()), "\n\n");
    let calls = blocks.iter().filter_map(|block| match block {
        Block::Call(call) => Some(call),
        _ => None,
    });
    let calls: Vec<_> = calls.collect();
    if said.is_empty() && calls.is_empty() {
        return;
    }
    write_message("assistant", out, |out| {
        match (said.as_slice(), accent.word(accent::CONTENT)) {
            // An empty text would be a block of its own to some.
            ([], _) => out.name("content").null(),
            (said, Some("parts")) => out.name("content").list(|out| {
                out.object(|out| {
                    out.name("type").word("text");
                    out.name("text").texts(said);
                });
            }),
            (said, _) => out.name("content").texts(said),
        }
        write_reasoning(blocks, accent, out);
        if calls.is_empty() {
            return;
        }
        out.name("tool_calls").list(|out| {
            for call in calls {
                out.object(|out| write_call(call, limits, out));
            }
        });
    });
}

fn write_reasoning(blocks: &[&Block<'_>], accent: &Accent, out: &mut Out) {
    let Some(member) = accent.word(accent::REASONING_IN) else {
        return;
    };
    let thought = blocks.iter().filter_map(|block| match block {
        Block::Reasoning { text, .. } if !text.is_empty() => Some(text.clone()),
        _ => None,
    });
    let thought = joined(thought, "\n\n");
    if !thought.is_empty() {
        out.name(member).texts(&thought);
    } else if accent.flag(accent::REASONING_REQUIRED) {
        // What was thought at another platform is not there any more; a space is taken for it.
        out.name(member).word(" ");
    }
}

fn write_call(call: &Call<'_>, limits: &Limits, out: &mut Out) {
    out.name("id").text(&limits.id(&call.id));
    out.name("type").word("function");
    out.name("function").object(|out| {
        out.name("name")
            .text(&names::fitting_within(&call.name, limits.name));
        let out = out.name("arguments");
        match &call.arguments {
            Arguments::Text(text) if text.is_empty() => out.word("{}"),
            Arguments::Text(text) | Arguments::Object(text) => out.text(text),
            Arguments::Json(json) => out.word(json),
            Arguments::Raw(text) => out.word(&functions::within_input(&text.plain())),
        }
    });
}

/// Writes the result of a call; what of it is no text goes into `media`.
fn write_result<'r, 'a>(
    call: &Call<'a>,
    result: Option<&'r ToolResult<'a>>,
    limits: &Limits,
    media: &mut Vec<&'r Media<'a>>,
    out: &mut Out,
) {
    let said = returned(result, media);
    write_message("tool", out, |out| {
        out.name("tool_call_id").text(&limits.id(&call.id));
        out.name("content").texts(&joined(said, "\n"));
    });
}

/// The texts of a call's result; what of it is no text goes into `media`.
pub(in crate::dialect) fn returned<'r, 'a>(
    result: Option<&'r ToolResult<'a>>,
    media: &mut Vec<&'r Media<'a>>,
) -> Vec<Text<'a>> {
    let mut said = Vec::new();
    match result {
        None => said.push(Text::of(NO_RESULT)),
        Some(result) => {
            for block in &result.blocks {
                match block {
                    Block::Media(one) if is_media(one) => {
                        media.push(one);
                        said.push(Text::of(match one.kind {
                            MediaKind::Image => "[image]",
                            MediaKind::Audio => "[sound]",
                            MediaKind::Document => "[document]",
                        }));
                    }
                    block => said.extend(texts(std::iter::once(block))),
                }
            }
        }
    }
    said
}
