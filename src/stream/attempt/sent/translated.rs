//! A try at a platform that speaks another dialect than the caller.

use std::collections::BTreeMap;

use crate::{
    attempt::{ESTIMATE_HEADER, answer::Mask},
    dialect::{
        About, AnswerTranslation, Demands, Dialect, MAX_REQUEST_BYTES, Target, Written,
        neutral::{Failure, Refused},
    },
    gate::{Refusal, Reply},
    hash::hash64,
    header::HeaderText,
    host::{Side, Stream},
    request::carried::Carried,
    snapshot::{Account, Endpoint, Requirement},
    text::tree::Text,
    verdict::ErrorBody,
};

/// The header that names what of a request was left out in its translation, and may change the answer.
const DROPPED_HEADER: &str = "x-latchkey-dropped";

/// The longest path of a member that a refusal names, in bytes.
const MAX_PATH_BYTES: usize = 256;

/// The most of a reason that a refusal has, in bytes. It may quote the caller.
const MAX_WHY_BYTES: usize = 512;

/// The translation of one try.
#[derive(Debug)]
pub(in crate::stream) struct Translated {
    endpoint: Endpoint,
    /// The model, as the platform names it.
    model: Option<HeaderText>,
    /// The demands of the operator.
    demands: Demands,
    /// The platform is not asked: the tokens of the request are estimated.
    estimates: bool,
    streams_only: bool,
    /// The reader of opaque state, the account or the platform, as a hash.
    owner: String,
    /// The request's wishes for its answer, once it was translated.
    asked: Option<Asked>,
}

/// A request's wishes for its answer.
#[derive(Debug)]
struct Asked {
    stream: bool,
    left_out: Vec<&'static str>,
    about: About,
    renamed: BTreeMap<String, String>,
}

/// The result of translating a request.
#[derive(Debug)]
pub(super) enum Became {
    /// Nothing before it is whole.
    Nothing,
    /// A body for the platform.
    Body(Vec<u8>),
    /// The body of an answer, which is an estimate.
    Estimate(String),
}

/// The answer that goes to the caller in place of the platform's.
#[derive(Debug)]
pub(in crate::stream) enum Answer {
    /// Its translation.
    Good(Box<AnswerTranslation>),
    /// An error, whole; none once it has gone on.
    Error(Option<Vec<u8>>),
}

/// The part of an answer that goes on to the caller.
pub(in crate::stream) enum GoesOn {
    /// These bytes.
    Bytes(Vec<u8>),
    /// Nothing yet, and the headers stay here too.
    Nothing,
    /// These bytes, which are all, with the headers; and this status, if it is another one.
    All(Option<u16>, Vec<u8>),
}

// === impl Translated ===

impl Translated {
    /// A try of this at this endpoint, as this account.
    pub(super) fn of(
        carried: &Carried,
        endpoint: &Endpoint,
        account: &Account,
        estimates: bool,
    ) -> Self {
        let account_id = match endpoint.dialect.state_is_the_platforms() {
            true => "",
            false => account.id.as_str(),
        };
        let parts = [account.platform.as_str().as_bytes(), account_id.as_bytes()];
        Self {
            owner: format!("{:016x}", hash64(&parts)),
            endpoint: endpoint.clone(),
            model: carried.model_at(account),
            demands: carried.demands_at(account),
            estimates,
            streams_only: endpoint.requires.contains(&Requirement::Stream),
            asked: None,
        }
    }

    /// Translates the request that its caller sent to `asked_at`, of whose body there are `size` bytes; none before it
    /// is whole. `now`: in Unix milliseconds.
    pub(super) fn request(
        &mut self,
        carried: &Carried,
        asked_at: &str,
        size: usize,
        end: bool,
        now: u64,
        stream: &impl Stream,
    ) -> Result<Became, Refusal> {
        if size > MAX_REQUEST_BYTES {
            let most = MAX_REQUEST_BYTES
                .checked_div(1024 * 1024)
                .unwrap_or_default();
            return Err(Refusal::Untranslatable {
                too_large: true,
                why: format!("it is larger than {most} MiB"),
            });
        }
        if !end {
            return Ok(Became::Nothing);
        }
        let body = stream.body(Side::Request, 0, size);
        if self.estimates {
            let estimate = carried.dialect.estimate(&body);
            let estimate = estimate.map_err(|refused| refusal(&refused))?;
            return Ok(Became::Estimate(estimate.unwrap_or_default()));
        }
        let names = [&self.model, &carried.model];
        let names @ [model, _] = names.map(|model| model.as_ref().map_or("", HeaderText::as_str));
        let target = Target {
            model: Text::of(model),
            refuses: &self.endpoint.refuses,
            accent: &self.endpoint.accent(&names),
            streams_only: self.streams_only,
            asks_usage: self.endpoint.include_usage,
            owner: &self.owner,
            demands: self.demands,
            asked_at,
        };
        let created = now.checked_div(1_000).unwrap_or_default();
        let (caller, platform) = (carried.dialect, self.endpoint.dialect);
        let made = match self.endpoint.counts() {
            true => caller.translate_count(platform, &body, &target),
            false => caller.translate_request(platform, &body, &target, created),
        };
        let made = made.map_err(|refused| refusal(&refused))?;
        self.asked = Some(Asked {
            stream: made.stream,
            left_out: made.left_out,
            about: made.about,
            renamed: made.renamed,
        });
        Ok(Became::Body(made.body))
    }

