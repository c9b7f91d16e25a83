//! What exists in one account alone: files, uploads, batches, stored responses and conversations. Whoever asks
//! for one with the credential of another account is told that it is not there, as by the real platforms.
//!
//! A batch has ended when it is asked for the first time, and its output is a file then.

use std::collections::HashMap;

use http::{HeaderMap, Method, StatusCode, header};
use hyper::body::Bytes;
use serde_json::{Value, json};

use crate::{answer::Answer, platform::Platform};

/// The header without which Anthropic has no files.
const FILES_BETA: &str = "files-api-2025-04-14";

/// Everything that accounts have made.
#[derive(Debug, Default)]
pub struct Things(HashMap<String, Thing>);

#[derive(Debug)]
struct Thing {
    account: String,
    /// It as the platform shows it.
    shown: Value,
    content: Bytes,
}

/// A request about things, of an account whose credential was found good.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Where it came.
    pub platform: Platform,
    /// Whose credential it has.
    pub account: &'a str,
    /// Its method.
    pub method: &'a Method,
    /// Its path, without the query.
    pub path: &'a str,
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// Its body, all of it.
    pub body: &'a Bytes,
    /// A random id for what is made.
    pub id: &'a str,
}

impl Things {
    /// Answers a request about things; none where it is about none.
    pub fn answer(&mut self, asked: Asked<'_>) -> Option<Answer> {
        let path = asked.path.strip_prefix("/v1/")?;
        let parts: Vec<&str> = path.split('/').collect();
        let anthropic = asked.platform == Platform::Anthropic;
        let is_beta = asked
            .headers
            .get("anthropic-beta")
            .is_some_and(|beta| beta == FILES_BETA);
        if asked.method == "POST"
            && let Ok(body) = serde_json::from_slice(asked.body)
            && self.lacks_any(asked, None, &body)
        {
            return Some(not_found(asked));
        }
        Some(match (asked.method.as_str(), parts.as_slice()) {
            (_, ["files", ..]) if anthropic && !is_beta => not_found(asked),
            ("POST", ["files"]) => self.new_file(asked),
            ("GET", ["files" | "batches"]) => self.list(asked),
            ("POST", ["uploads"]) => self.make(
                asked,
                "upload_",
                json!({"object": "upload", "status": "pending"}),
            ),
            ("POST", ["uploads", id, "parts"]) => self.add_part(asked, id),
            ("POST", ["uploads", id, "complete"]) => self.complete(asked, id),
            ("POST", ["batches"]) => self.new_batch(asked),
            ("GET", ["batches", id]) => self.end_batch(asked, id),
            ("POST", ["messages", "batches"]) => {
                let batch = json!({"type": "message_batch", "processing_status": "ended", "results_url": "x"});
                self.make(asked, "msgbatch_", batch)
            }
            ("GET", ["messages", "batches", id, "results"]) => self.with(asked, id, |_| {
                let line = json!({"custom_id": "one", "result": {"type": "succeeded"}});
                Answer::whole(StatusCode::OK, "application/x-jsonl", format!("{line}\n"))
            }),
            ("POST", ["vector_stores"]) => {
                self.make(asked, "vs_", json!({"object": "vector_store"}))
            }
            ("POST", ["vector_stores", id, "files"]) => self.with(asked, id, |_| {
                shown(&json!({"id": "file-in-store", "object": "vector_store.file"}))
            }),
            ("POST", ["containers"]) => self.make(asked, "cntr_", json!({"object": "container"})),
            ("POST", ["containers", id, "files"]) => self.with(asked, id, |_| {
                shown(&json!({"id": "cfile_1", "object": "container.file"}))
            }),
            ("GET", ["containers", id, "files", _, "content"]) => self.with(asked, id, |_| {
                Answer::whole(StatusCode::OK, "application/binary", "made")
            }),
            ("POST", ["conversations"]) => {
                self.make(asked, "conv_", json!({"object": "conversation"}))
            }
            ("GET" | "POST", ["conversations", id, "items"])
            | ("GET", ["responses", id, "input_items"] | ["chat", "completions", id, "messages"]) => {
                self.with(asked, id, |_| {
                    shown(&json!({"object": "list", "data": [], "has_more": false}))
                })
            }
            (
                "GET",
                [
                    "files" | "conversations" | "responses" | "uploads" | "vector_stores"
                    | "containers",
                    id,
                ],
            )
            | ("GET", ["messages", "batches", id])
            | ("GET" | "POST", ["chat", "completions", id])
            | ("POST", ["conversations", id]) => self.with(asked, id, |thing| shown(&thing.shown)),
            ("GET", ["files", id, "content"]) => self.with(asked, id, |thing| {
                Answer::whole(
                    StatusCode::OK,
                    "application/octet-stream",
                    thing.content.clone(),
                )
            }),
            ("POST", ["responses", id, "cancel"]) => self.with(asked, id, |_| {
                let error = json!({"error": {"message": "Cannot cancel a synchronous response.",
                    "type": "invalid_request_error", "param": null, "code": null}});
                Answer::json(StatusCode::BAD_REQUEST, error.to_string())
            }),
            (
                "POST",
                ["batches" | "uploads", id, "cancel"] | ["messages", "batches", id, "cancel"],
            ) => self.with(asked, id, |thing| {
                thing.shown["status"] = "cancelled".into();
                shown(&thing.shown)
            }),
            (
                "DELETE",
                ["chat", "completions", id]
                | ["files" | "conversations" | "responses", id]
                | ["messages", "batches", id],
            ) => {
                let deleted = json!({"id": id, "deleted": true});
                let answer = self.with(asked, id, |_| shown(&deleted));
                if answer.status.is_success() {
                    self.0.remove(*id);
                }
                answer
            }
            _ => return None,
        })
    }

