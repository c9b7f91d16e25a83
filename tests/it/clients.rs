use std::{
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::harness::{
    Stack,
    program::{self, Program},
    run,
    scripted::{Script, Scripted},
    setting, source_root,
    stack::ALICE,
};

/// The longest that a client may take, its start included.
const LIMIT: Duration = Duration::from_secs(60);

/// The stack that these tests share.
async fn stack() -> Arc<Stack> {
    Stack::shared("clients").await
}

/// A command for a client that reaches the gateway and nothing else: whatever it asks of other hosts goes to a proxy
/// that is not there.
pub(crate) fn client(name: &str) -> tokio::process::Command {
    let mut command = Program::command(&setting("LATCHKEY_CLIENTS").join("bin").join(name));
    for variable in [
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "http_proxy",
        "https_proxy",
        "all_proxy",
    ] {
        command.env(variable, "http://127.0.0.1:9");
    }
    for variable in ["NO_PROXY", "no_proxy"] {
        command.env(variable, "127.0.0.1");
    }
    for variable in [
        "OPENAI_API_KEY",
        "OPENAI_BASE_URL",
        "ANTHROPIC_API_KEY",
        "ANTHROPIC_AUTH_TOKEN",
        "GEMINI_API_KEY",
        "GOOGLE_API_KEY",
        "CODEX_HOME",
    ] {
        command.env_remove(variable);
    }
    command
}

/// A question to a program that people start, in a home of its own.
#[derive(Debug, Clone)]
pub(crate) struct Ask<'a> {
    pub home: &'a Path,
    pub base_url: &'a str,
    pub key: &'a str,
    pub prompt: &'a str,
    pub limit: Duration,
    /// The program has to end well.
    pub ends_well: bool,
}

impl<'a> Ask<'a> {
    pub(crate) fn new(home: &'a Path, base_url: &'a str, key: &'a str) -> Self {
        fs::create_dir_all(home).expect("a folder");
        Self {
            home,
            base_url,
            key,
            prompt: "say hi",
            limit: LIMIT,
            ends_well: false,
        }
    }

    /// What the program prints that reads the question, and the time that it takes.
    async fn run(&self, mut command: tokio::process::Command) -> (String, Duration) {
        let file = self.home.join("prompt");
        fs::write(&file, self.prompt).expect("written");
        command.current_dir(self.home);
        let input = fs::File::open(&file).expect("the question").into();
        let began = Instant::now();
        let output = program::output_given(command, input, self.limit).await;
        let printed = [output.stdout, output.stderr].concat();
        let printed = String::from_utf8_lossy(&printed).into_owned();
        let status = output.status;
        assert!(status.success() || !self.ends_well, "{status}: {printed}");
        (printed, began.elapsed())
    }
}

