//! Answers connections within bounds, so that slow or many callers keep nobody else out.
//!
//! TCP takes 32 connections at a time, 16 for logins. Each has 10 s for the head of a request and lives for a minute. The
//! socket takes 512, with 2 minutes for a head or a pause. For one beyond that another gives way: the oldest that has asked
//! for nothing is dropped, else the oldest that pauses, else the oldest of all, which ends after its answer. So connections
//! that only lie there keep nobody out, and no answer that is under way is cut off, such as a long poll's.

pub mod host;

use std::pin::pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::serve::Listener;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The bounds of the connections to one listener.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// The number of there are at once. For the next one another gives way.
    pub connections: usize,
    /// The time that a caller has to send the head of a request, the pause before it included; and to read the last
    /// answer, where its connection is to end.
    pub head: Duration,
    /// The life of a connection. None: as long as its caller likes.
    pub life: Option<Duration>,
}

/// For Envoys and our own commands, which the socket's mode lets in. A worker of an Envoy has a few connections, kept
/// open between requests: a caller that pauses for longer than this connects anew. A long poll is an answer under way.
pub const SOCKET: Bounds = Bounds {
    connections: 512,
    head: Duration::from_secs(120),
    life: None,
};

/// For those who read metrics over TCP, which may be anybody. A scraper has one connection.
pub const METRICS: Bounds = Bounds {
    connections: 32,
    head: Duration::from_secs(10),
    life: Some(Duration::from_secs(60)),
};

/// For browsers that come back from a login, and whoever else is on the machine. A browser opens a few connections
/// ahead of its need, and its answer takes as long as the code's redeeming.
pub const LOGINS: Bounds = Bounds {
    connections: 16,
    head: Duration::from_secs(10),
    life: Some(Duration::from_secs(60)),
};

/// The time that a connection waits for a place before another has to give way. So each one has as long to be heard before
/// it can be the one that asked for nothing.
const PATIENCE: Duration = Duration::from_millis(20);

/// The connections of one listener.
struct Seats {
    free: Arc<Semaphore>,
    /// The oldest first.
    taken: Mutex<Vec<Arc<Seat>>>,
}

/// One connection's place.
#[derive(Debug)]
struct Seat {
    state: AtomicU8,
    /// Ends it as soon as no answer is cut off by that.
    give_way: CancellationToken,
}

/// The states of a connection, by how readily it gives way: it has asked for nothing, …
const SILENT: u8 = 0;
/// … it has its answer and asks for nothing more, …
const PAUSING: u8 = 1;
/// … or its answer is being made.
const ASKING: u8 = 2;

/// Answers with `router` until `shutdown`, and then until the answers that are under way have gone.
pub async fn serve<L: Listener>(
    mut listener: L,
    router: Router,
    bounds: Bounds,
    shutdown: CancellationToken,
) {
    let seats = Arc::new(Seats {
        free: Arc::new(Semaphore::new(bounds.connections)),
        taken: Mutex::default(),
    });
    let connections = TaskTracker::new();
    loop {
        let accepting = async {
            let stream = listener.accept().await.0;
            (seats.free().await, stream)
        };
        let (free, stream) = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = accepting => accepted,
        };
        let seat = seats.take();
        let answering = answer(
            stream,
            router.clone(),
            bounds,
            Arc::clone(&seat),
            shutdown.clone(),
        );
        let seats = Arc::clone(&seats);
        connections.spawn(async move {
            answering.await;
            seats.leave(&seat);
            drop(free);
        });
    }
    // The port, or socket, is free from here on.
    drop(listener);
    connections.close();
    connections.wait().await;
}

