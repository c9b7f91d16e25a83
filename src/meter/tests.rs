//! The bodies below `meter/` have the shapes that the platforms document and each their own
//! traps: names in the text, in tool calls and in lists, escapes, CRLF, data over several lines.

use proptest::{prelude::*, test_runner::TestRng};

use super::*;
use crate::text::{find::work, sse::Framer};

/// One body as it comes over the wire, and what the platform itself says it used.
struct Fixture {
    name: &'static str,
    body: &'static [u8],
    dialect: Dialect,
    model: &'static str,
    expected: Expected,
}

/// Input, output, cached input, cache write, reasoning and total.
type Tokens = [u64; 6];

#[derive(Clone, Copy)]
enum Expected {
    Reported(Tokens),
    Estimated(Tokens, Completeness),
    Nothing(Completeness),
}

use Completeness::{Cut, Partial, Whole};
use Dialect::{Chat, Ernie, Gemini, Messages, Responses};
use Expected::{Estimated, Nothing, Reported};

macro_rules! fixtures {
    ($($dialect:ident $name:literal $model:literal $expected:expr;)+) => {
        const FIXTURES: &[Fixture] = &[$(Fixture {
            name: $name,
            body: include_bytes!(concat!("../../tests/fixtures/", $name)),
            dialect: $dialect,
            model: $model,
            expected: $expected,
        }),+];
    };
}

/// The counts that the template places of the simulated platform's fixtures hold.
const TEMPLATE: Tokens = [1001, 2002, 0, 0, 0, 3003];

fixtures! {
    Chat "openai/chat.sse" "fixture-model" Reported(TEMPLATE);
    Chat "openai/chat.json" "fixture-model" Reported(TEMPLATE);
    Chat "openai/embeddings.json" "fixture-model" Reported([1001, 0, 0, 0, 0, 1001]);
    Chat "openai/models.json" "" Nothing(Whole);
    Chat "openai/rate_limit_exceeded.json" "" Nothing(Whole);
    Chat "codex/cloudflare_blocked.html" "" Nothing(Partial);
    Chat "meter/chat_include_usage.sse" "gpt-5.6-2026-08-01" Reported([1117, 46, 1024, 0, 32, 1163]);
    Chat "meter/chat_spark.sse" "" Reported([6, 42, 0, 0, 0, 48]);
    Chat "meter/chat_inline_usage.sse" "glm-5.2" Reported([8, 262, 4, 0, 0, 270]);
    Chat "meter/chat_cumulative_usage.sse" "ernie-5.0" Reported([20, 10, 0, 0, 0, 30]);
    Chat "meter/chat_choice_usage.sse" "kimi-k3" Reported([24, 12, 16, 0, 0, 36]);
    Chat "meter/chat_crlf.sse" "deepseek-ai/DeepSeek-V4" Reported([30, 2, 28, 0, 0, 32]);
    Chat "meter/chat_without_usage.sse" "local" Estimated([0, 6, 0, 0, 0, 6], Whole);
    Chat "meter/chat_tool_calls.json" "gpt-5.6-2026-08-01" Reported([1117, 46, 1024, 0, 32, 1163]);
    Responses "openai/response.sse" "fixture-model" Reported(TEMPLATE);
    Responses "openai/response.json" "fixture-model" Reported(TEMPLATE);
    Responses "codex/response.sse" "fixture-model" Reported(TEMPLATE);
    Responses "codex/response_incomplete.sse" "fixture-model" Reported(TEMPLATE);
    Responses "codex/response_failed_rate_limit_exceeded.sse" "fixture-model" Nothing(Whole);
    Responses "codex/error_event_usage_limit_reached.sse" "" Nothing(Partial);
    Responses "meter/responses_cached.sse" "gpt-6.1-sol" Reported([7408, 611, 6912, 256, 576, 8019]);
    Responses "meter/responses_failed.sse" "gpt-6.1-sol" Reported([7408, 611, 6912, 256, 576, 8019]);
    Responses "meter/responses_tool_call.json" "gpt-6.1-sol" Reported([7408, 611, 6912, 256, 576, 8019]);
    Messages "anthropic/message.sse" "fixture-model" Reported(TEMPLATE);
    Messages "anthropic/message.json" "fixture-model" Reported(TEMPLATE);
    Messages "anthropic/count_tokens.json" "" Nothing(Whole);
    Messages "anthropic/error_event_overloaded.sse" "" Nothing(Partial);
    Messages "anthropic/message_then_overloaded.sse" "fixture-model" Estimated([1001, 4, 0, 0, 0, 1005], Partial);
    Messages "meter/messages_cached.sse" "claude-opus-5-5" Reported([20484, 89, 18432, 2048, 41, 20573]);
    Messages "meter/messages_late_input.sse" "glm-5.2" Reported([40, 3, 5, 0, 0, 43]);
    Messages "meter/messages_tool_use.json" "claude-opus-5-5" Reported([60, 40, 30, 20, 5, 100]);
    Gemini "meter/gemini_thinking.sse" "gemini-3.8-flash" Reported([37, 53, 16, 0, 41, 90]);
    Gemini "meter/gemini_blocked.sse" "gemini-2.5-pro" Reported([8, 0, 0, 0, 0, 8]);
    Gemini "meter/gemini_list.json" "gemini-2.5-flash" Reported([5, 4, 4, 0, 0, 9]);
    Ernie "meter/ernie.sse" "" Reported([20, 12, 0, 0, 0, 32]);
    Ernie "meter/ernie.json" "" Reported([20, 3, 0, 0, 0, 23]);
    Ernie "meter/ernie_failed.sse" "" Estimated([20, 4, 0, 0, 0, 24], Partial);
    Gemini "meter/gemini_whole.json" "gemini-2.5-pro" Reported([5, 5, 0, 0, 3, 10]);
}

