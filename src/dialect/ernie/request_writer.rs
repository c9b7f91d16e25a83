//! A request of `ernie`, written with the [accent](crate::dialect::accent) of the platform. The path has the model.
//!
//! The user and the model take turns, the user first and last. The result of a call is the user's turn. A turn has one
//! call at most, so calls that were made at once are written one after the other, each with its result.

use crate::{
    dialect::{
        accent::{self, Accent},
        chat::request_writer::{
            content::{is_media, returned, texts},
            leave_out,
        },
        neutral::{
            Block, Call, Choice, Output, Refused, Request,
            conversation::{Step, joined, reminder, steps},
            functions,
            names::{self, MAX_NAME_BYTES},
        },
        parts::Target,
    },
    text::{decimal::decimal, out::Out, tree::Text},
};

/// The forms of `tool_choice` that a platform takes unless its accent says others: a function by its name.
const CHOICES: &[&str] = &["auto", "one"];

/// The longest text at which an answer may end, in characters.
const LONGEST_STOP: usize = 20;

/// The smallest bound of an answer, in tokens.
const LEAST_OUTPUT: u64 = 2;

/// The lowest temperature: 0 is refused.
const LEAST_TEMPERATURE: &str = "0.01";

/// The result of a function that returned nothing: no content may be empty.
const NOTHING: &str = "{}";

/// Writes `request` for `target`, and notes in it what is left out.
///
/// # Errors
/// Content that this dialect has no form for.
pub(super) fn write(request: &mut Request<'_>, target: &Target<'_>) -> Result<Vec<u8>, Refused> {
    let accent = target.accent;
    functions::find_objects(request, false)?;
    functions::fit(request, MAX_NAME_BYTES);
    let choices = accent.words(accent::TOOL_CHOICE);
    let choices = choices.as_deref().unwrap_or(CHOICES);
    functions::choose(request, choices, MAX_NAME_BYTES);
    functions::tell_schema(request, form(accent));
    leave_out(request, target);
    leave_out_more(request, target);
    let effort = request.effort_for(accent);
    let effort = effort.and_then(|effort| accent.effort(effort));
    let asked = request;
    let request = &*asked;
    let system = joined(request.system.iter().cloned(), "\n\n");
    let (messages, is_cut) = Messages::of(request, target)?;
    let mut out = request.out();
    out.object(|out| {
        out.name("messages").list(|out| {
            if messages.0.is_empty() && !system.is_empty() {
                // There is no conversation without a user.
                write_message("user", &system, out, |_| {});
            }
            messages.write(accent, out);
        });
        if !messages.0.is_empty() && !system.is_empty() {
            out.name("system").texts(&system);
        }
        out.name("stream")
            .bool(request.stream || target.streams_only);
        write_functions(request, out);
        write_sampling(request, accent, out);
        for members in [effort, accent.set()].into_iter().flatten() {
            out.members(members);
        }
    });
    if is_cut {
        asked.left_out.insert("messages");
    }
    Ok(out.into_bytes())
}

/// The form in which a schema of the answer is said: the platform knows JSON alone, or not even that.
fn form(accent: &Accent) -> &'static str {
    match accent.word(accent::SCHEMA) {
        Some("none") => "none",
        _ => "json_object",
    }
}

/// Takes out of the request what no platform of this dialect takes.
fn leave_out_more(request: &mut Request<'_>, target: &Target<'_>) {
    let sampling = &mut request.sampling;
    for (name, number) in [
        ("seed", &mut sampling.seed),
        ("top_k", &mut sampling.top_k),
        ("presence_penalty", &mut sampling.presence_penalty),
        ("frequency_penalty", &mut sampling.frequency_penalty),
    ] {
        if number.take().is_some() {
            request.left_out.insert(name);
        }
    }
    let stops = request.stop.len();
    let fits = |stop: &Text<'_>| stop.plain().chars().count() <= LONGEST_STOP;
    request.stop.retain(fits);
    if request.stop.len() < stops {
        request.left_out.insert("stop");
    }
    // Not every model knows functions.
    if target.refuses("functions") && !std::mem::take(&mut request.tools).is_empty() {
        request.left_out.insert("tools");
    }
}

