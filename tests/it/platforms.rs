//! Every platform that we ship: a request for each of its endpoints, and each call of our own, gets there in the form that
//! the platform documents. The simulated platform knows that form by itself (`tests/sim/src/documented.rs`), and refuses another one.

use std::{collections::BTreeSet, fs, time::Duration};

use refresher::{
    credential::CredentialKind,
    platform::{Catalog, Profile},
};
use serde_json::{Value, json};

use crate::harness::{
    Caller, Stack, caller::Answer, eventually, eventually::holds, refresher::Refresher, run,
    sim::Sim, source_root,
};

/// The longest that the snapshot may take to be in use.
const LIMIT: Duration = Duration::from_secs(10);

/// The platforms that the simulated platform plays whole: other tests have theirs.
const PLAYED: [&str; 3] = ["anthropic", "codex", "openai"];

/// The base URLs, after the host, of accounts whose platform is nowhere itself.
const BASES: [(&str, &str); 3] = [
    ("azure-openai", "/openai/v1"),
    ("azure-openai-deployments", ""),
    ("custom", "/base/v1"),
];

/// Operations on what another request made, which `laws::homes` makes, gets and removes.
const OF_THINGS: [&str; 4] = ["get", "delete", "cancel", "input_items"];

/// An operation of a dialect, and the request for it.
struct Ask {
    dialect: &'static str,
    operation: &'static str,
    method: &'static str,
    /// With `PLATFORM` for the platform's id.
    path: &'static str,
    /// The header of the client key.
    key: &'static str,
    headers: &'static [(&'static str, &'static str)],
    content_type: &'static str,
    /// Likewise.
    body: String,
}

fn asks() -> Vec<Ask> {
    let turn = json!([{"role": "user", "content": "hi"}]);
    let content = json!({"parts": [{"text": "hi"}]});
    let contents = json!({"contents": [{"role": "user", "parts": [{"text": "hi"}]}]});
    let ask = |dialect, operation, path, body: Value| Ask {
        dialect,
        operation,
        method: "POST",
        path,
        key: "authorization",
        headers: &[],
        content_type: "application/json",
        body: body.to_string(),
    };
    let messages = |operation, path, body| Ask {
        key: "x-api-key",
        headers: &[("anthropic-version", "2023-06-01")],
        ..ask("messages", operation, path, body)
    };
    let google = |operation, path, body| Ask {
        key: "x-goog-api-key",
        headers: &[("x-goog-api-client", "google-genai-sdk/3.6.1")],
        ..ask("gemini", operation, path, body)
    };
    let bare = |method, operation, path| Ask {
        method,
        body: String::new(),
        ..ask("chat", operation, path, Value::Null)
    };
    let batch = json!({
        "input_file_id": "file-PLATFORM", "endpoint": "/v1/chat/completions", "completion_window": "24h",
    });
    let prompt = json!({"model": "m-1", "prompt": "hi"});
    let input = json!({"model": "m-1", "input": "hi"});
    let counted = json!({"model": "m-1", "messages": turn});
    vec![
        ask(
            "chat",
            "generate",
            "/v1/chat/completions",
            json!({"model": "m-1", "stream": true, "messages": turn}),
        ),
        ask("chat", "embed", "/v1/embeddings", input.clone()),
        ask("chat", "complete", "/v1/completions", prompt.clone()),
        ask("chat", "moderate", "/v1/moderations", input.clone()),
        Ask {
            content_type: "multipart/form-data; boundary=b",
            body: "--b\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a.jsonl\"\r\n\r\n{}\r\n--b--\r\n"
                .to_owned(),
            ..ask("chat", "file_create", "/v1/files", Value::Null)
        },
        bare("GET", "files", "/v1/files"),
        bare("GET", "file_get", "/v1/files/file-PLATFORM"),
        bare("GET", "file_content", "/v1/files/file-PLATFORM/content"),
        ask("chat", "batch_create", "/v1/batches", batch),
        bare("GET", "batches", "/v1/batches"),
        bare("GET", "batch_get", "/v1/batches/batch-PLATFORM"),
        bare("POST", "batch_cancel", "/v1/batches/batch-PLATFORM/cancel"),
        bare("DELETE", "file_delete", "/v1/files/file-PLATFORM"),
        ask("responses", "generate", "/v1/responses", input),
        ask("responses", "image", "/v1/images/generations", prompt),
        messages(
            "generate",
            "/v1/messages",
            json!({"model": "m-1", "max_tokens": 16, "messages": turn}),
        ),
        messages("count_tokens", "/v1/messages/count_tokens", counted),
        google("generate", "/v1beta/models/m-1:generateContent", contents.clone()),
        google("stream", "/v1beta/models/m-1:streamGenerateContent?alt=sse", contents.clone()),
        google("count_tokens", "/v1beta/models/m-1:countTokens", contents),
        google("embed", "/v1beta/models/m-1:embedContent", json!({"content": content})),
        google(
            "embed_batch",
            "/v1beta/models/m-1:batchEmbedContents",
            json!({"requests": [{"model": "models/m-1", "content": content}]}),
        ),
    ]
}