impl Fixture {
    fn meter(&self) -> Framed {
        Framed::new(self.dialect, self.name.ends_with(".sse"))
    }

    fn metered(&self, chunks: &[&[u8]], end_of_stream: bool) -> Metered {
        metered(self.meter(), chunks, end_of_stream)
    }

    fn expected(&self) -> Metered {
        let usage = |[input, output, cached_input, cache_write, reasoning, total]: Tokens| {
            Some(Usage {
                input,
                output,
                cached_input,
                cache_write,
                reasoning,
                total,
            })
        };
        let (usage, estimate, completeness) = match self.expected {
            Reported(tokens) => (usage(tokens), false, Whole),
            Estimated(tokens, completeness) => (usage(tokens), true, completeness),
            Nothing(completeness) => (None, false, completeness),
        };
        let model = self.model.try_into().ok();
        Metered {
            usage,
            estimate,
            model,
            completeness,
            failed: ["failed", "error_event", "overloaded", "exceeded"]
                .iter()
                .any(|word| self.name.contains(word)),
        }
    }
}

/// A meter and the framer before it, as an answer that is forwarded has them.
#[derive(Debug, Clone, PartialEq)]
struct Framed {
    framer: Option<Framer>,
    meter: Meter,
}

impl Framed {
    fn new(dialect: Dialect, is_sse: bool) -> Self {
        if is_sse {
            let (framer, meter) = (Some(Framer::default()), Meter::of_events(dialect));
            return Self { framer, meter };
        }
        let (framer, meter) = (None, Meter::of_body(dialect));
        Self { framer, meter }
    }

    fn on_body(&mut self, mut chunk: &[u8]) {
        let Some(framer) = &mut self.framer else {
            return self.meter.on_json(chunk);
        };
        while let Some(token) = framer.next(&mut chunk) {
            self.meter.on_token(token);
        }
    }

