//! A whole JSON text (RFC 8259), read once: where each of its values stands.
//!
//! Values are borrowed from the text. A string of 20 MB costs a [`Node`] and no copy; what has to be sent on as it
//! stands (a schema, the arguments of a call) is one slice ([`Json::raw`]).

mod text;

use std::{cell::Cell, fmt::Write as _, ops::Range};

pub use self::text::{Text, characters};
use super::{decimal::decimal, find::find_in_string};

/// The most values that a text may have, names of members among them: 4 MiB of nodes. A worker serves nobody else while
/// they are read. The longest sessions of agents have a hundred thousand.
pub const MAX_VALUES: usize = 262_144;

/// The most steps that the lookups in a [bounded](Tree::bounded) text take: one for each member that is passed, and
/// [`LIKE_STEPS`] where its name begins alike and has to be compared. Requests take a few for each of their values.
pub const MAX_STEPS: usize = 6 * 1024 * 1024;

/// The steps of comparing a name.
const LIKE_STEPS: usize = 16;

/// The deepest that lists and objects may stand in each other.
pub const MAX_DEPTH: usize = 128;

/// The longest text, in bytes: positions fit into 32 bits.
pub const MAX_BYTES: usize = 64 * 1024 * 1024;

/// A text and where its values stand. An object's names and values take turns.
#[derive(Debug)]
pub struct Tree<'a> {
    text: &'a str,
    nodes: Vec<Node>,
    /// The steps that lookups may still take.
    left: Cell<usize>,
}

#[derive(Debug, Clone, Copy)]
struct Node {
    kind: JsonKind,
    start: u32,
    end: u32,
    /// The node behind this one and all that is in it.
    next: u32,
}

/// The kinds of values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JsonKind {
    /// `null`
    Null,
    /// `true` or `false`
    Bool,
    /// A number.
    Number,
    /// A string.
    Text,
    /// A list.
    List,
    /// An object.
    Object,
}

/// The reason for which a text is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unread {
    /// Text that is no JSON; the byte at which that shows.
    NoJson {
        /// Counted from 1.
        line: usize,
        /// Counted from 1, in bytes.
        column: usize,
    },
    /// A text of more than [`MAX_VALUES`] values or [`MAX_BYTES`].
    TooLarge,
    /// A text that is deeper than [`MAX_DEPTH`].
    TooDeep,
}

/// A value in a [`Tree`].
#[derive(Clone, Copy)]
pub struct Json<'t, 'a> {
    tree: &'t Tree<'a>,
    at: u32,
}

// === impl JsonKind ===

impl JsonKind {
    /// The kind, as a sentence names it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool => "a boolean",
            Self::Number => "a number",
            Self::Text => "a string",
            Self::List => "a list",
            Self::Object => "an object",
        }
    }
}

// === impl Tree ===

impl<'a> Tree<'a> {
    /// Reads a text.
    ///
    /// # Errors
    /// It is not JSON, or beyond a bound.
    #[inline(never)]
    pub fn read(bytes: &'a [u8]) -> Result<Self, Unread> {
        Self::read_of(bytes, &mut { MAX_VALUES })
    }

    /// Reads one of several texts that together have no more values than are `left`, and takes off those that were read,
    /// also where the text is no JSON.
    ///
    /// # Errors
    /// It is not JSON, or beyond a bound.
    #[inline(never)]
    pub fn read_of(bytes: &'a [u8], left: &mut usize) -> Result<Self, Unread> {
        if bytes.len() > MAX_BYTES {
            return Err(Unread::TooLarge);
        }
        let text = std::str::from_utf8(bytes).map_err(|error| place(bytes, error.valid_up_to()))?;
        Ok(Self {
            text,
            nodes: nodes(text.as_bytes(), left)?,
            left: Cell::new(usize::MAX),
        })
    }

    /// The same, in which lookups take no more than [`MAX_STEPS`]: then nothing more is found, and it
    /// [is spent](Self::is_spent).
    pub fn bounded(self) -> Self {
        self.left.set(MAX_STEPS);
        self
    }

