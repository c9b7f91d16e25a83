//! The sentences for the caller.

use std::borrow::Cow;

use super::{
    MeantBase, Refusal, Wished,
    words::{
        another_model, broken_body, credential_refused, mebibytes, named, named_headers,
        never_served, no_account, unwrappable,
    },
};
use crate::{budget::NoRoom, request::things::MAX_THINGS, snapshot::Requirement};

impl Refusal {
    /// The sentences for the caller: what happened and what to do.
    pub fn message(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::NoKey => {
                "No client key. Send the gateway's key as Authorization: Bearer, or where your client sends an API key."
            }
            Self::AmbiguousKey(headers) => {
                return Cow::Owned(format!(
                    "Expected one client key of the gateway and found several different ones, in {}. Send one of them only.",
                    named_headers(headers)
                ));
            }
            Self::KeyInUrl => {
                "The URL seems to hold a key, which would end up in logs. Send the gateway's key as Authorization: Bearer."
            }
            Self::UnknownKey => {
                "This client key is unknown or revoked. Ask the gateway's operator for a new one."
            }
            Self::KeyExpired(name) => {
                return Cow::Owned(format!(
                    "The client key{} has expired. Ask the gateway's operator for a new key, or to extend this one.",
                    named(name.as_ref())
                ));
            }
            Self::Limit(limit) => return Cow::Owned(limit.message()),
            Self::NoRoom(NoRoom::Key { most }) => {
                return Cow::Owned(format!(
                    "The requests of this client key hold as much of the gateway's memory as those of one key may: {} MiB. Try again when some of them have ended.",
                    mebibytes(*most)
                ));
            }
            Self::NoRoom(NoRoom::Others) => {
                "The gateway has no memory left for requests of this client key: the rest is kept for other keys. Try again when some requests have ended."
            }
            Self::NoRoom(NoRoom::Connections) => {
                "Callers with this client key keep more connections open to the gateway than those of one key may, and requests on such a connection were broken off. This connection is closed: send the request again on another one, and use fewer of them."
            }
            Self::NoRoom(NoRoom::TooLarge { most }) => {
                return Cow::Owned(format!(
                    "This request is larger than what the requests of one client key may hold of the gateway's memory: {} MiB. The gateway's operator can allow more.",
                    mebibytes(*most)
                ));
            }
            Self::UnknownPath(None) => {
                "The gateway does not serve this path. Clients of OpenAI need a base URL that ends in /v1, Claude Code and the SDKs of Anthropic one without a path."
            }
            Self::UnknownPath(Some(MeantBase { sent, meant })) if sent == meant => {
                "No platform of the gateway serves this path."
            }
            Self::UnknownPath(Some(MeantBase { sent, meant })) => {
                return Cow::Owned(format!(
                    "The gateway does not serve this path. Give your client the base URL {meant} in place of {sent}."
                ));
            }
            Self::Method(allowed) => {
                return Cow::Owned(format!(
                    "The gateway does not serve this path with this method. It takes: {allowed}."
                ));
            }
            Self::ModelNotListed(model) => {
                return Cow::Owned(format!(
                    "This client key and its pool have no model{}. GET /v1/models lists those that they have.",
                    named(model.as_ref())
                ));
            }
            Self::Upgrade => "The gateway does not speak WebSocket. Use plain HTTP.",
            Self::UnknownCoding => {
                "The gateway reads bodies that are uncompressed, or compressed once with gzip or zstd. Send it in one of these forms."
            }
            Self::Body(fault) => broken_body(*fault),
            Self::NoPool => {
                "The pool of this client key no longer exists. Ask the gateway's operator to give the key another one."
            }
            Self::NoAccount { pool, sought } => return Cow::Owned(no_account(pool, sought)),
            Self::CredentialRefused => return Cow::Owned(credential_refused()),
            Self::NeverServed { pool, served } => {
                return Cow::Owned(never_served(pool, served));
            }
            Self::ModelNotAllowed(model) => {
                return Cow::Owned(match model {
                    Some(model) => format!(
                        "This client key may not use the model {}. GET /v1/models lists the models that it may use.",
                        model.as_str()
                    ),
                    None => "This client key may use certain models only, and the request does not name exactly one model. GET /v1/models lists the models that it may use.".to_owned(),
                });
            }
            Self::NoModel(pool) => {
                let who = match pool {
                    Some(pool) => format!("The accounts in the gateway's pool {pool} serve"),
                    None => "This client key may use".to_owned(),
                };
                return Cow::Owned(format!(
                    "{who} certain models only, and the request names no model that the gateway could read. Name one in a body of JSON. GET /v1/models lists them."
                ));
            }
            Self::ModelNotServed { model, pool, of } => {
                let model = model.as_str();
                return Cow::Owned(match of {
                    Some(Wished(of)) => format!(
                        "The {of} in the gateway's pool {pool} does not serve the model {model} on this path. Choose another one, or none."
                    ),
                    None => format!(
                        "No account in the gateway's pool {pool} serves the model {model} on this path. GET /v1/models lists the models that the pool serves."
                    ),
                });
            }
            Self::Unmet { pool, requirements } => {
                let members: Vec<_> = requirements.iter().map(Requirement::member).collect();
                let reasons = requirements.iter().filter_map(Requirement::reason);
                let reasons: String = reasons.flat_map(|reason| [" ", reason]).collect();
                return Cow::Owned(format!(
                    "The accounts in the gateway's pool {pool} accept a request on this path only with {}.{reasons}",
                    members.join(" and ")
                ));
            }
            Self::ChoiceNotAllowed => {
                "This client key may not choose that account, platform or pool, or its pool has no such account for this path. The gateway's operator can allow the choice."
            }
            Self::NotInPool {
                pool,
                wished: Wished(wished),
            } => {
                return Cow::Owned(format!(
                    "The gateway's pool {pool} has no {wished} for this path. Choose another one, or none."
                ));
            }
            Self::AllOut(all) => return Cow::Owned(all.message()),
            Self::HomeOut(all) => {
                return Cow::Owned(format!(
                    "This request continues what one account holds, and that account cannot be used now: {}.{} Wait for it, or begin anew.",
                    all.names(),
                    all.back()
                ));
            }
            Self::HomeGone(pool) => {
                return Cow::Owned(format!(
                    "The account that holds what this request continues is not in the gateway's pool {pool} any more. Begin anew, or ask the gateway's operator."
                ));
            }
            Self::HomesApart => {
                "This request names files or other things that are in different accounts, and no account has all of them. Make them again, one right after the other, or ask the gateway's operator for a pool that keeps a key's things together (policy sticky)."
            }
            Self::TooManyThings => {
                return Cow::Owned(format!(
                    "This request names more than {MAX_THINGS} files or other things by their ids, which is more than the gateway looks for. Name them in several requests."
                ));
            }
            Self::NoSuchThing => {
                "The gateway knows nothing with this id that this client key made: it may be too old, or another key's."
            }
            Self::HomeUnknown => {
                "The gateway could not find out which account has what this request names: its refresher does not answer. Try again."
            }
            Self::ListOfAccount => {
                "This list shows all that an account holds, whoever made it, so it is for client keys that may choose their account: name one in x-latchkey-account."
            }
            Self::Uncounted => {
                "This client key has limits of tokens, a list of models, or a rule on effort or service tier, and the gateway does not see what a batch generates later. Ask for answers one by one, or ask the gateway's operator for a key without these."
            }
            Self::NotReady => {
                "The gateway is starting: it has no accounts or limits from its refresher yet. Try again. If that does not help, its operator should check that the refresher is running."
            }
            Self::Unconfirmed => {
                "The gateway has not heard from its refresher for longer than its operator allows, so it does not know who may still use it. Its operator should start the refresher."
            }
            Self::Withdrawn => {
                "The account, or what this client key may use, was changed while this request was under way. Send it again."
            }
            Self::NoCredential => {
                "The account that was chosen for this request is gone. Nothing was sent to the platform. Try again."
            }
            Self::Untranslatable { why, .. } => {
                return Cow::Owned(format!(
                    "The accounts of this key's pool speak another dialect, and this request cannot be translated into it: {why}."
                ));
            }
            Self::Unchangeable { why, .. } => {
                return Cow::Owned(format!(
                    "The gateway has to set the model, the effort or the service tier in this request's body, and cannot: {why}."
                ));
            }
            Self::Unwrappable(why) => unwrappable(*why),
            Self::Redirected => {
                "The platform answered with a redirect. The gateway neither follows redirects nor forwards them."
            }
            Self::NoAnswer => {
                "The platform answered with a status that is neither a success nor an error. The gateway does not forward that."
            }
            Self::NoContent => {
                "The platform answered with success, and its answer ended without content and without an error. Try again."
            }
            Self::AnotherModel { asked, served } => {
                return Cow::Owned(another_model(asked.as_ref(), served.as_ref()));
            }
            Self::Silent => {
                "The platform took the request and sent nothing of its stream for longer than the gateway waits. It may have worked on it, and charge for that."
            }
            Self::Unreachable => {
                "The platform could not be reached, or closed the connection before it answered."
            }
        })
    }
}
