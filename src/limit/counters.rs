//! The use of one subject: its minute, its day, and the requests that it has under way.

use super::{DAY_MS, Limit, Limits, MINUTE_MS, Reached};

/// The time for which a VM's share of a subject's streams counts after the VM last renewed it, in
/// milliseconds. A crash of a VM frees its streams after that.
pub const LEASE_MS: u64 = 25_000;

/// The time for which other Envoys' word about their streams counts, in milliseconds: where the refresher
/// is away, nobody knows when theirs end.
const OTHERS_STREAMS_MS: u64 = 30_000;

/// The most VMs that hold streams of one subject. Envoy has one VM a worker; those of crashed
/// ones lapse.
const MAX_LEASES: usize = 512;

/// The shortest and the longest day, in milliseconds: zones have skipped and repeated hours, and
/// a day.
const DAYS_MS: std::ops::RangeInclusive<u64> = 3_600_000..=2 * DAY_MS + 7_200_000;

/// The amount that was used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Used {
    /// Requests let through.
    pub requests: u64,
    /// Tokens of requests that have ended.
    pub tokens: u64,
}

/// A stretch of time and what was used in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Period {
    /// Its first millisecond, Unix time.
    pub start: u64,
    /// The first one after it.
    pub end: u64,
    /// Through this Envoy.
    pub own: Used,
    /// Through the others, as far as is known.
    pub others: Used,
}

/// The use of one subject.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    /// The minute.
    pub minute: Period,
    /// The day.
    pub day: Period,
    /// The requests under way through other Envoys.
    pub others_streams: u64,
    /// The time at which the refresher last told of the others, in Unix milliseconds; 0 for never.
    pub settled_at: u64,
    /// The time of the last count or refusal in this Envoy, in Unix milliseconds.
    pub touched_at: u64,
    leases: Vec<Lease>,
}

/// The streams of one VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Lease {
    vm: u64,
    streams: u64,
    until: u64,
}

// === impl Used ===

impl Used {
    /// Both together.
    pub fn plus(self, other: Self) -> Self {
        Self {
            requests: self.requests.saturating_add(other.requests),
            tokens: self.tokens.saturating_add(other.tokens),
        }
    }

    /// The larger of each.
    pub fn max(self, other: Self) -> Self {
        Self {
            requests: self.requests.max(other.requests),
            tokens: self.tokens.max(other.tokens),
        }
    }
}

// === impl Period ===

impl Period {
    /// Through every Envoy.
    pub fn used(&self) -> Used {
        self.own.plus(self.others)
    }

    /// Moves on to the period of `length` that `now` is in. What was used is forgotten only when
    /// its period has ended: a clock set back by little leaves the period as it is, and one set
    /// back by more than a period gives it an end near enough to wait for, but no new budget.
    fn roll(&mut self, now: u64, length: u64) {
        let aligned = |from: u64| {
            let whole = now.saturating_sub(from).checked_div(length);
            from.saturating_add(whole.unwrap_or_default().saturating_mul(length))
        };
        if now >= self.end {
            *self = Self::starting(aligned(self.end), length);
        } else if now.saturating_add(length) <= self.start {
            let (own, others) = (self.own, self.others);
            *self = Self {
                own,
                others,
                ..Self::starting(aligned(0), length)
            };
        }
    }

    fn starting(start: u64, length: u64) -> Self {
        Self {
            start,
            end: start.saturating_add(length),
            ..Self::default()
        }
    }

    /// Takes what the others used in the period that starts at `start`. Within a period they
    /// never use less: a refresher that has just started does not know of all of them.
    fn learn(&mut self, start: u64, others: Used) {
        if self.start == start {
            self.others = self.others.max(others);
        }
    }
}

// === impl Counters ===

