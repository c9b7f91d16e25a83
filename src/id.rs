//! Identifiers of platforms, accounts, pools and client keys.

use std::{borrow::Borrow, fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::newtype::{checked_str, checked_text, invalid_text};

/// The longest identifier, in bytes: room for a prefix and a UUID.
pub const MAX_ID_BYTES: usize = 64;

/// An identifier that is safe in a header, a cluster name, a file name and a log line:
/// 1 to [`MAX_ID_BYTES`] of `A-Z a-z 0-9 _ - .`, not starting with a dot.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Id(Arc<str>);

invalid_text! {
    /// A text that is not an [`Id`].
    InvalidId,
    "expected an id of 1 to {MAX_ID_BYTES} characters A-Z a-z 0-9 _ - . not starting with a dot"
}

checked_text! {
    Id, InvalidId;
}

checked_str! {
    Id, InvalidId;
}

/// Returns true for 32 hex digits, as Envoy processes and batches are named.
pub fn is_hex_name(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

// === impl Id ===

impl Id {
    fn check(text: &str) -> Result<(), InvalidId> {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
        let fits = !text.is_empty() && text.len() <= MAX_ID_BYTES && !text.starts_with('.');
        if fits && text.bytes().all(legal) {
            Ok(())
        } else {
            Err(InvalidId)
        }
    }
}

impl Borrow<str> for Id {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_safe_text_is_an_id() {
        for good in ["acc_7Q", "gpt-6.1", "a", &"x".repeat(MAX_ID_BYTES)] {
            assert_eq!(Id::try_from(good).unwrap().as_str(), good);
        }
        for bad in [
            "",
            ".",
            "../x",
            "a b",
            "a\n",
            "é",
            "a/b",
            &"x".repeat(MAX_ID_BYTES + 1),
        ] {
            assert_eq!(Id::try_from(bad), Err(InvalidId), "{bad:?}");
        }
    }
}
