//! Checks of accounts, client keys and pools.

use super::super::Finding;
use super::super::Severity::{Note, Wrong};
use super::finding;
use crate::advice::{
    Door, RESTART, browser_elsewhere, check_command, cure, later_end_command, login_cure,
    shell_word,
};
use crate::app::doctor::{Facts, OpenState};
use crate::app::keys::{KeyView, State as KeyState};
use crate::app::status::AccountView;
use crate::cli::status::{failing, later_end, spent, state as word_of, stuck};
use crate::cli::time::{minute, relative};
use crate::clock::UnixMillis;
use crate::credential::CredentialKind;
use crate::fault::Fault;
use crate::standing::{SOON, Standing};
use crate::store::Pool;

/// The most names that one finding lists.
const MOST_NAMES: usize = 6;

pub(super) fn accounts(facts: &Facts) -> Vec<Finding> {
    let Some(OpenState { overview, .. }) = &facts.state else {
        return Vec::new();
    };
    if overview.accounts.is_empty() {
        return vec![finding(
            Wrong,
            "account",
            "there are no accounts yet",
            "add one: refresher accounts add NAME --platform openai; or log in: refresher login PLATFORM",
        )];
    }
    let of = |view: &AccountView| account(view, facts.now);
    overview.accounts.iter().filter_map(of).collect()
}

fn account(view: &AccountView, now: UnixMillis) -> Option<Finding> {
    if let Some((problem, cure)) = stuck(view, now) {
        return Some(finding(
            Wrong,
            "account",
            format!("account {problem}"),
            cure,
        ));
    }
    let name = &view.name;
    let reason = view.reason.as_deref().unwrap_or("nobody knows why");
    let failing = Some(failing(view, now)).filter(|text| !text.is_empty());
    let wrong = |(problem, cure): Told| Some(finding(Wrong, "account", problem, cure));
    let note = |(problem, cure): Told| Some(finding(Note, "account", problem, cure));
    match view.standing {
        Standing::NeedsLogin => wrong(login_ended(view, reason)),
        Standing::Dead => wrong(dead(view, reason)),
        Standing::PlatformOff => wrong(platform_off(view)),
        Standing::PlatformNew => wrong((
            format!("account {name} serves nobody: {reason}"),
            RESTART.to_owned(),
        )),
        Standing::Ended => wrong((
            format!("account {name} is past its end{}", at(view.expires_at)),
            format!("give it another: {}; or remove it", later_end_command(name)),
        )),
        Standing::TokenExpired => wrong((
            format!(
                "the access token of account {name} has expired: {}",
                failing.as_deref().unwrap_or(reason)
            ),
            format!("renew it: refresher refresh {}", shell_word(name)),
        )),
        Standing::Active | Standing::CoolingDown if view.is_spent => wrong(token_spent(view)),
        Standing::Active if view.is_suspected => note((
            format!("account {name} may be dead: {reason}"),
            format!("ask its platform: {}", check_command(name)),
        )),
        Standing::Active => note(refresh_failing(view, &failing?, now)),
        // A cooldown ends by itself, the operator knows what they switched off or logged out, and `left_out` tells the rest.
        Standing::CoolingDown | Standing::Disabled | Standing::LoggedOut | Standing::LeftOut => {
            None
        }
    }
}

/// A problem and its cure.
type Told = (String, String);

fn login_ended(view: &AccountView, reason: &str) -> Told {
    let name = &view.name;
    if view.needs_secrets {
        return (
            format!("what account {name} buys its tokens with has ended: {reason}"),
            login_cure(&view.platform, name, true),
        );
    }
    let cure = match (&view.login_url, view.login_port) {
        (Some(url), Some(port)) => {
            let elsewhere = browser_elsewhere(&view.platform, name, port);
            format!(
                "open {url} in a browser on this machine; for one on another machine {elsewhere}"
            )
        }
        _ => login_cure(&view.platform, name, false),
    };
    (
        format!("the login of account {name} has ended: {reason}"),
        cure,
    )
}

fn dead(view: &AccountView, reason: &str) -> Told {
    let fault = Fault::Dead {
        account: view.name.clone(),
        platform: view.platform.clone(),
        has_key: CredentialKind::parse(view.kind).is_some_and(CredentialKind::is_key),
    };
    (
        format!("account {} is dead: {reason}", view.name),
        cure(Door::CommandLine, &fault).unwrap_or_default(),
    )
}

fn platform_off(view: &AccountView) -> Told {
    let fault = Fault::NotAcknowledged {
        platform: view.platform.clone(),
    };
    (
        format!(
            "account {} is out of use: the notice of {} is not acknowledged",
            view.name, view.platform
        ),
        cure(Door::CommandLine, &fault).unwrap_or_default(),
    )
}

/// An account whose refresh token was spent since the copy that the database is.
fn token_spent(view: &AccountView) -> Told {
    (
        format!(
            "account {} serves until its access token ends{}, and no longer: {}",
            view.name,
            at(view.credential_expires_at),
            spent(view)
        ),
        login_cure(&view.platform, &view.name, view.needs_secrets),
    )
}

