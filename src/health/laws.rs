//! The laws of blame: what one client key's requests meet takes no account from another key.

use proptest::prelude::*;

use super::*;
use crate::snapshot::fixture;

const ACCOUNTS: usize = 3;

fn account(index: usize) -> Account {
    fixture::account(&format!("acc_{index}"), "codex")
}

fn key(number: u8) -> Striker {
    Striker::of(&Id::try_from(format!("key_{number}").as_str()).unwrap())
}

fn witness(number: u8) -> Witness {
    Witness {
        key: key(number),
        alone: false,
    }
}

/// Something that a key meets at an account.
#[derive(Debug, Clone)]
struct Event {
    account: usize,
    verdict: Meets,
    model: bool,
    after: u64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Meets {
    Fine,
    Fault,
    Limit,
    ModelsLimit,
    Expired,
    Dead,
    Trouble,
    /// It begins a try and goes away.
    Leaves,
}

impl Event {
    fn verdict(&self, now: u64) -> Verdict {
        let until = now + 5_000;
        let limit = |scope| Verdict::CoolingDown {
            scope,
            until: now + 30_000,
            guessed: true,
            reason: Reason::rate_limited(),
        };
        match self.verdict {
            Meets::Fine => Verdict::Fine,
            Meets::Fault | Meets::Leaves => Verdict::CallersFault,
            Meets::Limit => limit(Scope::Account),
            Meets::ModelsLimit => limit(Scope::Model("m".try_into().unwrap())),
            Meets::Expired => Verdict::CredentialExpired,
            Meets::Dead => Verdict::Dead {
                reason: Reason::known("deactivated"),
            },
            Meets::Trouble => Verdict::PlatformTrouble { until },
        }
    }

    fn model(&self) -> Option<&'static str> {
        self.model.then_some("m")
    }

    /// Lets `key` meet it, if the board lets the key go there.
    fn happens(&self, board: &mut Board, key: u8, now: u64) {
        let account = account(self.account);
        let standing = board.standing(&account, self::key(key), self.model(), now);
        if matches!(standing, Standing::Out(_)) {
            return;
        }
        if standing == Standing::HalfOpen {
            board.probe(&account, self::key(key), self.model(), now);
        }
        if self.verdict == Meets::Leaves {
            board.give_back(&account.id, self::key(key), now);
            return;
        }
        let verdict = self.verdict(now);
        board.learn(&account, witness(key), self.model(), &verdict, now);
    }
}

fn event() -> impl Strategy<Value = Event> {
    let verdict = prop::sample::select(vec![
        Meets::Fine,
        Meets::Fault,
        Meets::Limit,
        Meets::ModelsLimit,
        Meets::Expired,
        Meets::Dead,
        Meets::Trouble,
        Meets::Trouble,
        Meets::Trouble,
        Meets::Leaves,
    ]);
    let after = prop_oneof![0..300_u64, 0..20_000_u64, 0..200_000_u64];
    (0..ACCOUNTS, verdict, any::<bool>(), after).prop_map(|(account, verdict, model, after)| {
        Event {
            account,
            verdict,
            model,
            after,
        }
    })
}

proptest! {
    /// Every account is another key's as before, whatever one key meets, as long as the platform itself
    /// says no time.
    #[test]
    fn one_key_takes_no_account_from_another(events in prop::collection::vec(event(), 0..120)) {
        let (mut board, mut now) = (Board::new(), 1_000_000);
        for event in &events {
            now += event.after;
            event.happens(&mut board, 1, now);
            board = Board::decode(&board.encode());
            for index in 0..ACCOUNTS {
                for model in [None, Some("m")] {
                    let standing = board.standing(&account(index), key(2), model, now);
                    prop_assert_eq!(standing, Standing::Free);
                }
            }
            prop_assert_eq!(board.untold(u64::MAX, now).count(), 0, "nothing for other Envoys");
        }
    }

    /// A second key that meets only good answers loses nothing by what it confirms either: its own
    /// single failures do not add up to the other one's.
    #[test]
    fn one_failure_of_another_key_confirms_nothing(
        events in prop::collection::vec(event(), 0..120),
        unlucky in 0..120_usize,
    ) {
        let (mut board, mut now) = (Board::new(), 1_000_000);
        for (n, event) in events.iter().enumerate() {
            now += event.after;
            event.happens(&mut board, 1, now);
            if n == unlucky {
                let trouble = Verdict::PlatformTrouble { until: now + 5_000 };
                board.learn(&account(0), witness(2), None, &trouble, now);
            }
            let standing = board.standing(&account(0), key(2), None, now);
            prop_assert_eq!(standing, Standing::Free);
        }
    }

    /// An account that is out for every key comes back: some request may try it in the end, and what
    /// tries first is of a key that did not strike.
    #[test]
    fn an_account_that_is_out_comes_back(
        events in prop::collection::vec((event(), 1..4_u8), 0..120),
    ) {
        let (mut board, mut now) = (Board::new(), 1_000_000);
        for (event, key) in &events {
            now += event.after;
            event.happens(&mut board, *key, now);
        }
        for index in 0..ACCOUNTS {
            for key in 1..5 {
                let standing = board.standing(&account(index), self::key(key), None, now + DEAD_MS);
                prop_assert!(!matches!(standing, Standing::Out(_)), "{standing:?}");
            }
        }
    }
}

