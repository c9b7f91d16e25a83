//! The cost of a crash of the refresher at each point of a refresh, from before its claim to after Envoy has the news.
//!
//! A library that is loaded before the C library kills the daemon in the very call that would have made the next step
//! (`harness/kill.c`). What the page cache has outlives a killed process: only a machine that loses power could lose
//! tokens that were written and not yet brought to the disk.

use std::{
    fs,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    time::Duration,
};

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{
    Stack,
    caller::responses_body,
    eventually, holds, preload,
    refresher::Refresher,
    run,
    sim::Sim,
    stack::{ALICE, new_folder},
    wall_clock::WallClock,
};

const RESPONSES: &str = "/v1/responses";
const HOUR: Duration = Duration::from_secs(3600);
const LIMIT: Duration = Duration::from_secs(60);

/// The life of the access token that is refreshed.
const LIFE: Duration = Duration::from_secs(60);

/// The time after which a successor starts, by its clock: what the dead daemon had claimed has lapsed, and the access token has
/// ended, so that nothing is left but to send the refresh token.
const LATER_SECONDS: i64 = 2 * 60;

/// The behaviour of the platform with a refresh token that it has seen before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Server {
    /// It takes it for a stolen one.
    Strict,
    /// It gives the same tokens once more, for 30 s.
    Kind,
}

/// A kill, and what has to be there after it.
struct Kill {
    point: &'static str,
    server: Server,
    /// Of the account, in what the dead daemon left.
    generation: u64,
    /// True if nobody else may refresh the account until the dead daemon's claim lapses.
    claimed: bool,
    /// The number of calls to the token endpoint in all, those of the daemon's successor included.
    calls: usize,
    status: &'static str,
}

const fn kill(
    point: &'static str,
    server: Server,
    (generation, claimed): (u64, bool),
    (calls, status): (usize, &'static str),
) -> Kill {
    Kill {
        point,
        server,
        generation,
        claimed,
        calls,
        status,
    }
}

const KILLS: [Kill; 8] = [
    kill("claim", Server::Strict, (1, false), (1, "active")),
    kill("connect", Server::Strict, (1, true), (1, "active")),
    kill("answer", Server::Strict, (1, true), (2, "needs_login")),
    kill("answer", Server::Kind, (1, true), (2, "active")),
    kill("store", Server::Strict, (1, true), (2, "needs_login")),
    kill("store", Server::Kind, (1, true), (2, "active")),
    kill("sync", Server::Strict, (2, false), (1, "active")),
    kill("tell", Server::Strict, (2, false), (1, "active")),
];

/// A daemon that is killed in a refresh loses no login, and its successor makes the call that is due: none where new
/// tokens were written, one where none was made. Only between the token endpoint's answer and the disk are tokens lost
/// that exist nowhere else. Then the old one is sent once more and no further: the platform's word decides whether the
/// account goes on or needs a login.
#[test]
fn a_kill_at_each_point_of_a_refresh_costs_what_is_promised() {
    run(async {
        let (strict, kind) = tokio::join!(
            platform("kills-strict", Server::Strict),
            platform("kills-kind", Server::Kind)
        );
        let sim = |server| match server {
            Server::Strict => &strict,
            Server::Kind => &kind,
        };
        join_all(KILLS.iter().map(|kill| kill.happens(sim(kill.server)))).await;
        for server in [Server::Strict, Server::Kind] {
            let lost = |kill: &&Kill| kill.server == server && kill.status == "needs_login";
            let lost = KILLS.iter().filter(lost).count() as u64;
            assert_eq!(sim(server).count("reuse_detected").await, lost);
            let in_flight = sim(server).count("refresh_in_flight_max_per_family").await;
            assert_eq!(in_flight, 1, "{server:?}");
        }
    });
}

async fn platform(folder: &str, server: Server) -> Sim {
    let sim = Sim::start(&new_folder(folder)).await;
    let grace = if server == Server::Kind { 30 } else { 0 };
    let settings = json!({"grace_seconds": grace});
    sim.ask(Method::POST, "/settings", settings).await;
    sim
}

impl Kill {
    async fn happens(&self, sim: &Sim) {
        let Self { point, server, .. } = self;
        let case = format!("{point}-{server:?}");
        let mut victim = Victim::new(&case, sim).await;
        if *point == "answer" {
            victim.hold_answers(1).await;
            victim.refresher.serve().await;
            victim.report().await;
            victim.is_killed_in_call(1).await;
        } else {
            // Its start writes too.
            victim.refresher.serve().await;
            victim.killer.order(point);
            victim.report().await;
            let Victim {
                killer, refresher, ..
            } = &mut victim;
            killer.assert_killed(refresher, point).await;
        }

        let account = victim.account().await;
        assert_eq!(account["generation"], self.generation, "{case}: {account}");
        assert_eq!(account["status"], "active", "{case}: {account}");
        let told = victim.refresher.log_lines("refreshed", &victim.email);
        assert_eq!(told, 0, "{case}");
        let called = !matches!(*point, "claim" | "connect");
        assert_eq!(victim.calls().await, usize::from(called), "{case}");
        if self.claimed {
            let said = victim.refresh().await.expect_err("claimed");
            assert!(said.contains("another process"), "{case}: {said}");
        }

        victim.succeeded_later().await;
        let account = eventually(&case, LIMIT, async || {
            let account = victim.account().await;
            let settled = account["status"] == "needs_login" || account["generation"] == 2;
            settled.then(|| account.clone()).ok_or(account.to_string())
        })
        .await;
        let (status, calls) = (&account["status"], victim.calls().await);
        println!(
            "{case}: {status} after {calls} calls, {}",
            account["reason"]
        );
        assert_eq!((status, calls), (&self.status.into(), self.calls), "{case}");

        // A login that is there can be refreshed again; one that is lost is left alone.
        let again = victim.refresh().await;
        assert_eq!(again.is_ok(), self.status == "active", "{case}: {again:?}");
        let calls = calls + usize::from(again.is_ok());
        assert_eq!(victim.calls().await, calls, "{case}");
        victim.refresher.stop().await;
    }
}

/// A daemon that is killed in its call, and so is its successor: the token is not sent a third time, though the platform
/// would take it.
#[test]
fn a_kill_in_each_of_two_calls_ends_the_login() {
    run(async {
        let sim = platform("kills-twice-platform", Server::Kind).await;
        let mut victim = Victim::new("twice", &sim).await;
        victim.hold_answers(2).await;
        victim.refresher.serve().await;
        victim.report().await;
        victim.is_killed_in_call(1).await;
        victim.succeeded_later().await;
        victim.is_killed_in_call(2).await;
        victim.succeeded_later().await;
        let (refresher, email) = (&victim.refresher, &victim.email);
        refresher.becomes(email, "needs_login", LIMIT).await;
        let account = victim.account().await;
        let reason = account["reason"].as_str().unwrap_or_default();
        assert!(reason.contains("two calls went unanswered"), "{account}");
        victim.refresh().await.expect_err("nothing to refresh");
        assert_eq!(victim.calls().await, 2);
    });
}

/// A refresher whose only account is to be refreshed, and which is to be killed meanwhile.
struct Victim<'s> {
    sim: &'s Sim,
    refresher: Refresher,
    killer: Killer,
    clock: WallClock,
    email: String,
    id: Value,
}

