//! A wall clock that a test sets: minutes, leases and claims end without anybody waiting for them.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::{preload, refresher::Refresher};

/// The library that moves the clock, and the file that says how far, in a stack's folder.
pub const SHIM: &str = "clock.so";
pub const OFFSET: &str = "clock-offset";

/// The wall clock of what is started in a folder from the time on that it was made. Their monotonic clocks are the
/// machine's.
#[derive(Debug)]
pub struct WallClock {
    offset: PathBuf,
    seconds: i64,
}

impl WallClock {
    /// Makes one that is right.
    pub async fn new(folder: &Path) -> Self {
        if !folder.join(SHIM).exists() {
            preload::compile("clock", folder).await;
        }
        let mut clock = Self {
            offset: folder.join(OFFSET),
            seconds: 0,
        };
        clock.jump(0);
        clock
    }

    /// Makes it that of what is started from here on, whatever else is loaded into that.
    pub fn rules(&self, refresher: &mut Refresher) {
        let shim = self.offset.with_file_name(SHIM);
        refresher.set_variable("LD_PRELOAD", &shim);
        refresher.set_variable("CLOCK_OFFSET", &self.offset);
    }

    /// Moves it at once, by so many seconds.
    pub fn jump(&mut self, seconds: i64) {
        self.seconds += seconds;
        let nanoseconds = format!("{}", self.seconds * 1_000_000_000);
        let staged = self.offset.with_extension("new");
        fs::write(&staged, nanoseconds).expect("written");
        fs::rename(staged, &self.offset).expect("moved");
    }

    /// Returns true if it shows what the machine's clock does.
    pub fn is_right(&self) -> bool {
        self.seconds == 0
    }

    /// The time that it shows, in seconds since 1970.
    pub fn unix_seconds(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = since.expect("after 1970").as_secs();
        now.saturating_add_signed(self.seconds)
    }

    /// The second of its minute.
    pub fn second(&self) -> u64 {
        self.unix_seconds() % 60
    }

    /// Moves it on to this second of a minute, of this one if that is yet to come.
    pub fn jump_to_second(&mut self, second: u64) {
        let ahead = (60 + second - self.second()) % 60;
        self.jump(ahead.try_into().expect("a minute at most"));
    }

    /// Moves it on to the beginning of a minute, unless this one has at least that many seconds left.
    pub fn jump_early(&mut self, left: u64) {
        if self.second() + left > 60 {
            self.jump_to_second(0);
        }
    }

    /// Moves it on by a duration of whole seconds.
    pub fn pass(&mut self, duration: Duration) {
        self.jump(duration.as_secs().try_into().expect("not for ever"));
    }
}

/// The environment of a program that is started in `folder`: it goes by the folder's clock, if there is one.
pub fn environment(folder: &Path) -> Vec<(&'static str, OsString)> {
    let (shim, offset) = (folder.join(SHIM), folder.join(OFFSET));
    match offset.exists() {
        true => vec![
            ("LD_PRELOAD", shim.into_os_string()),
            ("CLOCK_OFFSET", offset.into_os_string()),
        ],
        false => Vec::new(),
    }
}
