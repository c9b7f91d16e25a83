//! A string of JSON, put together from the pieces in which it comes.

/// A text with its escapes undone, up to a bound.
#[derive(Debug, Default)]
pub(crate) struct JsonString {
    bytes: Vec<u8>,
    most: usize,
    escape: Escape,
    /// The first half of a surrogate pair.
    high: Option<u32>,
    /// Too long, or not text.
    unfit: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Escape {
    #[default]
    No,
    /// After the `\`.
    Begun,
    /// In the digits of `\u`.
    Digits { count: u8, value: u32 },
}

// === impl JsonString ===

impl JsonString {
    /// Begins a text that may grow to `most` bytes, in the memory of the last one.
    pub(crate) fn begin(&mut self, most: usize) {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        *self = Self {
            bytes,
            most,
            ..Self::default()
        };
    }

    /// Takes bytes that stand for themselves.
    pub(crate) fn push(&mut self, piece: &[u8]) {
        if piece.is_empty() {
            return;
        }
        let fits = self.bytes.len().saturating_add(piece.len()) <= self.most;
        if fits && self.high.is_none() && !self.unfit {
            self.bytes.extend_from_slice(piece);
        } else {
            self.unfit = true;
        }
    }

    /// Returns true if the next byte belongs to an escape.
    pub(crate) fn is_in_escape(&self) -> bool {
        self.escape != Escape::No
    }

    /// Takes the `\` of an escape.
    pub(crate) fn begin_escape(&mut self) {
        self.escape = Escape::Begun;
    }

    /// Takes a byte of an escape.
    pub(crate) fn unescape(&mut self, byte: u8) {
        self.escape = match (self.escape, byte) {
            (Escape::Begun, b'u') => Escape::Digits { count: 0, value: 0 },
            (Escape::Begun, byte) => {
                match byte {
                    b'"' | b'\\' | b'/' => self.push(&[byte]),
                    b'b' => self.push(b"\x08"),
                    b'f' => self.push(b"\x0c"),
                    b'n' => self.push(b"\n"),
                    b'r' => self.push(b"\r"),
                    b't' => self.push(b"\t"),
                    _ => self.unfit = true,
                }
                Escape::No
            }
            (Escape::Digits { count, value }, byte) => {
                let digit = char::from(byte).to_digit(16);
                self.unfit |= digit.is_none();
                let value = value << 4 | digit.unwrap_or_default();
                if count < 3 {
                    let count = count.saturating_add(1);
                    Escape::Digits { count, value }
                } else {
                    self.push_unit(value);
                    Escape::No
                }
            }
            (Escape::No, _) => Escape::No,
        };
    }

    /// Takes bytes of the string as they stand between its quotes, escapes and all.
    pub(crate) fn push_raw(&mut self, raw: &[u8]) {
        let mut rest = raw;
        while let Some((first, after)) = rest.split_first() {
            if self.is_in_escape() {
                self.unescape(*first);
                rest = after;
                continue;
            }
            let plain = rest.iter().position(|byte| *byte == b'\\');
            let (piece, after) = match plain {
                Some(plain) => rest.split_at_checked(plain).unwrap_or((rest, &[])),
                None => (rest, &[][..]),
            };
            self.push(piece);
            rest = after;
            if rest.split_off_first().is_some() {
                self.begin_escape();
            }
        }
    }

    /// Takes one unit of UTF-16.
    fn push_unit(&mut self, unit: u32) {
        let code = match (self.high.take(), unit) {
            (None, 0xd800..=0xdbff) => {
                self.high = Some(unit);
                return;
            }
            (Some(high), 0xdc00..=0xdfff) => {
                let (high, low) = (high & 0x3ff, unit & 0x3ff);
                (high << 10 | low).saturating_add(0x1_0000)
            }
            (Some(_), _) => {
                self.unfit = true;
                return;
            }
            (None, unit) => unit,
        };
        match char::from_u32(code) {
            Some(char) => self.push(char.encode_utf8(&mut [0; 4]).as_bytes()),
            None => self.unfit = true,
        }
    }

    /// The text, if it is one and not too long.
    pub(crate) fn text(&self) -> Option<&str> {
        if self.unfit || self.high.is_some() {
            return None;
        }
        std::str::from_utf8(&self.bytes).ok()
    }
}
