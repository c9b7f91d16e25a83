//! Google's Code Assist: its login, the project of an account, and requests in the object that it has around them.

use std::{fs, time::Duration};

use serde_json::{Value, json};

use crate::harness::{
    Caller, Stack,
    caller::chat_body,
    eventually, holds,
    http2::Http2,
    records,
    refresher::Refresher,
    run,
    scripted::{Script, Scripted},
    sim::{Seen, Sim},
    stack::GEMINI,
};

const HOUR: Duration = Duration::from_secs(3600);
const LIMIT: Duration = Duration::from_secs(15);
const ALICE: &str = "alice@example.com";
const NEW: &str = "new@example.com";
const OWN: &str = "own@example.com";
const PLATFORM: &str = "gemini-code-assist";
const GENERATE: &str = "/v1beta/models/gemini-3.8-flash:generateContent";
const CHAT: &str = "/v1/chat/completions";
const STREAM: &str = "/v1beta/models/gemini-3.8-flash:streamGenerateContent?alt=sse";

/// Where Google is: on the simulated platform.
fn point_at(sim: &Sim) {
    let ca_file = sim.platforms_dir.parent().expect("a folder").join("ca.pem");
    let (base, ca_file) = (format!("https://{}", sim.authority()), ca_file.display());
    let text = format!(
        "[upstream]\nbase_url = '{base}'\nca_file = '{ca_file}'\n\
         [oauth]\ntoken_url = '{base}/google/token'\nrevoke_url = '{base}/google/revoke'\nca_file = '{ca_file}'\n\
         refresh_token = 'reusable'\n\
         [login]\ncode.authorize_url = '{base}/o/oauth2/v2/auth'\npasted.authorize_url = '{base}/o/oauth2/v2/auth'\n"
    );
    fs::write(sim.platforms_dir.join("gemini-code-assist.toml"), text).expect("written");
    let text =
        format!("[upstream]\nbase_url = '{base}'\nca_file = '{ca_file}'\napi_key.shortest = 0\n");
    let text = text.replace("api_key.shortest = 0\n", "[api_key]\nshortest = 0\n");
    fs::write(sim.platforms_dir.join("gemini.toml"), text).expect("written");
}

fn acknowledge(refresher: &Refresher) {
    let config = refresher.file("config.toml");
    let text = fs::read_to_string(&config).expect("the configuration");
    let text = text.replace("['codex']", &format!("['codex', '{PLATFORM}']"));
    fs::write(config, text).expect("written");
}

/// Logs in by the code that the platform's page shows.
async fn log_in(
    sim: &Sim,
    refresher: &Refresher,
    email: &str,
    more: &[&str],
) -> Result<(), String> {
    let login = [&["login", PLATFORM, "--paste"], more].concat();
    let shown = async |url| {
        let (status, page) = sim.visit(&format!("{url}&sim_user={email}")).await;
        assert_eq!(status, 200, "{page}");
        let (_, code) = page.split_once("<code>").expect("a code");
        code.split_once("</code>").expect("its end").0.to_owned()
    };
    refresher.try_paste(&login, shown).await
}

async fn log_in_by_callback(sim: &Sim, refresher: &Refresher, email: &str) {
    let login = ["login", PLATFORM, "--no-browser"];
    let mut login = refresher.start_command(&[], &login, "callback.log").await;
    let url = eventually("it prints the URL", LIMIT, async || {
        login.assert_alive();
        let printed = login.printed();
        let url = printed
            .split_whitespace()
            .find(|word| word.contains("/o/oauth2/"));
        url.map(str::to_owned).ok_or(printed.clone())
    })
    .await;
    let address = sim.authorize(&url, email).await;
    assert!(address.starts_with("http://127.0.0.1:"), "{address}");
    let (status, page) = sim.browse(&address).await;
    assert_eq!(status, 200, "{page}");
    assert!(login.ends().await.success(), "{}", login.printed());
}

async fn last(sim: &Sim) -> Seen {
    let mut seen = sim.seen().await;
    seen.retain(|seen| seen.path().contains("enerateContent"));
    seen.pop().expect("a request")
}

fn body_of(seen: &Seen) -> Value {
    serde_json::from_slice(&seen.body()).expect("JSON")
}

