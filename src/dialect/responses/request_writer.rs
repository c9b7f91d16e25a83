//! A request of `responses`, written.

use std::collections::BTreeSet;

use crate::{
    dialect::{
        neutral::{
            Arguments, Block, Call, Choice, Effort, Media, MediaKind, Output, Refused, Request,
            Source, Tool, ToolInput, ToolResult,
            conversation::{NO_RESULT, Step, joined, steps},
            functions, names,
        },
        parts::Target,
    },
    text::{out::Out, tree::Text},
};

/// The shortest answer that OpenAI lets a caller ask for, in tokens.
const LEAST_OUTPUT: u64 = 16;

/// Writes `request` for `target`, and notes in it what is left out.
///
/// # Errors
/// Content that this dialect has no form for.
pub fn write(request: &mut Request<'_>, target: &Target<'_>) -> Result<Vec<u8>, Refused> {
    let sampling = request.sampling;
    let absent = [
        ("stop", !request.stop.is_empty()),
        ("top_k", sampling.top_k.is_some()),
        ("seed", sampling.seed.is_some()),
        ("presence_penalty", sampling.presence_penalty.is_some()),
        ("frequency_penalty", sampling.frequency_penalty.is_some()),
        (
            "temperature",
            sampling.temperature.is_some() && target.refuses("temperature"),
        ),
        ("top_p", sampling.top_p.is_some() && target.refuses("top_p")),
        (
            "max_tokens",
            request.max_output.is_some() && target.refuses("max_output_tokens"),
        ),
    ];
    let absent = absent.into_iter().filter(|(_, is_said)| *is_said);
    request.left_out.extend(absent.map(|(name, _)| name));
    for tool in &mut request.tools {
        let fitting = names::fitting(&tool.name);
        let (own, wire) = (tool.name.plain(), fitting.plain());
        if own != wire {
            request.renamed.insert(wire.into_owned(), own.into_owned());
        }
        tool.name = fitting;
    }
    // An id may be as long as a name.
    let user = request.user.as_ref().map(names::fitting);
    let request = &*request;
    let mut out = request.out();
    let mut failed = None;
    out.object(|out| {
        out.name("model").text(&target.model);
        out.name("stream")
            .bool(request.stream || target.streams_only);
        out.name("store").bool(false);
        out.name("instructions").texts(&system(request));
        out.name("input")
            .list(|out| failed = write_input(request, target, out).err());
        write_tools(request, out);
        if let Some(most) = request
            .max_output
            .filter(|_| !target.refuses("max_output_tokens"))
        {
            out.name("max_output_tokens").number(most.max(LEAST_OUTPUT));
        }
        for (name, number) in [
            ("temperature", sampling.temperature),
            ("top_p", sampling.top_p),
        ] {
            if let Some(number) = number.filter(|_| !target.refuses(name)) {
                out.name(name).raw(number);
            }
        }
        write_reasoning(request, out);
        out.name("include")
            .list(|out| out.word("reasoning.encrypted_content"));
        write_format(request, out);
        for (name, text) in [
            ("prompt_cache_key", &request.cache_key),
            ("safety_identifier", &user),
            ("service_tier", &request.tier),
        ] {
            if let Some(text) = text.as_ref().filter(|_| !target.refuses(name)) {
                out.name(name).text(text);
            }
        }
    });
    failed.map_or(Ok(out.into_bytes()), Err)
}

/// The system's texts as one.
fn system<'a>(request: &Request<'a>) -> Vec<Text<'a>> {
    joined(request.system.iter().cloned(), "\n\n")
}

fn write_input(request: &Request<'_>, target: &Target<'_>, out: &mut Out) -> Result<(), Refused> {
    if request.turns.is_empty() {
        // An empty input is refused; what there is is the user's then.
        write_message(out, "user", |out| {
            write_text(out, "input_text", &system(request))
        });
    }
    for step in steps(&request.turns)? {
        match step {
            Step::Assistant(blocks) => {
                write_turn("assistant", "output_text", &blocks, target, out)?;
            }
            Step::User(blocks) => write_turn("user", "input_text", &blocks, target, out)?,
            Step::System(blocks) => write_turn("developer", "input_text", &blocks, target, out)?,
            Step::Results(results) => {
                for (call, result) in results {
                    write_result(call, result, out)?;
                }
            }
        }
    }
    let is_said = || match request.turns.is_empty() {
        true => functions::say_json(request.system.iter()),
        false => functions::turns_say_json(request),
    };
    if matches!(request.output, Output::Json) && !is_said() {
        // It is refused without the word, and that of the instructions does not count.
        write_message(out, "developer", |out| {
            write_text(out, "input_text", &[Text::of(functions::IN_JSON)]);
        });
    }
    Ok(())
}

