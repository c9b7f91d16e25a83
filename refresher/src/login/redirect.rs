//! The authorization server's answer that the browser brings (RFC 6749 §4.1.2), read from a query. Pure.

use oauth2::{AuthorizationCode, CsrfToken};
use reqwest::Url;
use subtle::ConstantTimeEq;

use crate::platform::flow::Explanation;

/// Bytes of a query or a pasted line. A real one has under 1 KiB.
pub const QUERY_LIMIT: usize = 8 * 1024;
/// Characters of the server's description that are shown.
const DESCRIPTION_LIMIT: usize = 300;

/// The answer that one login waits for.
#[derive(Debug, Clone, Copy)]
pub struct Awaited<'a> {
    /// The state that it must carry.
    pub state: &'a CsrfToken,
    /// Text that the server may append to the state, with a word behind it.
    pub suffix: Option<&'a str>,
    /// The meaning of refusals that need words.
    pub explanations: &'a [Explanation],
}

/// The server's answer, with the right state.
#[derive(Debug, Clone)]
pub enum Returned {
    /// To be redeemed for tokens.
    Code(AuthorizationCode),
    /// The server, or the person before it, said no.
    Denied(Denial),
}

/// An `error` answer, made fit to show.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the platform refused the login: {error}{}{}", if self.description.is_empty() { "" } else { ": " }, description)]
pub struct Denial {
    /// The error code.
    pub error: String,
    /// Its meaning, in the server's words or the profile's.
    pub description: String,
}

impl Denial {
    /// A refusal in the words of one of `explanations`, else in the server's.
    pub fn new(error: &str, description: &str, explanations: &[Explanation]) -> Denial {
        let fits = |known: &&Explanation| {
            known.error == error && description.contains(known.contains.as_str())
        };
        let known = explanations.iter().find(fits);
        Denial {
            error: presentable(error),
            description: known
                .map_or_else(|| presentable(description), |known| known.means.clone()),
        }
    }
}

/// The reason why a redirect was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Too long, a parameter given twice, or neither code nor error.
    #[error(
        "expected the address at which the browser ended after the login, whole from http to its end, or the code that \
         its page shows; found something else"
    )]
    Malformed,
    /// Another login's, an old one's, or a forgery.
    #[error(
        "this answer belongs to another login (its state differs); open the newest URL of this one"
    )]
    ForeignState,
    /// Its state was taken before.
    #[error("This login has been used already.")]
    Used,
}

/// Reads the query of a redirect.
///
/// # Errors
/// If it is not an answer to this login. The login may go on waiting: whoever sent this did not know the state.
pub fn read(query: &str, awaited: &Awaited<'_>) -> Result<Returned, Refused> {
    if query.len() > QUERY_LIMIT {
        return Err(Refused::Malformed);
    }
    let pairs = Pairs::parse(query);
    let returned = pairs.one("state")?.ok_or(Refused::ForeignState)?;
    if !is_state(&returned, awaited) {
        return Err(Refused::ForeignState);
    }
    match (pairs.one("code")?, pairs.one("error")?) {
        (Some(code), None) => Ok(Returned::Code(AuthorizationCode::new(code))),
        (None, Some(error)) => {
            let description = pairs.one("error_description")?.unwrap_or_default();
            let denial = Denial::new(&error, &description, awaited.explanations);
            Ok(Returned::Denied(denial))
        }
        _ => Err(Refused::Malformed),
    }
}