/// Nothing happens before the notice is acknowledged and the operator's own client is there. Nobody whom Code Assist does not
/// take is saved, and each is told why.
#[test]
fn an_account_is_saved_with_its_project_or_not_at_all() {
    run(async {
        let folder = crate::harness::stack::new_folder("code-assist-login");
        let sim = Sim::start(&folder).await;
        let refresher = Refresher::new(&folder, &sim);
        point_at(&sim);
        let (ended, validate) = ("ended@example.com", "validate@example.com");
        for email in [ALICE, NEW, OWN, ended, validate] {
            sim.add_user(email, HOUR).await;
        }
        let told = async |refresher: &Refresher| {
            let without = ["env", "-u", "LATCHKEY_CODE_ASSIST_CLIENT_ID"];
            let login = ["login", PLATFORM, "--paste"];
            let refused = refresher.try_run_in(&without, &login, "").await;
            assert!(!refused.status.success());
            String::from_utf8_lossy(&refused.stderr).into_owned()
        };
        let words = told(&refresher).await;
        assert!(words.contains("Google's terms forbid"), "{words}");
        acknowledge(&refresher);
        let words = told(&refresher).await;
        assert!(
            words.contains("found nothing in LATCHKEY_CODE_ASSIST_CLIENT_ID"),
            "{words}"
        );
        assert!(sim.seen().await.is_empty(), "nobody was asked");

        for (email, says) in [
            (
                ended,
                "UNSUPPORTED_CLIENT: This client is no longer supported",
            ),
            (validate, "open https://accounts.sim.test/validate"),
            (OWN, "--project"),
        ] {
            let words = log_in(&sim, &refresher, email, &[])
                .await
                .expect_err("refused");
            assert!(words.contains(says), "{words}");
        }
        assert!(refresher.accounts().await.is_empty(), "nothing half-saved");

        log_in_by_callback(&sim, &refresher, ALICE).await;
        log_in(&sim, &refresher, NEW, &[])
            .await
            .expect("it is set up");
        log_in(&sim, &refresher, OWN, &["--project", "my-project"])
            .await
            .expect("it logs in");
        // The project stays where another login does not say one.
        log_in(&sim, &refresher, OWN, &[]).await.expect("again");
        let mut names: Vec<String> = refresher
            .accounts()
            .await
            .iter()
            .map(|one| one["name"].to_string())
            .collect();
        names.sort();
        assert_eq!(names, [ALICE, NEW, OWN].map(|name| format!("\"{name}\"")));

        let said = refresher.run(&["refresh", ALICE], "").await;
        assert!(said.contains("generation 2"), "{said}");
        let said = refresher.run(&["refresh", ALICE], "").await;
        assert!(
            said.contains("generation 3"),
            "the refresh token stays: {said}"
        );

        // Gemini CLI's own file, with a token that has ended.
        let file = folder.join("oauth_creds.json");
        let path = file.to_str().expect("a path");
        refresher.run(&["export", ALICE, "--to", path], "").await;
        refresher.run(&["logout", ALICE, "--no-revoke"], "").await;
        let mut written: Value =
            serde_json::from_slice(&fs::read(&file).expect("the file")).expect("JSON");
        written["expiry_date"] = json!(1_000);
        fs::write(&file, written.to_string()).expect("written");
        let said = refresher.run(&["import", path, "--dry-run"], "").await;
        assert!(said.contains(PLATFORM), "{said}");
        let said = refresher.run(&["import", path], "").await;
        assert!(said.contains("project-of-alice"), "{said}");
        let said = refresher.run(&["logout", ALICE], "").await;
        assert!(!said.contains("not revoked"), "{said}");
    });
}

