//! The questions that operations ask of a running `serve`, over its socket. Nothing depends on an answer.

use std::path::Path;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, Request, Response, header};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
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
    let socket = state.socket();
    let asked = body(&socket, method, path, MAX_ANSWER_BYTES);
    let answer = timeout(ASK_LIMIT, asked).await.ok()?;
    answer
        .inspect_err(|error| tracing::debug!(path, %error, "the running daemon does not answer"))
        .ok()
}

/// The reason why there is no answer.
pub(super) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The body of the answer of success to a `GET` on a Unix socket, at most `bound` bytes.
pub(super) async fn get(socket: &Path, path: &str, bound: usize) -> Result<Vec<u8>, Failure> {
    body(socket, Method::GET, path, bound).await
}

async fn body(socket: &Path, method: Method, path: &str, bound: usize) -> Result<Vec<u8>, Failure> {
    let stream = UnixStream::connect(socket).await?;
    let answer = exchange(stream, method, "refresher", path).await?;
    let status = answer.status();
    if !status.is_success() {
        return Err(format!("HTTP {status}").into());
    }
    let body = axum::body::to_bytes(answer.into_body(), bound).await?;
    Ok(body.to_vec())
}

/// Asks whoever is at the other end of `stream`, once, in plain HTTP.
pub(super) async fn exchange<S>(
    stream: S,
    method: Method,
    host: &str,
    path: &str,
) -> Result<Response<Body>, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, host)
        .body(Body::empty())?;
    // It ends with the sender, or at the time limit of the one who drops that.
    tokio::spawn(connection);
    Ok(sender.send_request(request).await?.map(Body::new))
}
