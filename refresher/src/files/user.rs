//! Users of this machine, for sentences about whose a file is. Nothing is decided by their names.

use std::fmt;
use std::fs::File;

use super::read_within;

/// The users that this machine itself knows.
const USERS: &str = "/etc/passwd";
/// The most bytes of that file.
const MAX_USERS_BYTES: u64 = 1024 * 1024;

/// A user: a number, and a name where the machine has one in its file of users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    id: u32,
    name: Option<String>,
}

impl User {
    /// The user with this number.
    pub fn of(id: u32) -> User {
        let users = File::open(USERS).and_then(|file| read_within(file, MAX_USERS_BYTES));
        User::among(&users.unwrap_or_default(), id)
    }

    /// The user with this number, by such a file (passwd(5)).
    fn among(users: &str, id: u32) -> User {
        let named = |line: &str| {
            let mut fields = line.split(':');
            let (name, number) = (fields.next()?, fields.nth(1)?);
            (number.parse() == Ok(id) && !name.is_empty()).then(|| name.to_owned())
        };
        let name = users.lines().find_map(named);
        User { id, name }
    }

    /// The user as `sudo -u` and `chown` take it, once a shell has read it.
    pub fn word(&self) -> String {
        let number = || format!("'#{}'", self.id);
        self.name.clone().unwrap_or_else(number)
    }

    /// The number.
    pub fn id(&self) -> u32 {
        self.id
    }
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "user {name} ({})", self.id),
            None => write!(f, "user {}", self.id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_the_name_that_the_machine_knows() {
        let users = "root:x:0:0:root:/root:/bin/sh\n:x:7:7\nbroken\nlatchkey:x:999:999::/var/lib/latchkey:/bin/false\n";
        let shown = |id| {
            let user = User::among(users, id);
            (user.to_string(), user.word())
        };
        let expected = |shown: &str, word: &str| (shown.to_owned(), word.to_owned());
        assert_eq!(shown(999), expected("user latchkey (999)", "latchkey"));
        assert_eq!(shown(0), expected("user root (0)", "root"));
        assert_eq!(shown(7), expected("user 7", "'#7'"));
        assert_eq!(shown(65_534), expected("user 65534", "'#65534'"));
    }
}