/// The messages, each of another side than the one before it.
struct Messages<'r, 'a>(Vec<Message<'r, 'a>>);

/// A message: of the model's, with the call that it makes; or of the user's, with the call whose result it is.
struct Message<'r, 'a> {
    is_model: bool,
    texts: Vec<Text<'a>>,
    call: Option<&'r Call<'a>>,
    /// The thoughts of the model before its call.
    thoughts: Vec<Text<'a>>,
}

// === impl Messages ===

impl<'r, 'a> Messages<'r, 'a> {
    /// The messages of a request, and whether the model's last one is left out.
    ///
    /// # Errors
    /// A result without its call, content that is no text, or words of the model's before any of the user's.
    fn of(request: &'r Request<'a>, target: &Target<'_>) -> Result<(Self, bool), Refused> {
        let in_words = target.refuses("functions");
        let mut messages = Self(Vec::new());
        for step in steps(&request.turns)? {
            match step {
                Step::Assistant(blocks) => {
                    let texts = texts_alone(&blocks)?;
                    let thoughts = blocks.iter().filter_map(|block| match block {
                        Block::Reasoning { text, .. } if !text.is_blank() => Some(text.clone()),
                        _ => None,
                    });
                    let takes = target.accent.word(accent::REASONING_IN).is_some();
                    let thoughts = joined(thoughts.filter(|_| takes), "\n\n");
                    let calls = blocks.iter().any(|block| matches!(block, Block::Call(_)));
                    messages.add(true, texts, calls);
                    if let Some(last) = messages.0.last_mut().filter(|_| calls) {
                        last.thoughts = thoughts;
                    }
                }
                Step::User(blocks) => messages.add(false, texts_alone(&blocks)?, false),
                Step::System(blocks) => {
                    let texts = texts_alone(&blocks)?;
                    let texts = texts.iter().map(|text| {
                        let text: String = reminder(text).iter().map(Text::plain).collect();
                        Text::made(text)
                    });
                    messages.add(false, texts.collect(), false);
                }
                Step::Results(results) => {
                    for (call, result) in results {
                        let mut media = Vec::new();
                        let mut texts = returned(result, &mut media);
                        if !media.is_empty() {
                            return Err(no_media());
                        }
                        texts.retain(|text| !text.is_blank());
                        if texts.is_empty() {
                            texts.push(Text::of(NOTHING));
                        }
                        let mut texts = joined(texts, "\n");
                        if in_words {
                            // The model knows no functions, and is to know what was called.
                            let arguments = functions::object(call).into_owned();
                            let [open, close] = ["(", ")"].map(Text::of);
                            let name = || call.name.clone();
                            let called = vec![name(), open, Text::made(arguments), close];
                            messages.add(true, called, false);
                            let heading = [Text::of("The result of "), name(), Text::of(":\n")];
                            texts.splice(..0, heading);
                            messages.add(false, texts, false);
                            continue;
                        }
                        // The first call stands beside what the model said.
                        let is_free = |last: &Message<'_, '_>| last.is_model && last.call.is_none();
                        if !messages.0.last().is_some_and(is_free) {
                            messages.add(true, Vec::new(), true);
                        }
                        if let Some(last) = messages.0.last_mut() {
                            last.call = Some(call);
                        }
                        messages.add(false, texts, true);
                        if let Some(last) = messages.0.last_mut() {
                            last.call = Some(call);
                        }
                    }
                }
            }
        }
        // An answer begins after the user; what the model is to go on from has no form here.
        let is_cut = messages.0.pop_if(|last| last.is_model).is_some();
        if messages.0.first().is_some_and(|first| first.is_model) {
            let why = "the conversation begins with words of the model's; the platforms of this pool want the user's first";
            return Err(Refused::at(String::new(), why));
        }
        Ok((messages, is_cut))
    }

