use super::*;
use crate::{
    budget,
    gate::select::Back,
    limit::{self, Limit},
};

/// The file with every answer, and how to write it anew.
const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/refusals.txt");
const UPDATE: &str = "UPDATE_GOLDEN";

fn text(text: &str) -> HeaderText {
    HeaderText::try_from(text).unwrap()
}

fn pool() -> Id {
    Id::try_from("default").unwrap()
}

fn at_limit(limit: Limit, until: Option<u64>) -> Refusal {
    Refusal::Limit(AtLimit {
        key: Some(text("alice")),
        reached: Reached {
            limit,
            allowed: 60,
            until,
        },
        now: 1_790_000_000_001,
    })
}

fn all_out(accounts: u32, retry_after: Option<u32>) -> AllOut {
    let out = |n| Out {
        account: format!("acc_{n}").as_str().try_into().unwrap(),
        // Who may choose an account is told its name.
        name: (n > 0).then(|| text(&format!("a{n}"))),
        reason: Reason::rate_limited(),
        back: Back::At(9_000),
        is_refused: false,
    };
    AllOut {
        pool: pool(),
        out: (0..accounts).map(out).collect(),
        retry_after,
    }
}

/// The kinds of refusals: one more than the last [place].
const KINDS: usize = 45;

/// The place of each kind among the [samples]. The compiler asks for a new one here; it has to be
/// among the samples too.
fn place(refusal: &Refusal) -> usize {
    match refusal {
        Refusal::NoKey => 0,
        Refusal::AmbiguousKey(_) => 1,
        Refusal::KeyInUrl => 2,
        Refusal::UnknownKey => 3,
        Refusal::KeyExpired(_) => 4,
        Refusal::Limit(_) => 5,
        Refusal::UnknownPath(_) => 6,
        Refusal::Method(_) => 7,
        Refusal::Upgrade => 8,
        Refusal::UnknownCoding => 9,
        Refusal::Body(_) => 10,
        Refusal::NoPool => 11,
        Refusal::NoAccount { .. } => 12,
        Refusal::NeverServed { .. } => 13,
        Refusal::ModelNotAllowed(_) => 14,
        Refusal::ModelNotServed { .. } => 15,
        Refusal::Unmet { .. } => 16,
        Refusal::ChoiceNotAllowed => 17,
        Refusal::AllOut(_) => 18,
        Refusal::NotReady => 19,
        Refusal::NoCredential => 20,
        Refusal::Redirected => 21,
        Refusal::Unreachable => 22,
        Refusal::NoAnswer => 23,
        Refusal::NoRoom(_) => 24,
        Refusal::NoContent => 25,
        Refusal::Unconfirmed => 26,
        Refusal::ModelNotListed(_) => 27,
        Refusal::HomeOut(_) => 28,
        Refusal::HomeGone(_) => 29,
        Refusal::NoSuchThing => 30,
        Refusal::HomeUnknown => 31,
        Refusal::ListOfAccount => 32,
        Refusal::Uncounted => 33,
        Refusal::Silent => 34,
        Refusal::HomesApart => 35,
        Refusal::TooManyThings => 36,
        Refusal::Untranslatable { .. } => 37,
        Refusal::AnotherModel { .. } => 38,
        Refusal::Unchangeable { .. } => 39,
        Refusal::CredentialRefused => 40,
        Refusal::Unwrappable(_) => 41,
        Refusal::NoModel(_) => 42,
        Refusal::NotInPool { .. } => 43,
        Refusal::Withdrawn => 44,
    }
}

