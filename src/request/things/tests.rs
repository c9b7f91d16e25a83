use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{dialect::Dialect, text::json::Lexer};

fn read(dialect: Dialect, body: &[u8]) -> Things {
    read_pieces(dialect, [body])
}

fn read_pieces<'a>(dialect: Dialect, pieces: impl IntoIterator<Item = &'a [u8]>) -> Things {
    let mut reader = ThingsReader::new(dialect.format().things());
    let mut lexer = Lexer::default();
    for mut piece in pieces {
        while let Some(token) = lexer.next(&mut piece) {
            reader.take(token);
        }
    }
    reader.into_things()
}

/// The things called so.
fn things<'a>(ids: impl IntoIterator<Item = &'a str>) -> Things {
    let mut things = Things::default();
    ids.into_iter().for_each(|id| things.add(id));
    things
}

#[test]
fn every_place_of_every_dialect_is_found() {
    let documented = [
        (
            Dialect::Responses,
            json!({
                "previous_response_id": "a",
                "conversation": {"id": "b"},
                "input": [
                    {"role": "user", "content": [
                        {"type": "input_file", "file_id": "c"},
                        {"type": "input_image", "file_id": "d", "detail": "low"},
                    ]},
                    {"type": "function_call_output", "call_id": "x", "output": [{"type": "input_file", "file_id": "e"}]},
                    {"type": "computer_call_output", "output": {"type": "computer_screenshot", "file_id": "f"}},
                ],
                "tools": [
                    {"type": "file_search", "vector_store_ids": ["g", "h"]},
                    {"type": "code_interpreter", "container": {"type": "auto", "file_ids": ["i"]}},
                    {"type": "code_interpreter", "container": "j"},
                    {"type": "image_generation", "input_image_mask": {"file_id": "k"}},
                    {"type": "shell", "environment": {"container_id": "l", "file_ids": ["m"]}},
                ],
                "prompt": {"id": "pmpt", "variables": {"reference": {"type": "input_file", "file_id": "n"}}},
            }),
            "abcdefghijklmn",
        ),
        (
            Dialect::Responses,
            json!({"conversation": "a", "items": [{"content": [{"file_id": "b"}]}], "images": [{"file_id": "c"}], "mask": {"file_id": "d"}}),
            "abcd",
        ),
        (
            Dialect::Chat,
            json!({
                "messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "a"}}]}],
                "input_file_id": "b", "file_id": "c", "file_ids": ["d", "e"], "files": [{"file_id": "f", "attributes": {}}],
            }),
            "abcdef",
        ),
        (
            Dialect::Messages,
            json!({
                "system": "x",
                "container": {"id": "a", "skills": []},
                "messages": [{"role": "user", "content": [
                    {"type": "document", "source": {"type": "file", "file_id": "b"}},
                    {"type": "container_upload", "file_id": "c"},
                    {"type": "tool_result", "content": [{"type": "image", "source": {"type": "file", "file_id": "d"}}]},
                ]}],
            }),
            "abcd",
        ),
        (
            Dialect::Messages,
            json!({"requests": [{"custom_id": "x", "params": {"container": "a", "messages": [{"content": [
                {"source": {"file_id": "b"}}, {"file_id": "c"}, {"content": [{"source": {"file_id": "d"}}]},
            ]}]}}]}),
            "abcd",
        ),
        (Dialect::Gemini, json!({"file_id": "a"}), ""),
    ];
    for (dialect, body, ids) in documented {
        let ids = ids
            .char_indices()
            .map(|(at, id)| &ids[at..at + id.len_utf8()]);
        let found = read(dialect, body.to_string().as_bytes());
        let (mut found, mut expected) = (found.hashes, things(ids).hashes);
        found.sort_by_key(|thing| *thing.bytes());
        expected.sort_by_key(|thing| *thing.bytes());
        assert_eq!(found, expected, "{dialect:?} {body}");
    }
}

#[test]
fn what_stands_elsewhere_is_nobodys() {
    for body in [
        r#"{"input":[{"content":[{"type":"tool_use","input":{"file_id":"a"}}]}]}"#,
        r#"{"input":"{\"previous_response_id\":\"a\"}","metadata":{"previous_response_id":"a"}}"#,
        r#"{"tools":[{"parameters":{"properties":{"vector_store_ids":{"items":["a"]}}}}]}"#,
        r#"{"previous_response_id":["a"],"conversation":[{"id":"a"}],"input":{"content":[{"file_id":"a"}]}}"#,
        r#"{"previous_response_id":"","conversation":null,"tools":[["a"],{"vector_store_ids":"a"}]}"#,
        r#"["previous_response_id","a"]"#,
        r#"{"[]":{"file_id":"a"},"input":[{"[]":{"file_id":"a"}}]}"#,
        "hello",
        "",
    ] {
        assert_eq!(
            read(Dialect::Responses, body.as_bytes()),
            Things::default(),
            "{body}"
        );
    }
}