/// Compares without telling by its time how much of the state was right.
pub(super) fn is_state(returned: &str, awaited: &Awaited<'_>) -> bool {
    let state = awaited.state.secret();
    let (start, rest) = returned
        .split_at_checked(state.len())
        .unwrap_or((returned, ""));
    let word = |text: &str| {
        !text.is_empty()
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    let appended = || rest.strip_prefix(awaited.suffix?);
    let rest_fits = rest.is_empty() || appended().is_some_and(word);
    rest_fits && bool::from(start.as_bytes().ct_eq(state.as_bytes()))
}

/// Text from outside, fit for a terminal and a log: one bounded line of visible ASCII, which is all that these texts may
/// hold (RFC 6749 §4.1.2.1); anything else is shown as `?`.
pub(super) fn presentable(text: &str) -> String {
    let shown = |character| match character {
        ' '..='~' => character,
        _ => '?',
    };
    text.chars().take(DESCRIPTION_LIMIT).map(shown).collect()
}

/// The parameters of a query.
struct Pairs(Vec<(String, String)>);

impl Pairs {
    fn parse(query: &str) -> Pairs {
        // The URL library decodes queries only as part of a URL; the base is never seen.
        let mut url = Url::parse("http://localhost/").ok();
        if let Some(url) = &mut url {
            url.set_query(Some(query));
        }
        Pairs(
            url.iter()
                .flat_map(Url::query_pairs)
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
        )
    }

    /// A parameter's value, `None` where it is absent or empty. Given twice, it is nobody's (RFC 6749 §3.1).
    fn one(&self, name: &str) -> Result<Option<String>, Refused> {
        let mut values = self
            .0
            .iter()
            .filter(|(key, _)| key == name)
            .map(|(_, value)| value);
        match (values.next(), values.next()) {
            (_, Some(_)) => Err(Refused::Malformed),
            (value, None) => Ok(value.filter(|value| !value.is_empty()).cloned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads a redirect to a login at the platform of codex.toml.
    fn read(query: &str) -> Result<Returned, Refused> {
        let profile = crate::platform::example();
        let awaited = Awaited {
            state: &CsrfToken::new("right-state".into()),
            suffix: profile
                .login
                .code()
                .unwrap()
                .authorize
                .state_suffix
                .as_deref(),
            explanations: &profile.login.explanations,
        };
        super::read(query, &awaited)
    }

    fn code(returned: Result<Returned, Refused>) -> String {
        match returned.unwrap() {
            Returned::Code(code) => code.secret().clone(),
            Returned::Denied(denial) => panic!("{denial}"),
        }
    }

    fn denial(query: &str) -> String {
        match read(query).unwrap() {
            Returned::Denied(denial) => denial.to_string(),
            Returned::Code(_) => panic!("a code"),
        }
    }

    #[test]
    fn a_code_comes_with_the_right_state() {
        assert_eq!(
            code(read("code=a%2Fb&scope=openid+email&state=right-state")),
            "a/b"
        );
        let suffixed = "code=c&state=right-state.onboarding_entrypoint=life_sciences";
        assert_eq!(code(read(suffixed)), "c");
    }

    #[test]
    fn any_other_state_is_foreign() {
        for query in [
            "code=c",
            "code=c&state=",
            "code=c&state=wrong-state",
            "code=c&state=right-stat",
            "code=c&state=right-state2",
            "code=c&state=right-state.onboarding_entrypoint=",
            "code=c&state=right-state.onboarding_entrypoint=a/b",
            "error=access_denied&state=wrong-state",
        ] {
            assert_eq!(read(query).unwrap_err(), Refused::ForeignState, "{query}");
        }
    }

    #[test]
    fn what_is_ambiguous_is_refused() {
        for query in [
            "state=right-state",
            "code=a&code=b&state=right-state",
            "code=a&state=right-state&state=right-state",
            "code=a&error=b&state=right-state",
            &format!("code={}&state=right-state", "a".repeat(QUERY_LIMIT)),
        ] {
            assert_eq!(read(query).unwrap_err(), Refused::Malformed, "{query:.60}");
        }
    }

    #[test]
    fn an_error_is_shown_and_explained() {
        let denied =
            denial("error=access_denied&error_description=You+said%0Ano%1b[31m&state=right-state");
        assert_eq!(
            denied,
            "the platform refused the login: access_denied: You said?no?[31m"
        );
        // Marks that turn the direction of writing, hide or join what stands beside them.
        let marks =
            "error=a%E2%80%AEb&error_description=c%E2%81%A6d%E2%80%8Be%C3%A9&state=right-state";
        assert_eq!(denial(marks), "the platform refused the login: a?b: c?d?e?");
        assert_eq!(
            denial("error=server_error&state=right-state"),
            "the platform refused the login: server_error"
        );
        let entitlement =
            "error=access_denied&error_description=x+missing_codex_entitlement+y&state=right-state";
        assert!(denial(entitlement).contains("no access to Codex"));
    }

    proptest! {
        #[test]
        fn nothing_sent_makes_it_panic(text in ".{0,200}") {
            let _ = read(&text);
            let _ = read(&format!("{text}&state=right-state"));
        }
    }
}
