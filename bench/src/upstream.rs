//! The platform: an answer of the request's dialect, JSON or a stream of events for a caller that
//! accepts one, at once or at the pace of a model ([`events`](crate::events)).

use std::{
    cell::RefCell,
    collections::HashSet,
    convert::Infallible,
    pin::Pin,
    rc::Rc,
    slice,
    task::{Context, Poll},
};

use anyhow::Result;
use bytes::Bytes;
use http_body_util::{BodyExt, Either, Full};
use hyper::{
    Request, Response, StatusCode,
    body::{Body, Frame, Incoming},
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, task};

use crate::{
    answers::Dialect,
    events::{FAILS, HEADER, Paced},
    load::Answer,
};

/// A running upstream.
#[derive(Debug)]
pub struct Upstream {
    /// Where it listens on the loopback address.
    pub port: u16,
    last: Rc<RefCell<Seen>>,
}

/// The look of the last request when it came out of the gateway.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The path.
    pub path: String,
    /// The `authorization` header.
    pub authorization: Option<String>,
}

/// A body whose chunks are written one by one, as a model's answer is.
#[derive(Debug)]
pub struct Events {
    left: slice::Iter<'static, Bytes>,
    flushed: bool,
}

// === impl Upstream ===

impl Upstream {
    /// Starts it. Must be called within a `LocalSet`.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        let last = Rc::new(RefCell::new(Seen::default()));
        let seen = Rc::clone(&last);
        let failed = Rc::new(RefCell::new(HashSet::new()));
        task::spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                let (seen, failed) = (Rc::clone(&seen), Rc::clone(&failed));
                let service = service_fn(move |request| {
                    answer(request, Rc::clone(&seen), Rc::clone(&failed))
                });
                let connection =
                    http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                task::spawn_local(connection);
            }
        });
        Ok(Self { port, last })
    }

    /// The look of the last request.
    pub fn last(&self) -> Seen {
        self.last.borrow().clone()
    }
}

/// The answers that there are.
type Answers = Either<Full<Bytes>, Either<Events, Paced>>;

/// `failed`: the names of the requests that have failed once, as they were to.
async fn answer(
    request: Request<Incoming>,
    seen: Rc<RefCell<Seen>>,
    failed: Rc<RefCell<HashSet<String>>>,
) -> Result<Response<Answers>, Infallible> {
    let header = |name| request.headers().get(name)?.to_str().ok();
    seen.replace(Seen {
        path: request.uri().path().to_owned(),
        authorization: header(AUTHORIZATION).map(str::to_owned),
    });
    let kind = match header(ACCEPT) {
        Some("text/event-stream") => Answer::Sse,
        _ => Answer::Json,
    };
    let dialect = Dialect::at(request.uri().path());
    let name = request.headers().get(HEADER);
    let name = name.and_then(|name| name.to_str().ok().map(str::to_owned));
    let mut body = request.into_body();
    while body.frame().await.is_some() {}
    if let Some(name) = name.as_ref().filter(|name| name.starts_with(FAILS))
        && failed.borrow_mut().insert(name.clone())
    {
        let error = r#"{"error":{"message":"try again"}}"#;
        let mut response = Response::new(Either::Left(Full::from(error)));
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        return Ok(response);
    }
    let mut response = Response::new(match kind {
        Answer::Json => {
            let whole = dialect.pieces(kind).first().cloned().unwrap_or_default();
            Either::Left(Full::from(whole))
        }
        Answer::Sse => Either::Right(match &name {
            Some(name) => Either::Right(Paced::start(name)),
            None => Either::Left(Events {
                left: dialect.pieces(kind).iter(),
                flushed: true,
            }),
        }),
    });
    let content_type = kind.content_type().parse().expect("is a header value");
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    Ok(response)
}

// === impl Events ===

impl Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    /// Between two chunks the body says that it is not ready, which makes hyper write what it has.
    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left.len() == 0 {
            return Poll::Ready(None);
        }
        self.flushed = !self.flushed;
        if self.flushed {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let event = self.left.next().cloned();
        Poll::Ready(event.map(|event| Ok(Frame::data(event))))
    }
}
