//! Laws of all pairs.

use proptest::prelude::*;

use super::{
    table::{asked_at, cases, translation_of},
    *,
};
use crate::dialect::{
    grammar::meaning::{Meaning, read_back, told},
    neutral::{Finish, Tokens},
};

const PATH: &str = "/v1beta/models/asked:streamGenerateContent?alt=sse";

fn others(one: Dialect) -> impl Iterator<Item = Dialect> {
    grammar::of_both().filter(move |other| *other != one)
}

/// The answer of a platform that comes in pieces, for a caller.
fn in_pieces(mut translation: AnswerTranslation, answer: &[u8], size: usize) -> Vec<Written> {
    let mut all: Vec<Written> = Vec::new();
    let count = answer.len().div_ceil(size);
    for (number, piece) in answer.chunks(size).enumerate() {
        match (
            all.last_mut(),
            translation.on_body(piece, number + 1 == count),
        ) {
            (Some(Written::Stream(before)), Written::Stream(more)) => before.extend(more),
            (Some(Written::NotYet), next) => all = vec![next],
            (_, Written::Nothing) => {}
            (_, next) => all.push(next),
        }
    }
    all
}

#[test]
fn an_answer_is_the_same_wherever_it_is_cut() {
    for (path, _, inputs) in cases("answers") {
        let answers = inputs
            .iter()
            .filter(|input| ["stream", "whole"].contains(&&*input.about));
        for input in answers {
            for caller in others(input.dialect) {
                for as_stream in [true, false] {
                    let answer = |size| {
                        let translation = translation_of(input.dialect, caller, as_stream);
                        in_pieces(translation, input.text.as_bytes(), size)
                    };
                    let whole = answer(usize::MAX);
                    for size in [1, 7] {
                        let place = format!("{} {:?} {caller:?}", path.display(), input.dialect);
                        assert_eq!(answer(size), whole, "{place} in pieces of {size}");
                    }
                }
            }
        }
    }
}

/// A stream that ends too early is a failure in every dialect, wherever that is.
#[test]
fn what_breaks_off_is_never_a_good_end_in_any_pair() {
    for (_, _, inputs) in cases("answers") {
        for input in inputs.iter().filter(|input| input.about == "stream") {
            // The reason for its end makes an answer of two of them whole.
            let marks = [
                "\"finish_reason\":\"",
                "\"finishReason\"",
                "event: response.completed",
                "event: response.incomplete",
                "event: message_stop",
            ];
            // Each event of it has a reason.
            let marks = match input.dialect {
                Dialect::Ernie => &["\"is_end\":true"][..],
                _ => &marks,
            };
            let ends = marks.iter().filter_map(|mark| input.text.find(mark));
            let end = ends.min().unwrap_or(input.text.len());
            let events = input.text[..end].match_indices("\n\n");
            for (at, _) in events {
                for caller in others(input.dialect) {
                    let mut translation = translation_of(input.dialect, caller, true);
                    let begun = &input.text.as_bytes()[..at];
                    let Written::Stream(stream) = translation.on_body(begun, true) else {
                        panic!("no stream");
                    };
                    let stream = String::from_utf8(stream).unwrap();
                    assert!(!grammar::read(caller, &stream, false), "{stream}");
                    let mut translation = translation_of(input.dialect, caller, false);
                    let whole = translation.on_body(begun, true);
                    assert!(matches!(whole, Written::Failed(..)), "{whole:?}");
                }
            }
        }
    }
}

/// An answer of `messages` whose first event was left out.
#[test]
fn an_answer_begins_though_its_beginning_was_left_out() {
    let events = [
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": "Hi"}}),
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}}),
        json!({"type": "message_stop"}),
    ];
    for from in [0, 2] {
        let stream: String = events[from..]
            .iter()
            .map(|event| format!("data: {event}\n\n"))
            .collect();
        for caller in Dialect::OF_CALLERS
            .into_iter()
            .filter(|caller| *caller != Dialect::Messages)
        {
            let about = About {
                wants_usage: true,
                ..About::default()
            };
            let none = BTreeMap::new();
            let translation =
                AnswerTranslation::new(Dialect::Messages, caller, true, about, "1f", none);
            let Written::Stream(stream) = translation.unwrap().on_body(stream.as_bytes(), true)
            else {
                panic!("{caller:?}");
            };
            let stream = String::from_utf8(stream).unwrap();
            assert!(grammar::read(caller, &stream, false), "{stream}");
        }
    }
}

