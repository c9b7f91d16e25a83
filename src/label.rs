//! Short text that others choose and that is shown: on a terminal, in a log line, as a label of
//! Prometheus.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::newtype::{checked_str, checked_text};

/// 1 to `MAX` of visible ASCII and spaces. Nothing in it moves a cursor, ends a line or turns the
/// direction of writing.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Label<const MAX: usize>(Arc<str>);

/// The name of a model: the longest that are in use have 100.
pub type ModelName = Label<256>;

/// The name of a window of a quota, like `5h`.
pub type WindowName = Label<64>;

/// A text that is not a [`Label`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidLabel {
    /// The most bytes that it may have.
    pub most: usize,
}

checked_text! {
    Label<MAX>, InvalidLabel;
}

checked_str! {
    Label<MAX>, InvalidLabel;
}

// === impl Label ===

impl<const MAX: usize> Label<MAX> {
    fn check(text: &str) -> Result<(), InvalidLabel> {
        let fits = (1..=MAX).contains(&text.len());
        if fits && text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            Ok(())
        } else {
            Err(InvalidLabel { most: MAX })
        }
    }
}

impl<const MAX: usize> fmt::Display for Label<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl InvalidLabel ===

impl fmt::Display for InvalidLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "expected 1 to {} visible ASCII characters and spaces",
            self.most
        )
    }
}

impl std::error::Error for InvalidLabel {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_short_visible_text_is_a_label() {
        for good in ["5h", "a b", &"x".repeat(64)] {
            assert_eq!(WindowName::try_from(good).unwrap().as_str(), good);
        }
        for bad in [
            "",
            "a\n",
            "\u{1b}[2J",
            "\t",
            "é",
            "\u{202e}",
            &"x".repeat(65),
        ] {
            let refused = WindowName::try_from(bad).unwrap_err();
            assert_eq!(
                refused.to_string(),
                "expected 1 to 64 visible ASCII characters and spaces"
            );
        }
    }

    proptest! {
        #[test]
        fn no_label_holds_what_is_not_visible(text: String) {
            if let Ok(label) = ModelName::try_from(text.as_str()) {
                prop_assert!(label.as_str().bytes().all(|byte| (0x20..0x7f).contains(&byte)));
            }
        }
    }
}
