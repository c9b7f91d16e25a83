use std::collections::HashSet;
use std::slice;

use latchkey::id::Id;
use latchkey::request::record::Record;
use latchkey::sync::records::{GATHER_MS, Records};
use latchkey::sync::tally::UnderWay;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn origin(vm: u64) -> Origin {
    Origin {
        instance: "0123456789abcdef".repeat(2),
        vm,
        node: Id::try_from("latchkey").ok(),
    }
}

fn untold(vm: u64, number: u64, heard_at: i64) -> Untold {
    Untold {
        origin: origin(vm),
        number,
        heard_at: UnixMillis(heard_at),
        requests: 3,
    }
}

#[test]
fn who_is_silent_is_told_by_what_this_process_has_seen() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut watch = Watch::new(Duration::from_secs(300));
    // Long before this process: nobody could be heard meanwhile.
    let mut silent = |all: &[Untold], seconds| watch.silent(all.to_vec(), at(seconds));
    let (one, other) = (untold(1, 7, -86_400_000), untold(2, 9, 5));
    assert_eq!(silent(&[one.clone(), other.clone()], 0), []);
    assert_eq!(silent(&[one.clone(), other.clone()], 299), []);
    // A word between two looks, also one that says the same, or comes with a clock that was set back.
    let again = untold(2, 9, 4);
    assert_eq!(silent(&[one.clone(), again.clone()], 300), [one]);
    assert_eq!(silent(slice::from_ref(&again), 599), []);
    // One that had told of all meanwhile begins anew.
    assert_eq!(silent(&[], 600), []);
    assert_eq!(silent(slice::from_ref(&again), 601), []);
    assert_eq!(silent(slice::from_ref(&again), 901), [again]);
}

/// A VM, and what this test alone knows of it.
struct Vm {
    origin: Origin,
    records: Records,
    under_way: Vec<UnderWay>,
    /// How many requests have begun, and had when it sent the last tally that was heard.
    begun: u64,
    begun_when_heard: u64,
    dropped: u64,
}

impl Vm {
    fn new(number: u64) -> Vm {
        Vm {
            origin: origin(number),
            records: Records::with_room(10),
            under_way: Vec::new(),
            begun: 0,
            begun_when_heard: 0,
            dropped: 0,
        }
    }

    fn end(&mut self, served: bool, now: u64) {
        let account = served.then_some("acc_1");
        let record = json!({
            "at": now, "id": format!("req-{}", self.begun), "key": "key_1", "pool": "p", "account": account,
            "dialect": "chat", "status": 200, "attempts": 1, "duration_ms": 9, "completeness": "whole",
        });
        self.records
            .push(serde_json::from_value(record).unwrap(), now);
    }
}

/// What the refresher has of one VM.
#[derive(Default)]
struct Heard {
    standing: Option<Standing>,
    /// Requests whose records it has.
    recorded: u64,
}

/// The refresher: what it has of each VM, and the batches that it knows.
#[derive(Default)]
struct Heards {
    vms: HashMap<u64, Heard>,
    batches: HashSet<String>,
}

impl Heards {
    fn take(&mut self, body: &str) {
        let body: Value = serde_json::from_str(body).unwrap();
        let tally: Tally = serde_json::from_value(body["tally"].clone()).unwrap();
        assert!(tally.is_sound());
        let heard = self.vms.entry(tally.origin.vm).or_default();
        let records: Option<Vec<Record>> = serde_json::from_value(body["records"].clone()).unwrap();
        let mut is_new = || self.batches.insert(body["batch"].to_string());
        if let Some(records) = records.filter(|_| is_new()) {
            let counts = records.iter().map(|record| u64::from(record.count.get()));
            heard.recorded += counts.sum::<u64>();
        }
        match &mut heard.standing {
            Some(standing) => standing.hear(&tally),
            unknown => *unknown = Some(Standing::new(&tally)),
        }
    }
}

