//! A request of `messages`, written with the [accent](crate::dialect::accent) of the platform.

mod content;
mod schema;

use std::borrow::Cow;

use self::content::turns;
use crate::{
    dialect::{
        accent::{self, Accent},
        neutral::{
            Choice, Effort, Output, Refused, Request, Tool, ToolInput, functions,
            names::{self, MAX_NAME_BYTES},
        },
        parts::Target,
    },
    text::{decimal::decimal, out::Out, tree::Text},
};

/// The bound of an answer where neither the caller nor the accent says one.
const MAX_OUTPUT: u64 = 8192;

/// The fewest tokens that a model may be given to think.
const LEAST_BUDGET: u64 = 1024;

/// The tool whose arguments are the answer, where the platform has no other form for a schema.
const ANSWER: &str = "structured_output";

/// The effort that the model is to make in thinking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Thinking {
    /// The request says nothing of it.
    Unsaid,
    /// No thoughts.
    Off,
    /// Thoughts as the model likes, by this word.
    Adaptive(&'static str),
    /// A bound in tokens.
    Budget(u64),
}

/// Writes `request` for `target`, and notes in it what is left out.
///
/// # Errors
/// Content that this dialect has no form for.
pub fn write(request: &mut Request<'_>, target: &Target<'_>) -> Result<Vec<u8>, Refused> {
    let accent = target.accent;
    functions::fit(request, MAX_NAME_BYTES);
    functions::find_objects(request, false)?;
    let schema = put_schema(request, accent)?;
    if matches!(request.choice, Some(Choice::Some { .. })) {
        functions::keep_chosen(request, MAX_NAME_BYTES);
    }
    let choice = kind_of_choice(request);
    let mut messages = request.out();
    let turns = turns(request, target)?;
    let mut failed = None;
    messages.list(|out| failed = turns.write(out).err());
    if let Some(refused) = failed {
        return Err(refused);
    }
    let most = accent.number(accent::MAX_OUTPUT);
    let bound = request.max_output.or(most).unwrap_or(MAX_OUTPUT);
    let mut bound = most.map_or(bound, |most| bound.min(most)).max(1);
    let lost = turns.lost_thinking;
    let stubs = turns.stubs(request);
    let only_system = turns.only_system;
    drop(turns);
    let mut thinking = thinking(request, accent, most, &mut bound);
    let forced =
        matches!(choice, Some("any" | "tool")) && !accent.flag(accent::FORCED_WITH_THINKING);
    let thinks = matches!(thinking, Thinking::Adaptive(_) | Thinking::Budget(_));
    // Without the thoughts that belong to the last calls a model of a budget may not think on.
    if thinks && (forced || lost && matches!(thinking, Thinking::Budget(_))) {
        thinking = Thinking::Unsaid;
        request.left_out.insert("reasoning_effort");
    }
    leave_out(request, target, thinking);
    let request = &*request;
    let mut out = request.out();
    out.object(|out| {
        out.name("model").text(&target.model);
        out.name("max_tokens").number(bound);
        out.name("stream")
            .bool(request.stream || target.streams_only);
        if !only_system && !request.system.is_empty() {
            out.name("system").list(|out| {
                for text in request.system.iter().filter(|text| !text.is_blank()) {
                    content::write_text(std::slice::from_ref(text), out);
                }
            });
        }
        out.name("messages").written(messages);
        write_tools(request, &stubs, out);
        if let Some(kind) = choice.filter(|_| !request.tools.is_empty()) {
            write_choice(request, kind, out);
        }
        write_thinking(request, thinking, schema.as_deref(), out);
        write_sampling(request, accent, out);
        if let Some(members) = accent.set() {
            out.members(members);
        }
    });
    Ok(out.into_bytes())
}

