//! A browser of its own for one login: a real and visible Chromium with an empty profile, and a wire to it.
//!
//! - The wire is two pipes that no other program has (`--remote-debugging-pipe`): a port for debuggers would hand the
//!   session to every user of the machine. Chromium ends when they close, so none outlives this process.
//! - Its profile is a folder of mode 0700, which is removed when Chromium has ended, however this process ends: a shell
//!   between the two waits for that. What a power failure left is removed at the next login.
//! - Nothing is hidden from the platform: no flag makes this browser look like another.

mod folder;
mod pipe;

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use reqwest::Url;
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use self::folder::Folder;
use self::pipe::Pipe;
use crate::egress::Proxy;
use crate::files::program;
use crate::os_error::in_words;

/// The names of browsers that speak this protocol, in the order in which they are looked for.
const NAMES: [&str; 7] = [
    "chromium",
    "chromium-browser",
    "google-chrome-stable",
    "google-chrome",
    "microsoft-edge",
    "brave-browser",
    "vivaldi-stable",
];
/// The places of browsers on a Mac, which has none on the path.
const APPLICATIONS: [&str; 2] = [
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
];
/// Runs the browser with the pipes where it looks for them, and removes its profile afterwards, by the system's own
/// `rm`. Its helpers may still write there for a moment.
const GUARD: &str = r#""$@" 3<&0 4>&1 0</dev/null 1>/dev/null
code=$?
PATH=/usr/bin:/bin:$PATH
rm -rf -- "$0" 2>/dev/null || { sleep 1; rm -rf -- "$0"; }
exit $code"#;
/// Chromium's options. An empty profile must neither greet nor sync, and no wallet of the desktop be asked for a password.
const OPTIONS: [&str; 7] = [
    "--remote-debugging-pipe",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-sync",
    "--disable-component-update",
    "--password-store=basic",
    "--use-mock-keychain",
];
/// Arguments that let it go by its proxy alone: to this machine too, and in what a page sends beside HTTP (WebRTC).
/// Older versions have another name for the latter.
const BY_PROXY_ALONE: [&str; 3] = [
    "--proxy-bypass-list=<-loopback>",
    "--webrtc-ip-handling-policy=disable_non_proxied_udp",
    "--force-webrtc-ip-handling-policy=disable_non_proxied_udp",
];
/// The time that it may take to start: a slow machine reads 300 MiB for it.
const START_LIMIT: Duration = Duration::from_secs(60);
/// The time that one question may take. A page that shows a dialog answers nothing meanwhile.
const CALL_LIMIT: Duration = Duration::from_secs(5);
/// The time that it has to end, before it is killed.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);
/// Bytes that are kept of what it last said on standard error.
const LAST_WORDS: usize = 1024;

