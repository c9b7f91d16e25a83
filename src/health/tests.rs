//! The laws of the board.

use proptest::prelude::*;

use super::{
    fixture::{alone, key},
    *,
};
use crate::{snapshot::fixture, verdict::Scope};

fn limited(until: u64, guessed: bool) -> Verdict {
    Verdict::CoolingDown {
        scope: Scope::Account,
        until,
        guessed,
        reason: Reason::rate_limited(),
    }
}

fn board_of(verdict: &Verdict) -> (Board, Account) {
    let account = fixture::account("acc_1", "codex");
    let mut board = Board::default();
    assert!(board.post(&account, verdict, 1_000));
    (Board::decode(&board.encode()), account)
}

#[test]
fn a_time_from_the_platform_ends_by_itself() {
    let (mut board, account) = board_of(&limited(5_000, false));
    assert!(matches!(
        board.standing(&account, key(), None, 4_999),
        Standing::Out(_)
    ));
    assert_eq!(board.standing(&account, key(), None, 5_000), Standing::Free);
    assert!(
        !board.post(&account, &Verdict::Fine, 2_000),
        "a late answer"
    );
    assert!(matches!(
        board.standing(&account, key(), None, 2_000),
        Standing::Out(_)
    ));
    let other = fixture::account("acc_2", "codex");
    assert_eq!(board.standing(&other, key(), None, 2_000), Standing::Free);
}

#[test]
fn a_guess_is_half_open_for_one_probe_at_a_time() {
    let (mut board, account) = board_of(&limited(5_000, true));
    let standing = board.standing(&account, key(), None, 5_000);
    assert!(matches!(standing, Standing::HalfOpen));
    board.probe(&account, key(), None, 5_000);
    assert!(matches!(
        board.standing(&account, key(), None, 5_001),
        Standing::Out(_)
    ));
    let later = 5_000 + PROBE_MS;
    assert!(matches!(
        board.standing(&account, key(), None, later),
        Standing::HalfOpen
    ));
    assert!(board.post(&account, &Verdict::Fine, later));
    assert_eq!(board.standing(&account, key(), None, later), Standing::Free);
}

#[test]
fn a_new_credential_ends_the_wait_for_it() {
    let (board, mut account) = board_of(&Verdict::CredentialExpired);
    assert!(matches!(
        board.standing(&account, key(), None, 1_001),
        Standing::Out(_)
    ));
    account.generation += 1;
    assert_eq!(board.standing(&account, key(), None, 1_001), Standing::Free);
}

/// Their requests were sent before the credential was refused, which was revoked in between. What comes after the wait,
/// or with a later credential, is another thing.
#[test]
fn late_answers_do_not_end_the_wait_for_a_credential() {
    let reason = Reason::known("deactivated");
    for verdict in [Verdict::CredentialExpired, Verdict::Dead { reason }] {
        let (mut board, account) = board_of(&verdict);
        let found = |board: &Board, now| match board.standing(&account, key(), None, now) {
            Standing::Out(why) => Some((why.reason.clone(), why.back_at)),
            _ => None,
        };
        let before = found(&board, 1_000).expect("it is out");
        let until = before.1;
        let with = |generation| Account {
            generation,
            ..account.clone()
        };
        for late in [account.generation, account.generation - 1].map(with) {
            for answer in [
                Verdict::Fine,
                Verdict::PlatformTrouble { until: 9_000 },
                limited(9_000, true),
            ] {
                assert!(!board.post(&late, &answer, until - 1), "{answer:?}");
            }
        }
        assert_eq!(found(&board, until - 1), Some(before));

        let mut probed = board.clone();
        assert!(probed.post(&account, &Verdict::Fine, until));
        assert!(probed.is_empty());
        let later = with(account.generation + 1);
        assert!(board.post(&later, &Verdict::Fine, 1_001));
        assert!(board.is_empty(), "it was about nobody any more");
    }
}

