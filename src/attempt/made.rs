//! Finds in an answer, as it passes, the id of what it made.

use crate::{
    dialect::{RequestMember, RequestValue},
    request::peek::{Peek, Wanted},
    text::sse::{Framer, Piece},
};

/// The most bytes of an answer that are read for its id. Platforms write it first, or after what the
/// request said, which they repeat.
const MAX_BYTES: usize = 256 * 1024;

/// The most events of a stream that are read for it: it is in the first that is about the answer.
const MAX_EVENTS: usize = 16;

/// The members that may be the id: a thing's own, and that of the response inside an event.
const MEMBERS: &[RequestMember] = &[
    RequestMember {
        within: None,
        name: "id",
        meaning: RequestValue::Thing,
    },
    RequestMember {
        within: Some("response"),
        name: "id",
        meaning: RequestValue::Thing,
    },
];

const WANTED: Wanted = Wanted {
    members: MEMBERS,
    model: false,
    session: None,
    stream: false,
    store: false,
    background: false,
    thing: true,
    whole: false,
};

/// Reads an answer for the id of what it made.
#[derive(Debug)]
pub struct MadeReader {
    form: Form,
    /// The bytes that may still be read.
    left: usize,
}

#[derive(Debug)]
enum Form {
    /// No byte has come that tells.
    Unknown,
    Json(Peek),
    Events {
        framer: Framer,
        peek: Peek,
        events: usize,
    },
    /// It was found, or is not there.
    Done,
}

// === impl MadeReader ===

impl Default for MadeReader {
    fn default() -> Self {
        Self {
            form: Form::Unknown,
            left: MAX_BYTES,
        }
    }
}

impl MadeReader {
    /// Takes the next bytes. Returns the id, once.
    pub fn push(&mut self, bytes: &[u8]) -> Option<String> {
        let bytes = bytes.get(..self.left).unwrap_or(bytes);
        if let Form::Unknown = self.form {
            self.form = match bytes.trim_ascii_start().first() {
                None => Form::Unknown,
                Some(b'{') => Form::Json(Peek::new(WANTED)),
                Some(_) => Form::Events {
                    framer: Framer::default(),
                    peek: Peek::new(WANTED),
                    events: 0,
                },
            };
        }
        self.left = self.left.saturating_sub(bytes.len());
        let (found, may_come) = match &mut self.form {
            Form::Unknown => (None, true),
            Form::Done => (None, false),
            Form::Json(peek) => {
                peek.push(bytes);
                (peek.facts().thing.clone(), peek.needs_more())
            }
            Form::Events {
                framer,
                peek,
                events,
            } => in_events(bytes, framer, peek, events),
        };
        if found.is_some() || !may_come || self.left == 0 {
            self.form = Form::Done;
        }
        found
    }
}

/// Reads a piece of a stream. Returns the id, and whether it may still come.
fn in_events(
    bytes: &[u8],
    framer: &mut Framer,
    peek: &mut Peek,
    events: &mut usize,
) -> (Option<String>, bool) {
    let mut rest = bytes;
    while let Some(piece) = framer.next(&mut rest) {
        match piece {
            Piece::Data(data) => {
                peek.push(data);
                if let Some(thing) = &peek.facts().thing {
                    return (Some(thing.clone()), false);
                }
            }
            Piece::End => {
                *events = events.saturating_add(1);
                if *events >= MAX_EVENTS {
                    return (None, false);
                }
                *peek = Peek::new(WANTED);
            }
            Piece::Name { .. } | Piece::Comment | Piece::Blank => {}
        }
    }
    (None, true)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn made(answer: &str) -> Option<String> {
        MadeReader::default().push(answer.as_bytes())
    }

    const STREAM: &str = concat!(
        ": ping\n\n",
        "event: codex.rate_limits\ndata: {\"type\":\"codex.rate_limits\",\"plan\":{\"id\":1}}\n\n",
        "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"object\":\"response\",",
        "\"instructions\":\"say \\\"id\\\":\\\"resp_no\\\"\",\"id\":\"resp_1\"}}\n\n",
        "data: {\"response\":{\"id\":\"resp_2\"}}\n\n",
    );

    #[test]
    fn the_id_is_the_answers_own() {
        assert_eq!(
            made(r#"{"id":"file-1","object":"file"}"#).as_deref(),
            Some("file-1")
        );
        let nested = r#" {"object":"x","metadata":{"id":"no"},"data":[{"id":"no"}],"id":"vs_1"}"#;
        assert_eq!(made(nested).as_deref(), Some("vs_1"));
        assert_eq!(made(STREAM).as_deref(), Some("resp_1"));
        for nothing in [
            "",
            "  ",
            "[]",
            r#"{"id":7}"#,
            r#"{"object":"x"}"#,
            "ID3 sound",
            "data: [DONE]\n\n",
        ] {
            assert_eq!(made(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn it_is_told_once_and_not_looked_for_without_end() {
        let mut reader = MadeReader::default();
        assert!(reader.push(STREAM.as_bytes()).is_some());
        assert_eq!(reader.push(STREAM.as_bytes()), None);
        let mut reader = MadeReader::default();
        let long = format!("{{\"input\":\"{}", "x".repeat(MAX_BYTES));
        assert_eq!(reader.push(long.as_bytes()), None);
        assert_eq!(reader.push(b"\",\"id\":\"late\"}"), None);
        let mut reader = MadeReader::default();
        assert_eq!(
            reader.push("data: {}\n\n".repeat(MAX_EVENTS).as_bytes()),
            None
        );
        assert_eq!(reader.push(STREAM.as_bytes()), None);
    }

    proptest! {
        #[test]
        fn an_answer_says_the_same_wherever_it_is_cut(cuts in prop::collection::vec(0..STREAM.len(), 0..6)) {
            let mut cuts = cuts;
            cuts.extend([0, STREAM.len()]);
            cuts.sort_unstable();
            let mut reader = MadeReader::default();
            let pieces = cuts.windows(2).map(|pair| &STREAM.as_bytes()[pair[0]..pair[1]]);
            let found: Vec<String> = pieces.filter_map(|piece| reader.push(piece)).collect();
            prop_assert_eq!(found, ["resp_1"]);
        }

        #[test]
        fn no_answer_panics(pieces: Vec<Vec<u8>>) {
            let mut reader = MadeReader::default();
            for piece in &pieces {
                reader.push(piece);
            }
        }
    }
}