/// Puts the schema of the answer into the form that the platform has; the one that it has for it.
fn put_schema(request: &mut Request<'_>, accent: &Accent) -> Result<Option<String>, Refused> {
    match &request.output {
        Output::Free => return Ok(None),
        Output::Json => {
            request.left_out.insert("response_format");
            return Ok(None);
        }
        Output::Schema(asked) => match accent.word(accent::SCHEMA).unwrap_or("native") {
            "native" => return Ok(Some(schema::reduced(&asked.schema))),
            "tool" => {}
            _ => {
                functions::say_schema(request);
                request.left_out.insert("response_format");
                return Ok(None);
            }
        },
    }
    let thinks = request.reasoning.effort.as_ref();
    let thinks = thinks.is_some_and(|effort| effort.word() != "none");
    if !request.tools.is_empty() || thinks {
        let why = "this model has no form for a schema beside tools or reasoning: leave one of them out, or ask for a newer model";
        return Err(Refused::at("response_format".to_owned(), why));
    }
    if let Output::Schema(asked) = std::mem::take(&mut request.output) {
        request.tools.push(Tool {
            name: Text::of(ANSWER),
            description: Some(Text::of("Gives the answer.")),
            input: ToolInput::Schema(Some(asked.schema)),
            strict: None,
        });
    }
    request.choice = Some(Choice::One(Text::of(ANSWER)));
    request.answer_tool = Some(ANSWER);
    Ok(None)
}

/// The choice of tools in this dialect's word.
fn kind_of_choice(request: &Request<'_>) -> Option<&'static str> {
    Some(match &request.choice {
        // One call at a time can only be said beside a choice.
        None if request.parallel == Some(false) => "auto",
        None => return None,
        Some(
            Choice::Auto
            | Choice::Some {
                required: false, ..
            },
        ) => "auto",
        Some(Choice::None) => "none",
        Some(Choice::Any | Choice::Some { .. }) => "any",
        Some(Choice::One(_)) => "tool",
    })
}

/// Chooses the effort. The tokens for it are of the answer's, so its `bound` may grow up to `most`.
fn thinking(
    request: &mut Request<'_>,
    accent: &Accent,
    most: Option<u64>,
    bound: &mut u64,
) -> Thinking {
    let asked = match &request.reasoning.effort {
        Some(Effort::Budget(budget)) => Some(*budget),
        _ => None,
    };
    let Some(word) = request.effort_for(accent) else {
        return Thinking::Unsaid;
    };
    let form = accent.word(accent::THINKING).unwrap_or("none");
    if form == "adaptive" {
        return match word {
            "none" => Thinking::Off,
            word => Thinking::Adaptive(word),
        };
    }
    if form == "none" || word == "none" {
        return Thinking::Unsaid;
    }
    let limit = most.unwrap_or(u64::MAX);
    let budget = asked.unwrap_or(match word {
        "minimal" | "low" => LEAST_BUDGET,
        "medium" => 8192,
        "high" => 16384,
        "xhigh" => 32768,
        _ => most.unwrap_or(32768),
    });
    if *bound <= budget {
        *bound = bound.saturating_add(budget).min(limit);
    }
    let budget = budget.min(bound.saturating_sub(1));
    if budget < LEAST_BUDGET {
        request.left_out.insert("reasoning_effort");
        return Thinking::Unsaid;
    }
    Thinking::Budget(budget)
}

/// Takes out of the request what the platform does not take.
fn leave_out(request: &mut Request<'_>, target: &Target<'_>, thinking: Thinking) {
    let accent = target.accent;
    // A model that thinks within a budget chooses tokens in its own way.
    let free = matches!(thinking, Thinking::Budget(_));
    let sampling = &mut request.sampling;
    let one_alone = accent.flag(accent::ONE_SAMPLER) && sampling.temperature.is_some();
    let numbers = [
        ("temperature", &mut sampling.temperature, free),
        ("top_p", &mut sampling.top_p, free || one_alone),
        ("top_k", &mut sampling.top_k, free),
        ("seed", &mut sampling.seed, true),
        ("presence_penalty", &mut sampling.presence_penalty, true),
        ("frequency_penalty", &mut sampling.frequency_penalty, true),
    ];
    for (name, number, is_refused) in numbers {
        if (is_refused || target.refuses(name)) && number.take().is_some() {
            request.left_out.insert(name);
        }
    }
    if !accent.flag(accent::STRICT) {
        functions::leave_out_strict(request);
    }
    request.stop.retain(|stop| !stop.is_blank());
    if target.refuses("stop_sequences") && !request.stop.is_empty() {
        request.stop.clear();
        request.left_out.insert("stop");
    }
}

fn write_tools(request: &Request<'_>, stubs: &[Text<'_>], out: &mut Out) {
    if request.tools.is_empty() && stubs.is_empty() {
        return;
    }
    out.name("tools").list(|out| {
        for tool in &request.tools {
            out.object(|out| {
                out.name("name").text(&tool.name);
                let description = functions::description(tool);
                if !description.is_empty() {
                    out.name("description").texts(&description);
                }
                out.name("input_schema").raw(functions::schema(tool));
                if let Some(strict) = tool.strict {
                    out.name("strict").bool(strict);
                }
            });
        }
        for name in stubs {
            out.object(|out| {
                out.name("name").text(name);
                out.name("input_schema").raw(functions::NO_SCHEMA);
            });
        }
    });
}

