//! The clusters that Envoy reads.

/// The Envoy cluster of an account.
pub fn cluster_name(account: &str) -> String {
    format!("latchkey-{account}")
}
