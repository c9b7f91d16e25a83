//! Logins that wait for a person. While `serve` runs, each account whose login has ended has an authorization URL: in
//! the log when it is made, and on the socket for `status`. Opening it in a browser completes the login.
//!
//! A URL is that of a [`Login`] by code, as that of `refresher login` is; its verifier is here alone. The browser comes
//! back to a listener on one of the profile's ports, one for all logins at a platform, open only while one of them waits.
//! A login counts only if it is of the account that it is for: whoever read the URL in a log can log in as themselves,
//! and that must not get into somebody else's account.
//!
//! A platform without such a login has the command alone: a device code lives for minutes and must be asked for all that
//! time, so it is made when a person is there to type it in.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::{Json, Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::callback::{self, Ending, LOGIN_LIMIT, Listener, NotAdmitted, Open};
use super::finish::{self, Whose, finish};
use super::redirect::Refused;
use super::{Login, Prompt, Step, drive};
use crate::advice;
use crate::clock::{Clock, SystemClock};
use crate::id::AccountId;
use crate::oauth::claims::IDENTITY;
use crate::oauth::http::{self, HttpClient};
use crate::platform::{Catalog, NoClient, catalog};
use crate::store::{self, Account, Status, Store};
use crate::variable;

/// The most logins that wait at a time; the accounts beyond get theirs as others finish.
pub const PENDING_LIMIT: usize = 64;
/// The life of a URL. A new one is made then, and logged.
pub const URL_LIFE: Duration = Duration::from_secs(24 * 60 * 60);
/// The pause between tries for a URL that lacks for a port or for room.
const PORT_PAUSE: Duration = Duration::from_secs(15);
/// The pause after a failure of the store.
const HICCUP: Duration = Duration::from_secs(1);
/// The longest sleep between two looks.
const SLEEP_LIMIT: Duration = Duration::from_secs(60 * 60);
/// The time that a shutdown waits for logins whose code is being redeemed: a call and its saving.
pub const SHUTDOWN_LIMIT: Duration = Duration::from_secs(35);

/// See the module's documentation. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct PendingLogins {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    store: Store,
    catalog: Catalog,
    board: Mutex<Board>,
    /// The listeners, by platform.
    doors: tokio::sync::Mutex<HashMap<String, Open>>,
    wake: Notify,
    tasks: TaskTracker,
}

/// The logins that wait.
#[derive(Debug, Default)]
struct Board {
    waiting: BTreeMap<AccountId, Pending>,
    /// The accounts whose login is being completed, and their platforms.
    finishing: HashMap<AccountId, String>,
    /// Until when a platform's port is somebody else's.
    yielded: HashMap<String, Instant>,
    /// Accounts that were already said to have no URL, by generation; true if the reason may pass by itself.
    told: HashMap<(AccountId, u64), bool>,
}

/// A login that waits.
#[derive(Debug)]
struct Pending {
    account: Account,
    login: Login,
    prompt: Prompt,
    port: u16,
    lapses_at: Instant,
}