/// Every refusal, with each of its sentences.
fn samples() -> Vec<Refusal> {
    use Refusal::*;
    let unmet = |requirements: &[Requirement]| Unmet {
        pool: pool(),
        requirements: requirements.to_vec(),
    };
    let wished = |account, platform| Wished::of(account, platform).unwrap();
    let not_served = |of| ModelNotServed {
        model: text("gpt-5"),
        pool: pool(),
        of,
    };
    let no_account = |sought| NoAccount {
        pool: pool(),
        sought,
    };
    let mut ended = all_out(2, None);
    for out in &mut ended.out {
        out.back = Back::Never;
        out.reason = Reason::known("invalid_api_key");
    }
    let never_served = |paths: usize| NeverServed {
        pool: pool(),
        served: (0..paths).map(|n| format!("POST /v1/{n}")).collect(),
    };
    let meant = |sent: &str, meant: &str| {
        let (sent, meant) = (sent.to_owned(), meant.to_owned());
        UnknownPath(Some(MeantBase { sent, meant }))
    };
    vec![
        NoKey,
        AmbiguousKey(vec!["authorization", "x-api-key"]),
        KeyInUrl,
        UnknownKey,
        KeyExpired(Some(text("alice"))),
        KeyExpired(None),
        at_limit(limit::Limit::RequestsPerMinute, Some(1_790_000_030_000)),
        at_limit(limit::Limit::TokensPerMinute, Some(1_790_000_030_000)),
        at_limit(limit::Limit::TokensPerDay, Some(1_790_035_200_000)),
        at_limit(limit::Limit::ConcurrentStreams, None),
        UnknownPath(None),
        meant("http://gateway:8080/x", "http://gateway:8080/v1"),
        meant("http://gateway:8080", "http://gateway:8080"),
        Method("DELETE, GET".to_owned()),
        Upgrade,
        UnknownCoding,
        Body(Fault::EndsEarly),
        Body(Fault::Malformed),
        Body(Fault::Checksum),
        Body(Fault::Dictionary),
        Body(Fault::Window),
        Body(Fault::TooLarge),
        NoPool,
        no_account(Sought::Path),
        no_account(Sought::Model(text("gpt-5"))),
        no_account(Sought::Wished(wished(Some("bob"), None))),
        never_served(2),
        never_served(9),
        ModelNotAllowed(Some(text("gpt-5"))),
        ModelNotAllowed(None),
        not_served(None),
        not_served(Some(wished(Some("bob"), None))),
        unmet(&[Requirement::Stream]),
        unmet(&[Requirement::Stream, Requirement::StoreFalse]),
        unmet(&[Requirement::Foreground]),
        ChoiceNotAllowed,
        AllOut(all_out(1, Some(9))),
        AllOut(all_out(10, Some(9))),
        AllOut(all_out(2, None)),
        AllOut(ended),
        NotReady,
        NoCredential,
        Redirected,
        Unreachable,
        NoAnswer,
        NoRoom(budget::NoRoom::Key { most: 256 << 20 }),
        NoRoom(budget::NoRoom::Others),
        NoRoom(budget::NoRoom::Connections),
        NoRoom(budget::NoRoom::TooLarge { most: 16 << 20 }),
        NoContent,
        Unconfirmed,
        ModelNotListed(Some(text("gpt-5"))),
        HomeOut(all_out(1, Some(9))),
        HomeOut(all_out(1, None)),
        HomeGone(pool()),
        NoSuchThing,
        HomeUnknown,
        ListOfAccount,
        Uncounted,
        Silent,
        HomesApart,
        TooManyThings,
        Untranslatable {
            too_large: false,
            why: "messages[3].content[0].type: this kind of content is not available here"
                .to_owned(),
        },
        Untranslatable {
            too_large: true,
            why: "it is larger than 31 MiB".to_owned(),
        },
        AnotherModel {
            asked: Some(text("gpt-5.6")),
            served: ModelName::try_from("gpt-5.6-mini").ok(),
        },
        AnotherModel {
            asked: Some(text("gpt-5.6")),
            served: None,
        },
        Unchangeable {
            too_large: false,
            why: "it is no object of JSON, or has thousands of members where that is said"
                .to_owned(),
        },
        Unchangeable {
            too_large: true,
            why: "only a body of up to 16 MiB is changed".to_owned(),
        },
        CredentialRefused,
        Unwrappable(super::Unwrappable::TooLarge),
        Unwrappable(super::Unwrappable::NoObject),
        Unwrappable(super::Unwrappable::NoModel),
        NoModel(Some(pool())),
        NoModel(None),
        NotInPool {
            pool: pool(),
            wished: wished(Some(&"b".repeat(65)), None),
        },
        NotInPool {
            pool: pool(),
            wished: wished(None, Some("openai")),
        },
        Withdrawn,
    ]
}

