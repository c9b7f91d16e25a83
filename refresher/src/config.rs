//! `config.toml` of the state directory: what the operator chose. Every key is optional; unknown ones are refused.

pub mod accounts;

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use latchkey::header::HeaderName;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use crate::files;
use crate::files::owned::read_owned_text;
use crate::toml_place::Place;

/// The most bytes of `config.toml`.
const MAX_CONFIG_BYTES: u64 = 64 * 1024;
/// The longest `grace_seconds`: no token endpoint is known that takes a spent token for longer.
const MAX_GRACE_SECONDS: u64 = 300;

/// The longest `floor_seconds`: a platform's shortest tokens are known to live for minutes.
const MAX_FLOOR_SECONDS: u64 = 300;
/// The longest `keep_days`: ten years.
const MAX_KEEP_DAYS: u32 = 3650;

/// The most `session_headers`: each is looked for in every request.
const MAX_SESSION_HEADERS: usize = 16;

/// The oldest Envoy, 1.39.
const OLDEST_ENVOY: u32 = 39;

/// The operator's choices.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Platforms whose terms the operator has read and accepts.
    pub acknowledged_terms: BTreeSet<String>,
    /// A folder of profiles to merge over the embedded ones.
    pub platforms_dir: Option<PathBuf>,
    /// The browser that a login at a platform's own page opens, if not the first that is found.
    pub browser: Option<PathBuf>,
    /// Headers in which clients name a session, beside the built-in ones and before them.
    #[serde(deserialize_with = "session_headers")]
    pub session_headers: Vec<HeaderName>,
    /// The place of the sealing keys, if not the environment.
    pub key: Key,
    /// The refresh engine.
    #[serde(deserialize_with = "refresh")]
    pub refresh: Refresh,
    /// The records that are kept of requests.
    pub usage: Usage,
    /// The clusters that Envoy reads.
    pub envoy: Envoy,
    /// Accounts whose secrets stand in the environment.
    #[serde(deserialize_with = "accounts::list")]
    pub accounts: Vec<accounts::Declared>,
}

fn session_headers<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<HeaderName>, D::Error> {
    let names = Vec::<HeaderName>::deserialize(deserializer)?;
    match names.len() {
        0..=MAX_SESSION_HEADERS => Ok(names),
        found => Err(D::Error::custom(format!(
            "expected at most {MAX_SESSION_HEADERS} session_headers, found {found}"
        ))),
    }
}

/// `[key]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Key {
    /// The place that keeps them.
    pub source: KeySetting,
    /// The entry's name in a keyring, if not the keyring's own default.
    pub name: Option<String>,
}

/// `source` of `[key]`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeySetting {
    /// The file `key` of the state directory, made at the first start.
    #[default]
    File,
    /// The Linux kernel's keyring, where the operator puts them.
    Keyring,
    /// The keyring of the user's session (GNOME's, KDE's), where the first start makes one.
    SecretService,
}

/// `[usage]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Usage {
    /// For how many days records of requests are kept.
    #[serde(deserialize_with = "keep_days")]
    pub keep_days: u32,
}

impl Default for Usage {
    fn default() -> Usage {
        Usage { keep_days: 90 }
    }
}

fn keep_days<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    match u32::deserialize(deserializer)? {
        days @ 1..=MAX_KEEP_DAYS => Ok(days),
        days => Err(D::Error::custom(format!(
            "expected a keep_days of 1 to {MAX_KEEP_DAYS}, found {days}"
        ))),
    }
}

/// `[refresh]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refresh {
    /// For how long after an unanswered call a token endpoint is presumed to still accept the same token.
    pub grace: Duration,
    /// The least time between two refreshes of an account that only its tokens' ends ask for.
    pub floor: Duration,
}

impl Default for Refresh {
    fn default() -> Refresh {
        Refresh {
            grace: Duration::from_secs(30),
            floor: Duration::from_secs(30),
        }
    }
}