    /// Returns true if no step was left for a lookup: what was found is not all that is there.
    pub fn is_spent(&self) -> bool {
        self.left.get() == 0
    }

    /// The outermost value.
    pub fn root(&self) -> Json<'_, 'a> {
        Json { tree: self, at: 0 }
    }

    /// The text.
    pub fn text(&self) -> &'a str {
        self.text
    }

    fn node(&self, at: u32) -> Node {
        // A text has a value, so a node is there.
        const NONE: Node = Node {
            kind: JsonKind::Null,
            start: 0,
            end: 0,
            next: 0,
        };
        self.nodes.get(at as usize).copied().unwrap_or(NONE)
    }

    fn slice(&self, start: u32, end: u32) -> &'a str {
        self.text
            .get(start as usize..end as usize)
            .unwrap_or_default()
    }
}

fn place(bytes: &[u8], at: usize) -> Unread {
    let before = bytes.get(..at).unwrap_or_default();
    let line = before.iter().filter(|byte| **byte == b'\n').count();
    let begins = before.iter().rposition(|byte| *byte == b'\n');
    let begins = begins.map_or(0, |begins| begins.saturating_add(1));
    Unread::NoJson {
        line: line.saturating_add(1),
        column: at.saturating_sub(begins).saturating_add(1),
    }
}

/// The tokens that may come next in a text.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    /// A value.
    Value,
    /// A value, or the end of the list.
    FirstItem,
    /// A name.
    Name,
    /// A name, or the end of the object.
    FirstName,
    /// The colon behind a name.
    Colon,
    /// A comma, or the end of what the value before stands in.
    Follows,
}

/// The nodes of a text.
fn nodes(text: &[u8], left: &mut usize) -> Result<Vec<Node>, Unread> {
    let mut nodes: Vec<Node> = Vec::new();
    let mut open: Vec<u32> = Vec::new();
    let (mut at, mut next) = (0_usize, Next::Value);
    while let Some(byte) = text.get(at) {
        let start = at;
        let wrong = || place(text, start);
        let is_value = matches!(next, Next::Value | Next::FirstItem);
        let kind = match byte {
            b' ' | b'\n' | b'\r' | b'\t' => {
                at = at.saturating_add(1);
                continue;
            }
            b',' | b'}' | b']' => {
                at = at.saturating_add(1);
                let count = position(nodes.len());
                let around = open.last().and_then(|open| nodes.get_mut(*open as usize));
                let around = around.ok_or_else(wrong)?;
                next = match (byte, around.kind, next) {
                    (b',', JsonKind::Object, Next::Follows) => Next::Name,
                    (b',', _, Next::Follows) => Next::Value,
                    (b'}', JsonKind::Object, Next::Follows | Next::FirstName)
                    | (b']', JsonKind::List, Next::Follows | Next::FirstItem) => {
                        around.end = position(at);
                        around.next = count;
                        open.pop();
                        Next::Follows
                    }
                    _ => return Err(wrong()),
                };
                continue;
            }
            b':' if next == Next::Colon => {
                at = at.saturating_add(1);
                next = Next::Value;
                continue;
            }
            b'"' if is_value || matches!(next, Next::Name | Next::FirstName) => JsonKind::Text,
            b'{' if is_value => JsonKind::Object,
            b'[' if is_value => JsonKind::List,
            b'n' if is_value => JsonKind::Null,
            b't' | b'f' if is_value => JsonKind::Bool,
            b'-' | b'0'..=b'9' if is_value => JsonKind::Number,
            _ => return Err(wrong()),
        };
        *left = left.checked_sub(1).ok_or(Unread::TooLarge)?;
        #[cfg(test)]
        super::find::work::add(1);
        let rest = text.get(at..).unwrap_or_default();
        let length = match kind {
            JsonKind::Object | JsonKind::List => {
                if open.len() >= MAX_DEPTH {
                    return Err(Unread::TooDeep);
                }
                open.push(position(nodes.len()));
                Some(1)
            }
            JsonKind::Text => text_length(rest),
            JsonKind::Number => number_length(rest),
            JsonKind::Null | JsonKind::Bool => {
                let words: [&[u8]; 3] = [b"null", b"true", b"false"];
                let word = words.into_iter().find(|word| rest.starts_with(word));
                word.map(<[u8]>::len)
            }
        };
        at = at.saturating_add(length.ok_or_else(wrong)?);
        next = match kind {
            JsonKind::Object => Next::FirstName,
            JsonKind::List => Next::FirstItem,
            _ if is_value => Next::Follows,
            _ => Next::Colon,
        };
        let (start, end) = (position(start), position(at));
        let next = position(nodes.len().saturating_add(1));
        nodes.push(Node {
            kind,
            start,
            end,
            next,
        });
    }
    match open.is_empty() && next == Next::Follows {
        true => Ok(nodes),
        false => Err(place(text, text.len())),
    }
}

