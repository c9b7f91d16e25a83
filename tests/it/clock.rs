use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{process::Command, time::sleep};

use crate::harness::{
    Load, Stack,
    caller::responses_body,
    program::output_of,
    run,
    sim::{Seen, Sim},
    source_root,
    stack::ALICE,
};

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;
/// Whose access tokens live so short that they end, and are replaced, between the jumps too.
const BOB: &str = "bob@example.com";
const SHORT_LIFE: Duration = Duration::from_secs(15);

/// A program's wall clock.
struct WallClock {
    shim: PathBuf,
    offset: PathBuf,
    seconds: i64,
}

impl WallClock {
    async fn new(folder: &Path) -> Self {
        let (shim, offset) = (folder.join("clock.so"), folder.join("clock-offset"));
        let mut compiler = Command::new("cc");
        compiler
            .args(["-shared", "-fPIC", "-O2", "-o"])
            .arg(&shim)
            .arg(source_root().join("tests/it/harness/clock.c"));
        let compiled = output_of(compiler, Duration::from_secs(60)).await;
        assert!(compiled.status.success(), "{compiled:?}");
        let mut clock = Self {
            shim,
            offset,
            seconds: 0,
        };
        clock.jump(0);
        clock
    }

    /// Moves it at once, by so many seconds.
    fn jump(&mut self, seconds: i64) {
        self.seconds += seconds;
        let nanoseconds = format!("{}", self.seconds * 1_000_000_000);
        let staged = self.offset.with_extension("new");
        fs::write(&staged, nanoseconds).expect("written");
        fs::rename(staged, &self.offset).expect("moved");
    }
}

/// How many refreshes of an account the platform has answered with new tokens.
async fn refreshes(sim: &Sim, email: &str) -> usize {
    let seen = sim.seen().await;
    let is_refresh = |seen: &&Seen| {
        seen.path() == "/oauth/token"
            && seen.account() == Some(email)
            && seen.0["status"] == 200
            && String::from_utf8_lossy(&seen.body()).contains("refresh_token")
    };
    seen.iter().filter(is_refresh).count()
}

/// The machine's clock jumps by an hour, by weeks, and back, and in the end is right again: each login is refreshed once
/// at most for that, none is lost, and no caller notices. What the program takes for the time is really another one, as
/// after a wrong set-up or a machine that slept, and the platform's clock is right all along.
#[test]
fn a_clock_that_jumps_costs_no_login_and_no_request() {
    const WINDOW: Duration = Duration::from_secs(8);
    run(async {
        let mut stack = Stack::real("clock", async |sim, refresher| {
            for (email, life) in [(ALICE, Duration::from_secs(3600)), (BOB, SHORT_LIFE)] {
                refresher.log_in_new(sim, email, life).await;
            }
        })
        .await;
        let mut clock = WallClock::new(&stack.folder).await;
        stack.refresher.stop().await;
        stack.refresher.set_variable("LD_PRELOAD", &clock.shim);
        stack.refresher.set_variable("CLOCK_OFFSET", &clock.offset);
        stack.refresher.serve().await;
        let load = Load::start(
            stack.caller("load").await,
            "/v1/responses",
            responses_body(),
            20,
        );

        for (number, jump) in [HOUR, 40 * DAY, -HOUR, -DAY, DAY - 40 * DAY]
            .into_iter()
            .enumerate()
        {
            let before = (
                refreshes(&stack.sim, ALICE).await,
                refreshes(&stack.sim, BOB).await,
            );
            clock.jump(jump);
            sleep(WINDOW).await;
            let of_alice = refreshes(&stack.sim, ALICE).await - before.0;
            let of_bob = refreshes(&stack.sim, BOB).await - before.1;
            println!("{jump} s: {of_alice} refreshes of Alice's login, {of_bob} of Bob's");
            // An hour ahead, her token seems to have ended: so it is known that the clock did jump.
            let expected = if number < 2 { 1..=1 } else { 0..=1 };
            assert!(expected.contains(&of_alice), "{jump} s: {of_alice}");
            // One for the jump, one because it was time.
            assert!(of_bob <= 2, "{jump} s: {of_bob}");
        }
        assert_eq!(clock.seconds, 0);

        // What was learned under the wrong clock has ended.
        sleep(2 * SHORT_LIFE).await;
        let expired = stack.sim.count("expired_token_uses").await;
        let before = refreshes(&stack.sim, BOB).await;
        sleep(3 * SHORT_LIFE).await;
        let of_bob = refreshes(&stack.sim, BOB).await - before;
        assert!(
            (2..=4).contains(&of_bob),
            "{of_bob} refreshes in {:?}",
            3 * SHORT_LIFE
        );
        assert_eq!(stack.sim.count("expired_token_uses").await, expired);

        load.assert_all_good(1_000).await;
        for account in stack.refresher.accounts().await {
            assert_eq!(account["status"], "active", "{account}");
            assert_eq!(account["failures"], 0, "{account}");
        }
        assert_eq!(stack.sim.count("reuse_detected").await, 0);
        assert_eq!(stack.sim.count("refresh_in_flight_max_per_family").await, 1);
        assert_eq!(stack.envoy.crashes().await, 0);
    });
}
