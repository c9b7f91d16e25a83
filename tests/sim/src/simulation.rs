//! The simulated platform as one state machine: a request and the time in, an outcome out.

#[cfg(test)]
mod tests;

use std::{collections::HashMap, num::NonZeroUsize, time::Duration};

use http::{HeaderMap, Method, Request, StatusCode, header};
use hyper::body::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    answer::Answer,
    baidu, claude,
    clock::UnixMillis,
    code_assist, deployment, documented,
    faults::{Early, Fault, Faults, Target},
    fixtures::{Fill, Fixture, fixture},
    headers,
    oauth::{Access, FamilyId, OAuth},
    platform::Platform,
    record::{Record, Records, authority},
    signed,
    stats::{RefusedRequest, Stats},
    things::{Asked, Things},
    token_endpoint::{self, Effect, TokenRequest},
    upstream::{self, Context, ernie},
    web,
};

/// Everything the platform knows.
#[derive(Debug)]
pub struct Simulation {
    /// The OAuth server.
    pub oauth: OAuth,
    /// API keys and whose they are.
    pub api_keys: HashMap<String, ApiKey>,
    /// What its accounts have made.
    pub things: Things,
    /// The accounts of Code Assist that were set up.
    pub code_assist: code_assist::Accounts,
    /// The faults that are set.
    pub faults: Faults,
    /// The requests that were received.
    pub records: Records,
    /// The counters.
    pub stats: Stats,
    /// The pace of streams.
    pub pacing: Pacing,
    /// The platform's own `host:port`s.
    pub authorities: Vec<String>,
}

/// Whose an API key is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ApiKey {
    /// The platform at which it is good; none for the documented platform that is called `name`.
    pub platform: Option<Platform>,
    /// Its name in answers, faults and records.
    pub name: String,
}

/// The pace of streams.
#[derive(Clone, Copy, Debug)]
pub struct Pacing {
    /// Wait before each event but the first.
    pub event_delay: Duration,
    /// In how many deltas a stream carries its text.
    pub events: usize,
}

/// An answer and how it is delivered.
#[derive(Debug)]
pub struct Outcome {
    /// The bytes that are sent.
    pub answer: Answer,
    /// Wait before anything is sent.
    pub delay: Duration,
    /// Wait between headers and body.
    pub after_headers_delay: Duration,
    /// Wait before each event but the first.
    pub event_delay: Duration,
    /// Close the connection after this many bytes of body.
    pub cut_after_bytes: Option<u64>,
    /// Send nothing more after this many bytes of body.
    pub stall_after_bytes: Option<u64>,
    /// Send the body in pieces of this many bytes, so far apart.
    pub pieces: Option<(NonZeroUsize, Duration)>,
    /// End the body with a trailer.
    pub trailer: bool,
    /// Close the connection instead of answering.
    pub drop: bool,
    /// The login whose refresh this answers: `Stats::refresh_ends` when it is delivered.
    pub refreshing: Option<FamilyId>,
}

impl Simulation {
    /// A platform without users, keys and faults, at those authorities.
    pub fn new(seed: u64, authorities: Vec<String>) -> Self {
        Self {
            oauth: OAuth::new(seed),
            api_keys: HashMap::new(),
            things: Things::default(),
            code_assist: code_assist::Accounts::default(),
            faults: Faults::default(),
            records: Records::default(),
            stats: Stats::default(),
            pacing: Pacing {
                event_delay: Duration::ZERO,
                events: 5,
            },
            authorities,
        }
    }

    /// The answer to a request with this head before its body has come, where a fault on an
    /// API key's account says so.
    pub fn early(&self, path: &str, headers: &HeaderMap) -> Option<Early> {
        let text = |name: &str| headers.get(name)?.to_str().ok();
        let bearer = text("authorization").and_then(|value| value.strip_prefix("Bearer "));
        let known = self.api_keys.get(text("x-api-key").or(bearer)?)?;
        self.faults.early(Some(&known.name), path)
    }

