use proptest::prelude::*;

use super::*;

fn whole(text: &str) -> String {
    let bytes = Unwrap::new("response").on_body(text.as_bytes(), true);
    String::from_utf8(bytes).unwrap()
}

fn event(data: &str) -> String {
    format!("data: {data}\r\n\r\n")
}

const INNER: &str =
    r#"{"candidates": [{"content":{"parts":[{"text":"a\"}{\\"}]}}] , "response":{"response":1}}"#;

#[test]
fn what_stands_in_the_member_goes_on_byte_by_byte() {
    for around in [
        "{\"response\":X,\"traceId\":\"t\"}",
        " { \"response\" : X }",
        "{\"traceId\":\"response\",\"n\":[1,{\"response\":{}}],\"response\":X}",
        "{\"response\":X,\"a\":{\"response\":{}},\"response2\":{}}",
    ] {
        let blank = if around.starts_with(' ') { " " } else { "" };
        let (text, expected) = (around.replace('X', INNER), format!("{blank}{INNER}"));
        assert_eq!(whole(&text), expected);
        assert_eq!(whole(&event(&text)), event(&expected));
    }
    let list = format!("[{{\"response\":{INNER}}}\n,{{\"x\":1,\"response\":{{}}}}]\n");
    assert_eq!(whole(&list), format!("[{INNER}\n,{{}}]\n"));
    let marked = format!("\u{feff}: hi\n\ndata: {{\"response\":{INNER}}}\n\ndata: [DONE]\n\n");
    assert_eq!(
        whole(&marked),
        format!("\u{feff}: hi\n\ndata: {INNER}\n\ndata: [DONE]\n\n")
    );
}

#[test]
fn what_has_no_such_member_is_as_it_came() {
    for text in [
        r#"{"error":{"code":429,"message":"response"}}"#,
        r#"[{"error":{"code":429,"response":{}}}]"#,
        r#"{"response":null}"#,
        r#"{"response":"x","candidates":[]}"#,
        r#"{"response":[{"response":{}}]}"#,
        r#"{"response":1{"a":2}}"#,
        r#"{"respons":{},"x":"response"}"#,
        r#"{"respons\u0065":{}}"#,
        r#"{"trace"#,
        "[[{\"response\":{}}]]",
        "<html>{\"response\":{}}</html>",
        "",
        "  ",
        "null",
    ] {
        assert_eq!(whole(text), text);
        if !text.starts_with('<') {
            assert_eq!(whole(&event(text)), event(text));
        }
    }
}

/// So is an error in the middle of a stream.
#[test]
fn each_event_is_looked_at_for_itself() {
    let error = event(r#"{"error":{"code":503}}"#);
    let stream = [
        event("{\"response\":{\"a\":1}}"),
        error.clone(),
        event("{\"response\":{}}"),
    ]
    .concat();
    assert_eq!(
        whole(&stream),
        [event("{\"a\":1}"), error, event("{}")].concat()
    );
}

#[test]
fn what_is_cut_or_has_the_member_twice_is_no_whole_text() {
    for (text, expected) in [
        (r#"{"response":{"a":1}"#, r#"{"a":1"#),
        (r#"{"response":{"a":1},"traceId":"x"#, r#"{"a":1"#),
        (r#"{"response":{"a":[1"#, r#"{"a":[1"#),
        (r#"{"response":{"a":1},"response":{"a":2}}"#, r#"{"a":1"#),
    ] {
        assert_eq!(whole(text), expected);
        let next = event("{\"response\":{}}");
        let stream = whole(&format!("{}{next}", event(text)));
        let cut = match expected.ends_with("[1") {
            true => event(expected),
            false => format!("data: {expected}\n\n"),
        };
        assert!(stream.starts_with(&cut), "{stream:?}");
        assert!(stream.ends_with(&event("{}")), "{stream:?}");
    }
}

#[test]
fn an_event_of_several_lines_stays_one() {
    let text = "data: {\"traceId\":1,\nid: 7\ndata: \"response\":\ndata: {\"a\":\ndata: 1}\ndata: ,\"b\":2\ndata: }\n\ndata: {}\n\n";
    assert_eq!(whole(text), "data: {\"a\":\ndata: 1}\n\ndata: {}\n\n");
}

#[test]
fn what_comes_before_the_member_is_kept_within_a_bound() {
    let long = "x".repeat(MAX_BEFORE_BYTES);
    let text = format!("{{\"a\":\"{long}\",\"response\":{{}}}}");
    assert_eq!(whole(&text), text);
    let mut unwrap = Unwrap::new("response");
    assert!(unwrap.on_body(b"{\"a\":\"", false).is_empty());
    for _ in 0..100 {
        unwrap.on_body(&[b'x'; 1000], false);
        assert!(unwrap.before.len() <= MAX_BEFORE_BYTES + 1000);
    }
    let name = "n".repeat(1000);
    unwrap.on_body(format!("\",\"{name}\":").as_bytes(), false);
    assert!(unwrap.name.len() <= "response".len() + 1);
}

proptest! {
    #[test]
    fn where_the_chunks_are_cut_does_not_matter(
        cuts in prop::collection::vec(0_usize..400, 0..12),
        kind in 0..6,
        line_end in prop::sample::select(vec!["\n", "\r\n", "\r"]),
    ) {
        let l = line_end;
        let wrapped = format!("{{\"traceId\":\"t\",\"response\": {INNER} , \"x\":[{{}}]}}");
        let text = match kind {
            0 => wrapped,
            1 => format!("\u{feff}: hi{l}{l}event: a{l}data: {wrapped}{l}{l}data: [DONE]{l}{l}"),
            2 => format!("{l}data:{{\"x\":1,{l}data: \"response\":{{}},{l}data: \"y\":{{}}}}{l}{l}data: {wrapped}{l}{l}"),
            3 => format!("[{wrapped},{l}{wrapped}]"),
            4 => format!("data: {{\"response\":{{\"a\":1}}{l}{l}data: {{\"error\":{{}}}}{l}{l}data: {wrapped}"),
            _ => format!("{{\"response\":{{}},\"response\":{{}}}}{l}"),
        };
        let expected = whole(&text);
        let mut at: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
        at.extend([0, text.len()]);
        at.sort_unstable();
        let mut unwrap = Unwrap::new("response");
        let mut made = Vec::new();
        for pair in at.windows(2) {
            made.extend(unwrap.on_body(&text.as_bytes()[pair[0]..pair[1]], false));
        }
        made.extend(unwrap.on_body(b"", true));
        prop_assert_eq!(String::from_utf8_lossy(&made), expected);
    }

    #[test]
    fn nothing_makes_it_panic_or_grow(pieces in prop::collection::vec("(data:|\\{\"response\":|\\{|\\}|\r?\n|[ \\n\"{}\\[\\]:,\\\\datresponse]{0,9}){0,9}", 0..20)) {
        let mut unwrap = Unwrap::new("response");
        let (mut came, mut went) = (0, 0);
        for piece in &pieces {
            came += piece.len();
            went += unwrap.on_body(piece.as_bytes(), false).len();
        }
        went += unwrap.on_body(b"", true).len();
        // Also an event that is cut: the end that it gets stands in the place of its own.
        prop_assert!(went <= came, "{went} of {came}");
    }
}
