//! What a person pastes after a login in a browser elsewhere, in any of its forms. Pure.

use oauth2::{AuthorizationCode, CsrfToken};
use reqwest::Url;

use super::redirect::{QUERY_LIMIT, Refused, Returned, is_state, read};

/// Reads what a person pasted: the redirect's whole URL, its query, `CODE#STATE`, or the code alone.
///
/// # Errors
/// If it is not an answer to this login.
pub fn read_pasted(text: &str, state: &CsrfToken) -> Result<Returned, Refused> {
    let text = text.trim();
    if text.is_empty() || text.len() > QUERY_LIMIT || text.contains(char::is_whitespace) {
        return Err(Refused::Malformed);
    }
    if let Ok(url) = Url::parse(text) {
        return read(url.query().unwrap_or_default(), state);
    }
    if text.contains('=') && text.contains("state=") {
        return read(text.trim_start_matches('?'), state);
    }
    match text.split_once('#') {
        Some((_, returned)) if !is_state(returned, state.secret()) => Err(Refused::ForeignState),
        Some((code, _)) => Ok(Returned::Code(AuthorizationCode::new(code.into()))),
        // Without a state the verifier still ties the code to this login: it redeems no code but ours (RFC 9700 §2.1.1).
        None => Ok(Returned::Code(AuthorizationCode::new(text.into()))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn state() -> CsrfToken {
        CsrfToken::new("right-state".into())
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
            "c",
        ] {
            assert_eq!(code(read_pasted(pasted, &state())), "c", "{pasted}");
        }
        for pasted in [
            "",
            " ",
            "two words",
            "http://127.0.0.1:1455/auth/callback",
            "c#wrong-state",
        ] {
            assert!(read_pasted(pasted, &state()).is_err(), "{pasted}");
        }
    }

    proptest! {
        #[test]
        fn nothing_pasted_makes_it_panic(text in ".{0,200}") {
            let _ = read_pasted(&text, &state());
        }
    }
}
