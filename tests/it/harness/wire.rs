//! A wire between two programs that a test makes bad: nobody is at its other end, what passes is late, comes in drops or
//! not at all, or the connection is cut or reset. So a program sees a bad network through its sockets. It loses no
//! packets: those the kernel sends again, and all that a program sees of it is that what passes is late.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use rand::Rng;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    task::{JoinHandle, JoinSet},
    time::{sleep, timeout},
};

use super::RUNTIME;

/// What comes this long after the near end last said something is an answer, and no part of a handshake: so what answers
/// has to wait for longer than that.
pub const ANSWERS_AFTER: Duration = Duration::from_secs(1);

/// The bytes of a piece that is passed on at once.
const PIECE_BYTES: usize = 16 * 1024;

/// The time within which a connection on this machine comes about, if it does.
const HERE: Duration = Duration::from_millis(500);

/// The trouble with a wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing listens at the other end: a connection is refused.
    Refuses,
    /// No packet of a connection that is to be made is ever answered.
    Swallows,
    /// A connection is made, and nothing passes.
    Silent,
    /// A connection is made, and reset as soon as something is said.
    ResetsAtOnce,
    /// What is said passes; a connection ends so when so many bytes of the answer have passed.
    Answer(usize, End),
    /// Every piece is late by so much, each way.
    Late(Duration),
    /// One piece in so many is late by a second or more, as after packets were lost and sent again.
    Lossy(u32),
    /// Answers come in pieces of so many bytes, this long apart.
    Drips(usize, Duration),
}

/// The end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// A reset.
    Reset,
    /// An end in order, in the middle of what was being said.
    Cut,
    /// None: nothing more comes.
    Stall,
}

/// A wire, from a port of this machine.
#[derive(Debug)]
pub struct Wire {
    /// The port at the near end.
    pub port: u16,
    far: SocketAddr,
    carried: Arc<AtomicUsize>,
    near: Near,
}

/// The near end.
#[derive(Debug)]
enum Near {
    /// The port is held, and nobody listens.
    Closed(TcpSocket),
    /// Somebody listens who takes no connection, and as many wait as may.
    Full(TcpListener, Vec<TcpStream>),
    Open(Server),
}

/// What passes on what is said, until this is dropped.
#[derive(Debug)]
struct Server(JoinHandle<()>);

impl Wire {
    /// One to `far`, with this trouble: on every connection, or only on as many as are given.
    pub async fn new(far: SocketAddr, trouble: Trouble, times: Option<usize>) -> Self {
        let carried = Arc::<AtomicUsize>::default();
        let counter = Arc::clone(&carried);
        let made = RUNTIME.spawn(async move {
            let socket = TcpSocket::new_v4().expect("a socket");
            let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            socket.bind(any).expect("a port");
            let port = socket.local_addr().expect("bound").port();
            let near = match trouble {
                Trouble::Refuses => Near::Closed(socket),
                Trouble::Swallows => {
                    let listener = socket.listen(1).expect("a listener");
                    Near::Full(listener, waiting(port).await)
                }
                trouble => {
                    let listener = socket.listen(1_024).expect("a listener");
                    let times = times.unwrap_or(usize::MAX);
                    let trouble = Some((trouble, times));
                    Near::Open(Server(
                        RUNTIME.spawn(serve(listener, far, trouble, counter)),
                    ))
                }
            };
            (port, near)
        });
        let (port, near) = made.await.expect("made");
        Self {
            port,
            far,
            carried,
            near,
        }
    }

    /// Connections that came so far. Where nobody takes them none is counted.
    pub fn connections(&self) -> usize {
        self.carried.load(Ordering::Relaxed)
    }