/// Writes what one side says: messages, and what comes between them.
fn write_turn(
    role: &str,
    kind: &str,
    blocks: &[&Block<'_>],
    target: &Target<'_>,
    out: &mut Out,
) -> Result<(), Refused> {
    let is_content = |block: &&Block<'_>| {
        matches!(
            block,
            Block::Text { .. } | Block::Media(_) | Block::Refusal(_)
        )
    };
    // What says nothing is left out.
    let says = |block: &&&Block<'_>| !matches!(block, Block::Text { text } if text.is_empty());
    let blocks: Vec<&Block<'_>> = blocks.iter().filter(says).copied().collect();
    for run in blocks.chunk_by(|one, next| is_content(one) && is_content(next)) {
        let mut failed = None;
        match run {
            [item] if !is_content(item) => write_item(item, target, out),
            content => write_message(out, role, |out| {
                let mut written = content.iter().map(|block| write_content(block, kind, out));
                failed = written.find_map(Result::err);
            }),
        }
        failed.map_or(Ok(()), Err)?;
    }
    Ok(())
}

fn write_message(out: &mut Out, role: &str, content: impl FnOnce(&mut Out)) {
    out.object(|out| {
        out.name("type").word("message");
        out.name("role").word(role);
        out.name("content").list(content);
    });
}

fn write_text(out: &mut Out, kind: &str, text: &[Text<'_>]) {
    out.object(|out| {
        out.name("type").word(kind);
        out.name("text").texts(text);
    });
}

fn write_content(block: &Block<'_>, kind: &str, out: &mut Out) -> Result<(), Refused> {
    match block {
        Block::Text { text } => write_text(out, kind, std::slice::from_ref(text)),
        Block::Refusal(refusal) => out.object(|out| {
            out.name("type").word("refusal");
            out.name("refusal").text(refusal);
        }),
        Block::Media(media) => return write_media(media, out),
        Block::Reasoning { .. } | Block::Call(_) | Block::Result(_) => {}
    }
    Ok(())
}

fn write_media(media: &Media<'_>, out: &mut Out) -> Result<(), Refused> {
    let url = match &media.source {
        Source::Data { mime, base64 } => vec![
            Text::of("data:"),
            mime.clone(),
            Text::of(";base64,"),
            base64.clone(),
        ],
        Source::Url(url) => vec![url.clone()],
        Source::Plain(text) => {
            let title = media.name.clone().map(|name| [name, Text::of("\n\n")]);
            let text: Vec<_> = title.into_iter().flatten().chain([text.clone()]).collect();
            write_text(out, "input_text", &text);
            return Ok(());
        }
    };
    match media.kind {
        MediaKind::Image => out.object(|out| {
            out.name("type").word("input_image");
            out.name("image_url").texts(&url);
            out.name("detail")
                .text(media.detail.as_ref().unwrap_or(&Text::of("auto")));
        }),
        MediaKind::Document => out.object(|out| {
            out.name("type").word("input_file");
            let is_data = matches!(media.source, Source::Data { .. });
            if is_data {
                out.name("filename")
                    .text(media.name.as_ref().unwrap_or(&Text::of("document.pdf")));
            }
            out.name(if is_data { "file_data" } else { "file_url" })
                .texts(&url);
        }),
        MediaKind::Audio => {
            return Err(Refused::at(
                String::new(),
                "no account of this pool takes sound",
            ));
        }
    }
    Ok(())
}

/// Writes an item that is no message.
fn write_item(block: &Block<'_>, target: &Target<'_>, out: &mut Out) {
    match block {
        // Ids of items are not written: the platform knows only its own.
        Block::Reasoning {
            opaque: Some(opaque),
            ..
        } => {
            let Some(own) = names::opened(opaque, "responses", target.owner) else {
                return;
            };
            out.object(|out| {
                out.name("type").word("reasoning");
                out.name("summary").list(|_| {});
                out.name("encrypted_content").text(&own);
            });
        }
        Block::Call(call) => out.object(|out| {
            let (kind, member, text) = match &call.arguments {
                Arguments::Raw(text) => ("custom_tool_call", "input", text.clone()),
                Arguments::Text(text) if text.is_empty() => {
                    ("function_call", "arguments", Text::of("{}"))
                }
                Arguments::Text(text) | Arguments::Object(text) => {
                    ("function_call", "arguments", text.clone())
                }
                Arguments::Json(json) => ("function_call", "arguments", Text::of(json)),
            };
            out.name("type").word(kind);
            out.name("call_id").text(&names::fitting(&call.id));
            out.name("name").text(&names::fitting(&call.name));
            out.name(member).text(&text);
        }),
        // Each result stands behind its call.
        Block::Reasoning { .. }
        | Block::Text { .. }
        | Block::Media(_)
        | Block::Refusal(_)
        | Block::Result(_) => {}
    }
}

/// Writes what a call returned.
fn write_result(
    call: &Call<'_>,
    result: Option<&ToolResult<'_>>,
    out: &mut Out,
) -> Result<(), Refused> {
    let blocks = result.map_or(&[][..], |result| &result.blocks);
    let texts = blocks.iter().map(|block| match block {
        Block::Text { text } => Some(text.clone()),
        _ => None,
    });
    let texts: Option<Vec<Text<'_>>> = texts.collect();
    let mut failed = None;
    out.object(|out| {
        out.name("type").word(match call.arguments {
            Arguments::Raw(_) => "custom_tool_call_output",
            _ => "function_call_output",
        });
        out.name("call_id").text(&names::fitting(&call.id));
        match texts {
            _ if result.is_none() => out.name("output").word(NO_RESULT),
            Some(texts) => out.name("output").texts(&joined(texts, "\n")),
            None => out.name("output").list(|out| {
                let mut written = blocks
                    .iter()
                    .map(|block| write_content(block, "input_text", out));
                failed = written.find_map(Result::err);
            }),
        }
    });
    failed.map_or(Ok(()), Err)
}

fn write_tools(request: &Request<'_>, out: &mut Out) {
    if request.tools.is_empty() {
        return;
    }
    out.name("tools")
        .list(|out| request.tools.iter().for_each(|tool| write_tool(tool, out)));
    if let Some(parallel) = request.parallel {
        out.name("parallel_tool_calls").bool(parallel);
    }
    let raw = request
        .tools
        .iter()
        .filter(|tool| matches!(tool.input, ToolInput::Raw(_)));
    let raw: BTreeSet<_> = raw.map(|tool| tool.name.plain()).collect();
    let kind = |fitting: &Text<'_>| match raw.contains(&fitting.plain()) {
        true => "custom",
        false => "function",
    };
    let one = |out: &mut Out, name: &Text<'_>| {
        let fitting = names::fitting(name);
        out.object(|out| {
            out.name("type").word(kind(&fitting));
            out.name("name").text(&fitting);
        });
    };
    match &request.choice {
        None => {}
        Some(choice @ (Choice::Auto | Choice::None | Choice::Any)) => {
            out.name("tool_choice").word(choice.word());
        }
        Some(Choice::One(name)) => one(out.name("tool_choice"), name),
        Some(choice @ Choice::Some { names, .. }) => out.name("tool_choice").object(|out| {
            out.name("type").word("allowed_tools");
            out.name("mode").word(choice.word());
            out.name("tools")
                .list(|out| names.iter().for_each(|name| one(out, name)));
        }),
    }
}