    /// Answers a request.
    pub fn handle(&mut self, request: &Request<Bytes>, now: UnixMillis) -> Outcome {
        let mut record = Record::new(
            request.method(),
            request.uri(),
            request.version(),
            request.headers(),
            request.body(),
            now,
        );
        let mut outcome = Outcome {
            answer: Answer::whole(StatusCode::NOT_FOUND, "text/plain", "no such page"),
            delay: Duration::ZERO,
            after_headers_delay: Duration::ZERO,
            event_delay: self.pacing.event_delay,
            cut_after_bytes: None,
            stall_after_bytes: None,
            pieces: None,
            trailer: false,
            drop: false,
            refreshing: None,
        };
        let path = request.uri().path();
        let documented = documented::platform(request.headers(), &self.api_keys, now);
        let fault = match (request.method(), path) {
            (&Method::GET, "/oauth/authorize") => {
                let query = request.uri().query().unwrap_or_default();
                outcome.answer = token_endpoint::authorize(&mut self.oauth, query, now);
                None
            }
            (&Method::GET, claude::AUTHORIZE) => {
                let query = request.uri().query().unwrap_or_default();
                outcome.answer = claude::authorize(&mut self.oauth, query, now);
                None
            }
            (&Method::GET, code_assist::AUTHORIZE) => {
                let query = request.uri().query().unwrap_or_default();
                outcome.answer = code_assist::authorize(&mut self.oauth, query, now);
                None
            }
            (_, path) if path.starts_with(code_assist::API) => {
                let (account, is_valid) =
                    code_assist::authenticate(&self.oauth, request.headers(), now);
                let body: Value = serde_json::from_slice(request.body()).unwrap_or_default();
                let fill = self.context(account.as_deref().unwrap_or_default(), now);
                let fill = fill.reply(&body["request"]);
                let fault =
                    self.faults
                        .take(Target::Upstream, account.as_deref(), path, request.body());
                let own = replacement(fault.as_ref(), &fill);
                outcome.answer = own.unwrap_or_else(|| match account.as_deref() {
                    Some(email) if is_valid => self.code_assist.answer(email, request, &fill),
                    _ => code_assist::unauthenticated(),
                });
                record.account = account;
                fault
            }
            (&Method::GET, claude::PROFILE) => {
                let fill = self.context("", now).plain();
                let (account, answer) = claude::profile(&self.oauth, request.headers(), &fill, now);
                let fault = self
                    .faults
                    .take(Target::Upstream, account.as_deref(), path, b"");
                outcome.answer = replacement(fault.as_ref(), &fill).unwrap_or(answer);
                record.account = account;
                fault
            }
            (&Method::GET, "/oauth/device" | "/codex/device") => {
                let query = request.uri().query().unwrap_or_default();
                outcome.answer = token_endpoint::decide(&mut self.oauth, query);
                None
            }
            (method, "/web/login" | "/web/chat" | "/web/session") => {
                outcome.answer = web::answer(&mut self.oauth, method, request, now);
                None
            }
            (&Method::POST, "/oauth/device/code") => {
                let tokens = TokenRequest::parse(request.headers(), request.body());
                let issuer = issuer(request);
                outcome.answer = token_endpoint::device(&mut self.oauth, &tokens, &issuer, now);
                None
            }
            (&Method::POST, "/api/accounts/deviceauth/usercode") => {
                let tokens = TokenRequest::parse(request.headers(), request.body());
                outcome.answer = token_endpoint::user_code(&mut self.oauth, &tokens, now);
                None
            }
            (&Method::POST, "/api/accounts/deviceauth/token") => {
                let tokens = TokenRequest::parse(request.headers(), request.body());
                let issuer = issuer(request);
                outcome.answer =
                    token_endpoint::device_grant(&mut self.oauth, &tokens, &issuer, now);
                None
            }
            (
                &Method::POST,
                "/oauth/token"
                | "/oauth/revoke"
                | claude::TOKEN
                | code_assist::TOKEN
                | code_assist::REVOKE,
            ) => {
                let tokens = TokenRequest::parse(request.headers(), request.body());
                record.account = tokens.account(&self.oauth);
                outcome.refreshing = tokens.refreshes(&self.oauth);
                let fault = self.faults.take(
                    Target::Token,
                    record.account.as_deref(),
                    path,
                    request.body(),
                );
                outcome.answer = self.token(request, &tokens, fault.as_ref(), now);
                if let Some(family) = outcome.refreshing {
                    self.stats.refresh_begins(family);
                }
                fault
            }
            (&Method::POST, baidu::TOKEN) => {
                let query = request.uri().query().unwrap_or_default();
                record.account = baidu::owner(&self.oauth, query);
                let account = record.account.as_deref();
                let fault = self.faults.take(Target::Token, account, path, b"");
                let nothing = TokenRequest::default();
                outcome.answer = self.token(request, &nothing, fault.as_ref(), now);
                fault
            }
            (&Method::POST, _) if path.starts_with(ernie::CHAT) => {
                let (answer, fault) = self.ernie(request, &mut record, now);
                outcome.answer = answer;
                fault
            }
            _ => match (documented, Platform::of(path, request.headers())) {
                (Some(platform), _) => {
                    let body = serde_json::from_slice(request.body()).unwrap_or(Value::Null);
                    let fill = self.context(&platform, now).reply(&body);
                    let fault =
                        self.faults
                            .take(Target::Upstream, Some(&platform), path, request.body());
                    outcome.answer = replacement(fault.as_ref(), &fill).unwrap_or_else(|| {
                        documented::answer(&platform, request, &self.authorities, &fill)
                    });
                    record.account = Some(platform);
                    fault
                }
                (None, Some(platform)) => {
                    let deployed = deployment::as_openai(request);
                    let request = deployed.as_ref().unwrap_or(request);
                    let (answer, fault) = self.upstream(platform, request, &mut record, now);
                    outcome.answer = answer;
                    fault
                }
                (None, None) => None,
            },
        };
        if let Some(fault) = fault {
            outcome.apply(&fault);
        }
        record.status = (!outcome.drop).then_some(outcome.answer.status.as_u16());
        self.records.push(record);
        outcome
    }