fn write_choice(request: &Request<'_>, kind: &str, out: &mut Out) {
    out.name("tool_choice").object(|out| {
        out.name("type").word(kind);
        if let Some(Choice::One(name)) = &request.choice {
            out.name("name").text(&names::fitting(name));
        }
        if request.parallel == Some(false) && kind != "none" {
            out.name("disable_parallel_tool_use").bool(true);
        }
    });
}

fn write_thinking(request: &Request<'_>, thinking: Thinking, schema: Option<&str>, out: &mut Out) {
    let kind = match thinking {
        Thinking::Unsaid => None,
        Thinking::Off => Some("disabled"),
        Thinking::Adaptive(_) => Some("adaptive"),
        Thinking::Budget(_) => Some("enabled"),
    };
    if let Some(kind) = kind {
        out.name("thinking").object(|out| {
            out.name("type").word(kind);
            if let Thinking::Budget(budget) = thinking {
                out.name("budget_tokens").number(budget);
            }
            // What is thought is left out unless it is asked for.
            if request.reasoning.show && matches!(thinking, Thinking::Adaptive(_)) {
                out.name("display").word("summarized");
            }
        });
    }
    let effort = match thinking {
        Thinking::Adaptive(word) => Some(word),
        _ => None,
    };
    if effort.is_none() && schema.is_none() {
        return;
    }
    out.name("output_config").object(|out| {
        if let Some(effort) = effort {
            out.name("effort").word(effort);
        }
        if let Some(schema) = schema {
            out.name("format").object(|out| {
                out.name("type").word("json_schema");
                out.name("schema").raw(schema);
            });
        }
    });
}

fn write_sampling(request: &Request<'_>, accent: &Accent, out: &mut Out) {
    let sampling = request.sampling;
    let temperature = sampling.temperature.map(|number| match decimal(number) {
        Some(asked) if asked > 1.0 => Cow::Borrowed("1"),
        _ => accent.temperature(number),
    });
    for (name, number) in [
        ("temperature", temperature.as_deref()),
        ("top_p", sampling.top_p),
        ("top_k", sampling.top_k),
    ] {
        if let Some(number) = number {
            out.name(name).raw(number);
        }
    }
    if !request.stop.is_empty() {
        out.name("stop_sequences")
            .list(|out| request.stop.iter().for_each(|stop| out.text(stop)));
    }
    if let Some(user) = &request.user {
        out.name("metadata")
            .object(|out| out.name("user_id").text(user));
    }
}
