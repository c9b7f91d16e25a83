//! A request of `chat`, written with the [accent](crate::dialect::accent) of the platform.

pub(in crate::dialect) mod content;

use self::content::Limits;
use crate::{
    dialect::{
        accent::{self, Accent},
        neutral::{Choice, Output, Refused, Request, Tool, conversation::joined, functions, names},
        parts::Target,
    },
    text::{out::Out, tree::Text},
};

/// The most texts at which an answer may end.
const MOST_STOPS: usize = 4;

/// The forms of `tool_choice` that a platform takes unless its accent says others.
const CHOICES: &[&str] = &["auto", "none", "required", "one"];

/// Writes `request` for `target`, and notes in it what is left out.
///
/// # Errors
/// Content that this dialect, or the platform, has no form for.
pub fn write(request: &mut Request<'_>, target: &Target<'_>) -> Result<Vec<u8>, Refused> {
    let accent = target.accent;
    let limits = Limits::of(accent);
    functions::fit(request, limits.name);
    let choices = accent.words(accent::TOOL_CHOICE);
    functions::choose(request, choices.as_deref().unwrap_or(CHOICES), limits.name);
    functions::tell_schema(request, accent.word(accent::SCHEMA).unwrap_or("native"));
    let effort = request.effort_for(accent);
    leave_out(request, target);
    let request = &*request;
    let mut out = request.out();
    let mut failed = None;
    out.object(|out| {
        out.name("model").text(&target.model);
        let stream = request.stream || target.streams_only;
        out.name("stream").bool(stream);
        if stream && target.asks_usage {
            out.name("stream_options")
                .object(|out| out.name("include_usage").bool(true));
        }
        out.name("messages")
            .list(|out| failed = content::write(request, accent, &limits, out).err());
        write_tools(request, &limits, out);
        write_sampling(request, target, out);
        write_format(request, accent, out);
        if let Some(effort) = effort {
            match accent.effort(effort) {
                Some(members) => out.members(members),
                None => out.name("reasoning_effort").word(effort),
            }
        }
        if let Some(members) = accent.set() {
            out.members(members);
        }
    });
    failed.map_or(Ok(out.into_bytes()), Err)
}

/// The numbers and texts that not every platform takes: their names here, and those of what has to be taken for them.
const OPTIONAL: &[&str] = &[
    "temperature",
    "top_p",
    "seed",
    "presence_penalty",
    "frequency_penalty",
];

/// Takes out of the request what the platform does not take.
pub(in crate::dialect) fn leave_out(request: &mut Request<'_>, target: &Target<'_>) {
    let accent = target.accent;
    let refuses = |name: &str| target.refuses(name);
    let sampling = &mut request.sampling;
    let numbers = [
        &mut sampling.temperature,
        &mut sampling.top_p,
        &mut sampling.seed,
        &mut sampling.presence_penalty,
        &mut sampling.frequency_penalty,
    ];
    for (name, number) in OPTIONAL.iter().zip(numbers) {
        if refuses(name) && number.take().is_some() {
            request.left_out.insert(name);
        }
    }
    if !accent.has(accent::TAKES, "top_k") && sampling.top_k.take().is_some() {
        request.left_out.insert("top_k");
    }
    if accent.flag(accent::ONE_SAMPLER)
        && sampling.temperature.is_some()
        && sampling.top_p.take().is_some()
    {
        request.left_out.insert("top_p");
    }
    let stops = if refuses("stop") { 0 } else { MOST_STOPS };
    if request.stop.len() > stops {
        request.stop.truncate(stops);
        request.left_out.insert("stop");
    }
    let field = accent.word(accent::MAX_TOKENS_FIELD);
    if refuses(field.unwrap_or("max_tokens")) && request.max_output.take().is_some() {
        request.left_out.insert("max_tokens");
    }
    if refuses("parallel_tool_calls") && request.parallel.take() == Some(false) {
        request.left_out.insert("parallel_tool_calls");
    }
    if !accent.flag(accent::STRICT) {
        functions::leave_out_strict(request);
    }
}

fn write_sampling(request: &Request<'_>, target: &Target<'_>, out: &mut Out) {
    let accent = target.accent;
    if let Some(most) = request.max_output {
        let most = accent
            .number(accent::MAX_OUTPUT)
            .map_or(most, |limit| most.min(limit));
        let field = accent.word(accent::MAX_TOKENS_FIELD);
        out.name(field.unwrap_or("max_tokens")).number(most);
    }
    let sampling = request.sampling;
    let temperature = sampling
        .temperature
        .map(|number| accent.temperature(number));
    for (name, number) in [
        ("temperature", temperature.as_deref()),
        ("top_p", sampling.top_p),
        ("top_k", sampling.top_k),
        ("seed", sampling.seed),
        ("presence_penalty", sampling.presence_penalty),
        ("frequency_penalty", sampling.frequency_penalty),
    ] {
        if let Some(number) = number {
            out.name(name).raw(number);
        }
    }
    if !request.stop.is_empty() {
        out.name("stop")
            .list(|out| request.stop.iter().for_each(|stop| out.text(stop)));
    }
    // An id may be as long as a name.
    let user = request.user.as_ref().map(names::fitting);
    for (name, text) in [
        ("verbosity", &request.verbosity),
        ("prompt_cache_key", &request.cache_key),
        ("service_tier", &request.tier),
        ("safety_identifier", &user),
        ("user", &user),
    ] {
        if let Some(text) = text.as_ref().filter(|_| accent.has(accent::TAKES, name)) {
            out.name(name).text(text);
        }
    }
}

fn write_tools(request: &Request<'_>, limits: &Limits, out: &mut Out) {
    if request.tools.is_empty() {
        return;
    }
    out.name("tools").list(|out| {
        for tool in &request.tools {
            out.object(|out| write_tool(tool, out));
        }
    });
    if let Some(parallel) = request.parallel {
        out.name("parallel_tool_calls").bool(parallel);
    }
    let one = |out: &mut Out, name: &Text<'_>| {
        out.object(|out| {
            out.name("type").word("function");
            out.name("function").object(|out| {
                out.name("name")
                    .text(&names::fitting_within(name, limits.name));
            });
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
            out.name("allowed_tools").object(|out| {
                out.name("mode").word(choice.word());
                out.name("tools")
                    .list(|out| names.iter().for_each(|name| one(out, name)));
            });
        }),
    }
}

fn write_tool(tool: &Tool<'_>, out: &mut Out) {
    out.name("type").word("function");
    out.name("function").object(|out| {
        out.name("name").text(&tool.name);
        let description = functions::description(tool);
        if !description.is_empty() {
            out.name("description").texts(&description);
        }
        out.name("parameters").raw(functions::schema(tool));
        if let Some(strict) = tool.strict {
            out.name("strict").bool(strict);
        }
    });
}

fn write_format(request: &Request<'_>, accent: &Accent, out: &mut Out) {
    match &request.output {
        Output::Free => {}
        Output::Json => out
            .name("response_format")
            .object(|out| out.name("type").word("json_object")),
        Output::Schema(schema) => out.name("response_format").object(|out| {
            out.name("type").word("json_schema");
            let strict = schema.strict.filter(|_| accent.flag(accent::STRICT));
            out.name("json_schema")
                .object(|out| functions::write_schema(schema, strict, out));
        }),
    }
}

/// The system's texts as one.
fn system<'a>(request: &Request<'a>) -> Vec<Text<'a>> {
    joined(request.system.iter().cloned(), "\n\n")
}
