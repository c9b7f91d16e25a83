//! The question whether an account is of any use, asked of its platform by ourselves: the profile's cheapest call that
//! proves a credential, with the account's own credential and headers, judged by the filter's own code.
//!
//! It decides nothing for anybody: [`schedule`] says what a finding leads to where a client key was told that the
//! account is dead.

mod call;
pub mod quota;
pub mod schedule;

use latchkey::attempt;
use latchkey::header::HeaderMap;
use latchkey::snapshot::{Account, Platform};
use latchkey::verdict::{Beginning, ErrorBody, Look, Reason, Verdict};
use serde::Serialize;

use crate::clock::Clock;
use crate::oauth::http::{ApiAnswer, HttpClient};
use crate::platform::Profile;
use crate::platform::probe::Probe;

/// The platform's word on an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "found", rename_all = "snake_case")]
pub enum Finding {
    /// The platform took the credential.
    Alive,
    /// The account is of no use until somebody sees to it.
    Dead {
        /// The reason.
        reason: Reason,
    },
    /// The credential was refused. Another one may be taken.
    Refused,
    /// The account may not be used for a while.
    Limited {
        /// The end, in Unix milliseconds.
        until: u64,
        /// The platform did not say when.
        guessed: bool,
        /// The reason.
        reason: Reason,
    },
    /// The state of the account could not be learned.
    Unknown {
        /// The reason.
        why: String,
    },
}

/// Asks the platform of `profile` about `account`; `tls`: the account's own base URL speaks TLS, if it has one.
pub async fn ask(
    profile: &Profile,
    probe: &Probe,
    account: &Account,
    tls: Option<bool>,
    clock: &impl Clock,
) -> Finding {
    match send(profile, probe, account, tls).await {
        Ok(answer) => {
            let now = u64::try_from(clock.now().0).unwrap_or_default();
            judge(&answer, &profile.record, probe, now)
        }
        Err(why) => Finding::Unknown { why },
    }
}

/// Makes a call for an account, by its own way out.
async fn send(
    profile: &Profile,
    call: &Probe,
    account: &Account,
    tls: Option<bool>,
) -> Result<ApiAnswer, String> {
    let request = call::request(profile, call, account, tls).map_err(str::to_owned)?;
    let ca_file = profile.upstream.ca_file.as_deref();
    let network = tls.map(|_| profile.upstream.network);
    let proxy = profile.upstream.proxy.as_ref();
    let client = HttpClient::to_account(&request.url, ca_file, network, proxy);
    let client = client.map_err(|error| error.to_string())?;
    client.ask(request).await.map_err(|error| error.to_string())
}

/// Judges an answer as the filter does.
fn judge(answer: &ApiAnswer, platform: &Platform, probe: &Probe, now: u64) -> Finding {
    let status = answer.status;
    let error = match status {
        200..=299 => {
            let mut beginning = Beginning::new(probe.endpoint.dialect, false);
            match beginning.look(&answer.body, answer.is_whole) {
                Look::Error(failure) => Some(failure.error),
                Look::Fine | Look::Empty | Look::NeedMore => None,
            }
        }
        400..=599 => Some(ErrorBody::read(&answer.body)),
        _ => {
            let why = format!("it answered {status}, which is no answer");
            return Finding::Unknown { why };
        }
    };
    let headers: HeaderMap = answer.headers.clone().into();
    match attempt::judge(status, &headers, error.as_ref(), platform, None, now) {
        Verdict::Fine => Finding::Alive,
        Verdict::Dead { reason } => Finding::Dead { reason },
        Verdict::CredentialExpired => Finding::Refused,
        // Of one call that the account may not make nothing follows for the others.
        verdict if verdict.is_not_served() => Finding::Unknown {
            why: format!("it answered {status} (not_served)"),
        },
        Verdict::CoolingDown {
            until,
            guessed,
            reason,
            ..
        } => Finding::Limited {
            until,
            guessed,
            reason,
        },
        verdict @ (Verdict::PlatformTrouble { .. } | Verdict::CallersFault) => Finding::Unknown {
            why: format!("it answered {status} ({})", verdict.word()),
        },
    }
}

#[cfg(test)]
mod tests {
    use latchkey::header::HeaderText;
    use latchkey::id::Id;
    use latchkey::secret::Secret;
    use latchkey::snapshot::Needles;
    use serde_json::json;
    use zeroize::Zeroizing;

    use super::*;
    use crate::platform::Catalog;

    const NOW: u64 = 1_790_000_000_000;

    fn profile(id: &str) -> Profile {
        let catalog = Catalog::load(None, ["codex".to_owned()].into()).unwrap();
        catalog.usable(id).unwrap().clone()
    }

