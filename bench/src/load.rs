//! Callers: keep-alive connections that send one request after the other.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures_util::{TryStreamExt, stream::FuturesUnordered};
use http_body_util::{BodyExt, Full};
use hyper::{
    Request, StatusCode,
    client::conn::http1::{SendRequest, handshake},
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task};

use crate::{answers::Dialect, fleet::Fleet};

/// The length of the text in a request's body, in bytes.
const TEXT_BYTES: usize = 900;

/// The number of sessions that the callers have among them.
const SESSIONS: usize = 1000;

/// The kind of answer that the caller asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// One JSON body.
    Json,
    /// A stream of events.
    Sse,
}

/// Connections to one gateway, of callers of one fleet.
#[derive(Debug)]
pub struct Callers {
    /// The connections.
    pub connections: Vec<SendRequest<Full<Bytes>>>,
    /// Whose callers they are.
    pub fleet: Fleet,
    /// The number of the next request.
    pub next: usize,
}

// === impl Answer ===

impl Answer {
    /// Its `content-type`, which a caller names as `accept`.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Sse => "text/event-stream",
        }
    }
}

// === impl Callers ===

impl Callers {
    /// Opens `connections` to the gateway at `port`. Must be called within a `LocalSet`.
    ///
    /// # Errors
    /// When the gateway takes no connection.
    pub async fn connect(port: u16, connections: usize, fleet: Fleet) -> Result<Self> {
        let mut opened = Vec::new();
        for _ in 0..connections {
            let stream = TcpStream::connect(("127.0.0.1", port)).await?;
            stream.set_nodelay(true)?;
            let (sender, connection) = handshake(TokioIo::new(stream)).await?;
            task::spawn_local(connection);
            opened.push(sender);
        }
        Ok(Self {
            connections: opened,
            fleet,
            next: 0,
        })
    }

    /// Sends requests on the first `connections` for `duration`; how long each took, from the
    /// request to the last byte of its answer.
    ///
    /// # Errors
    /// An answer that is not the platform's: its cost would be that of something else.
    pub async fn run(
        &mut self,
        answer: Answer,
        connections: usize,
        duration: Duration,
    ) -> Result<Vec<Duration>> {
        let end = Instant::now() + duration;
        let (fleet, start) = (self.fleet, self.next);
        let active = self.connections.iter_mut().take(connections).enumerate();
        let runs: FuturesUnordered<_> = active
            .map(|(lane, connection)| async move {
                let mut taken = Vec::new();
                while Instant::now() < end {
                    let number = start + lane + taken.len() * connections;
                    let sent = Instant::now();
                    exchange(connection, fleet.dialect(number), answer, fleet, number).await?;
                    taken.push(sent.elapsed());
                }
                anyhow::Ok(taken)
            })
            .collect();
        let taken: Vec<Duration> = runs.try_concat().await?;
        self.next += taken.len();
        Ok(taken)
    }

    /// Sends `count` requests of one kind, one after the other.
    ///
    /// # Errors
    /// As [`Callers::run`].
    pub async fn repeat(&mut self, dialect: Dialect, answer: Answer, count: usize) -> Result<()> {
        let connection = self.connections.first_mut().context("no connection")?;
        for number in 0..count {
            exchange(connection, dialect, answer, self.fleet, number).await?;
        }
        Ok(())
    }

    /// Sends one request, on the first connection.
    ///
    /// # Errors
    /// As [`Callers::run`].
    pub async fn ask(&mut self, answer: Answer) -> Result<()> {
        let connection = self.connections.first_mut().context("no connection")?;
        exchange(connection, self.fleet.dialect(0), answer, self.fleet, 0).await
    }
}

async fn exchange(
    connection: &mut SendRequest<Full<Bytes>>,
    dialect: Dialect,
    answer: Answer,
    fleet: Fleet,
    number: usize,
) -> Result<()> {
    connection.ready().await?;
    let request = request(dialect, answer, fleet, number);
    let response = connection.send_request(request).await?;
    let status = response.status();
    let mut body = response.into_body();
    let is_translated = fleet.platform(dialect) != dialect;
    let (mut bytes, mut kept) = (0, Vec::new());
    while let Some(frame) = body.frame().await {
        let frame = frame?;
        let piece = frame.data_ref().map_or(b"".as_slice(), Bytes::as_ref);
        bytes += piece.len();
        if is_translated || status != StatusCode::OK {
            kept.extend_from_slice(piece);
        }
    }
    let is_whole = match is_translated {
        true => dialect.is_answer(&kept),
        false => bytes == dialect.body_bytes(answer),
    };
    ensure!(
        status == StatusCode::OK && is_whole,
        "{dialect:?}: expected 200 and {} bytes, found {status} and {bytes} bytes: {}",
        dialect.body_bytes(answer),
        String::from_utf8_lossy(&kept),
    );
    Ok(())
}

/// Request `number`, with the headers that Codex sends.
pub fn request(
    dialect: Dialect,
    answer: Answer,
    fleet: Fleet,
    number: usize,
) -> Request<Full<Bytes>> {
    let key = Fleet::client_key(number % fleet.size);
    let session = number % SESSIONS;
    Request::post(dialect.path())
        .header("host", "gateway.test")
        .header("authorization", format!("Bearer {key}"))
        .header(
            "user-agent",
            "codex_cli_rs/0.169.0 (Debian 13.0.0; x86_64) xterm-256color",
        )
        .header("originator", "codex_cli_rs")
        .header("content-type", "application/json")
        .header("accept", answer.content_type())
        .header(
            "session-id",
            format!("019a0000-0000-7000-8000-{session:012}"),
        )
        .header("x-codex-window-id", "w:0")
        .header(
            "x-codex-turn-metadata",
            r#"{"turn_id":"019a0000-0000-7000-8000-000000000001"}"#,
        )
        .body(Full::from(dialect.request_body(
            answer,
            session,
            &"1".repeat(TEXT_BYTES),
        )))
        .expect("every part is valid")
}
