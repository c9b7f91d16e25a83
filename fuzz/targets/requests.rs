//! Laws of a caller's body: it is read if it is JSON. A request becomes JSON for a platform of any dialect or is refused,
//! the same one each time; what it becomes is bounded, its own dialect's reader takes it, and written once more in that
//! dialect it has the same calls, results and tools; for one that no caller speaks, user and model take turns. What is demanded of a request that is not translated changes it once.
#![no_main]

use latchkey::{
    dialect::{
        Demands, Dialect, EffortWord, ServiceTier, Steered, Target, accent::Accent,
        grammar::meaning::told, neutral::Refused,
    },
    text::{
        edit::edited,
        tree::{Text, Tree, Unread},
    },
};
use latchkey_fuzz::{byte, caller, platform};
use libfuzzer_sys::fuzz_target;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

/// The most bytes that one of a body becomes: a call that nothing answers is told so, in a sentence.
const GROWTH: usize = 64;
/// What a body becomes beside that, in bytes.
const OWN: usize = 16 * 1024;

/// What readers say of media that they do not take.
const MEDIA: [&str; 3] = ["kind of content", "web address", "media type"];

fuzz_target!(|data: &[u8]| {
    let mut data = data;
    let (caller, platform) = (caller(byte(&mut data)), platform(byte(&mut data)));
    let (choice, demands) = (byte(&mut data), demands(byte(&mut data)));
    let accent = accent(choice & 1 != 0);
    let target = Target {
        model: Text::of("m"),
        refuses: &[],
        accent: &accent,
        streams_only: choice & 2 != 0,
        asks_usage: choice & 4 != 0,
        owner: "1f",
        demands,
        asked_at: "/v1beta/models/m:streamGenerateContent",
    };
    is_read(data);
    translated(caller, platform, data, &target);
    counted(caller, platform, data, &target);
    let steered = Steered {
        accent: &accent,
        refuses: &[],
    };
    changed(caller, steered, demands, data);
});

/// What is read is what serde reads.
fn is_read(body: &[u8]) {
    let text = std::str::from_utf8(body).ok();
    let is_json = text.is_some_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok());
    match Tree::read(body) {
        Ok(_) => assert!(is_json),
        Err(Unread::NoJson { .. }) => assert!(!is_json),
        Err(Unread::TooDeep | Unread::TooLarge) => {}
    }
}

fn translated(caller: Dialect, platform: Dialect, body: &[u8], target: &Target<'_>) {
    let translate = || caller.translate_request(platform, body, target, 0);
    let made = match (translate(), translate()) {
        (Ok(made), Ok(again)) => {
            assert_eq!(made.body, again.body);
            made.body
        }
        (Err(refused), Err(again)) => {
            assert_eq!(refused, again);
            return assert!(!refused.why.is_empty());
        }
        (one, other) => panic!("{one:?} {other:?}"),
    };
    let text = || String::from_utf8_lossy(&made);
    assert!(made.len() <= GROWTH * body.len() + OWN, "{}", text());
    let value: Value = serde_json::from_slice(&made).expect("JSON");
    assert!(value.is_object());
    if !platform.is_of_callers() {
        return takes_turns(&value["messages"]);
    }
    let said = match told(platform, &made) {
        // What a medium is and where it lies, its caller says: only some readers look at that.
        Err(refused) if MEDIA.iter().any(|said| refused.why.contains(said)) => return,
        said => said.expect("its own dialect's reader takes it"),
    };
    let plain = Target {
        accent: &Accent::default(),
        demands: Demands::default(),
        ..target.clone()
    };
    let again = platform.translate_request(platform, &made, &plain, 0);
    let again = told(platform, &again.expect("it is written once more").body);
    let again = again.expect("its own dialect's reader takes it again");
    assert_eq!(acts(again), acts(said), "{}", text());
}

/// The user's side and the model take turns in `ernie`, and the user's side is the first and the last.
fn takes_turns(messages: &Value) {
    let messages = messages.as_array().expect("a list");
    for (number, message) in messages.iter().enumerate() {
        let is_model = message["role"] == "assistant";
        assert_eq!(is_model, number % 2 == 1, "{messages:?}");
        assert!(is_model || message["content"] != "", "{message}");
    }
    assert!(messages.is_empty() || messages.len() % 2 == 1);
}

/// Calls, results and tools. Sentences of our own may stand between the caller's.
fn acts(mut told: Vec<String>) -> Vec<String> {
    let kinds = ["call ", "result ", "tool "];
    told.retain(|line| kinds.iter().any(|kind| line.starts_with(kind)));
    told
}

/// What can be asked can be counted.
fn counted(caller: Dialect, platform: Dialect, body: &[u8], target: &Target<'_>) {
    let made = caller.translate_count(platform, body, target);
    let whole = caller.translate_request(platform, body, target, 0);
    match (made, whole) {
        (Ok(made), Ok(_)) => {
            let made: Value = serde_json::from_slice(&made.body).expect("JSON");
            assert!(made.is_object());
        }
        (made, whole) => assert_eq!(refused(made), refused(whole)),
    }
}

fn refused<T>(made: Result<T, Refused>) -> Option<Refused> {
    made.err()
}

/// A body into which the demands were put has them: nothing is left to change.
fn changed(dialect: Dialect, steered: Steered<'_>, demands: Demands, body: &[u8]) {
    let change = |body: &[u8]| {
        let body = Tree::read(body).ok()?;
        edited(&body, &demands.edits(dialect, steered, &body)?)
    };
    let Some(made) = change(body) else {
        return;
    };
    assert!(serde_json::from_slice::<Value>(&made).is_ok_and(|made| made.is_object()));
    let again = change(&made).expect("it was changed before");
    let [made, again] = [&made, &again].map(|body| String::from_utf8_lossy(body));
    assert_eq!(made, again);
}

/// Nothing is demanded by a `7`.
fn demands(choice: u8) -> Demands {
    let effort = |number: u8| EffortWord::ALL.get(usize::from(number & 7)).copied();
    let (first, second) = (effort(choice), effort(choice >> 3));
    let (effort, max_effort) = match choice & 64 == 0 {
        true => (first, None),
        false => (first.filter(|_| second.is_some()), second),
    };
    Demands {
        effort,
        max_effort,
        tier: (choice & 128 != 0).then_some(ServiceTier::Flex),
    }
}

/// That of a maker, or of one who does much otherwise.
fn accent(is_odd: bool) -> Accent {
    let odd = json!({
        "max_tokens_field": "max_completion_tokens", "max_output": 100, "max_temperature": 0.5, "one_sampler": true,
        "tool_choice": ["auto"], "content": "parts", "schema": "tool", "reasoning_in": "reasoning",
        "reasoning_required": true, "system_between": true, "thinking": "budget", "efforts": ["none", "high"],
        "id_length": 9, "name_max": 9, "takes": ["top_k", "user"], "refuses": ["stop"], "set": {"a": 1},
    });
    match odd {
        Value::Object(odd) if is_odd => Accent::parse(odd).expect("an accent"),
        _ => Accent::default(),
    }
}
