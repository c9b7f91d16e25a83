//! The messages of a request of `messages`.

use std::collections::BTreeSet;

use crate::{
    dialect::{
        accent,
        messages::SIGNED,
        neutral::{
            Block, Call, Media, MediaKind, Refused, Request, Source, ToolResult,
            conversation::{NO_RESULT, Step, reminder, steps},
            functions, names,
        },
        parts::Target,
    },
    text::{out::Out, tree::Text},
};

/// The turns, each of another role than the one before it.
#[derive(Debug)]
pub(super) struct Turns<'r, 'a> {
    turns: Vec<(&'static str, Vec<Piece<'r, 'a>>)>,
    /// There are none but what the system says: that is the user's then.
    pub(super) only_system: bool,
    /// The model called tools last without the thoughts that belong to it, and there are none in any other turn.
    pub(super) lost_thinking: bool,
}

/// A block of a message.
#[derive(Debug)]
enum Piece<'r, 'a> {
    Text(Vec<Text<'a>>),
    Media(&'r Media<'a>),
    Call(&'r Call<'a>),
    Result(&'r Call<'a>, Option<&'r ToolResult<'a>>),
    Thinking(&'r Text<'a>, Text<'a>),
}

/// The turns of a request.
///
/// # Errors
/// A result without its call.
pub(super) fn turns<'r, 'a>(
    request: &'r Request<'a>,
    target: &Target<'_>,
) -> Result<Turns<'r, 'a>, Refused> {
    let mut turns: Vec<(&'static str, Vec<Piece<'r, 'a>>)> = Vec::new();
    for step in steps(&request.turns)? {
        let (role, pieces) = match step {
            Step::Assistant(blocks) => ("assistant", pieces(blocks, target)),
            Step::User(blocks) => ("user", pieces(blocks, target)),
            Step::Results(results) => {
                let results = results.into_iter();
                let results = results.map(|(call, result)| Piece::Result(call, result));
                ("user", results.collect())
            }
            Step::System(blocks) => {
                let pieces = pieces(blocks, target);
                match target.accent.flag(accent::SYSTEM_BETWEEN) {
                    true => ("system", pieces),
                    false => ("user", pieces.into_iter().map(reminded).collect()),
                }
            }
        };
        match turns.last_mut() {
            _ if pieces.is_empty() => {}
            Some((last, all)) if *last == role => all.extend(pieces),
            _ => turns.push((role, pieces)),
        }
    }
    if turns.is_empty() {
        // There is no conversation without a user.
        let system = request.system.iter().filter(|text| !text.is_blank());
        let system: Vec<_> = system.map(|text| Piece::Text(vec![text.clone()])).collect();
        if !system.is_empty() {
            turns.push(("user", system));
        }
        return Ok(Turns {
            turns,
            only_system: true,
            lost_thinking: false,
        });
    }
    let thinks = |pieces: &[Piece<'_, '_>]| {
        pieces
            .iter()
            .any(|piece| matches!(piece, Piece::Thinking(..)))
    };
    let calls =
        |pieces: &[Piece<'_, '_>]| pieces.iter().any(|piece| matches!(piece, Piece::Call(_)));
    let last = turns.iter().rfind(|(role, _)| *role == "assistant");
    let lost_thinking = last.is_some_and(|(_, pieces)| calls(pieces))
        && !turns.iter().any(|(_, pieces)| thinks(pieces));
    if let Some((_, pieces)) = turns.last_mut().filter(|(role, _)| *role == "assistant")
        && let Some(Piece::Text(texts)) = pieces.last_mut()
    {
        // The model goes on behind a text that does not end in white space.
        let text: String = texts.iter().map(Text::plain).collect();
        *texts = vec![Text::made(text.trim_end().to_owned())];
    }
    Ok(Turns {
        turns,
        only_system: false,
        lost_thinking,
    })
}

fn reminded<'r, 'a>(piece: Piece<'r, 'a>) -> Piece<'r, 'a> {
    match piece {
        Piece::Text(texts) => Piece::Text(texts.iter().flat_map(reminder).collect()),
        piece => piece,
    }
}

/// The blocks that say something here.
fn pieces<'r, 'a>(blocks: Vec<&'r Block<'a>>, target: &Target<'_>) -> Vec<Piece<'r, 'a>> {
    let blocks = blocks.into_iter();
    blocks.filter_map(|block| piece(block, target)).collect()
}

fn piece<'r, 'a>(block: &'r Block<'a>, target: &Target<'_>) -> Option<Piece<'r, 'a>> {
    Some(match block {
        // A blank text is refused.
        Block::Text { text } | Block::Refusal(text) if text.is_blank() => return None,
        Block::Text { text } | Block::Refusal(text) => Piece::Text(vec![text.clone()]),
        Block::Media(media) => Piece::Media(media),
        Block::Call(call) => Piece::Call(call),
        Block::Reasoning { text, opaque } => {
            let own = names::opened(opaque.as_ref()?, "messages", target.owner)?;
            Piece::Thinking(text, own)
        }
        // Each stands beside its call.
        Block::Result(_) => return None,
    })
}

// === impl Turns ===

impl Turns<'_, '_> {
    /// The tools that were called and of which the request does not tell any more.
    pub(super) fn stubs(&self, request: &Request<'_>) -> Vec<Text<'static>> {
        if !request.tools.is_empty() {
            return Vec::new();
        }
        let pieces = self.turns.iter().flat_map(|(_, pieces)| pieces);
        let called = pieces.filter_map(|piece| match piece {
            Piece::Call(call) => Some(names::fitting(&call.name).plain().into_owned()),
            _ => None,
        });
        let called: BTreeSet<String> = called.collect();
        called.into_iter().map(Text::made).collect()
    }

    /// Writes them.
    ///
    /// # Errors
    /// Content that has no form here.
    pub(super) fn write(&self, out: &mut Out) -> Result<(), Refused> {
        let mut failed = None;
        for (role, pieces) in &self.turns {
            out.object(|out| {
                out.name("role").word(role);
                out.name("content").list(|out| {
                    let written = pieces.iter().map(|piece| write_piece(piece, out));
                    let refused = written.filter_map(Result::err).next();
                    failed = failed.take().or(refused);
                });
            });
        }
        failed.map_or(Ok(()), Err)
    }
}

fn write_piece(piece: &Piece<'_, '_>, out: &mut Out) -> Result<(), Refused> {
    match piece {
        Piece::Text(texts) => write_text(texts, out),
        Piece::Media(media) => return write_media(media, out),
        Piece::Call(call) => out.object(|out| {
            out.name("type").word("tool_use");
            out.name("id").text(&names::fitting(&call.id));
            out.name("name").text(&names::fitting(&call.name));
            out.name("input").raw(&functions::object(call));
        }),
        Piece::Result(call, result) => return write_result(call, *result, out),
        Piece::Thinking(text, own) => write_thinking(text, own, out),
    }
    Ok(())
}

pub(super) fn write_text(texts: &[Text<'_>], out: &mut Out) {
    out.object(|out| {
        out.name("type").word("text");
        out.name("text").texts(texts);
    });
}

/// Writes what was thought, byte for byte, beside what only the platform reads.
fn write_thinking(text: &Text<'_>, own: &Text<'_>, out: &mut Out) {
    let own = own.plain();
    out.object(|out| match own.strip_prefix(SIGNED) {
        Some(signature) => {
            out.name("type").word("thinking");
            out.name("thinking").text(text);
            out.name("signature").word(signature);
        }
        None => {
            out.name("type").word("redacted_thinking");
            out.name("data").word(&own);
        }
    });
}

fn write_result(
    call: &Call<'_>,
    result: Option<&ToolResult<'_>>,
    out: &mut Out,
) -> Result<(), Refused> {
    let mut failed = None;
    out.object(|out| {
        out.name("type").word("tool_result");
        out.name("tool_use_id").text(&names::fitting(&call.id));
        let Some(result) = result else {
            out.name("content").word(NO_RESULT);
            out.name("is_error").bool(true);
            return;
        };
        let says = result
            .blocks
            .iter()
            .filter(|block| !matches!(block, Block::Text { text } if text.is_blank()));
        let says: Vec<_> = says.collect();
        if !says.is_empty() {
            out.name("content").list(|out| {
                for block in says {
                    match block {
                        Block::Text { text } => write_text(std::slice::from_ref(text), out),
                        Block::Media(media) => {
                            failed = failed.take().or_else(|| write_media(media, out).err());
                        }
                        _ => {}
                    }
                }
            });
        }
        if result.is_error {
            out.name("is_error").bool(true);
        }
    });
    failed.map_or(Ok(()), Err)
}

fn write_media(media: &Media<'_>, out: &mut Out) -> Result<(), Refused> {
    let kind = match media.kind {
        MediaKind::Image => "image",
        MediaKind::Document => "document",
        MediaKind::Audio => {
            let why = "no account of this pool takes sound";
            return Err(Refused::at(String::new(), why));
        }
    };
    out.object(|out| {
        out.name("type").word(kind);
        out.name("source").object(|out| match &media.source {
            Source::Data { mime, base64 } => {
                out.name("type").word("base64");
                let mime = if mime.is("image/jpg") {
                    Text::of("image/jpeg")
                } else {
                    mime.clone()
                };
                out.name("media_type").text(&mime);
                out.name("data").text(base64);
            }
            Source::Url(url) => {
                out.name("type").word("url");
                out.name("url").text(url);
            }
            Source::Plain(text) => {
                out.name("type").word("text");
                out.name("media_type").word("text/plain");
                out.name("data").text(text);
            }
        });
        if let Some(title) = media.name.as_ref().filter(|_| kind == "document") {
            out.name("title").text(title);
        }
    });
    Ok(())
}