impl Ask {
    /// Asks for it of that account, which has its platform's id for a name.
    async fn of(&self, account: &str, caller: &Caller) -> Answer {
        let key = match self.key {
            "authorization" => format!("Bearer {}", caller.key()),
            _ => caller.key().to_owned(),
        };
        let own = [
            (self.key, key.as_str()),
            ("x-latchkey-account", account),
            ("content-type", self.content_type),
        ];
        let headers = [&own, self.headers].concat();
        let [path, body] = [self.path, &self.body].map(|text| text.replace("PLATFORM", account));
        caller.send(self.method, &path, &headers, body).await
    }
}

/// Every platform that is no login and that others do not test, and the key of its account.
fn platforms(catalog: &Catalog) -> Vec<(&Profile, String)> {
    let documented = catalog.all_usable();
    let documented = documented.filter(|profile| !PLAYED.contains(&profile.id.as_str()));
    // One that has another way in alone is as the one that it extends.
    let documented =
        documented.filter(|profile| profile.credentials.contains(&CredentialKind::ApiKey));
    let key = |profile: &Profile| {
        let prefix = profile.api_keys.prefixes.first();
        // Of two parts, where one of them signs.
        let prefix = prefix.map_or("", String::as_str);
        format!("{prefix}{}.the-secret", profile.id)
    };
    documented.map(|profile| (profile, key(profile))).collect()
}

/// Where the platform is that docs/profiles.md adds.
const ITS_HOST: &str = "https://api.groq.com";

/// The profile of a platform that we do not ship, as docs/profiles.md has it.
fn example() -> String {
    let page = fs::read_to_string(source_root().join("docs/profiles.md")).expect("the page");
    let (_, after) = page.split_once("/groq.toml`:").expect("the example");
    let (_, block) = after.split_once("```toml\n").expect("a block");
    let (block, _) = block.split_once("```").expect("its end");
    assert!(block.contains(ITS_HOST), "{block}");
    block.to_owned()
}

/// A stack with an account of each platform, which has the platform's id for a name.
async fn everybody(catalog: &Catalog) -> Stack<Refresher> {
    Stack::real("platforms", async |sim: &Sim, refresher: &Refresher| {
        let ca_file = sim.platforms_dir.parent().expect("a folder").join("ca.pem");
        for (profile, key) in platforms(catalog) {
            let id = profile.id.as_str();
            let base = BASES.iter().find(|(own, _)| *own == id);
            let host = format!("https://{}", sim.authority());
            let base_url = match base {
                Some(_) => String::new(),
                None => format!("base_url = '{host}{}'\n", profile.record.base_path.as_str()),
            };
            let text = format!(
                "[upstream]\n{base_url}own_network = true\nca_file = '{}'\n",
                ca_file.display()
            );
            fs::write(sim.platforms_dir.join(format!("{id}.toml")), text).expect("written");
            sim.add_documented_key(id, &key).await;
        }
        let example = example().replace(ITS_HOST, &format!("https://{}", sim.authority()));
        let example = format!("{example}upstream.ca_file = '{}'\n", ca_file.display());
        fs::write(sim.platforms_dir.join("groq.toml"), example).expect("written");
        sim.add_documented_key("groq", "gsk_1").await;
        refresher.add_api_key("groq", "groq", "gsk_1").await;
        for (profile, key) in platforms(catalog) {
            let id = profile.id.as_str();
            let mut add = vec!["accounts", "add", id, "--platform", id];
            let base = BASES.iter().find(|(own, _)| *own == id);
            let url = base.map(|(_, base)| format!("https://{}{base}", sim.authority()));
            add.extend(url.iter().flat_map(|url| ["--base-url", url]));
            refresher.run(&add, &key).await;
        }
    })
    .await
}

