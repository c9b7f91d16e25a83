//! Makes an account of what a login was granted: the one place for every way in.

use std::collections::BTreeSet;

use crate::base_url::BaseUrl;
use crate::clock::UnixMillis;
use crate::id::AccountId;
use crate::oauth::claims::{EMAIL, IDENTITY, is_same_account};
use crate::oauth::exchange::{self, Granted, require_vars};
use crate::platform::Profile;
use crate::store::{self, Account, Known, NewAccount, Saved, Status, Store, Terms, Vars};

/// The owner of the login that is expected.
#[derive(Debug, Clone, Copy)]
pub enum Whose<'a> {
    /// Anybody's. The account that is the login's takes it; else there is a new one.
    Anybody {
        /// The name of a new account; without it, its email address.
        name: Option<&'a str>,
        /// The account's limits and its end.
        terms: &'a Terms,
        /// Where it is reached, if not where its platform is.
        base_url: Option<&'a BaseUrl>,
    },
    /// The login of this account and no other: whoever read its URL in a log can log in as themselves.
    Account(&'a Account),
}

/// An account that has its login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// Its id.
    pub id: AccountId,
    /// Its name. A login of an account that is here already keeps the account's.
    pub name: String,
    /// True if there was no such account before.
    pub is_new: bool,
}

/// The reason why a login does not count. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The login lacks what the platform's headers need.
    #[error(transparent)]
    Login(#[from] exchange::Error),
    /// It is somebody else's.
    #[error(
        "expected a login of {expected}, found one of {found} at {platform}; nothing was changed, and the account has a new URL to log in"
    )]
    OtherAccount {
        /// The person whose it should be.
        expected: String,
        /// The person whose it is.
        found: String,
        /// Where.
        platform: String,
    },
    /// The account has moved on meanwhile.
    #[error("the account was removed or has another login by now; nothing was changed")]
    Overtaken,
    /// The name is another account's.
    #[error("the account {name:?} is another one, at {platform}")]
    NameTaken {
        /// The name.
        name: String,
        /// Where its account is.
        platform: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// Gives a login to the account that it belongs to.
///
/// # Errors
/// If it is nobody's that was expected, or the store fails.
pub async fn finish(
    store: &Store,
    profile: &Profile,
    granted: Granted,
    whose: Whose<'_>,
    now: UnixMillis,
) -> Result<Finished, Error> {
    require_vars(profile, &granted.vars)?;
    match whose {
        Whose::Anybody {
            name,
            terms,
            base_url,
        } => {
            let accounts = store.known_accounts().await?;
            let none = BTreeSet::new();
            let (name, renew) = choose_name(&accounts, &profile.id, &granted.vars, name, &none)?;
            let ends_at = granted.login_ends_at;
            let new = account(profile, &name, base_url, granted);
            let saved = store.save_account(new, terms, renew, now).await?;
            let (id, is_new) = match saved {
                Saved::Added(id) => (id, true),
                Saved::Renewed(id) => (id, false),
            };
            note_end(store, &id, ends_at).await?;
            Ok(Finished { id, name, is_new })
        }
        Whose::Account(expected) => {
            let vars = store.vars(&expected.id).await?;
            require_same(&expected.platform, &vars, &granted.vars)?;
            let ends_at = granted.login_ends_at;
            let new = account(profile, &expected.name, None, granted);
            let renewed = store.renew_login(&expected.id, expected.generation, new, now);
            if !renewed.await? {
                return Err(Error::Overtaken);
            }
            note_end(store, &expected.id, ends_at).await?;
            Ok(Finished {
                id: expected.id.clone(),
                name: expected.name.clone(),
                is_new: false,
            })
        }
    }
}

/// Finds the account that a login of which `vars` are told would go to; `None` for a new one. Nothing is done for a login at
/// its platform before this was asked.
///
/// # Errors
/// If it is nobody's that was expected, its name is another account's, or the store fails.
pub async fn owner(
    store: &Store,
    platform: &str,
    vars: &Vars,
    whose: Whose<'_>,
) -> Result<Option<Account>, Error> {
    match whose {
        Whose::Anybody { name, .. } => {
            let accounts = store.known_accounts().await?;
            let (name, renew) = choose_name(&accounts, platform, vars, name, &BTreeSet::new())?;
            let mut accounts = accounts.into_iter().map(|known| known.account);
            Ok(accounts.find(|account| renew && account.name == name))
        }
        Whose::Account(expected) => {
            let own = store.vars(&expected.id).await?;
            require_same(&expected.platform, &own, vars)?;
            Ok(Some(expected.clone()))
        }
    }
}

/// Notes when the login that an account was just given ends for good.
async fn note_end(store: &Store, id: &AccountId, ends_at: Option<UnixMillis>) -> Result<(), Error> {
    if ends_at.is_none() {
        return Ok(());
    }
    let generation = store.account(id.as_str()).await?.generation;
    Ok(store.note_login_end(id, generation, ends_at).await?)
}

/// The account at `platform` that already has this login, or one that outlasts it: an older copy of a login holds a
/// refresh token that is spent by now.
pub fn outlasting<'a>(
    accounts: &'a [Known],
    platform: &str,
    granted: &Granted,
) -> Option<&'a Account> {
    let same = accounts
        .iter()
        .filter(|known| is_login_of(known, platform, &granted.vars));
    same.map(|known| &known.account).find(|account| {
        account.status != Status::NeedsLogin
            && account.credential_expires_at >= granted.credential_expires_at
    })
}