/// Runs a script of `tests/clients` and returns the JSON that it prints.
pub(crate) async fn python(script: &str, arguments: &[&str]) -> Value {
    let mut command = client("python");
    command
        .arg(source_root().join("tests/clients").join(script))
        .args(arguments);
    let output = program::output_of(command, LIMIT).await;
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn the_openai_client_works_and_understands_refusals() {
    run(async {
        let stack = stack().await;
        let caller = stack.caller("openai");
        let got = python("openai_client.py", &[&caller.url(""), caller.key()]).await;
        let text = got["chat"].as_str().expect("a text");
        assert!(!text.is_empty(), "{got}");
        for part in [
            "chat_stream",
            "response",
            "response_stream",
            "again",
            "without_v1",
        ] {
            assert!(
                got[part].as_str().is_some_and(|text| !text.is_empty()),
                "{part}: {got}"
            );
        }
        assert_eq!(got["last_event"], "response.completed", "{got}");
        assert_eq!(got["embedding"], true, "{got}");
        assert_eq!(got["model"], "gpt-5.6", "{got}");
        assert!(
            got["models"]
                .as_array()
                .is_some_and(|models| models.contains(&"gpt-5.6".into())),
            "{got}"
        );
        let refused = serde_json::json!(["AuthenticationError", 401, "latchkey_unknown_key"]);
        assert_eq!(got["refused"], refused);
        assert_eq!(stack.sim.count("refused_count").await, 0);
    });
}

/// Runs a script of `tests/clients` where the packages of npm are, and returns the JSON that it prints.
pub(crate) async fn node(script: &str, arguments: &[&str]) -> Value {
    let text = fs::read_to_string(source_root().join("tests/clients").join(script));
    let mut command = client("node");
    command
        .args([
            "--input-type=module",
            "--eval",
            &text.expect("a script"),
            "--",
        ])
        .args(arguments)
        .current_dir(setting("LATCHKEY_CLIENTS").join("npm"));
    let output = program::output_of(command, LIMIT).await;
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn the_clients_of_npm_work() {
    run(async {
        let stack = stack().await;
        let (openai, anthropic) = (stack.caller("openai"), stack.caller("anthropic"));
        let arguments = [&openai.url(""), openai.key(), anthropic.key()];
        let got = node("sdks.mjs", &arguments).await;
        for part in [
            "chat",
            "chat_stream",
            "response",
            "again",
            "message",
            "stream",
        ] {
            let text = got[part].as_str();
            assert!(
                text.is_some_and(|text| text.contains("Hello from")),
                "{part}: {got}"
            );
        }
        assert_eq!(got["last_event"], "response.completed", "{got}");
        assert_eq!(got["stop_reason"], "end_turn", "{got}");
        assert_eq!(got["file"], "{}", "{got}");
        assert_eq!(got["tool"]["arguments"], "{\"a\":41}", "{got}");
        assert_eq!(got["use"]["input"]["a"], 41, "{got}");
        let got = node("vercel.mjs", &arguments).await;
        for dialect in ["chat", "responses", "messages"] {
            let got = &got[dialect];
            for part in ["text", "stream", "last"] {
                let text = got[part].as_str();
                assert!(
                    text.is_some_and(|text| text.contains("Hello from")),
                    "{dialect} {part}: {got}"
                );
            }
            assert!(got["tokens"].as_u64() > Some(0), "{got}");
            assert_eq!(got["end"], "stop", "{got}");
            assert_eq!(got["steps"], 2, "{got}");
            assert_eq!(got["result"], "it is 42", "{got}");
        }
        assert_eq!(stack.sim.count("refused_count").await, 0);
    });
}

/// What opencode prints, and the time that it takes.
pub(crate) async fn opencode(ask: &Ask<'_>, arguments: &[&str]) -> (String, Duration) {
    let config = serde_json::json!({
        "autoupdate": false, "share": "disabled", "model": "gateway/gpt-5.6", "enabled_providers": ["gateway"],
        "provider": {"gateway": {
            "npm": "@ai-sdk/openai-compatible",
            "options": {"baseURL": ask.base_url, "apiKey": ask.key},
            "models": {"gpt-5.6": {}},
        }},
    });
    fs::write(ask.home.join("opencode.json"), config.to_string()).expect("written");
    let mut command = client("opencode");
    command
        .args(["run", "--pure", "--title", "a test"])
        .args(arguments)
        .env("HOME", ask.home)
        .env("OPENCODE_DISABLE_MODELS_FETCH", "1");
    ask.run(command).await
}

/// A turn with a call of a tool, a second turn of the same session, and an unknown key.
#[test]
fn opencode_prints_the_platforms_answer_and_our_refusal() {
    // The registry has no binary of it for other machines.
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        return;
    }
    run(async {
        let stack = stack().await;
        let caller = stack.caller("openai");
        let home = stack.folder.join("opencode");
        let base = caller.url("/v1");
        let file = home.join("opencode.json");
        let wish = format!("use the tool read {{\"filePath\": \"{}\"}}", file.display());
        let (printed, _) = opencode(&Ask::new(&home, &base, caller.key()), &[&wish]).await;
        assert!(printed.contains("Read"), "{printed}");
        assert!(printed.contains("Hello from openai-key"), "{printed}");
        let second = ["--continue", "and once more"];
        let (printed, _) = opencode(&Ask::new(&home, &base, caller.key()), &second).await;
        assert!(printed.contains("and once more"), "{printed}");
        let (printed, _) = opencode(&Ask::new(&home, &base, "lk_unknown"), &[]).await;
        assert!(
            printed.contains("This client key is unknown or revoked."),
            "{printed}"
        );
        assert_eq!(stack.sim.count("refused_count").await, 0);
    });
}

/// Each turn of a session names it, in headers that the gateway reads.
#[test]
fn opencode_names_its_session_in_headers_that_the_gateway_reads() {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        return;
    }
    run(async {
        let stack = stack().await;
        let refusal =
            r#"{"error":{"message":"no","type":"invalid_request_error","param":null,"code":null}}"#;
        let script = Script {
            answer: format!(
                "HTTP/1.1 401 Unauthorized\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{refusal}",
                refusal.len()
            )
            .into(),
            reads: true,
        };
        let server = Scripted::start(script).await;
        let home = stack.folder.join("opencode-session");
        let base = format!("http://127.0.0.1:{}/v1", server.port);
        for arguments in [[].as_slice(), &["--continue"]] {
            opencode(&Ask::new(&home, &base, "k"), arguments).await;
        }
        let heads = server.heads();
        let chats = heads
            .iter()
            .filter(|head| head.starts_with("post /v1/chat/completions "));
        let sessions = |name: &str| -> Vec<String> {
            let named = |head: &String| {
                let mut lines = head.lines();
                lines.find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()))
            };
            chats.clone().filter_map(named).collect()
        };
        let doors = source_root().join("refresher/src/platform/doors.toml");
        let doors = fs::read_to_string(doors).expect("the doors");
        for header in ["x-session-affinity", "x-session-id"] {
            assert!(doors.contains(&format!("\"{header}\"")), "{header}");
            let sessions = sessions(&format!("{header}:"));
            assert!(sessions.len() > 1, "{header}: {heads:?}");
            assert!(
                sessions.iter().all(|one| *one == sessions[0]),
                "{sessions:?}"
            );
        }
    });
}

