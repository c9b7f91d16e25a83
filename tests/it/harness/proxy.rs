//! A proxy that makes tunnels (HTTP CONNECT) for who has its password, or for everybody, and keeps what it was asked for.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};

use super::RUNTIME;

/// The name and the password that it asks for.
pub const USER: &str = "egress-user";
/// See [`USER`].
pub const PASSWORD: &str = "egress-p@ssword";

/// A running proxy.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    server: JoinHandle<()>,
    is_open: bool,
}

impl Proxy {
    /// Listens on a port of this machine.
    pub async fn start() -> Self {
        Self::start_at("127.0.0.1:0".parse().expect("an address"), false).await
    }

    /// One that takes everybody who says no name.
    pub async fn start_open() -> Self {
        Self::start_at("127.0.0.1:0".parse().expect("an address"), true).await
    }

    async fn start_at(address: SocketAddr, is_open: bool) -> Self {
        let listening = RUNTIME.spawn(TcpListener::bind(address));
        let listener = listening.await.expect("spawned").expect("a port");
        let address = listener.local_addr().expect("bound");
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let server = RUNTIME.spawn(serve(listener, is_open, Arc::clone(&asked)));
        Self {
            address,
            asked,
            server,
            is_open,
        }
    }

    /// Its URL, without the password.
    pub fn url(&self) -> String {
        match self.is_open {
            true => format!("http://{}", self.address),
            false => format!("http://{USER}@{}", self.address),
        }
    }

    /// Where the tunnels led that it made, in their order.
    pub fn tunnels(&self) -> Vec<String> {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.clone()
    }

    /// Ends it and all its tunnels; the address to [start it again](Proxy::start_again) at.
    pub async fn stop(self) -> SocketAddr {
        self.server.abort();
        let mut proxy = self;
        // Gone, and its connections with it.
        (&mut proxy.server).await.ok();
        proxy.address
    }

    /// Starts one where another was.
    pub async fn start_again(address: SocketAddr) -> Self {
        Self::start_at(address, false).await
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(listener: TcpListener, is_open: bool, asked: Arc<Mutex<Vec<String>>>) {
    // Dropped with the server, and all tunnels with it.
    let mut tunnels = JoinSet::new();
    while let Ok((caller, _)) = listener.accept().await {
        tunnels.spawn(tunnel(caller, is_open, Arc::clone(&asked)));
    }
}

async fn tunnel(
    mut caller: TcpStream,
    is_open: bool,
    asked: Arc<Mutex<Vec<String>>>,
) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(caller.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).ok()?;
    let to = head.strip_prefix("CONNECT ")?.split(' ').next()?.to_owned();
    let pair = BASE64_STANDARD.encode(format!("{USER}:{PASSWORD}"));
    let mut names = head.lines().filter_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("proxy-authorization")
            .then_some(value)
    });
    let expected = (!is_open).then(|| format!("Basic {pair}"));
    if names.next() != expected.as_deref() {
        let refusal = b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n";
        caller.write_all(refusal).await.ok()?;
        return None;
    }
    let mut platform = TcpStream::connect(&to).await.ok()?;
    asked
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(to);
    caller.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.ok()?;
    copy_bidirectional(&mut caller, &mut platform).await.ok()?;
    Some(())
}