/// True if a login at `platform` of which `vars` are told is the account's.
fn is_login_of(known: &Known, platform: &str, vars: &Vars) -> bool {
    let is_same = |own: &Vars| is_same_account(own, vars);
    known.account.platform == platform && known.vars.as_ref().is_some_and(is_same)
}

fn account<'a>(
    profile: &'a Profile,
    name: &'a str,
    base_url: Option<&'a BaseUrl>,
    granted: Granted,
) -> NewAccount<'a> {
    NewAccount {
        name,
        platform: &profile.id,
        credential: granted.credential,
        vars: granted.vars,
        credential_expires_at: granted.credential_expires_at,
        base_url,
    }
}

/// Refuses a login of another account than the one that `expected` is known of.
fn require_same(platform: &str, expected: &Vars, found: &Vars) -> Result<(), Error> {
    if is_same_account(expected, found) {
        return Ok(());
    }
    let who = |vars: &Vars| {
        let identity = vars.get(IDENTITY).map_or("(none)", String::as_str);
        vars.get(EMAIL).map_or_else(
            || format!("{IDENTITY} {identity}"),
            |email| format!("{email} ({IDENTITY} {identity})"),
        )
    };
    Err(Error::OtherAccount {
        expected: who(expected),
        found: who(found),
        platform: platform.to_owned(),
    })
}

