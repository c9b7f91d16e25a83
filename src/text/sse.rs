//! The framing of event streams (WHATWG HTML §9.2.6, "Interpreting an event stream").
//!
//! Nothing is held back or copied: names and data come in pieces as large as the input has them,
//! so that lines need no bound, and the pieces together are the same wherever the input was cut.
//! Whoever needs an event whole puts them together.

use super::find::find_line_end;

/// The mark with which a stream may begin.
pub(super) const BYTE_ORDER_MARK: [u8; 3] = [0xef, 0xbb, 0xbf];

/// The beginnings of a stream's first line.
const BEGINNINGS: [&[u8]; 5] = [b"data:", b"event:", b"id:", b"retry:", b":"];

/// Returns true if the text begins as a stream does, a byte order mark apart; none where a few more bytes have to
/// tell.
pub(super) fn begins(text: &[u8]) -> Option<bool> {
    if BEGINNINGS.iter().any(|one| text.starts_with(one)) {
        return Some(true);
    }
    let may_begin = BEGINNINGS.iter().any(|one| one.starts_with(text));
    (!may_begin).then_some(false)
}

/// Writes an event without a name.
pub fn write_data(bytes: &mut Vec<u8>, data: &[u8]) {
    bytes.extend_from_slice(b"data: ");
    bytes.extend_from_slice(data);
    bytes.extend_from_slice(b"\n\n");
}

/// Writes an event that has a name.
pub fn write_event(bytes: &mut Vec<u8>, name: &str, data: &[u8]) {
    bytes.extend_from_slice(b"event: ");
    bytes.extend_from_slice(name.as_bytes());
    bytes.push(b'\n');
    write_data(bytes, data);
}

/// The next bytes of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// A piece of the value of an `event` field.
    Name {
        /// The bytes.
        piece: &'a [u8],
        /// The value begins with this piece: it replaces an earlier name of the same event.
        first: bool,
    },
    /// A piece of the event's data. A `\n` stands between two `data` lines of one event.
    Data(&'a [u8]),
    /// The beginning of a comment, which platforms send to keep a connection alive.
    Comment,
    /// A blank line: the end of the event, if it had any data.
    End,
    /// Blank lines before an event, as many as stand together in the input: they end nothing.
    Blank,
}

/// Splits the bytes of one stream into pieces. Looks at every byte once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Framer {
    place: Place,
    /// The last byte was a CR: a LF right after it belongs to it.
    after_cr: bool,
    /// A byte has come that belongs to no blank line, since the last event's end.
    has_begun: bool,
    /// The event has had a `data` line.
    has_data: bool,
}

/// The fields of an event that are handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Data,
    Event,
}

/// The place of the next byte in a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// After so many bytes of a byte order mark, at the very start.
    Mark(usize),
    /// The start of a line.
    Line,
    /// After so many bytes of a line, all of which match the field's name.
    Name(Field, usize),
    /// After the field's colon, where one space may follow that is not part of the value.
    Space(Field),
    /// The value of a field, of which a piece was handed out or was not.
    Value(Field, bool),
    /// A line of no interest.
    Ignored,
}

// === impl Framer ===

