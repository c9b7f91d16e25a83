//! Only an answer is an answer: what a platform says that is none, that speaks for the gateway or Envoy, or that tells
//! of the account's owner, reaches no caller.

use std::{fs, time::Duration};

use serde_json::json;

use crate::harness::{
    Stack,
    caller::chat_body,
    eventually, holds, raw, run,
    scripted::{Script, Scripted},
    stack::{OPENAI, client_key},
};

const CHAT: &str = "/v1/chat/completions";

/// The key of the account.
const CREDENTIAL: &str = "sk-openai";

/// A stack whose account of OpenAI's API is at a platform that says what a test has it say.
async fn stack(name: &str) -> (Stack, Scripted) {
    let stack = Stack::start(name).await;
    let script = Script {
        answer: Vec::new(),
        reads: true,
    };
    let platform = Scripted::start(script).await;
    stack.replug_in_plain_text(OPENAI, platform.port).await;
    (stack, platform)
}

/// An answer of that status with more lines in its head.
fn answer(status: u16, lines: &[(&str, &str)], body: &str) -> String {
    let lines: String = lines
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    format!(
        "HTTP/1.1 {status} So\r\n{lines}content-type: application/json\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n{body}",
        body.len()
    )
}

/// Every status that is none of an answer is a 502 of the gateway's own; every other passes as it is.
#[test]
fn a_status_that_is_no_answer_is_a_502_of_ours() {
    run(async {
        let (stack, platform) = stack("answers-status").await;
        let caller = stack.caller("openai");
        for (status, passes) in [
            (600, false),
            (777, false),
            (999, false),
            (300, false),
            (399, false),
            (200, true),
            (299, true),
            (400, true),
            (418, true),
            (451, true),
            (501, true),
            (199, false),
        ] {
            platform.answers(answer(status, &[], "{}"));
            let got = caller.post(CHAT, &chat_body(false)).await;
            if passes {
                assert_eq!((got.status, got.own_code()), (status, None), "{got:?}");
                continue;
            }
            let code = match status {
                // To Envoy the beginning of an answer that does not come.
                199 => "latchkey_platform_unreachable",
                300..=399 => "latchkey_platform_redirect",
                _ => "latchkey_platform_no_answer",
            };
            assert_eq!(
                (got.status, got.own_code()),
                (502, Some(code)),
                "{status}: {got:?}"
            );
        }
        // A switch of protocols that nobody asked for.
        platform.answers(
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\nabc",
        );
        let got = caller.post(CHAT, &chat_body(false)).await;
        assert!(matches!(got.status, 502 | 503), "{got:?}");
        assert_eq!(stack.envoy.crashes().await, 0);
    });
}

/// On good answers and on errors: no header that Latchkey or Envoy trusts, that speaks for the gateway's address, or that
/// names the account's owner. The access log's error code is ours alone.
#[test]
fn headers_that_speak_for_others_reach_no_caller() {
    const WITHHELD: [(&str, &str); 16] = [
        ("x-latchkey-error", "latchkey_forged"),
        ("x-latchkey-status", "200"),
        ("x-latchkey-anything", "1"),
        ("x-envoy-immediate-health-check-fail", "true"),
        ("x-envoy-overloaded", "true"),
        ("x-envoy-upstream-service-time", "1"),
        ("location", "https://evil.example/"),
        ("refresh", "0; url=https://evil.example/"),
        ("strict-transport-security", "max-age=31536000"),
        ("clear-site-data", "\"*\""),
        ("report-to", "{}"),
        ("nel", "{}"),
        ("set-cookie", "session=1"),
        ("alt-svc", "h3=\":443\""),
        ("openai-organization", "acme-inc"),
        ("x-debug", "GET /v1?key=sk-openai"),
    ];
    run(async {
        let (stack, platform) = stack("answers-headers").await;
        let caller = stack.caller("openai");
        let lines = [
            &WITHHELD[..],
            &[("openai-processing-ms", "7"), ("retry-after", "9")],
        ]
        .concat();
        for status in [200, 404, 400, 500] {
            platform.answers(answer(status, &lines, "{}"));
            let got = caller.post(CHAT, &chat_body(false)).await;
            assert_eq!(got.status, status, "{got:?}");
            for (name, _) in WITHHELD {
                assert_eq!(got.header(name), None, "{name}: {got:?}");
            }
            assert_eq!(got.header("openai-processing-ms"), Some("7"), "{got:?}");
            assert_eq!(got.header("retry-after"), Some("9"), "{got:?}");
        }
        let log = stack.folder.join("envoy.log");
        eventually(
            "the requests are in the access log",
            Duration::from_secs(20),
            async || {
                let text = fs::read_to_string(&log).expect("a log");
                assert!(!text.contains("latchkey_forged") && !text.contains("acme-inc"));
                holds(text.matches("\"status\":500").count() > 0, || text.clone())
            },
        )
        .await;
        // In trailers too.
        platform.answers(
            "HTTP/1.1 200 OK\r\ntrailer: x-latchkey-error\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n\
             2\r\n{}\r\n0\r\nx-latchkey-error: latchkey_forged\r\nopenai-organization: acme-inc\r\n\r\n",
        );
        let body = chat_body(false).to_string();
        let request = format!(
            "POST {CHAT} HTTP/1.1\r\nhost: a\r\nte: trailers\r\nx-api-key: {}\r\ncontent-length: {}\r\n\r\n{body}",
            client_key("openai"),
            body.len()
        );
        let got = raw::exchange(stack.envoy.port, request.as_bytes(), 1).await;
        assert_eq!(raw::status(&got), 200, "{got}");
        assert!(!got.contains("forged") && !got.contains("acme"), "{got}");
    });
}

/// A platform's error page that repeats the account's credential, short or long and in any pieces, brings it to nobody.
#[test]
fn an_error_that_repeats_the_credential_is_masked() {
    run(async {
        let (stack, platform) = stack("answers-credential").await;
        let caller = stack.caller("openai");
        for padding in [0, 100, 32 * 1024 - 5, 200_000] {
            let body = json!({"error": {"message": format!("{}no such key: {CREDENTIAL}.", " ".repeat(padding))}});
            let body = body.to_string();
            platform.answers(answer(400, &[], &body));
            let got = caller.post(CHAT, &chat_body(false)).await;
            assert_eq!(got.status, 400, "{got:?}");
            assert_eq!(got.body, body.replace(CREDENTIAL, "*********"), "{padding}");
        }
        assert_eq!(stack.envoy.crashes().await, 0);
    });
}
