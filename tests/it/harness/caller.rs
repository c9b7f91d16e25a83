//! A caller of the gateway.

use std::{str::FromStr, time::Duration};

use reqwest::{
    Method,
    header::{HeaderMap, HeaderName, HeaderValue},
};
use serde_json::{Value, json};

/// Longer than any answer takes here; a request that hangs fails its test with a name.
const LIMIT: Duration = Duration::from_secs(60);

/// A caller with a client key.
#[derive(Debug, Clone)]
pub struct Caller {
    http: reqwest::Client,
    base: String,
    key: String,
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: String,
}

impl Caller {
    /// A caller of the gateway on that port, with a connection pool of its own.
    pub fn new(port: u16, key: &str) -> Self {
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(LIMIT)
            .redirect(reqwest::redirect::Policy::none());
        Self {
            http: http.build().expect("a client"),
            base: format!("http://127.0.0.1:{port}"),
            key: key.to_owned(),
        }
    }

    /// The URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// The client key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// A request with exactly these headers beside those of HTTP itself.
    pub async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<reqwest::Body>,
    ) -> Answer {
        self.try_send(method, path, headers, body)
            .await
            .expect("an answer")
    }

    /// [`Caller::send`] where there may be no answer.
    pub async fn try_send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<reqwest::Body>,
    ) -> reqwest::Result<Answer> {
        let method = Method::from_str(method).expect("a method");
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name = HeaderName::from_str(name).expect("a name");
            map.append(name, HeaderValue::from_str(value).expect("a value"));
        }
        let request = self.http.request(method, self.url(path)).headers(map);
        let answer = request.body(body).send().await?;
        Ok(Answer {
            status: answer.status().as_u16(),
            headers: answer.headers().clone(),
            body: answer.text().await?,
        })
    }

    /// Posts JSON with the client key as a bearer.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.try_post(path, body).await.expect("an answer")
    }

    /// [`Caller::post`] where there may be no answer.
    pub async fn try_post(&self, path: &str, body: &Value) -> reqwest::Result<Answer> {
        let bearer = format!("Bearer {}", self.key);
        let headers = [
            ("authorization", bearer.as_str()),
            ("content-type", "application/json"),
        ];
        self.try_send("POST", path, &headers, body.to_string())
            .await
    }

    /// Posts JSON with the client key as a bearer, and returns with the answer's head.
    pub async fn begin(&self, path: &str, body: &Value) -> reqwest::Response {
        let request = self.http.post(self.url(path)).bearer_auth(&self.key);
        request.json(body).send().await.expect("an answer")
    }

    /// Gets with the client key as a bearer.
    pub async fn get(&self, path: &str) -> Answer {
        let bearer = format!("Bearer {}", self.key);
        self.send("GET", path, &[("authorization", &bearer)], "")
            .await
    }
}

impl Answer {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The gateway's own error code, where the gateway itself answered.
    pub fn own_code(&self) -> Option<&str> {
        self.header("x-latchkey-error")
    }
}

/// A request for the ChatGPT backend, which takes streams only.
pub fn responses_body() -> Value {
    json!({
        "model": "gpt-6.1-sol", "instructions": "", "store": false, "stream": true,
        "input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]}],
    })
}

/// A chat completion.
pub fn chat_body(stream: bool) -> Value {
    json!({"model": "gpt-5.6", "stream": stream, "messages": [{"role": "user", "content": "hi"}]})
}

/// A message to Claude.
pub fn messages_body(stream: bool) -> Value {
    json!({
        "model": "claude-opus-5-5", "max_tokens": 64, "stream": stream,
        "messages": [{"role": "user", "content": "hi"}],
    })
}