/// Answers the requests of one connection. How it ends is its caller's matter.
async fn answer<S>(
    stream: S,
    router: Router,
    bounds: Bounds,
    seat: Arc<Seat>,
    shutdown: CancellationToken,
) where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let (router, asking) = (TowerToHyperService::new(router), Arc::clone(&seat));
    let service = service_fn(move |request| {
        asking.state.store(ASKING, Ordering::Relaxed);
        let (answering, seat) = (router.call(request), Arc::clone(&asking));
        async move {
            let answer = answering.await;
            seat.state.store(PAUSING, Ordering::Relaxed);
            answer
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.head)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let end_of_life = async {
        match bounds.life {
            Some(life) => sleep(life).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = &mut connection => return,
        () = shutdown.cancelled() => {}
        () = seat.give_way.cancelled() => {
            if seat.state.load(Ordering::Relaxed) == SILENT {
                return;
            }
        }
        () = end_of_life => {}
    }
    connection.as_mut().graceful_shutdown();
    let is_made = || seat.state.load(Ordering::Relaxed) == ASKING;
    // An answer that is being made is waited for. Whoever reads nothing of one does not keep its place.
    while timeout(bounds.head, &mut connection).await.is_err() && is_made() {}
}

// === impl Seats ===

impl Seats {
    /// A free place, for which another connection gives way if it must.
    async fn free(&self) -> Option<OwnedSemaphorePermit> {
        let mut waiting = pin!(Arc::clone(&self.free).acquire_owned());
        // The semaphore is never closed.
        if let Ok(free) = timeout(PATIENCE, &mut waiting).await {
            return free.ok();
        }
        self.have_one_give_way();
        waiting.await.ok()
    }

    fn have_one_give_way(&self) {
        let taken = self.taken();
        let staying = taken.iter().filter(|seat| !seat.give_way.is_cancelled());
        if let Some(seat) = staying.min_by_key(|seat| seat.state.load(Ordering::Relaxed)) {
            seat.give_way.cancel();
        }
    }

    fn take(&self) -> Arc<Seat> {
        let seat = Arc::new(Seat {
            state: AtomicU8::new(SILENT),
            give_way: CancellationToken::new(),
        });
        self.taken().push(Arc::clone(&seat));
        seat
    }

    fn leave(&self, seat: &Arc<Seat>) {
        self.taken().retain(|other| !Arc::ptr_eq(other, seat));
    }

    /// Nothing panics while this lock is held.
    fn taken(&self) -> MutexGuard<'_, Vec<Arc<Seat>>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::Notify;

    use super::*;

    /// Longer than anything takes here.
    const LIMIT: Duration = Duration::from_secs(20);

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

    /// Serves `router` on a port of this machine.
    async fn start(router: Router, bounds: Bounds) -> (u16, CancellationToken) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shutdown = CancellationToken::new();
        tokio::spawn(serve(listener, router, bounds, shutdown.clone()));
        (port, shutdown)
    }

    /// Connects, and sends those bytes.
    async fn send(port: u16, bytes: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream
    }

    /// All that comes until the connection ends.
    async fn rest(mut stream: TcpStream) -> String {
        let mut answer = Vec::new();
        let read = timeout(LIMIT, stream.read_to_end(&mut answer));
        read.await.expect("the connection ends").ok();
        String::from_utf8(answer).unwrap()
    }

    fn page() -> Router {
        Router::new().route("/", get(|| async { "page" }))
    }

    #[tokio::test]
    async fn slow_callers_keep_nobody_out_for_long() {
        let bounds = Bounds {
            connections: 3,
            head: Duration::from_millis(300),
            life: None,
        };
        let (port, _shutdown) = start(page(), bounds).await;
        // One says nothing, one stops in its head, and one never comes to the end of it.
        let silent = send(port, b"").await;
        let stuck = send(port, b"GET / HT").await;
        let mut drips = send(port, b"GET / HTTP/1.1\r\n").await;
        let dripping = tokio::spawn(async move {
            while drips.write_all(b"x: x\r\n").await.is_ok() {
                sleep(Duration::from_millis(20)).await;
            }
        });
        let answer = rest(send(port, REQUEST).await).await;
        assert!(answer.ends_with("page"), "{answer}");
        assert_eq!(rest(silent).await, "");
        assert_eq!(rest(stuck).await, "");
        timeout(LIMIT, dripping).await.expect("cut off").unwrap();
    }

    /// Silent connections, as many as there may be, and far from any timeout.
    #[tokio::test]
    async fn the_oldest_that_asked_for_nothing_gives_way() {
        let bounds = Bounds {
            connections: 3,
            head: 3 * LIMIT,
            life: None,
        };
        let (port, _shutdown) = start(page(), bounds).await;
        let oldest = send(port, b"GET / HT").await;
        let mut others = [send(port, b"").await, send(port, b"GET").await];
        for round in 0..10 {
            let answer = rest(send(port, REQUEST).await).await;
            assert!(answer.ends_with("page"), "round {round}: {answer}");
        }
        assert_eq!(rest(oldest).await, "");
        for other in &mut others {
            let more = timeout(Duration::from_millis(50), other.read_u8()).await;
            assert!(more.is_err(), "it was not needed to drop another: {more:?}");
        }
    }

    /// Among those that have all asked for something, one that pauses gives way, and none whose answer is being made.
    #[tokio::test]
    async fn one_that_pauses_gives_way_before_one_that_waits_for_its_answer() {
        let bounds = Bounds {
            connections: 2,
            head: 3 * LIMIT,
            life: None,
        };
        let go_on = Arc::new(Notify::new());
        let waits = Arc::clone(&go_on);
        let slow = move || async move {
            waits.notified().await;
            "slow"
        };
        let (port, _shutdown) = start(page().route("/slow", get(slow)), bounds).await;
        let slow = REQUEST.strip_prefix(b"GET /").unwrap();
        let waiting = send(port, &[b"GET /slow".as_slice(), slow].concat()).await;
        let mut pausing = send(port, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
        let mut byte = [0];
        pausing.read_exact(&mut byte).await.unwrap();
        let answer = rest(send(port, REQUEST).await).await;
        assert!(answer.ends_with("page"), "{answer}");
        assert!(rest(pausing).await.ends_with("page"));
        go_on.notify_one();
        assert!(rest(waiting).await.ends_with("slow"));
    }

    /// Callers that ask and ask, and read nothing of the answers, which then stay in the socket.
    #[tokio::test]
    async fn who_reads_no_answer_gives_way_in_time() {
        let bounds = Bounds {
            connections: 2,
            head: Duration::from_millis(300),
            life: None,
        };
        let large = get(|| async { "x".repeat(16 * 1024 * 1024) });
        let (port, _shutdown) = start(page().route("/large", large), bounds).await;
        let ask = b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n".repeat(4);
        let mut deaf = Vec::new();
        for _ in 0..4 {
            deaf.push(send(port, &ask).await);
        }
        for round in 0..3 {
            let answer = rest(send(port, REQUEST).await).await;
            assert!(answer.ends_with("page"), "round {round}: {answer}");
        }
        drop(deaf);
    }

    #[tokio::test]
    async fn a_connection_lives_no_longer_than_it_may() {
        let bounds = Bounds {
            connections: 1,
            head: 3 * LIMIT,
            life: Some(Duration::from_millis(300)),
        };
        let (port, _shutdown) = start(page(), bounds).await;
        let kept = send(port, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
        assert!(rest(kept).await.ends_with("page"));
    }

    #[tokio::test]
    async fn no_more_than_so_many_are_answered_at_once_and_no_answer_is_cut_off() {
        let bounds = Bounds {
            connections: 2,
            head: Duration::from_millis(100),
            life: None,
        };
        let busy = Arc::new(AtomicUsize::new(0));
        let go_on = Arc::new(Notify::new());
        let (counted, waits) = (Arc::clone(&busy), Arc::clone(&go_on));
        let router = Router::new().route(
            "/",
            get(|| async move {
                counted.fetch_add(1, Ordering::SeqCst);
                waits.notified().await;
                "page"
            }),
        );
        let (port, shutdown) = start(router, bounds).await;
        let mut callers = Vec::new();
        for _ in 0..4 {
            callers.push(send(port, REQUEST).await);
        }
        // Longer than a head may take: what waits for its answer is not slow.
        sleep(4 * bounds.head).await;
        assert_eq!(busy.load(Ordering::SeqCst), 2);
        for answered in 1..=4 {
            go_on.notify_one();
            if answered == 4 {
                shutdown.cancel();
            }
            let most = (answered + 2).min(4);
            let waiting = async {
                while busy.load(Ordering::SeqCst) < most {
                    sleep(Duration::from_millis(5)).await;
                }
            };
            timeout(LIMIT, waiting).await.expect("the next one begins");
        }
        for caller in callers {
            let answer = rest(caller).await;
            assert!(answer.ends_with("page"), "{answer}");
        }
    }
}
