use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{dialect::Dialect, text::find::work};

/// Nothing, of a body of the dialect that has the most members.
fn nothing() -> Wanted {
    Wanted {
        members: Dialect::Responses.format().request_members(),
        ..Wanted::default()
    }
}

fn everything() -> Wanted {
    Wanted {
        model: true,
        session: Some(SessionName::CacheKey),
        stream: true,
        store: true,
        background: true,
        whole: true,
        ..nothing()
    }
}

fn peek(wanted: Wanted, body: &[u8]) -> Facts {
    let mut peek = Peek::new(wanted);
    peek.push(body);
    peek.into_facts()
}

fn model(body: &str) -> Option<String> {
    let facts = peek(everything(), body.as_bytes());
    facts.model.map(|model| model.as_str().to_owned())
}

#[test]
fn a_request_tells_its_model_its_session_and_what_it_wants() {
    let body = json!({
        "input": [{"model": "inner", "stream": false, "text": "a \"quoted\" {brace} \\"}],
        "metadata": {"model": "no", "user_id": "u-1"},
        "store": false,
        "model": "gpt-6.1-sol",
        "prompt_cache_key": "thread-7",
        "previous_response_id": "resp_1",
        "stream": true,
    });
    let facts = peek(everything(), body.to_string().as_bytes());
    assert_eq!(facts.model.unwrap().as_str(), "gpt-6.1-sol");
    assert_eq!((facts.stream, facts.store), (Some(true), Some(false)));
    assert_eq!(
        facts.session,
        Some((SessionName::CacheKey, "thread-7".to_owned()))
    );
    assert!(facts.whole && !facts.models_differ);
}

