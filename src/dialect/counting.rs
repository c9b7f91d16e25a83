//! The count of a request's tokens: asked of a platform in its dialect, and told in the caller's.

use super::{
    neutral::{Event, Failure, Finish, Tokens},
    parts::{AnswerReader, AnswerWriter, Counting},
};
use crate::text::{
    out::Out,
    tree::{Text, Tree},
};

/// Reads a count.
#[derive(Debug)]
pub(super) struct Reader {
    counting: Counting,
    ended: bool,
}

/// Writes a count, and errors as the dialect has them.
#[derive(Debug)]
pub(super) struct Writer {
    counting: Counting,
    errors: Box<dyn AnswerWriter>,
}

// === impl Counting ===

impl Counting {
    /// The request for a count, made of the one for an answer.
    pub(super) fn request(&self, body: &[u8], model: &Text<'_>) -> Vec<u8> {
        // It may have more values than the caller's.
        let Ok(tree) = Tree::read_of(body, &mut { usize::MAX }) else {
            return Vec::new();
        };
        let members = |out: &mut Out| {
            for (name, value) in tree.root().members() {
                if self.takes.iter().any(|taken| name.is(taken)) {
                    out.member(&name).raw(value.raw());
                }
            }
        };
        let mut out = Out::with_capacity(body.len());
        out.object(|out| match self.within {
            None => members(out),
            Some(within) => out.name(within).object(|out| {
                out.name("model")
                    .texts(&[Text::of("models/"), model.clone()]);
                members(out);
            }),
        });
        out.into_bytes()
    }

    /// The answer that tells so many.
    pub(super) fn answer(&self, tokens: u64) -> Vec<u8> {
        let mut out = Out::default();
        out.object(|out| {
            if let Some((name, value)) = self.about {
                out.name(name).word(value);
            }
            out.name(self.member).number(tokens);
        });
        out.into_bytes()
    }

    pub(super) fn reader(self) -> Box<dyn AnswerReader> {
        Box::new(Reader {
            counting: self,
            ended: false,
        })
    }

    /// Writes a count; `errors` writes errors.
    pub(super) fn writer(self, errors: Box<dyn AnswerWriter>) -> Box<dyn AnswerWriter> {
        let counting = self;
        Box::new(Writer { counting, errors })
    }
}

// === impl Reader ===

impl AnswerReader for Reader {
    fn on_event(&mut self, _: &[u8], _: &mut Vec<Event>) {}

    fn on_whole(&mut self, body: &[u8], events: &mut Vec<Event>) {
        let tree = Tree::read(body).ok();
        let root = tree.as_ref().map(Tree::root);
        let input = root.and_then(|root| root.get(self.counting.member)?.whole());
        if input.is_some() {
            self.ended = true;
            let usage = Tokens {
                input,
                ..Tokens::default()
            };
            events.extend([Event::Usage(usage), Event::Finish(Finish::Done), Event::End]);
        }
        self.on_end(events);
    }

    fn on_end(&mut self, events: &mut Vec<Event>) {
        if !std::mem::replace(&mut self.ended, true) {
            let why = "the platform did not tell the number of tokens";
            events.push(Event::Fail(Failure::grammar(why)));
        }
    }
}

// === impl Writer ===

impl AnswerWriter for Writer {
    fn stream(&mut self, event: &Event, bytes: &mut Vec<u8>) {
        // A count is no stream.
        self.errors.stream(event, bytes);
    }

    fn whole(&self, events: &[Event]) -> Result<Vec<u8>, Failure> {
        let mut tokens = 0;
        for event in events {
            match event {
                Event::Usage(usage) => tokens = usage.prompt(),
                Event::Fail(failure) => return Err(failure.clone()),
                _ => {}
            }
        }
        Ok(self.counting.answer(tokens))
    }

    fn error(&self, failure: &Failure) -> Vec<u8> {
        self.errors.error(failure)
    }
}
