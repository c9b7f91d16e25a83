//! Accounts that end for good within days, told in the log once a day each: of themselves, or of a login that no refresh
//! prolongs.

use std::collections::HashMap;
use std::time::Duration;

use crate::advice;
use crate::clock::{Clock, UnixMillis};
use crate::id::AccountId;
use crate::standing::ends_soon;
use crate::store::{Account, Status, Store};

/// The pause between two looks: an account that is added is told of within the hour.
const LOOK_INTERVAL: Duration = Duration::from_secs(60 * 60);
/// The time after which it is told of again.
const AGAIN: Duration = Duration::from_secs(24 * 60 * 60);

/// Announces accounts that end soon, until dropped.
pub async fn announce(store: &Store, clock: impl Clock) {
    let mut announced = Announced::default();
    loop {
        match store.accounts().await {
            Ok(accounts) => {
                for (account, end) in announced.due(&accounts, clock.now()) {
                    tell(account, end, clock.now());
                }
            }
            Err(error) => tracing::warn!(%error, "cannot read which accounts end soon"),
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

fn tell(account: &Account, end: UnixMillis, now: UnixMillis) {
    let is_set = account.expires_at == Some(end);
    let cure = match is_set {
        true => advice::later_end_command(&account.name),
        false => advice::login_command(&account.platform, &account.name),
    };
    let hours = end.since(now).as_secs() / 3600;
    tracing::warn!(
        account = account.name,
        hours,
        cure,
        "an account ends for good soon, and no refresh prolongs it"
    );
}

/// The time at which each account was told of last.
#[derive(Debug, Default)]
struct Announced(HashMap<AccountId, UnixMillis>);

impl Announced {
    /// The accounts to be told of at `now`, with their ends. They count as told.
    fn due<'a>(
        &mut self,
        accounts: &'a [Account],
        now: UnixMillis,
    ) -> Vec<(&'a Account, UnixMillis)> {
        let soon: Vec<(&Account, UnixMillis)> = accounts
            .iter()
            .filter(|account| matches!(account.status, Status::Active | Status::Disabled))
            .filter_map(|account| Some((account, ends_soon(account, now)?)))
            .collect();
        self.0
            .retain(|id, _| soon.iter().any(|(account, _)| account.id == *id));
        let is_due = |account: &Account, told: &HashMap<AccountId, UnixMillis>| {
            told.get(&account.id)
                .is_none_or(|at| now.since(*at) >= AGAIN)
        };
        let due: Vec<_> = soon
            .into_iter()
            .filter(|(account, _)| is_due(account, &self.0))
            .collect();
        for (account, _) in &due {
            self.0.insert(account.id.clone(), now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_790_000_000_000);
    const HOUR: Duration = Duration::from_secs(60 * 60);

    /// From a week before its end, once a day until then; no more once the end has moved away.
    #[test]
    fn an_account_that_ends_is_told_of_once_a_day() {
        let mut account = Account::example("alice", "codex");
        account.status = Status::Active;
        account.login_ends_at = Some(NOW.plus(9 * 24 * HOUR));
        let mut announced = Announced::default();
        let hours = 0..10 * 24_u32;
        let told: Vec<u32> = hours
            .filter(|hour| {
                let accounts = [account.clone()];
                !announced.due(&accounts, NOW.plus(*hour * HOUR)).is_empty()
            })
            .collect();
        assert_eq!(told, (2..9).map(|day| day * 24).collect::<Vec<_>>());

        account.login_ends_at = Some(NOW.plus(HOUR));
        assert_eq!(announced.due(&[account.clone()], NOW).len(), 1);
        let mut moved = account.clone();
        moved.login_ends_at = None;
        assert!(announced.due(&[moved], NOW).is_empty());
        assert_eq!(announced.due(&[account.clone()], NOW).len(), 1, "anew");
        account.status = Status::NeedsLogin;
        let later = NOW.plus(24 * HOUR);
        assert!(
            announced.due(&[account], later).is_empty(),
            "told of already"
        );
    }
}