impl Counters {
    /// Moves on to `now`: ends what has ended.
    pub fn roll(&mut self, now: u64) {
        self.minute.roll(now, MINUTE_MS);
        self.day.roll(now, DAY_MS);
        // An end further off than a lease is long was written before the clock was set back.
        let latest = now.saturating_add(LEASE_MS);
        for lease in &mut self.leases {
            lease.until = lease.until.min(latest);
        }
        self.leases
            .retain(|lease| now < lease.until && lease.streams > 0);
        let stale = now.saturating_sub(self.settled_at) >= OTHERS_STREAMS_MS;
        if stale || self.settled_at > now {
            self.others_streams = 0;
        }
        self.touched_at = self.touched_at.min(now);
        self.settled_at = self.settled_at.min(now);
    }

    /// The requests under way through this Envoy.
    pub fn own_streams(&self) -> u64 {
        let streams = self.leases.iter().map(|lease| lease.streams);
        streams.fold(0, u64::saturating_add)
    }

    /// Returns true if nothing in it would be missed at `now`: nothing is under way, its minute is
    /// over, and no tokens of its day are counted.
    pub fn is_idle(&self, now: u64) -> bool {
        let minute_over = now >= self.minute.end;
        let day_empty = now >= self.day.end || self.day.own.tokens == 0;
        minute_over && day_empty && self.leases.iter().all(|lease| now >= lease.until)
    }

    /// Finds the limit that is reached; of several the one that ends last. To be called after a
    /// roll.
    pub fn reached(&self, limits: &Limits) -> Option<Reached> {
        let at = |limit, allowed: Option<u64>, used: u64, until| {
            let allowed = allowed.filter(|allowed| used >= *allowed)?;
            Some(Reached {
                limit,
                allowed,
                until,
            })
        };
        let (minute, day) = (self.minute.used(), self.day.used());
        let streams = self.own_streams().saturating_add(self.others_streams);
        [
            at(
                Limit::TokensPerDay,
                limits.tokens_per_day.map(u64::from),
                day.tokens,
                Some(self.day.end),
            ),
            at(
                Limit::RequestsPerMinute,
                limits
                    .requests_per_minute
                    .map(|of| u64::from(u32::from(of))),
                minute.requests,
                Some(self.minute.end),
            ),
            at(
                Limit::TokensPerMinute,
                limits.tokens_per_minute.map(u64::from),
                minute.tokens,
                Some(self.minute.end),
            ),
            at(
                Limit::ConcurrentStreams,
                limits.concurrent_streams.map(|of| u64::from(u32::from(of))),
                streams,
                None,
            ),
        ]
        .into_iter()
        .flatten()
        // The first of equal ones: the day may end with the minute.
        .reduce(|last, next| if next.until > last.until { next } else { last })
    }

    /// Counts so many requests.
    pub fn count_requests(&mut self, requests: u64) {
        self.count(Used {
            requests,
            tokens: 0,
        });
    }

    /// Counts tokens.
    pub fn count_tokens(&mut self, tokens: u64) {
        self.count(Used {
            requests: 0,
            tokens,
        });
    }

    fn count(&mut self, used: Used) {
        self.minute.own = self.minute.own.plus(used);
        self.day.own = self.day.own.plus(used);
    }

    /// Says that the VM of this number has so many requests under way at `now`.
    pub fn lease(&mut self, vm: u64, streams: u64, now: u64) {
        self.leases.retain(|lease| lease.vm != vm);
        if streams > 0 && self.leases.len() < MAX_LEASES {
            self.leases.push(Lease {
                vm,
                streams,
                until: now.saturating_add(LEASE_MS),
            });
        }
    }

    /// Takes what the refresher says at `now` about the others, in answer to what was sent at
    /// `asked_at`. What does not belong to the periods of now is passed over.
    pub fn learn(&mut self, said: &super::settle::Said, asked_at: u64, now: u64) {
        self.roll(now);
        let (start, end) = (said.day.start, said.day.end);
        let plausible = DAYS_MS.contains(&end.saturating_sub(start));
        if plausible && start <= now && now < end {
            if self.day.start != start {
                self.day.others = Used::default();
            }
            (self.day.start, self.day.end) = (start, end);
            self.day.learn(start, said.day.used());
        }
        self.minute.learn(said.minute.start, said.minute.used());
        self.others_streams = said.streams;
        self.settled_at = asked_at;
    }