/// The reason why a browser is of no use, or not any more.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// None was found.
    #[error(
        "expected Chromium, Chrome or another browser of that family on this machine, found none; install one, or name \
         it with `browser` in config.toml"
    )]
    NotFound,
    /// Others could put another in its place, or it cannot be looked at.
    #[error("the browser is not run: {0}")]
    Unsafe(#[source] crate::files::Error),
    /// There is no folder for its profile.
    #[error("cannot make a folder for the browser's profile: {0}")]
    Folder(#[from] crate::files::Error),
    /// A browser that cannot be run.
    #[error("{}: cannot run it: {}", program.display(), in_words(source))]
    Spawn {
        /// The browser.
        program: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// A browser that ended, or said nothing, before it opened a window.
    #[error("{}: it opened no window{}; it needs a display, and Chromium does not run as root", program.display(), last_words(said))]
    NotStarted {
        /// The browser.
        program: PathBuf,
        /// The last line that it wrote.
        said: String,
    },
    /// A browser that keeps its profile where nobody would remove it.
    #[error(
        "{}: it does not keep its profile in the folder that it is given, and one from a snap never does; install \
         another, or name \
         it with `browser` in config.toml", program.display()
    )]
    OwnProfile {
        /// The browser.
        program: PathBuf,
    },
    /// A browser that has gone.
    #[error("the browser was closed")]
    Closed,
    /// A browser that did not answer in time.
    #[error("the browser does not answer")]
    Silent,
    /// A browser that does not do what it was asked.
    #[error("the browser does not know {0}")]
    Refused(&'static str),
}

fn last_words(said: &str) -> String {
    if said.is_empty() {
        String::new()
    } else {
        format!(" ({said})")
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Browser {
    pipe: Pipe<ChildStdout, ChildStdin>,
    guard: Child,
    folder: Folder,
}

/// A tab or a window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Its id.
    pub target: String,
    /// Its address.
    pub url: String,
}

/// The browser to use: `named`, or the first of the family that is on this machine.
///
/// # Errors
/// If there is none, or others could put another in its place.
pub fn find(named: Option<&Path>) -> Result<PathBuf, Error> {
    if let Some(named) = named {
        let missing = || Error::Spawn {
            program: named.to_owned(),
            source: io::ErrorKind::NotFound.into(),
        };
        let found = program::find(named).map_err(Error::Unsafe)?;
        return found.ok_or_else(missing);
    }
    let known = NAMES.iter().chain(&APPLICATIONS).map(Path::new);
    let mut found = known.filter_map(|known| program::find(known).transpose());
    let first = found.next().ok_or(Error::NotFound)?;
    first.map_err(Error::Unsafe)
}

impl Browser {
    /// Starts `program` with an empty profile and opens `url`, by `proxy` if there is one. It asks the person for the
    /// proxy's password.
    ///
    /// # Errors
    /// If it does not start, or would leave its profile behind.
    pub async fn open(program: &Path, url: &Url, proxy: Option<&Proxy>) -> Result<Browser, Error> {
        let folder = Folder::new(&std::env::temp_dir())?;
        let mut profile = std::ffi::OsString::from("--user-data-dir=");
        profile.push(folder.path());
        let mut command = Command::new("/bin/sh");
        command
            .arg("-c")
            .arg(GUARD)
            .arg(folder.path())
            .arg(program)
            .arg(profile)
            .args(OPTIONS)
            .args(proxy.map(|proxy| format!("--proxy-server={}", proxy.server())))
            .args(proxy.into_iter().flat_map(|_| BY_PROXY_ALONE))
            .arg(url.as_str())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A Ctrl-C at the terminal is for us: the shell has the profile to remove.
            .process_group(0);
        let failed = |source| Error::Spawn {
            program: program.to_owned(),
            source,
        };
        let mut guard = command.spawn().map_err(failed)?;
        let (Some(input), Some(output), Some(errors)) =
            (guard.stdin.take(), guard.stdout.take(), guard.stderr.take())
        else {
            return Err(failed(io::Error::other("it has no pipes")));
        };
        let said = tokio::spawn(last_line(errors));
        let mut browser = Browser {
            pipe: Pipe::new(output, input),
            guard,
            folder,
        };
        let version = browser
            .pipe
            .call(None, "Browser.getVersion", json!({}), START_LIMIT)
            .await;
        if version.is_err() {
            browser.close().await;
            return Err(Error::NotStarted {
                program: program.to_owned(),
                said: told(said).await,
            });
        }
        if browser.folder.is_empty() {
            browser.close().await;
            return Err(Error::OwnProfile {
                program: program.to_owned(),
            });
        }
        Ok(browser)
    }

    /// Asks the browser, or the page that `session` is attached to.
    ///
    /// # Errors
    /// If it has gone, is silent or refuses.
    pub async fn call(
        &mut self,
        session: Option<&str>,
        method: &'static str,
        parameters: Value,
    ) -> Result<Value, Error> {
        self.pipe
            .call(session, method, parameters, CALL_LIMIT)
            .await
    }

    /// The pages that are open.
    ///
    /// # Errors
    /// As [`Browser::call`].
    pub async fn pages(&mut self) -> Result<Vec<Page>, Error> {
        let answer = self.call(None, "Target.getTargets", json!({})).await?;
        let targets = answer["targetInfos"].as_array();
        let page = |target: &Value| {
            let text = |name: &str| target[name].as_str().map(str::to_owned);
            (target["type"] == "page").then_some(Page {
                target: text("targetId")?,
                url: text("url")?,
            })
        };
        Ok(targets.into_iter().flatten().filter_map(page).collect())
    }

    /// Attaches to a page; the session to name in calls to it.
    ///
    /// # Errors
    /// As [`Browser::call`].
    pub async fn attach(&mut self, page: &Page) -> Result<String, Error> {
        let parameters = json!({"targetId": page.target, "flatten": true});
        let answer = self.call(None, "Target.attachToTarget", parameters).await?;
        let session = answer["sessionId"].as_str();
        session
            .map(str::to_owned)
            .ok_or(Error::Refused("Target.attachToTarget"))
    }

    /// Ends it, and waits until its profile is gone.
    pub async fn close(mut self) {
        let _ = self.call(None, "Browser.close", json!({})).await;
        drop(self.pipe);
        if timeout(CLOSE_LIMIT, self.guard.wait()).await.is_err() {
            let group = self
                .guard
                .id()
                .and_then(|id| Pid::from_raw(id.cast_signed()));
            if let Some(group) = group {
                let _ = kill_process_group(group, Signal::KILL);
            }
            let _ = self.guard.wait().await;
        }
        self.folder.remove();
    }
}

/// Returns what `said` found, where it has come to its end.
async fn told(said: JoinHandle<String>) -> String {
    let ended = timeout(Duration::from_secs(1), said).await;
    ended.ok().and_then(Result::ok).unwrap_or_default()
}

/// The last line of what is written there until it ends, fit to show.
async fn last_line(mut from: impl AsyncRead + Unpin) -> String {
    let mut kept = Vec::new();
    let mut piece = [0; LAST_WORDS];
    while let Ok(read @ 1..) = from.read(&mut piece).await {
        kept.extend_from_slice(&piece[..read]);
        let excess = kept.len().saturating_sub(LAST_WORDS);
        kept.drain(..excess);
    }
    let text = String::from_utf8_lossy(&kept);
    let line = text.lines().rfind(|line| !line.trim().is_empty());
    let shown = |character| match character {
        ' '..='~' => character,
        _ => '?',
    };
    line.unwrap_or_default().trim().chars().map(shown).collect()
}

#[cfg(test)]
mod tests;
