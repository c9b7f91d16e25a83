//! JSON, written from the front to the back.
//!
//! Nothing of it is inlined: writers call it hundreds of times, and every worker keeps the code.

use serde_json::{Map, Value};

use super::{find::find_in_string, tree::Text};

/// A JSON text that is being written. It puts in the commas.
#[derive(Debug, Default)]
pub struct Out {
    bytes: Vec<u8>,
    /// A value was written before, in the same list or object.
    follows: bool,
}

// === impl Out ===

impl Out {
    /// Begins with room for so many bytes.
    pub fn with_capacity(bytes: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(bytes),
            follows: false,
        }
    }

    /// The bytes that were written.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    #[inline(never)]
    fn value(&mut self, raw: &[u8]) {
        if self.follows {
            self.bytes.push(b',');
        }
        self.bytes.extend_from_slice(raw);
        self.follows = true;
    }

    /// Begins an object or a list: `{` or `[`.
    #[inline(never)]
    fn open(&mut self, byte: u8) {
        self.value(&[byte]);
        self.follows = false;
    }

    #[inline(never)]
    fn close(&mut self, byte: u8) {
        self.bytes.push(byte);
        self.follows = true;
    }

    /// An object with what `write` puts into it.
    pub fn object(&mut self, write: impl FnOnce(&mut Self)) {
        self.open(b'{');
        write(self);
        self.close(b'}');
    }

    /// A list with what `write` puts into it.
    pub fn list(&mut self, write: impl FnOnce(&mut Self)) {
        self.open(b'[');
        write(self);
        self.close(b']');
    }

    /// The name of the member that follows. It has nothing to escape.
    #[inline(never)]
    pub fn name(&mut self, name: &str) -> &mut Self {
        self.value(b"\"");
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.extend_from_slice(b"\":");
        self.follows = false;
        self
    }

    /// The name of the member that follows, whatever it has in it.
    #[inline(never)]
    pub fn member(&mut self, name: &Text<'_>) -> &mut Self {
        self.text(name);
        self.bytes.push(b':');
        self.follows = false;
        self
    }

    /// Members with their values. Their names have nothing to escape.
    #[inline(never)]
    pub fn members(&mut self, members: &Map<String, Value>) {
        for (name, value) in members {
            self.name(name).raw(&value.to_string());
        }
    }

    /// A value that is JSON already.
    #[inline(never)]
    pub fn raw(&mut self, json: &str) {
        self.value(json.as_bytes());
    }

    /// A value that was written by itself.
    #[inline(never)]
    pub fn written(&mut self, value: Self) {
        self.value(&value.bytes);
    }

    /// A whole number.
    #[inline(never)]
    pub fn number(&mut self, number: u64) {
        self.value(number.to_string().as_bytes());
    }

    /// `true` or `false`.
    #[inline(never)]
    pub fn bool(&mut self, bool: bool) {
        self.value(if bool { b"true" } else { b"false" });
    }

    /// `null`.
    #[inline(never)]
    pub fn null(&mut self) {
        self.value(b"null");
    }

    /// A string.
    #[inline(never)]
    pub fn text(&mut self, text: &Text<'_>) {
        self.texts(std::slice::from_ref(text));
    }

    /// A string of our own.
    #[inline(never)]
    pub fn word(&mut self, text: &str) {
        self.texts(&[Text::of(text)]);
    }

    /// A string of several pieces.
    #[inline(never)]
    pub fn texts(&mut self, pieces: &[Text<'_>]) {
        self.value(b"\"");
        for piece in pieces {
            match piece {
                Text::Escaped(escaped) => self.bytes.extend_from_slice(escaped.as_bytes()),
                Text::Plain(plain) => escape(&mut self.bytes, plain),
            }
        }
        self.bytes.push(b'"');
    }
}

/// Appends `text` as it stands between the quotes of a string.
#[inline(never)]
pub fn escape(bytes: &mut Vec<u8>, text: &str) {
    let mut rest = text.as_bytes();
    while let Some(at) = find_in_string(rest) {
        let (plain, special) = rest.split_at(at);
        bytes.extend_from_slice(plain);
        let byte = special.first().copied().unwrap_or_default();
        match byte {
            b'"' => bytes.extend_from_slice(b"\\\""),
            b'\\' => bytes.extend_from_slice(b"\\\\"),
            b'\n' => bytes.extend_from_slice(b"\\n"),
            b'\r' => bytes.extend_from_slice(b"\\r"),
            b'\t' => bytes.extend_from_slice(b"\\t"),
            _ => bytes.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
        }
        rest = special.get(1..).unwrap_or_default();
    }
    bytes.extend_from_slice(rest);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    proptest! {
        #[test]
        fn a_string_is_read_as_it_was_written(text in ".*", other in r#"[\\"\n\t\r\x00-\x1f]*"#) {
            let mut out = Out::default();
            out.texts(&[Text::of(&text), Text::of(&other)]);
            let read: String = serde_json::from_slice(&out.into_bytes()).unwrap();
            prop_assert_eq!(read, text + &other);
        }
    }

    #[test]
    fn commas_stand_between_values_alone() {
        let mut out = Out::default();
        out.object(|out| {
            out.name("a").list(|out| {
                out.number(1);
                out.object(|_| {});
                out.list(|_| {});
                out.word("x\"");
            });
            out.name("b").null();
            out.name("c").raw("[true]");
        });
        let read: Value = serde_json::from_slice(&out.into_bytes()).unwrap();
        assert_eq!(
            read,
            json!({"a": [1, {}, [], "x\""], "b": null, "c": [true]})
        );
    }
}
