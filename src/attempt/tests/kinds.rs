//! All who read an answer take the same beginnings for an answer: none is shown what another does not see.

use std::collections::BTreeMap;

use crate::{
    attempt::{
        asked_model::AskedModel, forwarding::Forwarding, made::MadeReader, unwrap::Unwrap,
        usage_ask::UsageAsk,
    },
    dialect::{About, AnswerTranslation, Dialect, Written},
    text::kind::{BodyKind, MAX_KEPT_BYTES, Start},
    verdict::{Beginning, Look},
};

/// What says nothing, before a text.
const BEFORE: [&str; 7] = [
    "",
    "\n",
    " \t\r\n\n",
    "\u{feff}",
    "\r\n\u{feff}",
    "\u{feff}\n\n",
    "\u{feff}\u{feff} \u{feff}",
];

/// Beginnings of texts. A quote in the first line of events hides all else from who takes them for JSON.
const TEXTS: [(&[u8], BodyKind); 21] = [
    (b"{", BodyKind::Json),
    (b"[", BodyKind::Json),
    (b"data:\n\n", BodyKind::Events),
    (b"event: \"\n\n", BodyKind::Events),
    (b"id: \"\n\n", BodyKind::Events),
    (b"retry: \"\r\n\r\n", BodyKind::Events),
    (b": \"\n\n", BodyKind::Events),
    (b":\n\n", BodyKind::Events),
    (b"dat", BodyKind::Other),
    (b"data\n", BodyKind::Other),
    (b"event\n", BodyKind::Other),
    (b"events: x\n", BodyKind::Other),
    (b"retry ", BodyKind::Other),
    (b"Data: x\n\n", BodyKind::Other),
    (b"\"", BodyKind::Other),
    (b"-", BodyKind::Other),
    (b"<html>", BodyKind::Other),
    (b"\x1f\x8b", BodyKind::Other),
    (b"\xef", BodyKind::Other),
    (b"\xef\xbb", BodyKind::Other),
    (b"\xef\xbbdata: x\n\n", BodyKind::Other),
];

/// A reader: says if it reads what stands in such a body, of which it gets these pieces.
type Reads = fn(&[&[u8]]) -> bool;

/// Each reader, with what it looks for.
const READERS: [(&str, Reads); 6] = [
    (r#"{"error":{"code":"x"}}"#, |pieces| {
        let mut beginning = Beginning::new(Dialect::Gemini, true);
        let mut looked = Look::NeedMore;
        for (piece, end) in with_end(pieces) {
            if looked == Look::NeedMore {
                looked = beginning.look(piece, end);
            }
        }
        matches!(looked, Look::Error(failure) if failure.error.has_code("x"))
    }),
    (r#"{"usageMetadata":{"promptTokenCount":7}}"#, |pieces| {
        let (got, answer) = forwarded(pieces);
        assert_eq!(got, pieces.concat(), "every byte goes on");
        let usage = answer.finish(true, 0).usage;
        usage.is_some_and(|usage| usage.total == 7)
    }),
    (r#"{"a":{"id":"x"}}"#, |pieces| {
        let mut reader = MadeReader::new(vec!["a.id".to_owned()].try_into().unwrap());
        let ids = pieces.iter().flat_map(|piece| reader.push(piece));
        ids.eq(["x"])
    }),
    (r#"{"modelVersion":"m"}"#, |pieces| {
        let mut model = AskedModel::new(Dialect::Gemini, "asked");
        let mut got = Vec::new();
        for (piece, end) in with_end(pieces) {
            let instead = model.on_body(piece, end);
            got.extend(instead.unwrap_or_else(|| piece.to_vec()));
        }
        let all = String::from_utf8_lossy(&pieces.concat()).into_owned();
        let got = String::from_utf8_lossy(&got).into_owned();
        assert!(got == all || got == all.replace("\"m\"", "\"asked\""));
        got != all
    }),
    (r#"{"response":{"a":1}}"#, |pieces| {
        let mut unwrap = Unwrap::new("response");
        let mut got = Vec::new();
        for (piece, end) in with_end(pieces) {
            got.extend(unwrap.on_body(piece, end));
        }
        let all = String::from_utf8_lossy(&pieces.concat()).into_owned();
        let got = String::from_utf8_lossy(&got).into_owned();
        let inner = all.replace(r#"{"response":{"a":1}}"#, r#"{"a":1}"#);
        assert!(got == all || got == inner, "{got:?}");
        got != all
    }),
    (
        r#"{"candidates":[{"content":{"parts":[{"text":"hi"}]},"finishReason":"STOP"}]}"#,
        |pieces| {
            let (platform, caller) = (Dialect::Gemini, Dialect::Chat);
            let (about, renamed) = (About::default(), BTreeMap::new());
            let made = AnswerTranslation::new(platform, caller, false, about, "", renamed);
            let mut translation = made.unwrap();
            let written = with_end(pieces).map(|(piece, end)| translation.on_body(piece, end));
            written
                .filter(|written| matches!(written, Written::Whole(_)))
                .count()
                == 1
        },
    ),
];

