//! The usage of a stream, for which some platforms have to be asked.
//!
//! These report it only then, so the dialect asks ([`Format::asks_usage`](crate::dialect::Format::asks_usage)). The
//! platform sends one more event before `[DONE]`, with the usage and no choices, which is taken out of the answer again:
//! the caller gets what it asked for. (OpenAI also puts `"usage":null` into the other events; that stays.)

use crate::{dialect::Dialect, meter::Meter, snapshot::Endpoint};

/// The largest request body that is looked into, in bytes. Larger ones carry images; there an
/// estimate, which such a body makes a high one, is better than the work.
const MAX_REQUEST_BYTES: usize = 8 * 1024 * 1024;

/// The ask for the usage of a stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum UsageAsk {
    /// The ask is not made.
    #[default]
    NotAsked,
    /// The request's body decides.
    Undecided,
    /// The ask is made, and the event with the usage is taken out of the answer.
    Asked,
}

/// The next step with a request's body.
#[derive(Debug, PartialEq, Eq)]
pub enum Rewrite {
    /// Hold it back until there is more.
    NeedMore,
    /// Let it go on as it is.
    AsItIs,
    /// Send this instead.
    Instead(Vec<u8>),
}

// === impl UsageAsk ===

impl UsageAsk {
    /// The ask of a request at `endpoint`; `length` is its `content-length`.
    pub fn of(endpoint: &Endpoint, length: Option<&[u8]>) -> Self {
        let length = length.map(|digits| std::str::from_utf8(digits).ok()?.parse::<usize>().ok());
        let fits = match length {
            Some(length) => length.is_some_and(|length| length <= MAX_REQUEST_BYTES),
            // It may turn out to be small.
            None => true,
        };
        if endpoint.include_usage && endpoint.dialect.format().asks_usage().is_some() && fits {
            Self::Undecided
        } else {
            Self::NotAsked
        }
    }

    /// Decides about the request's body once `size` bytes of it are there, which `read` gives;
    /// `end`: there are no more. `dialect` is the platform's.
    pub fn on_request(
        &mut self,
        dialect: Dialect,
        size: usize,
        end: bool,
        read: impl FnOnce() -> Vec<u8>,
    ) -> Rewrite {
        if *self != Self::Undecided {
            return Rewrite::AsItIs;
        }
        if size <= MAX_REQUEST_BYTES && !end {
            return Rewrite::NeedMore;
        }
        let asking = (size <= MAX_REQUEST_BYTES).then(read);
        let ask = dialect.format().asks_usage();
        match asking.and_then(|body| ask?(&body)) {
            Some(body) => {
                *self = Self::Asked;
                Rewrite::Instead(body)
            }
            None => {
                *self = Self::NotAsked;
                Rewrite::AsItIs
            }
        }
    }

    /// Returns true if the answer gets another length than the platform says.
    pub fn changes_answer(self) -> bool {
        self == Self::Asked
    }

    /// Returns true if this event of the answer is not for the caller. `meter` has read all of it but its end.
    pub(super) fn takes_out(self, meter: &Meter) -> bool {
        self == Self::Asked && meter.event_is_usage_alone()
    }

    /// Returns true if this event of the answer may turn out not to be for the caller. `meter` has read what has come
    /// of it.
    pub(super) fn may_take_out(self, meter: &Meter) -> bool {
        self == Self::Asked && meter.event_may_be_usage_alone()
    }
}

#[cfg(test)]
mod tests;