    /// Its bytes: numbers of seven bits a byte, the lowest first.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(96);
        for period in [&self.minute, &self.day] {
            let length = period.end.saturating_sub(period.start);
            for number in [period.start, length] {
                put(&mut bytes, number);
            }
            for used in [period.own, period.others] {
                put(&mut bytes, used.requests);
                put(&mut bytes, used.tokens);
            }
        }
        for number in [self.others_streams, self.settled_at, self.touched_at] {
            put(&mut bytes, number);
        }
        for lease in &self.leases {
            for number in [lease.vm, lease.streams, lease.until] {
                put(&mut bytes, number);
            }
        }
        bytes
    }

    /// Reads [`Counters::encode`]'s bytes.
    pub fn decode(mut bytes: &[u8]) -> Option<Self> {
        let rest = &mut bytes;
        let (minute, day) = (period(rest)?, period(rest)?);
        let mut counters = Self {
            minute,
            day,
            others_streams: take(rest)?,
            settled_at: take(rest)?,
            touched_at: take(rest)?,
            leases: Vec::new(),
        };
        while !rest.is_empty() && counters.leases.len() < MAX_LEASES {
            counters.leases.push(Lease {
                vm: take(rest)?,
                streams: take(rest)?,
                until: take(rest)?,
            });
        }
        Some(counters)
    }
}

fn period(rest: &mut &[u8]) -> Option<Period> {
    let (start, length) = (take(rest)?, take(rest)?);
    let mut used = || {
        Some(Used {
            requests: take(rest)?,
            tokens: take(rest)?,
        })
    };
    Some(Period {
        start,
        end: start.saturating_add(length),
        own: used()?,
        others: used()?,
    })
}

fn put(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(u8::try_from(number & 0x7f).unwrap_or_default() | 0x80);
        number >>= 7;
    }
    bytes.push(u8::try_from(number).unwrap_or_default());
}