/// The pieces, and an empty one at the end, as a proxy has it.
fn with_end<'a>(pieces: &'a [&'a [u8]]) -> impl Iterator<Item = (&'a [u8], bool)> {
    let pieces = pieces.iter().map(|piece| (*piece, false));
    pieces.chain([(&b""[..], true)])
}

fn forwarded(pieces: &[&[u8]]) -> (Vec<u8>, Forwarding) {
    let mut answer = Forwarding::new(Dialect::Gemini, UsageAsk::NotAsked);
    let mut got = Vec::new();
    for (piece, end) in with_end(pieces) {
        let instead = answer.on_body(piece, end);
        got.extend(instead.unwrap_or_else(|| piece.to_vec()));
    }
    (got, answer)
}

/// A body that begins so and has this in it.
fn body(before: &str, text: &[u8], kind: BodyKind, said: &str) -> Vec<u8> {
    let parts: [&[u8]; 4] = match (kind, text) {
        (BodyKind::Json, b"[") => [before.as_bytes(), b"[", said.as_bytes(), b"]"],
        (BodyKind::Json, _) => [before.as_bytes(), b"", said.as_bytes(), b""],
        (BodyKind::Events, _) => [before.as_bytes(), text, b"data: ", said.as_bytes()],
        (BodyKind::Other, _) => [before.as_bytes(), text, said.as_bytes(), b""],
    };
    let end: &[u8] = match kind {
        BodyKind::Events => b"\n\n",
        BodyKind::Json | BodyKind::Other => b"",
    };
    [&parts.concat(), end].concat()
}

#[test]
fn all_readers_take_the_same_beginnings_for_an_answer_wherever_they_are_cut() {
    for before in BEFORE {
        for (text, kind) in TEXTS {
            for (number, (said, reads)) in READERS.into_iter().enumerate() {
                // A list makes nothing.
                if text == b"[" && number == 2 {
                    continue;
                }
                let body = body(before, text, kind, said);
                let whole = [body.as_slice()];
                let bytes: Vec<&[u8]> = body.chunks(1).collect();
                let halves = body.split_at(before.len() + text.len() / 2);
                for pieces in [&whole[..], &bytes, &[halves.0, halves.1]] {
                    let shown = body.escape_ascii();
                    let expected = kind != BodyKind::Other;
                    assert_eq!(reads(pieces), expected, "reader {number}: {shown}");
                }
            }
        }
    }
}

#[test]
fn a_beginning_tells_its_kind_wherever_it_is_cut_and_little_of_it_is_kept() {
    for before in BEFORE {
        for (text, kind) in TEXTS {
            let body = [before.as_bytes(), text].concat();
            let mut start = Start::default();
            let mut pieces = body.iter().map(std::slice::from_ref).chain([&b""[..]]);
            let mut came = 0;
            let told = pieces.find_map(|piece| {
                came += piece.len();
                let begun = start.read(piece, piece.is_empty());
                assert!(begun.bytes.len() <= MAX_KEPT_BYTES + 1);
                let told = begun.kind?;
                // What was kept and what has not come yet is the text.
                let rest = &body[came..];
                assert_eq!([begun.text(), rest].concat(), text);
                Some(told)
            });
            assert_eq!(told, Some(kind), "{}", body.escape_ascii());
        }
        let mut start = Start::default();
        let begun = start.read(before.as_bytes(), true);
        assert_eq!((begun.kind, begun.text()), (None, &b""[..]));
        assert!(!start.has_kept());
    }
}
