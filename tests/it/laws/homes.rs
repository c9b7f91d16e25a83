//! Law 7: what exists in one account alone goes back to that account. The simulated platform knows each thing in the
//! account that made it alone, and says 404 to the others.

use std::{cell::Cell, collections::BTreeSet, time::Duration};

use serde_json::{Value, json};

use crate::harness::{
    Caller, Stack, caller::Answer, envoy::Envoy, eventually, holds, refresher::Refresher, run,
    sim::Sim, stack::SYNC_LIMIT,
};

const RESPONSES: &str = "/v1/responses";

/// What tells Anthropic's clients, and has their files.
const ANTHROPIC: [(&str, &str); 2] = [
    ("anthropic-version", "2023-06-01"),
    ("anthropic-beta", "files-api-2025-04-14"),
];

/// Three accounts of the OpenAI API and two of Anthropic's that are taken in turn.
async fn stack(name: &str) -> Stack<Refresher> {
    Stack::real(name, async |sim: &Sim, refresher: &Refresher| {
        let create = ["pools", "create", "turns", "--policy", "round_robin"];
        refresher.run(&create, "").await;
        for (account, platform, prefix) in [
            ("one", "openai", "sk-"),
            ("two", "openai", "sk-"),
            ("three", "openai", "sk-"),
            ("four", "anthropic", "sk-ant-"),
            ("five", "anthropic", "sk-ant-"),
        ] {
            let key = format!("{prefix}{account}");
            sim.add_api_key(platform, &key, account).await;
            refresher.add_api_key(account, platform, &key).await;
            refresher.run(&["pools", "add", "turns", account], "").await;
        }
    })
    .await
}

/// A client key at several Envoys. Each request goes to the next one, on a connection of its own, and so to
/// whichever worker takes that.
struct Team {
    ports: Vec<u16>,
    key: String,
    next: Cell<usize>,
}

/// The body of a request.
enum Body<'a> {
    None,
    Json(Value),
    /// A form with a file of this name and content.
    Form(&'a str, &'a str),
}

/// Something that is read by its path, by clients of Anthropic or of OpenAI.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Thing {
    path: String,
    anthropic: bool,
}

impl Team {
    async fn new(refresher: &Refresher, name: &str, ports: &[u16]) -> Self {
        let command = ["keys", "create", name, "--pool", "turns"];
        let key = refresher.run(&command, "").await.trim().to_owned();
        let team = Self {
            ports: ports.to_vec(),
            key,
            next: Cell::new(0),
        };
        team.is_served().await;
        team
    }

    async fn is_served(&self) {
        for port in &self.ports {
            let caller = Caller::new(*port, &self.key);
            eventually("the key is known", SYNC_LIMIT, async || {
                let answer = caller.get("/v1/models").await;
                holds(answer.status == 200, || format!("{answer:?}"))
            })
            .await;
        }
    }

    fn caller(&self) -> Caller {
        let next = self.next.get();
        self.next.set(next + 1);
        Caller::new(self.ports[next % self.ports.len()], &self.key)
    }

    async fn try_ask(&self, anthropic: bool, method: &str, path: &str, body: &Body<'_>) -> Answer {
        let bearer = format!("Bearer {}", self.key);
        let mut headers = vec![("authorization", bearer.as_str())];
        if anthropic {
            headers.extend(ANTHROPIC);
        }
        let text = match body {
            Body::None => String::new(),
            Body::Json(body) => {
                headers.push(("content-type", "application/json"));
                body.to_string()
            }
            Body::Form(name, content) => {
                headers.push(("content-type", "multipart/form-data; boundary=a-b"));
                format!(
                    "--a-b\r\ncontent-disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n--a-b\r\n\
                     content-disposition: form-data; name=\"{name}\"; filename=\"in.jsonl\"\r\n\r\n{content}\r\n--a-b--\r\n"
                )
            }
        };
        self.caller().send(method, path, &headers, text).await
    }

    async fn ask(&self, anthropic: bool, method: &str, path: &str, body: Body<'_>) -> Answer {
        let answer = self.try_ask(anthropic, method, path, &body).await;
        assert_eq!(answer.status, 200, "{method} {path}: {answer:?}");
        answer
    }

