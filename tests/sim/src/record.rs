//! The requests that the platform received, byte for byte, and their answers.

use std::collections::VecDeque;

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderValue, Method, Uri, Version};
use hyper::body::Bytes;
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::clock::UnixMillis;

/// Requests that are kept; older ones are dropped.
const MAX_REQUESTS: usize = 10_000;

/// Bytes of a body that are kept; its length and digest are always of the whole.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// One request, and its answer once there is one.
#[derive(Clone, Debug, Serialize)]
pub struct Record {
    /// Counts from 1.
    pub id: u64,
    /// The time at which it had been read, in Unix milliseconds.
    pub at: u64,
    /// `HTTP/1.1` or `HTTP/2.0`.
    pub version: String,
    /// The method.
    pub method: String,
    /// Path and query as they came.
    pub path: String,
    /// `host` or `:authority`.
    pub authority: Option<String>,
    /// `[name, value]` in order of arrival, names in lower case, repeated names side by side; a
    /// value that is not ASCII is `{"base64": "…"}`.
    pub headers: Vec<(String, Value)>,
    /// The start of the body, at most 64 KiB.
    pub body_base64: String,
    /// Bytes of the whole body.
    pub body_length: usize,
    /// SHA-256 of the whole body, hex.
    pub body_sha256: String,
    /// Whose credential it carried: an email or an API key's name.
    pub account: Option<String>,
    /// The status answered; absent if the connection was closed instead.
    pub status: Option<u16>,
}

/// The last requests.
#[derive(Debug, Default)]
pub struct Records {
    kept: VecDeque<Record>,
    last_id: u64,
}

impl Record {
    /// A record of a request that has been read; `Records::push` gives it its id.
    pub fn new(
        method: &Method,
        uri: &Uri,
        version: Version,
        headers: &HeaderMap,
        body: &Bytes,
        now: UnixMillis,
    ) -> Self {
        Self {
            id: 0,
            at: now.0,
            version: format!("{version:?}"),
            method: method.to_string(),
            path: uri
                .path_and_query()
                .map_or("/", |path| path.as_str())
                .to_owned(),
            authority: authority(uri, headers).map(str::to_owned),
            headers: headers
                .iter()
                .map(|(name, value)| (name.to_string(), value_json(value)))
                .collect(),
            body_base64: STANDARD.encode(&body[..body.len().min(MAX_BODY_BYTES)]),
            body_length: body.len(),
            body_sha256: Sha256::digest(body)
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect(),
            account: None,
            status: None,
        }
    }
}

impl Records {
    /// Keeps a record.
    pub fn push(&mut self, mut record: Record) {
        self.last_id += 1;
        record.id = self.last_id;
        self.kept.push_back(record);
        if self.kept.len() > MAX_REQUESTS {
            self.kept.pop_front();
        }
    }

    /// The kept records, oldest first, whose path (with or without its query) is `path`.
    pub fn list(&self, path: Option<&str>) -> Vec<Record> {
        let wanted = |record: &&Record| {
            path.is_none_or(|path| {
                record.path == path || record.path.split('?').next() == Some(path)
            })
        };
        self.kept.iter().filter(wanted).cloned().collect()
    }

    /// Forgets all; ids go on counting.
    pub fn clear(&mut self) {
        self.kept.clear();
    }
}

/// The authority that a request names: `:authority` of HTTP/2, else `host`.
pub fn authority<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Option<&'a str> {
    uri.authority()
        .map(|authority| authority.as_str())
        .or_else(|| headers.get("host")?.to_str().ok())
}

fn value_json(value: &HeaderValue) -> Value {
    match std::str::from_utf8(value.as_bytes()) {
        Ok(text) if text.is_ascii() => Value::from(text),
        _ => json!({"base64": STANDARD.encode(value.as_bytes())}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_bytes_within_bounds() {
        let mut headers = HeaderMap::new();
        headers.append("x-b", HeaderValue::from_static("1"));
        headers.append("x-a", HeaderValue::from_bytes(b"\xff").expect("value"));
        let body = Bytes::from(vec![b'a'; MAX_BODY_BYTES + 1]);
        let uri: Uri = "/p?q=1".parse().expect("URI");
        let record = Record::new(
            &Method::POST,
            &uri,
            Version::HTTP_11,
            &headers,
            &body,
            UnixMillis(9),
        );
        assert_eq!(record.body_length, MAX_BODY_BYTES + 1);
        assert_eq!(
            STANDARD.decode(&record.body_base64).expect("base64").len(),
            MAX_BODY_BYTES
        );
        assert_eq!(record.headers[0], ("x-b".to_owned(), json!("1")));
        assert_eq!(
            record.headers[1],
            ("x-a".to_owned(), json!({"base64": "/w=="}))
        );

        let mut records = Records::default();
        for _ in 0..MAX_REQUESTS + 2 {
            records.push(record.clone());
        }
        let kept = records.list(Some("/p"));
        assert_eq!((kept.len(), kept[0].id), (MAX_REQUESTS, 3));
        assert!(records.list(Some("/q")).is_empty());
    }
}
