//! The table of the pairs: what the request of each caller becomes for each platform, and the answer of each platform
//! for each caller. A case is a golden file, with the inputs of all dialects and everything that they become.
//!
//! `UPDATE_GOLDEN=1 cargo test -p latchkey --lib translation::tests::table` writes what they become anew. A line that
//! begins with `==` tells the dialect of an input, one with `--` that of what it becomes.

use std::{collections::BTreeSet, fmt::Write as _, fs, path::PathBuf, sync::LazyLock};

use serde_json::json;

use super::*;
use crate::{
    dialect::{
        accent::Accent,
        grammar::meaning,
        neutral::{Folded, FoldedBlock, functions},
    },
    text::tree::{Json, JsonKind},
    verdict::ErrorBody,
};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/pairs/");

/// The longest line that is made of a JSON text which could be cut.
const LINE: usize = 120;

/// An input of a golden file.
pub(super) struct Input {
    pub(super) dialect: Dialect,
    /// What follows the dialect in its heading.
    pub(super) about: String,
    pub(super) text: String,
}

/// The cases in a folder: their files, what they are about, and their inputs.
pub(super) fn cases(folder: &str) -> Vec<(PathBuf, String, Vec<Input>)> {
    let files = fs::read_dir(format!("{GOLDEN}{folder}")).unwrap();
    let mut paths: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    paths.sort();
    let case = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        let mut sections = text.split("\n== ");
        let about = sections.next().unwrap().trim().to_owned();
        let inputs = sections.map(|section| {
            let (heading, rest) = section.split_once('\n').unwrap();
            let (word, about) = heading.split_once(' ').unwrap_or((heading, ""));
            let text = rest.split("\n-- ").next().unwrap();
            let text = text.strip_prefix("-- ").map_or(text, |_| "").trim();
            Input {
                dialect: Dialect::of_word(word).unwrap(),
                about: about.to_owned(),
                text: format!("{text}\n\n"),
            }
        });
        let inputs = inputs.collect();
        (path, about, inputs)
    };
    paths.into_iter().map(case).collect()
}

/// Holds each file of a folder against what its inputs become in the `others`: by a heading, the text.
fn hold(
    folder: &str,
    others: &[Dialect],
    pairs_in_all: usize,
    becomes: impl Fn(&Input, Dialect) -> (String, String),
) {
    let mut pairs = BTreeSet::new();
    for (path, about, inputs) in cases(folder) {
        let mut text = format!("{about}\n");
        for input in inputs {
            let heading = format!("{} {}", input.dialect.word(), input.about);
            write!(text, "\n== {}\n{}", heading.trim(), input.text.trim()).unwrap();
            let others = others.iter().copied();
            for other in others.filter(|other| *other != input.dialect) {
                let (heading, became) = becomes(&input, other);
                let heading = format!("{} {heading}", other.word());
                write!(text, "\n\n-- {}\n{}", heading.trim(), became.trim()).unwrap();
                pairs.insert((input.dialect.word(), other.word()));
            }
            text.push('\n');
        }
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&path, &text).unwrap();
        }
        let golden = fs::read_to_string(&path).unwrap();
        for (number, (written, golden)) in text.lines().zip(golden.lines()).enumerate() {
            let place = format!("{}:{}", path.display(), number + 1);
            assert_eq!(
                written, golden,
                "{place}: write it anew with UPDATE_GOLDEN=1"
            );
        }
        assert_eq!(
            text.lines().count(),
            golden.lines().count(),
            "{}",
            path.display()
        );
    }
    assert_eq!(pairs.len(), pairs_in_all);
}