#[test]
fn escapes_and_repetitions_hide_nothing() {
    let body = br#"{"previous_response_id":"a","previous_response_id":"b","inpu\u0074":[{"content":[{"file\u005fid":"\u0063"}]}],
        "tools":[{"vector_store_ids":["a","d"]}]}"#;
    assert_eq!(read(Dialect::Responses, body), things(["a", "b", "c", "d"]));
}

#[test]
fn the_number_of_things_and_their_length_are_bounded() {
    let body = |count: usize| {
        let ids: Vec<String> = (0..count).map(|number| format!("file-{number}")).collect();
        json!({"file_ids": ids, "file_id": "file-0"}).to_string()
    };
    let most = read(Dialect::Chat, body(MAX_THINGS).as_bytes());
    assert_eq!((most.hashes().len(), most.too_many), (MAX_THINGS, false));
    let over = read(Dialect::Chat, body(MAX_THINGS + 1).as_bytes());
    assert_eq!((over.hashes().len(), over.too_many), (MAX_THINGS, true));
    let long =
        json!({"file_id": "x".repeat(MAX_ID_BYTES + 1), "file_ids": ["y".repeat(MAX_ID_BYTES)]});
    let found = read(Dialect::Chat, long.to_string().as_bytes());
    assert_eq!(found, things(["y".repeat(MAX_ID_BYTES).as_str()]));
    for deep in ["[", r#"{"input":"#, r#"{"input":["#] {
        read(Dialect::Responses, deep.repeat(10_000).as_bytes());
    }
}

#[test]
fn every_dialect_has_room() {
    for dialect in Dialect::OF_CALLERS {
        let places = dialect.format().things();
        assert!(places.len() <= MAX_PLACES, "{dialect:?}");
        for place in places {
            assert!((1..=MAX_STEPS).contains(&place.len()), "{place:?}");
            let fits = |step: &&str| step.len() <= MAX_NAME_BYTES;
            assert!(place.iter().all(fits), "{place:?}");
        }
    }
}

/// What a parser of the whole finds at `place` in `value`.
fn at<'a>(value: &'a Value, place: &[&str], ids: &mut Vec<&'a str>) {
    match (place.split_first(), value) {
        (None, Value::String(id)) if !id.is_empty() => ids.push(id),
        (Some((&EACH, rest)), Value::Array(list)) => list.iter().for_each(|one| at(one, rest, ids)),
        (Some((&ANY, rest)), Value::Object(object)) => {
            object.values().for_each(|one| at(one, rest, ids))
        }
        // A member that is named like the step into a list is none.
        (Some((&EACH, _)), _) => {}
        (Some((step, rest)), Value::Object(object)) if let Some(one) = object.get(*step) => {
            at(one, rest, ids)
        }
        _ => {}
    }
}

/// Bodies that consist of the names on the way to things.
fn body() -> impl Strategy<Value = Value> {
    let name = || {
        prop::sample::select(vec![
            "input",
            "content",
            "file_id",
            "conversation",
            "id",
            "tools",
            "vector_store_ids",
            "container",
            "file_ids",
            "prompt",
            "variables",
            "other",
            "[]",
            "*",
        ])
    };
    let id = prop::sample::select(vec!["a", "b", "", "c\"\\\n", "\u{1f600}"]).prop_map(Value::from);
    let value = prop_oneof![3 => id, 1 => Just(Value::Null), 1 => Just(json!(1))].prop_recursive(
        6,
        40,
        4,
        move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((name(), inner), 0..4).prop_map(|members| {
                    Value::Object(
                        members
                            .into_iter()
                            .map(|(name, value)| (name.to_owned(), value))
                            .collect(),
                    )
                }),
            ]
        },
    );
    prop::collection::vec((name(), value), 0..6).prop_map(|members| {
        Value::Object(
            members
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
        )
    })
}

proptest! {
    #[test]
    fn it_finds_what_a_whole_parser_finds_however_the_body_is_cut(
        body in body(),
        cuts in prop::collection::vec(1_usize..9, 1..20),
        spaced: bool,
    ) {
        let text = if spaced { serde_json::to_string_pretty(&body) } else { serde_json::to_string(&body) };
        let mut rest = text.as_ref().unwrap().as_bytes();
        let pieces = cuts.iter().cycle().map_while(|cut| {
            let piece = rest.split_off(..rest.len().min(*cut));
            piece.filter(|piece| !piece.is_empty())
        });
        let found = read_pieces(Dialect::Responses, pieces);
        let mut expected = Vec::new();
        for place in Dialect::Responses.format().things() {
            at(&body, place, &mut expected);
        }
        let order = |mut things: Things| {
            things.hashes.sort_by_key(|thing| *thing.bytes());
            things
        };
        prop_assert_eq!(order(found), order(things(expected)));
    }

    #[test]
    fn no_body_panics(pieces: Vec<Vec<u8>>) {
        read_pieces(Dialect::Responses, pieces.iter().map(Vec::as_slice));
    }
}
