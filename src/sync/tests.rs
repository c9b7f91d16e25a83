//! The whole way of a snapshot, from pages through shared data to views.

use proptest::prelude::*;

use super::{
    board,
    follow::{FRESH_MS, Follower},
    poll::{Answer, Poller},
    publish::{self, RefusedPage},
    quota::prepare as prepare_quotas,
    unread,
};
use crate::{
    header::MAX_VALUE_BYTES,
    health::{Board, quota},
    host::{SharedData, Version, fake::FakeSharedData},
    id::Id,
    limit::{Counters, Subject, table},
    snapshot::{
        Kind, Policy, Record, Removed,
        bucket::{Bucket, HEAD_KEY, Head, INDEX_KEY, Index, bucket_key, bucket_of, content_digest},
        fixture,
        page::{Epoch, PageHeader},
    },
    verdict::{Verdict, quota::Window},
};

const FIRST: [u8; 16] = [1; 16];

/// Unix milliseconds.
const NOW: u64 = 1_790_000_000_000;

fn page(epoch: [u8; 16], reset: bool, span: (u64, u64), more: bool, records: &[Record]) -> Vec<u8> {
    let lines: Vec<_> = records.iter().map(|r| r.to_line().unwrap()).collect();
    let lines = lines.iter().map(String::as_str);
    PageHeader::encode(Epoch::from_bytes(epoch), reset, span, more, lines)
}

/// Shared data as the first VM of an Envoy leaves it when it is configured.
fn prepared() -> FakeSharedData {
    let mut shared = FakeSharedData::default();
    board::prepare(&mut shared);
    prepare_quotas(&mut shared);
    shared
}

