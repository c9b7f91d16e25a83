//! Logging an account out: its credential ends at the platform and here; its name, its history and its pools remain.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{App, Caller, Error, Result};
use crate::fault::Fault;
use crate::oauth::revoke::{Revoked, revoke};
use crate::refresh::engine::CALL_LIMIT;
use crate::store::{self, TakenOut};

/// The pause between two looks for the end of a refresh that is under way.
const LOOK: Duration = Duration::from_millis(200);

/// The fate of a login that the platform does not revoke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unrevoked {
    /// The login is kept, out of use.
    Refused,
    /// The login is forgotten here.
    Forgotten,
    /// The platform is not even asked: another program goes on with it.
    Wanted,
}

/// The end of an account's login.
#[derive(Debug, PartialEq, Eq)]
pub enum LoggedOut {
    /// The login was forgotten here, and goes on at the platform.
    HandedOver,
    /// The login has ended, or was forgotten here although the platform did not end it.
    Now(Revoked),
    /// There was none: the account was logged out before.
    Before,
}

/// Takes an account out of use, revokes its login at the platform, and forgets it. Where the platform does not revoke it,
/// it is kept, out of use, for another try, unless `unrevoked` says otherwise.
///
/// # Errors
/// If there is no such account, it has a key, a refresh of it does not end, or the platform does not revoke its login.
pub async fn log_out(
    app: &App,
    caller: Caller,
    name: &str,
    unrevoked: Unrevoked,
) -> Result<LoggedOut> {
    let account = app.store.account(name).await?;
    if account.kind.is_key() {
        let sentence = format!(
            "{}: expected an account that somebody logged in, found one with an API key",
            account.name
        );
        let account = account.name;
        return Err(Error::new(Fault::NoLogin { account }, sentence));
    }
    let taken = take_out(app, &account.id).await?;
    caller.changes("account logged out", &account.name);
    if taken.credential.is_empty() {
        return Ok(LoggedOut::Before);
    }
    if unrevoked == Unrevoked::Wanted {
        app.store.empty(&taken, app.now()).await?;
        return Ok(LoggedOut::HandedOver);
    }
    let revoked = match app.catalog.profile(&account.platform) {
        Ok(profile) => match app.store.proxy(&account.id).await {
            Ok(proxy) => revoke(&profile.by(proxy.as_ref()), &taken.credential).await,
            Err(error) => Some(Revoked::Failed(error.to_string())),
        },
        Err(error) => Some(Revoked::Failed(error.to_string())),
    };
    match revoked.unwrap_or(Revoked::NotOffered) {
        Revoked::Failed(why) if unrevoked == Unrevoked::Refused => {
            let sentence = format!(
                "{}: it is out of use, but its login could not be revoked at the platform ({why})",
                account.name
            );
            let account = account.name;
            Err(Error::new(Fault::NotRevoked { account }, sentence))
        }
        revoked => {
            app.store.empty(&taken, app.now()).await?;
            Ok(LoggedOut::Now(revoked))
        }
    }
}

