//! The requirements of platforms that a request does not meet.

use super::peek::Facts;
use crate::snapshot::{Requirement, wrapper::MAX_WRAPPED_BYTES};

/// The requirements of platforms that a request does not meet. A request of which that is not known
/// lacks nothing: the platform will say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lacks {
    /// `"stream": true`
    pub stream: bool,
    /// `"store": false`
    pub store_false: bool,
    /// The requirement that nothing says `"background": true`.
    pub foreground: bool,
    /// The requirement that it fits into an object of the platform's: it has [`MAX_WRAPPED_BYTES`] at most.
    pub small: bool,
}

// === impl Lacks ===

impl Lacks {
    /// Finds what a request lacks by what is known of its body.
    pub fn of(facts: &Facts) -> Self {
        let lacks = |fact: Option<bool>, asked| match fact {
            Some(value) => value != asked,
            None => facts.whole,
        };
        Self {
            stream: lacks(facts.stream, true),
            store_false: lacks(facts.store, false),
            foreground: facts.background,
            small: facts.size > MAX_WRAPPED_BYTES,
        }
    }

    /// Returns true if the request does not meet `requirement`.
    pub fn includes(self, requirement: Requirement) -> bool {
        match requirement {
            Requirement::Stream => self.stream,
            Requirement::StoreFalse => self.store_false,
            Requirement::Foreground => self.foreground,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_lacks_what_it_is_known_not_to_have() {
        let lacks = |stream, store, whole| {
            let facts = Facts {
                stream,
                store,
                whole,
                ..Facts::default()
            };
            let lacks = Lacks::of(&facts);
            assert!(!lacks.foreground);
            (lacks.stream, lacks.store_false)
        };
        assert_eq!(lacks(Some(true), Some(false), true), (false, false));
        assert_eq!(lacks(Some(false), Some(true), false), (true, true));
        assert_eq!(lacks(None, None, true), (true, true));
        assert_eq!(lacks(None, None, false), (false, false), "nobody knows");
        let background = Facts {
            background: true,
            ..Facts::default()
        };
        assert!(Lacks::of(&background).foreground);
        let of_size = |size| {
            let facts = Facts {
                size,
                ..Facts::default()
            };
            Lacks::of(&facts).small
        };
        assert!(!of_size(16 << 20) && of_size((16 << 20) + 1));
    }
}
