//! Checks that requests of an account can be sent to its platform, before one is.
//!
//! The attempt answers 503 where a template lacks a value or a value does not fit. Whoever stores
//! an account asks here first.

use std::fmt;

use super::{Account, Platform, path};
use crate::header::MAX_VALUE_BYTES;

/// The most bytes that the values of a platform's headers and parameters have together. Envoy takes
/// header blocks of 60 KiB; the rest is for what callers may send.
const MAX_WRITTEN_BYTES: usize = 2 * MAX_VALUE_BYTES;

/// The reason why no request of an account can be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unfit {
    /// The account lacks this variable.
    Lacks(String),
    /// A variable that cannot stand in a path.
    Path(String),
    /// The headers and parameters that the account fills are too long together.
    TooLong {
        /// Their bytes.
        bytes: usize,
    },
}

/// Checks all that is written for `account` into a request to `platform`.
///
/// # Errors
/// [`Unfit`], the first that is found.
pub fn check(platform: &Platform, account: &Account) -> Result<(), Unfit> {
    let lacking = |name: &&str| !account.vars.contains_key(*name);
    if let Some(name) = platform.vars().find(lacking) {
        return Err(Unfit::Lacks(name.to_owned()));
    }
    let in_paths = platform.endpoints.iter().flat_map(|one| one.path.vars());
    let mut values = in_paths.filter_map(|name| Some((name, account.vars.get(name)?)));
    if let Some((name, _)) = values.find(|(_, value)| !path::fits(value.as_str())) {
        return Err(Unfit::Path(name.to_owned()));
    }
    let headers = platform.headers.set.iter().map(|(_, template)| template);
    let parameters = platform.query.0.iter().map(|(_, template)| template);
    let written = headers.chain(parameters);
    let bytes = written
        .filter_map(|template| Some(template.render(account)?.len()))
        .fold(0, usize::saturating_add);
    match bytes <= MAX_WRITTEN_BYTES {
        true => Ok(()),
        false => Err(Unfit::TooLong { bytes }),
    }
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lacks(name) => write!(f, "expected a value of its variable {name}, found none"),
            Self::Path(name) => write!(
                f,
                "expected a value of its variable {name} that may stand in a path: 1 to 256 visible ASCII characters without / \\ ? # and %, found another"
            ),
            Self::TooLong { bytes } => write!(
                f,
                "expected at most {MAX_WRITTEN_BYTES} bytes of headers and parameters that hold what is its own, found {bytes}"
            ),
        }
    }
}

impl std::error::Error for Unfit {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::fixture;

    #[test]
    fn what_no_request_could_be_made_of_is_told_beforehand() {
        let mut platform = fixture::platform("codex");
        let mut account = fixture::account("acc_1", "codex");
        assert_eq!(check(&platform, &account), Ok(()));
        let path = "/w/{account_id}/responses".to_owned();
        platform.endpoints[0].path = path.try_into().unwrap();
        assert_eq!(check(&platform, &account), Ok(()));
        for bad in ["", "..", "a/b", "a?b", "a%2fb", "a b"] {
            account
                .vars
                .insert("account_id".into(), bad.try_into().unwrap());
            let unfit = Unfit::Path("account_id".to_owned());
            assert_eq!(check(&platform, &account), Err(unfit), "{bad:?}");
        }
        account.vars.clear();
        let unfit = Unfit::Lacks("account_id".to_owned());
        assert_eq!(check(&platform, &account), Err(unfit));
        let long = "x".repeat(MAX_VALUE_BYTES);
        account
            .vars
            .insert("account_id".into(), long.as_str().try_into().unwrap());
        account.credential = crate::secret::Secret::new(long.as_str());
        platform.endpoints[0].path = "/x".to_owned().try_into().unwrap();
        let bytes = 2 * MAX_VALUE_BYTES + "Bearer ".len();
        assert_eq!(check(&platform, &account), Err(Unfit::TooLong { bytes }));
    }
}