    fn token(
        &mut self,
        request: &Request<Bytes>,
        tokens: &TokenRequest,
        fault: Option<&Fault>,
        now: UnixMillis,
    ) -> Answer {
        let fill = self.context("", now).plain();
        let path = request.uri().path();
        if !["/oauth/revoke", code_assist::REVOKE].contains(&path) {
            self.stats.token_calls += 1;
        }
        if let Some(answer) = replacement(fault, &fill) {
            return answer;
        }
        let done = match path {
            claude::TOKEN => claude::token(&mut self.oauth, request.headers(), request.body(), now),
            baidu::TOKEN => {
                let query = request.uri().query().unwrap_or_default();
                baidu::token(&mut self.oauth, query, request.body(), now)
            }
            code_assist::TOKEN | code_assist::REVOKE => {
                let (headers, body) = (request.headers(), request.body());
                code_assist::token(&mut self.oauth, path, headers, body, now)
            }
            "/oauth/token" => token_endpoint::token(&mut self.oauth, tokens, &fill, now),
            _ => token_endpoint::revoke(&mut self.oauth, tokens),
        };
        match done.effect {
            Effect::None => {}
            Effect::Refreshed if done.answer.status.is_success() => self.stats.refreshes += 1,
            Effect::Refreshed => {}
            Effect::Minted => self.stats.minted += 1,
            Effect::ReuseDetected => self.stats.reuse_detected += 1,
            Effect::Revoked => self.stats.revocations += 1,
            Effect::ApiKey { name, key } => {
                let platform = Some(Platform::OpenAi);
                self.api_keys.insert(key, ApiKey { platform, name });
            }
        }
        done.answer
    }

    fn ernie(
        &mut self,
        request: &Request<Bytes>,
        record: &mut Record,
        now: UnixMillis,
    ) -> (Answer, Option<Fault>) {
        self.stats.requests += 1;
        let found = baidu::authenticate(&self.oauth, request, &self.authorities, now);
        record.account = match &found {
            Ok(account) => Some(account.clone()),
            Err(refused) => refused.account.clone(),
        };
        let account = record.account.as_deref();
        let path = request.uri().path();
        let fault = self
            .faults
            .take(Target::Upstream, account, path, request.body());
        let context = self.context(account.unwrap_or_default(), now);
        let body = serde_json::from_slice(request.body()).unwrap_or(Value::Null);
        let fill = context.reply(&body);
        let answer = replacement(fault.as_ref(), &fill).unwrap_or_else(|| match found {
            Ok(_) => ernie::answer(request.body(), &fill),
            Err(refused) => {
                match refused.code {
                    111 => self.stats.expired_token_uses += 1,
                    _ => self.stats.rejected_credentials += 1,
                }
                ernie::error(refused.code, &refused.message)
            }
        });
        (answer, fault)
    }