#[test]
fn suspicions_are_bounded() {
    let (mut board, account) = (Board::new(), account(0));
    let limited = |key, model| Verdict::CoolingDown {
        scope: Scope::Model(format!("m{key}-{model}").as_str().try_into().unwrap()),
        until: 9_000,
        guessed: true,
        reason: Reason::rate_limited(),
    };
    let count = |board: &Board| board.suspicions.of(&account.id).count();
    for model in 0..MAX_KEY_SUSPICIONS + 6 {
        board.learn(&account, witness(0), None, &limited(0, model), 1_000);
    }
    assert_eq!(count(&board), MAX_KEY_SUSPICIONS);
    for key in 1..20 {
        for model in 0..MAX_KEY_SUSPICIONS {
            board.learn(&account, witness(key), None, &limited(key, model), 1_000);
        }
    }
    assert_eq!(count(&board), MAX_SUSPICIONS);
}

const TROUBLE: Verdict = Verdict::PlatformTrouble { until: 9_000 };

fn out(board: &Board, number: u8, now: u64) -> bool {
    let standing = board.standing(&account(0), key(number), None, now);
    matches!(standing, Standing::Out(_))
}

fn half_open(board: &Board, number: u8, now: u64) -> bool {
    board.standing(&account(0), key(number), None, now) == Standing::HalfOpen
}

#[test]
fn strikes_of_other_keys_take_an_account_out_for_all() {
    let mut board = Board::new();
    let mut strike = |number, now| board.learn(&account(0), witness(number), None, &TROUBLE, now);
    for now in 1_000..1_003 {
        assert_eq!(strike(1, now), Change::Noted);
    }
    assert_eq!(strike(1, 1_003), Change::Nothing, "it is out for that key");
    assert_eq!(strike(2, 1_004), Change::Noted);
    let change = strike(3, 1_005);
    assert!(
        matches!(&change, Change::Out(entry) if entry.is_limit()),
        "{change:?}"
    );
    assert!((1..5).all(|number| out(&board, number, 8_999)));
}

#[test]
fn the_probe_is_of_a_key_that_did_not_strike() {
    let trouble = Verdict::PlatformTrouble { until: 12_000 };
    let mut board = Board::new();
    for (number, now) in [(1, 1_000), (1, 1_001), (2, 1_002), (2, 1_003)] {
        board.learn(&account(0), witness(number), None, &trouble, now);
    }
    assert!((1..4).all(|number| out(&board, number, 11_999)));
    assert!((1..4).all(|number| half_open(&board, number, 12_000)));
    // A striker tries for itself: it keeps nobody else away, and fails for itself.
    board.probe(&account(0), key(1), None, 12_000);
    assert!(out(&board, 1, 12_001) && half_open(&board, 3, 12_001));
    let again = Verdict::PlatformTrouble { until: 17_000 };
    let change = board.learn(&account(0), witness(1), None, &again, 12_002);
    assert_eq!(change, Change::Noted);
    assert!(out(&board, 1, 12_003) && half_open(&board, 3, 12_003));
    // The probe is another key's, and counts for all.
    board.probe(&account(0), key(3), None, 12_004);
    assert!(out(&board, 4, 12_005));
    let mut failed = board.clone();
    let change = failed.learn(&account(0), witness(3), None, &again, 12_006);
    assert!(matches!(change, Change::Out(_)), "{change:?}");
    assert!((1..5).all(|number| out(&failed, number, 16_999)));
    let change = board.learn(&account(0), witness(3), None, &Verdict::Fine, 12_006);
    assert_eq!(change, Change::Recovered);
    assert!(!out(&board, 4, 12_007) && !out(&board, 2, 12_007));
    assert!(out(&board, 1, 12_007), "its own failure stays");
}

