//! Bytes as hexadecimal digits.

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Lower-case hex of `bytes`.
pub fn encode(bytes: &[u8]) -> String {
    let digit = |value: u8| DIGITS.get(usize::from(value)).copied().map(char::from);
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.filter_map(digit).collect()
}

/// The `N` bytes that `text` spells in hex of either case; none where it spells other than `N`.
pub fn decode<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if text.len() != N.checked_mul(2)? {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        let [high, low] = pair else { return None };
        let digit = |digit: u8| (digit as char).to_digit(16);
        *byte = u8::try_from(digit(*high)? << 4 | digit(*low)?).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_goes_both_ways() {
        let all: Vec<u8> = (0..=255).collect();
        let text = encode(&all);
        assert_eq!(&text[..8], "00010203");
        assert_eq!(&text[504..], "fcfdfeff");
        assert_eq!(decode::<256>(text.as_bytes()).unwrap(), *all);
        assert_eq!(decode::<256>(text.to_uppercase().as_bytes()).unwrap(), *all);
    }

    #[test]
    fn what_is_no_hex_of_that_length_is_nothing() {
        for text in ["", "0", "000", "0g", "+1", "é"] {
            assert_eq!(decode::<1>(text.as_bytes()), None, "{text}");
        }
    }
}
