//! Ids of records, and random text. Ids are made here and never come from a person, so they are safe in file names,
//! header values and Envoy cluster names.

use std::fmt;

use data_encoding::{BASE32_NOPAD, HEXLOWER};
use rand::RngCore;

/// The beginning of every client key, so that scanners and people know one.
pub const CLIENT_KEY_PREFIX: &str = "lk_";
/// Characters after the prefix: 80 random bits.
const ID_CHARACTERS: usize = 16;

/// `characters` random base32 characters (RFC 4648 §6), five bits each, from the operating system's generator by way of
/// `rand`.
pub fn random_base32(characters: usize) -> String {
    let mut bytes = vec![0; (characters * 5).div_ceil(8)];
    rand::rng().fill_bytes(&mut bytes);
    let mut text = BASE32_NOPAD.encode(&bytes);
    text.truncate(characters);
    text
}

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    HEXLOWER.encode(bytes)
}

macro_rules! id {
    ($name:ident, $prefix:literal, $what:literal) => {
        #[doc = concat!("The id of ", $what, ": `", $prefix, "` and 16 base32 characters.")]
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(String);

        impl $name {
            /// A new one, of 80 random bits.
            pub fn random() -> $name {
                $name(format!(
                    concat!($prefix, "{}"),
                    random_base32(ID_CHARACTERS)
                ))
            }

            /// Reads one; `None` if `text` is something else.
            pub fn parse(text: &str) -> Option<$name> {
                let rest = text.strip_prefix($prefix)?;
                let is_base32 = BASE32_NOPAD.decode(rest.as_bytes()).is_ok();
                let fits = rest.len() == ID_CHARACTERS && is_base32;
                fits.then(|| $name(text.to_owned()))
            }

            /// As text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = String;

            fn try_from(text: String) -> Result<$name, String> {
                $name::parse(&text).ok_or_else(|| format!("{text:?} is no id"))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }
    };
}

id!(AccountId, "acc_", "an account");
id!(ClientKeyId, "key_", "a client key");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_back_and_nothing_else_is() {
        let id = AccountId::random();
        assert_eq!(AccountId::parse(id.as_str()), Some(id.clone()));
        assert_ne!(AccountId::random(), id);
        for characters in [0, 1, 16, 32, 33] {
            assert_eq!(random_base32(characters).len(), characters);
        }
        for wrong in [
            "",
            "acc_",
            "acc_AAAAAAAAAAAAAAA",
            "acc_AAAAAAAAAAAAAAA1",
            "key_AAAAAAAAAAAAAAAA",
            "acc_../../../../../..",
        ] {
            assert_eq!(AccountId::parse(wrong), None, "{wrong}");
        }
    }
}
