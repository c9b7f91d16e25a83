//! The reader of a request's body, by what its `content-type` says it is.

use super::{
    form::Form,
    opening::OpeningReader,
    peek::{Facts, Peek, Wanted},
};

/// Reads a body piece by piece.
#[derive(Debug)]
pub enum BodyReader {
    /// JSON, or what turns out not to be.
    Json(Box<Peek>, Option<Box<OpeningReader>>),
    /// A form with files.
    Form(Box<Form>),
}

// === impl BodyReader ===

impl BodyReader {
    /// A reader at the start of a body of this type.
    pub fn new(content_type: Option<&[u8]>, wanted: Wanted) -> Self {
        match content_type.and_then(|kind| Form::new(kind, wanted)) {
            Some(form) => Self::Form(Box::new(form)),
            None => {
                let opening = Some(wanted.opening).filter(|members| !members.is_empty());
                let opening = opening.map(|members| Box::new(OpeningReader::new(members)));
                Self::Json(Box::new(Peek::new(wanted)), opening)
            }
        }
    }

    /// Takes the next bytes of the body.
    pub fn push(&mut self, bytes: &[u8]) {
        match self {
            Self::Json(peek, opening) => {
                peek.push(bytes);
                if let Some(opening) = opening {
                    opening.push(bytes);
                }
            }
            Self::Form(form) => form.push(bytes),
        }
    }

    /// Tells a body in which something that is wanted may still come.
    pub fn needs_more(&self) -> bool {
        match self {
            Self::Json(peek, _) => peek.needs_more(),
            Self::Form(form) => form.needs_more(),
        }
    }

    /// The facts.
    pub fn into_facts(self) -> Facts {
        match self {
            Self::Json(peek, opening) => Facts {
                opening: opening.and_then(|opening| opening.opening()),
                ..peek.into_facts()
            },
            Self::Form(form) => form.into_facts(),
        }
    }
}