#[test]
fn trouble_takes_an_account_out_at_the_third_time() {
    let trouble = Verdict::PlatformTrouble { until: 9_000 };
    let (mut board, account) = board_of(&trouble);
    assert_eq!(board.standing(&account, key(), None, 1_000), Standing::Free);
    board.post(&account, &trouble, 1_001);
    assert_eq!(board.standing(&account, key(), None, 1_001), Standing::Free);
    board.post(&account, &trouble, 1_002);
    assert!(matches!(
        board.standing(&account, key(), None, 1_002),
        Standing::Out(_)
    ));
    assert!(matches!(
        board.standing(&account, key(), None, 9_000),
        Standing::HalfOpen
    ));

    let (mut board, account) = board_of(&trouble);
    board.post(&account, &trouble, 1_001);
    assert!(
        board.post(&account, &Verdict::Fine, 1_002),
        "a good answer wipes them out"
    );
    let late = 1_002 + STRIKES_MS;
    board.post(&account, &trouble, 1_003);
    board.post(&account, &trouble, 1_004);
    board.post(&account, &trouble, late + 2);
    assert_eq!(
        board.standing(&account, key(), None, late + 2),
        Standing::Free
    );
}

#[test]
fn a_failed_probe_and_a_late_answer_set_nobody_free() {
    let (mut board, account) = board_of(&limited(60_000, true));
    board.probe(&account, key(), None, 60_000);
    let trouble = Verdict::PlatformTrouble { until: 66_000 };
    board.post(&account, &trouble, 61_000);
    assert!(matches!(
        board.standing(&account, key(), None, 65_999),
        Standing::Out(_)
    ));

    for late in [
        Verdict::PlatformTrouble { until: 2_000 },
        Verdict::CredentialExpired,
        limited(3_000, true),
        Verdict::CallersFault,
    ] {
        let (mut board, account) = board_of(&limited(3_600_000, false));
        assert!(!board.post(&account, &late, 1_500), "{late:?}");
        assert!(matches!(
            board.standing(&account, key(), None, 3_599_999),
            Standing::Out(_)
        ));
    }
}

#[test]
fn a_model_cools_down_alone() {
    let scope = Scope::Model(crate::label::ModelName::try_from("opus").unwrap());
    let (board, account) = board_of(&Verdict::CoolingDown {
        scope,
        until: 5_000,
        guessed: false,
        reason: Reason::rate_limited(),
    });
    assert!(matches!(
        board.standing(&account, key(), Some("opus"), 2_000),
        Standing::Out(_)
    ));
    assert_eq!(
        board.standing(&account, key(), Some("haiku"), 2_000),
        Standing::Free
    );
    assert_eq!(board.standing(&account, key(), None, 2_000), Standing::Free);
}

#[test]
fn the_same_news_again_is_none() {
    let (mut board, account) = board_of(&limited(61_000, false));
    for late in 0..100 {
        assert_eq!(
            board.learn(
                &account,
                alone(),
                None,
                &limited(61_000 + late, false),
                1_000 + late
            ),
            Change::Nothing
        );
    }
    let longer = limited(200_000, false);
    assert!(matches!(
        board.learn(&account, alone(), None, &longer, 1_200),
        Change::Out(_)
    ));
    let trouble = Verdict::PlatformTrouble { until: 9_000 };
    let (mut board, account) = board_of(&trouble);
    assert_eq!(
        board.learn(&account, alone(), None, &trouble, 1_001),
        Change::Noted
    );
    let change = board.learn(&account, alone(), None, &trouble, 1_002);
    assert!(
        matches!(change, Change::Out(entry) if entry.is_limit()),
        "the third takes it out"
    );
    assert_eq!(
        board.learn(&account, alone(), None, &Verdict::Fine, 9_001),
        Change::Recovered
    );
    assert_eq!(
        board.learn(&account, alone(), None, &Verdict::Fine, 9_002),
        Change::Nothing
    );
}

#[test]
fn a_dead_account_is_out_until_it_has_another_credential() {
    let reason = Reason::known("deactivated");
    let (board, mut account) = board_of(&Verdict::Dead { reason });
    assert!(
        matches!(board.standing(&account, key(), None, 2_000), Standing::Out(why) if !why.awaits_credential)
    );
    account.generation += 1;
    assert_eq!(board.standing(&account, key(), None, 2_000), Standing::Free);
}