/// What only the platform reads has a place in what was thought alone, also where an item is another one at its end.
#[test]
fn what_was_thought_is_not_put_behind_a_text() {
    let events = [
        json!({"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "Hi"}),
        json!({"type": "response.output_item.done", "output_index": 0, "item": {"type": "reasoning", "summary": [], "encrypted_content": "x"}}),
        json!({"type": "response.completed", "response": {"status": "completed", "output": []}}),
    ];
    let stream: String = events
        .iter()
        .map(|event| format!("data: {event}\n\n"))
        .collect();
    let (platform, caller) = (Dialect::Responses, Dialect::Messages);
    let translation = translation_of(platform, caller, true).on_body(stream.as_bytes(), true);
    let Written::Stream(stream) = translation else {
        panic!("no stream");
    };
    assert!(grammar::read(
        caller,
        &String::from_utf8(stream).unwrap(),
        false
    ));
}

fn stream_of(events: &[Value]) -> String {
    let events = events.iter().map(|event| format!("data: {event}\n\n"));
    events.collect()
}

/// The same of a platform that speaks `messages`.
#[test]
fn a_signature_of_what_is_no_thought_goes_nowhere() {
    let mut blocks = [
        json!({"type": "text", "text": "Hi", "data": "x"}),
        json!({"type": "tool_use", "id": "c", "name": "f", "input": {}, "data": "x"}),
        json!({"type": "thinking", "thinking": "hm", "data": "x"}),
    ];
    let mut events = Vec::new();
    for (index, block) in blocks.iter().enumerate() {
        let signature = json!({"type": "signature_delta", "signature": "s"});
        events.extend([
            json!({"type": "content_block_start", "index": index, "content_block": block}),
            json!({"type": "content_block_delta", "index": index, "delta": signature}),
            json!({"type": "content_block_stop", "index": index}),
        ]);
    }
    events.push(json!({"type": "message_stop"}));
    let stream = stream_of(&events);
    for caller in Dialect::OF_CALLERS {
        let about = About {
            wants_usage: true,
            state_beside_calls: true,
            ..About::default()
        };
        let none = BTreeMap::new();
        let translation =
            AnswerTranslation::new(Dialect::Messages, caller, true, about, "1f", none);
        let Written::Stream(written) = translation.unwrap().on_body(stream.as_bytes(), true) else {
            panic!("no stream");
        };
        let text = String::from_utf8(written).unwrap();
        assert!(grammar::read(caller, &text, false), "{caller:?}: {text}");
    }
    let opaque = |body: &[u8], is_stream| {
        let events = read_back(Dialect::Messages, body, is_stream).into_iter();
        let opaque = events.filter_map(|event| match event {
            Event::Opaque { block, .. } => Some(block),
            _ => None,
        });
        opaque.collect::<Vec<_>>()
    };
    assert_eq!(opaque(stream.as_bytes(), true), [2, 2]);
    for block in &mut blocks {
        block["signature"] = "s".into();
    }
    let whole = json!({"content": blocks, "stop_reason": "end_turn"}).to_string();
    assert_eq!(opaque(whole.as_bytes(), false), [2, 2]);
}

/// Numbers of parts are the platform's to choose.
#[test]
fn the_number_of_a_part_stands_for_nothing_else() {
    let delta = |summary: Option<u64>| {
        let kind = match summary {
            None => "response.output_text.delta",
            Some(_) => "response.reasoning_summary_text.delta",
        };
        json!({"type": kind, "output_index": 0, "content_index": u64::MAX, "summary_index": summary, "delta": "Hi"})
    };
    let events = [
        delta(None),
        delta(Some(7)),
        delta(Some(7)),
        json!({"type": "response.completed", "response": {"status": "completed", "output": []}}),
    ];
    let stream = stream_of(&events);
    for caller in others(Dialect::Responses) {
        let mut translation = translation_of(Dialect::Responses, caller, true);
        let Written::Stream(written) = translation.on_body(stream.as_bytes(), true) else {
            panic!("no stream");
        };
        let text = String::from_utf8(written).unwrap();
        assert!(grammar::read(caller, &text, false), "{caller:?}: {text}");
    }
    let said = Meaning::of(&read_back(Dialect::Responses, stream.as_bytes(), true)).unwrap();
    assert_eq!((&*said.text, &*said.reasoning), ("Hi", "\n\nHiHi"));
}

/// What comes behind the end in one piece with it, an event that is too long too.
#[test]
fn nothing_is_told_behind_the_end() {
    let end =
        json!({"type": "response.completed", "response": {"status": "completed", "output": []}});
    let long = "x".repeat(MAX_EVENT_BYTES + 1);
    let stream = format!("data: {end}\n\ndata: {long}\n\n");
    for caller in others(Dialect::Responses) {
        for as_stream in [true, false] {
            let mut translation = translation_of(Dialect::Responses, caller, as_stream);
            match translation.on_body(stream.as_bytes(), true) {
                Written::Stream(written) => {
                    let text = String::from_utf8(written).unwrap();
                    assert!(grammar::read(caller, &text, false), "{caller:?}: {text}");
                }
                Written::Whole(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

/// What a reader remembers of a stream has a bound, however long that is.
#[test]
fn a_stream_of_parts_without_end_fails() {
    let item = |index| json!({"type": "response.output_item.done", "output_index": index, "item": {"type": "x"}});
    let part = |index| json!({"type": "response.output_text.delta", "output_index": 0, "content_index": index, "delta": "x"});
    let block = |index| json!({"type": "content_block_start", "index": index, "content_block": {"type": "text", "text": ""}});
    let failed_at = |dialect: Dialect, event: &dyn Fn(usize) -> Value| {
        let mut reader = dialect.format().parts().read_answer.unwrap()();
        (0..100_000).find(|number| {
            let mut events = Vec::new();
            reader.on_event(event(*number).to_string().as_bytes(), &mut events);
            matches!(events.last(), Some(Event::Fail(_)))
        })
    };
    assert_eq!(failed_at(Dialect::Responses, &item), Some(16_384));
    assert_eq!(failed_at(Dialect::Responses, &part), Some(16_384));
    assert_eq!(failed_at(Dialect::Messages, &block), Some(1_024));
}

fn kind() -> impl Strategy<Value = BlockKind> {
    prop_oneof![
        Just(BlockKind::Text),
        Just(BlockKind::Reasoning),
        Just(BlockKind::Call {
            id: String::new(),
            name: "get_weather".to_owned(),
            raw: false
        }),
    ]
}

/// Steps of an answer. Calls may come together, as far as they open in the order of their numbers.
fn answer() -> impl Strategy<Value = Vec<Event>> {
    // Some servers put blanks between calls, so those are no text.
    let piece = "[a-z\u{e9}\u{1f600}\"\\\\][a-z\u{e9}\u{1f600}\"\\\\\n]{0,4}";
    let blocks = prop::collection::vec((kind(), prop::collection::vec(piece, 0..4)), 0..5);
    let order = prop::collection::vec(any::<prop::sample::Index>(), 40);
    let finish = prop::sample::select(vec![Finish::Done, Finish::Length, Finish::Refused]);
    let usage = prop::array::uniform5(0_u64..1_000);
    let refuses = any::<bool>();
    (blocks, order, finish, usage, refuses).prop_map(|(blocks, order, finish, usage, refuses)| {
        let (mut waiting, mut is_call) = (Vec::<Vec<Event>>::new(), Vec::new());
        for (number, (kind, texts)) in blocks.into_iter().enumerate() {
            let block = number as u32;
            let (kind, texts) = match kind {
                BlockKind::Call { name, raw, .. } => {
                    let id = format!("call_{number}");
                    let arguments = json!({"a": texts.concat()}).to_string();
                    let chars: Vec<char> = arguments.chars().collect();
                    let pieces = chars.chunks(3).map(|piece| piece.iter().collect());
                    (BlockKind::Call { id, name, raw }, pieces.collect())
                }
                BlockKind::Text if refuses => (BlockKind::Refusal, texts),
                kind => (kind, texts),
            };
            let called = matches!(kind, BlockKind::Call { .. });
            let mut steps = vec![Event::Open { block, kind }];
            let texts = texts.into_iter().filter(|text: &String| !text.is_empty());
            steps.extend(texts.map(|text| Event::Delta { block, text }));
            steps.push(Event::Close { block });
            steps.reverse();
            waiting.push(steps);
            is_call.push(called);
        }
        let mut events = vec![Event::Start {
            id: "9".to_owned(),
            model: "m".to_owned(),
        }];
        for choice in &order {
            // A block opens once those before it have, and only calls have pieces while another block is open.
            let is_waiting = |steps: &Vec<Event>| matches!(steps.last(), Some(Event::Open { .. }));
            let is_text = |at: &usize| !is_call[*at] && !waiting[*at].is_empty();
            let all = waiting.iter().position(is_waiting);
            let all = all.map_or(waiting.len(), |at| at + 1);
            let text = (0..all).find(|at| is_text(at) && !is_waiting(&waiting[*at]));
            if all > 0 {
                let at = text.unwrap_or_else(|| choice.index(all));
                events.extend(waiting[at].pop());
            }
        }
        let rest = waiting.into_iter();
        events.extend(rest.flat_map(|steps| steps.into_iter().rev()));
        let [input, read, write, said, thought] = usage;
        events.push(Event::Usage(Tokens {
            input: Some(input),
            cache_read: Some(read),
            cache_write: Some(write),
            output: Some(said + thought),
            reasoning: Some(thought),
        }));
        events.extend([Event::Finish(finish), Event::End]);
        events
    })
}

proptest! {
    /// What one dialect's reader says goes into another one, and is read there as the same: so an answer that is
    /// translated there and back keeps texts, calls, their ids and tokens. Every stream follows its grammar.
    #[test]
    fn an_answer_says_the_same_in_every_dialect(events in answer(), as_list: bool) {
        let expected = Meaning::of(&events).unwrap();
        for dialect in grammar::of_both() {
            let parts = dialect.format().parts();
            let as_list = as_list && dialect == Dialect::Gemini;
            let about = About { wants_usage: true, as_list, ..About::default() };
            let mut writer = parts.write_answer.unwrap()(about);
            let mut stream = Vec::new();
            events.iter().for_each(|event| writer.stream(event, &mut stream));
            let text = std::str::from_utf8(&stream).unwrap();
            prop_assert!(grammar::read(dialect, text, as_list), "{}", text);
            let whole = writer.whole(&events).unwrap();
            for (text, is_stream) in [(&stream, !as_list), (&whole, false)] {
                let mut said = Meaning::of(&read_back(dialect, text, is_stream)).unwrap();
                // They come when they are whole in some.
                said.calls.sort_by(|one, other| one.0.cmp(&other.0));
                prop_assert_eq!(&said, &expected, "{:?} {}", dialect, String::from_utf8_lossy(text));
            }
        }
    }

    /// A failure ends every stream as one, wherever it comes.
    #[test]
    fn an_answer_that_fails_does_so_in_every_dialect(events in answer(), at: prop::sample::Index, as_list: bool) {
        let mut events = events;
        events.truncate(at.index(events.len() - 1));
        events.push(Event::Fail(Failure::grammar("so")));
        for dialect in grammar::of_both() {
            let as_list = as_list && dialect == Dialect::Gemini;
            let about = About { as_list, ..About::default() };
            let mut writer = dialect.format().parts().write_answer.unwrap()(about);
            let mut stream = Vec::new();
            events.iter().for_each(|event| writer.stream(event, &mut stream));
            let text = std::str::from_utf8(&stream).unwrap();
            prop_assert!(!grammar::read(dialect, text, as_list), "{}", text);
            prop_assert!(writer.whole(&events).is_err());
        }
    }
}

/// A conversation of `chat`: what is said, the calls, and what they return, or nothing.
pub(super) fn conversation() -> impl Strategy<Value = Value> {
    let text = "[a-z\u{e9}\u{1f600}\"\\\\\n]{0,6}[a-z]";
    let call = (
        text,
        prop::option::weighted(0.8, text),
        any::<prop::sample::Index>(),
    );
    let turn = (
        prop::option::of(text),
        prop::collection::vec(call, 0..3),
        prop::collection::vec(text, 1..3),
    );
    prop::collection::vec(turn, 1..5).prop_map(|turns| {
        let mut messages = vec![json!({"role": "system", "content": "be brief"})];
        for (number, (said, calls, asked)) in turns.into_iter().enumerate() {
            let asked = asked.iter();
            messages.extend(asked.map(|text| json!({"role": "user", "content": text})));
            let id = |at: usize| format!("call_{number}_{at}");
            let made = calls.iter().enumerate().map(|(at, (argument, ..))| {
                let arguments = json!({"a": argument, "b": [1.5, null]}).to_string();
                json!({"id": id(at), "type": "function", "function": {"name": "get_weather", "arguments": arguments}})
            });
            let made: Vec<Value> = made.collect();
            if said.is_none() && made.is_empty() {
                continue;
            }
            let mut message = json!({"role": "assistant", "content": said});
            if !made.is_empty() {
                message["tool_calls"] = made.into();
            }
            messages.push(message);
            let mut results: Vec<(usize, usize, String)> = Vec::new();
            for (at, (_, result, order)) in calls.iter().enumerate() {
                let result = result.clone().map(|result| (order.index(9), at, result));
                results.extend(result);
            }
            results.sort();
            let results = results.into_iter();
            messages.extend(results.map(|(_, at, result)| {
                json!({"role": "tool", "tool_call_id": id(at), "content": result})
            }));
        }
        messages.push(json!({"role": "user", "content": "go on"}));
        messages.into()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// A request that goes to another dialect and back, or through the neutral form into its own, keeps texts, calls,
    /// ids, results and tools. A call without a result has one from then on, which says so.
    #[test]
    fn a_request_says_the_same_in_every_dialect(messages in conversation()) {
        let parameters = json!({"type": "object", "properties": {"a": {"type": "string"}}});
        let tools = json!([{"type": "function", "function": {"name": "get_weather", "parameters": parameters}}]);
        let chat = json!({"model": "m", "messages": messages, "tools": tools}).to_string();
        let to = |from: Dialect, to: Dialect, body: &[u8]| {
            from.translate_request(to, body, &asked_at(to, PATH), 0).unwrap().body
        };
        let expected = told(Dialect::Chat, &to(Dialect::Chat, Dialect::Chat, chat.as_bytes())).unwrap();
        for caller in grammar::of_both() {
            let body = to(Dialect::Chat, caller, chat.as_bytes());
            prop_assert_eq!(&told(caller, &body).unwrap(), &expected, "{:?}", caller);
            for platform in grammar::of_both() {
                let there = to(caller, platform, &body);
                let back = to(platform, caller, &there);
                prop_assert_eq!(&told(caller, &back).unwrap(), &expected, "{:?} {:?}", caller, platform);
            }
        }
    }

    /// What the model said last, for it to go on from, goes out, or is named.
    #[test]
    fn the_models_last_words_go_out_or_are_named(messages in conversation(), last in "[a-z]{9}", blank: bool) {
        let mut more = messages.as_array().unwrap().clone();
        more.push(json!({"role": "assistant", "content": last}));
        if blank {
            more.push(json!({"role": "user", "content": ""}));
        }
        for platform in Dialect::OF_PLATFORMS {
            let to = |messages: &Value| {
                let chat = json!({"model": "m", "messages": messages}).to_string();
                Dialect::Chat.translate_request(platform, chat.as_bytes(), &asked_at(platform, PATH), 0).unwrap()
            };
            let (without, made) = (to(&messages), to(&Value::from(more.clone())));
            let names = made.left_out.contains(&"messages");
            prop_assert_eq!(names, made.body == without.body, "{:?}", platform);
            prop_assert_eq!(!names, String::from_utf8(made.body).unwrap().contains(&last), "{:?}", platform);
            prop_assert!(!without.left_out.contains(&"messages"), "{:?}", platform);
        }
    }
}
