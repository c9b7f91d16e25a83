use std::time::Duration;

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use crate::harness::{
    Caller, Stack,
    caller::{chat_body, responses_body},
    eventually, holds, raw, records,
    refresher::Refresher,
    run,
    sim::Sim,
    stack::{ALICE, OPENAI, client_key},
};

const CHAT: &str = "/v1/chat/completions";

/// The law's own figure.
const OUT_OF_USE: Duration = Duration::from_secs(2);

/// An access token that no header can carry.
const TOO_LONG: usize = 20 * 1024;

/// Alice's login, two keys of the OpenAI API, and a pool for each of these.
async fn stack(name: &str) -> Stack<Refresher> {
    Stack::real(name, async |sim: &Sim, refresher: &Refresher| {
        refresher
            .log_in_new(sim, ALICE, Duration::from_secs(3600))
            .await;
        for account in ["one", "two"] {
            let key = format!("sk-{account}");
            sim.add_api_key("openai", &key, account).await;
            refresher.add_api_key(account, "openai", &key).await;
            refresher.run(&["pools", "create", account], "").await;
            refresher.run(&["pools", "add", account, account], "").await;
        }
    })
    .await
}

impl Stack<Refresher> {
    /// A caller with a new client key of that pool, once it is served.
    async fn caller_of(&self, name: &str, pool: &str) -> Caller {
        let command = ["keys", "create", name, "--pool", pool];
        let key = self.refresher.run(&command, "").await;
        let caller = Caller::new(self.envoy.port, key.trim());
        status_of(&caller, 200).await;
        caller
    }

    /// Takes away in each way that there is, and adds, while something else is wrong.
    async fn withdraws(&self, case: &str) {
        println!("{case}");
        let name = |what: &str| format!("{what}-{case}");
        // What is new is there, and what is revoked or has ended is not.
        let revoked = self.caller_of(&name("revoked"), "two").await;
        let command = ["keys", "revoke", &name("revoked")];
        self.refresher.run(&command, "").await;
        status_of(&revoked, 401).await;
        let ends = self.caller_of(&name("ends"), "two").await;
        let command = ["keys", "set", &name("ends"), "--expires", "1s"];
        self.refresher.run(&command, "").await;
        status_of(&ends, 401).await;
        // A disabled account serves no more, and again when it is enabled.
        let caller = self.caller_of(&name("caller"), "two").await;
        self.refresher
            .run(&["accounts", "disable", "two"], "")
            .await;
        status_of(&caller, 503).await;
        self.refresher.run(&["accounts", "enable", "two"], "").await;
        status_of(&caller, 200).await;
    }

    async fn status(&self) -> Value {
        let status = self.refresher.run(&["status", "--json"], "").await;
        serde_json::from_str(&status).expect("JSON")
    }
}

/// Waits, no longer than the law allows, until chats are answered so.
async fn status_of(caller: &Caller, status: u16) {
    eventually(&format!("{status}"), OUT_OF_USE, async || {
        let answer = caller.post(CHAT, &chat_body(false)).await;
        holds(answer.status == status, || format!("{answer:?}"))
    })
    .await;
}

/// A gate whose configuration changes while Envoy runs has another root from then on. The first one goes, and with it the
/// answer to the poll that it made; the VM stays, as the accounts' clusters have it too.
#[test]
fn what_is_taken_away_is_out_of_use_after_the_gate_was_configured_anew() {
    run(async {
        let stack = stack("law-withdrawal-relisted").await;
        stack.withdraws("before").await;
        for attempts in [3, 2] {
            let edit = |text: &str| {
                let edited = text.replace(
                    "\"max_attempts\": 4",
                    &format!("\"max_attempts\": {attempts}"),
                );
                assert_ne!(edited, text);
                edited
            };
            stack.relist(edit).await;
            stack.withdraws(&format!("with-{attempts}")).await;
        }
        assert_eq!(stack.envoy.crashes().await, 0);
    });
}

