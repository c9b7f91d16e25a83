use proptest::prelude::*;
use secrecy::ExposeSecret;
use serde_json::json;

use super::*;
use crate::oauth::answer::CLAIMED_LIFE;

const NOW: UnixMillis = UnixMillis(1_790_000_000_000);

macro_rules! fixture {
    ($name:literal) => {
        include_str!(concat!("fixtures/", $name, ".json"))
    };
}

fn example() -> OAuth {
    crate::platform::example().oauth.unwrap()
}

/// The credential of OpenAI's in the text, or of whoever it does not tell.
fn read(text: &str, oauth: &OAuth) -> Result<Imported, Error> {
    let entries = recognise(text)?;
    let ours = entries
        .iter()
        .find(|entry| ["codex", "openai", ""].contains(&entry.of.as_str()));
    ours.ok_or(Error::Empty)?.read(Some(oauth), NOW)
}

fn imported(text: &str) -> Result<Imported, Error> {
    read(text, &example())
}

fn login_in(text: &str) -> Granted {
    match imported(text).unwrap() {
        Imported::Login(login) => *login,
        other => panic!("{other:?}"),
    }
}

/// The full form with one field changed, in words.
fn message_with(pointer: &str, value: Value) -> String {
    let mut file: Value = serde_json::from_str(fixture!("chatgpt")).unwrap();
    *file.pointer_mut(pointer).unwrap() = value;
    imported(&file.to_string()).unwrap_err().to_string()
}

#[test]
fn the_form_that_0_169_writes() {
    let login = login_in(fixture!("chatgpt"));
    let Credential::OAuth(tokens) = login.credential else {
        panic!("another credential")
    };
    assert_eq!(tokens.refresh.expose_secret(), "rt_fixture");
    assert_eq!(
        login.credential_expires_at,
        Some(NOW.plus(CLAIMED_LIFE)),
        "its token says ten days, and nobody else says anything"
    );
    assert_eq!(
        login.vars["account_id"], "22222222-2222-4222-8222-222222222222",
        "the file's goes before the claim"
    );
    assert_eq!(
        (login.vars["plan"].as_str(), login.vars["email"].as_str()),
        ("plus", "alice@example.com")
    );
}

#[test]
fn the_older_form_without_a_mode_takes_the_account_from_the_claims() {
    let login = login_in(fixture!("chatgpt_without_mode"));
    assert_eq!(
        login.vars["account_id"],
        "11111111-1111-4111-8111-111111111111"
    );
}

#[test]
fn a_token_of_unknown_expiry_lives_eight_days_from_its_last_refresh() {
    let last_refresh = UnixMillis(1_795_297_942_000);
    assert_eq!(
        login_in(fixture!("chatgpt_opaque_token")).credential_expires_at,
        Some(last_refresh.plus(LIFE_WITHOUT_EXPIRY))
    );
}

#[test]
fn api_keys_and_access_tokens() {
    for text in [fixture!("api_key"), fixture!("api_key_without_mode")] {
        assert!(
            matches!(imported(text).unwrap(), Imported::ApiKey(key) if key.expose_secret() == "sk-fixture-0123456789abcdefghijklmnopqrstuv")
        );
    }
    let token = imported(fixture!("personal_access_token")).unwrap();
    assert!(matches!(token, Imported::AccessToken(token) if token.expose_secret() == "at-fixture"));
}

