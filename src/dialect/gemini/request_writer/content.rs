//! The contents of a request of `gemini`: the model and the user take turns, and every call has its result in the next turn.

use super::own_name;
use crate::{
    dialect::{
        accent,
        neutral::{
            Block, Call, Media, Refused, Request, Source, ToolResult,
            conversation::{NO_RESULT, Step, joined, reminder, steps},
            functions, names,
        },
        parts::Target,
    },
    text::{out::Out, tree::Text},
};

/// A word that Google's models take in place of a signature that was lost.
const NO_SIGNATURE: &str = "skip_thought_signature_validator";

/// Writes the contents, as a list, and tells whether the model's last turn is left out.
///
/// # Errors
/// Content that has no form here.
pub(super) fn write(
    request: &Request<'_>,
    target: &Target<'_>,
    out: &mut Out,
) -> Result<bool, Refused> {
    let steps = steps(&request.turns)?;
    let says = |step: &Step<'_, '_>| match step {
        Step::Assistant(blocks) => blocks.iter().any(|block| says(block, target)),
        Step::Results(_) => true,
        Step::User(blocks) | Step::System(blocks) => blocks.iter().any(|block| says(block, target)),
    };
    let mut turns: Vec<(bool, Vec<&Step<'_, '_>>)> = Vec::new();
    for step in steps.iter().filter(|step| says(step)) {
        let is_model = matches!(step, Step::Assistant(_));
        match turns.last_mut() {
            Some((last, all)) if *last == is_model => all.push(step),
            _ => turns.push((is_model, vec![step])),
        }
    }
    // An answer begins after the user; what the model is to go on from has no form here.
    let is_cut = turns.pop_if(|(is_model, _)| *is_model).is_some();
    let mut failed = None;
    out.list(|out| {
        if turns.is_empty() {
            write_turn("user", out, |out| write_texts(&request.system, out));
        }
        for (is_model, steps) in &turns {
            write_turn(if *is_model { "model" } else { "user" }, out, |out| {
                let written = match is_model {
                    true => write_model(steps, target, out),
                    false => steps
                        .iter()
                        .try_for_each(|step| write_user(step, target, out)),
                };
                failed = failed.take().or(written.err());
            });
        }
    });
    failed.map_or(Ok(is_cut), Err)
}

/// Returns true if something is written of the block.
fn says(block: &Block<'_>, target: &Target<'_>) -> bool {
    match block {
        Block::Text { text } | Block::Refusal(text) => !text.is_empty(),
        Block::Reasoning { opaque, .. } => own(opaque.as_ref(), target).is_some(),
        Block::Media(_) | Block::Call(_) | Block::Result(_) => true,
    }
}

fn own<'a>(opaque: Option<&Text<'a>>, target: &Target<'_>) -> Option<Text<'a>> {
    names::opened(opaque?, "gemini", target.owner)
}

fn write_turn(role: &str, out: &mut Out, parts: impl FnOnce(&mut Out)) {
    out.object(|out| {
        out.name("role").word(role);
        out.name("parts").list(parts);
    });
}

