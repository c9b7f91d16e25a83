//! The questions that operations ask of a running `serve`, over its socket. Nothing depends on an answer.

use std::path::Path;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, Request, header};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::state::StateDir;

/// The time that a running `serve` gets to answer.
const ASK_LIMIT: Duration = Duration::from_secs(2);
/// The most bytes of an answer: counts of 10,000 subjects.
const MAX_ANSWER_BYTES: usize = 8 * 1024 * 1024;

/// The answer of the running `serve` at `path`; none where none runs, or it does not answer.
pub(super) async fn ask<T: DeserializeOwned>(state: &StateDir, path: &str) -> Option<T> {
    let answer = send(state, Method::GET, path).await?;
    serde_json::from_slice(&answer).ok()
}

/// Asks the running `serve` for the port that it holds for logins at `platform`. True if it gave it up.
pub async fn yield_port(state: &StateDir, platform: &str) -> bool {
    let path = format!("/logins/{platform}/yield");
    send(state, Method::POST, &path).await.is_some()
}

async fn send(state: &StateDir, method: Method, path: &str) -> Option<Vec<u8>> {
    if !state.is_served() {
        return None;
    }
    let answer = timeout(ASK_LIMIT, call(&state.socket(), method, path)).await;
    answer
        .ok()?
        .inspect_err(|error| tracing::debug!(path, %error, "the running daemon does not answer"))
        .ok()
}

/// The body of an answer of success.
async fn call(
    socket: &Path,
    method: Method,
    path: &str,
) -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> {
    let stream = TokioIo::new(UnixStream::connect(socket).await?);
    let (mut sender, connection) = http1::handshake(stream).await?;
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "refresher")
        .body(Body::empty())?;
    // It ends with the sender, or at the time limit of the one who drops that.
    tokio::spawn(connection);
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    if !status.is_success() {
        return Err(format!("HTTP {status}").into());
    }
    let body = axum::body::to_bytes(Body::new(answer.into_body()), MAX_ANSWER_BYTES).await?;
    Ok(body.to_vec())
}
