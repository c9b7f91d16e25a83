//! The platforms that are no more than a form: for each, where its documentation says that a request goes, in which header
//! the key is and what the body has. A key of such a platform is asked for by nobody else, so the key says whose a request is.

use std::collections::HashMap;

use http::{HeaderMap, Request, StatusCode};
use hyper::body::Bytes;
use serde_json::{Value, json};

use crate::{
    answer::Answer,
    clock::UnixMillis,
    fixtures::{Fill, fixture},
    headers::{self, CREDENTIALS},
    record::authority,
    signed,
    simulation::ApiKey,
    upstream::gemini,
};

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A stream of chat completions; true where the platform reports usage only if it is asked to.
    Chat(bool),
    Embed,
    Responses,
    Messages,
    Gemini,
    GeminiStream,
    GeminiCount,
    /// Anything else: of that method, with these members if its body is JSON, and answered so.
    Plain(&'static Plain),
}

/// See [`Kind::Plain`].
#[derive(Debug, PartialEq, Eq)]
struct Plain {
    method: &'static str,
    /// None for a body that is no JSON, or none.
    members: Option<&'static [&'static str]>,
    /// With the platform's id in place of `PLATFORM`.
    answer: &'static str,
}

/// Where a request of a platform goes, and the header of its key.
struct Form {
    platform: &'static str,
    kind: Kind,
    /// With the query.
    target: &'static str,
    credential: &'static str,
}

const BEARER: &str = "authorization";

const fn form(platform: &'static str, kind: Kind, target: &'static str) -> Form {
    keyed(platform, kind, target, BEARER)
}

const fn keyed(
    platform: &'static str,
    kind: Kind,
    target: &'static str,
    credential: &'static str,
) -> Form {
    Form {
        platform,
        kind,
        target,
        credential,
    }
}

use Kind::{Chat, Embed, Gemini, GeminiCount, GeminiStream, Messages, Responses};

const fn plain(
    method: &'static str,
    members: Option<&'static [&'static str]>,
    answer: &'static str,
) -> Plain {
    Plain {
        method,
        members,
        answer,
    }
}

