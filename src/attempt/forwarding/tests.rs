use proptest::prelude::*;

use super::*;

const STREAM: &[u8] = include_bytes!("../../../tests/fixtures/openai/chat.sse");

/// Returns what the caller gets of these chunks, and what they used.
fn passed(chunks: &[&[u8]], asked: bool) -> (Vec<u8>, Metered) {
    let mut forwarding = Forwarding::new(
        Dialect::Chat,
        if asked {
            UsageAsk::Asked
        } else {
            UsageAsk::NotAsked
        },
    );
    let mut got = Vec::new();
    for (index, chunk) in chunks.iter().enumerate() {
        let end = index + 1 == chunks.len();
        match forwarding.on_body(chunk, end) {
            Some(instead) => got.extend(instead),
            None => got.extend_from_slice(chunk),
        }
    }
    (got, forwarding.finish(true, 0))
}

/// The stream as it comes to one who did not ask for usage.
fn without_usage() -> Vec<u8> {
    let text = String::from_utf8(STREAM.to_vec()).unwrap();
    let events = text.split_inclusive("\n\n");
    let kept = events.filter(|event| !event.contains("\"choices\":[]"));
    kept.collect::<String>().into_bytes()
}

/// What an answer is, its first bytes tell: they are held back until they do, and none is lost.
#[test]
fn the_kind_is_the_same_wherever_the_beginning_is_cut() {
    for text in [
        "e\0u",
        "event",
        "data: {\"usage\":{\"prompt_tokens\":3}}\n\n",
        "\n\ndata: {\"usage\":{\"prompt_tokens\":3}}\n\n",
        "\u{feff}data: {\"usage\":{\"prompt_tokens\":3}}\n\n",
        "\u{feff}dat: {}",
        "{\"usage\":{\"prompt_tokens\":3}}",
        "\u{feff}",
        "retry",
        "id3",
        " \n",
        "",
    ] {
        let whole = passed(&[text.as_bytes()], false);
        assert_eq!(whole.0, text.as_bytes());
        for cut in 0..=text.len() {
            let (one, two) = text.as_bytes().split_at(cut);
            assert_eq!(passed(&[one, two], false), whole, "{text:?} at {cut}");
        }
        let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).chain([b"".as_slice()]).collect();
        assert_eq!(passed(&bytes, false), whole, "{text:?}");
    }
}

proptest! {
    #[test]
    fn the_caller_gets_what_it_asked_for_wherever_the_chunks_are_cut(
        cuts in prop::collection::vec(0..STREAM.len(), 0..12), asked: bool, tail in 0..4_usize,
    ) {
        // What a stream ends with may lack its blank line.
        let stream = STREAM.get(..STREAM.len() - tail).unwrap();
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(stream.len())).collect();
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        let chunks: Vec<_> = cuts.windows(2).map(|pair| &stream[pair[0]..pair[1]]).collect();
        let (got, metered) = passed(&chunks, asked);
        let whole = if asked { without_usage() } else { STREAM.to_vec() };
        prop_assert_eq!(&got[..], &whole[..whole.len() - tail]);
        prop_assert_eq!(metered.usage.unwrap().total, 3003);
    }
}

proptest! {
    #[test]
    fn what_was_read_ahead_is_neither_lost_nor_counted_twice(
        cuts in prop::collection::vec(0..STREAM.len(), 1..6), asked: bool, more: bool,
    ) {
        let usage_ask = if asked { UsageAsk::Asked } else { UsageAsk::NotAsked };
        let mut forwarding = Forwarding::new(Dialect::Chat, usage_ask);
        let mut cuts = cuts;
        cuts.push(0);
        cuts.sort_unstable();
        for pair in cuts.windows(2) {
            forwarding.read_ahead(&STREAM[pair[0]..pair[1]]);
        }
        let held = *cuts.last().unwrap();
        if !forwarding.goes_on_from_here(usage_ask) {
            forwarding = Forwarding::new(Dialect::Chat, usage_ask);
        }
        let mut got = Vec::new();
        let pieces = match more {
            true => vec![(&STREAM[..held], false), (&STREAM[held..], true)],
            false => vec![(STREAM, true)],
        };
        for (piece, end) in pieces {
            let instead = forwarding.on_body(piece, end);
            got.extend(instead.unwrap_or_else(|| piece.to_vec()));
        }
        let expected = if asked { without_usage() } else { STREAM.to_vec() };
        prop_assert_eq!(got, expected);
        let metered = forwarding.finish(true, 0);
        prop_assert_eq!(metered.usage.unwrap().total, 3003);
    }
}