/// JSON in lines: what is short stays in one.
fn laid_out(body: &[u8]) -> String {
    fn write_json(json: Json<'_, '_>, indent: usize, out: &mut String) {
        let raw = json.raw();
        let (open, close, children): (_, _, Vec<_>) = match json.kind() {
            _ if indent + raw.len() <= LINE => return out.push_str(raw),
            JsonKind::Object => {
                let members = json.members();
                let members = members.map(|(name, value)| (format!("{:?}: ", name.plain()), value));
                ('{', '}', members.collect())
            }
            JsonKind::List => (
                '[',
                ']',
                json.items().map(|item| (String::new(), item)).collect(),
            ),
            _ => return out.push_str(raw),
        };
        out.push(open);
        for (number, (name, value)) in children.into_iter().enumerate() {
            let comma = if number == 0 { "" } else { "," };
            write!(out, "{comma}\n{:1$}{name}", "", indent + 2).unwrap();
            write_json(value, indent + 2, out);
        }
        write!(out, "\n{:1$}{close}", "", indent).unwrap();
    }
    let mut out = String::new();
    write_json(Tree::read(body).unwrap().root(), 0, &mut out);
    out
}

/// The accents with which the platforms speak: those of their newest models.
pub(super) fn spoken(platform: Dialect) -> &'static Accent {
    static ACCENTS: LazyLock<[Accent; 5]> = LazyLock::new(|| {
        Dialect::OF_PLATFORMS.map(|dialect| {
            let accent = match dialect {
                Dialect::Chat | Dialect::Envelope => json!({"reasoning_in": "reasoning_content"}),
                Dialect::Responses => json!({}),
                Dialect::Messages => json!({
                    "max_output": 128_000, "thinking": "adaptive", "efforts": ["none", "low", "medium", "high", "xhigh", "max"],
                    "refuses": ["temperature", "top_p", "top_k"], "strict": true, "set": {"cache_control": {"type": "ephemeral"}},
                }),
                Dialect::Gemini => json!({
                    "signed_calls": true, "media_in_results": true, "refuses": ["presence_penalty", "frequency_penalty"],
                    "effort": {"low": {"thinkingLevel": "LOW"}, "high": {"thinkingLevel": "HIGH"}},
                }),
                Dialect::Ernie => json!({"max_temperature": 1, "reasoning_in": "thoughts", "takes": ["user"]}),
            };
            Accent::parse(accent.as_object().unwrap().clone()).unwrap()
        })
    });
    let mut all = Dialect::OF_PLATFORMS.iter();
    let at = all.position(|dialect| *dialect == platform);
    &ACCENTS[at.unwrap()]
}

/// The platform of a table, for a request that was asked for at this path.
pub(super) fn asked_at(platform: Dialect, asked_at: &str) -> Target<'_> {
    Target {
        model: Text::of("served"),
        refuses: &[],
        accent: spoken(platform),
        streams_only: false,
        asks_usage: platform == Dialect::Chat,
        owner: "1f",
        demands: crate::dialect::Demands::default(),
        asked_at,
    }
}

#[test]
fn requests_become_what_the_golden_files_say() {
    hold("requests", &Dialect::OF_PLATFORMS, 16, |input, platform| {
        let target = asked_at(platform, &input.about);
        let body = input.text.as_bytes();
        match input
            .dialect
            .translate_request(platform, body, &target, 1_790_000_000)
        {
            Ok(made) if made.left_out.is_empty() => (String::new(), laid_out(&made.body)),
            Ok(made) => {
                let left_out = format!("without {}", made.left_out.join(", "));
                (left_out, laid_out(&made.body))
            }
            Err(refused) => (
                "400".to_owned(),
                format!("{}: {}", refused.path, refused.why),
            ),
        }
    });
}

/// The request for whose answer a caller waits, as it went to the platform.
pub(super) fn asked(caller: Dialect, platform: Dialect) -> TranslatedRequest {
    let function = |name: &str| json!({"name": name, "parameters": {"type": "object"}});
    let names = ["get_weather", "now"];
    let body = match caller {
        Dialect::Chat | Dialect::Envelope => json!({
            "model": "asked", "stream": true, "stream_options": {"include_usage": true},
            "messages": [{"role": "user", "content": "Hi"}],
            "tools": names.map(|name| json!({"type": "function", "function": function(name)})),
        }),
        Dialect::Responses => json!({
            "model": "asked", "stream": true, "input": "Hi",
            "tools": names.map(|name| json!({"type": "function", "name": name})),
        }),
        Dialect::Messages => json!({
            "model": "asked", "stream": true, "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}],
            "tools": names.map(|name| json!({"name": name, "input_schema": {"type": "object"}})),
        }),
        Dialect::Gemini => json!({
            "contents": [{"role": "user", "parts": [{"text": "Hi"}]}],
            "tools": [{"functionDeclarations": names.map(function)}],
        }),
        Dialect::Ernie => panic!("no caller speaks it"),
    };
    let target = asked_at(
        platform,
        "/v1beta/models/asked:streamGenerateContent?alt=sse",
    );
    let body = body.to_string();
    let made = caller.translate_request(platform, body.as_bytes(), &target, 1_790_000_000);
    made.unwrap()
}