fn written(samples: &[Refusal]) -> String {
    let mut all = String::new();
    for refusal in samples {
        let headers = refusal.reply(Dialect::Chat).headers;
        all += &format!("{}", refusal.status());
        for (name, value) in headers.iter().filter(|(name, _)| *name != "content-type") {
            all += &format!("  {name}: {value}");
        }
        for dialect in Dialect::OF_CALLERS {
            let reply = refusal.reply(dialect);
            assert_eq!((reply.status, &reply.headers), (refusal.status(), &headers));
            all += &format!("\n{:<10}{}", dialect.word(), reply.body);
        }
        all += "\n\n";
    }
    all
}

/// A change of words is seen in this file's difference. `UPDATE_GOLDEN=1 cargo test -p latchkey
/// --lib refusal` writes it anew.
#[test]
fn every_answer_is_in_the_golden_file_word_for_word() {
    let samples = samples();
    let mut places: Vec<usize> = samples.iter().map(place).collect();
    places.dedup();
    assert_eq!(places, (0..KINDS).collect::<Vec<_>>());
    let written = written(&samples);
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(GOLDEN, &written).unwrap();
    }
    let golden = std::fs::read_to_string(GOLDEN).unwrap();
    for (written, golden) in written.lines().zip(golden.lines()) {
        assert_eq!(written, golden, "write it anew with {UPDATE}=1");
    }
    assert_eq!(written.lines().count(), golden.lines().count());
}

#[test]
fn no_sentence_could_be_a_platforms() {
    for refusal in samples() {
        assert!(refusal.code().starts_with("latchkey_"), "{refusal:?}");
        assert!(refusal.message().ends_with('.'), "{refusal:?}");
    }
}

#[test]
fn each_dialect_has_its_shape() {
    let reply = Refusal::NotReady.reply(Dialect::Messages);
    assert_eq!(reply.code().unwrap().as_str(), "latchkey_not_ready");
    let body: Value = serde_json::from_str(&reply.body).unwrap();
    assert_eq!(body["type"], "error");
    assert_eq!(body["error"]["type"], "api_error");
    assert_eq!(body["error"]["code"], "latchkey_not_ready");
    assert!(reply.headers.contains(&("retry-after", "1".to_owned())));

    let reply = Refusal::UnknownKey.reply(Dialect::Responses);
    let body: Value = serde_json::from_str(&reply.body).unwrap();
    assert_eq!(body["error"]["code"], "latchkey_unknown_key");
    assert!(body["error"]["param"].is_null());
    assert_eq!(reply.status, 401);
}

#[test]
fn a_limit_says_when_to_come_back() {
    let retry_after = |limit, until| {
        let reply = at_limit(limit, until).reply(Dialect::Messages);
        let mut headers = reply.headers.into_iter();
        let found = headers.find(|(name, _)| *name == "retry-after");
        (reply.status, found.unwrap().1)
    };
    let at = |until| retry_after(Limit::RequestsPerMinute, Some(until));
    assert_eq!(at(1_790_000_030_000), (429, "30".to_owned()), "rounded up");
    assert_eq!(at(1_789_999_999_999).1, "1", "in the past");
    assert_eq!(retry_after(Limit::ConcurrentStreams, None).1, "1");
}

/// Claude Code puts sentences of its own in the place of messages with these words.
#[test]
fn no_sentence_has_a_word_that_a_client_looks_for() {
    for refusal in samples() {
        let message = refusal.message().to_lowercase();
        for word in ["x-api-key", "credit balance", "prompt is too long", "oauth"] {
            assert!(!message.contains(word), "{word}: {message}");
        }
    }
}

/// opencode repeats what has one of these anywhere in its body, whatever the status.
#[test]
fn what_is_not_to_be_repeated_has_no_word_of_what_is() {
    let once = |refusal: &Refusal| refusal.status() < 429;
    for refusal in samples().iter().filter(|refusal| once(refusal)) {
        for dialect in Dialect::OF_CALLERS {
            let body = refusal.reply(dialect).body.to_lowercase();
            for word in [
                "429",
                "500",
                "502",
                "503",
                "504",
                "524",
                "rate limit",
                "rate-limit",
                "rate_limit",
                "too many requests",
                "overloaded",
                "unavailable",
                "internal error",
                "server error",
                "server_error",
                "terminated",
                "fetch failed",
                "network error",
                "connection error",
                "connection refused",
                "timeout",
                "timed out",
                "try again later",
                "try again in",
                "at capacity",
                "your request again",
                "exhausted",
            ] {
                assert!(!body.contains(word), "{word}: {body}");
            }
        }
    }
}