#[test]
fn a_probe_is_given_back_by_who_took_it() {
    let (mut board, account) = board_of(&limited(5_000, true));
    board.probe(&account, key(), None, 6_000);
    assert!(matches!(
        board.standing(&account, key(), None, 6_001),
        Standing::Out(_)
    ));
    assert!(!board.give_back(&account.id, key(), 5_999), "another's");
    assert!(board.give_back(&account.id, key(), 6_000));
    assert!(matches!(
        board.standing(&account, key(), None, 6_001),
        Standing::HalfOpen
    ));
    assert!(!board.give_back(&account.id, key(), 6_000), "once");
}

fn cooldown(until: u64, guessed: bool, at: u64) -> Cooldown {
    Cooldown {
        scope: Scope::Account,
        until,
        guessed,
        reason: Reason::rate_limited(),
        at,
    }
}

fn health(entries: &[Cooldown], reset_at: u64) -> Health {
    Health {
        id: Id::try_from("acc_1").unwrap(),
        entries: entries.to_vec(),
        windows: Vec::new(),
        windows_at: 0,
        reset_at,
        alive_at: 0,
    }
}

/// What the refresher found out by itself counts against deaths alone, and against those alone that were met before.
#[test]
fn an_account_that_is_found_alive_is_no_longer_suspected_to_be_dead() {
    let account = fixture::account("acc_1", "codex");
    let dead = Verdict::Dead {
        reason: Reason::known("deactivated"),
    };
    let of = |key: &str, alone| Witness {
        key: Striker::of(&Id::try_from(key).unwrap()),
        alone,
    };
    let alive = |alive_at| Health {
        alive_at,
        ..health(&[], 0)
    };
    let mut board = Board::new();
    let first = of("first", false);
    assert_eq!(
        board.learn(&account, first, None, &dead, 1_000),
        Change::Suspected
    );
    let is_out = |board: &Board, now| {
        matches!(
            board.standing(&account, first.key, None, now),
            Standing::Out(_)
        )
    };
    assert!(!board.take(&alive(999), 2_000), "asked before");
    assert!(is_out(&board, 2_000));
    assert!(board.take(&alive(1_000), 2_000));
    assert!(!is_out(&board, 2_000));
    assert!(!board.take(&alive(1_000), 2_000));
    // The next one begins anew, and a limit is another matter.
    board.learn(&account, first, None, &dead, 3_000);
    assert!(is_out(&board, 3_000));
    board.post(&account, &limited(50_000, false), 3_001);
    assert!(board.take(&alive(5_000), 5_000));
    assert_eq!(
        (board.entries.len(), board.suspicions.is_empty()),
        (1, true)
    );
    // So does one that two keys have met.
    let mut board = Board::new();
    board.learn(&account, first, None, &dead, 1_000);
    let second = of("second", false);
    assert!(matches!(
        board.learn(&account, second, None, &dead, 1_001),
        Change::Out(_)
    ));
    assert!(board.take(&alive(2_000), 2_000));
    assert!(board.is_empty());
}

#[test]
fn what_comes_back_from_the_refresher_changes_nothing_more() {
    let (mut board, account) = board_of(&limited(50_000, true));
    let own = board.entries[0].cooldown();
    assert_eq!(board.untold(2_000, 3_000).count(), 1);
    let echo = health(&[own], 0);
    assert!(board.take(&echo, 2_000), "it is marked as told");
    assert!(!board.take(&echo, 2_000));
    assert_eq!(board.untold(2_000, 3_000).count(), 0);
    board.probe(&account, key(), None, 50_000);
    assert!(!board.take(&echo, 50_000), "a probe stays out");
    assert!(matches!(
        board.standing(&account, key(), None, 50_001),
        Standing::Out(_)
    ));
}

