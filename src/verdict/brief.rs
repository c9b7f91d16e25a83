//! The data of an event, shortened to what a look at it needs.
//!
//! Events that announce an answer echo the whole request, instructions and tools: 60 KB and more. Of
//! the answer that an event wraps only plain members and the error are kept, and of every string its
//! beginning. What is kept of a JSON text is a JSON text.

use std::mem::take;

use crate::{
    dialect::{Dialect, Member},
    text::{
        json::{Lexer, Token},
        taken,
    },
};

/// The most that is kept, in bytes. Errors are below 4 KiB; an event of which more is left is none.
const MAX_BRIEF_BYTES: usize = 16 * 1024;

/// The most that is kept of one string, in bytes: as much as of an error's message.
const MAX_STRING_BYTES: usize = 2 * 1024;

/// The longest data that are kept as they are, in bytes: no string of them would be shortened.
const MAX_SHORT_BYTES: usize = MAX_STRING_BYTES;

/// The longest name of a member that is looked at, in bytes.
const MAX_NAME_BYTES: usize = 32;

/// Stands for what is left out.
const NOTHING: &[u8] = b"null";

/// The data of an event as it comes, shortened.
#[derive(Debug)]
pub struct Brief {
    dialect: Dialect,
    /// All that has come is kept.
    is_short: bool,
    lexer: Lexer,
    depth: u32,
    /// The member of the outermost object whose value passes by.
    section: Option<Member>,
    /// The member, of any object, whose value comes next.
    member: Option<Member>,
    /// The last string that may be a member's name.
    name: Vec<u8>,
    /// The depth of a value that is left out.
    left_out: Option<u32>,
    kept: Vec<u8>,
    /// The place in `kept` at which the string begins that passes by.
    string_at: usize,
    /// The rest of that string is left out.
    is_cut: bool,
    /// More is left than is kept.
    is_over: bool,
}

// === impl Brief ===

impl Brief {
    /// Makes one for events of this dialect.
    pub fn new(dialect: Dialect) -> Self {
        Self {
            dialect,
            is_short: true,
            lexer: Lexer::default(),
            depth: 0,
            section: None,
            member: None,
            name: Vec::new(),
            left_out: None,
            kept: Vec::new(),
            string_at: 0,
            is_cut: false,
            is_over: false,
        }
    }

    /// Takes in the next bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.is_short {
            if self.kept.len().saturating_add(bytes.len()) <= MAX_SHORT_BYTES {
                self.kept.extend_from_slice(bytes);
                return;
            }
            self.is_short = false;
            let short = take(&mut self.kept);
            self.shorten(&short);
        }
        self.shorten(bytes);
    }

    fn shorten(&mut self, mut bytes: &[u8]) {
        while !self.is_over {
            let before = bytes;
            let token = self.lexer.next(&mut bytes);
            let all = taken(before, bytes);
            match token {
                None => {
                    self.keep(all);
                    return;
                }
                Some(Token::Open(_)) => self.open(all),
                Some(Token::Close) => self.close(all),
                Some(Token::Colon) => {
                    self.keep(all);
                    self.member = Some(self.dialect.format().member(&self.name));
                    if self.depth == 1 {
                        self.section = self.member;
                    }
                }
                Some(Token::Comma) => {
                    self.keep(all);
                    self.member = None;
                }
                Some(Token::Text { raw, first, last }) => self.string(all, raw, first, last),
            }
        }
    }

    /// Makes it one of the next event, in the memory of this one.
    pub fn begin_anew(&mut self) {
        let (mut name, mut kept) = (take(&mut self.name), take(&mut self.kept));
        name.clear();
        kept.clear();
        *self = Self {
            name,
            kept,
            ..Self::new(self.dialect)
        };
    }

    /// The data; none where more is left of it than is kept.
    pub fn text(&self) -> Option<&[u8]> {
        (!self.is_over).then_some(&self.kept)
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.left_out.is_some() {
            return;
        }
        if self.kept.len().saturating_add(bytes.len()) > MAX_BRIEF_BYTES {
            self.is_over = true;
        } else {
            self.kept.extend_from_slice(bytes);
        }
    }

    fn open(&mut self, all: &[u8]) {
        let is_of_answer = self.depth == 2 && self.section == Some(Member::Answer);
        if self.left_out.is_none() && is_of_answer && self.member != Some(Member::Error) {
            self.keep(NOTHING);
            self.left_out = Some(self.depth);
        }
        self.keep(all);
        self.depth = self.depth.saturating_add(1);
        self.member = None;
    }

    fn close(&mut self, all: &[u8]) {
        self.keep(all);
        self.depth = self.depth.saturating_sub(1);
        if self.left_out == Some(self.depth) {
            self.left_out = None;
        }
        self.member = None;
    }

    /// Takes a string or a piece of it, `raw`; `all` has its quotes as well, and what stands before it.
    fn string(&mut self, all: &[u8], raw: &[u8], first: bool, last: bool) {
        if self.member.is_none() {
            if first {
                self.name.clear();
            }
            let room = MAX_NAME_BYTES.saturating_sub(self.name.len());
            self.name.extend_from_slice(raw.get(..room).unwrap_or(raw));
        }
        if self.left_out.is_some() {
            return;
        }
        if first {
            let before = all.len().saturating_sub(raw.len());
            let before = before.saturating_sub(usize::from(last));
            self.keep(all.get(..before).unwrap_or_default());
            self.string_at = self.kept.len();
            self.is_cut = false;
        }
        if !self.is_cut {
            // One byte more than is kept tells that there is more.
            let has = self.kept.len().saturating_sub(self.string_at);
            let room = MAX_STRING_BYTES.saturating_add(1).saturating_sub(has);
            self.keep(raw.get(..room).unwrap_or(raw));
            let whole = self.kept.get(self.string_at..).unwrap_or_default();
            if whole.len() > MAX_STRING_BYTES {
                let end = self.string_at.saturating_add(whole_characters(whole));
                self.kept.truncate(end);
                self.is_cut = true;
            }
        }
        if last {
            self.keep(b"\"");
        }
    }
}