impl<'s> Victim<'s> {
    async fn new(case: &str, sim: &'s Sim) -> Self {
        let folder = new_folder(&format!("kills-{case}"));
        let email = format!("{case}@example.com");
        let mut refresher = Refresher::new(&folder, sim);
        sim.add_user(&email, LIFE).await;
        refresher.import(sim, &email).await;
        sim.add_user(&email, HOUR).await;
        let id = refresher.account(&email).await["id"].clone();
        let killer = Killer::new(&folder, sim).await;
        killer.rules(&mut refresher);
        Self {
            sim,
            refresher,
            killer,
            clock: WallClock::new(&folder).await,
            email,
            id,
        }
    }

    /// Tells the daemon, as Envoy would, that the platform refused the first access token.
    async fn report(&self) {
        let socket = self.refresher.file("run/refresher.sock");
        let envoy = reqwest::Client::builder().unix_socket(socket).build();
        let report = json!({"kind": "unauthorized", "account": self.id, "generation": 1});
        let batch = json!({"batch": "0".repeat(32), "reports": [report]});
        let sent = envoy.expect("a client").post("http://refresher/reports");
        // It may be killed before it answers.
        sent.json(&batch).send().await.ok();
    }

    /// Has the platform rotate the token in so many calls and keep the answer to itself.
    async fn hold_answers(&self, calls: u32) {
        let held =
            json!({"target": "token", "account": self.email, "times": calls, "delay_ms": 60_000});
        self.sim.add_fault(held).await;
    }

    /// Kills the daemon when the platform has its call, the account's `number`th, and holds the answer.
    async fn is_killed_in_call(&mut self, number: usize) {
        eventually("the call is out", LIMIT, async || {
            let calls = self.calls().await;
            holds(calls == number, || calls.to_string())
        })
        .await;
        self.refresher.kill().await;
    }

    /// Starts the dead daemon's successor.
    async fn succeeded_later(&mut self) {
        self.clock.jump(LATER_SECONDS);
        self.clock.rules(&mut self.refresher);
        self.refresher.serve().await;
    }

    async fn account(&self) -> Value {
        self.refresher.account(&self.email).await
    }