/// A change of any of these asks for another number in [`crate::host::shared_key`].
#[test]
fn what_lies_in_shared_data_has_the_form_that_its_keys_count() {
    assert_eq!(HEAD_KEY, "latchkey/3/head");

    let head = Head {
        epoch: Epoch::from_bytes(FIRST),
        revision: 2,
        complete: true,
        board: 3,
        quotas: 4,
    };
    assert_eq!(
        head.encode(),
        b"\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\
          \x02\x00\x00\x00\x00\x00\x00\x00\
          \x01\x03\x00\x00\x00\x00\x00\x00\x00\
          \x04\x00\x00\x00\x00\x00\x00\x00"
    );

    let mut entries = Board::new();
    let reset = Verdict::PlatformTrouble { until: NOW };
    entries.post(&fixture::account("acc_1", "codex"), &reset, NOW);
    assert_eq!(entries.clone().encode(), br#"{"entries":[],"suspicions":[{"account":"acc_1","key":3805702713,"scope":"account","kind":"trouble","until":0,"reason":"platform_trouble","at":1790000000000,"strikes":1,"struck_at":1790000000000}]}"#);
    let limit = Verdict::CoolingDown {
        scope: crate::verdict::Scope::Account,
        until: NOW + 9,
        guessed: false,
        reason: crate::verdict::Reason::rate_limited(),
    };
    let mut entries = Board::new();
    entries.post(&fixture::account("acc_1", "codex"), &limit, NOW);
    assert_eq!(entries.encode(), br#"{"entries":[{"account":"acc_1","scope":"account","until":1790000000009,"guessed":false,"reason":"rate_limited","at":1790000000000}],"suspicions":[]}"#);

    let window = Window {
        name: "5h".try_into().unwrap(),
        used_percent: 50.0,
        resets_at: Some(NOW),
        exhausted: false,
    };
    let mut quotas = quota::Bucket::new();
    let id = Id::try_from("acc_1").unwrap();
    quota::put(&mut quotas, &id, quota::KnownQuota::new(vec![window], NOW));
    assert_eq!(quota::encode(&quotas), br#"{"acc_1":{"at":1790000000000,"windows":[{"name":"5h","used_percent":50.0,"resets_at":1790000000000,"exhausted":false}]}}"#);

    let mut counters = Counters::default();
    counters.roll(NOW);
    counters.touched_at = NOW;
    counters.count_requests(1);
    counters.count_tokens(1_000);
    counters.lease(7, 2, NOW);
    let subject = Subject::key(&Id::try_from("key_1").unwrap());
    let mut shared = prepared();
    table::prepare(&mut shared, &[1]);
    let added: table::Changed<()> = table::update(&mut shared, &subject, NOW, |one| {
        one.touched_at = NOW;
        Ok(())
    });
    assert_eq!(added, table::Changed::Done);
    let (entry, _) = shared.read(&table::key_of(&subject)).unwrap();
    assert_eq!(entry, b"*\x00k\x05key_1\xe0\xbb\xc0\xa2\x8c4\xe0\xd4\x03\x00\x00\x00\x00\x80\xd8\x8c\x8a\x8c4\x80\xb8\x99)\x00\x00\x00\x00\x00\x00\x80\xd8\xc1\xa2\x8c4");
    assert_eq!(counters.encode(), b"\xe0\xbb\xc0\xa2\x8c4\xe0\xd4\x03\x01\xe8\x07\x00\x00\x80\xd8\x8c\x8a\x8c4\x80\xb8\x99)\x01\xe8\x07\x00\x00\x00\x00\x80\xd8\xc1\xa2\x8c4\x07\x02\xa8\x9b\xc3\xa2\x8c4");

    let mut lost = unread::Unreadable::default();
    lost.add(&crate::snapshot::unread::Unread::of(
        br#"{"key":{"id":"key_1"}}"#,
        crate::snapshot::InvalidRecord::TooLong,
    ));
    unread::write(&mut shared, &unread::Unreadable::default(), &lost);
    let (bytes, _) = shared.read("latchkey/3/unread").unwrap();
    assert_eq!(bytes, br#"[["key","key_1"]]"#);

    let mut bucket = Bucket::default();
    let record = Record::Account(fixture::account("acc_1", "codex"));
    bucket.apply(&record, b"{}").unwrap();
    assert_eq!(bucket.encode(), b"aacc_1 {}\n");
    assert_eq!(content_digest(b"{}"), 9_973_137_080_230_810_436);
    let mut index = Index::default();
    index.set(1, b"{}");
    assert_eq!(
        index.encode().get(..24).unwrap(),
        b"\x00\x00\x00\x00\x00\x00\x00\x00D\x13o\xa3U\xb3g\x8a\x00\x00\x00\x00\x00\x00\x00\x00"
    );
    let mut counts = quota::QuotaVersions::default();
    counts.count(2);
    assert_eq!(
        counts.encode().get(..16).unwrap(),
        b"\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00"
    );
}

fn account(id: &str) -> Record {
    Record::Account(fixture::account(id, "codex"))
}

fn removed(id: &str) -> Record {
    Record::Removed(Removed {
        kind: Kind::Account,
        id: Id::try_from(id).unwrap(),
    })
}

#[test]
fn a_snapshot_of_two_pages_then_deltas_reach_a_view() {
    let mut shared = prepared();
    let mut follower = Follower::default();
    assert!(follower.view(&shared).is_none());

    let first = page(
        FIRST,
        true,
        (0, 2),
        true,
        &[account("acc_1"), account("acc_2")],
    );
    publish::apply(&mut shared, &first, NOW).unwrap();
    assert!(
        follower.view(&shared).is_none(),
        "half a snapshot is not used"
    );

    let pool = Record::Pool(fixture::pool("default", Policy::Sticky, &["acc_1"]));
    publish::apply(
        &mut shared,
        &page(FIRST, false, (2, 5), false, &[pool]),
        NOW,
    )
    .unwrap();
    let view = follower.view(&shared).unwrap();
    assert_eq!(view.count(Kind::Account), 2);
    assert_eq!(view.count(Kind::Pool), 1);

    let version = view.version();
    let view = follower.view(&shared).unwrap();
    assert_eq!(view.version(), version, "nothing moved, nothing was read");

    let delta = page(FIRST, false, (5, 6), false, &[removed("acc_1")]);
    publish::apply(&mut shared, &delta, NOW).unwrap();
    let view = follower.view(&shared).unwrap();
    assert!(view.account("acc_1").is_none());
    assert!(view.account("acc_2").is_some());
}

#[test]
fn what_was_read_serves_for_a_moment_unless_this_vm_wrote() {
    let mut shared = prepared();
    let mut follower = Follower::default();
    let seen = |follower: &Follower| follower.current().map(|view| view.count(Kind::Account));
    let add = |shared: &mut FakeSharedData, revision| {
        let (reset, records) = (revision == 1, [account(&format!("acc_{revision}"))]);
        let span = (revision - 1, revision);
        publish::apply(shared, &page(FIRST, reset, span, false, &records), NOW).unwrap();
    };
    follower.look(&shared, NOW, false);
    assert_eq!(seen(&follower), None);
    add(&mut shared, 1);
    follower.look(&shared, NOW, false);
    assert_eq!(
        seen(&follower),
        Some(1),
        "what is not there yet is looked for"
    );
    add(&mut shared, 2);
    follower.look(&shared, NOW + FRESH_MS - 1, false);
    assert_eq!(seen(&follower), Some(1));
    follower.look(&shared, NOW + FRESH_MS, false);
    assert_eq!(seen(&follower), Some(2));
    add(&mut shared, 3);
    follower.look(&shared, NOW + FRESH_MS, true);
    assert_eq!(seen(&follower), Some(3), "its own news");
    add(&mut shared, 4);
    follower.look(&shared, NOW - 1, false);
    assert_eq!(seen(&follower), Some(4), "the clock was set back");
}

#[test]
fn old_foreign_and_broken_pages_change_nothing() {
    let mut shared = prepared();
    let start = page(FIRST, true, (0, 4), false, &[account("acc_1")]);
    let head = publish::apply(&mut shared, &start, NOW).unwrap().head;
    for bad in [
        page(FIRST, false, (3, 4), false, &[account("acc_2")]),
        page(FIRST, false, (5, 6), false, &[account("acc_2")]),
        page([2; 16], false, (4, 5), false, &[account("acc_2")]),
        page(FIRST, true, (4, 5), false, &[account("acc_2")]),
    ] {
        assert!(matches!(
            publish::apply(&mut shared, &bad, NOW),
            Err(RefusedPage::Gap)
        ));
    }
    let good = page(FIRST, false, (4, 5), false, &[account("acc_2")]);
    for at in 0..good.len() {
        for bit in [1, 0x80] {
            let mut bad = good.clone();
            bad[at] ^= bit;
            assert!(publish::apply(&mut shared, &bad, NOW).is_err(), "byte {at}");
        }
    }
    assert_eq!(publish::head(&shared), head);
}

/// A page of these lines, whatever they are.
fn page_of(reset: bool, span: (u64, u64), lines: &[&str]) -> Vec<u8> {
    let lines = lines.iter().copied();
    PageHeader::encode(Epoch::from_bytes(FIRST), reset, span, false, lines)
}

#[test]
fn a_record_that_cannot_be_read_is_out_of_use_and_the_rest_is_in_use() {
    let mut shared = prepared();
    let mut follower = Follower::default();
    let start = [account("acc_1"), account("acc_2")];
    publish::apply(&mut shared, &page(FIRST, true, (0, 2), false, &start), NOW).unwrap();
    follower.view(&shared);

    let broken = account("acc_1").to_line().unwrap();
    let broken = broken.replace("token-of-acc_1", &"x".repeat(20_480));
    let added = account("acc_3").to_line().unwrap();
    let removed = removed("acc_2").to_line().unwrap();
    let delta = page_of(
        false,
        (2, 6),
        &[&broken, r#"{"gadget":{"id":"a"}}"#, &removed, &added],
    );
    let applied = publish::apply(&mut shared, &delta, NOW).unwrap();
    assert_eq!((applied.head.revision, applied.unread.len()), (6, 2));
    assert!(!applied.unread[0].to_string().contains("xx"));
    let view = follower.view(&shared).unwrap();
    assert!(view.account("acc_1").is_none() && view.account("acc_2").is_none());
    assert!(view.account("acc_3").is_some());

    // Whoever polls next says so, until it is mended.
    let mut poller = Poller::new(25, "ab".repeat(16), Id::try_from("n").ok());
    let poll = poller.poll(&shared, 0).unwrap().path;
    let said = "&node=n&unread=1&first_unread=account/acc_1";
    assert!(poll.ends_with(said), "{poll}");
    let good = page(FIRST, false, (6, 7), false, &[account("acc_1")]);
    publish::apply(&mut shared, &good, NOW).unwrap();
    assert!(follower.view(&shared).unwrap().account("acc_1").is_some());
    assert_eq!(unread::read(&shared).count(), 0);
}

/// A bucket that is full takes nothing more, and loses nothing but what a new record does not fit for; the refresher is
/// told, and whatever is taken away goes as ever.
#[test]
fn what_there_is_no_room_for_is_out_of_use_and_told_and_removals_go_on() {
    let in_one = |id: &String| bucket_of(Kind::Account, &Id::try_from(id.as_str()).unwrap()) == 7;
    let ids: Vec<String> = (0..)
        .map(|n| format!("acc_{n}"))
        .filter(in_one)
        .take(6)
        .collect();
    let large = |id: &str| {
        let mut account = fixture::account(id, "codex");
        let value = "x".repeat(MAX_VALUE_BYTES);
        let fill = (0..60).map(|n| (format!("v{n}"), value.as_str().try_into().unwrap()));
        account.vars.extend(fill);
        Record::Account(account)
    };
    let mut shared = prepared();
    let all: Vec<Record> = ids.iter().map(|id| large(id)).collect();
    let applied =
        publish::apply(&mut shared, &page(FIRST, true, (0, 1), false, &all), NOW).unwrap();
    let named: Vec<String> = applied.unread.iter().map(ToString::to_string).collect();
    assert_eq!(applied.unread.len(), 2, "{named:?}");
    assert!(named[0].contains("remove some"), "{named:?}");
    assert_eq!(unread::read(&shared).count(), 2);
    let mut follower = Follower::default();
    let held = |follower: &mut Follower, shared: &FakeSharedData| {
        let view = follower.view(shared).expect("a view");
        ids.iter().filter(|id| view.account(id).is_some()).count()
    };
    assert_eq!(held(&mut follower, &shared), 4);
    // One goes, and another that did not fit comes again.
    let change = [removed(&ids[0]), large(&ids[5])];
    publish::apply(
        &mut shared,
        &page(FIRST, false, (1, 2), false, &change),
        NOW,
    )
    .unwrap();
    assert_eq!(held(&mut follower, &shared), 4);
    assert_eq!(unread::read(&shared).count(), 1);
}

#[test]
fn a_line_that_does_not_tell_what_it_is_about_has_everything_sent_anew() {
    let mut shared = prepared();
    let start = page(FIRST, true, (0, 2), false, &[account("acc_1")]);
    let head = publish::apply(&mut shared, &start, NOW).unwrap().head;
    let delta = page_of(false, (2, 3), &[r#"{"account":{"id":"acc_1""#]);
    let refused = publish::apply(&mut shared, &delta, NOW).unwrap_err();
    assert!(matches!(refused, RefusedPage::Record(_)));
    assert_eq!(publish::head(&shared), head);
    let anew = page_of(true, (0, 3), &[r#"{"account":{"id":"acc_1""#]);
    publish::apply(&mut shared, &anew, NOW).unwrap();
    let mut follower = Follower::default();
    assert!(follower.view(&shared).unwrap().account("acc_1").is_none());
}

proptest! {
    /// However a line is damaged: what was held before it is not in use after it, unless the line
    /// says the same, or is about something else; and what stands beside it is in use.
    #[test]
    fn nothing_outlives_a_line_that_cannot_be_read(at: prop::sample::Index, byte in 0x20_u8..0x7f) {
        let mut shared = prepared();
        let start = page(FIRST, true, (0, 1), false, &[account("acc_1")]);
        publish::apply(&mut shared, &start, NOW).unwrap();
        let newer = crate::snapshot::Account {
            generation: 2,
            ..fixture::account("acc_1", "codex")
        };
        let mut line = Record::Account(newer).to_line().unwrap().into_bytes();
        let at = at.index(line.len());
        line[at] = byte;
        let line = String::from_utf8(line).unwrap();
        let other = account("acc_2").to_line().unwrap();
        let lines = [line.as_str(), &other];
        if publish::apply(&mut shared, &page_of(false, (1, 3), &lines), NOW).is_err() {
            publish::apply(&mut shared, &page_of(true, (0, 3), &lines), NOW).unwrap();
        }
        let mut follower = Follower::default();
        let view = follower.view(&shared).unwrap();
        prop_assert!(view.account("acc_2").is_some());
        let held = view.account("acc_1").map(|account| account.generation);
        let is_of_another = !line.starts_with(r#"{"account":{"id":"acc_1","#);
        prop_assert!(held != Some(1) || is_of_another, "{line}");
    }
}

/// Shared data in which another VM's page is applied before the `left`th write of this one's.
struct Overtaken<'p> {
    shared: FakeSharedData,
    left: usize,
    page: &'p [u8],
}

impl Overtaken<'_> {
    fn step(&mut self) {
        if self.left == 1 {
            publish::apply(&mut self.shared, self.page, NOW).unwrap();
        }
        self.left = self.left.saturating_sub(1);
    }
}

impl SharedData for Overtaken<'_> {
    fn read(&self, key: &str) -> Option<(Vec<u8>, Version)> {
        self.shared.read(key)
    }

    fn write(&mut self, key: &str, value: &[u8]) {
        self.step();
        self.shared.write(key, value);
    }

    fn swap(&mut self, key: &str, value: &[u8], version: Version) -> bool {
        self.step();
        self.shared.swap(key, value, version)
    }
}

/// One VM stands still while it writes a page, loses the lease, and goes on when another one has written the next page.
#[test]
fn a_page_that_another_one_overtakes_undoes_nothing_for_long() {
    let start = page(FIRST, true, (0, 1), false, &[account("acc_1")]);
    let slow = page(FIRST, false, (1, 2), false, &[account("acc_2")]);
    let fast = [removed("acc_1"), account("acc_2")];
    let fast = page(FIRST, false, (1, 3), false, &fast);
    let whole = page(FIRST, true, (0, 3), false, &[account("acc_2")]);
    for left in 1.. {
        let shared = prepared();
        let mut overtaken = Overtaken {
            shared: shared.clone(),
            left,
            page: &fast,
        };
        publish::apply(&mut overtaken.shared, &start, NOW).unwrap();
        let applied = publish::apply(&mut overtaken, &slow, NOW);
        let mut shared = shared;
        if overtaken.left > 0 {
            assert_eq!(applied.unwrap().head.revision, 2, "nobody was faster");
            assert!(left > 2, "it writes a bucket, the index and the head");
            break;
        }
        assert!(
            matches!(applied, Err(RefusedPage::Overtaken)),
            "{left}: {applied:?}"
        );
        // Whoever polls asks for all of it at once, although its poll for what follows is under way.
        let mut poller = Poller::new(25, "ab".repeat(16), None);
        let mut fast_alone = prepared();
        for page in [&start, &fast] {
            publish::apply(&mut fast_alone, page, NOW).unwrap();
        }
        assert!(poller.poll(&fast_alone, NOW).is_some());
        assert_eq!(poller.poll(&fast_alone, NOW), None, "one is under way");
        let poll = poller.poll(&shared, NOW).expect("a poll");
        assert!(poll.path.contains("&since=0&"), "{}", poll.path);
        publish::apply(&mut shared, &whole, NOW).unwrap();
        let mut follower = Follower::default();
        let view = follower.view(&shared).unwrap();
        assert!(view.account("acc_1").is_none() && view.account("acc_2").is_some());
        assert_eq!(publish::head(&shared).revision, 3);
    }
}

#[test]
fn a_new_epoch_replaces_everything() {
    let mut shared = prepared();
    let mut follower = Follower::default();
    let old = page(
        FIRST,
        true,
        (0, 9),
        false,
        &[account("acc_1"), account("acc_2")],
    );
    publish::apply(&mut shared, &old, NOW).unwrap();
    follower.view(&shared);
    let new = page([2; 16], true, (0, 3), false, &[account("acc_2")]);
    publish::apply(&mut shared, &new, NOW).unwrap();
    let view = follower.view(&shared).unwrap();
    assert!(view.account("acc_1").is_none());
    assert!(view.account("acc_2").is_some());
}

#[test]
fn a_bucket_half_written_is_not_read() {
    let mut shared = prepared();
    let mut follower = Follower::default();
    let start = page(FIRST, true, (0, 1), false, &[account("acc_1")]);
    publish::apply(&mut shared, &start, NOW).unwrap();
    follower.view(&shared);

    let delta = page(FIRST, false, (1, 2), false, &[removed("acc_1")]);
    publish::apply(&mut shared, &delta, NOW).unwrap();
    let (kind, id) = (Kind::Account, Id::try_from("acc_1").unwrap());
    let key = bucket_key(bucket_of(kind, &id));
    shared.write(&key, b"aacc_1 {\"account\":");
    let view = follower.view(&shared).unwrap();
    assert!(view.account("acc_1").is_some(), "the last good state stays");
    assert!(follower.is_torn());

    shared.write(&key, b"");
    assert!(follower.view(&shared).unwrap().account("acc_1").is_none());
    assert!(!follower.is_torn());
}

#[test]
fn who_serves_nobody_holds_nothing_and_sees_damage() {
    let mut shared = prepared();
    let mut follower = Follower::default();
    let start = page(FIRST, true, (0, 1), false, &[account("acc_1")]);
    publish::apply(&mut shared, &start, NOW).unwrap();
    follower.follow(&shared);
    assert!(follower.current().is_none() && !follower.is_torn());
    let more = page(FIRST, false, (1, 2), false, &[account("acc_2")]);
    publish::apply(&mut shared, &more, NOW).unwrap();
    let (kind, id) = (Kind::Account, Id::try_from("acc_2").unwrap());
    let key = bucket_key(bucket_of(kind, &id));
    let (good, _) = shared.read(&key).unwrap();
    shared.write(&key, b"aacc_2 {\"account\":");
    follower.follow(&shared);
    assert!(follower.current().is_none() && follower.is_torn());
    shared.write(&key, &good);
    let view = follower.view(&shared).unwrap();
    assert!(view.account("acc_1").is_some() && view.account("acc_2").is_some());
    let less = page(FIRST, false, (2, 3), false, &[removed("acc_1")]);
    publish::apply(&mut shared, &less, NOW).unwrap();
    follower.follow(&shared);
    let view = follower.current().unwrap();
    assert!(view.account("acc_1").is_none(), "it goes on serving");
}

#[test]
fn a_poller_asks_for_what_it_lacks() {
    let mut shared = prepared();
    let mut poller = Poller::new(25, "ab".repeat(16), None);
    let zero = "0".repeat(32);
    let poll = poller.poll(&shared, 0).unwrap();
    let of = format!("instance={}", "ab".repeat(16));
    let expected = format!("/snapshot?epoch={zero}&since=0&wait=0&held=0&{of}");
    assert_eq!(poll.path, expected);
    assert_eq!(poller.poll(&shared, 0), None, "one at a time");

    let start = page(FIRST, true, (0, 4), false, &[account("acc_1")]);
    let answer = poller.answered(&mut shared, b"200", &start, 0);
    assert!(matches!(answer, Answer::Applied(_)));
    let poll = poller.poll(&shared, 0).unwrap();
    assert_eq!(
        poll.path,
        format!(
            "/snapshot?epoch={}&since=4&wait=25&held=4&{of}",
            "01".repeat(16)
        )
    );
    assert_eq!(poll.timeout_seconds, 30);
}

#[test]
fn a_poller_backs_off_and_starts_anew_after_a_bad_page() {
    let mut shared = prepared();
    let start = page(FIRST, true, (0, 4), false, &[account("acc_1")]);
    publish::apply(&mut shared, &start, NOW).unwrap();
    let mut poller = Poller::new(25, "ab".repeat(16), None);

    poller.poll(&shared, 1_000).unwrap();
    let answer = poller.answered(&mut shared, b"503", b"", 1_000);
    assert!(matches!(answer, Answer::Failed { first: true }));
    assert_eq!(poller.poll(&shared, 1_199), None);
    assert!(poller.poll(&shared, 1_200).is_some());
    let answer = poller.answered(&mut shared, b"200", b"<html>", 1_200);
    assert!(matches!(answer, Answer::Refused(_)));

    let poll = poller.poll(&shared, 5_000).unwrap();
    let asked = "since=0&wait=0&held=4&";
    assert!(poll.path.contains(asked), "{}", poll.path);
    assert!(poll.path.ends_with("&refused=checksum"), "{}", poll.path);
    assert!(shared.read(HEAD_KEY).is_some(), "the last good state stays");
}

proptest! {
    #[test]
    fn no_bytes_in_shared_data_panic(head: Vec<u8>, index: Vec<u8>, bucket: Vec<u8>, page: Vec<u8>) {
        let mut shared = FakeSharedData::default();
        shared.write(HEAD_KEY, &head);
        shared.write(INDEX_KEY, &index);
        shared.write(&bucket_key(0), &bucket);
        let mut follower = Follower::default();
        prop_assert!(follower.view(&shared).is_none());
        prop_assert!(publish::apply(&mut shared, &page, NOW).is_err());
        Bucket::decode(&bucket);
    }
}

#[test]
fn the_board_reaches_every_vm_and_survives_pages() {
    use crate::{health::Standing, verdict::Verdict};
    let mut shared = prepared();
    let start = page(FIRST, true, (0, 1), false, &[account("acc_1")]);
    publish::apply(&mut shared, &start, NOW).unwrap();
    let mut follower = Follower::default();
    let account = follower
        .view(&shared)
        .unwrap()
        .account("acc_1")
        .unwrap()
        .clone();

    let expired = Verdict::CredentialExpired;
    assert!(board::update(&mut shared, |board| board.post(&account, &expired, 1_000)));
    publish::apply(&mut shared, &page(FIRST, false, (1, 2), false, &[]), NOW).unwrap();
    assert_eq!(publish::head(&shared).revision, 2);
    follower.view(&shared);
    let standing = follower
        .board()
        .standing(&account, crate::health::fixture::key(), None, 2_000);
    assert!(matches!(standing, Standing::Out(_)));
    assert!(
        !board::update(&mut shared, |_| false),
        "nothing changed, nothing was written"
    );
}

fn health(id: &str, until: u64) -> Record {
    let line = format!(
        r#"{{"health":{{"id":"{id}","entries":[{{"scope":"account","until":{until},"guessed":true,"reason":"overloaded","at":5}}],"windows":[{{"name":"5h","used_percent":62.0,"exhausted":false}}],"windows_at":{NOW}}}}}"#
    );
    Record::from_line(line.as_bytes()).unwrap()
}

#[test]
fn health_is_known_with_the_first_snapshot_and_costs_no_bucket() {
    use crate::health::Standing;
    let mut shared = prepared();
    let mut follower = Follower::default();
    let records = [account("acc_1"), account("acc_2"), health("acc_1", NOW + 9)];
    let start = page(FIRST, true, (0, 3), false, &records);
    publish::apply(&mut shared, &start, NOW).unwrap();
    let view = follower.view(&shared).unwrap();
    let (account, version) = (view.account("acc_1").unwrap().clone(), view.version());
    let standing = follower
        .board()
        .standing(&account, crate::health::fixture::key(), None, NOW);
    assert!(matches!(standing, Standing::Out(_)));
    let left = follower.board().outlook(&account.id, NOW).left;
    assert_eq!(left.map(|left| (left * 100.0).round()), Some(38.0));

    let before: Vec<_> = (0..256).map(|n| shared.read(&bucket_key(n))).collect();
    let news = page(FIRST, false, (3, 4), false, &[health("acc_1", NOW + 900)]);
    assert_eq!(
        publish::apply(&mut shared, &news, NOW)
            .unwrap()
            .health
            .len(),
        1
    );
    let after: Vec<_> = (0..256).map(|n| shared.read(&bucket_key(n))).collect();
    assert_eq!(before, after);
    assert_eq!(follower.view(&shared).unwrap().version(), version);
    assert_eq!(publish::head(&shared).revision, 4);
}

/// An Envoy's own reports come back to it, and go no further.
#[test]
fn an_echo_is_no_news() {
    use crate::{sync::report::Report, verdict::Verdict};
    let mut shared = prepared();
    let start = page(FIRST, true, (0, 1), false, &[account("acc_1")]);
    publish::apply(&mut shared, &start, NOW).unwrap();
    let account = fixture::account("acc_1", "codex");
    let trouble = Verdict::CoolingDown {
        scope: crate::verdict::Scope::Account,
        until: NOW + 60_000,
        guessed: false,
        reason: crate::verdict::Reason::rate_limited(),
    };
    board::update(&mut shared, |board| board.post(&account, &trouble, NOW));
    let said: Vec<_> = board::read(&shared).untold(NOW + 1, NOW).cloned().collect();
    assert!(matches!(
        Report::of(&said[0]),
        Some(Report::CoolingDown { .. })
    ));
    let echo = Record::Health(crate::snapshot::Health {
        id: account.id.clone(),
        entries: vec![said[0].cooldown()],
        windows: Vec::new(),
        windows_at: 0,
        reset_at: 0,
        alive_at: 0,
    });
    for revision in 1..3 {
        let span = (revision, revision + 1);
        let page = page(FIRST, false, span, false, std::slice::from_ref(&echo));
        publish::apply(&mut shared, &page, NOW).unwrap();
        assert_eq!(board::read(&shared).untold(NOW + 1, NOW).count(), 0);
    }
    let changes = publish::head(&shared).board;
    let again = page(FIRST, false, (3, 4), false, &[echo]);
    publish::apply(&mut shared, &again, NOW).unwrap();
    assert_eq!(publish::head(&shared).board, changes, "nothing was written");
}
