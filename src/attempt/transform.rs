//! The changes that an attempt makes in a request's body, and so in its answer.
//!
//! Some platforms report usage in a stream only when asked. [`Transform::AskUsage`] asks them
//! ([`include_usage`]). The platform then sends one more event before `[DONE]`, with the usage and
//! no choices, which is taken out of the answer again: the caller gets what it asked for. (OpenAI
//! also puts `"usage":null` into the other events; that stays.)

mod include_usage;

pub use self::include_usage::{MAX_REQUEST_BYTES, ask};
use crate::{meter::Meter, snapshot::Endpoint};

/// A change of a request's body and of its answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Transform {
    /// Every byte goes on as it came.
    #[default]
    Nothing,
    /// The platform may have to be asked for usage: the request's body decides.
    MayAskUsage,
    /// The platform is asked for usage, and the event with it is taken out of the answer.
    AskUsage,
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

// === impl Transform ===

impl Transform {
    /// The transform of a request at `endpoint`; `length` is its `content-length`.
    pub fn of(endpoint: &Endpoint, length: Option<&[u8]>) -> Self {
        let length = length.map(|digits| std::str::from_utf8(digits).ok()?.parse::<usize>().ok());
        let fits = match length {
            Some(length) => length.is_some_and(|length| length <= MAX_REQUEST_BYTES),
            // It may turn out to be small.
            None => true,
        };
        if endpoint.include_usage && endpoint.dialect.format().has_usage_option() && fits {
            Self::MayAskUsage
        } else {
            Self::Nothing
        }
    }

    /// Decides about the request's body once `size` bytes of it are there, which `read` gives;
    /// `end`: there are no more.
    pub fn on_request(
        &mut self,
        size: usize,
        end: bool,
        read: impl FnOnce() -> Vec<u8>,
    ) -> Rewrite {
        if *self != Self::MayAskUsage {
            return Rewrite::AsItIs;
        }
        if size <= MAX_REQUEST_BYTES && !end {
            return Rewrite::NeedMore;
        }
        let asking = (size <= MAX_REQUEST_BYTES).then(read);
        match asking.and_then(|body| ask(&body)) {
            Some(body) => {
                *self = Self::AskUsage;
                Rewrite::Instead(body)
            }
            None => {
                *self = Self::Nothing;
                Rewrite::AsItIs
            }
        }
    }

    /// Tells a transform by which the answer's length is not what the platform says.
    pub fn changes_answer(self) -> bool {
        self == Self::AskUsage
    }

    /// Tells an event of the answer that is not for the caller. `meter` has read all of it but
    /// its end.
    pub(super) fn takes_out(self, meter: &Meter) -> bool {
        self == Self::AskUsage && meter.event_is_usage_alone()
    }

    /// Tells an event of the answer that may turn out not to be for the caller. `meter` has read
    /// what has come of it.
    pub(super) fn may_take_out(self, meter: &Meter) -> bool {
        self == Self::AskUsage && meter.event_may_be_usage_alone()
    }
}

#[cfg(test)]
mod tests;