#[test]
fn what_a_second_key_meets_too_is_the_accounts() {
    let dead = Verdict::Dead {
        reason: Reason::known("deactivated"),
    };
    let guess = Verdict::CoolingDown {
        scope: Scope::Account,
        until: 9_000,
        guessed: true,
        reason: Reason::rate_limited(),
    };
    for (verdict, first) in [
        (dead, Change::Suspected),
        (guess, Change::Noted),
        (Verdict::CredentialExpired, Change::Noted),
    ] {
        let mut board = Board::new();
        let mut learn =
            |number, now| board.learn(&account(0), witness(number), None, &verdict, now);
        assert_eq!(learn(1, 1_000), first);
        assert_eq!(learn(1, 1_001), Change::Nothing, "again");
        let second = learn(2, 1_002);
        assert!(matches!(second, Change::Out(_)), "{second:?}");
        assert!((1..4).all(|number| out(&board, number, 8_999)));
    }
}

#[test]
fn the_word_of_the_only_key_is_enough_and_a_death_needs_it_three_times() {
    let alone = Witness {
        key: key(1),
        alone: true,
    };
    let dead = Verdict::Dead {
        reason: Reason::known("deactivated"),
    };
    let mut board = Board::new();
    let mut now = 1_000;
    for pause in [SUSPECTED_MS, 2 * SUSPECTED_MS] {
        let change = board.learn(&account(0), alone, None, &dead, now);
        assert_eq!(change, Change::Suspected);
        let late = now + pause - 1;
        assert!(out(&board, 1, late) && !out(&board, 2, late));
        let change = board.learn(&account(0), alone, None, &dead, late);
        assert_eq!(change, Change::Nothing, "one that was under way");
        now += pause;
        assert!(half_open(&board, 1, now));
    }
    now += DEAD_MS - 1;
    let change = board.learn(&account(0), alone, None, &dead, now);
    assert!(
        matches!(&change, Change::Out(entry) if entry.dead),
        "{change:?}"
    );
    assert!(out(&board, 2, now + 1));
    let change = board.learn(&account(1), alone, None, &Verdict::CredentialExpired, 1_000);
    assert!(matches!(change, Change::Out(_)), "{change:?}");
}

#[test]
fn a_key_among_others_leaves_what_seems_dead_alone_for_longer_each_time() {
    let dead = Verdict::Dead {
        reason: Reason::known("deactivated"),
    };
    let (mut board, mut now) = (Board::new(), 1_000);
    for minutes in [1, 2, 4, 8, 16, 32, 60, 60] {
        let change = board.learn(&account(0), witness(1), None, &dead, now);
        assert_eq!(change, Change::Suspected);
        let back = now + minutes * 60_000;
        assert!(out(&board, 1, back - 1) && half_open(&board, 1, back));
        assert!(!out(&board, 2, now));
        now = back + 30_000;
    }
    // A good answer ends it, and people hear of that.
    let change = board.learn(&account(0), witness(1), None, &Verdict::Fine, now);
    assert_eq!(change, Change::Recovered);
    assert_eq!(
        board.standing(&account(0), key(1), None, now),
        Standing::Free
    );
    board.learn(&account(0), witness(1), None, &dead, now);
    assert!(half_open(&board, 1, now + SUSPECTED_MS));
}

/// A probe says for all that an account is still in trouble, and never alone that it is dead.
#[test]
fn the_probe_of_one_key_kills_nobody() {
    let trouble = Verdict::PlatformTrouble { until: 12_000 };
    let dead = Verdict::Dead {
        reason: Reason::known("deactivated"),
    };
    let mut board = Board::new();
    for (number, now) in [(1, 1_000), (1, 1_001), (2, 1_002), (2, 1_003)] {
        board.learn(&account(0), witness(number), None, &trouble, now);
    }
    let change = board.learn(&account(0), witness(3), None, &dead, 12_000);
    assert_eq!(change, Change::Suspected);
}