    fn finish(self, end_of_stream: bool, request_bytes: u64) -> Metered {
        self.meter.finish(end_of_stream, request_bytes)
    }
}

fn metered(mut meter: Framed, chunks: &[&[u8]], end_of_stream: bool) -> Metered {
    for chunk in chunks {
        meter.on_body(chunk);
    }
    meter.finish(end_of_stream, 0)
}

/// Cuts `body` at up to `most` random places.
fn random_chunks<'a>(rng: &mut TestRng, body: &'a [u8], most: usize) -> Vec<&'a [u8]> {
    let mut cuts: Vec<usize> = (0..rng.random_range(1..=most))
        .map(|_| rng.random_range(0..=body.len()))
        .collect();
    cuts.extend([0, body.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|cut| &body[cut[0]..cut[1]]).collect()
}

fn rng() -> TestRng {
    TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha)
}

#[test]
fn every_fixture_gives_the_platforms_own_counts() {
    for fixture in FIXTURES {
        assert_eq!(
            fixture.metered(&[fixture.body], true),
            fixture.expected(),
            "{}",
            fixture.name
        );
        let bytes: Vec<&[u8]> = fixture.body.chunks(1).collect();
        assert_eq!(
            fixture.metered(&bytes, true),
            fixture.expected(),
            "{}",
            fixture.name
        );
    }
}

#[test]
fn one_cut_changes_nothing() {
    for fixture in FIXTURES {
        for at in 0..=fixture.body.len() {
            let (left, right) = fixture.body.split_at(at);
            assert_eq!(
                fixture.metered(&[left, right], true),
                fixture.expected(),
                "{} {at}",
                fixture.name
            );
        }
    }
}

/// The fuzzer found the first of these.
#[test]
fn a_cut_in_what_is_no_json_changes_nothing() {
    for behind in ["\"\"}", "{}}", "[1]}", ":1}", "t\"t\"}", "\"t\",}", "}", ""] {
        for member in [
            "\"is_end\":t",
            "\"error_code\":17",
            "\"is_end\":f",
            "\"error_code\":0",
        ] {
            let body = format!("{{{member}{behind}");
            let whole = metered(Framed::new(Ernie, false), &[body.as_bytes()], false);
            for at in 0..=body.len() {
                let (left, right) = body.as_bytes().split_at(at);
                let cut = metered(Framed::new(Ernie, false), &[left, right], false);
                assert_eq!(cut, whole, "{body} at {at}");
            }
        }
    }
}

/// A piece, from wherever to wherever, leaves the meter as it is when all up to the piece's end came at once. So no way
/// of cutting a body, into two pieces or into a thousand, makes a difference.
///
/// All short pieces are tried, of which those that cut a word, a character or a line end are some, and of the longer ones
/// one of so many, others for each beginning.
#[test]
fn two_cuts_change_nothing() {
    const SHORT: usize = 64;
    const ONE_OF: usize = 23;
    assert_two_cuts_change_nothing(|first, second| {
        second - first <= SHORT || (first * 7 + second) % ONE_OF == 0
    });
}

/// Tries the pieces, from a first to a second cut, of which `is_tried` is true.
fn assert_two_cuts_change_nothing(is_tried: impl Fn(usize, usize) -> bool) {
    for fixture in FIXTURES {
        let (body, length) = (fixture.body, fixture.body.len());
        let meters: Vec<Framed> = (0..=length)
            .map(|end| after(fixture.meter(), &body[..end]))
            .collect();
        for first in 0..=length {
            let whole = metered(meters[first].clone(), &[&body[first..]], true);
            assert_eq!(whole, fixture.expected(), "{} {first}", fixture.name);
            for second in (first..=length).filter(|second| is_tried(first, *second)) {
                let found = after(meters[first].clone(), &body[first..second]);
                let expected = &meters[second];
                assert_eq!(found, *expected, "{} {first} {second}", fixture.name);
            }
        }
    }
}

