//! JSON Schema as `messages` takes it for the form of an answer.

use serde_json::{Map, Value};

/// Keywords that bound a value; what they say goes into the description, in this order.
const BOUNDS: &[&str] = &[
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "pattern",
    "minItems",
    "maxItems",
    "uniqueItems",
    "minProperties",
    "maxProperties",
    "format",
    "not",
];

/// The formats of strings that are taken.
const FORMATS: &[&str] = &[
    "date-time",
    "time",
    "date",
    "duration",
    "email",
    "hostname",
    "uri",
    "ipv4",
    "ipv6",
    "uuid",
];

/// The schema without what is refused; as it is where it is no schema.
pub(super) fn reduced(schema: &str) -> String {
    match serde_json::from_str::<Value>(schema) {
        Ok(mut value) => {
            reduce(&mut value);
            value.to_string()
        }
        Err(_) => schema.to_owned(),
    }
}

/// Reduces a schema, and those in it. They stand as deep in each other as a request's JSON may.
fn reduce(schema: &mut Value) {
    let Some(members) = schema.as_object_mut() else {
        return;
    };
    let mut bounds = Vec::new();
    for name in BOUNDS {
        let is_taken = |value: &Value| match *name {
            "minItems" => value.as_u64().is_some_and(|least| least <= 1),
            "format" => value
                .as_str()
                .is_some_and(|format| FORMATS.contains(&format)),
            _ => false,
        };
        if members.get(*name).is_some_and(|value| !is_taken(value))
            && let Some(value) = members.remove(*name)
        {
            bounds.push(format!("{name}: {value}"));
        }
    }
    if !bounds.is_empty() {
        let said = members.get("description").and_then(Value::as_str);
        let said = said.map(|said| format!("{said} ")).unwrap_or_default();
        let description = format!("{said}({})", bounds.join(", "));
        members.insert("description".to_owned(), description.into());
    }
    if let Some(one_of) = members.remove("oneOf") {
        members.entry("anyOf").or_insert(one_of);
    }
    let is_object = members.get("type").is_some_and(|kind| kind == "object");
    if is_object || members.contains_key("properties") {
        members.insert("additionalProperties".to_owned(), false.into());
    }
    for name in ["properties", "$defs", "definitions"] {
        let within = members.get_mut(name).and_then(Value::as_object_mut);
        within
            .into_iter()
            .flat_map(Map::values_mut)
            .for_each(reduce);
    }
    for name in ["anyOf", "allOf", "prefixItems"] {
        let within = members.get_mut(name).and_then(Value::as_array_mut);
        within.into_iter().flatten().for_each(reduce);
    }
    if let Some(items) = members.get_mut("items") {
        reduce(items);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_refused_goes_into_the_description() {
        let schema = json!({
            "type": "object", "required": ["a"],
            "properties": {
                "minimum": {"type": "integer", "minimum": 1, "maximum": 9, "description": "a count"},
                "a": {"oneOf": [{"type": "string", "format": "date", "maxLength": 3}, {"type": "null"}]},
                "b": {"type": "array", "minItems": 1, "items": {"type": "object", "properties": {}}},
                "c": {"type": "string", "format": "color"},
            },
            "$defs": {"d": {"type": "array", "minItems": 2}},
        });
        let expected = json!({
            "type": "object", "required": ["a"], "additionalProperties": false,
            "properties": {
                "minimum": {"type": "integer", "description": "a count (minimum: 1, maximum: 9)"},
                "a": {"anyOf": [{"type": "string", "format": "date", "description": "(maxLength: 3)"}, {"type": "null"}]},
                "b": {"type": "array", "minItems": 1, "items": {"type": "object", "properties": {}, "additionalProperties": false}},
                "c": {"type": "string", "description": "(format: \"color\")"},
            },
            "$defs": {"d": {"type": "array", "description": "(minItems: 2)"}},
        });
        let made: Value = serde_json::from_str(&reduced(&schema.to_string())).unwrap();
        assert_eq!(made, expected);
        assert_eq!(reduced("true"), "true");
    }
}