/// Parts of text; empty ones are none.
pub(super) fn write_texts(texts: &[Text<'_>], out: &mut Out) {
    for text in texts.iter().filter(|text| !text.is_empty()) {
        write_text(std::slice::from_ref(text), None, out);
    }
}

fn write_text(text: &[Text<'_>], signature: Option<Text<'_>>, out: &mut Out) {
    out.object(|out| {
        out.name("text").texts(text);
        if let Some(signature) = signature {
            out.name("thoughtSignature").text(&signature);
        }
    });
}

/// Writes a turn of the model. A signature stands in the part that comes after its reasoning.
fn write_model(steps: &[&Step<'_, '_>], target: &Target<'_>, out: &mut Out) -> Result<(), Refused> {
    let mut signature = None;
    let mut has_called = false;
    let blocks = steps.iter().flat_map(|step| match step {
        Step::Assistant(blocks) => blocks.as_slice(),
        Step::Results(_) | Step::User(_) | Step::System(_) => &[],
    });
    for block in blocks {
        match block {
            Block::Reasoning { opaque, .. } => {
                let Some(own) = own(opaque.as_ref(), target) else {
                    continue;
                };
                if let Some(before) = signature.replace(own) {
                    write_text(&[], Some(before), out);
                }
            }
            Block::Text { text } | Block::Refusal(text) if !text.is_empty() => {
                write_text(std::slice::from_ref(text), signature.take(), out);
            }
            Block::Call(call) => {
                // Of the calls of a turn the first one has to have it, and each costs.
                let is_first = !std::mem::replace(&mut has_called, true);
                let lost = is_first && target.accent.flag(accent::SIGNED_CALLS);
                let lost = lost.then_some(Text::of(NO_SIGNATURE));
                write_call(call, signature.take().or(lost), out);
            }
            Block::Media(media) => write_media(media, out)?,
            Block::Text { .. } | Block::Refusal(_) | Block::Result(_) => {}
        }
    }
    if signature.is_some() {
        write_text(&[], signature, out);
    }
    Ok(())
}

fn write_call(call: &Call<'_>, signature: Option<Text<'_>>, out: &mut Out) {
    out.object(|out| {
        out.name("functionCall").object(|out| {
            out.name("id").text(&call.id);
            out.name("name").text(&own_name(&call.name));
            out.name("args").raw(&functions::object(call));
        });
        if let Some(signature) = signature {
            out.name("thoughtSignature").text(&signature);
        }
    });
}

fn write_user(step: &Step<'_, '_>, target: &Target<'_>, out: &mut Out) -> Result<(), Refused> {
    match step {
        Step::Assistant(_) => Ok(()),
        Step::Results(results) => results
            .iter()
            .try_for_each(|(call, result)| write_result(call, *result, target, out)),
        Step::User(blocks) => blocks.iter().try_for_each(|block| write_block(block, out)),
        Step::System(blocks) => {
            for block in blocks {
                match block {
                    Block::Text { text } if !text.is_empty() => {
                        write_text(&reminder(text), None, out);
                    }
                    block => write_block(block, out)?,
                }
            }
            Ok(())
        }
    }
}

fn write_block(block: &Block<'_>, out: &mut Out) -> Result<(), Refused> {
    match block {
        Block::Text { text } | Block::Refusal(text) if !text.is_empty() => {
            write_text(std::slice::from_ref(text), None, out);
            Ok(())
        }
        Block::Media(media) => write_media(media, out),
        _ => Ok(()),
    }
}

fn write_result(
    call: &Call<'_>,
    result: Option<&ToolResult<'_>>,
    target: &Target<'_>,
    out: &mut Out,
) -> Result<(), Refused> {
    let blocks = result.map_or(&[][..], |result| &result.blocks);
    let texts = blocks.iter().filter_map(|block| match block {
        Block::Text { text } => Some(text.clone()),
        _ => None,
    });
    let text = match result {
        None => vec![Text::of(NO_RESULT)],
        Some(_) => joined(texts, "\n"),
    };
    let media = || {
        blocks
            .iter()
            .filter(|block| matches!(block, Block::Media(_)))
    };
    let within = target.accent.flag(accent::MEDIA_IN_RESULTS);
    let mut failed = None;
    out.object(|out| {
        out.name("functionResponse").object(|out| {
            out.name("id").text(&call.id);
            out.name("name").text(&own_name(&call.name));
            let object = match text.as_slice() {
                [one] if result.is_some_and(|result| result.is_object) => Some(one.plain()),
                _ => None,
            };
            let is_error = result.is_none_or(|result| result.is_error);
            match object.filter(|_| !is_error) {
                Some(object) => out.name("response").raw(&object),
                None => out.name("response").object(|out| {
                    out.name(if is_error { "error" } else { "output" })
                        .texts(&text);
                }),
            }
            if within && media().next().is_some() {
                out.name("parts")
                    .list(|out| failed = media().find_map(|block| write_block(block, out).err()));
            }
        });
    });
    if let Some(refused) = failed {
        return Err(refused);
    }
    match within {
        true => Ok(()),
        false => media().try_for_each(|block| write_block(block, out)),
    }
}

fn write_media(media: &Media<'_>, out: &mut Out) -> Result<(), Refused> {
    match &media.source {
        Source::Data { mime, base64 } => out.object(|out| {
            out.name("inlineData").object(|out| {
                out.name("mimeType").text(mime);
                out.name("data").text(base64);
            });
        }),
        Source::Plain(text) => {
            let title = media.name.clone().map(|name| [name, Text::of("\n\n")]);
            let text: Vec<_> = title.into_iter().flatten().chain([text.clone()]).collect();
            write_text(&text, None, out);
        }
        Source::Url(_) => {
            let why = "the platforms of this pool fetch no addresses; send the data of the picture or document instead";
            return Err(Refused::at(String::new(), why));
        }
    }
    Ok(())
}
