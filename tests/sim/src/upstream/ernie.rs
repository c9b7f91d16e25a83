//! The first version of Baidu's chat, as its documentation has it. It refuses what the real one would not expect: members
//! that it does not have, turns that are not taken in turn, a result that is not that of the call before it, numbers out
//! of their range. Errors come with HTTP 200.

use http::StatusCode;
use serde_json::{Map, Value, json};

use super::tools;
use crate::{
    answer::Answer,
    fixtures::{Fill, pieces},
};

/// The beginning of the path; the model is the rest.
pub const CHAT: &str = "/rpc/2.0/ai_custom/v1/wenxinworkshop/chat/";

/// The members that a request may have.
const MEMBERS: [&str; 15] = [
    "disable_search",
    "enable_citation",
    "functions",
    "max_output_tokens",
    "messages",
    "penalty_score",
    "response_format",
    "stop",
    "stream",
    "system",
    "temperature",
    "tool_choice",
    "top_p",
    "user_id",
    "user_setting",
];

/// An error as it is told.
pub fn error(code: u32, message: &str) -> Answer {
    let body = json!({"error_code": code, "error_msg": message});
    Answer::json(StatusCode::OK, body.to_string())
}

/// The answer to a body.
pub fn answer(body: &[u8], fill: &Fill) -> Answer {
    let Ok(Value::Object(body)) = serde_json::from_slice(body) else {
        return error(336_002, "Invalid JSON");
    };
    if let Err(wrong) = check(&body) {
        return error(336_003, &wrong);
    }
    let (streams, body) = (body["stream"] == true, Value::Object(body));
    let call = wished(&body).map(|(name, arguments)| {
        json!({"name": name, "thoughts": format!("I call {name}."), "arguments": arguments.to_string()})
    });
    let usage = |output: u64| {
        let (input, total) = (fill.input_tokens, fill.input_tokens + output);
        json!({"prompt_tokens": input, "completion_tokens": output, "total_tokens": total})
    };
    let part = |result: &str, call: Option<&Value>, output: u64| {
        let mut part = json!({
            "id": format!("as-{}", fill.id), "object": "chat.completion", "created": fill.now.seconds(), "result": result,
            "is_truncated": false, "need_clear_history": false, "finish_reason": "normal", "usage": usage(output),
        });
        if let Some(call) = call {
            part["finish_reason"] = "function_call".into();
            part["function_call"] = call.clone();
        }
        part
    };
    let text = if call.is_some() { "" } else { &fill.text };
    if !streams {
        return Answer::json(
            StatusCode::OK,
            part(text, call.as_ref(), fill.output_tokens).to_string(),
        );
    }
    let mut parts: Vec<Value> = pieces(text, fill.pieces)
        .map(|piece| part(piece, None, 0))
        .collect();
    parts.push(part("", call.as_ref(), fill.output_tokens));
    let last = parts.len() - 1;
    let events = parts.into_iter().enumerate().map(|(number, mut part)| {
        part["sentence_id"] = number.into();
        part["is_end"] = (number == last).into();
        format!("data: {part}\n\n")
    });
    Answer::events(events.collect())
}

/// The function that the user wishes and that the request has, and its arguments; none once it has returned.
fn wished(body: &Value) -> Option<(&str, Value)> {
    let last = body["messages"].as_array()?.last()?;
    let text = last["content"]
        .as_str()
        .filter(|_| last["role"] == "user")?;
    let mut functions = body["functions"].as_array()?.iter();
    tools::wish(text, |name| functions.any(|one| one["name"] == name))
}