    /// The id of what that makes.
    async fn make(&self, anthropic: bool, path: &str, body: Body<'_>) -> String {
        let made = self.ask(anthropic, "POST", path, body).await.json();
        made["id"].as_str().expect("an id").to_owned()
    }

    async fn read(&self, thing: &Thing) -> Answer {
        self.try_ask(thing.anthropic, "GET", &thing.path, &Body::None)
            .await
    }

    /// Has one of each thing made, and goes on from it.
    async fn make_everything(&self) -> Vec<Thing> {
        let file = self
            .make(false, "/v1/files", Body::Form("file", "{\"a\":1}"))
            .await;
        let batch =
            json!({"input_file_id": file, "endpoint": "/v1/responses", "completion_window": "24h"});
        let batch = self.make(false, "/v1/batches", Body::Json(batch)).await;
        let batch = format!("/v1/batches/{batch}");
        let ended = self.ask(false, "GET", &batch, Body::None).await.json();
        let output = ended["output_file_id"]
            .as_str()
            .expect("it has ended")
            .to_owned();

        let upload =
            json!({"filename": "in", "purpose": "batch", "bytes": 4, "mime_type": "text/plain"});
        let upload = self.make(false, "/v1/uploads", Body::Json(upload)).await;
        let parts = format!("/v1/uploads/{upload}/parts");
        let part = self.make(false, &parts, Body::Form("data", "abcd")).await;
        let complete = format!("/v1/uploads/{upload}/complete");
        let parts = Body::Json(json!({"part_ids": [part]}));
        let completed = self.ask(false, "POST", &complete, parts).await.json();
        let uploaded = completed["file"]["id"].as_str().expect("a file").to_owned();
        let uploaded = format!("/v1/files/{uploaded}/content");
        assert_eq!(
            self.ask(false, "GET", &uploaded, Body::None).await.body,
            "abcd"
        );

        let conversation = self
            .make(false, "/v1/conversations", Body::Json(json!({})))
            .await;
        let mut turn = json!({"model": "gpt-5.6", "input": "hi", "conversation": conversation});
        let first = self.make(false, RESPONSES, Body::Json(turn.clone())).await;
        turn["conversation"] = json!({"id": conversation});
        self.make(false, RESPONSES, Body::Json(turn)).await;
        let next = json!({"model": "gpt-5.6", "input": "go on", "previous_response_id": first});
        let second = self.make(false, RESPONSES, Body::Json(next)).await;
        let cancel = format!("{RESPONSES}/{second}/cancel");
        let refused = self.try_ask(false, "POST", &cancel, &Body::None).await;
        assert_eq!(
            (refused.status, refused.own_code()),
            (400, None),
            "{refused:?}"
        );
        self.ask(
            false,
            "DELETE",
            &format!("{RESPONSES}/{second}"),
            Body::None,
        )
        .await;

        // What stands inside a body goes with it.
        let store = json!({"name": "docs", "file_ids": [file]});
        let store = self
            .make(false, "/v1/vector_stores", Body::Json(store))
            .await;
        let added = format!("/v1/vector_stores/{store}/files");
        self.make(false, &added, Body::Json(json!({"file_id": file})))
            .await;
        let container = json!({"name": "box", "file_ids": [file]});
        let container = self
            .make(false, "/v1/containers", Body::Json(container))
            .await;
        let held = format!("/v1/containers/{container}/files");
        self.make(false, &held, Body::Json(json!({"file_id": file})))
            .await;
        let in_container = json!({"model": "gpt-5.6", "input": "go on",
            "tools": [{"type": "code_interpreter", "container": container}]});
        self.make(false, RESPONSES, Body::Json(in_container)).await;
        for body in [of_responses(&file, &store), of_images(&file)] {
            self.make(false, RESPONSES, Body::Json(body)).await;
        }
        let claudes = self
            .make(true, "/v1/files", Body::Form("file", "hello"))
            .await;
        self.make(true, "/v1/messages", Body::Json(of_messages(&claudes)))
            .await;
        let messages =
            json!({"requests": [{"custom_id": "one", "params": {"model": "claude-opus-5-5"}}]});
        let messages = self
            .make(true, "/v1/messages/batches", Body::Json(messages))
            .await;
        let chat = "/v1/chat/completions";
        self.make(false, chat, Body::Json(of_chat(&file))).await;
        let kept = json!({"model": "gpt-5.6", "messages": [], "store": true});
        let kept = self.make(false, chat, Body::Json(kept)).await;
        let kept = format!("{chat}/{kept}");
        let named = Body::Json(json!({"metadata": {"a": "b"}}));
        self.ask(false, "POST", &kept, named).await;
        let of_openai = [
            format!("{kept}/messages"),
            kept,
            format!("/v1/files/{file}"),
            format!("/v1/files/{file}/content"),
            format!("/v1/files/{output}/content"),
            batch,
            uploaded,
            format!("/v1/vector_stores/{store}"),
            format!("/v1/containers/{container}"),
            format!("{held}/cfile_1/content"),
            format!("/v1/conversations/{conversation}"),
            format!("/v1/conversations/{conversation}/items"),
            format!("{RESPONSES}/{first}"),
            format!("{RESPONSES}/{first}/input_items"),
        ];
        let of_anthropic = [
            format!("/v1/files/{claudes}"),
            format!("/v1/files/{claudes}/content"),
            format!("/v1/messages/batches/{messages}"),
            format!("/v1/messages/batches/{messages}/results"),
        ];
        let thing = |anthropic| move |path| Thing { path, anthropic };
        let of_anthropic = of_anthropic.into_iter().map(thing(true));
        of_openai
            .into_iter()
            .map(thing(false))
            .chain(of_anthropic)
            .collect()
    }