impl Framer {
    /// Takes bytes off the front of `input` until they make a piece, or all of them.
    #[inline]
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Option<Piece<'a>> {
        loop {
            #[cfg(test)]
            super::find::work::add(1);
            let byte = *input.first()?;
            if std::mem::take(&mut self.after_cr) && byte == b'\n' {
                input.split_off_first();
                continue;
            }
            let ends_line = matches!(byte, b'\n' | b'\r');
            match self.place {
                Place::Mark(at) if BYTE_ORDER_MARK.get(at) == Some(&byte) => {
                    input.split_off_first();
                    self.has_begun = true;
                    self.place = Place::Mark(at.saturating_add(1));
                }
                Place::Mark(0 | 3) => self.place = Place::Line,
                Place::Mark(_) => self.place = Place::Ignored,
                Place::Line if ends_line && self.has_begun => {
                    self.end_line(input);
                    (self.has_begun, self.has_data) = (false, false);
                    return Some(Piece::End);
                }
                Place::Line if ends_line => {
                    let blank = take_while(input, |byte| matches!(byte, b'\n' | b'\r'));
                    self.after_cr = blank.last() == Some(&b'\r');
                    return Some(Piece::Blank);
                }
                Place::Line => {
                    self.has_begun = true;
                    if let Some((field, rest)) = Field::whole(input) {
                        *input = rest;
                        self.place = Place::Value(field, false);
                        match self.begins(field) {
                            Some(token) => return Some(token),
                            None => continue,
                        }
                    }
                    match byte {
                        b'd' => self.place = Place::Name(Field::Data, 0),
                        b'e' => self.place = Place::Name(Field::Event, 0),
                        b':' => {
                            self.place = Place::Ignored;
                            return Some(Piece::Comment);
                        }
                        _ => self.place = Place::Ignored,
                    }
                }
                Place::Name(field, at) => {
                    if let Some(token) = self.name(field, at, byte, input) {
                        return Some(token);
                    }
                }
                Place::Space(field) => {
                    if byte == b' ' {
                        input.split_off_first();
                    }
                    self.place = Place::Value(field, false);
                }
                Place::Value(..) | Place::Ignored if ends_line => self.end_line(input),
                Place::Value(field, begun) => {
                    let piece = take_line(input)?;
                    self.place = Place::Value(field, true);
                    return Some(match field {
                        Field::Data => Piece::Data(piece),
                        Field::Event => Piece::Name {
                            piece,
                            first: !begun,
                        },
                    });
                }
                Place::Ignored => {
                    take_line(input);
                }
            }
        }
    }

    /// Takes a byte of a line that may be that of `field`, after `at` bytes of its name.
    #[inline]
    fn name(
        &mut self,
        field: Field,
        at: usize,
        byte: u8,
        input: &mut &[u8],
    ) -> Option<Piece<'static>> {
        let rest = field.name().get(at..).unwrap_or_default();
        if rest.first() == Some(&byte) {
            // Most lines come whole: the name is taken in one step then.
            let taken = if input.starts_with(rest) {
                rest.len()
            } else {
                1
            };
            *input = input.get(taken..).unwrap_or_default();
            self.place = Place::Name(field, at.saturating_add(taken));
            return None;
        }
        match byte {
            b'\n' | b'\r' if rest.is_empty() => self.end_line(input),
            b':' if rest.is_empty() => {
                input.split_off_first();
                self.place = Place::Space(field);
            }
            _ => {
                self.place = Place::Ignored;
                return None;
            }
        }
        self.begins(field)
    }

    /// Begins the value of a field. Returns what stands between it and an earlier one.
    #[inline]
    fn begins(&mut self, field: Field) -> Option<Piece<'static>> {
        let is_data = field == Field::Data;
        (is_data && std::mem::replace(&mut self.has_data, true)).then_some(Piece::Data(b"\n"))
    }

    fn end_line(&mut self, input: &mut &[u8]) {
        self.after_cr = input.split_off_first() == Some(&b'\r');
        self.place = Place::Line;
    }
}

/// Takes off the bytes of the line that `input` has, without its end.
fn take_line<'a>(input: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = find_line_end(input).unwrap_or(input.len());
    input.split_off(..length)
}

/// Takes off the first bytes that fit.
fn take_while<'a>(input: &mut &'a [u8], fits: impl Fn(u8) -> bool) -> &'a [u8] {
    let length = input.iter().position(|byte| !fits(*byte));
    let length = length.unwrap_or(input.len());
    input.split_off(..length).unwrap_or_default()
}

// === impl Field ===

