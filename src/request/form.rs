//! Finds in a form with files (`multipart/form-data`, RFC 7578), while it comes, what the gate decides
//! by: the model, and whether the answer is to be streamed.
//!
//! The reader keeps these short values and the headers of one part. It reads each byte once; chunk
//! boundaries may fall anywhere. Where a part could be read in two ways, or as one that it does not
//! seem to be, [`Facts::models_differ`] says so.

use super::peek::{Facts, MAX_MODEL_BYTES, Wanted};
use crate::{header::HeaderText, text::find::find_either};

/// The longest boundary, in bytes (RFC 2046 §5.1.1).
const MAX_BOUNDARY_BYTES: usize = 70;

/// The most bytes that the headers of one part have. Clients write 60 to 200; a file's name may be
/// long.
const MAX_HEADER_BYTES: usize = 2 * 1024;

/// The value of a `content-type` that announces such a form, up to its parameters.
const TYPE: &[u8] = b"multipart/form-data";

/// Reads a form piece by piece.
#[derive(Debug)]
pub struct Form {
    wanted: Wanted,
    facts: Facts,
    model_was_met: bool,
    /// A line's end, two dashes and the boundary.
    delimiter: Vec<u8>,
    state: State,
    /// The headers of the part, or the value of a field, as far as they came.
    text: Vec<u8>,
    field: Field,
    /// The last byte before what has matched of the delimiter was a CR.
    after_cr: bool,
    /// The bytes of the delimiter that have matched.
    matched: usize,
    /// The first of them is only thought: the content begins here.
    at_start: bool,
    /// No part has begun.
    before_parts: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The content of a part, or what comes before the first part.
    Content,
    /// After a delimiter: two dashes end the form, a line's end begins a part.
    Delimiter { dashes: u8 },
    /// The headers of a part.
    Headers,
    /// Everything is known, or nothing more can be.
    Done,
}

/// A field whose value tells something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Model,
    Stream,
    Other,
}

impl Form {
    /// A reader at the start of a form whose `content-type` this is; none where it is no form's.
    pub fn new(content_type: &[u8], wanted: Wanted) -> Option<Self> {
        let boundary = boundary(content_type)?;
        let mut delimiter = b"\n--".to_vec();
        delimiter.extend_from_slice(boundary);
        Some(Self {
            wanted,
            facts: Facts::default(),
            model_was_met: false,
            delimiter,
            state: State::Content,
            text: Vec::new(),
            field: Field::Other,
            after_cr: true,
            // The first delimiter may stand at the very start.
            matched: 1,
            at_start: true,
            before_parts: true,
        })
    }

    /// Takes the next bytes of the form.
    pub fn push(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() && self.state != State::Done {
            match self.state {
                State::Content => self.read_content(&mut rest),
                _ => {
                    if let Some(byte) = rest.split_off_first() {
                        self.read_byte(*byte);
                    }
                }
            }
        }
    }

    /// Returns true if something that is wanted of the form may still come.
    pub fn needs_more(&self) -> bool {
        self.state != State::Done && !self.has_wanted()
    }

    /// The facts.
    pub fn into_facts(self) -> Facts {
        self.facts
    }

    fn has_wanted(&self) -> bool {
        let Wanted {
            model,
            stream,
            whole,
            ..
        } = self.wanted;
        !whole && (!model || self.model_was_met) && (!stream || self.facts.stream.is_some())
    }

    fn read_content(&mut self, rest: &mut &[u8]) {
        if self.matched == 0 {
            let plain = find_either(rest, b'\n', b'\n').unwrap_or(rest.len());
            let plain = rest.split_off(..plain).unwrap_or_default();
            self.keep(plain);
            if let Some(last) = plain.last() {
                self.after_cr = *last == b'\r';
            }
        }
        let Some(byte) = rest.split_off_first() else {
            return;
        };
        if self.delimiter.get(self.matched) == Some(byte) {
            self.matched = self.matched.saturating_add(1);
            if self.matched == self.delimiter.len() {
                self.end_of_part();
            }
            return;
        }
        // A line's end is the delimiter's first byte alone, so no other match is under way.
        let first = usize::from(std::mem::take(&mut self.at_start));
        let seemed = self.delimiter.get(first..self.matched);
        let seemed = seemed.unwrap_or_default().to_vec();
        self.keep(&seemed);
        self.after_cr = false;
        self.matched = usize::from(*byte == b'\n');
        if self.matched == 0 {
            self.keep(&[*byte]);
            self.after_cr = *byte == b'\r';
        }
    }