fn refresh<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Refresh, D::Error> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Raw {
        grace_seconds: Option<u64>,
        floor_seconds: Option<u64>,
    }
    let raw = Raw::deserialize(deserializer)?;
    let Refresh { grace, floor } = Refresh::default();
    let seconds = |name, seconds: Option<u64>, allowed: RangeInclusive<u64>, default| match seconds
    {
        None => Ok(default),
        Some(seconds) if allowed.contains(&seconds) => Ok(Duration::from_secs(seconds)),
        Some(seconds) => Err(D::Error::custom(format!(
            "expected a {name} of {} to {}, found {seconds}",
            allowed.start(),
            allowed.end(),
        ))),
    };
    Ok(Refresh {
        grace: seconds(
            "grace_seconds",
            raw.grace_seconds,
            0..=MAX_GRACE_SECONDS,
            grace,
        )?,
        floor: seconds(
            "floor_seconds",
            raw.floor_seconds,
            1..=MAX_FLOOR_SECONDS,
            floor,
        )?,
    })
}

/// `[envoy]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Envoy {
    /// The certificates that Envoy trusts for platforms without a `ca_file`, as Envoy sees the path.
    pub trusted_ca: PathBuf,
    /// The filter, as Envoy sees the path, if anybody said so; [`Envoy::wasm`] is where it is then.
    pub wasm: Option<PathBuf>,
    /// The socket of Envoy's escape listener, as Envoy sees the path; `run/envoy-escape.sock` of the state directory
    /// unless told.
    pub escape: Option<PathBuf>,
    /// The version of the Envoy that reads the clusters.
    pub version: EnvoyVersion,
}

/// A version of Envoy, as far as clusters depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct EnvoyVersion {
    minor: u32,
}

impl Default for EnvoyVersion {
    fn default() -> EnvoyVersion {
        EnvoyVersion { minor: 40 }
    }
}

impl TryFrom<String> for EnvoyVersion {
    type Error = &'static str;

    fn try_from(text: String) -> Result<EnvoyVersion, &'static str> {
        let mut numbers = text.split('.').map(str::parse);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(1)), Some(Ok(minor @ OLDEST_ENVOY..)))
                if numbers.all(|patch| patch.is_ok()) =>
            {
                Ok(EnvoyVersion { minor })
            }
            _ => Err("expected a version of Envoy from 1.39 on, like \"1.40\""),
        }
    }
}

impl EnvoyVersion {
    /// True where a VM has capabilities; before 1.40, the plugins have them.
    pub fn restricts_vms(self) -> bool {
        self.minor >= 40
    }
}

impl Default for Envoy {
    fn default() -> Envoy {
        Envoy {
            trusted_ca: "/etc/ssl/certs/ca-certificates.crt".into(),
            wasm: None,
            escape: None,
            version: EnvoyVersion::default(),
        }
    }
}

impl Envoy {
    /// The filter, as Envoy sees the path: where packages have it, unless told.
    pub fn wasm(&self) -> &Path {
        self.wasm
            .as_deref()
            .unwrap_or(Path::new("/etc/latchkey/latchkey.wasm"))
    }
}

/// The reason why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file that cannot be read, or that others than its owner may write.
    #[error(transparent)]
    File(#[from] files::Error),
    /// A file that is not TOML, or has a key that is unknown or does not fit.
    #[error("{}:{place}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, column and what was expected.
        place: Place,
    },
}

