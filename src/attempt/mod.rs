//! The attempt: one try of one request on one account, and failover.
//!
//! It runs in Envoy's upstream filter chain, so the credential exists only on the wire to the platform:
//! no other filter, access log or redirect sees it.
//!
//! # Judging
//!
//! An attempt judges its answer before a byte of it goes on. It holds the response headers until the
//! first piece of the body has come, however long that takes. An error's body is held whole, at most
//! [`MAX_HELD_BYTES`], and judged by what there is 2 s after its headers.
//!
//! A good answer is held until its first event with content, or the failure in its place
//! ([`crate::verdict::Beginning`]): events that only announce it may be followed by one. It is let go
//! `announcement_wait_seconds` after its first byte, at [`holding::MAX_ANNOUNCED_BYTES`], or where its
//! key's memory is used up. One that ends before that is no answer: the platform is in trouble. Where no
//! other account does better, the caller gets the failure with its true status ([`failure`]).
//!
//! Where a key takes only the model that it asks for, a good answer is held until it names its model, however long
//! that takes, and another one's goes to nobody ([`served_model`]). Such an answer is held against no account.
//!
//! # Failover
//!
//! 1. The verdict goes on the board ([`crate::health`]), where every worker sees it within 5 ms. A request
//!    speaks there against one account at most. The same 4xx from a second account is its caller's fault, but for 401, 402
//!    and 429: the caller gets it, and nothing is held against that account.
//!    An account that may not do what was asked (`not_served`) is left alone for that model only once
//!    another one has done it: a model that nobody has takes out nobody.
//! 2. If another account could do better, and tries and time are left, the attempt puts the request's
//!    headers back and makes the answer a 307 to the request's own URL, with the true status in
//!    `x-latchkey-status`. Envoy's internal redirect then runs the whole request again, gate included,
//!    with the buffered body. Else the platform's answer passes as it is, but for what [`answer`] keeps here.
//!    An account whose platform told it to pause for `throttle_wait_seconds` at most is not left: the request
//!    goes back to the gate as in 2, and waits there for the account if that has its session's prompt cache,
//!    or nobody else serves ([`Table::worth_waiting`](crate::gate::select::Table::worth_waiting)). It does so once.
//!    Those that waited, and those that move, reach an account at the pace of `worker::pace`.
//! 3. What the next try must know is *carried* in filter state ([`crate::request::carried`]).
//! 4. Where Envoy cannot run the request again (a body over the limit), the 307 reaches the gate's
//!    response path, which restores the platform's answer.
//! 5. Where no answer came, the router's retry goes to the escape endpoint. That attempt carries no
//!    credential and no body, waits until the request is whole, strikes the account, and redirects as
//!    in 2. A connection that broke before the request was whole is no strike: its caller may have been
//!    too slow, and a slow caller must not take accounts out.
//!    Where the platform is known not to have had all of the request, as there was no connection or that broke
//!    while the request was being sent, a lone account gets it once more. A connection that breaks when all is sent
//!    says nothing of that, and HTTP/1.1 has no sign for it. Within a second it was closing as the request came, as
//!    a rule, and what makes nothing but its answer is sent once more. All else the platform may have worked on, or
//!    keep twice, so it is not sent there again (RFC 9110 §9.2.2).
//! 6. Envoy runs only a whole request again. An answer that comes while the request is still being sent
//!    becomes a 308, for which the router's retry goes to the escape endpoint as in 5, without the
//!    strike. Where the request is known to be over the body limit, the answer passes at once. Where
//!    only the escape finds that out, the caller gets the answer that [`early`] kept.
//! 7. A 401 is reported with the credential's generation, and the account is out until it has a new
//!    credential. A request that has no other account waits at the gate.
//!
//! After its first byte an answer passes whatever comes. An error event in the middle of a stream is
//! judged by the same rules, for the requests that come after. A verdict of scope `model` concerns the
//! model that was asked for. Where the model is unknown it takes the whole account out, for 10 s at most.