    async fn reads_all(&self, things: &[Thing]) {
        for thing in things {
            let answer = self.read(thing).await;
            assert_eq!(answer.status, 200, "{thing:?}: {answer:?}");
        }
    }

    /// A chat completion that nobody asked the platform to keep is known to nobody.
    async fn reads_no_other_chat(&self) {
        let chat = "/v1/chat/completions";
        let body = json!({"model": "gpt-5.6", "messages": []});
        let id = self.make(false, chat, Body::Json(body)).await;
        let path = format!("{chat}/{id}");
        let answer = self.try_ask(false, "GET", &path, &Body::None).await;
        assert_eq!(
            answer.own_code(),
            Some("latchkey_no_such_thing"),
            "{answer:?}"
        );
    }

    /// This key made none of them.
    async fn reads_none(&self, things: &[Thing]) {
        for thing in things {
            let answer = self.read(thing).await;
            let code = answer.own_code();
            assert_eq!(
                code,
                Some("latchkey_no_such_thing"),
                "{thing:?}: {answer:?}"
            );
        }
        let named = |kind: &str| {
            let of_kind = |thing: &&Thing| thing.path.contains(kind);
            let path = &things.iter().find(of_kind).expect("one of that kind").path;
            let id = path.strip_prefix(kind).expect("its id");
            id.split('/').next().expect("its id").to_owned()
        };
        let going_on =
            |name: &str, kind| json!({"model": "gpt-5.6", "input": "hi", name: named(kind)});
        let file = named("/v1/files/");
        let stores = "/v1/vector_stores";
        for (anthropic, path, body) in [
            (
                false,
                RESPONSES,
                going_on("previous_response_id", "/v1/responses/"),
            ),
            (
                false,
                RESPONSES,
                going_on("conversation", "/v1/conversations/"),
            ),
            (
                false,
                "/v1/batches",
                going_on("input_file_id", "/v1/files/"),
            ),
            (false, RESPONSES, of_responses(&file, "vs_none")),
            (
                false,
                RESPONSES,
                of_responses("file-none", &named("/v1/vector_stores/")),
            ),
            (false, RESPONSES, of_images(&file)),
            (false, "/v1/chat/completions", of_chat(&file)),
            (false, stores, json!({"file_ids": [file]})),
            (true, "/v1/messages", of_messages(&file)),
        ] {
            let body = Body::Json(body);
            let answer = self.try_ask(anthropic, "POST", path, &body).await;
            let code = answer.own_code();
            assert_eq!(code, Some("latchkey_no_such_thing"), "{path}: {answer:?}");
        }
    }
}