/// Names the account of a login; true if that takes the place of one that has the name. A login of an account that is
/// here already goes to that account, whatever name is wanted. Of what a login without a wanted name could be called,
/// `reserved` is left to others.
///
/// # Errors
/// If the name is another account's.
pub fn choose_name(
    accounts: &[Known],
    platform: &str,
    vars: &Vars,
    wanted: Option<&str>,
    reserved: &BTreeSet<&str>,
) -> Result<(String, bool), Error> {
    let mut known = accounts.iter();
    if let Some(same) = known.find(|known| is_login_of(known, platform, vars)) {
        return Ok((same.account.name.clone(), true));
    }
    let holder = |name: &str| accounts.iter().find(|known| known.account.name == name);
    // A platform that does not tell its accounts apart leaves that to their names.
    let is_nameless = |held: &Known| {
        let vars = held.vars.as_ref();
        held.account.platform == platform && vars.is_some_and(|vars| !vars.contains_key(IDENTITY))
    };
    if let Some(wanted) = wanted {
        return match holder(wanted) {
            None => Ok((wanted.to_owned(), false)),
            Some(held) if is_nameless(held) => Ok((wanted.to_owned(), true)),
            Some(held) => Err(Error::NameTaken {
                name: wanted.to_owned(),
                platform: held.account.platform.clone(),
            }),
        };
    }
    let first = vars.get(EMAIL).map_or(platform, String::as_str);
    let numbered = (2..).map(|n| format!("{first}-{n}"));
    let free = std::iter::once(first.to_owned())
        .chain(numbered)
        .find(|name| holder(name).is_none() && !reserved.contains(name.as_str()));
    Ok((free.unwrap_or_else(|| first.to_owned()), false))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vars(identity: Option<&str>) -> Vars {
        let identity = identity.map(|identity| (IDENTITY.to_owned(), identity.to_owned()));
        identity
            .into_iter()
            .chain([(EMAIL.to_owned(), "a@example.com".to_owned())])
            .collect()
    }

    fn account(name: &str, platform: &str, identity: Option<&str>) -> Known {
        Known {
            account: Account::example(name, platform),
            vars: Some(vars(identity)),
        }
    }

    fn named(
        accounts: &[Known],
        identity: Option<&str>,
        wanted: Option<&str>,
    ) -> Option<(String, bool)> {
        choose_name(accounts, "codex", &vars(identity), wanted, &BTreeSet::new()).ok()
    }

    #[test]
    fn a_second_login_of_an_account_goes_to_it_whatever_its_name() {
        let accounts = [
            account("alice", "codex", Some("1")),
            account("other", "other", Some("2")),
        ];
        assert_eq!(
            named(&accounts, Some("1"), None),
            Some(("alice".into(), true))
        );
        assert_eq!(
            named(&accounts, Some("1"), Some("bob")),
            Some(("alice".into(), true))
        );
        assert_eq!(
            named(&accounts, Some("2"), Some("bob")),
            Some(("bob".into(), false))
        );
    }

    #[test]
    fn a_second_member_of_a_workspace_is_another_account() {
        let accounts = [account("a@example.com", "codex", Some("1"))];
        let mut other = vars(Some("1"));
        other.insert(EMAIL.to_owned(), "b@example.com".to_owned());
        assert_eq!(
            choose_name(&accounts, "codex", &other, None, &BTreeSet::new()).unwrap(),
            ("b@example.com".into(), false)
        );
        assert!(
            choose_name(
                &accounts,
                "codex",
                &other,
                Some("a@example.com"),
                &BTreeSet::new()
            )
            .is_err()
        );
    }

    #[test]
    fn another_accounts_name_is_not_taken_over() {
        let accounts = [
            account("alice", "codex", Some("1")),
            account("key", "openai", None),
        ];
        assert_eq!(named(&accounts, Some("2"), Some("alice")), None);
        assert_eq!(named(&accounts, Some("2"), Some("key")), None);
        let mut unknown = account("alice", "codex", None);
        unknown.vars = None;
        assert_eq!(named(&[unknown], None, Some("alice")), None);
        let nameless = [account("alice", "codex", None)];
        assert_eq!(
            named(&nameless, None, Some("alice")),
            Some(("alice".into(), true))
        );
    }

    #[test]
    fn the_default_name_is_the_email_address_and_then_numbered() {
        let mut accounts = vec![];
        for (identity, expected) in [
            ("1", "a@example.com"),
            ("2", "a@example.com-2"),
            ("3", "a@example.com-3"),
        ] {
            let (name, renew) = named(&accounts, Some(identity), None).unwrap();
            assert_eq!((name.as_str(), renew), (expected, false));
            accounts.push(account(&name, "codex", Some(identity)));
        }
        assert_eq!(
            choose_name(&[], "codex", &Vars::new(), None, &BTreeSet::new()).unwrap(),
            ("codex".into(), false)
        );
    }

    #[test]
    fn only_the_same_user_of_the_same_workspace_is_the_same() {
        let (workspace, email) = ((IDENTITY, "ws-1"), (EMAIL, "alice@example.com"));
        let vars = |vars: &[(&str, &str)]| -> Vars {
            let var = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
            vars.iter().map(var).collect()
        };
        let is_same = |of: &[(&str, &str)], found: &[(&str, &str)]| {
            require_same("codex", &vars(of), &vars(found)).is_ok()
        };
        assert!(is_same(&[workspace, email], &[workspace, email]));
        assert!(is_same(
            &[workspace, email],
            &[workspace, (EMAIL, "Alice@Example.com")]
        ));
        assert!(is_same(&[workspace], &[workspace, email]));
        assert!(is_same(&[workspace, email], &[workspace]));
        for found in [
            &[email][..],
            &[(IDENTITY, "ws-2"), email],
            &[workspace, (EMAIL, "bob@example.com")],
        ] {
            assert!(!is_same(&[workspace, email], found), "{found:?}");
        }
        let other = vars(&[(IDENTITY, "ws-2"), (EMAIL, "bob@example.com")]);
        let words = require_same("codex", &vars(&[workspace, email]), &other)
            .unwrap_err()
            .to_string();
        assert!(
            words.contains("ws-1") && words.contains("bob@example.com (account_id ws-2)"),
            "{words}"
        );
    }
}
