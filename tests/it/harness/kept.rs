//! Envoys that serve one stack after the other.
//!
//! Envoy compiles the filter when it starts, which takes about four seconds of a core: more than most tests do. So the
//! Envoy of a stack that ends is kept for the next one. Nothing of a stack is left in it: it has its listeners from a
//! file, and before it is given on it has lost them and all its clusters, and so its VMs and what they share; its counters
//! are at zero, its log is empty and so is its folder. One VM that nothing asks stays, so that the compiled filter does.
//!
//! It serves stacks alone whose configuration differs in nothing but listeners from the one that it was started with.
//! An Envoy is not kept where its test failed, killed it without having it [started again](Home::envoy), or started another
//! one in its folder. Those tests, the demo's and the smoke tests run the shipped configuration as it is.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::time::sleep;

use super::{
    RUNTIME,
    envoy::{ADMIN_SOCKET, Envoy},
    eventually,
    process::{FLUSH, Process, WORKERS},
    setting, source_root,
    stack::{link, new_folder},
    wall_clock::{self, OFFSET, SHIM},
};

/// The longest that an Envoy may take to lose what it had, or to have what it is given.
const LIMIT: Duration = Duration::from_secs(20);

/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// The file that its listeners are in, in its folder.
const LISTENERS: &str = "listeners.yaml";

/// The file of its log there.
const LOG: &str = "envoy.log";

/// The clusters that stay: the one that leads to the refresher, and the one that keeps the filter.
const CLUSTERS_THAT_STAY: usize = 2;

/// The VMs that stay: one of each thread, and the one that these were made of.
const VMS_THAT_STAY: usize = WORKERS + 2;

/// The type of each of its listeners.
const LISTENER: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";

/// How an Envoy that is kept is started: what it loses is closed at once.
const OPTIONS: [&str; 4] = ["--drain-time-s", "0", "--drain-strategy", "immediate"];

/// The most that are kept for later; the one that has waited longest makes room. Each takes some 150 MiB.
const MOST_IDLE: usize = 8;

/// The Envoys that nobody uses, the last behind.
static IDLE: Mutex<Vec<Idle>> = Mutex::new(Vec::new());

/// An Envoy that nobody uses.
type Idle = (Process, Kind);

/// The things that an Envoy cannot change once it runs: it serves no stack that needs others.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Kind {
    /// If it goes by a clock of its folder.
    has_clock: bool,
    /// The configuration without its listeners.
    rest: String,
}

/// The number of those that are being emptied.
static COMING: AtomicUsize = AtomicUsize::new(0);

/// The places of the stacks that run, by their folders.
static PLACES: LazyLock<Mutex<HashMap<PathBuf, Weak<Place>>>> = LazyLock::new(Mutex::default);

/// The number of folders that were made.
static FOLDERS: AtomicUsize = AtomicUsize::new(0);

/// The folder of a stack, and the Envoy that is to run in it. When this is dropped, the Envoy waits for the next stack.
#[derive(Debug)]
pub struct Home {
    /// Everything's files and logs.
    pub folder: PathBuf,
    /// None: its Envoy is its own, and ends with it.
    place: Option<(Arc<Place>, Kind)>,
}

/// The place of a process that may be kept, between two stacks and while its stack begins or ends.
#[derive(Debug, Default)]
pub struct Place {
    process: Mutex<Option<Process>>,
    is_spoilt: AtomicBool,
}

// === impl Home ===

impl Home {
    /// One for the stack of that name, whose Envoy has the shipped configuration with that edit.
    pub async fn new(name: &str, edit: &impl Fn(&str) -> String) -> Self {
        match Kind::new(edit, false) {
            Some(kind) => Self::kept(name, kind).await,
            None => Self::alone(name),
        }
    }

    /// One for the stack of that name, whose Envoy has the shipped configuration and goes by a clock of the folder.
    pub async fn with_clock(name: &str) -> Self {
        let kind = Kind::new(&str::to_owned, true);
        Self::kept(name, kind.expect("it has the filter")).await
    }