#[test]
fn escapes_hide_nothing() {
    for body in [
        r#"{"model":"gpt"}"#,
        r#"  { "mod\u0065l" :"g\u0070t" }"#,
        r#"{"a":"\\\"","model":"gpt"}"#,
        r#"{"a":{"b":"}\\"},"model":"gpt"}"#,
        r#"{"a":1e5,"b":null,"c":[true,{}],"model":"gpt","model":4}"#,
    ] {
        assert_eq!(model(body).as_deref(), Some("gpt"), "{body}");
    }
    let facts = peek(everything(), br#"{"prompt_cache_key":"\ud83d\ude00\n"}"#);
    assert_eq!(facts.session.unwrap().1, "\u{1f600}\n");
}

#[test]
fn what_is_no_plain_model_is_none() {
    let long = format!(r#"{{"model":"{}"}}"#, "m".repeat(MAX_MODEL_BYTES + 1));
    for body in [
        r#"{"model":4}"#,
        r#"{"model":["gpt"]}"#,
        r#"{"model":""}"#,
        r#"{"model":"a b"}"#,
        r#"{"model":"a\r\nx: y"}"#,
        r#"{"model":"\ud800"}"#,
        r#"{"model":"\x"}"#,
        r#"{"model":"caf\u00e9"}"#,
        r#"["model","gpt"]"#,
        r#""model""#,
        "",
        "\u{feff}{\"model\":\"gpt\"}",
        &long,
    ] {
        assert_eq!(model(body), None, "{body}");
    }
}

#[test]
fn the_first_of_two_counts_and_two_models_are_told() {
    let first = peek(
        Wanted {
            whole: false,
            background: false,
            session: None,
            ..everything()
        },
        br#"{"stream":true,"store":true,"model":"a","model":"b","stream":false}"#,
    );
    assert_eq!(first.model.unwrap().as_str(), "a");
    assert!(!first.models_differ, "it was not read so far");
    for (body, differ) in [
        (r#"{"model":"a","x":1,"model":"b"}"#, true),
        (r#"{"model":"a","mod\u0065l":"b"}"#, true),
        (r#"{"model":"a","model":"a b"}"#, true),
        (r#"{"model":"","model":"b"}"#, true),
        (r#"{"model":"a","Model":"b"}"#, true),
        (r#"{"MODEL":"b","model":"a"}"#, true),
        (r#"{"model":"a","model":"a"}"#, false),
        (r#"{"model":"a","model":null}"#, true),
        (r#"{"model":null,"model":"a"}"#, true),
        (r#"{"model":"a","Model":["b"]}"#, true),
        (r#"{"model":4,"mod\u0065l":"a"}"#, true),
        (r#"{"model":"a","models":["b"]}"#, true),
        (r#"{"model\u017f":["b"],"model":"a"}"#, true),
        (r#"{"model":"a","fallbacKs":[]}"#, true),
        (r#"{"model":"a","fallbac\u212As":[{"b":1}]}"#, true),
        (
            r#"{"model":"a","tools":[{"model":"b"}],"x":{"models":["b"]}}"#,
            false,
        ),
        (r#"{"model":null,"x":1}"#, true),
        (r#"{"model":"a b"}"#, true),
    ] {
        let facts = peek(everything(), body.as_bytes());
        assert_eq!(facts.models_differ, differ, "{body}");
    }
}

#[test]
fn that_nothing_is_made_in_the_background_shows_at_the_end_alone() {
    let wanted = Wanted {
        background: true,
        ..nothing()
    };
    let mut peek = Peek::new(wanted);
    peek.push(br#"{"model":"a","background":false,"#);
    assert!(peek.needs_more(), "another may come");
    peek.push(br#""background":tr"#);
    assert!(peek.needs_more() && !peek.facts().background);
    peek.push(b"ue,");
    assert!(!peek.needs_more() && peek.facts().background);
}

#[test]
fn it_needs_no_more_than_is_wanted() {
    let only_model = Wanted {
        model: true,
        ..nothing()
    };
    let mut peek = Peek::new(only_model);
    peek.push(br#"{"model":"gpt","#);
    assert!(!peek.needs_more());
    let examined = work::of(|| peek.push(&[b'x'; 1_000]));
    assert_eq!(examined, 0);

    let mut unread = Peek::new(nothing());
    assert!(!unread.needs_more());
    unread.push(br#"{"stream":true,"model":"gpt"}"#);
    assert!(unread.facts().model.is_some(), "it is taken along");

    let with_session = Wanted {
        session: Some(SessionName::UserId),
        ..only_model
    };
    let mut peek = Peek::new(with_session);
    peek.push(br#"{"previous_response_id":"r","model":"gpt","#);
    assert!(peek.needs_more(), "a better name may come");
    peek.push(br#""metadata":{"user_id":"u""#);
    assert!(!peek.needs_more());
    assert_eq!(
        peek.into_facts().session,
        Some((SessionName::UserId, "u".to_owned()))
    );

    for hopeless in ["[", "nonsense", "{]", "{\"a\":}", &"[".repeat(9)] {
        let mut peek = Peek::new(everything());
        peek.push(hopeless.as_bytes());
        assert!(!peek.needs_more(), "{hopeless}");
    }
}

#[test]
fn depth_is_bounded_and_costs_nothing() {
    let nested = |depth: usize| {
        let (open, close) = ("[".repeat(depth), "]".repeat(depth));
        format!(r#"{{"a":{open}{close},"model":"gpt"}}"#)
    };
    let most = MAX_DEPTH as usize;
    assert_eq!(model(&nested(most)).as_deref(), Some("gpt"));
    assert_eq!(model(&nested(most + 1)), None);
    assert_eq!(model(&format!("{{\"a\":{}", "[".repeat(1 << 20))), None);
}

#[test]
fn the_work_grows_with_the_body_alone() {
    let text = "word \\\" ".repeat(40_000);
    let body = json!({"messages": [{"content": text}], "model": "gpt"}).to_string();
    for size in [1, 7, 4_096, body.len()] {
        let mut peek = Peek::new(everything());
        let examined = work::of(|| body.as_bytes().chunks(size).for_each(|c| peek.push(c)));
        assert!(examined <= body.len(), "{examined} of {}", body.len());
        assert!(peek.facts().model.is_some());
    }
}

/// Bodies that are JSON objects, with the names that matter at every depth.
fn object() -> impl Strategy<Value = Value> {
    let name = || {
        prop_oneof![
            prop::sample::select(vec![
                "model",
                "stream",
                "store",
                "background",
                "metadata",
                "user_id",
                "prompt_cache_key",
                "previous_response_id",
            ])
            .prop_map(str::to_owned),
            any::<String>(),
        ]
    };
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-z\"\\\\\n\u{e9}]{0,8}".prop_map(Value::from),
        Just(Value::Null),
    ];
    let value = leaf.prop_recursive(3, 24, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(name(), inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    });
    prop::collection::btree_map(name(), value, 0..8)
        .prop_map(|map| Value::Object(map.into_iter().collect()))
}

#[test]
fn what_a_request_goes_on_from_is_named_by_itself_or_in_an_object() {
    let wanted = Wanted {
        session: Some(SessionName::CacheKey),
        things: Dialect::Responses.format().things(),
        ..nothing()
    };
    for (body, named) in [
        (r#"{"previous_response_id":"resp_1"}"#, Some("resp_1")),
        (r#"{"conversation":"conv_1"}"#, Some("conv_1")),
        (
            r#"{"conv\u0065rsation":{"x":["id"],"id":"conv_1"}}"#,
            Some("conv_1"),
        ),
        (
            r#"{"conversation":{"id":{"id":"x"}},"previous_response_id":"r"}"#,
            Some("r"),
        ),
        (
            r#"{"previous_response_id":"r","conversation":{"id":"c"}}"#,
            Some("r"),
        ),
        (
            r#"{"id":"x","input":[{"previous_response_id":"y"}],"conversation":null}"#,
            None,
        ),
    ] {
        let facts = peek(wanted, body.as_bytes());
        let session = named.map(|text| (SessionName::PreviousResponse, text.to_owned()));
        assert_eq!(facts.session, session, "{body}");
    }
    let mut peek = Peek::new(wanted);
    peek.push(br#"{"model":"m","input":"hi","#);
    assert!(peek.needs_more(), "it may go on from something");
    peek.push(br#""prompt_cache_key":"s","conversation":"c","#);
    assert!(peek.needs_more(), "and from more than that");
    peek.push(br#""n":1}"#);
    assert!(!peek.needs_more());
}

proptest! {
    #[test]
    fn any_cut_gives_the_same(
        body in prop_oneof![
            object().prop_map(|object| object.to_string().into_bytes()),
            any::<Vec<u8>>(),
            "[{}\\[\\]\",:modelstrua\\\\ ]{0,60}".prop_map(String::into_bytes),
        ],
        cuts in prop::collection::vec(1_usize..9, 1..20),
        model: bool,
        whole: bool,
    ) {
        let wanted = Wanted { model, whole, ..nothing() };
        let at_once = peek(wanted, &body);
        let mut in_pieces = Peek::new(wanted);
        let mut rest = body.as_slice();
        for cut in cuts.iter().cycle() {
            let (piece, after) = rest.split_at(rest.len().min(*cut));
            in_pieces.push(piece);
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(in_pieces.into_facts(), at_once);
    }

    #[test]
    fn it_reads_what_a_whole_parser_reads(object in object(), spaced: bool) {
        let body = if spaced { serde_json::to_string_pretty(&object) } else { serde_json::to_string(&object) };
        let facts = peek(everything(), body.unwrap().as_bytes());
        let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        let plain = |text: &String| text.bytes().all(|byte| byte.is_ascii_graphic());
        prop_assert_eq!(facts.model.map(|model| model.as_str().to_owned()), text(&object["model"]).filter(plain));
        prop_assert_eq!(facts.stream, object["stream"].as_bool());
        prop_assert_eq!(facts.store, object["store"].as_bool());
        prop_assert_eq!(facts.background, object["background"] == true);
        let session = text(&object["prompt_cache_key"])
            .or_else(|| text(&object["metadata"]["user_id"]))
            .or_else(|| text(&object["previous_response_id"]));
        prop_assert_eq!(facts.session.map(|(_, text)| text), session);
        prop_assert!(facts.whole);
        let names_one = text(&object["model"]).filter(plain).is_some();
        prop_assert_eq!(facts.models_differ, object.get("model").is_some() && !names_one);
    }
}
