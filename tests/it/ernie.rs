//! The first version of Baidu's chat, which no caller speaks: an account of an application's own client serves callers of
//! every dialect. The simulated platform refuses what Baidu's documentation does not have.

use std::{fs, time::Duration};

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{
    Caller, Stack, eventually, holds, refresher::Refresher, run, sim::Sim, stack::ALICE,
};

const HOUR: Duration = Duration::from_secs(3600);
const LIMIT: Duration = Duration::from_secs(15);
const CLIENT: &str = "baidu-api-key";
const SECRET: &str = "baidu-secret-key";
const TOKEN: &str = "/oauth/2.0/token";
const CHAT: &str = "/rpc/2.0/ai_custom/v1/wenxinworkshop/chat/completions_pro";
const WISH: &str = "use the tool get_weather {\"city\": \"Rome\"}";

/// A stack with the account `ernie`, and what `more` adds.
async fn stack(name: &str, more: impl AsyncFnOnce(&Sim, &Refresher)) -> Stack<Refresher> {
    Stack::real(name, async |sim, refresher| {
        let ca_file = sim.platforms_dir.parent().expect("a folder").join("ca.pem");
        let (base, ca_file) = (format!("https://{}", sim.authority()), ca_file.display());
        let text = format!(
            "[upstream]\nbase_url = '{base}'\nca_file = '{ca_file}'\n\
             [oauth]\ntoken_url = '{base}{TOKEN}'\nca_file = '{ca_file}'\n"
        );
        fs::write(sim.platforms_dir.join("ernie-v1.toml"), text).expect("written");
        sim.add_user(ALICE, HOUR).await;
        let client = json!({"client_id": CLIENT, "client_secret": SECRET, "email": ALICE});
        sim.ask(Method::POST, "/clients", client).await;
        let login = [
            "login",
            "ernie-v1",
            "--client-id",
            CLIENT,
            "--name",
            "ernie",
        ];
        let wrong = refresher.try_run(&login, "another-secret").await;
        let words = String::from_utf8_lossy(&wrong.stderr).into_owned();
        assert!(
            !wrong.status.success() && words.contains("invalid_client"),
            "{words}"
        );
        refresher.run(&login, SECRET).await;
        more(sim, refresher).await;
    })
    .await
}

/// A dialect, as its callers speak it.
struct Speaks {
    path: &'static str,
    /// Where a stream is asked for.
    stream_path: &'static str,
    /// The request of a user who says this, with a tool.
    asks: fn(&str, bool) -> Value,
    /// The text of an answer, or of an event of one.
    text: fn(&Value) -> &Value,
    /// The call in an answer: its name and its arguments.
    call: fn(&Value) -> (Value, Value),
    /// The request after that answer, with the call's result.
    goes_on: fn(Value, &Value) -> Value,
}

fn schema() -> Value {
    json!({"type": "object", "properties": {"city": {"type": "string"}}})
}

