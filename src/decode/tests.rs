//! The laws of decoding. gzip is written by zlib-rs; zstd by ruzstd, by hand, and by libzstd at its
//! levels (`tests/fixtures/coded`). `fuzz/targets/decode.rs` tries the same with libzstd itself.

use std::io::Write;

use crc::{CRC_32_ISO_HDLC, Crc};
use flate2::{Compression, GzBuilder, write::GzEncoder};
use proptest::prelude::*;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};

use super::*;

/// Decodes a body, and says how large the steps were.
fn decoded(coding: Coding, coded: &[u8]) -> Result<Vec<u8>, Fault> {
    let mut decoder = Decoder::new(coding, coded.to_vec());
    let mut body = Vec::new();
    while let Some(bytes) = decoder.step()? {
        assert!(bytes.len() <= STEP_BYTES);
        body.extend_from_slice(bytes);
    }
    assert!(body.len() <= MAX_DECODED_BYTES);
    Ok(body)
}

/// A gzip member of these pieces, with a flush after each.
fn gzip(pieces: &[&[u8]], level: u32) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(level));
    for piece in pieces {
        encoder.write_all(piece).unwrap();
        encoder.flush().unwrap();
    }
    encoder.finish().unwrap()
}

/// A zstd frame with a checksum.
fn zstd(body: &[u8]) -> Vec<u8> {
    compress_to_vec(body, CompressionLevel::Fastest)
}

/// A zstd frame without a checksum, of these pieces as they are, or as runs where they are runs.
fn blocks(pieces: &[&[u8]], says_length: bool) -> Vec<u8> {
    const MAX_BLOCK_BYTES: usize = 128 * 1024;
    let length: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
    let flags = if says_length { 0b1100_0000 } else { 0 };
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, flags, 10 << 3];
    if says_length {
        frame.extend(length.to_le_bytes());
    }
    for block in pieces
        .iter()
        .flat_map(|piece| piece.chunks(MAX_BLOCK_BYTES))
    {
        let is_run = block.iter().all(|byte| *byte == block[0]);
        let header = u32::try_from(block.len()).unwrap() << 3 | u32::from(is_run) << 1;
        frame.extend(&header.to_le_bytes()[..3]);
        frame.extend(if is_run { &block[..1] } else { block });
    }
    frame.extend([1, 0, 0]);
    frame
}

/// A skippable frame.
fn skippable(content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap();
    [
        &0x184d_2a57_u32.to_le_bytes(),
        &length.to_le_bytes(),
        content,
    ]
    .concat()
}

/// A body of text, of noise, and of long runs, in pieces.
fn any_pieces() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let piece = prop_oneof![
        "[ -~]{0,300}".prop_map(String::into_bytes),
        prop::collection::vec(any::<u8>(), 0..3_000),
        (any::<u8>(), 1..200_000_usize).prop_map(|(byte, length)| vec![byte; length]),
        ("[a-z\"{}:, ]{1,60}", 1..600_usize).prop_map(|(text, times)| text.repeat(times).into()),
    ];
    prop::collection::vec(piece, 0..6)
}

/// A way to write a body.
#[derive(Debug, Clone, Copy)]
enum Written {
    Gzip { level: u32 },
    Zstd,
    Blocks { says_length: bool },
}

fn any_written() -> impl Strategy<Value = Written> {
    prop_oneof![
        (0..=9_u32).prop_map(|level| Written::Gzip { level }),
        Just(Written::Zstd),
        any::<bool>().prop_map(|says_length| Written::Blocks { says_length }),
    ]
}

impl Written {
    fn coding(self) -> Coding {
        match self {
            Self::Gzip { .. } => Coding::Gzip,
            Self::Zstd | Self::Blocks { .. } => Coding::Zstd,
        }
    }

    fn write(self, pieces: &[Vec<u8>]) -> Vec<u8> {
        let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
        match self {
            Self::Gzip { level } => gzip(&pieces, level),
            Self::Zstd => zstd(&pieces.concat()),
            Self::Blocks { says_length } => blocks(&pieces, says_length),
        }
    }

    /// Returns true if every bit of the content is under a checksum.
    fn has_checksum(self) -> bool {
        !matches!(self, Self::Blocks { .. })
    }
}