pub mod answer;
pub mod asked_model;
pub mod early;
pub mod failure;
pub mod forwarding;
mod headers;
pub mod holding;
mod list;
pub mod made;
pub mod request_bytes;
pub mod served_model;
pub mod unwrap;
pub mod usage_ask;

pub use self::headers::{Headers, escaping, headers, translated_headers};
use crate::{
    header::{HeaderMap, HeaderText},
    health::{Board, Striker},
    request::{carried::Carried, split_target},
    snapshot::{Account, Doors, Endpoint, Platform},
    verdict::{self, Answer, ErrorBody, Quota, Scope, Verdict},
};

/// The endpoint that the gate chose, if the platform still answers there what was asked at the door:
/// a profile may have changed since.
pub fn endpoint<'p>(
    platform: &'p Platform,
    doors: Option<&Doors>,
    carried: &Carried,
) -> Option<&'p Endpoint> {
    let door = doors?.get(carried.door)?;
    let endpoint = platform.endpoint(carried.endpoint)?;
    let answers = endpoint.answers(door) || endpoint.answers_translated(door);
    answers.then_some(endpoint)
}

/// The header of an answer that is ours and no error: it says what in it is an estimate.
pub const ESTIMATE_HEADER: &str = "x-latchkey-estimate";

/// The most bytes of an answer that are held back while it is judged. Errors are far below.
pub const MAX_HELD_BYTES: usize = 32 * 1024;

/// The header in which the status of an answer travels from the attempt to the gate, where the
/// answer became a redirect to run the request again. It reaches the gate only where Envoy could
/// not run it again, and the gate puts the answer right.
pub const STATUS_HEADER: &str = "x-latchkey-status";

/// The status of that redirect: one that platforms do not answer, as theirs are never passed on.
pub const REDIRECT_STATUS: &str = "307";

/// The status on which the router's retry goes to the escape listener, for an answer that came
/// before the request was whole; neither does a platform answer that.
pub const EARLY_STATUS: &str = "308";

/// The milliseconds for which a platform that could not be reached is left alone.
pub const UNREACHABLE_MS: u64 = 5_000;

/// The header that the router numbers the attempts of one try in.
const ATTEMPT_HEADER: &str = "x-envoy-attempt-count";

/// Returns true if this attempt is the router's own second one: the first had no answer at all, and this one goes to
/// the escape listener, which answers for the platform that could not be reached.
pub fn is_escape(request: &HeaderMap) -> bool {
    request
        .first(ATTEMPT_HEADER)
        .is_some_and(|count| count != b"1")
}

/// The status of the escape listener's answer.
pub const ESCAPE_STATUS: u16 = 503;

/// Returns true if `address` is the escape listener's, a socket's path: accounts have no other host that is a file. A
/// first attempt reaches it where its cluster has no host of its own.
pub fn is_escape_address(address: &[u8]) -> bool {
    address.starts_with(b"/")
}

/// Stands for the model of a request that does not say it, or not in a way that can be read.
const UNREAD_MODEL: &str = "unread";

/// The milliseconds for which an account is out where the platform limits one model of it and
/// nobody knows which requests that concerns: long enough to leave it alone, too short for one
/// model's limit to cost the others much.
const UNREAD_MODEL_MS: u64 = 10_000;

/// Judges an answer, other than a redirect, to a request for `model`.
pub fn judge(
    status: u16,
    headers: &HeaderMap,
    error: Option<&ErrorBody>,
    platform: &Platform,
    model: Option<&str>,
    now: u64,
) -> Verdict {
    let quota = Quota::read(&platform.quota, headers, now);
    let answer = Answer {
        status,
        headers,
        quota: &quota,
        error,
        model: Some(model.unwrap_or(UNREAD_MODEL)),
    };
    match verdict::judge(&platform.verdicts, &answer, now) {
        Verdict::CoolingDown {
            scope: Scope::Model(_),
            until,
            reason,
            ..
        } if model.is_none() => Verdict::CoolingDown {
            scope: Scope::Account,
            until: until.min(now.saturating_add(UNREAD_MODEL_MS)),
            guessed: true,
            reason,
        },
        verdict => verdict,
    }
}

