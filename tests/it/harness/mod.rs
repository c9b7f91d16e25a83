//! Starts the programs under test, talks to them, and ends them with the test.
//!
//! Everything runs in one folder a stack, under Cargo's `target/tmp`: state, configuration and one log a program. It
//! stays after the run, and a failed test prints the ends of the logs.

pub mod caller;
pub mod clusters;
pub mod compress;
pub mod envoy;
pub mod eventually;
pub mod fake_refresher;
pub mod http2;
pub mod kept;
pub mod load;
pub mod preload;
pub mod process;
pub mod program;
pub mod proxy;
pub mod raw;
pub mod records;
pub mod refresher;
pub mod relay;
pub mod scripted;
pub mod sim;
pub mod stack;
pub mod wall_clock;
pub mod wire;
pub mod yardstick;

use std::{
    cell::{Cell, RefCell},
    env,
    io::Write,
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
    sync::LazyLock,
    thread,
    time::Instant,
};

pub use self::{
    caller::{Answer, Caller},
    eventually::{eventually, holds},
    load::Load,
    stack::Stack,
};

/// The bytes of each log that a failed test prints.
const LOG_TAIL_BYTES: usize = 4 * 1024;

/// The files that a process of the tests may have open, if the machine lets it.
const MANY_FILES: u64 = 16 * 1024;

/// One runtime for all tests: stacks outlive the test that started them, and a program lives no longer than the thread
/// that started it (`PR_SET_PDEATHSIG`), which a worker of this runtime outlives them all.
static RUNTIME: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
    rustls::crypto::ring::default_provider()
        .install_default()
        .expect("no other provider");
    allow_many_sockets();
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
});

/// Raises the limit on open files, which Envoy inherits: some tests open thousands of connections.
fn allow_many_sockets() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let current = maximum.map_or(MANY_FILES, |maximum| maximum.min(MANY_FILES));
    let limit = Rlimit {
        current: Some(current),
        maximum,
    };
    setrlimit(Resource::Nofile, limit).expect("a limit below the maximum");
}

thread_local! {
    /// The folders of the stacks that this thread's test used.
    static USED: RefCell<Vec<PathBuf>> = const { RefCell::new(Vec::new()) };
    /// When the test had its place among the running stacks.
    static BEGAN: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Where each test's name and seconds are noted, under Cargo's `target/tmp`.
const TIMES: &str = "it-times.txt";

/// Runs a test; if it fails, says where the logs are and prints their ends.
pub fn run(test: impl Future<Output = ()>) {
    USED.take();
    BEGAN.take();
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| RUNTIME.block_on(test)));
    note_time();
    if let Err(failure) = outcome {
        USED.take().iter().for_each(|folder| print_logs(folder));
        panic::resume_unwind(failure);
    }
}

/// Notes how long the running test took since it had its place: `sort -rn` shows where the time goes.
fn note_time() {
    let name = thread::current().name().unwrap_or_default().to_owned();
    let took = BEGAN.take().map(|began| began.elapsed().as_secs_f32());
    let line = format!("{:6.1} {name}\n", took.unwrap_or_default());
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(TIMES);
    let file = std::fs::File::options()
        .create(true)
        .append(true)
        .open(path);
    file.and_then(|mut file| file.write_all(line.as_bytes()))
        .expect("noted");
}

/// Notes that the running test uses the stack in `folder`.
fn uses(folder: &Path) {
    if BEGAN.get().is_none() {
        BEGAN.set(Some(Instant::now()));
    }
    USED.with_borrow_mut(|used| used.push(folder.to_owned()));
}

fn print_logs(folder: &Path) {
    println!("the stack's folder: {}", folder.display());
    for log in logs(folder) {
        let text = String::from_utf8_lossy(&std::fs::read(&log).unwrap_or_default()).into_owned();
        let start = text.ceil_char_boundary(text.len().saturating_sub(LOG_TAIL_BYTES));
        println!("--- the end of {}\n{}", log.display(), &text[start..]);
    }
}

/// The log files in `folder`.
pub fn logs(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("the stack's folder");
    entries
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect()
}

/// A program or file that `make e2e` names.
pub fn setting(variable: &str) -> PathBuf {
    env::var_os(variable)
        .unwrap_or_else(|| panic!("{variable} is not set; run these tests with `make e2e`"))
        .into()
}

/// The root of the source tree.
pub fn source_root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}
