//! A request of `gemini`, written. The path has the model, and asks for a stream.

mod content;

use crate::{
    dialect::{
        accent,
        neutral::{Choice, Output, Refused, Request, functions, names},
        parts::Target,
    },
    text::{out::Out, tree::Text},
};

/// The most texts at which an answer may end.
const MOST_STOPS: usize = 5;

/// Writes `request` for `target`, and notes in it what is left out.
///
/// # Errors
/// Content that this dialect has no form for.
pub(super) fn write(request: &mut Request<'_>, target: &Target<'_>) -> Result<Vec<u8>, Refused> {
    let accent = target.accent;
    functions::find_objects(request, true)?;
    name_tools(request);
    leave_out(request, target);
    let effort = request.effort_for(accent);
    let thinking = effort.and_then(|effort| accent.effort(effort));
    let asked = request;
    let request = &*asked;
    let mut out = request.out();
    let mut is_cut = Ok(false);
    out.object(|out| {
        if !request.turns.is_empty() && !request.system.is_empty() {
            out.name("systemInstruction").object(|out| {
                out.name("parts")
                    .list(|out| content::write_texts(&request.system, out));
            });
        }
        is_cut = content::write(request, target, out.name("contents"));
        write_tools(request, out);
        out.name("generationConfig").object(|out| {
            write_sampling(request, out);
            write_format(request, out);
            if request.reasoning.show || thinking.is_some() {
                out.name("thinkingConfig").object(|out| {
                    if request.reasoning.show {
                        out.name("includeThoughts").bool(true);
                    }
                    if let Some(members) = thinking {
                        out.members(members);
                    }
                });
            }
        });
        if let Some(members) = accent.set() {
            out.members(members);
        }
    });
    if is_cut? {
        asked.left_out.insert("messages");
    }
    Ok(out.into_bytes())
}

/// A name as Google takes it, which begins with a letter or `_` too.
pub(super) fn own_name<'a>(name: &Text<'a>) -> Text<'a> {
    let fitting = names::fitting(name);
    let plain = fitting.plain();
    let begins = plain.starts_with(|char: char| char.is_ascii_alphabetic() || char == '_');
    if begins {
        return fitting;
    }
    // What no name has is in it, so it becomes another one than every name does.
    let marked = Text::made(format!("_{}/", name.plain()));
    let Text::Plain(made) = names::fitting(&marked) else {
        return fitting;
    };
    Text::made(made.into_owned())
}

fn name_tools(request: &mut Request<'_>) {
    for tool in &mut request.tools {
        let wire = own_name(&tool.name);
        let (own, written) = (tool.name.plain(), wire.plain());
        if own != written {
            let own = own.into_owned();
            request.renamed.insert(written.into_owned(), own);
        }
        tool.name = wire;
    }
}

/// Takes out of the request what the platform does not take.
fn leave_out(request: &mut Request<'_>, target: &Target<'_>) {
    let sampling = &mut request.sampling;
    for (name, number) in [
        ("temperature", &mut sampling.temperature),
        ("top_p", &mut sampling.top_p),
        ("top_k", &mut sampling.top_k),
        ("seed", &mut sampling.seed),
        ("presence_penalty", &mut sampling.presence_penalty),
        ("frequency_penalty", &mut sampling.frequency_penalty),
    ] {
        if target.refuses(name) && number.take().is_some() {
            request.left_out.insert(name);
        }
    }
    if request.stop.len() > MOST_STOPS {
        request.stop.truncate(MOST_STOPS);
        request.left_out.insert("stop");
    }
    if request.parallel == Some(false) && !request.tools.is_empty() {
        request.left_out.insert("parallel_tool_calls");
    }
    functions::leave_out_strict(request);
    let has_form = !matches!(request.output, Output::Free);
    let takes_both = !target.accent.flag(accent::FORM_OR_TOOLS);
    if has_form && !request.tools.is_empty() && !takes_both {
        request.output = Output::Free;
        request.left_out.insert("response_format");
    }
}

fn write_tools(request: &Request<'_>, out: &mut Out) {
    if request.tools.is_empty() {
        return;
    }
    out.name("tools").list(|out| {
        out.object(|out| {
            out.name("functionDeclarations").list(|out| {
                for tool in &request.tools {
                    out.object(|out| {
                        out.name("name").text(&tool.name);
                        out.name("description").texts(&functions::description(tool));
                        out.name("parametersJsonSchema")
                            .raw(functions::schema(tool));
                    });
                }
            });
        });
    });
    let (mode, allowed): (_, &[Text<'_>]) = match &request.choice {
        None => return,
        Some(Choice::Auto) => ("AUTO", &[]),
        Some(Choice::None) => ("NONE", &[]),
        Some(Choice::Any) => ("ANY", &[]),
        Some(Choice::One(name)) => ("ANY", std::slice::from_ref(name)),
        Some(Choice::Some { required, names }) => (
            if *required { "ANY" } else { "VALIDATED" },
            names.as_slice(),
        ),
    };
    out.name("toolConfig").object(|out| {
        out.name("functionCallingConfig").object(|out| {
            out.name("mode").word(mode);
            if !allowed.is_empty() {
                out.name("allowedFunctionNames")
                    .list(|out| allowed.iter().for_each(|name| out.text(&own_name(name))));
            }
        });
    });
}

fn write_sampling(request: &Request<'_>, out: &mut Out) {
    let sampling = request.sampling;
    for (name, number) in [
        ("temperature", sampling.temperature),
        ("topP", sampling.top_p),
        ("topK", sampling.top_k),
        ("seed", sampling.seed),
        ("presencePenalty", sampling.presence_penalty),
        ("frequencyPenalty", sampling.frequency_penalty),
    ] {
        if let Some(number) = number {
            out.name(name).raw(number);
        }
    }
    if let Some(most) = request.max_output {
        out.name("maxOutputTokens").number(most);
    }
    if !request.stop.is_empty() {
        out.name("stopSequences")
            .list(|out| request.stop.iter().for_each(|stop| out.text(stop)));
    }
}

fn write_format(request: &Request<'_>, out: &mut Out) {
    if matches!(request.output, Output::Free) {
        return;
    }
    out.name("responseMimeType").word("application/json");
    if let Output::Schema(schema) = &request.output {
        out.name("responseJsonSchema").raw(&schema.schema);
    }
}