const OVERLOADED: &[u8] =
    include_bytes!("../../../tests/fixtures/anthropic/message_then_overloaded.sse");
const LIMITED: &[u8] =
    include_bytes!("../../../tests/fixtures/codex/response_failed_rate_limit_exceeded.sse");
const GAVE_UP: &[u8] = include_bytes!("../../../tests/fixtures/meter/responses_failed.sse");

/// Returns the platform's last words, and how much was kept of the answer at most.
fn failure(dialect: Dialect, chunks: &[&[u8]]) -> (Option<ErrorBody>, usize) {
    let (mut forwarding, mut kept) = (Forwarding::new(dialect, UsageAsk::NotAsked), 0);
    let mut failure = None;
    for (index, chunk) in chunks.iter().enumerate() {
        forwarding.on_body(chunk, index + 1 == chunks.len());
        kept = kept.max(forwarding.kept_bytes());
        let now = forwarding.take_failure();
        assert!(now.is_none() || failure.is_none(), "told twice");
        failure = failure.or(now);
    }
    (failure, kept)
}

proptest! {
    #[test]
    fn an_error_in_the_middle_is_read_wherever_the_chunks_are_cut(
        cuts in prop::collection::vec(0..10_000_usize, 0..12), which in 0..3_usize, crlf: bool, tail in 0..3_usize,
    ) {
        let (dialect, stream, code) = [
            (Dialect::Messages, OVERLOADED, "overloaded_error"),
            (Dialect::Responses, LIMITED, "rate_limit_exceeded"),
            (Dialect::Responses, GAVE_UP, "server_error"),
        ][which];
        let text = String::from_utf8(stream.to_vec()).unwrap();
        let text = text.trim_end().to_owned() + &"\n".repeat(tail);
        let stream = if crlf { text.replace('\n', "\r\n") } else { text }.into_bytes();
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut % stream.len()).collect();
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        let chunks: Vec<_> = cuts.windows(2).map(|pair| &stream[pair[0]..pair[1]]).collect();
        let (failure, kept) = failure(dialect, &chunks);
        prop_assert!(failure.is_some_and(|error| error.has_code(code)));
        prop_assert!(kept <= MAX_EVENT_BYTES);
    }
}

#[test]
fn the_meter_takes_a_blank_line_for_one_before_its_last_byte() {
    let text = String::from_utf8(OVERLOADED.to_vec()).unwrap();
    let stream = text.replace('\n', "\r\n").into_bytes();
    let (most, last) = stream.split_at(stream.len() - 1);
    assert_eq!(last, b"\n");
    let (failure, _) = failure(Dialect::Messages, &[most, last]);
    assert!(failure.is_some_and(|error| error.has_code("overloaded_error")));
}

#[test]
fn a_good_stream_tells_no_failure_and_is_not_kept() {
    let large = format!(
        "data: {{\"a\":\"{}\"}}\n\n",
        "x".repeat(3 * MAX_EVENT_BYTES)
    );
    let pieces: Vec<_> = large.as_bytes().chunks(1_000).collect();
    let (none, kept) = failure(Dialect::Chat, &pieces);
    assert!(none.is_none() && kept <= MAX_EVENT_BYTES);
    assert_eq!(failure(Dialect::Chat, &[STREAM, b""]), (None, 0));
    let json: &[u8] = br#"{"choices":[],"error":{"code":"x"}}"#;
    assert_eq!(failure(Dialect::Chat, &[json, b""]), (None, 0));
}

#[test]
fn blank_lines_before_an_answer_tell_nothing() {
    let body: [&[u8]; 3] = [b"\n", b" \r\n", br#"{"usage":{"prompt_tokens":3}}"#];
    let (got, metered) = passed(&body, false);
    assert_eq!(got, body.concat());
    assert_eq!(metered.usage.unwrap().input, 3);
    assert_eq!(metered.completeness, Completeness::Whole);
    let empty = passed(&[b"", b"\n"], false).1;
    assert_eq!(
        (empty.usage, empty.completeness),
        (None, Completeness::Whole)
    );
}

#[test]
fn a_caller_that_leaves_before_a_byte_of_the_answer_pays_for_what_it_sent() {
    let left = |end| {
        let mut forwarding = Forwarding::new(Dialect::Chat, UsageAsk::NotAsked);
        forwarding.on_body(b"\n", false);
        let metered = forwarding.finish(end, 401);
        (metered.usage.map(|usage| usage.total), metered.estimate)
    };
    assert_eq!(left(false), (Some(101), true));
    assert_eq!(left(true), (Some(101), true), "an empty answer");
    assert_eq!(Usage::of_request(0), None);
}