    /// Tells if `body`, or what is in it, names a file, a store or a container that this account does not have. `name`:
    /// that of the member with it.
    fn lacks_any(&self, asked: Asked<'_>, name: Option<&str>, body: &Value) -> bool {
        match body {
            Value::Object(members) => members
                .iter()
                .any(|(name, value)| self.lacks_any(asked, Some(name), value)),
            Value::Array(list) => list.iter().any(|one| self.lacks_any(asked, name, one)),
            Value::String(id) => {
                let is_id = matches!(
                    name,
                    Some(
                        "file_id" | "file_ids" | "vector_store_ids" | "input_file_id" | "container"
                    )
                );
                is_id
                    && self
                        .0
                        .get(id)
                        .is_none_or(|thing| thing.account != asked.account)
            }
            _ => false,
        }
    }

    /// The complaint about what a request goes on from, if this account does not have it.
    pub fn missing(&self, asked: Asked<'_>, body: &Value) -> Option<Answer> {
        if asked.platform != Platform::OpenAi || asked.path != "/v1/responses" {
            return None;
        }
        let conversation = &body["conversation"];
        let conversation = conversation.as_str().or(conversation["id"].as_str());
        let has = |id: &str| {
            self.0
                .get(id)
                .is_some_and(|thing| thing.account == asked.account)
        };
        if let Some(id) = body["previous_response_id"].as_str().filter(|id| !has(id)) {
            let error = json!({"error": {"message": format!("Previous response with id '{id}' not found."),
                "type": "invalid_request_error", "param": "previous_response_id",
                "code": "previous_response_not_found"}});
            return Some(Answer::json(StatusCode::BAD_REQUEST, error.to_string()));
        }
        conversation.filter(|id| !has(id)).map(|_| not_found(asked))
    }

    /// Keeps a response, which its caller did not forbid, or a chat completion, if it asked for that.
    pub fn keep_response(&mut self, asked: Asked<'_>, body: &Value) {
        let (prefix, is_kept) = match asked.path {
            "/v1/responses" => ("resp_", body["store"] != Value::Bool(false)),
            "/v1/chat/completions" => ("chatcmpl-", body["store"] == Value::Bool(true)),
            _ => return,
        };
        if is_kept && asked.platform == Platform::OpenAi {
            let id = format!("{prefix}{}", asked.id);
            self.put(
                asked,
                &id,
                json!({"object": "response", "status": "completed"}),
                Bytes::new(),
            );
        }
    }

