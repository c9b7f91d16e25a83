//! Compressed bodies, as small as their formats allow.

/// A gzip file (RFC 1952) of one stored block.
pub fn gzip(plain: &[u8]) -> Vec<u8> {
    let length = u16::try_from(plain.len()).expect("a small body");
    let mut file = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff, 1];
    file.extend(length.to_le_bytes());
    file.extend((!length).to_le_bytes());
    file.extend(plain);
    file.extend(crc32(plain).to_le_bytes());
    file.extend(u32::from(length).to_le_bytes());
    file
}

/// The checksum of RFC 1952 §8.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            (sum >> 1) ^ (0xedb8_8320 * (sum & 1))
        })
    })
}

/// A Zstandard frame (RFC 8878) of one raw block.
pub fn zstd(plain: &[u8]) -> Vec<u8> {
    const SINGLE_SEGMENT_LENGTH_OF_4_BYTES: u8 = 0b1010_0000;
    let length = u32::try_from(plain.len()).expect("a small body");
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, SINGLE_SEGMENT_LENGTH_OF_4_BYTES];
    frame.extend(length.to_le_bytes());
    frame.extend(&((length << 3) | 1).to_le_bytes()[..3]);
    frame.extend(plain);
    frame
}