const COMPLETE: Kind = Kind::Plain(&plain(
    "POST",
    Some(&["model", "prompt"]),
    r#"{"id":"cmpl-1","object":"text_completion","created":1,"model":"m-1","choices":[{"index":0,"text":"hi","finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}"#,
));
const IMAGE: Kind = Kind::Plain(&plain(
    "POST",
    Some(&["model", "prompt"]),
    r#"{"created":1,"data":[{"b64_json":"aGk="}]}"#,
));
const MODERATE: Kind = Kind::Plain(&plain(
    "POST",
    Some(&["input", "model"]),
    r#"{"id":"modr-1","model":"m-1","results":[]}"#,
));
const COUNT: Kind = Kind::Plain(&plain(
    "POST",
    Some(&["messages", "model"]),
    r#"{"input_tokens":31}"#,
));
const GEMINI_EMBED: Kind = Kind::Plain(&plain(
    "POST",
    Some(&["content"]),
    r#"{"embedding":{"values":[0.5]}}"#,
));
const GEMINI_EMBED_BATCH: Kind = Kind::Plain(&plain(
    "POST",
    Some(&["requests"]),
    r#"{"embeddings":[{"values":[0.5]}]}"#,
));
const FILE_CREATE: Kind = Kind::Plain(&plain("POST", None, FILE));
const FILE: &str = r#"{"id":"file-PLATFORM","object":"file","bytes":2,"created_at":1,"filename":"a.jsonl","purpose":"batch"}"#;
const FILES: Kind = Kind::Plain(&plain("GET", None, r#"{"object":"list","data":[]}"#));
const FILE_GET: Kind = Kind::Plain(&plain("GET", None, FILE));
const FILE_CONTENT: Kind = Kind::Plain(&plain("GET", None, "{}"));
const FILE_DELETE: Kind = Kind::Plain(&plain(
    "DELETE",
    None,
    r#"{"id":"file-PLATFORM","object":"file","deleted":true}"#,
));
const BATCH: &str = r#"{"id":"batch-PLATFORM","object":"batch","input_file_id":"file-PLATFORM","status":"validating"}"#;
const BATCH_CREATE: Kind = Kind::Plain(&plain(
    "POST",
    Some(&["completion_window", "endpoint", "input_file_id"]),
    BATCH,
));
const BATCH_GET: Kind = Kind::Plain(&plain("GET", None, BATCH));
const BATCH_CANCEL: Kind = Kind::Plain(&plain("POST", None, BATCH));

/// What is asked by us alone, of a key.
const MODELS: Kind = Kind::Plain(&plain(
    "GET",
    None,
    r#"{"object":"list","data":[{"id":"m-1","object":"model"}]}"#,
));

/// What is told of an account's quota.
const DEEPSEEK_BALANCE: Kind = Kind::Plain(&plain(
    "GET",
    None,
    r#"{"is_available":true,"balance_infos":[{"currency":"CNY","total_balance":"110.00","granted_balance":"10.00","topped_up_balance":"100.00"}]}"#,
));
const MOONSHOT_BALANCE: Kind = Kind::Plain(&plain(
    "GET",
    None,
    r#"{"code":0,"data":{"available_balance":49.58894,"voucher_balance":46.58893,"cash_balance":3.00001},"scode":"0x0","status":true}"#,
));
const OPENROUTER_KEY: Kind = Kind::Plain(&plain(
    "GET",
    None,
    r#"{"data":{"label":"sk-or-v1-au7...890","limit":100,"limit_remaining":74.5,"limit_reset":"monthly","usage":25.5}}"#,
));

/// The model that requests name.
pub const MODEL: &str = "m-1";

#[rustfmt::skip]
const FORMS: &[Form] = &[
    keyed("azure-openai", Chat(true), "/openai/v1/chat/completions", "api-key"),
    keyed("azure-openai", Embed, "/openai/v1/embeddings", "api-key"),
    keyed("azure-openai", Responses, "/openai/v1/responses", "api-key"),
    keyed("azure-openai-deployments", Chat(true), "/openai/deployments/m-1/chat/completions?api-version=2024-10-21", "api-key"),
    keyed("azure-openai-deployments", Embed, "/openai/deployments/m-1/embeddings?api-version=2024-10-21", "api-key"),
    form("custom", Chat(true), "/base/v1/chat/completions"),
    form("custom", Embed, "/base/v1/embeddings"),
    form("custom", Responses, "/base/v1/responses"),
    form("custom", Messages, "/base/v1/messages"),
    form("deepseek", Chat(true), "/chat/completions"),
    form("deepseek", Messages, "/anthropic/v1/messages"),
    form("deepseek", DEEPSEEK_BALANCE, "/user/balance"),
    form("doubao", Chat(true), "/api/v3/chat/completions"),
    form("doubao", Embed, "/api/v3/embeddings"),
    form("doubao", Responses, "/api/v3/responses"),
    form("groq", Chat(true), "/openai/v1/chat/completions"),
    keyed("gemini", Gemini, "/v1beta/models/m-1:generateContent", "x-goog-api-key"),
    keyed("gemini", GeminiStream, "/v1beta/models/m-1:streamGenerateContent?alt=sse", "x-goog-api-key"),
    keyed("gemini", GeminiCount, "/v1beta/models/m-1:countTokens", "x-goog-api-key"),
    form("gemini", Chat(true), "/v1beta/openai/chat/completions"),
    form("gemini", Embed, "/v1beta/openai/embeddings"),
    form("mistral", Chat(false), "/v1/chat/completions"),
    form("mistral", Embed, "/v1/embeddings"),
    form("moonshot", Chat(true), "/v1/chat/completions"),
    form("moonshot", Messages, "/anthropic/v1/messages"),
    form("moonshot", MOONSHOT_BALANCE, "/v1/users/me/balance"),
    form("ollama", Chat(true), "/v1/chat/completions"),
    form("ollama", Embed, "/v1/embeddings"),
    form("ollama", Responses, "/v1/responses"),
    form("ollama", Messages, "/v1/messages"),
    form("openrouter", Chat(true), "/api/v1/chat/completions"),
    form("openrouter", Embed, "/api/v1/embeddings"),
    form("openrouter", Responses, "/api/v1/responses"),
    form("openrouter", Messages, "/api/v1/messages"),
    form("openrouter", OPENROUTER_KEY, "/api/v1/key"),
    form("qianfan", Chat(true), "/v2/chat/completions"),
    form("qianfan", Embed, "/v2/embeddings"),
    form("qwen", Chat(true), "/compatible-mode/v1/chat/completions"),
    form("qwen", Embed, "/compatible-mode/v1/embeddings"),
    form("qwen", Responses, "/compatible-mode/v1/responses"),
    form("qwen", Messages, "/apps/anthropic/v1/messages"),
    form("spark", Chat(false), "/v1/chat/completions"),
    form("spark", Messages, "/anthropic/agent/v1/messages"),
    form("vllm", Chat(true), "/v1/chat/completions"),
    form("vllm", Embed, "/v1/embeddings"),
    form("vllm", Responses, "/v1/responses"),
    form("xai", Chat(true), "/v1/chat/completions"),
    form("xai", Responses, "/v1/responses"),
    form("zhipu", Chat(false), "/api/paas/v4/chat/completions"),
    form("zhipu", Embed, "/api/paas/v4/embeddings"),
    form("zhipu", Responses, "/api/v1/responses"),
    form("zhipu", Messages, "/api/anthropic/v1/messages"),
    form("zhipu-signed", Chat(false), "/api/paas/v4/chat/completions"),
    form("zhipu-signed", Embed, "/api/paas/v4/embeddings"),
    form("zhipu-signed", Responses, "/api/v1/responses"),
    form("zhipu-signed", Messages, "/api/anthropic/v1/messages"),
    form("custom", COMPLETE, "/base/v1/completions"),
    form("deepseek", COMPLETE, "/beta/completions"),
    form("ollama", COMPLETE, "/v1/completions"),
    form("openrouter", COMPLETE, "/api/v1/completions"),
    form("qwen", COMPLETE, "/compatible-mode/v1/completions"),
    form("vllm", COMPLETE, "/v1/completions"),
    keyed("azure-openai-deployments", COMPLETE, "/openai/deployments/m-1/completions?api-version=2024-10-21", "api-key"),
    keyed("azure-openai", IMAGE, "/openai/v1/images/generations", "api-key"),
    form("doubao", IMAGE, "/api/v3/images/generations"),
    form("xai", IMAGE, "/v1/images/generations"),
    form("zhipu", IMAGE, "/api/paas/v4/images/generations"),
    form("zhipu-signed", IMAGE, "/api/paas/v4/images/generations"),
    form("mistral", MODERATE, "/v1/moderations"),
    form("custom", COUNT, "/base/v1/messages/count_tokens"),
    keyed("gemini", GEMINI_EMBED, "/v1beta/models/m-1:embedContent", "x-goog-api-key"),
    keyed("gemini", GEMINI_EMBED_BATCH, "/v1beta/models/m-1:batchEmbedContents", "x-goog-api-key"),
    form("mistral", FILE_CREATE, "/v1/files"),
    form("mistral", FILES, "/v1/files"),
    form("mistral", FILE_GET, "/v1/files/file-mistral"),
    form("mistral", FILE_CONTENT, "/v1/files/file-mistral/content"),
    form("mistral", FILE_DELETE, "/v1/files/file-mistral"),
    form("moonshot", FILE_CREATE, "/v1/files"),
    form("moonshot", FILES, "/v1/files"),
    form("moonshot", FILE_GET, "/v1/files/file-moonshot"),
    form("moonshot", FILE_CONTENT, "/v1/files/file-moonshot/content"),
    form("moonshot", FILE_DELETE, "/v1/files/file-moonshot"),
    form("qwen", FILE_CREATE, "/compatible-mode/v1/files"),
    form("qwen", FILES, "/compatible-mode/v1/files"),
    form("qwen", FILE_GET, "/compatible-mode/v1/files/file-qwen"),
    form("qwen", FILE_CONTENT, "/compatible-mode/v1/files/file-qwen/content"),
    form("qwen", FILE_DELETE, "/compatible-mode/v1/files/file-qwen"),
    form("qwen", BATCH_CREATE, "/compatible-mode/v1/batches"),
    form("qwen", FILES, "/compatible-mode/v1/batches"),
    form("qwen", BATCH_GET, "/compatible-mode/v1/batches/batch-qwen"),
    form("qwen", BATCH_CANCEL, "/compatible-mode/v1/batches/batch-qwen/cancel"),
    keyed("azure-openai", MODELS, "/openai/v1/models", "api-key"),
    keyed("azure-openai-deployments", MODELS, "/openai/models?api-version=2024-10-21", "api-key"),
    form("deepseek", MODELS, "/models"),
    form("doubao", MODELS, "/api/v3/models"),
    keyed("gemini", MODELS, "/v1beta/models?pageSize=1", "x-goog-api-key"),
    form("mistral", MODELS, "/v1/models"),
    form("moonshot", MODELS, "/v1/models"),
    form("qianfan", MODELS, "/v2/models"),
    form("qwen", MODELS, "/compatible-mode/v1/models"),
    form("vllm", MODELS, "/v1/models"),
    form("xai", MODELS, "/v1/models"),
    form("zhipu", MODELS, "/api/paas/v4/models"),
    form("zhipu-signed", MODELS, "/api/paas/v4/models"),
];

/// Finds the platform whose key the request has, wherever it has it.
pub fn platform(
    headers: &HeaderMap,
    keys: &HashMap<String, ApiKey>,
    now: UnixMillis,
) -> Option<String> {
    let values = CREDENTIALS.iter().flat_map(|name| headers.get_all(*name));
    let mut holders = values.filter_map(|value| {
        let value = value.to_str().ok()?;
        let key = value.strip_prefix("Bearer ").unwrap_or(value);
        let key = signed::key_of(key, keys.keys(), now).map_or(key, String::as_str);
        let known = keys.get(key)?;
        known.platform.is_none().then(|| known.name.clone())
    });
    holders.next()
}

/// The answer of `platform` to a request in its documented form, or what is wrong with it.
pub fn answer(
    platform: &str,
    request: &Request<Bytes>,
    authorities: &[String],
    fill: &Fill,
) -> Answer {
    let asked = gemini::asked(platform, request);
    let form = asked.as_ref().map_or(request, |(form, _)| form);
    match check(platform, form, authorities) {
        Ok(kind) => match asked {
            Some((_, model)) if kind == GeminiCount => {
                gemini::counted(&model, request.body(), kind.answer(platform, fill))
            }
            Some((_, model)) => gemini::answer(&model, kind == GeminiStream, request.body(), fill),
            None => kind.answer(platform, fill),
        },
        Err(wrong) => {
            let body = json!({"error": {"message": format!("{platform}: {wrong}")}});
            Answer::json(StatusCode::BAD_REQUEST, body.to_string())
        }
    }
}

fn check(platform: &str, request: &Request<Bytes>, authorities: &[String]) -> Result<Kind, String> {
    let target = request
        .uri()
        .path_and_query()
        .map_or("", |target| target.as_str());
    // One target may have several methods.
    let forms = FORMS.iter().filter(|form| form.platform == platform);
    let there: Vec<&Form> = forms.filter(|form| form.target == target).collect();
    let mut asked = there.iter();
    let form = asked.find(|form| form.kind.method() == request.method().as_str());
    let form = form.ok_or_else(|| match there.first() {
        Some(other) => format!(
            "expected {}, found {}",
            other.kind.method(),
            request.method()
        ),
        None => format!("nothing is at {target}"),
    })?;
    let headers = request.headers();
    let at = authority(request.uri(), headers);
    let allowed = form.kind.headers();
    headers::only(
        headers,
        allowed.iter().chain([&form.credential]),
        at,
        authorities,
    )
    .map_err(|refusal| format!("{}: {}", refusal.header, refusal.reason))?;
    let value = headers
        .get(form.credential)
        .and_then(|value| value.to_str().ok());
    let is_right =
        value.is_some_and(|value| value.starts_with("Bearer ") == (form.credential == BEARER));
    if !is_right {
        return Err(format!("expected the key in {}", form.credential));
    }
    if let Kind::Plain(Plain { members: None, .. }) = form.kind {
        return Ok(form.kind);
    }
    let body: Value =
        serde_json::from_slice(request.body()).map_err(|_| "expected JSON".to_owned())?;
    form.kind.check(&body).map(|()| form.kind)
}

impl Kind {
    fn method(self) -> &'static str {
        match self {
            Kind::Plain(plain) => plain.method,
            _ => "POST",
        }
    }

    /// The headers of its clients beside those that all have.
    fn headers(self) -> &'static [&'static str] {
        match self {
            Chat(_) | Embed | Responses => &[],
            Kind::Plain(_) => &["anthropic-version", "x-goog-api-client"],
            Messages => &["anthropic-version"],
            Gemini | GeminiStream | GeminiCount => {
                &["x-goog-api-client", "x-stainless-*", "x-client-request-id"]
            }
        }
    }

    fn check(self, body: &Value) -> Result<(), String> {
        let members: &[&str] = match self {
            Chat(true) => &["messages", "model", "stream", "stream_options"],
            Chat(false) => &["messages", "model", "stream"],
            Embed | Responses => &["input", "model"],
            Messages => &["max_tokens", "messages", "model"],
            Gemini | GeminiStream | GeminiCount => &["contents"],
            Kind::Plain(plain) => plain.members.unwrap_or_default(),
        };
        let object = body.as_object().ok_or("expected an object")?;
        let mut found: Vec<&str> = object.keys().map(String::as_str).collect();
        found.sort_unstable();
        if found != members {
            return Err(format!("expected {members:?} in the body, found {found:?}"));
        }
        let asks = |body: &Value| body["stream_options"]["include_usage"] == true;
        if self == Chat(true) && !asks(body) {
            return Err("expected usage to be asked for".to_owned());
        }
        match members.contains(&"model") && body["model"] != MODEL {
            true => Err(format!("expected the model {MODEL}")),
            false => Ok(()),
        }
    }

    fn answer(self, platform: &str, fill: &Fill) -> Answer {
        const WHOLE: &str = include_str!("../../fixtures/meter/gemini_whole.json");
        const EVENTS: &str = include_str!("../../fixtures/meter/gemini_thinking.sse");
        match self {
            Chat(_) => fixture!("openai/chat.sse").answer(fill),
            Embed => fixture!("openai/embeddings.json").answer(fill),
            Responses => fixture!("openai/response.json").answer(fill),
            Messages => fixture!("anthropic/message.json").answer(fill),
            Gemini => Answer::json(StatusCode::OK, WHOLE),
            GeminiStream => {
                let events = EVENTS.split_inclusive("\n\n").map(str::to_owned);
                Answer::events(events.collect())
            }
            Kind::Plain(plain) => {
                Answer::json(StatusCode::OK, plain.answer.replace("PLATFORM", platform))
            }
            GeminiCount => Answer::json(StatusCode::OK, r#"{"totalTokens":31}"#),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(
        platform: &str,
        target: &str,
        header: (&str, &str),
        body: &Value,
    ) -> Result<Kind, String> {
        let request = Request::post(target)
            .header(header.0, header.1)
            .header("host", "sim:1")
            .body(Bytes::from(body.to_string()));
        check(
            platform,
            &request.expect("a request"),
            &["sim:1".to_owned()],
        )
    }

    #[test]
    fn only_the_documented_form_is_taken() {
        let contents = json!({"contents": []});
        let key = ("x-goog-api-key", "AIza");
        let path = "/v1beta/models/m-1:generateContent";
        assert_eq!(asked("gemini", path, key, &contents), Ok(Gemini));
        for (target, header, body) in [
            ("/v1/models/m-1:generateContent", key, &contents),
            (
                "/v1beta/models/m-1:generateContent?key=AIza",
                key,
                &contents,
            ),
            (path, ("authorization", "Bearer AIza"), &contents),
            (path, ("x-api-key", "AIza"), &contents),
            (path, key, &json!({"contents": [], "model": "m-1"})),
        ] {
            assert!(
                asked("gemini", target, header, body).is_err(),
                "{target} {header:?}"
            );
        }
        let chat = json!({"model": "m-1", "stream": true, "messages": []});
        let bearer = ("authorization", "Bearer k");
        assert_eq!(
            asked("mistral", "/v1/chat/completions", bearer, &chat),
            Ok(Chat(false))
        );
        assert!(
            asked("xai", "/v1/chat/completions", bearer, &chat).is_err(),
            "usage is not asked for"
        );
    }
}
