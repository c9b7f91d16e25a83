use std::fs;
use std::sync::Arc;

use secrecy::ExposeSecret;
use serde_json::json;

use super::*;
use crate::app::Options;
use crate::clock::{Clock, SystemClock};
use crate::oauth::claims::unsigned;

const KEY: &str = "sk-proj-0123456789abcdefghijklmnopqrstuvwx";

/// An installation, and a folder for files.
async fn installation(profiles: &[(&str, String)]) -> (tempfile::TempDir, App) {
    let outer = tempfile::tempdir().unwrap();
    let (state, platforms) = (outer.path().join("state"), outer.path().join("platforms"));
    crate::files::make_private_dir(&state).unwrap();
    fs::create_dir(&platforms).unwrap();
    for (id, profile) in profiles {
        fs::write(platforms.join(format!("{id}.toml")), profile).unwrap();
    }
    let config = format!("platforms_dir = '{}'\n", platforms.display());
    fs::write(state.join("config.toml"), config).unwrap();
    let options = Options {
        state_dir: Some(state),
        acknowledged_terms: vec!["codex".to_owned()],
        may_make: true,
        ..Options::default()
    };
    let app = App::open(options, |_| None, Arc::new(SystemClock));
    (outer, app.await.unwrap())
}

fn file(outer: &tempfile::TempDir, name: &str, text: impl ToString) -> PathBuf {
    let path = outer.path().join(name);
    fs::write(&path, text.to_string()).unwrap();
    path
}

async fn run(app: &App, paths: &[PathBuf], platform: Option<&str>) -> Result<Plan> {
    run_on(app, paths, platform, &Terms::default()).await
}

async fn run_on(
    app: &App,
    paths: &[PathBuf],
    platform: Option<&str>,
    terms: &Terms,
) -> Result<Plan> {
    let files = Files {
        paths,
        platform,
        name: None,
        account_id: None,
        pool: None,
        replace: false,
        skip: false,
        terms,
    };
    let plan = plan(app, &files).await?;
    take_over(app, Caller::LocalOperator, &plan, terms, None).await?;
    Ok(plan)
}

async fn names(app: &App) -> Vec<String> {
    let accounts = app.store.accounts().await.unwrap().into_iter();
    accounts.map(|account| account.name).collect()
}

#[tokio::test]
async fn of_several_files_all_are_taken_or_none() {
    let (outer, app) = installation(&[]).await;
    let good = file(
        &outer,
        "a.csv",
        format!("name,platform,key\none,openai,{KEY}\n"),
    );
    for (name, text, said) in [
        (
            "b.json",
            json!({"claudeAiOauth": {"accessToken": "a", "refreshToken": "r"}}).to_string(),
            "Claude Code",
        ),
        (
            "c.csv",
            format!("name,platform,key\none,openai,{KEY}\n"),
            "is also that of",
        ),
        (
            "d.csv",
            "name,platform,key\ntwo,openai,sk-short\n".to_owned(),
            "line 2: ",
        ),
        (
            "e.csv",
            format!("name,platform,key,pool\ntwo,openai,{KEY},nowhere\n"),
            "line 2: expected a pool",
        ),
        (
            "f.csv",
            format!("name,key\ntwo,{KEY}\n"),
            "line 2: platform: expected",
        ),
        (
            "g.csv",
            format!("name,platform,key\n../../etc/passwd\0,openai,{KEY}\n"),
            "visible ASCII",
        ),
        ("h.json", "{".to_owned(), "syntax error"),
    ] {
        let bad = file(&outer, name, text);
        let refused = run(&app, &[good.clone(), bad], None).await.unwrap_err();
        let refused = refused.to_string();
        assert!(
            refused.contains(said) && !refused.contains(KEY),
            "{name}: {refused}"
        );
        assert!(names(&app).await.is_empty(), "{name}: half of it is saved");
    }
    // A name is a name, and no path: nothing is made of it.
    let named = file(
        &outer,
        "i.csv",
        format!("name,platform,key\n../../x,openai,{KEY}\n"),
    );
    run(&app, &[named], None).await.unwrap();
    assert_eq!(names(&app).await, ["../../x"]);
    assert!(!outer.path().join("x").exists());
}