/// The translation of an answer for that request.
pub(super) fn translation_of(
    platform: Dialect,
    caller: Dialect,
    as_stream: bool,
) -> AnswerTranslation {
    let asked = asked(caller, platform);
    let translation = AnswerTranslation::new(
        platform,
        caller,
        as_stream,
        asked.about,
        "1f",
        asked.renamed,
    );
    translation.unwrap()
}

#[test]
fn answers_become_what_the_golden_files_say() {
    let both: Vec<Dialect> = grammar::of_both().collect();
    hold("answers", &both, 16, |input, caller| {
        let is_stream = input.about == "stream";
        let mut translation = translation_of(input.dialect, caller, is_stream);
        if let Ok(status) = input.about.parse() {
            let error = ErrorBody::read(input.text.as_bytes());
            let failure = Failure::told(status, error.message(), error.codes());
            let status = caller.status_of(status).to_string();
            return (status, laid_out(&translation.error(&failure)));
        }
        match translation.on_body(input.text.as_bytes(), true) {
            Written::Stream(bytes) => {
                let stream = String::from_utf8(bytes).unwrap();
                grammar::read(caller, &stream, false);
                (String::new(), stream)
            }
            Written::Whole(body) => (String::new(), laid_out(&body)),
            Written::Failed(status, body) => (status.to_string(), laid_out(&body)),
            other => panic!("{other:?}"),
        }
    });
}

/// A caller who wants no stream gets the same answer of a platform that streams and of one that does not.
#[test]
fn a_stream_and_a_whole_answer_say_the_same() {
    for (path, _, inputs) in cases("answers") {
        for platform in Dialect::OF_PLATFORMS {
            let of = |about: &str| {
                let input = inputs.iter();
                let mut input =
                    input.filter(|input| input.dialect == platform && input.about == about);
                input.next()
            };
            let (Some(stream), Some(whole)) = (of("stream"), of("whole")) else {
                continue;
            };
            for caller in grammar::of_both().filter(|other| *other != platform) {
                let [of_stream, of_whole] = [stream, whole].map(|input| {
                    let mut translation = translation_of(platform, caller, false);
                    match translation.on_body(input.text.as_bytes(), true) {
                        Written::Whole(body) => serde_json::from_slice::<Value>(&body).unwrap(),
                        other => panic!("{other:?}"),
                    }
                });
                let pair = format!("{} {platform:?} {caller:?}", path.display());
                assert_eq!(of_stream, of_whole, "{pair}");
                // And one who wants a stream gets one, whatever the platform sends.
                let mut translation = translation_of(platform, caller, true);
                let Written::Stream(bytes) = translation.on_body(whole.text.as_bytes(), true)
                else {
                    panic!("{pair}");
                };
                let stream = String::from_utf8(bytes).unwrap();
                assert!(grammar::read(caller, &stream, false), "{pair}");
                // A stream says all that a whole answer does.
                let whole = of_whole.to_string();
                let [streamed, whole] =
                    [(&stream, true), (&whole, false)].map(|(text, is_stream)| {
                        let events = meaning::read_back(caller, text.as_bytes(), is_stream);
                        let Folded {
                            mut blocks, finish, ..
                        } = Folded::of(&events).unwrap();
                        // A call without arguments has an empty object of them.
                        let empty = blocks.iter_mut().filter(|block| block.text == "{}");
                        empty.for_each(|block| block.text.clear());
                        // One that the limit cut is none, and a stream has told it before that.
                        let is_cut = finish == Finish::Length;
                        let is_whole = |block: &FoldedBlock| match block.kind {
                            BlockKind::Call { .. } => !is_cut || functions::is_object(&block.text),
                            _ => true,
                        };
                        blocks.retain(is_whole);
                        (blocks, finish)
                    });
                assert_eq!(streamed, whole, "{pair}");
            }
        }
    }
}

