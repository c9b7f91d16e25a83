//! The things that the targets have in common: the way to make a case of bytes, and platforms to try it on.

use latchkey::{
    dialect::{Dialect, grammar},
    snapshot::{Account, Platform, Record},
    verdict::{Rule, quota::Windows},
};
use serde::Deserialize;

/// The profiles, as the refresher embeds them.
const PROFILES: &[(&str, &str)] = include!("../refresher/platforms/all.rs");

/// A platform and an account of it, as they come in a snapshot.
const RECORDS: [&str; 2] = [
    r#"{"platform":{"id":"codex","owner":"openai","endpoints":[{"dialect":"responses","operation":"generate","path":"/backend-api/codex/responses"}],"headers":{"set":[["authorization","Bearer {credential}"],["chatgpt-account-id","{account_id}"]],"default":[["originator","codex"]],"allow":["accept","content-type","user-agent","session-id","originator","x-codex-*"]},"models":[]}}"#,
    r#"{"account":{"id":"acc_1","name":"alice","platform":"codex","cluster":"latchkey-acc_1","authority":"up.test","credential":"the-token","vars":{"account_id":"ws_1"},"generation":1}}"#,
];

/// The part of a profile that the verdicts need.
#[derive(Debug, Deserialize)]
pub struct Profile {
    /// Its rules.
    #[serde(default)]
    pub verdicts: Vec<Rule>,
    /// The way in which it reports windows.
    #[serde(default)]
    pub quota: Windows,
}

/// Every profile's rules.
pub fn profiles() -> Vec<Profile> {
    let parse = |(_, text): &(&str, &str)| {
        let mut table: toml::Table = text.parse().expect("an embedded profile is TOML");
        if let Some(toml::Value::Table(quota)) = table.get_mut("quota") {
            // `false` takes away what the lower file has, of which there is none here.
            quota.retain(|_, window| !window.is_bool());
        }
        table.try_into().expect("an embedded profile parses")
    };
    PROFILES.iter().map(parse).collect()
}

/// A platform with a credential and a variable in its headers, and an account of it.
pub fn platform_and_account() -> (Platform, Account) {
    match RECORDS.map(|line| Record::from_line(line.as_bytes()).expect("a record parses")) {
        [Record::Platform(platform), Record::Account(account)] => (platform, account),
        records => panic!("another kind of record: {records:?}"),
    }
}

/// Takes a number off the front; 0 where nothing is left.
pub fn byte(data: &mut &[u8]) -> u8 {
    data.split_off_first().copied().unwrap_or_default()
}

/// A dialect by number.
pub fn dialect(number: u8) -> Dialect {
    let all: Vec<Dialect> = grammar::of_both().collect();
    all[usize::from(number) % all.len()]
}

/// A dialect of platforms by number; that of a digit is the digit's.
pub fn platform(number: u8) -> Dialect {
    let all = Dialect::OF_PLATFORMS;
    all[usize::from(number.wrapping_sub(b'0')) % all.len()]
}

/// A dialect of callers by number; that of a digit is the digit's.
pub fn caller(number: u8) -> Dialect {
    let all = Dialect::OF_CALLERS;
    all[usize::from(number.wrapping_sub(b'0')) % all.len()]
}

/// `data` in pieces whose lengths `cuts` gives, around and around; the rest is one more.
pub fn pieces(mut data: &[u8], cuts: [u8; 3]) -> Vec<&[u8]> {
    let mut pieces = Vec::new();
    for length in cuts.into_iter().cycle().take(4_096) {
        match data.split_at_checked(usize::from(length)) {
            Some((piece, rest)) if !rest.is_empty() => {
                pieces.push(piece);
                data = rest;
            }
            _ => break,
        }
    }
    pieces.push(data);
    pieces
}

/// The lines `name: value` of `data` up to a blank one, and what follows it.
pub fn head_and_body(data: &[u8]) -> (Vec<(String, Vec<u8>)>, &[u8]) {
    let mut headers = Vec::new();
    let mut rest = data;
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let (line, after) = (&rest[..end], &rest[end + 1..]);
        rest = after;
        if line.is_empty() {
            return (headers, rest);
        }
        let colon = line.iter().skip(1).position(|byte| *byte == b':');
        if let Some(colon) = colon.map(|at| at + 1) {
            let name = String::from_utf8_lossy(&line[..colon]).to_ascii_lowercase();
            headers.push((name, line[colon + 1..].trim_ascii().to_vec()));
        }
    }
    (headers, &[])
}
