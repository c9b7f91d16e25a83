//! The sentences that are made of what was found: names, numbers, times.

use super::{
    AllOut, AtLimit, Back, LONGEST_REPEAT_SECONDS, MAX_NAMED, Sought, Unwrappable, Wished,
};
use crate::{
    decode::Fault, header::HeaderText, id::Id, label::ModelName, limit::Reached, verdict::time,
};

/// The end of a message about what only a person can mend.
const SEE_WHY: &str = "The gateway's operator can see why: refresher doctor.";

pub(super) fn credential_refused() -> String {
    format!(
        "The platform refuses the account that the gateway chose, and no other account could serve this request. Your client key is good. {SEE_WHY}"
    )
}

pub(super) fn mebibytes(bytes: u64) -> u64 {
    bytes >> 20
}

/// A name in a message, with a space before it; nothing where there is none.
pub(super) fn named(name: Option<&HeaderText>) -> String {
    name.map_or_else(String::new, |name| format!(" \"{}\"", name.as_str()))
}

/// The headers, in words. Claude Code puts a sentence of its own in the place of each message with
/// the name of Anthropic's header.
pub(super) fn named_headers(headers: &[&'static str]) -> String {
    let words: Vec<&str> = headers
        .iter()
        .map(|header| match *header {
            "x-api-key" => "the header of Anthropic's API key",
            header => header,
        })
        .collect();
    words.join(" and ")
}

/// The sentences about an answer of another model than was asked for.
pub(super) fn another_model(asked: Option<&HeaderText>, served: Option<&ModelName>) -> String {
    let answered = match served {
        Some(served) => format!("The platform answered as the model \"{served}\""),
        None => "The platform's answer does not say, in what the gateway could hold of it, which model it is from".to_owned(),
    };
    format!(
        "{answered}, and this client key or its pool takes only the one that is asked for{}. No account that could be asked serves it now. Ask for another model, or ask the gateway's operator.",
        asked.map_or_else(String::new, |asked| format!(", \"{}\"", asked.as_str()))
    )
}

pub(super) fn never_served(pool: &Id, served: &[String]) -> String {
    let first = served.get(..MAX_NAMED).unwrap_or(served);
    let more = match served.len().saturating_sub(MAX_NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!(
        "No account in the gateway's pool {pool} serves this path. The pool serves: {}{more}.",
        first.join(", ")
    )
}

/// The sentences about a pool of which no account that is in use has what is asked for.
pub(super) fn no_account(pool: &Id, sought: &Sought) -> String {
    let what = match sought {
        Sought::Path => {
            format!("No usable account in the gateway's pool {pool} serves this path.")
        }
        Sought::Model(model) => format!(
            "No usable account in the gateway's pool {pool} serves the model {} on this path, and some of its accounts are out of use. GET /v1/models lists the models that it serves now.",
            model.as_str()
        ),
        Sought::Wished(Wished(wished)) => format!(
            "The gateway's pool {pool} has no usable {wished} for this path: it is out of use, or not in the pool."
        ),
    };
    format!("{what} {SEE_WHY}")
}

/// The sentence about a body that goes into no object of the platform's. The bounds are those of `MAX_WRAPPED_BYTES` and of
/// [`one_object`](crate::text::one_object).
pub(super) fn unwrappable(why: Unwrappable) -> &'static str {
    match why {
        Unwrappable::TooLarge => {
            "The accounts that could serve this request take its body within an object of their platform's own, and only up to 16 MiB and 128 levels. Send less in one request."
        }
        Unwrappable::NoObject => {
            "The account that was to serve this request takes its body within an object of its platform's own, and this body is no object of JSON."
        }
        Unwrappable::NoModel => {
            "The account that was to serve this request takes its body within an object of its platform's own, which names the model, and this request names none."
        }
    }
}

/// The sentence about a body that stands for no bytes.
pub(super) fn broken_body(fault: Fault) -> &'static str {
    match fault {
        Fault::EndsEarly => {
            "The request's body ends before its content-encoding says so. Nothing was sent to a platform. Send all of it."
        }
        Fault::Malformed => {
            "The request's body is not in the format that its content-encoding names, or something else follows. Nothing was sent to a platform. Send it in that format alone, or uncompressed."
        }
        Fault::Checksum => {
            "The request's compressed body was damaged: its content does not have the checksum or length that it says. Nothing was sent to a platform. Send it again."
        }
        Fault::Dictionary => {
            "The request's body is compressed with a dictionary, which the gateway does not have. Compress it without one."
        }
        Fault::Window => {
            "The request's body is compressed with a window of more than 8 MiB. Compress it with a smaller one: any level of zstd up to 19, without --long."
        }
        Fault::TooLarge => {
            "The request's body is larger than 32 MiB, as it came or once it is decompressed. Send less in one request."
        }
    }
}

// === impl AtLimit ===

impl AtLimit {
    /// The seconds until the limit ends, rounded up: a request that comes then is let through, if
    /// no other comes first.
    pub(super) fn retry_after(&self) -> u32 {
        let left = self
            .reached
            .until
            .map(|until| until.saturating_sub(self.now));
        let seconds = left.unwrap_or_default().div_ceil(1_000).max(1);
        u32::try_from(seconds).unwrap_or(u32::MAX)
    }

    pub(super) fn message(&self) -> String {
        let Reached {
            limit,
            allowed,
            until,
        } = self.reached;
        let end = match until {
            Some(until) => format!("at {}", time::to_rfc3339(until)),
            None => "when one of its requests has ended".to_owned(),
        };
        format!(
            "The client key{} has reached the limit that the gateway's operator set for it: {allowed} {}. Try again {end}.",
            named(self.key.as_ref()),
            limit.unit()
        )
    }
}

// === impl AllOut ===

impl AllOut {
    /// Returns true if none of them comes back by itself.
    pub(super) fn is_over(&self) -> bool {
        self.out.iter().all(|out| out.back == Back::Never)
    }

    /// None of them is at a limit: they have ended, or their platforms refuse them.
    pub(super) fn is_anothers(&self) -> bool {
        let mut out = self.out.iter();
        out.all(|out| out.is_refused || out.back == Back::Never)
    }

    pub(super) fn message(&self) -> String {
        let (pool, names) = (&self.pool, self.names());
        let mut end = self.back();
        if self.is_anothers() {
            end = format!("{end} {SEE_WHY}");
        }
        format!("No account in the gateway's pool {pool} can be used now: {names}.{end}")
    }

    /// Says when the first is back, where a client is not to wait for it by itself.
    pub(super) fn back(&self) -> String {
        let seconds = self
            .retry_after
            .filter(|seconds| *seconds > LONGEST_REPEAT_SECONDS);
        seconds.map_or_else(String::new, |seconds| match seconds.div_ceil(60) {
            minutes @ ..120 => format!(" The first is back in {minutes} minutes."),
            minutes => format!(" The first is back in {} hours.", minutes.div_ceil(60)),
        })
    }

    /// The accounts, and why each is out.
    pub(super) fn names(&self) -> String {
        let named: Vec<String> = self
            .out
            .iter()
            .take(MAX_NAMED)
            .map(|out| {
                let name = out.name.as_ref().map(HeaderText::as_str);
                let name = name.unwrap_or(out.account.as_str());
                format!("{name} ({})", out.reason.as_str())
            })
            .collect();
        let more = match self.out.len().saturating_sub(MAX_NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        format!("{}{more}", named.join(", "))
    }
}
