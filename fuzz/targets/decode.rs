//! Laws: a compressed body is decoded in bounded steps, to no more than what a request may have, or refused; it is what
//! the reference decoder of its format makes of it. What a reference encoder wrote is read; cut, it is refused; with a
//! flipped bit it is refused or the same, where all of it is under a checksum.
#![no_main]

use std::io::{Read, Write};

use latchkey::decode::{Coding, Decoder, Fault, MAX_DECODED_BYTES, STEP_BYTES};
use latchkey_fuzz::{byte, pieces};
use libfuzzer_sys::fuzz_target;

fn decoded(coding: Coding, coded: &[u8]) -> Result<Vec<u8>, Fault> {
    let mut decoder = Decoder::new(coding, coded.to_vec());
    let mut body = Vec::new();
    while let Some(bytes) = decoder.step()? {
        assert!(bytes.len() <= STEP_BYTES);
        body.extend_from_slice(bytes);
        assert!(body.len() <= MAX_DECODED_BYTES);
    }
    Ok(body)
}

/// The output of the reference decoder; none where it refuses.
fn expected(coding: Coding, coded: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    let limit = MAX_DECODED_BYTES as u64 + 1;
    let read = match coding {
        Coding::Gzip => flate2::read::MultiGzDecoder::new(coded)
            .take(limit)
            .read_to_end(&mut body),
        Coding::Zstd => {
            let decoder = zstd::Decoder::new(coded).expect("memory");
            decoder.take(limit).read_to_end(&mut body)
        }
    };
    read.ok().map(|_| body)
}

/// `data` as one body, by the reference encoder of that coding with these settings, and whether all of it is under a
/// checksum.
fn written(coding: Coding, settings: u8, pieces: &[&[u8]]) -> (Vec<u8>, bool) {
    match coding {
        Coding::Gzip => {
            let level = flate2::Compression::new(u32::from(settings) % 10);
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
            for piece in pieces {
                encoder.write_all(piece).expect("memory");
                encoder.flush().expect("memory");
            }
            (encoder.finish().expect("memory"), true)
        }
        Coding::Zstd => {
            let mut encoder =
                zstd::Encoder::new(Vec::new(), i32::from(settings) % 23 - 3).expect("memory");
            let checksum = settings & 0x80 == 0;
            encoder.include_checksum(checksum).expect("a setting");
            for piece in pieces {
                encoder.write_all(piece).expect("memory");
                encoder.flush().expect("memory");
            }
            (encoder.finish().expect("memory"), checksum)
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let mut data = data;
    let kind = byte(&mut data);
    let coding = match kind & 1 {
        0 => Coding::Gzip,
        _ => Coding::Zstd,
    };
    if kind & 2 == 0 {
        // Where both read it, both read the same. Each refuses some that the other takes: a file without a
        // frame, padding, a frame of a version of long ago.
        if let (Ok(body), Some(expected)) = (decoded(coding, data), expected(coding, data)) {
            assert!(
                body == expected,
                "{} and {} bytes",
                body.len(),
                expected.len()
            );
        }
        return;
    }
    let (settings, bit, cut) = (byte(&mut data), byte(&mut data), byte(&mut data));
    let pieces = pieces(data, [byte(&mut &data[..]), 7, 200]);
    let (mut coded, has_checksum) = written(coding, settings, &pieces);
    assert_eq!(decoded(coding, &coded).as_deref(), Ok(data));
    let at = usize::from(cut) * coded.len() / 256;
    assert_eq!(decoded(coding, &coded[..at]), Err(Fault::EndsEarly));
    coded[at] ^= 1 << (bit & 7);
    if let Ok(body) = decoded(coding, &coded) {
        assert!(body == data || !has_checksum);
    }
});
