//! Checks of what Latchkey runs on: files, the disk, `serve`, Envoy and the filter in it.

use std::path::{Path, PathBuf};

use super::super::Finding;
use super::super::Severity::{Broken, Note, Wrong};
use super::{finding, only};
use crate::advice::{Door, OF_ONE_BUILD, RESTART, cure, shell_word};
use crate::app::Error;
use crate::app::doctor::{Facts, Gateway, OpenState, SocketState, Space, Unread};
use crate::envoy::filter_file::Found;
use crate::fault::Fault;
use crate::progress::EnvoyView;
use crate::standing::Standing;

/// A disk with less room than that is full in a moment.
const NO_ROOM: u64 = 64 * 1024 * 1024;
/// A disk with less room than that, and less than a twentieth of its own, is nearly full.
const LITTLE_ROOM: u64 = 1024 * 1024 * 1024;
/// A clock that is wrong by more has tokens end too early or too late.
const CLOCK_LIMIT_MS: i64 = 60_000;
/// `serve`, as a shell takes it.
const SERVE: &str = "start it: refresher serve";

/// Files, folders, profiles, and a state that does not open: each has its cure already.
pub(super) fn faults(facts: &Facts) -> Vec<Finding> {
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
                "correct that line; to try a profile before it is used, run: refresher platforms check FILE".to_owned(),
            ),
            fault => cure(Door::CommandLine, fault),
        },
    }
    };
    let told = facts
        .faults
        .iter()
        .filter(|error| !goes_with_the_directory(facts, error));
    told.map(of).collect()
}

/// True for a file of the user whose the whole state directory is: that is told once, of the directory.
fn goes_with_the_directory(facts: &Facts, error: &Error) -> bool {
    let foreign = |error: &Error| match &error.fault {
        Fault::ForeignOwner { path, owner, .. } => Some((path.clone(), owner.clone())),
        _ => None,
    };
    let directory = facts
        .state_dir
        .as_ref()
        .map(|path| path.display().to_string());
    let is_it = |path: &str| directory.as_deref() == Some(path);
    let mut all = facts.faults.iter().filter_map(foreign);
    let theirs = all.find(|(path, _)| is_it(path)).map(|(_, owner)| owner);
    foreign(error).is_some_and(|(path, owner)| !is_it(&path) && Some(owner) == theirs)
}

