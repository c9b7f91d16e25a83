//! Answers of our own: what happened, whose fault it is and what to do, with a code that cannot be
//! mistaken for the platform's.
//!
//! `tests/golden/refusals.txt` has every answer word for word. The caller's dialect puts the words
//! into its form.

mod message;
mod words;

use serde_json::{Value, json};

use super::select::{Back, Out};
use crate::{
    budget::NoRoom,
    decode::{self, Fault},
    dialect::{Dialect, ErrorText},
    header::HeaderText,
    id::Id,
    label::ModelName,
    limit::Reached,
    request::carried::Carried,
    snapshot::Requirement,
    verdict::Reason,
};

/// The header with our own error code.
pub const ERROR_HEADER: &str = "x-latchkey-error";

/// The header that tells the SDKs of OpenAI and Anthropic if to send a request again.
pub const RETRY_HEADER: &str = "x-should-retry";

/// The most accounts or paths that a message names.
const MAX_NAMED: usize = 8;

/// The most of the name of a chosen account that a message repeats, in characters: as long as names are.
const MAX_WISHED_CHARS: usize = 64;

/// The longest wait after which a client's own repeat makes sense, in seconds: the SDKs wait no
/// longer than a minute.
pub const LONGEST_REPEAT_SECONDS: u32 = 60;

/// An answer of the gateway itself in place of a platform's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// No client key, or an empty one.
    NoKey,
    /// Two different client keys of this gateway, or more credentials than are looked at; the
    /// headers in which they came.
    AmbiguousKey(Vec<&'static str>),
    /// A text in the URL that seems to be a key.
    KeyInUrl,
    /// A client key that is unknown or revoked.
    UnknownKey,
    /// A client key that has ended; its name, where it is known.
    KeyExpired(Option<HeaderText>),
    /// The client key is at one of its limits.
    Limit(AtLimit),
    /// No room is left to hold the request, or more of it.
    NoRoom(NoRoom),
    /// A path that no platform of the snapshot serves; the base URL that was meant, where that can
    /// be told.
    UnknownPath(Option<MeantBase>),
    /// A path that is served with other methods: these.
    Method(String),
    /// No account of the pool serves this model, or the key may not use it.
    ModelNotListed(Option<HeaderText>),
    /// An upgrade to another protocol.
    Upgrade,
    /// The body comes in a coding that the gateway does not read, or in several.
    UnknownCoding,
    /// The body does not stand for any bytes.
    Body(Fault),
    /// The client key names a pool that the snapshot does not hold.
    NoPool,
    /// No account of the pool that is in use now has what is asked for, but one that is not may.
    NoAccount {
        /// The pool.
        pool: Id,
        /// The thing that is asked for.
        sought: Sought,
    },
    /// No account of the pool ever serves this path.
    NeverServed {
        /// The pool.
        pool: Id,
        /// The methods and paths that its accounts serve.
        served: Vec<String>,
    },
    /// The client key may not ask for this model, or its request says two.
    ModelNotAllowed(Option<HeaderText>),
    /// The accounts of this pool, or else the client key, serve certain models only, and the request says none that could
    /// be read.
    NoModel(Option<Id>),
    /// No account of the pool that speaks this path serves the model.
    ModelNotServed {
        /// The model.
        model: HeaderText,
        /// The pool.
        pool: Id,
        /// The account or the platform that was chosen, if one was.
        of: Option<Wished>,
    },
    /// The accounts that would serve the request ask of it what it does not have.
    Unmet {
        /// Their pool.
        pool: Id,
        /// Their requirements.
        requirements: Vec<Requirement>,
    },
    /// The client key may not choose that account or pool, or there is none such.
    ChoiceNotAllowed,
    /// The client key may choose its account, and its pool has none such for this path.
    NotInPool {
        /// The pool.
        pool: Id,
        /// The choice.
        wished: Wished,
    },
    /// No account of the pool that speaks this path may be used now.
    AllOut(AllOut),
    /// The one account that has what the request goes on from may not be used now.
    HomeOut(AllOut),
    /// The account that has what the request goes on from is not in this pool any more.
    HomeGone(Id),
    /// The request names things of several accounts.
    HomesApart,
    /// The request names more things than are looked for.
    TooManyThings,
    /// The client key has made nothing that is called so, as far as the gateway knows.
    NoSuchThing,
    /// The refresher could not be asked which account has what the request names.
    HomeUnknown,
    /// A list of what an account holds, from who did not choose the account.
    ListOfAccount,
    /// The key has limits of tokens, a list of models, or demands, and what it asks for is not seen.
    Uncounted,
    /// The refresher has not been reached since Envoy started, or not about the request's limits,
    /// and no place to wait for that is left.
    NotReady,
    /// The refresher has not confirmed the snapshot for longer than the operator allows.
    Unconfirmed,
    /// The account that served the request, or its key's right to the pool or the model, was taken away while it was
    /// under way.
    Withdrawn,
    /// The upstream filter was reached without an account.
    NoCredential,
    /// The platform refuses the account's credential, and no other account could serve the request.
    CredentialRefused,
    /// The request cannot be said in the dialect of the accounts that serve it.
    Untranslatable {
        /// The body is beyond a bound.
        too_large: bool,
        /// The member, and what is wrong with it.
        why: String,
    },
    /// The model or the effort that a map or the client key sets cannot be put into the request.
    Unchangeable {
        /// The body is beyond a bound.
        too_large: bool,
        /// The fault of the body.
        why: String,
    },
    /// The body cannot be put into the object that the platform has around it.
    Unwrappable(Unwrappable),
    /// The platform answered with a redirect, which is never followed or passed on.
    Redirected,
    /// The platform answered with a status that is none of an answer.
    NoAnswer,
    /// The platform's answer ended without content, and without an error.
    NoContent,
    /// The platform has answered as another model than was asked for, and the key takes none but that.
    AnotherModel {
        /// The model that was asked for.
        asked: Option<HeaderText>,
        /// The one that the answer names.
        served: Option<ModelName>,
    },
    /// The platform sent no event of a stream for longer than its profile allows.
    Silent,
    /// The platform could not be reached, or closed the connection before it answered.
    Unreachable,
}

