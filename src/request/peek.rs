//! Finds in a request's body, while it comes, what the gate decides by: the model, whether the
//! answer is to be streamed, stored or made in the background, and the session.
//!
//! Only the members count that the dialect names: those of the body itself, and `user_id` in its
//! `metadata`. The reader keeps these short strings alone. It reads each byte once; chunk boundaries
//! may fall anywhere. Of a member that is there twice the first counts; [`Facts::models_differ`]
//! tells of a body that may mean another model to its reader, and any `background` that is true counts. The rest need not be JSON: that is
//! the platform's business.

use super::{MAX_DEPTH, opening::Opening, things::Things};
use crate::{
    dialect::{OpeningMember, RequestMember, RequestValue, SessionName, ThingPlace},
    header::HeaderText,
    home::MAX_ID_BYTES,
    text::{find::find_quote_or_escape, folded, json_string::JsonString},
};

/// The most bytes of a body that are held back for the sake of what they may say: as much as the virtual
/// host keeps (32 MiB), but for a piece that comes at once. Platforms take 32 MB, and the model may stand
/// behind images.
pub const MAX_PEEK_BYTES: usize = 31 * 1024 * 1024;

/// The longest model, in bytes. The longest that platforms list have 60.
pub const MAX_MODEL_BYTES: usize = 128;

/// The longest text that may name an account or a platform, in bytes.
const MAX_WISH_BYTES: usize = 256;

/// The longest text that may name a session, in bytes. Claude Code's has 190.
const MAX_SESSION_BYTES: usize = 512;

/// The longest name that is looked for has 20 bytes.
const MAX_NAME_BYTES: usize = 32;

/// The longest word that is looked at: `false`.
const MAX_WORD_BYTES: usize = 5;

/// The facts that are worth waiting for. The model is taken along wherever it is met on the way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The members in which the request's dialect has these facts. Nothing else is read.
    pub members: &'static [RequestMember],
    /// The model.
    pub model: bool,
    /// The session, and which member names it best.
    pub session: Option<SessionName>,
    /// The members by which a conversation opens, where that may stand for the session. They come on the way:
    /// a body without a session is read to its end.
    pub opening: &'static [OpeningMember],
    /// `stream`.
    pub stream: bool,
    /// `store`.
    pub store: bool,
    /// A `"background": true`, if there is one.
    pub background: bool,
    /// The places at which it may name things of accounts. They come on the way: such a body is read to its end.
    pub things: &'static [ThingPlace],
    /// The end of the body: what is not there must be known not to be there.
    pub whole: bool,
}

impl Facts {
    /// Takes a model that stands in the body, none for one that cannot be read. The first counts; `was_met`: there was one.
    pub(super) fn meets_model(&mut self, model: Option<HeaderText>, was_met: bool) {
        if was_met {
            self.models_differ |= model != self.model;
        } else {
            self.models_differ |= model.is_none();
            self.model = model;
        }
    }
}

/// The facts that a body tells.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// The model, if it is one that a header could hold.
    pub model: Option<HeaderText>,
    /// The body may mean another model than `model` says: there is a second one, one that cannot be read, or a list of those
    /// to fall back on.
    ///
    /// Readers disagree about such bodies. Most take the last of two members of one name; Go's takes a name in any case of
    /// letters, and leaves the first where the second is null; a strict one refuses both.
    pub models_differ: bool,
    /// `stream`.
    pub stream: Option<bool>,
    /// `store`.
    pub store: Option<bool>,
    /// `background` is true somewhere: platforms take the last of two.
    pub background: bool,
    /// The account that is to serve, by name or id, and the platform; empty where that cannot be read.
    pub account: Option<String>,
    /// See [`account`](Self::account).
    pub platform: Option<String>,
    /// The member that names the session, and its text.
    pub session: Option<(SessionName, String)>,
    /// The opening of the conversation, if that was wanted.
    pub opening: Option<Opening>,
    /// The things of accounts that it names, if that was wanted.
    pub things: Things,
    /// The body was read to its end: what is not here is not in it.
    pub whole: bool,
    /// The bytes that it has, as far as that is known.
    pub size: usize,
}

