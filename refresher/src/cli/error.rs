//! The reason why a command came to nothing, as the command line says it.

use std::io;

use crate::advice::{Door, cure, notice_command};
use crate::app::{self, Part};
use crate::fault::Fault;
use crate::os_error::in_words;

/// The reason why a command came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operation came to nothing.
    #[error(transparent)]
    App(#[from] app::Error),
    /// The value of a flag, a file or standard input does not fit. The sentence says what was expected.
    #[error("{0}")]
    Input(String),
    /// Nobody can be told the answer.
    #[error("cannot write to standard output: {}", in_words(.0))]
    Output(#[from] io::Error),
}

/// A result of a command.
pub type Result<T> = std::result::Result<T, Error>;

impl From<String> for Error {
    fn from(sentence: String) -> Error {
        Error::Input(sentence)
    }
}

impl From<&str> for Error {
    fn from(sentence: &str) -> Error {
        Error::Input(sentence.to_owned())
    }
}

macro_rules! from {
    ($($error:ty),* $(,)?) => {$(
        impl From<$error> for Error {
            fn from(error: $error) -> Error {
                Error::App(error.into())
            }
        }
    )*};
}

from!(
    crate::files::Error,
    crate::platform::catalog::Error,
    crate::store::Error,
    tokio::task::JoinError,
);

impl Error {
    /// The program's exit code: 2 where what was typed or handed over does not fit, else 1.
    pub fn exit_code(&self) -> u8 {
        let misfits = match self {
            Error::Input(_) => true,
            Error::App(error) => misfits(&error.fault),
            Error::Output(_) => false,
        };
        if misfits { 2 } else { 1 }
    }

    /// The sentence, and the cure where there is one.
    pub fn told(&self) -> String {
        let mut sentence = self.to_string();
        let cure = match self {
            Error::App(error) => {
                sentence += &listed(&error.parts);
                cure(Door::CommandLine, &error.fault)
            }
            _ => None,
        };
        match cure {
            None => sentence,
            // A notice of several lines ends before the cure begins.
            Some(cure) if sentence.contains('\n') => {
                format!("{}\n\n{}", sentence.trim_end(), capitalised(&cure))
            }
            Some(cure) => format!("{sentence}; {cure}"),
        }
    }
}

/// The errors that are told together, each in a line.
const TOLD_TOGETHER: usize = 20;

/// Lists the errors that one is about, behind a colon.
fn listed(parts: &[Part]) -> String {
    if parts.is_empty() {
        return String::new();
    }
    let told = parts.iter().take(TOLD_TOGETHER);
    let lines: String = told
        .map(|one| format!("\n  {}", in_a_line(&one.at, &one.error)))
        .collect();
    match parts.len().saturating_sub(TOLD_TOGETHER) {
        0 => format!(":{lines}"),
        more => format!(":{lines}\n  and {more} more"),
    }
}

/// Words one of several errors, and its cure, in a line. A platform's notice, which has more lines, is left out.
pub(super) fn in_a_line(at: &str, error: &app::Error) -> String {
    if let Fault::NotAcknowledged { platform } = &error.fault {
        let command = notice_command(platform);
        return format!(
            "{at}: platform {platform} is off until you have read its notice and acknowledged it; see: {command}"
        );
    }
    match cure(Door::CommandLine, &error.fault) {
        Some(cure) => format!("{error}; {cure}"),
        None => error.to_string(),
    }
}

/// True where the same command fails on every state: its words, or the key or file that it was handed, are wrong. Where
/// another state, platform or machine would let it pass, it is not the command that has to change.
pub(super) fn misfits(fault: &Fault) -> bool {
    match fault {
        Fault::Invalid
        | Fault::BadCredential
        | Fault::MaskedKey
        | Fault::ForeignKey { .. }
        | Fault::OwnKey
        | Fault::NoApiKeys { .. }
        | Fault::NoLogin { .. }
        | Fault::NoAccountId
        | Fault::KeysAlone { .. }
        | Fault::ImportsAlone
        | Fault::NoSuchWay
        | Fault::NeedsClient
        | Fault::NoWayOut
        | Fault::NoProjects
        | Fault::NeedsProject
        | Fault::NeedsBaseUrl
        | Fault::OwnNetwork
        | Fault::OneName { .. }
        | Fault::NeedsPlatform
        | Fault::UnfitProxy
        | Fault::SeveralUnfit
        | Fault::NoUsableLogin { .. }
        | Fault::NoChange
        | Fault::DefaultPool
        | Fault::MetricsExposed => true,
        Fault::Unknown { .. }
        | Fault::NameTaken { .. }
        | Fault::HasKey { .. }
        | Fault::NameOfAnother { .. }
        | Fault::OtherLogin { .. }
        | Fault::PoolInUse { .. }
        | Fault::NotInPool { .. }
        | Fault::NeedsLogin { .. }
        | Fault::NotRevoked { .. }
        | Fault::ForeignBaseUrl { .. }
        | Fault::Dead { .. }
        | Fault::RefreshRunning { .. }
        | Fault::RefreshLater { .. }
        | Fault::NotAcknowledged { .. }
        | Fault::NotPublished
        | Fault::NoPlatformsFolder
        | Fault::LaxMode { .. }
        | Fault::ForeignOwner { .. }
        | Fault::Unclaimed { .. }
        | Fault::WrongKind { .. }
        | Fault::StateInUse
        | Fault::RotationRunning
        | Fault::NoStateDir
        | Fault::NoState
        | Fault::DatabaseLost
        | Fault::NotOurs
        | Fault::DatabaseInUse
        | Fault::OtherRelease
        | Fault::OlderDatabase
        | Fault::WrongKey
        | Fault::NoKey
        | Fault::BadKeys { .. }
        | Fault::UnfinishedRotation
        | Fault::Keyring { .. }
        | Fault::RetiredAlone
        | Fault::KeyExhausted
        | Fault::KeyNotAtHand
        | Fault::NoNewKey { .. }
        | Fault::KeyNotServed
        | Fault::Unopened
        | Fault::Unreadable
        | Fault::SocketPathTooLong
        | Fault::SocketTaken
        | Fault::NoFilter
        | Fault::OtherFilter
        | Fault::RelativePath
        | Fault::NoTrustedCa
        | Fault::BadRoots { .. }
        | Fault::MetricsAddressTaken
        | Fault::PortsTaken
        | Fault::LoginFailed
        | Fault::WayClosed
        | Fault::NoOwnClient { .. }
        | Fault::LikelySpent
        | Fault::Misconfigured
        | Fault::Failed => false,
    }
}

fn capitalised(text: &str) -> String {
    let mut characters = text.chars();
    let first = characters.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(characters).collect()
}
