//! Requests that no HTTP client would send.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// The longest that an answer may take.
const LIMIT: Duration = Duration::from_secs(10);

/// Sends bytes to the gateway and reads until `answers` whole answers have come, or the connection ends.
pub async fn exchange(port: u16, request: &[u8], answers: usize) -> String {
    read(&mut open(port, request).await, answers).await
}

/// A connection to the gateway on which these bytes were sent. It ends when it is dropped.
pub async fn open(port: u16, request: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port))
        .await
        .expect("connected");
    // The gateway may answer and close before it has read everything.
    stream.write_all(request).await.ok();
    stream
}

/// Reads until `answers` whole answers have come, or the connection ends.
pub async fn read(stream: &mut TcpStream, answers: usize) -> String {
    let mut received = Vec::new();
    let reading = async {
        while whole_answers(&received) < answers {
            if matches!(stream.read_buf(&mut received).await, Ok(0) | Err(_)) {
                break;
            }
        }
    };
    timeout(LIMIT, reading).await.ok();
    String::from_utf8_lossy(&received).into_owned()
}

/// The status of the first answer, or 0 where there is none.
pub fn status(answer: &str) -> u16 {
    ["HTTP/1.1 ", "HTTP/1.0 "]
        .iter()
        .find_map(|version| answer.strip_prefix(version))
        .and_then(|rest| rest.get(..3)?.parse().ok())
        .unwrap_or(0)
}

/// The number of answers with a length, or in chunks, in `bytes` from head to end.
fn whole_answers(bytes: &[u8]) -> usize {
    let text = String::from_utf8_lossy(bytes);
    let (mut rest, mut count) = (&*text, 0);
    while let Some((head, body)) = rest.split_once("\r\n\r\n") {
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        let end = match length.and_then(|length| length.parse().ok()) {
            Some(length) => Some(length),
            None => body.find("0\r\n\r\n").map(|start| start + 5),
        };
        match end.and_then(|end: usize| body.get(end..)) {
            Some(after) => (rest, count) = (after, count + 1),
            None => break,
        }
    }
    count
}