const SPEAKS: [Speaks; 4] = [
    Speaks {
        path: "/v1/chat/completions",
        stream_path: "/v1/chat/completions",
        asks: |says, stream| {
            let function = json!({"name": "get_weather", "parameters": schema()});
            json!({
                "model": "completions_pro", "stream": stream, "temperature": 0, "seed": 7,
                "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": says}],
                "tools": [{"type": "function", "function": function}],
            })
        },
        text: |answer| match answer["choices"][0].get("message") {
            Some(message) => &message["content"],
            None => &answer["choices"][0]["delta"]["content"],
        },
        call: |answer| {
            let function = &answer["choices"][0]["message"]["tool_calls"][0]["function"];
            let arguments = function["arguments"].as_str().unwrap_or_default();
            (
                function["name"].clone(),
                serde_json::from_str(arguments).unwrap_or_default(),
            )
        },
        goes_on: |mut request, answer| {
            let message = answer["choices"][0]["message"].clone();
            let id = message["tool_calls"][0]["id"].clone();
            let messages = request["messages"].as_array_mut().expect("messages");
            messages.extend([
                message,
                json!({"role": "tool", "tool_call_id": id, "content": "sunny"}),
            ]);
            request
        },
    },
    Speaks {
        path: "/v1/responses",
        stream_path: "/v1/responses",
        asks: |says, stream| {
            let tool = json!({"type": "function", "name": "get_weather", "parameters": schema()});
            json!({
                "model": "completions_pro", "stream": stream, "instructions": "be brief", "tools": [tool],
                "input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": says}]}],
            })
        },
        text: |answer| match answer["type"].as_str() {
            Some("response.output_text.delta") => &answer["delta"],
            Some(_) => &Value::Null,
            None => &answer["output"][0]["content"][0]["text"],
        },
        call: |answer| {
            let call = call_of_response(answer);
            let arguments = call["arguments"].as_str().unwrap_or_default();
            (
                call["name"].clone(),
                serde_json::from_str(arguments).unwrap_or_default(),
            )
        },
        goes_on: |mut request, answer| {
            let id = call_of_response(answer)["call_id"].clone();
            let output = answer["output"].as_array().expect("output").clone();
            let input = request["input"].as_array_mut().expect("input");
            input.extend(output);
            input.push(json!({"type": "function_call_output", "call_id": id, "output": "sunny"}));
            request
        },
    },
    Speaks {
        path: "/v1/messages",
        stream_path: "/v1/messages",
        asks: |says, stream| {
            json!({
                "model": "completions_pro", "stream": stream, "max_tokens": 4096, "system": "be brief",
                "messages": [{"role": "user", "content": says}],
                "tools": [{"name": "get_weather", "input_schema": schema()}],
            })
        },
        text: |answer| match answer.get("content") {
            Some(content) => &content[0]["text"],
            None => &answer["delta"]["text"],
        },
        call: |answer| {
            let call = call_of_message(answer);
            (call["name"].clone(), call["input"].clone())
        },
        goes_on: |mut request, answer| {
            let id = call_of_message(answer)["id"].clone();
            let result = json!({"type": "tool_result", "tool_use_id": id, "content": "sunny"});
            let messages = request["messages"].as_array_mut().expect("messages");
            messages.extend([
                json!({"role": "assistant", "content": answer["content"]}),
                json!({"role": "user", "content": [result]}),
            ]);
            request
        },
    },
    Speaks {
        path: "/v1beta/models/completions_pro:generateContent",
        stream_path: "/v1beta/models/completions_pro:streamGenerateContent?alt=sse",
        asks: |says, _| {
            json!({
                "systemInstruction": {"parts": [{"text": "be brief"}]},
                "contents": [{"role": "user", "parts": [{"text": says}]}],
                "tools": [{"functionDeclarations": [{"name": "get_weather", "parametersJsonSchema": schema()}]}],
            })
        },
        text: |answer| &answer["candidates"][0]["content"]["parts"][0]["text"],
        call: |answer| {
            let parts = answer["candidates"][0]["content"]["parts"]
                .as_array()
                .expect("parts");
            let mut calls = parts.iter().filter_map(|part| part.get("functionCall"));
            let call = calls.next().unwrap_or(&Value::Null);
            (call["name"].clone(), call["args"].clone())
        },
        goes_on: |mut request, answer| {
            let result = json!({"name": "get_weather", "response": {"output": "sunny"}});
            let contents = request["contents"].as_array_mut().expect("contents");
            contents.extend([
                answer["candidates"][0]["content"].clone(),
                json!({"role": "user", "parts": [{"functionResponse": result}]}),
            ]);
            request
        },
    },
];

fn call_of_response(answer: &Value) -> &Value {
    let items = answer["output"].as_array().expect("output");
    let mut calls = items.iter().filter(|item| item["type"] == "function_call");
    calls.next().unwrap_or(&Value::Null)
}

fn call_of_message(answer: &Value) -> &Value {
    let blocks = answer["content"].as_array().expect("content");
    let mut calls = blocks.iter().filter(|block| block["type"] == "tool_use");
    calls.next().unwrap_or(&Value::Null)
}