/// Returns true if another account could do better.
pub fn is_worth_another(verdict: &Verdict) -> bool {
    !matches!(verdict, Verdict::Fine | Verdict::CallersFault)
}

/// Returns true if a verdict about `account` goes on the board.
///
/// The good path posts nothing, unless there is a guess to take down. An API key that is refused in words that no rule
/// knows may lack a right for this path alone.
pub fn is_posted(verdict: &Verdict, account: &Account, carried: &Carried, board: &Board) -> bool {
    let may_blame = may_blame(account, carried);
    match verdict {
        Verdict::Fine => {
            let model = carried.model.as_ref().map(HeaderText::as_str);
            board.is_guessed_out(account, Striker::of(&carried.key), model)
        }
        Verdict::CallersFault => false,
        // Another account has to do it first.
        verdict if verdict.is_not_served() => false,
        Verdict::CredentialExpired => may_blame && is_refreshable(account),
        Verdict::CoolingDown { .. } | Verdict::PlatformTrouble { .. } | Verdict::Dead { .. } => {
            may_blame
        }
    }
}

/// Returns true if the request may speak against this account. It does so against one at most, however many it was
/// tried on: it may be the request that makes them fail.
pub fn may_blame(account: &Account, carried: &Carried) -> bool {
    !carried.blames || carried.waited.as_ref() == Some(&account.id)
}

/// Returns true if the request is to blame where two accounts answer with this status. A 401, 402 or 429 speaks of the
/// account whatever was asked, and two accounts may be without money or at their limit.
pub fn blames_request(status: u16) -> bool {
    (400..=499).contains(&status) && !verdict::rule::OF_THE_ACCOUNT.contains(&status)
}

/// Returns true if the account may get another credential by itself. An API key has no end, and no successor.
pub fn is_refreshable(account: &Account) -> bool {
    account.credential_expires_at.is_some()
}

/// Makes the `location` at which the request runs again: its own URL. None where that cannot be told.
pub fn location(request: &HeaderMap, carried: &Carried) -> Option<Vec<u8>> {
    let (_, query) = split_target(request.first(":path").unwrap_or_default());
    carried.url.with_query(query)
}

#[cfg(test)]
mod tests {
    mod kinds;

    use super::*;
    use crate::snapshot::fixture;

    #[test]
    fn the_endpoint_is_the_one_that_the_gate_chose_while_it_answers_that() {
        let mut platform = fixture::platform("codex");
        let doors = fixture::doors();
        let of = |platform: &Platform, door: u16| {
            let text = format!(
                "account=acc_1 key=key_1 pool=default url= door={door} dialect=responses endpoint=0"
            );
            let carried = Carried::decode(text.as_bytes()).unwrap();
            endpoint(platform, Some(&doors), &carried).is_some()
        };
        assert!(of(&platform, fixture::RESPONSES));
        assert!(of(&platform, fixture::CHAT), "translated");
        assert!(!of(&platform, fixture::NOWHERE), "another door");
        assert!(!of(&platform, 999), "a door that is gone");
        let embed = platform.endpoints[0].clone();
        platform.endpoints.insert(0, embed);
        platform.endpoints[0].operation = "embed".to_owned().try_into().unwrap();
        assert!(!of(&platform, fixture::RESPONSES), "the profile changed");
    }

    #[test]
    fn an_answer_is_judged_by_its_status_where_no_rule_is() {
        let platform = fixture::platform("codex");
        let judge = |status| judge(status, &HeaderMap::default(), None, &platform, None, 1_000);
        assert_eq!(judge(200), Verdict::Fine);
        assert_eq!(judge(401), Verdict::CredentialExpired);
        assert_eq!(judge(404), Verdict::CallersFault);
        assert!(matches!(judge(429), Verdict::CoolingDown { .. }));
        assert!(is_worth_another(&judge(503)) && !is_worth_another(&judge(400)));
    }