proptest! {
    #[test]
    fn what_was_written_is_read(pieces in any_pieces(), written in any_written(), times in 1..3_usize) {
        // Several members or frames are one body.
        let body = pieces.concat().repeat(times);
        let coded = written.write(&pieces).repeat(times);
        prop_assert_eq!(decoded(written.coding(), &coded), Ok(body));
    }

    #[test]
    fn what_was_cut_is_refused(pieces in any_pieces(), written in any_written(), at: prop::sample::Index) {
        let coded = written.write(&pieces);
        let cut = &coded[..at.index(coded.len())];
        prop_assert_eq!(decoded(written.coding(), cut), Err(Fault::EndsEarly));
    }

    #[test]
    fn what_follows_is_refused(pieces in any_pieces(), written in any_written(), more in prop::collection::vec(any::<u8>(), 1..40)) {
        let mut coded = written.write(&pieces);
        coded.extend(&more);
        prop_assert!(decoded(written.coding(), &coded).is_err());
    }

    #[test]
    fn a_bit_that_flips_changes_nothing_or_is_refused(
        pieces in any_pieces(), written in any_written(), at: prop::sample::Index, bit in 0..8_u8,
    ) {
        let mut coded = written.write(&pieces);
        let at = at.index(coded.len());
        coded[at] ^= 1 << bit;
        let decoded = decoded(written.coding(), &coded);
        // Without a checksum another frame is as good as this one.
        if written.has_checksum() && let Ok(decoded) = decoded {
            prop_assert!(decoded == pieces.concat(), "{} bytes of {}", decoded.len(), pieces.concat().len());
        }
    }

    #[test]
    fn no_bytes_do_harm(start in prop::sample::select(vec![
        &b""[..], b"\x1f\x8b\x08\0\0\0\0\0\0\xff", b"\x28\xb5\x2f\xfd", b"\x28\xb5\x2f\xfd\x04\x58", b"\x50\x2a\x4d\x18",
    ]), rest: Vec<u8>) {
        let bytes = [start, &rest].concat();
        for coding in [Coding::Gzip, Coding::Zstd] {
            let _ = decoded(coding, &bytes);
        }
    }
}

#[test]
fn the_attacks_of_old_are_read_whole_or_refused() {
    let letters = vec![b'a'; 200_000];
    assert_eq!(
        decoded(Coding::Gzip, &gzip(&[&letters], 9)),
        Ok(letters.clone())
    );

    let run = vec![b'x'; 3_000_000];
    let pieces: [&[u8]; 3] = [b"{\"model\":\"gpt-5.6\",\"input\":\"", &run, b"\"}"];
    let coded = include_bytes!("../../tests/fixtures/coded/run.zst");
    assert!(decoded(Coding::Zstd, coded).is_ok_and(|body| body == pieces.concat()));

    let coded = gzip(&[b"some text that is not long"], 6);
    let cut = &coded[..coded.len() - 12];
    assert_eq!(decoded(Coding::Gzip, cut), Err(Fault::EndsEarly));
    for coding in [Coding::Gzip, Coding::Zstd] {
        assert_eq!(decoded(coding, b"{\"model\":\"m\"}"), Err(Fault::Malformed));
        assert_eq!(decoded(coding, b""), Err(Fault::EndsEarly));
    }
}

#[test]
fn a_window_is_bounded_before_it_is_reserved() {
    // A window of 128 MiB, and one raw block that is not there yet.
    let huge = [0x28, 0xb5, 0x2f, 0xfd, 0, 0x88];
    assert_eq!(decoded(Coding::Zstd, &huge), Err(Fault::Window));
    let descriptor = |byte: u8| [&[0x28, 0xb5, 0x2f, 0xfd, 0, byte], &[1, 0, 0][..]].concat();
    // 8 MiB, and an eighth more.
    assert_eq!(decoded(Coding::Zstd, &descriptor(13 << 3)), Ok(Vec::new()));
    assert_eq!(
        decoded(Coding::Zstd, &descriptor(13 << 3 | 1)),
        Err(Fault::Window)
    );
    assert_eq!(decoded(Coding::Zstd, &descriptor(0xff)), Err(Fault::Window));
}

