//! An answer of `envelope`, written: that of `chat`, wrapped.

use crate::{
    dialect::{
        chat,
        neutral::{Event, Failure},
        parts::{About, AnswerWriter},
    },
    text::{out::Out, sse},
};

/// Writes an answer.
#[derive(Debug)]
pub(super) struct Writer(Box<dyn AnswerWriter>);

// === impl Writer ===

impl Writer {
    /// Writes an answer that says this.
    pub(super) fn of(about: About) -> Box<dyn AnswerWriter> {
        Box::new(Self(chat::Writer::of(about)))
    }
}

impl AnswerWriter for Writer {
    /// Wraps each event of a stream by itself; the mark of its end stays as it is.
    fn stream(&mut self, event: &Event, bytes: &mut Vec<u8>) {
        if let Event::Fail(failure) = event {
            return sse::write_data(bytes, &self.error(failure));
        }
        let mut own = Vec::new();
        self.0.stream(event, &mut own);
        // One line each.
        let lines = own.split(|byte| *byte == b'\n');
        for data in lines.filter_map(|line| line.strip_prefix(b"data: ")) {
            match data {
                b"[DONE]" => sse::write_data(bytes, data),
                data => sse::write_data(bytes, &wrapped(data)),
            }
        }
    }

    fn whole(&self, events: &[Event]) -> Result<Vec<u8>, Failure> {
        self.0.whole(events).map(|answer| wrapped(&answer))
    }

    fn held_bytes(&self) -> usize {
        self.0.held_bytes()
    }

    fn error(&self, failure: &Failure) -> Vec<u8> {
        let word = chat::openai_code(failure);
        let error = super::failed(failure.status, &failure.message, word);
        error.to_string().into_bytes()
    }
}

/// JSON as the data of an envelope.
pub(super) fn wrapped(data: &[u8]) -> Vec<u8> {
    let mut out = Out::default();
    out.object(|out| {
        out.name("code").number(200);
        out.name("message").word("success");
        out.name("data")
            .raw(std::str::from_utf8(data).unwrap_or("null"));
    });
    out.into_bytes()
}