/// The meter, after a piece more.
fn after(mut meter: Framed, piece: &[u8]) -> Framed {
    meter.on_body(piece);
    meter
}

#[test]
fn ten_thousand_random_chunkings_change_nothing() {
    let mut rng = rng();
    for fixture in FIXTURES.iter().cycle().take(10_000) {
        let chunks = random_chunks(&mut rng, fixture.body, 40);
        assert_eq!(
            fixture.metered(&chunks, true),
            fixture.expected(),
            "{}",
            fixture.name
        );
    }
}

#[test]
fn an_answer_cut_anywhere_is_not_whole() {
    for fixture in FIXTURES
        .iter()
        .filter(|fixture| fixture.expected().completeness == Whole)
    {
        let body = fixture.body;
        // Without harm may be missing: of a JSON text what follows it, of a stream that has come
        // to its end the blank line, of one that was cut the LF of the last CRLF.
        let needed_at_end = body.trim_ascii_end().len();
        let needed = match fixture.name.ends_with(".json") {
            true => needed_at_end,
            false => body.len() - usize::from(body.ends_with(b"\r\n")),
        };
        let whole = fixture.expected().usage.unwrap_or_default();
        for at in 0..body.len() {
            let (cut, ended) = (
                fixture.metered(&[&body[..at]], false),
                fixture.metered(&[&body[..at]], true),
            );
            let expected = if at >= needed { Whole } else { Cut };
            assert_eq!(cut.completeness, expected, "{} {at}", fixture.name);
            let expected = if at >= needed_at_end { Whole } else { Partial };
            assert_eq!(ended.completeness, expected, "{} {at}", fixture.name);
            let usage = cut.usage.unwrap_or_default();
            assert!(
                cut.estimate || usage.output <= whole.output,
                "{} {at}",
                fixture.name
            );
            assert!(usage.input <= whole.input, "{} {at}", fixture.name);
        }
    }
}

#[test]
fn a_stream_cut_before_its_counts_is_estimated() {
    let stream = FIXTURES
        .iter()
        .find(|fixture| fixture.name == "meter/messages_cached.sse")
        .unwrap();
    let at = stream
        .body
        .windows(13)
        .position(|bytes| bytes == b"message_delta")
        .unwrap();
    let metered = stream.metered(&[&stream.body[..at]], false);
    // "Let me see…" and the partial JSON as it stands on the wire, escapes and all.
    let text = 13 + r#"{\"usage\": {\"output_tokens\": 9"#.len() + 2;
    let usage = metered.usage.unwrap();
    assert!(metered.estimate);
    assert_eq!(usage.output, (text as u64).div_ceil(BYTES_PER_TOKEN));
    assert_eq!((usage.input, usage.cached_input), (20484, 18432));
}