impl Speaks {
    /// The text that the user is answered.
    async fn hears(&self, caller: &Caller, says: &str, stream: bool) -> String {
        let path = if stream { self.stream_path } else { self.path };
        let answer = caller.post(path, &(self.asks)(says, stream)).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        if !stream {
            return (self.text)(&answer.json())
                .as_str()
                .unwrap_or_default()
                .to_owned();
        }
        let data = answer
            .body
            .lines()
            .filter_map(|line| line.strip_prefix("data: "));
        let events = data.filter_map(|data| serde_json::from_str::<Value>(data).ok());
        let texts = events.filter_map(|event| Some((self.text)(&event).as_str()?.to_owned()));
        texts.collect()
    }
}

/// The last chat at the platform: its body, of which path, query and headers are as Baidu has them.
async fn last_chat(sim: &Sim) -> Value {
    let seen = sim.seen().await;
    let chat = seen
        .iter()
        .rfind(|seen| seen.path().starts_with(CHAT))
        .expect("a chat");
    let (path, query) = chat.path().split_once('?').expect("a query");
    assert_eq!(path, CHAT);
    assert!(
        query.starts_with("access_token=") && !query.contains('&'),
        "{query}"
    );
    assert_eq!(chat.header("authorization"), [""; 0]);
    serde_json::from_slice(&chat.body()).expect("JSON")
}

#[test]
fn an_application_at_baidu_serves_callers_of_every_dialect() {
    run(async {
        let stack = stack("ernie", async |_, _| {}).await;
        let caller = stack.caller("caller").await;
        let bought = stack.sim.seen().await;
        let bought = bought
            .iter()
            .rfind(|seen| seen.path().starts_with(TOKEN))
            .expect("a purchase");
        let query = format!(
            "{TOKEN}?grant_type=client_credentials&client_id={CLIENT}&client_secret={SECRET}"
        );
        let sorted = |path: &str| {
            let mut parts: Vec<String> = path.split(['?', '&']).map(str::to_owned).collect();
            parts.sort();
            parts
        };
        assert_eq!(sorted(bought.path()), sorted(&query));
        assert!(bought.body().is_empty());
        for speaks in &SPEAKS {
            for stream in [false, true] {
                let heard = speaks.hears(&caller, "hi", stream).await;
                assert_eq!(
                    heard,
                    format!("Hello from {ALICE}: you said hi"),
                    "{} {stream}",
                    speaks.path
                );
            }
            let request = (speaks.asks)(WISH, false);
            let called = caller.post(speaks.path, &request).await.json();
            let expected = (json!("get_weather"), json!({"city": "Rome"}));
            assert_eq!((speaks.call)(&called), expected, "{called}");
            let second = (speaks.goes_on)(request, &called);
            let answer = caller.post(speaks.path, &second).await;
            let text = (speaks.text)(&answer.json()).clone();
            assert!(
                text.as_str().is_some_and(|text| text.contains(WISH)),
                "{answer:?}"
            );
            let body = last_chat(&stack.sim).await;
            assert_eq!(
                (&body["system"], body.get("model")),
                (&json!("be brief"), None)
            );
            let turns = body["messages"].as_array().expect("messages");
            assert_eq!((turns.len(), &turns[0]["content"]), (3, &json!(WISH)));
            assert_eq!(turns[1]["function_call"]["name"], "get_weather");
            assert_eq!(
                (&turns[2]["role"], &turns[2]["name"]),
                (&json!("function"), &json!("get_weather"))
            );
            assert!(
                turns[2]["content"]
                    .as_str()
                    .is_some_and(|text| text.contains("sunny")),
                "{body}"
            );
            let function = json!({"name": "get_weather", "description": "get_weather", "parameters": schema()});
            assert_eq!(body["functions"], json!([function]));
        }
        let chat = &SPEAKS[0];
        let answer = caller.post(chat.path, &(chat.asks)("hi", false)).await;
        assert_eq!(answer.header("x-latchkey-dropped"), Some("seed"));
        let usage = answer.json()["usage"].take();
        assert_eq!(
            (&usage["prompt_tokens"], &usage["completion_tokens"]),
            (&json!(1), &json!(6))
        );
        assert_eq!(last_chat(&stack.sim).await["temperature"], 0.01);
        // What Baidu refuses is the caller's own fault, in the caller's form.
        let fault = json!({
            "target": "upstream", "path": CHAT, "status": 200, "times": 1,
            "body": {"error_code": 336_103, "error_msg": "Prompt tokens too long", "id": "as-1"},
        });
        stack.sim.add_fault(fault).await;
        let answer = caller.post(chat.path, &(chat.asks)("hi", false)).await;
        let error = answer.json()["error"].take();
        assert_eq!(
            (answer.status, &error["code"]),
            (400, &json!("context_length_exceeded"))
        );
        assert_eq!(error["message"], "Prompt tokens too long");
        // A stream that says no end has none.
        let event = json!({"id": "as-1", "sentence_id": 0, "is_end": false, "result": "Hi", "finish_reason": "normal"});
        let cut = json!({
            "target": "upstream", "path": CHAT, "times": 1, "status": 200, "body": format!("data: {event}\n\n"),
            "headers": {"content-type": "text/event-stream"},
        });
        stack.sim.add_fault(cut).await;
        let answer = caller.post(chat.path, &(chat.asks)("hi", true)).await;
        assert!(
            answer.body.contains("\"error\"") && !answer.body.contains("[DONE]"),
            "{answer:?}"
        );
    });
}

