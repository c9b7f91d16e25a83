//! The effective state of an account: what the operator set, what the refresh engine and the filter learned, and the
//! time, made one word. Tables, JSON, metrics and the log all take it from here.

use std::time::Duration;

use latchkey::snapshot::Cooldown;
use latchkey::verdict::Scope;

use crate::clock::UnixMillis;
use crate::failing::Failing;
use crate::store::{Account, Status};

/// An end that is nearer is announced.
pub const SOON: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The effective state of an account. The first that holds, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The operator switched it off.
    Disabled,
    /// The operator logged it out.
    LoggedOut,
    /// Its login has ended.
    NeedsLogin,
    /// The platform says that it is of no use.
    Dead,
    /// Past the end that the operator set.
    Ended,
    /// Cooling down as a whole.
    CoolingDown,
    /// Its platform's notice is not acknowledged.
    PlatformOff,
    /// The running daemon began before its platform was there or acknowledged.
    PlatformNew,
    /// Its record cannot go to Envoy.
    LeftOut,
    /// Its access token has expired, and the next is not there yet.
    TokenExpired,
    /// Envoy may use it.
    Active,
}

/// Returns when an account ends for good, where that is near.
pub fn ends_soon(account: &Account, now: UnixMillis) -> Option<UnixMillis> {
    let end = account.ends_at()?;
    (end > now && end.since(now) <= SOON).then_some(end)
}

/// The refreshes of an account that could serve, where they have failed for so long that a person should look.
pub fn stuck(account: &Account, now: UnixMillis) -> Option<&Failing> {
    // Nothing renews one whose refresh token may be spent, which is told by itself.
    let could_serve =
        account.status == Status::Active && !account.has_ended(now) && !account.is_spent;
    let failing = account.failing.as_ref().filter(|_| could_serve)?;
    failing
        .is_stuck(account.credential_expires_at, now)
        .then_some(failing)
}

impl Standing {
    /// The states that the store alone knows, whatever health and platforms say.
    pub const STORED: [Standing; 5] = [
        Standing::Active,
        Standing::Disabled,
        Standing::NeedsLogin,
        Standing::Dead,
        Standing::Ended,
    ];

    /// The state of `account` at `now`, as the store alone knows it: one of [`Standing::STORED`].
    pub fn stored(account: &Account, now: UnixMillis) -> Standing {
        match account.status {
            Status::Disabled => Standing::Disabled,
            Status::NeedsLogin => Standing::NeedsLogin,
            Status::Dead => Standing::Dead,
            Status::Active if account.has_ended(now) => Standing::Ended,
            Status::Active => Standing::Active,
        }
    }

    /// The state of `account` at `now`, which has these `cooldowns`.
    pub fn of(
        account: &Account,
        cooldowns: &[Cooldown],
        platform_is_on: bool,
        now: UnixMillis,
    ) -> Standing {
        let stored = Standing::stored(account, now);
        let millis = u64::try_from(now.0).unwrap_or(0);
        let keeps_out = |one: &Cooldown| one.scope == Scope::Account && one.until > millis;
        let has_expired = account
            .credential_expires_at
            .is_some_and(|time| time <= now);
        match stored {
            Standing::NeedsLogin if account.is_logged_out() => Standing::LoggedOut,
            // Nobody can log in there before.
            Standing::NeedsLogin if !platform_is_on => Standing::PlatformOff,
            Standing::Active if cooldowns.iter().any(keeps_out) => Standing::CoolingDown,
            Standing::Active if !platform_is_on => Standing::PlatformOff,
            Standing::Active if has_expired => Standing::TokenExpired,
            _ => stored,
        }
    }

    /// The word for machines.
    pub fn as_str(self) -> &'static str {
        match self {
            Standing::Disabled => "disabled",
            Standing::LoggedOut => "logged_out",
            Standing::NeedsLogin => "needs_login",
            Standing::Dead => "dead",
            Standing::Ended => "ended",
            Standing::CoolingDown => "cooling_down",
            Standing::PlatformOff => "platform_off",
            Standing::PlatformNew => "platform_new",
            Standing::LeftOut => "left_out",
            Standing::TokenExpired => "token_expired",
            Standing::Active => "active",
        }
    }
}

#[cfg(test)]
mod tests {

    use latchkey::verdict::Reason;

    use super::*;
    use crate::store::LOGGED_OUT;

    const NOW: UnixMillis = UnixMillis(1_790_000_000_000);

    fn cooldown(scope: Scope, until: i64) -> Cooldown {
        Cooldown {
            scope,
            until: until.try_into().unwrap(),
            guessed: false,
            reason: Reason::rate_limited(),
            at: 0,
        }
    }

    #[test]
    fn an_end_within_a_week_is_near() {
        let mut account = Account::example("a", "openai");
        assert_eq!(ends_soon(&account, NOW), None);
        let week = NOW.plus(SOON);
        for (set, login, soon) in [
            (Some(week), None, Some(week)),
            (None, Some(week), Some(week)),
            (Some(UnixMillis(week.0 + 1)), None, None),
            (Some(UnixMillis(week.0 + 1)), Some(week), Some(week)),
            (Some(NOW), None, None),
        ] {
            (account.expires_at, account.login_ends_at) = (set, login);
            assert_eq!(ends_soon(&account, NOW), soon, "{account:?}");
        }
    }

    #[test]
    fn the_worst_of_what_is_known_is_the_state() {
        let account = |status| {
            let mut account = Account::example("a", "openai");
            account.status = status;
            account
        };
        let (past, later) = (UnixMillis(NOW.0 - 1), UnixMillis(NOW.0 + 1));
        let mut ended = account(Status::Active);
        ended.expires_at = Some(NOW);
        let mut expired = account(Status::Active);
        (expired.credential_expires_at, expired.expires_at) = (Some(past), Some(later));
        let mut logged_out = account(Status::NeedsLogin);
        logged_out.reason = Some(LOGGED_OUT.to_owned());
        let out = [cooldown(Scope::Account, later.0)];
        let lapsed = [cooldown(Scope::Account, past.0)];
        let model = [cooldown(Scope::Model("gpt-5".try_into().unwrap()), later.0)];
        for (account, cooldowns, is_on, expected) in [
            (account(Status::Active), &lapsed[..], true, Standing::Active),
            (account(Status::Active), &model, true, Standing::Active),
            (account(Status::Active), &out, false, Standing::CoolingDown),
            (account(Status::Active), &[], false, Standing::PlatformOff),
            (expired, &lapsed, true, Standing::TokenExpired),
            (ended, &out, false, Standing::Ended),
            (account(Status::Dead), &out, false, Standing::Dead),
            (account(Status::NeedsLogin), &[], true, Standing::NeedsLogin),
            (
                account(Status::NeedsLogin),
                &[],
                false,
                Standing::PlatformOff,
            ),
            (logged_out, &[], true, Standing::LoggedOut),
            (account(Status::Disabled), &[], true, Standing::Disabled),
        ] {
            let found = Standing::of(&account, cooldowns, is_on, NOW);
            assert_eq!(found, expected, "{account:?}");
        }
    }
}
