//! One Envoy under measurement.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Stdio,
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use minijinja::{Environment, UndefinedBehavior, context};
use tokio::{
    process::{Child, Command},
    time::sleep,
};

use crate::{
    answers::Dialect,
    fleet::{AUTHORITY, CLUSTER, Fleet},
    load::{Answer, Callers},
    refresher::{self, Records},
    upstream::{Seen, Upstream},
};

const TEMPLATE: &str = include_str!("../gateway.yaml.jinja");

/// The longest that a gateway may take until it serves, the largest snapshot included.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// The lines of an Envoy's log that an error shows; the first say why, the others repeat it.
const LOG_LINES: usize = 10;

/// A row of the table.
#[derive(Debug, Clone)]
pub struct Variant {
    /// The name that the table has for it.
    pub name: String,
    /// The work that it does on a request.
    pub filters: Filters,
    /// The accounts and keys that its callers are of, and that its snapshot holds if it has one.
    pub fleet: Fleet,
}

/// The content of the filter chains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filters {
    /// The router alone.
    Plain,
    /// A Lua script that rewrites the headers that the attempt does.
    Lua,
    /// The gate of this wasm file.
    Gate(PathBuf),
    /// The gate and the attempt of this wasm file.
    GateAndAttempt(PathBuf),
}

/// A running Envoy. It ends when this is dropped.
#[derive(Debug)]
pub struct Gateway {
    /// The variant that it runs.
    pub variant: Variant,
    /// Where it listens on the loopback address.
    pub port: u16,
    /// The snapshot that its refresher serves; none where it needs none.
    pub records: Option<Rc<Records>>,
    process: Child,
    log: PathBuf,
    admin: PathBuf,
}

// === impl Filters ===

impl Filters {
    fn wasm(&self) -> Option<&Path> {
        match self {
            Self::Plain | Self::Lua => None,
            Self::Gate(wasm) | Self::GateAndAttempt(wasm) => Some(wasm),
        }
    }

    /// The look of a request of caller 0 behind them.
    fn expected(&self, seen: &Seen, fleet: Fleet) -> bool {
        let token = |header: &str| header.starts_with("Bearer token-");
        let key = format!("Bearer {}", Fleet::client_key(0));
        let first = fleet.dialect(0);
        let (path, upstream) = (first.path(), fleet.platform(first).upstream_path());
        match self {
            Self::Plain => seen.path == path && seen.authorization == Some(key),
            Self::Gate(_) => seen.path == path && seen.authorization.is_none(),
            Self::Lua | Self::GateAndAttempt(_) => {
                seen.path == upstream && seen.authorization.as_deref().is_some_and(token)
            }
        }
    }
}

// === impl Gateway ===

impl Gateway {
    /// Starts `envoy` on the cores of this thread, and the refresher that it needs, with their
    /// files in the empty folder `directory`. Must be called within a `LocalSet`.
    ///
    /// # Errors
    /// When something of it cannot be started.
    pub fn start(
        variant: Variant,
        envoy: &Path,
        directory: &Path,
        upstream: &Upstream,
    ) -> Result<Self> {
        // Free a moment ago; were it taken meanwhile, the gateway would not answer.
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let socket = directory.join("refresher.sock");
        let wasm = variant.filters.wasm();
        let records = wasm.map(|_| refresher::serve(&socket, variant.fleet));
        let records = records.transpose()?;
        let config = directory.join("gateway.yaml");
        fs::write(
            &config,
            configuration(&variant.filters, port, upstream.port, directory)?,
        )?;
        let admin = directory.join("admin.sock");
        let log = directory.join("log");
        let process = Command::new(envoy)
            .arg("--config-path")
            .arg(&config)
            .args(["--concurrency", "1", "--disable-hot-restart"])
            .args(["--log-level", "warning"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log)?)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot run {}", envoy.display()))?;
        Ok(Self {
            variant,
            port,
            records,
            process,
            log,
            admin,
        })
    }

    /// The socket of its admin interface.
    pub fn admin(&self) -> &Path {
        &self.admin
    }

    /// Waits until it serves, and opens connections to it.
    ///
    /// # Errors
    /// When it does not within [`START_DEADLINE`], or does not do what its variant should.
    pub async fn ready(&self, connections: usize, upstream: &Upstream) -> Result<Callers> {
        let deadline = Instant::now() + START_DEADLINE;
        loop {
            match self.try_ask(connections).await {
                Ok(callers) => {
                    let seen = upstream.last();
                    let name = &self.variant.name;
                    ensure!(
                        self.variant.filters.expected(&seen, self.variant.fleet),
                        "{name}: the request came out as {seen:?}"
                    );
                    return Ok(callers);
                }
                Err(error) if Instant::now() > deadline => {
                    let log = fs::read_to_string(&self.log).unwrap_or_default();
                    let start: Vec<&str> = log.lines().take(LOG_LINES).collect();
                    let (name, log) = (&self.variant.name, start.join("\n"));
                    bail!("{name} does not serve: {error:#}\n{log}");
                }
                Err(_) => sleep(Duration::from_millis(50)).await,
            }
        }
    }

    async fn try_ask(&self, connections: usize) -> Result<Callers> {
        let mut callers = Callers::connect(self.port, connections, self.variant.fleet).await?;
        callers.ask(Answer::Json).await?;
        Ok(callers)
    }

    /// The time that its threads have spent on a core since it started. `schedstat` counts
    /// nanoseconds; `stat` would count hundredths of a second.
    ///
    /// # Errors
    /// When it has ended.
    pub fn cpu_time(&self) -> Result<Duration> {
        let mut total = 0;
        for task in fs::read_dir(self.proc()?.join("task"))? {
            let schedstat = fs::read_to_string(task?.path().join("schedstat"))?;
            let on_core = schedstat.split_whitespace().next();
            total += on_core.context("schedstat is empty")?.parse::<u64>()?;
        }
        Ok(Duration::from_nanos(total))
    }

    /// Its resident memory, in KiB.
    ///
    /// # Errors
    /// When it has ended.
    pub fn resident_kib(&self) -> Result<u64> {
        let status = fs::read_to_string(self.proc()?.join("status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next());
        Ok(kib.context("no VmRSS in /proc")?.parse()?)
    }

    fn proc(&self) -> Result<PathBuf> {
        let id = self.process.id();
        let id = id.with_context(|| format!("{} has ended", self.variant.name))?;
        Ok(format!("/proc/{id}").into())
    }
}

fn configuration(
    filters: &Filters,
    port: u16,
    upstream_port: u16,
    directory: &Path,
) -> Result<String> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
    let lua = (*filters == Filters::Lua).then(|| {
        context! {
            authority => AUTHORITY,
            paths => [Dialect::Responses.path(), Dialect::Responses.upstream_path()],
            credential => Fleet::credential(0),
            account_id => Fleet::account_id(0),
        }
    });
    let gate = filters
        .wasm()
        .map(|wasm| context! { wasm, refresher => directory.join("refresher.sock") });
    Ok(environment.render_str(
        TEMPLATE,
        context! {
            port,
            admin => directory.join("admin.sock"),
            upstream_port,
            cluster => CLUSTER,
            lua,
            gate,
            attempt => matches!(filters, Filters::GateAndAttempt(_)),
        },
    )?)
}