    /// Returns true if the request asked for a stream.
    pub(super) fn wants_stream(&self) -> bool {
        self.asked.as_ref().is_some_and(|asked| asked.stream)
    }

    /// The answer that the caller gets, which is an `error` of this `status` or none; its headers are put right.
    pub(in crate::stream) fn answer(
        &self,
        caller: Dialect,
        error: Option<&ErrorBody>,
        status: u16,
        mask: &Mask,
        stream: &mut impl Stream,
    ) -> Option<Answer> {
        let asked = self.asked.as_ref()?;
        let as_stream = asked.stream && error.is_none();
        let about = asked.about.clone();
        let (owner, renamed) = (&*self.owner, asked.renamed.clone());
        let platform = self.endpoint.dialect;
        let translation = match self.endpoint.counts() {
            true => AnswerTranslation::of_count(platform, caller),
            false => AnswerTranslation::new(platform, caller, as_stream, about, owner, renamed),
        }?;
        let kind: &[u8] = match as_stream && !asked.about.as_list {
            true => b"text/event-stream",
            false => b"application/json",
        };
        stream.set_header(Side::Answer, "content-type", Some(kind));
        if !asked.left_out.is_empty() {
            let names = asked.left_out.join(", ");
            stream.set_header(Side::Answer, DROPPED_HEADER, Some(names.as_bytes()));
        }
        let Some(error) = error else {
            return Some(Answer::Good(Box::new(translation)));
        };
        let told = caller.status_of(status).to_string();
        stream.set_header(Side::Answer, ":status", Some(told.as_bytes()));
        let failure = Failure::told(status, error.message(), error.codes());
        let body = translation.error(&failure);
        let body = mask.masked(&body).unwrap_or(body);
        Some(Answer::Error(Some(body)))
    }
}

/// An answer that is estimated, marked as that.
pub(super) fn estimate(body: String) -> Reply {
    let headers = [
        ("content-type", "application/json"),
        (ESTIMATE_HEADER, "tokens"),
    ];
    Reply {
        status: 200,
        headers: headers.map(|(name, value)| (name, value.to_owned())).into(),
        body,
    }
}

/// The refusal of a request that is not translated.
fn refusal(refused: &Refused) -> Refusal {
    let Refused {
        path,
        why,
        too_large,
    } = refused;
    let path = path.get(..path.floor_char_boundary(MAX_PATH_BYTES));
    let why = why.get(..why.floor_char_boundary(MAX_WHY_BYTES));
    let why = match (path.unwrap_or_default(), why.unwrap_or_default()) {
        ("", why) => why.to_owned(),
        (path, why) => format!("{path}: {why}"),
    };
    Refusal::Untranslatable {
        too_large: *too_large,
        why,
    }
}

// === impl Answer ===

impl Answer {
    /// Returns true if the answer is kept until it is whole.
    pub(in crate::stream) fn is_kept(&self) -> bool {
        matches!(self, Self::Good(translation) if translation.is_kept())
    }

    /// Takes the next bytes of the platform's answer; `end`: they are the last. Ends the answer where
    /// there is no room for what it `holds` of it.
    pub(in crate::stream) fn on_body(
        &mut self,
        bytes: &[u8],
        end: bool,
        holds: impl FnOnce(usize) -> bool,
    ) -> GoesOn {
        let translation = match self {
            Self::Error(body) => return GoesOn::Bytes(body.take().unwrap_or_default()),
            Self::Good(translation) => translation,
        };
        let written = translation.on_body(bytes, end);
        let written = match holds(translation.held_bytes()) {
            true => written,
            false => translation.fail(Failure::no_room()),
        };
        match written {
            Written::Stream(bytes) => GoesOn::Bytes(bytes),
            Written::NotYet => GoesOn::Nothing,
            Written::Nothing => GoesOn::Bytes(Vec::new()),
            Written::Whole(body) => GoesOn::All(None, body),
            Written::Failed(status, body) => GoesOn::All(Some(status), body),
        }
    }
}