    /// From now on what passes has no trouble. Connections that had some are gone.
    pub async fn heal(self) -> Self {
        let Self {
            port,
            far,
            carried,
            near,
        } = self;
        let counter = Arc::clone(&carried);
        let healed = RUNTIME.spawn(async move {
            let listener = match near {
                Near::Closed(socket) => socket.listen(1_024).expect("a listener"),
                Near::Full(listener, waiting) => {
                    drop(waiting);
                    listener
                }
                Near::Open(server) => {
                    drop(server);
                    listen_again(port).await
                }
            };
            Server(RUNTIME.spawn(serve(listener, far, None, counter)))
        });
        let near = Near::Open(healed.await.expect("healed"));
        Self {
            port,
            far,
            carried,
            near,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The port of a server that was told to end, as soon as it has.
async fn listen_again(port: u16) -> TcpListener {
    loop {
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
            Ok(listener) => return listener,
            Err(_) => sleep(Duration::from_millis(10)).await,
        }
    }
}

/// As many connections as a listener lets wait that takes none: from then on the kernel drops what would make another.
async fn waiting(port: u16) -> Vec<TcpStream> {
    let mut waiting = Vec::new();
    while let Ok(connected) = timeout(HERE, TcpStream::connect((Ipv4Addr::LOCALHOST, port))).await {
        waiting.push(connected.expect("a connection"));
        assert!(waiting.len() < 100, "nothing is ever full");
    }
    waiting
}

async fn serve(
    listener: TcpListener,
    far: SocketAddr,
    mut trouble: Option<(Trouble, usize)>,
    connections: Arc<AtomicUsize>,
) {
    // Dropped with the server, and all connections with it.
    let mut carrying = JoinSet::new();
    while let Ok((near, _)) = listener.accept().await {
        connections.fetch_add(1, Ordering::Relaxed);
        let with = match &mut trouble {
            Some((trouble, times @ 1..)) => {
                *times -= 1;
                Some(*trouble)
            }
            _ => None,
        };
        carrying.spawn(carry(near, far, with));
    }
}

/// Carries one connection to its end.
async fn carry(mut near: TcpStream, far: SocketAddr, trouble: Option<Trouble>) {
    let Ok(mut far) = TcpStream::connect(far).await else {
        return;
    };
    near.set_nodelay(true).ok();
    far.set_nodelay(true).ok();
    let end = pass(&mut near, &mut far, trouble).await;
    match end {
        End::Reset => {
            near.set_zero_linger().ok();
        }
        End::Cut => {
            near.shutdown().await.ok();
        }
        End::Stall => std::future::pending().await,
    }
}

/// Passes on what is said, until the connection is to end.
async fn pass(near: &mut TcpStream, far: &mut TcpStream, trouble: Option<Trouble>) -> End {
    let (mut near_says, mut near_hears) = near.split();
    let (mut far_says, mut far_hears) = far.split();
    let said_at = Mutex::new(Instant::now());
    let there = async {
        let mut piece = vec![0; PIECE_BYTES];
        while let Ok(length @ 1..) = near_says.read(&mut piece).await {
            match trouble {
                Some(Trouble::Silent) => return End::Stall,
                Some(Trouble::ResetsAtOnce) => return End::Reset,
                trouble => lateness(trouble).await,
            }
            *said_at.lock().expect("not poisoned") = Instant::now();
            if far_hears.write_all(&piece[..length]).await.is_err() {
                break;
            }
        }
        far_hears.shutdown().await.ok();
        std::future::pending().await
    };
    let back = async {
        let mut piece = vec![0; PIECE_BYTES];
        let mut answered = 0;
        while let Ok(length @ 1..) = far_says.read(&mut piece).await {
            let mut rest = &piece[..length];
            let silence = said_at.lock().expect("not poisoned").elapsed();
            let is_answer = answered > 0 || silence >= ANSWERS_AFTER;
            match trouble {
                Some(Trouble::Answer(most, end)) if is_answer => {
                    let passes = rest.len().min(most - answered);
                    near_hears.write_all(&rest[..passes]).await.ok();
                    answered += passes;
                    if answered == most {
                        return end;
                    }
                    continue;
                }
                Some(Trouble::Drips(bytes, pause)) if is_answer => {
                    answered += 1;
                    while rest.len() > bytes {
                        let (drop, more) = rest.split_at(bytes);
                        near_hears.write_all(drop).await.ok();
                        sleep(pause).await;
                        rest = more;
                    }
                }
                trouble => lateness(trouble).await,
            }
            if near_hears.write_all(rest).await.is_err() {
                break;
            }
        }
        End::Cut
    };
    tokio::select! {
        end = there => end,
        end = back => end,
    }
}

/// Waits as long as a piece is late.
async fn lateness(trouble: Option<Trouble>) {
    let late = match trouble {
        Some(Trouble::Late(late)) => late,
        Some(Trouble::Lossy(one_in)) if rand::rng().random_ratio(1, one_in) => {
            // A retransmission's time-out, once or twice.
            Duration::from_millis(rand::rng().random_range(1_000..3_000))
        }
        _ => return,
    };
    sleep(late).await;
}