fn take(rest: &mut &[u8]) -> Option<u64> {
    let mut number: u64 = 0;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        number |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::limit::settle::{Said, Span};

    const NOON: u64 = 1_790_000_000_000 / DAY_MS * DAY_MS + DAY_MS / 2;

    fn limits(json: &str) -> Limits {
        serde_json::from_str(json).unwrap()
    }

    fn counters_at(now: u64) -> Counters {
        let mut counters = Counters::default();
        counters.roll(now);
        counters
    }

    #[test]
    fn a_minute_and_a_day_end_by_themselves() {
        let limits = limits(r#"{"requests_per_minute":2,"tokens_per_day":100}"#);
        let mut counters = counters_at(NOON + 10);
        assert_eq!(
            (counters.minute.start, counters.minute.end),
            (NOON, NOON + MINUTE_MS)
        );
        counters.count_requests(1);
        assert_eq!(counters.reached(&limits), None);
        counters.count_requests(1);
        let reached = counters.reached(&limits).unwrap();
        assert_eq!(reached.limit, Limit::RequestsPerMinute);
        assert_eq!(
            (reached.allowed, reached.until),
            (2, Some(NOON + MINUTE_MS))
        );
        counters.count_tokens(100);
        let reached = counters.reached(&limits).unwrap();
        assert_eq!(reached.limit, Limit::TokensPerDay, "the one that ends last");
        assert_eq!(reached.until, Some(NOON + DAY_MS / 2));
        counters.roll(NOON + MINUTE_MS);
        assert_eq!(counters.minute.used(), Used::default());
        assert!(counters.reached(&limits).is_some());
        counters.roll(NOON + DAY_MS / 2);
        assert_eq!(counters.reached(&limits), None);
    }

    #[test]
    fn a_day_has_the_bounds_that_the_refresher_says() {
        let mut counters = counters_at(NOON);
        counters.count_tokens(7);
        let (start, end) = (NOON - 3 * 3_600_000, NOON + 20 * 3_600_000);
        let said = |start, end, tokens| Said {
            day: Span {
                start,
                end,
                requests: 0,
                tokens,
            },
            ..Said::default()
        };
        counters.learn(&said(start, end, 5), NOON, NOON);
        assert_eq!((counters.day.start, counters.day.end), (start, end));
        assert_eq!(counters.day.used().tokens, 12);
        // A refresher that has just started knows less, one whose day is over is late.
        counters.learn(&said(start, end, 0), NOON + 1, NOON + 1);
        counters.learn(&said(start - DAY_MS, start, 50), NOON + 1, NOON + 1);
        counters.learn(&said(start, u64::MAX, 50), NOON + 1, NOON + 1);
        assert_eq!(counters.day.used().tokens, 12);
        // The next day begins where this one ends, until the refresher says how long it is.
        counters.roll(end + 5);
        assert_eq!((counters.day.start, counters.day.end), (end, end + DAY_MS));
        assert_eq!(counters.day.used(), Used::default());
    }

    #[test]
    fn a_lease_lapses_and_a_clock_set_back_does_not_make_it_last() {
        let limits = limits(r#"{"concurrent_streams":3}"#);
        let mut counters = counters_at(NOON);
        counters.lease(1, 2, NOON);
        counters.lease(2, 1, NOON + 5_000);
        assert_eq!(counters.own_streams(), 3);
        assert_eq!(counters.reached(&limits).unwrap().until, None);
        counters.lease(2, 0, NOON + 5_001);
        assert_eq!(counters.reached(&limits), None);
        counters.lease(2, 1, NOON + 5_000);
        counters.roll(NOON + LEASE_MS);
        assert_eq!(counters.own_streams(), 1);
        counters.roll(NOON - 3_600_000);
        assert_eq!(counters.own_streams(), 1);
        counters.roll(NOON - 3_600_000 + LEASE_MS);
        assert_eq!(counters.own_streams(), 0);
    }

    fn any_counters() -> impl Strategy<Value = Counters> {
        let period = || {
            any::<[u32; 6]>().prop_map(|[start, length, a, b, c, d]| Period {
                start: u64::from(start) << 20,
                end: (u64::from(start) << 20) + u64::from(length),
                own: Used {
                    requests: a.into(),
                    tokens: u64::from(b) << 9,
                },
                others: Used {
                    requests: c.into(),
                    tokens: d.into(),
                },
            })
        };
        let lease = any::<[u64; 3]>().prop_map(|[vm, streams, until]| Lease { vm, streams, until });
        let leases = prop::collection::vec(lease, 0..5);
        (period(), period(), any::<[u64; 3]>(), leases).prop_map(|(minute, day, rest, leases)| {
            Counters {
                minute,
                day,
                others_streams: rest[0],
                settled_at: rest[1],
                touched_at: rest[2],
                leases,
            }
        })
    }

    proptest! {
        #[test]
        fn counters_survive_shared_data(counters in any_counters()) {
            prop_assert_eq!(Counters::decode(&counters.encode()), Some(counters));
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, now: u64, tokens: u64) {
            if let Some(mut counters) = Counters::decode(&bytes) {
                counters.roll(now);
                counters.count_tokens(tokens);
                counters.count_requests(1);
                counters.reached(&Limits::default());
                counters.encode();
            }
        }

        /// Whatever the clock does, a budget comes back only when the end of its period was
        /// reached, and that end is never further off than two periods.
        #[test]
        fn a_clock_that_jumps_gives_no_new_budget(
            start in NOON..NOON + DAY_MS,
            steps in prop::collection::vec(prop_oneof![
                -3 * 86_400_000_i64..0,
                -90_000_i64..90_000,
            ], 1..40),
        ) {
            let mut counters = counters_at(start);
            counters.count_requests(1);
            let mut now = start;
            for step in steps {
                let before = counters.minute;
                now = now.saturating_add_signed(step);
                counters.roll(now);
                let after = counters.minute;
                if now < before.end {
                    prop_assert_eq!(after.own, before.own);
                } else {
                    prop_assert_eq!(after.own, Used::default());
                }
                prop_assert!(now < after.end && after.end - now <= 2 * MINUTE_MS);
                prop_assert!(counters.day.end - now <= 2 * DAY_MS);
                counters.count_requests(1);
            }
        }
    }
}