    /// Keeps content of a field that tells something, and one byte more than such a value has.
    fn keep(&mut self, content: &[u8]) {
        // Whoever does not read forms may find another model there.
        self.facts.models_differ |= self.before_parts && !content.trim_ascii().is_empty();
        if self.field != Field::Other {
            let room = MAX_MODEL_BYTES
                .saturating_add(2)
                .saturating_sub(self.text.len());
            self.text.extend(content.iter().take(room));
        }
    }

    fn end_of_part(&mut self) {
        // Some readers take a bare LF for a line's end, so they see a delimiter where others do not.
        self.facts.models_differ |= !self.after_cr;
        self.matched = 0;
        self.before_parts = false;
        self.state = State::Delimiter { dashes: 0 };
        let text = std::mem::take(&mut self.text);
        let value = text.strip_suffix(b"\r").unwrap_or(&text);
        match std::mem::replace(&mut self.field, Field::Other) {
            Field::Model => self.found_model(value),
            Field::Stream => {
                let stream = match value {
                    b"true" => Some(true),
                    b"false" => Some(false),
                    _ => None,
                };
                self.facts.stream = self.facts.stream.or(stream);
            }
            Field::Other => {}
        }
        if self.model_was_met && self.has_wanted() {
            self.state = State::Done;
        }
    }

    fn found_model(&mut self, value: &[u8]) {
        let fits = (1..=MAX_MODEL_BYTES).contains(&value.len());
        let plain = fits && value.iter().all(u8::is_ascii_graphic);
        let text = std::str::from_utf8(value).ok().filter(|_| plain);
        let model = text.and_then(|text| HeaderText::try_from(text).ok());
        let was_met = std::mem::replace(&mut self.model_was_met, true);
        self.facts.meets_model(model, was_met);
    }

    fn read_byte(&mut self, byte: u8) {
        match (self.state, byte) {
            (State::Delimiter { dashes: 0 }, b'-') => self.state = State::Delimiter { dashes: 1 },
            (State::Delimiter { dashes: 1 }, b'-') => {
                self.facts.whole = true;
                self.state = State::Done;
            }
            (State::Delimiter { dashes: 0 }, b'\n') => self.state = State::Headers,
            (State::Delimiter { dashes: 0 }, b' ' | b'\t' | b'\r') => {}
            (State::Headers, byte) => {
                self.text.push(byte);
                if self.text == b"\r\n" || self.text.ends_with(b"\r\n\r\n") {
                    self.end_of_headers();
                } else if self.text.len() >= MAX_HEADER_BYTES {
                    self.state = State::Done;
                }
            }
            // The boundary was longer: another one's, or nobody's.
            _ => self.state = State::Done,
        }
    }

    fn end_of_headers(&mut self) {
        let headers = std::mem::take(&mut self.text);
        self.field = match field(&headers) {
            Ok(field) => field,
            Err(Unclear) => {
                self.facts.models_differ = true;
                Field::Other
            }
        };
        // A delimiter may follow at once.
        (self.after_cr, self.at_start) = (true, true);
        self.matched = 1;
        self.state = State::Content;
    }
}

/// Headers of a part that readers may take in two ways.
struct Unclear;