#[test]
fn the_anthropic_client_works_and_understands_refusals() {
    run(async {
        let stack = stack().await;
        let caller = stack.caller("anthropic");
        let got = python("anthropic_client.py", &[&caller.url(""), caller.key()]).await;
        for part in ["message", "stream", "with_v1"] {
            assert!(
                got[part].as_str().is_some_and(|text| !text.is_empty()),
                "{part}: {got}"
            );
        }
        assert_eq!(got["stop_reason"], "end_turn", "{got}");
        assert_eq!(got["tokens"], true, "{got}");
        assert_eq!(got["model"], "claude-opus-5-5", "{got}");
        assert!(
            got["models"]
                .as_array()
                .is_some_and(|models| models.contains(&"claude-opus-5-5".into())),
            "{got}"
        );
        let refused = serde_json::json!(["AuthenticationError", 401, "latchkey_unknown_key"]);
        assert_eq!(got["refused"], refused);
        assert_eq!(stack.sim.count("refused_count").await, 0);
    });
}

/// Google's own clients, for Python and for JavaScript, and Gemini CLI, at their own maker's door.
#[test]
fn the_clients_of_google_work() {
    run(async {
        let stack = stack().await;
        let caller = stack.caller("gemini");
        let target = serde_json::json!([{"pool": "gemini", "key": caller.key(), "model": "gemini-3.8-flash"}]);
        let target = target.to_string();
        let arguments = [&*caller.url(""), &*target];
        for got in [
            python("google_client.py", &arguments).await,
            node("google.mjs", &arguments).await,
        ] {
            let got = &got[0];
            assert_eq!(
                (&got["model"], &got["finish"]),
                (&"gemini-3.8-flash".into(), &"STOP".into())
            );
            assert_eq!(got["call"], serde_json::json!(["add", {"a": 1}]), "{got}");
            google_works(got);
        }
        let home = stack.folder.join("gemini-google");
        let url = caller.url("");
        let ask = Ask {
            prompt: r#"use the tool list_directory {"dir_path": "."}"#,
            ..Ask::new(&home, &url, caller.key())
        };
        let (printed, _) = gemini(&ask, &["-m", "gemini-3.8-flash"]).await;
        assert!(printed.contains("Hello from gemini"), "{printed}");
        let seen = stack.sim.seen().await;
        let results = seen.iter().filter(|seen| {
            let body = String::from_utf8_lossy(&seen.body()).into_owned();
            body.contains("functionResponse") && body.contains("gemini-google")
        });
        assert!(
            results.count() > 0,
            "what the tool returned went to the platform"
        );
        assert_eq!(stack.sim.count("refused_count").await, 0);
    });
}