/// An error that says inside of HTTP 200 that the token has ended has a new one bought, and no caller hears of it.
#[test]
fn a_token_that_baidu_refuses_inside_of_200_is_bought_anew_unnoticed() {
    run(async {
        let stack = stack("ernie-token", async |_, _| {}).await;
        let caller = stack.caller("caller").await;
        for (speaks, stream, action) in [
            (&SPEAKS[0], false, "revoke_access"),
            (&SPEAKS[2], true, "expire_access"),
        ] {
            let before = stack.refresher.account("ernie").await["generation"].clone();
            speaks.hears(&caller, "hi", stream).await;
            let (minted, taken) = (
                stack.sim.count("minted").await,
                stack.sim.count("requests").await,
            );
            stack
                .sim
                .ask(
                    Method::POST,
                    &format!("/users/{ALICE}/{action}"),
                    Value::Null,
                )
                .await;
            let heard = speaks.hears(&caller, "hi", stream).await;
            assert_eq!(
                heard,
                format!("Hello from {ALICE}: you said hi"),
                "{action}"
            );
            assert_eq!(stack.sim.count("minted").await, minted + 1, "{action}");
            assert_eq!(
                stack.sim.count("requests").await,
                taken + 2,
                "{action}: refused, and once more"
            );
            eventually("the account is in use", LIMIT, async || {
                let account = stack.refresher.account("ernie").await;
                let renewed = account["generation"].as_u64() > before.as_u64();
                holds(renewed && account["status"] == "active", || {
                    account.to_string()
                })
            })
            .await;
        }
    });
}

/// The requests of a second are used up: an account of another dialect answers.
#[test]
fn a_limit_inside_of_200_leads_to_an_account_of_another_dialect() {
    run(async {
        let stack = stack("ernie-limit", async |sim, refresher| {
            sim.add_api_key("openai", "sk-openai", "openai-key").await;
            refresher.add_api_key("other", "openai", "sk-openai").await;
            let behind = ["pools", "add", "default", "other", "--tier", "1"];
            refresher.run(&behind, "").await;
        })
        .await;
        let caller = stack.caller("caller").await;
        for speaks in &SPEAKS[..2] {
            let fault = json!({
                "target": "upstream", "path": CHAT, "status": 200,
                "body": {"error_code": 18, "error_msg": "Open api qps request limit reached"},
            });
            let fault = stack.sim.add_fault(fault).await;
            for stream in [true, false] {
                let heard = speaks.hears(&caller, "hi", stream).await;
                assert_eq!(
                    heard, "Hello from openai-key: you said hi",
                    "{} {stream}",
                    speaks.path
                );
            }
            stack.sim.remove_fault(fault).await;
        }
        let account = stack.refresher.account("ernie").await;
        assert_eq!(account["status"], "active", "{account}");
    });
}
