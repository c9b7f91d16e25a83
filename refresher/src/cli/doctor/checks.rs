//! The checks: each looks at the facts, and says what is wrong and what to do about it. None of them asks anybody.

use std::path::Path;

use super::Severity::{Broken, Note, Wrong};
use super::{Finding, Severity};
use crate::advice::{Door, browser_elsewhere, check_command, cure, login_command, shell_word};
use crate::app::Error;
use crate::app::doctor::{Facts, Gateway, SocketState, Space, State};
use crate::app::keys::{KeyView, State as KeyState};
use crate::app::status::AccountView;
use crate::cli::status::{later_end, state as word_of};
use crate::cli::time::{minute, relative};
use crate::clock::UnixMillis;
use crate::credential::CredentialKind;
use crate::envoy::filter_file::Found;
use crate::fault::Fault;
use crate::standing::{SOON, Standing};
use crate::store::Pool;

/// A disk with less room than that is full in a moment.
const NO_ROOM: u64 = 64 * 1024 * 1024;
/// A disk with less room than that, and less than a twentieth of its own, is nearly full.
const LITTLE_ROOM: u64 = 1024 * 1024 * 1024;
/// A clock that is wrong by more has tokens end too early or too late.
const CLOCK_LIMIT_MS: i64 = 60_000;
/// `serve`, as a shell takes it.
const SERVE: &str = "start it: refresher serve";

type Check = fn(&Facts) -> Vec<Finding>;

/// Every check, in the order in which a person mends things.
pub(super) const CHECKS: &[Check] = &[
    faults,
    disk,
    serve,
    socket,
    clock,
    clusters_file,
    filter,
    other_on_the_port,
    envoys,
    clusters_in_envoy,
    rotation,
    left_out,
    accounts,
    ends,
    keys,
    pools,
    platforms_reached,
    unconfirmed,
];

fn finding(
    severity: Severity,
    check: &'static str,
    problem: impl Into<String>,
    cure: impl Into<String>,
) -> Finding {
    Finding {
        severity,
        check,
        problem: problem.into(),
        cure: Some(cure.into()),
    }
}

/// A finding, or none.
fn only(finding: Option<Finding>) -> Vec<Finding> {
    finding.into_iter().collect()
}

/// What nobody could look at, and why.
pub(super) fn unseen(facts: &Facts) -> Vec<String> {
    let mut unseen = Vec::new();
    if facts.state.is_none() {
        unseen.push("accounts, pools and keys: the state cannot be opened".to_owned());
    }
    if facts.envoy.is_none() {
        unseen.push(
            "what Envoy has loaded: nothing answers at run/envoy-admin.sock in the state directory"
                .to_owned(),
        );
    }
    unseen
}

/// Files, folders, profiles, and a state that does not open: each has its cure already.
fn faults(facts: &Facts) -> Vec<Finding> {
    let of = |error: &Error| {
        Finding {
        severity: Broken,
        check: match error.fault {
            Fault::LaxMode { .. } | Fault::ForeignOwner { .. } | Fault::WrongKind { .. } => {
                "permissions"
            }
            Fault::Misconfigured | Fault::NoPlatformsFolder => "configuration",
            Fault::WrongKey | Fault::NoKey | Fault::BadKeys { .. } | Fault::Keyring { .. } => "key",
            _ => "state",
        },
        problem: error.to_string(),
        cure: match &error.fault {
            Fault::Misconfigured => Some(
                "correct that line; refresher platforms check FILE tries a profile before it is used".to_owned(),
            ),
            fault => cure(Door::CommandLine, fault),
        },
    }
    };
    facts.faults.iter().map(of).collect()
}

fn disk(facts: &Facts) -> Vec<Finding> {
    let Some(Space { free, total }) = facts.space else {
        return Vec::new();
    };
    let left = free / (1024 * 1024);
    let severity = match free {
        _ if free < NO_ROOM => Broken,
        _ if free < LITTLE_ROOM && free < total / 20 => Wrong,
        _ => return Vec::new(),
    };
    let problem = format!(
        "the disk of the state directory has {left} MiB left: once it is full, no new token can be stored"
    );
    vec![finding(
        severity,
        "disk",
        problem,
        "make room there; or keep records of requests for fewer days (keep_days of [usage] in config.toml)",
    )]
}

