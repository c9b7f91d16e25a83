//! The laws of every policy.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::limit::FullAccounts;
use crate::{
    snapshot::{Member, Models, Record, fixture},
    verdict::{Reason, Scope, Verdict},
};

const NOW: u64 = 1_000;

/// An account in a pool, and whether a request could use it.
#[derive(Debug, Clone)]
struct Case {
    tier: u32,
    weight: u32,
    expired: bool,
    ended: bool,
    tried: bool,
    out: bool,
    other_model: bool,
    other_platform: bool,
    in_flight: u32,
    left: Option<u8>,
}

impl Case {
    fn is_eligible(&self) -> bool {
        let Self {
            expired,
            ended,
            tried,
            out,
            other_model,
            other_platform,
            ..
        } = *self;
        !(expired || ended || tried || out || other_model || other_platform)
    }
}

fn case() -> impl Strategy<Value = Case> {
    // Each thing that stands in the way is rare, or nobody would ever be picked.
    let rare = || prop::bool::weighted(0.15);
    let ways = (rare(), rare(), rare(), rare(), rare(), rare());
    (
        0..3_u32,
        1..4_u32,
        ways,
        0..3_u32,
        prop::option::of(0..=100_u8),
    )
        .prop_map(
            |(
                tier,
                weight,
                (expired, ended, tried, out, other_model, other_platform),
                in_flight,
                left,
            )| Case {
                tier,
                weight,
                expired,
                ended,
                tried,
                out,
                other_model,
                other_platform,
                in_flight,
                left,
            },
        )
}

fn id(index: usize) -> Id {
    Id::try_from(format!("acc_{index}").as_str()).unwrap()
}