#[tokio::test]
async fn a_credential_that_is_there_is_told_and_not_doubled() {
    let (outer, app) = installation(&[]).await;
    let list = json!([{"platform": "openai", "key": KEY}, {"platform": "openai", "key": format!("{KEY}2")}]);
    let path = file(&outer, "keys.json", list);
    run(&app, std::slice::from_ref(&path), None).await.unwrap();
    assert_eq!(names(&app).await, ["openai", "openai-2"]);
    let again = run(&app, &[path], None).await.unwrap();
    let told = again
        .lines
        .iter()
        .all(|line| matches!(line.becomes, Becomes::Nothing { .. }));
    assert!(told, "{again:?}");
    assert_eq!(names(&app).await.len(), 2);
    let twin = json!([{"platform": "openai", "key": KEY, "name": "twin"}]);
    let plan = run(&app, &[file(&outer, "twin.json", twin)], None)
        .await
        .unwrap();
    let Becomes::Account {
        kind: Kind::ApiKey { twins },
        ..
    } = &plan.lines[0].becomes
    else {
        panic!("{plan:?}");
    };
    assert_eq!(*twins, ["openai"]);
}

/// A platform of the operator's own, in three lines of data, takes over what no shipped one does.
#[tokio::test]
async fn a_profile_says_whose_logins_it_takes_over() {
    let profile = |id: &str, known_as: &str| {
        format!(
            "id = '{id}'\nname = 'Own'\nowner = 'us'\ncredentials = ['oauth']\n\
             endpoints.chat.generate.path = '/x'\nupstream.base_url = 'http://127.0.0.1:1'\n\
             headers.set = {{ authorization = 'Bearer {{credential}}' }}\nheaders.allow = []\n\
             [oauth]\ntoken_url = 'http://127.0.0.1:1/token'\nclient_id = 'it'\n\
             [login.import]\nfile = 'claude'\nknown_as = ['{known_as}']\n"
        )
    };
    let own = [
        ("own", profile("own", "claude")),
        ("more", profile("more", "claude")),
    ];
    let login = json!({"claudeAiOauth": {"accessToken": "a", "refreshToken": "r"}, "kept": [1]});
    let (outer, app) = installation(&own[..1]).await;
    run(&app, &[file(&outer, "a.json", &login)], None)
        .await
        .unwrap();
    let account = app.store.account("own").await.unwrap();
    assert_eq!(account.platform, "own");
    let to = outer.path().join("again.json");
    let names = ["own".to_owned()];
    crate::app::exports::export(&app, Caller::LocalOperator, &names, &to)
        .await
        .unwrap();
    let written: serde_json::Value = serde_json::from_slice(&fs::read(&to).unwrap()).unwrap();
    assert_eq!(written, login);
    let there = crate::app::exports::export(&app, Caller::LocalOperator, &names, &to).await;
    assert!(there.is_err(), "a file is not written over");

    let (outer, app) = installation(&own).await;
    let path = [file(&outer, "a.json", &login)];
    let refused = run(&app, &path, None).await.unwrap_err();
    assert_eq!(refused.fault, Fault::NeedsPlatform);
    assert!(refused.to_string().contains("more, own"), "{refused}");
    run(&app, &path, Some("more")).await.unwrap();
    assert_eq!(app.store.account("more").await.unwrap().platform, "more");
}

/// A refresh token goes to the token endpoint of the platform that it is taken for, and to no other.
#[tokio::test]
async fn a_login_that_says_nothing_of_its_platform_is_nobodys_until_it_is_told() {
    let login = json!({"access_token": "a", "refresh_token": "r"});
    let (outer, app) = installation(&[]).await;
    let path = [file(&outer, "login.json", &login)];
    let refused = run(&app, &path, None).await.unwrap_err();
    assert_eq!(refused.fault, Fault::NeedsPlatform);
    let mut whose = login;
    whose["account_id"] = json!("ws-1");
    let path = [file(&outer, "login.json", &whose)];
    run(&app, &path, None).await.unwrap();
    assert_eq!(app.store.accounts().await.unwrap()[0].platform, "codex");
}