fn serve(facts: &Facts) -> Vec<Finding> {
    let daemon = &facts.daemon;
    let problem = match (daemon.runs, daemon.answers) {
        (false, _) if facts.state.is_none() && facts.faults.is_empty() => return Vec::new(),
        (false, _) => {
            "`refresher serve` is not running: no login is renewed, and Envoy hears of no change"
        }
        (true, false) => {
            return vec![finding(
                Broken,
                "serve",
                "`refresher serve` runs and does not answer on its socket",
                "restart it, and look at its log",
            )];
        }
        (true, true) => return Vec::new(),
    };
    vec![finding(Broken, "serve", problem, SERVE)]
}

fn socket(facts: &Facts) -> Vec<Finding> {
    let (daemon, dir) = (&facts.daemon, facts.state_dir.as_deref());
    let path = dir.unwrap_or(Path::new("")).join("run/refresher.sock");
    let shown = path.display();
    only(match daemon.socket {
        SocketState::Missing if daemon.runs => Some(finding(
            Broken,
            "socket",
            format!("{shown} is not there, and `refresher serve` runs: somebody took it away"),
            "restart `refresher serve`",
        )),
        SocketState::Missing => None,
        SocketState::Other => Some(finding(
            Broken,
            "socket",
            format!("{shown} is no socket"),
            "move it away, and restart `refresher serve`",
        )),
        SocketState::There { mode } if mode & 0o077 != 0 => Some(finding(
            Wrong,
            "socket",
            format!("{shown}: its mode is {mode:04o}, so others can reach it"),
            format!("run: chmod 600 {}", shell_word(&path.display().to_string())),
        )),
        SocketState::There { .. } => None,
    })
}

/// The clock that is least wrong decides: a server may have a wrong one itself.
fn clock(facts: &Facts) -> Vec<Finding> {
    let said = facts.hosts.iter();
    let said = said.filter_map(|host| Some((&host.name, host.ahead_ms.as_ref().ok()?.as_ref()?)));
    let least = said.min_by_key(|(_, ahead)| ahead.abs());
    let Some((name, ahead)) = least.filter(|(_, ahead)| ahead.abs() > CLOCK_LIMIT_MS) else {
        return Vec::new();
    };
    let way = if *ahead > 0 { "ahead of" } else { "behind" };
    let problem = format!(
        "this machine's clock is {} s {way} that of {name}: tokens and limits end at the wrong time",
        ahead.abs() / 1_000
    );
    vec![finding(
        Wrong,
        "clock",
        problem,
        "have it set by the network: timedatectl set-ntp true",
    )]
}

/// The file says where platforms are, and it is `serve` that writes it.
fn clusters_file(facts: &Facts) -> Vec<Finding> {
    let file = &facts.clusters;
    let has_accounts = facts
        .state
        .as_ref()
        .is_some_and(|state| !state.overview.accounts.is_empty());
    if facts.state.is_none() || (!file.is_there && !facts.daemon.ran) {
        return Vec::new();
    }
    let problem = match () {
        () if !file.is_there && has_accounts => {
            "envoy/clusters.json of the state directory is not there or is no JSON: Envoy does not start without it".to_owned()
        }
        () if !file.missing.is_empty() => format!(
            "envoy/clusters.json lacks {}: Envoy answers 503 for its accounts",
            file.missing.join(", ")
        ),
        () if !file.stale.is_empty() => format!(
            "envoy/clusters.json has {} otherwise than the configuration asks for now",
            file.stale.join(", ")
        ),
        () => return Vec::new(),
    };
    let cure = match facts.daemon.runs {
        true => {
            "restart `refresher serve`, which reads the configuration when it starts and writes the file"
        }
        false => SERVE,
    };
    vec![finding(Wrong, "clusters", problem, cure)]
}

