//! Each check on facts made up for it, and all of them as a person reads them (`snapshots/doctor.snap`).

use std::path::PathBuf;
use std::time::Duration;

use latchkey::snapshot::{Kind, Models, Policy};

use super::checks::CHECKS;
use super::*;
use crate::app;
use crate::app::doctor::{
    Admin, ClustersRead, Daemon, Gateway, Host, OpenState, SocketState, Space, Unread,
};
use crate::app::keys::{KeyView, State as KeyState};
use crate::app::limits::Limits;
use crate::app::status::{AccountView, FailingView, Overview};
use crate::clock::UnixMillis;
use crate::envoy::filter_file::Found;
use crate::failing::{Failing, Failure};
use crate::fault::Fault;
use crate::progress::EnvoyView;
use crate::standing::Standing;
use crate::store::{LeftOut, Pool, PoolMember, Status};

/// 2026-09-21T14:13:20Z
const NOW: UnixMillis = UnixMillis(1_790_000_000_000);
const DAY: i64 = 24 * 60 * 60 * 1_000;

fn account(name: &str, standing: Standing) -> AccountView {
    AccountView {
        needs_secrets: false,
        id: format!("acc_{name}"),
        name: name.to_owned(),
        platform: "codex".to_owned(),
        base_url: None,
        proxy: None,
        kind: "oauth",
        status: Status::Active,
        usable: standing == Standing::Active,
        pools: vec!["default".to_owned()],
        models: Models::default(),
        maps: latchkey::snapshot::ModelMaps::default(),
        reason: Some("the token endpoint says invalid_grant".to_owned()),
        login_url: None,
        login_port: None,
        generation: 1,
        credential_expires_at: None,
        expires_at: None,
        ends_at: None,
        ends_soon: false,
        next_refresh_at: None,
        failures: 0,
        failing: None,
        cooling_down: Vec::new(),
        quota: Vec::new(),
        quota_at: None,
        limits: Limits::default(),
        is_suspected: false,
        is_spent: false,
        standing,
    }
}

/// An account whose refreshes have failed for so many seconds, and that a person should look at.
fn failing(name: &str, standing: Standing, how: Failure, seconds: u64) -> AccountView {
    let since = NOW.minus(Duration::from_secs(seconds));
    AccountView {
        failures: 9,
        failing: Some(FailingView {
            failing: Failing::noted(None, how, "HTTP 403", since),
            stuck: true,
        }),
        credential_expires_at: Some(NOW.0 + 180_000),
        ..account(name, standing)
    }
}

fn key(name: &str, pool: &str) -> KeyView {
    KeyView {
        id: format!("key_{name}"),
        name: name.to_owned(),
        prefix: "lk_a".to_owned(),
        pool: pool.to_owned(),
        models: Models::default(),
        demands: latchkey::dialect::Demands::default(),
        rules: crate::store::Rules::default(),
        may_choose_account: false,
        may_choose_pools: Vec::new(),
        created_at: NOW.0,
        revoked_at: None,
        expires_at: None,
        limits: Limits::default(),
        state: KeyState::InUse { until: None },
    }
}

fn pool(id: &str, members: &[&str], keys: &[&str]) -> Pool {
    let member = |name: &&str| PoolMember {
        account: (*name).to_owned(),
        weight: 1.try_into().unwrap(),
        tier: 0.try_into().unwrap(),
    };
    Pool {
        rules: crate::store::Rules::default(),
        id: id.to_owned(),
        policy: Policy::Sticky,
        members: members.iter().map(member).collect(),
        keys: keys.iter().map(|key| (*key).to_owned()).collect(),
    }
}

fn envoy() -> EnvoyView {
    EnvoyView {
        instance: "a".repeat(32),
        node: Some("edge".to_owned()),
        revision: 7,
        unread: 0,
        behind_seconds: None,
        why: None,
        gone_seconds: None,
    }
}