#[test]
fn what_libzstd_writes_is_read_but_for_windows_that_need_a_flag() {
    macro_rules! fixture {
        ($name:literal) => {
            (
                $name,
                include_bytes!(concat!("../../tests/fixtures/coded/", $name)).as_slice(),
            )
        };
    }
    let body = fixture!("body.json").1;
    for (name, coded) in [
        fixture!("fast.zst"),
        fixture!("level1.zst"),
        fixture!("level3.zst"),
        fixture!("level9.zst"),
        fixture!("level19.zst"),
        fixture!("flushed.zst"),
    ] {
        assert!(
            decoded(Coding::Zstd, coded).is_ok_and(|found| found == body),
            "{name}"
        );
        for end in [1, 5, coded.len() / 2, coded.len() - 1] {
            let cut = &coded[..end];
            assert_eq!(
                decoded(Coding::Zstd, cut),
                Err(Fault::EndsEarly),
                "{name} {end}"
            );
        }
    }
    let (_, long) = fixture!("long.zst");
    assert_eq!(decoded(Coding::Zstd, long), Err(Fault::Window));
}

#[test]
fn a_body_of_too_many_bytes_is_refused() {
    let most = vec![0; MAX_DECODED_BYTES];
    let more = vec![0; MAX_DECODED_BYTES + 1];
    for says_length in [true, false] {
        let coded = blocks(&[&most], says_length);
        assert!(decoded(Coding::Zstd, &coded).is_ok_and(|body| body == most));
        let coded = blocks(&[&more], says_length);
        assert_eq!(decoded(Coding::Zstd, &coded), Err(Fault::TooLarge));
    }
    let coded = gzip(&[&most], 6);
    assert!(decoded(Coding::Gzip, &coded).is_ok_and(|body| body == most));
    assert_eq!(
        decoded(Coding::Gzip, &gzip(&[&more], 6)),
        Err(Fault::TooLarge)
    );
    let twice = [coded.as_slice(), &gzip(&[b"x"], 6)].concat();
    assert_eq!(decoded(Coding::Gzip, &twice), Err(Fault::TooLarge));
}

#[test]
fn all_that_a_gzip_header_may_hold_is_passed_over() {
    let mut encoder = GzBuilder::new()
        .extra(vec![1, 2, 3])
        .filename("body.json")
        .comment("from a client")
        .mtime(7)
        .write(Vec::new(), Compression::fast());
    encoder.write_all(b"body").unwrap();
    let coded = encoder.finish().unwrap();
    assert_eq!(decoded(Coding::Gzip, &coded), Ok(b"body".to_vec()));

    // A checksum of the header, right and wrong, and a flag that no version has.
    let mut coded = gzip(&[b"body"], 6);
    coded[3] = HEADER_SUM;
    let sum =
        u16::try_from(Crc::<u32>::new(&CRC_32_ISO_HDLC).checksum(&coded[..10]) & 0xffff).unwrap();
    coded.splice(10..10, sum.to_le_bytes());
    assert_eq!(decoded(Coding::Gzip, &coded), Ok(b"body".to_vec()));
    coded[10] ^= 1;
    assert_eq!(decoded(Coding::Gzip, &coded), Err(Fault::Checksum));
    coded[3] = 0x20;
    assert_eq!(decoded(Coding::Gzip, &coded), Err(Fault::Malformed));
}

#[test]
fn a_gzip_header_that_has_no_end_is_not_searched() {
    for (length, fault) in [(1_000, Fault::EndsEarly), (70_000, Fault::Malformed)] {
        let mut coded = gzip(&[b""], 6)[..10].to_vec();
        coded[3] = 8;
        coded.resize(length, b'x');
        assert_eq!(decoded(Coding::Gzip, &coded), Err(fault));
    }
}

/// The flag of a gzip header that has a checksum.
const HEADER_SUM: u8 = 2;

#[test]
fn a_member_sees_nothing_of_the_one_before_it() {
    // A match that reaches before the start of its own member.
    let first = gzip(&[b"secret"], 6);
    let reaching = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff, 0x03, 0x12, 0x00];
    let body = decoded(
        Coding::Gzip,
        &[first.as_slice(), &reaching, &[0; 8]].concat(),
    );
    assert!(body.is_err(), "{body:?}");
}

