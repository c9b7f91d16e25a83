//! The platform's listener: TLS, HTTP/1.1 and HTTP/2, and the delivery of outcomes.
//! It decides nothing.

use std::{
    convert::Infallible,
    error::Error,
    io,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt, stream};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Bytes, Frame, Incoming},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::{
    answer::Payload,
    claude,
    clock::UnixMillis,
    faults::Early,
    kept,
    oauth::FamilyId,
    simulation::{Outcome, Simulation},
};

/// Bytes of a request body that are read: twice what a gateway replays.
const MAX_REQUEST_BYTES: usize = 64 * 1024 * 1024;

/// The beginnings of the paths at which users or logins may change.
const LOGINS: [&str; 8] = [
    "/oauth/",
    "/web/",
    "/api/accounts/",
    "/codex/device",
    "/cai/",
    "/o/oauth2/",
    "/google/",
    "/v1/oauth/",
];

/// The rest of the accept loop when the process is out of file descriptors.
const ACCEPT_ERROR_PAUSE: Duration = Duration::from_millis(50);

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// The simulation, shared by connections and the control API.
#[derive(Clone, Debug)]
pub struct Shared {
    simulation: Arc<Mutex<Simulation>>,
    /// The file that keeps its users over restarts.
    kept: Option<Arc<Path>>,
}

impl Shared {
    /// Shares it; with `kept`, its users and their logins are in that file whenever they have changed.
    pub fn new(simulation: Simulation, kept: Option<&Path>) -> Self {
        Self {
            simulation: Arc::new(Mutex::new(simulation)),
            kept: kept.map(Arc::from),
        }
    }

    /// Locks it; never held across an await.
    pub fn lock(&self) -> MutexGuard<'_, Simulation> {
        let locked = self.simulation.lock();
        locked.unwrap_or_else(PoisonError::into_inner)
    }

    /// Does what may change users or logins, and keeps them before anybody hears of it.
    pub fn change<T>(&self, change: impl FnOnce(&mut Simulation) -> T) -> T {
        let mut simulation = self.lock();
        let done = change(&mut simulation);
        if let Some(file) = &self.kept
            && let Err(error) = kept::save(file, &simulation)
        {
            eprintln!("sim: cannot write {}: {error}", file.display());
        }
        done
    }
}

/// Takes connections and serves each in a task of its own, until this is dropped.
async fn accept<S: Future<Output = ()> + Send + 'static>(
    listener: TcpListener,
    serve: impl Fn(TcpStream) -> S,
) {
    loop {
        match listener.accept().await {
            Ok((connection, _)) => {
                // Deltas are small writes that tests time.
                connection.set_nodelay(true).ok();
                tokio::spawn(serve(connection));
            }
            Err(_) => tokio::time::sleep(ACCEPT_ERROR_PAUSE).await,
        }
    }
}

/// Serves the pages that a person opens, without TLS, until the task is dropped.
pub async fn serve_pages(listener: TcpListener, shared: Shared) {
    accept(listener, |connection| {
        let shared = shared.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let shared = shared.clone();
            async move {
                let path = request.uri().path();
                if matches!(
                    path,
                    "/oauth/authorize" | "/codex/device" | claude::AUTHORIZE
                ) {
                    return handle(request, shared).await;
                }
                let mut response = Response::new(boxed(Bytes::from("no such page\n")));
                *response.status_mut() = StatusCode::NOT_FOUND;
                Ok(response)
            }
        });
        async move {
            auto::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(connection), service)
                .await
                .ok();
        }
    })
    .await;
}

/// Serves the platform until the task is dropped.
pub async fn serve(listener: TcpListener, acceptor: TlsAcceptor, shared: Shared) {
    accept(listener, |connection| {
        let (acceptor, shared) = (acceptor.clone(), shared.clone());
        async move {
            // A failed handshake or a broken connection is the client's to report.
            let Ok(tls) = acceptor.accept(connection).await else {
                return;
            };
            let service = service_fn(move |request| handle(request, shared.clone()));
            auto::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(tls), service)
                .await
                .ok();
        }
    })
    .await;
}

/// An error closes an HTTP/1.1 connection without an answer and resets an HTTP/2 stream.
async fn handle(request: Request<Incoming>, shared: Shared) -> io::Result<Response<Body>> {
    let (parts, body) = request.into_parts();
    let early = shared.lock().early(parts.uri.path(), &parts.headers);
    let body = match early {
        Some(early) => {
            if early == Early::Reads {
                tokio::spawn(Limited::new(body, MAX_REQUEST_BYTES).collect());
            }
            Ok(Bytes::new())
        }
        None => read(body).await,
    };
    let Ok(body) = body else {
        let mut response = Response::new(boxed(Bytes::new()));
        *response.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
        return Ok(response);
    };
    let request = Request::from_parts(parts, body);
    let path = request.uri().path();
    let outcome = match LOGINS.iter().any(|at| path.starts_with(at)) {
        true => shared.change(|simulation| simulation.handle(&request, UnixMillis::now())),
        false => shared.lock().handle(&request, UnixMillis::now()),
    };
    let _refreshing = outcome.refreshing.map(|family| Refreshing {
        family,
        shared: shared.clone(),
    });
    tokio::time::sleep(outcome.delay).await;
    if outcome.drop {
        return Err(io::Error::other(
            "a fault closes the connection before the answer",
        ));
    }
    let mut response = response(outcome);
    if *request.method() == Method::HEAD {
        // hyper leaves this to the service on HTTP/2.
        *response.body_mut() = boxed(Bytes::new());
    }
    Ok(response)
}

