//! Commands that cure what is wrong with an account, as a shell takes them.

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
    use crate::advice::login_command;

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
