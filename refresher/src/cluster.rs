//! The Envoy cluster that the requests of an account go through.
//!
//! A cluster is a platform's: accounts that are reached in the same way share its connections, limits and statistics. So
//! an account more costs Envoy nothing, and the clusters are as many as the platforms in use. Accounts that have a base
//! URL of their own have a cluster for each origin among those; one more at the same origin costs nothing either. An account
//! that leaves by a proxy of its own has a cluster of its own.

use sha2::{Digest, Sha256};

use crate::base_url::{BaseUrl, Origin};
use crate::id::{self, AccountId};

/// The traits that accounts must have in common to share a cluster.
///
/// TLS settings follow from the platform's profile. What an account can have of its own in the way that its requests
/// take belongs here and into [`ClusterKey::name`], and nowhere else.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClusterKey {
    /// The id of the platform.
    pub platform: String,
    /// The origin of the accounts' own base URL; none for those that are where the platform is.
    pub origin: Option<Origin>,
    /// The one account that goes through it, by a proxy of its own; none for those that have none.
    pub account: Option<AccountId>,
}

impl ClusterKey {
    /// The cluster of the accounts of `platform` with this base URL of their own.
    pub fn of(platform: &str, base_url: Option<&BaseUrl>) -> ClusterKey {
        ClusterKey {
            platform: platform.to_owned(),
            origin: base_url.map(|url| url.origin.clone()),
            account: None,
        }
    }

    /// The key of the account's own cluster, if it has a proxy of its own.
    #[must_use]
    pub fn alone(self, account: Option<AccountId>) -> ClusterKey {
        ClusterKey { account, ..self }
    }

    /// The name of the cluster in Envoy. Two keys never have the same: no platform's id has capitals.
    pub fn name(&self) -> String {
        let platform = &self.platform;
        if let Some(account) = &self.account {
            let room = latchkey::id::MAX_ID_BYTES - PREFIX.len() - VIA.len();
            let room = room.saturating_sub(account.as_str().len());
            // No other account has its id.
            let platform = platform.get(..room).unwrap_or(platform);
            return format!("{PREFIX}{platform}{VIA}{account}");
        }
        let Some(Origin { tls, host, port }) = &self.origin else {
            return format!("{PREFIX}{platform}");
        };
        let digest = Sha256::digest(format!("{platform} {tls} {host} {port}"));
        let room = latchkey::id::MAX_ID_BYTES - PREFIX.len() - AT.len() - 2 * ORIGIN_BYTES;
        // Ids of platforms are ASCII, and the digest holds all of this one.
        let platform = platform.get(..room).unwrap_or(platform);
        format!("{PREFIX}{platform}{AT}{}", id::hex(&digest[..ORIGIN_BYTES]))
    }
}

/// The start of every cluster's name, which sets Latchkey's apart in an Envoy that serves something else.
pub const PREFIX: &str = "latchkey-";

/// The text between a platform and the digest of an origin.
const AT: &str = "-AT-";

/// The text between a platform and the account that has a cluster for itself.
const VIA: &str = "-VIA-";

/// Bytes of that digest: enough that no two of a million origins share it.
const ORIGIN_BYTES: usize = 8;

/// The longest id of a platform, in bytes, so that the name of its cluster is an id too.
pub const MAX_PLATFORM_BYTES: usize = latchkey::id::MAX_ID_BYTES - PREFIX.len();

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use latchkey::id::Id;

    use super::*;

    #[test]
    fn the_name_of_every_cluster_is_an_id_of_its_own() {
        let longest = "x".repeat(MAX_PLATFORM_BYTES);
        let almost = format!("{}y", &longest[1..]);
        let urls = [
            "https://a.test/v1",
            "https://b.test/v1",
            "https://a.test:8443",
            "http://127.0.0.1:443",
            "https://127.0.0.1",
        ];
        let urls = urls.map(|url| BaseUrl::parse(url).unwrap());
        let mut names = BTreeSet::new();
        for platform in ["codex", "o", &longest, &almost] {
            for url in urls.iter().map(Some).chain([None]) {
                let name = ClusterKey::of(platform, url).name();
                assert!(Id::try_from(name.as_str()).is_ok(), "{name}");
                assert!(name.starts_with(PREFIX), "{name}");
                assert!(names.insert(name.clone()), "{name}");
            }
        }
        let account = AccountId::random();
        for platform in ["codex", &longest] {
            let mut of_account = BTreeSet::new();
            for url in urls.iter().map(Some).chain([None]) {
                let key = ClusterKey::of(platform, url).alone(Some(account.clone()));
                of_account.insert(key.name());
            }
            let names_of_it: Vec<_> = of_account.into_iter().collect();
            let [name] = &names_of_it[..] else {
                panic!("{names_of_it:?}");
            };
            assert!(Id::try_from(name.as_str()).is_ok(), "{name}");
            assert!(
                name.starts_with(PREFIX) && name.ends_with(account.as_str()),
                "{name}"
            );
            assert!(names.insert(name.clone()), "{name}");
        }
    }

    #[test]
    fn accounts_at_one_origin_share_a_cluster_whatever_their_paths() {
        let of = |url: &str| ClusterKey::of("azure", Some(&BaseUrl::parse(url).unwrap()));
        assert_eq!(of("https://a.test/v1"), of("https://A.test:443/openai/"));
        assert_ne!(of("https://a.test/v1"), of("https://a.test:444/v1"));
    }
}
