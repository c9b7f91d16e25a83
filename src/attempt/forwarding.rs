//! An answer that passes on to the caller: watched, and changed only where the gateway itself
//! made the platform say more than the caller asked for.

use crate::{
    dialect::Dialect,
    meter::{
        Completeness, Meter, Metered, Usage,
        include_usage::{self, ChunkRemover},
    },
    snapshot::Route,
    verdict::{self, ErrorBody, MAX_LOOK_BYTES},
};

/// A good answer's body while it passes. Nothing of it is held but an event that may have to be
/// taken out.
#[derive(Debug)]
pub struct Forwarding {
    dialect: Dialect,
    /// None until the first byte that tells an event stream from one JSON text.
    meter: Option<Meter>,
    remover: Option<ChunkRemover>,
    /// None for an answer that is no event stream, or has failed.
    recent: Option<Recent>,
    failure: Option<ErrorBody>,
}

/// What came of an event that has not ended, at most [`MAX_LOOK_BYTES`]: an event that is larger
/// is no error.
#[derive(Debug, Default)]
struct Recent(Vec<u8>);

// === impl Forwarding ===

impl Forwarding {
    /// For an answer of this dialect; `asked`: the gateway had it asked for usage
    /// ([`request_with_usage`]), and takes the chunk with it out again.
    pub fn new(dialect: Dialect, asked: bool) -> Self {
        Self {
            dialect,
            meter: None,
            remover: asked.then(ChunkRemover::default),
            recent: None,
            failure: None,
        }
    }

    /// The next bytes; `end`: they are the last. What goes on instead of them, or none if just
    /// these do.
    pub fn on_body(&mut self, chunk: &[u8], end: bool) -> Option<Vec<u8>> {
        let text = match &self.meter {
            Some(_) => chunk,
            // Some platforms send blank lines while the answer is being made, of either kind.
            None => chunk.trim_ascii_start(),
        };
        if let Some(first) = text.first() {
            let is_sse = !matches!(first, b'{' | b'[');
            if self.meter.is_none() && is_sse {
                self.recent = Some(Recent::default());
            }
            let meter = self
                .meter
                .get_or_insert_with(|| Meter::new(self.dialect, is_sse));
            meter.on_body(text);
        }
        self.look_for_failure(text, end);
        let replaced = self.remover.as_mut()?.on_body(chunk);
        if !end {
            return replaced;
        }
        let left = self.remover.take()?.finish();
        if left.is_empty() {
            return replaced;
        }
        Some([replaced.unwrap_or_else(|| chunk.to_vec()), left].concat())
    }

    /// What the platform said when it gave up in the middle, once.
    pub fn take_failure(&mut self) -> Option<ErrorBody> {
        self.failure.take()
    }

    fn look_for_failure(&mut self, text: &[u8], end: bool) {
        let Some(recent) = &mut self.recent else {
            return;
        };
        let failed = self.meter.as_ref().is_some_and(Meter::has_failed);
        if !failed && !end {
            return recent.on_body(text);
        }
        // Without the blank line after it, an error at the end is not yet known to be one.
        let events = [recent.0.as_slice(), text].concat();
        if failed || !events.ends_with(b"\n\n") {
            self.failure = verdict::failure(self.dialect, &events);
        }
        self.recent = None;
    }

    /// What the answer used; `end`: its body came to its end. `request_bytes`: how long the
    /// request's body was, 0 where it costs nothing.
    pub fn finish(self, end: bool, request_bytes: u64) -> Metered {
        if let Some(meter) = self.meter {
            return meter.finish(end, request_bytes);
        }
        // Nothing has come, of an answer that was to be anything.
        let usage = Usage::of_request(request_bytes);
        Metered {
            usage,
            estimate: usage.is_some(),
            model: None,
            completeness: completeness(end),
            failed: false,
        }
    }
}

/// How many bytes of a request's body have gone by, as Envoy's calls tell.
#[derive(Debug, Clone, Copy, Default)]
pub struct RequestBytes {
    passed: u64,
    /// Held back. Envoy counts them again with what comes next.
    held: u64,
    whole: bool,
}

/// The most of a request that is waited for so that it can run again, in bytes: what Envoy keeps
/// for that, as `envoy/envoy.yaml` sets it (`request_body_buffer_limit`).
pub const MAX_REPLAY_BYTES: u64 = 32 * 1024 * 1024;

// === impl Recent ===

