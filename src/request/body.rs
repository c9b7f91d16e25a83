//! The reader of a request's body, by what its `content-type` says it is.

use super::{
    form::Form,
    peek::{Facts, Peek, Wanted},
};

/// Reads a body piece by piece.
#[derive(Debug)]
pub enum BodyReader {
    /// JSON, or what turns out not to be.
    Json(Box<Peek>),
    /// A form with files.
    Form(Box<Form>),
}

// === impl BodyReader ===

impl BodyReader {
    /// A reader at the start of a body of this type.
    pub fn new(content_type: Option<&[u8]>, wanted: Wanted) -> Self {
        match content_type.and_then(|kind| Form::new(kind, wanted)) {
            Some(form) => Self::Form(Box::new(form)),
            None => Self::Json(Box::new(Peek::new(wanted))),
        }
    }

    /// Takes the next bytes of the body.
    pub fn push(&mut self, bytes: &[u8]) {
        match self {
            Self::Json(peek) => peek.push(bytes),
            Self::Form(form) => form.push(bytes),
        }
    }

    /// Tells a body in which something that is wanted may still come.
    pub fn needs_more(&self) -> bool {
        match self {
            Self::Json(peek) => peek.needs_more(),
            Self::Form(form) => form.needs_more(),
        }
    }

    /// The facts.
    pub fn into_facts(self) -> Facts {
        match self {
            Self::Json(peek) => peek.into_facts(),
            Self::Form(form) => form.into_facts(),
        }
    }
}