/// Asserts what only a client of Google's has to have got: answers to chats that it keeps itself, whole and as streams.
#[track_caller]
pub(crate) fn google_works(got: &Value) {
    for name in ["text", "streamed", "after", "after_stream"] {
        let text = got[name].as_str().unwrap_or_default();
        assert!(text.starts_with("Hello "), "{name}: {got}");
    }
    let turns = got["turns"].as_array().expect("two numbers");
    assert!(
        turns.iter().all(|turns| turns.as_u64() >= Some(4)),
        "a turn was forgotten: {got}"
    );
}

/// Qwen Code speaks chat completions, as this platform does. It calls a tool, here, and goes on with what that returns.
#[test]
fn qwen_code_prints_the_platforms_answer() {
    run(async {
        let stack = stack().await;
        let caller = stack.caller("openai");
        let home = stack.folder.join("qwen-openai");
        let url = caller.url("/v1");
        let ask = Ask {
            prompt: "use the tool glob {\"pattern\": \"*\"}",
            ..Ask::new(&home, &url, caller.key())
        };
        let (printed, _) = qwen(&ask, &["-m", "gpt-5.6"]).await;
        assert!(printed.contains("Hello from openai-key"), "{printed}");
        let seen = stack.sim.seen().await;
        let results = seen.iter().filter(|seen| {
            let body = String::from_utf8_lossy(&seen.body()).into_owned();
            body.contains("\"role\":\"tool\"") && body.contains("qwen-openai")
        });
        assert!(
            results.count() > 0,
            "what the tool returned went to the platform"
        );
        assert_eq!(stack.sim.count("refused_count").await, 0);
    });
}

/// As a custom provider in its `config.toml`, at the login of a ChatGPT account and at an API key.
#[test]
fn codex_prints_the_platforms_answer() {
    run(async {
        let stack = stack().await;
        for (pool, account) in [("codex", ALICE), ("openai", "openai-key")] {
            let caller = stack.caller(pool);
            let home = stack.folder.join(format!("codex-{pool}"));
            let (printed, _) = codex(&Ask::new(&home, &caller.url("/v1"), caller.key())).await;
            let events = printed.lines().filter(|line| line.starts_with('{'));
            let events: Vec<Value> = events
                .map(|line| serde_json::from_str(line).expect("JSON"))
                .collect();
            let answer = events
                .iter()
                .find(|event| event["item"]["type"] == "agent_message");
            let answer = answer.unwrap_or_else(|| panic!("no answer: {events:?}"));
            let text = answer["item"]["text"].as_str();
            assert!(text.is_some_and(|text| text.contains(account)), "{answer}");
            let ended = events.last().expect("events");
            assert_eq!(ended["type"], "turn.completed", "{events:?}");
            let seen = stack.sim.seen().await;
            let by_codex = |agent: &&str| agent.starts_with("codex_exec/");
            let served = seen
                .iter()
                .rfind(|seen| seen.header("user-agent").iter().any(by_codex));
            assert_eq!(
                served.and_then(|seen| seen.account()),
                Some(account),
                "{served:?}"
            );
        }
        assert_eq!(stack.sim.count("refused_count").await, 0);
    });
}

/// What Claude Code prints, and the time that it takes.
pub(crate) async fn claude(ask: &Ask<'_>) -> (String, Duration) {
    let model = ["--model", "claude-opus-5-5"];
    let arguments = [&["--no-session-persistence", "--tools", ""][..], &model].concat();
    claude_with(ask, &arguments).await
}

/// [`claude`] with these tools and this model.
pub(crate) async fn claude_with(ask: &Ask<'_>, arguments: &[&str]) -> (String, Duration) {
    let mut command = client("claude");
    command
        .args(["--bare", "-p"])
        .args(arguments)
        .env("HOME", ask.home)
        .env("CLAUDE_CONFIG_DIR", ask.home)
        .env("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1")
        .env("ANTHROPIC_BASE_URL", ask.base_url)
        .env("ANTHROPIC_AUTH_TOKEN", ask.key);
    ask.run(command).await
}

/// With the base URL that it wants, and with the one that other clients want.
#[test]
fn claude_code_prints_the_platforms_answer() {
    run(async {
        let stack = stack().await;
        let caller = stack.caller("anthropic");
        for (name, base) in [("plain", ""), ("v1", "/v1")] {
            let home = stack.folder.join(format!("claude-{name}"));
            let (printed, _) = claude(&Ask::new(&home, &caller.url(base), caller.key())).await;
            assert!(printed.contains("Hello from"), "{name}: {printed}");
        }
        assert_eq!(stack.sim.count("refused_count").await, 0);
    });
}

