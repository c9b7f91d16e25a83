//! The programs wired together in a folder of their own.

use std::{
    collections::HashMap,
    fs::{self, Permissions},
    num::NonZeroUsize,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    pin::pin,
    sync::{Arc, LazyLock},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::sync::{Mutex, OnceCell, Semaphore, SemaphorePermit};

use super::{
    Caller, clusters,
    envoy::Envoy,
    eventually,
    eventually::holds,
    fake_refresher::FakeRefresher,
    kept::Home,
    records,
    refresher::Refresher,
    sim::{Sim, account_id},
    wall_clock::WallClock,
};

/// The longest that a published revision may take to be in use, where no test is about that.
pub const SYNC_LIMIT: Duration = Duration::from_secs(10);

/// A user who has a ChatGPT account.
pub const ALICE: &str = "alice@example.com";

/// Alice's account.
pub const CODEX: &str = "acc_codex";

/// The account with a key of the OpenAI API.
pub const OPENAI: &str = "acc_openai";

/// A platform that speaks chat completions alone, and its account: `openai` without its other dialect.
pub const CHAT_ALONE: &str = "chat_alone";

/// The account with a key of the Anthropic API.
pub const ANTHROPIC: &str = "acc_anthropic";

/// The account at Google, with an API key.
pub const GEMINI: &str = "acc_gemini";

/// A platform that speaks Google's own dialect alone, and its account: `gemini` without its other one.
pub const GEMINI_ALONE: &str = "gemini_alone";

/// Places for stacks that run at the same time, two for each core: they wait for more than half of their time.
static PERMITS: LazyLock<Semaphore> = LazyLock::new(|| {
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    Semaphore::new(2 * cores)
});

/// The stacks of modules whose tests do not disturb each other.
static SHARED: LazyLock<Mutex<ByName>> = LazyLock::new(Mutex::default);

type ByName = HashMap<&'static str, Arc<OnceCell<Arc<Stack>>>>;

/// Envoy, the simulated platform, and a refresher: the real one or a fake.
#[derive(Debug)]
pub struct Stack<R = FakeRefresher> {
    /// Envoy. First, so that it is gone before what it asks.
    pub envoy: Envoy,
    /// Where the snapshot comes from.
    pub refresher: R,
    /// The simulated platform.
    pub sim: Sim,
    /// Everything's files and logs.
    pub folder: PathBuf,
    /// Behind what runs in it.
    home: Home,
    _permit: SemaphorePermit<'static>,
}

impl<R> Stack<R> {
    /// Gives its Envoy, which runs, listeners that are not quite those that it has, and waits until it has them alone.
    pub async fn relist(&self, edit: impl Fn(&str) -> String) {
        let before = self.envoy.stat("lds.update_success").await;
        self.home.relist(edit).await;
        eventually("other listeners", SYNC_LIMIT, async || {
            let taken = self.envoy.stat("lds.update_success").await;
            let draining = self.envoy.stat("total_listeners_draining").await;
            holds(taken > before && draining == 0, || {
                format!("{taken} taken, {draining} draining")
            })
        })
        .await;
    }
}

impl Stack<Refresher> {
    /// A stack on which `prepare` adds what it needs before anything runs but the platform.
    pub async fn real(name: &str, prepare: impl AsyncFnOnce(&Sim, &Refresher)) -> Self {
        Self::real_edited(name, str::to_owned, prepare).await
    }

    /// [`Stack::real`] with a configuration of Envoy that is not quite the shipped one.
    pub async fn real_edited(
        name: &str,
        edit: impl Fn(&str) -> String,
        prepare: impl AsyncFnOnce(&Sim, &Refresher),
    ) -> Self {
        let home = Home::new(name, &edit);
        Self::real_at(home, &edit, prepare).await
    }

    /// [`Stack::real`] with a wall clock of its own for Envoy and for the refresher.
    pub async fn real_with_clock(
        name: &str,
        prepare: impl AsyncFnOnce(&Sim, &Refresher),
    ) -> (Self, WallClock) {
        let made = OnceCell::new();
        let home = async {
            let home = Home::with_clock(name).await;
            let clock = WallClock::new(&home.folder).await;
            made.set(clock).expect("the first");
            home
        };
        let stack = Self::real_at(home, str::to_owned, prepare).await;
        (stack, made.into_inner().expect("made"))
    }

    /// [`Stack::real`] with an Envoy of its own, on the shipped configuration as it is.
    pub async fn real_as_shipped(name: &str, prepare: impl AsyncFnOnce(&Sim, &Refresher)) -> Self {
        let home = async { Home::alone(name) };
        Self::real_at(home, str::to_owned, prepare).await
    }

    async fn real_at(
        home: impl Future<Output = Home>,
        edit: impl Fn(&str) -> String,
        prepare: impl AsyncFnOnce(&Sim, &Refresher),
    ) -> Self {
        let permit = permit().await;
        let home = home.await;
        let folder = home.folder.clone();
        let sim = Sim::start(&folder).await;
        let mut refresher = Refresher::new(&folder, &sim);
        prepare(&sim, &refresher).await;
        refresher.serve().await;
        let envoy = home.envoy(0, edit).await;
        Self {
            envoy,
            refresher,
            sim,
            folder,
            home,
            _permit: permit,
        }
    }

    /// [`Stack::real`] with Alice's login and nothing else. Her access tokens live that long.
    pub async fn alice(name: &str, access_lifetime: Duration) -> Self {
        Self::real(name, async |sim, refresher| {
            refresher.log_in_new(sim, ALICE, access_lifetime).await;
            refresher.serves_many(ALICE).await;
        })
        .await
    }

    /// A caller with a new client key, once it is served.
    pub async fn caller(&self, name: &str) -> Caller {
        let key = self.refresher.create_key(name).await;
        let caller = Caller::new(self.envoy.port, &key);
        eventually("the key is taken", SYNC_LIMIT, async || {
            let answer = caller.get("/v1/models").await;
            holds(answer.status == 200, || format!("{answer:?}"))
        })
        .await;
        caller
    }
}

impl<R> Stack<R> {
    /// Kills Envoy and starts another one on its folder, which has the shipped configuration and that port (0: the system
    /// chooses).
    pub async fn restart_envoy(&mut self, port: u16) {
        self.envoy.kill().await;
        self.start_envoy(port).await;
    }

    /// [`Stack::restart_envoy`] where it is dead already.
    pub async fn start_envoy(&mut self, port: u16) {
        self.envoy = self.home.envoy(port, str::to_owned).await;
    }

    /// Waits until Envoy holds that revision, and its clusters are there.
    pub async fn reaches(&self, revision: u64) {
        self.reaches_within(SYNC_LIMIT, revision).await;
    }

    /// [`Stack::reaches`] for a snapshot that takes its time.
    pub async fn reaches_within(&self, limit: Duration, revision: u64) {
        eventually("Envoy has the snapshot", limit, async || {
            let found = self.envoy.revision().await;
            holds(found >= revision, || format!("revision {found}"))
        })
        .await;
    }
}

impl Stack {
    /// A stack with one account at each platform; the pools have their platforms' names, and `all` has all but
    /// Google's.
    pub async fn start(name: &str) -> Self {
        Self::edited(name, str::to_owned).await
    }

    /// [`Stack::start`] with another of the shipped configurations of Envoy.
    pub async fn with(name: &str, shipped: &str) -> Self {
        Self::with_envoy(async { Home::alone(name) }, async |home| {
            Envoy::start_with(&home.folder, shipped, 0).await
        })
        .await
    }

    /// [`Stack::start`] with a configuration of Envoy that is not quite the shipped one.
    pub async fn edited(name: &str, edit: impl Fn(&str) -> String) -> Self {
        let home = Home::new(name, &edit);
        Self::with_envoy(home, async |home| home.envoy(0, &edit).await).await
    }

    /// [`Stack::start`] with a wall clock of its own for Envoy.
    pub async fn with_clock(name: &str) -> (Self, WallClock) {
        let made = OnceCell::new();
        let stack = Self::with_envoy(Home::with_clock(name), async |home| {
            let clock = WallClock::new(&home.folder).await;
            made.set(clock).expect("the first");
            home.envoy(0, str::to_owned).await
        })
        .await;
        (stack, made.into_inner().expect("made"))
    }

    async fn with_envoy(
        home: impl Future<Output = Home>,
        start: impl AsyncFnOnce(&Home) -> Envoy,
    ) -> Self {
        let permit = permit().await;
        let home = home.await;
        let folder = home.folder.clone();
        let sim = Sim::start(&folder).await;
        let refresher = FakeRefresher::start(&folder).await;
        let revision = refresher.publish(population(&sim).await);
        sim.write_clusters(&folder, &[CODEX, OPENAI, ANTHROPIC, GEMINI]);
        let envoy = start(&home).await;
        let stack = Self {
            envoy,
            refresher,
            sim,
            folder,
            home,
            _permit: permit,
        };
        stack.reaches(revision).await;
        stack
    }

    /// The stack that every test which asks for this name shares. The test must leave it as it was.
    pub async fn shared(name: &'static str) -> Arc<Self> {
        let cell = {
            let mut shared = SHARED.lock().await;
            Arc::clone(shared.entry(name).or_default())
        };
        let stack = cell
            .get_or_init(async || Arc::new(Self::start(name).await))
            .await;
        super::uses(&stack.folder);
        Arc::clone(stack)
    }

    /// Gives Envoy clusters for these accounts, and no others, and waits until it has them.
    pub async fn have_clusters(&self, accounts: &[&str]) {
        self.sim.write_clusters(&self.folder, accounts);
        eventually("Envoy has the clusters", SYNC_LIMIT, async || {
            let clusters = self.envoy.admin("/clusters").await;
            let missing = accounts
                .iter()
                .find(|account| !clusters.contains(&format!("{}::", clusters::name(account))));
            missing.map_or(Ok(()), |account| Err(format!("no cluster for {account}")))
        })
        .await;
    }

    /// Moves an account's cluster to another port of this machine.
    pub async fn replug(&self, account: &str, port: u16) {
        self.change_cluster(account, port, |_| {}).await;
    }

    /// Moves an account's cluster to a port on which plain text is spoken.
    pub async fn replug_in_plain_text(&self, account: &str, port: u16) {
        let without_tls = |cluster: &mut Value| {
            let fields = cluster.as_object_mut().expect("a cluster");
            fields.remove("transport_socket");
        };
        self.change_cluster(account, port, without_tls).await;
    }

    /// The same, from which trailers are let through, as an operator may have it.
    pub async fn replug_with_trailers(&self, account: &str, port: u16) {
        let options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
        let with_trailers = |cluster: &mut Value| {
            let fields = cluster.as_object_mut().expect("a cluster");
            fields.remove("transport_socket");
            let options = &mut cluster["typed_extension_protocol_options"][options];
            options["explicit_http_config"]["http_protocol_options"]["enable_trailers"] =
                true.into();
        };
        self.change_cluster(account, port, with_trailers).await;
    }

    /// Has Envoy close the idle connections of an account's cluster, which is at that port in plain text, after so
    /// many seconds.
    pub async fn close_idle(&self, account: &str, port: u16, seconds: u16) {
        let options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
        let close = |cluster: &mut Value| {
            let options = &mut cluster["typed_extension_protocol_options"][options];
            let idle = &mut options["common_http_protocol_options"]["idle_timeout"];
            *idle = format!("{seconds}s").into();
        };
        let modified = async || self.envoy.stat("cluster_manager.cluster_modified").await;
        let before = modified().await;
        self.change_cluster(account, port, close).await;
        eventually("Envoy has the cluster", SYNC_LIMIT, async || {
            let now = modified().await;
            holds(now > before, || format!("{now} after {before}"))
        })
        .await;
    }

    /// Has an account's cluster lead to this base URL.
    pub async fn lead(&self, account: &str, base_url: &str) {
        self.sim.write_cluster_to(&self.folder, account, base_url);
        let (_, authority) = base_url.split_once("//").expect("a URL");
        let (host, _) = authority.split_once(':').expect("a port");
        let address = format!("\"address\": \"{host}\"");
        eventually("Envoy has the cluster", SYNC_LIMIT, async || {
            let path = "/config_dump?resource=dynamic_active_clusters";
            let active = self.envoy.admin(path).await;
            holds(active.contains(&address), || active.clone())
        })
        .await;
    }

    async fn change_cluster(&self, account: &str, port: u16, change: impl Fn(&mut Value)) {
        let place = self.folder.join("state/envoy/clusters.json");
        let text = fs::read_to_string(&place).expect("the clusters");
        let mut clusters: Value = serde_json::from_str(&text).expect("JSON");
        let resources = clusters["resources"].as_array_mut().expect("clusters");
        let name = clusters::hosts(account);
        let mut all = resources.iter_mut();
        let cluster = all.find(|cluster| cluster["name"] == *name);
        let cluster = cluster.expect("its cluster");
        change(cluster);
        let address = cluster.pointer_mut(
            "/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address/socket_address/port_value",
        );
        *address.expect("a port") = port.into();
        let new = place.with_extension("new");
        fs::write(&new, clusters.to_string()).expect("written");
        fs::rename(new, place).expect("moved");
        eventually("the cluster moved", SYNC_LIMIT, async || {
            let clusters = self.envoy.admin("/clusters").await;
            let moved = format!("{name}::127.0.0.1:{port}::");
            holds(clusters.contains(&moved), || clusters.clone())
        })
        .await;
    }

    /// A caller whose client key leads to that pool.
    pub fn caller(&self, pool: &str) -> Caller {
        Caller::new(self.envoy.port, &client_key(pool))
    }
}

/// The platforms, the account [`OPENAI`] alone, and a pool and a key for it, both named after its platform.
pub fn openai_alone(sim: &Sim) -> Vec<String> {
    let account = records::account(OPENAI, "openai", sim.authority(), "sk-openai", json!({}));
    let mut lines = records::platforms(&sim.platforms_dir);
    lines.extend([
        account,
        records::pool("openai", "sticky", &[OPENAI]),
        records::key("key_1", &client_key("openai"), "openai"),
    ]);
    lines
}

/// A port on which nobody listens.
pub fn closed_port() -> u16 {
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    free.local_addr().expect("bound").port()
}

/// The shipped configuration `text` with these parts of it changed, each of which has to be there.
pub fn with(text: &str, changes: &[(&str, &str)]) -> String {
    changes
        .iter()
        .fold(text.to_owned(), |text, (shipped, here)| {
            assert!(text.contains(shipped), "the configuration has no {shipped}");
            text.replace(shipped, here)
        })
}

/// The client key of a pool.
pub fn client_key(pool: &str) -> String {
    format!("lk_{pool}_0123456789abcdefghijklmnopqrst")
}

/// The platforms, an account at each, a pool of each platform's account and one, `all`, of all of them.
async fn population(sim: &Sim) -> Vec<String> {
    sim.add_api_key("openai", "sk-openai", "openai-key").await;
    sim.add_api_key("anthropic", "sk-ant", "anthropic-key")
        .await;
    sim.add_documented_key("gemini", "AIza-gemini").await;
    sim.add_user(ALICE, Duration::from_secs(3600)).await;
    let login = sim.login(ALICE).await;
    let vars = json!({"vars": {"account_id": account_id(ALICE)}});
    let authority = sim.authority();
    let at = |account| json!({"cluster": clusters::name(account)});
    let mut lines = records::platforms(&sim.platforms_dir);
    lines.extend(records::of_one_dialect(&sim.platforms_dir));
    lines.extend([
        records::account(CODEX, "codex", authority, &login.access_token, vars),
        records::account(OPENAI, "openai", authority, "sk-openai", json!({})),
        records::account(ANTHROPIC, "anthropic", authority, "sk-ant", json!({})),
        records::account(GEMINI, "gemini", authority, "AIza-gemini", json!({})),
        records::account(CHAT_ALONE, CHAT_ALONE, authority, "sk-openai", at(OPENAI)),
        records::account(
            GEMINI_ALONE,
            GEMINI_ALONE,
            authority,
            "AIza-gemini",
            at(GEMINI),
        ),
    ]);
    for (pool, accounts) in [
        ("codex", &[CODEX][..]),
        ("openai", &[OPENAI]),
        ("anthropic", &[ANTHROPIC]),
        ("gemini", &[GEMINI]),
        (CHAT_ALONE, &[CHAT_ALONE]),
        (GEMINI_ALONE, &[GEMINI_ALONE]),
        ("all", &[CODEX, OPENAI, ANTHROPIC]),
    ] {
        lines.push(records::pool(pool, "sticky", accounts));
        lines.push(records::key(
            &format!("key_{pool}"),
            &client_key(pool),
            pool,
        ));
    }
    lines
}

/// A place among the running stacks, to be had before anything is started and held as long as it runs. They are given
/// in turn. Shared stacks that nobody uses make room.
pub async fn permit() -> SemaphorePermit<'static> {
    let mut permit = pin!(PERMITS.acquire());
    loop {
        match tokio::time::timeout(Duration::from_millis(50), permit.as_mut()).await {
            Ok(permit) => return permit.expect("nobody closes it"),
            Err(_) => SHARED.lock().await.retain(|_, cell| match cell.get() {
                Some(stack) => Arc::strong_count(stack) > 1,
                None => true,
            }),
        }
    }
}

/// An empty folder for the stack of that name, with the directories that the refresher makes. Its logs are printed if
/// the test fails.
pub fn new_folder(name: &str) -> PathBuf {
    let folder = place_of(name);
    fs::remove_dir_all(&folder).ok();
    super::uses(&folder);
    for part in ["state/run", "state/envoy"] {
        fs::create_dir_all(folder.join(part)).expect("a folder");
    }
    for part in ["state", "state/run", "state/envoy"] {
        fs::set_permissions(folder.join(part), Permissions::from_mode(0o700)).expect("private");
    }
    folder
}

/// Has `folder` under the name of that stack too. Its logs are printed if the test fails.
pub fn link(name: &str, folder: &Path) {
    let place = place_of(name);
    fs::remove_dir_all(&place).ok();
    super::uses(folder);
    symlink(folder, place).expect("a link");
}

fn place_of(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("it").join(name)
}