    async fn kept(name: &str, kind: Kind) -> Self {
        let idle = idle(&kind).await;
        let folder = match &idle {
            Some(process) => process.folder.clone(),
            None => {
                let number = FOLDERS.fetch_add(1, Ordering::Relaxed);
                new_folder(&format!("kept-{number}"))
            }
        };
        link(name, &folder);
        let place = Arc::new(Place {
            process: Mutex::new(idle),
            is_spoilt: AtomicBool::new(false),
        });
        lock(&PLACES).insert(folder.clone(), Arc::downgrade(&place));
        Self {
            folder,
            place: Some((place, kind)),
        }
    }

    /// One whose Envoy is its own.
    pub fn alone(name: &str) -> Self {
        Self {
            folder: new_folder(name),
            place: None,
        }
    }

    /// Its Envoy, once that listens on `port` (0: the system chooses). `state/envoy/clusters.json` has to be there. Asked
    /// again after that Envoy was killed, it starts another one.
    pub async fn envoy(&self, port: u16, edit: impl Fn(&str) -> String) -> Envoy {
        let folder = &self.folder;
        let Some((place, kind)) = &self.place else {
            return Envoy::start_edited(folder, port, edit).await;
        };
        let is_of_kind = Some(kind) == Kind::new(&edit, kind.has_clock).as_ref();
        if !is_of_kind || kind.has_clock == wall_clock::environment(folder).is_empty() {
            // One that runs does not go by a clock that was made since.
            lock(&place.process).take();
            return Envoy::start_edited(folder, port, edit).await;
        }
        let config = Envoy::configure(folder, "envoy.yaml", port).await;
        let text = fs::read_to_string(&config).expect("the configuration");
        let (rest, listeners) = split(&edit(&text));
        put(&folder.join(LISTENERS), &listeners);
        let idle = lock(&place.process).take();
        let process = match idle {
            Some(process) => process,
            None => {
                let text = with_listeners_of_a_file(&rest, folder);
                fs::write(&config, text).expect("written");
                let socket = folder.join(ADMIN_SOCKET);
                let mut process = Process::start(folder, &config, &socket, LOG, &OPTIONS).await;
                process.listens().await;
                process
            }
        };
        let count = listeners.matches(LISTENER).count();
        let port = has(&process, count).await;
        Envoy::at(Arc::clone(place), process, port)
    }
}

