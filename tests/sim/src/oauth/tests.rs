use proptest::prelude::*;

use super::{token::challenge, *};

const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const REDIRECT: &str = "http://127.0.0.1:1455/auth/callback";
const NOW: UnixMillis = UnixMillis(1_000_000_000);

fn server() -> OAuth {
    let mut oauth = OAuth::new(7);
    oauth.upsert_user(User {
        email: "alice@example.test".into(),
        account_id: "acct-alice".into(),
        plan: "plus".into(),
        access_lifetime_seconds: Some(60),
    });
    oauth
}

fn request(changes: &[(&str, &str)]) -> AuthorizeRequest {
    let challenge = challenge(VERIFIER).expect("verifier");
    let mut pairs = vec![
        ("response_type", "code"),
        ("client_id", CLIENT_ID),
        ("redirect_uri", REDIRECT),
        ("scope", "openid profile email offline_access"),
        ("code_challenge", &challenge),
        ("code_challenge_method", "S256"),
        ("state", "s1"),
        ("sim_user", "alice@example.test"),
    ];
    for (name, value) in changes {
        pairs.retain(|(key, _)| key != name);
        pairs.push((name, value));
    }
    AuthorizeRequest(
        pairs
            .into_iter()
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .collect(),
    )
}

fn parameter(location: &str, name: &str) -> Option<String> {
    let url = url::Url::parse(location).expect("location");
    url.query_pairs()
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.into_owned())
}

fn code(oauth: &mut OAuth) -> String {
    match oauth.authorize(&request(&[]), NOW) {
        AuthorizeOutcome::Redirect(location) => {
            assert_eq!(parameter(&location, "state").as_deref(), Some("s1"));
            parameter(&location, "code").expect("code")
        }
        other => panic!("{other:?}"),
    }
}

fn login(oauth: &mut OAuth) -> TokenSet {
    let code = code(oauth);
    oauth
        .exchange_code(&code, REDIRECT, VERIFIER, NOW)
        .expect("tokens")
}

#[test]
fn challenge_is_the_one_of_rfc_7636_appendix_b() {
    assert_eq!(
        challenge(VERIFIER).as_deref(),
        Some("E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM")
    );
    assert_eq!(challenge("short"), None);
}

#[test]
fn authorize_tells_the_client_only_what_it_may_know() {
    let mut oauth = server();
    for (name, value) in [
        ("client_id", "other"),
        ("redirect_uri", "http://127.0.0.1:9/auth/callback"),
        ("redirect_uri", "https://evil.test/auth/callback"),
        ("redirect_uri", "http://127.0.0.1:1455/other"),
        ("state", ""),
    ] {
        let outcome = oauth.authorize(&request(&[(name, value)]), NOW);
        assert!(
            matches!(outcome, AuthorizeOutcome::Refused(_)),
            "{name}={value}: {outcome:?}"
        );
    }
    for (name, value, error) in [
        ("response_type", "token", "unsupported_response_type"),
        ("code_challenge_method", "plain", "invalid_request"),
        ("scope", "openid admin", "invalid_scope"),
        ("sim_error", "access_denied", "access_denied"),
    ] {
        match oauth.authorize(&request(&[(name, value)]), NOW) {
            AuthorizeOutcome::Redirect(location) => {
                assert_eq!(parameter(&location, "error").as_deref(), Some(error));
                assert_eq!(parameter(&location, "code"), None);
            }
            other => panic!("{name}={value}: {other:?}"),
        }
    }
    oauth.policy.any_redirect_port = true;
    let any_port = request(&[("redirect_uri", "http://127.0.0.1:9/auth/callback")]);
    assert!(matches!(
        oauth.authorize(&any_port, NOW),
        AuthorizeOutcome::Redirect(_)
    ));
}

#[test]
fn code_needs_its_verifier_its_redirect_and_its_time() {
    let mut oauth = server();
    let code = code(&mut oauth);
    let other = "x".repeat(43);
    let late = NOW.plus_seconds(CODE_LIFETIME_SECONDS);
    for (redirect, verifier, now) in [
        (REDIRECT, other.as_str(), NOW),
        ("http://localhost:1455/auth/callback", VERIFIER, NOW),
        (REDIRECT, VERIFIER, late),
    ] {
        assert_eq!(
            oauth.exchange_code(&code, redirect, verifier, now),
            Err(TokenError::InvalidGrant)
        );
    }
    assert!(oauth.exchange_code(&code, REDIRECT, VERIFIER, NOW).is_ok());
}

