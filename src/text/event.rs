//! One event of a stream, put together from its pieces.

use super::sse::Piece;

/// The most bytes that are kept of an event. Those that matter whole, errors and announcements,
/// are below 4 KiB; a larger one is as good as its beginning.
pub const MAX_EVENT_BYTES: usize = 64 * 1024;

/// An event, as far as its pieces have come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Event {
    name: Vec<u8>,
    data: Vec<u8>,
    comment: bool,
}

// === impl Event ===

impl Event {
    /// Takes in the next piece. The end of an event changes nothing: [`Self::clear`] begins the
    /// next one.
    pub fn take(&mut self, token: &Piece<'_>) {
        let room = MAX_EVENT_BYTES
            .saturating_sub(self.name.len())
            .saturating_sub(self.data.len());
        match token {
            Piece::Name { piece, first } => {
                if *first {
                    self.name.clear();
                }
                self.name.extend_from_slice(beginning(piece, room));
            }
            Piece::Data(piece) => self.data.extend_from_slice(beginning(piece, room)),
            Piece::Comment => self.comment = true,
            Piece::End | Piece::Blank => {}
        }
    }

    /// Begins the next event, in the same memory.
    pub fn clear(&mut self) {
        self.name.clear();
        self.data.clear();
        self.comment = false;
    }

    /// The value of the last `event` field.
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// The values of the `data` fields, a line each.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// Tells a comment without an event from nothing.
    pub fn has_comment(&self) -> bool {
        self.comment
    }
}

/// At most `most` bytes from the front.
fn beginning(bytes: &[u8], most: usize) -> &[u8] {
    bytes.get(..most).unwrap_or(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_bounded() {
        let mut event = Event::default();
        for _ in 0..5 {
            event.take(&Piece::Name {
                piece: &[b'x'; 10_000],
                first: false,
            });
            event.take(&Piece::Data(&[b'x'; 10_000]));
        }
        assert_eq!(event.name().len() + event.data().len(), MAX_EVENT_BYTES);
        event.clear();
        assert_eq!(event, Event::default());
    }
}
