//! Callers of one dialect, served by platforms that speak another.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{
    clients::{Ask, claude_with, codex_with, gemini, google_works, node, python, qwen},
    harness::{Stack, caller::chat_body, run, sim::Seen, stack::CHAT_ALONE},
};

/// OpenAI's own client speaks chat completions, and a ChatGPT login speaks responses, in streams alone.
#[test]
fn the_openai_client_chats_with_a_chatgpt_login() {
    run(async {
        let stack = Stack::shared("clients").await;
        let caller = stack.caller("codex");
        let arguments = [&*caller.url(""), caller.key(), "gpt-6.1-sol"];
        let got = python("openai_translated.py", &arguments).await;
        let text = |name: &str| got[name].as_str().unwrap_or_default();
        for name in ["chat", "streamed", "after"] {
            assert!(text(name).starts_with("Hello from "), "{name}: {got}");
        }
        assert_eq!(
            (text("finish"), text("call_finish")),
            ("stop", "tool_calls"),
            "{got}"
        );
        assert_eq!(text("model"), "gpt-6.1-sol");
        assert!(
            got["usage"].as_u64() > Some(0) && got["streamed_usage"] == got["usage"],
            "{got}"
        );
        assert_eq!(got["call"], json!(["add", {"a": 1}]), "{got}");
        assert_eq!(got["call_in_stream"], json!({"a": 1}), "{got}");
        assert_eq!(got["refused"][0], "BadRequestError");
        assert_eq!(got["refused"][2], "latchkey_untranslatable");
        let says = got["refused"][3].as_str().unwrap_or_default();
        assert!(
            says.contains("messages[0].content[0].file.file_id"),
            "{says}"
        );

        let seen = stack.sim.seen().await;
        let translated = seen.iter().filter_map(|seen| {
            let body: Value = serde_json::from_slice(&seen.body()).ok()?;
            (body["instructions"] == "be brief").then_some((seen, body))
        });
        let translated: Vec<_> = translated.collect();
        assert!(translated.len() >= 2, "{translated:?}");
        for (seen, body) in translated {
            assert_eq!(seen.path(), "/backend-api/codex/responses");
            assert_eq!(
                (&body["stream"], &body["store"]),
                (&json!(true), &json!(false))
            );
            assert_eq!(body["input"][0]["content"][0]["text"], "hi");
            assert_eq!(body["temperature"], Value::Null, "the platform refuses it");
        }
        let mut body = chat_body(false);
        body["model"] = "gpt-6.1-sol".into();
        body["seed"] = 1.into();
        let answer = caller.post("/v1/chat/completions", &body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.header("x-latchkey-dropped"), Some("seed"));
        let body = json!({"model": "gpt-6.1-sol", "input": "hi"});
        let answer = caller.post("/v1/embeddings", &body).await;
        assert_eq!(
            answer.own_code(),
            Some("latchkey_path_not_in_pool"),
            "{answer:?}"
        );
        assert_eq!(stack.sim.count("refused_count").await, 0);
    });
}

/// Claude Code speaks messages. It calls a tool, here, and goes on with what that returns.
#[test]
fn claude_code_works_on_a_chatgpt_login() {
    run(async {
        let stack = Stack::shared("clients").await;
        let caller = stack.caller("codex");
        let home = stack.folder.join("claude-codex");
        let url = caller.url("");
        let ask = Ask {
            prompt: r#"use the tool Bash {"command": "echo translated", "description": "says so"}"#,
            ..Ask::new(&home, &url, caller.key())
        };
        let tools = ["--tools", "Bash", "--allowedTools", "Bash(echo:*)"];
        let arguments = [&["--model", "gpt-6.1-sol"][..], &tools].concat();
        let (printed, _) = claude_with(&ask, &arguments).await;
        assert!(printed.contains("Hello from "), "{printed}");
        let seen = stack.sim.seen().await;
        let outputs = seen.iter().filter(|seen| {
            let body = String::from_utf8_lossy(&seen.body()).into_owned();
            body.contains("function_call_output") && body.contains("translated")
        });
        assert!(
            outputs.count() > 0,
            "the tool's output went to the platform"
        );
        assert_eq!(stack.sim.count("refused_count").await, 0);
    });
}

/// Google's own clients, for Python and for JavaScript, read what becomes of an answer of responses.
#[test]
fn the_clients_of_google_are_answered_by_a_chatgpt_login() {
    run(async {
        let stack = Stack::shared("clients").await;
        let caller = stack.caller("codex");
        let arguments = [&*caller.url(""), caller.key(), "gpt-6.1-sol"];
        for got in [
            python("google_client.py", &arguments).await,
            node("google.mjs", &arguments).await,
        ] {
            google_works(&got, "gpt-6.1-sol");
            assert_eq!(got["refused"][0], 400, "{got}");
            assert_eq!(got["refused"][1], "INVALID_ARGUMENT");
            let says = got["refused"][2].as_str().unwrap_or_default();
            assert!(
                says.contains("contents[0].parts[0].fileData.file"),
                "{says}"
            );
        }
        assert_eq!(stack.sim.count("refused_count").await, 0);
    });
}

