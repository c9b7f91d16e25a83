//! The Envoy cluster that the requests of an account go through.
//!
//! A cluster is a platform's: accounts that are reached in the same way share its connections, limits and statistics. So
//! an account more costs Envoy nothing, and the clusters are as many as the platforms in use.

/// The traits that accounts must have in common to share a cluster.
///
/// TLS settings and the upstream authority follow from the platform's profile. What an account can have of its own in the
/// way that its requests take, such as a proxy, belongs here and into [`ClusterKey::name`], and nowhere else.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClusterKey {
    /// The id of the platform.
    pub platform: String,
}

impl ClusterKey {
    /// The cluster of the accounts of `platform`.
    pub fn of(platform: &str) -> ClusterKey {
        ClusterKey {
            platform: platform.to_owned(),
        }
    }

    /// The name of the cluster in Envoy. Two keys never have the same.
    pub fn name(&self) -> String {
        let ClusterKey { platform } = self;
        format!("{PREFIX}{platform}")
    }
}

/// The start of every cluster's name, which sets Latchkey's apart in an Envoy that serves something else.
pub const PREFIX: &str = "latchkey-";

/// The longest id of a platform, in bytes, so that the name of its cluster is an id too.
pub const MAX_PLATFORM_BYTES: usize = latchkey::id::MAX_ID_BYTES - PREFIX.len();

#[cfg(test)]
mod tests {
    use latchkey::id::Id;

    use super::*;

    #[test]
    fn the_name_of_every_cluster_is_an_id() {
        for platform in ["codex", "o", &"x".repeat(MAX_PLATFORM_BYTES)] {
            let name = ClusterKey::of(platform).name();
            assert!(Id::try_from(name.as_str()).is_ok(), "{name}");
        }
    }
}
