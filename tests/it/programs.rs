//! The programs that people start, on accounts of every other dialect than their own: each calls a tool, here, goes on with what
//! that returns, and then the same conversation has a second turn. One pair a program is in every run, the others in `make long`.

use serde_json::{Value, json};

use crate::{
    clients::{Ask, claude_with, codex_with, gemini, qwen},
    harness::{
        Stack, records, run,
        stack::{ANTHROPIC, CHAT_ALONE, GEMINI_ALONE, client_key},
    },
};

/// A program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Program {
    ClaudeCode,
    Codex,
    GeminiCli,
    QwenCode,
}

/// What a platform is asked, and what it has to be told of a tool.
#[derive(Debug, Clone, Copy)]
struct Platform {
    /// The pool with an account of it.
    pool: &'static str,
    model: &'static str,
    /// What the path of a question in its dialect has.
    path: &'static str,
    /// What stands in a body before the result of a tool.
    result: &'static str,
}

const RESPONSES: Platform = Platform {
    pool: "codex",
    model: "gpt-6.1-sol",
    path: "/codex/responses",
    result: "function_call_output",
};

const CHAT: Platform = Platform {
    pool: CHAT_ALONE,
    model: "gpt-6.1-sol",
    path: "/v1/chat/completions",
    result: "\"role\":\"tool\"",
};

const MESSAGES: Platform = Platform {
    pool: "anthropic",
    model: "claude-opus-5-5",
    path: "/v1/messages",
    result: "tool_result",
};

const GOOGLE: Platform = Platform {
    pool: GEMINI_ALONE,
    model: "gemini-3.8-flash",
    path: ":streamGenerateContent",
    result: "functionResponse",
};

impl Program {
    /// A wish for its tool that runs commands, which prints `{mark}{mark}`.
    fn wish(self, mark: &str) -> String {
        let command = format!("echo {mark}\"\"{mark}");
        let (tool, arguments) = match self {
            Self::ClaudeCode => (
                "Bash",
                json!({"command": command, "description": "says so"}),
            ),
            Self::Codex => {
                let script = format!(
                    "const ran = await tools.exec_command({{cmd: \"echo {mark}\" + \"{mark}\"}}); text(ran.output);"
                );
                ("functions__exec", json!({ "input": script }))
            }
            Self::GeminiCli => (
                "run_shell_command",
                json!({"command": command, "description": "says so"}),
            ),
            Self::QwenCode => (
                "run_shell_command",
                json!({"command": command, "description": "says so", "is_background": false}),
            ),
        };
        format!("use the tool {tool} {arguments}")
    }

    /// What it prints of a turn: the first of a conversation, or the one after that.
    async fn prints(self, ask: &Ask<'_>, model: &str, goes_on: bool) -> String {
        let with = |more: &'static [&'static str]| if goes_on { more } else { &[] };
        let (printed, _) = match self {
            Self::ClaudeCode => {
                let tools = ["--tools", "Bash", "--allowedTools", "Bash(echo:*)"];
                let options = [&["--model", model][..], &tools, with(&["--continue"])].concat();
                claude_with(ask, &options).await
            }
            Self::Codex => {
                let options = ["--sandbox", "danger-full-access"];
                codex_with(ask, &options, with(&["resume", "--last"])).await
            }
            Self::GeminiCli => {
                let options = [&["-m", model][..], with(&["--resume", "latest"])].concat();
                gemini(ask, &options).await
            }
            Self::QwenCode => {
                let options = [&["-m", model][..], with(&["--continue"])].concat();
                qwen(ask, &options).await
            }
        };
        printed
    }

    /// The base URL that it wants.
    fn base(self) -> &'static str {
        match self {
            Self::ClaudeCode | Self::GeminiCli => "",
            Self::Codex | Self::QwenCode => "/v1",
        }
    }
}

/// The pool in which Codex has the model that it knows, whatever serves it.
fn mapped(platform: Platform) -> (String, String) {
    let account = match platform.pool {
        "anthropic" => ANTHROPIC,
        pool => pool,
    };
    let pool = format!("codex_on_{}", platform.pool);
    let maps = json!([format!("gpt-6.1-sol={}", platform.model)]);
    let members = json!([{"account": account}]);
    let record =
        json!({"pool": {"id": pool, "policy": "sticky", "members": members, "maps": maps}});
    (pool, record.to_string())
}