fn filter(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut sums = Vec::new();
    for (path, sum) in &facts.filters {
        let shown = path.display();
        match sum {
            Ok(Found::Same(sum) | Found::WithoutSum(sum)) => sums.push(sum),
            Ok(Found::Other { expected, found: is }) => found.push(finding(
                Wrong,
                "filter",
                format!(
                    "{shown} is another filter than was built: its SHA-256 is {}…, expected {}…",
                    beginning(is),
                    beginning(expected)
                ),
                "copy latchkey.wasm and latchkey.wasm.sha256 together from one build, and restart Envoy",
            )),
            // Envoy may see other files than we do, as in another container.
            Err(_) if facts.state.as_ref().is_some_and(polls) => {}
            Err(why) => found.push(finding(
                Wrong,
                "filter",
                format!("the filter {shown} cannot be read: {why}"),
                "build it (make build), and give its path as Envoy sees it: refresher serve --wasm FILE",
            )),
        }
    }
    if sums.windows(2).any(|pair| pair[0] != pair[1]) {
        found.push(finding(
            Broken,
            "filter",
            "the gate and the clusters name two different filters, which share nothing",
            "name one file in both: refresher serve --wasm FILE, and the same FILE in Envoy's configuration",
        ));
    }
    if facts.is_filter_newer {
        found.push(finding(
            Wrong,
            "filter",
            "the filter's file is newer than Envoy's start: Envoy runs what was there before",
            "restart Envoy",
        ));
    }
    found
}

/// The beginning of a sum.
fn beginning(sum: &str) -> &str {
    sum.get(..12).unwrap_or(sum)
}

/// True where an Envoy polls.
fn polls(state: &State) -> bool {
    let mut envoys = state.overview.envoys.iter();
    envoys.any(|envoy| envoy.gone_seconds.is_none())
}

fn other_on_the_port(facts: &Facts) -> Vec<Finding> {
    let at = facts.gateway_at;
    let is_ours = facts
        .envoy
        .as_ref()
        .is_some_and(|envoy| envoy.ports.contains(&at.port()));
    let polled = facts.state.as_ref().is_some_and(polls);
    let cure = "look who listens there: ss -ltnp; or say where callers connect: refresher doctor --gateway ADDRESS";
    only(match facts.gateway {
        _ if is_ours => None,
        Gateway::Ours | Gateway::NotReady if facts.state.is_some() && !polled => Some(finding(
            Wrong,
            "port",
            format!(
                "the gateway at {at} does not ask this refresher: it is another one's, or was not told where the socket is"
            ),
            cure,
        )),
        Gateway::Other if !polled => Some(finding(
            Wrong,
            "port",
            format!("something else than a gateway of Latchkey's answers at {at}"),
            cure,
        )),
        Gateway::NotReady => Some(finding(
            Wrong,
            "port",
            format!("the gateway at {at} does not know its accounts yet"),
            "wait for some seconds; if it stays so, look at Envoy's log for refresher_admin",
        )),
        _ => None,
    })
}

fn envoys(facts: &Facts) -> Vec<Finding> {
    let Some(State { overview, .. }) = &facts.state else {
        return Vec::new();
    };
    let named = |envoy: &crate::progress::EnvoyView| {
        let name = envoy.node.as_ref().unwrap_or(&envoy.instance).clone();
        let (problem, cure) = match (envoy.gone_seconds, &envoy.why) {
            (Some(seconds), _) => (
                format!(
                    "the Envoy {name} has not polled for {seconds} s: it was stopped, or it cannot reach the refresher"
                ),
                "start it again as the same user; where it runs, look at its log for refresher_admin",
            ),
            (None, Some(why)) if envoy.behind_seconds.is_some() => (
                format!("the Envoy {name} stays behind the snapshot: {why}"),
                "restart that Envoy with the filter of this release; its log says what it refused",
            ),
            _ => return None,
        };
        Some(finding(Wrong, "envoy", problem, cure))
    };
    let mut found: Vec<Finding> = overview.envoys.iter().filter_map(named).collect();
    if facts.daemon.answers && overview.envoys.is_empty() {
        found.push(finding(
            Wrong,
            "envoy",
            "no Envoy has asked this refresher for its accounts",
            "start Envoy as the same user, with the state directory's run/refresher.sock as refresher_admin \
             (scripts/envoy-config.sh writes such a configuration)",
        ));
    }
    found
}

fn clusters_in_envoy(facts: &Facts) -> Vec<Finding> {
    let Some(envoy) = &facts.envoy else {
        return Vec::new();
    };
    let lacks = facts.clusters.names.difference(&envoy.clusters);
    let lacks: Vec<&str> = lacks.map(String::as_str).collect();
    only((!lacks.is_empty()).then(|| {
        finding(
            Wrong,
            "clusters",
            format!("Envoy has not taken over {} of envoy/clusters.json", lacks.join(", ")),
            "have Envoy read that file (dynamic_resources of envoy/envoy.yaml); its log says what it refused",
        )
    }))
}

