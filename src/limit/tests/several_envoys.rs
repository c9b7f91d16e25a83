//! The laws of limits on several Envoys and the refresher that adds up what they count.

use super::*;
use crate::limit::settle::{self, Line, Others, Said, Settler, Span};

/// A refresher that adds up, in memory.
#[derive(Default)]
struct Sums(BTreeMap<(String, Subject), Said>);

impl Sums {
    fn answer(&mut self, body: &str) -> String {
        let counts: settle::Counts = serde_json::from_str(body).unwrap();
        for line in &counts.subjects {
            let key = (counts.instance.clone(), line.subject.clone());
            self.0.insert(key, line.said);
        }
        let others = |line: &Line| {
            let (mut minute, mut day, mut streams) = (line.said.minute, line.said.day, 0);
            for span in [&mut minute, &mut day] {
                (span.requests, span.tokens) = (0, 0);
            }
            for ((instance, subject), said) in &self.0 {
                if *instance != counts.instance && *subject == line.subject {
                    let add = |to: &mut Span, from: &Span| {
                        if to.start == from.start {
                            to.requests += from.requests;
                            to.tokens += from.tokens;
                        }
                    };
                    add(&mut minute, &said.minute);
                    add(&mut day, &said.day);
                    streams += said.streams;
                }
            }
            Line {
                subject: line.subject.clone(),
                said: Said {
                    minute,
                    day,
                    streams,
                },
            }
        };
        let subjects = counts.subjects.iter().map(others).collect();
        serde_json::to_string(&Others { subjects }).unwrap()
    }
}

/// An Envoy with one VM.
struct Envoy {
    shared: FakeSharedData,
    limiter: Limiter,
    settler: Settler,
    admitted: u64,
    next: u32,
}

fn envoys(count: u64) -> Vec<Envoy> {
    let envoy = |seed| {
        let mut shared = FakeSharedData::default();
        table::prepare(&mut shared, &[seed]);
        Envoy {
            shared,
            limiter: Limiter::new(1),
            settler: Settler::default(),
            admitted: 0,
            next: 0,
        }
    };
    (0..count).map(envoy).collect()
}

impl Envoy {
    fn request(&mut self, limited: &Limited, now: u64) -> bool {
        self.next += 1;
        let admission = self.limiter.ask(&mut self.shared, self.next, limited, now);
        self.admitted += u64::from(admission.is_ok());
        admission.is_ok()
    }

    /// A tick of the root context, with an answer that comes at once, or never.
    fn tick(&mut self, sums: &mut Sums, now: u64, lost: bool) {
        self.limiter.tick(&mut self.shared, now);
        if let Some(body) = self.settler.next(&mut self.shared, now) {
            let answer = sums.answer(&body);
            if lost {
                self.settler.answered(&mut self.shared, b"", b"", now);
            } else {
                self.settler
                    .answered(&mut self.shared, b"200", answer.as_bytes(), now);
            }
        }
    }
}

