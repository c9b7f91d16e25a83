//! The gateway's refusals as the real clients show them: its sentence is what the person reads, a client ends at once
//! where a repeat cannot help, and repeats where it can. `docs/clients.md` has what was seen.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};

use crate::{
    clients::{Ask, claude, codex, node, opencode, python},
    config::write_no_clusters,
    harness::{
        Caller, Stack,
        caller::chat_body,
        envoy::Envoy,
        eventually, holds,
        kept::Home,
        process::FLUSH,
        records, run,
        stack::{ANTHROPIC, CODEX, OPENAI, SYNC_LIMIT, client_key, closed_port, with},
    },
};

/// An account whose platform is down.
const DOWN: &str = "acc_down";

/// Another one, of another platform.
const DOWN_TOO: &str = "acc_down_too";

/// A refusal, and how to meet it.
#[derive(Debug, Clone)]
struct Case {
    name: &'static str,
    /// The base URL, without `/v1`.
    base: String,
    key: String,
    /// The length of the prompt.
    mebibytes: usize,
    /// The repeats that SDKs are told to make.
    retries: usize,
    /// What has to be read, as far as no client escapes it.
    sentence: &'static str,
    /// A repeat can help, and it says so.
    repeats: bool,
}

/// Stacks with everything that refuses.
struct Refusing {
    stack: Stack,
    /// Has no refresher.
    starting: Envoy,
    /// Behind it.
    _home: Home,
    /// Has little room for what requests hold.
    small: Stack,
}