#[test]
fn code_replay_ends_the_login() {
    let mut oauth = server();
    let code = code(&mut oauth);
    let tokens = oauth
        .exchange_code(&code, REDIRECT, VERIFIER, NOW)
        .expect("tokens");
    assert_eq!(
        oauth.exchange_code(&code, REDIRECT, VERIFIER, NOW),
        Err(TokenError::InvalidGrant)
    );
    assert_eq!(
        oauth.refresh(&tokens.refresh_token, NOW),
        Err(TokenError::Invalidated)
    );
}

#[test]
fn replay_revokes_the_family() {
    let mut oauth = server();
    let first = login(&mut oauth);
    let second = oauth.refresh(&first.refresh_token, NOW).expect("rotation");
    assert_ne!(first.refresh_token, second.refresh_token);
    assert_eq!(
        oauth.refresh(&first.refresh_token, NOW),
        Err(TokenError::Reused)
    );
    assert_eq!(
        oauth.refresh(&second.refresh_token, NOW),
        Err(TokenError::Invalidated)
    );
    assert_eq!(
        oauth.refresh("rt_never", NOW),
        Err(TokenError::InvalidGrant)
    );
}

#[test]
fn grace_gives_the_same_pair_until_it_ends_or_the_pair_is_used() {
    let mut oauth = server();
    oauth.policy.grace_seconds = 10;
    let first = login(&mut oauth);
    let second = oauth.refresh(&first.refresh_token, NOW).expect("rotation");
    let replay = oauth.refresh(&first.refresh_token, NOW.plus_seconds(9));
    assert_eq!(replay, Ok(second.clone()));
    let third = oauth
        .refresh(&second.refresh_token, NOW.plus_seconds(9))
        .expect("rotation");
    assert_eq!(
        oauth.refresh(&first.refresh_token, NOW.plus_seconds(9)),
        Err(TokenError::Reused)
    );
    assert_eq!(
        oauth.refresh(&third.refresh_token, NOW),
        Err(TokenError::Invalidated)
    );
}

#[test]
fn access_tokens_expire_and_are_revoked() {
    let mut oauth = server();
    let tokens = login(&mut oauth);
    let access = |oauth: &OAuth, now| oauth.access(&tokens.access_token, now);
    assert!(matches!(
        access(&oauth, NOW.plus_seconds(59)),
        Access::Valid(_)
    ));
    assert!(matches!(
        access(&oauth, NOW.plus_seconds(60)),
        Access::Expired(_)
    ));
    assert_eq!(oauth.expire_access("alice@example.test", NOW), 1);
    assert!(matches!(access(&oauth, NOW), Access::Expired(_)));
    assert_eq!(oauth.revoke_access("alice@example.test"), 1);
    assert!(matches!(access(&oauth, NOW), Access::Revoked(_)));
    assert!(matches!(oauth.access("other", NOW), Access::Unknown));
}

#[test]
fn revocation_ends_login_and_access() {
    let mut oauth = server();
    let tokens = login(&mut oauth);
    assert!(oauth.revoke(&tokens.refresh_token));
    assert!(!oauth.revoke("rt_never"));
    assert!(matches!(
        oauth.access(&tokens.access_token, NOW),
        Access::Revoked(_)
    ));
    assert_eq!(
        oauth.refresh(&tokens.refresh_token, NOW),
        Err(TokenError::Invalidated)
    );
}

proptest! {
    /// Whatever is replayed, whenever, in and out of the grace window: at most one refresh token
    /// that a family ever gave out still works.
    #[test]
    fn at_most_one_live_refresh_token_per_family(
        grace in 0u64..5,
        steps in prop::collection::vec((any::<prop::sample::Index>(), 0u64..4), 1..40),
    ) {
        let mut oauth = server();
        oauth.policy.grace_seconds = grace;
        let mut issued = vec![login(&mut oauth).refresh_token];
        let mut now = NOW;
        for (choice, seconds) in steps {
            now = now.plus_seconds(seconds);
            if let Ok(tokens) = oauth.refresh(&issued[choice.index(issued.len())].clone(), now)
                && !issued.contains(&tokens.refresh_token)
            {
                issued.push(tokens.refresh_token);
            }
            let after_every_grace = now.plus_seconds(1000);
            let working = issued
                .iter()
                .filter(|token| oauth.clone().refresh(token, after_every_grace).is_ok())
                .count();
            prop_assert!(working <= 1, "{working} tokens of one family work");
        }
    }
}
