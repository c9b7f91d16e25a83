use proptest::prelude::*;
use secrecy::ExposeSecret;
use serde_json::json;

use super::*;
use crate::oauth::claims::unsigned;

const NOW: UnixMillis = UnixMillis(1_790_000_000_000);

/// As the profile of Codex has it.
fn codes() -> Ends {
    let codes = [
        INVALID_GRANT,
        "refresh_token_expired",
        "refresh_token_reused",
        "refresh_token_invalidated",
    ];
    Ends {
        codes: codes.map(String::from).to_vec(),
        statuses: vec![401],
    }
}

fn answer(status: u16, body: impl AsRef<[u8]>) -> Answer {
    Answer {
        status,
        retry_after: None,
        body: body.as_ref().to_vec().into(),
    }
}

fn outcome(status: u16, body: impl ToString) -> Outcome {
    classify(
        &answer(status, body.to_string()),
        &Members::default(),
        &codes(),
        NOW,
    )
}

fn granted(body: Value) -> Grant {
    match outcome(200, body) {
        Outcome::Fresh(grant) => grant,
        other => panic!("not fresh: {other:?}"),
    }
}

fn old() -> Credential {
    Credential::OAuth(OAuthTokens {
        access: "old-access".into(),
        refresh: "old-refresh".into(),
        id: Some("old-id".into()),
        client: None,
    })
}

/// No refresh moves the end of a refresh token, so it is that of the login.
#[test]
fn the_end_of_a_login_is_told_beside_its_refresh_token() {
    let jwt = |exp: i64| unsigned(&json!({ "exp": exp })).expose_secret().to_owned();
    let day = 24 * 60 * 60;
    let in_a_day = NOW.0 / 1_000 + day;
    let told = |more: Value| {
        let mut body = json!({"access_token": "a", "expires_in": 60});
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        granted(body).login_end()
    };
    let end = Some(Some(NOW.plus(Duration::from_secs(24 * 60 * 60))));
    for (more, expected) in [
        (
            json!({"refresh_token": "r", "refresh_token_expires_in": day}),
            end,
        ),
        (
            json!({"refresh_token": "r", "refresh_expires_in": "86400"}),
            end,
        ),
        (json!({"refresh_token": jwt(in_a_day)}), end),
        // What it keeps, it may still tell the end of.
        (json!({"refresh_token_expires_in": day}), end),
        (json!({}), None),
        (json!({"refresh_token": "opaque"}), Some(None)),
        // Keycloak's word for none; and one that is past, as where clocks disagree.
        (
            json!({"refresh_token": "r", "refresh_expires_in": 0}),
            Some(None),
        ),
        (json!({"refresh_token": jwt(5)}), Some(None)),
    ] {
        let found = told(more.clone());
        let near = |end: UnixMillis| UnixMillis(end.0 / 1_000);
        assert_eq!(
            found.map(|end| end.map(near)),
            expected.map(|end| end.map(near)),
            "{more}"
        );
    }
}

