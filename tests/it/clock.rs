use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::harness::{
    Load, Stack,
    caller::responses_body,
    eventually, holds, run,
    sim::{Seen, Sim},
    stack::ALICE,
    wall_clock::WallClock,
};

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;
/// Whose access tokens live so short that they end, and are replaced, between the jumps too.
const BOB: &str = "bob@example.com";
const SHORT_LIFE: Duration = Duration::from_secs(4);

/// The number of refreshes of an account that the platform has answered with new tokens.
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

/// Whose access tokens the platform refused, in the order of the requests.
async fn refused(sim: &Sim) -> Vec<String> {
    let seen = sim.seen().await;
    let refused = seen.iter().filter(|seen| seen.0["status"] == 401);
    refused
        .map(|seen| seen.account().expect("a known token").to_owned())
        .collect()
}

/// The machine's clock jumps by an hour, by weeks, and back, and in the end is right again: each login is refreshed once
/// at most for that, none is lost, and no caller notices. What the program takes for the time is really another one, as
/// after a wrong set-up or a machine that slept, and the platform's clock is right all along.
///
/// No jump ahead has a token sent that has ended. Where the clock is set back, a token that was fetched under the wrong one
/// seems to live on, until the platform refuses it: that costs its account one refresh, and only the platform sees it.
#[test]
fn a_clock_that_jumps_costs_no_login_and_no_request() {
    const WINDOW: Duration = Duration::from_millis(2_500);
    const LIMIT: Duration = Duration::from_secs(20);
    /// The most requests that are under way when a token turns out to have ended: 20 come in a second, each takes
    /// some milliseconds, and a busy machine has a few at the same time.
    const UNDER_WAY: usize = 5;
    run(async {
        let mut stack = Stack::real("clock", async |sim, refresher| {
            for (email, life) in [(ALICE, Duration::from_secs(3600)), (BOB, SHORT_LIFE)] {
                refresher.log_in_new(sim, email, life).await;
            }
            refresher.takes_turns().await;
        })
        .await;
        stack.refresher.stop().await;
        let mut clock = WallClock::new(&stack.folder).await;
        stack.refresher.serve().await;
        let load = Load::start(
            stack.caller("load").await,
            "/v1/responses",
            responses_body(),
            20,
        );

        let mut known_refused = 0;
        for (number, jump) in [HOUR, 40 * DAY, -HOUR, -DAY, DAY - 40 * DAY]
            .into_iter()
            .enumerate()
        {
            let before = (
                refreshes(&stack.sim, ALICE).await,
                refreshes(&stack.sim, BOB).await,
            );
            clock.jump(jump);
            let jumped = Instant::now();
            // An hour ahead, her token seems to have ended: so it is known that the clock did jump.
            let is_due = number < 2;
            if is_due {
                eventually("Alice's login is refreshed", LIMIT, async || {
                    let of_alice = refreshes(&stack.sim, ALICE).await - before.0;
                    holds(of_alice > 0, || "not yet".to_owned())
                })
                .await;
            }
            sleep(WINDOW).await;
            let of_alice = refreshes(&stack.sim, ALICE).await - before.0;
            let of_bob = refreshes(&stack.sim, BOB).await - before.1;
            println!("{jump} s: {of_alice} refreshes of Alice's login, {of_bob} of Bob's");
            let expected = if is_due { 1..=1 } else { 0..=1 };
            assert!(expected.contains(&of_alice), "{jump} s: {of_alice}");
            // One for the jump, one because it was time; more where that took longer.
            let most = 2 + jumped.elapsed().as_secs() / SHORT_LIFE.as_secs();
            assert!(of_bob as u64 <= most, "{jump} s: {of_bob} of {most}");
            let refused = refused(&stack.sim).await.split_off(known_refused);
            known_refused += refused.len();
            println!("{jump} s: {} requests with an ended token", refused.len());
            let most = if jump > 0 { 0 } else { UNDER_WAY };
            assert!(refused.len() <= most, "{jump} s: {refused:?}");
            assert!(refused.iter().all(|of| of == BOB), "{jump} s: {refused:?}");
        }
        assert!(clock.is_right());

        // What was learned under the wrong clock has ended.
        sleep(2 * SHORT_LIFE).await;
        let expired = stack.sim.count("expired_token_uses").await;
        assert_eq!(expired, refused(&stack.sim).await.len() as u64);
        let before = refreshes(&stack.sim, BOB).await;
        sleep(3 * SHORT_LIFE).await;
        let of_bob = refreshes(&stack.sim, BOB).await - before;
        assert!(
            (2..=4).contains(&of_bob),
            "{of_bob} refreshes in {:?}",
            3 * SHORT_LIFE
        );
        assert_eq!(stack.sim.count("expired_token_uses").await, expired);

        load.assert_all_good(300).await;
        for account in stack.refresher.accounts().await {
            assert_eq!(account["status"], "active", "{account}");
            assert_eq!(account["failures"], 0, "{account}");
        }
        assert_eq!(stack.sim.count("reuse_detected").await, 0);
        assert_eq!(stack.sim.count("refresh_in_flight_max_per_family").await, 1);
        assert_eq!(stack.envoy.crashes().await, 0);
    });
}