/// Returns the charge where the platform did not say, for a request of 4,000 bytes: input and
/// output.
#[test]
fn a_request_is_charged_for_its_prompt_where_the_platform_reports_none() {
    let charged = |dialect, is_sse, body: &str, end| {
        let mut meter = Framed::new(dialect, is_sse);
        meter.on_body(body.as_bytes());
        let Metered {
            usage, estimate, ..
        } = meter.finish(end, 4_000);
        assert!(
            usage.is_none_or(|usage| usage.total == usage.input + usage.output),
            "{body}"
        );
        (usage.map(|usage| (usage.input, usage.output)), estimate)
    };
    let text = r#"data: {"choices":[{"delta":{"content":"12345678"}}]}"#;
    let text = format!("{text}\n\n");
    let done = format!("{text}data: [DONE]\n\n");
    let usage = r#"data: {"usage":{"prompt_tokens":7,"completion_tokens":3}}"#;
    let reported = format!("{text}{usage}\n\n");
    // Cut before its usage came, or never asked for it.
    assert_eq!(charged(Chat, true, &text, false), (Some((1_000, 2)), true));
    assert_eq!(charged(Chat, true, &done, true), (Some((1_000, 2)), true));
    assert_eq!(charged(Chat, true, "data: ", false).0, Some((1_000, 0)));
    let whole = r#"{"choices":[{"message":{"content":"12345678"}}]}"#;
    assert_eq!(charged(Chat, false, whole, true), (Some((1_000, 2)), true));
    let cut = whole.split_at(5).0;
    assert_eq!(charged(Chat, false, cut, false), (Some((1_000, 0)), true));
    // The platform's own count stands.
    assert_eq!(charged(Chat, true, &reported, false), (Some((7, 3)), false));
    let start = |input| {
        format!(
            "data: {{\"type\":\"message_start\",\"message\":{{\"usage\":{{\"input_tokens\":{input}}}}}}}\n\n"
        )
    };
    assert_eq!(
        charged(Messages, true, &start(9), false),
        (Some((9, 0)), false)
    );
    assert_eq!(
        charged(Messages, true, &start(0), false),
        (Some((1_000, 0)), true),
        "the count comes at the end"
    );
    // Without text, as of embeddings, or of what goes on in the background.
    for other in [
        r#"{"data":[],"usage":null}"#,
        r#"{"status":"queued","background":true,"error":null,"output":[],"usage":null}"#,
    ] {
        let usage = charged(Responses, false, other, true);
        assert_eq!(usage, (Some((1_000, 0)), true), "{other}");
    }
    // Errors.
    let failed = "data: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\"}}\n\n";
    assert_eq!(charged(Messages, true, failed, true), (None, false));
    let failed = r#"{"error":{}}"#;
    assert_eq!(charged(Messages, false, failed, true), (None, false));
}

#[test]
fn generated_text_is_counted_in_every_dialect() {
    for (dialect, is_sse, body) in [
        (
            Chat,
            true,
            r#"data: {"choices":[{"delta":{"role":"x","content":"12345678"},"finish_reason":"x"}]}"#,
        ),
        (
            Chat,
            true,
            r#"data: {"choices":[{"delta":{"reasoning_content":"12345678"}}]}"#,
        ),
        (
            Chat,
            true,
            r#"data: {"choices":[{"delta":{"tool_calls":[{"id":"x","function":{"name":"x","arguments":"12345678"}}]}}]}"#,
        ),
        (
            Chat,
            false,
            r#"{"id":"x","choices":[{"message":{"role":"x","content":"12345678"}"#,
        ),
        (
            Responses,
            true,
            r#"data: {"type":"response.output_text.delta","item_id":"x","delta":"12345678","obfuscation":"x"}"#,
        ),
        (
            Responses,
            true,
            r#"data: {"delta":"12345678","type":"response.function_call_arguments.delta"}"#,
        ),
        (
            Responses,
            false,
            r#"{"instructions":"x","text":{"x":"x"},"output":[{"content":[{"type":"x","text":"12345678"}"#,
        ),
        (
            Messages,
            true,
            r#"data: {"type":"content_block_delta","delta":{"type":"text_delta","text":"12345678"}}"#,
        ),
        (
            Messages,
            true,
            r#"data: {"type":"content_block_delta","delta":{"type":"thinking_delta","thinking":"12345678"}}"#,
        ),
        (
            Messages,
            true,
            r#"data: {"type":"content_block_delta","delta":{"type":"input_json_delta","partial_json":"12345678"}}"#,
        ),
        (
            Messages,
            false,
            r#"{"type":"message","content":[{"type":"text","text":"12345678"}"#,
        ),
        (
            Ernie,
            true,
            r#"data: {"id":"x","is_end":false,"result":"12345678","finish_reason":"x"}"#,
        ),
        (
            Ernie,
            false,
            r#"{"id":"x","result":"","function_call":{"name":"x","thoughts":"1234","arguments":"5678"}"#,
        ),
    ] {
        let metered = metered(Framed::new(dialect, is_sse), &[body.as_bytes()], false);
        let expected = Usage {
            output: 2,
            total: 2,
            ..Usage::default()
        };
        assert_eq!(
            (metered.usage, metered.estimate),
            (Some(expected), true),
            "{body}"
        );
    }
    for (dialect, body) in [
        (
            Responses,
            r#"data: {"type":"response.output_text.done","text":"12345678"}"#,
        ),
        (
            Messages,
            r#"data: {"type":"content_block_delta","delta":{"type":"signature_delta","signature":"12345678"}}"#,
        ),
    ] {
        assert_eq!(
            metered(Framed::new(dialect, true), &[body.as_bytes()], false).usage,
            None,
            "{body}"
        );
    }
}