impl Recent {
    fn on_body(&mut self, chunk: &[u8]) {
        let rest = match after_last_event(chunk) {
            Some(rest) => {
                self.0.clear();
                rest
            }
            None => chunk,
        };
        if self.0.len().saturating_add(rest.len()) > MAX_LOOK_BYTES {
            self.0.clear();
        } else {
            self.0.extend_from_slice(rest);
        }
    }
}

/// What follows the last blank line.
fn after_last_event(chunk: &[u8]) -> Option<&[u8]> {
    let mut head = chunk;
    while let Some(at) = head.iter().rposition(|byte| *byte == b'\n') {
        let (before, rest) = chunk.split_at_checked(at)?;
        if before.ends_with(b"\n") || before.ends_with(b"\n\r") {
            return rest.get(1..);
        }
        head = before;
    }
    None
}

// === impl RequestBytes ===

impl RequestBytes {
    /// Counts a piece of the body; `size` is what Envoy says is there, `goes_on`: it is let go.
    pub fn on_body(&mut self, size: usize, goes_on: bool) {
        let size = u64::try_from(size).unwrap_or(u64::MAX);
        if goes_on {
            self.passed = self.passed.saturating_add(size);
            self.held = 0;
        } else {
            self.held = size;
        }
    }

    /// How many there are so far.
    pub fn total(self) -> u64 {
        self.passed.saturating_add(self.held)
    }

    /// How many of them may be charged: none on a route that is [free](Route::free).
    pub fn charged(self, free: bool) -> u64 {
        if free { 0 } else { self.total() }
    }

    /// No more will come.
    pub fn end(&mut self) {
        self.whole = true;
    }

    /// Whether that was all of the body.
    pub fn is_whole(self) -> bool {
        self.whole
    }

    /// Whether there is more to come, and all of it may still be kept; `length` is the request's
    /// `content-length`.
    pub fn is_worth_waiting_for(self, length: Option<&[u8]>) -> bool {
        let length = length.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
        !self.whole && length.unwrap_or(0).max(self.total()) <= MAX_REPLAY_BYTES
    }
}

/// How much came of an answer that is not metered.
pub fn completeness(end: bool) -> Completeness {
    if end {
        Completeness::Whole
    } else {
        Completeness::Cut
    }
}

/// Whether a request on `route` may have to be asked for usage: its body is needed whole then.
/// `length` is its `content-length`.
pub fn may_ask(route: &Route, length: Option<&[u8]>) -> bool {
    let length = length.map(|digits| std::str::from_utf8(digits).ok()?.parse::<usize>().ok());
    let fits = match length {
        Some(length) => length.is_some_and(|length| length <= include_usage::MAX_REQUEST_BYTES),
        // It may turn out to be small.
        None => true,
    };
    route.include_usage && route.dialect.format().has_usage_option() && fits
}

/// What to do with the body of a request that [may have to be asked](may_ask).
#[derive(Debug, PartialEq, Eq)]
pub enum Asking {
    /// Hold it back until there is more.
    NeedMore,
    /// It goes on as it is.
    AsItIs,
    /// This goes on instead.
    Instead(Vec<u8>),
}

