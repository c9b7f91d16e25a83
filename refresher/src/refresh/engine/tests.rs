//! The engine against a fake ledger and a fake authorization server whose refresh tokens are single-use.

mod fake;
mod laws;

use std::sync::atomic::Ordering;

use super::*;
use crate::config::Refresh;
use crate::credential::Renewal;
use fake::{Fate, LIFE, World, minutes, seconds};

#[tokio::test(start_paused = true)]
async fn a_token_is_refreshed_ahead_of_its_expiry_and_only_then() {
    let world = World::new(1);
    let process = world.start(Refresh::default());
    sleep(LIFE - LIFE / 8).await;
    assert_eq!(world.calls(0), 0);
    sleep(LIFE / 8).await;
    assert_eq!(world.calls(0), 1);
    assert_eq!(world.generation(0), 2);
    assert!(world.credential_expires_at(0) > process.now());
}

/// A file may not say it.
#[tokio::test(start_paused = true)]
async fn a_refresh_tells_whose_the_account_is() {
    for renewal in [Renewal::SingleUse, Renewal::Reusable] {
        let world = World::of(1, renewal);
        let _process = world.start(Refresh::default());
        assert_eq!(world.owner(0), None);
        sleep(LIFE).await;
        assert_eq!(world.owner(0).as_deref(), Some("org-0"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_storm_of_reports_about_one_token_is_one_refresh() {
    let world = World::new(1);
    let engine = world.start(Refresh::default()).engine();
    for _ in 0..100 {
        engine.report_unauthorized(&world.account(0), 1);
        engine.report_unauthorized(&world.account(0), 0);
    }
    sleep(minutes(1)).await;
    assert_eq!(world.calls(0), 1);
    engine.report_unauthorized(&world.account(0), 1);
    sleep(minutes(1)).await;
    assert_eq!(world.calls(0), 1, "generation 1 is history");
}

#[tokio::test(start_paused = true)]
async fn a_hundred_callers_share_one_refresh() {
    let world = World::new(1);
    let engine = world.start(Refresh::default()).engine();
    let account = world.account(0);
    let all = futures_util::future::join_all((0..100).map(|_| engine.refresh(&account, 1))).await;
    assert!(
        all.iter()
            .all(|outcome| matches!(outcome, Ok(Refreshed::Done(2))))
    );
    assert_eq!(world.calls(0), 1);
    assert_eq!(
        engine.refresh(&account, 1).await.unwrap(),
        Refreshed::Superseded
    );
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_caller_does_not_lose_the_rotated_token() {
    let world = World::new(1);
    world.fate(0, Fate::Slow);
    let engine = world.start(Refresh::default()).engine();
    let account = world.account(0);
    assert!(
        timeout(seconds(1), engine.refresh(&account, 1))
            .await
            .is_err()
    );
    sleep(minutes(1)).await;
    assert_eq!((world.calls(0), world.generation(0)), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn at_most_eight_calls_are_in_flight_and_all_are_made() {
    let world = World::new(100);
    sleep(LIFE).await;
    let _process = world.start(Refresh::default());
    sleep(minutes(1)).await;
    assert!((0..100).all(|n| world.generation(n) == 2));
    assert_eq!(world.most_in_flight(), CALLS_LIMIT);
}

#[tokio::test(start_paused = true)]
async fn an_outage_costs_few_calls_and_the_first_answer_heals_it() {
    let world = World::new(1);
    let process = world.start(Refresh::default());
    world.down.store(true, Ordering::Relaxed);
    process.engine().report_unauthorized(&world.account(0), 1);
    sleep(minutes(30)).await;
    assert!(
        (8..=12).contains(&world.calls(0)),
        "{} calls",
        world.calls(0)
    );
    assert_eq!(world.reason(0), None);
    world.down.store(false, Ordering::Relaxed);
    sleep(minutes(35)).await;
    assert_eq!(world.generation(0), 2);
}

#[tokio::test(start_paused = true)]
async fn a_terminal_answer_ends_the_login_with_its_reason_and_no_more_calls() {
    let world = World::new(1);
    world.revoke(0);
    let engine = world.start(Refresh::default()).engine();
    let reason = String::from("refresh_token_reused (HTTP 401)");
    let refreshed = engine.refresh(&world.account(0), 1).await.unwrap();
    assert_eq!(
        refreshed,
        Refreshed::NeedsLogin {
            reason: reason.clone()
        }
    );
    sleep(minutes(600)).await;
    assert_eq!((world.reason(0), world.calls(0)), (Some(reason), 1));
    assert_eq!(
        engine.refresh(&world.account(0), 1).await.unwrap(),
        Refreshed::NotRefreshable
    );
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_asked_for_once_more() {
    for server_grace in [true, false] {
        let world = World::new(1);
        world.server_grace.store(server_grace, Ordering::Relaxed);
        world.fate(0, Fate::LoseAnswer);
        let engine = world.start(Refresh::default()).engine();
        let refreshed = engine.refresh(&world.account(0), 1).await.unwrap();
        assert_eq!(world.calls(0), 2);
        assert_eq!(matches!(refreshed, Refreshed::Done(2)), server_grace);
        assert_eq!(
            matches!(refreshed, Refreshed::NeedsLogin { .. }),
            !server_grace
        );
    }
}

/// Nobody knows whether the login is over, so it is asked for ever; but a person is told while the account still serves.
#[tokio::test(start_paused = true)]
async fn refusals_without_a_word_end_no_login_and_are_told() {
    for renewal in [Renewal::SingleUse, Renewal::Reusable] {
        let world = World::of(1, renewal);
        for _ in 0..20 {
            world.fate(0, Fate::Refused);
        }
        let process = world.start(Refresh::default());
        sleep(LIFE - minutes(5)).await;
        assert_eq!(world.failing(0), None);
        sleep(minutes(3)).await;
        let end = world.credential_expires_at(0);
        let failing = world.failing(0).expect("it fails");
        assert_eq!(
            (failing.how, &*failing.reason),
            (Failure::Refused, "HTTP 403")
        );
        assert!(failing.is_stuck(Some(end), process.now()), "{failing:?}");
        assert!(process.now() < end, "the account serves");
        sleep(minutes(4 * 60)).await;
        let later = world.failing(0).expect("it fails");
        assert_eq!((later.since, world.reason(0)), (failing.since, None));
        sleep(minutes(24 * 60)).await;
        assert_eq!(world.failing(0), None, "a good answer ends the row");
        assert!(world.generation(0) > 1);
    }
}

/// Something before the token endpoint answers with pages of its own: for hours, past the end of the access token.
#[tokio::test(start_paused = true)]
async fn pages_in_place_of_answers_end_no_login() {
    let world = World::new(1);
    for _ in 0..12 {
        world.fate(0, Fate::Page);
    }
    let process = world.start(Refresh::default());
    sleep(LIFE + minutes(60 * 12)).await;
    let generation = world.generation(0);
    assert!(generation > 1, "it never healed");
    assert_eq!(world.reason(0), None);
    assert_eq!(u64::from(world.calls(0)) - (generation - 1), 12);
    assert!(world.credential_expires_at(0) > process.now());
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_that_spent_nothing_is_backed_off_from() {
    for renewal in [Renewal::Reusable, Renewal::Minted] {
        let world = World::of(1, renewal);
        for fate in [
            Fate::LoseAnswer,
            Fate::LoseRequest,
            Fate::TooSlow,
            Fate::LoseAnswer,
        ] {
            world.fate(0, fate);
        }
        let process = world.start(Refresh::default());
        process.engine().report_unauthorized(&world.account(0), 1);
        sleep(Duration::from_millis(500)).await;
        assert_eq!((world.calls(0), world.generation(0)), (1, 1));
        sleep(minutes(2)).await;
        assert_eq!((world.calls(0), world.generation(0)), (5, 2));
        assert_eq!((world.journaled(0), world.reason(0)), (0, None));
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_serves_to_its_end_and_a_person_renews_it() {
    let world = World::of(1, Renewal::Person);
    let process = world.start(Refresh::default());
    let refreshed = process.engine().refresh(&world.account(0), 1).await;
    assert_eq!(refreshed.unwrap(), Refreshed::NotRefreshable);
    sleep(LIFE - Duration::from_secs(10)).await;
    assert_eq!(world.reason(0), None);
    sleep(Duration::from_secs(20)).await;
    assert_eq!(world.reason(0).unwrap(), "its session has ended");
    assert_eq!((world.calls(0), world.generation(0)), (0, 1));
}

/// A request that met a refusal may have brought it about: its report ends nothing, however often it comes. What the
/// platform says to us does.
#[tokio::test(start_paused = true)]
async fn a_session_ends_once_its_platform_refuses_it_to_us() {
    let world = World::of(1, Renewal::Person);
    let engine = world.start(Refresh::default()).engine();
    for _ in 0..10 {
        engine.report_unauthorized(&world.account(0), 1);
        sleep(seconds(5)).await;
    }
    let refreshed = engine.refresh(&world.account(0), 1).await;
    assert_eq!(refreshed.unwrap(), Refreshed::NotRefreshable);
    engine.confirm_unauthorized(&world.account(0), 0);
    sleep(seconds(5)).await;
    assert_eq!(world.reason(0), None, "another generation was refused");
    engine.confirm_unauthorized(&world.account(0), 1);
    sleep(seconds(5)).await;
    assert_eq!(world.reason(0).unwrap(), "the platform refuses its session");
    assert_eq!(world.calls(0), 0);
}

/// Two calls went unanswered, so the access token is used to its end. One caller's word does not bring that about.
#[tokio::test(start_paused = true)]
async fn a_report_ends_no_login_whose_refresh_token_may_be_spent() {
    for is_confirmed in [false, true] {
        let world = World::new(1);
        world.fate(0, Fate::LoseRequest);
        world.fate(0, Fate::LoseRequest);
        let engine = world.start(Refresh::default()).engine();
        engine.report_unauthorized(&world.account(0), 1);
        if is_confirmed {
            engine.confirm_unauthorized(&world.account(0), 1);
        }
        sleep(minutes(5)).await;
        assert_eq!(world.calls(0), 2);
        assert_eq!(world.reason(0).is_some(), is_confirmed);
        sleep(LIFE).await;
        assert!(world.reason(0).is_some(), "the access token has ended");
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_that_can_be_made_again_is_not_held_on_to() {
    let world = World::of(1, Renewal::Minted);
    world.broken_commits.store(1, Ordering::Relaxed);
    let engine = world.start(Refresh::default()).engine();
    assert!(engine.refresh(&world.account(0), 1).await.is_err());
    sleep(minutes(2)).await;
    engine.report_unauthorized(&world.account(0), 1);
    sleep(minutes(2)).await;
    assert_eq!((world.calls(0), world.generation(0)), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_reusable_token_that_was_replaced_all_the_same_is_stored_however_often_it_takes() {
    let world = World::of(1, Renewal::Reusable);
    world.broken_commits.store(3, Ordering::Relaxed);
    let engine = world.start(Refresh::default()).engine();
    let refreshed = engine.refresh(&world.account(0), 1).await.unwrap();
    assert!(matches!(refreshed, Refreshed::Done(2)), "{refreshed:?}");
    assert_eq!((world.calls(0), world.journaled(0)), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn two_lost_answers_hold_the_account_to_its_tokens_last_second() {
    let world = World::new(1);
    world.fate(0, Fate::LoseAnswer);
    world.fate(0, Fate::LoseAnswer);
    let process = world.start(Refresh::default());
    let refreshed = process
        .engine()
        .refresh(&world.account(0), 1)
        .await
        .unwrap();
    assert!(matches!(refreshed, Refreshed::Later { .. }));
    sleep(Duration::from_millis(
        u64::try_from(world.credential_expires_at(0).0 - process.now().0).unwrap() - 1,
    ))
    .await;
    assert_eq!(world.reason(0), None);
    sleep(minutes(1)).await;
    assert!(world.reason(0).unwrap().contains("unanswered"));
    assert_eq!(world.calls(0), 2);
}

#[tokio::test(start_paused = true)]
async fn an_unanswered_call_past_the_grace_is_repeated_only_when_nothing_is_left_to_lose() {
    let world = World::new(1);
    world.fate(0, Fate::LoseRequest);
    let process = world.start(Refresh {
        grace: Duration::ZERO,
        ..Refresh::default()
    });
    let refreshed = process
        .engine()
        .refresh(&world.account(0), 1)
        .await
        .unwrap();
    assert!(
        matches!(refreshed, Refreshed::Later { .. }),
        "{refreshed:?}"
    );
    assert_eq!(world.calls(0), 1);
    process.engine().report_unauthorized(&world.account(0), 1);
    sleep(LIFE + minutes(1)).await;
    assert_eq!((world.calls(0), world.generation(0)), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_winners_tokens_are_adopted() {
    let world = World::new(1);
    world.fate(0, Fate::LoseAnswer);
    let engine = world.start(Refresh::default()).engine();
    let account = world.account(0);
    let call = tokio::spawn(async move { engine.refresh(&account, 1).await.unwrap() });
    sleep(Duration::from_millis(500)).await;
    world.log_in(0);
    assert_eq!(call.await.unwrap(), Refreshed::Superseded);
    assert_eq!(world.calls(0), 1);
}

#[tokio::test(start_paused = true)]
async fn tokens_that_cannot_be_stored_are_kept_until_they_can() {
    let world = World::new(1);
    world.broken_commits.store(10, Ordering::Relaxed);
    let engine = world.start(Refresh::default()).engine();
    assert_eq!(
        engine.refresh(&world.account(0), 1).await.unwrap(),
        Refreshed::Done(2)
    );
    assert_eq!(world.calls(0), 1);
}

#[tokio::test(start_paused = true)]
async fn a_claim_of_a_dead_process_lapses_and_its_intent_counts() {
    let world = World::new(1);
    world.fate(0, Fate::LoseAnswer);
    world.fate(0, Fate::LoseAnswer);
    let first = world.start(Refresh::default());
    first.engine().report_unauthorized(&world.account(0), 1);
    sleep(Duration::from_millis(200)).await;
    first.crash();
    let second = world.start(Refresh::default());
    assert_eq!(
        second.engine().refresh(&world.account(0), 1).await.unwrap(),
        Refreshed::Busy
    );
    second.engine().confirm_unauthorized(&world.account(0), 1);
    sleep(minutes(5)).await;
    assert_eq!(world.calls(0), 2);
    assert!(world.reason(0).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_for_the_answer() {
    let world = World::new(1);
    world.fate(0, Fate::Slow);
    let process = world.start(Refresh::default());
    process.engine().report_unauthorized(&world.account(0), 1);
    sleep(Duration::from_millis(200)).await;
    process.shut_down().await;
    assert_eq!((world.calls(0), world.generation(0)), (1, 2));
}

/// Steps of the wall clock, a machine that slept among them: then only the wall clock has gone on.
#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_causes_no_burst_and_leaves_no_expired_token() {
    const ACCOUNTS: usize = 20;
    const HOUR: i64 = 60 * 60 * 1000;
    let world = World::new(ACCOUNTS);
    let process = world.start(Refresh::default());
    sleep(minutes(1)).await;
    for jump in [
        HOUR,
        -HOUR,
        8 * HOUR,
        HOUR,
        HOUR,
        -HOUR,
        -8 * HOUR,
        HOUR / 2,
        -HOUR / 2,
    ] {
        let before: Vec<u32> = (0..ACCOUNTS).map(|n| world.calls(n)).collect();
        world.skew.fetch_add(jump, Ordering::Relaxed);
        for passed in 1..=6 {
            sleep(seconds(10)).await;
            for (n, before) in before.iter().enumerate() {
                let calls = world.calls(n) - before;
                assert!(calls <= 1, "{calls} calls after a jump of {jump} ms");
                assert!(
                    world.credential_expires_at(n) > process.now(),
                    "still expired {passed}0 s after a jump of {jump} ms"
                );
            }
        }
    }
    assert!(world.most_in_flight() <= CALLS_LIMIT);
    assert_eq!(lock(&world.violations).clone(), Vec::<String>::new());
}

/// A ledger that is read may say what is older than what a refresh that lands meanwhile puts there.
#[tokio::test(start_paused = true)]
async fn a_refresh_that_lands_while_the_ledger_is_read_waits_its_pause() {
    let world = World::new(1);
    world.fate(0, Fate::BusyForLong);
    let _process = world.start(Refresh::default());
    while world.calls(0) == 0 {
        sleep(seconds(1)).await;
    }
    world.slow_reads.store(30, Ordering::Relaxed);
    sleep(minutes(5)).await;
    assert_eq!(
        world.calls(0),
        1,
        "it was told to come back in half an hour"
    );
    world.slow_reads.store(0, Ordering::Relaxed);
    sleep(minutes(30)).await;
    assert_eq!((world.calls(0), world.generation(0)), (2, 2));
}

/// Two processes, and an authorization server that ends the login at the first token that is sent twice.
#[tokio::test(start_paused = true)]
async fn a_hundred_triggers_a_thousand_times_never_spend_a_token_twice() {
    const ROUNDS: u32 = 1_000;
    let world = World::new(1);
    world.server_grace.store(false, Ordering::Relaxed);
    let processes = [(); 2].map(|()| world.start(Refresh::default()));
    let account = world.account(0);
    for round in 1..=ROUNDS {
        let generation = world.generation(0);
        let triggers = (0..100).map(|trigger| {
            let engine = processes[trigger % 2].engine();
            let account = account.clone();
            tokio::spawn(async move {
                match trigger % 5 {
                    0 => engine.report_unauthorized(&account, generation),
                    _ => drop(engine.refresh(&account, generation).await),
                }
            })
        });
        for trigger in triggers.collect::<Vec<_>>() {
            trigger.await.unwrap();
        }
        // Whoever found the other process at it looks again after a second.
        sleep(seconds(2)).await;
        assert_eq!(world.generation(0), u64::from(round) + 1);
    }
    assert_eq!(world.calls(0), ROUNDS);
    assert_eq!((world.most_in_flight(), world.reason(0)), (1, None));
    assert_eq!(lock(&world.violations).clone(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_platform_that_refuses_every_new_token_is_not_fed_refreshes() {
    let world = World::new(1);
    let engine = world.start(Refresh::default()).engine();
    for _ in 0..10 * 60 * 10 {
        engine.report_unauthorized(&world.account(0), world.generation(0));
        sleep(Duration::from_millis(100)).await;
    }
    assert!(
        (5..=12).contains(&world.calls(0)),
        "{} calls in ten minutes",
        world.calls(0)
    );
}

/// Tokens that live for 10 ms, alone and where each is refused besides.
#[tokio::test(start_paused = true)]
async fn tokens_of_no_life_cost_one_refresh_a_floor() {
    for (refused, most) in [(false, 20), (true, 20 + 6)] {
        let world = World::new(1);
        world.life_millis.store(10, Ordering::Relaxed);
        let engine = world.start(Refresh::default()).engine();
        assert_eq!(
            engine.refresh(&world.account(0), 1).await.unwrap(),
            Refreshed::Done(2)
        );
        for _ in 0..10 * 60 * 10 {
            if refused {
                engine.report_unauthorized(&world.account(0), world.generation(0));
            }
            sleep(Duration::from_millis(100)).await;
        }
        let calls = world.calls(0) - 1;
        assert!((19..=most).contains(&calls), "{calls} calls in ten minutes");
        assert_eq!(world.reason(0), None);
    }
}