/// Reads a body piece by piece.
#[derive(Debug)]
pub struct Peek {
    wanted: Wanted,
    facts: Facts,
    model_was_met: bool,
    state: State,
    /// The object of the body whose members come; none for the body's own.
    within: Option<&'static str>,
    /// The member whose value comes.
    member: Option<Member>,
    /// The text or word that is being read.
    text: JsonString,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Start,
    BeforeName,
    Name,
    BeforeColon,
    BeforeValue,
    /// The text of a string that is kept.
    Kept,
    /// The text of a string that is not kept; `escaped` after a `\`.
    Skipped {
        escaped: bool,
        /// The containers around it that are skipped with it.
        depth: u32,
    },
    /// A number or one of `true`, `false`, `null`.
    Word,
    /// Containers that are skipped.
    Nested {
        depth: u32,
    },
    AfterValue,
    /// Everything is known, or nothing more can be.
    Done,
}

/// A member whose value may tell something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Member {
    Value(RequestValue),
    /// The thing of this name, or an object that has it.
    Thing(&'static str),
    /// An object of which members may tell something.
    Object(&'static str),
}

// === impl Peek ===

impl Peek {
    /// A reader at the start of a body.
    pub fn new(wanted: Wanted) -> Self {
        Self {
            wanted,
            facts: Facts::default(),
            model_was_met: false,
            state: State::Start,
            within: None,
            member: None,
            text: JsonString::default(),
        }
    }

    /// Takes the next bytes of the body.
    pub fn push(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() && self.state != State::Done {
            self.step(&mut rest);
        }
    }

    /// Returns true if something that is wanted of the body may still come.
    pub fn needs_more(&self) -> bool {
        self.state != State::Done && !self.has_wanted()
    }

    /// The facts so far.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The facts.
    pub fn into_facts(self) -> Facts {
        self.facts
    }

    fn has_wanted(&self) -> bool {
        let Wanted {
            members: _,
            opening: _,
            model,
            session,
            stream,
            store,
            background,
            things,
            whole,
        } = self.wanted;
        let facts = &self.facts;
        let has_session = session.is_none_or(|best| {
            let found = facts.session.as_ref();
            found.is_some_and(|(name, _)| *name <= best)
        });
        !whole
            && things.is_empty()
            && has_session
            && (!model || self.model_was_met)
            && (!stream || facts.stream.is_some())
            && (!store || facts.store.is_some())
            && (!background || facts.background)
    }

    /// Takes at least one byte off the front.
    fn step(&mut self, rest: &mut &[u8]) {
        match self.state {
            State::Kept | State::Name => self.read_text(rest),
            State::Skipped { escaped, depth } => self.skip_text(rest, escaped, depth),
            State::Nested { depth } => self.skip_nested(rest, depth),
            State::Word => self.read_word(rest),
            state => {
                while let Some(byte) = rest.split_off_first() {
                    if !byte.is_ascii_whitespace() {
                        self.state = self.after(state, *byte, rest);
                        return;
                    }
                }
            }
        }
    }

    /// The state after a byte that is no white space, outside of values, with `rest` behind it.
    fn after(&mut self, state: State, byte: u8, rest: &mut &[u8]) -> State {
        match (state, byte) {
            (State::Start, b'{') => State::BeforeName,
            (State::BeforeName, b'"') => self.begin_name(rest),
            (State::BeforeColon, b':') => State::BeforeValue,
            (State::AfterValue, b',') => State::BeforeName,
            (State::BeforeName | State::AfterValue, b'}') => self.end_of_object(),
            (State::BeforeValue, byte) => self.begin_value(byte),
            _ => State::Done,
        }
    }

    /// Reads a name where it stands, if all of it is there and has no escapes: most do, and bodies may
    /// consist of names.
    fn begin_name(&mut self, rest: &mut &[u8]) -> State {
        let (piece, end) = split(rest);
        if end == Some(b'"') {
            self.member = self.named(piece);
            return State::BeforeColon;
        }
        self.text.begin(MAX_NAME_BYTES);
        self.text.push(piece);
        if end.is_some() {
            self.text.begin_escape();
        }
        State::Name
    }

    fn end_of_object(&mut self) -> State {
        if self.within.take().is_some() {
            return State::AfterValue;
        }
        self.facts.whole = true;
        State::Done
    }

    fn begin_value(&mut self, first: u8) -> State {
        match self.member {
            Some(Member::Value(RequestValue::OtherModels)) => self.facts.models_differ = true,
            Some(Member::Value(RequestValue::Model)) => self.facts.models_differ |= first != b'"',
            _ => {}
        }
        match (first, self.member) {
            (b'"', Some(Member::Value(RequestValue::Model))) => {
                self.text.begin(MAX_MODEL_BYTES);
                State::Kept
            }
            (b'"', Some(Member::Value(RequestValue::Session(name)))) if self.is_better(name) => {
                self.text.begin(MAX_SESSION_BYTES);
                State::Kept
            }
            (b'"', Some(Member::Thing(_))) => {
                self.text.begin(MAX_ID_BYTES);
                State::Kept
            }
            (b'"', Some(Member::Value(RequestValue::Account | RequestValue::Platform))) => {
                self.text.begin(MAX_WISH_BYTES);
                State::Kept
            }
            (b'"', _) => State::Skipped {
                escaped: false,
                depth: 0,
            },
            (b'{', Some(Member::Thing(name))) if self.has_object(name) => {
                self.within = Some(name);
                State::BeforeName
            }
            (b'{', Some(Member::Object(name))) => {
                self.within = Some(name);
                State::BeforeName
            }
            (b'{' | b'[', _) => State::Nested { depth: 1 },
            (b'}' | b']' | b':' | b',', _) => State::Done,
            (first, member) => {
                if member.is_some() {
                    self.text.begin(MAX_WORD_BYTES);
                    self.text.push(&[first]);
                }
                State::Word
            }
        }
    }

    /// Returns true if members of the body's object `name` may tell something.
    fn has_object(&self, name: &str) -> bool {
        let mut members = self.wanted.members.iter();
        self.within.is_none() && members.any(|member| member.within == Some(name))
    }

    fn is_better(&self, name: SessionName) -> bool {
        let found = self.facts.session.as_ref();
        found.is_none_or(|(found, _)| name < *found)
    }

    fn read_text(&mut self, rest: &mut &[u8]) {
        if self.text.is_in_escape() {
            if let Some(byte) = rest.split_off_first() {
                self.text.unescape(*byte);
            }
            return;
        }
        let (piece, end) = split(rest);
        self.text.push(piece);
        match end {
            Some(b'\\') => self.text.begin_escape(),
            Some(_) if self.state == State::Name => {
                let name = self.text.text().map(str::as_bytes);
                self.member = name.and_then(|name| self.named(name));
                self.state = State::BeforeColon;
            }
            Some(_) => self.end_of_text(),
            None => {}
        }
    }

    fn named(&self, name: &[u8]) -> Option<Member> {
        if name.len() > MAX_NAME_BYTES {
            return None;
        }
        let name = std::str::from_utf8(name).ok()?;
        let (members, within) = (self.wanted.members.iter(), self.within);
        members.copied().find_map(|member| {
            // A name in other letters is as long at least, and so is that of the object around it.
            let shortest = member.within.map_or(member.name.len(), |object| {
                object.len().min(member.name.len())
            });
            if name.len() < shortest {
                return None;
            }
            let is_it = match member.meaning {
                // Servers in Go take a member's name in any case, and the last of several.
                RequestValue::Model | RequestValue::OtherModels | RequestValue::Background => {
                    is_folded(name, member.name)
                }
                _ => member.name == name,
            };
            if member.within == within && is_it {
                return Some(match member.meaning {
                    RequestValue::Thing => Member::Thing(member.name),
                    meaning => Member::Value(meaning),
                });
            }
            let object = member.within.filter(|_| within.is_none())?;
            (object == name).then_some(Member::Object(object))
        })
    }

    fn end_of_text(&mut self) {
        let text = self.text.text().filter(|text| !text.is_empty());
        match self.member {
            Some(Member::Value(RequestValue::Model)) => {
                let model = text.filter(|text| text.bytes().all(|byte| byte.is_ascii_graphic()));
                let model = model.and_then(|text| HeaderText::try_from(text).ok());
                self.found_model(model);
            }
            Some(Member::Value(RequestValue::Session(name))) => {
                if let Some(text) = text {
                    self.facts.session = Some((name, text.to_owned()));
                }
            }
            Some(Member::Value(RequestValue::Account)) => self.facts.account = self.wish(),
            Some(Member::Value(RequestValue::Platform)) => self.facts.platform = self.wish(),
            Some(Member::Thing(_)) => {
                if let Some(text) = text
                    && self.is_better(SessionName::PreviousResponse)
                {
                    self.facts.session = Some((SessionName::PreviousResponse, text.to_owned()));
                }
            }
            _ => {}
        }
        self.end_of_value();
    }

    /// The account or platform that the text names: none for an empty text; for one that is too long an empty name, which
    /// nobody has.
    fn wish(&self) -> Option<String> {
        match self.text.text() {
            Some("") => None,
            text => Some(text.unwrap_or_default().to_owned()),
        }
    }

    fn found_model(&mut self, model: Option<HeaderText>) {
        let was_met = std::mem::replace(&mut self.model_was_met, true);
        self.facts.meets_model(model, was_met);
    }

    fn read_word(&mut self, rest: &mut &[u8]) {
        let ends = |byte: &u8| byte.is_ascii_whitespace() || b",}]".contains(byte);
        let length = rest.iter().position(ends).unwrap_or(rest.len());
        let word = rest.split_off(..length).unwrap_or_default();
        if self.member.is_some() {
            self.text.push(word);
        }
        if rest.is_empty() {
            return;
        }
        if self.member.is_none() {
            return self.end_of_value();
        }
        let value = match self.text.text() {
            Some("true") => Some(true),
            Some("false") => Some(false),
            _ => None,
        };
        let fact = match self.member {
            Some(Member::Value(RequestValue::Stream)) => Some(&mut self.facts.stream),
            Some(Member::Value(RequestValue::Store)) => Some(&mut self.facts.store),
            Some(Member::Value(RequestValue::Background)) => {
                self.facts.background |= value == Some(true);
                None
            }
            _ => None,
        };
        if let Some(fact) = fact {
            *fact = fact.or(value);
        }
        self.end_of_value();
    }

    fn end_of_value(&mut self) {
        self.member = None;
        self.state = if self.model_was_met && self.has_wanted() {
            State::Done
        } else {
            State::AfterValue
        };
    }

    fn skip_text(&mut self, rest: &mut &[u8], escaped: bool, depth: u32) {
        if escaped {
            rest.split_off_first();
        }
        let (_, end) = split(rest);
        self.state = match end {
            Some(b'"') if depth > 0 => State::Nested { depth },
            Some(b'"') => return self.end_of_value(),
            end => State::Skipped {
                escaped: end.is_some(),
                depth,
            },
        };
    }

    fn skip_nested(&mut self, rest: &mut &[u8], mut depth: u32) {
        while let Some(byte) = rest.split_off_first() {
            match byte {
                b'"' => {
                    let escaped = false;
                    self.state = State::Skipped { escaped, depth };
                    return;
                }
                b'{' | b'[' if depth >= MAX_DEPTH => {
                    self.state = State::Done;
                    return;
                }
                b'{' | b'[' => depth = depth.saturating_add(1),
                b'}' | b']' if depth == 1 => return self.end_of_value(),
                b'}' | b']' => depth = depth.saturating_sub(1),
                _ => {}
            }
        }
        self.state = State::Nested { depth };
    }
}

/// Returns true if `name` is `plain` but for its case. `plain` has small letters alone.
fn is_folded(name: &str, plain: &str) -> bool {
    name.chars().map(folded).eq(plain.chars())
}

/// Takes off what stands before a quote or backslash, and that byte.
fn split<'a>(rest: &mut &'a [u8]) -> (&'a [u8], Option<u8>) {
    let whole = *rest;
    let (piece, after) = match find_quote_or_escape(whole) {
        Some(at) => whole.split_at_checked(at).unwrap_or((whole, &[])),
        None => (whole, &[][..]),
    };
    *rest = after;
    (piece, rest.split_off_first().copied())
}

#[cfg(test)]
mod tests;
