//! An API key that a platform gives for a login.

use super::super::accounts::{self, NewKey};
use super::super::{App, Caller, Error, Result};
use crate::fault::Fault;
use crate::login::finish::Finished;
use crate::oauth::api_key;
use crate::oauth::http::HttpClient;
use crate::platform::oauth::ApiKeyExchange;
use crate::platform::{OAuth, Profile};
use crate::store::Terms;

/// A platform's offer of API keys for its logins.
#[derive(Debug, Clone, Copy)]
pub(super) struct KeyOffer<'a> {
    profile: &'a Profile,
    oauth: &'a OAuth,
    exchange: &'a ApiKeyExchange,
}

/// An account that was made of an API key.
#[derive(Debug)]
pub struct KeyAccount {
    /// Its name.
    pub name: String,
    /// Its platform's id.
    pub platform: String,
}

/// Finds the offer of API keys in `profile`. Ask before anybody logs in for one.
///
/// # Errors
/// If the platform gives none.
pub(super) fn offer(profile: &Profile) -> Result<KeyOffer<'_>> {
    let oauth = profile.oauth.as_ref();
    let offer = oauth.and_then(|oauth| {
        Some(KeyOffer {
            profile,
            oauth,
            exchange: oauth.api_key.as_ref()?,
        })
    });
    let lacks = || {
        let sentence = format!("platform {} gives no API keys for its logins", profile.id);
        Error::new(Fault::Invalid, sentence)
    };
    offer.ok_or_else(lacks)
}

/// Gets an API key for a login that was just saved, and makes an account of it on these terms. An account that a login
/// of that name made before takes the new key.
///
/// # Errors
/// If the platform gives no key, or the account cannot be saved.
pub(super) async fn add(
    app: &App,
    caller: Caller,
    offer: KeyOffer<'_>,
    login: &Finished,
    terms: &Terms,
) -> Result<KeyAccount> {
    let id_token = login.id_token.as_ref().ok_or_else(|| {
        let sentence = "the platform gave no id token, so it makes no API key";
        Error::new(Fault::Failed, sentence)
    })?;
    let http = HttpClient::for_platform(offer.profile)?;
    let request = api_key::request(offer.oauth, offer.exchange, id_token);
    let key = api_key::read(http.send(&request).await, app.now())?;
    let name = format!("{} API key", login.name);
    let platform = offer.exchange.platform.clone();
    let new = NewKey {
        name: &name,
        platform: &platform,
        key,
        base_url: None,
        terms,
        replace: true,
    };
    accounts::add(app, caller, new).await?;
    Ok(KeyAccount { name, platform })
}