/// What happens next.
#[derive(Debug, Clone)]
enum Step {
    /// So many requests are refused, so many begin, and so many of those under way come to their end.
    Requests(u64, usize, usize),
    /// A tick after so many milliseconds: what is sent is lost on the way, or arrives, and then its answer may be lost.
    Tick {
        after: u64,
        arrives: bool,
        acknowledged: bool,
    },
    /// What was sent then arrives again, or late, whoever sent it.
    Late(prop::sample::Index),
    /// The VM dies, and another takes its place.
    Kill,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0..3_u64, 0..6_usize, 0..6_usize).prop_map(|(refused, begin, end)| Step::Requests(refused, begin, end)),
        6 => (50..1_500_u64, any::<bool>(), any::<bool>())
            .prop_map(|(after, arrives, acknowledged)| Step::Tick { after, arrives, acknowledged }),
        1 => any::<prop::sample::Index>().prop_map(Step::Late),
        1 => Just(Step::Kill),
    ];
    prop::collection::vec(step, 1..120)
}

proptest! {
    /// Over any interleaving of kills, lost answers, repeats and delays: what was recorded, dropped, lost and begun since
    /// the last word are all requests that have begun, each once, at every moment.
    #[test]
    fn every_request_is_recorded_dropped_lost_or_unseen(steps in steps()) {
        let (mut heards, mut now) = (Heards::default(), 0);
        let mut vms = vec![Vm::new(0)];
        let mut sent: Vec<(String, usize, u64)> = Vec::new();
        for step in steps {
            let index = vms.len() - 1;
            let vm = &mut vms[index];
            match step {
                Step::Requests(refused, begin, end) => {
                    for _ in 0..refused {
                        vm.begun += 1;
                        vm.end(false, now);
                    }
                    for _ in 0..begin {
                        vm.begun += 1;
                        vm.under_way.push(vm.records.begin());
                    }
                    for _ in 0..end.min(vm.under_way.len()) {
                        vm.end(true, now);
                        vm.under_way.pop();
                    }
                }
                Step::Tick { after, arrives, acknowledged } => {
                    now += after;
                    let Some(body) = vm.records.next(&vm.origin, now) else { continue };
                    if arrives {
                        heards.take(&body);
                    }
                    // A batch that comes again says what it said the first time.
                    let again = sent.iter().find(|(earlier, of, _)| (earlier, *of) == (&body, index));
                    let begun = again.map_or(vm.begun, |(_, _, begun)| *begun);
                    if arrives {
                        vm.begun_when_heard = vm.begun_when_heard.max(begun);
                    }
                    sent.push((body, index, begun));
                    let status: &[u8] = if arrives && acknowledged { b"204" } else { b"" };
                    vm.records.answered(status, &vm.origin, now);
                }
                Step::Late(which) if !sent.is_empty() => {
                    let (body, of, begun) = &sent[which.index(sent.len())];
                    heards.take(body);
                    vms[*of].begun_when_heard = vms[*of].begun_when_heard.max(*begun);
                }
                Step::Late(_) => {}
                Step::Kill => {
                    vm.under_way.clear();
                    let number = vms.len() as u64;
                    vms.push(Vm::new(number));
                }
            }
            for vm in &mut vms {
                vm.dropped += vm.records.take_dropped();
                let Some(heard) = heards.vms.get(&vm.origin.vm) else { continue };
                let Counts { begun, told, dropped } = heard.standing.unwrap().counts;
                prop_assert_eq!(told, heard.recorded);
                prop_assert!(dropped <= vm.dropped);
                prop_assert_eq!(begun, vm.begun_when_heard, "what is unseen began since the last word");
                let lost = heard.standing.unwrap().counts.pending();
                prop_assert_eq!(heard.recorded + dropped + lost + (vm.begun - begun), vm.begun);
            }
        }
        // The last VM lives on, and tells of everything.
        let vm = vms.last_mut().unwrap();
        while !vm.under_way.is_empty() {
            vm.end(true, now);
            vm.under_way.pop();
        }
        for _ in 0..9 {
            now += GATHER_MS;
            if let Some(body) = vm.records.next(&vm.origin, now) {
                heards.take(&body);
                vm.records.answered(b"204", &vm.origin, now);
            }
        }
        vm.dropped += vm.records.take_dropped();
        if let Some(heard) = heards.vms.get(&vm.origin.vm) {
            let expected = Counts { begun: vm.begun, told: vm.begun - vm.dropped, dropped: vm.dropped };
            prop_assert_eq!(heard.standing.unwrap().counts, expected);
        }
    }
}