/// The reason why an account has no URL.
#[derive(Debug, thiserror::Error)]
enum NoUrl {
    #[error(transparent)]
    Platform(#[from] catalog::Error),
    #[error("its platform has no login with a URL")]
    NoFlow,
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error(
        "the platform gave no id for its account, so nobody could tell that the login is for this one"
    )]
    Nameless,
    #[error(transparent)]
    Ports(#[from] callback::Error),
    #[error("the port was given to a login on the command line")]
    Yielded,
    #[error("{PENDING_LIMIT} logins wait already")]
    Full,
    #[error("its platform's profile makes no URL: {0}")]
    Url(#[from] super::Error),
    #[error(transparent)]
    Client(#[from] NoClient),
}

/// The reason why a login that came back does not count. Its URL is used up; there is a new one.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Login(#[from] super::Error),
    #[error(transparent)]
    Platform(#[from] catalog::Error),
    #[error(transparent)]
    Http(#[from] http::Error),
    #[error(transparent)]
    Finish(#[from] finish::Error),
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// A login that is being completed. It stands on the board for as long as this lives, also where the task panics: an
/// account that stayed there would get no URL any more.
struct Finishing {
    shared: Arc<Shared>,
    account: AccountId,
}

/// A URL to open, as the socket tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginUrl {
    /// The account's id.
    pub account: String,
    /// The URL to open in a browser.
    pub url: String,
    /// The port on this machine that the browser comes back to.
    pub port: u16,
}

impl PendingLogins {
    /// None wait yet: [`PendingLogins::run`] makes them.
    pub fn new(store: Store, catalog: Catalog) -> PendingLogins {
        PendingLogins {
            shared: Arc::new(Shared {
                store,
                catalog,
                board: Mutex::default(),
                doors: tokio::sync::Mutex::default(),
                wake: Notify::new(),
                tasks: TaskTracker::new(),
            }),
        }
    }

    /// Serves commands on the socket: `GET /logins`, the URLs, and `POST /logins/PLATFORM/yield`, the port.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/logins", get(urls))
            .route("/logins/{platform}/yield", post(yield_port))
            .with_state(self.clone())
    }

    /// Keeps a URL for each account that needs a login, but for those that their operator logged out, until `shutdown`; then waits for those whose code is being
    /// redeemed.
    pub async fn run(&self, shutdown: CancellationToken) {
        let shared = &self.shared;
        let mut revisions = shared.store.revisions();
        while !shutdown.is_cancelled() {
            // Before the look: what changes during it wakes us.
            revisions.mark_unchanged();
            let (pause, seen) = self.look().await;
            let news = async {
                // Most news is of accounts' health.
                while revisions.changed().await.is_ok()
                    && shared.store.accounts_revision().await.ok() == seen
                {}
            };
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = shared.wake.notified() => {}
                () = news => {}
                () = sleep(pause) => {}
            }
        }
        // Those that are being completed have their page to show yet.
        shared.tasks.close();
        if timeout(SHUTDOWN_LIMIT, shared.tasks.wait()).await.is_err() {
            warn!("shutting down while a login is completed; it has to be done again");
        }
        for (_, door) in shared.doors.lock().await.drain() {
            door.close().await;
        }
    }

    /// Makes what lacks and drops what is of no use any more. How long until the next look, unless something happens,
    /// and the revision of the accounts that it saw.
    async fn look(&self) -> (Duration, Option<u64>) {
        let shared = &self.shared;
        let seen = shared.store.accounts_revision().await.ok();
        let mut wanted = match shared.store.accounts().await {
            Ok(accounts) => accounts,
            Err(error) => {
                warn!(%error, "cannot read which accounts need a login");
                return (HICCUP, None);
            }
        };
        wanted.retain(|account| account.status == Status::NeedsLogin && !account.is_logged_out());
        let mut doors = shared.doors.lock().await;
        let now = Instant::now();
        let lacking = lock(&shared.board).renew(&wanted, now);
        for account in lacking {
            if let Err(why) = self.begin(&account, &mut doors, now).await
                && lock(&shared.board).tell(&account, &why)
            {
                let is_client = shared.store.has_own_client(&account.id).await;
                let cure = advice::login_cure(&account.platform, &account.name, is_client);
                warn!(account = account.name, %why, cure, "an account needs a new login");
            }
        }
        let board = lock(&shared.board);
        doors.retain(|platform, _| board.is_in_use(platform));
        (board.pause(now), seen)
    }

    /// Makes a URL for an account, and the listener that its browser comes back to, and logs it.
    async fn begin(
        &self,
        account: &Account,
        doors: &mut HashMap<String, Open>,
        now: Instant,
    ) -> Result<(), NoUrl> {
        let (platform, shared) = (&account.platform, &self.shared);
        let profile = shared.catalog.usable(platform)?;
        let profile = &*profile.with_client(variable::read)?;
        let flow = profile.login.code().ok_or(NoUrl::NoFlow)?;
        if !shared.store.vars(&account.id).await?.contains_key(IDENTITY) {
            return Err(NoUrl::Nameless);
        }
        lock(&shared.board).has_room_at(platform, now)?;
        let port = match doors.get(platform) {
            Some(door) => door.port(),
            None => {
                let listener = Listener::bind(&flow.redirect_ports).await?;
                let (logins, at) = (self.clone(), platform.clone());
                let door =
                    listener.open(&flow.redirect_path, move |query| logins.admit(&at, query));
                let port = door.port();
                doors.insert(platform.clone(), door);
                port
            }
        };
        let (login, prompt) = Login::code(profile, flow, port)?;
        let url = prompt.url.to_string();
        let pending = Pending {
            account: account.clone(),
            login,
            prompt,
            port,
            lapses_at: now + URL_LIFE,
        };
        lock(&shared.board).add(pending);
        warn!(
            account = account.name,
            url,
            browser_elsewhere = advice::browser_elsewhere(platform, &account.name, port),
            "an account needs a new login: open the URL in a browser on this machine"
        );
        Ok(())
    }

    /// Takes the redirect of a login that waits. It is completed as a task of its own: a browser that goes away does not
    /// cut it off.
    fn admit(&self, platform: &str, query: &str) -> Result<oneshot::Receiver<Ending>, NotAdmitted> {
        let shared = Arc::clone(&self.shared);
        // Taken first: a shutdown that begins after it waits for it. Closed, the tracker would still take tasks.
        let waited_for = shared.tasks.token();
        if shared.tasks.is_closed() {
            return Err(NotAdmitted::Stopping);
        }
        let (pending, step) = lock(&shared.board).take(platform, query, Instant::now())?;
        let finishing = Finishing {
            shared: Arc::clone(&shared),
            account: pending.account.id.clone(),
        };
        let (ending, ended) = oneshot::channel();
        tokio::spawn(async move {
            let _waited_for = waited_for;
            let _finishing = finishing;
            let name = pending.account.name.clone();
            let finished = shared.finish(pending, step).await;
            match &finished {
                Ok(()) => info!(account = name, "logged in again"),
                Err(problem) => {
                    warn!(account = name, %problem, "a login came back and does not count")
                }
            }
            let _ = ending.send(Ending::of(&finished));
        });
        Ok(ended)
    }
}

impl Shared {
    /// Completes a login, and gives it to its account if it is the account's own.
    async fn finish(&self, pending: Pending, step: Step) -> Result<(), Error> {
        let Pending {
            account, mut login, ..
        } = pending;
        let profile = self.catalog.usable(&account.platform)?;
        let proxy = self.store.proxy(&account.id).await?;
        let profile = profile.by(proxy.as_ref());
        let http = HttpClient::for_platform(&profile)?;
        let granted = drive::complete(&http, &mut login, step, &SystemClock, LOGIN_LIMIT).await?;
        let whose = Whose::Account(&account);
        finish(&self.store, &profile, granted, whose, SystemClock.now()).await?;
        Ok(())
    }
}

// === impl NoUrl ===

impl NoUrl {
    /// Returns true if it may pass without a change of the account: the catalog stays as it is while `serve` runs.
    fn may_pass(&self) -> bool {
        match self {
            NoUrl::Ports(_) | NoUrl::Yielded | NoUrl::Full | NoUrl::Store(_) => true,
            NoUrl::Platform(_)
            | NoUrl::NoFlow
            | NoUrl::Nameless
            | NoUrl::Url(_)
            | NoUrl::Client(_) => false,
        }
    }
}

// === impl Finishing ===

impl Drop for Finishing {
    fn drop(&mut self) {
        lock(&self.shared.board).finishing.remove(&self.account);
        self.shared.wake.notify_one();
    }
}

// === impl Board ===

impl Board {
    /// Drops what lapsed, and what is for another account or generation than those of `wanted`. Those of them that have
    /// no URL, and none on its way.
    fn renew(&mut self, wanted: &[Account], now: Instant) -> Vec<Account> {
        let is_wanted = |id: &AccountId, generation: u64| {
            let fits = |account: &Account| account.id == *id && account.generation == generation;
            wanted.iter().any(fits)
        };
        self.waiting.retain(|id, pending| {
            pending.lapses_at > now && is_wanted(id, pending.account.generation)
        });
        self.told
            .retain(|(id, generation), _| is_wanted(id, *generation));
        self.yielded.retain(|_, until| *until > now);
        let lacks = |account: &&Account| {
            !self.waiting.contains_key(&account.id) && !self.finishing.contains_key(&account.id)
        };
        wanted.iter().filter(lacks).cloned().collect()
    }

    /// Refuses a login at `platform` that may not begin now.
    fn has_room_at(&self, platform: &str, now: Instant) -> Result<(), NoUrl> {
        if self.yielded.get(platform).is_some_and(|until| *until > now) {
            return Err(NoUrl::Yielded);
        }
        if self.waiting.len() + self.finishing.len() >= PENDING_LIMIT {
            return Err(NoUrl::Full);
        }
        Ok(())
    }

    /// Notes why an account has no URL. Returns true if that was not said yet.
    fn tell(&mut self, account: &Account, why: &NoUrl) -> bool {
        let of = (account.id.clone(), account.generation);
        self.told.insert(of, why.may_pass()).is_none()
    }

    fn add(&mut self, pending: Pending) {
        let account = &pending.account;
        self.told.remove(&(account.id.clone(), account.generation));
        self.waiting.insert(account.id.clone(), pending);
    }

    /// Takes the login at `platform` that the query of a redirect answers, with the step that follows.
    fn take(
        &mut self,
        platform: &str,
        query: &str,
        now: Instant,
    ) -> Result<(Pending, Step), Refused> {
        let mut refused = Refused::ForeignState;
        let mut found = None;
        for (id, pending) in &mut self.waiting {
            if pending.account.platform != platform || pending.lapses_at <= now {
                continue;
            }
            match pending.login.input(query) {
                Ok(step) => found = Some((id.clone(), step)),
                Err(Refused::ForeignState) => {}
                Err(malformed) => refused = malformed,
            }
        }
        let (id, step) = found.ok_or(refused)?;
        let pending = self.waiting.remove(&id).ok_or(refused)?;
        self.finishing.insert(id, platform.to_owned());
        Ok((pending, step))
    }

    fn is_in_use(&self, platform: &str) -> bool {
        let waits = |pending: &Pending| pending.account.platform == platform;
        self.waiting.values().any(waits) || self.finishing.values().any(|at| at == platform)
    }

    /// Gives up the logins that wait at `platform`, until then.
    fn yield_until(&mut self, platform: &str, until: Instant) {
        self.waiting
            .retain(|_, pending| pending.account.platform != platform);
        self.yielded.insert(platform.to_owned(), until);
    }

    /// Returns the time until there is something to do without an event.
    fn pause(&self, now: Instant) -> Duration {
        let lapse = self.waiting.values().map(|pending| pending.lapses_at);
        let lapse = lapse.min().map(|at| at.saturating_duration_since(now));
        let retry = self.told.values().any(|may_pass| *may_pass);
        let retry = retry.then_some(PORT_PAUSE);
        [lapse, retry]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(SLEEP_LIMIT)
    }

    fn urls(&self) -> Vec<LoginUrl> {
        let url = |(id, pending): (&AccountId, &Pending)| LoginUrl {
            account: id.to_string(),
            url: pending.prompt.url.to_string(),
            port: pending.port,
        };
        self.waiting.iter().map(url).collect()
    }
}

async fn urls(State(logins): State<PendingLogins>) -> Json<Vec<LoginUrl>> {
    Json(lock(&logins.shared.board).urls())
}

/// Closes a platform's listener for as long as a `refresher login` waits at most, if it is open.
async fn yield_port(
    State(logins): State<PendingLogins>,
    Path(platform): Path<String>,
) -> StatusCode {
    let mut doors = logins.shared.doors.lock().await;
    let Some(door) = doors.remove(&platform) else {
        return StatusCode::NOT_FOUND;
    };
    lock(&logins.shared.board).yield_until(&platform, Instant::now() + LOGIN_LIMIT);
    info!(
        platform,
        port = door.port(),
        minutes = LOGIN_LIMIT.as_secs() / 60,
        "gave a port to a login on the command line; there are new URLs after it"
    );
    door.close().await;
    logins.shared.wake.notify_one();
    StatusCode::NO_CONTENT
}

/// Nothing panics while this lock is held.
fn lock(board: &Mutex<Board>) -> MutexGuard<'_, Board> {
    board.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