/// The old tokens with what was granted, and their expiry.
fn over(body: Value) -> (OAuthTokens, Option<UnixMillis>) {
    match granted(body).over(&old(), Some(NOW)) {
        (Credential::OAuth(tokens), expires_at) => (tokens, expires_at),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_answer_of_another_form_is_read_where_the_profile_says() {
    let named = |access: &str, end: &str| Members {
        access_token: access.to_owned(),
        expires_at: Some(end.to_owned()),
        ..Members::default()
    };
    let end = UnixMillis(NOW.0 + 86_400_000);
    for (members, body) in [
        (
            named("token", "expireTime"),
            json!({"token": "t", "userId": "u", "createTime": "2026-09-21T14:13:20Z", "expireTime": "2026-09-22T14:13:20Z"}),
        ),
        (
            named("/data/a~1b", "/data/end"),
            json!({"data": {"a/b": "t", "end": end.0 / 1_000}}),
        ),
        (named("/token", "/end"), json!({"token": "t", "end": end.0})),
    ] {
        let answer = answer(200, body.to_string());
        let Outcome::Fresh(grant) = classify(&answer, &members, &codes(), NOW) else {
            panic!("no token in {body}");
        };
        let (access, expires_at) = grant.access.unwrap();
        assert_eq!(
            (access.expose_secret(), expires_at),
            ("t", Some(end)),
            "{body}"
        );
    }
    // An end that is past shows that the clocks disagree.
    let past = answer(
        200,
        r#"{"token": "t", "expireTime": "2026-09-21T14:13:19Z", "expires_in": 60}"#,
    );
    let members = named("token", "expireTime");
    let Outcome::Fresh(grant) = classify(&past, &members, &codes(), NOW) else {
        panic!("no token");
    };
    assert_eq!(grant.access.unwrap().1, None);
}

/// Baidu's server says so with 200.
#[test]
fn an_error_inside_200_is_a_refusal() {
    let refused = json!({"error": "invalid_client", "error_description": "unknown client id"});
    let judged = |ends: &Ends| {
        let answer = answer(200, refused.to_string());
        classify(&answer, &Members::default(), ends, NOW)
    };
    assert!(matches!(judged(&codes()), Outcome::Transient { .. }));
    let listed = judged(&Ends {
        codes: vec!["invalid_client".to_owned()],
        statuses: Vec::new(),
    });
    assert!(
        matches!(listed, Outcome::Permanent { reason } if reason == "invalid_client (HTTP 200)")
    );
}

#[test]
fn a_token_that_no_header_could_carry_costs_no_login() {
    let most = MAX_VALUE_BYTES;
    let (longest, long) = ("x".repeat(most), "x".repeat(most + 1));
    let (tokens, _) = over(json!({"access_token": longest}));
    assert_eq!(tokens.access.expose_secret().len(), most);
    let body = json!({"access_token": long, "refresh_token": "new-refresh"});
    assert!(granted(body.clone()).is_too_long);
    let (tokens, _) = over(body);
    assert_eq!(tokens.access.expose_secret(), "old-access");
    assert_eq!(tokens.refresh.expose_secret(), "new-refresh");
    let alone = outcome(200, json!({"access_token": long}));
    let Outcome::Transient { reason, .. } = alone else {
        panic!("{alone:?}");
    };
    assert!(reason.contains("16384 bytes"), "{reason}");
}

#[test]
fn fields_that_are_absent_keep_the_old_ones() {
    let (tokens, expires_at) = over(json!({"access_token": "new-access"}));
    assert_eq!(tokens.access.expose_secret(), "new-access");
    assert_eq!(tokens.refresh.expose_secret(), "old-refresh");
    assert_eq!(tokens.id.unwrap().expose_secret(), "old-id");
    assert_eq!(
        expires_at, None,
        "the old expiry says nothing about the new access token"
    );

    let rotated = json!({"refresh_token": "new-refresh", "access_token": ""});
    let (tokens, expires_at) = over(rotated);
    assert_eq!(tokens.access.expose_secret(), "old-access");
    assert_eq!(tokens.refresh.expose_secret(), "new-refresh");
    assert_eq!(expires_at, Some(NOW));
}

#[test]
fn the_expiry_is_the_claim_within_days_else_the_announced_life_within_a_year() {
    let expires = |exp: Value, expires_in: Value| {
        let access = unsigned(&json!({"exp": exp}));
        granted(json!({"access_token": access.expose_secret(), "expires_in": expires_in}))
            .access
            .unwrap()
            .1
    };
    let now = NOW.0 / 1000;
    let in_an_hour = Some(NOW.plus(Duration::from_secs(3600)));
    assert_eq!(expires(json!(now + 3600), json!(60)), in_an_hour);
    assert_eq!(expires(json!(null), json!(3600)), in_an_hour);
    assert_eq!(expires(json!(null), json!("3600")), in_an_hour);
    assert_eq!(
        expires(json!(now - 3600), json!(3600)),
        in_an_hour,
        "our clock is ahead"
    );
    // A token's word about itself is a hint; the endpoint that issued it may announce more.
    let far = || json!(now + 3_000_000_000);
    let days = |days: u64| Some(NOW.plus(Duration::from_secs(days * 24 * 60 * 60)));
    assert_eq!(expires(far(), json!(null)), days(8));
    assert_eq!(expires(far(), json!(3600)), days(8));
    assert_eq!(expires(far(), json!(10 * 24 * 60 * 60)), days(10));
    assert_eq!(
        expires(far(), json!(3_000_000_000_u64)),
        Some(NOW.plus(EXPIRY_LIMIT))
    );
    assert_eq!(expires(json!(1e18), json!(-5)), None);
    assert_eq!(expires(json!(now - 3600), json!(null)), None);
}

#[test]
fn answers_that_end_the_login() {
    let nested = |code: &str| json!({"error": {"code": code, "message": "please sign in again", "param": null}});
    let ends = [
        (
            401,
            nested("refresh_token_reused"),
            "refresh_token_reused (HTTP 401)",
        ),
        (
            400,
            nested("refresh_token_expired"),
            "refresh_token_expired (HTTP 400)",
        ),
        (
            403,
            nested("REFRESH_TOKEN_INVALIDATED"),
            "refresh_token_invalidated (HTTP 403)",
        ),
        (
            500,
            json!({"code": "refresh_token_reused"}),
            "refresh_token_reused (HTTP 500)",
        ),
        (
            400,
            json!({"error": "invalid_grant", "error_description": "gone"}),
            "invalid_grant (HTTP 400)",
        ),
        (
            401,
            json!({"error": "invalid_grant"}),
            "invalid_grant (HTTP 401)",
        ),
        (
            401,
            json!({"error": {"code": "something_else"}}),
            "HTTP 401",
        ),
        (401, json!("<html>"), "HTTP 401"),
        (
            200,
            json!({"error": "invalid_grant"}),
            "invalid_grant (HTTP 200)",
        ),
    ];
    for (status, body, expected) in ends {
        match outcome(status, &body) {
            Outcome::Permanent { reason } => assert_eq!(reason, expected),
            other => panic!("{status} {body}: {other:?}"),
        }
    }
}

#[test]
fn answers_that_pass() {
    let passing = [
        (400, "{}"),
        (400, r#"{"error":"invalid_request"}"#),
        (403, "<html>Cloudflare</html>"),
        (403, r#"{"error":"invalid_grant"}"#),
        (429, r#"{"error":{"code":"rate_limit_exceeded"}}"#),
        (302, ""),
        (500, ""),
        (502, "<html>"),
        (503, r#"{"error":"invalid_grant"}"#),
        (200, r#"{"error":"temporarily_unavailable"}"#),
    ];
    for (status, body) in passing {
        let outcome = outcome(status, body);
        assert!(
            matches!(outcome, Outcome::Transient { .. }),
            "{status} {body}: {outcome:?}"
        );
    }
}

#[test]
fn a_refusal_is_told_from_trouble() {
    use Failure::{Refused, Troubled};
    for (status, body, expected) in [
        (400, "{}", Refused),
        (400, r#"{"error":"invalid_request"}"#, Refused),
        (410, "", Refused),
        (403, "<html>Cloudflare</html>", Refused),
        (404, "", Refused),
        (200, r#"{"error":"access_denied"}"#, Refused),
        (200, r#"{"error":"temporarily_unavailable"}"#, Troubled),
        (400, r#"{"error":"server_error"}"#, Troubled),
        (408, "", Troubled),
        (425, "", Troubled),
        (429, r#"{"error":{"code":"rate_limit_exceeded"}}"#, Troubled),
        (302, "", Troubled),
        (500, r#"{"error":"invalid_request"}"#, Troubled),
        (503, "", Troubled),
    ] {
        let Outcome::Transient { how, .. } = outcome(status, body) else {
            panic!("{status} {body}");
        };
        assert_eq!(how, expected, "{status} {body}");
    }
}

/// A filter before the endpoint says 401 and 403 too. What its profile does not list ends no login.
#[test]
fn a_refusal_that_says_nothing_known_ends_a_login_only_where_the_profile_says_so() {
    let anthropic =
        json!({"type": "error", "error": {"type": "authentication_error", "message": "no"}});
    let none = Ends::default();
    let listed = Ends {
        codes: vec!["invalid_grant".to_owned()],
        statuses: vec![403],
    };
    for (status, body, ends_none, ends_listed) in [
        (400, json!({"error": "invalid_grant"}), true, true),
        (401, json!({"error": "Invalid_Grant"}), true, true),
        (401, json!({"error": "invalid_client"}), true, true),
        (401, json!({"error": "unauthorized_client"}), true, true),
        (400, json!({"error": "invalid_client"}), false, false),
        (401, json!({"error": "invalid_request"}), false, false),
        (401, json!("<html>"), false, false),
        (401, json!({}), false, false),
        (401, anthropic.clone(), false, false),
        (403, anthropic, false, true),
        (403, json!("<html>"), false, true),
        (429, json!({"error": "rate_limit_exceeded"}), false, false),
    ] {
        for (ends, expected) in [(&none, ends_none), (&listed, ends_listed)] {
            let answer = answer(status, body.to_string());
            let outcome = classify(&answer, &Members::default(), ends, NOW);
            let is_final = matches!(outcome, Outcome::Permanent { .. });
            assert_eq!(is_final, expected, "{status} {body}: {outcome:?}");
            assert!(is_final || matches!(outcome, Outcome::Transient { .. }));
        }
    }
}

#[test]
fn retry_after_is_passed_on() {
    let slow_down = Answer {
        retry_after: Some(Duration::from_secs(7)),
        ..answer(429, "")
    };
    let Outcome::Transient { retry_after, .. } =
        classify(&slow_down, &Members::default(), &codes(), NOW)
    else {
        panic!()
    };
    assert_eq!(retry_after, Some(Duration::from_secs(7)));
}

#[test]
fn success_without_readable_tokens_is_unknown() {
    for body in [
        "",
        "\n",
        "{}",
        "7",
        r#"{"access_token":"#,
        r#"{"access_token":"a\nb"}"#,
        "[]",
    ] {
        let outcome = outcome(200, body);
        assert!(
            matches!(outcome, Outcome::Unknown { .. }),
            "{body}: {outcome:?}"
        );
    }
}

#[test]
fn a_page_in_place_of_an_answer_is_told_from_one_that_was_cut_short() {
    for body in ["<html>", "\n<!doctype html>", "OK", "please wait {"] {
        let outcome = outcome(200, body);
        assert!(
            matches!(outcome, Outcome::Page { .. }),
            "{body}: {outcome:?}"
        );
    }
}

#[test]
fn a_reason_never_quotes_the_server() {
    let echo =
        json!({"error": {"code": "rt_the_refresh_token", "message": "rt_the_refresh_token"}});
    for status in [200, 400, 401, 500] {
        assert!(!format!("{:?}", outcome(status, &echo)).contains("rt_the"));
    }
    assert!(!format!("{:?}", answer(200, "rt_the_body")).contains("rt_the"));
    assert!(!refusal(&answer(400, echo.to_string())).contains("rt_the"));
}

proptest! {
    #[test]
    fn any_answer_has_an_outcome_and_an_expiry_is_within_a_year(
        status in 100u16..600, body in ".{0,200}", exp: f64, expires_in: i64,
    ) {
        classify(&answer(status, body), &Members::default(), &codes(), NOW);
        let access = unsigned(&json!({"exp": exp}));
        let grant = granted(json!({"access_token": access.expose_secret(), "expires_in": expires_in}));
        if let Some(expires_at) = grant.access.unwrap().1 {
            prop_assert!(expires_at > NOW && expires_at <= NOW.plus(EXPIRY_LIMIT));
        }
    }
}
