use std::fs;
use std::sync::Arc;

use super::*;
use crate::app::Options;
use crate::oauth::claims::IDENTITY;
use crate::platform::flow::PROJECT;
use crate::store::NewAccount;

const PLATFORM: &str = "gemini-code-assist";

/// An installation whose platform answers nobody, with the account `alice`, whose project is `mine`.
async fn installation() -> (tempfile::TempDir, App) {
    let outer = tempfile::tempdir().unwrap();
    let (state, platforms) = (outer.path().join("state"), outer.path().join("platforms"));
    crate::files::make_private_dir(&state).unwrap();
    fs::create_dir(&platforms).unwrap();
    let profile = "[upstream]\nbase_url = 'https://127.0.0.1:1'\n";
    fs::write(platforms.join(format!("{PLATFORM}.toml")), profile).unwrap();
    let config = format!("platforms_dir = '{}'\n", platforms.display());
    fs::write(state.join("config.toml"), config).unwrap();
    let options = Options {
        state_dir: Some(state),
        acknowledged_terms: vec![PLATFORM.to_owned()],
        may_make: true,
        ..Options::default()
    };
    let app = App::open(options, |_| None, Arc::new(SystemClock));
    let app = app.await.unwrap();
    let mut alice = granted("1");
    alice.vars.insert(PROJECT.to_owned(), "mine".to_owned());
    let new = NewAccount {
        name: "alice",
        platform: PLATFORM,
        credential: alice.credential,
        vars: alice.vars,
        credential_expires_at: None,
        base_url: None,
    };
    let (terms, now) = (Terms::default(), app.now());
    let saved = app.store.save_account(new, &terms, false, now).await;
    saved.unwrap();
    (outer, app)
}

/// The login of the person of this identity.
fn granted(identity: &str) -> Granted {
    Granted {
        credential: Credential::ApiKey(SecretString::from("an access token")),
        credential_expires_at: None,
        login_ends_at: None,
        vars: [(IDENTITY.to_owned(), identity.to_owned())].into(),
    }
}

#[tokio::test]
async fn a_login_without_a_name_keeps_the_project_of_its_account() {
    let (_outer, app) = installation().await;
    let profile = app.catalog.profile(PLATFORM).unwrap();
    for (identity, project, expected) in [
        ("1", None, Some("mine")),
        ("1", Some("other"), Some("other")),
        ("2", None, None),
        ("2", Some("other"), Some("other")),
    ] {
        let vars = granted(identity).vars;
        let found = given(&app, profile, Setup::CodeAssist, &vars, None, project).await;
        let found = found.unwrap();
        assert_eq!(
            found.get(PROJECT).map(String::as_str),
            expected,
            "{identity}"
        );
    }
}

#[tokio::test]
async fn whose_a_login_is_comes_before_its_platform_is_asked() {
    let (_outer, app) = installation().await;
    let profile = app.catalog.profile(PLATFORM).unwrap();
    let set_up = async |identity, name| {
        let login = granted(identity);
        set_up(&app, profile, login, Some(name), None)
            .await
            .unwrap_err()
    };
    let refused = set_up("2", "alice").await;
    assert!(
        matches!(refused.fault, Fault::NameOfAnother { .. }),
        "{refused}"
    );
    for (identity, name) in [("1", "alice"), ("2", "bob")] {
        let asked = set_up(identity, name).await;
        assert!(
            !matches!(asked.fault, Fault::NameOfAnother { .. }),
            "{asked}"
        );
    }
}