#[test]
fn an_unterminated_last_event_counts_only_at_the_end() {
    let stream: &[u8] = b"data: {\"usage\":{\"prompt_tokens\":1}}\n\ndata: [DONE]";
    let meter = || Framed::new(Chat, true);
    assert_eq!(metered(meter(), &[stream], true).completeness, Whole);
    assert_eq!(metered(meter(), &[stream], false).completeness, Cut);
    let longer = [stream, b"!\n\n"].concat();
    assert_eq!(metered(meter(), &[&longer], true).completeness, Partial);
}

#[test]
fn null_and_absent_counts_do_not_reset() {
    let stream = b"data: {\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4}}\n\n\
        data: {\"usage\":null}\n\ndata: {\"usage\":{}}\n\ndata: {\"usage\":[1]}\n\n\
        data: {\"usage\":{\"completion_tokens\":null}}\n\ndata: [DONE]\n\n";
    let usage = metered(Framed::new(Chat, true), &[stream], true)
        .usage
        .unwrap();
    assert_eq!((usage.input, usage.output, usage.total), (3, 4, 7));
}

#[test]
fn the_first_model_named_is_the_model() {
    let stream =
        b"data: {\"model\":\"\"}\n\ndata: {\"model\":\"a\"}\n\ndata: {\"model\":\"b\"}\n\n";
    assert_eq!(
        metered(Framed::new(Chat, true), &[stream], true).model,
        "a".try_into().ok()
    );
}

