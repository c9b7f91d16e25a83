//! An answer that is held back until it can be judged.

use super::{
    forwarding::Forwarding,
    served_model::{Another, ServedModel},
};
use crate::{
    budget::Slices,
    deadline::Deadline,
    dialect::MAX_ANSWER_BYTES,
    verdict::{Beginning, Look},
};

/// The milliseconds for which an error is held that could tell more than it has, from its headers on.
/// Errors come in one piece.
pub const JUDGE_MS: u64 = 2_000;

/// The most bytes of a good answer that are held back: of events that echo the request, two or three.
pub const MAX_ANNOUNCED_BYTES: usize = 1024 * 1024;

/// The most bytes of a good answer in one piece that are held back until it names its model, which Google's do at their
/// end: as much as of an answer that is translated whole.
pub const MAX_UNNAMED_BYTES: usize = MAX_ANSWER_BYTES;

/// The memory of a held answer's slices that does not count, in bytes: the answer of a few events takes no more.
const MAX_USUAL_SLICES: u64 = 64 * 1024;

/// An answer that is held back.
#[derive(Debug)]
pub struct Holding {
    status: u16,
    size: usize,
    /// The slices that it takes in Envoy.
    slices: Slices,
    /// The milliseconds for which a good answer is held from its first byte on. Before its first
    /// byte a model may think for minutes.
    patience: u64,
    /// The time at which it is judged by what there is; none before a good one's first byte.
    until: Option<Deadline>,
    /// The beginning of a good one.
    beginning: Beginning,
    /// The reader of the model of a good one, which goes on only once it is the one that was asked for.
    served: Option<ServedModel>,
}

/// The part of an answer that has come when it is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Came {
    /// A part: there may be more.
    Some,
    /// A part by which it is judged, though there may be more.
    Enough,
    /// All of it.
    All,
}

// === impl Holding ===

impl Holding {
    /// An answer of this dialect and status, of which the headers came at `now`, in Unix milliseconds.
    /// A good one, of which `beginning` is to tell more, is held for `patience` milliseconds from its first
    /// byte on.
    pub fn new(status: u16, beginning: Beginning, patience: u64, now: u64) -> Self {
        let mut held = Self {
            status,
            size: 0,
            slices: Slices::default(),
            patience,
            until: None,
            beginning,
            served: None,
        };
        if !held.is_good() {
            held.until = Some(Deadline::after(now, JUDGE_MS));
        }
        held
    }

    /// Lets it go on only as the model that was asked for, however long it takes to tell that.
    #[must_use]
    pub fn served_as(mut self, served: Option<ServedModel>) -> Self {
        self.served = served;
        self
    }

