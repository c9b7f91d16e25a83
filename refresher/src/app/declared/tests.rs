//! Accounts of the configuration, over starts of the daemon.

use std::collections::BTreeMap;
use std::fs;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use tokio::net::TcpListener;

use super::*;
use crate::app::Options;
use crate::clock::SystemClock;
use crate::refresh::endpoint::TokenEndpoints;
use crate::refresh::engine::{Engine, Refreshed};

const KEY: &str = "sk-proj-0123456789abcdefghijklmnopqrstuvwx";

/// A token endpoint: what it got, and what it answers.
#[derive(Clone, Default)]
struct Server(Arc<Mutex<(Vec<String>, String)>>);

impl Server {
    async fn start(&self) -> String {
        let take = async |State(server): State<Server>, body: String| {
            let mut server = server.0.lock().unwrap();
            server.0.push(body);
            let status = if server.1.contains("error") { 400 } else { 200 };
            (StatusCode::from_u16(status).unwrap(), server.1.clone())
        };
        let router = Router::new().fallback(take).with_state(self.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        format!("http://{at}/token")
    }

    fn answers(&self, body: &str) {
        self.0.lock().unwrap().1 = body.to_owned();
    }

    fn got(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap().0)
    }
}

/// An installation that is started again and again, each time with another configuration and other variables.
struct Installation {
    outer: tempfile::TempDir,
}

impl Installation {
    fn new() -> Installation {
        let outer = tempfile::tempdir().unwrap();
        crate::files::make_private_dir(&outer.path().join("state")).unwrap();
        Installation { outer }
    }

    async fn app(&self, config: &str) -> App {
        let state = self.outer.path().join("state");
        fs::write(state.join("config.toml"), config).unwrap();
        let options = Options {
            state_dir: Some(state),
            acknowledged_terms: vec!["codex".to_owned()],
            may_make: true,
            ..Options::default()
        };
        App::open(options, |_| None, Arc::new(SystemClock))
            .await
            .unwrap()
    }

    /// A start of the daemon, up to its first refreshes.
    async fn start(&self, config: &str, variables: &[(&str, &str)]) -> (App, Vec<Refreshed>) {
        let app = self.app(config).await;
        let variables: BTreeMap<&str, &str> = variables.iter().copied().collect();
        let read = |name: &str| variables.get(name).map(|value| SecretString::from(*value));
        let waiting = apply(&app, read).await.unwrap();
        let mut refreshed = Vec::new();
        for (account, generation) in waiting {
            refreshed.push(refresh(&app, &account, generation).await);
        }
        (app, refreshed)
    }
}

async fn refresh(app: &App, account: &AccountId, generation: u64) -> Refreshed {
    let endpoints = TokenEndpoints::new(app.catalog.all_usable()).unwrap();
    let engine = Engine::new(
        app.store.clone(),
        endpoints,
        SystemClock,
        app.config.refresh,
    );
    engine.refresh(account, generation).await.unwrap()
}

async fn account(app: &App, name: &str) -> (Account, Credential) {
    let account = app.store.account(name).await.unwrap();
    let credential = app.store.credential(&account.id).await.unwrap();
    (account, credential)
}

fn on_the_wire(credential: &Credential) -> &str {
    credential.on_the_wire().expose_secret()
}

fn fields(body: &str) -> BTreeMap<String, String> {
    let url = reqwest::Url::parse(&format!("http://x/?{body}")).unwrap();
    url.query_pairs().into_owned().collect()
}