/// The thing that a request asks for of the accounts of its pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sought {
    /// The operation at its path.
    Path,
    /// This model.
    Model(HeaderText),
    /// The choice of its caller.
    Wished(Wished),
}

/// The account that a caller chose, or the platform of it, as the caller wrote it: no more than is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wished(String);

/// The reason why a body cannot be put into an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unwrappable {
    /// The body is longer or deeper than what is put into an object.
    TooLarge,
    /// The body is no object itself.
    NoObject,
    /// The request names no model, and the platform's object does.
    NoModel,
}

/// The base URL that a client has, and the one that it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeantBase {
    /// The beginning of the URL that was asked for.
    pub sent: String,
    /// The one that leads to a path of the gateway.
    pub meant: String,
}

/// A pool of which no account may be used now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllOut {
    /// The pool.
    pub pool: Id,
    /// Its accounts that speak the path.
    pub out: Vec<Out>,
    /// The seconds until the first is back, where that is known.
    pub retry_after: Option<u32>,
}

/// A client key at one of its limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AtLimit {
    /// The key's name, where it is known.
    pub key: Option<HeaderText>,
    /// The limit.
    pub reached: Reached,
    /// Unix milliseconds.
    pub now: u64,
}

/// An answer to the caller.
#[derive(Debug, PartialEq, Eq)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// Headers beside the status; values are constants or digits.
    pub headers: Vec<(&'static str, String)>,
    /// JSON.
    pub body: String,
}

// === impl Wished ===

impl Wished {
    /// The choice of an account or else of a platform; none where neither was chosen.
    pub(super) fn of(account: Option<&str>, platform: Option<&str>) -> Option<Self> {
        let (kind, name) = match (account, platform) {
            (Some(name), _) => ("account", name),
            (None, Some(name)) => ("account of the platform", name),
            (None, None) => return None,
        };
        let name: String = name.chars().take(MAX_WISHED_CHARS).collect();
        Some(Self(format!("{kind} \"{name}\"")))
    }
}

// === impl Refusal ===