#[test]
fn only_a_name_is_a_model() {
    let model = |model: &str| {
        let body = format!(r#"{{"model":"{model}","x":{{"model":"y"}},"usage":{{}}}}"#);
        let chunks: Vec<&[u8]> = body.as_bytes().chunks(7).collect();
        let model = metered(Framed::new(Chat, false), &chunks, true).model;
        model.map(String::from)
    };
    assert_eq!(model(r"a\/b\u0065"), Some("a/be".to_owned()));
    assert_eq!(
        model(&"m".repeat(MAX_NAME_BYTES)),
        Some("m".repeat(MAX_NAME_BYTES))
    );
    for bad in [
        "",
        r"a\r\nb",
        "a\nb",
        r"\x",
        "é",
        r"\u202e",
        &"m".repeat(MAX_NAME_BYTES + 1),
    ] {
        assert_eq!(model(bad), None, "{bad}");
    }
}

/// What a meter does with hostile bodies: its searches look at each byte at most once for the
/// line end and once for the quote, the scanner of streams goes around for it three times at most, and what is kept stays
/// bounded.
fn assert_linear(dialect: Dialect, is_sse: bool, body: &[u8], chunk_bytes: usize) {
    let mut meter = Framed::new(dialect, is_sse);
    let examined = work::of(|| {
        for chunk in body.chunks(chunk_bytes) {
            meter.on_body(chunk);
            assert!(meter.meter.reader.kept_bytes() <= 2 * (MAX_NAME_BYTES + 1));
        }
    });
    assert!(
        examined <= 5 * body.len(),
        "examined {examined} of {} bytes",
        body.len()
    );
    meter.finish(true, 0);
}

#[test]
fn hostile_bodies_take_linear_work_and_bounded_memory() {
    const MIB: usize = 1024 * 1024;
    let bodies = [
        "data:\n".repeat(MIB / 6),
        "data: {\"a\":\n".repeat(MIB / 12),
        format!("data: {}\n\n", "[".repeat(MIB)),
        format!("data: {{\"usage\":{}", "{\"usage\":".repeat(MIB / 9)),
        format!(
            "data: {{\"choices\":[{{\"delta\":{{\"content\":\"{}",
            "\\\\\\\"".repeat(MIB / 4)
        ),
        format!("data: {{\"model\":\"{}\"}}\n\n", "m".repeat(MIB)),
        format!("{}\n\n", "x".repeat(MIB)),
        "\"".repeat(MIB),
        "\r".repeat(MIB),
        "data: {\"usage\":{\"prompt_tokens\":1}}\n\n".repeat(MIB / 37),
        format!("data: {{{}}}\n\n", "\"usage\":{},".repeat(MIB / 11)),
    ];
    for body in &bodies {
        for is_sse in [true, false] {
            assert_linear(Chat, is_sse, body.as_bytes(), 16 * 1024);
        }
        assert_linear(Responses, true, body.as_bytes(), usize::MAX);
    }
    for body in [&bodies[0], &bodies[4]] {
        assert_linear(Chat, true, body.as_bytes(), 1);
    }
}

/// Bodies of the pieces that mean something, in any order.
fn any_body() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::sample::select(vec![
        "data:",
        "data: ",
        "\n",
        "\r\n",
        "\r",
        "\n\n",
        ":",
        ",",
        "{",
        "}",
        "[",
        "]",
        "\"",
        "\\",
        "\\\"",
        " ",
        "é",
        "\"usage\":",
        "\"usage\":{",
        "\"prompt_tokens\":7",
        "\"input_tokens\":3",
        "\"choices\":[",
        "\"delta\":{",
        "\"content\":\"",
        "\"message\":{",
        "\"response\":{",
        "\"model\":\"m\"",
        "\"type\":\"message_start\"",
        "\"type\":\"message_stop\"",
        "\"type\":\"response.completed\"",
        "\"type\":\"ping\"",
        "\"is_end\":",
        "\"error_code\":",
        "[DONE]",
        "null",
        "true",
        "12",
    ]);
    let soup = prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat().into_bytes());
    prop_oneof![soup, any::<Vec<u8>>()]
}

proptest! {
    #[test]
    fn no_body_panics_and_no_cut_matters(
        body in any_body(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        dialect in prop::sample::select(Dialect::OF_PLATFORMS.to_vec()),
        is_sse: bool,
        end_of_stream: bool,
    ) {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(body.len() + 1)).collect();
        cuts.extend([0, body.len()]);
        cuts.sort_unstable();
        let chunks: Vec<&[u8]> = cuts.windows(2).map(|cut| &body[cut[0]..cut[1]]).collect();
        let whole = metered(Framed::new(dialect, is_sse), &[&body], end_of_stream);
        prop_assert_eq!(metered(Framed::new(dialect, is_sse), &chunks, end_of_stream), whole.clone());

        // The length of the request changes the input alone, and only for the more.
        let mut meter = Framed::new(dialect, is_sse);
        meter.on_body(&body);
        let charged = meter.finish(end_of_stream, 4_000);
        let (more, less) = (charged.usage.unwrap_or_default(), whole.usage.unwrap_or_default());
        prop_assert!(more.input == less.input || more.input == 1_000 && charged.estimate);
        prop_assert_eq!(more.output, less.output);
    }
}

/// The same for more (`make long`).
mod long {
    #[test]
    #[ignore = "half a minute"]
    fn every_two_cuts_change_nothing() {
        super::assert_two_cuts_change_nothing(|_, _| true);
    }
}