proptest! {
    /// The bound of the module's page: N Envoys let through at most the limit and what the other N - 1
    /// can take in two settle intervals and the tick that starts each.
    #[test]
    fn envoys_stay_within_the_bound(
        count in 1_u64..5,
        limit in 5_u64..200,
        rates in prop::collection::vec(1_u64..6, 4),
        offsets in prop::collection::vec(0_u64..10, 4),
    ) {
        const TICK_MS: u64 = 100;
        let limited = of_key(&format!(r#"{{"requests_per_minute":{limit}}}"#));
        let mut sums = Sums::default();
        let mut envoys = envoys(count);
        for step in 0..590 {
            let now = START + step * TICK_MS;
            for (n, envoy) in envoys.iter_mut().enumerate() {
                if step >= offsets[n] {
                    envoy.tick(&mut sums, now, false);
                    for _ in 0..rates[n] {
                        envoy.request(&limited, now + 1);
                    }
                }
            }
        }
        let admitted: u64 = envoys.iter().map(|envoy| envoy.admitted).sum();
        let stale_ticks = 2 * (settle::SETTLE_MS + TICK_MS) / TICK_MS;
        let fastest = *rates.iter().max().unwrap();
        let over = (count - 1) * limit.min(fastest * stale_ticks);
        prop_assert!(admitted <= limit + over, "{admitted} of {limit}, {count} Envoys");
        prop_assert!(admitted >= limit.min(rates[0] * 500), "{admitted} of {limit}");
        if count == 1 {
            prop_assert_eq!(admitted, limit);
        }
    }
}

/// A request that is under way.
struct Open {
    envoy: usize,
    context: u32,
    /// Its last tick.
    until: u64,
}

proptest! {
    /// The same of streams and of tokens, by requests that last a while and tell at their end what
    /// they used: over the limit of streams go at most those that the other Envoys let through before
    /// it is known, over that of tokens in addition those that were under way when it was reached.
    #[test]
    fn envoys_stay_within_the_bounds_of_streams_and_tokens(
        count in 1_usize..5,
        streams in 3_u64..60,
        limit in 500_u64..20_000,
        used in 1_u64..200,
        lasts in 1_u64..80,
        rates in prop::collection::vec(1_u64..5, 4),
        offsets in prop::collection::vec(0_u64..10, 4),
    ) {
        const TICK_MS: u64 = 100;
        let limited = of_key(&format!(
            r#"{{"concurrent_streams":{streams},"tokens_per_day":{limit}}}"#
        ));
        let mut sums = Sums::default();
        let mut envoys = envoys(count as u64);
        let mut open: Vec<Open> = Vec::new();
        let (mut most_open, mut charged) = (0_u64, 0_u64);
        for step in 0..600 {
            let now = START + step * TICK_MS;
            for (n, envoy) in envoys.iter_mut().enumerate() {
                if step < offsets[n] {
                    continue;
                }
                envoy.tick(&mut sums, now, false);
                for _ in 0..rates[n] {
                    if envoy.request(&limited, now + 1) {
                        let context = envoy.next;
                        open.push(Open { envoy: n, context, until: step + lasts });
                    }
                }
                most_open = most_open.max(open.len() as u64);
                for ended in open.extract_if(.., |one| one.envoy == n && one.until <= step) {
                    let try_id = envoy.limiter.try_id(ended.context);
                    envoy.limiter.charge(&mut envoy.shared, try_id, &limited, used, now + 2);
                    envoy.limiter.release(&mut envoy.shared, ended.context, now + 2);
                    charged += used;
                }
            }
        }
        let stale_ticks = 2 * (settle::SETTLE_MS + TICK_MS) / TICK_MS;
        let unknown = (count as u64 - 1) * rates[..count].iter().max().unwrap() * stale_ticks;
        prop_assert!(
            most_open <= streams + unknown.min((count as u64 - 1) * streams),
            "{most_open} of {streams} at once, {count} Envoys"
        );
        let requests: u64 = envoys.iter().map(|envoy| envoy.admitted).sum();
        let allowed = limit.div_ceil(used);
        prop_assert!(
            requests <= allowed + most_open + unknown,
            "{requests} of {allowed}, {most_open} at once"
        );
        prop_assert!(charged > 0);
    }
}

#[test]
fn envoys_learn_of_each_other_and_lose_nothing_to_lost_messages() {
    let limited =
        of_key(r#"{"requests_per_minute":10,"tokens_per_day":1000,"concurrent_streams":4}"#);
    let mut sums = Sums::default();
    let mut envoys = envoys(2);
    let [one, two] = &mut envoys[..] else {
        panic!()
    };
    for envoy in [&mut *one, &mut *two] {
        know(&mut envoy.shared, &Subject::key(&id("key_1")));
    }
    assert!(one.request(&limited, START));
    one.limiter
        .charge(&mut one.shared, TryId::default(), &limited, 900, START);
    one.tick(&mut sums, START + 100, true);
    assert!(two.request(&limited, START + 150));
    two.tick(&mut sums, START + 200, false);
    let seen = key_counters(&two.shared, START + 200);
    assert_eq!(
        seen.day.used().tokens,
        900,
        "the refresher heard it, only the answer was lost"
    );
    assert_eq!((seen.minute.used().requests, seen.others_streams), (2, 1));
    one.tick(&mut sums, START + 1_200, false);
    assert_eq!(
        key_counters(&one.shared, START + 1_200)
            .minute
            .used()
            .requests,
        2
    );
    two.limiter.charge(
        &mut two.shared,
        TryId::default(),
        &limited,
        100,
        START + 1_300,
    );
    two.tick(&mut sums, START + 2_200, false);
    one.tick(&mut sums, START + 2_300, false);
    assert!(!one.request(&limited, START + 2_400), "the day is used up");
    let refused = key_counters(&one.shared, START + 2_400);
    let reached = refused.reached(&limited.key.as_ref().unwrap().1).unwrap();
    assert_eq!(
        (reached.limit, reached.until),
        (Limit::TokensPerDay, Some(START + DAY_MS))
    );
}

/// After a restart an Envoy knows nothing of what was used before until the refresher has answered.
#[test]
fn a_new_envoy_counts_by_itself_until_its_first_answer() {
    let limited = of_key(r#"{"tokens_per_day":1000}"#);
    let mut sums = Sums::default();
    let mut envoys = envoys(2);
    let [before, after] = &mut envoys[..] else {
        panic!()
    };
    assert!(before.request(&limited, START));
    before
        .limiter
        .charge(&mut before.shared, TryId::default(), &limited, 1_000, START);
    before.tick(&mut sums, START + 100, false);

    let now = START + 5_000;
    assert!(after.request(&limited, now));
    after.tick(&mut sums, now + 100, true);
    assert!(after.request(&limited, now + 200), "no answer yet");
    after.tick(&mut sums, now + 1_200, false);
    assert!(!after.request(&limited, now + 1_300));
}

proptest! {
    /// The bound of a new Envoy: what is used up elsewhere it lets through for a settle interval
    /// and a tick, and never more than its limit. Where the refresher is away, that holds for good.
    #[test]
    fn a_new_envoy_stays_within_the_bound(
        limit in 1_u64..200,
        rate in 1_u64..6,
        idle in 0_u64..15,
        is_away: bool,
    ) {
        const TICK_MS: u64 = 100;
        let limited = of_key(&format!(r#"{{"requests_per_minute":{limit}}}"#));
        let mut sums = Sums::default();
        let mut envoys = envoys(2);
        let [before, after] = &mut envoys[..] else { panic!() };
        for _ in 0..limit {
            prop_assert!(before.request(&limited, START));
        }
        before.tick(&mut sums, START, false);
        for step in 0..idle {
            after.tick(&mut sums, START + step * TICK_MS, is_away);
        }
        for step in idle..300 {
            let now = START + step * TICK_MS;
            after.tick(&mut sums, now, is_away);
            for _ in 0..rate {
                after.request(&limited, now + 1);
            }
        }
        let ticks = (settle::SETTLE_MS + TICK_MS) / TICK_MS;
        let most = if is_away { limit } else { limit.min(rate * ticks) };
        prop_assert!(after.admitted <= most, "{} of {most}", after.admitted);
        prop_assert!(!is_away || after.admitted == limit);
    }
}

#[test]
fn what_nobody_uses_is_not_told_any_more() {
    let limited = of_key(r#"{"requests_per_minute":10}"#);
    let mut sums = Sums::default();
    let mut envoys = envoys(1);
    let envoy = &mut envoys[0];
    know(&mut envoy.shared, &Subject::key(&id("key_1")));
    assert_eq!(envoy.settler.next(&mut envoy.shared, START), None);
    assert!(envoy.request(&limited, START + 300));
    assert_eq!(envoy.settler.next(&mut envoy.shared, START + 400), None);
    assert!(
        envoy
            .settler
            .next(&mut envoy.shared, START + 1_000)
            .is_some()
    );
    assert_eq!(
        envoy.settler.next(&mut envoy.shared, START + 2_000),
        None,
        "one at a time"
    );
    envoy
        .settler
        .answered(&mut envoy.shared, b"503", b"", START + 2_000);
    for now in [START + 30_000, START + 40_000] {
        let again = envoy.settler.next(&mut envoy.shared, now);
        assert!(again.is_some(), "it was never heard");
        envoy.settler.answered(&mut envoy.shared, b"", b"", now);
    }
    envoy.tick(&mut sums, START + 50_000, false);
    assert_eq!(envoy.settler.next(&mut envoy.shared, START + 51_100), None);
}

#[test]
fn an_answer_makes_no_counters() {
    let mut shared = prepared();
    let mut settler = Settler::default();
    let mut limiter = Limiter::new(1);
    let limited = of_key(r#"{"requests_per_minute":10}"#);
    assert_eq!(limiter.ask(&mut shared, 1, &limited, START), Ok(()));
    settler.next(&mut shared, START).unwrap();
    let before = table::all(&shared, START).len();
    let line = |name: &str| Line {
        subject: Subject::key(&id(name)),
        said: Said::default(),
    };
    let others = Others {
        subjects: vec![line("key_1"), line("key_2")],
    };
    let body = serde_json::to_vec(&others).unwrap();
    settler.answered(&mut shared, b"200", &body, START);
    assert_eq!(table::all(&shared, START).len(), before);
}
