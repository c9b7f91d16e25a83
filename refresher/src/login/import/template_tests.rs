//! The rest of files, and files written again.

use serde_json::json;

use super::*;
use crate::credential::OAuthTokens;
use crate::login::import::recognise;

const NOW: UnixMillis = UnixMillis(1_790_000_000_000);

fn tokens(access: &str, refresh: &str, id: Option<&str>) -> Credential {
    Credential::OAuth(OAuthTokens {
        access: access.into(),
        refresh: refresh.into(),
        id: id.map(Into::into),
        client: None,
    })
}

fn exported(entry: &Entry, credential: Credential) -> Exported {
    let template = Template::of(entry).unwrap();
    let bytes = template.to_bytes();
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    assert!(!text.contains("SECRET"), "{text}");
    Exported {
        template: Template::from_bytes(&bytes).unwrap(),
        credential,
        credential_expires_at: Some(NOW.plus(std::time::Duration::from_secs(3600))),
        issued_at: NOW,
    }
}

/// Unknown keys survive, and each program finds the new tokens where it looks for them, as it writes times.
#[test]
fn a_login_is_written_as_its_file_had_it() {
    for (file, written) in [
        (
            json!({"auth_mode": "chatgpt", "OPENAI_API_KEY": null, "more": [1], "last_refresh": "2026-01-01T00:00:00Z",
                   "tokens": {"access_token": "SECRET", "refresh_token": "SECRET", "id_token": "SECRET.x.y", "account_id": "w",
                              "kept": true}}),
            json!({"auth_mode": "chatgpt", "OPENAI_API_KEY": null, "more": [1], "last_refresh": "2026-09-21T14:13:20Z",
                   "tokens": {"access_token": "new", "refresh_token": "next", "id_token": "id", "account_id": "w",
                              "kept": true}}),
        ),
        (
            json!({"mcpOAuth": {"x": 1}, "claudeAiOauth": {"accessToken": "SECRET", "refreshToken": "SECRET",
                   "expiresAt": 1_789_999_999_000_u64, "scopes": ["a"], "subscriptionType": "max"}}),
            json!({"mcpOAuth": {"x": 1}, "claudeAiOauth": {"accessToken": "new", "refreshToken": "next",
                   "expiresAt": 1_790_003_600_000_u64, "scopes": ["a"], "subscriptionType": "max"}}),
        ),
        (
            json!({"access_token": "SECRET", "refresh_token": "SECRET", "scope": "s", "token_type": "Bearer",
                   "expiry_date": 1_789_999_999_000_u64}),
            json!({"access_token": "new", "refresh_token": "next", "scope": "s", "token_type": "Bearer",
                   "expiry_date": 1_790_003_600_000_u64}),
        ),
        (
            json!({"type": "codex", "access_token": "SECRET", "refresh_token": "SECRET", "id_token": "", "email": "a@b",
                   "last_refresh": "2026-01-01T00:00:00Z", "expired": "2026-01-01T00:00:00Z", "disabled": false}),
            json!({"type": "codex", "access_token": "new", "refresh_token": "next", "id_token": null, "email": "a@b",
                   "last_refresh": "2026-09-21T14:13:20Z", "expired": "2026-09-21T15:13:20Z", "disabled": false}),
        ),
    ] {
        let entries = recognise(&file.to_string()).unwrap();
        let text = write(&[exported(&entries[0], tokens("new", "next", Some("id")))]).unwrap();
        let found: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(found, written);
        // What was written is what the program would hand over again.
        assert_eq!(recognise(&text).unwrap()[0].of, entries[0].of);
    }
}

