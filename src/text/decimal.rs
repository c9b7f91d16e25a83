//! Decimal numbers as floating-point ones.

/// The longest number that is read, in bytes: nobody means one that is longer, and a worker serves nobody meanwhile.
const MAX_BYTES: usize = 1024;

/// Reads a number as the standard library does but for the last bit of one with more than 15 digits; what is infinite there
/// for its name, or is no number or one of more than [`MAX_BYTES`], is none here. The library's own reader takes 16 KiB of the filter, and serde_json's is in it
/// anyway.
pub(crate) fn decimal(text: &str) -> Option<f64> {
    if text.len() > MAX_BYTES {
        return None;
    }
    let is_negative = text.starts_with('-');
    let number = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (number, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let power = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
    let are_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let is_empty = whole.is_empty() && fraction.is_empty() || power.is_empty();
    if is_empty || ![whole, fraction, power].into_iter().all(are_digits) {
        return None;
    }
    // JSON has no zeros before a number, and a digit on each side of a dot.
    let whole = match whole.trim_start_matches('0') {
        "" => "0",
        whole => whole,
    };
    let dot = if fraction.is_empty() { "" } else { "." };
    let json = [whole, dot, fraction, "e", exponent].concat();
    // All that is left to refuse is one that is too large.
    let value: f64 = serde_json::from_str(&json).unwrap_or(f64::INFINITY);
    Some(if is_negative { -value } else { value })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_are_what_the_library_reads() {
        for text in [
            "0",
            "-0",
            "+7",
            "7.",
            ".7",
            "007",
            "-00.70",
            "0.7",
            "1.0",
            "1e3",
            "1E+3",
            "25e-1",
            "1e400",
            "-1e400",
            "1e-400",
            "0e99999999999999999999",
            "1e99999999999999999999",
            "1e-99999999999999999999",
            "1700000000.123",
            "1000000000000000000000",
            "9007199254740993",
            "1.0000000000000002",
            "18446744073709551616",
        ] {
            let read = text.parse::<f64>().unwrap();
            let found = decimal(text).unwrap();
            assert_eq!(found.to_bits(), read.to_bits(), "{text}");
        }
    }

    #[test]
    fn what_is_no_number_is_none() {
        for text in [
            "", ".", "-", "+-1", "-+1", "1.2.3", "1e", "1e+", "1e+-1", "e5", "1e5.0", "1 ", " 1",
            "inf", "NaN", "0x1", "1_0", "٣",
        ] {
            assert_eq!(decimal(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn fifteen_digits_are_exact(number in 0..1_000_000_000_000_000_u64, dot in 0..22_i64) {
            let digits = number.to_string();
            let (whole, fraction) = digits.split_at(digits.len() / 2);
            for text in [
                format!("{whole}.{fraction}"), format!("-{number}e{dot}"), format!("{number}e-{dot}"), format!("00{number}"),
            ] {
                prop_assert_eq!(decimal(&text), text.parse().ok(), "{}", text);
            }
        }

        #[test]
        fn what_the_library_reads_is_read_so_but_for_the_last_bits(
            text in "[-+]?[0-9]{0,24}[.]?[0-9]{0,24}([eE][-+]?[0-9]{0,3})?",
        ) {
            match (decimal(&text), text.parse::<f64>()) {
                (Some(found), Ok(read)) if read.is_finite() && read.abs() > 1e-300 => {
                    prop_assert!((found / read - 1.0).abs() < 1e-15, "{text}: {found} {read}");
                }
                (found, read) => prop_assert_eq!(found.is_some(), read.is_ok(), "{}", text),
            }
        }
    }
}
