//! The accounts, the client keys and the snapshot that a gateway serves.

use anyhow::{Context, Result};
use latchkey::snapshot::Record;

use crate::answers::{DIALECTS, Dialect};

/// The `:authority` of every account.
pub const AUTHORITY: &str = "platform.test";

/// The Envoy cluster of every account: that of their platform.
pub const CLUSTER: &str = "platform";

/// The length of an access token, in bytes: a JWT of a few claims, signed with RSA.
const CREDENTIAL_BYTES: usize = 2048;

/// Far above what one gateway can do.
const LIMITS: &str = r#","limits":{"requests_per_minute":4000000000,"tokens_per_minute":1000000000000,"tokens_per_day":1000000000000000,"concurrent_streams":4000000000}"#;

/// The number of accounts and of client keys in a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fleet {
    /// So many accounts, in one pool, and as many keys.
    pub size: usize,
    /// The things that they have and that cost something.
    pub with: With,
}

/// The things that accounts and keys may have beside what they need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum With {
    /// Nothing.
    Nothing,
    /// Every limit that there is, none of which is ever reached.
    Limits,
    /// A list of models for each key, so that a body is read to its end.
    Models,
    /// A platform that speaks this dialect alone, and callers of the others.
    Only(Dialect),
}

// === impl Fleet ===

impl With {
    /// The members that an account's record has for it.
    fn of_account(self) -> &'static str {
        match self {
            Self::Limits => LIMITS,
            Self::Nothing | Self::Models | Self::Only(_) => "",
        }
    }

    /// The members that a key's record has for it.
    fn of_key(self) -> &'static str {
        match self {
            Self::Limits => LIMITS,
            Self::Models => r#","models":["gpt-6*"]"#,
            Self::Nothing | Self::Only(_) => "",
        }
    }

    /// Tells a platform that speaks `dialect`.
    fn has(self, dialect: Dialect) -> bool {
        match self {
            Self::Only(one) => one == dialect,
            Self::Nothing | Self::Limits | Self::Models => true,
        }
    }
}

impl Fleet {
    /// The dialect of the caller of request `number`.
    pub fn dialect(self, number: usize) -> Dialect {
        let Self { with, .. } = self;
        let translated = |dialect: &Dialect| matches!(with, With::Only(one) if one != *dialect);
        let callers = DIALECTS.into_iter().filter(translated);
        let mut callers = callers.cycle().skip(number % (DIALECTS.len() - 1));
        callers.next().unwrap_or_else(|| Dialect::of(number))
    }

    /// The dialect in which the platform answers a caller of `dialect`.
    pub fn platform(self, dialect: Dialect) -> Dialect {
        match self.with {
            With::Only(one) => one,
            With::Nothing | With::Limits | With::Models => dialect,
        }
    }

    /// The client key of caller `number`, of the length that the refresher makes.
    pub fn client_key(number: usize) -> String {
        format!("lk_{number:040}")
    }

    /// The access token of account `number`.
    pub fn credential(number: usize) -> String {
        let letters = (b'A'..=b'Z').chain(b'a'..=b'z').chain(b'0'..=b'9');
        let letters: String = letters.map(char::from).collect();
        let mut token = format!("token-{number}.");
        token.extend(letters.chars().cycle().take(CREDENTIAL_BYTES - token.len()));
        token
    }

    /// The workspace of account `number` at the platform.
    pub fn account_id(number: usize) -> String {
        format!("00000000-0000-4000-8000-{number:012}")
    }

    /// The record of account `number` with its credential of that generation.
    pub fn account(self, number: usize, generation: usize) -> String {
        let (credential, account_id) = (Self::credential(number), Self::account_id(number));
        let more = self.with.of_account();
        format!(
            r#"{{"account":{{"id":"acc_{number}","name":"account {number}","platform":"codex","cluster":"{CLUSTER}","authority":"{AUTHORITY}","credential":"{credential}","vars":{{"account_id":"{account_id}"}},"generation":{generation},"credential_expires_at":4102444800000{more}}}}}"#
        )
    }

    /// The records, one line each.
    ///
    /// # Errors
    /// A record that the filter would refuse: the benchmark is older than the format.
    pub fn snapshot(self) -> Result<Vec<String>> {
        let each = |has: fn(With, Dialect) -> bool, line: fn(usize, Dialect) -> String| {
            let lines = DIALECTS.into_iter().enumerate();
            let lines = lines.filter(|(_, dialect)| has(self.with, *dialect));
            let lines: Vec<_> = lines.map(|(at, dialect)| line(at + 1, dialect)).collect();
            lines.join(",")
        };
        let doors = each(
            |_, _| true,
            |id, dialect| {
                let (path, name) = (dialect.path(), dialect.name());
                format!(
                    r#"{{"id":{id},"method":"POST","path":"{path}","dialect":"{name}","operation":"generate"}}"#
                )
            },
        );
        let endpoints = each(With::has, |_, dialect| {
            let (path, name) = (dialect.upstream_path(), dialect.name());
            let asks = dialect == Dialect::Chat;
            format!(
                r#"{{"dialect":"{name}","operation":"generate","path":"{path}","include_usage":{asks}}}"#
            )
        });
        let mut lines = vec![
            format!(
                r#"{{"doors":{{"id":"doors","session_headers":["session-id"],"doors":[{doors}]}}}}"#
            ),
            format!(
                r#"{{"platform":{{"id":"codex","owner":"openai","endpoints":[{endpoints}],"headers":{{"set":[["authorization","Bearer {{credential}}"],["chatgpt-account-id","{{account_id}}"]],"default":[],"allow":["accept","content-type","user-agent","originator","session-id","x-codex-*"]}},"models":["gpt-6.1-sol"]}}}}"#
            ),
        ];
        let mut members = Vec::new();
        for number in 0..self.size {
            lines.push(self.account(number, 1));
            members.push(format!(r#"{{"account":"acc_{number}","weight":1}}"#));
        }
        lines.push(format!(
            r#"{{"pool":{{"id":"default","policy":"sticky","members":[{}]}}}}"#,
            members.join(",")
        ));
        for number in 0..self.size {
            let sha256 = latchkey::snapshot::KeyHash::of(Self::client_key(number).as_bytes());
            let more = self.with.of_key();
            lines.push(format!(
                r#"{{"key":{{"id":"key_{number}","sha256":"{sha256:?}","pool":"default"{more}}}}}"#
            ));
        }
        for line in &lines {
            Record::from_line(line.as_bytes()).with_context(|| format!("{:.60}…", line))?;
        }
        Ok(lines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_reads_every_record() {
        for with in [
            With::Nothing,
            With::Limits,
            With::Models,
            With::Only(Dialect::Responses),
        ] {
            assert_eq!(Fleet { size: 10, with }.snapshot().unwrap().len(), 23);
        }
    }

    #[test]
    fn callers_of_the_platforms_own_dialect_are_not_translated() {
        let with = With::Only(Dialect::Responses);
        let of = |number| Fleet { size: 10, with }.dialect(number);
        assert_eq!(
            [0, 1, 2].map(of),
            [Dialect::Chat, Dialect::Messages, Dialect::Chat]
        );
    }
}