fn check(body: &Map<String, Value>) -> Result<(), String> {
    if let Some(name) = body.keys().find(|name| !MEMBERS.contains(&name.as_str())) {
        return Err(format!("unknown parameter {name}"));
    }
    let messages = body.get("messages").and_then(Value::as_array);
    check_messages(messages.ok_or("messages is missing")?)?;
    for function in body
        .get("functions")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        let says = |name: &str| function[name].as_str().is_some_and(|text| !text.is_empty());
        if !says("name") || !says("description") || function["parameters"]["type"] != "object" {
            return Err(format!("functions: {function}"));
        }
    }
    let within = |name: &str, from: f64, to: f64| {
        let number = body.get(name).map(Value::as_f64);
        number.is_none_or(|number| number.is_some_and(|number| (from..=to).contains(&number)))
    };
    let stops = body.get("stop").and_then(Value::as_array);
    let short = |stop: &Value| stop.as_str().is_some_and(|stop| stop.chars().count() <= 20);
    for (is_right, name) in [
        (within("temperature", 1e-9, 1.0), "temperature"),
        (within("top_p", 0.0, 1.0), "top_p"),
        (
            within("max_output_tokens", 2.0, 2048.0),
            "max_output_tokens",
        ),
        (
            stops.is_none_or(|stops| stops.len() <= 4 && stops.iter().all(short)),
            "stop",
        ),
        (
            body.get("system")
                .is_none_or(|system| system.as_str() != Some("")),
            "system",
        ),
        (
            body.get("response_format")
                .is_none_or(|form| form == "json_object" || form == "text"),
            "response_format",
        ),
    ] {
        if !is_right {
            return Err(format!("{name} is invalid"));
        }
    }
    Ok(())
}

fn check_messages(messages: &[Value]) -> Result<(), String> {
    if messages.len().is_multiple_of(2) {
        return Err("the length of messages must be an odd number".to_owned());
    }
    let mut called = &Value::Null;
    for (number, message) in messages.iter().enumerate() {
        let (role, call) = (&message["role"], &message["function_call"]);
        let is_right = match number % 2 {
            1 => role == "assistant",
            _ if called.is_null() => role == "user",
            _ => role == "function" && message["name"] == *called,
        };
        if !is_right {
            return Err(format!(
                "messages[{number}]: the role {role} is not expected"
            ));
        }
        let is_blank = message["content"]
            .as_str()
            .is_none_or(|text| text.trim().is_empty());
        if is_blank && call.is_null() {
            return Err("message content can not be empty".to_owned());
        }
        let arguments = call["arguments"].as_str();
        let arguments =
            arguments.and_then(|text| serde_json::from_str::<Map<String, Value>>(text).ok());
        if !call.is_null()
            && (call["name"].as_str().is_none_or(str::is_empty) || arguments.is_none())
        {
            return Err("function_call's name can't be blank".to_owned());
        }
        called = &call["name"];
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_baidu_would_not_expect_is_refused() {
        let user = json!({"role": "user", "content": "hi"});
        let model = json!({"role": "assistant", "content": "hi"});
        let call = json!({"role": "assistant", "content": "", "function_call": {"name": "f", "arguments": "{}"}});
        let result = |name: &str| json!({"role": "function", "name": name, "content": "1"});
        let said = |body: Value| {
            check(body.as_object().expect("an object"))
                .err()
                .unwrap_or_default()
        };
        let good = json!({"messages": [user, call, result("f")], "temperature": 1.0, "stop": ["x"], "stream": true});
        assert_eq!(said(good), "");
        for (body, says) in [
            (json!({"messages": [user, model]}), "an odd number"),
            (json!({"messages": [user, user, user]}), "messages[1]"),
            (json!({"messages": [user, call, user]}), "messages[2]"),
            (
                json!({"messages": [user, call, result("g")]}),
                "messages[2]",
            ),
            (
                json!({"messages": [{"role": "user", "content": " "}]}),
                "can not be empty",
            ),
            (json!({"messages": [user], "temperature": 0}), "temperature"),
            (
                json!({"messages": [user], "max_output_tokens": 1}),
                "max_output_tokens",
            ),
            (
                json!({"messages": [user], "stop": ["a stop of more than twenty"]}),
                "stop",
            ),
            (
                json!({"messages": [user], "model": "m"}),
                "unknown parameter model",
            ),
            (
                json!({"messages": [user], "functions": [{"name": "f"}]}),
                "functions",
            ),
        ] {
            let found = said(body.clone());
            assert!(found.contains(says), "{body}: {found}");
        }
    }
}
