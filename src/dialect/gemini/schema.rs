//! Google's own form of a schema, a part of OpenAPI's, as JSON Schema.

use std::borrow::Cow;

use crate::text::{
    out::Out,
    tree::{Json, JsonKind},
};

/// Whole numbers that Google writes as strings too.
const COUNTS: [&str; 6] = [
    "minItems",
    "maxItems",
    "minLength",
    "maxLength",
    "minProperties",
    "maxProperties",
];

/// The JSON Schema of a schema of Google's; one that is JSON Schema already stays as it stands.
pub(super) fn of_google<'a>(schema: Json<'_, 'a>) -> Cow<'a, str> {
    if !is_google(schema) {
        return Cow::Borrowed(schema.raw());
    }
    let mut out = Out::with_capacity(schema.raw().len());
    write(schema, &mut out);
    let text = String::from_utf8(out.into_bytes());
    text.map_or(Cow::Borrowed(schema.raw()), Cow::Owned)
}

/// Returns true if the schema has something that JSON Schema says in another way.
fn is_google(schema: Json<'_, '_>) -> bool {
    schema
        .members()
        .any(|(name, value)| match &*camel(&name.plain()) {
            "type" => value.text().is_some_and(|kind| {
                kind.plain()
                    .contains(|char: char| char.is_ascii_uppercase())
            }),
            "nullable" | "propertyOrdering" => true,
            "items" => is_google(value),
            "anyOf" => value.items().any(is_google),
            "properties" => value.members().any(|(_, value)| is_google(value)),
            name => COUNTS.contains(&name) && value.kind() == JsonKind::Text,
        })
}

fn write(schema: Json<'_, '_>, out: &mut Out) {
    if schema.kind() != JsonKind::Object {
        return out.raw(schema.raw());
    }
    let is_nullable = schema.get("nullable").and_then(Json::flag) == Some(true);
    out.object(|out| {
        for (own, value) in schema.members() {
            match &*camel(&own.plain()) {
                "nullable" | "propertyOrdering" => {}
                "type" => {
                    let kind = value.text().map(|kind| kind.plain().to_ascii_lowercase());
                    match kind.as_deref() {
                        None => out.name("type").raw(value.raw()),
                        Some("type_unspecified") => {}
                        Some(kind) if is_nullable => out.name("type").list(|out| {
                            out.word(kind);
                            out.word("null");
                        }),
                        Some(kind) => out.name("type").word(kind),
                    }
                }
                "items" => write(value, out.name("items")),
                "anyOf" => out
                    .name("anyOf")
                    .list(|out| value.items().for_each(|one| write(one, out))),
                "properties" => out.name("properties").object(|out| {
                    for (name, value) in value.members() {
                        write(value, out.member(&name));
                    }
                }),
                // A number stands alike in a string and without it.
                camel if COUNTS.contains(&camel) => {
                    let count = value.text().and_then(|count| count.plain().parse().ok());
                    match count {
                        Some(count) => out.name(camel).number(count),
                        None => out.name(camel).raw(value.raw()),
                    }
                }
                _ => out.member(&own).raw(value.raw()),
            }
        }
    });
}

/// A name in camel case, if it is in snake case.
fn camel(name: &str) -> Cow<'_, str> {
    if !name.contains('_') {
        return Cow::Borrowed(name);
    }
    let mut camel = String::with_capacity(name.len());
    let mut up = false;
    for char in name.chars() {
        match char {
            '_' => up = true,
            char if up => {
                camel.push(char.to_ascii_uppercase());
                up = false;
            }
            char => camel.push(char),
        }
    }
    Cow::Owned(camel)
}