/// What a platform's model thought goes back to it as it was, whatever its caller speaks.
#[test]
fn what_was_thought_comes_back_to_its_maker() {
    let cases = cases("answers");
    let (_, _, inputs) = cases
        .iter()
        .find(|(path, ..)| path.ends_with("reasoning.txt"))
        .unwrap();
    let opaque = [Dialect::Responses, Dialect::Messages, Dialect::Gemini];
    for platform in opaque {
        let whole = inputs
            .iter()
            .find(|input| input.dialect == platform && input.about == "whole");
        let whole = whole.unwrap().text.as_bytes();
        let said: Value = serde_json::from_slice(whole).unwrap();
        for caller in opaque.into_iter().filter(|caller| *caller != platform) {
            let mut translation = translation_of(platform, caller, false);
            let Written::Whole(answer) = translation.on_body(whole, true) else {
                panic!("{platform:?} {caller:?}");
            };
            let answer: Value = serde_json::from_slice(&answer).unwrap();
            let mut translation = translation_of(platform, caller, true);
            let Written::Stream(stream) = translation.on_body(whole, true) else {
                panic!("{platform:?} {caller:?}");
            };
            let history = match caller {
                Dialect::Responses => {
                    let mut input = vec![json!({"role": "user", "content": "Hi"})];
                    input.extend(answer["output"].as_array().unwrap().clone());
                    let id = &input.last().unwrap()["call_id"];
                    input.push(
                        json!({"type": "function_call_output", "call_id": id, "output": "x"}),
                    );
                    json!({"input": input})
                }
                Dialect::Messages => {
                    let id = &answer["content"].as_array().unwrap().last().unwrap()["id"];
                    let result =
                        json!([{"type": "tool_result", "tool_use_id": id, "content": "x"}]);
                    json!({"max_tokens": 9, "messages": [
                        {"role": "user", "content": "Hi"},
                        {"role": "assistant", "content": answer["content"]},
                        {"role": "user", "content": result},
                    ]})
                }
                // Clients keep the parts of a stream as they come.
                _ => {
                    let stream = String::from_utf8(stream).unwrap();
                    let elements = grammar::elements(&stream, false);
                    let parts = elements.iter().flat_map(|element| {
                        let parts = element["candidates"][0]["content"]["parts"].as_array();
                        parts.unwrap().clone()
                    });
                    let parts: Vec<Value> = parts.collect();
                    let result = json!({"name": "get_weather", "response": {"output": "x"}});
                    json!({"contents": [
                        {"role": "user", "parts": [{"text": "Hi"}]},
                        {"role": "model", "parts": parts},
                        {"role": "user", "parts": [{"functionResponse": result}]},
                    ]})
                }
            };
            let target = asked_at(platform, "/v1beta/models/m:generateContent");
            let history = history.to_string();
            let made = caller.translate_request(platform, history.as_bytes(), &target, 0);
            let made: Value = serde_json::from_slice(&made.unwrap().body).unwrap();
            let place = format!("{platform:?} {caller:?}: {made}");
            match platform {
                Dialect::Responses => {
                    let items = made["input"].as_array().unwrap().iter();
                    let kept: Vec<_> = items
                        .filter_map(|item| item["encrypted_content"].as_str())
                        .collect();
                    assert_eq!(kept, ["gAAAAend", "gAAAAmore"], "{place}");
                }
                Dialect::Messages => {
                    let content = &made["messages"][1]["content"];
                    assert_eq!(content, &said["content"], "{place}");
                }
                _ => {
                    let parts = made["contents"][1]["parts"].as_array().unwrap();
                    let call = parts.last().unwrap();
                    assert_eq!(call["thoughtSignature"], "c2lnbmVk", "{place}");
                }
            }
        }
    }
}
