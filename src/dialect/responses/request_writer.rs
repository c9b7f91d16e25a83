//! A request of `responses`, written.

use std::collections::BTreeSet;

use crate::{
    dialect::{
        neutral::{
            Arguments, Block, Choice, Effort, Media, MediaKind, Output, Refused, Request, Role,
            Source, Tool, ToolInput, names,
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
        out.name("instructions").texts(&joined(&request.system));
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

/// The texts with an empty line between them.
fn joined<'a>(texts: &[Text<'a>]) -> Vec<Text<'a>> {
    let mut joined = Vec::new();
    for text in texts {
        if !joined.is_empty() {
            joined.push(Text::of("\n\n"));
        }
        joined.push(text.clone());
    }
    joined
}

fn write_input(request: &Request<'_>, target: &Target<'_>, out: &mut Out) -> Result<(), Refused> {
    if request.turns.is_empty() {
        // An empty input is refused; what there is is the user's then.
        write_message(out, "user", |out| {
            write_text(out, "input_text", &joined(&request.system))
        });
        return Ok(());
    }
    for turn in &request.turns {
        let (role, kind) = match turn.role {
            Role::User => ("user", "input_text"),
            Role::System => ("developer", "input_text"),
            Role::Assistant => ("assistant", "output_text"),
        };
        let mut blocks = turn.blocks.as_slice();
        while let Some(block) = blocks.first() {
            let is_content = |block: &Block<'_>| {
                matches!(
                    block,
                    Block::Text { .. } | Block::Media(_) | Block::Refusal(_)
                )
            };
            let length = blocks.iter().take_while(|block| is_content(block)).count();
            let (content, rest) = blocks.split_at(length);
            if content.is_empty() {
                write_item(block, target, out)?;
                blocks = rest.get(1..).unwrap_or_default();
                continue;
            }
            blocks = rest;
            let mut failed = None;
            write_message(out, role, |out| {
                failed = content
                    .iter()
                    .find_map(|block| write_content(block, kind, out).err())
            });
            if let Some(refused) = failed {
                return Err(refused);
            }
        }
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

/// An item that is no message.
fn write_item(block: &Block<'_>, target: &Target<'_>, out: &mut Out) -> Result<(), Refused> {
    match block {
        // Ids of items are not written: the platform knows only its own.
        Block::Reasoning {
            opaque: Some(opaque),
            ..
        } => {
            let Some(own) = names::opened(opaque, "responses", target.owner) else {
                return Ok(());
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
                Arguments::Text(text) => ("function_call", "arguments", text.clone()),
                Arguments::Json(json) => ("function_call", "arguments", Text::of(json)),
            };
            out.name("type").word(kind);
            out.name("call_id").text(&names::fitting(&call.id));
            out.name("name").text(&names::fitting(&call.name));
            out.name(member).text(&text);
        }),
        Block::Result(result) => {
            let mut failed = None;
            out.object(|out| {
                let raw = result.is_raw;
                out.name("type").word(if raw {
                    "custom_tool_call_output"
                } else {
                    "function_call_output"
                });
                out.name("call_id").text(&names::fitting(&result.id));
                let texts: Option<Vec<Text<'_>>> = result
                    .blocks
                    .iter()
                    .map(|block| match block {
                        Block::Text { text } => Some(text.clone()),
                        _ => None,
                    })
                    .collect();
                match texts {
                    Some(texts) => out.name("output").texts(&lines(texts)),
                    None => out.name("output").list(|out| {
                        failed = result
                            .blocks
                            .iter()
                            .find_map(|block| write_content(block, "input_text", out).err());
                    }),
                }
            });
            return failed.map_or(Ok(()), Err);
        }
        Block::Reasoning { .. } | Block::Text { .. } | Block::Media(_) | Block::Refusal(_) => {}
    }
    Ok(())
}

/// The texts, each in lines of its own.
fn lines(texts: Vec<Text<'_>>) -> Vec<Text<'_>> {
    let mut lines = Vec::new();
    for text in texts {
        if !lines.is_empty() {
            lines.push(Text::of("\n"));
        }
        lines.push(text);
    }
    lines
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
        Some(Choice::Auto) => out.name("tool_choice").word("auto"),
        Some(Choice::None) => out.name("tool_choice").word("none"),
        Some(Choice::Any) => out.name("tool_choice").word("required"),
        Some(Choice::One(name)) => one(out.name("tool_choice"), name),
        Some(Choice::Some { required, names }) => out.name("tool_choice").object(|out| {
            out.name("type").word("allowed_tools");
            out.name("mode")
                .word(if *required { "required" } else { "auto" });
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
            Output::Schema {
                name,
                description,
                schema,
                strict,
            } => out.name("format").object(|out| {
                out.name("type").word("json_schema");
                out.name("name")
                    .text(name.as_ref().unwrap_or(&Text::of("structured_output")));
                if let Some(description) = description {
                    out.name("description").text(description);
                }
                out.name("schema").raw(schema);
                out.name("strict").bool(strict.unwrap_or_default());
            }),
        }
    });
}