impl Field {
    fn name(self) -> &'static [u8] {
        match self {
            Self::Data => b"data",
            Self::Event => b"event",
        }
    }

    /// The field that a line begins with, and what follows its name, colon and space, if all of that is there: most
    /// lines come whole.
    #[inline]
    fn whole(line: &[u8]) -> Option<(Self, &[u8])> {
        match line {
            [b'd', b'a', b't', b'a', b':', b' ', rest @ ..] => Some((Self::Data, rest)),
            [b'e', b'v', b'e', b'n', b't', b':', b' ', rest @ ..] => Some((Self::Event, rest)),
            _ => None,
        }
    }
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

    use super::{super::find::work, *};

    /// The name and the data of each event that had any, and of the unfinished one last.
    fn events(chunks: &[&[u8]]) -> Vec<(String, String)> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (mut framer, mut events) = (Framer::default(), Vec::new());
        let (mut name, mut data) = (Vec::new(), Vec::new());
        for mut chunk in chunks.iter().copied() {
            while let Some(token) = framer.next(&mut chunk) {
                match token {
                    Piece::Name { piece, first } => {
                        if first {
                            name.clear();
                        }
                        name.extend_from_slice(piece);
                    }
                    Piece::Data(piece) => data.extend_from_slice(piece),
                    Piece::End => {
                        events.push((text(&name), text(&data)));
                        (name, data) = (Vec::new(), Vec::new());
                    }
                    Piece::Comment | Piece::Blank => {}
                }
            }
            assert!(chunk.is_empty());
        }
        events.push((text(&name), text(&data)));
        events.retain(|(name, data)| !name.is_empty() || !data.is_empty());
        events
    }

    fn data(chunks: &[&[u8]]) -> Vec<String> {
        let mut data: Vec<_> = events(chunks).into_iter().map(|(_, data)| data).collect();
        data.retain(|data| !data.is_empty());
        data
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
            assert_eq!(data(&[stream.as_bytes()]), ["a\nb", "c"], "{stream:?}");
        }
        assert_eq!(data(&[b"data:  a\ndata\ndata:\n\n"]), [" a\n\n"]);
        assert_eq!(data(&[b"\xef\xbbdata: a\n\ndata: b\n\n"]), ["b"]);
        assert_eq!(data(&[b"data: a\n\n\xef\xbb\xbfdata: b\n\n"]), ["a"]);
    }

    /// Each piece costs who takes it some steps, so blank lines, of which a stranger can send a million, are one.
    #[test]
    fn blank_lines_are_one_piece() {
        let pieces = |stream: &str| {
            let (mut framer, mut rest) = (Framer::default(), stream.as_bytes());
            std::iter::from_fn(|| framer.next(&mut rest)).count()
        };
        for blank in ["\n", "\r", "\r\n", "\n\r"] {
            let run = blank.repeat(100_000);
            assert_eq!(pieces(&run), 1, "{blank:?}");
            let event = format!("data: x{blank}{run}data: y{run}");
            assert_eq!(pieces(&event), 2 + 1 + 2 + 1, "{blank:?}");
        }
    }

    /// Searches look at each byte once at most, and it is gone around for it three times at most, whatever the lines are.
    #[test]
    fn the_work_grows_with_the_stream_alone() {
        for line in [
            "\n",
            "\r",
            "a\n",
            "a\n\n",
            "data:\n",
            "data:",
            ":\n",
            "event:x\r\r",
        ] {
            let stream = line.repeat(100_000);
            for size in [1, 7, stream.len()] {
                let mut framer = Framer::default();
                let examined = work::of(|| {
                    for mut chunk in stream.as_bytes().chunks(size) {
                        while framer.next(&mut chunk).is_some() {}
                    }
                });
                assert!(
                    examined <= 4 * stream.len(),
                    "{line:?} by {size}: {examined}"
                );
            }
        }
    }

    /// Whoever takes the pieces of a stream does so much for each: no byte is more than one, and a line no more than two.
    #[test]
    fn a_byte_is_one_piece_at_most() {
        for (line, most) in [
            ("a\n", 1),
            ("a\n\n", 2),
            ("data:\n", 1),
            ("data:\n\n", 2),
            ("data:{\n\n", 2),
            (":\n", 1),
            ("event:x\r\r", 2),
        ] {
            let stream = line.repeat(10_000);
            for size in [2, 7, stream.len()] {
                let mut framer = Framer::default();
                let mut count = 0;
                for mut chunk in stream.as_bytes().chunks(size) {
                    while framer.next(&mut chunk).is_some() {
                        count += 1;
                    }
                }
                assert!(count <= stream.len(), "{line:?} by {size}: {count}");
                let whole = size == stream.len();
                assert!(!whole || count <= most * 10_000, "{line:?}: {count}");
            }
        }
    }

    #[test]
    fn the_last_name_of_an_event_is_its_name() {
        let named = |stream: &str| {
            events(&[stream.as_bytes()])
                .into_iter()
                .map(|(name, _)| name)
        };
        let names: Vec<_> =
            named("event: a\nevent:b\ndata\n\nevents: x\nevent\nevent: c\n\n").collect();
        assert_eq!(names, ["b", "c"]);
    }

    proptest! {
        #[test]
        fn cuts_change_nothing(
            stream in "(data:? ?|event:? ?|[a:]|é|\u{feff}|\r|\n|\r\n){0,40}",
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