#[test]
fn frames_may_be_skipped_and_lengths_must_be_true() {
    let frame = zstd(b"body");
    let skipped = [
        skippable(b"metadata").as_slice(),
        &frame,
        &skippable(b""),
        &frame,
    ]
    .concat();
    assert_eq!(decoded(Coding::Zstd, &skipped), Ok(b"bodybody".to_vec()));
    let cut = &skippable(b"metadata")[..12];
    assert_eq!(decoded(Coding::Zstd, cut), Err(Fault::EndsEarly));

    // One segment of four bytes, one raw block of them, without a checksum.
    let raw = |flags: u8, length: u8| {
        let header = [0x28, 0xb5, 0x2f, 0xfd, 0x20 | flags, length];
        [&header[..], &[4 << 3 | 1, 0, 0], b"body"].concat()
    };
    assert_eq!(decoded(Coding::Zstd, &raw(0, 4)), Ok(b"body".to_vec()));
    assert_eq!(decoded(Coding::Zstd, &raw(0, 5)), Err(Fault::Checksum));
    assert_eq!(
        decoded(Coding::Zstd, &raw(8, 4)),
        Err(Fault::Malformed),
        "reserved"
    );
    let dictionary = [&[0x28, 0xb5, 0x2f, 0xfd, 0x21, 7, 4], &raw(0, 4)[6..]].concat();
    assert_eq!(decoded(Coding::Zstd, &dictionary), Err(Fault::Dictionary));
}

#[test]
fn what_takes_work_and_makes_nothing_ends_a_step_too() {
    let members = gzip(&[b""], 6).repeat(20_000);
    let frames = blocks(&[], false).repeat(20_000);
    for (coding, coded) in [(Coding::Gzip, members), (Coding::Zstd, frames)] {
        let length = coded.len();
        let mut decoder = Decoder::new(coding, coded);
        let mut steps = 0;
        while let Some(bytes) = decoder.step().unwrap() {
            assert!(bytes.is_empty());
            steps += 1;
        }
        assert!(
            steps >= length / (2 * STEP_CODED_BYTES),
            "{steps} steps for {length} bytes"
        );
    }
}

#[test]
fn a_block_of_zstd_has_no_more_literals_than_a_block_may_make() {
    for (length, is_fine) in [
        (128 * 1024, true),
        (128 * 1024 + 1, false),
        (0xf_ffff, false),
    ] {
        // A window of 8 MiB; one compressed block: a run of literals, and no sequences.
        let literals = (u32::try_from(length).unwrap() << 4 | 0b1101).to_le_bytes();
        let mut coded = vec![0x28, 0xb5, 0x2f, 0xfd, 0, 13 << 3, 5 << 3 | 0b101, 0, 0];
        coded.extend([literals[0], literals[1], literals[2], b'x', 0]);
        let wanted = is_fine.then(|| vec![b'x'; length]);
        assert!(
            decoded(Coding::Zstd, &coded) == wanted.ok_or(Fault::Malformed),
            "{length}"
        );
    }
}

#[test]
fn codings_are_read_as_the_header_lists_them() {
    let of = |values: &[&str]| Coding::of(values.iter().map(|value| value.as_bytes()));
    for plain in [
        &[][..],
        &[""],
        &["identity"],
        &[" Identity , "],
        &["", "identity"],
    ] {
        assert_eq!(of(plain), Ok(None), "{plain:?}");
    }
    for gzip in [
        &["gzip"][..],
        &["GZIP"],
        &["x-gzip"],
        &["identity, gzip"],
        &["", "gzip"],
    ] {
        assert_eq!(of(gzip), Ok(Some(Coding::Gzip)), "{gzip:?}");
    }
    assert_eq!(of(&[" zStd\t"]), Ok(Some(Coding::Zstd)));
    for unknown in [
        &["br"][..],
        &["deflate"],
        &["gzip, zstd"],
        &["gzip", "gzip"],
        &["gzip;q=1"],
        &["gz\u{fc}p"],
    ] {
        assert_eq!(of(unknown), Err(UnknownCoding), "{unknown:?}");
    }
}