pub(super) fn disk(facts: &Facts) -> Vec<Finding> {
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

pub(super) fn serve(facts: &Facts) -> Vec<Finding> {
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

pub(super) fn socket(facts: &Facts) -> Vec<Finding> {
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
pub(super) fn clock(facts: &Facts) -> Vec<Finding> {
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
pub(super) fn clusters_file(facts: &Facts) -> Vec<Finding> {
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
        // That tells itself, by its account.
        () if !file.missing.is_empty() && has_new_platform(facts) => return Vec::new(),
        () if !file.missing.is_empty() => format!(
            "envoy/clusters.json lacks {}: its accounts serve nobody",
            file.missing.join(", ")
        ),
        () if !file.stale.is_empty() => format!(
            "envoy/clusters.json is out of date for {}",
            file.stale.join(", ")
        ),
        () => return Vec::new(),
    };
    let cure = match facts.daemon.runs {
        true => RESTART,
        false => SERVE,
    };
    vec![finding(Wrong, "clusters", problem, cure)]
}

/// True where `serve` does not know the platform of an account yet.
fn has_new_platform(facts: &Facts) -> bool {
    let accounts = facts
        .state
        .iter()
        .flat_map(|state| &state.overview.accounts);
    let mut standings = accounts.map(|view| view.standing);
    standings.any(|standing| standing == Standing::PlatformNew)
}

pub(super) fn filter(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut sums = Vec::new();
    let is_elsewhere = is_elsewhere(facts);
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
                OF_ONE_BUILD,
            )),
            Err(Unread::Refused(error)) => found.push(Finding {
                severity: Wrong,
                check: "permissions",
                problem: format!("the filter, which sees every credential: {error}"),
                cure: cure(Door::CommandLine, &error.fault),
            }),
            Err(Unread::Gone(_)) if is_elsewhere => {}
            Err(Unread::Gone(why)) => found.push(finding(
                Wrong,
                "filter",
                format!(
                    "the filter {shown}{} cannot be read: {why}",
                    match facts.clusters.filter.as_ref() == Some(path) {
                        true => ", which envoy/clusters.json names,",
                        false => "",
                    }
                ),
                "build it (make build), and start `refresher serve` again with its path as Envoy sees it: refresher serve \
                 --wasm FILE",
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
    if facts.envoy.as_ref().is_some_and(|envoy| envoy.is_split) {
        found.push(finding(
            Broken,
            "filter",
            "the gate and the clusters allow the filter different things, so that each has VMs of its own, which share nothing",
            "copy capability_restriction_config of envoy/envoy.yaml into the gate's vm_config and restart Envoy; one before 1.40 \
             has it beside vm_config, and `version` of [envoy] in config.toml says so",
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

/// True where Envoy sees other files than we do, as in another container: none of its filters is here then.
fn is_elsewhere(facts: &Facts) -> bool {
    let is_polled = facts.state.as_ref().is_some_and(polls);
    is_polled && !facts.filters.is_empty() && facts.filters.iter().all(is_gone)
}

/// True for a filter's file that nobody here can read.
fn is_gone((_, found): &(PathBuf, Result<Found, Unread>)) -> bool {
    matches!(found, Err(Unread::Gone(_)))
}

/// Certificates that others may write: they say who a platform is.
pub(super) fn trusted_ca(facts: &Facts) -> Vec<Finding> {
    only(
        facts
            .trusted_ca
            .as_ref()
            .err()
            .filter(|_| !is_elsewhere(facts))
            .map(|error| Finding {
                severity: Wrong,
                check: "permissions",
                problem: format!("trusted_ca, which Envoy knows platforms by: {error}"),
                cure: cure(Door::CommandLine, &error.fault),
            }),
    )
}

pub(super) fn browser(facts: &Facts) -> Vec<Finding> {
    let of = |error: &Error| Finding {
        severity: Wrong,
        check: match error.fault {
            Fault::Failed => "configuration",
            _ => "permissions",
        },
        problem: error.to_string(),
        cure: cure(Door::CommandLine, &error.fault).or_else(|| {
            Some("name another `browser` in config.toml, or take that line out".to_owned())
        }),
    };
    facts.browser.as_ref().err().map(of).into_iter().collect()
}

/// The beginning of a sum.
fn beginning(sum: &str) -> &str {
    sum.get(..12).unwrap_or(sum)
}

/// True where an Envoy polls.
fn polls(state: &OpenState) -> bool {
    let mut envoys = state.overview.envoys.iter();
    envoys.any(|envoy| envoy.gone_seconds.is_none())
}

pub(super) fn other_on_the_port(facts: &Facts) -> Vec<Finding> {
    let at = facts.gateway_at;
    let is_ours = facts
        .envoy
        .as_ref()
        .is_some_and(|envoy| envoy.ports.contains(&at.port()));
    let polled = facts.state.as_ref().is_some_and(polls);
    let cure = "look who listens there: ss -ltnp; or say where callers connect: refresher doctor --gateway ADDRESS";
    only(match facts.gateway {
        _ if is_ours => None,
        Gateway::Nothing if facts.is_gateway_named || (!polled && facts.envoy.is_none()) => {
            Some(finding(
                Wrong,
                "port",
                format!("nothing answers at {at}: callers who connect there are refused"),
                "start Envoy; or say where callers connect: refresher doctor --gateway ADDRESS",
            ))
        }
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
            format!("another program answers at {at}, not a gateway of Latchkey's"),
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

/// Nothing else tells of it until a platform is out of reach.
pub(super) fn escape(facts: &Facts) -> Vec<Finding> {
    let is_polled = facts.state.as_ref().is_some_and(polls);
    only((is_polled && facts.escape == Some(false)).then(|| {
        finding(
            Broken,
            "escape",
            "Envoy's escape listener does not answer: a request whose platform cannot be reached goes to no other account",
            "restart Envoy. Run one Envoy on a state directory: a second one takes the first one's sockets",
        )
    }))
}

pub(super) fn envoys(facts: &Facts) -> Vec<Finding> {
    let Some(OpenState { overview, .. }) = &facts.state else {
        return Vec::new();
    };
    // A new one that took its place may have its node's name, before it ended as well.
    let is_replaced = |gone: &EnvoyView| {
        let mut others = overview.envoys.iter();
        gone.node.is_some()
            && others.any(|other| other.gone_seconds.is_none() && other.node == gone.node)
    };
    let named = |envoy: &EnvoyView| {
        let name = envoy.node.as_ref().unwrap_or(&envoy.instance).clone();
        if let Some(seconds) = envoy.gone_seconds.filter(|_| is_replaced(envoy)) {
            return Some(finding(
                Note,
                "envoy",
                format!(
                    "an Envoy {name} has not polled for {seconds} s, and another of that name does"
                ),
                "do nothing if that one replaced it; else start it again, and give each Envoy its own node id",
            ));
        }
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

pub(super) fn clusters_in_envoy(facts: &Facts) -> Vec<Finding> {
    let Some(envoy) = &facts.envoy else {
        return Vec::new();
    };
    let lacks = facts.clusters.names.difference(&envoy.clusters);
    let lacks: Vec<&str> = lacks.map(String::as_str).collect();
    // Envoy refuses clusters whose filter it does not find, which `filter` tells.
    let named = facts.clusters.filter.as_ref();
    let mut unread = facts.filters.iter().filter(|filter| is_gone(filter));
    if unread.any(|(path, _)| Some(path) == named) {
        return Vec::new();
    }
    only((!lacks.is_empty()).then(|| {
        finding(
            Wrong,
            "clusters",
            format!("Envoy has not taken over {} of envoy/clusters.json", lacks.join(", ")),
            "have Envoy read that file (dynamic_resources of envoy/envoy.yaml); its log says what it refused. Where an \
             account has a proxy, Envoy needs bootstrap_extensions and the listener latchkey_egress of that file too",
        )
    }))
}