    #[test]
    fn a_models_limit_is_its_own_and_where_nobody_knows_it_the_accounts_for_a_moment() {
        let mut platform = fixture::platform("codex");
        let rule = r#"{"status":[429],"verdict":"cooling_down","scope":"model","until":["header:retry-after"],"default_seconds":30,"max_seconds":86400}"#;
        platform.verdicts = vec![serde_json::from_str(rule).unwrap()];
        let headers: HeaderMap = [("retry-after", "86000")].into_iter().collect();
        let Verdict::CoolingDown {
            scope,
            until,
            guessed,
            ..
        } = judge(429, &headers, None, &platform, None, 1_000)
        else {
            panic!("no cool-down");
        };
        assert_eq!(
            (scope, until, guessed),
            (Scope::Account, 1_000 + UNREAD_MODEL_MS, true)
        );
        let known = judge(429, &headers, None, &platform, Some("gpt"), 1_000);
        let expected = Verdict::CoolingDown {
            scope: Scope::Model("gpt".try_into().unwrap()),
            until: 1_000 + 86_000_000,
            guessed: false,
            reason: verdict::Reason::rate_limited(),
        };
        assert_eq!(known, expected);
    }

    #[test]
    fn a_request_speaks_against_one_account_at_most() {
        let first = "account=acc_1 key=key_1 pool=default url=http://gateway/v1/responses door=1 dialect=responses endpoint=0";
        let second = format!("{first} since=5 tried=acc_2:1");
        let third = format!("{second} blames=account");
        let carried = |text: &str| Carried::decode(text.as_bytes()).unwrap();
        let (first, second, third) = (carried(first), carried(&second), carried(&third));
        let trouble = Verdict::PlatformTrouble { until: 9 };
        let nobody = Board::new();
        let mut account = fixture::account("acc_1", "codex");
        let expired = Verdict::CredentialExpired;
        let limited = |scope, guessed| Verdict::CoolingDown {
            scope,
            until: 9,
            guessed,
            reason: verdict::Reason::rate_limited(),
        };
        let posted = |verdict: &Verdict, account: &Account, carried: &Carried| {
            is_posted(verdict, account, carried, &nobody)
        };
        let dead = Verdict::Dead {
            reason: verdict::Reason::known("banned"),
        };
        for verdict in [
            trouble.clone(),
            limited(Scope::Account, false),
            limited(Scope::Account, true),
            dead,
        ] {
            assert!(posted(&verdict, &account, &first), "{verdict:?}");
            assert!(posted(&verdict, &account, &second), "nobody was blamed");
            assert!(!posted(&verdict, &account, &third), "{verdict:?}");
        }
        assert!(!posted(&Verdict::Fine, &account, &first));
        assert!(!posted(&expired, &account, &first), "an API key");
        account.credential_expires_at = Some(1);
        assert!(posted(&expired, &account, &first), "a login");
        assert!(!posted(&expired, &account, &third), "a login");
        let mut board = Board::new();
        board.post(&account, &trouble, 0);
        let fine = Verdict::Fine;
        assert!(!is_posted(&fine, &account, &first, &board), "a strike");
        board.post(&account, &trouble, 0);
        board.post(&account, &trouble, 0);
        assert!(is_posted(&fine, &account, &first, &board));
        let other = fixture::account("acc_2", "codex");
        assert!(!is_posted(&Verdict::Fine, &other, &first, &board));
    }

    #[test]
    fn the_second_attempt_of_a_try_is_the_escape() {
        let count = |count| is_escape(&[(ATTEMPT_HEADER, count)].into_iter().collect());
        assert!(!count("1") && count("2"));
        assert!(!is_escape(&HeaderMap::default()));
    }
}