impl Refusal {
    /// The HTTP status.
    pub fn status(&self) -> u16 {
        match self {
            Self::Body(Fault::TooLarge) | Self::Unwrappable(Unwrappable::TooLarge) => 413,
            Self::Untranslatable { too_large, .. } | Self::Unchangeable { too_large, .. } => match too_large {
                true => 413,
                false => 400,
            },
            Self::AmbiguousKey(_)
            | Self::KeyInUrl
            // Claude Code takes a 404 for a wrong model.
            | Self::NeverServed { .. }
            | Self::Unmet { .. }
            | Self::HomesApart
            | Self::TooManyThings
            | Self::NoModel(_)
            | Self::Unwrappable(_)
            | Self::Body(_) => 400,
            Self::NoKey | Self::UnknownKey | Self::KeyExpired(_) => 401,
            Self::Limit(_) | Self::NoRoom(NoRoom::Key { .. } | NoRoom::Others | NoRoom::Connections) => 429,
            Self::NoRoom(NoRoom::TooLarge { .. }) => 413,
            Self::ModelNotAllowed(_)
            | Self::ChoiceNotAllowed
            | Self::NotInPool { .. }
            | Self::ListOfAccount
            | Self::Uncounted => 403,
            Self::UnknownPath(_)
            | Self::ModelNotServed { .. }
            | Self::ModelNotListed(_)
            | Self::NoSuchThing
            | Self::HomeGone(_) => 404,
            Self::Method(_) => 405,
            Self::UnknownCoding => 415,
            Self::Upgrade => 426,
            Self::Redirected
            | Self::NoAnswer
            | Self::NoContent
            | Self::AnotherModel { .. }
            | Self::Unreachable => 502,
            Self::Silent => 504,
            Self::AllOut(all) if all.is_anothers() => 503,
            Self::AllOut(all) | Self::HomeOut(all) if all.retry_after.is_some() => 429,
            Self::NoPool
            | Self::NoAccount { .. }
            | Self::CredentialRefused
            | Self::AllOut(_)
            | Self::HomeOut(_)
            | Self::HomeUnknown
            | Self::NotReady
            | Self::Unconfirmed
            | Self::Withdrawn
            | Self::NoCredential => 503,
        }
    }

    /// Our own code for it: no platform's code starts with `latchkey_`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoKey => "latchkey_no_key",
            Self::AmbiguousKey(_) => "latchkey_ambiguous_key",
            Self::KeyInUrl => "latchkey_key_in_url",
            Self::UnknownKey => "latchkey_unknown_key",
            Self::KeyExpired(_) => "latchkey_key_expired",
            Self::Limit(_) => "latchkey_limit",
            Self::NoRoom(_) => "latchkey_no_room",
            Self::UnknownPath(_) => "latchkey_unknown_path",
            Self::Method(_) => "latchkey_method_not_allowed",
            Self::ModelNotListed(_) => "latchkey_model_not_listed",
            Self::Upgrade => "latchkey_no_upgrade",
            Self::UnknownCoding => "latchkey_unknown_encoding",
            Self::Body(Fault::TooLarge) => "latchkey_body_too_large",
            Self::Body(_) => "latchkey_broken_body",
            Self::NoPool => "latchkey_no_pool",
            Self::NoAccount { .. } | Self::CredentialRefused => "latchkey_no_account",
            Self::AllOut(all) if all.is_anothers() => "latchkey_no_account",
            Self::NeverServed { .. } => "latchkey_path_not_in_pool",
            Self::ModelNotAllowed(_) => "latchkey_model_not_allowed",
            Self::NoModel(_) => "latchkey_no_model",
            Self::ModelNotServed { .. } => "latchkey_model_not_served",
            Self::Unmet { .. } => "latchkey_requirement_not_met",
            Self::ChoiceNotAllowed | Self::NotInPool { .. } => "latchkey_choice_not_allowed",
            Self::AllOut(_) => "latchkey_all_out",
            Self::HomeOut(_) => "latchkey_home_out",
            Self::HomeGone(_) => "latchkey_home_gone",
            Self::HomesApart => "latchkey_homes_apart",
            Self::TooManyThings => "latchkey_too_many_things",
            Self::NoSuchThing => "latchkey_no_such_thing",
            Self::HomeUnknown => "latchkey_home_unknown",
            Self::ListOfAccount => "latchkey_list_of_account",
            Self::Uncounted => "latchkey_uncounted",
            Self::NotReady => "latchkey_not_ready",
            Self::Unconfirmed => "latchkey_unconfirmed",
            Self::Withdrawn => "latchkey_withdrawn",
            Self::NoCredential => "latchkey_no_credential",
            Self::Untranslatable { .. } => "latchkey_untranslatable",
            Self::Unchangeable { .. } | Self::Unwrappable(_) => "latchkey_unchangeable",
            Self::Redirected => "latchkey_platform_redirect",
            Self::NoAnswer => "latchkey_platform_no_answer",
            Self::NoContent => "latchkey_platform_no_content",
            Self::AnotherModel { .. } => "latchkey_another_model",
            Self::Silent => "latchkey_platform_silent",
            Self::Unreachable => "latchkey_platform_unreachable",
        }
    }

    /// The seconds after which a new try makes sense; none where it never does by itself.
    fn retry_after(&self) -> Option<u32> {
        match self {
            Self::NotReady | Self::Withdrawn | Self::NoCredential => Some(1),
            Self::AllOut(all) | Self::HomeOut(all) if all.is_over() => None,
            Self::AllOut(all) | Self::HomeOut(all) => Some(all.retry_after.unwrap_or(5)),
            Self::HomeUnknown => Some(2),
            Self::Limit(limit) => Some(limit.retry_after()),
            Self::NoRoom(NoRoom::Key { .. } | NoRoom::Others | NoRoom::Connections) => Some(2),
            Self::NoContent | Self::Unreachable | Self::Unconfirmed => Some(5),
            // Nobody but a person brings back what there is not, as in `NoAccount`.
            _ => None,
        }
    }

    /// Returns true if the caller's client should send the request again by itself.
    fn should_repeat(&self) -> bool {
        let seconds = self.retry_after();
        seconds.is_some_and(|seconds| seconds <= LONGEST_REPEAT_SECONDS)
    }

    /// The end of a limit that no client is to wait for by itself, in Unix seconds, where it is known.
    fn resets_at(&self) -> Option<u64> {
        let until = match self {
            Self::Limit(limit) => limit.reached.until,
            Self::AllOut(all) | Self::HomeOut(all) => first_back(&all.out),
            _ => None,
        };
        let until = until.filter(|_| !self.should_repeat())?;
        Some(until.div_ceil(1_000))
    }

    /// The answer to a request that was sent on, as far as that is known, with its id.
    pub fn reply_to(&self, sent: Option<&Carried>) -> Reply {
        match sent {
            Some(Carried { dialect, id, .. }) => {
                self.reply(*dialect).with_request_id(*dialect, id.as_ref())
            }
            None => self.reply(Dialect::default()),
        }
    }

    /// The answer in `dialect`.
    pub fn reply(&self, dialect: Dialect) -> Reply {
        let (message, code) = (self.message(), self.code());
        let body = dialect.format().error(&ErrorText {
            status: self.status(),
            message: &message,
            code,
            resets_at: self.resets_at(),
        });
        let mut headers = vec![
            ("content-type", "application/json".to_owned()),
            (ERROR_HEADER, code.to_owned()),
        ];
        // Codex and opencode wait for whatever it says, without a word: the sentence says when.
        if let Some(seconds) = self.retry_after().filter(|_| self.should_repeat()) {
            headers.push(("retry-after", seconds.to_string()));
        }
        headers.push((RETRY_HEADER, self.should_repeat().to_string()));
        if let Self::Method(allowed) = self {
            headers.push(("allow", allowed.clone()));
        }
        if *self == Self::UnknownCoding {
            headers.push(("accept-encoding", decode::ACCEPTED.to_owned()));
        }
        if self.status() == 401 {
            headers.push(("www-authenticate", "Bearer".to_owned()));
        }
        Reply {
            status: self.status(),
            headers,
            body: body.to_string(),
        }
    }
}