/// A place as nodes keep it: [`MAX_BYTES`] fit.
fn position(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

/// The length of the string with which a text begins, both quotes among it; none for one that is none.
fn text_length(text: &[u8]) -> Option<usize> {
    // The bytes since the last escape that were looked at one by one: where escapes stand close to each other, a search
    // for the next one costs more.
    let (mut at, mut looked) = (1_usize, 0_u32);
    loop {
        let step = match text.get(at)? {
            b'"' => return at.checked_add(1),
            b'\\' => {
                looked = 0;
                match text.get(at.saturating_add(1))? {
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => 2,
                    b'u' => {
                        let digits = text.get(at.saturating_add(2)..at.saturating_add(6))?;
                        digits.iter().all(u8::is_ascii_hexdigit).then_some(6)?
                    }
                    _ => return None,
                }
            }
            ..0x20 => return None,
            _ if looked < 8 => {
                looked = looked.saturating_add(1);
                1
            }
            _ => find_in_string(text.get(at..)?)?,
        };
        at = at.saturating_add(step);
    }
}

/// The length of the number with which a text begins; none for one that is none.
fn number_length(text: &[u8]) -> Option<usize> {
    fn digits(text: &[u8]) -> Option<&[u8]> {
        let length = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
        text.get(length..).filter(|_| length > 0)
    }
    let unsigned = text.strip_prefix(b"-").unwrap_or(text);
    let mut rest = match unsigned {
        [b'0', rest @ ..] => rest,
        _ => digits(unsigned)?,
    };
    if let [b'.', fraction @ ..] = rest {
        rest = digits(fraction)?;
    }
    if let [b'e' | b'E', exponent @ ..] = rest {
        let unsigned = match exponent {
            [b'+' | b'-', unsigned @ ..] => unsigned,
            exponent => exponent,
        };
        rest = digits(unsigned)?;
    }
    text.len().checked_sub(rest.len())
}

// === impl Json ===

impl<'t, 'a> Json<'t, 'a> {
    fn node(self) -> Node {
        self.tree.node(self.at)
    }

    /// The kind of value.
    pub fn kind(self) -> JsonKind {
        self.node().kind
    }

    /// The value as it stands in the text.
    #[inline(never)]
    pub fn raw(self) -> &'a str {
        let node = self.node();
        self.tree.slice(node.start, node.end)
    }

    /// The place of [`Self::raw`] in the text.
    pub fn range(self) -> Range<usize> {
        let node = self.node();
        node.start as usize..node.end as usize
    }

    /// The string, or none if it is none.
    #[inline(never)]
    pub fn text(self) -> Option<Text<'a>> {
        let node = self.node();
        let (start, end) = (node.start.saturating_add(1), node.end.saturating_sub(1));
        (node.kind == JsonKind::Text).then(|| Text::Escaped(self.tree.slice(start, end)))
    }

    /// The boolean.
    pub fn flag(self) -> Option<bool> {
        (self.kind() == JsonKind::Bool).then(|| self.raw() == "true")
    }

    /// The number, if it is a whole one that fits.
    pub fn whole(self) -> Option<u64> {
        if self.kind() != JsonKind::Number {
            return None;
        }
        let raw = self.raw();
        raw.parse().ok().or_else(|| {
            let number = decimal(raw)?;
            ((0.0..9e15).contains(&number) && number.fract() == 0.0).then_some(number as u64)
        })
    }

    /// `null`.
    pub fn is_null(self) -> bool {
        self.kind() == JsonKind::Null
    }

    /// The values of a list; of anything else none.
    pub fn items(self) -> Children<'t, 'a> {
        self.children(JsonKind::List)
    }

    /// The members of an object in turn; of anything else none.
    pub fn members(self) -> impl Iterator<Item = (Text<'a>, Json<'t, 'a>)> {
        let mut children = self.children(JsonKind::Object);
        std::iter::from_fn(move || {
            let name = children.next()?.text()?;
            Some((name, children.next()?))
        })
    }

    /// The members of an object in turn, with their names as they stand in the text.
    pub fn raw_members(self) -> impl Iterator<Item = (&'a str, Json<'t, 'a>)> {
        let mut children = self.children(JsonKind::Object);
        std::iter::from_fn(move || {
            let name = children.next()?.raw();
            let name = name.get(1..name.len().saturating_sub(1))?;
            Some((name, children.next()?))
        })
    }

    fn children(self, of: JsonKind) -> Children<'t, 'a> {
        let node = self.node();
        let end = if node.kind == of { node.next } else { 0 };
        Children {
            tree: self.tree,
            at: self.at.saturating_add(1),
            end,
        }
    }

    /// The member of that name, if it is there and not `null`. Of several the last counts, as in other readers.
    #[inline(never)]
    pub fn get(self, name: &str) -> Option<Self> {
        let (tree, object) = (self.tree, self.node());
        let end = match object.kind {
            JsonKind::Object => object.next,
            _ => 0,
        };
        let (mut at, mut found) = (self.at.saturating_add(1), None);
        let mut left = tree.left.get();
        // A character has 1 to 6 bytes of an escaped text for each of its own.
        let (least, most) = (name.len(), name.len().saturating_mul(6));
        while at < end && left > 0 {
            let own = tree.node(at);
            let value = at.saturating_add(1);
            at = tree.node(value).next.max(value);
            left = left.saturating_sub(1);
            let length = (own.end as usize)
                .saturating_sub(own.start as usize)
                .saturating_sub(2);
            if !(least..=most).contains(&length) {
                continue;
            }
            let own = tree.slice(own.start.saturating_add(1), own.end.saturating_sub(1));
            let first = own.as_bytes().first();
            if first != name.as_bytes().first() && first != Some(&b'\\') {
                continue;
            }
            left = left.saturating_sub(LIKE_STEPS);
            if Text::Escaped(own).is(name) {
                found = Some(Json { tree, at: value });
            }
        }
        #[cfg(test)]
        super::find::work::add(tree.left.get().saturating_sub(left));
        tree.left.set(left);
        found.filter(|value| left > 0 && !value.is_null())
    }

    /// Takes steps off those that lookups may take: of work that grows with the text in another way than they do.
    pub fn spend(self, steps: usize) {
        let left = &self.tree.left;
        left.set(left.get().saturating_sub(steps));
    }

    /// The string in the member of that name.
    #[inline(never)]
    pub fn text_at(self, name: &str) -> Option<Text<'a>> {
        self.get(name)?.text()
    }

    /// The place of the value: `messages[3].content[0].type`. The outermost has an empty one.
    #[inline(never)]
    pub fn path(self) -> String {
        let (mut path, mut here) = (String::new(), self.tree.root());
        while here.at != self.at {
            let holds = |child: &Json<'_, '_>| (child.at..child.node().next).contains(&self.at);
            let next = match here.kind() {
                JsonKind::List => here
                    .items()
                    .enumerate()
                    .find(|(_, child)| holds(child))
                    .map(|(number, child)| {
                        let _ = write!(path, "[{number}]");
                        child
                    }),
                JsonKind::Object => {
                    here.members()
                        .find(|(_, child)| holds(child))
                        .map(|(name, child)| {
                            let dot = if path.is_empty() { "" } else { "." };
                            let name: String = name.plain().chars().take(64).collect();
                            let _ = write!(path, "{dot}{name}");
                            child
                        })
                }
                _ => None,
            };
            match next {
                Some(child) => here = child,
                None => break,
            }
        }
        path
    }
}

