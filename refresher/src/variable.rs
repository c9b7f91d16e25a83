//! Environment variables that hold secrets: files name them, and never hold what is in them.

use secrecy::SecretString;

/// The longest name of a variable.
const MAX_NAME: usize = 128;

/// The name of a variable that `field` names. A secret that was put in its place is none, and is not repeated.
///
/// # Errors
/// In a sentence, if it is none.
pub fn named(field: &str, name: String) -> Result<String, String> {
    let is_word = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    let fits = (1..=MAX_NAME).contains(&name.len())
        && name.bytes().all(is_word)
        && !name.starts_with(|first: char| first.is_ascii_digit());
    match fits {
        true => Ok(name),
        false => Err(format!(
            "expected the name of an environment variable for {field}, of capital letters, digits and _; found another text"
        )),
    }
}

/// Reads a variable of this process, without blanks around it; none where that is nothing.
pub fn read(name: &str) -> Option<SecretString> {
    let value = std::env::var(name).ok()?;
    let value = value.trim();
    (!value.is_empty()).then(|| value.into())
}