/// It shows our sentence as it is, but for a 404, which it takes for one about the model; and it does not go on trying.
#[test]
fn claude_code_ends_at_once_where_a_repeat_cannot_help() {
    const AT_ONCE: Duration = Duration::from_secs(15);
    run(async {
        let stack = stack().await;
        let home = stack.folder.join("claude-refused");
        let url = stack.caller("anthropic").url("");
        let (printed, took) = claude(&Ask::new(&home, &url, "lk_unknown")).await;
        let sentence = "This client key is unknown or revoked.";
        assert!(printed.contains(sentence), "{printed}");
        assert!(took < AT_ONCE, "{took:?}: {printed}");
        // No account of this pool serves the model.
        let other = stack.caller("openai");
        let (printed, took) = claude(&Ask::new(&home, &other.url(""), other.key())).await;
        assert!(printed.contains("selected model"), "{printed}");
        assert!(took < AT_ONCE, "{took:?}: {printed}");
    });
}

/// What Gemini CLI prints, given these options; it may use its tools.
pub(crate) async fn gemini(ask: &Ask<'_>, options: &[&str]) -> (String, Duration) {
    let folder = ask.home.join(".gemini");
    fs::create_dir_all(&folder).expect("a folder");
    let settings = serde_json::json!({
        "security": {"auth": {"selectedType": "gemini-api-key"}}, "privacy": {"usageStatisticsEnabled": false},
        "general": {"enableAutoUpdate": false, "enableAutoUpdateNotification": false},
    });
    fs::write(folder.join("settings.json"), settings.to_string()).expect("written");
    let mut command = client("gemini");
    command
        .args(["--approval-mode", "yolo"])
        .args(options)
        .env("HOME", ask.home)
        .env("GEMINI_CLI_HOME", ask.home)
        .env("GEMINI_CLI_TRUST_WORKSPACE", "true")
        .env("GOOGLE_GEMINI_BASE_URL", ask.base_url)
        .env("GEMINI_API_KEY", ask.key);
    ask.run(command).await
}

/// What Qwen Code prints, given these options; it may use its tools.
pub(crate) async fn qwen(ask: &Ask<'_>, options: &[&str]) -> (String, Duration) {
    let folder = ask.home.join(".qwen");
    fs::create_dir_all(&folder).expect("a folder");
    let settings = serde_json::json!({
        "privacy": {"usageStatisticsEnabled": false}, "general": {"enableAutoUpdate": false},
    });
    fs::write(folder.join("settings.json"), settings.to_string()).expect("written");
    let mut command = client("qwen");
    command
        .args(["--auth-type", "openai", "--approval-mode", "yolo"])
        .args(options)
        .env("HOME", ask.home)
        .env("OPENAI_BASE_URL", ask.base_url)
        .env("OPENAI_API_KEY", ask.key);
    ask.run(command).await
}

fn config(base_url: &str) -> String {
    format!(
        r#"
model = "gpt-6.1-sol"
model_provider = "gateway"
check_for_update_on_startup = false
[analytics]
enabled = false
[features]
plugins = false
apps = false
[model_providers.gateway]
name = "gateway"
base_url = "{base_url}"
env_key = "GATEWAY_KEY"
request_max_retries = 1
stream_max_retries = 1
"#
    )
}

/// The report of `codex exec`, one event a line, and the time that it takes.
pub(crate) async fn codex(ask: &Ask<'_>) -> (String, Duration) {
    codex_with(ask, &[], &[]).await
}

/// [`codex`] with these options, and a command of `codex exec` that goes on with an earlier session.
pub(crate) async fn codex_with(
    ask: &Ask<'_>,
    options: &[&str],
    goes_on: &[&str],
) -> (String, Duration) {
    fs::write(ask.home.join("config.toml"), config(ask.base_url)).expect("written");
    let mut command = client("codex");
    command
        .args(["exec", "--skip-git-repo-check", "--json"])
        .args(options)
        .args(goes_on)
        .arg("-")
        .env("CODEX_HOME", ask.home)
        .env("GATEWAY_KEY", ask.key);
    ask.run(command).await
}