fn write_tool(tool: &Tool<'_>, out: &mut Out) {
    out.object(|out| {
        let raw = matches!(tool.input, ToolInput::Raw(_));
        out.name("type")
            .word(if raw { "custom" } else { "function" });
        out.name("name").text(&tool.name);
        if let Some(description) = &tool.description {
            out.name("description").text(description);
        }
        match &tool.input {
            ToolInput::Schema(schema) => {
                out.name("parameters").raw(
                    schema
                        .as_deref()
                        .unwrap_or(r#"{"type":"object","properties":{}}"#),
                );
                // Absent means true here, and false where most requests come from.
                out.name("strict").bool(tool.strict.unwrap_or_default());
            }
            ToolInput::Raw(Some(format)) => out.name("format").raw(format),
            ToolInput::Raw(None) => {}
        }
    });
}

fn write_reasoning(request: &Request<'_>, out: &mut Out) {
    let effort = request.reasoning.effort.as_ref().map(Effort::word);
    if effort.is_none() && !request.reasoning.show {
        return;
    }
    out.name("reasoning").object(|out| {
        if let Some(effort) = &effort {
            out.name("effort").word(effort);
        }
        if request.reasoning.show {
            out.name("summary").word("auto");
        }
    });
}

fn write_format(request: &Request<'_>, out: &mut Out) {
    let is_free = matches!(request.output, Output::Free);
    if is_free && request.verbosity.is_none() {
        return;
    }
    out.name("text").object(|out| {
        if let Some(verbosity) = &request.verbosity {
            out.name("verbosity").text(verbosity);
        }
        match &request.output {
            Output::Free => {}
            Output::Json => out
                .name("format")
                .object(|out| out.name("type").word("json_object")),
            Output::Schema(schema) => out.name("format").object(|out| {
                out.name("type").word("json_schema");
                functions::write_schema(schema, Some(schema.strict.unwrap_or_default()), out);
            }),
        }
    });
}
