//! A refresher that publishes what a test says, also what the real one never would.
//!
//! It speaks the sync of docs/protocol.md on the Unix socket and knows nothing of tokens, stores and platforms.

use std::{
    collections::{HashMap, HashSet},
    fs,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use axum::{
    Json, Router,
    extract::{Query, State},
    http::StatusCode,
    routing::{get, post},
};
use latchkey::{
    limit::settle::{Counts, Line, Others},
    snapshot::page::{Epoch, PageHeader},
    sync::records::Begun,
};
use serde_json::Value;
use tokio::{net::UnixListener, sync::watch, task::JoinHandle, time::timeout};

use super::RUNTIME;

/// Bytes of records on a page.
const PAGE_BYTES: usize = 1024 * 1024;

/// A running fake refresher.
#[derive(Debug)]
pub struct FakeRefresher {
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

/// The fate of a page before it is sent.
pub type Mangle = fn(&[u8]) -> Vec<u8>;

#[derive(Debug)]
struct Shared {
    published: Mutex<Published>,
    revision: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Published {
    epoch: Epoch,
    /// Revision and line, oldest first.
    lines: Vec<(u64, String)>,
    mangle: Option<Mangle>,
    polling: usize,
    most_polling: usize,
    /// The time of each poll, oldest first.
    polls: Vec<SystemTime>,
    reports: Vec<Value>,
    /// The batches that came, by their ids, and how many requests they say have begun.
    batches: HashSet<String>,
    begun: u64,
    /// Answers to reports are lost: they say that nothing was taken.
    losing: bool,
}

impl FakeRefresher {
    /// Serves on `state/run/refresher.sock` of `folder`.
    pub async fn start(folder: &Path) -> Self {
        let socket = folder.join("state/run/refresher.sock");
        fs::remove_file(&socket).ok();
        let shared = Arc::new(Shared {
            published: Mutex::default(),
            revision: watch::Sender::new(0),
        });
        shared.lock().epoch = Epoch::from_bytes([1; 16]);
        let app = Router::new()
            .route("/snapshot", get(snapshot))
            .route("/reports", post(reports))
            .route("/counts", post(counts))
            .with_state(Arc::clone(&shared));
        let server = RUNTIME.spawn(async move {
            let listener = UnixListener::bind(socket).expect("a socket");
            axum::serve(listener, app).await.expect("served");
        });
        Self { shared, server }
    }

    /// Publishes lines, each a revision of its own. Returns the last one.
    pub fn publish(&self, lines: impl IntoIterator<Item = String>) -> u64 {
        let mut published = self.shared.lock();
        let mut revision = *self.shared.revision.borrow();
        for line in lines {
            revision += 1;
            published.lines.push((revision, line));
        }
        self.shared.revision.send_replace(revision);
        revision
    }

    /// Changes every page from now on; none: sends them as they are.
    pub fn mangle(&self, mangle: Option<Mangle>) {
        self.shared.lock().mangle = mangle;
    }

    /// The most polls that waited at the same time.
    pub fn most_polling(&self) -> usize {
        self.shared.lock().most_polling
    }

    /// The time of the first poll after that one.
    pub fn first_poll_after(&self, time: SystemTime) -> SystemTime {
        let published = self.shared.lock();
        let mut later = published.polls.iter().filter(|poll| **poll > time);
        *later.next().expect("a later poll")
    }

    /// Takes reports and loses the answers, or no more.
    pub fn lose_answers(&self, losing: bool) {
        self.shared.lock().losing = losing;
    }

    /// The number of requests that all VMs say have begun.
    pub fn begun(&self) -> u64 {
        self.shared.lock().begun
    }

    /// The records of requests so far, in the order in which they came.
    pub fn records(&self) -> Vec<Value> {
        let batches = self.reports().into_iter();
        batches
            .filter_map(|batch| batch["records"].as_array().cloned())
            .flatten()
            .collect()
    }

    /// The bodies of the reports so far.
    pub fn reports(&self) -> Vec<Value> {
        self.shared.lock().reports.clone()
    }
}

impl Drop for FakeRefresher {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Published> {
        self.published
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Published {
    fn page(&self, epoch: &str, since: u64, revision: u64) -> Vec<u8> {
        let known = epoch == String::from(self.epoch) && since <= revision && since > 0;
        let from = if known { since } else { 0 };
        let (mut bytes, mut to, mut more) = (0, revision, false);
        let mut lines = Vec::new();
        for (at, line) in self.lines.iter().filter(|(at, _)| *at > from) {
            bytes += line.len() + 1;
            if bytes > PAGE_BYTES && !lines.is_empty() {
                more = true;
                break;
            }
            lines.push(line.as_str());
            to = *at;
        }
        let page = PageHeader::encode(self.epoch, !known, (from, to), more, lines);
        match self.mangle {
            Some(mangle) => mangle(&page),
            None => page,
        }
    }
}

async fn snapshot(
    State(shared): State<Arc<Shared>>,
    Query(query): Query<HashMap<String, String>>,
) -> Vec<u8> {
    let number = |name: &str| query[name].parse::<u64>().expect("a number");
    let (since, wait) = (number("since"), Duration::from_secs(number("wait")));
    let _polling = Polling::begin(&shared);
    let mut revision = shared.revision.subscribe();
    let news = revision.wait_for(|revision| *revision > since);
    timeout(wait, news).await.ok();
    let revision = *shared.revision.borrow();
    shared.lock().page(&query["epoch"], since, revision)
}

/// Counts a poll, also one that is given up.
struct Polling<'a>(&'a Shared);

impl<'a> Polling<'a> {
    fn begin(shared: &'a Shared) -> Self {
        let mut published = shared.lock();
        published.polls.push(SystemTime::now());
        published.polling += 1;
        published.most_polling = published.most_polling.max(published.polling);
        Self(shared)
    }
}

impl Drop for Polling<'_> {
    fn drop(&mut self) {
        self.0.lock().polling -= 1;
    }
}

/// There are no other Envoys: nobody used anything.
async fn counts(Json(counts): Json<Counts>) -> Json<Others> {
    let alone = |mut line: Line| {
        for span in [&mut line.said.minute, &mut line.said.day] {
            (span.requests, span.tokens) = (0, 0);
        }
        line.said.streams = 0;
        line
    };
    Json(Others {
        subjects: counts.subjects.into_iter().map(alone).collect(),
    })
}

async fn reports(State(shared): State<Arc<Shared>>, Json(batch): Json<Value>) -> StatusCode {
    let mut published = shared.lock();
    let id = batch["batch"].as_str().unwrap_or_default();
    // Reports of accounts say nothing of it.
    if let Ok(begun) = serde_json::from_value::<Begun>(batch["begun"].clone())
        && published.batches.insert(id.to_owned())
    {
        published.begun += begun.requests;
    }
    // A batch may have neither, and say only what began.
    let is_empty = |list: &str| batch[list].as_array().is_none_or(Vec::is_empty);
    if !is_empty("reports") || !is_empty("records") {
        published.reports.push(batch);
    }
    match published.losing {
        true => StatusCode::GATEWAY_TIMEOUT,
        false => StatusCode::NO_CONTENT,
    }
}