/// Has `program` call its tool and answer twice, and returns the bodies that the platform was asked with in its turn after the call
/// and in the second turn of the user.
async fn works(program: Program, platform: Platform) -> [String; 2] {
    let stack = Stack::shared("clients").await;
    let name = format!("{program:?}-{}", platform.pool);
    let pool = match program {
        Program::Codex if platform.model != "gpt-6.1-sol" => {
            let (pool, record) = mapped(platform);
            let key = records::key(&format!("key_{pool}"), &client_key(&pool), &pool);
            let revision = stack.refresher.publish([record, key]);
            stack.reaches(revision).await;
            pool
        }
        _ => platform.pool.to_owned(),
    };
    let caller = stack.caller(&pool);
    let (home, url) = (stack.folder.join(&name), caller.url(program.base()));
    let mark = name.to_lowercase().replace(['-', '_'], "");
    let wish = program.wish(&mark);
    let first = Ask {
        prompt: &wish,
        ends_well: true,
        ..Ask::new(&home, &url, caller.key())
    };
    let printed = program.prints(&first, platform.model, false).await;
    assert!(printed.contains("Hello from "), "{name}: {printed}");
    let second = Ask {
        prompt: "and once more",
        ..first.clone()
    };
    let again = program.prints(&second, platform.model, true).await;
    assert!(again.contains("Hello from "), "{name}: {again}");

    let ran = mark.repeat(2);
    let seen = stack.sim.seen().await;
    let asked = seen
        .iter()
        .filter(|seen| seen.path().contains(platform.path));
    let bodies = asked.map(|seen| String::from_utf8_lossy(&seen.body()).into_owned());
    let told: Vec<String> = bodies
        .filter(|body| body.contains(&ran) && body.contains(platform.result))
        .collect();
    let of = |goes_on: bool| {
        let mut all = told.iter();
        let body = all.find(|body| body.contains("and once more") == goes_on);
        let body =
            body.unwrap_or_else(|| panic!("{name}: {goes_on}: {printed}\n{again}\n{told:?}"));
        body.clone()
    };
    let bodies = [of(false), of(true)];
    assert_eq!(stack.sim.count("refused_count").await, 0);
    bodies
}

/// The signatures of calls in a request of Google's, in order; empty for a call without one.
fn signatures(body: &str) -> Vec<String> {
    let body: Value = serde_json::from_str(body).expect("JSON");
    let contents = body["contents"].as_array().expect("contents").iter();
    let parts = contents.filter_map(|content| content["parts"].as_array());
    let calls = parts
        .flatten()
        .filter(|part| part.get("functionCall").is_some());
    calls
        .map(|call| {
            call["thoughtSignature"]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        })
        .collect()
}

/// What the simulated Google signs every first call with.
const SIGNED: &str = "c2lnbmVk";

/// The signature of its call goes back to Google, in every later turn too; and Google counts its tokens.
#[test]
fn claude_code_works_on_a_key_of_google() {
    run(async {
        for body in works(Program::ClaudeCode, GOOGLE).await {
            assert_eq!(signatures(&body), [SIGNED], "{body}");
        }
        let stack = Stack::shared("clients").await;
        let body = json!({"model": GOOGLE.model, "messages": [{"role": "user", "content": "x".repeat(400)}]});
        let caller = stack.caller(GOOGLE.pool);
        let answer = caller.post("/v1/messages/count_tokens", &body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.header("x-latchkey-estimate"), None);
        assert_eq!(answer.json(), json!({"input_tokens": 31}), "Google counted");
    });
}

/// A pool serves the model that Codex knows by one of Claude's; its free-form tool of a namespace is a function there.
#[test]
fn codex_works_on_claude() {
    run(async {
        works(Program::Codex, MESSAGES).await;
    });
}

#[test]
fn gemini_cli_works_on_a_platform_that_speaks_chat_alone() {
    run(async {
        works(Program::GeminiCli, CHAT).await;
    });
}

#[test]
fn qwen_code_works_on_claude() {
    run(async {
        works(Program::QwenCode, MESSAGES).await;
    });
}

/// The other pairs. Each start of a program takes seconds.
mod long {
    use super::*;

    #[test]
    #[ignore = "a minute"]
    fn claude_code_works_on_every_other_dialect() {
        run(async {
            works(Program::ClaudeCode, RESPONSES).await;
            works(Program::ClaudeCode, CHAT).await;
        });
    }

    #[test]
    #[ignore = "a minute"]
    fn codex_works_on_every_other_dialect() {
        run(async {
            works(Program::Codex, CHAT).await;
            for body in works(Program::Codex, GOOGLE).await {
                assert_eq!(signatures(&body), [SIGNED], "{body}");
            }
        });
    }

    #[test]
    #[ignore = "a minute"]
    fn gemini_cli_works_on_every_other_dialect() {
        run(async {
            works(Program::GeminiCli, RESPONSES).await;
            works(Program::GeminiCli, MESSAGES).await;
        });
    }

    /// It does not give the signature of a call back.
    #[test]
    #[ignore = "a minute"]
    fn qwen_code_works_on_every_other_dialect() {
        run(async {
            works(Program::QwenCode, RESPONSES).await;
            works(Program::QwenCode, GOOGLE).await;
        });
    }
}