    /// Adds texts to what this side says. `calls`: they are of a call, and a message of its own where nothing is said.
    fn add(&mut self, is_model: bool, mut texts: Vec<Text<'a>>, calls: bool) {
        match self.0.last_mut() {
            _ if texts.is_empty() && !calls => {}
            Some(last) if last.is_model == is_model => {
                if !last.texts.is_empty() && !texts.is_empty() {
                    last.texts.push(Text::of("\n\n"));
                }
                last.texts.append(&mut texts);
            }
            _ => self.0.push(Message {
                is_model,
                texts,
                call: None,
                thoughts: Vec::new(),
            }),
        }
    }

    fn write(&self, accent: &Accent, out: &mut Out) {
        for message in &self.0 {
            let role = match (message.is_model, message.call) {
                (true, _) => "assistant",
                (false, None) => "user",
                (false, Some(_)) => "function",
            };
            write_message(role, &message.texts, out, |out| {
                let Some(call) = message.call else { return };
                let name = names::fitting(&call.name);
                if !message.is_model {
                    return out.name("name").text(&name);
                }
                out.name("function_call").object(|out| {
                    out.name("name").text(&name);
                    out.name("arguments").word(&functions::object(call));
                    let member = accent.word(accent::REASONING_IN);
                    if let Some(member) = member.filter(|_| !message.thoughts.is_empty()) {
                        out.name(member).texts(&message.thoughts);
                    }
                });
            });
        }
    }
}

fn write_message(role: &str, texts: &[Text<'_>], out: &mut Out, rest: impl FnOnce(&mut Out)) {
    out.object(|out| {
        out.name("role").word(role);
        out.name("content").texts(texts);
        rest(out);
    });
}

/// The texts of a turn, as one.
fn texts_alone<'a>(blocks: &[&Block<'a>]) -> Result<Vec<Text<'a>>, Refused> {
    let is_other = |block: &&Block<'_>| matches!(block, Block::Media(media) if is_media(media));
    if blocks.iter().any(is_other) {
        return Err(no_media());
    }
    let mut texts = texts(blocks.iter().copied());
    texts.retain(|text| !text.is_blank());
    Ok(joined(texts, "\n\n"))
}

fn no_media() -> Refused {
    let why = "the model takes no pictures and no files at the platforms of this pool";
    Refused::at(String::new(), why)
}

fn write_functions(request: &Request<'_>, out: &mut Out) {
    if request.tools.is_empty() {
        return;
    }
    out.name("functions").list(|out| {
        for tool in &request.tools {
            let mut description = functions::description(tool);
            if description.is_empty() {
                // It has to have one.
                description.push(tool.name.clone());
            }
            out.object(|out| {
                out.name("name").text(&tool.name);
                out.name("description").texts(&description);
                out.name("parameters").raw(functions::schema(tool));
            });
        }
    });
    if let Some(Choice::One(name)) = &request.choice {
        out.name("tool_choice").object(|out| {
            out.name("type").word("function");
            out.name("function")
                .object(|out| out.name("name").text(&names::fitting(name)));
        });
    }
}

fn write_sampling(request: &Request<'_>, accent: &Accent, out: &mut Out) {
    if let Some(temperature) = request.sampling.temperature {
        let temperature = accent.temperature(temperature);
        let is_positive = decimal(&temperature).is_some_and(|number| number > 0.0);
        out.name("temperature").raw(match is_positive {
            true => &temperature,
            false => LEAST_TEMPERATURE,
        });
    }
    if let Some(top_p) = request.sampling.top_p {
        out.name("top_p").raw(top_p);
    }
    if let Some(most) = request.max_output {
        let limit = accent.number(accent::MAX_OUTPUT).unwrap_or(u64::MAX);
        out.name("max_output_tokens")
            .number(most.min(limit).max(LEAST_OUTPUT));
    }
    if !request.stop.is_empty() {
        out.name("stop")
            .list(|out| request.stop.iter().for_each(|stop| out.text(stop)));
    }
    if !matches!(request.output, Output::Free) {
        out.name("response_format").word("json_object");
    }
    let user = request.user.as_ref();
    if let Some(user) = user.filter(|_| accent.has(accent::TAKES, "user")) {
        out.name("user_id").text(&names::fitting(user));
    }
}