/// An installation at which nothing is wrong.
fn well() -> Facts {
    let overview = Overview {
        is_served: true,
        is_answered: true,
        revision: 7,
        waiting_key: None,
        accounts: vec![account("alice", Standing::Active)],
        pools: vec![pool("default", &["alice"], &["laptop"])],
        left_out: Vec::new(),
        envoys: vec![envoy()],
    };
    let filter = PathBuf::from("/etc/latchkey/latchkey.wasm");
    Facts {
        now: NOW,
        state_dir: Some("/state".into()),
        gateway_at: app::doctor::USUAL_GATEWAY,
        is_gateway_named: false,
        faults: Vec::new(),
        space: Some(Space {
            free: 1 << 40,
            total: 1 << 41,
        }),
        daemon: Daemon {
            runs: true,
            ran: true,
            socket: SocketState::There { mode: 0o600 },
            answers: true,
        },
        state: Some(OpenState {
            overview,
            keys: vec![key("laptop", "default")],
        }),
        envoy: Some(Admin {
            uptime_seconds: Some(60),
            filters: [filter.clone()].into(),
            clusters: ["latchkey-codex".to_owned()].into(),
            ports: [8080].into(),
            max_unconfirmed_seconds: Some(60),
            is_split: false,
        }),
        clusters: ClustersRead {
            is_there: true,
            missing: Vec::new(),
            stale: Vec::new(),
            names: ["latchkey-codex".to_owned()].into(),
            filter: Some(filter.clone()),
        },
        filters: vec![(filter, Ok(Found::Same("ab".repeat(32))))],
        is_older_copy: false,
        unknown_terms: Vec::new(),
        not_taken: Vec::new(),
        trusted_ca: Ok(()),
        browser: Ok(()),
        is_filter_newer: false,
        escape: Some(true),
        gateway: Gateway::Ours,
        hosts: vec![Host {
            name: "chatgpt.com".to_owned(),
            account: "alice".to_owned(),
            is_address: false,
            ahead_ms: Ok(Some(-900)),
        }],
    }
}

/// The state of these facts, to be changed.
fn state(facts: &mut Facts) -> &mut OpenState {
    facts.state.as_mut().unwrap()
}

/// Breaks an installation in one way.
type Break = fn(&mut Facts);

