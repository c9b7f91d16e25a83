//! Numbers as text, for what is written of every request.

/// The most digits that a number has.
const MOST_DIGITS: usize = 20;

/// Writes a number behind a text, in a fifth of the steps that formatting takes.
pub(super) fn push_number(text: &mut String, number: u64) {
    let mut digits = [b'0'; MOST_DIGITS];
    let (mut rest, mut length) = (number, 0_usize);
    for digit in digits.iter_mut().rev() {
        // Below ten, so it is one byte.
        *digit = b'0' | u8::try_from(rest % 10).unwrap_or_default();
        rest /= 10;
        length = length.saturating_add(1);
        if rest == 0 {
            break;
        }
    }
    let start = MOST_DIGITS.saturating_sub(length);
    let digits = digits.get(start..).unwrap_or_default();
    text.push_str(str::from_utf8(digits).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_number_is_written_as_it_is_displayed(number: u64, bits in 0_u32..64) {
            let number = number >> bits;
            let mut text = "x=".to_owned();
            push_number(&mut text, number);
            prop_assert_eq!(text, format!("x={number}"));
        }
    }

    #[test]
    fn the_least_and_the_most_are_written_whole() {
        for number in [0, 9, 10, u64::MAX] {
            let mut text = String::new();
            push_number(&mut text, number);
            assert_eq!(text, number.to_string());
        }
    }
}