/// What is taken away while the refresher is down is told, and out of use once the operator's bound is over.
#[test]
fn what_is_taken_away_while_the_refresher_is_down_is_used_no_longer_than_the_operator_allows() {
    run(async {
        let edit = |text: &str| {
            let edited = text.replace(
                "\"poll_wait_seconds\": 25",
                "\"poll_wait_seconds\": 1, \"max_unconfirmed_seconds\": 4",
            );
            assert_ne!(edited, text);
            edited
        };
        let mut stack = Stack::real_edited("law-withdrawal-bound", edit, async |sim, refresher| {
            sim.add_api_key("openai", "sk-one", "one").await;
            refresher.add_api_key("one", "openai", "sk-one").await;
        })
        .await;
        let (stays, goes) = (stack.caller("stays").await, stack.caller("goes").await);
        stack.refresher.stop().await;
        let revoked = stack
            .refresher
            .try_run(&["keys", "revoke", "goes"], "")
            .await;
        assert_eq!(revoked.status.code(), Some(3), "{revoked:?}");
        assert_eq!(goes.post(CHAT, &chat_body(false)).await.status, 200);
        let limit = Duration::from_secs(10);
        for caller in [&stays, &goes] {
            eventually("nobody is served", limit, async || {
                let answer = caller.post(CHAT, &chat_body(false)).await;
                let code = answer.header("x-latchkey-error");
                let is_it = answer.status == 503 && code == Some("latchkey_unconfirmed");
                holds(is_it, || format!("{answer:?}"))
            })
            .await;
        }
        stack.refresher.serve().await;
        eventually("callers are served again", limit, async || {
            let answer = stays.post(CHAT, &chat_body(false)).await;
            holds(answer.status == 200, || format!("{answer:?}"))
        })
        .await;
        assert_eq!(goes.post(CHAT, &chat_body(false)).await.status, 401);
    });
}

/// A token endpoint that grants what no header can carry costs nobody anything: the account keeps its token, and what is
/// taken away is out of use. The filter once refused every page from then on.
#[test]
fn a_token_that_is_too_long_keeps_nothing_in_use() {
    run(async {
        let stack = stack("law-withdrawal-token").await;
        let caller = stack.caller("alice").await;
        let long = json!({
            "access_token": "x".repeat(TOO_LONG), "refresh_token": "rt_next", "token_type": "Bearer", "expires_in": 3600,
        });
        let fault = json!({"target": "token", "status": 200, "body": long});
        stack.sim.add_fault(fault).await;
        stack.refresher.try_run(&["refresh", ALICE], "").await;
        stack.withdraws("token").await;
        let answer = caller.post("/v1/responses", &responses_body()).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(stack.envoy.stat("latchkey.pages_refused").await, 0);
        assert_eq!(stack.envoy.stat("latchkey.records_unread").await, 0);
    });
}

/// A row that somebody wrote by hand, and that no release of ours reads, is out of use; all others go on.
#[test]
fn a_row_that_cannot_be_read_keeps_nothing_in_use() {
    run(async {
        let stack = stack("law-withdrawal-row").await;
        let caller = stack.caller_of("of-one", "one").await;
        for (number, spoilt) in [
            "vars = x'5b'",
            "name = 'one' || char(10)",
            "models = '{}'",
            "expires_at = -1",
            "credential = x'00'",
        ]
        .into_iter()
        .enumerate()
        {
            let sql = format!(
                "CREATE TABLE IF NOT EXISTS kept AS SELECT * FROM accounts WHERE name = 'one'; \
                 UPDATE meta SET revision = revision + 1; \
                 UPDATE accounts SET {spoilt}, revision = (SELECT revision FROM meta) WHERE name = 'one';"
            );
            stack.refresher.change_database(&sql);
            status_of(&caller, 503).await;
            stack.withdraws(&format!("row-{number}")).await;
            let status = stack.status().await;
            assert_eq!(status["left_out"][0]["kind"], "account", "{status}");
            let log = stack
                .refresher
                .log_lines("a record cannot go to Envoy", "out of use");
            assert!(log > number, "{spoilt} is not in the log");
            stack.refresher.change_database(
                "UPDATE meta SET revision = revision + 1; \
                 UPDATE accounts SET (name, vars, models, expires_at, credential, revision) = \
                 (SELECT name, vars, models, expires_at, credential, (SELECT revision FROM meta) FROM kept) \
                 WHERE id = (SELECT id FROM kept);",
            );
            status_of(&caller, 200).await;
        }
        stack.refresher.change_database("DROP TABLE kept;");
        let status = stack.status().await;
        assert_eq!(status["left_out"], json!([]));
        assert_eq!(stack.envoy.stat("latchkey.records_unread").await, 0);
        assert_eq!(stack.envoy.stat("latchkey.pages_refused").await, 0);
    });
}