/// The length of the longest beginning of a string, as it stands in JSON, that cuts no character and no
/// escape.
fn whole_characters(string: &[u8]) -> usize {
    const ESCAPE: usize = 2;
    const UNICODE: usize = 6;
    let mut at = 0_usize;
    loop {
        let rest = string.get(at..).unwrap_or_default();
        let length = match rest {
            [] => return at,
            [
                b'\\',
                b'u',
                b'd' | b'D',
                b'8' | b'9' | b'a' | b'b' | b'A' | b'B',
                ..,
            ] => 2 * UNICODE,
            [b'\\', b'u', ..] => UNICODE,
            [b'\\', ..] => ESCAPE,
            [0xf0..=0xff, ..] => 4,
            [0xe0..=0xef, ..] => 3,
            [0xc0..=0xdf, ..] => 2,
            [_, ..] => 1,
        };
        if length > rest.len() {
            return at;
        }
        at = at.saturating_add(length);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn brief(text: &str, chunk: usize) -> Option<String> {
        let mut brief = Brief::new(Dialect::Responses);
        for chunk in text.as_bytes().chunks(chunk) {
            brief.push(chunk);
        }
        let kept = brief.text()?;
        Some(String::from_utf8(kept.to_vec()).unwrap())
    }

    #[test]
    fn what_an_answer_echoes_is_left_out_and_its_error_is_not() {
        let long = "é\"\\\u{1f600}".repeat(20_000);
        let error = json!({"code": "c", "message": "m", "details": [{"a": 1}]});
        let event = json!({
            "type": "response.failed",
            "response": {
                "instructions": long, "tools": vec![json!({"name": "t"}); 9_000], "metadata": {"error": {}},
                "status": "failed", "error": error, "text": {"format": {}}, "usage": null,
            },
            "error": {"a": [1, 2.5e3, true, "x"]},
        });
        let kept: Value = serde_json::from_str(&brief(&event.to_string(), 7).unwrap()).unwrap();
        let instructions = kept["response"]["instructions"].as_str().unwrap();
        assert!(long.starts_with(instructions) && instructions.len() > MAX_STRING_BYTES / 2);
        let expected = json!({
            "type": "response.failed",
            "response": {
                "instructions": instructions, "tools": null, "metadata": null, "status": "failed",
                "error": error, "text": null, "usage": null,
            },
            "error": {"a": [1, 2.5e3, true, "x"]},
        });
        assert_eq!(kept, expected);
    }

    #[test]
    fn what_is_short_is_kept_as_it_is() {
        let data = |length: usize| {
            let start = r#"{"type":"response.created","response":{"tools":[{}],"user":""#;
            format!("{start}{}\"}}}}", "u".repeat(length - start.len() - 3))
        };
        let short = data(MAX_SHORT_BYTES);
        assert_eq!(brief(&short, 7).unwrap(), short);
        let longer = data(MAX_SHORT_BYTES + 1);
        assert_eq!(brief(&longer, 7).unwrap(), longer.replace("[{}]", "null"));
        let mut next = Brief::new(Dialect::Responses);
        next.push(longer.as_bytes());
        next.begin_anew();
        next.push(b"[1]");
        assert_eq!(next.text(), Some(b"[1]".as_slice()));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let many = json!(vec!["x"; MAX_BRIEF_BYTES]).to_string();
        assert_eq!(brief(&many, 1_000), None);
        let mut brief = Brief::new(Dialect::Responses);
        for _ in 0..100 {
            brief.push(format!("{{\"{}\":[", "x".repeat(10_000)).as_bytes());
        }
        assert!(brief.kept.len() <= MAX_BRIEF_BYTES && brief.name.len() <= MAX_NAME_BYTES);
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let name = prop::sample::select(vec!["response", "error", "type", "é\\", "output", "x"]);
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i32>().prop_map(Into::into),
            "[a\"\\\\é\u{1f600}\u{7}]{0,4}".prop_map(|text| text.repeat(600).into()),
        ];
        leaf.prop_recursive(4, 24, 4, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
                prop::collection::vec((name.clone(), inner), 0..4).prop_map(|members| {
                    let members = members.into_iter();
                    Value::Object(
                        members
                            .map(|(name, value)| (name.to_owned(), value))
                            .collect(),
                    )
                }),
            ]
        })
    }

    proptest! {
        /// As serializers write it, and with every character outside of ASCII escaped.
        #[test]
        fn what_is_kept_of_json_is_json(value in any_json(), escaped: bool, chunk in 1_usize..5_000) {
            let mut text = value.to_string();
            if escaped {
                let units = text.encode_utf16().map(|unit| match u8::try_from(unit) {
                    Ok(byte) if byte.is_ascii() => char::from(byte).to_string(),
                    _ => format!("\\u{unit:04x}"),
                });
                text = units.collect();
            }
            let kept = brief(&text, chunk);
            prop_assert_eq!(&kept, &brief(&text, text.len()));
            if let Some(kept) = kept {
                prop_assert!(serde_json::from_str::<Value>(&kept).is_ok(), "{}", kept);
            }
        }
    }
}