    fn upstream(
        &mut self,
        platform: Platform,
        request: &Request<Bytes>,
        record: &mut Record,
        now: UnixMillis,
    ) -> (Answer, Option<Fault>) {
        let path = request.uri().path();
        self.stats.requests += 1;
        let authority = authority(request.uri(), request.headers());
        if let Err(refusal) =
            headers::check(platform, request.headers(), authority, &self.authorities)
        {
            let body = json!({"error": {
                "type": "sim_refused_header",
                "message": format!("{}: {}", refusal.header, refusal.reason),
                "header": refusal.header,
            }});
            self.stats.refuse(RefusedRequest {
                path: path.to_owned(),
                header: refusal.header,
                reason: refusal.reason,
            });
            return (
                Answer::json(StatusCode::BAD_REQUEST, body.to_string()),
                None,
            );
        }
        let (account, plan) = self.authenticate(platform, request.headers(), now);
        let fault = self
            .faults
            .take(Target::Upstream, account.as_deref(), path, request.body());
        let context = self.context(account.as_deref().unwrap_or_default(), now);
        record.account.clone_from(&account);

        let body = match request.body().as_ref() {
            b"" => Ok(Value::Null),
            bytes => serde_json::from_slice(bytes),
        };
        let fill = context.reply(body.as_ref().unwrap_or(&Value::Null));
        if let Some(answer) = replacement(fault.as_ref(), &fill) {
            return (answer, fault);
        }
        let id = context.id.clone();
        let asked = Asked {
            platform,
            account: account.as_deref().unwrap_or_default(),
            method: request.method(),
            path,
            headers: request.headers(),
            body: request.body(),
            id: &id,
        };
        if plan.is_ok() {
            let answer = self.things.answer(asked);
            let media = || upstream::openai::media(asked, &context);
            if let Some(answer) = answer.or_else(media) {
                return (answer, fault);
            }
            let missing = body.as_ref().ok();
            if let Some(answer) = missing.and_then(|body| self.things.missing(asked, body)) {
                return (answer, fault);
            }
            if let Ok(body) = &body {
                self.things.keep_response(asked, body);
            }
        }
        let wanted_method = if path.ends_with("/models") {
            Method::GET
        } else {
            Method::POST
        };
        let answer = match (plan, body) {
            (Err(fixture), _) => Some(fixture.answer(&fill)),
            (Ok(_), Err(_)) => Some(invalid_body(platform).answer(&fill)),
            (Ok(_), _) if request.method() != wanted_method => {
                Some(Answer::json(StatusCode::METHOD_NOT_ALLOWED, "{}"))
            }
            (Ok(plan), Ok(body)) => match platform {
                Platform::Codex => upstream::codex::answer(path, &body, &plan, context),
                Platform::OpenAi => upstream::openai::answer(path, &body, context),
                Platform::Anthropic => {
                    let answer =
                        upstream::anthropic::answer(path, request.headers(), &body, context);
                    match plan.as_str() {
                        claude::PLAN => answer.map(|answer| claude::with_windows(answer, now)),
                        _ => answer,
                    }
                }
            },
        };
        let answer = answer.unwrap_or_else(|| no_endpoint(platform).answer(&fill));
        let generates = !path.ends_with("/models") && !path.ends_with("/count_tokens");
        if generates && answer.status.is_success() {
            self.stats.input_tokens += fill.input_tokens;
            self.stats.output_tokens += fill.output_tokens;
        }
        (answer, fault)
    }