impl Home {
    /// Gives its Envoy, which runs, listeners that are not quite the shipped ones.
    pub async fn relist(&self, edit: impl Fn(&str) -> String) {
        let config = Envoy::configure(&self.folder, "envoy.yaml", 0).await;
        let text = fs::read_to_string(config).expect("the configuration");
        put(&self.folder.join(LISTENERS), &split(&edit(&text)).1);
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        lock(&PLACES).remove(&self.folder);
        let Some((place, kind)) = self.place.take() else {
            return;
        };
        let Some(process) = place.take() else {
            return;
        };
        COMING.fetch_add(1, Ordering::SeqCst);
        RUNTIME.spawn(async move {
            match empty(&process, kind.has_clock).await {
                Ok(()) => {
                    let mut idle = lock(&IDLE);
                    idle.push((process, kind));
                    let too_many = idle.len().saturating_sub(MOST_IDLE);
                    idle.drain(..too_many);
                }
                // A new one does as well.
                Err(found) => eprintln!("an Envoy was not kept: {found}"),
            }
            COMING.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

/// One that nobody uses, or will use in a moment.
async fn idle(kind: &Kind) -> Option<Process> {
    loop {
        let is_coming = COMING.load(Ordering::SeqCst) > 0;
        let found = {
            let mut idle = lock(&IDLE);
            let place = idle.iter().rposition(|(_, of)| of == kind);
            place.map(|place| idle.remove(place).0)
        };
        match found {
            // Its watchdog ends it where the machine gives it no time.
            Some(process) if process.ask("/ready").await.is_err() => continue,
            Some(process) => return Some(process),
            None if !is_coming => return None,
            None => {}
        }
        sleep(PAUSE).await;
    }
}

// === impl Place ===

impl Place {
    /// Keeps an Envoy that its test is done with, if it is as it was.
    pub fn give_back(&self, process: Process) {
        let is_spoilt = self.is_spoilt.load(Ordering::Relaxed) || thread::panicking();
        if !is_spoilt {
            *lock(&self.process) = Some(process);
        }
    }

    fn take(&self) -> Option<Process> {
        let process = lock(&self.process).take();
        process.filter(|_| !self.is_spoilt.load(Ordering::Relaxed))
    }
}

/// Notes that another Envoy runs in `folder`: the one that was there is not kept.
pub fn spoil(folder: &Path) {
    let place = lock(&PLACES).get(folder).and_then(Weak::upgrade);
    if let Some(place) = place {
        place.is_spoilt.store(true, Ordering::Relaxed);
        lock(&place.process).take();
    }
}

// === What an Envoy has ===

/// Waits until it has so many listeners, and the clusters of its file; the port of the first.
async fn has(process: &Process, listeners: usize) -> u16 {
    let file = process.folder.join("state/envoy/clusters.json");
    eventually("Envoy has what it is given", LIMIT, async || {
        let clusters = fs::read(&file).map_err(|error| error.to_string())?;
        let clusters: Value =
            serde_json::from_slice(&clusters).map_err(|error| error.to_string())?;
        let clusters = clusters["resources"].as_array().map_or(0, Vec::len);
        let expected = [
            (
                "cluster_manager.active_clusters",
                CLUSTERS_THAT_STAY + clusters,
            ),
            ("cluster_manager.warming_clusters", 0),
            ("listener_manager.total_listeners_active", listeners),
            ("listener_manager.total_listeners_warming", 0),
            (
                "listener_manager.listener_create_success",
                listeners * WORKERS,
            ),
        ];
        shows(process, &expected).await?;
        process.port().await
    })
    .await
}

/// Has it lose what is a stack's, in its folder as well.
async fn empty(process: &Process, has_clock: bool) -> Result<(), String> {
    put(&process.folder.join(LISTENERS), "resources: []\n");
    let clusters = process.folder.join("state/envoy/clusters.json");
    put(&clusters, "{\"resources\": []}\n");
    let expected = [
        ("cluster_manager.active_clusters", CLUSTERS_THAT_STAY),
        ("cluster_manager.warming_clusters", 0),
        ("listener_manager.total_listeners_active", 0),
        ("listener_manager.total_listeners_draining", 0),
        ("listener_manager.total_listeners_warming", 0),
        ("wasmcustom.latchkey.snapshot_revision", 0),
        ("wasm.envoy.wasm.runtime.v8.active", VMS_THAT_STAY),
    ];
    let began = Instant::now();
    while let Err(found) = shows(process, &expected).await {
        if began.elapsed() > LIMIT {
            return Err(found);
        }
        sleep(PAUSE).await;
    }
    // What its access log still holds.
    sleep(4 * FLUSH).await;
    process.order("/reset_counters").await?;
    clear(&process.folder, has_clock).map_err(|error| error.to_string())
}

/// Takes out of a folder what is a stack's.
fn clear(folder: &Path, has_clock: bool) -> io::Result<()> {
    let clock: &[&str] = if has_clock { &[SHIM, OFFSET] } else { &[] };
    let all = ["run.yaml", LISTENERS, LOG, "state"];
    remove_all_but(folder, &[&all, clock].concat())?;
    remove_all_but(&folder.join("state"), &["run", "envoy"])?;
    remove_all_but(&folder.join("state/run"), &["envoy-admin.sock"])?;
    remove_all_but(&folder.join("state/envoy"), &["clusters.json"])?;
    let log = fs::File::options().write(true).open(folder.join(LOG))?;
    log.set_len(0)
}

/// Tells if its stats are these; 0 is also said of one that there is not.
async fn shows(process: &Process, expected: &[(&str, usize)]) -> Result<(), String> {
    // Their names have one of these words: `|` is `%7C`.
    let stats = process.ask("/stats?filter=manager%7Cwasm").await?;
    let found: HashMap<&str, &str> = stats
        .lines()
        .filter_map(|line| line.split_once(": "))
        .collect();
    let wrong = expected.iter().find_map(|(name, number)| {
        let found = found.get(name).copied().unwrap_or("0");
        (found != number.to_string()).then(|| format!("{name}: {found}, and {number} was expected"))
    });
    wrong.map_or(Ok(()), Err)
}

fn remove_all_but(folder: &Path, stays: &[&str]) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if name.is_some_and(|name| stays.contains(&name)) {
            continue;
        }
        match path.is_dir() && !path.is_symlink() {
            true => fs::remove_dir_all(path)?,
            false => fs::remove_file(path)?,
        }
    }
    Ok(())
}

/// Writes a file and moves it into place, which Envoy watches for.
fn put(place: &Path, text: &str) {
    let new = place.with_extension("staged");
    fs::write(&new, text).expect("written");
    fs::rename(new, place).expect("moved");
}

// === The configuration ===

impl Kind {
    /// That of an Envoy with the shipped configuration and that edit; none where it has another filter, which may crash.
    fn new(edit: &impl Fn(&str) -> String, has_clock: bool) -> Option<Self> {
        let shipped = source_root().join("envoy/envoy.yaml");
        let shipped = fs::read_to_string(shipped).expect("the shipped configuration");
        let wasm = setting("LATCHKEY_WASM").display().to_string();
        let shipped = shipped.replace("/etc/latchkey/latchkey.wasm", &wasm);
        assert!(shipped.contains(&wasm), "the filter is somewhere else now");
        let edited = edit(&shipped);
        edited.contains(&wasm).then(|| Self {
            has_clock,
            rest: split(&edited).0,
        })
    }
}

/// A configuration without its listeners, and these as a file of their own.
fn split(text: &str) -> (String, String) {
    let (before, rest) = text.split_once("\n  listeners:\n").expect("listeners");
    let (listeners, after) = rest.split_once("\n  clusters:\n").expect("clusters");
    let typed = format!("\n    - \"@type\": {LISTENER}\n      name: ");
    let of_file = format!("resources:\n{listeners}\n").replace("\n    - name: ", &typed);
    (format!("{before}\n  clusters:\n{after}"), of_file)
}

/// Has a configuration without listeners take them from a file, and keep the filter without them.
fn with_listeners_of_a_file(rest: &str, folder: &Path) -> String {
    let file = folder.join(LISTENERS);
    let from_file = format!(
        "dynamic_resources:\n  lds_config:\n    resource_api_version: V3\n    path_config_source:\n      path: {}\n",
        file.display()
    );
    let clusters = format!("  clusters:\n{}", keeper(folder));
    let text = rest.replacen("dynamic_resources:\n", &from_file, 1);
    text.replacen("  clusters:\n", &clusters, 1)
}

/// A cluster that leads nowhere, with the filter in it: the attempt, which does nothing where nobody asks it.
fn keeper(folder: &Path) -> String {
    format!(
        r#"    - name: keeper
      type: STATIC
      connect_timeout: 1s
      load_assignment:
        cluster_name: keeper
        endpoints: [{{ lb_endpoints: [{{ endpoint: {{ address: {{ pipe: {{ path: {nowhere} }} }} }} }}] }}]
      typed_extension_protocol_options:
        envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
          "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
          explicit_http_config: {{ http_protocol_options: {{}} }}
          http_filters:
            - name: keeper
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm
                config:
                  name: keeper
                  root_id: attempt
                  vm_config:
                    vm_id: keeper
                    runtime: envoy.wasm.runtime.v8
                    code: {{ local: {{ filename: {wasm} }} }}
            - name: envoy.filters.http.upstream_codec
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec
"#,
        nowhere = folder.join("nowhere.sock").display(),
        wasm = setting("LATCHKEY_WASM").display(),
    )
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