fn rotation(facts: &Facts) -> Vec<Finding> {
    let waits = facts
        .state
        .as_ref()
        .and_then(|state| state.overview.waiting_key);
    only(waits.map(|key| Finding {
        severity: Wrong,
        check: "key",
        problem: format!(
            "a new sealing key ({key}) seals nothing yet: a rotation was not finished"
        ),
        cure: cure(Door::CommandLine, &Fault::UnfinishedRotation),
    }))
}

fn left_out(facts: &Facts) -> Vec<Finding> {
    let state = facts.state.iter();
    let all = state.flat_map(|state| &state.overview.left_out);
    let of = |one: &crate::store::LeftOut| Finding {
        severity: Wrong,
        check: "record",
        problem: format!(
            "the {} {} cannot go to Envoy: {}",
            one.kind.word(),
            one.id,
            one.why
        ),
        cure: cure(Door::CommandLine, &Fault::Unopened),
    };
    all.map(of).collect()
}

fn accounts(facts: &Facts) -> Vec<Finding> {
    let Some(State { overview, .. }) = &facts.state else {
        return Vec::new();
    };
    if overview.accounts.is_empty() {
        return vec![finding(
            Wrong,
            "account",
            "there are no accounts yet",
            "add one: refresher accounts add NAME --platform openai; or log in: refresher login PLATFORM",
        )];
    }
    let of = |view: &AccountView| account(view, facts.now);
    overview.accounts.iter().filter_map(of).collect()
}

fn account(view: &AccountView, now: UnixMillis) -> Option<Finding> {
    let name = &view.name;
    let reason = view.reason.as_deref().unwrap_or("nobody knows why");
    let has_key = CredentialKind::parse(view.kind).is_some_and(CredentialKind::is_key);
    let (severity, problem, cure) = match view.standing {
        Standing::NeedsLogin => (
            Wrong,
            format!("the login of account {name} has ended: {reason}"),
            match (&view.login_url, view.login_port) {
                (Some(url), Some(port)) => {
                    let elsewhere = browser_elsewhere(&view.platform, name, port);
                    format!(
                        "open {url} in a browser on this machine; for one on another machine {elsewhere}"
                    )
                }
                _ => format!("run: {}", login_command(&view.platform, name)),
            },
        ),
        Standing::Dead => {
            let fault = Fault::Dead {
                account: name.clone(),
                platform: view.platform.clone(),
                has_key,
            };
            let cure = cure(Door::CommandLine, &fault).unwrap_or_default();
            (Wrong, format!("account {name} is dead: {reason}"), cure)
        }
        Standing::PlatformOff => {
            let fault = Fault::NotAcknowledged {
                platform: view.platform.clone(),
            };
            let cure = cure(Door::CommandLine, &fault).unwrap_or_default();
            let problem = format!(
                "account {name} is out of use: the notice of {} is not acknowledged",
                view.platform
            );
            (Wrong, problem, cure)
        }
        Standing::Ended => (
            Wrong,
            format!("account {name} is past its end{}", at(view.expires_at)),
            format!(
                "give it another: refresher accounts set {} --expires TIME; or remove it",
                shell_word(name)
            ),
        ),
        Standing::TokenExpired => (
            Wrong,
            format!("the access token of account {name} has expired: {reason}"),
            format!("renew it: refresher refresh {}", shell_word(name)),
        ),
        Standing::Active if view.is_suspected => (
            Note,
            format!("account {name} may be dead: {reason}"),
            format!("ask its platform: {}", check_command(name)),
        ),
        Standing::Active if view.failures > 1 => (
            Wrong,
            format!(
                "account {name}: {} refreshes failed in a row: {reason}",
                view.failures
            ),
            format!(
                "`refresher serve` tries again {}; its log says how they fail",
                view.next_refresh_at
                    .map_or("later".to_owned(), |time| relative(UnixMillis(time), now))
            ),
        ),
        // A cooldown ends by itself, the operator knows what they switched off, and `left_out` tells the rest.
        Standing::Active | Standing::CoolingDown | Standing::Disabled | Standing::LeftOut => {
            return None;
        }
    };
    Some(finding(severity, "account", problem, cure))
}

fn at(time: Option<i64>) -> String {
    time.map_or_else(String::new, |time| {
        format!(" ({})", minute(UnixMillis(time)))
    })
}

