//! Laws of a platform's answer for a caller of any dialect, whole and as a stream: it does not depend on the cuts; what
//! is kept of it and what it becomes is bounded; a stream follows the grammar of the caller's dialect, also where it is
//! given up; a whole answer and a stream say the same, which is what the platform says.
#![no_main]

use std::collections::{BTreeMap, BTreeSet};

use latchkey::{
    dialect::{
        About, AnswerTranslation, Dialect, Written,
        grammar::{
            self,
            meaning::{Meaning, read_back},
        },
        neutral::Failure,
    },
    text::kind::text_of,
};
use latchkey_fuzz::{byte, caller, pieces, platform};
use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value};

/// The most bytes that one of an answer becomes: an item of a stream begins, ends and is repeated at the end.
const GROWTH: usize = 256;
/// The most bytes that are kept of one.
const KEPT: usize = 32;
/// What an answer becomes beside that, in bytes.
const OWN: usize = 16 * 1024;

fuzz_target!(|data: &[u8]| {
    let mut data = data;
    let (platform, caller) = (platform(byte(&mut data)), caller(byte(&mut data)));
    let (choice, cut) = (byte(&mut data), byte(&mut data));
    let about = About {
        model: "asked".to_owned(),
        wants_usage: true,
        as_list: choice & 1 != 0 && caller == Dialect::Gemini,
        raw: match choice & 2 {
            0 => BTreeSet::new(),
            _ => BTreeSet::from(["apply_patch".to_owned()]),
        },
        answer_tool: (choice & 4 != 0).then_some("json"),
        state_beside_calls: choice & 8 != 0,
        ..About::default()
    };
    let is_plain = choice & 6 == 0;
    let translation = |as_stream| {
        AnswerTranslation::new(
            platform,
            caller,
            as_stream,
            about.clone(),
            "1f",
            BTreeMap::new(),
        )
        .expect("a translation")
    };

    let mut said = Vec::new();
    for as_stream in [true, false] {
        let whole = [translation(as_stream).on_body(data, true)];
        let (bytes, failed) = all(&whole);
        assert!(bytes.len() <= GROWTH * data.len() + OWN, "{}", bytes.len());
        let cut_up = in_pieces(translation(as_stream), &pieces(data, [cut, 1, cut]));
        assert_eq!(all(&cut_up), (bytes.clone(), failed));
        if failed {
            grammar::read_error(caller, &bytes);
            said.push(None);
            continue;
        }
        let text = std::str::from_utf8(&bytes).expect("text");
        let ended = as_stream.then(|| grammar::read(caller, text, about.as_list));
        said.push(ended.unwrap_or(true).then(|| {
            let is_events = as_stream && !about.as_list;
            meaning(caller, text, is_events).expect("what is written has an end")
        }));
    }
    // Calls of one id are nobody's. Tokens that do not add up are told as such that do.
    let own = Meaning::of(&read_back(platform, data, is_stream(data)));
    let ids: BTreeSet<_> = own
        .iter()
        .flat_map(|own| own.calls.iter().map(|call| &call.0))
        .collect();
    if own.as_ref().is_some_and(|own| own.calls.len() == ids.len()) {
        assert_eq!(said[0], said[1]);
        if let (Some(own), Some(said), true) = (own, &said[0], is_plain) {
            let usage = said.usage;
            assert_eq!(
                &Meaning {
                    usage,
                    ..sorted(own)
                },
                said
            );
        }
    }

    // Where it is given up in the middle, it has failed.
    let (first, _) = data.split_at(usize::from(cut).min(data.len()));
    let mut translation = translation(true);
    let begun = translation.on_body(first, false);
    let rest = translation.fail(Failure::no_room());
    let (bytes, _) = all(&[begun, rest]);
    let text = std::str::from_utf8(&bytes).expect("text");
    grammar::read(caller, text, about.as_list);
});

fn in_pieces(mut translation: AnswerTranslation, pieces: &[&[u8]]) -> Vec<Written> {
    let (mut written, mut taken) = (Vec::new(), 0);
    for (number, piece) in pieces.iter().enumerate() {
        written.push(translation.on_body(piece, number + 1 == pieces.len()));
        taken += piece.len();
        let held = translation.held_bytes();
        assert!(held <= KEPT * taken + OWN, "{held} of {taken}");
    }
    written
}

/// The bytes of an answer, and if it failed.
fn all(written: &[Written]) -> (Vec<u8>, bool) {
    let (mut all, mut failed) = (Vec::new(), false);
    for written in written {
        match written {
            Written::Stream(bytes) | Written::Whole(bytes) => all.extend(bytes),
            Written::Failed(_, bytes) => {
                failed = true;
                all.extend(bytes);
            }
            Written::NotYet | Written::Nothing => {}
        }
    }
    (all, failed)
}

/// What an answer says to its caller, read by the reader of that dialect.
fn meaning(caller: Dialect, text: &str, is_events: bool) -> Option<Meaning> {
    let of_chat = match caller {
        Dialect::Envelope if is_events => grammar::out_of_envelopes(text),
        Dialect::Envelope => {
            let said: Value = serde_json::from_str(text).expect("JSON");
            said["data"].to_string()
        }
        _ => text.to_owned(),
    };
    let own = match caller {
        Dialect::Envelope => Dialect::Chat,
        own => own,
    };
    Meaning::of(&read_back(own, of_chat.as_bytes(), is_events)).map(sorted)
}

/// What is told alike in every dialect. Texts may stand in another order, and blanks between calls are none; calls come
/// when they are whole in some, and have ids of our own where the platform gave them none; what is no object is put
/// into one where a dialect takes nothing else; a call that the limit cut was told in a stream before that.
fn sorted(mut said: Meaning) -> Meaning {
    for text in [&mut said.text, &mut said.reasoning] {
        let mut letters: Vec<char> = text
            .chars()
            .filter(|letter| !letter.is_whitespace())
            .collect();
        letters.sort_unstable();
        *text = letters.into_iter().collect();
    }
    if said.finish == "length" {
        said.calls.clear();
    }
    for (id, _, arguments) in &mut said.calls {
        id.clear();
        let text = arguments.get("input").filter(|input| input.is_string());
        let members = arguments.as_object().map(Map::len);
        if members.is_none() || members == Some(1) && text.is_some() {
            *arguments = Value::Null;
        }
    }
    said.calls.sort_by_key(|call| format!("{call:?}"));
    said
}

/// Tells a stream of events from one JSON text.
fn is_stream(answer: &[u8]) -> bool {
    !matches!(text_of(answer).first(), Some(b'{' | b'['))
}
