//! The model that serves a request, put into its body in place of the one that its caller asked for.

use crate::text::{
    json::{Lexer, Token},
    out::Out,
    tree::Text,
};

/// The largest request body in which the model is another one, in bytes: it is held whole, beside the one that goes out.
pub const MAX_RENAMED_BYTES: usize = 16 * 1024 * 1024;

/// The body with each `model` of its own replaced by `model`, every other byte as it was; none for a body that is no
/// object of JSON.
pub fn renamed(body: &[u8], model: &str) -> Option<Vec<u8>> {
    serde_json::from_slice::<serde::de::IgnoredAny>(body).ok()?;
    body.trim_ascii_start().starts_with(b"{").then_some(())?;
    let mut value = Out::default();
    value.word(model);
    let value = value.into_bytes();
    let mut made = Vec::with_capacity(body.len().saturating_add(value.len()));
    let (mut lexer, mut rest) = (Lexer::default(), body);
    let (mut depth, mut string, mut is_name) = (0_u32, b"".as_slice(), false);
    // The bytes of the body that went over, and those before the token.
    let mut copied = 0_usize;
    let mut before = 0_usize;
    while let Some(token) = lexer.next(&mut rest) {
        let at = body.len().saturating_sub(rest.len());
        match token {
            Token::Text { raw, .. } => {
                if std::mem::take(&mut is_name) {
                    // The quotes go too; white space may stand before them.
                    let start = at.saturating_sub(raw.len()).saturating_sub(2).max(before);
                    made.extend_from_slice(body.get(copied..start)?);
                    made.extend_from_slice(&value);
                    copied = at;
                }
                string = raw;
            }
            Token::Colon => is_name = depth == 1 && names_model(string),
            Token::Comma => is_name = false,
            Token::Open(_) => {
                is_name = false;
                depth = depth.saturating_add(1);
            }
            Token::Close => {
                is_name = false;
                depth = depth.saturating_sub(1);
            }
        }
        before = at;
    }
    made.extend_from_slice(body.get(copied..)?);
    Some(made)
}

/// Tells the name `model`, however it is escaped.
fn names_model(raw: &[u8]) -> bool {
    std::str::from_utf8(raw).is_ok_and(|raw| Text::Escaped(raw).is("model"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn text(body: &str) -> Option<String> {
        renamed(body.as_bytes(), "gpt-5.6").map(|made| String::from_utf8(made).unwrap())
    }

    #[test]
    fn the_model_is_another_and_every_other_byte_the_same() {
        for (body, expected) in [
            (
                r#"{ "model" : "a\"b" , "x":1}"#,
                r#"{ "model" : "gpt-5.6" , "x":1}"#,
            ),
            (
                r#"{"x":{"model":"a"},"model":"a","y":["model","a"]}"#,
                r#"{"x":{"model":"a"},"model":"gpt-5.6","y":["model","a"]}"#,
            ),
            (
                r#"{"model":"a","mod\u0065l":"b"}"#,
                r#"{"model":"gpt-5.6","mod\u0065l":"gpt-5.6"}"#,
            ),
            (
                r#"{"model":null,"y":"model"}"#,
                r#"{"model":null,"y":"model"}"#,
            ),
            (r#"{"model":["a"],"y":"z"}"#, r#"{"model":["a"],"y":"z"}"#),
            ("{}", "{}"),
        ] {
            assert_eq!(text(body).as_deref(), Some(expected));
        }
        for bad in ["", "[\"model\"]", "{\"model\":\"a\"", "\"model\"", "--form"] {
            assert_eq!(text(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_request_says_the_same_with_another_model(
            model in "\\PC{0,8}",
            others in prop::collection::btree_map("[a-n]{1,5}", "[\\PC\"\\\\]{0,8}", 0..5),
        ) {
            let mut body = serde_json::to_value(&others).unwrap();
            body["model"] = Value::from(model);
            let made = renamed(body.to_string().as_bytes(), "gpt-5.6").unwrap();
            body["model"] = "gpt-5.6".into();
            prop_assert_eq!(serde_json::from_slice::<Value>(&made).unwrap(), body);
        }
    }
}
