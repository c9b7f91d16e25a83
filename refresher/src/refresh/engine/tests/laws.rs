//! The engine's laws over random interleavings of timers, people, reports, restarts, faults and clock jumps, with two
//! engines on one ledger.

use proptest::prelude::*;

use super::*;
use fake::Process;

#[derive(Debug, Clone)]
enum Event {
    Pass(Duration),
    Ask {
        process: usize,
    },
    Report {
        process: usize,
        generations_ago: u64,
    },
    Restart {
        process: usize,
    },
    Fate(Fate),
    Skew(i64),
    LogIn,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let fates = prop_oneof![
        Just(Fate::Answered),
        Just(Fate::Slow),
        Just(Fate::LoseRequest),
        Just(Fate::LoseAnswer),
        Just(Fate::TooSlow),
        Just(Fate::NoConnection),
        Just(Fate::Busy),
        Just(Fate::Page),
    ];
    let event = prop_oneof![
        4 => (0..3000u64).prop_map(|millis| Event::Pass(Duration::from_millis(millis))),
        2 => (0..3600u64).prop_map(|s| Event::Pass(seconds(s))),
        3 => (0..2usize).prop_map(|process| Event::Ask { process }),
        3 => (0..2usize, 0..2u64).prop_map(|(process, generations_ago)| Event::Report { process, generations_ago }),
        1 => (0..2usize).prop_map(|process| Event::Restart { process }),
        3 => fates.prop_map(Event::Fate),
        1 => (-3_600_000..3_600_000i64).prop_map(Event::Skew),
        1 => Just(Event::LogIn),
    ];
    proptest::collection::vec(event, 1..40)
}

/// Plays the events; the world afterwards, and whether a token could have been lost.
async fn play(events: Vec<Event>, server_grace: bool, renewal: Renewal) -> (Arc<World>, bool) {
    let world = World::of(1, renewal);
    world.server_grace.store(server_grace, Ordering::Relaxed);
    let account = world.account(0);
    let start = || world.start(Refresh::default());
    let mut processes: [Process; 2] = [start(), start()];
    let (mut generation, mut risky) = (0, false);
    for event in events {
        match event {
            Event::Pass(time) => sleep(time).await,
            Event::Ask { process } => {
                let (engine, account, seen) = (
                    processes[process].engine(),
                    account.clone(),
                    world.generation(0),
                );
                tokio::spawn(async move { engine.refresh(&account, seen).await });
            }
            Event::Report {
                process,
                generations_ago,
            } => {
                let reported = world.generation(0).saturating_sub(generations_ago);
                processes[process]
                    .engine()
                    .report_unauthorized(&account, reported);
            }
            Event::Restart { process } => {
                processes[process].crash();
                processes[process] = start();
                risky = true;
            }
            Event::Fate(fate) => {
                risky |= matches!(fate, Fate::LoseRequest | Fate::LoseAnswer | Fate::TooSlow);
                world.fate(0, fate);
            }
            Event::Skew(skew) => world.skew.store(skew, Ordering::Relaxed),
            Event::LogIn => world.log_in(0),
        }
        assert!(
            world.generation(0) >= generation,
            "the generation went back"
        );
        generation = world.generation(0);
    }
    world.clear_fates(0);
    // Long enough for every claim to lapse, every backoff to end and every token to expire.
    sleep(minutes(3 * 60)).await;
    if !world.agrees(0) {
        sleep(seconds(1)).await; // A refresh was in flight.
    }
    (world, risky)
}

proptest! {
    // Each plays an engine for hours: a sixth of what others try, also where `make properties` asks for more.
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases / 6))]

    #[test]
    fn the_laws_hold(events in events(), server_grace: bool) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let (world, risky) = runtime.block_on(play(events, server_grace, Renewal::SingleUse));
        prop_assert_eq!(lock(&world.violations).clone(), Vec::<String>::new());
        prop_assert!(world.most_unanswered(0) <= 2);
        match world.reason(0) {
            Some(reason) => prop_assert!(risky, "the login ended without cause: {}", reason),
            None => prop_assert!(world.agrees(0), "the ledger and the server drifted apart"),
        }
    }

    /// A call that spends nothing: nothing is noted before it, and no fault ends the login.
    #[test]
    fn what_spends_nothing_leaves_no_journal(events in events(), minted: bool) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let renewal = if minted { Renewal::Minted } else { Renewal::Reusable };
        let (world, _) = runtime.block_on(play(events, true, renewal));
        prop_assert_eq!(lock(&world.violations).clone(), Vec::<String>::new());
        prop_assert_eq!((world.journaled(0), world.reason(0)), (0, None));
        prop_assert!(world.is_fresh(0), "the access token has expired");
    }
}