/// Finds the time at which the first of these accounts is back, in Unix milliseconds; none where no time is known.
pub(super) fn first_back(out: &[Out]) -> Option<u64> {
    let times = out.iter().filter_map(|out| match out.back {
        Back::At(until) => Some(until),
        Back::WithCredential | Back::Never => None,
    });
    times.min()
}

// === impl Reply ===

impl Reply {
    /// A good answer with this body.
    pub fn json(body: &Value) -> Self {
        Self {
            status: 200,
            headers: vec![("content-type", "application/json".to_owned())],
            body: body.to_string(),
        }
    }

    /// The answer to a probe.
    pub fn alive() -> Self {
        Self::json(&json!({"status": "ok"}))
    }

    /// The answer to a question for the methods of a path.
    pub fn options(allowed: &str) -> Self {
        Self {
            status: 204,
            headers: vec![("allow", format!("{allowed}, OPTIONS"))],
            body: String::new(),
        }
    }

    /// The answer with the request's id, in the header in which the clients of `dialect` look for it.
    #[must_use]
    pub fn with_request_id(mut self, dialect: Dialect, id: Option<&Id>) -> Self {
        let header = dialect.format().request_id_header();
        let id = id.map(|id| (header, id.as_str().to_owned()));
        self.headers.extend(id);
        self
    }

    /// Our own error code; none where the answer is no error.
    pub fn code(&self) -> Option<Reason> {
        let mut headers = self.headers.iter();
        let (_, code) = headers.find(|(name, _)| *name == ERROR_HEADER)?;
        Reason::try_from(code.clone()).ok()
    }
}

#[cfg(test)]
mod tests;