/// Decides once the first `size` bytes of a body are there, which `read` gives; `end`: there are
/// no more.
pub fn request_with_usage(size: usize, end: bool, read: impl FnOnce() -> Vec<u8>) -> Asking {
    if size > include_usage::MAX_REQUEST_BYTES {
        return Asking::AsItIs;
    }
    if !end {
        return Asking::NeedMore;
    }
    include_usage::ask(&read()).map_or(Asking::AsItIs, Asking::Instead)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::snapshot::fixture;

    const STREAM: &[u8] = include_bytes!("../../tests/fixtures/openai/chat.sse");

    /// What the caller gets of these chunks, and what they used.
    fn passed(chunks: &[&[u8]], asked: bool) -> (Vec<u8>, Metered) {
        let mut passing = Forwarding::new(Dialect::Chat, asked);
        let mut got = Vec::new();
        for (index, chunk) in chunks.iter().enumerate() {
            let end = index + 1 == chunks.len();
            match passing.on_body(chunk, end) {
                Some(instead) => got.extend(instead),
                None => got.extend_from_slice(chunk),
            }
        }
        (got, passing.finish(true, 0))
    }

    /// The stream as it comes to one who did not ask for usage.
    fn without_usage() -> Vec<u8> {
        let text = String::from_utf8(STREAM.to_vec()).unwrap();
        let events = text.split_inclusive("\n\n");
        let kept = events.filter(|event| !event.contains("\"choices\":[]"));
        kept.collect::<String>().into_bytes()
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

    const OVERLOADED: &[u8] =
        include_bytes!("../../tests/fixtures/anthropic/message_then_overloaded.sse");
    const LIMITED: &[u8] =
        include_bytes!("../../tests/fixtures/codex/response_failed_rate_limit_exceeded.sse");
    const GAVE_UP: &[u8] = include_bytes!("../../tests/fixtures/meter/responses_failed.sse");

    /// What the platform said when it gave up, and how much was kept of the answer at most.
    fn failure(dialect: Dialect, chunks: &[&[u8]]) -> (Option<ErrorBody>, usize) {
        let (mut passing, mut kept) = (Forwarding::new(dialect, false), 0);
        let mut failure = None;
        for (index, chunk) in chunks.iter().enumerate() {
            passing.on_body(chunk, index + 1 == chunks.len());
            kept = kept.max(passing.recent.as_ref().map_or(0, |recent| recent.0.len()));
            let now = passing.take_failure();
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
            prop_assert!(kept <= MAX_LOOK_BYTES);
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
        let large = format!("data: {{\"a\":\"{}\"}}\n\n", "x".repeat(3 * MAX_LOOK_BYTES));
        let pieces: Vec<_> = large.as_bytes().chunks(1_000).collect();
        let (none, kept) = failure(Dialect::Chat, &pieces);
        assert!(none.is_none() && kept <= MAX_LOOK_BYTES);
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
            let mut passing = Forwarding::new(Dialect::Chat, false);
            passing.on_body(b"\n", false);
            let metered = passing.finish(end, 401);
            (metered.usage.map(|usage| usage.total), metered.estimate)
        };
        assert_eq!(left(false), (Some(101), true));
        assert_eq!(left(true), (Some(101), true), "an empty answer");
        assert_eq!(Usage::of_request(0), None);
    }

    #[test]
    fn what_is_held_of_a_body_counts_once() {
        let mut bytes = RequestBytes::default();
        for (size, goes_on, total) in [
            (10, false, 10),
            (25, false, 25),
            (30, true, 30),
            (5, true, 35),
            (0, true, 35),
        ] {
            bytes.on_body(size, goes_on);
            assert_eq!(bytes.total(), total);
            assert_eq!((bytes.charged(false), bytes.charged(true)), (total, 0));
        }
    }

    #[test]
    fn a_request_that_is_whole_or_too_large_is_not_waited_for() {
        let body = |bytes| {
            let mut body = RequestBytes::default();
            body.on_body(bytes, true);
            body
        };
        assert!(body(10).is_worth_waiting_for(None));
        assert!(body(10).is_worth_waiting_for(Some(b"33554432")));
        assert!(!body(10).is_worth_waiting_for(Some(b"33554433")));
        assert!(!body(33_554_433).is_worth_waiting_for(None));
        let mut whole = body(10);
        whole.end();
        assert!(whole.is_whole() && !whole.is_worth_waiting_for(None));
    }

    #[test]
    fn a_request_is_asked_where_the_platform_needs_it_and_its_body_is_known() {
        let platform = fixture::platform("codex");
        let mut route = platform.routes.first().unwrap().clone();
        route.dialect = Dialect::Chat;
        assert!(!may_ask(&route, None));
        route.include_usage = true;
        assert!(may_ask(&route, None) && may_ask(&route, Some(b"9")));
        assert!(!may_ask(&route, Some(b"8388609")) && !may_ask(&route, Some(b"x")));
        route.dialect = Dialect::Responses;
        assert!(!may_ask(&route, None));

        let body = || br#"{"stream":true}"#.to_vec();
        assert_eq!(request_with_usage(9, false, body), Asking::NeedMore);
        let asked = br#"{"stream_options":{"include_usage":true},"stream":true}"#.to_vec();
        assert_eq!(request_with_usage(9, true, body), Asking::Instead(asked));
        let too_large = include_usage::MAX_REQUEST_BYTES + 1;
        assert_eq!(request_with_usage(too_large, false, body), Asking::AsItIs);
        let odd = || b"{\"stream\":true,".to_vec();
        assert_eq!(request_with_usage(9, true, odd), Asking::AsItIs);
    }
}
