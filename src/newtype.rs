//! Types that are text of a certain form, and the errors of text that is not.
//!
//! A type says what fits in a private `check`; the rest is the same for each of them.

/// Gives a tuple struct around a text its conversions. It needs `fn check(&str) -> Result<(),
/// $error>` in an `impl` of its own.
macro_rules! checked_text {
    ($($name:ident $(<$max:ident>)?, $error:ty;)+) => {$(
        impl $(<const $max: usize>)? $name $(<$max>)? {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl $(<const $max: usize>)? TryFrom<String> for $name $(<$max>)? {
            type Error = $error;

            fn try_from(text: String) -> Result<Self, $error> {
                Self::check(&text).map(|()| Self(text.into()))
            }
        }

        impl $(<const $max: usize>)? From<$name $(<$max>)?> for String {
            fn from(text: $name $(<$max>)?) -> Self {
                text.as_str().to_owned()
            }
        }

        impl $(<const $max: usize>)? std::fmt::Debug for $name $(<$max>)? {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Debug::fmt(self.as_str(), f)
            }
        }
    )+};
}

/// Lets those types be made of borrowed text too.
macro_rules! checked_str {
    ($($name:ident $(<$max:ident>)?, $error:ty;)+) => {$(
        impl $(<const $max: usize>)? TryFrom<&str> for $name $(<$max>)? {
            type Error = $error;

            fn try_from(text: &str) -> Result<Self, $error> {
                Self::check(text).map(|()| Self(text.into()))
            }
        }
    )+};
}

/// Defines the error of a text that does not fit, which says what was expected.
macro_rules! invalid_text {
    ($(#[$doc:meta])* $name:ident, $($expected:tt)+) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct $name;

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, $($expected)+)
            }
        }

        impl std::error::Error for $name {}
    };
}

pub(crate) use {checked_str, checked_text, invalid_text};
