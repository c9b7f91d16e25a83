use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;

fn asked(body: &str) -> Option<String> {
    ask(body.as_bytes()).map(|body| String::from_utf8(body).unwrap())
}

#[test]
fn the_option_is_put_where_it_belongs() {
    for (body, expected) in [
        (
            r#"{"model":"m","stream":true}"#,
            r#"{"stream_options":{"include_usage":true},"model":"m","stream":true}"#,
        ),
        (
            "\n{ \"stream\" : true, \"messages\":[{\"stream_options\":{\"include_usage\":false}}] }\n",
            "\n{\"stream_options\":{\"include_usage\":true}, \"stream\" : true, \"messages\":[{\"stream_options\":{\"include_usage\":false}}] }\n",
        ),
        (
            r#"{"stream":true,"stream_options": null }"#,
            r#"{"stream":true,"stream_options": {"include_usage":true} }"#,
        ),
        (
            r#"{"stream_options":{ },"stream":true}"#,
            r#"{"stream_options":{"include_usage":true },"stream":true}"#,
        ),
        (
            r#"{"stream_options":{"include_obfuscation":false},"stream":true}"#,
            r#"{"stream_options":{"include_usage":true,"include_obfuscation":false},"stream":true}"#,
        ),
        (
            r#"{"stream":true,"stream_options":{"a":{"include_usage":1},"include_usage": false}}"#,
            r#"{"stream":true,"stream_options":{"a":{"include_usage":1},"include_usage": true}}"#,
        ),
        (
            r#"{"stream":true,"stream_options":{"include_usage":null},"n":{"include_usage":false}}"#,
            r#"{"stream":true,"stream_options":{"include_usage":true},"n":{"include_usage":false}}"#,
        ),
    ] {
        assert_eq!(asked(body).as_deref(), Some(expected));
    }
}

#[test]
fn depth_does_no_harm() {
    let deep = format!(
        r#""stream":true,"x":{}{}}}"#,
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    let expected = format!(r#"{{"stream_options":{{"include_usage":true}},{deep}"#);
    assert_eq!(asked(&format!("{{{deep}")), Some(expected));
}

#[test]
fn other_requests_stay_as_they_are() {
    for body in [
        "",
        "{",
        "[true,null]",
        r#"{"model":"m"}"#,
        r#"{"stream":false}"#,
        r#"{"stream":"true"}"#,
        r#"{"stream":true"#,
        r#"{"stream":true} x"#,
        r#"{"stream":true,"stream":true}"#,
        r#"{"stream":true,"stream_options":[false]}"#,
        r#"{"stream":true,"stream_options":{"include_usage":true}}"#,
        r#"{"stream":true,"stream_options":{"include_usage":"no"}}"#,
    ] {
        assert_eq!(asked(body), None, "{body}");
    }
}

fn any_value() -> impl Strategy<Value = Value> {
    let text = r#"[ -~é"\\{}:,]{0,12}"#;
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(Value::from),
        text.prop_map(Value::from)
    ];
    leaf.prop_recursive(3, 24, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(
                "[a-d\"]{1,3}|include_usage|stream_options|stream",
                inner,
                0..4
            )
            .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn no_request_panics(pieces in prop::collection::vec(prop::sample::select(vec![
        "{", "}", "[", "]", ",", ":", " ", "\"", "\\", "\"stream\":true", "\"stream_options\":", "\"include_usage\":false",
    ]), 0..20), bytes: Vec<u8>) {
        ask(&bytes);
        ask(pieces.concat().as_bytes());
    }

    #[test]
    fn nothing_but_the_option_changes(
        others in prop::collection::btree_map(r#"[a-z"\\]{1,4}|include_usage"#, any_value(), 0..5),
        options in prop_oneof![
            Just(None),
            Just(Some(json!(null))),
            prop::collection::btree_map("[a-d]{1,3}", any_value(), 0..3).prop_map(|map| Some(json!(map))),
            prop::option::of(Just(false)).prop_map(|flag| Some(json!({"z": [1], "include_usage": flag, "a": {}}))),
        ],
        pretty: bool,
    ) {
        let mut request: Map<String, Value> = others.into_iter().collect();
        request.insert("stream".to_owned(), json!(true));
        request.extend(options.map(|options| ("stream_options".to_owned(), options)));
        let body = if pretty { serde_json::to_vec_pretty(&request) } else { serde_json::to_vec(&request) };
        let asked: Map<String, Value> = serde_json::from_slice(&ask(&body.unwrap()).unwrap()).unwrap();
        let options = request.entry("stream_options").or_insert(json!(null));
        if options.is_null() {
            *options = json!({});
        }
        options["include_usage"] = json!(true);
        prop_assert_eq!(asked, request);
    }
}