/// Gemini CLI and Qwen Code call a tool, here, and go on with what that returns.
#[test]
fn gemini_cli_and_qwen_code_work_on_a_chatgpt_login() {
    run(async {
        let stack = Stack::shared("clients").await;
        let caller = stack.caller("codex");
        for name in ["gemini-codex", "qwen-codex"] {
            let home = stack.folder.join(name);
            let is_gemini = name == "gemini-codex";
            let (base, prompt) = match is_gemini {
                true => ("", r#"use the tool list_directory {"dir_path": "."}"#),
                false => ("/v1", r#"use the tool glob {"pattern": "*"}"#),
            };
            let url = caller.url(base);
            let ask = Ask {
                prompt,
                ..Ask::new(&home, &url, caller.key())
            };
            let (printed, _) = match is_gemini {
                true => gemini(&ask, "gpt-6.1-sol").await,
                false => qwen(&ask, "gpt-6.1-sol").await,
            };
            assert!(printed.contains("Hello from "), "{name}: {printed}");
            let seen = stack.sim.seen().await;
            let outputs = seen.iter().filter(|seen| {
                let body = String::from_utf8_lossy(&seen.body()).into_owned();
                body.contains("function_call_output") && body.contains(name)
            });
            assert!(
                outputs.count() > 0,
                "{name}: the tool's output went to the platform"
            );
        }
        assert_eq!(stack.sim.count("refused_count").await, 0);
    });
}

/// A caller of messages at a platform that has Google's own door: the call that Claude Code makes keeps its signature, and
/// tokens are counted by Google, in its own words.
#[test]
fn claude_code_works_on_a_key_of_google() {
    run(async {
        let stack = Stack::shared("clients").await;
        let caller = stack.caller("gemini");
        let home = stack.folder.join("claude-gemini");
        let url = caller.url("");
        let ask = Ask {
            prompt: r#"use the tool Bash {"command": "echo for google", "description": "says so"}"#,
            ..Ask::new(&home, &url, caller.key())
        };
        let tools = ["--tools", "Bash", "--allowedTools", "Bash(echo:*)"];
        let arguments = [&["--model", "gemini-3.8-flash"][..], &tools].concat();
        let (printed, _) = claude_with(&ask, &arguments).await;
        assert!(printed.contains("Hello from gemini"), "{printed}");
        let seen = stack.sim.seen().await;
        let mut results = seen.iter().filter(|seen| {
            let body = String::from_utf8_lossy(&seen.body()).into_owned();
            body.contains("functionResponse") && body.contains("\"output\":\"for google")
        });
        let result = results
            .next_back()
            .expect("the tool's output went to the platform");
        let body: Value = serde_json::from_slice(&result.body()).expect("JSON");
        let parts = body["contents"][1]["parts"].as_array().expect("parts");
        assert!(
            parts
                .iter()
                .any(|part| part["thoughtSignature"].is_string()),
            "{body}"
        );
        let body = json!({"model": "gemini-3.8-flash", "messages": [{"role": "user", "content": "x".repeat(400)}]});
        let answer = caller.post("/v1/messages/count_tokens", &body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.header("x-latchkey-estimate"), None);
        assert_eq!(answer.json(), json!({"input_tokens": 31}), "Google counted");
        assert_eq!(stack.sim.count("refused_count").await, 0);
    });
}

/// Anthropic's own client reads what becomes of an answer of responses.
#[test]
fn the_anthropic_client_is_answered_by_a_chatgpt_login() {
    run(async {
        let stack = Stack::shared("clients").await;
        let caller = stack.caller("codex");
        let arguments = [&*caller.url(""), caller.key(), "gpt-6.1-sol"];
        let got = python("anthropic_translated.py", &arguments).await;
        let text = |name: &str| got[name].as_str().unwrap_or_default();
        for name in ["message", "streamed", "after"] {
            assert!(text(name).starts_with("Hello from "), "{name}: {got}");
        }
        assert_eq!(
            (text("stop"), text("call_stop")),
            ("end_turn", "tool_use"),
            "{got}"
        );
        assert_eq!(got["call"], json!(["add", {"a": 1}]), "{got}");
        assert_eq!(got["call_in_stream"], json!({"a": 1}), "{got}");
        assert!(
            got["usage"].as_u64() > Some(0) && got["streamed_usage"] == got["usage"],
            "{got}"
        );
        assert_eq!(
            got["refused"],
            json!(["BadRequestError", 400, "latchkey_untranslatable"])
        );
    });
}

/// Claude Code calls a tool, here, and goes on with what that returns, where the platform speaks chat completions.
#[test]
fn claude_code_works_on_a_platform_that_chats() {
    run(async {
        let stack = Stack::shared("clients").await;
        let caller = stack.caller(CHAT_ALONE);
        let home = stack.folder.join("claude-chat");
        let url = caller.url("");
        let ask = Ask {
            prompt: r#"use the tool Bash {"command": "echo chatted", "description": "says so"}"#,
            ..Ask::new(&home, &url, caller.key())
        };
        let tools = ["--tools", "Bash", "--allowedTools", "Bash(echo:*)"];
        let arguments = [&["--model", "gpt-5.6"][..], &tools].concat();
        let (printed, _) = claude_with(&ask, &arguments).await;
        assert!(printed.contains("Hello from "), "{printed}");
        let seen = stack.sim.seen().await;
        let results = seen.iter().filter(|seen| {
            let body: Value = serde_json::from_slice(&seen.body()).unwrap_or_default();
            let messages = body["messages"].as_array().into_iter().flatten();
            let mut results = messages.filter(|message| message["role"] == "tool");
            seen.path() == "/v1/chat/completions"
                && results.any(|result| {
                    result["content"]
                        .as_str()
                        .is_some_and(|said| said.contains("chatted"))
                })
        });
        assert!(
            results.count() > 0,
            "the tool's output went to the platform"
        );
        assert_eq!(stack.sim.count("refused_count").await, 0);
    });
}

/// OpenAI's own client reads what becomes of an answer of messages.
#[test]
fn the_openai_client_chats_with_claude() {
    run(async {
        let stack = Stack::shared("clients").await;
        let caller = stack.caller("anthropic");
        let arguments = [&*caller.url(""), caller.key(), "claude-opus-5-5"];
        let got = python("openai_translated.py", &arguments).await;
        let text = |name: &str| got[name].as_str().unwrap_or_default();
        for name in ["chat", "streamed", "after"] {
            assert!(text(name).starts_with("Hello from "), "{name}: {got}");
        }
        assert_eq!(
            (text("finish"), text("call_finish"), text("model")),
            ("stop", "tool_calls", "claude-opus-5-5"),
            "{got}"
        );
        assert!(
            got["usage"].as_u64() > Some(0) && got["streamed_usage"] == got["usage"],
            "{got}"
        );
        assert_eq!(got["call"], json!(["add", {"a": 1}]), "{got}");
        assert_eq!(got["call_in_stream"], json!({"a": 1}), "{got}");
        assert_eq!(got["refused"][2], "latchkey_untranslatable");
        let seen = stack.sim.seen().await;
        let ours = seen.iter().filter_map(|seen| {
            let body: Value = serde_json::from_slice(&seen.body()).ok()?;
            let is_ours = body["system"][0]["text"] == "be brief" && seen.path() == "/v1/messages";
            is_ours.then_some(body)
        });
        let ours: Vec<_> = ours.collect();
        assert!(ours.len() >= 2, "{ours:?}");
        for body in ours {
            assert_eq!(body["max_tokens"], 128_000);
            assert_eq!(body["cache_control"], json!({"type": "ephemeral"}));
            assert_eq!(body["temperature"], Value::Null, "the model refuses it");
        }
        assert_eq!(stack.sim.count("refused_count").await, 0);
    });
}

/// A picture of 20 MB goes through whole, in a request that is held and translated.
#[test]
fn a_long_body_is_translated_whole() {
    run(async {
        let stack = Stack::shared("clients").await;
        let caller = stack.caller("codex");
        let picture = |length| format!("data:image/png;base64,{}", "Q".repeat(length));
        let lengths = [400, 20_000_000];
        for length in lengths {
            let body = json!({"model": "gpt-6.1-sol", "messages": [{"role": "user", "content": [
                {"type": "text", "text": "a long picture"},
                {"type": "image_url", "image_url": {"url": picture(length)}},
            ]}]});
            let answer = caller.post("/v1/chat/completions", &body).await;
            assert_eq!(answer.status, 200, "{answer:?}");
        }
        let seen = stack.sim.seen().await;
        let is_ours =
            |seen: &&Seen| String::from_utf8_lossy(&seen.body()).contains("a long picture");
        let [short, long] = seen.iter().filter(is_ours).collect::<Vec<_>>()[..] else {
            panic!("not two requests");
        };
        // Those of the other one, but for the picture.
        let expected = String::from_utf8(short.body()).unwrap();
        let expected = expected.replace(&picture(lengths[0]), &picture(lengths[1]));
        let digest = format!("{:x}", Sha256::digest(&expected));
        assert_eq!(long.0["body_sha256"], *digest);
    });
}

/// Codex speaks responses. It runs a free-form tool of a namespace, here, and goes on with what that returns.
#[test]
fn codex_works_on_a_platform_that_speaks_chat_alone() {
    run(async {
        let stack = Stack::shared("clients").await;
        let caller = stack.caller(CHAT_ALONE);
        let home = stack.folder.join("codex-chat");
        let url = caller.url("/v1");
        let script = r#"const ran = await tools.exec_command({cmd: "echo trans" + "lated"}); text(ran.output);"#;
        let prompt = format!("use the tool functions__exec {}", json!({"input": script}));
        let ask = Ask {
            prompt: &prompt,
            ..Ask::new(&home, &url, caller.key())
        };
        let (printed, _) = codex_with(&ask, &["--sandbox", "danger-full-access"]).await;
        assert!(
            printed.contains(r#""aggregated_output":"translated\n""#),
            "{printed}"
        );
        assert!(
            printed.contains("Hello from ") && printed.contains("turn.completed"),
            "{printed}"
        );
        let seen = stack.sim.seen().await;
        let results = seen.iter().filter(|seen| {
            let body: Value = serde_json::from_slice(&seen.body()).unwrap_or_default();
            let last = body["messages"].as_array().and_then(|all| all.last());
            last.is_some_and(|last| {
                last["role"] == "tool" && last.to_string().contains("translated")
            })
        });
        assert!(
            results.count() > 0,
            "what the tool returned went to the platform"
        );
        assert_eq!(stack.sim.count("refused_count").await, 0);
    });
}

/// OpenAI's own client checks the grammar of a stream of responses as it reads it.
#[test]
fn the_openai_client_has_responses_of_a_platform_that_speaks_chat_alone() {
    run(async {
        let stack = Stack::shared("clients").await;
        let caller = stack.caller(CHAT_ALONE);
        let arguments = [&*caller.url(""), caller.key(), "gpt-6.1-sol"];
        let got = python("responses_translated.py", &arguments).await;
        let text = |name: &str| got[name].as_str().unwrap_or_default();
        for name in ["response", "streamed", "after"] {
            assert!(text(name).starts_with("Hello from "), "{name}: {got}");
        }
        assert_eq!(
            (text("status"), text("model")),
            ("completed", "gpt-6.1-sol"),
            "{got}"
        );
        assert!(
            got["usage"].as_u64() > Some(0) && got["streamed_usage"] == got["usage"],
            "{got}"
        );
        assert_eq!(got["call"], json!(["add", {"a": 1}]), "{got}");
        assert_eq!(got["note"], json!(["note", "two\nlines"]), "{got}");
        assert_eq!(got["refused"][1], "latchkey_untranslatable", "{got}");
    });
}

/// A request goes from platform to platform before its first byte, translated anew for each. Its caller notices nothing.
#[test]
fn a_request_fails_over_from_dialect_to_dialect() {
    run(async {
        let stack = Stack::start("translated-failover").await;
        let caller = stack.caller("all");
        let messages = json!([{"role": "user", "content": "over to the next"}]);
        let chat = json!({"model": "claude-opus-5-5", "stream": true, "messages": messages});
        let mut message = chat.clone();
        message["model"] = "gpt-6.1-sol".into();
        message["max_tokens"] = 99.into();
        for (name, status, path, body, end, served_at) in [
            (
                "openai-key",
                503,
                "/v1/chat/completions",
                &chat,
                "data: [DONE]\n\n",
                "/v1/messages",
            ),
            (
                "anthropic-key",
                529,
                "/v1/messages",
                &message,
                "{\"type\":\"message_stop\"}\n\n",
                "/backend-api/codex/responses",
            ),
        ] {
            let fault =
                json!({"target": "upstream", "account": name, "status": status, "body": ""});
            stack.sim.add_fault(fault).await;
            let answer = caller.post(path, body).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            assert!(answer.body.contains("Hello"), "{answer:?}");
            assert!(answer.body.ends_with(end), "{answer:?}");
            let seen = stack.sim.seen().await;
            let is_ours =
                |seen: &&Seen| String::from_utf8_lossy(&seen.body()).contains("over to the next");
            let paths: Vec<&str> = seen.iter().filter(is_ours).map(Seen::path).collect();
            assert!(paths.contains(&path), "{paths:?}");
            assert_eq!(paths.last(), Some(&served_at), "{paths:?}");
        }
    });
}