    /// Whose credential the request carries, and the plan, or the fixture that says no.
    fn authenticate(
        &mut self,
        platform: Platform,
        headers: &HeaderMap,
        now: UnixMillis,
    ) -> (Option<String>, Result<String, &'static Fixture>) {
        let text = |name: header::HeaderName| headers.get(name)?.to_str().ok();
        let bearer = text(header::AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer "));
        if platform == Platform::Codex {
            let access = self.oauth.access(bearer.unwrap_or_default(), now);
            let account_id = text(header::HeaderName::from_static("chatgpt-account-id"));
            let (account, result) = match access {
                Access::Valid(user) if account_id == Some(&user.account_id) => {
                    return (Some(user.email), Ok(user.plan));
                }
                Access::Expired(user) => {
                    self.stats.expired_token_uses += 1;
                    return (Some(user.email), Err(fixture!("codex/token_expired.json")));
                }
                Access::Valid(user) => (Some(user.email), fixture!("codex/unauthorized.json")),
                Access::Revoked(user) => {
                    (Some(user.email), fixture!("codex/token_invalidated.json"))
                }
                Access::Unknown => (None, fixture!("codex/unauthorized.json")),
            };
            self.stats.rejected_credentials += 1;
            return (account, Err(result));
        }
        if platform == Platform::Anthropic
            && bearer.is_some_and(|token| token.starts_with(claude::ACCESS_TOKEN))
        {
            return match claude::authenticate(&self.oauth, headers, true, now) {
                Ok(user) => (Some(user.email), Ok(claude::PLAN.to_owned())),
                Err((account, fixture)) => {
                    match fixture.name {
                        "anthropic/oauth_token_expired.json" => self.stats.expired_token_uses += 1,
                        _ => self.stats.rejected_credentials += 1,
                    }
                    (account, Err(fixture))
                }
            };
        }
        let (key, missing, invalid) = match platform {
            Platform::Anthropic => (
                // The SDK sends the key as a bearer token since 2.0; curl and the docs as `x-api-key`.
                text(header::HeaderName::from_static("x-api-key")).or(bearer),
                fixture!("anthropic/missing_api_key.json"),
                fixture!("anthropic/invalid_api_key.json"),
            ),
            _ => (
                bearer,
                fixture!("openai/missing_api_key.json"),
                fixture!("openai/invalid_api_key.json"),
            ),
        };
        let signed = key.and_then(|token| signed::key_of(token, self.api_keys.keys(), now));
        let known = key
            .and_then(|key| self.api_keys.get(signed.map_or(key, String::as_str)))
            .filter(|known| known.platform == Some(platform));
        match known {
            Some(known) => (Some(known.name.clone()), Ok(String::new())),
            None => {
                self.stats.rejected_credentials += 1;
                (None, Err(if key.is_some() { invalid } else { missing }))
            }
        }
    }

    fn context<'a>(&mut self, account: &'a str, now: UnixMillis) -> Context<'a> {
        Context {
            account,
            id: self.oauth.random_id(),
            pieces: self.pacing.events,
            now,
        }
    }
}

impl Outcome {
    fn apply(&mut self, fault: &Fault) {
        self.delay = Duration::from_millis(fault.delay_ms);
        self.after_headers_delay = Duration::from_millis(fault.after_headers_delay_ms);
        self.cut_after_bytes = fault.cut_after_bytes;
        self.stall_after_bytes = fault.stall_after_bytes;
        let delay = Duration::from_millis(fault.piece_delay_ms);
        self.pieces = fault.piece_bytes.map(|bytes| (bytes, delay));
        self.trailer = fault.trailer;
        self.drop = fault.drop_before_answer;
        fault.decorate(&mut self.answer);
    }
}

/// The fault's answer; a fault that drops the connection lets the work be done.
fn replacement(fault: Option<&Fault>, fill: &Fill) -> Option<Answer> {
    fault
        .filter(|fault| !fault.drop_before_answer)
        .and_then(|fault| fault.replacement(fill))
}

/// The issuer as the client that asks names it.
fn issuer(request: &Request<Bytes>) -> String {
    let at = authority(request.uri(), request.headers()).unwrap_or_default();
    format!("https://{at}")
}

fn invalid_body(platform: Platform) -> &'static Fixture {
    match platform {
        Platform::Anthropic => fixture!("anthropic/invalid_body.json"),
        Platform::Codex | Platform::OpenAi => fixture!("openai/invalid_body.json"),
    }
}

fn no_endpoint(platform: Platform) -> &'static Fixture {
    match platform {
        Platform::Anthropic => fixture!("anthropic/not_found_error.json"),
        Platform::Codex | Platform::OpenAi => fixture!("openai/not_found.json"),
    }
}
