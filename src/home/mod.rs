//! Homes: which account has what a request goes on from.
//!
//! A file, a batch, a stored response or a conversation exists in the account that made it and in no
//! other. Its *home* is that account. The attempt reads the ids of what was made as the answer passes
//! ([`crate::attempt::made`]), before the caller has them. It goes into shared data ([`ring`]), where every worker finds
//! it at once, and with the request's record to the refresher, which keeps it as long as the platform
//! keeps the thing. A gate that does not find a home asks the refresher, and waits for its word: after
//! a restart, or where another Envoy made the thing.
//!
//! No id is kept, only a hash of it, beside the client key that made the thing. A key reaches what it
//! made itself. What only others made it does not reach, and nobody can steer another one's request.

pub mod ring;

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{hex, id::is_hex_name, newtype::invalid_text};

/// The longest id of a thing, in bytes. Those of platforms have 25 to 60.
pub const MAX_ID_BYTES: usize = 256;

/// Stands for a thing: a hash of the platform's id.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ThingHash([u8; ThingHash::BYTES]);

/// A thing that an answer made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// The thing.
    pub thing: ThingHash,
    /// The time at which the platform has forgotten it, in Unix milliseconds.
    pub until: u64,
}

/// The account that has the thing which a request names, as far as that is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Home {
    /// The request names nothing, or its caller chose the account.
    #[default]
    Any,
    /// The account of this hash.
    At(u64),
    /// Nobody here made such a thing, or long ago.
    Nowhere,
    /// Another client key made it, or one of several.
    Others,
    /// The request names several things, of several accounts.
    Apart,
    /// The refresher could not be asked.
    Unasked,
}

invalid_text! {
    /// A text that is not a [`ThingHash`].
    InvalidThing, "expected 32 hex digits"
}

// === impl Home ===

impl Home {
    /// The home of a request whose body names what is at both.
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Others, _) | (_, Self::Others) => Self::Others,
            (Self::Apart, _) | (_, Self::Apart) => Self::Apart,
            (Self::At(one), Self::At(other)) if one != other => Self::Apart,
            (Self::At(home), _) | (_, Self::At(home)) => Self::At(home),
            (Self::Unasked, _) | (_, Self::Unasked) => Self::Unasked,
            (Self::Nowhere, _) | (_, Self::Nowhere) => Self::Nowhere,
            (Self::Any, Self::Any) => Self::Any,
        }
    }

    /// The home of a request whose path names what is here, and whose body what is at `bodys`. Where that of the path is
    /// not known, the request has none.
    pub fn of_path(self, bodys: Self) -> Self {
        match (self, bodys) {
            (Self::At(_), _) | (_, Self::Others) => self.and(bodys),
            _ => self,
        }
    }
}

// === impl ThingHash ===

impl ThingHash {
    /// Its length in bytes.
    pub const BYTES: usize = 16;

    /// The thing that a platform calls `id`.
    pub fn of(id: &str) -> Self {
        let mut hash = [0; Self::BYTES];
        for (to, from) in hash.iter_mut().zip(Sha256::digest(id)) {
            *to = from;
        }
        Self(hash)
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }

    /// Reads 32 hex digits.
    pub fn parse(text: &str) -> Option<Self> {
        let number = u128::from_str_radix(text, 16).ok();
        let number = number.filter(|_| is_hex_name(text))?;
        Some(Self(number.to_be_bytes()))
    }
}

impl TryFrom<String> for ThingHash {
    type Error = InvalidThing;

    fn try_from(text: String) -> Result<Self, InvalidThing> {
        Self::parse(&text).ok_or(InvalidThing)
    }
}

impl From<ThingHash> for String {
    fn from(hash: ThingHash) -> Self {
        hash.to_string()
    }
}

impl fmt::Display for ThingHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

impl fmt::Debug for ThingHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_one_home_or_none() {
        use Home::*;
        for (one, other, both) in [
            (Any, At(1), At(1)),
            (At(1), At(1), At(1)),
            (At(1), At(2), Apart),
            (At(1), Nowhere, At(1)),
            (At(1), Unasked, At(1)),
            (Nowhere, Unasked, Unasked),
            (Apart, At(1), Apart),
            (Apart, Others, Others),
            (At(1), Others, Others),
        ] {
            assert_eq!(one.and(other), both);
            assert_eq!(other.and(one), both);
        }
        for (path, body, both) in [
            (At(1), Any, At(1)),
            (At(1), At(2), Apart),
            (At(1), Others, Others),
            (Nowhere, At(1), Nowhere),
            (Unasked, At(1), Unasked),
            (Nowhere, Others, Others),
            (Others, At(1), Others),
        ] {
            assert_eq!(path.of_path(body), both);
        }
    }

    #[test]
    fn a_thing_survives_its_text() {
        let thing = ThingHash::of("resp_1");
        assert_ne!(thing, ThingHash::of("resp_2"));
        assert_eq!(ThingHash::parse(&thing.to_string()), Some(thing));
        for bad in ["", "abc", &"g".repeat(32), &"a".repeat(33), &"+".repeat(32)] {
            assert_eq!(ThingHash::parse(bad), None, "{bad}");
        }
    }
}