async fn read(body: Incoming) -> Result<Bytes, Box<dyn Error + Send + Sync>> {
    let body = Limited::new(body, MAX_REQUEST_BYTES).collect().await?;
    Ok(body.to_bytes())
}

fn response(outcome: Outcome) -> Response<Body> {
    let paced = !outcome.after_headers_delay.is_zero()
        || outcome.cut_after_bytes.is_some()
        || outcome.stall_after_bytes.is_some()
        || outcome.pieces.is_some()
        || outcome.trailer;
    let whole = !paced && matches!(outcome.answer.body, Payload::Whole(_));
    let end = match (outcome.cut_after_bytes, outcome.stall_after_bytes) {
        (Some(bytes), _) => End::Cut(bytes),
        (None, Some(bytes)) => End::Stall(bytes),
        (None, None) => End::Whole,
    };
    let (mut chunks, mut between) = match outcome.answer.body {
        Payload::Whole(body) => (vec![body], Duration::ZERO),
        Payload::Events(events) => {
            let events = events.into_iter().map(Bytes::from).collect();
            (events, outcome.event_delay)
        }
    };
    if let Some((bytes, delay)) = outcome.pieces {
        let whole = chunks.concat();
        let pieces = whole.chunks(bytes.get()).map(Bytes::copy_from_slice);
        (chunks, between) = (pieces.collect(), delay);
    }
    let body = match whole {
        true => boxed(Bytes::from(chunks.concat())),
        false => stream_body(chunks, outcome.after_headers_delay, between, end),
    };
    let body = if outcome.trailer {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sim-trailer", HeaderValue::from_static("end"));
        body.with_trailers(std::future::ready(Some(Ok(trailers))))
            .boxed_unsync()
    } else {
        body
    };
    let mut response = Response::new(body);
    *response.status_mut() = outcome.answer.status;
    *response.headers_mut() = outcome.answer.headers;
    response
}

fn boxed(body: Bytes) -> Body {
    Full::new(body)
        .map_err(|never: Infallible| match never {})
        .boxed_unsync()
}

/// The end of a body.
#[derive(Clone, Copy)]
enum End {
    /// As it should.
    Whole,
    /// After so many bytes, with its connection.
    Cut(u64),
    /// Never: after so many bytes nothing comes.
    Stall(u64),
}

fn stream_body(chunks: Vec<Bytes>, first: Duration, between: Duration, end: End) -> Body {
    let mut pieces: Vec<io::Result<Bytes>> = Vec::with_capacity(chunks.len() + 1);
    let mut left = match end {
        End::Whole => u64::MAX,
        End::Cut(bytes) | End::Stall(bytes) => bytes,
    };
    for mut chunk in chunks {
        let ends_here = chunk.len() as u64 > left;
        if ends_here {
            chunk.truncate(left as usize);
        }
        left -= chunk.len() as u64;
        pieces.push(Ok(chunk));
        if ends_here {
            break;
        }
    }
    if matches!(end, End::Cut(_)) {
        pieces.push(Err(io::Error::other("a fault cuts the body")));
    }
    let frames =
        stream::iter(pieces.into_iter().enumerate()).then(move |(index, piece)| async move {
            tokio::time::sleep(if index == 0 { first } else { between }).await;
            piece.map(Frame::data)
        });
    match end {
        End::Stall(_) => StreamBody::new(frames.chain(stream::pending())).boxed_unsync(),
        End::Whole | End::Cut(_) => StreamBody::new(frames).boxed_unsync(),
    }
}

/// Ends the in-flight count of a refresh, also when the client goes away first.
struct Refreshing {
    family: FamilyId,
    shared: Shared,
}

impl Drop for Refreshing {
    fn drop(&mut self) {
        self.shared.lock().stats.refresh_ends(self.family);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BETWEEN: Duration = Duration::from_millis(5);

    /// The bytes that arrive, and whether the body ended as it should.
    async fn received(cut: Option<u64>) -> (String, bool) {
        let chunks = ["one ", "two ", "three"].map(Bytes::from).to_vec();
        let end = cut.map_or(End::Whole, End::Cut);
        let mut body = stream_body(chunks, Duration::ZERO, BETWEEN, end);
        let mut bytes = Vec::new();
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) => bytes.extend(frame.into_data().expect("data")),
                Err(_) => return (String::from_utf8_lossy(&bytes).into_owned(), false),
            }
        }
        (String::from_utf8_lossy(&bytes).into_owned(), true)
    }

    #[tokio::test]
    async fn body_is_cut_at_the_byte() {
        assert_eq!(received(None).await, ("one two three".into(), true));
        assert_eq!(received(Some(6)).await, ("one tw".into(), false));
        assert_eq!(received(Some(4)).await, ("one ".into(), false));
        assert_eq!(received(Some(0)).await, (String::new(), false));
        assert_eq!(received(Some(99)).await, ("one two three".into(), false));
    }

    #[tokio::test]
    async fn a_stalled_body_sends_what_it_is_to_and_never_ends() {
        let chunks = ["one ", "two"].map(Bytes::from).to_vec();
        let mut body = stream_body(chunks, Duration::ZERO, BETWEEN, End::Stall(5));
        let mut bytes = Vec::new();
        let receiving = async {
            while let Some(Ok(frame)) = body.frame().await {
                bytes.extend(frame.into_data().expect("data"));
            }
        };
        let ended = tokio::time::timeout(10 * BETWEEN, receiving).await;
        assert!(ended.is_err(), "it ended");
        assert_eq!(bytes, b"one t");
    }

    #[tokio::test]
    async fn chunks_are_paced() {
        let start = tokio::time::Instant::now();
        received(None).await;
        assert!(start.elapsed() >= 2 * BETWEEN);
    }
}