/// What goes out is the documented form, whoever asks; what comes back is the caller's dialect.
#[test]
fn requests_and_answers_stand_in_its_object_on_the_wire_alone() {
    run(async {
        let stack = Stack::real("code-assist-serves", async |sim, refresher| {
            point_at(sim);
            acknowledge(refresher);
            sim.add_user(ALICE, HOUR).await;
            log_in(sim, refresher, ALICE, &[]).await.expect("a login");
        })
        .await;
        let caller = stack.caller("team").await;
        let contents = r#"{ "contents": [{"role":"user", "parts":[{"text":"hi \u00e9"}]}] }"#;
        for (path, streams) in [(GENERATE, false), (STREAM, true)] {
            let answer = ask(&caller, path, contents).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            let text = answer.body.clone();
            assert!(
                text.contains("modelVersion") && !text.contains("traceId"),
                "{text}"
            );
            assert_eq!(text.starts_with("data: {\"candidates\""), streams, "{text}");
            let seen = last(&stack.sim).await;
            let expected = match streams {
                true => "/v1internal:streamGenerateContent?alt=sse",
                false => "/v1internal:generateContent",
            };
            assert_eq!(seen.path(), expected);
            assert_eq!(seen.header("content-type"), ["application/json"]);
            assert_eq!(
                seen.header("user-agent"),
                ["google-genai-sdk/1.30.0"],
                "the caller's own"
            );
            assert!(seen.header("authorization")[0].starts_with("Bearer "));
            assert!(seen.header("x-goog-api-key").is_empty());
            let sent = String::from_utf8(seen.body().to_vec()).expect("UTF-8");
            assert!(
                sent.ends_with(&format!("\"request\":{contents}}}")),
                "{sent}"
            );
            let sent = body_of(&seen);
            assert_eq!(sent["model"], "gemini-3.8-flash");
            assert_eq!(sent["project"], "project-of-alice");
            assert!(
                sent["user_prompt_id"]
                    .as_str()
                    .is_some_and(|id| id.len() > 10),
                "{sent}"
            );
        }

        // A request that ends in trailers.
        let connection = Http2::connect(stack.envoy.port).await;
        let headers = [
            ("x-goog-api-key", caller.key()),
            ("content-type", "application/json"),
        ];
        let (first, second) = contents.split_at(20);
        let trailers = Some(("x-sum", "1"));
        let (status, answer) = connection
            .post(GENERATE, &headers, &["", first, second], trailers)
            .await;
        assert_eq!(status, 200, "{answer}");
        let sent = String::from_utf8(last(&stack.sim).await.body()).expect("UTF-8");
        let expected = format!("\"request\":{contents}}}");
        assert!(sent.ends_with(&expected), "{sent}");

        // A chat, with a call of a tool.
        let tool = json!({"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}});
        for stream in [false, true] {
            let chat = json!({
                "model": "gemini-3.8-flash", "stream": stream, "tools": [tool],
                "messages": [{"role": "user", "content": "use the tool get_weather {\"city\":\"Oslo\"}"}],
            });
            let answer = caller.post("/v1/chat/completions", &chat).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            let text = answer.body.clone();
            assert!(
                text.contains("\"tool_calls\"") && text.contains("Oslo"),
                "{text}"
            );
            let sent = body_of(&last(&stack.sim).await);
            assert_eq!(
                sent["request"]["tools"][0]["functionDeclarations"][0]["name"],
                "get_weather"
            );
        }

        // An error has nothing around it.
        let wrong = r#"{"contents":[{"role":"model","parts":[]}]}"#;
        let refused = ask(&caller, GENERATE, wrong).await;
        assert_eq!(refused.status, 400, "{refused:?}");
        assert!(refused.body.contains("INVALID_ARGUMENT"));

        // Its token ends: the next one is got with the operator's client, which only the login had to know.
        let expire = format!("/users/{ALICE}/expire_access");
        stack
            .sim
            .ask(reqwest::Method::POST, &expire, Value::Null)
            .await;
        let answer = ask(&caller, GENERATE, contents).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let found = stack.refresher.run(&["accounts", "check", ALICE], "").await;
        assert!(found.starts_with(&format!("{ALICE}: alive")), "{found}");
    });
}

async fn ask(caller: &Caller, path: &str, body: &str) -> crate::harness::caller::Answer {
    let bearer = format!("Bearer {}", caller.key());
    let headers = [
        ("authorization", bearer.as_str()),
        ("content-type", "application/json"),
        ("user-agent", "google-genai-sdk/1.30.0"),
    ];
    caller.send("POST", path, &headers, body.to_owned()).await
}

/// Logs Alice in, and adds `key`, an account of a plain API key.
async fn log_in_beside_a_plain_key(sim: &Sim, refresher: &Refresher) {
    point_at(sim);
    acknowledge(refresher);
    sim.add_user(ALICE, HOUR).await;
    log_in(sim, refresher, ALICE, &[]).await.expect("a login");
    sim.add_documented_key("gemini", "AIza-gemini").await;
    let add = ["accounts", "add", "key", "--platform", "gemini"];
    refresher.run(&add, "AIza-gemini").await;
}

/// Between an account of Code Assist and one of a plain API key, either way, whatever the platform does.
#[test]
fn a_request_moves_between_it_and_a_plain_key() {
    run(async {
        let stack = Stack::real("code-assist-moves", async |sim, refresher| {
            log_in_beside_a_plain_key(sim, refresher).await;
        })
        .await;
        let caller = stack.caller("team").await;
        let contents = r#"{"contents":[{"role":"user","parts":[{"text":"hi"}]}]}"#;
        for (first, second) in [(ALICE, "key"), ("key", ALICE)] {
            for fault in [
                json!({"status": 500, "body": {"error": {"code": 500, "message": "x", "status": "INTERNAL"}}}),
                json!({"drop_before_answer": true}),
            ] {
                for (name, tier) in [(first, "0"), (second, "1")] {
                    stack
                        .refresher
                        .run(&["pools", "add", "default", name, "--tier", tier], "")
                        .await;
                }
                for name in [ALICE, "key"] {
                    stack.refresher.run(&["accounts", "reset", name], "").await;
                }
                let at = |name: &str| if name == "key" { "gemini" } else { ALICE };
                eventually("the first serves", LIMIT, async || {
                    let answer = ask(&caller, STREAM, contents).await;
                    let seen = last(&stack.sim).await;
                    holds(
                        answer.status == 200 && seen.account() == Some(at(first)),
                        || format!("{answer:?}"),
                    )
                })
                .await;
                let mut fault = fault.clone();
                fault["target"] = "upstream".into();
                fault["account"] = at(first).into();
                fault["times"] = 1.into();
                stack.sim.add_fault(fault).await;
                let answer = ask(&caller, STREAM, contents).await;
                assert_eq!(answer.status, 200, "{answer:?}");
                let text = answer.body.clone();
                assert!(
                    text.starts_with("data: {\"candidates\"") && !text.contains("traceId"),
                    "{text}"
                );
                let seen = last(&stack.sim).await;
                assert_eq!(seen.account(), Some(at(second)));
                let sent = String::from_utf8(seen.body().to_vec()).expect("UTF-8");
                match second {
                    "key" => assert_eq!(sent, contents),
                    _ => assert!(
                        sent.ends_with(&format!("\"request\":{contents}}}")),
                        "{sent}"
                    ),
                }
            }
        }
    });
}

/// What is too large for its object, by the length that is said or by what came, goes to an account that takes it as it is; and
/// to nobody where there is none.
#[test]
fn a_body_that_is_too_large_for_its_object_goes_to_a_plain_key() {
    run(async {
        let stack = Stack::real("code-assist-large", async |sim, refresher| {
            log_in_beside_a_plain_key(sim, refresher).await;
            let second = ["pools", "add", "default", "key", "--tier", "1"];
            refresher.run(&second, "").await;
        })
        .await;
        let caller = stack.caller("team").await;
        let pieces = |mebibytes: usize| {
            let mut pieces = vec!["x".repeat(1 << 20); mebibytes];
            pieces.insert(
                0,
                r#"{"contents":[{"role":"user","parts":[{"text":""#.to_owned(),
            );
            pieces.push(r#""}]}]}"#.to_owned());
            pieces
        };
        let asked = async |mebibytes: usize, says_length: bool| {
            let pieces = pieces(mebibytes);
            let body = match says_length {
                true => pieces.concat().into(),
                false => {
                    let pieces = pieces.into_iter().map(Ok::<_, std::io::Error>);
                    reqwest::Body::wrap_stream(futures_util::stream::iter(pieces))
                }
            };
            let headers = [
                ("x-goog-api-key", caller.key()),
                ("content-type", "application/json"),
            ];
            caller.send("POST", GENERATE, &headers, body).await
        };
        for (mebibytes, account) in [(15, ALICE), (16, "gemini")] {
            for says_length in [true, false] {
                let answer = asked(mebibytes, says_length).await;
                assert_eq!(answer.status, 200, "{mebibytes} {says_length}: {answer:?}");
                let seen = last(&stack.sim).await;
                assert_eq!(seen.account(), Some(account), "{mebibytes} {says_length}");
                let length = seen.0["body_length"].as_u64().expect("a length");
                assert!(length > mebibytes as u64 * (1 << 20), "all of it: {length}");
            }
        }
        let drop = ["pools", "drop", "default", "key"];
        stack.refresher.run(&drop, "").await;
        for says_length in [true, false] {
            eventually("nobody takes it", LIMIT, async || {
                let answer = asked(16, says_length).await;
                let code = answer.own_code();
                let is_refused = answer.status == 413 && code == Some("latchkey_unchangeable");
                holds(is_refused, || format!("{answer:?}"))
            })
            .await;
        }
        let answer = asked(15, true).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(stack.envoy.crashes().await, 0);
    });
}

/// An error of which nothing but its headers comes is judged by them after a while. There is nothing of it then in whose place
/// anything could be put.
#[test]
fn an_error_without_a_body_is_its_callers_and_crashes_nobody() {
    run(async {
        let stack = Stack::real("code-assist-bodyless", async |sim, refresher| {
            point_at(sim);
            acknowledge(refresher);
            sim.add_user(ALICE, HOUR).await;
            log_in(sim, refresher, ALICE, &[]).await.expect("a login");
        })
        .await;
        let caller = stack.caller("team").await;
        let fault = json!({
            "target": "upstream", "account": ALICE, "status": 400, "body": "{\"error\":{\"code\":400}}",
            "stall_after_bytes": 0,
        });
        stack.sim.add_fault(fault).await;
        let contents = json!({"contents": [{"role": "user", "parts": [{"text": "hi"}]}]});
        let mut chat = chat_body(false);
        chat["model"] = "gemini-3.8-flash".into();
        for (path, body) in [(GENERATE, &contents), (CHAT, &chat)] {
            let begun = caller.begin(path, body);
            let begun = tokio::time::timeout(LIMIT, begun).await;
            assert_eq!(begun.expect("in time").status(), 400, "{path}");
        }
        assert_eq!(stack.envoy.crashes().await, 0);
    });
}

/// An answer may end in trailers, where an operator's cluster lets them through, whatever has come by then.
#[test]
fn an_answer_that_ends_in_trailers_goes_on_without_what_is_around_it() {
    const EVENT: &str = r#"{"candidates":[{"content":{"role":"model","parts":[{"text":"Hi"}]},"finishReason":"STOP"}],"modelVersion":"gemini-3.8-flash"}"#;
    const CUT: &str = "data: {\"traceId\":\"t";
    run(async {
        let stack = Stack::start("code-assist-trailers").await;
        let wrapped = |line: &String| {
            let mut record: Value = serde_json::from_str(line).expect("JSON");
            let platform = record.get_mut("platform")?;
            let endpoints = platform["endpoints"].as_array_mut().expect("a list");
            for endpoint in endpoints {
                endpoint["wrapper"] = json!(["request", "response", "model", "{model}"]);
            }
            (platform["id"] == "gemini").then(|| record.to_string())
        };
        let lines = records::platforms(&stack.sim.platforms_dir);
        let lines: Vec<_> = lines.iter().filter_map(wrapped).collect();
        let revision = stack.refresher.publish(lines);
        stack.reaches(revision).await;
        let script = Script {
            answer: Vec::new(),
            reads: true,
        };
        let platform = Scripted::start(script).await;
        stack.replug_with_trailers(GEMINI, platform.port).await;
        let caller = stack.caller("gemini");
        let headers = [
            ("x-goog-api-key", caller.key()),
            ("content-type", "application/json"),
        ];
        let contents = r#"{"contents":[{"role":"user","parts":[{"text":"hi"}]}]}"#;
        let connection = Http2::connect(stack.envoy.port).await;
        let plain = format!("data: {EVENT}\n\n");
        for cut in ["", CUT] {
            let sent = format!("data: {{\"response\":{EVENT},\"traceId\":\"t\"}}\n\n{cut}");
            platform.answers(format!(
                "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\
                 connection: close\r\n\r\n{:x}\r\n{sent}\r\n0\r\nx-sum: 1\r\n\r\n",
                sent.len()
            ));
            // No event comes of what is cut.
            let begun = if cut.is_empty() { "" } else { "data: " };
            let expected = format!("{plain}{begun}");
            let (got, trailers) = connection
                .post_for_trailers(STREAM, &headers, contents)
                .await;
            assert_eq!(
                (got, trailers),
                (expected.clone(), vec!["x-sum".to_owned()])
            );
        }
        assert_eq!(stack.envoy.crashes().await, 0);
    });
}
