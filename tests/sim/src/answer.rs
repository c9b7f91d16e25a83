//! An HTTP answer as a value: what the pure parts return and the server delivers.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use hyper::body::Bytes;

/// Status, headers and body of one answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: StatusCode,
    /// The headers, `content-type` included; the server adds the framing.
    pub headers: HeaderMap,
    /// The body.
    pub body: Payload,
}

/// A body that is sent whole or as a stream of server-sent events.
#[derive(Clone, Debug)]
pub enum Payload {
    /// Sent at once, with a content-length.
    Whole(Bytes),
    /// Each event is one chunk on the wire, framing included.
    Events(Vec<String>),
}

impl Answer {
    /// An answer whose body is sent whole.
    pub fn whole(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        Self {
            status,
            headers: content_type_headers(content_type),
            body: Payload::Whole(body.into()),
        }
    }

    /// An answer with a JSON text.
    pub fn json(status: StatusCode, body: impl Into<Bytes>) -> Self {
        Self::whole(status, "application/json", body)
    }

    /// A 200 that streams server-sent events.
    pub fn events(events: Vec<String>) -> Self {
        Self {
            status: StatusCode::OK,
            headers: content_type_headers("text/event-stream; charset=utf-8"),
            body: Payload::Events(events),
        }
    }

    /// A 302 to `location`; bytes that cannot be in a header make it a 400.
    pub fn redirect(location: &str) -> Self {
        match HeaderValue::from_str(location) {
            Ok(location) => {
                let mut answer = Self::whole(StatusCode::FOUND, "text/plain", "");
                answer.headers.insert(header::LOCATION, location);
                answer
            }
            Err(_) => Self::whole(StatusCode::BAD_REQUEST, "text/plain", "bad redirect_uri"),
        }
    }

    /// Puts a header on; a value that cannot be in a header is left out.
    pub fn with(mut self, name: &'static str, value: impl AsRef<str>) -> Self {
        if let Ok(value) = HeaderValue::from_str(value.as_ref()) {
            self.headers.insert(HeaderName::from_static(name), value);
        }
        self
    }
}

fn content_type_headers(content_type: &'static str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers
}