    fn account(profile: &Profile) -> Account {
        let text = |text: &str| HeaderText::try_from(text).unwrap();
        Account {
            id: Id::try_from("acc_1").unwrap(),
            name: text("one"),
            platform: profile.record.id.clone(),
            cluster: Id::try_from("latchkey-own").unwrap(),
            authority: profile.upstream.url.authority.clone(),
            base_path: None,
            credential: Secret::new("sk-secret"),
            vars: [("account_id".to_owned(), text("ws-1"))].into(),
            generation: 1,
            credential_expires_at: None,
            expires_at: None,
            models: serde_json::from_value(json!([])).unwrap(),
            limits: serde_json::from_value(json!({})).unwrap(),
            maps: latchkey::snapshot::ModelMaps::default(),
            needles: Needles::default(),
        }
    }

    #[test]
    fn the_call_is_what_the_filter_would_send_there() {
        for (id, url, headers) in [
            (
                "openai",
                "https://api.openai.com/v1/models",
                vec![("authorization", "Bearer sk-secret")],
            ),
            (
                "anthropic",
                "https://api.anthropic.com/v1/models?limit=1",
                vec![
                    ("anthropic-version", "2023-06-01"),
                    ("x-api-key", "sk-secret"),
                ],
            ),
            (
                "codex",
                "https://chatgpt.com/backend-api/codex/models?client_version=0.171.0",
                vec![
                    ("authorization", "Bearer sk-secret"),
                    ("chatgpt-account-id", "ws-1"),
                ],
            ),
        ] {
            let profile = profile(id);
            let probe = profile.probe.as_ref().unwrap();
            let request = call::request(&profile, probe, &account(&profile), None).unwrap();
            assert_eq!(
                (request.method.as_str(), request.url.as_str()),
                ("GET", url)
            );
            let sent = request.headers.iter();
            let mut sent: Vec<_> = sent
                .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
                .filter(|(name, _)| *name != "accept-encoding")
                .collect();
            sent.sort_unstable();
            assert_eq!(sent, headers);
            assert!(!format!("{request:?} {:?}", request.headers).contains("sk-secret"));
        }
        let mut profile = profile("codex");
        let probe = profile.probe.clone().unwrap();
        let mut lacking = account(&profile);
        lacking.vars.clear();
        let refused = call::request(&profile, &probe, &lacking, None).unwrap_err();
        assert!(refused.contains("lacks"), "{refused}");
        // A key in the query goes where the filter puts it.
        profile.record.query = serde_json::from_value(json!([["key", "{credential}"]])).unwrap();
        let request = call::request(&profile, &probe, &account(&profile), None).unwrap();
        let query = request.url.query().unwrap();
        assert_eq!(query, "client_version=0.171.0&key=sk-secret");
        // An account elsewhere is asked about there.
        let mut elsewhere = account(&profile);
        elsewhere.authority = HeaderText::try_from("127.0.0.1:9").unwrap();
        elsewhere.base_path = Some("/eu".to_owned().try_into().unwrap());
        let request = call::request(&profile, &probe, &elsewhere, Some(false)).unwrap();
        assert!(
            request
                .url
                .as_str()
                .starts_with("http://127.0.0.1:9/eu/models?")
        );
    }

    #[test]
    fn the_answer_is_judged_as_the_filter_judges_it() {
        let profile = profile("openai");
        let probe = profile.probe.as_ref().unwrap();
        let found = |status, headers: &[(&str, &str)], body: &str| {
            let header =
                |(name, value): &(&str, &str)| ((*name).to_owned(), value.as_bytes().to_vec());
            let answer = ApiAnswer {
                status,
                headers: headers.iter().map(header).collect(),
                body: Zeroizing::new(body.as_bytes().to_vec()),
                is_whole: true,
            };
            assert!(
                !format!("{answer:?}").contains("code"),
                "a body may repeat the key"
            );
            judge(&answer, &profile.record, probe, NOW)
        };
        let dead = |reason: &str| Finding::Dead {
            reason: Reason::try_from(reason.to_owned()).unwrap(),
        };
        let invalid = r#"{"error":{"code":"invalid_api_key"}}"#;
        assert_eq!(
            found(200, &[], r#"{"object":"list","data":[]}"#),
            Finding::Alive
        );
        assert_eq!(found(401, &[], invalid), dead("invalid_api_key"));
        assert_eq!(
            found(200, &[], invalid),
            Finding::Unknown {
                why: "it answered 200 (callers_fault)".to_owned()
            }
        );
        let deactivated = r#"{"error":{"code":"account_deactivated"}}"#;
        assert_eq!(found(403, &[], deactivated), dead("deactivated"));
        assert_eq!(found(401, &[], "{}"), Finding::Refused);
        let limited = found(429, &[("retry-after", "60")], "{}");
        assert!(
            matches!(limited, Finding::Limited { until, guessed: false, .. } if until == NOW + 60_000),
            "{limited:?}"
        );
        for status in [101, 302, 400, 403, 404, 500, 503, 999] {
            let found = found(status, &[], "{}");
            assert!(
                matches!(found, Finding::Unknown { .. }),
                "{status}: {found:?}"
            );
        }
    }
}