/// The field that a part with these headers is.
fn field(headers: &[u8]) -> Result<Field, Unclear> {
    let text = std::str::from_utf8(headers).map_err(|_| Unclear)?;
    let mut named = None;
    for line in text.split('\n') {
        let line = line.trim_end_matches('\r');
        let is_folded = line.starts_with([' ', '\t']);
        if is_folded {
            return Err(Unclear);
        }
        let Some((header, value)) = line.split_once(':') else {
            continue;
        };
        if !header.trim().eq_ignore_ascii_case("content-disposition") {
            continue;
        }
        for parameter in value.split(';').skip(1) {
            let Some((name, value)) = parameter.split_once('=') else {
                continue;
            };
            let name = name.trim();
            if name.eq_ignore_ascii_case("name*") {
                return Err(Unclear);
            }
            if name.eq_ignore_ascii_case("name") && named.replace(value.trim()).is_some() {
                return Err(Unclear);
            }
        }
    }
    let name = named.ok_or(Unclear)?;
    let name = name
        .strip_prefix('"')
        .and_then(|name| name.strip_suffix('"'))
        .unwrap_or(name);
    if name.contains(['"', '\\', '%']) {
        return Err(Unclear);
    }
    Ok(match name {
        "model" => Field::Model,
        "stream" => Field::Stream,
        // Readers that take names in any case, or lists, would read a model.
        name if name.to_ascii_lowercase().starts_with("model") => return Err(Unclear),
        _ => Field::Other,
    })
}