    fn put(&mut self, asked: Asked<'_>, id: &str, mut shown: Value, content: Bytes) -> Value {
        shown["id"] = id.into();
        let thing = Thing {
            account: asked.account.to_owned(),
            shown: shown.clone(),
            content,
        };
        self.0.insert(id.to_owned(), thing);
        shown
    }

    fn make(&mut self, asked: Asked<'_>, prefix: &str, made: Value) -> Answer {
        let id = format!("{prefix}{}", asked.id);
        shown(&self.put(asked, &id, made, Bytes::new()))
    }

    fn with(
        &mut self,
        asked: Asked<'_>,
        id: &str,
        answer: impl FnOnce(&mut Thing) -> Answer,
    ) -> Answer {
        let thing = self
            .0
            .get_mut(id)
            .filter(|thing| thing.account == asked.account);
        thing.map_or_else(|| not_found(asked), answer)
    }

    fn list(&self, asked: Asked<'_>) -> Answer {
        let own = self
            .0
            .values()
            .filter(|thing| thing.account == asked.account);
        let data: Vec<&Value> = own.map(|thing| &thing.shown).collect();
        shown(&json!({"object": "list", "data": data, "has_more": false}))
    }

    fn new_file(&mut self, asked: Asked<'_>) -> Answer {
        let Some(content) = part(asked.headers, asked.body, "file") else {
            return refused("expected a form with a file");
        };
        let prefix = if asked.platform == Platform::Anthropic {
            "file_"
        } else {
            "file-"
        };
        let id = format!("{prefix}{}", asked.id);
        let made = json!({"object": "file", "type": "file", "bytes": content.len(), "filename": "in.jsonl"});
        shown(&self.put(asked, &id, made, content))
    }

    fn add_part(&mut self, asked: Asked<'_>, id: &str) -> Answer {
        let Some(data) = part(asked.headers, asked.body, "data") else {
            return refused("expected a form with data");
        };
        let made =
            json!({"id": format!("part_{}", asked.id), "object": "upload.part", "upload_id": id});
        self.with(asked, id, |upload| {
            upload.content = [&upload.content[..], &data].concat().into();
            shown(&made)
        })
    }

    fn complete(&mut self, asked: Asked<'_>, id: &str) -> Answer {
        let mut content = None;
        let refusal = self.with(asked, id, |upload| {
            content = Some(upload.content.clone());
            shown(&Value::Null)
        });
        let Some(content) = content else {
            return refusal;
        };
        let file_id = format!("file-{}", asked.id);
        let file = json!({"object": "file", "bytes": content.len()});
        let file = self.put(asked, &file_id, file, content);
        shown(&json!({"id": id, "object": "upload", "status": "completed", "file": file}))
    }

    fn new_batch(&mut self, asked: Asked<'_>) -> Answer {
        let body: Value = serde_json::from_slice(asked.body).unwrap_or_default();
        let input = body["input_file_id"].as_str().unwrap_or_default();
        let found = self.with(asked, input, |_| shown(&Value::Null));
        if !found.status.is_success() {
            return found;
        }
        let batch = json!({"object": "batch", "status": "validating", "errors": null, "input_file_id": input,
            "output_file_id": null, "error_file_id": null});
        self.make(asked, "batch_", batch)
    }

    fn end_batch(&mut self, asked: Asked<'_>, id: &str) -> Answer {
        let mut output = None;
        let answer = self.with(asked, id, |batch| {
            if batch.shown["status"] == "validating" {
                let id = format!("file-{}", asked.id);
                batch.shown["status"] = "completed".into();
                batch.shown["output_file_id"] = id.as_str().into();
                output = Some(id);
            }
            shown(&batch.shown)
        });
        if let Some(id) = output {
            self.put(
                asked,
                &id,
                json!({"object": "file"}),
                Bytes::from_static(b"{\"done\":1}\n"),
            );
        }
        answer
    }
}