/// Ways to break an installation, by what is broken. Each is found by a check, and each check finds one.
const BROKEN: &[(&str, Break)] = &[
    ("a file that others read", |facts| {
        let fault = Fault::LaxMode {
            path: "/state/key".to_owned(),
            wanted: "600".to_owned(),
        };
        let sentence = "/state/key: its mode is 0644, so other users can reach it";
        facts.faults.push(app::Error::new(fault, sentence));
    }),
    ("somebody else's installation", |facts| {
        for path in ["/state", "/state/run", "/state/latchkey.db"] {
            let fault = Fault::ForeignOwner {
                path: path.to_owned(),
                owner: "latchkey".to_owned(),
                user: 0,
            };
            let sentence = format!(
                "{path}: it belongs to user latchkey (999), not to user root (0) who runs this"
            );
            facts.faults.push(app::Error::new(fault, sentence));
        }
    }),
    ("a profile", |facts| {
        let sentence = "/etc/latchkey/platforms/own.toml:3: upstream.base_url: expected https";
        let error = app::Error::new(Fault::Misconfigured, sentence);
        facts.faults.push(error);
    }),
    ("another key, and so no state", |facts| {
        let sentence = "/state/latchkey.db is sealed with another key";
        facts
            .faults
            .push(app::Error::new(Fault::WrongKey, sentence));
        facts.state = None;
    }),
    (
        "a database of an earlier release, and so no state",
        |facts| {
            let sentence = "/state/latchkey.db: an earlier release made it, and this release cannot read \
                            it before it has converted it";
            let error = app::Error::new(Fault::OlderDatabase, sentence);
            facts.faults.push(error);
            facts.state = None;
        },
    ),
    ("certificates that others may write", |facts| {
        let fault = Fault::LaxMode {
            path: "/etc/own/ca.pem".to_owned(),
            wanted: "go-w".to_owned(),
        };
        let sentence = "/etc/own/ca.pem: its mode is 0666, so other users can change what is there";
        facts.trusted_ca = Err(app::Error::new(fault, sentence));
    }),
    ("a browser that others may write", |facts| {
        let fault = Fault::LaxMode {
            path: "/opt/own/chrome".to_owned(),
            wanted: "go-w".to_owned(),
        };
        let sentence = "the browser is not run: /opt/own/chrome: its mode is 0777, so other users can change what is there";
        facts.browser = Err(app::Error::new(fault, sentence));
    }),
    ("a browser that is not there", |facts| {
        let sentence = "/opt/own/chrome: cannot run it: there is no such file or folder";
        facts.browser = Err(app::Error::new(Fault::Failed, sentence));
    }),
    ("a full disk", |facts| {
        facts.space = Some(Space {
            free: 1 << 20,
            total: 1 << 40,
        });
    }),
    ("a disk that is nearly full", |facts| {
        facts.space = Some(Space {
            free: 1 << 29,
            total: 1 << 40,
        });
    }),
    ("serve does not run", |facts| {
        facts.daemon.runs = false;
        facts.daemon.answers = false;
    }),
    ("serve hangs", |facts| facts.daemon.answers = false),
    ("the socket was taken away", |facts| {
        facts.daemon.socket = SocketState::Missing
    }),
    ("no socket", |facts| {
        facts.daemon.socket = SocketState::Other
    }),
    ("a socket for all", |facts| {
        facts.daemon.socket = SocketState::There { mode: 0o666 }
    }),
    ("a wrong clock", |facts| {
        facts.hosts[0].ahead_ms = Ok(Some(-3_600_000))
    }),
    ("no file of clusters", |facts| {
        facts.clusters = ClustersRead::default()
    }),
    ("a file of clusters that lacks one", |facts| {
        facts.clusters.missing.push("latchkey-openai".to_owned());
    }),
    ("a file of clusters of another configuration", |facts| {
        facts.clusters.stale.push("latchkey-codex".to_owned());
        facts.daemon.runs = false;
    }),
    ("another filter than was built", |facts| {
        facts.filters[0].1 = Ok(Found::Other {
            expected: "ab".repeat(32),
            found: "cd".repeat(32),
        });
    }),
    ("no filter, and no Envoy that polls", |facts| {
        facts.filters[0].1 = Err(Unread::Gone("there is no such file or folder".to_owned()));
        state(facts).overview.envoys.clear();
    }),
    (
        "clusters whose filter is not there, while Envoy polls",
        |facts| {
            let gone = PathBuf::from("/opt/latchkey.wasm");
            facts.clusters.filter = Some(gone.clone());
            facts.filters.push((
                gone,
                Err(Unread::Gone("there is no such file or folder".to_owned())),
            ));
            facts.envoy.as_mut().unwrap().clusters.clear();
        },
    ),
    (
        "a filter that others may write, while Envoy polls",
        |facts| {
            let fault = Fault::LaxMode {
                path: "/etc/latchkey/latchkey.wasm".to_owned(),
                wanted: "go-w".to_owned(),
            };
            let sentence = "/etc/latchkey/latchkey.wasm: its mode is 0666, so other users can change what is there";
            facts.filters[0].1 = Err(Unread::Refused(app::Error::new(fault, sentence)));
        },
    ),
    ("two filters", |facts| {
        let other = Ok(Found::WithoutSum("cd".repeat(32)));
        facts.filters.push(("/opt/latchkey.wasm".into(), other));
    }),
    ("a gate that its clusters' list is not in", |facts| {
        facts.envoy.as_mut().expect("it answers").is_split = true;
    }),
    ("a filter that Envoy has not loaded", |facts| {
        facts.is_filter_newer = true
    }),
    ("something else on the port", |facts| {
        facts.gateway = Gateway::Other;
        facts.envoy = None;
        state(facts).overview.envoys.clear();
    }),
    ("nothing on the port, and no Envoy", |facts| {
        facts.gateway = Gateway::Nothing;
        facts.envoy = None;
        state(facts).overview.envoys.clear();
    }),
    ("the gateway of another refresher", |facts| {
        facts.envoy = None;
        state(facts).overview.envoys.clear();
    }),
    ("a gateway that is not ready", |facts| {
        facts.gateway = Gateway::NotReady;
        facts.envoy = None;
    }),
    ("an escape whose socket another Envoy took", |facts| {
        facts.escape = Some(false);
    }),
    ("an Envoy that is gone", |facts| {
        state(facts).overview.envoys[0].gone_seconds = Some(90);
    }),
    ("an Envoy that another one of its name replaced", |facts| {
        let mut gone = envoy();
        gone.instance = "b".repeat(32);
        gone.gone_seconds = Some(38);
        state(facts).overview.envoys.push(gone);
    }),
    ("an Envoy that stays behind", |facts| {
        let envoy = &mut state(facts).overview.envoys[0];
        envoy.behind_seconds = Some(9);
        envoy.why = Some("it holds revision 6 of 7".to_owned());
    }),
    ("a cluster that Envoy lacks", |facts| {
        facts.envoy.as_mut().unwrap().clusters.clear();
    }),
    ("a record that cannot go out", |facts| {
        state(facts).overview.left_out.push(LeftOut {
            kind: Kind::Account,
            id: "acc_1".to_owned(),
            why: "its credential cannot be opened".to_owned(),
        });
    }),
    ("a platform that something else has written", |facts| {
        state(facts).overview.left_out.push(LeftOut {
            kind: Kind::Platform,
            id: "openai".to_owned(),
            why: crate::store::Error::NotPublished.to_string(),
        });
    }),
    ("a rotation that was not finished", |facts| {
        let id = crate::keys::seal::Key::new(&[7; 32]).id();
        state(facts).overview.waiting_key = Some(id);
    }),
    ("an older copy, in which a token is spent", |facts| {
        facts.is_older_copy = true;
        let mut bob = account("bob", Standing::Active);
        bob.is_spent = true;
        bob.credential_expires_at = Some(NOW.0 + DAY);
        bob.reason = Some(crate::store::SPENT.to_owned());
        add(facts, bob);
    }),
    ("no account", |facts| {
        let state = state(facts);
        state.overview.accounts.clear();
        state.overview.pools = vec![pool("default", &[], &["laptop"])];
    }),
    ("a login that ended", |facts| {
        add(facts, account("bob", Standing::NeedsLogin))
    }),
    ("a login that ended and waits", |facts| {
        let mut bob = account("bob", Standing::NeedsLogin);
        bob.login_url = Some("https://auth.example.com/authorize?state=s".to_owned());
        bob.login_port = Some(1455);
        add(facts, bob);
    }),
    ("a dead account", |facts| {
        add(facts, account("bob", Standing::Dead))
    }),
    ("a platform that is off", |facts| {
        add(facts, account("bob", Standing::PlatformOff))
    }),
    ("a platform that serve does not know yet", |facts| {
        let mut bob = account("bob", Standing::PlatformNew);
        bob.platform = "openai".to_owned();
        bob.reason = Some("the running refresher does not know its platform yet".to_owned());
        add(facts, bob);
        facts.clusters.missing.push("latchkey-openai".to_owned());
    }),
    (
        "a platform whose name is misspelt where it is acknowledged",
        |facts| {
            facts.unknown_terms.push("codx".to_owned());
        },
    ),
    (
        "accounts of the configuration that are not taken",
        |facts| {
            let reasons = [
                Some("there is an account of that name already, which config.toml did not make"),
                None,
            ];
            for (name, why) in ["batch", "night"].into_iter().zip(reasons) {
                facts.not_taken.push(app::declared::NotTaken {
                    account: name.to_owned(),
                    why: why.map(str::to_owned),
                });
            }
        },
    ),
    ("an account past its end", |facts| {
        let mut bob = account("bob", Standing::Ended);
        bob.expires_at = Some(NOW.0 - DAY);
        add(facts, bob);
    }),
    ("a token that expired", |facts| {
        add(facts, account("bob", Standing::TokenExpired))
    }),
    ("an account that may be dead", |facts| {
        let mut bob = account("bob", Standing::Active);
        bob.is_suspected = true;
        add(facts, bob);
    }),
    ("a token that expired and is not renewed", |facts| {
        let mut bob = failing("bob", Standing::TokenExpired, Failure::Unreached, 30);
        bob.failing.as_mut().unwrap().stuck = false;
        add(facts, bob);
    }),
    ("refreshes that fail for a moment", |facts| {
        let mut bob = failing("bob", Standing::Active, Failure::Troubled, 30);
        bob.failing.as_mut().unwrap().stuck = false;
        bob.next_refresh_at = Some(NOW.0 + 60_000);
        add(facts, bob);
    }),
    ("refreshes that fail for long", |facts| {
        for (name, how) in ["bob", "carol", "dave"].into_iter().zip(Failure::ALL) {
            add(facts, failing(name, Standing::Active, how, 7_200));
        }
    }),
    (
        "a client's refreshes that are refused, past the end",
        |facts| {
            let mut bob = failing("bob", Standing::TokenExpired, Failure::Refused, 120);
            bob.credential_expires_at = Some(NOW.0 - 60_000);
            bob.needs_secrets = true;
            add(facts, bob);
        },
    ),
    ("a login that ends for good", |facts| {
        let alice = &mut state(facts).overview.accounts[0];
        alice.ends_at = Some(NOW.0 + 2 * DAY);
        alice.ends_soon = true;
    }),
    ("an end that the operator set", |facts| {
        let alice = &mut state(facts).overview.accounts[0];
        alice.expires_at = Some(NOW.0 + 2 * DAY);
        alice.ends_at = alice.expires_at;
        alice.ends_soon = true;
    }),
    ("a key that ends", |facts| {
        let until = Some(UnixMillis(NOW.0 + DAY));
        state(facts).keys[0].state = KeyState::InUse { until };
    }),
    ("no key", |facts| state(facts).keys.clear()),
    ("a pool without an account", |facts| {
        let state = state(facts);
        state.keys.push(key("ci", "spare"));
        state.overview.pools.push(pool("spare", &[], &["ci"]));
        state.overview.pools.push(pool("nobody's", &[], &[]));
    }),
    ("a pool of which nobody can serve", |facts| {
        add(facts, account("bob", Standing::Disabled));
        let state = state(facts);
        let names: Vec<String> = (1..=8).map(|number| format!("ci-{number}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        state
            .keys
            .extend(names.iter().map(|name| key(name, "spare")));
        state.overview.pools.push(pool("spare", &["bob"], &names));
    }),
    ("a platform out of reach", |facts| {
        facts.hosts[0].ahead_ms =
            Err("no connection to chatgpt.com: its name is not found".to_owned());
    }),
    ("a server of one's own that is down", |facts| {
        facts.hosts[0] = Host {
            name: "127.0.0.1:11434".to_owned(),
            account: "own".to_owned(),
            is_address: true,
            ahead_ms: Err("no connection to 127.0.0.1: connection refused".to_owned()),
        };
    }),
    ("withdrawals without a bound", |facts| {
        facts.envoy.as_mut().unwrap().max_unconfirmed_seconds = Some(0);
    }),
];

fn add(facts: &mut Facts, account: AccountView) {
    state(facts).overview.accounts.push(account);
}

#[test]
fn nothing_is_wrong_where_all_is_well() {
    let facts = well();
    assert_eq!(findings(&facts), []);
    assert_eq!(text(&[], &unseen(&facts)), "Nothing is wrong.\n");
}

/// Every kind of broken thing is found, has a cure, and stands as a person reads it.
#[test]
fn each_broken_thing_is_found_with_its_cure() {
    let mut transcript = String::new();
    let mut found_by = std::collections::BTreeSet::new();
    for (what, breaks) in BROKEN {
        let mut facts = well();
        breaks(&mut facts);
        let findings = findings(&facts);
        assert!(!findings.is_empty(), "{what}");
        for finding in &findings {
            assert!(finding.cure.is_some(), "{what}: {finding:?}");
            assert!(!finding.problem.ends_with('.'), "{what}: {finding:?}");
        }
        let checks = CHECKS.iter().enumerate();
        found_by.extend(
            checks.filter_map(|(number, check)| (!check(&facts).is_empty()).then_some(number)),
        );
        transcript += &format!("# {what}\n{}\n", text(&findings, &unseen(&facts)));
    }
    assert_eq!(
        found_by.len(),
        CHECKS.len(),
        "each check finds something here"
    );
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.set_snapshot_path("../snapshots");
    settings.bind(|| insta::assert_snapshot!("doctor", transcript));
}

#[test]
fn the_worst_comes_first_and_decides_the_exit_code() {
    let mut facts = well();
    facts.envoy.as_mut().unwrap().max_unconfirmed_seconds = Some(0);
    let doctor = Doctor {
        gateway: None,
        offline: true,
        json: Json { json: true },
    };
    let out = Out::new(std::io::sink(), std::io::sink());
    assert_eq!(
        doctor.tell(&facts, &out).unwrap(),
        Exit::Done,
        "a note is no fault"
    );
    state(&mut facts).keys.clear();
    facts.daemon.answers = false;
    let order: Vec<Severity> = findings(&facts).iter().map(|one| one.severity).collect();
    assert_eq!(order, [Severity::Broken, Severity::Wrong, Severity::Note]);
    assert_eq!(doctor.tell(&facts, &out).unwrap(), Exit::NeedsSomebody);
}

#[test]
fn a_gateway_is_named_as_people_write_it() {
    let usual = app::doctor::USUAL_GATEWAY;
    for text in [
        "127.0.0.1:8080",
        "localhost:8080",
        "http://127.0.0.1:8080",
        "http://localhost:8080/",
    ] {
        assert_eq!(address(text).unwrap(), usual, "{text}");
    }
    for text in [
        "",
        "localhost",
        "gateway.example.com:8080",
        "https://127.0.0.1:8080",
    ] {
        assert!(address(text).is_err(), "{text}");
    }
    let mut facts = well();
    facts.gateway = Gateway::Nothing;
    (facts.envoy, facts.is_gateway_named) = (None, false);
    let at_port = |facts: &Facts| findings(facts).iter().any(|one| one.check == "port");
    assert!(!at_port(&facts), "an Envoy polls, and may listen elsewhere");
    facts.is_gateway_named = true;
    assert!(at_port(&facts));
}
