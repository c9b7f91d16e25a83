//! Bodies that would cost many times their length.

use super::*;
use crate::dialect::neutral::read::MAX_TOOLS;

fn refusal(caller: Dialect, platform: Dialect, body: &Value) -> Refused {
    let body = body.to_string();
    let made = caller.translate_request(platform, body.as_bytes(), &target(), 0);
    made.map(|made| made.body.len()).unwrap_err()
}

/// A request of a dialect with so many tools, each of its own name.
fn with_tools(caller: Dialect, count: usize) -> Value {
    let names = (0..count).map(|n| format!("t{n}"));
    match caller {
        Dialect::Chat => {
            let tools = names.map(|name| json!({"type": "function", "function": {"name": name}}));
            json!({"model": "m", "messages": [], "tools": tools.collect::<Vec<_>>()})
        }
        Dialect::Responses => {
            let tools = names.map(|name| json!({"type": "function", "name": name}));
            let within =
                json!({"type": "namespace", "name": "n", "tools": tools.collect::<Vec<_>>()});
            json!({"model": "m", "input": "x", "tools": [within]})
        }
        Dialect::Messages => {
            let tools = names.map(|name| json!({"name": name, "input_schema": {}}));
            json!({"model": "m", "max_tokens": 1, "messages": [], "tools": tools.collect::<Vec<_>>()})
        }
        _ => {
            let tools = names.map(|name| json!({"name": name}));
            let tools = json!([{"functionDeclarations": tools.collect::<Vec<_>>()}]);
            json!({"contents": [{"parts": [{"text": "x"}]}], "tools": tools})
        }
    }
}

#[test]
fn a_request_has_so_many_tools_and_no_more() {
    for caller in grammar::of_both() {
        for platform in grammar::of_both() {
            if platform == caller {
                continue;
            }
            let most = with_tools(caller, MAX_TOOLS).to_string();
            let made = caller.translate_request(platform, most.as_bytes(), &target(), 0);
            assert!(made.is_ok(), "{caller:?} {platform:?}");
            let refused = refusal(caller, platform, &with_tools(caller, MAX_TOOLS + 1));
            assert!(refused.path.starts_with("tools["), "{refused:?}");
            assert!(refused.why.contains("more than 4096 tools"), "{refused:?}");
        }
    }
}

/// Each tool of a namespace has its name, more than once.
#[test]
fn the_name_of_a_namespace_is_short() {
    let body = |length| {
        let tools = json!([{"type": "function", "name": "t"}]);
        let within = json!({"type": "namespace", "name": "n".repeat(length), "tools": tools});
        json!({"model": "m", "input": "x", "tools": [within]})
    };
    let longest = body(512).to_string();
    let made =
        Dialect::Responses.translate_request(Dialect::Chat, longest.as_bytes(), &target(), 0);
    assert!(made.is_ok());
    let refused = refusal(Dialect::Responses, Dialect::Chat, &body(513));
    assert_eq!(refused.path, "tools[0].name");
    assert_eq!(refused.why, "expected a name of at most 512 bytes");
}

#[test]
fn a_refusal_quotes_little() {
    let long = "\u{7f}".repeat(10_000);
    let result = json!({"type": "tool_result", "tool_use_id": long, "content": "x"});
    let call = json!({"type": "tool_use", "id": "a", "name": long, "input": {}});
    for block in [result, call] {
        let turn = json!({"role": "user", "content": [block]});
        let body = json!({"model": "m", "max_tokens": 1, "messages": [turn]});
        for platform in [Dialect::Chat, Dialect::Responses, Dialect::Gemini] {
            let refused = refusal(Dialect::Messages, platform, &body);
            assert!(refused.why.len() < 1_000, "{} bytes", refused.why.len());
        }
    }
}
