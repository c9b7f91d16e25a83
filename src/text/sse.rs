//! The framing of event streams (WHATWG HTML §9.2.6, "Interpreting an event stream").
//!
//! Only the `data` field is handed out: the platforms repeat the event's name inside its JSON.
//! Nothing is held back or copied: data comes in pieces as large as the input has them, so that
//! lines need no bound, and the pieces together are the same wherever the input was cut.

use super::find::find_either;

const BYTE_ORDER_MARK: [u8; 3] = [0xef, 0xbb, 0xbf];
const DATA: &[u8] = b"data";

/// What the next bytes of a stream are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token<'a> {
    /// A piece of the event's data. A `\n` stands between two `data` lines of one event.
    Data(&'a [u8]),
    /// A blank line: the end of the event, if it had any data.
    End,
}

/// Splits the bytes of one stream into tokens. Every byte is looked at once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Framer {
    place: Place,
    /// The last byte was a CR: a LF right after it belongs to it.
    after_cr: bool,
    /// The event has had a `data` line.
    has_data: bool,
}

/// Where in a stream the next byte is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// After so many bytes of a byte order mark, at the very start.
    Mark(usize),
    /// After so many bytes of a line, all of which match [`DATA`].
    Name(usize),
    /// After `data:`, where one space may follow that is not data.
    Space,
    /// In the value of a `data` field.
    Data,
    /// In a line of no interest.
    Ignored,
}

// === impl Framer ===

impl Framer {
    /// Takes bytes off the front of `input` until they make a token, or all of them.
    #[inline]
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Option<Token<'a>> {
        loop {
            let byte = *input.first()?;
            if std::mem::take(&mut self.after_cr) && byte == b'\n' {
                input.split_off_first();
                continue;
            }
            let ends_line = matches!(byte, b'\n' | b'\r');
            match self.place {
                Place::Mark(at) if BYTE_ORDER_MARK.get(at) == Some(&byte) => {
                    input.split_off_first();
                    self.place = Place::Mark(at.saturating_add(1));
                }
                Place::Mark(0 | 3) => self.place = Place::Name(0),
                Place::Mark(_) => self.place = Place::Ignored,
                Place::Name(0) if ends_line => {
                    self.end_line(input);
                    self.has_data = false;
                    return Some(Token::End);
                }
                Place::Name(at) => {
                    if DATA.get(at) == Some(&byte) {
                        input.split_off_first();
                        self.place = Place::Name(at.saturating_add(1));
                    } else if at == DATA.len() && (ends_line || byte == b':') {
                        if ends_line {
                            self.end_line(input);
                        } else {
                            input.split_off_first();
                            self.place = Place::Space;
                        }
                        if std::mem::replace(&mut self.has_data, true) {
                            return Some(Token::Data(b"\n"));
                        }
                    } else {
                        self.place = Place::Ignored;
                    }
                }
                Place::Space => {
                    if byte == b' ' {
                        input.split_off_first();
                    }
                    self.place = Place::Data;
                }
                Place::Data | Place::Ignored if ends_line => self.end_line(input),
                Place::Data => return take_line(input).map(Token::Data),
                Place::Ignored => {
                    take_line(input);
                }
            }
        }
    }

    fn end_line(&mut self, input: &mut &[u8]) {
        self.after_cr = input.split_off_first() == Some(&b'\r');
        self.place = Place::Name(0);
    }
}

/// Takes what `input` has of the line, without its end.
fn take_line<'a>(input: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = find_either(input, b'\n', b'\r').unwrap_or(input.len());
    input.split_off(..length)
}

// === impl Place ===

impl Default for Place {
    fn default() -> Self {
        Self::Mark(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The data of each event that had any, and of the unfinished one last.
    fn events(chunks: &[&[u8]]) -> Vec<String> {
        let mut framer = Framer::default();
        let mut events = Vec::new();
        let mut data: Vec<u8> = Vec::new();
        for mut chunk in chunks.iter().copied() {
            while let Some(token) = framer.next(&mut chunk) {
                match token {
                    Token::Data(piece) => data.extend_from_slice(piece),
                    Token::End => {
                        events.push(String::from_utf8_lossy(&std::mem::take(&mut data)).into());
                    }
                }
            }
            assert!(chunk.is_empty());
        }
        events.push(String::from_utf8_lossy(&data).into());
        events.retain(|data: &String| !data.is_empty());
        events
    }

    #[test]
    fn lines_end_as_the_standard_says() {
        for stream in [
            "data: a\ndata: b\n\ndata: c\n\n",
            "data: a\r\ndata: b\r\n\r\ndata: c\r\n\r\n",
            "data: a\rdata: b\r\rdata: c\r\r",
            "\u{feff}data: a\r\ndata: b\n\rdata: c\n\n",
            ": comment\nevent: x\nid: 1\ndata:a\nretry: 5\ndata:b\n\n:\n\ndata:c\n\n",
            "data: a\ndatabase: x\ndat: x\n data: x\nDATA: x\ndata: b\n\ndata: c",
        ] {
            assert_eq!(events(&[stream.as_bytes()]), ["a\nb", "c"], "{stream:?}");
        }
        assert_eq!(events(&[b"data:  a\ndata\ndata:\n\n"]), [" a\n\n"]);
        assert_eq!(events(&[b"\xef\xbbdata: a\n\ndata: b\n\n"]), ["b"]);
        assert_eq!(events(&[b"data: a\n\n\xef\xbb\xbfdata: b\n\n"]), ["a"]);
    }

    proptest! {
        #[test]
        fn cuts_change_nothing(
            stream in "(data:? ?|[a:]|é|\u{feff}|\r|\n|\r\n){0,40}",
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let stream = stream.as_bytes();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
            cuts.extend([0, stream.len()]);
            cuts.sort_unstable();
            let chunks: Vec<&[u8]> = cuts.windows(2).map(|cut| &stream[cut[0]..cut[1]]).collect();
            prop_assert_eq!(events(&chunks), events(&[stream]));
        }
    }
}