/// The boundary that a `content-type` names.
fn boundary(content_type: &[u8]) -> Option<&[u8]> {
    let (kind, rest) = content_type.split_at_checked(TYPE.len())?;
    if !kind.eq_ignore_ascii_case(TYPE) {
        return None;
    }
    let mut parameters = rest.split(|byte| *byte == b';').filter_map(|parameter| {
        let at = parameter.iter().position(|byte| *byte == b'=')?;
        let (name, value) = parameter.split_at_checked(at)?;
        let is_it = name.trim_ascii().eq_ignore_ascii_case(b"boundary");
        is_it.then(|| value.get(1..).unwrap_or_default().trim_ascii())
    });
    let value = parameters.next()?;
    let value = value
        .strip_prefix(b"\"")
        .and_then(|value| value.strip_suffix(b"\""))
        .unwrap_or(value);
    let fits = (1..=MAX_BOUNDARY_BYTES).contains(&value.len());
    (fits && value.iter().all(|byte| matches!(byte, b' '..=b'~'))).then_some(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TYPE_OF_X: &[u8] = b"multipart/form-data; boundary=x-1";

    const WHOLE: Wanted = Wanted {
        members: &[],
        model: true,
        session: None,
        opening: &[],
        stream: true,
        store: false,
        background: false,
        things: &[],
        whole: true,
    };

    fn part(headers: &str, content: &str) -> String {
        format!("--x-1\r\nContent-Disposition: form-data; {headers}\r\n\r\n{content}\r\n")
    }

    fn form(parts: &[String]) -> String {
        format!("{}--x-1--\r\n", parts.concat())
    }

    fn read(form: &str) -> Facts {
        let mut reader = Form::new(TYPE_OF_X, WHOLE).unwrap();
        reader.push(form.as_bytes());
        reader.into_facts()
    }

    fn usual() -> String {
        form(&[
            part(
                "name=\"file\"; filename=\"a.mp3\"\r\nContent-Type: audio/mpeg",
                "ID3\r\n--x-2\r\n\n--x\r\n--x-",
            ),
            part("name=\"model\"", "whisper-1"),
            part("name=\"stream\"", "true"),
            part("name=\"prompt\"", "name=\"model\"\r\n\r\nother"),
        ])
    }

    #[test]
    fn a_form_names_its_model_wherever_it_stands() {
        let facts = read(&usual());
        assert_eq!(facts.model.unwrap().as_str(), "whisper-1");
        assert_eq!(facts.stream, Some(true));
        assert!(facts.whole && !facts.models_differ);
        let first = form(&[
            part("name=model", "m"),
            part("name=\"file\"", &"x".repeat(9_000)),
        ]);
        assert_eq!(read(&first).model.unwrap().as_str(), "m");
        let none = read(&form(&[part("name=\"file\"", "model")]));
        assert!(none.model.is_none() && none.whole && !none.models_differ);
        assert!(read("--x-1--").whole && !read("--x-1-").whole);
    }

    #[test]
    fn it_needs_no_more_than_is_wanted() {
        let wanted = Wanted {
            whole: false,
            stream: false,
            ..WHOLE
        };
        let mut reader = Form::new(TYPE_OF_X, wanted).unwrap();
        reader.push(part("name=\"model\"", "m").as_bytes());
        assert!(reader.needs_more(), "it may go on");
        reader.push(b"--x-1\r\n");
        assert!(!reader.needs_more());
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_told() {
        let good = part("name=\"model\"", "a");
        for odd in [
            part("name=\"model\"", "b"),
            part("name=\"Model\"", "b"),
            part("name=\"model[]\"", "b"),
            part("name=\"mod\\el\"", "b"),
            part("name=\"x\"; name*=UTF-8''model", "b"),
            part("name=\"x\"; name=\"model\"", "b"),
            part("name=\"x\";\r\n name=\"model\"", "b"),
            part("filename=\"x\"", "b"),
            part(
                "name=\"x\"",
                "c\n--x-1\nContent-Disposition: form-data; name=\"model\"\n\nb",
            ),
            part("name=\"model\"", ""),
            part("name=\"model\"", &"m".repeat(MAX_MODEL_BYTES + 1)),
        ] {
            let facts = read(&form(&[good.clone(), odd.clone()]));
            assert!(facts.models_differ || !facts.whole, "{odd}");
        }
        let same = read(&form(&[good.clone(), good.clone()]));
        assert!(same.whole && !same.models_differ);
        // Who reads no forms finds JSON in it.
        let json = read(&format!(
            "{{\"model\":\"b\"}}\r\n{}",
            form(std::slice::from_ref(&good))
        ));
        assert!(json.whole && json.models_differ);
        let blank = read(&format!("\r\n{}", form(&[good])));
        assert!(blank.whole && !blank.models_differ);
    }

    #[test]
    fn only_a_form_with_a_boundary_is_one() {
        for good in [
            "multipart/form-data; boundary=x",
            "Multipart/Form-Data;charset=utf-8; Boundary=\"x y\"",
        ] {
            assert!(Form::new(good.as_bytes(), WHOLE).is_some(), "{good}");
        }
        let long = format!("multipart/form-data; boundary={}", "x".repeat(71));
        for bad in [
            "application/json",
            "multipart/form-data",
            "multipart/form-data; boundary=",
            &long,
        ] {
            assert!(Form::new(bad.as_bytes(), WHOLE).is_none(), "{bad}");
        }
    }

    #[test]
    fn headers_have_a_bound() {
        let long = part(
            &format!(
                "name=\"file\"; filename=\"{}\"",
                "x".repeat(MAX_HEADER_BYTES)
            ),
            "x",
        );
        let facts = read(&form(&[long, part("name=\"model\"", "m")]));
        assert!(facts.model.is_none() && !facts.whole);
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_same(cuts in prop::collection::vec(1_usize..9, 1..20), junk: Vec<u8>, take_junk: bool) {
            let usual = usual().into_bytes();
            let form = if take_junk { junk } else { usual };
            let mut at_once = Form::new(TYPE_OF_X, WHOLE).unwrap();
            at_once.push(&form);
            let mut in_pieces = Form::new(TYPE_OF_X, WHOLE).unwrap();
            let mut rest = form.as_slice();
            for cut in cuts.iter().cycle() {
                let (piece, after) = rest.split_at(rest.len().min(*cut));
                in_pieces.push(piece);
                rest = after;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(in_pieces.into_facts(), at_once.into_facts());
        }

        #[test]
        fn no_form_panics(kind: Vec<u8>, parts in "[-x1\r\n:=;\" a-z]{0,120}") {
            Form::new(&kind, WHOLE);
            let mut reader = Form::new(TYPE_OF_X, WHOLE).unwrap();
            reader.push(format!("--x-1\r\n{parts}").as_bytes());
        }
    }
}