fn refresh_failing(view: &AccountView, failing: &str, now: UnixMillis) -> Told {
    let again = view.next_refresh_at;
    let again = again.map_or("later".to_owned(), |time| relative(UnixMillis(time), now));
    (
        format!("account {}: {failing}", view.name),
        format!("`refresher serve` tries again {again}"),
    )
}

fn at(time: Option<i64>) -> String {
    time.map_or_else(String::new, |time| {
        format!(" ({})", minute(UnixMillis(time)))
    })
}

/// Ends that are near.
pub(super) fn ends(facts: &Facts) -> Vec<Finding> {
    let Some(OpenState { overview, keys }) = &facts.state else {
        return Vec::new();
    };
    let of_account = |view: &AccountView| {
        let end = UnixMillis(view.ends_at.filter(|_| view.ends_soon)?);
        let (name, left, at) = (&view.name, relative(end, facts.now), minute(end));
        let problem = format!("account {name} ends for good {left} ({at})");
        let cure = format!("run: {}", later_end(view));
        Some(finding(Wrong, "end", problem, cure))
    };
    let of_key = |key: &KeyView| {
        let KeyState::InUse { until: Some(end) } = key.state else {
            return None;
        };
        if end.since(facts.now) > SOON {
            return None;
        }
        let (name, left) = (&key.name, relative(end, facts.now));
        let cure = format!(
            "move its end: refresher keys set {} --expires TIME",
            shell_word(name)
        );
        Some(finding(
            Note,
            "end",
            format!("client key {name} ends {left}"),
            cure,
        ))
    };
    let accounts = overview.accounts.iter().filter(|view| view.usable);
    accounts
        .filter_map(of_account)
        .chain(keys.iter().filter_map(of_key))
        .collect()
}

fn is_in_use(key: &KeyView) -> bool {
    matches!(key.state, KeyState::InUse { .. })
}

/// Keys that nobody serves.
pub(super) fn keys(facts: &Facts) -> Vec<Finding> {
    let Some(OpenState { overview, keys }) = &facts.state else {
        return Vec::new();
    };
    if !keys.iter().any(is_in_use) {
        return vec![finding(
            Wrong,
            "key",
            "there is no client key that callers could present",
            "make one: refresher keys create NAME",
        )];
    }
    // An account comes first, and that is told already.
    if overview.accounts.is_empty() {
        return Vec::new();
    }
    let of = |pool: &Pool| {
        let names: Vec<&str> = keys
            .iter()
            .filter(|key| is_in_use(key) && key.pool == pool.id)
            .map(|key| key.name.as_str())
            .collect();
        let members = members(pool, &overview.accounts);
        if names.is_empty() || members.iter().any(|view| view.usable) {
            return None;
        }
        let id = &pool.id;
        let (why, cure) = match members.is_empty() {
            true => (
                "has no account".to_owned(),
                format!("add one: refresher pools add {} ACCOUNT", shell_word(id)),
            ),
            false => {
                let of = members
                    .iter()
                    .map(|view| format!("{} {}", view.name, word_of(view)));
                let why = format!("has none that can serve: {}", some(&of.collect::<Vec<_>>()));
                (why, "see: refresher status".to_owned())
            }
        };
        let whose = match names.len() {
            1 => "client key",
            _ => "client keys",
        };
        let names = some(&names);
        Some(finding(
            Wrong,
            "key",
            format!("pool {id} serves nobody, and so not {whose} {names}: it {why}"),
            cure,
        ))
    };
    overview.pools.iter().filter_map(of).collect()
}

/// The first of many names, and how many more there are.
fn some<T: AsRef<str>>(names: &[T]) -> String {
    let shown: Vec<&str> = names.iter().take(MOST_NAMES).map(AsRef::as_ref).collect();
    let rest = match names.len().saturating_sub(MOST_NAMES) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    shown.join(", ") + &rest
}

fn members<'a>(pool: &Pool, accounts: &'a [AccountView]) -> Vec<&'a AccountView> {
    let is_member = |view: &&AccountView| pool.members.iter().any(|one| one.account == view.name);
    accounts.iter().filter(is_member).collect()
}

/// Pools that nobody needs yet, and that could serve nobody.
pub(super) fn pools(facts: &Facts) -> Vec<Finding> {
    let state = facts.state.iter();
    let empty = state.flat_map(|state| &state.overview.pools);
    let empty = empty
        .filter(|pool| pool.members.is_empty() && pool.keys.is_empty() && pool.id != "default");
    let of = |pool: &Pool| {
        let id = shell_word(&pool.id);
        finding(
            Note,
            "pool",
            format!("pool {} has no account", pool.id),
            format!(
                "add one: refresher pools add {id} ACCOUNT; or remove it: refresher pools remove {id}"
            ),
        )
    };
    empty.map(of).collect()
}