/// Values beside each other.
pub struct Children<'t, 'a> {
    tree: &'t Tree<'a>,
    at: u32,
    end: u32,
}

impl<'t, 'a> Iterator for Children<'t, 'a> {
    type Item = Json<'t, 'a>;

    fn next(&mut self) -> Option<Json<'t, 'a>> {
        if self.at >= self.end {
            return None;
        }
        let child = Json {
            tree: self.tree,
            at: self.at,
        };
        self.at = child.node().next.max(self.at.saturating_add(1));
        Some(child)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::de::IgnoredAny;
    use serde_json::Value;

    use super::*;
    use crate::text::find::work;

    fn value(json: Json<'_, '_>) -> Value {
        match json.kind() {
            JsonKind::List => json.items().map(value).collect(),
            JsonKind::Object => json
                .members()
                .map(|(name, value_of)| (name.plain().into_owned(), value(value_of)))
                .collect(),
            JsonKind::Text => Value::String(json.text().unwrap().plain().into_owned()),
            _ => serde_json::from_str(json.raw()).unwrap(),
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".*".prop_map(Value::String),
            r#"[\\"{}\[\],: a]*"#.prop_map(Value::String),
        ];
        leaf.prop_recursive(6, 64, 8, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..8).prop_map(Value::Array),
                proptest::collection::vec(("[a-c\"\\\\]{0,4}", inner), 0..8)
                    .prop_map(|members| members.into_iter().collect()),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_stands_there(any in any_json(), pretty: bool) {
            let text = if pretty { serde_json::to_string_pretty(&any) } else { serde_json::to_string(&any) };
            let text = text.unwrap();
            let tree = Tree::read(text.as_bytes()).unwrap();
            prop_assert_eq!(value(tree.root()), serde_json::from_str::<Value>(&text).unwrap());
            prop_assert_eq!(tree.root().raw(), &*text);
        }

        #[test]
        fn bytes_are_read_if_serde_reads_them(bytes in proptest::collection::vec(prop_oneof![Just(b'{'), Just(b'}'), Just(b'['), Just(b']'), Just(b'"'), Just(b'\\'), Just(b','), Just(b':'), prop::sample::select(b"10-+.eEntrufls ".as_slice()), any::<u8>()], 0..24)) {
            let read = Tree::read(&bytes).is_ok();
            let utf8 = std::str::from_utf8(&bytes).is_ok();
            prop_assert_eq!(read, utf8 && serde_json::from_slice::<IgnoredAny>(&bytes).is_ok());
        }
    }

    #[test]
    fn a_path_leads_to_its_value() {
        let text = r#"{"a":1,"messages":[{},{"content":["x",{"type":"text"}]}]}"#;
        let tree = Tree::read(text.as_bytes()).unwrap();
        let content = tree
            .root()
            .get("messages")
            .unwrap()
            .items()
            .nth(1)
            .unwrap()
            .get("content")
            .unwrap();
        let kind = content.items().nth(1).unwrap().get("type").unwrap();
        assert_eq!(kind.path(), "messages[1].content[1].type");
        assert_eq!(tree.root().path(), "");
    }

    #[test]
    fn the_last_of_several_members_counts_and_null_is_absent() {
        let tree = Tree::read(br#"{"a":1,"\u0061":2,"b":null}"#).unwrap();
        assert_eq!(tree.root().get("a").unwrap().raw(), "2");
        assert!(tree.root().get("b").is_none());
    }

    proptest! {
        #[test]
        fn a_text_is_what_it_stands_for(text in r#"[\\"a\n\u{e9}\u{1f600}]{0,6}"#, other in r#"[\\"a\n\u{e9}\u{1f600}]{0,6}"#, escapes: bool) {
            let mut json = serde_json::to_string(&text).unwrap();
            if escapes {
                let escape = |char: char| {
                    let mut units = [0; 2];
                    let units = char.encode_utf16(&mut units).iter();
                    units.map(|unit| format!("\\u{unit:04x}")).collect::<String>()
                };
                json = format!("\"{}\"", text.chars().map(escape).collect::<String>());
            }
            let tree = Tree::read(json.as_bytes()).unwrap();
            let read = tree.root().text().unwrap();
            prop_assert_eq!(&*read.plain(), &*text);
            prop_assert!(read.is(&text));
            prop_assert_eq!(read.is(&other), text == other);
        }
    }

    /// Whatever an object has, its members are passed so many times and no more; what is found after that would not be
    /// all that is there, so nothing is.
    #[test]
    fn lookups_take_so_many_steps() {
        for member in [r#""a":1,"#, r#""b":1,"#, r#""\u0062":1,"#, r#""\u0061":1,"#] {
            let members = 1_000;
            let text = format!("{{{}\"b\":2}}", member.repeat(members));
            let tree = Tree::read(text.as_bytes()).unwrap().bounded();
            let mut lookups = 0_usize;
            let steps = work::of(|| {
                while tree.root().get("b").is_some() {
                    lookups += 1;
                }
            });
            assert!(tree.is_spent());
            assert_eq!(steps, MAX_STEPS, "{member}");
            let each = MAX_STEPS / (members + 1);
            assert!(
                (each / (LIKE_STEPS + 1) - 1..=each).contains(&lookups),
                "{member}: {lookups}"
            );
            let free = Tree::read(text.as_bytes()).unwrap();
            (0..2 * lookups).for_each(|_| assert!(free.root().get("b").is_some()));
        }
    }

    /// A search looks at each byte of a string once at most, however its escapes stand.
    #[test]
    fn a_string_is_looked_through_once() {
        for piece in [
            "a",
            "\\n",
            "\\u0022",
            "a\\n",
            "some words\\n",
            "\u{e9}",
            "123456789\\\"",
        ] {
            let text = format!("\"{}\"", piece.repeat(10_000));
            let examined = work::of(|| assert!(Tree::read(text.as_bytes()).is_ok()));
            assert!(examined <= text.len() + 1, "{piece:?}: {examined}");
        }
    }

    /// What stands in several texts is bounded as what stands in one, also where they break off.
    #[test]
    fn several_texts_share_their_values() {
        let mut left = 10;
        assert!(Tree::read_of(b"[1,2,3]", &mut left).is_ok());
        assert!(matches!(
            Tree::read_of(b"[1,2,", &mut left),
            Err(Unread::NoJson { .. })
        ));
        assert_eq!(left, 3);
        assert!(matches!(
            Tree::read_of(b"[1,2,3]", &mut left),
            Err(Unread::TooLarge)
        ));
        assert_eq!(left, 0);
    }

    #[test]
    fn bounds_hold() {
        let deep = format!("{}{}", "[".repeat(MAX_DEPTH + 1), "]".repeat(MAX_DEPTH + 1));
        assert_eq!(Tree::read(deep.as_bytes()).unwrap_err(), Unread::TooDeep);
        let many = format!("[{}1]", "1,".repeat(MAX_VALUES));
        assert_eq!(Tree::read(many.as_bytes()).unwrap_err(), Unread::TooLarge);
        let place = Unread::NoJson { line: 2, column: 3 };
        assert_eq!(Tree::read(b"{\n \x22\xff\x22: 1}").unwrap_err(), place);
    }

    proptest! {
        /// However it is escaped: each character by itself, or as few as may be.
        #[test]
        fn a_text_is_itself_and_no_other(text in "[\\PC\n\"\\\\]{0,8}", other in "[\\PC\n\"\\\\]{0,3}") {
            let units = text.encode_utf16().map(|unit| format!("\\u{unit:04x}"));
            let (longest, shortest) = (units.collect::<String>(), serde_json::to_string(&text).unwrap());
            let shortest = &shortest[1..shortest.len() - 1];
            for escaped in [&*longest, shortest] {
                prop_assert!(Text::Escaped(escaped).is(&text));
                prop_assert_eq!(Text::Escaped(escaped).is(&other), text == other);
            }
        }
    }
}