fn table_of(cases: &[Case], policy: Policy) -> Table {
    let mut demanding = fixture::platform("codex");
    demanding.id = Id::try_from("demanding").unwrap();
    demanding.endpoints[0].requires = vec![Requirement::Stream];
    let mut records = vec![
        Record::Platform(fixture::platform("codex")),
        Record::Platform(demanding),
    ];
    let mut pool = fixture::pool("default", policy, &[]);
    for (index, case) in cases.iter().enumerate() {
        let platform = if case.other_platform {
            "demanding"
        } else {
            "codex"
        };
        let mut account = fixture::account(id(index).as_str(), platform);
        account.credential_expires_at = case.expired.then_some(NOW);
        account.expires_at = Some(if case.ended { NOW } else { 2 * NOW });
        let models: Models = serde_json::from_str(r#"["other"]"#).unwrap();
        account.models = if case.other_model {
            models
        } else {
            Models::default()
        };
        records.push(Record::Account(account));
        pool.members.push(Member {
            account: id(index),
            weight: case.weight.try_into().unwrap(),
            tier: case.tier.try_into().unwrap(),
        });
    }
    super::fixture::at(&View::of(&records), &pool, fixture::RESPONSES)
}

fn board_of(cases: &[Case]) -> Board {
    let left = |(index, case): (usize, &Case)| {
        Some((id(index).to_string(), f64::from(case.left?) / 100.0))
    };
    let known: Vec<_> = cases.iter().enumerate().filter_map(left).collect();
    let known: Vec<_> = known
        .iter()
        .map(|(id, left)| (id.as_str(), *left, 2 * NOW))
        .collect();
    let mut board = super::fixture::board(&known);
    for (index, _) in cases.iter().enumerate().filter(|(_, case)| case.out) {
        let account = fixture::account(id(index).as_str(), "codex");
        let limited = Verdict::CoolingDown {
            scope: Scope::Account,
            until: NOW + 1,
            guessed: false,
            reason: Reason::rate_limited(),
        };
        board.post(&account, &limited, 0);
    }
    board
}

proptest! {
    #[test]
    fn only_the_eligible_are_picked_and_of_the_first_tier(
        cases in prop::collection::vec(case(), 0..12),
        policy in prop::sample::select(Policy::ALL.to_vec()),
        sessions in prop::collection::vec(prop::option::of(any::<u64>()), 1..12),
    ) {
        let mut table = table_of(&cases, policy);
        let board = board_of(&cases);
        let mut in_flight = InFlight::new();
        for (index, case) in cases.iter().enumerate() {
            (0..case.in_flight).for_each(|_| in_flight.began(&id(index)));
        }
        let tried = cases.iter().enumerate().filter(|(_, case)| case.tried);
        let tried: Vec<_> = tried.map(|(index, _)| (id(index), 1)).collect();
        let eligible = || cases.iter().filter(|case| case.is_eligible());
        let tier = eligible().map(|case| case.tier).min();
        for session in sessions {
            let need = Need {
                opens: false,
                modelless: false,
                home: None,
                prefers: None,
                session,
                now: NOW,
                key: crate::health::fixture::key(),
                shows_names: false,
                board: &board,
                full: &FullAccounts::new(),
                tried: &tried,
                model: Some("gpt"),
                lacks: Lacks { stream: true, ..Lacks::default() },
                untranslated: false,
                wish: None,
                platform: None,
                in_flight: &in_flight,
            };
            prop_assert_eq!(table.can_serve(&need), tier.is_some());
            match table.pick(&need) {
                Pick::Account { account, .. } => {
                    let index: usize = account.id.as_str()["acc_".len()..].parse().unwrap();
                    prop_assert!(cases[index].is_eligible(), "{:?}", cases[index]);
                    prop_assert_eq!(Some(cases[index].tier), tier);
                }
                other => prop_assert!(tier.is_none(), "{:?}", other),
            }
            let wish = id(0);
            let wished = Need { wish: Some(wish.as_str()), ..need };
            if let Pick::Account { account, .. } = table.pick(&wished) {
                prop_assert_eq!(&account.id, &wish);
            }
        }
    }

    #[test]
    fn turns_come_as_often_as_weights_say_whatever_they_are(
        weights in prop::collection::vec(1..6_u32, 1..8),
        policy in prop::sample::select(vec![Policy::RoundRobin, Policy::Sticky]),
    ) {
        let mut table = super::fixture::table(policy, weights.len());
        for (index, weight) in weights.iter().enumerate() {
            table.weigh(id(index).as_str(), *weight);
        }
        let rounds = weights.iter().sum::<u32>() * 3;
        let mut counts: HashMap<String, u32> = HashMap::new();
        (0..rounds).for_each(|_| *counts.entry(table.id(None, 0)).or_default() += 1);
        for (index, weight) in weights.iter().enumerate() {
            prop_assert_eq!(counts[id(index).as_str()], weight * 3);
        }
    }

    /// Within a tier sessions stay where they are, and they return to it.
    #[test]
    fn sessions_return_to_the_first_tier(sessions in prop::collection::vec(any::<u64>(), 1..50)) {
        let idle = Case {
            tier: 0,
            weight: 1,
            expired: false,
            ended: false,
            tried: false,
            out: false,
            other_model: false,
            other_platform: false,
            in_flight: 0,
            left: None,
        };
        let mut cases = vec![idle.clone(), idle.clone(), Case { tier: 1, ..idle }];
        let mut table = table_of(&cases, Policy::Sticky);
        cases[0].out = true;
        let some_out = board_of(&cases);
        cases[1].out = true;
        let all_out = board_of(&cases);
        let at = |table: &mut Table, board: &Board, session, now| {
            let need = Need { board, ..super::fixture::need(Some(session), now) };
            match table.pick(&need) {
                Pick::Account { account, .. } => account.id.to_string(),
                other => panic!("{other:?}"),
            }
        };
        for session in sessions {
            let home = table.id(Some(session), NOW);
            prop_assert_ne!(&home, "acc_2");
            prop_assert_eq!(at(&mut table, &some_out, session, NOW), "acc_1");
            prop_assert_eq!(at(&mut table, &all_out, session, NOW), "acc_2");
            prop_assert_eq!(at(&mut table, &all_out, session, NOW + 1), home);
        }
    }
}