/// Values that would break a header, or that are too long, never get into one: such a record is out of use with all that
/// was held of it, and what comes on the same page is in use.
#[test]
fn a_record_that_the_filter_cannot_read_keeps_nothing_in_use() {
    run(async {
        let stack = Stack::start("law-withdrawal-records").await;
        let caller = stack.caller("openai");
        let long = "x".repeat(TOO_LONG);
        let vars = json!({"vars": {"account_id": "ws\r\nset-cookie: evil=1"}});
        for (number, (case, other)) in [
            ("vars", vars),
            ("credential", json!({"credential": "sk\r\nx-evil: 1"})),
            ("a long credential", json!({"credential": long})),
            ("authority", json!({"authority": "127.0.0.1\r\nx-evil: 1"})),
            ("name", json!({"name": "a\nb"})),
            ("cluster", json!({"cluster": "latchkey-a\r\nb"})),
            ("platform", json!({"platform": "openai\0"})),
            ("generation", json!({"generation": -1})),
        ]
        .into_iter()
        .enumerate()
        {
            let unread = stack.envoy.stat("latchkey.records_unread").await;
            let authority = stack.sim.authority();
            let bad = records::account(OPENAI, "openai", authority, "sk-evil", other);
            let beside = format!("beside-{number}");
            let key = records::key(&format!("key_{number}"), &client_key(&beside), "openai");
            let revision = stack.refresher.publish([bad, key]);
            status_of(&caller, 503).await;
            assert_eq!(stack.envoy.revision().await, revision, "{case}");
            let listed = stack.caller(&beside).get("/v1/models").await;
            assert_eq!(listed.status, 200, "{case}: {listed:?}");
            assert_eq!(
                stack.envoy.stat("latchkey.records_unread").await,
                unread + 1,
                "{case}"
            );
            let good = records::account(OPENAI, "openai", authority, "sk-openai", json!({}));
            stack.refresher.publish([good]);
            status_of(&caller, 200).await;
        }
        // An id that none has is nobody's, and a pool that is too long is out of use.
        let bad = json!({"id": "a\r\nb"});
        let bad = records::account(OPENAI, "openai", stack.sim.authority(), "sk-evil", bad);
        let revision = stack.refresher.publish([bad]);
        stack.reaches(revision).await;
        status_of(&caller, 200).await;
        let members: Vec<String> = (0..20_000).map(|at| format!("acc_{at:040}")).collect();
        let members: Vec<&str> = members.iter().map(String::as_str).collect();
        stack
            .refresher
            .publish([records::pool("openai", "sticky", &members)]);
        status_of(&caller, 503).await;
        // A line that does not say what it is about has everything sent anew.
        let pool = records::pool("openai", "sticky", &[OPENAI]);
        let revision = stack.refresher.publish([pool, "{\"key\":{".to_owned()]);
        stack.reaches(revision).await;
        status_of(&caller, 200).await;
        assert_eq!(stack.sim.count("rejected_credentials").await, 0);
        assert_eq!(stack.envoy.crashes().await, 0);
    });
}

/// Another account with a key of the OpenAI API.
const OTHER: &str = "acc_other";

/// A pool of two accounts at OpenAI, the first of which is at a platform that does what a test says; and a client key.
struct Slow {
    stack: Stack,
    platform: TcpListener,
    caller: Caller,
}

impl Slow {
    async fn start(name: &str) -> Self {
        let stack = Stack::start(name).await;
        stack.sim.add_api_key("openai", "sk-other", "other").await;
        stack.have_clusters(&[OPENAI, OTHER]).await;
        let platform = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let port = platform.local_addr().expect("an address").port();
        stack.replug_in_plain_text(OPENAI, port).await;
        let key = client_key("goes");
        let authority = stack.sim.authority();
        let revision = stack.refresher.publish([
            records::account(OTHER, "openai", authority, "sk-other", json!({})),
            records::pool("both", "fill_first", &[OPENAI, OTHER]),
            records::key("key_goes", &key, "both"),
        ]);
        stack.reaches(revision).await;
        let caller = Caller::new(stack.envoy.port, &key);
        Self {
            stack,
            platform,
            caller,
        }
    }

