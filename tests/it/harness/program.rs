//! A program under test.

use std::{
    env,
    ffi::OsString,
    fs::File,
    path::{Path, PathBuf},
    process::{ExitStatus, Output, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    process::{Child, Command},
    time::timeout,
};

use super::{RUNTIME, setting, source_root};

/// A running program. It is killed when this is dropped, and by the kernel if the test process dies.
#[derive(Debug)]
pub struct Program {
    child: Child,
    log: PathBuf,
}

impl Program {
    /// A command for a program whose life ends with this process's.
    pub fn command(program: &Path) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program);
        command
    }

    /// Starts it; what it prints goes to the end of `log`.
    pub async fn start(mut command: Command, log: &Path) -> Self {
        let file = File::options().create(true).append(true).open(log);
        let file = file.expect("a log file");
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a second handle"))
            .stderr(file)
            .kill_on_drop(true);
        let started = RUNTIME.spawn(async move { command.spawn() });
        Self {
            child: started.await.expect("spawned").expect("the program starts"),
            log: log.to_owned(),
        }
    }

    /// Everything it and its predecessors with the same log printed.
    pub fn printed(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).expect("the log")).into_owned()
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// Its resident memory, in KiB.
    pub fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()));
        let status = status.expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next());
        kib.and_then(|kib| kib.parse().ok()).expect("a size")
    }

    /// The time that its threads have spent on a core since it started.
    pub fn cpu_time(&self) -> Duration {
        self.schedstat()[0]
    }

    /// How many times as long as on a machine of its own its threads have taken since `before`, an earlier
    /// [`Program::schedstat`]: the more, the longer they waited for a core.
    pub fn slowness_since(&self, [ran, waited]: [Duration; 2]) -> f64 {
        let [runs, waits] = self.schedstat();
        let ran = (runs - ran).max(Duration::from_millis(1));
        1.0 + (waits - waited).as_secs_f64() / ran.as_secs_f64()
    }

    /// The time that its threads have spent on a core, and that they have waited for one.
    pub fn schedstat(&self) -> [Duration; 2] {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid())).expect("it runs");
        let mut all = [0; 2];
        for task in tasks.flatten() {
            // A thread may end meanwhile.
            let text = std::fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            for (all, one) in all.iter_mut().zip(text.split_whitespace()) {
                *all += one.parse::<u64>().unwrap_or_default();
            }
        }
        all.map(Duration::from_nanos)
    }

    /// `kill -9`, and waits until it is gone.
    pub async fn kill(&mut self) {
        self.child.kill().await.expect("killed");
    }

    /// Waits until it ends by itself.
    pub async fn ends(&mut self) -> ExitStatus {
        self.child.wait().await.expect("waited for")
    }

    /// Asks it to end, and waits until it has.
    pub async fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.ends().await
    }

    /// Ctrl-C, and waits until it has ended.
    ///
    /// A shell that starts something in the background has it ignore Ctrl-C, and all that it starts: so these tests, where
    /// one has started them. It is terminated then.
    pub async fn interrupt(&mut self) -> ExitStatus {
        match ignores_interrupts() {
            true => self.signal(Signal::TERM),
            false => self.signal(Signal::INT),
        }
        self.ends().await
    }

    /// Stops it where it is, until it [goes on](Self::go_on).
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.child.id() {
            let pid = Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("a pid");
            kill_process(pid, signal).expect("signalled");
        }
    }

    /// Panics with its log if it ended by itself.
    pub fn assert_alive(&mut self) {
        if let Some(status) = self.child.try_wait().expect("waited for") {
            panic!("the program ended, {status}: {}", self.printed());
        }
    }
}

/// The program of this name on this machine's PATH.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").expect("a PATH");
    let mut places = env::split_paths(&path).map(|folder| folder.join(name));
    places.find(|place| place.is_file())
}

/// The folder of what stands in for `curl`.
pub fn stand_in() -> PathBuf {
    source_root().join("tests/clients/stand-in")
}

/// The PATH of a person who has what is in `folder`, the clients, what this machine has, and `curl` in any case.
pub fn path_with(folder: Option<&Path>) -> OsString {
    let folder = folder.map(Path::to_owned);
    let clients = setting("LATCHKEY_CLIENTS").join("bin");
    let stand_in = find("curl").is_none().then(stand_in);
    let machine = env::var_os("PATH").expect("a PATH");
    let folders = folder.into_iter().chain([clients]).chain(stand_in);
    env::join_paths(folders.chain(env::split_paths(&machine))).expect("a PATH")
}

/// Runs a command to its end, with its standard input closed.
///
/// # Panics
/// If it takes longer than `limit`.
pub async fn output_of(command: Command, limit: Duration) -> Output {
    output_given(command, Stdio::null(), limit).await
}

/// Runs a command to its end, with this standard input.
///
/// # Panics
/// If it takes longer than `limit`.
pub async fn output_given(mut command: Command, input: Stdio, limit: Duration) -> Output {
    command.stdin(input).kill_on_drop(true);
    let running = RUNTIME.spawn(async move { timeout(limit, command.output()).await });
    let ended = running.await.expect("spawned").expect("it ends in time");
    ended.expect("the program runs")
}

/// Tells if this process ignores SIGINT (proc_pid_status(5)).
fn ignores_interrupts() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    ignored.is_some_and(|mask| mask >> (Signal::INT.as_raw() - 1) & 1 == 1)
}