#[test]
fn files_of_several_accounts_hold_them_all_again() {
    let sub2api = json!({"type": "sub2api-data", "proxies": [{"p": 1}], "accounts": [
        {"name": "a", "platform": "openai", "type": "oauth", "priority": 3, "credentials": {
            "access_token": "SECRET", "refresh_token": "SECRET", "expires_at": "1789999999", "plan": "plus"}},
        {"name": "b", "platform": "openai", "type": "apikey", "credentials": {"api_key": "SECRET", "base_url": "u"}},
    ]});
    let entries = recognise(&sub2api.to_string()).unwrap();
    let text = write(&[
        exported(&entries[0], tokens("new", "next", None)),
        exported(&entries[1], Credential::ApiKey("sk-2".into())),
    ])
    .unwrap();
    let found: Value = serde_json::from_str(&text).unwrap();
    let written = json!({"type": "sub2api-data", "proxies": [{"p": 1}], "accounts": [
        {"name": "a", "platform": "openai", "type": "oauth", "priority": 3, "credentials": {
            "access_token": "new", "refresh_token": "next", "expires_at": "1790003600", "plan": "plus"}},
        {"name": "b", "platform": "openai", "type": "apikey", "credentials": {"api_key": "sk-2", "base_url": "u"}},
    ]});
    assert_eq!(found, written);

    let opencode = json!({"openai": {"type": "api", "key": "SECRET", "x": 1}, "zai": {"type": "api", "key": "SECRET"}});
    let entries = recognise(&opencode.to_string()).unwrap();
    let keys = entries
        .iter()
        .map(|entry| exported(entry, Credential::ApiKey("sk-1".into())));
    let text = write(&keys.collect::<Vec<_>>()).unwrap();
    let found: Value = serde_json::from_str(&text).unwrap();
    let written = json!({"openai": {"type": "api", "key": "sk-1", "x": 1}, "zai": {"type": "api", "key": "sk-1"}});
    assert_eq!(found, written);

    let table =
        "Name,Cost centre,platform,API_KEY\nteam,\"a,b\",openai,SECRET\nother,,qwen,SECRET\n";
    let entries = recognise(table).unwrap();
    let keys = entries
        .iter()
        .map(|entry| exported(entry, Credential::ApiKey("sk-1".into())));
    let text = write(&keys.collect::<Vec<_>>()).unwrap();
    assert_eq!(*text, table.replace("SECRET", "sk-1"));
}

#[test]
fn accounts_that_came_from_no_file_get_one_that_their_program_reads() {
    let vars = Vars::from([("account_id".to_owned(), "ws-1".to_owned())]);
    let fresh = |kind, file| Template::fresh("a", "codex", kind, file, &vars);
    for (file, of) in [
        (Some(CredentialFile::Codex), "codex"),
        (Some(CredentialFile::Claude), "claude"),
        (Some(CredentialFile::Gemini), "gemini"),
        (None, "codex"),
    ] {
        let account = |template| Exported {
            template,
            credential: tokens("new", "next", None),
            credential_expires_at: Some(NOW),
            issued_at: NOW,
        };
        let text = write(&[account(fresh(CredentialKind::OAuth, file))]).unwrap();
        let entries = recognise(&text).unwrap();
        assert_eq!(entries[0].of, of, "{}", *text);
        assert!(entries[0].read(None, NOW).is_ok(), "{}", *text);
        let two = [
            account(fresh(CredentialKind::OAuth, file)),
            account(fresh(CredentialKind::OAuth, file)),
        ];
        assert_eq!(write(&two).unwrap_err(), Error::Several);
    }
    let key = Exported {
        template: fresh(CredentialKind::ApiKey, None),
        credential: Credential::ApiKey("sk-1".into()),
        credential_expires_at: None,
        issued_at: NOW,
    };
    let text = write(&[key]).unwrap();
    let written: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        written,
        json!([{"name": "a", "platform": "codex", "key": "sk-1"}])
    );
}

/// A file that would fill the database is not kept, and its credential is taken all the same.
#[test]
fn no_more_is_kept_than_programs_write() {
    let file =
        json!({"access_token": "a", "refresh_token": "r", "more": "x".repeat(TEMPLATE_LIMIT)});
    let entries = recognise(&file.to_string()).unwrap();
    assert!(Template::of(&entries[0]).is_none());
}