    /// Returns true if the status says no error.
    pub fn is_good(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The status.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The bytes of the body that are held.
    pub fn size(&self) -> usize {
        self.size
    }

    /// The bytes that these take: where it came in more than a few pieces, those of their slices.
    pub fn taken(&self) -> usize {
        match self.slices.taken() {
            taken @ 0..=MAX_USUAL_SLICES => {
                usize::try_from(taken).unwrap_or(usize::MAX).min(self.size)
            }
            taken => usize::try_from(taken).unwrap_or(usize::MAX),
        }
    }

    /// Looks at the next bytes of a good answer's body, of which so much is held at `now`.
    ///
    /// # Errors
    /// It is another model's than was asked for.
    pub fn look(&mut self, new: &[u8], size: usize, came: Came, now: u64) -> Result<Look, Another> {
        self.grows(size, now);
        let (is_all, is_much) = (came == Came::All, size >= MAX_ANNOUNCED_BYTES);
        let is_due = came == Came::Enough || is_much || self.patience == 0;
        let mut looked = self.beginning.look(new, is_all);
        // Time alone does not tell the model.
        let mut may_go = size > 0;
        if let Some(served) = &mut self.served {
            served.read(new);
            let is_most = match served.is_json() {
                true => size >= MAX_UNNAMED_BYTES,
                false => is_much,
            };
            looked = served.look(looked, is_all || is_most)?;
            may_go &= served.is_known();
        }
        Ok(match looked {
            Look::NeedMore if is_due && may_go => Look::Fine,
            looked => looked,
        })
    }

    /// Judges the answer by what is held, where no more of it may be.
    ///
    /// # Errors
    /// It is another model's than was asked for.
    pub fn look_no_more(&self) -> Result<Look, Another> {
        match &self.served {
            Some(served) => served.look(Look::Fine, true),
            None => Ok(Look::Fine),
        }
    }

    /// Returns true if the answer is one JSON text and its model matters.
    pub fn is_json(&self) -> bool {
        self.served.as_ref().is_some_and(ServedModel::is_json)
    }

    /// The answer as far as it was read, where its model matters.
    pub fn into_answer(self) -> Option<Forwarding> {
        self.served.map(ServedModel::into_answer)
    }

    /// Notes that so much of the body is held at `now`.
    pub fn grows(&mut self, size: usize, now: u64) {
        let piece = size.saturating_sub(self.size);
        self.slices.push(u64::try_from(piece).unwrap_or(u64::MAX));
        self.size = size;
        if size > 0 {
            self.until
                .get_or_insert(Deadline::after(now, self.patience));
        }
    }

    /// Returns true if the answer will be due some time, though nothing more comes.
    pub fn has_end(&self) -> bool {
        self.until.is_some()
    }

    /// Returns true if the answer has to be judged now, by what there is.
    pub fn is_due(&self, now: u64) -> bool {
        self.until.is_some_and(|until| until.is_due(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::Dialect;

    const NOW: u64 = 1_790_000_000_000;

    fn beginning() -> Beginning {
        Beginning::new(Dialect::Responses, true)
    }

    fn held(status: u16) -> Holding {
        Holding::new(status, beginning(), 3_000, NOW)
    }

    #[test]
    fn an_error_is_held_for_two_seconds_from_its_headers_on() {
        let mut held = held(429);
        assert!(held.has_end());
        held.grows(9, NOW + 1_500);
        assert!(!held.is_due(NOW + JUDGE_MS - 1) && held.is_due(NOW + JUDGE_MS));
    }

    #[test]
    fn a_clock_that_is_set_back_holds_nothing_longer() {
        let held = held(429);
        assert!(!held.is_due(NOW) && held.is_due(NOW - 1));
    }

    #[test]
    fn a_good_answer_is_held_from_its_first_byte_on() {
        let mut held = held(200);
        held.grows(0, NOW + 1);
        assert!(!held.has_end() && !held.is_due(u64::MAX));
        held.grows(3, NOW + 60_000);
        held.grows(4, NOW + 61_000);
        assert!(!held.is_due(NOW + 62_999) && held.is_due(NOW + 63_000));
    }

    /// One in small pieces takes many times its bytes in Envoy.
    #[test]
    fn what_is_held_counts_as_what_it_takes() {
        let mut few = held(200);
        for piece in 1..=4 {
            few.grows(600 * piece, NOW);
            assert_eq!(few.taken(), 600 * piece);
        }
        few.grows(600 * 5, NOW);
        assert_eq!(few.taken(), 5 * 16 * 1024);
        let mut many = held(200);
        (1..=1_700).for_each(|piece| many.grows(600 * piece, NOW));
        assert!(many.size() < MAX_ANNOUNCED_BYTES);
        assert_eq!(many.taken(), 1_700 * 16 * 1024);
        let mut whole = held(200);
        whole.grows(65 * 1024, NOW);
        assert_eq!(whole.taken(), 80 * 1024);
    }

    #[test]
    fn what_only_announces_is_held_within_time_and_memory() {
        let mut held = held(200);
        let ping = b"event: ping\ndata: {}\n\n";
        assert_eq!(held.look(ping, 22, Came::Some, NOW), Ok(Look::NeedMore));
        let much = MAX_ANNOUNCED_BYTES;
        assert_eq!(
            held.look(ping, much - 1, Came::Some, NOW),
            Ok(Look::NeedMore)
        );
        assert_eq!(held.look(ping, much, Came::Some, NOW), Ok(Look::Fine));
        let mut held = self::held(200);
        assert_eq!(held.look(b"", 0, Came::Enough, NOW), Ok(Look::NeedMore));
        assert_eq!(held.look(ping, 22, Came::Enough, NOW), Ok(Look::Fine));
        let mut impatient = Holding::new(200, beginning(), 0, NOW);
        assert_eq!(impatient.look(ping, 22, Came::Some, NOW), Ok(Look::Fine));
    }
}
