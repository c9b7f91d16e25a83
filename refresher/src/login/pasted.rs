//! The text that a person pastes after a login in a browser elsewhere, in any of its forms. Pure.

use oauth2::AuthorizationCode;
use reqwest::Url;

use super::redirect::{self, Awaited, QUERY_LIMIT, Refused, Returned, is_state};

/// The fewest characters of a code: it has 128 random bits (RFC 6749 §10.10), and base64 has the most bits a character.
/// What is shorter would be sent to the platform for nothing, and end the login.
const MIN_CODE: usize = 22;

/// Reads what a person pasted: the redirect's whole URL, its query, `CODE#STATE`, or the code alone.
///
/// # Errors
/// If it is not an answer to this login.
pub fn read(text: &str, awaited: &Awaited<'_>) -> Result<Returned, Refused> {
    let text = text.trim();
    if text.is_empty() || text.len() > QUERY_LIMIT || text.contains(char::is_whitespace) {
        return Err(Refused::Malformed);
    }
    if let Ok(url) = Url::parse(text) {
        return redirect::read(url.query().unwrap_or_default(), awaited);
    }
    if text.contains('=') && text.contains("state=") {
        return redirect::read(text.trim_start_matches('?'), awaited);
    }
    if text.len() < MIN_CODE && !text.contains('#') {
        return Err(Refused::Malformed);
    }
    match text.split_once('#') {
        Some((_, returned)) if !is_state(returned, awaited) => Err(Refused::ForeignState),
        Some((code, _)) => Ok(Returned::Code(AuthorizationCode::new(code.into()))),
        // Without a state the verifier still ties the code to this login: it redeems no code but ours (RFC 9700 §2.1.1).
        None => Ok(Returned::Code(AuthorizationCode::new(text.into()))),
    }
}

#[cfg(test)]
mod tests {
    use oauth2::CsrfToken;
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Returned, Refused> {
        let awaited = Awaited {
            state: &CsrfToken::new("right-state".into()),
            suffix: None,
            explanations: &[],
        };
        super::read(text, &awaited)
    }

    fn code(returned: Result<Returned, Refused>) -> String {
        match returned.unwrap() {
            Returned::Code(code) => code.secret().clone(),
            Returned::Denied(denial) => panic!("{denial}"),
        }
    }

    #[test]
    fn a_person_may_paste_any_form_of_it() {
        for pasted in [
            "http://127.0.0.1:1455/auth/callback?code=c&state=right-state\n",
            "?code=c&state=right-state",
            "code=c&state=right-state",
            " c#right-state ",
        ] {
            assert_eq!(code(read(pasted)), "c", "{pasted}");
        }
        let whole = "ac_0123456789abcdef0123";
        assert_eq!(code(read(whole)), whole);
        for pasted in [
            "hello",
            "c",
            "",
            " ",
            "two words",
            "http://127.0.0.1:1455/auth/callback",
            "c#wrong-state",
        ] {
            assert!(read(pasted).is_err(), "{pasted}");
        }
    }

    proptest! {
        #[test]
        fn nothing_pasted_makes_it_panic(text in ".{0,200}") {
            let _ = read(&text);
        }
    }
}