/// A field of a form with files.
pub fn part(headers: &HeaderMap, body: &Bytes, name: &str) -> Option<Bytes> {
    let kind = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let boundary = kind.strip_prefix("multipart/form-data; boundary=")?;
    let delimiter = format!("--{}", boundary.trim_matches('"'));
    let ends = positions(body, delimiter.as_bytes());
    let parts = ends
        .windows(2)
        .map(|pair| &body[pair[0] + delimiter.len()..pair[1]]);
    let wanted = format!("name=\"{name}\"");
    parts.into_iter().find_map(|part| {
        let head = *positions(part, b"\r\n\r\n").first()?;
        let is_it = std::str::from_utf8(&part[..head]).ok()?.contains(&wanted);
        let content = part[head + 4..].strip_suffix(b"\r\n")?;
        is_it.then(|| Bytes::copy_from_slice(content))
    })
}

fn positions(text: &[u8], wanted: &[u8]) -> Vec<usize> {
    let windows = text.windows(wanted.len()).enumerate();
    windows
        .filter(|(_, window)| *window == wanted)
        .map(|(at, _)| at)
        .collect()
}

fn shown(value: &Value) -> Answer {
    Answer::json(StatusCode::OK, value.to_string())
}

fn refused(message: &str) -> Answer {
    let error = json!({"error": {"message": message, "type": "invalid_request_error", "param": null, "code": null}});
    Answer::json(StatusCode::BAD_REQUEST, error.to_string())
}

fn not_found(asked: Asked<'_>) -> Answer {
    let error = match asked.platform {
        Platform::Anthropic => {
            json!({"type": "error", "error": {"type": "not_found_error", "message": "Not found"}})
        }
        _ => {
            json!({"error": {"message": "No such object", "type": "invalid_request_error", "param": "id", "code": null}})
        }
    };
    Answer::json(StatusCode::NOT_FOUND, error.to_string())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::answer::Payload;

    /// The status and body of the answer to a request of `account`.
    fn ask(things: &mut Things, account: &str, what: &str, body: &str) -> (u16, Value) {
        let (method, path) = what.split_once(' ').expect("a method");
        let mut headers = HeaderMap::new();
        let form = HeaderValue::from_static("multipart/form-data; boundary=x");
        headers.insert(header::CONTENT_TYPE, form);
        let answer = things.answer(Asked {
            platform: Platform::OpenAi,
            account,
            method: &method.parse().expect("a method"),
            path,
            headers: &headers,
            body: &Bytes::copy_from_slice(body.as_bytes()),
            id: "1",
        });
        let answer = answer.expect("an answer");
        let Payload::Whole(body) = answer.body else {
            panic!("a stream")
        };
        (
            answer.status.as_u16(),
            serde_json::from_slice(&body).unwrap_or_default(),
        )
    }

    #[test]
    fn a_thing_is_there_for_its_account_alone() {
        let mut things = Things::default();
        let form = "--x\r\ncontent-disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n--x\r\n\
                    content-disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\nhello\r\n--x--\r\n";
        let (status, file) = ask(&mut things, "one", "POST /v1/files", form);
        assert_eq!(
            (status, &file["id"], &file["bytes"]),
            (200, &json!("file-1"), &json!(5))
        );
        let input = r#"{"input_file_id":"file-1"}"#;
        assert_eq!(ask(&mut things, "two", "POST /v1/batches", input).0, 404);
        assert_eq!(ask(&mut things, "one", "POST /v1/batches", input).0, 200);
        let named = r#"{"input":[{"content":[{"file_id":"file-1"}]}]}"#;
        assert_eq!(ask(&mut things, "two", "POST /v1/responses", named).0, 404);
        for (account, status) in [("one", 200), ("two", 404)] {
            assert_eq!(
                ask(&mut things, account, "GET /v1/files/file-1", "").0,
                status
            );
        }
        let (_, batch) = ask(&mut things, "one", "GET /v1/batches/batch_1", "");
        assert_eq!(batch["output_file_id"], "file-1");
        assert_eq!(
            ask(&mut things, "two", "DELETE /v1/files/file-1", "").0,
            404
        );
        assert_eq!(
            ask(&mut things, "one", "DELETE /v1/files/file-1", "").0,
            200
        );
        assert_eq!(ask(&mut things, "one", "GET /v1/files/file-1", "").0, 404);
    }
}
