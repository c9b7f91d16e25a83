//! Stands between Envoys and the refresher, and keeps what they say to each other of limits.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use axum::{
    Router,
    body::Bytes,
    extract::{Request, State},
    http::StatusCode,
};
use latchkey::limit::settle::{Counts, Others};
use tokio::{net::UnixListener, task::JoinHandle};

use super::RUNTIME;

/// More than any message has.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// A running relay.
#[derive(Debug)]
pub struct Relay {
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    refresher: reqwest::Client,
    rounds: Mutex<Vec<Round>>,
}

/// A `POST /counts` that was answered.
#[derive(Debug, Clone)]
pub struct Round {
    /// The time at which it came from an Envoy.
    pub asked_at: Instant,
    /// The time at which its answer came from the refresher.
    pub answered_at: Instant,
    /// The words of the Envoy.
    pub counts: Counts,
    /// The words that it heard.
    pub others: Others,
}

impl Relay {
    /// Listens at `socket` for a refresher that listens, or is going to, at `refresher`.
    pub fn start(socket: &Path, refresher: PathBuf) -> Self {
        let client = reqwest::Client::builder().unix_socket(refresher).build();
        let shared = Arc::new(Shared {
            refresher: client.expect("a client"),
            rounds: Mutex::default(),
        });
        let app = Router::new()
            .fallback(relay)
            .with_state(Arc::clone(&shared));
        let socket = socket.to_owned();
        let server = RUNTIME.spawn(async move {
            let listener = UnixListener::bind(socket).expect("a socket");
            axum::serve(listener, app).await.expect("served");
        });
        Self { shared, server }
    }

    /// Everything that was said so far, in the order of the answers.
    pub fn rounds(&self) -> Vec<Round> {
        self.shared.rounds().clone()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Shared {
    fn rounds(&self) -> MutexGuard<'_, Vec<Round>> {
        self.rounds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ask(&self, request: Request) -> Option<(StatusCode, Bytes)> {
        let asked_at = Instant::now();
        let (head, body) = request.into_parts();
        let told = axum::body::to_bytes(body, MAX_BYTES).await.ok()?;
        let url = format!("http://refresher{}", head.uri);
        let mut asking = self.refresher.request(head.method, url).body(told.clone());
        if let Some(kind) = head.headers.get("content-type") {
            asking = asking.header("content-type", kind);
        }
        let answer = asking.send().await.ok()?;
        let status = answer.status();
        let answer = answer.bytes().await.ok()?;
        if head.uri.path() == "/counts" && status == StatusCode::OK {
            self.rounds().push(Round {
                asked_at,
                answered_at: Instant::now(),
                counts: serde_json::from_slice(&told).expect("counts"),
                others: serde_json::from_slice(&answer).expect("counts"),
            });
        }
        Some((status, answer))
    }
}

async fn relay(State(shared): State<Arc<Shared>>, request: Request) -> (StatusCode, Bytes) {
    let answer = shared.ask(request).await;
    answer.unwrap_or((StatusCode::BAD_GATEWAY, Bytes::new()))
}
