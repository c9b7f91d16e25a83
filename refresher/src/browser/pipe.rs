//! The Chrome DevTools Protocol over two pipes: JSON messages, each ended by a zero byte. One question at a time; what the
//! browser tells unasked is dropped.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};

use super::Error;

/// Bytes of one message. The largest that is asked for is a page's answer, of 1 MiB.
const MESSAGE_LIMIT: usize = 8 * 1024 * 1024;
/// Bytes that are read at a time.
const PIECE: usize = 16 * 1024;

#[derive(Debug)]
pub(super) struct Pipe<R, W> {
    reader: R,
    writer: W,
    /// Read and not yet looked at. It may hold secrets.
    inbox: zeroize::Zeroizing<Vec<u8>>,
    last: u64,
}

#[derive(Deserialize)]
struct Message {
    id: Option<u64>,
    #[serde(default)]
    result: Value,
    error: Option<Value>,
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Pipe<R, W> {
    pub(super) fn new(reader: R, writer: W) -> Pipe<R, W> {
        Pipe {
            reader,
            writer,
            inbox: zeroize::Zeroizing::default(),
            last: 0,
        }
    }

    /// Asks, and waits for the answer. An answer that comes after its time is dropped when the next is awaited.
    pub(super) async fn call(
        &mut self,
        session: Option<&str>,
        method: &'static str,
        parameters: Value,
        limit: Duration,
    ) -> Result<Value, Error> {
        let deadline = Instant::now() + limit;
        self.last += 1;
        let id = self.last;
        let mut question = json!({"id": id, "method": method, "params": parameters});
        if let Some(session) = session {
            question["sessionId"] = session.into();
        }
        let mut bytes = question.to_string().into_bytes();
        bytes.push(0);
        // A question that was written in part would spoil the next one.
        match timeout_at(deadline, self.writer.write_all(&bytes)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return Err(Error::Closed),
        }
        let answer = timeout_at(deadline, self.answer(id));
        let answer = answer.await.map_err(|_| Error::Silent)??;
        match answer.error {
            None => Ok(answer.result),
            Some(_) => Err(Error::Refused(method)),
        }
    }

    async fn answer(&mut self, id: u64) -> Result<Message, Error> {
        loop {
            let message = self.message().await?;
            if message.id == Some(id) {
                return Ok(message);
            }
        }
    }

    /// Loses nothing when it is given up half-way.
    async fn message(&mut self) -> Result<Message, Error> {
        let mut looked = 0;
        loop {
            if let Some(length) = self.inbox[looked..].iter().position(|byte| *byte == 0) {
                let end = looked + length;
                let message = serde_json::from_slice(&self.inbox[..end]);
                self.inbox.drain(..=end);
                return message.map_err(|_| Error::Closed);
            }
            looked = self.inbox.len();
            if looked > MESSAGE_LIMIT {
                return Err(Error::Closed);
            }
            self.inbox.reserve(PIECE);
            match self.reader.read_buf(&mut *self.inbox).await {
                Ok(1..) => {}
                Ok(0) | Err(_) => return Err(Error::Closed),
            }
        }
    }
}