#[test]
fn another_envoys_guess_is_half_open_after_its_time_as_ours_is() {
    let account = fixture::account("acc_1", "codex");
    let mut board = Board::new();
    assert!(board.take(&health(&[cooldown(5_000, true, 1_000)], 0), 2_000));
    assert!(matches!(
        board.standing(&account, key(), None, 4_999),
        Standing::Out(_)
    ));
    assert!(matches!(
        board.standing(&account, key(), None, 5_000),
        Standing::HalfOpen
    ));
    assert!(board.take(&health(&[], 0), 5_000), "another took it down");
    assert_eq!(board.standing(&account, key(), None, 5_000), Standing::Free);
    let ended = health(&[cooldown(5_000, false, 1_000)], 0);
    assert!(!board.take(&ended, 5_000), "it has ended");
}

#[test]
fn what_the_refresher_has_not_heard_of_stays_until_a_reset() {
    let (mut board, account) = board_of(&limited(50_000, false));
    let trouble = Verdict::PlatformTrouble { until: 9_000 };
    let other = fixture::account("acc_2", "codex");
    board.post(&other, &trouble, 1_000);
    assert!(!board.take(&health(&[], 0), 2_000));
    assert!(board.take(&health(&[], 1_000), 2_000));
    assert_eq!(board.standing(&account, key(), None, 2_000), Standing::Free);
    let strikes = board.suspicions.of(&other.id).count();
    assert_eq!(strikes, 1, "the other one's");
    let own = Health {
        id: other.id.clone(),
        ..health(&[], 1_000)
    };
    assert!(board.take(&own, 2_000));
    assert!(board.is_empty(), "strikes are forgotten too");
    board.post(&account, &limited(60_000, false), 2_500);
    assert!(
        !board.take(&health(&[], 1_000), 3_000),
        "what came after the reset stays"
    );
}

proptest! {
    #[test]
    fn boards_agree_whatever_comes_first(
        one in (0..9_000_u64, any::<bool>(), 1..9_u64),
        other in (0..9_000_u64, any::<bool>(), 11..19_u64),
        now in 20..9_000_u64,
    ) {
        let of = |(until, guessed, at): (u64, bool, u64)| health(&[cooldown(until, guessed, at)], 0);
        let after = |first: &Health, second: &Health| {
            let mut board = Board::new();
            board.take(first, now);
            board.take(second, now);
            let account = fixture::account("acc_1", "codex");
            match board.standing(&account, key(), None, now) {
                Standing::Free => None,
                Standing::HalfOpen => Some(None),
                Standing::Out(why) => Some(Some((why.reason.clone(), why.back_at))),
            }
        };
        let (one, other) = (of(one), of(other));
        prop_assert_eq!(after(&one, &other), after(&other, &one));
    }
}

#[test]
fn the_board_is_bounded() {
    let mut board = Board::default();
    for n in 0..2 * MAX_ENTRIES {
        let account = fixture::account(&format!("acc_{n}"), "codex");
        board.post(&account, &limited(10_000 + n as u64, false), 0);
    }
    assert_eq!(board.entries.len(), MAX_ENTRIES);
    let last = fixture::account(&format!("acc_{}", 2 * MAX_ENTRIES - 1), "codex");
    assert!(matches!(
        board.standing(&last, key(), None, 0),
        Standing::Out(_)
    ));
}

/// Whoever asks one account for many models pushes out nothing of another's.
#[test]
fn an_account_has_so_many_entries_and_no_more() {
    let mut board = Board::default();
    let [one, other] = ["acc_1", "acc_2"].map(|id| fixture::account(id, "codex"));
    board.post(&other, &limited(20_000, false), 0);
    let models: Vec<_> = (0..2 * MAX_ENTRIES).map(|n| format!("m{n}")).collect();
    for (n, model) in models.iter().enumerate() {
        let limited = Verdict::CoolingDown {
            scope: Scope::Model(model.as_str().try_into().unwrap()),
            until: 10_000 + n as u64,
            guessed: false,
            reason: Reason::known("rate_limited"),
        };
        board.learn(&one, alone(), Some(model), &limited, 0);
    }
    assert_eq!(board.entries.len(), MAX_ACCOUNT_ENTRIES + 1);
    let last = models.last().map(String::as_str);
    assert!(matches!(
        board.standing(&one, key(), last, 0),
        Standing::Out(_)
    ));
    assert_eq!(board.of(&other.id).len(), 1);
}
