//! The reader of a request's body, by what its `content-type` says it is.

use super::{
    form::Form,
    opening::OpeningReader,
    peek::{Facts, Peek, Wanted},
    things::ThingsReader,
};
use crate::text::json::Lexer;

/// Reads a body piece by piece.
#[derive(Debug)]
pub enum BodyReader {
    /// JSON, or what turns out not to be.
    Json(Box<Json>),
    /// A form with files.
    Form(Box<Form>),
}

/// The readers of one body.
#[derive(Debug)]
pub struct Json {
    peek: Peek,
    /// Splits the body for the other two.
    lexer: Lexer,
    opening: Option<OpeningReader>,
    things: Option<ThingsReader>,
}

// === impl BodyReader ===

impl BodyReader {
    /// A reader at the start of a body of this type.
    pub fn new(content_type: Option<&[u8]>, wanted: Wanted) -> Self {
        match content_type.and_then(|kind| Form::new(kind, wanted)) {
            Some(form) => Self::Form(Box::new(form)),
            None => {
                let opening = Some(wanted.opening).filter(|members| !members.is_empty());
                let things = Some(wanted.things).filter(|places| !places.is_empty());
                Self::Json(Box::new(Json {
                    peek: Peek::new(wanted),
                    lexer: Lexer::default(),
                    opening: opening.map(OpeningReader::new),
                    things: things.map(ThingsReader::new),
                }))
            }
        }
    }

    /// Takes the next bytes of the body.
    pub fn push(&mut self, bytes: &[u8]) {
        match self {
            Self::Json(json) => {
                let Json {
                    peek,
                    lexer,
                    opening,
                    things,
                } = json.as_mut();
                peek.push(bytes);
                if opening.is_none() && things.is_none() {
                    return;
                }
                let mut rest = bytes;
                while let Some(token) = lexer.next(&mut rest) {
                    if let Some(opening) = opening {
                        opening.take(token);
                    }
                    if let Some(things) = things {
                        things.take(token);
                    }
                }
            }
            Self::Form(form) => form.push(bytes),
        }
    }

    /// Returns true if something that is wanted of the body may still come.
    pub fn needs_more(&self) -> bool {
        match self {
            Self::Json(json) => json.peek.needs_more(),
            Self::Form(form) => form.needs_more(),
        }
    }

    /// The facts.
    pub fn into_facts(self) -> Facts {
        match self {
            Self::Json(json) => {
                let Json {
                    peek,
                    opening,
                    things,
                    ..
                } = *json;
                Facts {
                    opening: opening.and_then(|opening| opening.opening()),
                    things: things.map(ThingsReader::into_things).unwrap_or_default(),
                    ..peek.into_facts()
                }
            }
            Self::Form(form) => form.into_facts(),
        }
    }
}