#[test]
fn a_request_has_the_form_that_its_platform_documents() {
    run(async {
        let catalog = Catalog::load(None, BTreeSet::new()).expect("the built-in profiles");
        let stack = everybody(&catalog).await;
        let create = ["keys", "create", "team", "--may-choose-account", "--json"];
        let key: Value =
            serde_json::from_str(&stack.refresher.run(&create, "").await).expect("JSON");
        let caller = Caller::new(stack.envoy.port, key["key"].as_str().expect("a key"));
        eventually("the key is taken", LIMIT, async || {
            let answer = caller.get("/v1/models").await;
            holds(answer.status == 200, || format!("{answer:?}"))
        })
        .await;
        quotas_are_told(&stack).await;
        let chat = asks().into_iter().next().expect("a chat");
        let answer = chat.of("groq", &caller).await;
        assert_eq!(
            answer.status, 200,
            "the example of docs/profiles.md: {answer:?}"
        );

        for (profile, key) in platforms(&catalog) {
            let id = profile.id.as_str();
            let mut left: Vec<_> = profile.record.endpoints.iter().collect();
            left.retain(|endpoint| !OF_THINGS.contains(&endpoint.operation.as_str()));
            for ask in asks() {
                let before = left.len();
                left.retain(|endpoint| !is(endpoint, &ask));
                if left.len() == before {
                    continue;
                }
                let answer = ask.of(id, &caller).await;
                let (dialect, operation) = (ask.dialect, ask.operation);
                assert_eq!(
                    answer.status, 200,
                    "{id}, {operation} of {dialect}: {answer:?}"
                );
                let seen = stack.sim.seen().await;
                let seen = seen.last().expect("a request");
                assert_eq!(seen.account(), Some(id), "{operation} of {dialect}");
                if profile.signing.is_some() {
                    let sent = seen.header("authorization").concat();
                    assert!(
                        !sent.contains(&key) && !sent.contains("the-secret"),
                        "{sent}"
                    );
                }
            }
            let left: Vec<_> = left
                .iter()
                .map(|one| (one.dialect, &one.operation))
                .collect();
            assert!(left.is_empty(), "{id}: nobody asked for {left:?}");
        }

        for (profile, _) in platforms(&catalog) {
            let id = profile.id.as_str();
            let check = ["accounts", "check", id];
            if profile.probe.is_some() {
                let found = stack.refresher.run(&check, "").await;
                assert!(found.starts_with(&format!("{id}: alive")), "{found}");
            }
        }
        // The key is known, and has no money.
        let empty = json!({"code": 0, "data": {"available_balance": 0.0}});
        let fault = json!({
            "target": "upstream", "account": "moonshot", "path": "/v1/users/me/balance", "status": 200, "body": empty,
        });
        stack.sim.add_fault(fault).await;
        let check = ["accounts", "check", "moonshot"];
        let found = stack.refresher.run(&check, "").await;
        let words = "moonshot: out of quota (usage_limit) until";
        assert!(found.starts_with(words), "{found}");
    });
}

/// Each platform that has an endpoint for it was asked, in its documented form, and says how much is left.
async fn quotas_are_told(stack: &Stack<Refresher>) {
    let told = async |account: &str| {
        let shown = stack.refresher.account(account).await["quota"].take();
        json!([
            shown[0]["name"],
            shown[0]["left"],
            shown[0]["used_percent"],
            shown[0]["source"]
        ])
    };
    let all = [
        ("deepseek", json!(["balance", 110.0, 0.0, "platform"])),
        ("moonshot", json!(["balance", 49.58894, 0.0, "platform"])),
        ("openrouter", json!(["key", null, 25.5, "platform"])),
    ];
    for (account, expected) in all {
        eventually("the platform was asked", 2 * LIMIT, async || {
            let found = told(account).await;
            holds(found == expected, || format!("{account}: {found}"))
        })
        .await;
    }
}

fn is(endpoint: &latchkey::snapshot::Endpoint, ask: &Ask) -> bool {
    endpoint.dialect.word() == ask.dialect && endpoint.operation.as_str() == ask.operation
}
