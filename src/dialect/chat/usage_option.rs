//! `stream_options.include_usage`, put into a request's body.

use std::ops::Range;

use serde::Deserialize;

use crate::text::{
    edit::trimmed,
    json::{self, Lexer},
};

/// The facts that decide about asking.
#[derive(Deserialize)]
struct Request {
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
}

#[derive(Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
}

/// The request with `stream_options.include_usage` set, every other byte as it was.
///
/// `None` leaves the request as it is: it asks already, it wants no stream (the option is
/// refused without one), or it is no chat request in JSON.
pub(super) fn ask(body: &[u8]) -> Option<Vec<u8>> {
    let request: Request = serde_json::from_slice(body).ok()?;
    let asks = request
        .stream_options
        .is_some_and(|options| options.include_usage == Some(true));
    if request.stream != Some(true) || asks {
        return None;
    }
    let Edit { range, value } = Edit::of(body)?;
    let (before, after) = (body.get(..range.start)?, body.get(range.end..)?);
    Some([before, value.as_bytes(), after].concat())
}

/// The text to put in, and its place.
struct Edit {
    range: Range<usize>,
    value: &'static str,
}

impl Edit {
    /// The edit of a body that is valid JSON and does not ask. `None` where the body, or its
    /// `stream_options`, is an array.
    fn of(body: &[u8]) -> Option<Self> {
        let (mut lexer, mut rest) = (Lexer::default(), body);
        let mut edit = None;
        let mut depth = 0_u32;
        let mut in_options = false;
        let mut string: &[u8] = b"";
        // The member whose value comes next, and where that begins.
        let mut member: Option<(&[u8], usize)> = None;
        while let Some(token) = lexer.next(&mut rest) {
            let at = body.len().saturating_sub(rest.len());
            let name = member.map_or(b"".as_slice(), |(name, _)| name);
            match token {
                json::Token::Text { raw, .. } => string = raw,
                json::Token::Colon => member = Some((string, at)),
                json::Token::Open(bracket) => {
                    let is_object = bracket == b'{';
                    if depth == 0 {
                        is_object.then_some(())?;
                        let value = r#""stream_options":{"include_usage":true},"#;
                        edit = Some(Self::insert(at, value));
                    } else if depth == 1 && name == b"stream_options" {
                        is_object.then_some(())?;
                        in_options = true;
                        let value = match rest.trim_ascii_start().first() {
                            Some(b'}') => r#""include_usage":true"#,
                            _ => r#""include_usage":true,"#,
                        };
                        edit = Some(Self::insert(at, value));
                    }
                    depth = depth.saturating_add(1);
                    member = None;
                }
                json::Token::Comma | json::Token::Close => {
                    let value = match (depth, name) {
                        (1, b"stream_options") => Some(r#"{"include_usage":true}"#),
                        (2, b"include_usage") if in_options => Some("true"),
                        _ => None,
                    };
                    if let (Some(value), Some((_, start))) = (value, member) {
                        let range = trimmed(body, start..at.saturating_sub(1));
                        edit = Some(Self { range, value });
                    }
                    if token == json::Token::Close {
                        depth = depth.saturating_sub(1);
                        in_options &= depth > 1;
                    }
                    member = None;
                }
            }
        }
        edit
    }

    fn insert(at: usize, value: &'static str) -> Self {
        Self {
            range: at..at,
            value,
        }
    }
}

#[cfg(test)]
mod tests;
