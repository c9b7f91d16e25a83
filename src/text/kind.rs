//! The kind of an answer's body, by its first bytes, whatever its `content-type` says.
//!
//! Blanks and byte order marks before a text say nothing: some platforms send blank lines while the answer is
//! being made, and some a mark. All who read an answer ask here. So none of them takes for content what another
//! takes for an error.

use std::borrow::Cow;

use super::sse::{self, BYTE_ORDER_MARK};

/// The kinds of bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyKind {
    /// One JSON text that is an object or a list.
    Json,
    /// An event stream.
    Events,
    /// Something else, such as sound.
    Other,
}

/// The beginning of a body, until that tells the kind.
#[derive(Debug, Default)]
pub struct Start {
    /// The bytes that have come of a text, or of a mark, and do not tell: at most [`MAX_KEPT_BYTES`].
    kept: Vec<u8>,
}

/// The longest beginning that does not tell: `event` or `retry`.
pub const MAX_KEPT_BYTES: usize = 5;

/// The bytes of a beginning that are new, and those that were kept before them.
#[derive(Debug, PartialEq, Eq)]
pub struct Begun<'a> {
    /// The kind; none where a few bytes more have to tell.
    pub kind: Option<BodyKind>,
    /// The bytes. Where no kind is told, those of the text are kept, and come again.
    pub bytes: Cow<'a, [u8]>,
    /// The number of them that come before the text.
    pub blank: usize,
}

/// The bytes of a body that goes on, once its kind is told.
#[derive(Debug)]
pub struct Told<'a> {
    /// The kind.
    pub kind: BodyKind,
    /// The bytes, and those that were kept before them.
    pub bytes: Cow<'a, [u8]>,
    /// The number of them that come before the text.
    pub blank: usize,
    had_kept: bool,
}

/// Takes off a body what says nothing before its text.
pub fn text_of(mut body: &[u8]) -> &[u8] {
    loop {
        body = body.trim_ascii_start();
        match body.strip_prefix(&BYTE_ORDER_MARK) {
            Some(rest) => body = rest,
            None => return body,
        }
    }
}

/// Finds the kind of a text that begins so; none where a few more bytes have to tell.
fn kind_of(text: &[u8]) -> Option<BodyKind> {
    match text.first() {
        Some(b'{' | b'[') => Some(BodyKind::Json),
        _ if BYTE_ORDER_MARK.starts_with(text) => None,
        _ => sse::begins(text).map(|is_events| match is_events {
            true => BodyKind::Events,
            false => BodyKind::Other,
        }),
    }
}

// === impl Start ===

impl Start {
    /// Takes the next bytes; `end`: they are the last. What does not tell its kind by then is of another one, and
    /// what has no text is of none.
    #[inline(never)]
    pub fn read<'a>(&mut self, chunk: &'a [u8], end: bool) -> Begun<'a> {
        let bytes = match self.kept.is_empty() {
            true => Cow::Borrowed(chunk),
            false => Cow::Owned([self.kept.as_slice(), chunk].concat()),
        };
        let text = text_of(&bytes);
        let blank = bytes.len().saturating_sub(text.len());
        let tells = end && !text.is_empty() || text.len() > MAX_KEPT_BYTES;
        let kind = kind_of(text).or(tells.then_some(BodyKind::Other));
        self.kept.clear();
        if kind.is_none() {
            self.kept.extend_from_slice(text);
        }
        Begun { kind, bytes, blank }
    }

    /// Takes the next bytes of a body that goes on, as [`Self::read`] does.
    ///
    /// # Errors
    /// As long as nothing tells the kind: what goes on instead of the bytes, none if just they do.
    pub fn forward<'a>(&mut self, chunk: &'a [u8], end: bool) -> Result<Told<'a>, Option<Vec<u8>>> {
        let had_kept = self.has_kept();
        let begun = self.read(chunk, end);
        match begun.kind {
            Some(kind) => Ok(Told {
                kind,
                bytes: begun.bytes,
                blank: begun.blank,
                had_kept,
            }),
            None => Err((had_kept || self.has_kept()).then(|| begun.before().to_vec())),
        }
    }

    /// Returns true if bytes are kept.
    pub fn has_kept(&self) -> bool {
        !self.kept.is_empty()
    }
}

// === impl Told ===

impl Told<'_> {
    /// Returns what goes on in place of the last chunk: `instead`, or else the kept bytes and the chunk; none if just the
    /// chunk does.
    pub fn instead(self, instead: Option<Vec<u8>>) -> Option<Vec<u8>> {
        instead.or_else(|| self.had_kept.then(|| self.bytes.into_owned()))
    }
}

// === impl Begun ===

impl Begun<'_> {
    /// The text, as far as it has come.
    pub fn text(&self) -> &[u8] {
        self.bytes.get(self.blank..).unwrap_or_default()
    }

    /// The bytes before it.
    pub fn before(&self) -> &[u8] {
        self.bytes.get(..self.blank).unwrap_or_default()
    }
}
