//! Numbers as people write them: `10k`, `5M`, `10_000`. The parsers of flags say what was expected and what was found.

use std::fmt::Display;
use std::str::FromStr;

/// The whole number that `text` stands for: digits, `_` between them, and `k`, `M` or `G` for thousands, millions and
/// billions, which may follow a fraction (`1.5M`).
pub fn whole(text: &str) -> Option<u64> {
    let (digits, factor) = match text.chars().last()? {
        'k' | 'K' => (&text[..text.len() - 1], 1_000),
        'm' | 'M' => (&text[..text.len() - 1], 1_000_000),
        'g' | 'G' => (&text[..text.len() - 1], 1_000_000_000),
        _ => (text, 1_u64),
    };
    let (before, after) = digits.split_once('.').unwrap_or((digits, ""));
    let has_point = digits.contains('.');
    if has_point && !after.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let is_number = before.starts_with(|first: char| first.is_ascii_digit())
        && before
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'_')
        && !before.ends_with('_');
    if !is_number || (has_point && after.is_empty()) {
        return None;
    }
    let whole: u64 = before.replace('_', "").parse().ok()?;
    let places = u32::try_from(after.len()).ok()?;
    let fraction: u64 = if after.is_empty() {
        0
    } else {
        after.parse().ok()?
    };
    let scaled = fraction.checked_mul(factor)?;
    let divisor = 10_u64.checked_pow(places)?;
    if scaled % divisor != 0 {
        return None;
    }
    whole.checked_mul(factor)?.checked_add(scaled / divisor)
}

/// A parser of a number from `least` to `most`.
pub fn within<T: TryFrom<u64>>(
    least: u64,
    most: u64,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static {
    move |text| {
        let number = whole(text).filter(|number| (least..=most).contains(number));
        let number = number.and_then(|number| T::try_from(number).ok());
        number.ok_or_else(|| format!("expected a number from {least} to {most}; found {text:?}"))
    }
}

/// Reads a value by its own grammar; `expected` says what that is.
pub fn parsed<T: FromStr>(text: &str, expected: impl Display) -> Result<T, String> {
    text.parse()
        .map_err(|_| format!("expected {expected}; found {text:?}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn people_write_numbers_in_many_ways() {
        for (text, number) in [
            ("7", 7),
            ("10k", 10_000),
            ("10K", 10_000),
            ("5M", 5_000_000),
            ("1.5M", 1_500_000),
            ("0.5k", 500),
            ("2g", 2_000_000_000),
            ("10_000", 10_000),
            ("1_000_000", 1_000_000),
        ] {
            assert_eq!(whole(text), Some(number), "{text}");
        }
        for wrong in [
            "",
            "k",
            "-1",
            "+1",
            "1.5",
            "1.",
            ".5k",
            "1.0005k",
            "1 000",
            "1,000",
            "_1",
            "1_",
            "1kk",
            "0x10",
            "é",
            "99999999999999999999",
            "99999999999G",
        ] {
            assert_eq!(whole(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_parser_says_what_was_expected_and_found() {
        let port = within::<u16>(1, 65_535);
        assert_eq!(port("8080"), Ok(8_080));
        for wrong in ["abc", "0", "65536", "-1"] {
            let said = format!("expected a number from 1 to 65535; found {wrong:?}");
            assert_eq!(port(wrong), Err(said));
        }
    }

    proptest! {
        #[test]
        fn nothing_typed_makes_it_panic(text in ".{0,30}") {
            let _ = whole(&text);
        }

        #[test]
        fn plain_digits_mean_themselves(number: u64) {
            prop_assert_eq!(whole(&number.to_string()), Some(number));
        }
    }
}