#[test]
fn what_cannot_be_used_says_why() {
    let message = |text| imported(text).unwrap_err().to_string();
    assert!(message(fixture!("agent_identity")).contains("signs every request"));
    assert!(message(fixture!("bedrock")).contains("Amazon Bedrock"));
    assert!(
        message(r#"{"auth_mode":"chatgptAuthTokens"}"#).contains("another program owns this login")
    );
    assert!(message(r#"{"auth_mode":"headers"}"#).contains("come from another program"));
    assert_eq!(
        imported(r#"{"auth_mode":"new"}"#).unwrap_err(),
        Error::UnknownMode
    );
    assert!(message(r#"{"agent_identity":"jwt"}"#).contains("signs every request"));
}

#[test]
fn a_login_of_another_issuer_is_refused_unless_the_profile_has_it() {
    let text = fixture!("chatgpt_foreign_issuer");
    assert!(matches!(
        imported(text).unwrap_err(),
        Error::ForeignIssuer { .. }
    ));
    let oauth = OAuth {
        token_url: "https://login.example.com/oauth/token".parse().unwrap(),
        ..example()
    };
    assert!(read(text, &oauth).is_ok());
    let other = OAuth {
        client_id: "other".into(),
        ..oauth
    };
    assert!(read(text, &other).is_err());
}

#[test]
fn errors_name_the_field_and_never_its_value() {
    for (pointer, value, field) in [
        ("/tokens", json!("rt_secret"), "tokens: expected an object"),
        (
            "/tokens/access_token",
            json!(7),
            "tokens.access_token: expected a string of visible ASCII, found a number",
        ),
        ("/tokens/refresh_token", json!(""), "tokens.refresh_token"),
        (
            "/tokens/refresh_token",
            json!("rt_\nsecret"),
            "tokens.refresh_token",
        ),
        ("/tokens/id_token", json!("rt_secret"), "tokens.id_token"),
        (
            "/tokens/account_id",
            json!(["rt_secret"]),
            "tokens.account_id",
        ),
        (
            "/tokens/oauth_provenance",
            json!("rt_secret"),
            "tokens.oauth_provenance",
        ),
        ("/last_refresh", json!("rt_secret"), "last_refresh"),
        ("/auth_mode", json!({"a": "rt_secret"}), "auth_mode"),
        ("/auth_mode", json!("rt_secret"), "auth_mode"),
    ] {
        let message = message_with(pointer, value);
        assert!(
            message.starts_with(field) && !message.contains("rt_secret"),
            "{message}"
        );
    }
    assert_eq!(imported("[]").unwrap_err(), Error::Empty);
    for blank in ["", " \n\t\n", "\u{feff}\n"] {
        assert_eq!(imported(blank).unwrap_err(), Error::Blank);
    }
    let number = imported("7").unwrap_err().to_string();
    assert!(
        number.starts_with("the file: expected an object"),
        "{number}"
    );
    assert!(
        imported(r#"{"auth_mode":"apikey","OPENAI_API_KEY":null}"#)
            .unwrap_err()
            .to_string()
            .contains("found null")
    );
}

#[test]
fn a_file_cut_short_anywhere_is_refused_with_its_place() {
    let whole = fixture!("chatgpt").trim_end();
    for end in 1..whole.len() {
        let error = imported(&whole[..end]).unwrap_err();
        assert!(matches!(error, Error::Syntax { .. }), "at {end}: {error}");
    }
    assert!(
        imported("{\n  \"tokens\": }")
            .unwrap_err()
            .to_string()
            .starts_with("line 2, column 13")
    );
}

/// The access token of Codex CLI's login, which says whose it is as the id token does, but for the address.
fn access() -> String {
    let claims = json!({
        "exp": 1_790_864_000,
        "https://api.openai.com/auth": {"chatgpt_account_id": "ws-1", "chatgpt_user_id": "user-1"},
    });
    claims::unsigned(&claims).expose_secret().to_owned()
}

#[test]
fn editors_and_copies_leave_a_file_what_it_is() {
    let whole = fixture!("chatgpt");
    let windows = format!("\u{feff}{}", whole.replace('\n', "\r\n"));
    assert_eq!(login_in(&windows).vars, login_in(whole).vars);
    let access = access();
    let login = login_in(
        &json!({"tokens": {"access_token": format!("{access}\r\n"), "refresh_token": " rt_1 ", "account_id": "",
                           "id_token": ""}})
        .to_string(),
    );
    assert_eq!(
        (&*login.vars["account_id"], &*login.vars["user_id"]),
        ("ws-1", "user-1")
    );
    let Credential::OAuth(tokens) = login.credential else {
        panic!("another credential")
    };
    assert_eq!(tokens.access.expose_secret(), access);
    assert_eq!(tokens.refresh.expose_secret(), "rt_1");
    assert!(tokens.id.is_none());
}

#[test]
fn files_of_other_programs_hold_the_same_login() {
    let (access, client) = (access(), example().client_id);
    let cli_proxy_api = json!({
        "access_token": access, "refresh_token": "rt_1", "id_token": "", "account_id": "ws-1", "type": "codex",
        "email": "a@example.com", "last_refresh": "2026-09-21T14:13:20Z", "expired": "2026-10-01T14:13:20Z",
    });
    let account = json!({"name": "a", "platform": "openai", "type": "oauth", "credentials": {
        "access_token": access, "refresh_token": "rt_1", "chatgpt_account_id": "ws-1", "email": "a@example.com",
        "client_id": client, "expires_at": "1790864000",
    }});
    let other = json!({"name": "b", "platform": "anthropic", "type": "apikey", "credentials": {"api_key": "x"}});
    let sub2api = json!({"exported_at": "", "proxies": [], "accounts": [other, account]});
    let opencode = json!({"anthropic": {"type": "api", "key": "x"}, "openai": {
        "type": "oauth", "access": access, "refresh": "rt_1", "expires": 1_790_864_000_000_u64, "accountId": "ws-1",
    }});
    let camel = json!({"accessToken": access, "refreshToken": "rt_1", "accountId": "ws-1", "email": "a@example.com"});
    for file in [
        cli_proxy_api.clone(),
        sub2api.clone(),
        json!({"code": 0, "data": sub2api}),
        opencode,
        camel.clone(),
        json!({"tokens": camel}),
    ] {
        let login = login_in(&file.to_string());
        assert_eq!(login.vars["account_id"], "ws-1", "{file}");
        // The file says as much as the token, or nothing.
        let is_told = ["2026-10-01", "1790864000"];
        let is_told = is_told.iter().any(|end| file.to_string().contains(end));
        let end = match is_told {
            true => UnixMillis(1_790_864_000_000),
            false => NOW.plus(CLAIMED_LIFE),
        };
        assert_eq!(login.credential_expires_at, Some(end), "{file}");
        let Credential::OAuth(tokens) = login.credential else {
            panic!("another credential")
        };
        assert_eq!(tokens.refresh.expose_secret(), "rt_1", "{file}");
    }
    assert_eq!(
        login_in(&cli_proxy_api.to_string()).vars["email"],
        "a@example.com"
    );
    let opaque = json!({"access": "opaque", "refresh": "rt_1", "expires": 1_790_000_060_000_u64});
    assert_eq!(
        login_in(&opaque.to_string()).credential_expires_at,
        Some(UnixMillis(1_790_000_060_000))
    );
    let key = imported(r#"{"openai": {"type": "api", "key": "sk-1"}}"#).unwrap();
    assert!(matches!(key, Imported::ApiKey(key) if key.expose_secret() == "sk-1"));
}

#[test]
fn files_of_other_programs_that_hold_no_such_login_say_so() {
    let account = |platform: &str, kind: &str| {
        json!({"platform": platform, "type": kind, "credentials": {"access_token": "secret", "refresh_token": "secret",
               "client_id": "app_secret"}})
    };
    let accounts = |accounts: &[Value]| json!({ "accounts": accounts });
    let ours = account("openai", "oauth");
    for (file, said) in [
        (accounts(&[]), "expected at least one credential"),
        (
            accounts(&[account("gemini", "oauth"), account("openai", "apikey")]),
            "accounts[1].credentials.key: expected a string of visible ASCII, found nothing",
        ),
        (
            accounts(&[account("openai", "upstream")]),
            "accounts[0].type: expected oauth or apikey",
        ),
        (
            accounts(&[ours]),
            "accounts[0].credentials.client_id: expected issuer",
        ),
        (
            json!({"openai": {"type": "wellknown", "key": "secret"}}),
            "openai.type: expected oauth or api",
        ),
        (
            json!({"accessToken": "secret"}),
            "refresh_token: expected a string of visible ASCII, found nothing",
        ),
        (
            json!({"accessToken": "a", "refreshToken": "b", "expiresAt": "secret"}),
            "expiresAt: expected a time",
        ),
    ] {
        let message = imported(&file.to_string()).unwrap_err().to_string();
        assert!(
            message.contains(said) && !message.contains("secret"),
            "{message}"
        );
    }
}

#[test]
fn logins_of_other_platforms_are_told_by_what_their_files_hold() {
    for (file, of) in [
        (
            json!({"claudeAiOauth": {"accessToken": "a", "refreshToken": "r", "expiresAt": 1_790_000_060_000_u64}}),
            "claude",
        ),
        (
            json!({"access_token": "a", "refresh_token": "r", "token_type": "Bearer", "expiry_date": 1_790_000_060_000_u64}),
            "gemini",
        ),
        (
            json!({"access_token": "a", "refresh_token": "r", "resource_url": "x", "expiry_date": 1_790_000_060_000_u64}),
            "qwen-code",
        ),
        (
            json!({"type": "claude", "access_token": "a", "refresh_token": "r", "expired": "2026-09-21T14:14:20Z"}),
            "claude",
        ),
    ] {
        let entries = recognise(&file.to_string()).unwrap();
        assert_eq!((entries.len(), entries[0].of.as_str()), (1, of));
        let Imported::Login(login) = entries[0].read(None, NOW).unwrap() else {
            panic!("no login: {file}");
        };
        let end = Some(UnixMillis(1_790_000_060_000));
        assert_eq!(login.credential_expires_at, end, "{file}");
    }
}

/// CLIProxyAPI and sub2api say who somebody is at Anthropic, and in which organization.
#[test]
fn a_person_at_anthropic_is_known_by_both_ids() {
    let cli_proxy_api = json!({
        "type": "claude", "access_token": "a", "refresh_token": "r", "id_token": "", "email": "a@example.com",
        "account_uuid": "person-1", "organization_uuid": "org-1", "organization_name": "x", "expired": "2026-09-21T14:14:20Z",
    });
    let ids =
        json!({"org_uuid": "org-1", "account_uuid": "person-1", "email_address": "a@example.com"});
    let sub2api = |within: &str| {
        let mut account = json!({"name": "a", "platform": "anthropic", "type": "oauth", "extra": {"x": 1}, "credentials": {
            "access_token": "a", "refresh_token": "r", "expires_at": 1_790_000_060,
        }});
        let place = account[within].as_object_mut().unwrap();
        place.extend(ids.as_object().unwrap().clone());
        json!({ "accounts": [account] })
    };
    for file in [cli_proxy_api, sub2api("extra"), sub2api("credentials")] {
        is_known_by_both_ids(&file);
    }
    // What stands beside the tokens of another program is whatever it likes.
    let mut other = sub2api("credentials");
    other["accounts"][0]["extra"] = "none".into();
    is_known_by_both_ids(&other);
}

fn is_known_by_both_ids(file: &Value) {
    let entries = recognise(&file.to_string()).unwrap();
    let Imported::Login(login) = entries[0].read(None, NOW).unwrap() else {
        panic!("no login");
    };
    let vars: Vec<_> = login
        .vars
        .iter()
        .map(|(name, text)| (&**name, &**text))
        .collect();
    let expected = [
        ("account_id", "org-1"),
        ("email", "a@example.com"),
        ("user_id", "person-1"),
    ];
    assert_eq!(vars, expected);
}

/// The key of an entry, and what else is known of it.
fn key(entry: &Entry) -> (&str, Option<&str>, Option<&str>, String) {
    let Ok(Imported::ApiKey(key)) = entry.read(None, NOW) else {
        panic!("no key: {entry:?}");
    };
    let key = key.expose_secret().to_owned();
    (&entry.of, entry.name.as_deref(), entry.pool.as_deref(), key)
}

#[test]
fn keys_come_in_tables_and_lists() {
    let table = "Name;Platform;Key;Pool;Owner\r\n team a ;openai;sk-1;paid;us\r\nb;\"qwen\";sk-2;;\"x;y\"\r\n";
    let list = json!([
        {"name": "team a", "platform": "openai", "key": "sk-1", "pool": "paid", "owner": "us"},
        {"name": "b", "platform": "qwen", "api_key": "sk-2"},
    ]);
    let within = json!({"accounts": list, "exported": 1});
    for text in [
        table.to_owned(),
        table.replace(';', ",").replace("x,y", "x;y"),
        format!("\u{feff}{}", table.replace(';', "\t")),
        list.to_string(),
        within.to_string(),
    ] {
        let entries = recognise(&text).unwrap();
        let keys: Vec<_> = entries.iter().map(key).collect();
        assert_eq!(
            keys,
            [
                ("openai", Some("team a"), Some("paid"), "sk-1".to_owned()),
                ("qwen", Some("b"), None, "sk-2".to_owned()),
            ],
            "{text}"
        );
    }
    let no_key = recognise("name,key\nx,\n").unwrap();
    let error = no_key[0].read(None, NOW).unwrap_err().to_string();
    assert!(error.starts_with("line 2.key: expected"), "{error}");
    let torn = recognise("name,platform,key\na,b\n").unwrap_err();
    assert_eq!(torn, Error::Row { line: 2 });
}

#[test]
fn no_more_is_read_than_anybody_has() {
    let rows = |number: usize| "a,openai,sk-1\n".repeat(number);
    let table = |number| format!("name,platform,key\n{}", rows(number));
    assert!(recognise(&table(ENTRIES_LIMIT)).is_ok());
    assert_eq!(
        recognise(&table(ENTRIES_LIMIT + 1)).unwrap_err(),
        Error::TooMany
    );
}

proptest! {
    #[test]
    fn no_file_makes_it_panic(text in ".{0,300}") {
        let _ = imported(&text);
    }
}