impl Refusing {
    async fn new(name: &str) -> Self {
        let stack = Stack::start(name).await;
        let down = [DOWN, DOWN_TOO];
        let all = [CODEX, OPENAI, ANTHROPIC];
        stack.have_clusters(&[all.as_slice(), &down].concat()).await;
        for account in down {
            stack.replug(account, closed_port()).await;
        }
        let authority = stack.sim.authority();
        let key = |name: &str, pool: &str, other: Value| {
            records::key_with(&format!("key_{name}"), &client_key(name), pool, other)
        };
        let both = [OPENAI, ANTHROPIC];
        let revision = stack.refresher.publish([
            records::account(DOWN, "openai", authority, "sk-openai", json!({})),
            records::account(DOWN_TOO, "anthropic", authority, "sk-ant-openai", json!({})),
            records::pool("sdk", "fill_first", &both),
            records::pool("empty", "sticky", &[]),
            records::pool("down", "sticky", &down),
            key("good", "sdk", json!({})),
            key("expired", "sdk", json!({"expires_at": 1})),
            key("models", "sdk", json!({"models": ["other"]})),
            key("day", "sdk", json!({"limits": {"tokens_per_day": 1}})),
            key("empty", "empty", json!({})),
            key("down", "down", json!({})),
        ]);
        stack.reaches(revision).await;
        let caller = Caller::new(stack.envoy.port, &client_key("day"));
        eventually("the day is used up", SYNC_LIMIT, async || {
            let answer = caller.post("/v1/chat/completions", &chat_body(false)).await;
            holds(answer.status == 429, || format!("{answer:?}"))
        })
        .await;
        let home = Home::new(&format!("{name}-starting"), &str::to_owned).await;
        write_no_clusters(&home.folder);
        let starting = home.envoy(0, str::to_owned).await;
        let little = |text: &str| {
            let shipped = r#""held_mib": 768, "held_mib_per_key": 256"#;
            with(
                text,
                &[(shipped, r#""held_mib": 2, "held_mib_per_key": 1"#)],
            )
        };
        let small = Stack::edited(&format!("{name}-small"), little).await;
        Self {
            stack,
            starting,
            _home: home,
            small,
        }
    }

    /// Counts the requests of Claude Code, Codex and opencode that the Envoy of a case has answered, by its access log.
    async fn asked(&self, case: &Case) -> [usize; 3] {
        tokio::time::sleep(FLUSH * 3).await;
        let stack = match case.mebibytes {
            0 => &self.stack,
            _ => &self.small,
        };
        let log = std::fs::read_to_string(stack.folder.join("envoy.log")).expect("the log");
        let lines = log
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let paths: Vec<Value> = lines.map(|line| line["path"].clone()).collect();
        ["/messages", "/responses", "/chat/completions"].map(|end| {
            let paths = paths.iter().filter_map(Value::as_str);
            paths.filter(|path| path.ends_with(end)).count()
        })
    }

    fn cases(&self) -> Vec<Case> {
        let base = Caller::new(self.stack.envoy.port, "").url("");
        let case = |name, key: &str, sentence| Case {
            name,
            base: base.clone(),
            key: client_key(key),
            mebibytes: 0,
            retries: 2,
            sentence,
            repeats: false,
        };
        vec![
            case(
                "unknown",
                "nobody",
                "This client key is unknown or revoked.",
            ),
            case("expired", "expired", "has expired. Ask the gateway"),
            case("models", "models", "This client key may not use the model"),
            Case {
                base: format!("{base}/nowhere"),
                ..case("path", "good", "Give your client the base URL")
            },
            case("day", "day", "tokens a day. Try again at"),
            Case {
                base: Caller::new(self.small.envoy.port, "").url(""),
                mebibytes: 10,
                ..case("large", "all", "larger than")
            },
            case("empty", "empty", "No usable account in the gateway"),
            Case {
                retries: 0,
                repeats: true,
                ..case("down", "down", "could not be reached")
            },
            Case {
                base: Caller::new(self.starting.port, "").url(""),
                retries: 1,
                repeats: true,
                ..case("starting", "good", "The gateway is starting")
            },
        ]
    }
}

#[test]
fn each_sdk_shows_our_sentence_and_repeats_where_that_can_help() {
    run(async {
        let refusing = Refusing::new("client-refusals").await;
        let cases = refusing.cases();
        let told: Vec<Value> = cases
            .iter()
            .map(|case| {
                json!({"name": case.name, "base": case.base, "key": case.key, "mebibytes": case.mebibytes,
                    "retries": case.retries})
            })
            .collect();
        let told = Value::from(told).to_string();
        let mut got: BTreeMap<String, Value> = BTreeMap::new();
        let arguments = [told.as_str()];
        let (python, node) = tokio::join!(
            python("refusals.py", &arguments),
            node("refusals.mjs", &arguments)
        );
        for printed in [python, node] {
            got.extend(serde_json::from_value::<BTreeMap<_, _>>(printed).expect("by client"));
        }
        assert_eq!(got.len(), 6, "{got:?}");
        for (client, got) in &got {
            for case in &cases {
                let got = &got[case.name];
                let text = got["text"].as_str().expect("a text");
                assert!(text.contains(case.sentence), "{client}: {case:?}: {got}");
                // Vercel's SDK goes by the status alone.
                let deaf = client.contains("vercel") && ["day", "empty"].contains(&case.name);
                let tries = if case.repeats || deaf {
                    1 + case.retries
                } else {
                    1
                };
                assert_eq!(got["tries"], tries, "{client}: {case:?}: {got}");
            }
        }
    });
}

/// The programs that people start, with every refusal. Each start takes seconds.
mod long {
    use super::*;

    /// Claude Code repeats ten times what may be repeated, opencode five times.
    const LIMIT: Duration = Duration::from_secs(280);

    /// A client that does not repeat asks so often: Codex asks once more whatever it reads.
    const AT_ONCE: usize = 2;

    #[test]
    #[ignore = "ten minutes"]
    fn each_program_shows_our_sentence_and_ends() {
        run(async {
            let refusing = Refusing::new("client-refusals-long").await;
            // Codex takes no more from a person.
            let large = "word ".repeat(200_000);
            let mut wrong = Vec::new();
            for case in refusing.cases() {
                let homes = ["claude", "codex", "opencode"].map(|client| {
                    refusing
                        .stack
                        .folder
                        .join(format!("{client}-{}", case.name))
                });
                let v1 = format!("{}/v1", case.base);
                let ask = |home, base_url| Ask {
                    prompt: if case.mebibytes > 0 { &large } else { "say hi" },
                    limit: LIMIT,
                    ..Ask::new(home, base_url, &case.key)
                };
                let [of_claude, of_codex, of_opencode] = &homes;
                let asks = (
                    ask(of_claude, &case.base),
                    ask(of_codex, &v1),
                    ask(of_opencode, &v1),
                );
                let before = refusing.asked(&case).await;
                let (of_claude, of_codex, of_opencode) =
                    tokio::join!(claude(&asks.0), codex(&asks.1), opencode(&asks.2, &[]));
                let after = refusing.asked(&case).await;
                for (place, (client, (printed, took))) in [
                    ("claude", of_claude),
                    ("codex", of_codex),
                    ("opencode", of_opencode),
                ]
                .into_iter()
                .enumerate()
                {
                    let asked = after[place] - before[place];
                    let told = format!(
                        "{client}, {}, {asked} times, {took:?}: {printed}",
                        case.name
                    );
                    println!("{told}\n---");
                    let (sentence, most) = expected(client, &case);
                    if !printed.contains(sentence)
                        || took > LIMIT
                        || most.is_some_and(|most| asked > most)
                    {
                        wrong.push(told);
                    }
                }
            }
            assert!(wrong.is_empty(), "{}", wrong.join("\n---\n"));
        });
    }

    /// What a program shows, and how often it may ask for that, where it must not repeat.
    fn expected(client: &str, case: &Case) -> (&'static str, Option<usize>) {
        let sentence = match (client, case.name) {
            // It takes a 404 for one about the model.
            ("claude", "path") => "selected model",
            // It has one sentence for every 413.
            ("claude", "large") => "Request too large",
            // Of any other 429 it says nothing but that.
            ("codex", "day") => "hit your usage limit",
            _ => case.sentence,
        };
        let most = match (client, case.name) {
            (_, _) if case.repeats => None,
            // It repeats a 429 and a 5xx five times, whatever is said of it.
            ("opencode", "day" | "empty") => None,
            // It repeats a 5xx four times in a second, whatever is said of it.
            ("codex", "empty") => None,
            _ => Some(AT_ONCE),
        };
        (sentence, most)
    }
}
