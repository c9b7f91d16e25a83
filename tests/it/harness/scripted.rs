//! A platform that sends exactly the bytes that a test gives it, over HTTP/1.1 in plain text.

use std::sync::{Arc, Mutex};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use super::RUNTIME;

/// The behaviour of the server with a request.
#[derive(Debug, Clone)]
pub struct Script {
    /// All that it sends. The connection ends with it where it says `connection: close`.
    pub answer: Vec<u8>,
    /// True if it reads the request's body first; else it never reads it, and keeps the connection.
    pub reads: bool,
}

/// One that runs until this is dropped.
#[derive(Debug)]
pub struct Scripted {
    /// The port, on 127.0.0.1.
    pub port: u16,
    script: Arc<Mutex<Script>>,
    heads: Arc<Mutex<Vec<String>>>,
    serving: JoinHandle<()>,
}

impl Scripted {
    /// Starts one that answers with this.
    pub async fn start(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let port = listener.local_addr().expect("an address").port();
        let script = Arc::new(Mutex::new(script));
        let heads = Arc::<Mutex<Vec<String>>>::default();
        let (shared, seen) = (Arc::clone(&script), Arc::clone(&heads));
        let serving = RUNTIME.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                RUNTIME.spawn(serve(stream, Arc::clone(&shared), Arc::clone(&seen)));
            }
        });
        Self {
            port,
            script,
            heads,
            serving,
        }
    }

    /// The heads of the requests that came, in small letters.
    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().expect("not poisoned").clone()
    }

    /// From now on it answers with this, having read the request.
    pub fn answers(&self, answer: impl Into<Vec<u8>>) {
        let (answer, reads) = (answer.into(), true);
        *self.script.lock().expect("not poisoned") = Script { answer, reads };
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(mut stream: TcpStream, script: Arc<Mutex<Script>>, heads: Arc<Mutex<Vec<String>>>) {
    let mut received = Vec::new();
    loop {
        let Some(head) = read_until(&mut stream, &mut received, |bytes| {
            bytes.windows(4).position(|four| four == b"\r\n\r\n")
        })
        .await
        else {
            return;
        };
        let text = String::from_utf8_lossy(&received[..head]).to_lowercase();
        received.drain(..head + 4);
        heads.lock().expect("not poisoned").push(text.clone());
        let Script { answer, reads } = script.lock().expect("not poisoned").clone();
        if !reads {
            stream.write_all(&answer).await.ok();
            return std::future::pending().await;
        }
        let length = text
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .and_then(|length| length.trim().parse().ok());
        let whole = move |bytes: &[u8]| match length {
            Some(length) => (bytes.len() >= length).then_some(length),
            None if text.contains("transfer-encoding") => {
                let end = bytes.windows(5).position(|five| five == b"0\r\n\r\n");
                end.map(|end| end + 5)
            }
            None => Some(0),
        };
        let Some(body) = read_until(&mut stream, &mut received, whole).await else {
            return;
        };
        received.drain(..body);
        let sent = stream.write_all(&answer).await;
        if sent.is_err() || answer.windows(17).any(|part| part == b"connection: close") {
            return;
        }
    }
}

/// Reads until `found` finds something; none where the connection ends before.
async fn read_until(
    stream: &mut TcpStream,
    received: &mut Vec<u8>,
    found: impl Fn(&[u8]) -> Option<usize>,
) -> Option<usize> {
    loop {
        if let Some(at) = found(received) {
            return Some(at);
        }
        if matches!(stream.read_buf(received).await, Ok(0) | Err(_)) {
            return None;
        }
    }
}
