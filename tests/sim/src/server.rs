//! The platform's listener: TLS, HTTP/1.1 and HTTP/2, and the delivery of outcomes.
//! It decides nothing.

use std::{
    convert::Infallible,
    io,
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
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::{
    answer::Payload,
    clock::UnixMillis,
    oauth::FamilyId,
    simulation::{Outcome, Simulation},
};

/// Bytes of a request body that are read: twice what a gateway replays.
const MAX_REQUEST_BYTES: usize = 64 * 1024 * 1024;

/// How long the accept loop rests when the process is out of file descriptors.
const ACCEPT_ERROR_PAUSE: Duration = Duration::from_millis(50);

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// The simulation, shared by connections and the control API.
#[derive(Clone, Debug)]
pub struct Shared(Arc<Mutex<Simulation>>);

impl Shared {
    /// Shares it.
    pub fn new(simulation: Simulation) -> Self {
        Self(Arc::new(Mutex::new(simulation)))
    }

    /// Locks it; never held across an await.
    pub fn lock(&self) -> MutexGuard<'_, Simulation> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves the platform until the task is dropped.
pub async fn serve(listener: TcpListener, acceptor: TlsAcceptor, shared: Shared) {
    loop {
        let (connection, _) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(_) => {
                tokio::time::sleep(ACCEPT_ERROR_PAUSE).await;
                continue;
            }
        };
        let (acceptor, shared) = (acceptor.clone(), shared.clone());
        tokio::spawn(async move {
            // Deltas are small writes that tests time.
            connection.set_nodelay(true).ok();
            // A failed handshake or a broken connection is the client's to report.
            let Ok(tls) = acceptor.accept(connection).await else {
                return;
            };
            let service = service_fn(move |request| handle(request, shared.clone()));
            auto::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(tls), service)
                .await
                .ok();
        });
    }
}

/// An error closes an HTTP/1.1 connection without an answer and resets an HTTP/2 stream.
async fn handle(request: Request<Incoming>, shared: Shared) -> io::Result<Response<Body>> {
    let (parts, body) = request.into_parts();
    let body = match Limited::new(body, MAX_REQUEST_BYTES).collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => {
            let mut response = Response::new(boxed(Bytes::new()));
            *response.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
            return Ok(response);
        }
    };
    let request = Request::from_parts(parts, body);
    let outcome = shared.lock().handle(&request, UnixMillis::now());
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

fn response(outcome: Outcome) -> Response<Body> {
    let paced = !outcome.after_headers_delay.is_zero()
        || outcome.cut_after_bytes.is_some()
        || outcome.trailer;
    let body = match outcome.answer.body {
        Payload::Whole(body) if !paced => boxed(body),
        Payload::Whole(body) => stream_body(
            vec![body],
            outcome.after_headers_delay,
            Duration::ZERO,
            outcome.cut_after_bytes,
        ),
        Payload::Events(events) => stream_body(
            events.into_iter().map(Bytes::from).collect(),
            outcome.after_headers_delay,
            outcome.event_delay,
            outcome.cut_after_bytes,
        ),
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

fn stream_body(chunks: Vec<Bytes>, first: Duration, between: Duration, cut: Option<u64>) -> Body {
    let mut pieces: Vec<io::Result<Bytes>> = Vec::with_capacity(chunks.len() + 1);
    let mut left = cut.unwrap_or(u64::MAX);
    for mut chunk in chunks {
        let cut_here = chunk.len() as u64 > left;
        if cut_here {
            chunk.truncate(left as usize);
        }
        left -= chunk.len() as u64;
        pieces.push(Ok(chunk));
        if cut_here {
            break;
        }
    }
    if cut.is_some() {
        pieces.push(Err(io::Error::other("a fault cuts the body")));
    }
    let frames =
        stream::iter(pieces.into_iter().enumerate()).then(move |(index, piece)| async move {
            tokio::time::sleep(if index == 0 { first } else { between }).await;
            piece.map(Frame::data)
        });
    StreamBody::new(frames).boxed_unsync()
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
        let mut body = stream_body(chunks, Duration::ZERO, BETWEEN, cut);
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
    async fn chunks_are_paced() {
        let start = tokio::time::Instant::now();
        received(None).await;
        assert!(start.elapsed() >= 2 * BETWEEN);
    }
}