/// A question about a file, and what is in a store.
fn of_responses(file: &str, store: &str) -> Value {
    let content = json!([{"type": "input_file", "file_id": file}, {"type": "input_text", "text": "What does it say?"}]);
    json!({
        "model": "gpt-5.6", "input": [{"role": "user", "content": content}],
        "tools": [{"type": "file_search", "vector_store_ids": [store]}],
    })
}

/// A question about a picture.
fn of_images(file: &str) -> Value {
    let content = json!([{"type": "input_image", "file_id": file, "detail": "low"}]);
    json!({"model": "gpt-5.6", "input": [{"role": "user", "content": content}]})
}

fn of_chat(file: &str) -> Value {
    let content = json!([{"type": "file", "file": {"file_id": file}}]);
    json!({"model": "gpt-5.6", "messages": [{"role": "user", "content": content}]})
}

fn of_messages(file: &str) -> Value {
    let content = json!([{"type": "document", "source": {"type": "file", "file_id": file}}]);
    json!({"model": "claude-opus-5-5", "max_tokens": 9, "messages": [{"role": "user", "content": content}]})
}

#[test]
fn what_an_account_made_goes_back_to_it_over_workers_envoys_and_restarts() {
    run(async {
        let mut stack = stack("laws-homes").await;
        let beside = Envoy::start_beside(&stack.folder, "beside").await;
        let ports = [stack.envoy.port, beside.port];
        let mut team = Team::new(&stack.refresher, "mine", &ports).await;
        let mut things = Vec::new();
        for _ in 0..3 {
            // What one Envoy's answer made, the other is asked for at once.
            things.extend(team.make_everything().await);
        }
        team.reads_all(&things).await;
        team.reads_no_other_chat().await;
        let seen = stack.sim.seen().await;
        let accounts: BTreeSet<&str> = seen.iter().filter_map(|seen| seen.account()).collect();
        assert!(accounts.len() > 2, "of several accounts: {accounts:?}");
        let other = Team::new(&stack.refresher, "other", &ports).await;
        other.reads_none(&things).await;
        // A list shows what an account holds, whoever made it.
        let list = team.try_ask(false, "GET", "/v1/files", &Body::None).await;
        assert_eq!(
            list.own_code(),
            Some("latchkey_list_of_account"),
            "{list:?}"
        );
        assert_eq!(stack.sim.count("refused_count").await, 0);

        // The refresher starts anew, and so does Envoy.
        drop(beside);
        stack.refresher.kill().await;
        stack.refresher.serve().await;
        stack.restart_envoy(0).await;
        team.ports = vec![stack.envoy.port];
        team.is_served().await;
        team.reads_all(&things).await;
    });
}

#[test]
fn a_home_that_is_out_is_said_plainly() {
    run(async {
        let stack = stack("laws-homes-out").await;
        let team = Team::new(&stack.refresher, "mine", &[stack.envoy.port]).await;
        let turn = json!({"model": "gpt-5.6", "input": "hi"});
        let first = team.make(false, RESPONSES, Body::Json(turn.clone())).await;
        let seen = stack.sim.seen_once(RESPONSES).await;
        let home = seen.account().expect("an account");
        stack
            .refresher
            .run(&["accounts", "disable", home], "")
            .await;
        let mut next = turn.clone();
        next["previous_response_id"] = first.into();
        eventually("the account is away", Duration::from_secs(5), async || {
            let body = Body::Json(next.clone());
            let answer = team.try_ask(false, "POST", RESPONSES, &body).await;
            holds(answer.own_code() == Some("latchkey_home_gone"), || {
                format!("{answer:?}")
            })
        })
        .await;
        // The others serve.
        team.make(false, RESPONSES, Body::Json(turn)).await;
        let seen = stack.sim.seen().await;
        assert_ne!(seen.last().and_then(|seen| seen.account()), Some(home));
    });
}