/// Ends that are near.
fn ends(facts: &Facts) -> Vec<Finding> {
    let Some(State { overview, keys }) = &facts.state else {
        return Vec::new();
    };
    let of_account = |view: &AccountView| {
        let end = UnixMillis(view.ends_at.filter(|_| view.ends_soon)?);
        let (name, left, at) = (&view.name, relative(end, facts.now), minute(end));
        let problem = format!("account {name} ends for good {left} ({at})");
        Some(finding(Wrong, "end", problem, later_end(view)))
    };
    let of_key = |key: &KeyView| {
        let KeyState::InUse { until: Some(end) } = key.state else {
            return None;
        };
        if end.since(facts.now) > SOON {
            return None;
        }
        let (name, left) = (&key.name, relative(end, facts.now));
        let cure = format!(
            "move its end: refresher keys set {} --expires TIME",
            shell_word(name)
        );
        Some(finding(
            Note,
            "end",
            format!("client key {name} ends {left}"),
            cure,
        ))
    };
    let accounts = overview.accounts.iter().filter(|view| view.usable);
    accounts
        .filter_map(of_account)
        .chain(keys.iter().filter_map(of_key))
        .collect()
}

fn is_in_use(key: &KeyView) -> bool {
    matches!(key.state, KeyState::InUse { .. })
}

/// Keys that nobody serves.
fn keys(facts: &Facts) -> Vec<Finding> {
    let Some(State { overview, keys }) = &facts.state else {
        return Vec::new();
    };
    if !keys.iter().any(is_in_use) {
        return vec![finding(
            Wrong,
            "key",
            "there is no client key that callers could present",
            "make one: refresher keys create NAME",
        )];
    }
    let of = |key: &KeyView| {
        let pool = overview.pools.iter().find(|pool| pool.id == key.pool)?;
        let members = members(pool, &overview.accounts);
        if members.iter().any(|view| view.usable) {
            return None;
        }
        let (name, id) = (&key.name, &pool.id);
        let (why, cure) = match members.is_empty() {
            true => (
                "has no account".to_owned(),
                format!("add one: refresher pools add {} ACCOUNT", shell_word(id)),
            ),
            false => {
                let of = members
                    .iter()
                    .map(|view| format!("{} {}", view.name, word_of(view)));
                let why = format!(
                    "has none that can serve: {}",
                    of.collect::<Vec<_>>().join(", ")
                );
                (why, "see: refresher status".to_owned())
            }
        };
        Some(finding(
            Wrong,
            "key",
            format!("client key {name} is served by nobody: its pool {id} {why}"),
            cure,
        ))
    };
    keys.iter()
        .filter(|key| is_in_use(key))
        .filter_map(of)
        .collect()
}

fn members<'a>(pool: &Pool, accounts: &'a [AccountView]) -> Vec<&'a AccountView> {
    let is_member = |view: &&AccountView| pool.members.iter().any(|one| one.account == view.name);
    accounts.iter().filter(is_member).collect()
}

/// Pools that nobody needs yet, and that could serve nobody.
fn pools(facts: &Facts) -> Vec<Finding> {
    let state = facts.state.iter();
    let empty = state.flat_map(|state| &state.overview.pools);
    let empty = empty
        .filter(|pool| pool.members.is_empty() && pool.keys.is_empty() && pool.id != "default");
    let of = |pool: &Pool| {
        let id = shell_word(&pool.id);
        finding(
            Note,
            "pool",
            format!("pool {} has no account", pool.id),
            format!("refresher pools add {id} ACCOUNT; or refresher pools remove {id}"),
        )
    };
    empty.map(of).collect()
}

fn platforms_reached(facts: &Facts) -> Vec<Finding> {
    let of = |host: &crate::app::doctor::Host| {
        let why = host.ahead_ms.as_ref().err()?;
        Some(finding(
            Wrong,
            "network",
            format!("{} does not answer from here: {why}", host.name),
            "see to this machine's DNS, firewall and proxy; or, where it has none to the network, refresher doctor --offline",
        ))
    };
    facts.hosts.iter().filter_map(of).collect()
}

fn unconfirmed(facts: &Facts) -> Vec<Finding> {
    let gate = facts
        .envoy
        .as_ref()
        .and_then(|envoy| envoy.max_unconfirmed_seconds);
    only((gate == Some(0)).then(|| {
        finding(
            Note,
            "unconfirmed",
            "while `refresher serve` is down, Envoy goes on with keys and accounts that were taken away meanwhile, without end",
            "where that matters, set max_unconfirmed_seconds of the gate (docs/configuration.md)",
        )
    }))
}
