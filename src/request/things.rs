//! Finds in a request's body, while it comes, the things of accounts that it names: files, stored responses,
//! conversations, vector stores, containers.
//!
//! Only the places count that the dialect lists ([`ThingPlace`]): an id that stands elsewhere, as in what a tool was
//! called with, is nobody's. Each byte is read once, and of an id only its hash is kept.

use crate::{
    dialect::ThingPlace,
    home::{MAX_ID_BYTES, ThingHash},
    text::{json::Token, json_string::JsonString},
};

/// The most things that one request may name. Platforms take fewer in a request that generates; a batch of files for
/// a vector store may come in parts.
pub const MAX_THINGS: usize = 128;

/// The most steps of a place, and so the deepest that is looked.
const MAX_STEPS: usize = 12;

/// The most places of a dialect: one bit each.
const MAX_PLACES: usize = 32;

/// The longest name on the way to an id has 20 bytes.
const MAX_NAME_BYTES: usize = 32;

/// The step into every element of a list.
const EACH: &str = "[]";

/// The step into every member of an object.
const ANY: &str = "*";

/// The things that a request names, each once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Things {
    hashes: Vec<ThingHash>,
    /// The body names more than [`MAX_THINGS`].
    pub too_many: bool,
}

/// Reads a body token by token.
#[derive(Debug)]
pub struct ThingsReader {
    places: &'static [ThingPlace],
    things: Things,
    /// The number of containers that are open.
    depth: usize,
    /// The outermost of them.
    open: [Container; MAX_STEPS],
    /// The places on whose way the value is that comes.
    here: u32,
    /// The string that comes is the name of a member.
    is_name: bool,
    text: JsonString,
}

/// A container that is open.
#[derive(Debug, Clone, Copy, Default)]
struct Container {
    /// The places that lead into it.
    places: u32,
    is_list: bool,
}

// === impl Things ===

impl Things {
    /// Their hashes.
    pub fn hashes(&self) -> &[ThingHash] {
        &self.hashes
    }

    fn add(&mut self, id: &str) {
        let thing = ThingHash::of(id);
        if self.hashes.contains(&thing) {
            return;
        }
        self.too_many |= self.hashes.len() >= MAX_THINGS;
        if !self.too_many {
            self.hashes.push(thing);
        }
    }
}

// === impl ThingsReader ===

impl ThingsReader {
    /// A reader at the start of a body, for the places that its dialect lists.
    pub fn new(places: &'static [ThingPlace]) -> Self {
        Self {
            places: places.get(..MAX_PLACES).unwrap_or(places),
            things: Things::default(),
            depth: 0,
            open: [Container::default(); MAX_STEPS],
            here: 0,
            is_name: false,
            text: JsonString::default(),
        }
    }

    /// Takes the next token of the body.
    pub fn take(&mut self, token: Token<'_>) {
        match token {
            Token::Open(byte) => self.enter(byte == b'['),
            Token::Close => {
                self.depth = self.depth.saturating_sub(1);
                self.here = 0;
                self.is_name = false;
            }
            Token::Colon => self.is_name = false,
            Token::Comma => self.next_value(),
            Token::Text { raw, first, last } => self.read_text(raw, first, last),
        }
    }

    /// The things in what has come.
    pub fn into_things(self) -> Things {
        self.things
    }

    fn enter(&mut self, is_list: bool) {
        let places = match self.depth {
            0 => self.matching(u32::MAX, |_| true),
            _ => self.here,
        };
        if let Some(container) = self.open.get_mut(self.depth) {
            *container = Container { places, is_list };
        }
        self.depth = self.depth.saturating_add(1);
        self.next_value();
    }

    /// A container was opened, or a comma came: the next member or element begins.
    fn next_value(&mut self) {
        let Container { places, is_list } = self.container();
        self.is_name = !is_list;
        self.here = match is_list {
            true => self.matching(places, |step| step == EACH),
            false => 0,
        };
    }

    /// The innermost container that is open; one that leads nowhere, if that is too deep.
    fn container(&self) -> Container {
        let place = self.depth.checked_sub(1);
        let container = place.and_then(|place| self.open.get(place));
        container.copied().unwrap_or_default()
    }

    /// Finds those of `places` whose next step is such.
    fn matching(&self, places: u32, is_it: impl Fn(&str) -> bool) -> u32 {
        if places == 0 {
            return 0;
        }
        let at = self.depth.saturating_sub(1);
        let mut matching = 0;
        for (bit, place) in (0_u32..).zip(self.places) {
            let bit = 1_u32.checked_shl(bit).unwrap_or_default();
            if places & bit != 0 && place.get(at).is_some_and(|step| is_it(step)) {
                matching |= bit;
            }
        }
        matching
    }

    /// The value that comes is the thing that a place leads to.
    fn is_thing(&self) -> bool {
        self.here != 0
            && (0_u32..).zip(self.places).any(|(bit, place)| {
                let bit = 1_u32.checked_shl(bit).unwrap_or_default();
                self.here & bit != 0 && place.len() == self.depth
            })
    }

    fn read_text(&mut self, raw: &[u8], first: bool, last: bool) {
        let places = self.container().places;
        let most = match self.is_name {
            true if places == 0 => return,
            true => MAX_NAME_BYTES,
            false if !self.is_thing() => return,
            false => MAX_ID_BYTES,
        };
        if first {
            self.text.begin(most);
        }
        self.text.push_raw(raw);
        if !last {
            return;
        }
        let text = self.text.text().unwrap_or_default();
        if self.is_name {
            self.here = self.matching(places, |step| step == ANY || step == text && step != EACH);
        } else if !text.is_empty() {
            self.things.add(text);
        }
    }
}

#[cfg(test)]
mod tests;