    async fn calls(&self) -> usize {
        refreshes(self.sim, &self.email).await
    }

    async fn refresh(&self) -> Result<(), String> {
        refresh(&self.refresher, &self.email).await
    }
}

/// A daemon that is killed when new tokens are on disk and on their way to Envoy, which does not have them: the request
/// that waits for them is served once its successor is there. One that is killed later is not missed at all.
#[test]
fn a_kill_before_or_after_envoy_has_the_news_costs_no_request() {
    run(async {
        // How long the request waits is nothing that this is about: a busy machine takes its time for a daemon's start.
        let patient = |text: &str| {
            let shipped = "\"poll_wait_seconds\": 25";
            assert!(text.contains(shipped), "the shipped figure");
            text.replace(shipped, &format!("{shipped}, \"refresh_wait_seconds\": 60"))
        };
        let mut stack = Stack::real_edited("kills-publish", patient, async |sim, refresher| {
            refresher.log_in_new(sim, ALICE, HOUR).await;
        })
        .await;
        let caller = stack.caller("caller").await;
        stack.refresher.stop().await;
        let killer = Killer::new(&stack.folder, &stack.sim).await;
        killer.rules(&mut stack.refresher);
        stack.refresher.serve().await;
        assert_eq!(caller.post(RESPONSES, &responses_body()).await.status, 200);

        let held = stack.envoy.revision().await;
        killer.order("publish");
        revoke_access(&stack.sim).await;
        let body = responses_body();
        let restarted = async {
            killer.assert_killed(&mut stack.refresher, "publish").await;
            let account = stack.refresher.account(ALICE).await;
            assert_eq!(account["generation"], 2, "{account}");
            assert_eq!(stack.envoy.revision().await, held);
            stack.refresher.serve().await;
        };
        let (answer, ()) = tokio::join!(caller.post(RESPONSES, &body), restarted);
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(refreshes(&stack.sim, ALICE).await, 1);

        revoke_access(&stack.sim).await;
        let answer = caller.post(RESPONSES, &body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        stack.refresher.kill().await;
        assert_eq!(caller.post(RESPONSES, &body).await.status, 200);
        stack.refresher.serve().await;
        assert_eq!(stack.refresher.account(ALICE).await["generation"], 3);
        assert_eq!(refreshes(&stack.sim, ALICE).await, 2);
        refresh(&stack.refresher, ALICE).await.expect("a login");
        assert_eq!(stack.sim.count("reuse_detected").await, 0);
        assert_eq!(stack.envoy.crashes().await, 0);
    });
}

/// Has a daemon killed at a point of a refresh.
struct Killer {
    library: PathBuf,
    order: PathBuf,
    token_port: String,
}

impl Killer {
    async fn new(folder: &Path, sim: &Sim) -> Self {
        let (_, port) = sim.authority().rsplit_once(':').expect("a port");
        Self {
            library: preload::compile("kill", folder).await,
            order: folder.join("kill"),
            token_port: port.to_owned(),
        }
    }

    /// Makes what is started from here on obey.
    fn rules(&self, refresher: &mut Refresher) {
        refresher.set_variable("LD_PRELOAD", &self.library);
        refresher.set_variable("KILL_ORDER", &self.order);
    }

    /// From now on: at that point.
    fn order(&self, point: &str) {
        let staged = self.order.with_extension("new");
        fs::write(&staged, format!("{point} {}", self.token_port)).expect("written");
        fs::rename(staged, &self.order).expect("moved");
    }

    /// Waits until it has happened there.
    async fn assert_killed(&self, refresher: &mut Refresher, point: &str) {
        let status = refresher.ends(LIMIT).await;
        assert_eq!(status.signal(), Some(9), "{point}: {status}");
        let done = fs::read_to_string(self.order.with_extension("done"));
        let done = done.expect("the order was carried out");
        assert!(done.starts_with(point), "{point}: {done}");
    }
}

/// Has the account refreshed by hand; if that failed, what was said.
async fn refresh(refresher: &Refresher, email: &str) -> Result<(), String> {
    let output = refresher.try_run(&["refresh", email], "").await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    output.status.success().then_some(()).ok_or(said)
}

/// The number of refreshes that the platform was asked for.
async fn refreshes(sim: &Sim, email: &str) -> usize {
    let seen = sim.seen().await;
    let calls = seen.iter().filter(|seen| {
        seen.path() == "/oauth/token"
            && seen.account() == Some(email)
            && String::from_utf8_lossy(&seen.body()).contains("\"refresh_token\"")
    });
    calls.count()
}

async fn revoke_access(sim: &Sim) {
    let path = format!("/users/{ALICE}/revoke_access");
    sim.ask(Method::POST, &path, Value::Null).await;
}