/// Codex says of such a limit until when it holds, and of any other 429 nothing but the number.
#[test]
fn a_limit_that_is_not_soon_over_is_one_that_codex_explains() {
    let error = |refusal: &Refusal, dialect| {
        let body: Value = serde_json::from_str(&refusal.reply(dialect).body).unwrap();
        body["error"].clone()
    };
    let day = at_limit(Limit::TokensPerDay, Some(1_790_035_200_001));
    let minute = at_limit(Limit::RequestsPerMinute, Some(1_790_000_030_000));
    let told = error(&day, Dialect::Responses);
    assert_eq!(told["type"], "usage_limit_reached");
    assert_eq!(told["resets_at"], 1_790_035_201_u64);
    let out = Refusal::AllOut(all_out(2, Some(18_000)));
    assert_eq!(error(&out, Dialect::Responses)["resets_at"], 9);
    for (refusal, dialect) in [
        (&minute, Dialect::Responses),
        (&Refusal::AllOut(all_out(2, Some(9))), Dialect::Responses),
        (&day, Dialect::Chat),
    ] {
        let told = error(refusal, dialect);
        assert_eq!(told["type"], "rate_limit_error");
        assert!(told["resets_at"].is_null());
    }
}

/// A wait that no client sits out, and what only a person can mend, are not to be repeated.
#[test]
fn a_client_is_told_to_repeat_only_what_a_repeat_can_help() {
    let repeats = |refusal: &Refusal| {
        let headers = refusal.reply(Dialect::Chat).headers;
        let mut found = headers.iter().filter(|(name, _)| *name == RETRY_HEADER);
        let value = found.next().unwrap().1.clone();
        assert!(found.next().is_none());
        value == "true"
    };
    for refusal in samples() {
        let status = refusal.status();
        assert!(
            !(400..=426).contains(&status) || !repeats(&refusal),
            "{refusal:?}"
        );
        let waits = refusal.retry_after().is_some();
        assert!(waits || !repeats(&refusal), "{refusal:?}");
    }
    assert!(repeats(&at_limit(
        Limit::RequestsPerMinute,
        Some(1_790_000_030_000)
    )));
    assert!(!repeats(&at_limit(
        Limit::TokensPerDay,
        Some(1_790_035_200_000)
    )));
    assert!(repeats(&Refusal::AllOut(all_out(1, Some(9)))));
    let no_account = Refusal::NoAccount {
        pool: pool(),
        sought: Sought::Path,
    };
    assert!(!repeats(&no_account), "somebody has to add one");
    let mut ended = all_out(2, None);
    ended.out[0].back = Back::Never;
    assert!(repeats(&Refusal::AllOut(ended.clone())));
    ended.out[1].back = Back::Never;
    assert!(!repeats(&Refusal::AllOut(ended)));
    let long = Refusal::AllOut(all_out(1, Some(18_000)));
    assert!(!repeats(&long));
    // Some clients sit out what `retry-after` says, however long.
    let headers = long.reply(Dialect::Responses).headers;
    assert!(headers.iter().all(|(name, _)| *name != "retry-after"));
    assert!(long.message().ends_with("The first is back in 5 hours."));
    let minutes = Refusal::AllOut(all_out(1, Some(601)))
        .message()
        .into_owned();
    assert!(
        minutes.ends_with("The first is back in 11 minutes."),
        "{minutes}"
    );
}

#[test]
fn a_pool_that_is_out_says_who_and_why() {
    let reply = Refusal::AllOut(all_out(10, Some(9))).reply(Dialect::Chat);
    assert_eq!(reply.status, 429);
    assert!(reply.headers.contains(&("retry-after", "9".to_owned())));
    assert!(
        reply.body.contains("default")
            && reply
                .body
                .contains("acc_0 (rate_limited), a1 (rate_limited)")
    );
    assert!(reply.body.contains("and 2 more"), "{}", reply.body);
    assert_eq!(Refusal::AllOut(all_out(10, None)).status(), 503);
}