/// An account that left by a proxy where it comes from leaves by it here, and not in another way for that we cannot.
#[tokio::test]
async fn the_proxy_of_a_file_is_the_accounts() {
    let access = unsigned(&json!({"https://api.openai.com/auth": {"chatgpt_account_id": "ws-1"}}));
    let by = |url: &str| {
        json!({
            "type": "codex", "access_token": access.expose_secret(), "refresh_token": "rt_1", "account_id": "ws-1",
            "email": "a@example.com", "proxy_url": url,
        })
    };
    let own = "http://user:the-secret@proxy.test:3128";
    let socks = "socks5://user:the-secret@proxy.test";
    let none = Terms {
        proxy: Some(None),
        ..Terms::default()
    };
    for (url, terms, expected) in [
        (own, Terms::default(), Some(own)),
        (own, none.clone(), None),
        (socks, none, None),
        ("direct", Terms::default(), None),
    ] {
        let (outer, app) = installation(&[]).await;
        let path = file(&outer, "login.json", by(url));
        run_on(&app, &[path], None, &terms).await.unwrap();
        let account = app.store.account("a@example.com").await.unwrap();
        let proxy = app.store.proxy(&account.id).await.unwrap();
        let expected = expected.map(|url| Proxy::parse(url, None).unwrap());
        assert_eq!(proxy, expected, "{url}");
    }
    let (outer, app) = installation(&[]).await;
    let path = file(&outer, "login.json", by(socks));
    let refused = run(&app, &[path], None).await.unwrap_err();
    assert_eq!(refused.fault, Fault::UnfitProxy);
    let refused = refused.to_string();
    assert!(refused.contains("no SOCKS"), "{refused}");
    assert!(!refused.contains("the-secret"), "{refused}");
    assert!(names(&app).await.is_empty());
}

/// Claude Code's file, and CLIProxyAPI's, are of a platform that is off until its notice is acknowledged.
#[tokio::test]
async fn a_login_of_claude_code_is_taken_over_once_its_notice_is_acknowledged() {
    let in_an_hour = SystemClock.now().0 + 3_600_000;
    let own = json!({"claudeAiOauth": {
        "accessToken": "sk-ant-oat01-a", "refreshToken": "sk-ant-ort01-r", "expiresAt": in_an_hour,
        "scopes": ["user:inference", "user:profile"], "subscriptionType": "max", "rateLimitTier": "default_claude_max_5x",
    }, "mcpOAuth": {"x": 1}});
    let proxied = json!({
        "type": "claude", "access_token": "sk-ant-oat01-b", "refresh_token": "sk-ant-ort01-s", "email": "b@example.com",
        "account_uuid": "person-1", "organization_uuid": "org-1", "expired": "2096-09-21T14:14:20Z",
    });
    let opencode = json!({"anthropic": {
        "type": "oauth", "access": "sk-ant-oat01-c", "refresh": "sk-ant-ort01-t", "expires": in_an_hour,
    }});
    let (outer, app) = installation(&[]).await;
    for text in [&own, &proxied, &opencode] {
        let path = file(&outer, "a.json", text);
        let refused = run(&app, &[path], None).await.unwrap_err();
        assert!(
            matches!(refused.fault, Fault::NotAcknowledged { .. }),
            "{refused}"
        );
        let said = refused.to_string();
        assert!(said.contains("claude-code is off until"), "{said}");
        assert!(names(&app).await.is_empty());
    }

    let config = outer.path().join("state/config.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(
        &config,
        format!("acknowledged_terms = ['claude-code']\n{text}"),
    )
    .unwrap();
    let options = Options {
        state_dir: Some(outer.path().join("state")),
        acknowledged_terms: Vec::new(),
        may_make: true,
        ..Options::default()
    };
    let app = App::open(options, |_| None, Arc::new(SystemClock));
    let app = app.await.unwrap();
    let path = file(&outer, "a.json", &own);
    run(&app, std::slice::from_ref(&path), None).await.unwrap();
    run(&app, &[file(&outer, "b.json", &proxied)], None)
        .await
        .unwrap();
    assert_eq!(names(&app).await, ["b@example.com", "claude-code"]);
    for name in names(&app).await {
        let account = app.store.account(&name).await.unwrap();
        assert_eq!(account.platform, "claude-code");
    }
    let to = outer.path().join("again.json");
    let names = ["claude-code".to_owned()];
    crate::app::exports::export(&app, Caller::LocalOperator, &names, &to)
        .await
        .unwrap();
    let written: serde_json::Value = serde_json::from_slice(&fs::read(&to).unwrap()).unwrap();
    assert_eq!(written, own);
}
