//! One HTTP/2 connection: many requests on one worker of Envoy, and trailers.

use std::time::Duration;

use axum::body::Bytes;
use h2::{
    SendStream,
    client::{ResponseFuture, SendRequest},
};
use http::{HeaderMap, Request};
use tokio::net::TcpStream;

use super::RUNTIME;

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