    /// A request begins whose body has `length` bytes, of which these come.
    async fn begins(&self, path: &str, content_type: &str, length: usize, body: &str) -> TcpStream {
        let key = self.caller.key();
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {key}\r\ncontent-type: {content_type}\r\n\
             content-length: {length}\r\n\r\n{body}"
        );
        raw::open(self.stack.envoy.port, request.as_bytes()).await
    }

    /// The first account's platform is asked. Returns the connection, from which the head was read and what came with it.
    async fn is_asked(&self) -> (TcpStream, String) {
        let asked = async {
            let (mut stream, _) = self.platform.accept().await.expect("a connection");
            let mut received = Vec::new();
            while !received.windows(4).any(|four| four == b"\r\n\r\n") {
                assert_ne!(stream.read_buf(&mut received).await.expect("a request"), 0);
            }
            (stream, String::from_utf8(received).expect("text"))
        };
        let limit = Duration::from_secs(10);
        timeout(limit, asked).await.expect("the platform is asked")
    }

    /// The key is revoked, and out of use as soon as the law says.
    async fn revokes(&self) {
        let removed = records::removed("key", "key_goes");
        self.stack.refresher.publish([removed]);
        eventually("the key is out of use", OUT_OF_USE, async || {
            let answer = self.caller.get("/v1/models").await;
            holds(answer.status == 401, || format!("{answer:?}"))
        })
        .await;
    }
}

/// A platform that thinks for long and then says no: by then the key is revoked, and the request goes to no other account.
#[test]
fn a_request_of_a_revoked_key_is_not_tried_again() {
    run(async {
        let slow = Slow::start("law-withdrawal-again").await;
        let body = chat_body(false);
        let platform = async {
            let (mut platform, head) = slow.is_asked().await;
            assert!(head.contains("sk-openai"), "{head}");
            slow.revokes().await;
            let limited = r#"{"error":{"code":"rate_limit_exceeded","message":"slow down"}}"#;
            let answer = format!(
                "HTTP/1.1 429 Too Many Requests\r\nretry-after: 60\r\ncontent-type: application/json\r\n\
                 content-length: {}\r\n\r\n{limited}",
                limited.len()
            );
            let sent = platform.write_all(answer.as_bytes()).await;
            sent.expect("the answer is sent");
            platform
        };
        let (answer, _) = tokio::join!(slow.caller.post(CHAT, &body), platform);
        let asked = slow.stack.sim.seen().await;
        assert!(asked.iter().all(|one| one.path() != CHAT), "{asked:?}");
        assert_eq!(answer.status, 401, "{answer:?}");
        assert_eq!(answer.own_code(), Some("latchkey_unknown_key"));
        assert!(answer.json()["error"]["message"].is_string(), "{answer:?}");
        assert_eq!(slow.stack.envoy.crashes().await, 0);
    });
}

/// A body that ends after its key was revoked: one that the gate reads to its end, and one that it has let go.
#[test]
fn a_body_that_ends_after_its_key_was_revoked_goes_to_no_platform() {
    const LENGTH: usize = 1000;
    run(async {
        let slow = Slow::start("law-withdrawal-body").await;
        // A key's files stay together, in whichever account.
        let alone = records::pool("both", "fill_first", &[OPENAI]);
        let revision = slow.stack.refresher.publish([alone]);
        slow.stack.reaches(revision).await;
        let begun = r#"{"model":"gpt-5.6","messages":[{"role":"user","content":""#;
        let mut read = slow.begins(CHAT, "application/json", LENGTH, begun).await;
        let begun_form = "--b\r\ncontent-disposition: form-data; name=\"purpose\"\r\n\r\n";
        let form = "multipart/form-data; boundary=b";
        let mut let_go = slow.begins("/v1/files", form, LENGTH, begun_form).await;
        let (mut platform, mut received) = slow.is_asked().await;
        assert!(received.contains("sk-openai"), "{received}");
        slow.revokes().await;
        for (case, stream, begun) in [
            ("read to its end", &mut read, begun),
            ("let go", &mut let_go, begun_form),
        ] {
            let rest = "x".repeat(LENGTH - begun.len());
            let sent = stream.write_all(rest.as_bytes()).await;
            sent.expect("the body's end is sent");
            let answer = raw::read(stream, 1).await;
            assert_eq!(raw::status(&answer), 401, "{case}: {answer}");
            assert!(answer.contains("latchkey_unknown_key"), "{case}: {answer}");
        }
        // The platform has the beginning, and then no connection.
        let limit = Duration::from_secs(10);
        let rest = timeout(limit, platform.read_to_string(&mut received)).await;
        rest.expect("the connection ends").ok();
        let (_, body) = received.split_once("\r\n\r\n").expect("a head");
        assert_eq!(body, begun_form);
        assert_eq!(slow.stack.envoy.crashes().await, 0);
    });
}
