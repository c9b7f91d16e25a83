//! Laws: a request becomes JSON or is refused, the same one each time; an answer becomes the same wherever it is cut,
//! its events are JSON, and nothing follows an error.
#![no_main]

use std::collections::BTreeMap;

use latchkey::{
    dialect::{About, AnswerTranslation, Dialect, Target, Written, accent::Accent},
    text::tree::Text,
};
use latchkey_fuzz::byte;
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

fuzz_target!(|data: &[u8]| {
    let mut data = data;
    let choice = byte(&mut data);
    let pairs: Vec<(Dialect, Dialect)> = Dialect::OF_CALLERS
        .into_iter()
        .flat_map(|caller| Dialect::ALL.map(|platform| (caller, platform)))
        .filter(|(caller, platform)| caller.is_translated_to(*platform))
        .collect();
    let (caller, platform) = pairs[usize::from(choice >> 2) % pairs.len()];
    if choice & 1 == 0 {
        request(caller, platform, data);
    } else {
        let cut = usize::from(byte(&mut data));
        let as_list = choice & 4 == 0 && caller == Dialect::Gemini;
        answer(caller, platform, choice & 2 == 0, as_list, data, cut);
    }
});

fn request(caller: Dialect, platform: Dialect, body: &[u8]) {
    // As many bodies as not are for a platform that does much otherwise.
    let odd = json!({
        "max_tokens_field": "max_completion_tokens", "max_output": 100, "max_temperature": 0.5, "one_sampler": true,
        "tool_choice": ["auto"], "content": "parts", "schema": "tool", "reasoning_in": "reasoning",
        "reasoning_required": true, "system_between": true, "thinking": "budget", "efforts": ["none", "high"],
        "id_length": 9, "name_max": 9, "takes": ["top_k", "user"], "refuses": ["stop"], "set": {"a": 1},
    });
    let odd = odd.as_object().expect("an object").clone();
    let accent = match body.len() % 2 {
        0 => Accent::default(),
        _ => Accent::parse(odd).expect("an accent"),
    };
    let target = Target {
        model: Text::of("m"),
        refuses: &[],
        accent: &accent,
        streams_only: false,
        asks_usage: true,
        owner: "1f",
        demands: Default::default(),
        asked_at: "/v1beta/models/m:streamGenerateContent",
    };
    let translate = || caller.translate_request(platform, body, &target, 0);
    match (translate(), translate()) {
        (Ok(made), Ok(again)) => {
            assert_eq!(made.body, again.body);
            let made: Value = serde_json::from_slice(&made.body).expect("JSON");
            assert!(made.is_object());
        }
        (Err(refused), Err(again)) => assert_eq!(refused, again),
        (one, other) => panic!("{one:?} {other:?}"),
    }
    // What can be asked can be counted.
    match caller.translate_count(platform, body, &target) {
        Ok(made) => {
            let made: Value = serde_json::from_slice(&made.body).expect("JSON");
            assert!(made.is_object());
        }
        Err(refused) => assert_eq!(Err(refused), translate().map(|_| ())),
    }
}

fn answer(
    caller: Dialect,
    platform: Dialect,
    as_stream: bool,
    as_list: bool,
    body: &[u8],
    cut: usize,
) {
    let translation = || {
        let about = About {
            as_list,
            ..About::default()
        };
        AnswerTranslation::new(platform, caller, as_stream, about, "1f", BTreeMap::new())
            .expect("a translation")
    };
    let whole = all(&[translation().on_body(body, true)]);
    let (first, rest) = body.split_at(cut.min(body.len()));
    let mut cut = translation();
    assert_eq!(
        all(&[cut.on_body(first, false), cut.on_body(rest, true)]),
        whole
    );
    let text = String::from_utf8(whole.0).expect("text");
    if as_stream && as_list {
        let elements: Vec<Value> = serde_json::from_str(&text).expect("a list");
        let failures = elements.iter().rposition(|one| one["error"].is_object());
        assert!(failures.is_none_or(|at| at + 1 == elements.len()), "{text}");
        return;
    }
    for event in text.split_terminator("\n\n").filter(|_| as_stream) {
        let (_, data) = event.split_once("data: ").expect("an event");
        assert!(
            data == "[DONE]" || serde_json::from_str::<Value>(data).is_ok(),
            "{data}"
        );
    }
    // A failure is the last that is said.
    let says = |mark: &str| text.contains(mark);
    let is_good = text.ends_with("[DONE]\n\n")
        || text.ends_with("{\"type\":\"message_stop\"}\n\n")
        || says("event: response.completed\n")
        || says("event: response.incomplete\n");
    let is_failed = says("event: error\n") || says("event: response.failed\n");
    assert!(!(as_stream && is_good && is_failed), "{text}");
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