#[tokio::test]
async fn a_refresh_token_of_the_environment_is_spent_once_and_its_successor_goes_before_it() {
    let (installation, server) = (Installation::new(), Server::default());
    let url = server.start().await;
    let config = format!(
        "[[accounts]]\nname = 'batch'\nplatform = 'openai'\ntoken_url = '{url}'\nclient_id_env = 'ID'\n\
         client_secret_env = 'SECRET'\nrefresh_token_env = 'REFRESH'\n"
    );
    let first = [
        ("ID", "the-client"),
        ("SECRET", "s3cret"),
        ("REFRESH", "rt-1\n"),
    ];
    server.answers(r#"{"access_token": "at-1", "refresh_token": "rt-2", "expires_in": 3600}"#);
    let (app, refreshed) = installation.start(&config, &first).await;
    assert_eq!(refreshed, [Refreshed::Done(2)]);
    let asked = fields(&server.got()[0]);
    let expected = [
        ("client_id", "the-client"),
        ("client_secret", "s3cret"),
        ("grant_type", "refresh_token"),
        ("refresh_token", "rt-1"),
    ];
    assert!(
        expected.iter().all(|(name, value)| asked[*name] == *value),
        "{asked:?}"
    );
    let (before, credential) = account(&app, "batch").await;
    assert_eq!(
        (before.kind.as_str(), on_the_wire(&credential)),
        ("oauth", "at-1")
    );

    // The variable still has the one that is spent.
    let (app, refreshed) = installation.start(&config, &first).await;
    assert!(refreshed.is_empty() && server.got().is_empty());
    let (after, _) = account(&app, "batch").await;
    assert_eq!(
        (after.generation, after.status),
        (before.generation, Status::Active)
    );
    server.answers(r#"{"access_token": "at-2"}"#);
    assert_eq!(
        refresh(&app, &after.id, after.generation).await,
        Refreshed::Done(3)
    );
    assert_eq!(fields(&server.got()[0])["refresh_token"], "rt-2");

    // A variable that is gone takes nothing away; one with another value does.
    let (app, refreshed) = installation.start(&config, &first[..2]).await;
    assert!(refreshed.is_empty());
    assert_eq!(on_the_wire(&account(&app, "batch").await.1), "at-2");
    let (app, refreshed) = installation
        .start(&config, &[first[0], first[1], ("REFRESH", "rt-9")])
        .await;
    assert_eq!(refreshed, [Refreshed::Done(5)]);
    assert_eq!(fields(&server.got()[0])["refresh_token"], "rt-9");
    let (renewed, _) = account(&app, "batch").await;
    assert_eq!(renewed.id, before.id, "its history is another account's");

    // Of one that is refused the cure is another value, not a login.
    server.answers(r#"{"error": "invalid_grant"}"#);
    let ended = refresh(&app, &renewed.id, renewed.generation).await;
    assert!(matches!(ended, Refreshed::NeedsLogin { .. }), "{ended:?}");
    let views = crate::app::status::accounts(&app).await.unwrap();
    assert!(views[0].needs_secrets);
    let refused = crate::app::accounts::enable(&app, Caller::LocalOperator, "batch").await;
    let cure = advice::in_log(&refused.unwrap_err().fault).unwrap();
    assert!(cure.starts_with("where config.toml declares it"), "{cure}");
}

#[tokio::test]
async fn a_client_buys_its_first_token_and_nothing_goes_out_before() {
    let (installation, server) = (Installation::new(), Server::default());
    let url = server.start().await;
    let config = format!(
        "[[accounts]]\nname = 'batch'\nplatform = 'deepseek'\ntoken_url = '{url}'\nclient_id_env = 'ID'\n\
         client_secret_env = 'SECRET'\n"
    );
    let app = installation.app(&config).await;
    let platforms: Vec<_> = app.catalog.all_usable().map(Profile::publication).collect();
    app.store.publish_platforms(&platforms).await.unwrap();
    let accounts = async |app: &App| {
        let page = app.store.page(None, 0).await.unwrap().bytes;
        let text = String::from_utf8(page).unwrap();
        text.lines()
            .filter(|line| line.contains("\"credential\""))
            .count()
    };
    let variables = [("ID", "the-client"), ("SECRET", "s3cret")];
    server.answers(r#"{"error": "temporarily_unavailable"}"#);
    let (app, refreshed) = installation.start(&config, &variables).await;
    assert!(
        matches!(refreshed[..], [Refreshed::Later { .. }]),
        "{refreshed:?}"
    );
    assert_eq!(accounts(&app).await, 0, "it is published without a token");
    assert!(!account(&app, "batch").await.1.is_empty());
    server.answers(r#"{"access_token": "bought", "expires_in": 60}"#);
    let (waiting, _) = account(&app, "batch").await;
    assert_eq!(
        refresh(&app, &waiting.id, waiting.generation).await,
        Refreshed::Done(2)
    );
    assert_eq!(accounts(&app).await, 1);
    assert_eq!(fields(&server.got()[1])["grant_type"], "client_credentials");
    // A client that was refused once is tried again at the next start: nothing is spent by that.
    server.answers(r#"{"error": "invalid_grant"}"#);
    let (bought, _) = account(&app, "batch").await;
    let ended = refresh(&app, &bought.id, bought.generation).await;
    assert!(matches!(ended, Refreshed::NeedsLogin { .. }), "{ended:?}");
    server.answers(r#"{"access_token": "again"}"#);
    let (app, refreshed) = installation.start(&config, &variables).await;
    assert!(
        matches!(refreshed[..], [Refreshed::Done(_)]),
        "{refreshed:?}"
    );
    assert_eq!(on_the_wire(&account(&app, "batch").await.1), "again");
}

#[tokio::test]
async fn an_account_stops_and_comes_back_with_its_line() {
    let installation = Installation::new();
    let line = |enabled| {
        format!(
            "[[accounts]]\nname = 'team'\nplatform = 'openai'\nkey_env = 'KEY'\nenabled = {enabled}\n"
        )
    };
    let variables = [("KEY", KEY)];
    let (app, _) = installation.start(&line(true), &variables).await;
    let (first, credential) = account(&app, "team").await;
    assert_eq!(
        (first.status, on_the_wire(&credential)),
        (Status::Active, KEY)
    );
    for (config, status, reason) in [
        (line(false), Status::Disabled, Some(OFF)),
        (line(false), Status::Disabled, Some(OFF)),
        (line(true), Status::Active, None),
        (String::new(), Status::Disabled, Some(GONE)),
        (line(true), Status::Active, None),
    ] {
        let (app, _) = installation.start(&config, &variables).await;
        let (now, credential) = account(&app, "team").await;
        assert_eq!(
            (now.status, now.reason.as_deref()),
            (status, reason),
            "{config}"
        );
        assert_eq!(
            (now.id, now.generation),
            (first.id.clone(), first.generation)
        );
        assert_eq!(on_the_wire(&credential), KEY);
    }
    // What an operator switched off stays off.
    app.store.disable("team", app.now()).await.unwrap();
    let (app, _) = installation.start(&line(true), &variables).await;
    assert_eq!(account(&app, "team").await.0.status, Status::Disabled);
    let next = format!("{KEY}2");
    let (app, _) = installation.start(&line(true), &[("KEY", &next)]).await;
    assert_eq!(on_the_wire(&account(&app, "team").await.1), next);
}

#[tokio::test]
async fn what_does_not_fit_costs_no_other_account() {
    let installation = Installation::new();
    let app = installation.app("").await;
    let by_hand = crate::app::accounts::NewKey {
        name: "by-hand",
        platform: "openai",
        key: KEY.into(),
        base_url: None,
        terms: &Terms::default(),
        replace: false,
    };
    crate::app::accounts::add(&app, Caller::LocalOperator, by_hand)
        .await
        .unwrap();
    let config = "[[accounts]]\nname = 'by-hand'\nplatform = 'openai'\nkey_env = 'OTHER'\nenabled = false\n\
                  [[accounts]]\nname = 'nowhere'\nplatform = 'nowhere'\nkey_env = 'KEY'\n\
                  [[accounts]]\nname = 'no-variable'\nplatform = 'openai'\nkey_env = 'NONE'\n\
                  [[accounts]]\nname = 'no-key'\nplatform = 'openai'\nkey_env = 'SHORT'\n\
                  [[accounts]]\nname = 'no-url'\nplatform = 'openai'\nrefresh_token_env = 'OTHER'\n\
                  [[accounts]]\nname = 'no-identity'\nplatform = 'codex'\nrefresh_token_env = 'OTHER'\n\
                  [[accounts]]\nname = 'no-pool'\nplatform = 'openai'\nkey_env = 'KEY'\npool = 'nowhere'\n\
                  [[accounts]]\nname = 'fits'\nplatform = 'openai'\nkey_env = 'KEY'\n";
    let variables = [
        ("KEY", KEY),
        ("OTHER", "sk-proj-another-0123456789abcdefghijkl"),
        ("SHORT", "sk-1"),
    ];
    let (app, _) = installation.start(config, &variables).await;
    let names: Vec<String> = app
        .store
        .accounts()
        .await
        .unwrap()
        .into_iter()
        .map(|one| one.name)
        .collect();
    assert_eq!(names, ["by-hand", "fits"]);
    let (by_hand, credential) = account(&app, "by-hand").await;
    assert_eq!(
        (by_hand.status, on_the_wire(&credential)),
        (Status::Active, KEY)
    );
}

/// Nothing of an account that is to leave by a proxy leaves in another way, not its first token either: where nobody says
/// by which, and where what is said is none.
#[tokio::test]
async fn an_account_leaves_by_the_proxy_of_its_variable_or_not_at_all() {
    let server = Server::default();
    server.answers(r#"{"access_token": "access-1", "expires_in": 3600}"#);
    let token_url = server.start().await;
    let config = format!(
        "[[accounts]]\nname = 'batch'\nplatform = 'openai'\nclient_id_env = 'ID'\nclient_secret_env = 'SECRET'\n\
         token_url = '{token_url}'\nproxy_env = 'PROXY'\n"
    );
    let installation = Installation::new();
    for (value, leaves_by) in [
        (None, NOWHERE),
        (Some("socks5://u:the-secret@127.0.0.1:1"), NOWHERE),
        (
            Some(" http://u:the-secret@127.0.0.1:1 "),
            "http://u:the-secret@127.0.0.1:1",
        ),
        (None, "http://u:the-secret@127.0.0.1:1"),
        (Some("http://127.0.0.1:2"), "http://127.0.0.1:2"),
    ] {
        let secrets = [("ID", "client-1"), ("SECRET", "secret-1")];
        let proxy = value.map(|value| ("PROXY", value));
        let variables: Vec<_> = secrets.into_iter().chain(proxy).collect();
        let (app, _) = installation.start(&config, &variables).await;
        let (batch, _) = account(&app, "batch").await;
        let proxy = app.store.proxy(&batch.id).await.unwrap();
        assert_eq!(
            proxy,
            Some(Proxy::parse(leaves_by, None).unwrap()),
            "{value:?}"
        );
        let refreshed = refresh(&app, &batch.id, batch.generation).await;
        assert!(
            matches!(refreshed, Refreshed::Later { .. }),
            "{refreshed:?}"
        );
        assert_eq!(server.got(), [""; 0], "{value:?}");
    }
}

#[tokio::test]
async fn the_maps_of_the_file_are_the_accounts() {
    let installation = Installation::new();
    let config = |maps: &str| {
        format!("[[accounts]]\nname = 'team'\nplatform = 'openai'\nkey_env = 'KEY'\n{maps}\n")
    };
    let variables = [("KEY", KEY)];
    for (maps, expected) in [
        ("maps = ['gpt-7=east-7']", r#"["gpt-7=east-7"]"#),
        (
            "maps = ['gpt-8=east-8', 'o*=o3']",
            r#"["gpt-8=east-8","o*=o3"]"#,
        ),
        // What the file does not say is the operator's.
        ("", r#"["gpt-8=east-8","o*=o3"]"#),
        ("maps = []", "[]"),
    ] {
        let (app, _) = installation.start(&config(maps), &variables).await;
        let (account, _) = account(&app, "team").await;
        let found = serde_json::to_string(&account.maps).unwrap();
        assert_eq!(found, expected, "{maps}");
    }
}