/// Takes an account out of use, as soon as no refresh of it is under way: the token that such a one brings would outlive
/// the logout.
async fn take_out(app: &App, account: &crate::id::AccountId) -> Result<TakenOut> {
    let begun = Instant::now();
    loop {
        match app.store.take_out(account, app.now()).await {
            Err(store::Error::Refreshing { .. }) if begun.elapsed() < CALL_LIMIT => {
                sleep(LOOK).await;
            }
            taken => return Ok(taken?),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::sync::{Arc, Mutex};

    use axum::Router;
    use axum::extract::State;
    use axum::http::StatusCode;
    use tokio::net::TcpListener;

    use super::*;
    use crate::app::{Options, accounts};
    use crate::clock::SystemClock;
    use crate::credential::{Credential, OAuthTokens};
    use crate::store::{NewAccount, Status, Terms};

    const CALLER: Caller = Caller::LocalOperator;

    /// A platform: what it got, and the status that it answers with.
    #[derive(Clone, Default)]
    struct Platform(Arc<Mutex<(Vec<String>, u16)>>);

    impl Platform {
        fn answers(&self, status: u16) {
            self.0.lock().unwrap().1 = status;
        }

        fn got(&self) -> Vec<String> {
            std::mem::take(&mut self.0.lock().unwrap().0)
        }
    }

    /// An installation with a platform on loopback that revokes, and one that does not.
    async fn installation() -> (tempfile::TempDir, App, Platform) {
        let platform = Platform::default();
        platform.answers(200);
        let take = async |State(platform): State<Platform>, body: String| {
            let mut platform = platform.0.lock().unwrap();
            platform.0.push(body);
            StatusCode::from_u16(platform.1).unwrap()
        };
        let router = Router::new().fallback(take).with_state(platform.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let outer = tempfile::tempdir().unwrap();
        let (state, platforms) = (outer.path().join("state"), outer.path().join("platforms"));
        crate::files::make_private_dir(&state).unwrap();
        fs::create_dir(&platforms).unwrap();
        for (id, revoke) in [
            ("revokes", format!("revoke_url = 'http://{at}/revoke'")),
            ("keeps", String::new()),
        ] {
            let profile = format!(
                "id = '{id}'\nname = 'Own'\nowner = 'us'\ncredentials = ['oauth']\n\
                 endpoints.chat.generate.path = '/x'\nupstream.base_url = 'http://{at}'\n\
                 headers.set = {{ authorization = 'Bearer {{credential}}' }}\nheaders.allow = []\n\
                 [oauth]\ntoken_url = 'http://{at}/token'\nclient_id = 'it'\n{revoke}\n\
                 [login.device]\nauthorize_url = 'http://{at}/device'\n"
            );
            fs::write(platforms.join(format!("{id}.toml")), profile).unwrap();
        }
        let config = format!("platforms_dir = '{}'\n", platforms.display());
        fs::write(state.join("config.toml"), config).unwrap();
        let options = Options {
            state_dir: Some(state),
            may_make: true,
            ..Options::default()
        };
        let app = App::open(options, |_| None, Arc::new(SystemClock));
        (outer, app.await.unwrap(), platform)
    }

    async fn add(app: &App, name: &str, platform: &str) {
        let new = NewAccount {
            name,
            platform,
            credential: Credential::OAuth(OAuthTokens {
                access: "the-access".into(),
                refresh: "the-refresh".into(),
                id: None,
                client: None,
            }),
            vars: BTreeMap::new(),
            credential_expires_at: None,
            base_url: None,
        };
        let terms = Terms::default();
        app.store
            .save_account(new, &terms, false, app.now())
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn a_login_that_the_platform_revokes_is_forgotten_and_its_account_stays() {
        let (_outer, app, platform) = installation().await;
        add(&app, "alice", "revokes").await;
        let ended = log_out(&app, CALLER, "alice", Unrevoked::Refused)
            .await
            .unwrap();
        assert_eq!(ended, LoggedOut::Now(Revoked::Done));
        assert!(platform.got()[0].contains("token=the-refresh"));
        let account = app.store.account("alice").await.unwrap();
        assert_eq!(account.status, Status::NeedsLogin);
        assert!(app.store.credential(&account.id).await.unwrap().is_empty());
        let again = log_out(&app, CALLER, "alice", Unrevoked::Refused)
            .await
            .unwrap();
        assert_eq!(again, LoggedOut::Before);
        assert!(platform.got().is_empty(), "nothing is left to be revoked");
    }

    #[tokio::test]
    async fn a_platform_that_does_not_revoke_is_asked_again_or_given_up() {
        let (_outer, app, platform) = installation().await;
        add(&app, "alice", "revokes").await;
        platform.answers(503);
        let refused = log_out(&app, CALLER, "alice", Unrevoked::Refused)
            .await
            .unwrap_err();
        assert!(refused.to_string().contains("out of use") && refused.to_string().contains("503"));
        assert!(matches!(refused.fault, Fault::NotRevoked { .. }));
        let account = app.store.account("alice").await.unwrap();
        assert_eq!(account.status, Status::NeedsLogin);
        assert!(!app.store.credential(&account.id).await.unwrap().is_empty());
        let ended = log_out(&app, CALLER, "alice", Unrevoked::Forgotten)
            .await
            .unwrap();
        assert_eq!(ended, LoggedOut::Now(Revoked::Failed("HTTP 503".into())));
        assert!(app.store.credential(&account.id).await.unwrap().is_empty());
        assert_eq!(platform.got().len(), 2);
    }

    #[tokio::test]
    async fn a_platform_without_revocation_is_not_called_and_a_key_is_no_login() {
        let (_outer, app, platform) = installation().await;
        add(&app, "alice", "keeps").await;
        let ended = log_out(&app, CALLER, "alice", Unrevoked::Refused)
            .await
            .unwrap();
        assert_eq!(ended, LoggedOut::Now(Revoked::NotOffered));
        let key = accounts::NewKey {
            name: "key",
            platform: "openai",
            key: "sk-proj-0123456789abcdefghijklmnopqrstuvwx".into(),
            base_url: None,
            terms: &Terms::default(),
            replace: false,
        };
        accounts::add(&app, CALLER, key).await.unwrap();
        let refused = log_out(&app, CALLER, "key", Unrevoked::Refused)
            .await
            .unwrap_err();
        assert!(matches!(refused.fault, Fault::NoLogin { .. }));
        assert_eq!(
            app.store.account("key").await.unwrap().status,
            Status::Active
        );
        assert!(platform.got().is_empty());
    }

    #[tokio::test]
    async fn a_login_that_another_program_goes_on_with_is_not_revoked() {
        let (_outer, app, platform) = installation().await;
        add(&app, "alice", "revokes").await;
        let ended = log_out(&app, CALLER, "alice", Unrevoked::Wanted).await;
        assert_eq!(ended.unwrap(), LoggedOut::HandedOver);
        assert!(platform.got().is_empty());
        let account = app.store.account("alice").await.unwrap();
        assert!(app.store.credential(&account.id).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn an_account_that_is_removed_has_its_login_revoked() {
        let (_outer, app, platform) = installation().await;
        add(&app, "alice", "revokes").await;
        let removed = accounts::remove(&app, CALLER, "alice").await.unwrap();
        assert_eq!(removed.revoke().await, Some(Revoked::Done));
        assert!(platform.got()[0].contains("token=the-refresh"));
        assert!(app.store.account("alice").await.is_err());
    }
}
