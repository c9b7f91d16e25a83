//! Cures, worded for the command line. Whatever fails below it tells facts alone.

use std::error::Error;

use crate::store::{self, Named, NotRotated, Unfit};

/// The text of an error and, where there is one, its cure.
pub fn worded(error: &(dyn Error + 'static)) -> String {
    let cure = error.downcast_ref().and_then(cure);
    match cure {
        Some(cure) => format!("{error}; {cure}"),
        None => error.to_string(),
    }
}

/// The cure for a failure of the store.
fn cure(error: &store::Error) -> Option<String> {
    use store::Error;
    let cure = match error {
        Error::NotOurs { .. } => "put back a backup, or move it away to start with none",
        Error::LogInUse { .. } => "end that, and start again",
        Error::Schema { .. } => "run the release that wrote it, or a newer one",
        Error::WrongKey { .. } => "put back the key file that belongs to it, or set LATCHKEY_KEY",
        Error::Rotation(refused) => return not_rotated(refused),
        Error::Unknown { record, .. } => match record {
            Named::Account => "see: refresher accounts list",
            Named::ClientKey => "see: refresher keys list",
            Named::Pool => "see: refresher pools list",
        },
        Error::NameTaken { .. } => "choose another name, or remove that one first",
        Error::Unfit {
            unfit: Unfit::Credential,
            ..
        } => "check that it was copied whole",
        Error::PoolInUse { .. } => {
            "first revoke them, or give them another: refresher keys set KEY --pool POOL, and --no-choice where it was \
             theirs to choose"
        }
        Error::DefaultPool => "take accounts out of it with: refresher pools drop default ACCOUNT",
        Error::NotInPool { .. } => "see: refresher pools list",
        Error::NeedsLogin { account, platform } => {
            return Some(format!("run: {}", login_command(platform, account)));
        }
        Error::File(_)
        | Error::State(_)
        | Error::Keys(_)
        | Error::Database(_)
        | Error::Seal { .. }
        | Error::Corrupt { .. }
        | Error::Unfit { .. } => return None,
    };
    Some(cure.to_owned())
}

fn not_rotated(refused: &NotRotated) -> Option<String> {
    const MAKE: &str = "head -c 32 /dev/urandom | base64";
    match refused {
        NotRotated::FixedKeys => Some(format!(
            "a new one is yours to make, with: {MAKE}; put it into LATCHKEY_KEY and the key of now into \
             LATCHKEY_RETIRED_KEYS, restart `refresher serve` with both, then run this again"
        )),
        NotRotated::GivenKeys(_) => Some(format!(
            "a new one is yours to make, with: {MAKE}; put it there before the others, then run this again; `refresher \
             serve` reads it by itself"
        )),
        NotRotated::NotServed(_) => {
            Some("restart it with this LATCHKEY_KEY and LATCHKEY_RETIRED_KEYS first".to_owned())
        }
        NotRotated::Unreadable(_) => Some(
            "`refresher serve` logs which ones; everything else is sealed with the new key"
                .to_owned(),
        ),
    }
}

/// What to run for an account whose login has ended, as a shell takes it. It prints the URL to open.
pub fn login_command(platform: &str, name: &str) -> String {
    format!("refresher login {platform} --name {}", shell_word(name))
}

/// What to run for a dead account once somebody has seen to it, as a shell takes it.
pub fn enable_command(name: &str) -> String {
    format!("refresher accounts enable {}", shell_word(name))
}

fn shell_word(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"@%+=:,./_-".contains(&byte);
    if text.bytes().all(is_plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_to_do() {
        let unknown = store::Error::Unknown {
            record: Named::Account,
            name: "nobody".to_owned(),
        };
        let in_use = store::Error::PoolInUse {
            pool: "own".to_owned(),
            keys: vec!["laptop".to_owned()],
        };
        let needs_login = store::Error::NeedsLogin {
            account: "the team".to_owned(),
            platform: "codex".to_owned(),
        };
        for (error, worded_so) in [
            (
                unknown,
                "there is no account \"nobody\"; see: refresher accounts list",
            ),
            (
                in_use,
                "pool \"own\" is what these keys use: laptop; first revoke them, or give them another: refresher keys set \
                 KEY --pool POOL, and --no-choice where it was theirs to choose",
            ),
            (
                needs_login,
                "account \"the team\" needs a new login first; run: refresher login codex --name 'the team'",
            ),
        ] {
            assert_eq!(worded(&error), worded_so);
        }
    }

    #[test]
    fn a_shell_takes_the_login_command_as_it_is() {
        for (name, written) in [
            ("alice@example.com", "alice@example.com"),
            ("the team", "'the team'"),
            ("o'neill; $HOME", "'o'\\''neill; $HOME'"),
        ] {
            let expected = format!("refresher login codex --name {written}");
            assert_eq!(login_command("codex", name), expected);
        }
    }
}
