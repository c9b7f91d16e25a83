//! One HTTP/2 connection: many requests on one worker of Envoy, and trailers; and one whose caller takes no body.

use std::time::Duration;

use axum::body::Bytes;
use h2::{
    SendStream,
    client::{ResponseFuture, SendRequest},
};
use http::{HeaderMap, Request};
use tokio::net::TcpStream;

use super::{RUNTIME, raw};

/// A connection on which so many requests ask for what is at `path`. Its client has no window for the body of an answer
/// (`SETTINGS_INITIAL_WINDOW_SIZE` is 0), and never opens one.
pub async fn ask_for_no_body(port: u16, path: &str, key: &str, requests: u8) -> TcpStream {
    const HEADERS: u8 = 1;
    const SETTINGS: u8 = 4;
    /// The flags END_STREAM and END_HEADERS.
    const WHOLE: u8 = 5;
    // `:method: GET` and `:scheme: http` stand in HPACK's own table, as the names `:path` and `:authority` do.
    let asked = [vec![0x82, 0x86, 4], text(path), vec![1], text("a")].concat();
    let head = [asked, vec![0], text("x-api-key"), text(key)].concat();
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]));
    for request in 0..requests {
        bytes.extend(frame(HEADERS, WHOLE, request * 2 + 1, &head));
    }
    raw::open(port, &bytes).await
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short frame");
    let mut frame = length.to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags, 0, 0, 0, stream]);
    frame.extend(payload);
    frame
}

/// A string of less than 127 bytes as HPACK writes it.
fn text(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).ok().filter(|length| *length < 127);
    let mut bytes = vec![length.expect("a short text")];
    bytes.extend(text.bytes());
    bytes
}

/// An open connection.
#[derive(Clone)]
pub struct Http2 {
    send: SendRequest<Bytes>,
    port: u16,
}

impl Http2 {
    /// Connects to the gateway on that port.
    pub async fn connect(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).await;
        let (send, connection) = h2::client::handshake(stream.expect("connected"))
            .await
            .expect("HTTP/2");
        RUNTIME.spawn(async move { connection.await.ok() });
        Self { send, port }
    }

    /// Returns true once the other side takes no more requests on it.
    pub async fn is_over(&self) -> bool {
        self.send.clone().ready().await.is_err()
    }

    /// Begins to post, and breaks that off before there is an answer. Returns false once the connection takes no more.
    pub async fn break_off(&self, path: &str, headers: &[(&str, &str)]) -> bool {
        if self.is_over().await {
            return false;
        }
        let (_, mut stream) = self.open(path, headers).await;
        // What has not left would never leave.
        tokio::time::sleep(Duration::from_millis(20)).await;
        stream.send_reset(h2::Reason::CANCEL);
        true
    }

    /// Sends the head of a POST.
    async fn open(
        &self,
        path: &str,
        headers: &[(&str, &str)],
    ) -> (ResponseFuture, SendStream<Bytes>) {
        let url = format!("http://127.0.0.1:{}{path}", self.port);
        let mut request = Request::post(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(()).expect("a request");
        let mut send = self.send.clone().ready().await.expect("a stream");
        send.send_request(request, false).expect("sent")
    }

    /// Begins to post a body, of which this is not the end. It is under way for as long as what is returned is held; the
    /// answer, or the reset of the stream, is to be had from it.
    pub async fn begin(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> (ResponseFuture, SendStream<Bytes>) {
        let (answer, mut stream) = self.open(path, headers).await;
        stream.send_data(body, false).expect("sent");
        (answer, stream)
    }

    /// Posts a body, and resets the stream once the first piece of its answer is there.
    pub async fn leave(&self, path: &str, headers: &[(&str, &str)], body: &str) {
        let (answer, mut stream) = self.begin(path, headers, body.to_owned().into()).await;
        stream.send_data(Bytes::new(), true).expect("sent");
        let answer = answer.await.expect("an answer");
        let first = answer.into_body().data().await;
        first.expect("a stream").expect("a first event");
        stream.send_reset(h2::Reason::CANCEL);
    }

    /// Posts a body, and reads the answer's, of which each piece takes that long. The length of what came until the end;
    /// none where that is no end.
    pub async fn post_and_read_slowly(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
        each: Duration,
    ) -> Option<usize> {
        let (answer, mut stream) = self.begin(path, headers, body.to_owned().into()).await;
        stream.send_data(Bytes::new(), true).expect("sent");
        let (mut body, mut length) = (answer.await.expect("an answer").into_body(), 0);
        while let Some(piece) = body.data().await {
            let piece = piece.ok()?.len();
            tokio::time::sleep(each).await;
            body.flow_control().release_capacity(piece).ok()?;
            length += piece;
        }
        Some(length)
    }

    /// Posts a body. The answer's body, and the names of the trailers that it ends with.
    pub async fn post_for_trailers(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> (String, Vec<String>) {
        let (answer, mut stream) = self.open(path, headers).await;
        stream
            .send_data(body.to_owned().into(), true)
            .expect("sent");
        let (mut stream, mut text) = (answer.await.expect("an answer").into_body(), Vec::new());
        while let Some(data) = stream.data().await {
            text.extend(data.expect("the body"));
        }
        let trailers = stream.trailers().await.expect("the end");
        let trailers = trailers.unwrap_or_default();
        let names = trailers.keys().map(ToString::to_string).collect();
        (String::from_utf8_lossy(&text).into_owned(), names)
    }

    /// Posts a body, in pieces, with these headers; trailers follow where there are any. The status and the body of the
    /// answer.
    pub async fn post(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        pieces: &[&str],
        trailers: Option<(&'static str, &'static str)>,
    ) -> (u16, String) {
        let (answer, mut body) = self.open(path, headers).await;
        for (index, piece) in pieces.iter().enumerate() {
            let ends = trailers.is_none() && index + 1 == pieces.len();
            body.send_data(piece.to_string().into(), ends)
                .expect("sent");
            tokio::task::yield_now().await;
        }
        if let Some((name, value)) = trailers {
            let mut map = HeaderMap::new();
            map.insert(name, value.parse().expect("a value"));
            body.send_trailers(map).expect("sent");
        }
        let answer = answer.await.expect("an answer");
        let status = answer.status().as_u16();
        let (mut stream, mut text) = (answer.into_body(), Vec::new());
        while let Some(data) = stream.data().await {
            let data = data.expect("the body");
            stream.flow_control().release_capacity(data.len()).ok();
            text.extend(data);
        }
        (status, String::from_utf8_lossy(&text).into_owned())
    }
}