impl Config {
    /// Reads the file; a missing one means that every key has its default.
    ///
    /// # Errors
    /// Naming the file and the place.
    pub fn load(path: &Path) -> Result<Config, Error> {
        let Some(text) = read_owned_text(path, MAX_CONFIG_BYTES)? else {
            return Ok(Config::default());
        };
        toml::from_str(&text).map_err(|error| Error::Syntax {
            path: path.to_owned(),
            place: Place::of(&error, &text),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn load(text: impl AsRef<[u8]>) -> Result<Config, Error> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        fs::write(&path, text).unwrap();
        Config::load(&path)
    }

    #[test]
    fn a_version_of_envoy_is_one_that_is_supported() {
        let restricts = |version: &str| {
            let config = load(format!("[envoy]\nversion = '{version}'")).ok()?;
            Some(config.envoy.version.restricts_vms())
        };
        let found = ["1.39", "1.39.3", "1.40.0", "1.100"].map(restricts);
        assert_eq!(found, [Some(false), Some(false), Some(true), Some(true)]);
        for refused in ["1.38.0", "2.40", "1", "1.40.x", "1.40.", ""] {
            assert_eq!(restricts(refused), None, "{refused}");
        }
    }

    #[test]
    fn every_key_is_optional() {
        assert_eq!(
            Config::load(Path::new("/nonexistent/config.toml")).unwrap(),
            Config::default()
        );
        let config = load(
            "acknowledged_terms = ['codex']\n[refresh]\ngrace_seconds = 300\n\
             [envoy]\nwasm = '/w'\n[key]\nsource = 'keyring'",
        )
        .unwrap();
        assert_eq!(
            config.acknowledged_terms,
            BTreeSet::from(["codex".to_owned()])
        );
        assert_eq!(config.refresh.grace, Duration::from_secs(300));
        assert_eq!(load("[refresh]").unwrap(), Config::default());
        assert_eq!(config.key.source, KeySetting::Keyring);
        let session = load("[key]\nsource = 'secret-service'\nname = 'ours'")
            .unwrap()
            .key;
        assert_eq!(session.source, KeySetting::SecretService);
        assert_eq!(session.name.as_deref(), Some("ours"));
        assert_eq!(
            config.envoy,
            Envoy {
                wasm: Some("/w".into()),
                ..Envoy::default()
            }
        );
    }

    #[test]
    fn errors_name_the_file_and_the_place() {
        for (text, place) in [
            (&b"acknowledged_terms = "[..], "config.toml:1:22: "),
            (b"\n[server]", "server"),
            (b"[refresh]\ngrace_seconds = 301", "of 0 to 300"),
            (b"[refresh]\nfloor_seconds = 0", "of 1 to 300"),
            (b"[refresh]\ngrace = 3", "grace_seconds"),
            (b"[key]\nsource = 'desktop'", "keyring"),
            (
                b"[refresh]\ngrace_seconds = -1",
                "config.toml:2:17: expected a whole number that is not negative",
            ),
            (b"[usage]\nkeep_days = 0", "of 1 to 3650"),
            (b"acknowledged_terms = 'sk-secret'", "expected a list, like"),
            (b"sk-secret", "config.toml:1:"),
            (
                b"[[accounts]]\nname = 'a'\nplatform = 'openai'\nkey_env = 'sk-secret'",
                "config.toml:1:1: expected the name of an environment variable for key_env",
            ),
            (
                b"[[accounts]]\nname = 'a'\nplatform = 'openai'",
                "expected key_env alone; or client_id_env",
            ),
            (
                b"[[accounts]]\nname = 'a'\nplatform = 'openai'\nkey_env = 'A'\nclient_id_env = 'B'",
                "expected key_env alone",
            ),
            (
                b"[[accounts]]\nname = 'a'\nplatform = 'x'\nrefresh_token_env = 'A'\ntoken_url = 'http://id.test/sk-secret'",
                "token_url: ",
            ),
            (
                b"[[accounts]]\nname = 'a'\nplatform = 'x'\nkey_env = 'A'\n[[accounts]]\nname = 'a'\nplatform = 'x'\nkey_env = 'B'",
                "a name of its own",
            ),
            (b"[[accounts]]\nname = 'a'\nkey = 'sk-secret'", "unknown field"),
            (&[0xff], "UTF-8"),
            (&[b'#'; MAX_CONFIG_BYTES as usize + 1], "longer than"),
        ] {
            let message = load(text).unwrap_err().to_string();
            assert!(
                message.contains("config.toml") && message.contains(place),
                "{message}"
            );
            assert!(!message.contains("sk-secret"), "{message}");
        }
    }
}
