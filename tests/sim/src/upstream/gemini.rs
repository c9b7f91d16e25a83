//! Google's `generateContent`, as far as clients that call tools need it. It refuses what the real one would not expect: turns
//! that are not taken in turn, results that are not those of the calls before them, a call that lost its signature.

use http::{Request, StatusCode, uri::Uri};
use hyper::body::Bytes;
use serde_json::{Value, json};

use super::{in_schema, tools};
use crate::{
    answer::Answer,
    documented::MODEL,
    fixtures::{Fill, pieces},
};

/// The signature of every first call.
const SIGNATURE: &str = "c2lnbmVk";

/// What stands for one that was lost.
const LOST: &str = "skip_thought_signature_validator";

/// A request for a model that answers, and that model: the request as its documented form has it, for the model of that, without
/// a body. None for any other request.
pub fn asked(platform: &str, request: &Request<Bytes>) -> Option<(Request<Bytes>, String)> {
    let target = request.uri().path_and_query()?.as_str();
    let target = target
        .strip_prefix("/v1beta/models/")
        .filter(|_| platform == "gemini")?;
    let (model, verb) = target.split_once(':')?;
    if model == MODEL {
        return None;
    }
    let mut form = Request::new(Bytes::from_static(br#"{"contents":[]}"#));
    *form.method_mut() = request.method().clone();
    *form.headers_mut() = request.headers().clone();
    let mut parts = request.uri().clone().into_parts();
    parts.path_and_query = Some(format!("/v1beta/models/{MODEL}:{verb}").parse().ok()?);
    *form.uri_mut() = Uri::from_parts(parts).ok()?;
    Some((form, model.to_owned()))
}

/// The count of the tokens of a request to `model`, which has the model once more where it stands in one more object.
pub fn counted(model: &str, body: &[u8], count: Answer) -> Answer {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let within = body.get("generateContentRequest");
    let names_it = within.is_none_or(|within| within["model"] == format!("models/{model}"));
    if names_it && within.unwrap_or(&body)["contents"].is_array() {
        return count;
    }
    let error = json!({"code": 400, "message": "no contents, or another model", "status": "INVALID_ARGUMENT"});
    Answer::json(StatusCode::BAD_REQUEST, json!({"error": error}).to_string())
}

/// The answer of `model`.
pub fn answer(model: &str, streams: bool, body: &[u8], fill: &Fill) -> Answer {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    if let Err(wrong) = check(&body, model) {
        let error = json!({"code": 400, "message": wrong, "status": "INVALID_ARGUMENT"});
        return Answer::json(StatusCode::BAD_REQUEST, json!({"error": error}).to_string());
    }
    let text = format!("{}{}", fill.text, said(&body).unwrap_or_default());
    let config = &body["generationConfig"];
    let has_schema = ["responseJsonSchema", "responseSchema"].map(|name| config[name].is_object());
    let text = if has_schema.contains(&true) {
        in_schema(&text)
    } else {
        text
    };
    let usage = json!({
        "promptTokenCount": fill.input_tokens, "candidatesTokenCount": fill.output_tokens,
        "totalTokenCount": fill.input_tokens + fill.output_tokens,
    });
    let element = |part: Value, is_last: bool| {
        let content = json!({"role": "model", "parts": [part]});
        let mut element = json!({"candidates": [{"content": content, "index": 0}], "modelVersion": model, "responseId": fill.id});
        if is_last {
            element["candidates"][0]["finishReason"] = "STOP".into();
            element["usageMetadata"] = usage.clone();
        }
        element
    };
    let call = wished(&body).map(|(name, args)| {
        let call = json!({"id": format!("call-{}", fill.id), "name": name, "args": args});
        json!({"functionCall": call, "thoughtSignature": SIGNATURE})
    });
    if !streams {
        let part = call.unwrap_or_else(|| json!({ "text": text }));
        return Answer::json(StatusCode::OK, element(part, true).to_string());
    }
    let mut parts = match call {
        Some(call) => vec![call],
        None => pieces(&text, fill.pieces)
            .map(|piece| json!({ "text": piece }))
            .collect(),
    };
    parts.push(json!({"text": ""}));
    let last = parts.len() - 1;
    let events = parts.into_iter().enumerate();
    let events = events.map(|(at, part)| format!("data: {}\r\n\r\n", element(part, at == last)));
    Answer::events(events.collect())
}

/// The last text of the user.
fn said(body: &Value) -> Option<&str> {
    let mut parts = body["contents"].as_array()?.last()?["parts"]
        .as_array()?
        .iter()
        .rev();
    parts.find_map(|part| part["text"].as_str())
}

/// The tool that the user wishes and that the request has, and its arguments.
fn wished(body: &Value) -> Option<(&str, Value)> {
    let tools = body["tools"].as_array()?.iter();
    let functions = tools.filter_map(|tool| tool["functionDeclarations"].as_array());
    let mut names = functions.flatten().filter_map(|one| one["name"].as_str());
    tools::wish(said(body)?, |name| names.any(|one| one == name))
}

fn check(body: &Value, model: &str) -> Result<(), String> {
    let contents = body["contents"].as_array().ok_or("contents is missing")?;
    let mut calls: Vec<(&Value, &Value)> = Vec::new();
    let mut last = "model";
    for (at, content) in contents.iter().enumerate() {
        // Google's own clients keep the pieces of a stream as so many contents of the model.
        let expected = match last {
            "user" => "model",
            _ if at == 0 || content["role"] != "model" => "user",
            _ => "model",
        };
        if content["role"] != expected {
            return Err(format!("contents[{at}]: expected the {expected}"));
        }
        let parts = content["parts"].as_array().ok_or("parts is missing")?;
        let named = |member: &str| -> Vec<(&Value, &Value)> {
            let found = parts.iter().filter_map(|part| part.get(member));
            found.map(|one| (&one["id"], &one["name"])).collect()
        };
        if expected == "user" {
            if named("functionResponse") != calls {
                return Err(format!("contents[{at}]: expected the results of {calls:?}"));
            }
            calls.clear();
        }
        last = expected;
        calls.extend(named("functionCall"));
        let first = parts.iter().find(|part| part.get("functionCall").is_some());
        let signature = first.map(|call| call["thoughtSignature"].as_str().unwrap_or_default());
        if model.starts_with("gemini-3")
            && signature.is_some_and(|one| one != SIGNATURE && one != LOST)
        {
            return Err(format!(
                "contents[{at}]: a call is missing a thought_signature"
            ));
        }
    }
    match last {
        "user" => Ok(()),
        _ => Err("contents: expected the user at the end".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_google_would_not_expect_is_refused() {
        let user = json!({"role": "user", "parts": [{"text": "hi"}]});
        let call = |signature: &str| json!({"role": "model", "parts": [{"functionCall": {"id": "c", "name": "f"}, "thoughtSignature": signature}]});
        let result = |name: &str| json!({"role": "user", "parts": [{"functionResponse": {"id": "c", "name": name}}]});
        let said = |contents: Value| {
            check(&json!({ "contents": contents }), "gemini-3.8-flash")
                .err()
                .unwrap_or_default()
        };
        assert_eq!(said(json!([user, call(SIGNATURE), result("f")])), "");
        assert_eq!(said(json!([user, call(LOST), result("f")])), "");
        for (contents, says) in [
            (json!([user, user]), "expected the model"),
            (
                json!([user, call(SIGNATURE)]),
                "expected the user at the end",
            ),
            (json!([user, call(SIGNATURE), user]), "expected the results"),
            (
                json!([user, call(SIGNATURE), result("g")]),
                "expected the results",
            ),
            (json!([user, call(""), result("f")]), "thought_signature"),
        ] {
            assert!(said(contents.clone()).contains(says), "{contents}");
        }
    }
}
